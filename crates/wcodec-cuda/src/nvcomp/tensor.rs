//! Frames in device memory.

use std::sync::Arc;

use super::{NvcompError, frame};
use crate::launch::Cut;
use crate::{CudaError, DeviceBuffer, DeviceSlice, Stream};

/// The parts of a tensor in zstd mode, in host memory: its bytes cut into pieces of `frame` bytes, each a frame that holds its piece as
/// byte planes.
#[derive(Clone, Copy, Debug)]
pub struct FramesTensor<'a> {
    /// Bytes of a piece, at most 1 MiB; the last one may be shorter.
    pub frame: usize,
    /// Bytes of an element whose planes are separated: 1 (none), 2, 4 or 8.
    pub planes: usize,
    /// Bytes of the decoded tensor.
    pub decoded_bytes: usize,
    /// The frames.
    pub frames: &'a [&'a [u8]],
}

/// What frames are aligned to on the device; nvCOMP 6 asks for 8.
const ALIGN: usize = 16;
/// The largest piece.
const MAX_FRAME: usize = 1 << 20;
/// Zeros behind the last frame, so that a wide load of its end reads nothing foreign.
const PADDING: usize = 64;

/// Frames that have been checked, on their way to a device.
#[derive(Debug)]
pub struct PreparedFrames<'a> {
    frames: &'a [&'a [u8]],
    cut: Cut,
}

impl<'a> PreparedFrames<'a> {
    /// Checks the frames' structure: header with the piece's content size and no dictionary, blocks and literals inside the frame, nothing
    /// behind. The checksum of the stored bytes must have been compared before.
    ///
    /// # Errors
    /// [`CudaError::Inconsistent`] for sizes that no tensor has, [`NvcompError::Frame`] for the first frame that is none.
    pub fn new(tensor: &FramesTensor<'a>) -> Result<Self, CudaError> {
        let FramesTensor { frame, planes, decoded_bytes, frames } = *tensor;
        if !matches!(planes, 1 | 2 | 4 | 8) || frame == 0 || frame > MAX_FRAME || !frame.is_multiple_of(planes) {
            return Err(CudaError::Inconsistent { what: "frames of whole elements, up to 1 MiB" });
        }
        let cut = Cut { bytes: decoded_bytes, frame, stride: frame.next_multiple_of(ALIGN), planes };
        if frames.len() != decoded_bytes.div_ceil(frame) || u32::try_from(frames.len()).is_err() {
            return Err(CudaError::Inconsistent { what: "as many frames as pieces" });
        }
        for (number, bytes) in frames.iter().enumerate() {
            let content = frame.min(decoded_bytes - number * frame);
            frame::check(bytes, content).map_err(|what| NvcompError::Frame { frame: number, what })?;
        }
        Ok(Self { frames, cut })
    }

    /// Bytes that the frames take on the device, a multiple of 16.
    pub fn device_bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.len().next_multiple_of(ALIGN)).sum::<usize>() + PADDING
    }

    /// Appends the frames as they lie on the device.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        for frame in self.frames {
            out.extend_from_slice(frame);
            out.resize(start + (out.len() - start).next_multiple_of(ALIGN), 0);
        }
        out.resize(out.len() + PADDING, 0);
    }
}

/// A tensor in zstd mode, in device memory. It takes its compressed bytes and about 24 bytes for each frame.
#[derive(Debug)]
pub struct DeviceFrames {
    payload: Arc<DeviceBuffer>,
    payload_bytes: usize,
    /// Of all tensors uploaded together: addresses and lengths of frames.
    tables: Arc<DeviceBuffer>,
    table_at: usize,
    /// Where in `tables` the number of the first frame in error is.
    failed_at: usize,
    pub(super) frames: usize,
    pub(super) cut: Cut,
}

impl DeviceFrames {
    /// Checks and copies a tensor. Waits for the stream.
    ///
    /// # Errors
    /// As [`PreparedFrames::new`]; [`CudaError::OutOfDeviceMemory`], [`CudaError::Call`].
    pub fn upload(stream: &Stream, tensor: &FramesTensor<'_>) -> Result<Self, CudaError> {
        let prepared = PreparedFrames::new(tensor)?;
        let mut payload = Vec::with_capacity(prepared.device_bytes());
        prepared.append_to(&mut payload);
        let payload = Arc::new(DeviceBuffer::from_host(stream, &payload)?);
        let held = Self::adopt(stream, &[(prepared, payload, 0)])?.pop();
        held.ok_or(CudaError::Inconsistent { what: "no tensor" })
    }

    /// Tensors whose frames lie in buffers at offsets, as [`PreparedFrames::append_to`] puts them, or are on their way there on `stream`.
    /// Their tables go to the device in one piece. Waits for the stream.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`] and [`CudaError::Misaligned`] for frames that are not in their buffer or begin at no multiple of 16;
    /// [`CudaError::OutOfDeviceMemory`], [`CudaError::Call`].
    pub fn adopt(
        stream: &Stream,
        tensors: &[(PreparedFrames<'_>, Arc<DeviceBuffer>, usize)],
    ) -> Result<Vec<Self>, CudaError> {
        let mut tables: Vec<u8> = Vec::new();
        let mut places = Vec::with_capacity(tensors.len());
        for (prepared, buffer, offset) in tensors {
            buffer.sub_slice(*offset, prepared.device_bytes())?;
            if !offset.is_multiple_of(ALIGN) {
                let (what, value, multiple) = ("the offset of frames", *offset as u64, ALIGN as u64);
                return Err(CudaError::Misaligned { what, value, multiple });
            }
            let table_at = tables.len();
            let mut address = buffer.address() + *offset as u64;
            for frame in prepared.frames {
                tables.extend_from_slice(&address.to_ne_bytes());
                address += frame.len().next_multiple_of(ALIGN) as u64;
            }
            prepared.frames.iter().for_each(|frame| tables.extend_from_slice(&(frame.len() as u64).to_ne_bytes()));
            let failed_at = tables.len();
            tables.extend_from_slice(&u64::MAX.to_ne_bytes());
            places.push((table_at, failed_at));
        }
        let tables = Arc::new(DeviceBuffer::from_host(stream, &tables)?);
        let held = tensors.iter().zip(places).map(|((prepared, buffer, _), (table_at, failed_at))| Self {
            payload: Arc::clone(buffer),
            payload_bytes: prepared.device_bytes(),
            tables: Arc::clone(&tables),
            table_at,
            failed_at,
            frames: prepared.frames.len(),
            cut: prepared.cut,
        });
        Ok(held.collect())
    }

    /// Bytes of the decoded tensor.
    pub fn decoded_bytes(&self) -> usize {
        self.cut.bytes
    }

    /// Bytes of a piece.
    pub fn frame_bytes(&self) -> usize {
        self.cut.frame
    }

    /// Bytes of device memory that the tensor takes.
    pub fn device_bytes(&self) -> usize {
        self.payload_bytes + 16 * self.frames + 8
    }

    /// Waits for the stream and says whether all frames decoded so far came out as long as they should. A failure stays.
    ///
    /// # Errors
    /// [`NvcompError::Frame`] for the first frame that did not, [`CudaError::Call`].
    pub fn check(&self, stream: &Stream) -> Result<(), CudaError> {
        let mut word = [0; 4];
        self.tables.copy_to_host(stream, self.failed_at, &mut word)?;
        match u32::from_ne_bytes(word) {
            u32::MAX => Ok(()),
            frame => Err(NvcompError::Frame { frame: frame as usize, what: "nvCOMP could not decode it" }.into()),
        }
    }

    pub(super) fn table(&self) -> Result<DeviceSlice<'_>, CudaError> {
        debug_assert!(!self.payload.is_empty());
        self.tables.sub_slice(self.table_at, 16 * self.frames)
    }

    pub(super) fn failed(&self) -> Result<DeviceSlice<'_>, CudaError> {
        self.tables.sub_slice(self.failed_at, 4)
    }
}
