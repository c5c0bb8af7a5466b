//! candle's device memory and streams, lent to wcodec by their addresses.
#![expect(unsafe_code, reason = "an address is a number, and memory is allocated before it is written")]

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, SyncOnDrop,
};
use candle_core::cuda_backend::{CudaDType, CudaStorage, CudaStorageSlice};
use candle_core::{CudaDevice, DType, Error, Result};
use wcodec::cuda::{CudaContext, DeviceSlice, DeviceSliceMut, Stream};

/// candle's stream of a device, for as long as this is there.
pub(super) struct CandleStream {
    /// Borrows `candle`, so it stands first and is dropped first.
    wcodec: Stream,
    candle: Arc<CudaStream>,
}

impl CandleStream {
    /// `context` is that of the same device.
    pub(super) fn new(context: &CudaContext, device: &CudaDevice) -> Self {
        let candle = device.cuda_stream();
        // SAFETY: cudarc makes its streams in the primary context of the device, and `candle` keeps this one.
        let wcodec = unsafe { Stream::from_raw(context, candle.cu_stream().cast()) };
        Self { wcodec, candle }
    }

    /// The stream as wcodec has it.
    pub(super) fn wcodec(&self) -> &Stream {
        &self.wcodec
    }
}

/// The bytes of a storage, to be written by what is queued on `stream` before the second value is dropped: it tells cudarc of the
/// write, as candle's own kernels do.
pub(super) fn lend<'a>(
    context: &'a CudaContext,
    stream: &'a CandleStream,
    storage: &'a mut CudaStorage,
) -> Result<(DeviceSliceMut<'a>, SyncOnDrop<'a>)> {
    fn bytes<'a, T: DeviceRepr>(
        context: &'a CudaContext,
        stream: &'a CandleStream,
        slice: &'a mut CudaSlice<T>,
    ) -> (DeviceSliceMut<'a>, SyncOnDrop<'a>) {
        let len = slice.num_bytes();
        let (address, written) = slice.device_ptr_mut(&stream.candle);
        // SAFETY: the allocation has `len` bytes, is borrowed for `'a`, and cudarc frees it in the order of its stream.
        (unsafe { DeviceSliceMut::from_raw(context, address, len) }, written)
    }
    Ok(match &mut storage.slice {
        CudaStorageSlice::U8(slice) => bytes(context, stream, slice),
        CudaStorageSlice::U32(slice) => bytes(context, stream, slice),
        CudaStorageSlice::I16(slice) => bytes(context, stream, slice),
        CudaStorageSlice::I32(slice) => bytes(context, stream, slice),
        CudaStorageSlice::I64(slice) => bytes(context, stream, slice),
        CudaStorageSlice::BF16(slice) => bytes(context, stream, slice),
        CudaStorageSlice::F16(slice) => bytes(context, stream, slice),
        CudaStorageSlice::F32(slice) => bytes(context, stream, slice),
        CudaStorageSlice::F64(slice) => bytes(context, stream, slice),
        _ => return Err(Error::msg("kernels decode no such elements")),
    })
}

/// The bytes of a storage of floats, to be read by what is queued on `stream` before the second value is dropped.
pub(super) fn lend_to_read<'a>(
    context: &'a CudaContext,
    stream: &'a CandleStream,
    storage: &'a CudaStorage,
) -> Result<(DeviceSlice<'a>, SyncOnDrop<'a>)> {
    fn bytes<'a, T: DeviceRepr>(
        context: &'a CudaContext,
        stream: &'a CandleStream,
        slice: &'a CudaSlice<T>,
    ) -> (DeviceSlice<'a>, SyncOnDrop<'a>) {
        let (address, read) = slice.device_ptr(&stream.candle);
        // SAFETY: as in `lend`.
        (unsafe { DeviceSlice::from_raw(context, address, slice.num_bytes()) }, read)
    }
    Ok(match &storage.slice {
        CudaStorageSlice::BF16(slice) => bytes(context, stream, slice),
        CudaStorageSlice::F16(slice) => bytes(context, stream, slice),
        CudaStorageSlice::F32(slice) => bytes(context, stream, slice),
        CudaStorageSlice::F64(slice) => bytes(context, stream, slice),
        _ => return Err(Error::msg("compressed layers compute in F16, BF16, F32 or F64")),
    })
}

/// Memory for `elements` of `dtype`, whose contents are unspecified.
pub(super) fn allocate(device: &CudaDevice, dtype: DType, elements: usize) -> Result<CudaStorage> {
    fn new<T: DeviceRepr + CudaDType>(device: &CudaDevice, elements: usize) -> Result<CudaStorage> {
        // SAFETY: every pattern of bits is a value of these types.
        let slice = unsafe { device.alloc::<T>(elements) }?;
        Ok(CudaStorage::wrap_cuda_slice(slice, device.clone()))
    }
    match dtype {
        DType::U8 => new::<u8>(device, elements),
        DType::U32 => new::<u32>(device, elements),
        DType::I16 => new::<i16>(device, elements),
        DType::I32 => new::<i32>(device, elements),
        DType::I64 => new::<i64>(device, elements),
        DType::BF16 => new::<half::bf16>(device, elements),
        DType::F16 => new::<half::f16>(device, elements),
        DType::F32 => new::<f32>(device, elements),
        DType::F64 => new::<f64>(device, elements),
        dtype => Err(Error::UnsupportedDTypeForOp(dtype, "wcodec-decode").bt()),
    }
}
