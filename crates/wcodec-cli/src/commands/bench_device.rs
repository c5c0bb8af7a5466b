//! `wcodec bench --device`: decoding on a GPU, from locked host memory and from compressed tensors that stay on the device.

use std::path::Path;

use anyhow::Context;
use rayon::prelude::*;
use serde_json::{Value, json};
use wcodec::cuda::{CudaDevice, DecodedBy, DeviceBuffer, DeviceSliceMut, DeviceTensor, Event, LoadReport, Stream};
use wcodec::{Archive, Extent, Tensor};

use super::bench::Times;
use crate::{interrupt, units};

/// Where tensors begin in the output.
const ALIGN: usize = 256;

/// Sizes in bytes, times in seconds.
pub(super) struct OnDevice {
    name: String,
    tensor_bytes: u64,
    compressed_bytes: u64,
    /// Opening every tensor, copying its compressed bytes from locked memory, decoding, comparing checksums.
    load: Times,
    /// Copying the same compressed bytes, and nothing else.
    copy: Times,
    loaded: LoadReport,
    /// Decoding all tensors that stay on the device compressed, in device time.
    resident: Times,
    /// What these take there.
    resident_bytes: u64,
    /// Of these, what was decoded by the CPU.
    host_bytes: u64,
}

pub(super) fn measure(device: &CudaDevice, path: &Path, runs: u16) -> anyhow::Result<OnDevice> {
    let archive = device.read_pinned(path).with_context(|| format!("cannot read {}", path.display()))?;
    let stream = Stream::new(device.context())?;
    let lengths: Vec<usize> = archive.container().directory().tensors.iter().map(|t| t.decoded_len as usize).collect();
    let bytes: usize = lengths.iter().map(|len| len.next_multiple_of(ALIGN)).sum();
    let mut output = DeviceBuffer::new(device.context(), bytes)?;

    let mut loaded = LoadReport::default();
    let all: Vec<usize> = (0..archive.len()).collect();
    let mut load = || -> anyhow::Result<()> {
        let outs = split(&mut output, &lengths)?;
        loaded = device.load_from(&archive, &all, outs, &stream)?;
        Ok(())
    };
    // Once to warm up: kernels are compiled when they are first needed.
    load()?;
    let load = super::bench::time(runs, load)?;

    // Everything up to the directory, in one piece: what the bus can do at best.
    let compressed = Extent { offset: 0, len: archive.container().trailer().directory.offset };
    let compressed = archive.container().bytes(compressed)?;
    let mut target = DeviceBuffer::new(device.context(), compressed.len())?;
    let copy = super::bench::time(runs, || target.copy_from_host(&stream, 0, compressed))?;
    drop(target);

    let resident = device.upload(&tensors(&archive)?, &stream)?;
    let mut seconds = Vec::with_capacity(usize::from(runs));
    let (start, end) = (Event::new(device.context())?, Event::new(device.context())?);
    for run in 0..=runs {
        interrupt::check();
        let outs = split(&mut output, &lengths)?;
        start.record(&stream)?;
        device.decode(resident.iter().zip(outs), &stream)?;
        end.record(&stream)?;
        if run > 0 {
            seconds.push(f64::from(end.elapsed_ms(&start)?) / 1e3);
        }
    }
    device.check(&resident, &stream)?;
    let host = resident.iter().filter(|tensor| tensor.decoded_by() == DecodedBy::Host);
    Ok(OnDevice {
        name: format!("cuda:{} ({})", device.ordinal(), device.name()),
        tensor_bytes: lengths.iter().map(|&len| len as u64).sum(),
        compressed_bytes: compressed.len() as u64,
        load,
        copy,
        loaded,
        resident: Times::of(seconds),
        resident_bytes: resident.iter().map(DeviceTensor::device_bytes).sum(),
        host_bytes: host.map(DeviceTensor::byte_len).sum(),
    })
}

fn tensors(archive: &Archive) -> wcodec::Result<Vec<Tensor<'_>>> {
    (0..archive.len()).into_par_iter().map(|i| archive.tensor_at(i)).collect()
}

/// A part of the output for every tensor.
fn split<'a>(output: &'a mut DeviceBuffer, lengths: &[usize]) -> anyhow::Result<Vec<DeviceSliceMut<'a>>> {
    let mut rest = output.as_slice_mut();
    let mut outs = Vec::with_capacity(lengths.len());
    for &len in lengths {
        let (out, others) = rest.split_at(len.next_multiple_of(ALIGN))?;
        outs.push(out.take(len)?);
        rest = others;
    }
    Ok(outs)
}

impl OnDevice {
    pub(super) fn json(&self) -> Value {
        json!({
            "device": self.name,
            "load_seconds": self.load.median,
            "load_seconds_min": self.load.min,
            "copy_seconds": self.copy.median,
            "copy_seconds_min": self.copy.min,
            "load_over_copy": self.load.median / self.copy.median.max(1e-12),
            "copied_bytes": self.compressed_bytes,
            "resident_decode_seconds": self.resident.median,
            "resident_bytes": self.resident_bytes,
            "host_decoded_bytes": self.host_bytes,
            "decoded_by": {
                "kernel": self.loaded.by_kernel, "copy": self.loaded.by_copy, "host": self.loaded.by_host,
            },
        })
    }

    pub(super) fn text(&self) -> String {
        let line = |what: &str, seconds: f64, bytes: u64| {
            format!("{what:<32} {seconds:>12.6} s  {:>11}\n", units::speed(bytes, seconds))
        };
        let mut text = format!("{}\n", self.name);
        text.push_str(&line("load, locked memory to decoded", self.load.median, self.tensor_bytes));
        text.push_str(&line("copy of the compressed bytes", self.copy.median, self.compressed_bytes));
        text.push_str(&line("decode, compressed on the device", self.resident.median, self.tensor_bytes));
        let ratio = self.load.median / self.copy.median.max(1e-12);
        let beside = self.resident_bytes.saturating_sub(self.compressed_bytes + self.host_bytes) as f64;
        text.push_str(&format!(
            "load is {ratio:.3} of the copy; beside compressed bytes and output {:.2} % of the output\n",
            100.0 * beside / (self.tensor_bytes.max(1) as f64),
        ));
        let LoadReport { by_kernel, by_copy, by_host, .. } = self.loaded;
        text.push_str(&format!("{by_kernel} tensor(s) by kernels, {by_copy} copied, {by_host} decoded on the CPU\n"));
        text
    }
}
