//! A compressed matrix in device memory.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use candle_core::op::BackpropOp;
use candle_core::{DType, Device, Error, Result, Storage, Tensor};
use wcodec::cuda::DeviceTensor;

use super::memory::{CandleStream, allocate, lend, lend_to_read};
use super::{Gpu, decodable};
use crate::resident::Weight;
use crate::{Shards, convert};

/// The device's part of a weight.
pub(crate) struct DeviceWeight {
    pub(super) gpu: Arc<Gpu>,
    pub(super) tensor: DeviceTensor,
    /// The element type that it is decoded to.
    pub(super) stored: DType,
}

impl DeviceWeight {
    /// Copies a matrix of `shards` to the device, compressed. The checksums of its stored bytes are compared there.
    ///
    /// # Errors
    /// candle's `Error` that names tensor and shard for damaged bytes; for elements that are no floats of two, four or eight bytes.
    pub(crate) fn new(gpu: &Arc<Gpu>, shards: &Shards, tensor: &wcodec::Tensor<'_>) -> Result<Self> {
        let (name, dtype) = (tensor.name(), tensor.dtype());
        let stored = decodable(dtype).filter(|dtype| convert::check_compute(*dtype).is_ok());
        let stored = stored.ok_or_else(|| {
            Error::msg(format!("tensor `{name}`: compressed layers on a GPU take BF16, F16, F32 and F64, not {dtype}"))
        })?;
        let stream = CandleStream::new(gpu.wcodec.context(), &gpu.candle);
        let uploaded = gpu.wcodec.upload(std::slice::from_ref(tensor), stream.wcodec());
        let mut uploaded = uploaded.map_err(|error| shards.blame(name, error))?;
        let tensor = uploaded.pop().ok_or_else(|| Error::msg("no tensor was uploaded"))?;
        gpu.weight_bytes.fetch_add(tensor.device_bytes(), Relaxed);
        Ok(Self { gpu: Arc::clone(gpu), tensor, stored })
    }

    /// Decodes the weight once and compares its checksums. Waits.
    ///
    /// # Errors
    /// candle's `Error` that names tensor and shard.
    pub(crate) fn verify(&self, weight: &Arc<Weight>, shards: &Shards) -> Result<()> {
        if weight.elements() == 0 {
            return Ok(());
        }
        let context = self.gpu.wcodec.context();
        self.gpu.with_matrix(weight, self, |matrix| {
            let stream = CandleStream::new(context, &self.gpu.candle);
            let (storage, layout) = matrix.storage_and_layout();
            let Storage::Cuda(storage) = &*storage else { return Err(Error::msg("an arena is device memory")) };
            let (arena, _read) = lend_to_read(context, &stream, storage)?;
            let (start, bytes) = (layout.start_offset() * self.stored.size_in_bytes(), self.tensor.byte_len() as usize);
            let decoded = arena.sub_slice(start, bytes).map_err(Error::wrap)?;
            let verified = self.gpu.wcodec.verify([(&self.tensor, decoded)], stream.wcodec());
            verified.map_err(|error| shards.blame(self.tensor.name(), error))
        })
    }

    /// `x` · weightᵀ.
    pub(crate) fn product(&self, weight: &Arc<Weight>, x: &Tensor) -> Result<Tensor> {
        self.gpu.product(weight, self, x)
    }

    /// Rows `wanted` (ascending), one after the other, in the dtype of the weight; one row of anything if none is wanted.
    pub(crate) fn rows(&self, weight: &Weight, wanted: &[usize]) -> Result<Tensor> {
        let cols = weight.dims().1;
        let device = Device::Cuda(self.gpu.candle.clone());
        if wanted.is_empty() || cols == 0 {
            return Tensor::zeros((wanted.len().max(1), cols), weight.dtype(), &device);
        }
        let context = self.gpu.wcodec.context();
        let stream = CandleStream::new(context, &self.gpu.candle);
        let mut storage = allocate(&self.gpu.candle, self.stored, wanted.len() * cols)?;
        let (mut rest, written) = lend(context, &stream, &mut storage)?;
        let row_bytes = cols * self.stored.size_in_bytes();
        let mut items = Vec::new();
        for run in wanted.chunk_by(|a, b| a + 1 == *b) {
            let (out, behind) = rest.split_at(run.len() * row_bytes).map_err(Error::wrap)?;
            items.push((&self.tensor, run[0] as u64..(run[0] + run.len()) as u64, out));
            rest = behind;
        }
        self.gpu.wcodec.decode_rows(items, stream.wcodec()).map_err(Error::wrap)?;
        drop(written);
        let rows = Tensor::from_storage(Storage::Cuda(storage), (wanted.len(), cols), BackpropOp::none(), false);
        convert::converted(&rows, weight.dtype())
    }
}

impl Drop for DeviceWeight {
    fn drop(&mut self) {
        self.gpu.weight_bytes.fetch_sub(self.tensor.device_bytes(), Relaxed);
    }
}
