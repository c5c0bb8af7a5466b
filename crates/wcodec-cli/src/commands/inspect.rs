//! `wcodec inspect`.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::{Value, json};
use wcodec::{Archive, Tensor};

use super::open;
use crate::output::{self, safe};
use crate::summary::{Summary, join, mode_name, ratio, stored_bytes};
use crate::units::size;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The archive.
    input: PathBuf,
    /// Show this tensor, chunk by chunk.
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    tensor: Option<String>,
    /// List all tensors.
    #[arg(long)]
    all: bool,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let archive = open(&args.input)?;
    match (&args.tensor, args.json) {
        (Some(name), false) => output::print(&tensor_text(&archive.tensor(name)?)),
        (Some(name), true) => output::print_json(&tensor_json(&archive.tensor(name)?)),
        (None, false) => output::print(&archive_text(args, &archive)),
        (None, true) => output::print_json(&archive_json(args, &archive)),
    }
}

fn archive_text(args: &Args, archive: &Archive) -> String {
    let container = archive.container();
    let (directory, trailer) = (container.directory(), container.trailer());
    let mut text = format!(
        "{}: format {}, {} file(s), directory {} ({} decoded), {} shared table(s)\n",
        args.input.display(),
        container.version(),
        directory.files.len(),
        size(trailer.directory.len),
        size(trailer.decoded_len),
        directory.pool.len(),
    );
    for file in &directory.files {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "  {} {} crc32 {:08x}", safe(&file.path), size(file.len), file.crc32);
    }
    text.push_str(&Summary::of_archive(archive).table());
    if args.all {
        let _ = writeln!(text, "\n{:<10} {:<8} {:>11} {:>11} {:>7}  tensor", "dtype", "mode", "raw", "stored", "ratio");
        for (entry, stored) in directory.tensors.iter().zip(stored_bytes(archive)) {
            let _ = writeln!(
                text,
                "{:<10} {:<8} {:>11} {:>11} {:>7.4}  {} {:?}",
                entry.dtype.to_string(),
                mode_name(entry.mode),
                size(entry.decoded_len),
                size(stored),
                ratio(entry.decoded_len, stored),
                safe(&entry.name),
                entry.shape,
            );
        }
    }
    text
}

fn archive_json(args: &Args, archive: &Archive) -> Value {
    let container = archive.container();
    let (directory, trailer) = (container.directory(), container.trailer());
    let files: Vec<Value> = directory
        .files
        .iter()
        .map(|file| json!({ "path": file.path, "bytes": file.len, "crc32": hex(file.crc32) }))
        .collect();
    let mut head = json!({
        "command": "inspect",
        "input": args.input.display().to_string(),
        "version": container.version().to_string(),
        "directory_bytes": trailer.directory.len,
        "directory_decoded_bytes": trailer.decoded_len,
        "tables": directory.pool.len(),
        "file_list": files,
    });
    if args.all {
        let tensors = directory.tensors.iter().zip(stored_bytes(archive));
        head["tensor_list"] = tensors
            .map(|(entry, stored)| {
                json!({
                    "name": entry.name,
                    "dtype": entry.dtype.to_string(),
                    "shape": entry.shape,
                    "mode": mode_name(entry.mode),
                    "decoded_bytes": entry.decoded_len,
                    "stored_bytes": stored,
                })
            })
            .collect();
    }
    join(head, Summary::of_archive(archive).json())
}

fn tensor_text(tensor: &Tensor<'_>) -> String {
    let entry = tensor.entry();
    let mut text = format!(
        "{}\n  dtype            {}\n  shape            {:?}\n  mode             {}\n  raw              {} bytes\n",
        safe(tensor.name()),
        tensor.dtype(),
        tensor.shape(),
        tensor.mode(),
        tensor.byte_len(),
    );
    let _ = writeln!(text, "  payload          {} bytes at {}", entry.payload.len, entry.payload.offset);
    let _ = writeln!(text, "  index            {} bytes at {}", entry.index.len, entry.index.offset);
    let _ = writeln!(text, "  parameters       {} bytes", entry.params.len());
    let _ = writeln!(text, "  ratio            {:.4}", ratio(tensor.byte_len(), tensor.stored_len()));
    if let Some(bits) = bits_per_weight(tensor) {
        let _ = writeln!(text, "  bits per weight  {bits:.3}");
    }
    if let Some(lanes) = tensor.lanes() {
        let [rows, cols] = lanes.classes.map(|some| if some { "classes" } else { "no classes" });
        let _ = writeln!(
            text,
            "  coded            {} of {} bits of a head, {} symbols, {} contexts (rows: {rows}, columns: {cols}), {} tables, P = {}",
            lanes.layout.coded_bits(),
            lanes.layout.bits(),
            lanes.symbols,
            lanes.contexts,
            lanes.tables,
            lanes.table_bits,
        );
        let _ = writeln!(text, "  superblocks      {} rows, of {} columns", lanes.block_rows, lanes.cols);
    }
    let _ = writeln!(text, "  crc32            {:08x} raw, {:08x} stored", entry.crc32_decoded, entry.crc32_compressed);
    let _ = writeln!(text, "  chunks           {}", entry.chunks.len());
    for (extent, chunk) in entry.chunk_extents().zip(&entry.chunks) {
        let _ = writeln!(
            text,
            "    {:>12} bytes at {:<12} {:>12} raw, crc32 {:08x} raw, {:08x} stored",
            chunk.len, extent.offset, chunk.decoded_len, chunk.crc32_decoded, chunk.crc32_compressed,
        );
    }
    text
}

fn tensor_json(tensor: &Tensor<'_>) -> Value {
    let entry = tensor.entry();
    let chunks: Vec<Value> = entry
        .chunk_extents()
        .zip(&entry.chunks)
        .map(|(extent, chunk)| {
            json!({
                "offset": extent.offset,
                "stored_bytes": chunk.len,
                "decoded_bytes": chunk.decoded_len,
                "crc32_stored": hex(chunk.crc32_compressed),
                "crc32_decoded": hex(chunk.crc32_decoded),
            })
        })
        .collect();
    json!({
        "command": "inspect",
        "name": tensor.name(),
        "dtype": tensor.dtype().to_string(),
        "shape": tensor.shape(),
        "mode": tensor.mode().to_string(),
        "decoded_bytes": tensor.byte_len(),
        "stored_bytes": tensor.stored_len(),
        "payload_offset": entry.payload.offset,
        "payload_bytes": entry.payload.len,
        "index_bytes": entry.index.len,
        "parameter_bytes": entry.params.len(),
        "ratio": ratio(tensor.byte_len(), tensor.stored_len()),
        "bits_per_weight": bits_per_weight(tensor),
        "lanes": tensor.lanes().map(|lanes| json!({
            "coded_bits": lanes.layout.coded_bits(),
            "head_bits": lanes.layout.bits(),
            "dropped_bits": lanes.dropped_bits,
            "symbols": lanes.symbols,
            "contexts": lanes.contexts,
            "tables": lanes.tables,
            "table_bits": lanes.table_bits,
            "block_rows": lanes.block_rows,
            "cols": lanes.cols,
            "row_classes": lanes.classes[0],
            "column_classes": lanes.classes[1],
        })),
        "crc32_stored": hex(entry.crc32_compressed),
        "crc32_decoded": hex(entry.crc32_decoded),
        "chunks": chunks,
    })
}

/// Stored bits of an element; `None` where that says nothing: no elements, an unknown type, bytes shared with others.
fn bits_per_weight(tensor: &Tensor<'_>) -> Option<f64> {
    let bits = f64::from(tensor.dtype().bits()?);
    (tensor.byte_len() > 0 && tensor.stored_len() > 0).then(|| bits * ratio(tensor.byte_len(), tensor.stored_len()))
}

/// A CRC-32 as people compare it.
fn hex(crc: u32) -> String {
    format!("{crc:08x}")
}
