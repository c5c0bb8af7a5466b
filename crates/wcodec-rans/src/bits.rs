//! A little-endian bit string: the first bit written is bit 0 of byte 0.

use crate::error::{Result, truncated};

/// Appends bit fields to a byte vector.
#[derive(Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    pending_bits: u32,
}

impl BitWriter {
    /// An empty string.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the low `bits` (at most 32) of `value`, lowest bit first. Higher bits of `value` are ignored.
    pub fn write(&mut self, value: u32, bits: u32) {
        debug_assert!(bits <= 32);
        let masked = u64::from(value) & ((1u64 << bits) - 1);
        self.pending |= masked << self.pending_bits;
        self.pending_bits += bits;
        while self.pending_bits >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.pending_bits -= 8;
        }
    }

    /// The bytes, the last one padded with zero bits.
    pub fn finish(mut self) -> Vec<u8> {
        if self.pending_bits > 0 {
            self.bytes.push(self.pending as u8);
        }
        self.bytes
    }
}

/// Reads bit fields from bytes.
#[derive(Debug, Clone)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    /// A reader at bit 0 of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Reads `bits` (at most 32) bits.
    ///
    /// # Errors
    /// [`crate::RansError::Truncated`] when the string is over.
    #[inline]
    pub fn read(&mut self, bits: u32) -> Result<u32> {
        debug_assert!(bits <= 32);
        let end = self.position + bits as usize;
        if end > self.bytes.len() * 8 {
            return truncated("bit string", self.position / 8);
        }
        let rest = &self.bytes[self.position / 8..];
        let window = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut window = [0u8; 8];
            window[..rest.len()].copy_from_slice(rest);
            window
        });
        let value = (u64::from_le_bytes(window) >> (self.position % 8)) & ((1u64 << bits) - 1);
        self.position = end;
        Ok(value as u32)
    }

    /// Bits read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes touched so far.
    pub fn bytes_read(&self) -> usize {
        self.position.div_ceil(8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_come_back(fields in prop::collection::vec((any::<u32>(), 0u32..=32), 0..200)) {
            let mut w = BitWriter::new();
            for &(v, n) in &fields { w.write(v, n); }
            let bytes = w.finish();
            let mut r = BitReader::new(&bytes);
            for &(v, n) in &fields {
                let mask = ((1u64 << n) - 1) as u32;
                prop_assert_eq!(r.read(n).unwrap(), v & mask);
            }
            prop_assert_eq!(r.bytes_read(), bytes.len());
            prop_assert!(r.read(9).is_err());
        }
    }
}
