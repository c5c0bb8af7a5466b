//! Whether what was decoded is right.

use wcodec_cuda::{CudaError, DeviceFrames, DeviceSlice, NvcompError, Stream, crc32_device};
use wcodec_rans::RansError;

use super::device::CudaDevice;
use super::tensor::{ChunkInfo, DeviceTensor, Held};
use crate::error::{Error, Result};

impl CudaDevice {
    /// Waits for the stream and says whether everything that was decoded of these tensors so far was in order. A failure stays:
    /// compressed bytes do not heal.
    ///
    /// # Errors
    /// [`Error::Rans`] for the first tensor with a damaged superblock, with the offset of the chunk that holds it, as on the CPU;
    /// [`Error::Corrupt`] for a frame that nvCOMP rejected;
    /// [`Error::Cuda`] for what the driver reports.
    pub fn check<'a>(&self, tensors: impl IntoIterator<Item = &'a DeviceTensor>, stream: &Stream) -> Result<()> {
        let (mut lanes, mut integer, mut plain, mut frames) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (number, tensor) in tensors.into_iter().enumerate() {
            match &tensor.held {
                Held::Lanes { tensor: held, superblocks_per_chunk } => {
                    lanes.push(((number, tensor, *superblocks_per_chunk), &**held));
                }
                Held::Integer { tensor: held, superblocks_per_chunk } => {
                    integer.push(((number, tensor, *superblocks_per_chunk), &**held));
                }
                Held::Frames(held) => frames.push((tensor, &**held)),
                Held::Plain { tensor: held } => plain.push(((number, tensor, 1), &**held)),
                Held::Bytes { .. } => {}
            }
        }
        let mut failures = wcodec_cuda::DeviceTensor::failures(stream, lanes.iter().map(|&(_, held)| held))?;
        failures.extend(wcodec_cuda::DeviceInteger::failures(stream, integer.iter().map(|&(_, held)| held))?);
        failures.extend(wcodec_cuda::DevicePlain::failures(stream, plain.iter().map(|&(_, held)| held))?);
        stream.synchronize()?;
        let whose = lanes.into_iter().map(|(whose, _)| whose).chain(integer.into_iter().map(|(whose, _)| whose));
        let whose = whose.chain(plain.into_iter().map(|(whose, _)| whose));
        let failed = whose.zip(failures).filter_map(|(whose, failure)| Some((whose, failure?)));
        if let Some(((_, tensor, per_chunk), failure)) = failed.min_by_key(|((number, ..), _)| *number) {
            return Err(damaged(&tensor.name, &tensor.chunks, per_chunk, failure));
        }
        for (tensor, held) in frames {
            held.check(stream).map_err(|error| broken(tensor, held, error))?;
        }
        Ok(())
    }

    /// Compares the CRC-32 of decoded tensors, chunk by chunk, with those in the archive, on the device: at about the speed of its
    /// memory. Also checks as [`CudaDevice::check`] does. Waits for the stream.
    ///
    /// # Errors
    /// As [`CudaDevice::check`]; [`Error::Checksum`], naming tensor and chunk; [`Error::BadArgument`] for memory shorter than
    /// its tensor.
    pub fn verify<'a>(
        &self,
        items: impl IntoIterator<Item = (&'a DeviceTensor, DeviceSlice<'a>)>,
        stream: &Stream,
    ) -> Result<()> {
        let items: Vec<_> = items.into_iter().collect();
        self.check(items.iter().map(|&(tensor, _)| tensor), stream)?;
        let mut parts = Vec::new();
        let mut expected = Vec::new();
        for (tensor, bytes) in &items {
            let mut start = 0;
            for (number, chunk) in tensor.chunks.iter().enumerate() {
                let len = chunk.decoded_len as usize;
                parts.push(bytes.sub_slice(start, len)?);
                expected.push((*tensor, number, chunk.crc32_decoded));
                start += len;
            }
        }
        for ((tensor, number, expected), found) in expected.into_iter().zip(crc32_device(stream, &parts)?) {
            if expected != found {
                let what = match tensor.mode {
                    crate::Mode::Pooled => format!("tensor `{}`", tensor.name),
                    _ => format!("tensor `{}`, chunk {number}", tensor.name),
                };
                return Err(Error::Checksum { what, expected, found });
            }
        }
        Ok(())
    }
}

/// The error of a frame that nvCOMP rejected.
fn broken(tensor: &DeviceTensor, held: &DeviceFrames, error: CudaError) -> Error {
    let CudaError::Nvcomp(NvcompError::Frame { frame, what }) = error else { return Error::Cuda(error) };
    // Where it begins in its chunk is not known any more.
    let mut start = (frame * held.frame_bytes()) as u64;
    let chunk = tensor.chunks.iter().find(|chunk| {
        let inside = start < chunk.decoded_len;
        start -= if inside { 0 } else { chunk.decoded_len };
        inside
    });
    Error::corrupt(&tensor.name, chunk.map_or(0, |chunk| chunk.offset), format!("zstd frame {frame}: {what}"))
}

/// The error of a superblock that a kernel, or the check before it, rejected.
pub(super) fn damaged(name: &str, chunks: &[ChunkInfo], superblocks_per_chunk: usize, error: CudaError) -> Error {
    let chunk_of = |superblock: u64| {
        let chunk = superblock as usize / superblocks_per_chunk.max(1);
        chunks.get(chunk).map_or(0, |chunk| chunk.offset)
    };
    const WHAT: &str = "superblock";
    let (superblock, source) = match error {
        CudaError::TruncatedSuperblock { superblock } => (superblock, RansError::Truncated { what: WHAT, offset: 0 }),
        CudaError::CorruptSuperblock { superblock } => (superblock, RansError::Corrupt { what: WHAT, offset: 0 }),
        error => return Error::Cuda(error),
    };
    Error::rans(name, chunk_of(superblock), source)
}
