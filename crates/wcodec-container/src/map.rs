//! The one place that maps a file into memory.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use crate::{ContainerError, Result};

/// A file mapped into memory, read-only. It must not be changed by others while it is mapped: they would see to it that
/// reads return other bytes, or, if the file is cut short, end in SIGBUS.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("weights");
/// std::fs::write(&path, b"bytes")?;
/// assert_eq!(&*wcodec_container::MappedFile::open(&path)?, b"bytes");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        File::open(path).and_then(|file| map(&file)).map(Self).map_err(|source| ContainerError::io(path, source))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Maps the whole of `file`, read-only. An empty file maps to no bytes.
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is only safe to read as `&[u8]` while nobody changes the file underneath. The writer here never
    // does: it writes a new file and renames it over the old one, and a map keeps the old file alive. Another program
    // that writes into the file makes readers see changed bytes, against which every length and offset is checked on the
    // copy that the directory was parsed into, never re-read from the map; one that cuts the file short makes reads
    // behind the new end fail with SIGBUS. `ArchiveReader::open` states this, and `ArchiveReader::read` reads the file
    // into memory for those who cannot rule it out.
    #[expect(unsafe_code, reason = "mapping a file that others could change cannot be proven safe by the compiler")]
    unsafe {
        Mmap::map(file)
    }
}
