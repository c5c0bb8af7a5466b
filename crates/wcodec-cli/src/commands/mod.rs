//! The subcommands, a module each.

pub(crate) mod bench;
mod bench_device;
pub(crate) mod compress;
pub(crate) mod decompress;
pub(crate) mod devices;
pub(crate) mod inspect;
pub(crate) mod quantize;
pub(crate) mod verify;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use wcodec::{Archive, DeviceUse, Report};

use crate::summary::{Summary, join};
use crate::{output, units};

/// Opens an archive; errors name it.
fn open(path: &Path) -> anyhow::Result<Archive> {
    Archive::open(path).with_context(|| format!("cannot open the archive {}", path.display()))
}

/// Refuses to replace the input by its own output, which `--force` would otherwise do.
fn check_distinct(input: &Path, output: &Path) -> anyhow::Result<()> {
    // What cannot be resolved does not exist, so it is not the other.
    if let (Ok(input), Ok(output)) = (input.canonicalize(), output.canonicalize())
        && input == output
    {
        bail!("{}: input and output are the same", input.display());
    }
    Ok(())
}

/// What a command did, printed at its end.
struct Done<'a> {
    command: &'static str,
    input: &'a Path,
    output: Option<&'a Path>,
    report: &'a Report,
    threads: usize,
    elapsed: Duration,
}

impl Done<'_> {
    fn print(&self, as_json: bool, quiet: bool) -> anyhow::Result<()> {
        let summary = Summary::of_report(self.report);
        let seconds = self.elapsed.as_secs_f64();
        if as_json {
            let head = json!({
                "command": self.command,
                "input": self.input.display().to_string(),
                "output": self.output.map_or(Value::Null, |path| path.display().to_string().into()),
                "threads": self.threads,
                "seconds": seconds,
                "device": self.report.device.as_ref().map_or("cpu", |device| device.name.as_str()),
                "decoded_by": self.report.device.as_ref().map(|device| {
                    json!({ "kernel": device.by_kernel, "nvcomp": device.by_nvcomp, "copy": device.by_copy, "host": device.by_host })
                }),
            });
            return output::print_json(&join(head, summary.json()));
        }
        if quiet {
            return Ok(());
        }
        let what = match self.output {
            Some(output) => format!("{} -> {}", self.input.display(), output.display()),
            None => format!("{}: every checksum holds", self.input.display()),
        };
        let (time, speed) = (units::time(self.elapsed), units::speed(summary.decoded_bytes(), seconds));
        let threads = if self.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", self.threads) };
        let device = self.report.device.as_ref().map_or_else(String::new, |device| {
            let DeviceUse { name, by_kernel, by_nvcomp, by_copy, by_host, .. } = device;
            let nvcomp = if *by_nvcomp == 0 { String::new() } else { format!("{by_nvcomp} by nvCOMP, ") };
            format!(
                "{name}: {by_kernel} tensor(s) by kernels, {nvcomp}{by_copy} copied, {by_host} decoded on the CPU\n"
            )
        });
        output::print(&format!("{what}\n{}{device}{time}, {speed} of raw bytes, {threads}\n", summary.table()))
    }
}
