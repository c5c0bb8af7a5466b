//! Bytes to frames.

use std::sync::{Mutex, PoisonError};

use super::decode::grow;
use super::{Nvcomp, NvcompError, frame};
use crate::launch::{self, Batch, Cut, Lists};
use crate::{CudaContext, CudaError, DeviceBuffer, DeviceSliceMut, Stream, copy_many};

/// Encodes bytes into the frames of zstd mode on one device, through nvCOMP; readable by any zstd.
///
/// Temporary memory is kept between calls.
#[derive(Debug)]
pub struct FrameEncoder {
    nvcomp: Nvcomp,
    context: CudaContext,
    workspace: Mutex<Workspace>,
}

#[derive(Debug)]
struct Workspace {
    lists: Lists,
    temp: DeviceBuffer,
    plain: DeviceBuffer,
    pieces: DeviceBuffer,
    frames: DeviceBuffer,
    gathered: DeviceBuffer,
}

/// What pieces and frames are aligned to; nvCOMP 6 asks for 4.
const ALIGN: usize = 16;

impl FrameEncoder {
    /// An encoder on a device. Takes no memory yet.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn new(nvcomp: &Nvcomp, context: &CudaContext) -> Result<Self, CudaError> {
        let empty = || DeviceBuffer::new(context, 0);
        let workspace = Workspace {
            lists: Lists::new(context, 0)?,
            temp: empty()?,
            plain: empty()?,
            pieces: empty()?,
            frames: empty()?,
            gathered: empty()?,
        };
        Ok(Self { nvcomp: nvcomp.clone(), context: context.clone(), workspace: Mutex::new(workspace) })
    }

    /// Encodes `data`, cut into pieces of `frame` bytes with `planes` byte planes. Best with many pieces at once: a device needs hundreds to
    /// be busy. Waits for the stream. [`EncodedFrames::seal`] then completes each frame, on as many threads as the caller likes.
    ///
    /// # Errors
    /// [`CudaError::Inconsistent`] for sizes that no tensor has, [`CudaError::Nvcomp`] where the library refuses,
    /// [`CudaError::OutOfDeviceMemory`], and what the driver reports.
    pub fn encode(
        &self,
        data: &[u8],
        frame_bytes: usize,
        planes: usize,
        stream: &Stream,
    ) -> Result<EncodedFrames, CudaError> {
        let whole = matches!(planes, 1 | 2 | 4 | 8) && frame_bytes.is_multiple_of(planes);
        if !whole || frame_bytes == 0 || frame_bytes > 1 << 20 {
            return Err(CudaError::Inconsistent { what: "frames of whole elements, up to 1 MiB" });
        }
        let cut = Cut { bytes: data.len(), frame: frame_bytes, stride: frame_bytes.next_multiple_of(ALIGN), planes };
        let count = cut.pieces();
        if count == 0 {
            return Ok(EncodedFrames { bytes: Vec::new(), lengths: Vec::new(), starts: Vec::new(), planes });
        }
        let api = &self.nvcomp.api;
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::default();
        batch.add(cut);
        let room = api.max_output(batch.largest)?.next_multiple_of(ALIGN);
        grow(&mut workspace.plain, data.len())?;
        grow(&mut workspace.frames, count * room)?;
        grow(&mut workspace.temp, api.compress_temp(stream, batch)?)?;
        if workspace.lists.room() < count {
            workspace.lists = Lists::new(&self.context, count.next_power_of_two())?;
        }
        let Workspace { lists, temp, plain, pieces, frames, gathered } = &mut *workspace;
        plain.copy_from_host(stream, 0, data)?;
        let plain = plain.sub_slice(0, data.len())?;
        let source = if planes == 1 && cut.stride == cut.frame {
            plain
        } else {
            grow(pieces, cut.extent())?;
            launch::split_planes(stream, cut, plain, pieces.sub_slice_mut(0, cut.extent())?)?;
            pieces.sub_slice(0, cut.extent())?
        };
        launch::encode_pieces(stream, api, lists, temp, (cut, source), (frames.as_slice_mut(), room))?;
        let (lengths, statuses) = lists.results(stream, count)?;
        for (number, (&length, &status)) in lengths.iter().zip(&statuses).enumerate() {
            if status != 0 || length > room as u64 {
                return Err(NvcompError::Frame { frame: number, what: "nvCOMP could not encode it" }.into());
            }
        }
        // One copy to the host instead of one for each frame.
        let total: usize = lengths.iter().map(|&length| (length as usize).next_multiple_of(ALIGN)).sum();
        grow(gathered, total)?;
        let mut copies = Vec::with_capacity(count);
        let mut free: DeviceSliceMut<'_> = gathered.as_slice_mut();
        for (number, &length) in lengths.iter().enumerate() {
            let (this, rest) = free.split_at((length as usize).next_multiple_of(ALIGN))?;
            copies.push((frames.sub_slice(number * room, length as usize)?, this.take(length as usize)?));
            free = rest;
        }
        copy_many(stream, copies)?;
        let mut bytes = vec![0; total];
        gathered.copy_to_host(stream, 0, &mut bytes)?;
        drop(workspace);

        let starts = lengths
            .iter()
            .scan(0, |at, &length| {
                let start = *at;
                *at += (length as usize).next_multiple_of(ALIGN);
                Some(start)
            })
            .collect();
        Ok(EncodedFrames { bytes, lengths, starts, planes })
    }
}

/// What nvCOMP made of pieces.
#[derive(Debug)]
pub struct EncodedFrames {
    bytes: Vec<u8>,
    lengths: Vec<u64>,
    starts: Vec<usize>,
    planes: usize,
}

impl EncodedFrames {
    /// Number of frames.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Frame `number` as zstd mode has it: nvCOMP's blocks behind a header with the content's size, and its checksum behind them. `piece` are
    /// the bytes that it was made of, as they were given.
    ///
    /// # Errors
    /// [`NvcompError::Frame`] where nvCOMP made what is no frame of this piece, or there is no such frame.
    pub fn seal(&self, number: usize, piece: &[u8]) -> Result<Vec<u8>, NvcompError> {
        let fault = |what| NvcompError::Frame { frame: number, what };
        let made = self.starts.get(number).and_then(|&at| self.bytes.get(at..at + self.lengths[number] as usize));
        let parsed = frame::parse(made.ok_or(fault("no such frame"))?).map_err(fault)?;
        if parsed.content.is_some_and(|size| size != piece.len() as u64) {
            return Err(fault("another content size than its piece"));
        }
        if self.planes == 1 {
            return Ok(frame::seal(&parsed, piece));
        }
        let mut planar = Vec::with_capacity(piece.len());
        (0..self.planes).for_each(|plane| planar.extend(piece.iter().skip(plane).step_by(self.planes)));
        Ok(frame::seal(&parsed, &planar))
    }
}
