//! Writing an archive to a file that appears only when it is complete.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::{ArchiveSink, Blob, BlobPolicy, ContainerError, Directory, Extent, Result, TensorPayload};

/// How an archive file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterOptions {
    /// Replace an existing file. Without it, an existing target is an error.
    pub overwrite: bool,
    /// Wait until the bytes are on the disk before the file gets its name, so that not even a power failure leaves a
    /// half-written archive.
    pub sync: bool,
}

/// Writes an archive to a temporary file beside its target and renames it when it is complete. Dropped without
/// [`ArchiveWriter::finish`], it leaves nothing behind.
///
/// ```
/// use wcodec_container::{ArchiveReader, ArchiveWriter, Directory, WriterOptions};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("empty.wcodec");
/// let writer = ArchiveWriter::create(&path, WriterOptions::default())?;
/// assert!(!path.exists());
/// let len = writer.finish(&Directory::default())?;
/// assert_eq!(ArchiveReader::open(&path)?.file_len(), len);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ArchiveWriter {
    sink: ArchiveSink<BufWriter<NamedTempFile>>,
    path: PathBuf,
    options: WriterOptions,
}

impl ArchiveWriter {
    /// Starts an archive that will be `path`.
    ///
    /// # Errors
    /// `AlreadyExists` if the target exists and may not be overwritten; `BadArgument` if `path` names no file; `Io`.
    pub fn create(path: impl AsRef<Path>, options: WriterOptions) -> Result<Self> {
        let path = path.as_ref();
        if path.file_name().is_none() || path.is_dir() {
            return Err(ContainerError::argument(format!("{} does not name a file", path.display())));
        }
        // Asked again, atomically, at the end; this early answer saves the work.
        if !options.overwrite && path.symlink_metadata().is_ok() {
            return Err(ContainerError::AlreadyExists { path: path.to_owned() });
        }
        let file = temporary(folder(path)).map_err(|source| ContainerError::io(path, source))?;
        let sink = ArchiveSink::new(BufWriter::with_capacity(BUFFER_LEN, file)).map_err(|e| e.at_path(path))?;
        Ok(Self { sink, path: path.to_owned(), options })
    }

    /// Bytes written so far.
    pub fn position(&self) -> u64 {
        self.sink.position()
    }

    /// See [`ArchiveSink::write_bytes`].
    ///
    /// # Errors
    /// `Io`.
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<Extent> {
        self.sink.write_bytes(bytes).map_err(|e| e.at_path(&self.path))
    }

    /// See [`ArchiveSink::write_chunk`].
    ///
    /// # Errors
    /// `Io`.
    pub fn write_chunk(&mut self, bytes: &[u8]) -> Result<Extent> {
        self.sink.write_chunk(bytes).map_err(|e| e.at_path(&self.path))
    }

    /// See [`ArchiveSink::append_chunk`].
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
        let written = self.sink.append_chunk(payload, bytes, decoded_len, crc32_decoded);
        written.map_err(|e| e.at_path(&self.path))
    }

    /// See [`ArchiveSink::write_blob`].
    ///
    /// # Errors
    /// `Io`.
    pub fn write_blob(&mut self, bytes: &[u8], policy: BlobPolicy) -> Result<Blob> {
        self.sink.write_blob(bytes, policy).map_err(|e| e.at_path(&self.path))
    }

    /// Writes directory and trailer and gives the file its name; returns its length in bytes.
    ///
    /// # Errors
    /// `BadArgument` if a reader would reject the directory; `AlreadyExists` if the target came to exist meanwhile; `Io`.
    /// After an error nothing is left behind.
    pub fn finish(self, directory: &Directory) -> Result<u64> {
        let Self { sink, path, options } = self;
        let io = |source| ContainerError::io(&path, source);
        let (stream, len) = sink.finish(directory).map_err(|e| e.at_path(&path))?;
        let file = stream.into_inner().map_err(|e| io(e.into_error()))?;
        if options.sync {
            file.as_file().sync_all().map_err(io)?;
        }
        if options.overwrite {
            file.persist(&path).map_err(|e| io(e.error))?;
        } else {
            file.persist_noclobber(&path).map_err(|e| match e.error.kind() {
                std::io::ErrorKind::AlreadyExists => ContainerError::AlreadyExists { path: path.clone() },
                _ => io(e.error),
            })?;
        }
        if options.sync && cfg!(unix) {
            // The new name is an entry of the folder, which has its own place on the disk.
            File::open(folder(&path)).and_then(|folder| folder.sync_all()).map_err(io)?;
        }
        Ok(len)
    }
}

/// Collects small writes; chunks are mostly larger and go to the file as they are.
const BUFFER_LEN: usize = 1 << 16;

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn temporary(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(".wcodec-").suffix(".partial");
    #[cfg(unix)]
    {
        // The default is 0600, since temporary files are private; this one becomes an ordinary file (less the umask).
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}
