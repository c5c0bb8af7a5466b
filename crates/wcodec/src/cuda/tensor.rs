//! A tensor in device memory.

use std::sync::Arc;

use wcodec_container::DtypeCode;
use wcodec_cuda::DeviceBuffer;

use crate::mode::Mode;

/// A tensor in device memory, compressed. Independent of the archive it came from.
///
/// Its memory belongs to it and to those uploaded with it, and is freed with the last of them.
#[derive(Debug)]
pub struct DeviceTensor {
    pub(super) name: String,
    pub(super) dtype: DtypeCode,
    pub(super) shape: Vec<u64>,
    pub(super) mode: Mode,
    pub(super) byte_len: u64,
    pub(super) chunks: Vec<ChunkInfo>,
    pub(super) held: Held,
}

/// What is known of a chunk: for errors and checks.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkInfo {
    /// Where it begins in the archive.
    pub(super) offset: u64,
    pub(super) decoded_len: u64,
    pub(super) crc32_decoded: u32,
}

/// What a device holds of a tensor.
#[derive(Debug)]
pub(super) enum Held {
    /// Superblocks, for the lanes kernels.
    Lanes { tensor: Box<wcodec_cuda::DeviceTensor>, superblocks_per_chunk: usize },
    /// Superblocks, for the integer kernel.
    Integer { tensor: Box<wcodec_cuda::DeviceInteger>, superblocks_per_chunk: usize },
    /// Frames, for nvCOMP.
    Frames(Box<wcodec_cuda::DeviceFrames>),
    /// Byte planes, for the plain kernel.
    Plain { tensor: Box<wcodec_cuda::DevicePlain> },
    /// The decoded bytes themselves, in pieces that follow one another in the tensor.
    Bytes { buffer: Arc<DeviceBuffer>, pieces: Vec<Piece>, by: DecodedBy },
}

/// Some bytes of a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) offset: usize,
    pub(super) bytes: usize,
}

/// What brings a tensor's bytes into the caller's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecodedBy {
    /// A kernel decodes them every time.
    Kernel,
    /// nvCOMP decodes their Zstd frames every time, and a kernel joins their byte planes.
    Nvcomp,
    /// They are stored as they are, and copied.
    Copy,
    /// The CPU decoded them when the tensor was uploaded; they take their decoded size on the device and are copied. That is so for
    /// modes without a kernel.
    Host,
}

impl DeviceTensor {
    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Element type.
    pub fn dtype(&self) -> DtypeCode {
        self.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// The tool chain that coded it.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Decoded bytes.
    pub fn byte_len(&self) -> u64 {
        self.byte_len
    }

    /// Bytes of device memory that it takes, what it shares with others included.
    pub fn device_bytes(&self) -> u64 {
        match &self.held {
            Held::Lanes { tensor, .. } => tensor.device_bytes() as u64,
            Held::Integer { tensor, .. } => tensor.device_bytes() as u64,
            Held::Frames(frames) => frames.device_bytes() as u64,
            Held::Plain { tensor } => tensor.device_bytes() as u64,
            Held::Bytes { pieces, .. } => pieces.iter().map(|piece| piece.bytes as u64).sum(),
        }
    }

    /// What brings its bytes into the caller's memory.
    pub fn decoded_by(&self) -> DecodedBy {
        match &self.held {
            Held::Lanes { .. } | Held::Integer { .. } | Held::Plain { .. } => DecodedBy::Kernel,
            Held::Frames(_) => DecodedBy::Nvcomp,
            Held::Bytes { by, .. } => *by,
        }
    }

    /// Rows of the tensor as a matrix: its first dimension (1 for a scalar).
    pub fn row_count(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Decoded bytes of a row; `None` where rows are no whole bytes, or there are none.
    pub fn row_bytes(&self) -> Option<u64> {
        let rows = self.row_count();
        (rows > 0 && self.byte_len.is_multiple_of(rows)).then(|| self.byte_len / rows)
    }
}
