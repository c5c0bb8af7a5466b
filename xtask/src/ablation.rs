//! `cargo xtask ablation`: what each step of the encoder gains, as whole files, on real models.

use std::path::PathBuf;

use anyhow::{Context, Result};
use wcodec::{EncodeOptions, Level, ModeChoice, Tuning};

use crate::workspace;

/// Compresses files with one step after another switched on.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Safetensors files; by default the models of `fetch-models`.
    files: Vec<PathBuf>,
}

/// The models that are looked at by default.
const MODELS: [&str; 6] =
    ["minilm-bf16", "minilm-f32", "minilm-fp8", "minilm-int8-tensor", "minilm-int8-row", "silero"];

/// What is on from one row of the table to the next.
fn steps() -> Vec<(&'static str, EncodeOptions)> {
    let mut tuning = Tuning {
        max_contexts: 1,
        max_mantissa_bits: 0,
        refine_classes: false,
        pack_states: false,
        trim_low_bits: false,
        drop_idle_bits: false,
        map_contexts: false,
        pool_small: false,
        share_tables: false,
    };
    let mut options = EncodeOptions { mode: ModeChoice::Float, tuning, overwrite: true, ..EncodeOptions::default() };
    let mut steps = Vec::new();
    let mut step = |name, options: &EncodeOptions| steps.push((name, *options));
    step("exponents (FP8: with mantissa; INT8: symbols), one table a tensor", &options);
    tuning.pack_states = true;
    step("+ raw bits in both ends of every state", &EncodeOptions { tuning, ..options });
    tuning.max_mantissa_bits = 4;
    step("+ up to 3 mantissa bits with the exponent (F16: 4)", &EncodeOptions { tuning, ..options });
    tuning.max_contexts = 16;
    step("+ 8 row and column scale contexts (integers: 8 or 12), by moments", &EncodeOptions { tuning, ..options });
    tuning.refine_classes = true;
    step("+ classes by code length", &EncodeOptions { tuning, ..options });
    tuning.map_contexts = true;
    step("+ or 16 contexts that share four fitted tables", &EncodeOptions { tuning, ..options });
    tuning.trim_low_bits = true;
    step("+ low bits only as far as a row uses them", &EncodeOptions { tuning, ..options });
    tuning.drop_idle_bits = true;
    step("+ heads without low bits that are 0 in the whole tensor", &EncodeOptions { tuning, ..options });
    tuning.pool_small = true;
    step("+ small tensors pooled", &EncodeOptions { tuning, ..options });
    tuning.share_tables = true;
    step("+ tables shared where that is smaller", &EncodeOptions { tuning, ..options });
    options = EncodeOptions { tuning, mode: ModeChoice::Auto, ..options };
    step("+ Zstd and integer modes by size: level `default`", &options);
    step("level `max`", &EncodeOptions { level: Level::Max, ..options });
    step("level `fast`", &EncodeOptions { level: Level::Fast, ..options });
    step("level `default`, 256-row superblocks", &EncodeOptions { superblock_rows: 256, ..options });
    steps
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let files: Vec<PathBuf> = if args.files.is_empty() {
        MODELS.iter().map(|m| workspace::models_dir().join(format!("{m}.safetensors"))).collect()
    } else {
        args.files.clone()
    };
    let folder = workspace::root().join("target").join("ablation");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let name = |file: &PathBuf| file.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    print!("| step |");
    files.iter().for_each(|f| print!(" {} |", name(f)));
    println!();
    println!("|---|{}", "---|".repeat(files.len()));
    for (step, options) in steps() {
        print!("| {step} |");
        for file in &files {
            let archive = folder.join(format!("{}.wcodec", name(file)));
            let report = wcodec::compress(file, &archive, &options, &())
                .with_context(|| format!("{}: is it there? `cargo xtask fetch-models` makes it", file.display()))?;
            print!(" {:.4} |", report.ratio());
        }
        println!();
    }
    Ok(())
}
