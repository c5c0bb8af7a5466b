//! `wcodec decompress`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use wcodec::Archive;

use super::{Done, check_distinct, open};
use crate::options::{OnDevice, Threads};
use crate::progress::Bar;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The archive.
    input: PathBuf,
    /// Where to restore the file or folder [default: the original name, beside the archive].
    #[arg(long, short, value_name = "OUT")]
    output: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    device: OnDevice,
    /// Replace an existing file. A folder is never replaced.
    #[arg(long, short)]
    force: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let archive = open(&args.input)?;
    let output = match &args.output {
        Some(output) => output.clone(),
        None => default_output(&args.input, &archive)?,
    };
    check_distinct(&args.input, &output)?;
    let device = args.device.open()?;
    args.threads.install(|| {
        let start = Instant::now();
        let report = wcodec::decompress_on(&device, &archive, &output, args.force, &Bar::new("restoring", quiet))
            .with_context(|| format!("cannot restore {}", args.input.display()))?;
        Done {
            command: "decompress",
            input: &args.input,
            output: Some(&output),
            report: &report,
            threads: rayon::current_num_threads(),
            elapsed: start.elapsed(),
        }
        .print(args.json, quiet)
    })
}

/// A file has its name in the archive; a folder's is the archive's own without `.wcodec`.
fn default_output(input: &Path, archive: &Archive) -> anyhow::Result<PathBuf> {
    let directory = archive.container().directory();
    match (directory.metadata.get("kind").map(String::as_str), directory.files.as_slice()) {
        (Some("file"), [file]) => {
            // Whatever the archive says, the file lands beside it.
            let name = Path::new(&file.path).file_name().context("the archive's file has no name: say --output")?;
            Ok(input.with_file_name(name))
        }
        _ => {
            let stem = input.file_stem().filter(|_| input.extension().is_some_and(|e| e == "wcodec"));
            let stem = stem.context("the archive is not called *.wcodec, so the folder has no name: say --output")?;
            Ok(input.with_file_name(stem))
        }
    }
}
