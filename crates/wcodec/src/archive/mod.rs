//! Reading an archive: tensors by name, whole or in part.

mod decode;
mod prepare;
mod rect;
mod report;
mod tensor;
mod verify;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use wcodec_container::{ArchiveReader, DtypeCode, TensorEntry};

use crate::error::{Error, Result};
pub use decode::{Scratch, decode_many};
pub(crate) use prepare::Decoder;
use tensor::Source;
pub use tensor::Tensor;

/// An open `.wcodec` archive.
///
/// ```
/// # fn main() -> wcodec::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let (input, output) = (folder.path().join("m.safetensors"), folder.path().join("m.wcodec"));
/// # let header = br#"{"w":{"dtype":"U8","shape":[2,3],"data_offsets":[0,6]}}"#;
/// # let mut file = (header.len() as u64).to_le_bytes().to_vec();
/// # file.extend_from_slice(header);
/// # file.extend_from_slice(&[1, 2, 3, 4, 5, 6]);
/// # std::fs::write(&input, file).unwrap();
/// # wcodec::compress(&input, &output, &wcodec::EncodeOptions::default(), &())?;
/// let archive = wcodec::Archive::open(&output)?;
/// let tensor = archive.tensor("w")?;
/// assert_eq!(tensor.shape(), [2, 3]);
/// assert_eq!(tensor.decode()?, [1, 2, 3, 4, 5, 6]);
/// assert_eq!(tensor.rows(1..2)?, [4, 5, 6]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Archive {
    reader: ArchiveReader,
    /// Decoded blobs of pooled tensors, by place in the pool.
    blobs: Vec<OnceLock<(DtypeCode, Vec<u8>)>>,
}

impl Archive {
    /// Opens and validates an archive; the file is memory-mapped and must not change while it is open.
    ///
    /// # Errors
    /// [`Error::Container`] when the file is no archive, damaged, or of an unknown version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::new(ArchiveReader::open(path)?))
    }

    /// Reads the whole archive into memory, so that nobody can change it underneath and no decoder waits for the disk.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::new(ArchiveReader::read(path)?))
    }

    /// An archive in memory: a `Vec<u8>`, an `Arc<[u8]>`, or anything else that lends its bytes.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        Ok(Self::new(ArchiveReader::from_bytes(bytes)?))
    }

    pub(crate) fn new(reader: ArchiveReader) -> Self {
        let blobs = reader.directory().pool.iter().map(|_| OnceLock::new()).collect();
        Self { reader, blobs }
    }

    /// The container underneath: directory, files, checksums.
    pub fn container(&self) -> &ArchiveReader {
        &self.reader
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.reader.directory().tensors.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of all tensors, in archive order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.reader.directory().tensors.iter().map(|t| t.name.as_str())
    }

    /// What the directory says of every tensor, in archive order: names, types, shapes, lengths.
    pub fn entries(&self) -> &[TensorEntry] {
        &self.reader.directory().tensors
    }

    /// The first tensor of that name.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`]; [`Error::Corrupt`] or [`Error::Rans`] when its parameters are damaged.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        self.tensor_at(self.position(name)?)
    }

    /// Tensor number `index`, in archive order.
    ///
    /// # Errors
    /// As [`Archive::tensor`].
    pub fn tensor_at(&self, index: usize) -> Result<Tensor<'_>> {
        Tensor::new(Source::Lent(self), index)
    }

    /// The first tensor of that name, with a share in the archive: it goes wherever its owner goes, to other threads too.
    ///
    /// # Errors
    /// As [`Archive::tensor`].
    pub fn shared_tensor(self: &Arc<Self>, name: &str) -> Result<Tensor<'static>> {
        self.shared_tensor_at(self.position(name)?)
    }

    /// Tensor number `index`, in archive order, with a share in the archive.
    ///
    /// # Errors
    /// As [`Archive::tensor`].
    pub fn shared_tensor_at(self: &Arc<Self>, index: usize) -> Result<Tensor<'static>> {
        Tensor::new(Source::Shared(Arc::clone(self)), index)
    }

    /// The number of the first tensor of that name, in archive order.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`].
    pub fn position(&self, name: &str) -> Result<usize> {
        self.reader.find(name).ok_or_else(|| Error::NoSuchTensor(name.to_owned()))
    }
}
