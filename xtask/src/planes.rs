//! `cargo xtask planes`: how many bits the fields that wcodec stores raw would take by the frequencies of their values.

use std::path::PathBuf;

use anyhow::{Context, Result};
use safetensors::tensor::Dtype;

use crate::{tensors, workspace};

/// Measures raw fields of real models, tensor by tensor.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Safetensors files; by default the models of `fetch-models` that have raw fields.
    files: Vec<PathBuf>,
}

/// The models that are looked at by default.
const MODELS: [&str; 5] = ["minilm-bf16", "minilm-f16", "minilm-f32", "smollm2-bf16", "silero"];
/// Tensors of fewer elements are pooled, not split into fields.
const LEAST_ELEMENTS: usize = 4096;
/// About the bits that a table of its own takes for every value that occurs.
const TABLE_BITS_PER_VALUE: f64 = 8.0;

/// Some bits of every element: so many from `shift` on. The highest bits of a raw field are tested without what is below them.
struct Field {
    dtype: Dtype,
    name: &'static str,
    shift: u32,
    bits: u32,
}

const FIELDS: [Field; 7] = [
    Field { dtype: Dtype::BF16, name: "mantissa bits 4 to 0", shift: 0, bits: 5 },
    Field { dtype: Dtype::BF16, name: "sign", shift: 15, bits: 1 },
    Field { dtype: Dtype::F16, name: "mantissa bits 6 to 0", shift: 0, bits: 7 },
    Field { dtype: Dtype::F32, name: "mantissa bits 20 to 16", shift: 16, bits: 5 },
    Field { dtype: Dtype::F32, name: "second byte", shift: 8, bits: 8 },
    Field { dtype: Dtype::F32, name: "first byte", shift: 0, bits: 8 },
    Field { dtype: Dtype::F32, name: "sign", shift: 31, bits: 1 },
];

/// What one field of a file comes to.
#[derive(Default)]
struct Sum {
    elements: f64,
    bits: f64,
    /// Bits that tables would save in the tensors where they save any.
    saved: f64,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let files: Vec<PathBuf> = if args.files.is_empty() {
        MODELS.iter().map(|m| workspace::models_dir().join(format!("{m}.safetensors"))).collect()
    } else {
        args.files.clone()
    };
    println!("| file | field | bits | all rows | rows that use all bits | to be saved of the file |");
    println!("|---|---|---|---|---|---|");
    for file in &files {
        let bytes = std::fs::read(file)
            .with_context(|| format!("{}: is it there? `cargo xtask fetch-models` makes it", file.display()))?;
        let tensors = tensors::parse(&bytes)?;
        let name = file.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
        for field in &FIELDS {
            let (mut all, mut full) = (Sum::default(), Sum::default());
            for tensor in tensors.iter().filter(|t| t.dtype == field.dtype) {
                measure(field, tensor, &mut all, &mut full);
            }
            if all.elements > 0.0 {
                let bits = |sum: &Sum| sum.bits / sum.elements.max(1.0);
                let saved = 100.0 * full.saved / 8.0 / bytes.len() as f64;
                let (name_of, width) = (field.name, field.bits);
                println!("| {name} | {name_of} | {width} | {:.3} | {:.3} | {saved:.3} % |", bits(&all), bits(&full));
            }
        }
    }
    Ok(())
}

/// Adds a tensor: all of it, and the rows whose elements have their lowest bits in use (the others are stored shorter already).
fn measure(field: &Field, tensor: &tensors::Tensor, all: &mut Sum, full: &mut Sum) {
    let size = tensor.data.len() / tensor.shape.iter().product::<usize>().max(1);
    let cols: usize = tensor.shape.iter().skip(1).product();
    if tensor.shape.len() < 2 || cols == 0 || tensor.data.len() / size.max(1) < LEAST_ELEMENTS {
        return;
    }
    let mut counts = [vec![0u64; 1 << field.bits], vec![0u64; 1 << field.bits]];
    for row in tensor.data.chunks_exact(cols * size) {
        let words = row.chunks_exact(size).map(|e| e.iter().rev().fold(0u32, |word, &b| (word << 8) | u32::from(b)));
        let whole = words.clone().fold(0, |union, word| union | word) & 1 == 1;
        for word in words {
            let value = ((word >> field.shift) & ((1 << field.bits) - 1)) as usize;
            counts[0][value] += 1;
            counts[1][value] += u64::from(whole);
        }
    }
    for (sum, counts) in [all, full].into_iter().zip(counts) {
        let total = counts.iter().sum::<u64>() as f64;
        let used = counts.iter().filter(|&&n| n > 0).count() as f64;
        let bits: f64 = counts.iter().filter(|&&n| n > 0).map(|&n| n as f64 * (total / n as f64).log2()).sum();
        sum.elements += total;
        sum.bits += bits;
        sum.saved += (total * f64::from(field.bits) - bits - TABLE_BITS_PER_VALUE * used).max(0.0);
    }
}
