//! Device memory that weights are decoded into, again and again.

use std::sync::{Arc, PoisonError, Weak};
use std::thread::ThreadId;

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CudaStorage, DType, Error, InplaceOp1, Layout, Result, Storage, Tensor};
use candle_nn::{Linear, Module};
use wcodec::cuda::Event;

use super::memory::{CandleStream, allocate, lend};
use super::{DeviceWeight, Gpu};
use crate::convert;
use crate::resident::Weight;

/// Bytes that are decoded at a time at least, where weights are smaller: enough to keep a device busy.
const GROUP_BYTES: usize = 32 << 20;
/// What matrices are aligned to: what candle's own allocations are, so that a product is computed in the same way.
const ALIGN: usize = 256;

/// A vector of elements of one type, and which matrices are decoded in it at present.
pub(super) struct Arena {
    /// One-dimensional.
    vector: Tensor,
    /// Weights and the elements at which they begin.
    group: Vec<(Weak<Weight>, usize)>,
    /// When the last product was computed, and the thread that asked for it: candle has a stream for every thread.
    last: Event,
    thread: ThreadId,
}

impl Arena {
    pub(super) fn byte_len(&self) -> u64 {
        (self.vector.elem_count() * self.vector.dtype().size_in_bytes()) as u64
    }

    fn new(gpu: &Gpu, dtype: DType, elements: usize) -> Result<Self> {
        let elements = elements.max(GROUP_BYTES / dtype.size_in_bytes());
        let storage = Storage::Cuda(allocate(&gpu.candle, dtype, elements)?);
        let vector = Tensor::from_storage(storage, elements, BackpropOp::none(), false);
        let last = Event::new(gpu.wcodec.context()).map_err(Error::wrap)?;
        Ok(Self { vector, group: Vec::new(), last, thread: std::thread::current().id() })
    }

    fn place_of(&self, weight: &Arc<Weight>) -> Option<usize> {
        let found = self.group.iter().find(|(held, _)| std::ptr::eq(held.as_ptr(), Arc::as_ptr(weight)));
        found.map(|&(_, place)| place)
    }

    /// Decodes `weight` and, as far as there is room, those that followed it in the last pass.
    fn fill(&mut self, gpu: &Gpu, weight: &Arc<Weight>, stream: &CandleStream) -> Result<usize> {
        let step = ALIGN / self.vector.dtype().size_in_bytes();
        let mut weights: Vec<(Arc<Weight>, usize)> = Vec::new();
        let (mut next, mut end) = (Some(Arc::clone(weight)), 0);
        while let Some(weight) = next.take() {
            let fits = weight.device().is_some_and(|device| {
                std::ptr::eq(&*device.gpu, gpu)
                    && device.stored == self.vector.dtype()
                    && end + weight.elements() <= self.vector.elem_count()
            });
            if !fits || weights.iter().any(|(held, _)| Arc::ptr_eq(held, &weight)) {
                break;
            }
            let place = end;
            end = (end + weight.elements()).next_multiple_of(step);
            next = weight.successor();
            weights.push((weight, place));
        }
        // Until it is done, nothing there is to be relied on.
        self.group.clear();
        self.vector.inplace_op1(&Fill { gpu, stream, weights: &weights })?;
        self.group = weights.iter().map(|(weight, place)| (Arc::downgrade(weight), *place)).collect();
        Ok(0)
    }
}

impl Gpu {
    /// `x` · weightᵀ, with the weight decoded for it, or with the last ones.
    pub(super) fn product(&self, weight: &Arc<Weight>, device: &DeviceWeight, x: &Tensor) -> Result<Tensor> {
        self.with_matrix(weight, device, |matrix| {
            Linear::new(convert::converted(&matrix, weight.dtype())?, None).forward(x)
        })
    }

    /// Lends a decoded matrix, in the element type that it is stored in, for work in candle's stream.
    pub(super) fn with_matrix<R>(
        &self,
        weight: &Arc<Weight>,
        device: &DeviceWeight,
        work: impl FnOnce(Tensor) -> Result<R>,
    ) -> Result<R> {
        let stream = CandleStream::new(self.wcodec.context(), &self.candle);
        let mut arenas = self.arenas.lock().unwrap_or_else(PoisonError::into_inner);
        let mut arena = match arenas.iter().position(|arena| arena.vector.dtype() == device.stored) {
            Some(at) => arenas.swap_remove(at),
            None => Arena::new(self, device.stored, weight.elements())?,
        };
        let this = std::thread::current().id();
        if arena.thread != this {
            stream.wcodec().wait(&arena.last).map_err(Error::wrap)?;
            arena.thread = this;
        }
        if arena.vector.elem_count() < weight.elements() {
            // First the old one, so that both need not fit.
            drop(arena);
            arena = Arena::new(self, device.stored, weight.elements())?;
        }
        let place = match arena.place_of(weight) {
            Some(place) => place,
            None => arena.fill(self, weight, &stream)?,
        };
        let result = work(arena.vector.narrow(0, place, weight.elements())?.reshape(weight.dims())?);
        arena.last.record(stream.wcodec()).map_err(Error::wrap)?;
        // One that met an error is not kept.
        arenas.push(arena);
        result
    }
}

/// candle lends the storage of a tensor to an operation in place, and to nobody else.
struct Fill<'a> {
    gpu: &'a Gpu,
    stream: &'a CandleStream,
    /// Weights and the elements at which they begin, in that order.
    weights: &'a [(Arc<Weight>, usize)],
}

impl InplaceOp1 for Fill<'_> {
    fn name(&self) -> &'static str {
        "wcodec-decode"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        Err(Error::msg("an arena is device memory"))
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, _: &Layout) -> Result<()> {
        let (mut rest, _written) = lend(self.gpu.wcodec.context(), self.stream, storage)?;
        let mut end = 0;
        let mut items = Vec::with_capacity(self.weights.len());
        for (weight, place) in self.weights {
            let device = weight.device().expect("only weights on a device are decoded there");
            let (start, bytes) = (place * device.stored.size_in_bytes(), device.tensor.byte_len() as usize);
            let (_, from) = rest.split_at(start - end).map_err(Error::wrap)?;
            let (out, behind) = from.split_at(bytes).map_err(Error::wrap)?;
            items.push((&device.tensor, out));
            (rest, end) = (behind, start + bytes);
        }
        self.gpu.wcodec.decode(items, self.stream.wcodec()).map_err(Error::wrap)
    }
}
