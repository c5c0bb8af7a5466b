//! The `.wcodec` file: writer, memory-mapped reader, directory, checksums.
//!
//! An archive is a header, a payload written in one streaming pass, a directory that says where everything lies, and a
//! trailer that says where the directory lies. This crate knows nothing of entropy coding: a tensor's mode is a number
//! and the mode's parameters are opaque bytes. `docs/format.md` describes every field.
//!
//! ```
//! use wcodec_container::*;
//!
//! # fn main() -> Result<(), ContainerError> {
//! // Write: chunks first, directory last.
//! let mut sink = ArchiveSink::new(Vec::new())?;
//! let raw = [1u8, 2, 3, 4];
//! let mut payload = TensorPayload::new();
//! sink.append_chunk(&mut payload, &raw, raw.len() as u64, crc32(&raw))?; // stored as it is
//! let mut tensor = TensorEntry {
//!     name: "bias".to_owned(),
//!     dtype: DtypeCode::BF16,
//!     shape: vec![2],
//!     decoded_len: 4,
//!     ..TensorEntry::default()
//! };
//! payload.store_in(&mut tensor);
//! let header = sink.write_blob(b"{}", BlobPolicy::Zstd { level: 3 })?;
//! let file = FileEntry {
//!     path: "model.safetensors".to_owned(),
//!     len: 6,
//!     crc32: crc32(&[b"{}".as_slice(), &raw].concat()),
//!     segments: vec![Segment::Literal(header), Segment::Tensor { index: 0 }],
//! };
//! let directory = Directory { tensors: vec![tensor], files: vec![file], ..Directory::default() };
//! let (bytes, _len) = sink.finish(&directory)?;
//!
//! // Read.
//! let archive = ArchiveReader::from_bytes(bytes)?;
//! let at = archive.find("bias").unwrap();
//! assert_eq!(archive.verify_chunk(&archive.directory().tensors[at], 0)?, raw);
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

mod blob;
mod crc;
mod directory;
mod dtype;
mod error;
mod extent;
mod frame;
mod header;
mod map;
mod names;
mod reader;
mod sink;
mod trailer;
mod version;
mod wire;
mod writer;

pub use blob::{Blob, BlobCoding, BlobPolicy};
pub use crc::{Crc32, crc32, crc32_combine};
pub use directory::{ChunkEntry, Directory, FileEntry, Segment, TensorEntry, validate_path};
pub use dtype::DtypeCode;
pub use error::{ContainerError, Result};
pub use extent::{CHUNK_ALIGN, Extent, align_up};
pub use frame::{compress_frame, decompress_frame, max_decoded_len};
pub use header::{FLAGS_IGNORABLE, FileHeader, HEADER_LEN, MAGIC};
pub use map::MappedFile;
pub use reader::ArchiveReader;
pub use sink::{ArchiveSink, TensorPayload};
pub use trailer::{END_MAGIC, TRAILER_LEN, Trailer};
pub use version::FormatVersion;
pub use writer::{ArchiveWriter, WriterOptions};
