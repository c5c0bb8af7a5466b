//! wcodec on NVIDIA GPUs.
//!
//! Everything runs in the device's *primary* context, so device memory and streams are shared with PyTorch, candle and any
//! other user of the CUDA runtime in the process. The thread's current context is left as it was found.
//!
//! The crate links without `libcuda` and starts without a driver ([`wcodec_driver`]); then every entry point returns
//! [`CudaError::Driver`].
//!
//! ```
//! use wcodec_cuda::{CudaContext, CudaError, DeviceBuffer, Stream, crc32_device};
//!
//! # fn main() -> Result<(), CudaError> {
//! let context = match CudaContext::new(0) {
//!     Ok(context) => context,
//!     Err(reason) => {
//!         println!("no GPU here: {reason}");
//!         return Ok(());
//!     }
//! };
//! let stream = Stream::new(&context)?;
//! let buffer = DeviceBuffer::from_host(&stream, b"123456789")?;
//! assert_eq!(crc32_device(&stream, &[buffer.as_slice()])?, [0xcbf4_3926]);
//! # Ok(())
//! # }
//! ```
//!
//! # Order of work
//! Work on one stream happens in order. Work on two streams does not, unless an [`Event`] orders it: a buffer that one stream
//! writes while another reads it holds unspecified bytes, as device memory does in every CUDA program. Host memory is
//! never exposed to that by a safe function: those that touch it wait for the stream.
//!
//! `unsafe` code is in `launch` alone.
#![deny(unsafe_code)]

mod crc;
mod dequant;
mod device;
mod error;
mod integer;
mod lanes;
mod launch;
mod nvcomp;
mod plain;

pub use crc::crc32_device;
pub use dequant::{DeviceScheme, dequantize};
pub use device::{DeviceInfo, devices};
pub use error::CudaError;
pub use integer::{DeviceInteger, IntegerBlock, IntegerTensor, PreparedInteger};
pub use lanes::{BlockEntry, CudaDecoder, DevicePayload, DeviceTensor, LanesTensor, PreparedTensor};
pub use launch::{
    CudaContext, Current, DeviceBuffer, DeviceSlice, DeviceSliceMut, Event, LoadGroup, LoadOutputs, LoadQueue,
    LoadSize, LoadTools, Loaded, PinnedBuffer, ReadyGroup, SLOTS as LOAD_SLOTS, Source, Stream, Target, copy_floor,
    copy_many,
};
pub use nvcomp::{
    DeviceFrames, EncodedFrames, FrameDecoder, FrameEncoder, FrameTarget, FramesTensor, Nvcomp, NvcompError,
    NvcompVersion, PreparedFrames,
};
pub use plain::{DevicePlain, PlainTensor, PreparedPlain};
pub use wcodec_driver::{DriverError, DriverVersion};
