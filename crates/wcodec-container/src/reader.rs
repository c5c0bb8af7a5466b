//! Reading an archive from a map or from memory.

use std::fmt;
use std::fs::File;
use std::path::Path;

use crate::error::check_crc;
use crate::frame::decompress_frame_at;
use crate::names::NameIndex;
use crate::{
    Blob, BlobCoding, ContainerError, Directory, Extent, FileHeader, FormatVersion, Result, TensorEntry, Trailer,
    crc32, map,
};

/// A directory decodes to at most this many bytes.
pub(crate) const MAX_DIRECTORY_LEN: u64 = 1 << 30;

/// How many bytes a stored directory of `stored_len` bytes may decode to. Less than for blobs, since a directory byte
/// may cost up to some fifty bytes of memory; checksums hardly compress, so true directories are far below it.
pub(crate) fn max_directory_len(stored_len: u64) -> u64 {
    stored_len.saturating_mul(64).saturating_add(1 << 20).min(MAX_DIRECTORY_LEN)
}

/// An open archive. It can be shared between threads; reading needs no lock and copies nothing.
pub struct ArchiveReader {
    bytes: Box<dyn AsRef<[u8]> + Send + Sync>,
    header: FileHeader,
    trailer: Trailer,
    directory: Directory,
    names: NameIndex,
}

impl ArchiveReader {
    /// Maps the archive at `path` and reads its directory; nothing else is read yet.
    ///
    /// The file must not be changed in place while the reader lives: its bytes could then differ from one read to the
    /// next, and a read behind the end of a file that was cut short ends the process (SIGBUS). Replacing the file by
    /// renaming another over it, as [`ArchiveWriter`](crate::ArchiveWriter) does, is harmless. Use
    /// [`ArchiveReader::read`] where this cannot be ruled out.
    ///
    /// # Errors
    /// `Io`, and what [`ArchiveReader::from_bytes`] says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let map = File::open(path).and_then(|file| map::map(&file));
        Self::from_bytes(map.map_err(|source| ContainerError::io(path, source))?)
    }

    /// Reads the whole archive at `path` into memory.
    ///
    /// # Errors
    /// `Io`, and what [`ArchiveReader::from_bytes`] says.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_bytes(std::fs::read(path).map_err(|source| ContainerError::io(path, source))?)
    }

    /// Takes the bytes of a whole archive: a `Vec<u8>`, an `Arc<[u8]>`, or anything else that lends bytes.
    ///
    /// # Errors
    /// `Truncated` if the end is missing, `Corrupt` or `ChecksumMismatch` if header, trailer or directory are damaged,
    /// `UnsupportedVersion` or `UnsupportedFeature` if the archive needs a newer reader.
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        let file = bytes.as_ref();
        let header = FileHeader::parse(file)?;
        let trailer = Trailer::parse(file)?;
        let directory = read_directory(file, &trailer)?;
        let names = NameIndex::new(&directory);
        Ok(Self { bytes: Box::new(bytes), header, trailer, directory, names })
    }

    /// The directory.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The format version of the file.
    pub fn version(&self) -> FormatVersion {
        self.header.version
    }

    /// The file header.
    pub fn header(&self) -> FileHeader {
        self.header
    }

    /// The trailer: the stored and decoded size of the directory.
    pub fn trailer(&self) -> Trailer {
        self.trailer
    }

    /// Bytes of the archive file.
    pub fn file_len(&self) -> u64 {
        (*self.bytes).as_ref().len() as u64
    }

    /// The first tensor called `name`, as an index into [`Directory::tensors`].
    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.find(name)
    }

    /// The tensor called `name` of the file `path`, as an index into [`Directory::tensors`].
    pub fn find_in(&self, path: &str, name: &str) -> Option<usize> {
        self.names.find_in(path, name)
    }

    /// The bytes of an extent. Nothing is checked but that they are there.
    ///
    /// # Errors
    /// `Truncated` if the file ends before the extent does.
    pub fn bytes(&self, extent: Extent) -> Result<&[u8]> {
        let file = (*self.bytes).as_ref();
        let range = usize::try_from(extent.offset).ok().zip(extent.end().and_then(|end| usize::try_from(end).ok()));
        range.and_then(|(start, end)| file.get(start..end)).ok_or_else(|| {
            let what = format!("extent of {} bytes at {}", extent.len, extent.offset);
            ContainerError::truncated(what, file.len() as u64)
        })
    }

    /// The bytes of an extent, after comparing their CRC-32 with `expected`. `what` names them in the error.
    ///
    /// # Errors
    /// `ChecksumMismatch`; `Truncated` if the file ends before the extent does.
    pub fn verified_bytes(&self, extent: Extent, expected: u32, what: impl FnOnce() -> String) -> Result<&[u8]> {
        let bytes = self.bytes(extent)?;
        check_crc(expected, crc32(bytes), extent.offset, what)?;
        Ok(bytes)
    }

    /// The stored bytes of one chunk, unchecked. Takes time linear in `chunk`: to visit all chunks, go through
    /// [`TensorEntry::chunk_extents`].
    ///
    /// # Errors
    /// `BadArgument` if there is no such chunk.
    pub fn chunk_bytes(&self, tensor: &TensorEntry, chunk: usize) -> Result<&[u8]> {
        self.bytes(tensor.chunk_extent(chunk)?)
    }

    /// The stored bytes of one chunk, after comparing their checksum. Takes time linear in `chunk`, too.
    ///
    /// # Errors
    /// `ChecksumMismatch`; `BadArgument` if there is no such chunk.
    pub fn verify_chunk(&self, tensor: &TensorEntry, chunk: usize) -> Result<&[u8]> {
        let extent = tensor.chunk_extent(chunk)?;
        let expected = tensor.chunks[chunk].crc32_compressed;
        self.verified_bytes(extent, expected, || format!("tensor `{}`, chunk {chunk}", tensor.name))
    }

    /// The bytes of a tensor's index, after comparing their checksum. Empty for a tensor without one.
    ///
    /// # Errors
    /// `ChecksumMismatch`.
    pub fn index_bytes(&self, tensor: &TensorEntry) -> Result<&[u8]> {
        self.verified_bytes(tensor.index, tensor.index_crc32, || format!("tensor `{}`, index", tensor.name))
    }

    /// Compares all checksums of a tensor's stored bytes: payload, every chunk, index. Decodes nothing.
    ///
    /// # Errors
    /// `ChecksumMismatch`, naming the first chunk that is damaged.
    pub fn verify_stored(&self, tensor: &TensorEntry) -> Result<()> {
        for (number, (extent, chunk)) in tensor.chunk_extents().zip(&tensor.chunks).enumerate() {
            let what = || format!("tensor `{}`, chunk {number}", tensor.name);
            self.verified_bytes(extent, chunk.crc32_compressed, what)?;
        }
        let what = || format!("tensor `{}`, payload", tensor.name);
        self.verified_bytes(tensor.payload, tensor.crc32_compressed, what)?;
        self.index_bytes(tensor).map(|_| ())
    }

    /// The decoded bytes of a blob, after comparing their checksum. Memory grows with what is really decoded.
    ///
    /// # Errors
    /// `Corrupt` if the bytes do not decode to the recorded length, `ChecksumMismatch` if they decode to something else.
    pub fn read_blob(&self, blob: &Blob) -> Result<Vec<u8>> {
        let stored = self.bytes(blob.extent)?;
        let offset = blob.extent.offset;
        let decoded = match blob.coding {
            BlobCoding::Stored if blob.decoded_len == blob.extent.len => stored.to_vec(),
            BlobCoding::Stored => return Err(ContainerError::argument("stored blob of two lengths")),
            BlobCoding::Zstd => decompress_frame_at(stored, blob.decoded_len, offset, &|| "blob".to_owned())?,
        };
        check_crc(blob.crc32_decoded, crc32(&decoded), offset, || "blob".to_owned())?;
        Ok(decoded)
    }
}

impl fmt::Debug for ArchiveReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveReader")
            .field("file_len", &self.file_len())
            .field("version", &self.version())
            .field("tensors", &self.directory.tensors.len())
            .field("files", &self.directory.files.len())
            .finish()
    }
}

fn read_directory(file: &[u8], trailer: &Trailer) -> Result<Directory> {
    let offset = trailer.directory.offset;
    let what = || "directory".to_owned();
    // The trailer was found at the end of these bytes and the directory lies before it, so this fits.
    let stored = &file[offset as usize..][..trailer.directory.len as usize];
    check_crc(trailer.directory_crc32, crc32(stored), offset, what)?;
    if trailer.decoded_len > max_directory_len(trailer.directory.len) {
        return Err(ContainerError::corrupt("directory: decoded length is out of proportion", offset));
    }
    if trailer.decoded_len == trailer.directory.len {
        return Directory::parse(stored, offset);
    }
    if trailer.decoded_len < trailer.directory.len {
        return Err(ContainerError::corrupt("directory is stored in more bytes than it has", offset));
    }
    Directory::parse(&decompress_frame_at(stored, trailer.decoded_len, offset, &what)?, offset)
}
