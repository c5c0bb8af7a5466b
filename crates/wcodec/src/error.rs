//! What can go wrong, with the file and the tensor it went wrong in.

use std::io;
use std::path::{Path, PathBuf};

use wcodec_container::ContainerError;
use wcodec_rans::RansError;

/// An error of the façade.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The archive's structure is damaged, of another version, or could not be read or written.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The entropy-coded bytes of a tensor are damaged.
    #[error("tensor `{tensor}`, chunk at byte {offset}: {source}")]
    Rans {
        /// The tensor.
        tensor: String,
        /// Offset of the damaged chunk in the archive.
        offset: u64,
        /// What the entropy decoder found.
        source: RansError,
    },
    /// A tensor's bytes contradict its directory entry.
    #[error("tensor `{tensor}`, byte {offset}: {what}")]
    Corrupt {
        /// The tensor.
        tensor: String,
        /// Offset in the archive.
        offset: u64,
        /// What contradicts what.
        what: String,
    },
    /// A decoded tensor or file does not have the checksum that was recorded for it.
    #[error("checksum of {what} does not match: expected {expected:08x}, found {found:08x}")]
    Checksum {
        /// The tensor (and chunk) or file.
        what: String,
        /// The recorded CRC-32.
        expected: u32,
        /// The CRC-32 of what was decoded.
        found: u32,
    },
    /// The input is no safetensors file, or a damaged one.
    #[error("{}: not a valid safetensors file at byte {offset}: {what}", file.display())]
    Safetensors {
        /// The input file.
        file: PathBuf,
        /// Where in that file.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A checkpoint's index names a shard that is not there.
    #[error("{}: the index names the shard `{shard}`, which is missing", index.display())]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The missing file's name.
        shard: String,
    },
    /// There is no such tensor.
    #[error("no tensor `{0}` in the archive")]
    NoSuchTensor(String),
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    BadArgument(String),
    /// The target exists and overwriting was not asked for.
    #[error("{} already exists", .0.display())]
    AlreadyExists(PathBuf),
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// This build cannot decode on the device that was asked for.
    #[error("device {backend}: this build has no support for it (feature `{feature}`)")]
    NoBackend {
        /// What was asked for.
        backend: crate::Backend,
        /// The feature that it needs.
        feature: &'static str,
    },
    /// A GPU is not there, or failed.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] wcodec_cuda::CudaError),
    /// Codes, scales and zero points do not go together, or weights cannot be quantised.
    #[error(transparent)]
    Quant(#[from] wcodec_quant::QuantError),
    /// The library libzstd refused.
    #[error("{what}: zstd: {message}")]
    Zstd {
        /// The tensor or file.
        what: String,
        /// What it said.
        message: &'static str,
    },
}

/// Result of the façade.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(tensor: &str, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { tensor: tensor.to_owned(), offset, what: what.into() }
    }

    pub(crate) fn rans(tensor: &str, offset: u64, source: RansError) -> Self {
        Self::Rans { tensor: tensor.to_owned(), offset, source }
    }
}
