//! Files to compress: every dtype in every awkward shape, random ones, large ones, fixtures, models.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use safetensors::tensor::Dtype;

use super::values::Values;
use crate::tensors::{self, Tensor};

/// A safetensors file to check.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) tensors: Vec<Tensor>,
    /// Whether more settings than the usual one are tried with every number of threads.
    pub(crate) all_threads: bool,
}

/// Every element type of safetensors.
pub(crate) const DTYPES: [Dtype; 22] = [
    Dtype::BOOL,
    Dtype::U8,
    Dtype::I8,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::F8_E5M2FNUZ,
    Dtype::F8_E4M3FNUZ,
    Dtype::I16,
    Dtype::U16,
    Dtype::F16,
    Dtype::BF16,
    Dtype::I32,
    Dtype::U32,
    Dtype::F32,
    Dtype::F64,
    Dtype::I64,
    Dtype::U64,
    Dtype::C64,
    Dtype::F4,
    Dtype::F6_E2M3,
    Dtype::F6_E3M2,
];

/// Shapes at the borders of lanes (64), groups of rows (16), superblocks, and what is too small for them.
const SHAPES: &[&[usize]] = &[
    &[],
    &[0],
    &[0, 5],
    &[5, 0],
    &[3, 0, 7],
    &[1],
    &[2],
    &[15],
    &[16],
    &[17],
    &[63],
    &[64],
    &[65],
    &[127],
    &[128],
    &[129],
    &[2047],
    &[2048],
    &[2049],
    &[4097],
    &[1, 1],
    &[1, 63],
    &[1, 65],
    &[1, 2049],
    &[1, 4161],
    &[15, 1],
    &[64, 1],
    &[2049, 1],
    &[4161, 1],
    &[15, 17],
    &[16, 128],
    &[17, 129],
    &[33, 64],
    &[63, 65],
    &[64, 63],
    &[64, 64],
    &[65, 64],
    &[65, 127],
    &[129, 127],
    &[16, 1023],
    &[1025, 5],
    &[200, 48],
    &[66, 192],
    &[1, 64, 64],
    &[3, 33, 65],
    &[5, 64, 16],
    &[1, 1, 1, 1],
    &[2, 2, 32, 33],
    &[3, 1, 5, 17],
];

/// One file per dtype with every shape of the list; values take turns, another one first for each dtype.
pub(crate) fn edges(seed: u64) -> Result<Vec<Source>> {
    let file = |(d, &dtype): (usize, &Dtype)| {
        let tensor = |(s, shape): (usize, &&[usize])| {
            // Shapes come in runs of a kind; a step prime to the number of kinds spreads them.
            let values = Values::ALL[(s * 5 + d) % Values::ALL.len()];
            make(format!("{s:02}.{values:?}"), dtype, shape, values, seed ^ (d * 1000 + s) as u64)
        };
        source(format!("edges-{dtype}"), SHAPES.iter().enumerate().map(tensor).collect(), true)
    };
    DTYPES.iter().enumerate().map(file).collect()
}

/// `cases` files of random tensors. The same seed gives the same files.
pub(crate) fn random(cases: u32, seed: u64) -> Result<Vec<Source>> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &key));
    let near = |step: usize, most: usize| {
        (1..=most / step, -1isize..=1).prop_map(move |(n, off)| (n * step).saturating_add_signed(off))
    };
    let length = || prop_oneof![1usize..20, near(16, 160), near(64, 256), 1usize..200].boxed();
    let shape = prop_oneof![
        4 => [length(), length()].prop_map(|s| s.to_vec()),
        1 => near(64, 6000).prop_map(|n| vec![n]),
        1 => near(64, 6000).prop_map(|n| vec![1, n]),
        1 => near(64, 6000).prop_map(|n| vec![n, 1]),
        2 => (1usize..6, length(), 1usize..66).prop_map(|(a, b, c)| vec![a, b, c]),
        1 => (1usize..4, 1usize..4, length(), 1usize..66).prop_map(|(a, b, c, d)| vec![a, b, c, d]),
    ];
    let tensor = (select(&DTYPES[..]), shape, select(&Values::ALL[..]), any::<u64>());
    let file = vec(tensor, 8..40);
    (0..cases)
        .map(|case| {
            let tree = file.new_tree(&mut runner).map_err(|why| anyhow!("no case {case}: {why}"))?;
            let tensors = tree.current().into_iter().enumerate();
            let tensors = tensors.map(|(i, (dtype, shape, values, seed))| {
                make(format!("{i:02}.{values:?}"), dtype, &shape, values, seed)
            });
            source(format!("random-{case}"), tensors.collect(), true)
        })
        .collect()
}

/// Tensors that are encoded a few chunks at a time, and tensors of many chunks.
pub(crate) fn large(seed: u64) -> Result<Source> {
    let tensors = vec![
        make("bf16".into(), Dtype::BF16, &[2100, 2049], Values::Scaled, seed),
        make("f32".into(), Dtype::F32, &[130, 16_500], Values::ZeroLow, seed),
        make("i8".into(), Dtype::I8, &[1025, 2049], Values::Smooth, seed),
        make("u8.long".into(), Dtype::U8, &[1_300_001], Values::Repeating, seed),
        make("i64".into(), Dtype::I64, &[150_001], Values::Distinct, seed),
    ];
    source("large".into(), tensors, false)
}

/// The safetensors files of a folder, by name.
pub(crate) fn folder(folder: &Path, all_threads: bool) -> Result<Vec<Source>> {
    paths(folder)?.iter().map(|path| read(path, all_threads)).collect()
}

/// Where the safetensors files of a folder are, by name.
pub(crate) fn paths(folder: &Path) -> Result<Vec<PathBuf>> {
    let items = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = items.map(|item| Ok(item?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "safetensors"));
    paths.sort();
    Ok(paths)
}

/// A file as it is.
pub(crate) fn read(path: &Path, all_threads: bool) -> Result<Source> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let tensors = tensors::parse(&bytes).with_context(|| format!("{}", path.display()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Source { name, bytes, tensors, all_threads })
}

/// A source of the tensors, in the order in which safetensors writes them.
pub(crate) fn source(name: String, tensors: Vec<Tensor>, all_threads: bool) -> Result<Source> {
    let bytes = tensors::serialize(&tensors)?;
    let tensors = tensors::parse(&bytes)?;
    Ok(Source { name, bytes, tensors, all_threads })
}

/// A tensor of about this shape: elements below a byte get a last dimension that makes whole bytes.
fn make(name: String, dtype: Dtype, shape: &[usize], values: Values, seed: u64) -> Tensor {
    let mut shape = shape.to_vec();
    let step = [1, 8, 4, 8, 2, 8, 4, 8][dtype.bitsize() % 8];
    if step > 1 {
        match shape.last_mut() {
            Some(last) => *last = last.next_multiple_of(step),
            None => shape.push(step),
        }
    }
    let data = values.fill(dtype, &shape, seed);
    Tensor { name: format!("{name}.{}", shape_name(&shape)), dtype, shape, data }
}

fn shape_name(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_files_and_another_one_others() {
        let bytes = |seed| random(2, seed).unwrap().into_iter().map(|s| s.bytes).collect::<Vec<_>>();
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }

    #[test]
    fn every_dtype_meets_every_kind_of_value_in_a_tensor_that_has_lanes() {
        for source in edges(0).unwrap() {
            for values in Values::ALL {
                let name = format!(".{values:?}.");
                let largest = source.tensors.iter().filter(|t| t.name.contains(&name)).map(|t| t.data.len()).max();
                assert!(largest >= Some(2048 / 2), "{} {values:?} {largest:?}", source.name);
            }
        }
    }
}
