//! What a directory must fulfil, for readers and writers alike.

use std::collections::HashSet;

use super::path::{find_conflict, validate_path};
use super::{Directory, FileEntry, Segment, TensorEntry};
use crate::{Blob, BlobCoding, CHUNK_ALIGN, Extent, HEADER_LEN, max_decoded_len};

/// Why a directory is invalid; a reader calls it corrupt, a writer a bad argument.
pub(crate) struct Invalid {
    pub(crate) what: String,
    pub(crate) offset: u64,
}

impl Directory {
    /// Checks everything that the directory says about itself and about a payload that ends at `payload_end`.
    pub(super) fn check(&self, payload_end: u64) -> Result<(), Invalid> {
        let invalid = |what: String, offset: u64| Invalid { what, offset };
        for entry in &self.tensors {
            check_tensor(entry, payload_end)
                .map_err(|(what, offset)| invalid(format!("tensor `{}`: {what}", entry.name), offset))?;
        }
        let same_name = self.first_of_same_name();
        let mut used = vec![false; self.tensors.len()];
        for entry in &self.files {
            check_file(entry, &self.tensors, &same_name, payload_end, &mut used)
                .map_err(|(what, offset)| invalid(format!("file `{}`: {what}", entry.path), offset))?;
        }
        let mut names = HashSet::new();
        for (index, entry) in self.tensors.iter().enumerate() {
            if !used[index] && !names.insert(same_name[index]) {
                return Err(invalid(format!("tensor `{}` occurs twice", entry.name), payload_end));
            }
        }
        match find_conflict(self.files.iter().map(|file| file.path.as_str()).collect()) {
            Some((a, b)) => Err(invalid(format!("files `{a}` and `{b}` exclude each other"), payload_end)),
            None => Ok(()),
        }
    }
}

/// What is wrong, and where in the file.
type Fault = (String, u64);

fn check_tensor(entry: &TensorEntry, payload_end: u64) -> Result<(), Fault> {
    let fault = |what: &str, offset| Err((what.to_owned(), offset));
    match entry.dtype.byte_len(&entry.shape) {
        Ok(Some(len)) if len != entry.decoded_len => {
            return fault("decoded length is not that of its shape and dtype", payload_end);
        }
        Ok(_) => {}
        Err(()) => return fault("shape has no whole number of bytes below 2^64", payload_end),
    }
    check_extent(entry.payload, payload_end, "payload")?;
    check_extent(entry.index, payload_end, "index")?;

    if !entry.chunks.is_empty() && !entry.payload.offset.is_multiple_of(CHUNK_ALIGN) {
        return fault("payload is not aligned", entry.payload.offset);
    }
    // `chunk_extents` stops at an overflow, so the count must be compared too.
    let (count, end) = entry.chunk_extents().fold((0, entry.payload.offset), |(count, _), chunk| {
        (count + 1, chunk.offset + chunk.len) // sums that `chunk_extents` has checked
    });
    if count != entry.chunks.len() || Some(end) != entry.payload.end() {
        return fault("chunks do not fill the payload", entry.payload.offset);
    }
    let decoded = entry.chunks.iter().try_fold(0u64, |sum, chunk| sum.checked_add(chunk.decoded_len));
    // Without chunks, the mode finds the bytes in its parameters and the pool.
    if decoded != Some(entry.decoded_len) && !entry.chunks.is_empty() {
        return fault("chunks do not sum to the decoded length", entry.payload.offset);
    }
    Ok(())
}

fn check_file(
    entry: &FileEntry,
    tensors: &[TensorEntry],
    same_name: &[u32],
    payload_end: u64,
    used: &mut [bool],
) -> Result<(), Fault> {
    validate_path(&entry.path).map_err(|why| (why.to_owned(), payload_end))?;
    let mut names = HashSet::new();
    let mut len = Some(0u64);
    for segment in &entry.segments {
        let decoded_len = match *segment {
            Segment::Literal(blob) => {
                check_blob(&blob, payload_end)?;
                blob.decoded_len
            }
            Segment::Tensor { index } => {
                let Some(tensor) = tensors.get(index as usize) else {
                    return Err((format!("there is no tensor {index}"), payload_end));
                };
                if !names.insert(same_name[index as usize]) {
                    return Err((format!("tensor `{}` occurs twice", tensor.name), payload_end));
                }
                used[index as usize] = true;
                tensor.decoded_len
            }
        };
        len = len.and_then(|len| len.checked_add(decoded_len));
    }
    if len != Some(entry.len) {
        return Err(("segments do not sum to the file's length".to_owned(), payload_end));
    }
    Ok(())
}

fn check_blob(blob: &Blob, payload_end: u64) -> Result<(), Fault> {
    check_extent(blob.extent, payload_end, "literal")?;
    let possible = match blob.coding {
        BlobCoding::Stored => blob.decoded_len == blob.extent.len,
        BlobCoding::Zstd => blob.decoded_len <= max_decoded_len(blob.extent.len),
    };
    if possible { Ok(()) } else { Err(("literal has an impossible decoded length".to_owned(), blob.extent.offset)) }
}

/// An extent lies inside the payload; one without bytes may lie anywhere before its end.
fn check_extent(extent: Extent, payload_end: u64, what: &str) -> Result<(), Fault> {
    let starts = extent.is_empty() || extent.offset >= HEADER_LEN;
    if starts && extent.end().is_some_and(|end| end <= payload_end) {
        Ok(())
    } else {
        Err((format!("{what} lies outside the archive's payload"), extent.offset.min(payload_end)))
    }
}
