//! Decoding on NVIDIA GPUs: tensors stay compressed in device memory and are decoded into memory of the caller's, on a stream of
//! the caller's. With the feature `cuda`.
//!
//! ```no_run
//! use wcodec::Archive;
//! use wcodec::cuda::{CudaDevice, DeviceBuffer, Stream};
//!
//! # fn main() -> wcodec::Result<()> {
//! let device = CudaDevice::open(0)?;
//! let stream = Stream::new(device.context())?;
//! let archive = Archive::open("model.wcodec")?;
//! let names = ["model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"];
//! let tensors = names.iter().map(|name| archive.tensor(name)).collect::<wcodec::Result<Vec<_>>>()?;
//!
//! // Once: compressed bytes, tables and index go to the device. The archive is not needed any more.
//! let resident = device.upload(&tensors, &stream)?;
//! // As often as needed: one batch, asynchronous.
//! let mut outputs = Vec::new();
//! for tensor in &resident {
//!     outputs.push(DeviceBuffer::new(device.context(), tensor.byte_len() as usize)?);
//! }
//! device.decode(resident.iter().zip(outputs.iter_mut().map(|out| out.as_slice_mut())), &stream)?;
//! // Waits, and says whether all bytes were in order.
//! device.check(&resident, &stream)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Memory and streams of others
//! Everything runs in the primary context of the device, as PyTorch's and candle's work does. Their memory and streams come in by
//! [`DeviceSliceMut::from_raw`] and [`Stream::from_raw`], which are `unsafe`, because nobody can check a number:
//!
//! ```no_run
//! # use wcodec::cuda::{CudaDevice, DeviceSliceMut, DeviceTensor, Stream};
//! fn decode_into_torch(
//!     device: &CudaDevice,
//!     tensor: &DeviceTensor,
//!     data_ptr: u64,
//!     cuda_stream: u64,
//! ) -> wcodec::Result<()> {
//!     let context = device.context();
//!     // SAFETY: torch.cuda.current_stream(device).cuda_stream, which outlives this call.
//!     let stream = unsafe { Stream::from_raw(context, std::ptr::without_provenance_mut(cuda_stream as usize)) };
//!     // SAFETY: tensor.data_ptr() of a contiguous CUDA tensor of this many bytes.
//!     let out = unsafe { DeviceSliceMut::from_raw(context, data_ptr, tensor.byte_len() as usize) };
//!     device.decode([(tensor, out)], &stream)
//! }
//! ```

mod check;
mod decode;
mod dequantize;
mod device;
mod frames;
mod load;
mod parts;
mod tensor;
mod upload;

pub use dequantize::DequantizeItem;
pub use device::CudaDevice;
pub(crate) use device::is_absent;
pub(crate) use frames::DeviceFrameMaker;
pub use load::LoadReport;
pub use tensor::{DecodedBy, DeviceTensor};
pub use wcodec_cuda::{
    CudaContext, CudaError, DeviceBuffer, DeviceInfo, DeviceScheme, DeviceSlice, DeviceSliceMut, DriverError, Event,
    Nvcomp, NvcompError, NvcompVersion, PinnedBuffer, Stream, devices,
};
