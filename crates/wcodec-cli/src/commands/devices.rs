//! `wcodec devices`.

use serde_json::{Value, json};
use wcodec::cuda::{CudaError, DeviceInfo};

use crate::{output, units};

/// Lists what `--device` can name.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object instead of a list.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found = wcodec::cuda::devices();
    if args.json { output::print_json(&list_json(threads, &found)) } else { output::print(&list_text(threads, &found)) }
}

fn list_text(threads: usize, found: &Result<Vec<DeviceInfo>, CudaError>) -> String {
    let mut text = format!("cpu     {threads} thread(s)\n");
    match found {
        Ok(devices) if devices.is_empty() => text.push_str("no CUDA device\n"),
        Ok(devices) => devices.iter().for_each(|device| {
            text.push_str(&format!(
                "cuda:{:<2} {}, {}, compute capability {}.{}, {} multiprocessors\n",
                device.ordinal,
                device.name,
                units::size(device.total_memory),
                device.compute_capability.0,
                device.compute_capability.1,
                device.multiprocessors,
            ));
        }),
        Err(reason) => text.push_str(&format!("no CUDA device: {reason}\n")),
    }
    text
}

fn list_json(threads: usize, found: &Result<Vec<DeviceInfo>, CudaError>) -> Value {
    let devices: Vec<Value> = found
        .iter()
        .flatten()
        .map(|device| {
            json!({
                "device": format!("cuda:{}", device.ordinal),
                "name": device.name,
                "memory_bytes": device.total_memory,
                "compute_capability": format!("{}.{}", device.compute_capability.0, device.compute_capability.1),
                "multiprocessors": device.multiprocessors,
            })
        })
        .collect();
    json!({
        "command": "devices",
        "cpu_threads": threads,
        "cuda": devices,
        "reason": found.as_ref().err().map(ToString::to_string),
    })
}
