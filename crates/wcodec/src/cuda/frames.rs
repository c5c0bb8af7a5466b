//! Tensors in zstd mode on a device: nvCOMP decodes their frames, and makes frames of what is to be compressed.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use wcodec_cuda::{
    CudaContext, CudaError, DeviceBuffer, DeviceFrames, FrameDecoder, FrameEncoder, FramesTensor, Nvcomp, NvcompError,
    PreparedFrames, Stream,
};

use super::device::CudaDevice;
use crate::archive::{Decoder, Tensor};
use crate::error::{Error, Result};
use crate::frames::{FrameMaker, FrameParams};
use crate::mode::Mode;

/// nvCOMP on a device, looked for when it is first needed. Clones share what was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Frames {
    decoder: Arc<OnceLock<Result<FrameDecoder, CudaError>>>,
    /// Whether a tensor in zstd mode without nvCOMP is an error instead of work for the CPU.
    pub(super) required: bool,
    /// Whether frames with right checksums go to nvCOMP unseen.
    trusted: bool,
}

impl Frames {
    /// With a library that was found elsewhere.
    pub(super) fn with(nvcomp: &Nvcomp, context: &CudaContext) -> Result<Self> {
        let decoder = OnceLock::from(Ok(FrameDecoder::new(nvcomp, context)?));
        Ok(Self { decoder: Arc::new(decoder), required: true, ..Self::default() })
    }

    fn decoder(&self, context: &CudaContext) -> Result<&FrameDecoder, &CudaError> {
        let find = || FrameDecoder::new(&Nvcomp::find()?, context);
        self.decoder.get_or_init(find).as_ref()
    }
}

impl CudaDevice {
    /// The same device with the nvCOMP library at `path`, for tensors in zstd mode. Without this call the library is looked for when it is
    /// first needed: see [`Nvcomp::find`].
    ///
    /// # Errors
    /// [`Error::Cuda`] with the loader's reason, or for a library of another version.
    pub fn with_nvcomp(self, path: impl AsRef<Path>) -> Result<Self> {
        let nvcomp = Nvcomp::open(path.as_ref()).map_err(CudaError::from)?;
        Ok(Self { frames: Frames::with(&nvcomp, self.context())?, ..self })
    }

    /// The same device, which takes a tensor in zstd mode only if it has nvCOMP, and otherwise returns an error that says what to install,
    /// instead of leaving such tensors to the CPU. [`crate::Backend::Cuda`] opens devices so.
    #[must_use]
    pub fn requiring_nvcomp(mut self) -> Self {
        self.frames.required = true;
        self
    }

    /// The same device, which gives nvCOMP frames whose stored bytes have the right checksum without decoding them on the CPU first. For
    /// archives from whom one trusts: nvCOMP takes valid frames only, a checksum finds accidents alone, and a forged frame can end this
    /// process's use of the device.
    ///
    /// Otherwise every tensor in zstd mode is verified on the CPU when it is uploaded, once for all its decodings.
    #[must_use]
    pub fn trusting_frames(mut self) -> Self {
        self.frames.trusted = true;
        self
    }

    /// The nvCOMP library, if one is found.
    ///
    /// # Errors
    /// [`Error::Cuda`] with everything that was tried and what to install.
    pub fn nvcomp(&self) -> Result<&Nvcomp> {
        Ok(self.frame_decoder()?.nvcomp())
    }

    pub(super) fn frame_decoder(&self) -> Result<&FrameDecoder> {
        self.frames.decoder(self.context()).map_err(|error| Error::Cuda(error.clone()))
    }

    /// Whether tensors in zstd mode go to nvCOMP; if not, the CPU decodes them.
    fn takes_frames(&self) -> Result<bool> {
        match self.frame_decoder() {
            Ok(_) => Ok(true),
            // Only what is missing, or of another version, is replaced.
            Err(Error::Cuda(CudaError::Nvcomp(_))) if !self.frames.required => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether tensors in zstd mode, if there are some among these, are kept as frames.
    pub(super) fn keeps_frames(&self, tensors: &[Tensor<'_>]) -> Result<bool> {
        if tensors.iter().any(|tensor| tensor.mode() == Mode::Zstd) { self.takes_frames() } else { Ok(false) }
    }

    /// Copies tensors in zstd mode to the device, after the structure of their frames was checked and they were verified: decoded on the
    /// CPU or, if they are trusted, compared by the checksum of their stored bytes.
    pub(super) fn upload_frames(&self, tensors: &[&Tensor<'_>], stream: &Stream) -> Result<Vec<DeviceFrames>> {
        let trusted = self.frames.trusted;
        tensors.par_iter().try_for_each(|tensor| if trusted { tensor.verify_stored() } else { tensor.verify() })?;
        let slices = tensors.iter().map(|tensor| frames_of(tensor)).collect::<Result<Vec<_>>>()?;
        let prepared = tensors.par_iter().zip(&slices).map(|(tensor, (params, frames))| {
            let bytes = usize::try_from(tensor.byte_len()).unwrap_or(usize::MAX);
            let parts = FramesTensor {
                frame: params.frame as usize,
                planes: params.plane_bytes,
                decoded_bytes: bytes,
                frames: frames.as_slice(),
            };
            PreparedFrames::new(&parts).map_err(|error| broken(tensor, error))
        });
        let prepared = prepared.collect::<Result<Vec<_>>>()?;
        let bytes = prepared.iter().map(PreparedFrames::device_bytes).sum();
        let mut buffer = DeviceBuffer::new(self.context(), bytes)?;
        let (mut places, mut at) = (Vec::with_capacity(prepared.len()), 0);
        let mut payload = Vec::new();
        for frames in &prepared {
            payload.clear();
            frames.append_to(&mut payload);
            buffer.copy_from_host(stream, at, &payload)?;
            places.push(at);
            at += payload.len();
        }
        let buffer = Arc::new(buffer);
        let adopted: Vec<_> =
            prepared.into_iter().zip(places).map(|(frames, at)| (frames, Arc::clone(&buffer), at)).collect();
        Ok(DeviceFrames::adopt(stream, &adopted)?)
    }
}

/// The frames of a tensor in zstd mode.
fn frames_of<'a>(tensor: &'a Tensor<'_>) -> Result<(FrameParams, Vec<&'a [u8]>)> {
    let Decoder::Frames(frames) = tensor.decoder() else {
        return Err(Error::BadArgument(format!("tensor `{}` is in {} mode", tensor.name(), tensor.mode())));
    };
    let payload = tensor.payload()?;
    let start = tensor.entry().payload.offset;
    let mut lengths = frames.lengths.iter();
    let mut slices = Vec::with_capacity(frames.lengths.len());
    for extent in tensor.entry().chunk_extents() {
        let begin = (extent.offset - start) as usize;
        let mut chunk = payload.get(begin..begin + extent.len as usize).unwrap_or_default();
        let mut offset = extent.offset;
        for &length in lengths.by_ref().take(frames.params.frames_per_chunk()) {
            let Some((frame, rest)) = chunk.split_at_checked(length as usize) else {
                return Err(Error::corrupt(tensor.name(), offset, "zstd frame is truncated"));
            };
            slices.push(frame);
            chunk = rest;
            offset += u64::from(length);
        }
        if !chunk.is_empty() {
            return Err(Error::corrupt(tensor.name(), offset, "bytes behind the last zstd frame"));
        }
    }
    Ok((frames.params, slices))
}

/// The error of a frame that nvCOMP, or the check before it, rejected.
pub(super) fn broken(tensor: &Tensor<'_>, error: CudaError) -> Error {
    match (error, tensor.decoder()) {
        (CudaError::Nvcomp(NvcompError::Frame { frame, what }), Decoder::Frames(frames)) => {
            let per_chunk = frames.params.frames_per_chunk();
            let chunk = tensor.entry().chunk_extents().nth(frame / per_chunk).map_or(0, |extent| extent.offset);
            let before = &frames.lengths[frame / per_chunk * per_chunk..frame];
            let offset = chunk + before.iter().map(|&length| u64::from(length)).sum::<u64>();
            Error::corrupt(tensor.name(), offset, format!("zstd frame: {what}"))
        }
        (error, _) => Error::Cuda(error),
    }
}

/// Makes frames on a device.
pub(crate) struct DeviceFrameMaker {
    encoder: FrameEncoder,
    stream: Stream,
}

impl DeviceFrameMaker {
    pub(crate) fn new(device: &CudaDevice) -> Result<Self> {
        let encoder = FrameEncoder::new(device.nvcomp()?, device.context())?;
        Ok(Self { encoder, stream: Stream::new(device.context())? })
    }
}

impl FrameMaker for DeviceFrameMaker {
    fn frames(&self, params: FrameParams, data: &[u8]) -> Result<Vec<Vec<u8>>> {
        let frame = params.frame as usize;
        let encoded = self.encoder.encode(data, frame, params.plane_bytes, &self.stream)?;
        let pieces = data.par_chunks(frame).enumerate();
        let sealed = pieces.map(|(number, piece)| encoded.seal(number, piece)).collect::<Result<_, _>>();
        Ok(sealed.map_err(CudaError::from)?)
    }
}
