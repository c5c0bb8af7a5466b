//! Plain mode, for tensors too small for lanes: byte planes, each through the single-state coder.
//!
//! For float types the top byte pair is first rotated left by one bit, which puts the whole exponent into one plane.

use wcodec_container::{DtypeCode, TensorEntry};

use crate::error::{Error, Result};
use crate::wire::{Cursor, put_coded};

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

/// Decodes the tensor's only chunk into `out`.
pub(crate) fn decode(entry: &TensorEntry, bytes: &[u8], offset: u64, out: &mut [u8]) -> Result<()> {
    let (n, rotate) = planes(entry.dtype);
    if out.len() > MAX_BYTES || out.len() % n != 0 {
        return Err(Error::corrupt(&entry.name, offset, "plain mode: length"));
    }
    let mut cursor = Cursor::new(bytes, &entry.name, offset);
    for plane in 0..n {
        let coded = cursor.coded(out.len() / n)?;
        for (byte, value) in out.iter_mut().skip(plane).step_by(n).zip(coded) {
            *byte = value;
        }
    }
    cursor.finish()?;
    if rotate {
        rotate_heads(out, n, 15);
    }
    Ok(())
}

fn rotate_heads(data: &mut [u8], element_bytes: usize, by: u32) {
    for element in data.chunks_exact_mut(element_bytes) {
        let head = &mut element[element_bytes - 2..];
        let value = u16::from_le_bytes([head[0], head[1]]).rotate_left(by);
        head.copy_from_slice(&value.to_le_bytes());
    }
}
