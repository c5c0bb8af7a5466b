//! Bytes to directory. Checks only what the encoding itself demands; `validate.rs` checks the meaning.

use std::collections::BTreeMap;

use super::{ChunkEntry, Directory, FileEntry, Segment, TensorEntry};
use crate::wire::WireReader;
use crate::{Blob, BlobCoding, DtypeCode, Extent, Result};

pub(super) const SEGMENT_STORED: u8 = 0;
pub(super) const SEGMENT_ZSTD: u8 = 1;
pub(super) const SEGMENT_TENSOR: u8 = 2;

pub(super) fn decode(bytes: &[u8], file_offset: u64) -> Result<Directory> {
    let mut input = WireReader::new(bytes, file_offset);
    let directory = Directory {
        tensors: section(&mut input, "tensors", 1, |section| tensor(section.record("tensor entry")?))?,
        files: section(&mut input, "files", 1, |section| file(section.record("file entry")?))?,
        pool: section(&mut input, "pool", 1, |section| Ok(section.bytes("pool blob")?.to_vec()))?,
        metadata: metadata(&mut input)?,
    };
    input.finish_record("directory")?;
    Ok(directory)
}

/// A record that holds a count and that many items of at least `min_len` bytes each.
fn section<'a, T>(
    input: &mut WireReader<'a>,
    what: &str,
    min_len: usize,
    item: impl FnMut(&mut WireReader<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut section = input.record(what)?;
    let items = list(&mut section, what, min_len, item)?;
    section.finish_record(what)?;
    Ok(items)
}

fn list<'a, T>(
    input: &mut WireReader<'a>,
    what: &str,
    min_len: usize,
    mut item: impl FnMut(&mut WireReader<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = input.count(min_len, what)?;
    // An entry is larger in memory than in the file; a vector that grows costs memory only for entries that are there.
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(item(input)?);
    }
    Ok(items)
}

fn metadata(input: &mut WireReader<'_>) -> Result<BTreeMap<String, String>> {
    let mut section = input.record("metadata")?;
    let mut metadata = BTreeMap::new();
    for _ in 0..section.count(2, "metadata")? {
        let at = section.clone();
        let key = section.str("metadata key")?;
        let value = section.str("metadata value")?;
        if metadata.last_key_value().is_some_and(|(last, _): (&String, _)| last.as_str() >= key) {
            return Err(at.corrupt("metadata keys do not ascend"));
        }
        metadata.insert(key.to_owned(), value.to_owned());
    }
    section.finish_record("metadata")?;
    Ok(metadata)
}

fn tensor(mut input: WireReader<'_>) -> Result<TensorEntry> {
    let entry = TensorEntry {
        name: input.str("tensor name")?.to_owned(),
        dtype: DtypeCode(input.u8("dtype")?),
        shape: list(&mut input, "shape", 1, |input| input.varint("dimension"))?,
        mode: input.u8("mode")?,
        params: input.bytes("mode parameters")?.to_vec(),
        decoded_len: input.varint("decoded length")?,
        payload: extent(&mut input, "payload")?,
        index: extent(&mut input, "index")?,
        index_crc32: input.u32("index CRC")?,
        crc32_compressed: input.u32("payload CRC")?,
        crc32_decoded: input.u32("tensor CRC")?,
        chunks: list(&mut input, "chunks", 10, |input| {
            Ok(ChunkEntry {
                len: input.varint("chunk length")?,
                crc32_compressed: input.u32("chunk CRC")?,
                decoded_len: input.varint("decoded chunk length")?,
                crc32_decoded: input.u32("decoded chunk CRC")?,
            })
        })?,
    };
    if input.is_empty() {
        return Ok(entry);
    }
    input.finish_record(&format!("tensor `{}`", entry.name))?;
    Ok(entry)
}

fn file(mut input: WireReader<'_>) -> Result<FileEntry> {
    let entry = FileEntry {
        path: input.str("file path")?.to_owned(),
        len: input.varint("file length")?,
        crc32: input.u32("file CRC")?,
        segments: list(&mut input, "segments", 2, segment)?,
    };
    if input.is_empty() {
        return Ok(entry);
    }
    input.finish_record(&format!("file `{}`", entry.path))?;
    Ok(entry)
}

fn segment(input: &mut WireReader<'_>) -> Result<Segment> {
    let at = input.clone();
    match input.u8("segment kind")? {
        kind @ (SEGMENT_STORED | SEGMENT_ZSTD) => {
            let extent = extent(input, "literal")?;
            let (coding, decoded_len) = if kind == SEGMENT_ZSTD {
                (BlobCoding::Zstd, input.varint("decoded literal length")?)
            } else {
                (BlobCoding::Stored, extent.len)
            };
            Ok(Segment::Literal(Blob { extent, decoded_len, coding, crc32_decoded: input.u32("literal CRC")? }))
        }
        SEGMENT_TENSOR => {
            let index = input.varint("tensor index")?;
            let index = u32::try_from(index).map_err(|_| at.corrupt("tensor index is out of range"))?;
            Ok(Segment::Tensor { index })
        }
        _ => Err(at.corrupt("unknown segment kind")),
    }
}

fn extent(input: &mut WireReader<'_>, what: &str) -> Result<Extent> {
    Ok(Extent { offset: input.varint(what)?, len: input.varint(what)? })
}
