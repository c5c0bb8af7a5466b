//! The last 40 bytes of an archive: where the directory lies.

use byteorder::{ByteOrder, LittleEndian};

use crate::error::check_crc;
use crate::{ContainerError, Crc32, Extent, HEADER_LEN, Result};

/// The last 8 bytes of every complete archive.
pub const END_MAGIC: [u8; 8] = *b"WCDCEND\n";

/// Bytes of the trailer.
pub const TRAILER_LEN: u64 = 40;

/// The trailer: `directory offset u64, stored length u64, decoded length u64, directory CRC u32, trailer CRC u32,
/// end magic [u8; 8]`. The trailer's CRC covers the file header and the 28 trailer bytes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Where the stored directory lies; it ends where the trailer starts.
    pub directory: Extent,
    /// Bytes of the decoded directory; equal to the stored length if, and only if, it is stored as it is.
    pub decoded_len: u64,
    /// CRC-32 of the stored directory bytes.
    pub directory_crc32: u32,
}

impl Trailer {
    /// The trailer's bytes, behind a file that starts with `header`.
    pub fn encode(&self, header: &[u8; HEADER_LEN as usize]) -> [u8; TRAILER_LEN as usize] {
        let mut bytes = [0; TRAILER_LEN as usize];
        LittleEndian::write_u64(&mut bytes[0..], self.directory.offset);
        LittleEndian::write_u64(&mut bytes[8..], self.directory.len);
        LittleEndian::write_u64(&mut bytes[16..], self.decoded_len);
        LittleEndian::write_u32(&mut bytes[24..], self.directory_crc32);
        let crc = covered_crc(header, &bytes);
        LittleEndian::write_u32(&mut bytes[28..], crc);
        bytes[32..].copy_from_slice(&END_MAGIC);
        bytes
    }

    /// Reads the trailer at the end of `file`, a whole archive whose header has been parsed.
    ///
    /// # Errors
    /// `Truncated` if there is no trailer at the end of the file, `ChecksumMismatch` or `Corrupt` if there is a wrong one.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let file_len = file.len() as u64;
        let (Some(header), Some(bytes)) = (file.first_chunk::<{ HEADER_LEN as usize }>(), file.last_chunk()) else {
            return Err(ContainerError::truncated("trailer", file_len));
        };
        if file_len < HEADER_LEN + TRAILER_LEN {
            return Err(ContainerError::truncated("trailer", file_len));
        }
        let bytes: &[u8; TRAILER_LEN as usize] = bytes;
        let start = file_len - TRAILER_LEN;
        let expected = LittleEndian::read_u32(&bytes[28..]);
        let found = covered_crc(header, bytes);
        if bytes[32..] != END_MAGIC {
            // A trailer whose checksum holds is there; only its magic was damaged.
            return Err(if expected == found {
                ContainerError::corrupt("end magic bytes", start + 32)
            } else {
                ContainerError::truncated("trailer", file_len)
            });
        }
        check_crc(expected, found, start, || "file header and trailer".to_owned())?;
        let trailer = Self {
            directory: Extent { offset: LittleEndian::read_u64(&bytes[0..]), len: LittleEndian::read_u64(&bytes[8..]) },
            decoded_len: LittleEndian::read_u64(&bytes[16..]),
            directory_crc32: LittleEndian::read_u32(&bytes[24..]),
        };
        if trailer.directory.offset < HEADER_LEN || trailer.directory.end() != Some(start) {
            return Err(ContainerError::corrupt("directory does not end at the trailer", start));
        }
        Ok(trailer)
    }
}

fn covered_crc(header: &[u8; HEADER_LEN as usize], trailer: &[u8; TRAILER_LEN as usize]) -> u32 {
    let mut sum = Crc32::new();
    sum.update(header);
    sum.update(&trailer[..28]);
    sum.value()
}
