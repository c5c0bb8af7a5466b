//! Plain mode, for tensors too small for lanes: byte planes, each through the single-state coder. Pooled mode: the smallest ones
//! coded together, as one blob of the directory's pool.
//!
//! For float types the top byte pair is first rotated left by one bit, which puts the whole exponent into one plane.

use std::ops::Range;

use wcodec_container::DtypeCode;

use crate::error::{Error, Result};
use crate::wire::{Cursor, put_coded, put_varint};

/// Largest tensor of this mode, in bytes.
pub(crate) const MAX_BYTES: usize = 256 << 10;

/// Bytes of an element whose planes are separated, and whether its top 16 bits (8 for one byte) are rotated.
fn planes(dtype: DtypeCode) -> (usize, bool) {
    match dtype.bits() {
        Some(8) => (1, false),
        Some(16) => (2, matches!(dtype, DtypeCode::BF16 | DtypeCode::F16)),
        Some(32) => (4, dtype == DtypeCode::F32),
        Some(64) => (8, dtype == DtypeCode::F64),
        _ => (1, false),
    }
}

/// Up to here adaptive codes may be tried.
const SHORT: usize = 1 << 10;

/// Encodes a whole tensor as one chunk.
pub(crate) fn encode(data: &[u8], dtype: DtypeCode) -> Vec<u8> {
    let (n, rotate) = planes(dtype);
    let mut rotated = data.to_vec();
    if rotate {
        rotate_heads(&mut rotated, n, 1);
    }
    let mut out = Vec::new();
    for plane in 0..n {
        put_coded(&mut out, &rotated.iter().skip(plane).step_by(n).copied().collect::<Vec<u8>>());
    }
    out
}

/// As [`encode`], if that may take no more than `most` bytes: no table codes a plane in less than its entropy.
pub(crate) fn encode_within(data: &[u8], dtype: DtypeCode, most: u64) -> Option<Vec<u8>> {
    let (n, rotate) = planes(dtype);
    // Short data may be coded without a table, wide floats are rotated first.
    if n == 1 && !rotate && data.len() > SHORT {
        let mut counts = [[0u32; 256]; 2];
        let [a, b] = &mut counts;
        let (pairs, rest) = data.as_chunks::<2>();
        for &[i, j] in pairs {
            a[usize::from(i)] += 1;
            b[usize::from(j)] += 1;
        }
        rest.iter().for_each(|&i| a[usize::from(i)] += 1);
        let counts = a.iter().zip(b).map(|(a, b)| f64::from(*a + *b)).filter(|&n| n > 0.0);
        let bits: f64 = counts.map(|n| n * (data.len() as f64 / n).log2()).sum();
        if bits / 8.0 > most as f64 {
            return None;
        }
    }
    Some(encode(data, dtype))
}

/// Decodes the tensor's only chunk into `out`.
pub(crate) fn decode(tensor: &str, dtype: DtypeCode, bytes: &[u8], offset: u64, out: &mut [u8]) -> Result<()> {
    let mut cursor = Cursor::new(bytes, tensor, offset);
    decode_planes(&mut cursor, dtype, out)?;
    cursor.finish()
}

/// The planes of a chunk as they are coded, and whether heads are rotated: what a GPU takes.
#[cfg(feature = "cuda")]
pub(crate) fn packed_planes<'a>(
    tensor: &'a str,
    dtype: DtypeCode,
    bytes: &'a [u8],
    offset: u64,
    len: usize,
) -> Result<(Vec<&'a [u8]>, bool)> {
    let mut cursor = Cursor::new(bytes, tensor, offset);
    let (n, rotate) = planes(dtype);
    if len > MAX_BYTES || !len.is_multiple_of(n) {
        return cursor.corrupt("plain mode: length");
    }
    let packed = (0..n).map(|_| cursor.packed()).collect::<Result<_>>()?;
    cursor.finish()?;
    Ok((packed, rotate))
}

fn decode_planes(cursor: &mut Cursor<'_>, dtype: DtypeCode, out: &mut [u8]) -> Result<()> {
    let (n, rotate) = planes(dtype);
    if out.len() > MAX_BYTES || !out.len().is_multiple_of(n) {
        return cursor.corrupt("plain mode: length");
    }
    let coded = cursor.coded_all(&vec![out.len() / n; n])?;
    for (plane, coded) in coded.into_iter().enumerate() {
        for (byte, value) in out.iter_mut().skip(plane).step_by(n).zip(coded) {
            *byte = value;
        }
    }
    if rotate {
        rotate_heads(out, n, 15);
    }
    Ok(())
}

/// Whether a tensor goes to the pool: float and small enough that its own table, chunk and directory fields would weigh.
pub(crate) fn is_pooled(dtype: DtypeCode, len: usize) -> bool {
    let float = matches!(dtype, DtypeCode::BF16 | DtypeCode::F16 | DtypeCode::F32 | DtypeCode::F64);
    float && (1..=POOLED_BYTES).contains(&len)
}

/// Largest tensor of pooled mode, in bytes.
const POOLED_BYTES: usize = 8 << 10;
/// Bytes at which a blob of pooled tensors is closed.
pub(crate) const BLOB_BYTES: usize = MAX_BYTES - POOLED_BYTES;

/// The blob of pooled tensors' concatenated bytes.
pub(crate) fn encode_blob(data: &[u8], dtype: DtypeCode) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, data.len() as u64);
    out.extend(encode(data, dtype));
    out
}

/// Decodes a blob; `tensor` is the one that asks for it.
pub(crate) fn decode_blob(tensor: &str, dtype: DtypeCode, blob: &[u8], offset: u64) -> Result<Vec<u8>> {
    let mut cursor = Cursor::new(blob, tensor, offset);
    let len = cursor.varint()?;
    if len > MAX_BYTES as u64 {
        return cursor.corrupt("pooled tensors: length");
    }
    let mut out = vec![0; len as usize];
    decode_planes(&mut cursor, dtype, &mut out)?;
    cursor.finish()?;
    Ok(out)
}

/// Where a pooled tensor lies.
pub(crate) struct PooledParams {
    /// Index of the blob in the pool.
    pub(crate) blob: u64,
    /// First byte in the decoded blob.
    pub(crate) start: u64,
}

impl PooledParams {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.blob);
        put_varint(&mut out, self.start);
        out
    }

    pub(crate) fn parse(params: &[u8], tensor: &str, offset: u64) -> Result<Self> {
        let mut cursor = Cursor::new(params, tensor, offset);
        let params = Self { blob: cursor.varint()?, start: cursor.varint()? };
        cursor.finish()?;
        Ok(params)
    }

    /// Where the tensor's bytes lie in the decoded blob.
    pub(crate) fn range(&self, blob: &[u8], len: u64, tensor: &str, offset: u64) -> Result<Range<usize>> {
        let end = self.start.checked_add(len).and_then(|end| usize::try_from(end).ok());
        end.filter(|&end| end <= blob.len())
            .map(|end| self.start as usize..end)
            .ok_or_else(|| Error::corrupt(tensor, offset, "pooled tensor lies outside its blob"))
    }
}

fn rotate_heads(data: &mut [u8], element_bytes: usize, by: u32) {
    for element in data.chunks_exact_mut(element_bytes) {
        let head = &mut element[element_bytes - 2..];
        let value = u16::from_le_bytes([head[0], head[1]]).rotate_left(by);
        head.copy_from_slice(&value.to_le_bytes());
    }
}
