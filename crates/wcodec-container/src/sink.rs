//! Writing an archive to any stream, in one pass.

use std::io::{self, Write};

use crate::reader::{MAX_DIRECTORY_LEN, max_directory_len};
use crate::{
    Blob, BlobCoding, BlobPolicy, CHUNK_ALIGN, ChunkEntry, ContainerError, Crc32, Directory, Extent, FileHeader,
    Result, TensorEntry, Trailer, align_up, compress_frame, crc32,
};

/// Writes an archive to `W`: header first, then payload in the order of the calls, directory and trailer last.
///
/// Give it a buffered stream. A stream that fails once stays failed: nothing more can be written to the archive.
#[derive(Debug)]
pub struct ArchiveSink<W> {
    stream: W,
    header: FileHeader,
    position: u64,
    failed: bool,
}

impl<W: Write> ArchiveSink<W> {
    /// Starts an archive at the stream's present position, which becomes the archive's byte 0.
    ///
    /// # Errors
    /// `Io`.
    pub fn new(stream: W) -> Result<Self> {
        let header = FileHeader::default();
        let mut sink = Self { stream, header, position: 0, failed: false };
        sink.write_all(&header.encode())?;
        Ok(sink)
    }

    /// Bytes written so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Writes `bytes` as they are, with no alignment; for indexes.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<Extent> {
        let offset = self.position;
        self.write_all(bytes)?;
        Ok(Extent { offset, len: bytes.len() as u64 })
    }

    /// Writes zeros up to the next multiple of [`CHUNK_ALIGN`], then `bytes`.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_chunk(&mut self, bytes: &[u8]) -> Result<Extent> {
        self.write_padding()?;
        self.write_bytes(bytes)
    }

    /// Writes the next chunk of the tensor that `payload` collects, and notes its lengths and checksums.
    /// `decoded_len` and `crc32_decoded` are those of the chunk's decoded bytes.
    ///
    /// # Errors
    /// `BadArgument` if something else was written since the tensor's last chunk; `Io`.
    pub fn append_chunk(
        &mut self,
        payload: &mut TensorPayload,
        bytes: &[u8],
        decoded_len: u64,
        crc32_decoded: u32,
    ) -> Result<Extent> {
        if !payload.chunks.is_empty() && payload.extent.end() != Some(self.position) {
            return Err(ContainerError::argument("the chunks of a tensor must be written one behind the other"));
        }
        let padding = self.write_padding()?;
        let extent = self.write_bytes(bytes)?;
        let crc32_compressed = crc32(bytes);
        payload.push(padding, extent, ChunkEntry { len: extent.len, crc32_compressed, decoded_len, crc32_decoded });
        Ok(extent)
    }

    /// Writes literal bytes, compressed if `policy` says so and that is smaller.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_blob(&mut self, bytes: &[u8], policy: BlobPolicy) -> Result<Blob> {
        let frame = match policy {
            BlobPolicy::Store => None,
            BlobPolicy::Zstd { level } => compress_frame(bytes, level)?,
        };
        let coding = if frame.is_some() { BlobCoding::Zstd } else { BlobCoding::Stored };
        let extent = self.write_bytes(frame.as_deref().unwrap_or(bytes))?;
        Ok(Blob { extent, decoded_len: bytes.len() as u64, coding, crc32_decoded: crc32(bytes) })
    }

    /// Writes directory and trailer and flushes; returns the stream and the archive's length in bytes.
    ///
    /// # Errors
    /// `BadArgument` if a reader would reject the directory; `Io`.
    pub fn finish(mut self, directory: &Directory) -> Result<(W, u64)> {
        let decoded = directory.encode(self.position)?;
        let decoded_len = decoded.len() as u64;
        if decoded_len > MAX_DIRECTORY_LEN {
            return Err(ContainerError::argument(format!("directory of {decoded_len} bytes is too long")));
        }
        let frame = compress_frame(&decoded, DIRECTORY_LEVEL)?;
        let frame = frame.filter(|frame| decoded_len <= max_directory_len(frame.len() as u64));
        let stored = frame.as_deref().unwrap_or(&decoded);
        let extent = self.write_bytes(stored)?;
        let trailer = Trailer { directory: extent, decoded_len, directory_crc32: crc32(stored) };
        self.write_all(&trailer.encode(&self.header.encode()))?;
        self.stream.flush().map_err(stream_error)?;
        Ok((self.stream, self.position))
    }

    fn write_padding(&mut self) -> Result<u64> {
        let next = align_up(self.position).ok_or_else(|| ContainerError::argument("archive exceeds 2^64 bytes"))?;
        let padding = next - self.position;
        self.write_all(&[0; CHUNK_ALIGN as usize][..padding as usize])?;
        Ok(padding)
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        if self.failed {
            return Err(ContainerError::argument("an earlier write to this archive failed"));
        }
        let written = self.stream.write_all(bytes);
        // How much of a failed write arrived is unknown, and so is the position of everything behind it.
        self.failed = written.is_err();
        self.position += bytes.len() as u64;
        written.map_err(stream_error)
    }
}

/// Most of a directory is coded already: what the strongest levels find beyond this is not worth their time.
const DIRECTORY_LEVEL: i32 = 12;

fn stream_error(source: io::Error) -> ContainerError {
    ContainerError::Io { path: None, source }
}

/// The chunks of one tensor while they are written, see [`ArchiveSink::append_chunk`].
#[derive(Clone, Debug, Default)]
pub struct TensorPayload {
    extent: Extent,
    chunks: Vec<ChunkEntry>,
    compressed: Crc32,
    decoded: Crc32,
}

impl TensorPayload {
    /// A payload of no chunks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fills in `decoded_len`, `payload`, `crc32_compressed`, `crc32_decoded` and `chunks` of the tensor's entry.
    pub fn store_in(self, tensor: &mut TensorEntry) {
        tensor.decoded_len = self.decoded.len();
        tensor.payload = self.extent;
        tensor.crc32_compressed = self.compressed.value();
        tensor.crc32_decoded = self.decoded.value();
        tensor.chunks = self.chunks;
    }

    fn push(&mut self, padding: u64, extent: Extent, chunk: ChunkEntry) {
        if self.chunks.is_empty() {
            self.extent = extent;
        } else {
            self.compressed.update(&[0; CHUNK_ALIGN as usize][..padding as usize]);
            self.extent.len += padding + extent.len;
        }
        self.compressed.combine(chunk.crc32_compressed, chunk.len);
        self.decoded.combine(chunk.crc32_decoded, chunk.decoded_len);
        self.chunks.push(chunk);
    }
}
