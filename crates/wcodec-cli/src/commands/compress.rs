//! `wcodec compress`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use wcodec::{Backend, Device, EncodeOptions, ModeChoice};

use super::{Done, check_distinct};
use crate::options::{Encoding, Threads, parse_frame, parse_rows};
use crate::progress::Bar;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A safetensors file, or a checkpoint folder with everything in it.
    input: PathBuf,
    /// The archive [default: INPUT with .wcodec for .safetensors, or behind a folder's name].
    #[arg(long, short, value_name = "OUT")]
    output: Option<PathBuf>,
    #[command(flatten)]
    encoding: Encoding,
    #[command(flatten)]
    threads: Threads,
    /// Rows of a superblock, 16 to 512 in steps of 16.
    #[arg(long, value_name = "N", default_value_t = EncodeOptions::default().superblock_rows, value_parser = parse_rows)]
    superblock_rows: usize,
    /// Zstd level, 1 to 22 [default: as --level says].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=22))]
    zstd_level: Option<i32>,
    /// Bytes of a Zstd frame before compression [default: 64KiB].
    #[arg(long, value_name = "BYTES", value_parser = parse_frame)]
    zstd_frame: Option<usize>,
    /// What encodes: cpu or, with --mode zstd, cuda, cuda:N (nvCOMP) or auto.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Backend,
    /// Replace an existing archive.
    #[arg(long, short)]
    force: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let output = match &args.output {
        Some(output) => output.clone(),
        None => default_output(&args.input)?,
    };
    check_distinct(&args.input, &output)?;
    let mut options = EncodeOptions {
        superblock_rows: args.superblock_rows,
        zstd_level: args.zstd_level.unwrap_or(0),
        overwrite: args.force,
        ..args.encoding.options()
    };
    if let Some(bytes) = args.zstd_frame {
        options.zstd_frame = bytes;
    }
    let device = encoder(args.device, options.mode).with_context(|| format!("cannot encode on {}", args.device))?;
    args.threads.install(|| {
        let start = Instant::now();
        let report = wcodec::compress_on(&device, &args.input, &output, &options, &Bar::new("compressing", quiet))
            .with_context(|| format!("cannot compress {}", args.input.display()))?;
        Done {
            command: "compress",
            input: &args.input,
            output: Some(&output),
            report: &report,
            threads: rayon::current_num_threads(),
            elapsed: start.elapsed(),
        }
        .print(args.json, quiet)
    })
}

/// The device that encodes; of `auto`, a GPU only for Zstd and where it has nvCOMP.
fn encoder(backend: Backend, mode: ModeChoice) -> wcodec::Result<Device> {
    if backend == Backend::Auto && mode != ModeChoice::Zstd {
        return Ok(Device::Cpu);
    }
    match (backend, backend.open()?) {
        (Backend::Auto, Device::Cuda(device)) if device.nvcomp().is_err() => Ok(Device::Cpu),
        (_, device) => Ok(device),
    }
}

/// `model.safetensors` → `model.wcodec`, `folder/` → `folder.wcodec` beside it.
fn default_output(input: &Path) -> anyhow::Result<PathBuf> {
    if !input.is_dir() {
        return Ok(input.with_extension("wcodec"));
    }
    // `.` and `..` have no name of their own.
    let resolved;
    let folder = if input.file_name().is_some() {
        input
    } else {
        resolved = input.canonicalize().with_context(|| input.display().to_string())?;
        &resolved
    };
    let mut name: OsString = folder.file_name().context("this folder has no name: say --output")?.to_owned();
    name.push(".wcodec");
    Ok(folder.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_lie_beside_their_input() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("llm.v1");
        std::fs::create_dir(&model).unwrap();
        assert_eq!(default_output(&model.join("a.b.safetensors")).unwrap(), model.join("a.b.wcodec"));
        assert_eq!(default_output(&model).unwrap(), folder.path().join("llm.v1.wcodec"));
        assert_eq!(default_output(&model.join("")).unwrap(), folder.path().join("llm.v1.wcodec"));
        let dots = default_output(&model.join("..")).unwrap();
        assert_eq!(dots.extension().unwrap(), "wcodec");
        assert_eq!(dots.parent().unwrap(), folder.path().canonicalize().unwrap().parent().unwrap());
    }
}
