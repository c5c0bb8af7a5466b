//! Errors, split by who is at fault.

use std::io;
use std::path::{Path, PathBuf};

use crate::FormatVersion;

/// What went wrong with an archive.
///
/// Every `offset` is a byte position in the archive file. Faults inside the directory carry the directory's position in
/// the file; their text says where in the decoded directory they lie. `what` names the tensor or file where it is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// The file ends before something that must be there: most often an interrupted download or copy.
    #[error("archive is truncated: {what} is missing or incomplete at byte {offset}")]
    Truncated {
        /// What is missing.
        what: String,
        /// Where the bytes end.
        offset: u64,
    },
    /// The bytes are there and contradict the format.
    #[error("archive is corrupt at byte {offset}: {what}")]
    Corrupt {
        /// What contradicts the format.
        what: String,
        /// Where.
        offset: u64,
    },
    /// Bytes do not have the checksum that was recorded for them.
    #[error("checksum of {what} at byte {offset} does not match: expected {expected:08x}, found {found:08x}")]
    ChecksumMismatch {
        /// What was checked.
        what: String,
        /// Where it lies.
        offset: u64,
        /// The recorded CRC-32.
        expected: u32,
        /// The CRC-32 of the bytes that are there.
        found: u32,
    },
    /// A format version that this reader does not know.
    #[error("archive has format version {found}, this reader supports {supported}")]
    UnsupportedVersion {
        /// The version in the file.
        found: FormatVersion,
        /// The version of this reader.
        supported: FormatVersion,
    },
    /// A must-understand flag or field that this reader does not know: the archive needs a newer reader.
    #[error("archive needs a newer reader: {what} at byte {offset}")]
    UnsupportedFeature {
        /// The flag or the field.
        what: String,
        /// Where it lies.
        offset: u64,
    },
    /// The caller passed something that cannot be written or read.
    #[error("bad argument: {what}")]
    BadArgument {
        /// What is wrong with it.
        what: String,
    },
    /// The target exists and overwriting it was not asked for.
    #[error("{} already exists", path.display())]
    AlreadyExists {
        /// The target.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: {source}", shown(path.as_deref()))]
    Io {
        /// The file, where there is one.
        path: Option<PathBuf>,
        /// What it said.
        source: io::Error,
    },
}

/// The result of everything here.
pub type Result<T, E = ContainerError> = std::result::Result<T, E>;

impl ContainerError {
    pub(crate) fn truncated(what: impl Into<String>, offset: u64) -> Self {
        Self::Truncated { what: what.into(), offset }
    }

    pub(crate) fn corrupt(what: impl Into<String>, offset: u64) -> Self {
        Self::Corrupt { what: what.into(), offset }
    }

    pub(crate) fn argument(what: impl Into<String>) -> Self {
        Self::BadArgument { what: what.into() }
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: Some(path.to_owned()), source }
    }

    /// Names the file of an I/O error that arose where only a stream was known.
    pub(crate) fn at_path(self, file: &Path) -> Self {
        match self {
            Self::Io { path: None, source } => Self::io(file, source),
            other => other,
        }
    }
}

fn shown(path: Option<&Path>) -> String {
    path.map_or_else(|| "stream".to_owned(), |path| path.display().to_string())
}

/// Compares a checksum with the recorded one; `what` is only built when they differ.
pub(crate) fn check_crc(expected: u32, found: u32, offset: u64, what: impl FnOnce() -> String) -> Result<()> {
    if expected == found {
        Ok(())
    } else {
        Err(ContainerError::ChecksumMismatch { what: what(), offset, expected, found })
    }
}
