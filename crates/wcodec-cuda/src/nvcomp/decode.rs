//! Batches of frames to bytes.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use wcodec_quant::FloatType;

use super::{DeviceFrames, Nvcomp};
use crate::dequant::DeviceScheme;
use crate::launch::{self, Batch, Cut, FramePart, Lists};
use crate::{CudaContext, CudaError, DeviceBuffer, DeviceSliceMut, Event, Stream, copy_many};

/// Decodes tensors in zstd mode on one device, through nvCOMP.
///
/// Temporary memory is kept between calls. Calls on different streams wait for one another on the device.
#[derive(Debug)]
pub struct FrameDecoder {
    nvcomp: Nvcomp,
    context: CudaContext,
    workspace: Mutex<Workspace>,
}

#[derive(Debug)]
struct Workspace {
    lists: Lists,
    temp: DeviceBuffer,
    /// Pieces before their planes are joined.
    pieces: DeviceBuffer,
    /// Bytes of which a part is wanted.
    joined: DeviceBuffer,
    /// Recorded behind the last use.
    last: Event,
}

/// Where a tensor goes.
#[derive(Debug)]
pub enum FrameTarget<'a> {
    /// The bytes in a range of it, as long as the range.
    Bytes(Range<usize>, DeviceSliceMut<'a>),
    /// All of it as codes, dequantised in the pass that joins planes: [`DeviceScheme::out_bytes`] bytes.
    Dequantized(&'a DeviceScheme, FloatType, DeviceSliceMut<'a>),
}

/// Decoded bytes of one call of nvCOMP. Enough frames to fill a device; temporary memory grows with it.
const BATCH_BYTES: usize = 512 << 20;

/// Some frames of a tensor that are decoded together.
struct Part<'a> {
    tensor: &'a DeviceFrames,
    frames: Range<usize>,
    cut: Cut,
    to: To<'a>,
}

enum To<'a> {
    /// Where nvCOMP can write them.
    Direct(DeviceSliceMut<'a>),
    /// Plane by plane first.
    Joined(DeviceSliceMut<'a>),
    /// A part of a frame's bytes.
    Cutout(Range<usize>, DeviceSliceMut<'a>),
    Dequantized(&'a DeviceScheme, FloatType, DeviceSliceMut<'a>),
}

impl FrameDecoder {
    /// A decoder on a device. Takes no memory yet.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn new(nvcomp: &Nvcomp, context: &CudaContext) -> Result<Self, CudaError> {
        let empty = || DeviceBuffer::new(context, 0);
        let workspace = Workspace {
            lists: Lists::new(context, 0)?,
            temp: empty()?,
            pieces: empty()?,
            joined: empty()?,
            last: Event::new(context)?,
        };
        Ok(Self { nvcomp: nvcomp.clone(), context: context.clone(), workspace: Mutex::new(workspace) })
    }

    /// The library.
    pub fn nvcomp(&self) -> &Nvcomp {
        &self.nvcomp
    }

    /// Queues the decoding of tensors, or of the frames that meet a range, in batches of up to 512 MiB. Whether nvCOMP was content is known
    /// later: [`DeviceFrames::check`]. Whether the bytes are right, only their checksum tells.
    ///
    /// Without planes, and into memory aligned to 8 bytes, nvCOMP writes the output itself; otherwise a second pass does.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`] for a range that is not there or an output of another length, [`CudaError::OtherDevice`],
    /// [`CudaError::OutOfDeviceMemory`] for temporary memory, [`CudaError::Nvcomp`], and what the driver reports.
    pub fn decode<'a>(
        &self,
        items: impl IntoIterator<Item = (&'a DeviceFrames, FrameTarget<'a>)>,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let align = self.nvcomp.api.decompress_alignments().output.max(1);
        let mut parts = Vec::new();
        for (tensor, target) in items {
            match target {
                FrameTarget::Bytes(range, out) => parts_of(tensor, range, out, align, &mut parts)?,
                FrameTarget::Dequantized(scheme, float, out) if tensor.frames > 0 => parts.push(Part {
                    tensor,
                    frames: 0..tensor.frames,
                    cut: tensor.cut,
                    to: To::Dequantized(scheme, float, out),
                }),
                FrameTarget::Dequantized(..) => {}
            }
        }
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        stream.wait(&workspace.last)?;
        let mut batch = Vec::new();
        let mut bytes = 0;
        for part in parts {
            if bytes + part.cut.bytes > BATCH_BYTES && !batch.is_empty() {
                self.run(&mut workspace, std::mem::take(&mut batch), stream)?;
                bytes = 0;
            }
            bytes += part.cut.bytes;
            batch.push(part);
        }
        self.run(&mut workspace, batch, stream)?;
        workspace.last.record(stream)
    }

    fn run(&self, workspace: &mut Workspace, parts: Vec<Part<'_>>, stream: &Stream) -> Result<(), CudaError> {
        let mut batch = Batch::default();
        let (mut piece_bytes, mut joined_bytes) = (0, 0);
        for part in &parts {
            batch.add(part.cut);
            if !matches!(part.to, To::Direct(_)) {
                piece_bytes += part.cut.extent().next_multiple_of(16);
            }
            if let To::Cutout(..) = part.to {
                joined_bytes += part.cut.bytes.next_multiple_of(16);
            }
        }
        if batch.count == 0 {
            return Ok(());
        }
        if workspace.lists.room() < batch.count {
            workspace.lists = Lists::new(&self.context, batch.count.next_power_of_two())?;
        }
        let temp = self.nvcomp.api.decompress_temp(stream, batch)?;
        grow(&mut workspace.temp, temp)?;
        grow(&mut workspace.pieces, piece_bytes)?;
        grow(&mut workspace.joined, joined_bytes)?;
        let Workspace { lists, temp, pieces, joined, .. } = workspace;

        // nvCOMP writes outputs and pieces; what reads pieces comes after it.
        let mut frames = Vec::with_capacity(parts.len());
        let mut after = Vec::new();
        let mut free = pieces.as_slice_mut();
        let mut at = 0;
        for part in parts {
            let to = match part.to {
                To::Direct(out) => out,
                to => {
                    let bytes = part.cut.extent();
                    let (this, rest) = free.split_at(bytes.next_multiple_of(16))?;
                    free = rest;
                    after.push((part.cut, at, to));
                    at += this.len();
                    this
                }
            };
            frames.push(FramePart {
                table: part.tensor.table()?,
                frames: part.tensor.frames,
                first: part.frames.start,
                cut: part.cut,
                to,
                failed: part.tensor.failed()?,
            });
        }
        launch::decode_frames(stream, &self.nvcomp.api, lists, temp, frames)?;
        let mut cutouts = Vec::new();
        let mut joined_at = 0;
        for (cut, at, to) in after {
            let from = pieces.sub_slice(at, cut.extent())?;
            match to {
                To::Joined(out) => launch::join_planes(stream, cut, from, out)?,
                To::Dequantized(scheme, float, out) => {
                    launch::dequantize(stream, &scheme.numbers, (cut, from), float, out)?;
                }
                To::Cutout(range, out) => {
                    launch::join_planes(stream, cut, from, joined.sub_slice_mut(joined_at, cut.bytes)?)?;
                    cutouts.push((joined_at + range.start, range.len(), out));
                    joined_at += cut.bytes.next_multiple_of(16);
                }
                To::Direct(_) => {}
            }
        }
        let mut copies = Vec::with_capacity(cutouts.len());
        for (at, bytes, out) in cutouts {
            copies.push((joined.sub_slice(at, bytes)?, out));
        }
        copy_many(stream, copies)
    }
}

/// Cuts a range of a tensor into parts of at most half a batch: whole frames, and single frames of which a part is wanted.
fn parts_of<'a>(
    tensor: &'a DeviceFrames,
    range: Range<usize>,
    out: DeviceSliceMut<'a>,
    align: usize,
    parts: &mut Vec<Part<'a>>,
) -> Result<(), CudaError> {
    let Cut { bytes: all, frame, stride, planes } = tensor.cut;
    if range.start > range.end || range.end > all {
        return Err(CudaError::OutOfRange { offset: range.start, bytes: range.len(), size: all });
    }
    if out.len() != range.len() {
        return Err(CudaError::OutOfRange { offset: 0, bytes: range.len(), size: out.len() });
    }
    let most = (BATCH_BYTES / 2 / frame).max(1);
    let (mut at, mut rest) = (range.start, out);
    while at < range.end {
        let first = at / frame;
        let begin = first * frame;
        let whole = |last: usize| (last * frame).min(all);
        // As many whole frames as there are, or a part of one.
        let last = if at == begin && whole(first + 1) <= range.end {
            let wanted = if range.end == all { tensor.frames } else { range.end / frame };
            wanted.min(first + most)
        } else {
            first + 1
        };
        let end = whole(last).min(range.end);
        let (this, others) = rest.split_at(end - at)?;
        rest = others;
        let bytes = whole(last) - begin;
        let cut = Cut { bytes, frame, stride, planes };
        let direct = planes == 1
            && this.address().is_multiple_of(align as u64)
            && (frame.is_multiple_of(align) || last - first == 1);
        let (cut, to) = if bytes != this.len() {
            (cut, To::Cutout(at - begin..end - begin, this))
        } else if direct {
            (Cut { stride: frame, ..cut }, To::Direct(this))
        } else {
            (cut, To::Joined(this))
        };
        parts.push(Part { tensor, frames: first..last, cut, to });
        at = end;
    }
    Ok(())
}

/// Makes a buffer at least `bytes` long. The old one is freed when the device has done its work.
pub(super) fn grow(buffer: &mut DeviceBuffer, bytes: usize) -> Result<(), CudaError> {
    if buffer.len() < bytes {
        let context = buffer.context().clone();
        // First the old one, so that both need not fit.
        *buffer = DeviceBuffer::new(&context, 0)?;
        *buffer = DeviceBuffer::new(&context, bytes)?;
    }
    Ok(())
}
