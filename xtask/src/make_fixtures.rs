//! `cargo xtask make-fixtures`: the slices of real models under fixtures/, cut from target/models/.
//!
//! Fixtures are write-once, because tests and golden files stand on their bytes: a file that is there is compared,
//! never replaced.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::fetch_models::Variant;
use crate::tensors::{self, Tensor};
use crate::workspace;

/// Arguments of `make-fixtures`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_: &Args) -> Result<()> {
    let minilm = tensors::parse(&model("minilm-f32")?)?;
    let layer = minilm_layer(&minilm)?;
    put("minilm-layer-f32", &tensors::serialize(&layer)?)?;
    put("minilm-layer-bf16", &tensors::serialize(&Variant::Bf16.of(&layer)?)?)?;
    put("minilm-layer-int8", &tensors::serialize(&Variant::Int8Row.of(&layer)?)?)?;
    // The whole file is small enough.
    put("silero", &model("silero")?)
}

/// The first `rows` rows of each tensor: enough of each kind of matrix to fill superblocks, in under 3.2 MB of F32.
const SLICES: &[(&str, usize)] = &[
    ("embeddings.position_ids", usize::MAX),
    ("embeddings.word_embeddings.weight", 256),
    ("embeddings.position_embeddings.weight", 128),
    ("encoder.layer.0.attention.self.query.weight", usize::MAX),
    ("encoder.layer.0.attention.self.query.bias", usize::MAX),
    ("encoder.layer.0.attention.output.dense.weight", usize::MAX),
    ("encoder.layer.0.attention.output.dense.bias", usize::MAX),
    ("encoder.layer.0.attention.output.LayerNorm.weight", usize::MAX),
    ("encoder.layer.0.attention.output.LayerNorm.bias", usize::MAX),
    ("encoder.layer.0.intermediate.dense.weight", 384),
    ("encoder.layer.0.intermediate.dense.bias", 384),
    ("encoder.layer.0.output.dense.weight", 96),
    ("encoder.layer.0.output.dense.bias", 96),
];

fn minilm_layer(model: &[Tensor]) -> Result<Vec<Tensor>> {
    SLICES
        .iter()
        .map(|(name, rows)| {
            let tensor = model.iter().find(|tensor| tensor.name == *name);
            tensor.with_context(|| format!("the model has no tensor {name}"))?.first_rows(*rows)
        })
        .collect()
}

fn model(name: &str) -> Result<Vec<u8>> {
    let path = workspace::models_dir().join(format!("{name}.safetensors"));
    fs::read(&path).with_context(|| format!("cannot read {} (cargo xtask fetch-models makes it)", path.display()))
}

fn put(name: &str, bytes: &[u8]) -> Result<()> {
    let path = workspace::root().join("fixtures").join(format!("{name}.safetensors"));
    let state = match fs::read(&path) {
        Ok(present) => {
            ensure!(present == bytes, "{} differs from what would be made; fixtures are write-once", path.display());
            "unchanged"
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            workspace::write_atomic(&path, bytes)?;
            "written"
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    println!("{name:<20} {:>9} bytes  {:08x}  {state}", bytes.len(), crc32fast::hash(bytes));
    Ok(())
}
