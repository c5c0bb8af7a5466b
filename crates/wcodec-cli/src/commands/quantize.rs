//! `wcodec quantize`.

use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::json;
use wcodec::quant::{QuantizeOptions, QuantizedTensor, QuantizedType, ScaleBlock};

use super::check_distinct;
use crate::options::Threads;
use crate::output::{self, safe};
use crate::progress::Bar;

/// LOSSY. Turns the matrices of a safetensors file into INT8 or FP8 codes with absolute-maximum scales, and says what was lost. The scale
/// of `X` is written beside it as `X_scale`. For trying the path from codes to floats; models to be used deserve a better quantiser.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A safetensors file with tensors in BF16, F16 or F32.
    input: PathBuf,
    /// The safetensors file to write.
    #[arg(long, short, value_name = "OUT")]
    output: PathBuf,
    /// What to quantise to.
    #[arg(long, value_enum, default_value_t = To::Int8)]
    to: To,
    /// What shares a scale: tensor, row (an output channel), or group:N (N elements of a row).
    #[arg(long, value_name = "BLOCK", default_value = "row", value_parser = parse_block)]
    scales: ScaleBlock,
    /// Leave tensors as they are whose names contain this; may be given several times.
    #[arg(long, value_name = "TEXT")]
    skip: Vec<String>,
    #[command(flatten)]
    threads: Threads,
    /// Replace an existing file.
    #[arg(long, short)]
    force: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum To {
    /// Eight-bit integers, −127 to 127.
    Int8,
    /// FP8 with four exponent bits.
    Fp8E4m3,
}

pub(crate) fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    check_distinct(&args.input, &args.output)?;
    let options = QuantizeOptions {
        to: match args.to {
            To::Int8 => QuantizedType::I8,
            To::Fp8E4m3 => QuantizedType::F8E4M3,
        },
        scales: args.scales,
        skip: args.skip.clone(),
        overwrite: args.force,
    };
    let tensors = args.threads.install(|| {
        wcodec::quant::quantize(&args.input, &args.output, &options, &Bar::new("quantising", quiet))
            .with_context(|| format!("cannot quantise {}", args.input.display()))
    })?;
    if args.json {
        let told: Vec<_> = tensors.iter().map(json_of).collect();
        return output::print_json(&json!({
            "command": "quantize",
            "lossy": true,
            "input": args.input.display().to_string(),
            "output": args.output.display().to_string(),
            "tensors": told,
        }));
    }
    if quiet { Ok(()) } else { output::print(&table(args, &tensors)) }
}

fn json_of(tensor: &QuantizedTensor) -> serde_json::Value {
    let loss = tensor.loss.map(|loss| json!({ "max": loss.max, "rms": loss.rms(), "cosine": loss.cosine() }));
    json!({ "name": tensor.name, "dtype": tensor.dtype.to_string(), "shape": tensor.shape, "error": loss })
}

fn table(args: &Args, tensors: &[QuantizedTensor]) -> String {
    let quantised: Vec<_> = tensors.iter().filter_map(|tensor| Some((tensor, tensor.loss?))).collect();
    let width = quantised.iter().map(|(tensor, _)| safe(&tensor.name).chars().count()).max().unwrap_or(0).max(6);
    let mut text = format!("{} -> {} (lossy)\n", args.input.display(), args.output.display());
    text += &format!("{:<width$} {:>16} {:>11} {:>11} {:>9}\n", "tensor", "shape", "max error", "rms error", "cosine");
    for (tensor, loss) in &quantised {
        let shape = tensor.shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x");
        let (max, rms, cosine) = (loss.max, loss.rms(), loss.cosine());
        text += &format!("{:<width$} {shape:>16} {max:>11.3e} {rms:>11.3e} {cosine:>9.6}\n", safe(&tensor.name));
    }
    let whole = quantised.iter().fold(wcodec::quant::Loss::default(), |sum, (_, loss)| sum.and(*loss));
    text += &format!(
        "{} tensor(s) quantised, rms error {:.3e}, cosine {:.6}; {} left as they are\n",
        quantised.len(),
        whole.rms(),
        whole.cosine(),
        tensors.len() - quantised.len()
    );
    text
}

fn parse_block(text: &str) -> Result<ScaleBlock, String> {
    match text {
        "tensor" => Ok(ScaleBlock::Tensor),
        "row" => Ok(ScaleBlock::Row),
        _ => match text.strip_prefix("group:").map(str::parse) {
            Some(Ok(len)) if len > 0 => Ok(ScaleBlock::Group(len)),
            _ => Err("tensor, row, or group:N with N of at least 1".to_owned()),
        },
    }
}
