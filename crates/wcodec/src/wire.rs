//! Variable-length integers and byte strings of mode parameters.

use crate::error::{Error, Result};
use wcodec_rans::plain;

/// Appends `value` as LEB128.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends bytes, entropy-coded when that is smaller, with their stored length.
pub(crate) fn put_coded(out: &mut Vec<u8>, bytes: &[u8]) {
    let packed = plain::compress(bytes);
    put_varint(out, packed.len() as u64);
    out.extend_from_slice(&packed);
}

/// Reads what [`put_varint`] and [`put_coded`] wrote.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    tensor: &'a str,
    /// Where the bytes come from in the archive, for errors.
    origin: u64,
    read: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], tensor: &'a str, origin: u64) -> Self {
        Self { bytes, tensor, origin, read: 0 }
    }

    pub(crate) fn corrupt<T>(&self, what: &str) -> Result<T> {
        Err(Error::corrupt(self.tensor, self.origin, format!("{what} (byte {})", self.read)))
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        match self.bytes.get(self.read) {
            Some(&b) => {
                self.read += 1;
                Ok(b)
            }
            None => self.corrupt("parameters are truncated"),
        }
    }

    pub(crate) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let b = self.byte()?;
            value |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                return Ok(value);
            }
        }
        self.corrupt("integer is too long")
    }

    pub(crate) fn take(&mut self, len: u64) -> Result<&'a [u8]> {
        let end = usize::try_from(len).ok().and_then(|l| self.read.checked_add(l));
        match end.and_then(|end| self.bytes.get(self.read..end)) {
            Some(bytes) => {
                self.read += bytes.len();
                Ok(bytes)
            }
            None => self.corrupt("parameters are truncated"),
        }
    }

    /// What [`put_coded`] wrote, as it stands.
    pub(crate) fn packed(&mut self) -> Result<&'a [u8]> {
        let stored = self.varint()?;
        self.take(stored)
    }

    /// `len` bytes from [`put_coded`]. The caller has checked that `len` is in proportion to the archive.
    pub(crate) fn coded(&mut self, len: usize) -> Result<Vec<u8>> {
        let packed = self.packed()?;
        plain::decompress(packed, len).map_err(|e| Error::rans(self.tensor, self.origin, e))
    }

    /// As [`Cursor::coded`] for all of `lens`, one behind the other, in less time.
    pub(crate) fn coded_all(&mut self, lens: &[usize]) -> Result<Vec<Vec<u8>>> {
        let mut fault = None;
        let read = |&len| self.packed().map(|packed| (packed, len)).map_err(|error| fault = Some(error)).ok();
        let packed: Vec<_> = lens.iter().map_while(read).collect();
        // What is wrong with the bytes that are there comes before what is missing behind them.
        let parts = plain::decompress_all(&packed).map_err(|e| Error::rans(self.tensor, self.origin, e))?;
        fault.map_or(Ok(parts), Err)
    }

    pub(crate) fn finish(&self) -> Result<()> {
        if self.read == self.bytes.len() { Ok(()) } else { self.corrupt("parameters are too long") }
    }
}
