//! The first 16 bytes of an archive.

use byteorder::{ByteOrder, LittleEndian};

use crate::{ContainerError, FormatVersion, Result};

/// The first 8 bytes of every archive. Like PNG's: the high bit catches 7-bit channels, CR LF catches newline
/// translation, 0x1A stops a DOS `type`.
pub const MAGIC: [u8; 8] = [0x89, b'W', b'C', b'D', b'C', 0x0D, 0x0A, 0x1A];

/// Bytes of the file header.
pub const HEADER_LEN: u64 = 16;

/// The flags that a reader may ignore when it does not know them; it must reject any other unknown one.
pub const FLAGS_IGNORABLE: u32 = 0xFFFF_0000;

/// The flags that this version knows: none yet.
const FLAGS_KNOWN: u32 = 0;

/// The file header: `magic [u8; 8], major u16, minor u16, flags u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// The format version.
    pub version: FormatVersion,
    /// The flags. Unknown bits of the low half are rejected, those of the high half ([`FLAGS_IGNORABLE`]) kept.
    pub flags: u32,
}

impl Default for FileHeader {
    fn default() -> Self {
        Self { version: FormatVersion::CURRENT, flags: 0 }
    }
}

impl FileHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut bytes = [0; HEADER_LEN as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        LittleEndian::write_u16(&mut bytes[8..], self.version.major());
        LittleEndian::write_u16(&mut bytes[10..], self.version.minor());
        LittleEndian::write_u32(&mut bytes[12..], self.flags);
        bytes
    }

    /// Reads the header at the start of `file` (a whole archive, or at least its first 16 bytes).
    ///
    /// # Errors
    /// `Truncated` if the file ends inside the header, `Corrupt` if it is no archive, `UnsupportedVersion`,
    /// `UnsupportedFeature` for an unknown must-understand flag.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let present = file.len().min(MAGIC.len());
        if file[..present] != MAGIC[..present] {
            return Err(ContainerError::corrupt("not a .wcodec archive (magic bytes)", 0));
        }
        let Some(bytes) = file.get(..HEADER_LEN as usize) else {
            return Err(ContainerError::truncated("file header", file.len() as u64));
        };
        let version = FormatVersion::new(LittleEndian::read_u16(&bytes[8..]), LittleEndian::read_u16(&bytes[10..]));
        if !version.is_supported() {
            return Err(ContainerError::UnsupportedVersion { found: version, supported: FormatVersion::CURRENT });
        }
        let flags = LittleEndian::read_u32(&bytes[12..]);
        let unknown = flags & !FLAGS_KNOWN & !FLAGS_IGNORABLE;
        if unknown != 0 {
            return Err(ContainerError::UnsupportedFeature {
                what: format!("header flags {unknown:#06x}"),
                offset: 12,
            });
        }
        Ok(Self { version, flags })
    }
}
