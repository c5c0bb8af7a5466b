//! `wcodec bench`: how fast encoding and decoding are here, beside a plain copy.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, anyhow};
use rayon::prelude::*;
use serde_json::{Value, json};
use wcodec::{Archive, Device, EncodeOptions, TensorData};

use super::bench_device::{self, OnDevice as DeviceTimes};
use super::open;
use crate::options::{Encoding, OnDevice, Threads, name};
use crate::progress::Bar;
use crate::summary::ratio;
use crate::{interrupt, output, units};

/// Bytes that a thread copies at a time in the measured plain copy.
const COPY_BYTES: usize = 1 << 20;

/// Measures in memory; all times are of files in the page cache. Needs twice the size of the tensors in memory.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A safetensors file or folder, or an archive (whose decoding alone is then measured).
    input: PathBuf,
    #[command(flatten)]
    encoding: Encoding,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    device: OnDevice,
    /// How often to measure each time.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let measured = args.threads.install(|| measure(args, quiet))?;
    if args.json { output::print_json(&measured.json(args)) } else { output::print(&measured.text(args)) }
}

/// What `--json` prints.
pub(crate) fn report(args: &Args, quiet: bool) -> anyhow::Result<Value> {
    Ok(args.threads.install(|| measure(args, quiet))?.json(args))
}

/// Sizes in bytes, times in seconds.
struct Measured {
    bytes: u64,
    tensor_bytes: u64,
    compressed_bytes: u64,
    encode: Option<Times>,
    /// From tensors in memory to an archive in memory.
    encode_memory: Option<Times>,
    decode: Times,
    end_to_end: Times,
    memcpy: Times,
    threads: usize,
    /// With `--device`.
    on_device: Option<DeviceTimes>,
}

/// Of some runs, in seconds.
pub(super) struct Times {
    pub(super) min: f64,
    pub(super) median: f64,
}

fn measure(args: &Args, quiet: bool) -> anyhow::Result<Measured> {
    let device = args.device.open()?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let is_archive = args.input.is_file() && args.input.extension().is_none_or(|e| e != "safetensors");
    let made = folder.path().join("bench.wcodec");
    let (path, encode) = if is_archive {
        (args.input.as_path(), None)
    } else {
        let options = EncodeOptions { overwrite: true, ..args.encoding.options() };
        let bar = Bar::new("encoding", quiet);
        let times = time(args.runs, || wcodec::compress(&args.input, &made, &options, &bar).map(drop))
            .with_context(|| format!("cannot compress {}", args.input.display()))?;
        (made.as_path(), Some(times))
    };
    let archive = open(path)?;
    wcodec::verify(&archive, &Bar::new("verifying", quiet))
        .with_context(|| format!("{} is damaged", path.display()))?;
    let lengths: Vec<usize> = archive.container().directory().tensors.iter().map(|t| t.decoded_len as usize).collect();
    let mut decoded = Buffers::new(&lengths)?;
    // Once to warm up; the buffer's pages are there, the caches and the clock follow.
    decode_tensors(&archive, &mut decoded.tensors_mut())?;
    let warm = time(args.runs, || decode_tensors(&archive, &mut decoded.tensors_mut()))?;
    let encode_memory = match encode {
        Some(_) => encode_in_memory(args, &archive, &decoded.tensors())?,
        None => None,
    };
    let end_to_end = time(args.runs, || load(path))?;
    let mut copy = Buffers::new(&lengths)?;
    let memcpy = time(args.runs.max(3), || {
        copy.bytes().par_chunks_mut(COPY_BYTES).zip(decoded.bytes().par_chunks(COPY_BYTES)).for_each(|(to, from)| {
            to.copy_from_slice(from);
        });
        // Without a reader the copy would be dead code.
        std::hint::black_box(&mut copy);
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(Measured {
        bytes: archive.container().directory().files.iter().map(|f| f.len).sum(),
        tensor_bytes: lengths.iter().map(|&len| len as u64).sum(),
        compressed_bytes: archive.container().file_len(),
        encode,
        encode_memory,
        decode: warm,
        end_to_end,
        memcpy,
        threads: rayon::current_num_threads(),
        on_device: match &device {
            Device::Cuda(device) => Some(bench_device::measure(device, path, args.runs)?),
            _ => None,
        },
    })
}

/// Encodes the decoded tensors of an archive into memory; `None` where several files have tensors of one name.
fn encode_in_memory(args: &Args, archive: &Archive, decoded: &[&[u8]]) -> anyhow::Result<Option<Times>> {
    let entries = &archive.container().directory().tensors;
    let names: std::collections::HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    if names.len() < entries.len() {
        return Ok(None);
    }
    let tensors = entries.iter().zip(decoded);
    let tensors: Vec<TensorData<'_>> = tensors
        .map(|(entry, data)| TensorData { name: &entry.name, dtype: entry.dtype, shape: &entry.shape, data })
        .collect();
    let options = args.encoding.options();
    let times = time(args.runs, || {
        let bytes = wcodec::compress_tensors_to_vec(&tensors, &std::collections::BTreeMap::new(), &options, &())?;
        std::hint::black_box(bytes);
        Ok::<_, anyhow::Error>(())
    });
    Ok(Some(times?))
}

/// Prepares the decoders of all tensors, which counts as decoding, and decodes.
fn decode_tensors(archive: &Archive, outs: &mut [&mut [u8]]) -> anyhow::Result<()> {
    let tensors =
        (0..archive.len()).into_par_iter().map(|i| archive.tensor_at(i)).collect::<wcodec::Result<Vec<_>>>()?;
    Ok(wcodec::decode_many(&tensors, outs)?)
}

/// What a loader does: opens the file and decodes every tensor into memory of its own.
fn load(path: &Path) -> anyhow::Result<()> {
    let archive = Archive::open(path)?;
    let lengths = archive.container().directory().tensors.iter().map(|t| t.decoded_len as usize);
    let mut tensors: Vec<Vec<u8>> = lengths.map(|len| vec![0; len]).collect();
    decode_tensors(&archive, &mut tensors.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>())?;
    std::hint::black_box(tensors);
    Ok(())
}

/// One buffer for all tensors, whose pages the system has already given out, each tensor aligned as allocators of tensors align.
struct Buffers {
    buffer: Vec<u8>,
    /// Where the first tensor begins.
    begin: usize,
    lengths: Vec<usize>,
}

impl Buffers {
    /// Bytes that a tensor's address is a multiple of.
    const ALIGN: usize = 64;

    fn new(lengths: &[usize]) -> anyhow::Result<Self> {
        let padded = |len: usize| len.checked_next_multiple_of(Self::ALIGN);
        let len = lengths.iter().try_fold(Self::ALIGN, |sum, &len| sum.checked_add(padded(len)?));
        let len = len.ok_or_else(|| anyhow!("the tensors are larger than memory can be"))?;
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(len).with_context(|| format!("no memory for {len} bytes"))?;
        // Not 0: zeroed memory may be handed out without pages behind it.
        buffer.resize(len, 1);
        let begin = buffer.as_ptr().align_offset(Self::ALIGN);
        Ok(Self { buffer, begin, lengths: lengths.to_vec() })
    }

    fn bytes(&mut self) -> &mut [u8] {
        let len = self.buffer.len() - Self::ALIGN;
        &mut self.buffer[self.begin..self.begin + len]
    }

    fn tensors_mut(&mut self) -> Vec<&mut [u8]> {
        let mut rest = &mut self.buffer[self.begin..];
        let mut tensors = Vec::with_capacity(self.lengths.len());
        for &len in &self.lengths {
            let (tensor, tail) = rest.split_at_mut(len.next_multiple_of(Self::ALIGN));
            tensors.push(&mut tensor[..len]);
            rest = tail;
        }
        tensors
    }

    fn tensors(&self) -> Vec<&[u8]> {
        let mut at = self.begin;
        let tensor = |&len: &usize| {
            let tensor = &self.buffer[at..at + len];
            at += len.next_multiple_of(Self::ALIGN);
            tensor
        };
        self.lengths.iter().map(tensor).collect()
    }
}

/// Times `runs` runs of `work`.
pub(super) fn time<E>(runs: u16, mut work: impl FnMut() -> Result<(), E>) -> Result<Times, E> {
    let mut seconds = Vec::with_capacity(usize::from(runs));
    for _ in 0..runs {
        interrupt::check();
        let start = Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(Times::of(seconds))
}

impl Times {
    /// Of at least one run.
    pub(super) fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let middle = seconds.len() / 2;
        let median =
            if seconds.len() % 2 == 1 { seconds[middle] } else { (seconds[middle - 1] + seconds[middle]) / 2.0 };
        Self { min: seconds[0], median }
    }
}

impl Measured {
    fn json(&self, args: &Args) -> Value {
        let of_encoding = |value: String| self.encode.as_ref().map(|_| value);
        json!({
            "command": "bench",
            "file": args.input.display().to_string(),
            "bytes": self.bytes,
            "tensor_bytes": self.tensor_bytes,
            "compressed_bytes": self.compressed_bytes,
            "ratio": ratio(self.bytes, self.compressed_bytes),
            "encode_seconds": self.encode.as_ref().map(|t| t.median),
            "encode_memory_seconds": self.encode_memory.as_ref().map(|t| t.median),
            "decode_seconds": self.decode.median,
            "decode_seconds_min": self.decode.min,
            "end_to_end_seconds": self.end_to_end.median,
            "memcpy_seconds": self.memcpy.median,
            "level": of_encoding(name(args.encoding.level)),
            "mode": of_encoding(name(args.encoding.mode)),
            "threads": self.threads,
            "runs": args.runs,
            "on_device": self.on_device.as_ref().map(DeviceTimes::json),
        })
    }

    fn text(&self, args: &Args) -> String {
        let mut text = format!(
            "{}: {} -> {}, ratio {:.4}, {} thread(s), {} run(s)\n",
            args.input.display(),
            units::size(self.bytes),
            units::size(self.compressed_bytes),
            ratio(self.bytes, self.compressed_bytes),
            self.threads,
            args.runs,
        );
        let mut line = |what: &str, seconds: f64, bytes: u64| {
            text.push_str(&format!("{what:<32} {:>12.6} s  {:>11}\n", seconds, units::speed(bytes, seconds)));
        };
        if let Some(encode) = &self.encode {
            line("encode, file to file", encode.median, self.bytes);
        }
        if let Some(encode) = &self.encode_memory {
            line("encode, memory to memory", encode.median, self.tensor_bytes);
        }
        line("decode, warm buffer", self.decode.median, self.tensor_bytes);
        line("decode, warm buffer, fastest", self.decode.min, self.tensor_bytes);
        line("open and decode, new memory", self.end_to_end.median, self.tensor_bytes);
        line("memcpy of the same bytes", self.memcpy.median, self.tensor_bytes);
        text.push_str(&format!("decode is {:.2} of memcpy\n", self.memcpy.median / self.decode.median.max(1e-12)));
        if let Some(device) = &self.on_device {
            text.push_str(&device.text());
        }
        text
    }
}
