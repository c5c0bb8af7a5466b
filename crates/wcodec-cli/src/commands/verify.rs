//! `wcodec verify`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;

use super::{Done, open};
use crate::options::{OnDevice, Threads};
use crate::progress::Bar;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The archive.
    input: PathBuf,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    device: OnDevice,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let archive = open(&args.input)?;
    let device = args.device.open()?;
    args.threads.install(|| {
        let start = Instant::now();
        let report = wcodec::verify_on(&device, &archive, &Bar::new("verifying", quiet))
            .with_context(|| format!("{} is damaged", args.input.display()))?;
        Done {
            command: "verify",
            input: &args.input,
            output: None,
            report: &report,
            threads: rayon::current_num_threads(),
            elapsed: start.elapsed(),
        }
        .print(args.json, quiet)
    })
}
