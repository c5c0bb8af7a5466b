//! The `wcodec` command: compress, restore, look into, check and measure checkpoints.
//!
//! A library too, so that other front ends (the Python package) have the same command: [`main`] is all of it, [`call`] is one
//! command as a function.

#![deny(unsafe_code)]

mod commands;
mod interrupt;
mod options;
mod output;
mod progress;
mod summary;
mod synth;
mod units;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use clap::{Parser, Subcommand};
use serde_json::Value;

use commands::{bench, compress, decompress, devices, inspect, quantize, verify};
use interrupt::Interrupted;

/// Lossless compression of neural-network weights.
///
/// Exit status: 0 on success, 1 on failure, 2 for a wrong command line, 130 when interrupted.
#[derive(Parser)]
#[command(name = "wcodec", version)]
struct Cli {
    /// No progress bar, and no summary of what was written or checked.
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compress a safetensors file or a checkpoint folder into one archive.
    Compress(compress::Args),
    /// Restore the file or folder that an archive was made from, byte for byte.
    Decompress(decompress::Args),
    /// Show what an archive holds. Decodes nothing.
    Inspect(inspect::Args),
    /// Decode an archive without writing anything, and compare all its checksums.
    Verify(verify::Args),
    /// List the devices that can decode.
    Devices(devices::Args),
    /// Measure encoding and decoding in memory, beside a plain copy.
    Bench(bench::Args),
    /// LOSSY: turn a file's matrices into INT8 or FP8 codes with scales.
    Quantize(quantize::Args),
    /// Write a seeded synthetic safetensors file.
    Synth(synth::Args),
}

/// Runs the command with `args`, the first of which is the program's name, and returns its exit status. Prints to stdout and stderr,
/// and from then on Ctrl-C stops the command, not the process.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. Nowhere to complain to when stderr is closed.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    interrupt::install();
    // An interrupt unwinds, so that temporary files are removed on the way; see `interrupt`.
    match catch_unwind(AssertUnwindSafe(|| run(&cli))) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            eprintln!("error: {}", output::chain(&error));
            1
        }
        Err(payload) if payload.is::<Interrupted>() => {
            eprintln!("interrupted");
            interrupt::EXIT_CODE
        }
        Err(payload) => resume_unwind(payload),
    }
}

/// What `bench` or `synth` would print as `--json`, given the command's name and arguments. Prints nothing.
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// # let folder = tempfile::tempdir()?;
/// let file = folder.path().join("weights.safetensors");
/// let made = wcodec_cli::call(["synth".into(), "--shape=8x64".into(), file.into()])?;
/// assert_eq!(made["tensors"], 1);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As the command, a wrong argument included.
pub fn call(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Value> {
    let args = [OsString::from("wcodec")].into_iter().chain(args);
    match Cli::try_parse_from(args)?.command {
        Command::Bench(args) => bench::report(&args, true),
        Command::Synth(args) => synth::report(&args, true),
        _ => anyhow::bail!("only `bench` and `synth` can be called"),
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Compress(args) => compress::run(args, cli.quiet),
        Command::Decompress(args) => decompress::run(args, cli.quiet),
        Command::Inspect(args) => inspect::run(args),
        Command::Verify(args) => verify::run(args, cli.quiet),
        Command::Devices(args) => devices::run(args),
        Command::Bench(args) => bench::run(args, cli.quiet),
        Command::Quantize(args) => quantize::run(args, cli.quiet),
        Command::Synth(args) => synth::run(args, cli.quiet),
    }
}
