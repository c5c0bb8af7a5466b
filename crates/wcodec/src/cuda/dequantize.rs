//! Quantised tensors on a device: decoded and multiplied by their scales.

use std::sync::{Arc, Mutex, PoisonError};

use wcodec_cuda::{DeviceBuffer, DeviceScheme, DeviceSliceMut, Event, FrameTarget, Stream};
use wcodec_quant::FloatType;

use super::device::CudaDevice;
use super::tensor::{DeviceTensor, Held};
use crate::error::{Error, Result};

/// Memory for codes that a kernel decodes before another dequantises them. Kept between calls.
#[derive(Debug, Clone, Default)]
pub(super) struct CodeMemory(Arc<Mutex<Option<(DeviceBuffer, Event)>>>);

/// A quantised tensor, its scheme on the same device, the type to dequantise to, and where to.
pub type DequantizeItem<'a> = (&'a DeviceTensor, &'a DeviceScheme, FloatType, DeviceSliceMut<'a>);

impl CudaDevice {
    /// Queues decoding quantised tensors and multiplying them by their scales ([`crate::Archive::scheme`], uploaded by
    /// [`DeviceScheme::upload`]), with the same bits as [`crate::Archive::dequantize`]. Each output has [`DeviceScheme::out_bytes`] bytes.
    ///
    /// Stored tensors are read where they lie, and frames of zstd mode are dequantised in the pass that joins their planes. Tensors of lanes
    /// and integer mode are decoded into memory that the device keeps, and dequantised from there.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for a scheme of another number of codes; [`Error::Cuda`] for an output of another length and for what the
    /// driver reports.
    pub fn dequantize<'a>(&self, items: impl IntoIterator<Item = DequantizeItem<'a>>, stream: &Stream) -> Result<()> {
        let (mut frames, mut later, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (tensor, scheme, float, out) in items {
            if scheme.code_bytes() as u64 != tensor.byte_len {
                let (name, codes, len) = (&tensor.name, scheme.code_bytes(), tensor.byte_len);
                return Err(Error::BadArgument(format!("tensor `{name}` has {len} bytes, the scheme {codes}")));
            }
            match &tensor.held {
                Held::Frames(held) => frames.push((&**held, FrameTarget::Dequantized(scheme, float, out))),
                Held::Bytes { buffer, pieces, .. } if contiguous(pieces) => {
                    let at = pieces.first().map_or(0, |piece| piece.offset);
                    let codes = buffer.sub_slice(at, scheme.code_bytes())?;
                    wcodec_cuda::dequantize(stream, scheme, codes, float, out)?;
                }
                _ => {
                    later.push((tensor, scheme, float, out, bytes));
                    bytes += scheme.code_bytes().next_multiple_of(256);
                }
            }
        }
        if !frames.is_empty() {
            self.frame_decoder()?.decode(frames, stream)?;
        }
        if later.is_empty() {
            return Ok(());
        }
        let mut memory = self.codes.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (buffer, last) = match &mut *memory {
            Some((buffer, last)) if buffer.len() >= bytes => (buffer, last),
            memory => {
                // First the old one, so that both need not fit; that waits for the device.
                *memory = None;
                let new = (DeviceBuffer::new(self.context(), bytes)?, Event::new(self.context())?);
                let (buffer, last) = memory.insert(new);
                (buffer, last)
            }
        };
        stream.wait(last)?;
        let mut rest = buffer.as_slice_mut();
        let mut decoded = Vec::with_capacity(later.len());
        for &(tensor, scheme, ..) in &later {
            let (codes, others) = rest.split_at(scheme.code_bytes().next_multiple_of(256))?;
            decoded.push((tensor, codes));
            rest = others;
        }
        self.decode(decoded, stream)?;
        for (_, scheme, float, out, at) in later {
            wcodec_cuda::dequantize(stream, scheme, buffer.sub_slice(at, scheme.code_bytes())?, float, out)?;
        }
        last.record(stream)?;
        Ok(())
    }
}

/// Whether pieces lie one behind the other.
fn contiguous(pieces: &[super::tensor::Piece]) -> bool {
    pieces.windows(2).all(|pair| pair[0].offset + pair[0].bytes == pair[1].offset)
}
