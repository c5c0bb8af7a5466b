//! Zstd frames on the GPU through NVIDIA's nvCOMP, which is found at run time.
//!
//! | room | holds |
//! |---|---|
//! | `find` | where the library may be |
//! | `frame` | what is checked of a frame before nvCOMP sees it, and the form of frames that it made |
//! | `tensor` | frames in device memory |
//! | `decode` | batches of frames to bytes, planes joined or codes dequantised on the way |
//! | `encode` | bytes to frames |
//!
//! nvCOMP takes valid frames only: what it does with others is undefined. So frames come to the device only after their structure was checked
//! here and, by whoever uses this crate, the checksum of their stored bytes. That finds every accident; whoever forges frames *and*
//! checksums can still make nvCOMP misbehave. Decode archives from strangers on the CPU.

mod decode;
mod encode;
mod find;
mod frame;
mod tensor;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use decode::{FrameDecoder, FrameTarget};
pub use encode::{EncodedFrames, FrameEncoder};
pub use tensor::{DeviceFrames, FramesTensor, PreparedFrames};

use crate::launch::{Api, SUPPORTED_MAJOR};

/// The nvCOMP library. Clones share it.
#[derive(Clone, Debug)]
pub struct Nvcomp {
    pub(crate) api: Arc<Api>,
}

impl Nvcomp {
    /// Looks for the library: the file that the environment variable `WCODEC_NVCOMP` names (and then nowhere else); the folders of Python
    /// packages (`nvidia/libnvcomp` under `PYTHONPATH`, the active virtual or Conda environment, the user's and the system's packages);
    /// last as the loader finds it.
    ///
    /// # Errors
    /// [`NvcompError::Missing`] with everything that was tried and what to install; [`NvcompError::Version`] where the variable names
    /// another version.
    pub fn find() -> Result<Self, NvcompError> {
        find::find()
    }

    /// Opens the library at `path`.
    ///
    /// # Errors
    /// [`NvcompError::Missing`] with the loader's reason, [`NvcompError::Version`], [`NvcompError::Symbol`].
    pub fn open(path: &Path) -> Result<Self, NvcompError> {
        Ok(Self { api: Arc::new(Api::open(path)?) })
    }

    /// Its version.
    pub fn version(&self) -> NvcompVersion {
        self.api.version()
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        self.api.path()
    }
}

/// A version of nvCOMP, as the library tells it: 1000 · major + 100 · minor + patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NvcompVersion(pub(crate) u32);

impl NvcompVersion {
    /// The major version.
    pub fn major(self) -> u32 {
        self.0 / 1000
    }
}

impl std::fmt::Display for NvcompVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0 / 1000, self.0 / 100 % 10, self.0 % 100)
    }
}

/// Why nvCOMP cannot be used, or what it refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NvcompError {
    /// The library was not found.
    #[error(
        "nvCOMP {SUPPORTED_MAJOR} was not found: install the Python package nvidia-libnvcomp-cu13 (or -cu12), or name the file \
         libnvcomp.so.{SUPPORTED_MAJOR} in WCODEC_NVCOMP (tried {})",
        .tried.join("; ")
    )]
    Missing {
        /// One line per place: the path and the loader's reason.
        tried: Vec<String>,
    },
    /// It is of a version whose interface is not known.
    #[error("{} is nvCOMP {found}; version {SUPPORTED_MAJOR} is needed", .path.display())]
    Version {
        /// The library.
        path: PathBuf,
        /// Its version.
        found: NvcompVersion,
    },
    /// It lacks a function.
    #[error("{} has no function {name}", .path.display())]
    Symbol {
        /// The library.
        path: PathBuf,
        /// The function.
        name: &'static str,
    },
    /// A function of it failed.
    #[error("{call} returned status {status}")]
    Call {
        /// The function.
        call: &'static str,
        /// Its status, as in `nvcomp/shared_types.h`.
        status: i32,
    },
    /// A frame is not what a frame of zstd mode is.
    #[error("frame {frame}: {what}")]
    Frame {
        /// Its number within the tensor.
        frame: usize,
        /// What is wrong.
        what: &'static str,
    },
}
