//! candle's CUDA devices: weights decoded by kernels, into candle's own memory, on candle's own stream. With the feature `cuda`.
//!
//! candle and wcodec both work in a device's primary context, so one uses the other's memory and streams without copies.

mod arena;
mod load;
mod memory;
mod slabs;
mod weight;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use candle_core::backend::BackendDevice;
use candle_core::{DType, Device, DeviceLocation, Error, Result};
use wcodec::cuda::CudaDevice;

use crate::Shards;
use arena::Arena;
pub(crate) use load::DeviceLoader;
pub(crate) use weight::DeviceWeight;

/// A device as candle and as wcodec know it.
pub(crate) struct Gpu {
    candle: candle_core::CudaDevice,
    wcodec: CudaDevice,
    /// Memory that matrices are decoded into, one for each element type of stored weights.
    arenas: Mutex<Vec<Arena>>,
    /// Device memory of the compressed weights.
    weight_bytes: AtomicU64,
    /// What all tensors of the shards take decoded.
    total_bytes: u64,
}

impl Gpu {
    /// The CUDA device `device`, for tensors of `shards`.
    ///
    /// # Errors
    /// candle's `Error` for another kind of device; what the driver reports.
    pub(crate) fn open(device: &Device, shards: &Shards) -> Result<Self> {
        let Device::Cuda(candle) = device else { return Err(Error::msg("not a CUDA device")) };
        let DeviceLocation::Cuda { gpu_id } = candle.location() else { return Err(Error::msg("not a CUDA device")) };
        let wcodec = CudaDevice::open(u32::try_from(gpu_id)?).map_err(Error::wrap)?;
        let total_bytes = shards.entries().map(|entry| entry.decoded_len).sum();
        let (arenas, weight_bytes) = (Mutex::default(), AtomicU64::new(0));
        Ok(Self { candle: candle.clone(), wcodec, arenas, weight_bytes, total_bytes })
    }

    /// Whether this is `device`, with the same stream.
    pub(crate) fn is(&self, device: &Device) -> bool {
        matches!(device, Device::Cuda(candle) if candle.id() == self.candle.id())
    }

    /// Device memory of compressed weights, and of what they are decoded into.
    pub(crate) fn device_bytes(&self) -> u64 {
        let arenas = self.arenas.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.weight_bytes.load(Relaxed) + arenas.iter().map(Arena::byte_len).sum::<u64>()
    }
}

/// The element type that candle gives stored elements, where a kernel may write them into its memory as they are.
fn decodable(dtype: wcodec::DtypeCode) -> Option<DType> {
    crate::convert::same(dtype)
}
