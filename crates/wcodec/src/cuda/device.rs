//! An opened device.

use wcodec_cuda::{CudaContext, CudaDecoder, CudaError};

use super::dequantize::CodeMemory;
use super::frames::Frames;
use super::load::Tools;
use crate::error::Result;

/// A CUDA device that decodes. Clones share the device's primary context and the kernels loaded into it.
#[derive(Debug, Clone)]
pub struct CudaDevice {
    pub(super) decoder: CudaDecoder,
    pub(super) frames: Frames,
    pub(super) codes: CodeMemory,
    pub(super) tools: Tools,
}

impl CudaDevice {
    /// Opens device `ordinal`, counted from 0, in its primary context.
    ///
    /// # Errors
    /// [`crate::Error::Cuda`]: no driver, no such device, or a device that fails.
    pub fn open(ordinal: u32) -> Result<Self> {
        Ok(Self::in_context(&CudaContext::new(ordinal)?))
    }

    /// The device of a context that was opened before.
    pub fn in_context(context: &CudaContext) -> Self {
        let decoder = CudaDecoder::new(context);
        Self { decoder, frames: Frames::default(), codes: CodeMemory::default(), tools: Tools::default() }
    }

    /// The same device, whose launches of lanes kernels leave `multiprocessors` to what runs beside them on other streams, see
    /// [`CudaDecoder::sparing`].
    #[must_use]
    pub fn sparing(&self, multiprocessors: u32) -> Self {
        Self { decoder: self.decoder.sparing(multiprocessors), ..self.clone() }
    }

    /// The device's primary context.
    pub fn context(&self) -> &CudaContext {
        self.decoder.context()
    }

    /// The device's number.
    pub fn ordinal(&self) -> u32 {
        self.context().device().ordinal
    }

    /// The device's name, as the driver gives it.
    pub fn name(&self) -> &str {
        &self.context().device().name
    }
}

/// Whether an error says that there is nothing to decode on, rather than that it failed.
pub(crate) fn is_absent(error: &CudaError) -> bool {
    use wcodec_cuda::DriverError;
    matches!(error, CudaError::Driver(DriverError::Missing { .. }) | CudaError::NoSuchDevice { available: 0, .. })
}
