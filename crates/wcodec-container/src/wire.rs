//! The directory's own encoding: fixed-width little-endian integers, LEB128 integers, length-prefixed bytes.

use byteorder::{ByteOrder, LittleEndian};

use crate::{ContainerError, Result};

/// A field tag with this bit must be understood by whoever reads the record.
pub(crate) const TAG_MUST_UNDERSTAND: u16 = 0x8000;

/// Appends to a growing buffer.
#[derive(Default)]
pub(crate) struct WireWriter {
    bytes: Vec<u8>,
}

impl WireWriter {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Unsigned LEB128: 7 bits a byte, low bits first, the high bit set on all but the last byte.
    pub(crate) fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// A record: a length, then what `body` writes.
    pub(crate) fn record(&mut self, body: impl FnOnce(&mut WireWriter)) {
        let mut inner = WireWriter::default();
        body(&mut inner);
        self.bytes(&inner.bytes);
    }
}

/// Reads from the front of a slice; every error says where in the directory it lies.
#[derive(Clone)]
pub(crate) struct WireReader<'a> {
    rest: &'a [u8],
    /// Position of `rest` in the decoded directory.
    position: u64,
    /// Position of the directory in the file, for errors.
    file_offset: u64,
}

impl<'a> WireReader<'a> {
    pub(crate) fn new(bytes: &'a [u8], file_offset: u64) -> Self {
        Self { rest: bytes, position: 0, file_offset }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn corrupt(&self, what: &str) -> ContainerError {
        ContainerError::corrupt(format!("directory byte {}: {what}", self.position), self.file_offset)
    }

    pub(crate) fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.corrupt(&format!("{what} goes past the end of its record")));
        };
        self.rest = rest;
        self.position += len as u64;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self, what: &str) -> Result<u8> {
        Ok(self.take(1, what)?[0])
    }

    pub(crate) fn u16(&mut self, what: &str) -> Result<u16> {
        Ok(LittleEndian::read_u16(self.take(2, what)?))
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(LittleEndian::read_u32(self.take(4, what)?))
    }

    /// Unsigned LEB128 in its shortest form, so that every directory has one encoding.
    pub(crate) fn varint(&mut self, what: &str) -> Result<u64> {
        let start = self.clone();
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7F);
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(start.corrupt(&format!("{what} is no shortest LEB128 number below 2^64")))
    }

    /// A count of things that take at least `min_len` bytes each: bounded by the bytes present, so that it may be
    /// allocated for.
    pub(crate) fn count(&mut self, min_len: usize, what: &str) -> Result<usize> {
        let start = self.clone();
        let count = self.varint(what)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() / min_len => Ok(count),
            _ => Err(start.corrupt(&format!("{what} {count} is more than the record can hold"))),
        }
    }

    pub(crate) fn bytes(&mut self, what: &str) -> Result<&'a [u8]> {
        let len = self.count(1, what)?;
        self.take(len, what)
    }

    pub(crate) fn str(&mut self, what: &str) -> Result<&'a str> {
        let start = self.clone();
        std::str::from_utf8(self.bytes(what)?).map_err(|_| start.corrupt(&format!("{what} is not UTF-8")))
    }

    /// A record: the reader of its body.
    pub(crate) fn record(&mut self, what: &str) -> Result<WireReader<'a>> {
        let mut whole = self.clone();
        let body = self.bytes(what)?;
        let prefix = whole.rest.len() - self.rest.len() - body.len();
        whole.take(prefix, what)?;
        whole.rest = body;
        Ok(whole)
    }

    /// The optional fields that fill the rest of a record, in ascending order of their tags. No tag is defined yet: all
    /// are skipped, except those that must be understood.
    pub(crate) fn finish_record(mut self, what: &str) -> Result<()> {
        let mut next_tag = 0u32;
        while !self.rest.is_empty() {
            let start = self.clone();
            let tag = self.u16("field tag")?;
            if u32::from(tag) < next_tag {
                return Err(start.corrupt(&format!("{what}: field tags do not ascend")));
            }
            next_tag = u32::from(tag) + 1;
            self.bytes("optional field")?;
            if tag & TAG_MUST_UNDERSTAND != 0 {
                return Err(ContainerError::UnsupportedFeature {
                    what: format!("{what}: field with tag {tag:#06x} (directory byte {})", start.position),
                    offset: self.file_offset,
                });
            }
        }
        Ok(())
    }
}
