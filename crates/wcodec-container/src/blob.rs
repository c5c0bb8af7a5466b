//! Literal bytes in the payload, stored or as one zstd frame.

use crate::Extent;

/// How a blob's bytes are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BlobCoding {
    /// As they are.
    #[default]
    Stored,
    /// As one zstd frame that records its content size.
    Zstd,
}

/// Literal bytes in the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Blob {
    /// Where the stored bytes lie.
    pub extent: Extent,
    /// Number of decoded bytes; equal to `extent.len` for stored blobs, and at most
    /// [`max_decoded_len`](crate::max_decoded_len)`(extent.len)` for zstd.
    pub decoded_len: u64,
    /// How they are stored.
    pub coding: BlobCoding,
    /// CRC-32 of the decoded bytes.
    pub crc32_decoded: u32,
}

/// What a writer does to a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlobPolicy {
    /// Store the bytes as they are.
    Store,
    /// Compress them, and store them as they are when that is not smaller.
    Zstd {
        /// The zstd level, 1 to 22; out-of-range levels are clamped by zstd.
        level: i32,
    },
}
