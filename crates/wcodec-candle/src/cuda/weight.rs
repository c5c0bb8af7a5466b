//! A compressed matrix in device memory.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Device, Error, Result, Storage, Tensor};
use wcodec::cuda::DeviceTensor;

use super::memory::{CandleStream, allocate, lend, lend_to_read};
use super::{Gpu, decodable, slabs};
use crate::resident::Weight;
use crate::{Shards, convert};

/// The device's part of a weight.
pub(crate) struct DeviceWeight {
    pub(super) gpu: Arc<Gpu>,
    pub(super) tensor: DeviceTensor,
    /// The element type that it is decoded to.
    pub(super) stored: DType,
    /// Rows that are decoded and multiplied at a time.
    pub(super) slabs: Vec<Range<usize>>,
}

impl DeviceWeight {
    /// Copies a matrix of `shards`, `dims` rows and columns that are computed with in `compute`, to the device, compressed. The checksums of
    /// its stored bytes are compared there.
    ///
    /// # Errors
    /// candle's `Error` that names tensor and shard for damaged bytes; for elements that are no floats of two, four or eight bytes.
    pub(crate) fn new(
        gpu: &Arc<Gpu>,
        shards: &Shards,
        tensor: &wcodec::Tensor<'_>,
        (rows, cols): (usize, usize),
        compute: DType,
    ) -> Result<Self> {
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
        let slabs = slabs::cut(rows, cols, tensor.byte_len(), compute, gpu.total_bytes);
        Ok(Self { gpu: Arc::clone(gpu), tensor, stored, slabs })
    }

    /// Elements of a slab of `weight`, whose part on the device this is.
    pub(super) fn slab_elements(&self, weight: &Weight, slab: usize) -> usize {
        self.slabs[slab].len() * weight.dims().1
    }

    /// Decodes the weight once and compares its checksums. Waits.
    ///
    /// # Errors
    /// candle's `Error` that names tensor and shard.
    pub(crate) fn verify(&self, weight: &Arc<Weight>, shards: &Shards) -> Result<()> {
        if weight.elements() == 0 {
            return Ok(());
        }
        if self.slabs.len() == 1 {
            return self.gpu.with_slab(weight, self, 0, |matrix| {
                let (storage, layout) = matrix.storage_and_layout();
                let Storage::Cuda(storage) = &*storage else { return Err(Error::msg("an arena is device memory")) };
                self.compare(storage, layout.start_offset() * self.stored.size_in_bytes(), shards)
            });
        }
        // Memory of its own, once.
        let (context, stream) =
            (self.gpu.wcodec.context(), CandleStream::new(self.gpu.wcodec.context(), &self.gpu.candle));
        let mut storage = allocate(&self.gpu.candle, self.stored, weight.elements())?;
        let (out, written) = lend(context, &stream, &mut storage)?;
        self.gpu.wcodec.decode([(&self.tensor, out)], stream.wcodec()).map_err(Error::wrap)?;
        drop(written);
        self.compare(&storage, 0, shards)
    }

    /// Compares the checksums of the decoded weight, which begins at byte `start` of `storage`. Waits.
    fn compare(&self, storage: &CudaStorage, start: usize, shards: &Shards) -> Result<()> {
        let context = self.gpu.wcodec.context();
        let stream = CandleStream::new(context, &self.gpu.candle);
        let (memory, _read) = lend_to_read(context, &stream, storage)?;
        let decoded = memory.sub_slice(start, self.tensor.byte_len() as usize).map_err(Error::wrap)?;
        let verified = self.gpu.wcodec.verify([(&self.tensor, decoded)], stream.wcodec());
        verified.map_err(|error| shards.blame(self.tensor.name(), error))
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
