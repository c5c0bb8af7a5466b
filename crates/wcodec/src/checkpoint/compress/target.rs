//! Where an archive goes.

use wcodec_container::{ArchiveSink, ArchiveWriter, Blob, BlobPolicy, Extent, TensorPayload};

use crate::error::Result;
use crate::tensor::EncodedChunk;

/// A file that gets its name when it is complete, or memory.
pub(super) enum Target {
    File(ArchiveWriter),
    Memory(ArchiveSink<Vec<u8>>),
}

impl Target {
    pub(super) fn append_chunk(&mut self, payload: &mut TensorPayload, chunk: &EncodedChunk) -> Result<()> {
        let EncodedChunk { bytes, decoded_len, crc32_decoded, .. } = chunk;
        match self {
            Self::File(writer) => writer.append_chunk(payload, bytes, *decoded_len, *crc32_decoded)?,
            Self::Memory(sink) => sink.append_chunk(payload, bytes, *decoded_len, *crc32_decoded)?,
        };
        Ok(())
    }

    pub(super) fn write_bytes(&mut self, bytes: &[u8]) -> Result<Extent> {
        Ok(match self {
            Self::File(writer) => writer.write_bytes(bytes)?,
            Self::Memory(sink) => sink.write_bytes(bytes)?,
        })
    }

    pub(super) fn write_blob(&mut self, bytes: &[u8], policy: BlobPolicy) -> Result<Blob> {
        Ok(match self {
            Self::File(writer) => writer.write_blob(bytes, policy)?,
            Self::Memory(sink) => sink.write_blob(bytes, policy)?,
        })
    }
}
