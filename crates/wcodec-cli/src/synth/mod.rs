//! `wcodec synth`: safetensors files of any size, the same bytes for the same seed on any number of threads.

mod distribution;
mod dtype;
mod rng;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use wcodec::Progress;

use crate::options::{Threads, name};
use crate::progress::Bar;
use crate::{interrupt, output, units};
use distribution::{Distribution, Field};
use dtype::Dtype;

/// Elements that are drawn from one random stream: small enough to spread over threads.
const BLOCK: u64 = 1 << 16;
/// Blocks, per thread, that are held in memory at a time.
const BLOCKS_AT_ONCE: usize = 16;
/// Tensors of one file: headers of millions of entries are of no use.
const MAX_TENSORS: u64 = 1 << 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The safetensors file to write.
    output: PathBuf,
    /// Shapes that the tensors take in turn, as 4096x4096 or 512x3x3.
    #[arg(long, value_name = "RxC", value_parser = parse_shape, default_value = "1024x1024")]
    shape: Vec<Shape>,
    /// Element type.
    #[arg(long, value_enum, default_value_t = Dtype::Bf16)]
    dtype: Dtype,
    /// Where the values come from.
    #[arg(long, value_enum, default_value_t = Distribution::Gaussian)]
    distribution: Distribution,
    /// Another seed, other values.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Number of tensors [default: one per shape].
    #[arg(long, value_name = "N", conflicts_with = "bytes", value_parser = clap::value_parser!(u64).range(1..=MAX_TENSORS))]
    tensors: Option<u64>,
    /// As many tensors as give at least this size, as 4GB or 512MiB.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    bytes: Option<u64>,
    #[command(flatten)]
    threads: Threads,
    /// Replace an existing file.
    #[arg(long, short)]
    force: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Dimensions of a tensor, outermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape(Vec<u64>);

pub(crate) fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let made = make(args, quiet)?;
    if args.json {
        return output::print_json(&made.json(args));
    }
    if quiet {
        return Ok(());
    }
    let (size, time) = (units::size(made.bytes), units::time(made.elapsed));
    output::print(&format!("{}: {} tensor(s), {size}, {time}\n", args.output.display(), made.tensors))
}

/// What `--json` prints.
pub(crate) fn report(args: &Args, quiet: bool) -> anyhow::Result<Value> {
    Ok(make(args, quiet)?.json(args))
}

/// A file that was written.
struct Made {
    bytes: u64,
    tensors: usize,
    elapsed: Duration,
}

fn make(args: &Args, quiet: bool) -> anyhow::Result<Made> {
    if !args.force && args.output.symlink_metadata().is_ok() {
        bail!("{} already exists", args.output.display());
    }
    args.threads.install(|| {
        let start = Instant::now();
        let shapes = tensor_shapes(args)?;
        let bytes = write(args, &shapes, &Bar::new("writing", quiet))?;
        Ok(Made { bytes, tensors: shapes.len(), elapsed: start.elapsed() })
    })
}

impl Made {
    fn json(&self, args: &Args) -> Value {
        json!({
            "command": "synth",
            "output": args.output.display().to_string(),
            "bytes": self.bytes,
            "tensors": self.tensors,
            "dtype": args.dtype.safetensors_name(),
            "distribution": name(args.distribution),
            "seed": args.seed,
            "seconds": self.elapsed.as_secs_f64(),
        })
    }
}

/// The shape of every tensor.
fn tensor_shapes(args: &Args) -> anyhow::Result<Vec<&Shape>> {
    let sizes: Vec<u64> = args.shape.iter().map(|shape| byte_len(shape, args.dtype)).collect::<anyhow::Result<_>>()?;
    let mut shapes = Vec::new();
    let mut total = 0u64;
    for (shape, size) in args.shape.iter().zip(sizes).cycle() {
        let enough = match (args.bytes, args.tensors) {
            (Some(bytes), _) => total >= bytes && !shapes.is_empty(),
            (None, Some(tensors)) => shapes.len() as u64 == tensors,
            (None, None) => shapes.len() == args.shape.len(),
        };
        if enough {
            break;
        }
        if shapes.len() as u64 == MAX_TENSORS {
            bail!("this would take more than {MAX_TENSORS} tensors: choose a larger shape");
        }
        shapes.push(shape);
        total = total.checked_add(size).context("the file would be larger than files can be")?;
    }
    Ok(shapes)
}

fn byte_len(shape: &Shape, dtype: Dtype) -> anyhow::Result<u64> {
    let elements = shape.0.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
    // Offsets of a file are signed in most interfaces.
    elements
        .and_then(|n| n.checked_mul(dtype.bytes() as u64))
        .filter(|&n| n <= i64::MAX as u64)
        .with_context(|| format!("a tensor of shape {:?} is larger than files can be", shape.0))
}

/// Writes the file under a temporary name and renames it when it is complete; returns its length.
fn write(args: &Args, shapes: &[&Shape], progress: &dyn Progress) -> anyhow::Result<u64> {
    let shown = || format!("cannot write {}", args.output.display());
    let (header, data_len) = header(args, shapes)?;
    let folder = match args.output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".wcodec-").suffix(".partial");
    #[cfg(unix)]
    {
        // Temporary files are private by default; this one becomes an ordinary file (less the umask).
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder).with_context(shown)?;
    progress.start(data_len);
    write_tensors(args, shapes, &header, file.as_file_mut(), progress).with_context(shown)?;
    let kept = if args.force { file.persist(&args.output) } else { file.persist_noclobber(&args.output) };
    kept.map_err(|e| e.error).with_context(shown)?;
    Ok(header.len() as u64 + data_len)
}

/// The header with its length in front, and the bytes of data behind it.
fn header(args: &Args, shapes: &[&Shape]) -> anyhow::Result<(Vec<u8>, u64)> {
    let mut entries = Map::new();
    let mut at = 0u64;
    for (number, shape) in shapes.iter().enumerate() {
        let end = byte_len(shape, args.dtype)?.checked_add(at).context("the file would be larger than files can be")?;
        let entry = json!({ "dtype": args.dtype.safetensors_name(), "shape": shape.0, "data_offsets": [at, end] });
        entries.insert(format!("layers.{number}.weight"), entry);
        at = end;
    }
    let mut json = Value::Object(entries).to_string();
    // The format's own writer pads likewise, so that the data starts at a multiple of 8.
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(json.as_bytes());
    Ok((header, at))
}

fn write_tensors(
    args: &Args,
    shapes: &[&Shape],
    header: &[u8],
    file: &mut File,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(header)?;
    let at_once = (BLOCKS_AT_ONCE * rayon::current_num_threads()) as u64;
    for (number, shape) in shapes.iter().enumerate() {
        let field = Field::new(args.distribution, args.dtype, args.seed, number as u64, &shape.0)?;
        let elements: u64 = shape.0.iter().product();
        let blocks = elements.div_ceil(BLOCK);
        let mut first = 0;
        while first < blocks {
            interrupt::check();
            let batch: Vec<Vec<u8>> = (first..blocks.min(first + at_once))
                .into_par_iter()
                .map(|block| field.block(block, block * BLOCK..elements.min((block + 1) * BLOCK)))
                .collect();
            for bytes in &batch {
                out.write_all(bytes)?;
                progress.advance(bytes.len() as u64);
            }
            first += batch.len() as u64;
        }
    }
    out.flush()?;
    Ok(())
}

fn parse_shape(text: &str) -> Result<Shape, String> {
    let dims: Result<Vec<u64>, _> = text.split('x').map(str::parse).collect();
    dims.map(Shape).map_err(|_| format!("`{text}` is no shape; write it as 4096x4096"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read() {
        assert_eq!(parse_shape("16x3x3"), Ok(Shape(vec![16, 3, 3])));
        assert_eq!(parse_shape("7"), Ok(Shape(vec![7])));
        for text in ["", "x", "4x", "4*4", "-1x2"] {
            assert!(parse_shape(text).is_err(), "{text}");
        }
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert!(byte_len(&Shape(vec![u64::MAX, 2]), Dtype::I8).is_err());
        assert!(byte_len(&Shape(vec![1 << 61]), Dtype::F64).is_err());
        assert_eq!(byte_len(&Shape(vec![3, 5]), Dtype::F32).unwrap(), 60);
    }
}
