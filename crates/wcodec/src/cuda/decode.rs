//! Decoding batches, whole or in part.

use std::ops::Range;

use wcodec_cuda::{DeviceSlice, DeviceSliceMut, FrameTarget, Stream, copy_many};

use super::device::CudaDevice;
use super::tensor::{DeviceTensor, Held};
use crate::error::{Error, Result};

impl CudaDevice {
    /// Queues the decoding of tensors on `stream`, each into the first [`DeviceTensor::byte_len`] bytes of its memory. One launch
    /// takes up to 32 tensors of a kind. Returns at once; whether the bytes were in order is known later: [`CudaDevice::check`].
    ///
    /// Fastest where outputs begin at multiples of 16 bytes. Tensors and outputs must stay until the stream has done the work;
    /// memory that is freed by its owner's `Drop` does.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for an output that is too short, naming the tensor; [`Error::Cuda`] for memory of another device and
    /// for what the driver reports.
    pub fn decode<'a>(
        &self,
        items: impl IntoIterator<Item = (&'a DeviceTensor, DeviceSliceMut<'a>)>,
        stream: &Stream,
    ) -> Result<()> {
        let whole = items.into_iter().map(|(tensor, out)| {
            let len = tensor.byte_len as usize;
            if out.len() < len {
                return Err(wrong_length(tensor, len, out.len()));
            }
            Ok((tensor, 0..tensor.byte_len, out.take(len)?))
        });
        self.decode_ranges(whole.collect::<Result<Vec<_>>>()?, stream)
    }

    /// Queues the decoding of rows (of the first dimension) of tensors: only superblocks that hold some of these rows are decoded. For
    /// embeddings. A tensor may occur more than once; outputs are as long as their rows.
    ///
    /// # Errors
    /// As [`CudaDevice::decode`]; [`Error::BadArgument`] for rows that are not there or that are no whole bytes.
    pub fn decode_rows<'a>(
        &self,
        items: impl IntoIterator<Item = (&'a DeviceTensor, Range<u64>, DeviceSliceMut<'a>)>,
        stream: &Stream,
    ) -> Result<()> {
        let ranges = items.into_iter().map(|(tensor, rows, out)| {
            let row_bytes = tensor.row_bytes().filter(|_| rows.start <= rows.end && rows.end <= tensor.row_count());
            let Some(row_bytes) = row_bytes else {
                let (name, count) = (&tensor.name, tensor.row_count());
                return Err(Error::BadArgument(format!(
                    "tensor `{name}` has {count} rows; there are no rows {rows:?}"
                )));
            };
            Ok((tensor, rows.start * row_bytes..rows.end * row_bytes, out))
        });
        self.decode_ranges(ranges.collect::<Result<Vec<_>>>()?, stream)
    }

    /// Queues the decoding of bytes of decoded tensors, whole elements each. As [`CudaDevice::decode_rows`].
    ///
    /// # Errors
    /// As [`CudaDevice::decode_rows`].
    pub fn decode_ranges<'a>(
        &self,
        items: impl IntoIterator<Item = (&'a DeviceTensor, Range<u64>, DeviceSliceMut<'a>)>,
        stream: &Stream,
    ) -> Result<()> {
        let (mut lanes, mut integer, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        let (mut frames, mut copies) = (Vec::new(), Vec::new());
        for (tensor, range, mut out) in items {
            if range.start > range.end || range.end > tensor.byte_len {
                let (name, len) = (&tensor.name, tensor.byte_len);
                return Err(Error::BadArgument(format!(
                    "tensor `{name}` has {len} bytes; there are no bytes {range:?}"
                )));
            }
            // What is on the device fits into memory.
            let range = range.start as usize..range.end as usize;
            if out.len() != range.len() {
                return Err(wrong_length(tensor, range.len(), out.len()));
            }
            match &tensor.held {
                Held::Lanes { tensor, .. } => lanes.push((&**tensor, range, out)),
                Held::Integer { tensor, .. } => integer.push((&**tensor, range, out)),
                Held::Frames(tensor) => frames.push((&**tensor, FrameTarget::Bytes(range, out))),
                Held::Plain { tensor } => plain.push((&**tensor, range, out)),
                Held::Bytes { buffer, pieces, .. } => {
                    let mut start = 0;
                    for piece in pieces {
                        let wanted = start.max(range.start)..(start + piece.bytes).min(range.end);
                        if wanted.start < wanted.end {
                            let from = buffer.sub_slice(piece.offset + wanted.start - start, wanted.len())?;
                            let (to, rest) = out.split_at(wanted.len())?;
                            copies.push((from, to));
                            out = rest;
                        }
                        start += piece.bytes;
                    }
                }
            }
        }
        self.decoder.decode_ranges(lanes, stream)?;
        self.decoder.decode_integer(integer, stream)?;
        if !frames.is_empty() {
            self.frame_decoder()?.decode(frames, stream)?;
        }
        self.decoder.decode_plain(plain, stream)?;
        copy_many(stream, copies as Vec<(DeviceSlice<'_>, DeviceSliceMut<'_>)>)?;
        Ok(())
    }
}

fn wrong_length(tensor: &DeviceTensor, needed: usize, present: usize) -> Error {
    Error::BadArgument(format!("tensor `{}`: {needed} bytes do not go into device memory of {present}", tensor.name))
}
