//! The `wcodec` command: compress, restore, look into, check and measure checkpoints.

#![deny(unsafe_code)]

mod commands;
mod interrupt;
mod options;
mod output;
mod progress;
mod summary;
mod synth;
mod units;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use commands::{bench, compress, decompress, inspect, verify};
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
    /// Measure encoding and decoding in memory, beside a plain copy.
    Bench(bench::Args),
    /// Write a seeded synthetic safetensors file.
    Synth(synth::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    interrupt::install();
    // An interrupt unwinds, so that temporary files are removed on the way; see `interrupt`.
    match catch_unwind(AssertUnwindSafe(|| run(&cli))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("error: {}", output::chain(&error));
            ExitCode::FAILURE
        }
        Err(payload) if payload.is::<Interrupted>() => {
            eprintln!("interrupted");
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(payload) => resume_unwind(payload),
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Compress(args) => compress::run(args, cli.quiet),
        Command::Decompress(args) => decompress::run(args, cli.quiet),
        Command::Inspect(args) => inspect::run(args),
        Command::Verify(args) => verify::run(args, cli.quiet),
        Command::Bench(args) => bench::run(args, cli.quiet),
        Command::Synth(args) => synth::run(args, cli.quiet),
    }
}
