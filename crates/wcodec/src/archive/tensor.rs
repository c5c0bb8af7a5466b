//! A tensor: what the directory says of it, and its decoder.

use std::sync::Arc;

use wcodec_container::{ArchiveReader, DtypeCode, Extent, TensorEntry};

use super::{Archive, Decoder};
use crate::error::{Error, Result};
use crate::lanes::LanesSummary;
use crate::mode::Mode;

/// A tensor of an archive, with its decoder prepared.
pub struct Tensor<'a> {
    pub(super) archive: Source<'a>,
    /// In the directory.
    index: usize,
    mode: Mode,
    pub(super) decoder: Decoder,
    /// Of its chunks, in the archive.
    pub(super) extents: Vec<Extent>,
}

/// The archive that a tensor reads.
pub(super) enum Source<'a> {
    Lent(&'a Archive),
    Shared(Arc<Archive>),
}

impl std::ops::Deref for Source<'_> {
    type Target = Archive;

    fn deref(&self) -> &Archive {
        match self {
            Self::Lent(archive) => archive,
            Self::Shared(archive) => archive,
        }
    }
}

impl<'a> Tensor<'a> {
    pub(super) fn new(archive: Source<'a>, index: usize) -> Result<Self> {
        let entry = archive.reader.directory().tensors.get(index);
        let entry = entry.ok_or_else(|| Error::NoSuchTensor(format!("number {index}")))?;
        let (mode, decoder) = archive.decoder(entry)?;
        let extents = entry.chunk_extents().collect();
        Ok(Self { archive, index, mode, decoder, extents })
    }

    pub(crate) fn reader(&self) -> &ArchiveReader {
        &self.archive.reader
    }

    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.entry().name
    }

    /// Element type.
    pub fn dtype(&self) -> DtypeCode {
        self.entry().dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[u64] {
        &self.entry().shape
    }

    /// The tool chain that coded it.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Decoded bytes.
    pub fn byte_len(&self) -> u64 {
        self.entry().decoded_len
    }

    /// Stored bytes: payload and index, without the directory entry.
    pub fn stored_len(&self) -> u64 {
        self.entry().payload.len + self.entry().index.len
    }

    /// The directory entry.
    pub fn entry(&self) -> &TensorEntry {
        &self.reader().directory().tensors[self.index]
    }

    /// How lanes mode codes the tensor; `None` in other modes.
    pub fn lanes(&self) -> Option<LanesSummary> {
        match &self.decoder {
            Decoder::Lanes(lanes) => Some(lanes.summary()),
            _ => None,
        }
    }

    /// Byte offsets in the decoded tensor at which its chunks begin, and last its length: what [`Tensor::decode_range`] decodes
    /// between two of them it decodes straight into its target, and nothing else.
    pub fn boundaries(&self) -> Vec<u64> {
        let mut boundaries = vec![0];
        let mut end = 0;
        boundaries.extend(self.entry().chunks.iter().map(|chunk| {
            end += chunk.decoded_len;
            end
        }));
        if end < self.byte_len() {
            boundaries.push(self.byte_len());
        }
        boundaries
    }

    /// Rows of the tensor as a matrix: its first dimension (1 for a scalar).
    pub fn row_count(&self) -> u64 {
        self.entry().shape.first().copied().unwrap_or(1)
    }

    /// Columns of the tensor as a matrix: the product of the other dimensions.
    pub fn col_count(&self) -> u64 {
        // Saturates where another dimension is 0: the directory bounds the product of all, not of some.
        self.entry().shape.iter().skip(1).fold(1, |product, &dim| product.saturating_mul(dim))
    }

    /// What decodes it.
    #[cfg(feature = "cuda")]
    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Its bytes as they are stored: chunks, and padding between them.
    #[cfg(feature = "cuda")]
    pub(crate) fn payload(&self) -> Result<&[u8]> {
        Ok(self.reader().bytes(self.entry().payload)?)
    }

    /// What tensors of the archive share.
    #[cfg(feature = "cuda")]
    pub(crate) fn pool(&self) -> &[Vec<u8>] {
        &self.reader().directory().pool
    }

    /// Where the directory stands in the archive, for errors in it.
    #[cfg(feature = "cuda")]
    pub(crate) fn directory_offset(&self) -> u64 {
        self.reader().trailer().directory.offset
    }

    /// Number of chunks.
    pub(crate) fn chunks(&self) -> usize {
        self.entry().chunks.len()
    }

    /// Decoded bytes of chunk `chunk`.
    pub(crate) fn chunk_len(&self, chunk: usize) -> u64 {
        self.entry().chunks[chunk].decoded_len
    }
    /// The bytes of a pooled tensor, which needs no decoding.
    pub(crate) fn pooled_bytes(&self) -> Option<&[u8]> {
        let Decoder::Pooled { blob, bytes } = &self.decoder else { return None };
        let (_, blob) = self.archive.blobs[*blob].get().expect("decoded when the tensor was prepared");
        Some(&blob[bytes.clone()])
    }

    pub(super) fn checked_len(&self) -> Result<usize> {
        usize::try_from(self.entry().decoded_len)
            .map_err(|_| Error::BadArgument(format!("tensor `{}` is larger than memory can be", self.name())))
    }
}
