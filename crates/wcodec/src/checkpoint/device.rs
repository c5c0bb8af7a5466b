//! Decoding an archive's tensors on a CUDA device, some at a time, and handing their bytes to whoever wants them on the host.

use wcodec_cuda::{DeviceBuffer, PinnedBuffer, Stream};

use crate::archive::{Archive, Tensor};
use crate::cuda::{CudaDevice, DecodedBy};
use crate::error::{Error, Result};
use crate::report::DeviceUse;

/// Bytes that go to the host at a time.
const PIECE_BYTES: usize = 32 << 20;
/// Where tensors begin in the output.
const ALIGN: usize = 256;

/// A device with a stream, and what it has done so far.
pub(super) struct Worker<'a> {
    device: &'a CudaDevice,
    stream: Stream,
    /// Two, so that one is filled while the other is read; made when first needed.
    pieces: Option<[PinnedBuffer; 2]>,
    pub(super) used: DeviceUse,
}

/// Tensors, decoded and checked, in device memory.
pub(super) struct Decoded {
    buffer: DeviceBuffer,
    /// Where each tensor lies.
    parts: Vec<(usize, usize)>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(device: &'a CudaDevice) -> Result<Self> {
        let used = DeviceUse { name: format!("cuda:{} ({})", device.ordinal(), device.name()), ..DeviceUse::default() };
        Ok(Self { device, stream: Stream::new(device.context())?, pieces: None, used })
    }

    /// Decodes tensors into device memory and checks status and checksums there. Errors are those of the CPU.
    pub(super) fn decode(&mut self, tensors: &[Tensor<'_>]) -> Result<Decoded> {
        match self.try_decode(tensors) {
            // The device says where it found damage; the CPU says what it is.
            Err(error @ (Error::Rans { .. } | Error::Checksum { .. } | Error::Corrupt { .. })) => {
                tensors.iter().try_for_each(Tensor::verify)?;
                Err(error)
            }
            result => result,
        }
    }

    fn try_decode(&mut self, tensors: &[Tensor<'_>]) -> Result<Decoded> {
        let resident = self.device.upload(tensors, &self.stream)?;
        let mut parts = Vec::with_capacity(resident.len());
        let mut bytes = 0usize;
        for tensor in &resident {
            // It fits: otherwise it could not have been uploaded, or its memory cannot be had below.
            let len = tensor.byte_len() as usize;
            parts.push((bytes, len));
            bytes = bytes.saturating_add(len).next_multiple_of(ALIGN);
        }
        let mut buffer = DeviceBuffer::new(self.device.context(), bytes)?;
        let mut rest = buffer.as_slice_mut();
        let mut outputs = Vec::with_capacity(resident.len());
        for (tensor, &(_, len)) in resident.iter().zip(&parts) {
            let (out, others) = rest.split_at(len.next_multiple_of(ALIGN))?;
            outputs.push((tensor, out.take(len)?));
            rest = others;
        }
        self.device.decode(outputs, &self.stream)?;
        let decoded = resident.iter().zip(&parts).map(|(tensor, &(at, len))| Ok((tensor, buffer.sub_slice(at, len)?)));
        self.device.verify(decoded.collect::<Result<Vec<_>>>()?, &self.stream)?;
        for tensor in &resident {
            match tensor.decoded_by() {
                DecodedBy::Kernel => self.used.by_kernel += 1,
                DecodedBy::Nvcomp => self.used.by_nvcomp += 1,
                DecodedBy::Copy => self.used.by_copy += 1,
                DecodedBy::Host => self.used.by_host += 1,
            }
        }
        Ok(Decoded { buffer, parts })
    }

    /// Calls `write(number, offset, bytes)` for all bytes of all tensors, piece by piece, while the next piece is on its way.
    pub(super) fn read(
        &mut self,
        decoded: &Decoded,
        mut write: impl FnMut(usize, u64, &[u8]) -> Result<()> + Send,
    ) -> Result<()> {
        let stream = &self.stream;
        let [mut filled, mut next] = match self.pieces.take() {
            Some(pieces) => pieces,
            None => {
                [PinnedBuffer::new(stream.context(), PIECE_BYTES)?, PinnedBuffer::new(stream.context(), PIECE_BYTES)?]
            }
        };
        let pieces: Vec<(usize, usize, usize)> = decoded
            .parts
            .iter()
            .enumerate()
            .flat_map(|(number, &(_, len))| {
                (0..len).step_by(PIECE_BYTES).map(move |at| (number, at, (len - at).min(PIECE_BYTES)))
            })
            .collect();
        let mut before: Option<(usize, usize, usize)> = None;
        for piece in pieces.iter().map(Some).chain([None]) {
            let fetch = || match piece {
                Some(&(number, at, len)) => {
                    decoded.buffer.copy_to_host(stream, decoded.parts[number].0 + at, &mut next[..len])
                }
                None => Ok(()),
            };
            let mut pass_on = || match before {
                Some((number, at, len)) => write(number, at as u64, &filled[..len]),
                None => Ok(()),
            };
            let (written, fetched) = rayon::join(&mut pass_on, fetch);
            written?;
            fetched?;
            std::mem::swap(&mut filled, &mut next);
            before = piece.copied();
        }
        self.pieces = Some([filled, next]);
        Ok(())
    }
}

/// The tensors of a batch of `(number, place in the file)`.
pub(super) fn prepared<'a>(archive: &'a Archive, batch: &[(usize, u64)]) -> Result<Vec<Tensor<'a>>> {
    batch.iter().map(|&(number, _)| archive.tensor_at(number)).collect()
}
