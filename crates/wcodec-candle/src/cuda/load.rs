//! Weights decoded once, on the device.

use std::collections::HashMap;

use candle_core::op::BackpropOp;
use candle_core::{DType, Device, Result, Storage, Tensor};

use super::memory::{CandleStream, allocate, lend};
use super::{Gpu, decodable};
use crate::{Shards, convert};

/// Misses in a row after which what waits is thrown away: a model that asks in another order would never come for it.
const PATIENCE: u32 = 3;

/// Decodes tensors for a `VarBuilder` in groups: what is asked for, and what will probably be asked for next.
pub(crate) struct DeviceLoader {
    gpu: Gpu,
    /// Decoded and not asked for yet, by number.
    waiting: HashMap<usize, Tensor>,
    waiting_bytes: usize,
    misses: u32,
}

impl DeviceLoader {
    /// # Errors
    /// As [`Gpu::open`].
    pub(crate) fn new(device: &Device, shards: &Shards) -> Result<Self> {
        Ok(Self { gpu: Gpu::open(device, shards)?, waiting: HashMap::new(), waiting_bytes: 0, misses: 0 })
    }

    /// Whether it decodes for `device`.
    pub(crate) fn is_for(&self, device: &Device) -> bool {
        self.gpu.is(device)
    }

    /// Whether the tensor of that name is one that kernels write as candle has it.
    pub(crate) fn decodes(shards: &Shards, name: &str) -> bool {
        shards.dtype_of(name).and_then(decodable).is_some() && shards.byte_len_of(name) > 0
    }

    /// Tensor number `wanted`, in the element type that it is stored in. `order` are numbers and names from that one on, as they will
    /// probably be asked for; up to `read_ahead` bytes of decoded tensors wait.
    ///
    /// # Errors
    /// As `wcodec::cuda::CudaDevice::load`, for this tensor alone.
    pub(crate) fn take<'a>(
        &mut self,
        shards: &Shards,
        wanted: usize,
        order: impl Iterator<Item = (usize, &'a str)>,
        read_ahead: usize,
    ) -> Result<Tensor> {
        if let Some(tensor) = self.waiting.remove(&wanted) {
            self.waiting_bytes -= byte_len(&tensor);
            self.misses = 0;
            return Ok(tensor);
        }
        self.misses += 1;
        if self.misses >= PATIENCE {
            (self.misses, self.waiting_bytes) = (0, 0);
            self.waiting.clear();
        }
        let mut bytes = self.waiting_bytes;
        let group: Vec<(usize, &str)> = order
            .filter(|(number, name)| *number == wanted || Self::decodes(shards, name))
            .filter(|(number, _)| !self.waiting.contains_key(number))
            .take_while(|(number, name)| {
                // What is asked for does not wait.
                bytes += if *number == wanted { 0 } else { shards.byte_len_of(name) };
                *number == wanted || bytes <= read_ahead
            })
            .collect();
        let names: Vec<&str> = group.iter().map(|&(_, name)| name).collect();
        let mut tensors = match self.load(shards, &names) {
            // Which of them is damaged will be told to who asks for it.
            Err(_) if names.len() > 1 => self.load(shards, &names[..1]),
            loaded => loaded,
        }?;
        let first = tensors.remove(0);
        self.waiting_bytes += tensors.iter().map(byte_len).sum::<usize>();
        self.waiting.extend(group[1..].iter().map(|&(number, _)| number).zip(tensors));
        Ok(first)
    }

    /// Decodes tensors into memory of candle's. Waits.
    fn load(&self, shards: &Shards, names: &[&str]) -> Result<Vec<Tensor>> {
        let Gpu { candle, wcodec, .. } = &self.gpu;
        let tensors = names.iter().map(|name| shards.tensor(name)).collect::<Result<Vec<_>>>()?;
        let mut storages = Vec::with_capacity(names.len());
        for tensor in &tensors {
            let dtype = decodable(tensor.dtype()).expect("looked at before");
            let elements = usize::try_from(tensor.byte_len())? / dtype.size_in_bytes();
            storages.push(allocate(candle, dtype, elements)?);
        }
        let stream = CandleStream::new(wcodec.context(), candle);
        let lent = storages.iter_mut().map(|storage| lend(wcodec.context(), &stream, storage));
        let (outs, written): (Vec<_>, Vec<_>) = lent.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        let loaded = wcodec.load(&tensors, outs, stream.wcodec());
        drop(written);
        loaded.map_err(|error| shards.blame(names[0], error))?;
        let shapes = tensors.iter().map(|tensor| convert::shape(tensor.shape())).collect::<Result<Vec<_>>>()?;
        let tensor = |(storage, shape)| Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false);
        Ok(storages.into_iter().zip::<Vec<Vec<usize>>>(shapes).map(tensor).collect())
    }
}

fn byte_len(tensor: &Tensor) -> usize {
    tensor.elem_count() * DType::size_in_bytes(&tensor.dtype())
}
