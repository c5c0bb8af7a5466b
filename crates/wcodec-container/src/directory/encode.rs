//! Directory to bytes. `decode.rs` is its mirror.

use super::{Directory, FileEntry, Segment, TensorEntry};
use crate::wire::WireWriter;
use crate::{BlobCoding, Extent};

pub(super) fn encode(directory: &Directory) -> Vec<u8> {
    let mut out = WireWriter::default();
    out.record(|section| {
        section.varint(directory.tensors.len() as u64);
        directory.tensors.iter().for_each(|entry| section.record(|out| tensor(out, entry)));
    });
    out.record(|section| {
        section.varint(directory.files.len() as u64);
        directory.files.iter().for_each(|entry| section.record(|out| file(out, entry)));
    });
    out.record(|section| {
        section.varint(directory.pool.len() as u64);
        directory.pool.iter().for_each(|blob| section.bytes(blob));
    });
    out.record(|section| {
        section.varint(directory.metadata.len() as u64);
        for (key, value) in &directory.metadata {
            section.bytes(key.as_bytes());
            section.bytes(value.as_bytes());
        }
    });
    out.into_bytes()
}

fn tensor(out: &mut WireWriter, entry: &TensorEntry) {
    out.bytes(entry.name.as_bytes());
    out.u8(entry.dtype.0);
    out.varint(entry.shape.len() as u64);
    entry.shape.iter().for_each(|&dim| out.varint(dim));
    out.u8(entry.mode);
    out.bytes(&entry.params);
    out.varint(entry.decoded_len);
    extent(out, entry.payload);
    extent(out, entry.index);
    out.u32(entry.index_crc32);
    out.u32(entry.crc32_compressed);
    out.u32(entry.crc32_decoded);
    out.varint(entry.chunks.len() as u64);
    for chunk in &entry.chunks {
        out.varint(chunk.len);
        out.u32(chunk.crc32_compressed);
        out.varint(chunk.decoded_len);
        out.u32(chunk.crc32_decoded);
    }
}

fn file(out: &mut WireWriter, entry: &FileEntry) {
    out.bytes(entry.path.as_bytes());
    out.varint(entry.len);
    out.u32(entry.crc32);
    out.varint(entry.segments.len() as u64);
    for segment in &entry.segments {
        match *segment {
            Segment::Literal(blob) => {
                out.u8(match blob.coding {
                    BlobCoding::Stored => super::decode::SEGMENT_STORED,
                    BlobCoding::Zstd => super::decode::SEGMENT_ZSTD,
                });
                extent(out, blob.extent);
                if blob.coding == BlobCoding::Zstd {
                    out.varint(blob.decoded_len);
                }
                out.u32(blob.crc32_decoded);
            }
            Segment::Tensor { index } => {
                out.u8(super::decode::SEGMENT_TENSOR);
                out.varint(u64::from(index));
            }
        }
    }
}

fn extent(out: &mut WireWriter, extent: Extent) {
    out.varint(extent.offset);
    out.varint(extent.len);
}
