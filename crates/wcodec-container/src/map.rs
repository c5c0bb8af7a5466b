//! The one place that maps a file into memory.

use std::fs::File;
use std::io;

use memmap2::Mmap;

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
