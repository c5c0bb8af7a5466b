//! What was done, for people and programs.

use wcodec_container::DtypeCode;

use crate::mode::Mode;

/// One tensor of a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorReport {
    /// The tensor's name.
    pub name: String,
    /// Element type.
    pub dtype: DtypeCode,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// The tool chain.
    pub mode: Mode,
    /// Decoded bytes.
    pub decoded_bytes: u64,
    /// Stored bytes: payload and index. 0 for a tensor that shares another's payload.
    pub stored_bytes: u64,
}

/// What compressing or decompressing did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Tensors in archive order.
    pub tensors: Vec<TensorReport>,
    /// Files of the checkpoint.
    pub files: usize,
    /// Bytes of all files of the checkpoint.
    pub decoded_bytes: u64,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// The GPU that decoded or encoded; `None` when the CPU did all.
    pub device: Option<DeviceUse>,
}

/// What a GPU did of the decoding or encoding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceUse {
    /// The device: `cuda:0 (NVIDIA H100 80GB HBM3)`.
    pub name: String,
    /// Tensors that its kernels decoded.
    pub by_kernel: usize,
    /// Tensors whose Zstd frames nvCOMP decoded or made.
    pub by_nvcomp: usize,
    /// Tensors that are stored as they are, and were copied.
    pub by_copy: usize,
    /// Tensors that the CPU decoded for it, because their mode has no kernel.
    pub by_host: usize,
}

impl Report {
    /// Archive size over decoded size; 1 for nothing.
    pub fn ratio(&self) -> f64 {
        if self.decoded_bytes == 0 { 1.0 } else { self.archive_bytes as f64 / self.decoded_bytes as f64 }
    }
}

/// Is told how far long work has come. `()` ignores it.
pub trait Progress: Sync {
    /// The work is this many decoded bytes.
    fn start(&self, _bytes: u64) {}
    /// This many more of them are done.
    fn advance(&self, _bytes: u64) {}
}

impl Progress for () {}
