//! The directory: what lies where, and with which checksums.

mod decode;
mod encode;
mod path;
mod validate;

use std::collections::{BTreeMap, HashMap};

use crate::{Blob, ContainerError, DtypeCode, Extent, Result, align_up};

pub use path::validate_path;
pub(crate) use validate::Invalid;

/// Everything that an archive says about its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// The tensors. Names are unique among the tensors of one file, and among those that no file holds.
    pub tensors: Vec<TensorEntry>,
    /// The files that the archive reproduces byte for byte.
    pub files: Vec<FileEntry>,
    /// Blobs that tensors share, such as frequency tables; opaque here.
    pub pool: Vec<Vec<u8>>,
    /// Free text about the archive.
    pub metadata: BTreeMap<String, String>,
}

/// One named array.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorEntry {
    /// The tensor's name.
    pub name: String,
    /// Element type.
    pub dtype: DtypeCode,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<u64>,
    /// The tool chain, by number; opaque here.
    pub mode: u8,
    /// The mode's parameters; opaque here.
    pub params: Vec<u8>,
    /// Bytes of the decoded tensor. For a known `dtype` the product of the shape times the element's bits, over 8.
    pub decoded_len: u64,
    /// From the first byte of the first chunk to the last byte of the last one. Identical tensors may share it.
    pub payload: Extent,
    /// Bytes that help to find things inside chunks, opaque here; may be empty.
    pub index: Extent,
    /// CRC-32 of the bytes of `index`.
    pub index_crc32: u32,
    /// CRC-32 of the bytes of `payload`, the padding between chunks included.
    pub crc32_compressed: u32,
    /// CRC-32 of the decoded tensor.
    pub crc32_decoded: u32,
    /// The chunks in order, none for a tensor whose bytes lie in the pool. Each starts at the next multiple of [`CHUNK_ALIGN`](crate::CHUNK_ALIGN) behind the last.
    pub chunks: Vec<ChunkEntry>,
}

/// A part of a tensor that is read, checked and decoded by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChunkEntry {
    /// Stored bytes.
    pub len: u64,
    /// CRC-32 of the stored bytes.
    pub crc32_compressed: u32,
    /// Decoded bytes.
    pub decoded_len: u64,
    /// CRC-32 of the decoded bytes.
    pub crc32_decoded: u32,
}

/// A file that the archive reproduces byte for byte: the concatenation of its decoded segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative path with `/` between its parts; [`validate_path`] says what is allowed.
    pub path: String,
    /// Bytes of the file.
    pub len: u64,
    /// CRC-32 of the file.
    pub crc32: u32,
    /// What the file consists of, in order.
    pub segments: Vec<Segment>,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Bytes that belong to no tensor.
    Literal(Blob),
    /// A whole decoded tensor.
    Tensor {
        /// Index into [`Directory::tensors`].
        index: u32,
    },
}

impl Directory {
    /// Reads a decoded directory that lies at `payload_end` in its file, and validates it.
    ///
    /// Takes time and memory proportional to `bytes`.
    ///
    /// # Errors
    /// `Corrupt` for anything that contradicts the format or points outside the payload, `UnsupportedFeature` for an
    /// unknown field that must be understood.
    pub fn parse(bytes: &[u8], payload_end: u64) -> Result<Self> {
        let directory = decode::decode(bytes, payload_end)?;
        directory.check(payload_end).map_err(|Invalid { what, offset }| ContainerError::Corrupt { what, offset })?;
        Ok(directory)
    }

    /// The directory's bytes, before compression, for an archive whose payload ends at `payload_end`.
    ///
    /// # Errors
    /// `BadArgument` if [`Directory::parse`] would reject them.
    ///
    /// ```
    /// use wcodec_container::Directory;
    /// # fn main() -> Result<(), wcodec_container::ContainerError> {
    /// let directory = Directory { pool: vec![b"table".to_vec()], ..Directory::default() };
    /// assert_eq!(Directory::parse(&directory.encode(16)?, 16)?, directory);
    /// # Ok(())
    /// # }
    /// ```
    pub fn encode(&self, payload_end: u64) -> Result<Vec<u8>> {
        self.check(payload_end).map_err(|Invalid { what, .. }| ContainerError::BadArgument { what })?;
        Ok(encode::encode(self))
    }

    /// For each tensor, the index of the first one with its name: a name as a number. A long name may be referred to by
    /// very many short entries; comparing numbers keeps the time proportional to the directory.
    pub(crate) fn first_of_same_name(&self) -> Vec<u32> {
        let mut first = HashMap::new();
        (0u32..).zip(&self.tensors).map(|(index, tensor)| *first.entry(tensor.name.as_str()).or_insert(index)).collect()
    }
}

impl TensorEntry {
    /// Where the chunks lie, in order. Ends early where an entry that was not validated leaves the range of `u64`.
    pub fn chunk_extents(&self) -> impl Iterator<Item = Extent> + '_ {
        let mut next = Some(self.payload.offset);
        self.chunks.iter().map_while(move |chunk| {
            let extent = Extent { offset: align_up(next?)?, len: chunk.len };
            next = extent.end();
            next.map(|_| extent)
        })
    }

    /// Where chunk `chunk` lies. Takes time linear in `chunk`: to visit all, use [`TensorEntry::chunk_extents`].
    ///
    /// # Errors
    /// `BadArgument` if there is no such chunk.
    pub fn chunk_extent(&self, chunk: usize) -> Result<Extent> {
        self.chunk_extents().nth(chunk).ok_or_else(|| {
            let chunks = self.chunks.len();
            ContainerError::argument(format!("tensor `{}` has {chunks} chunks, no chunk {chunk}", self.name))
        })
    }
}
