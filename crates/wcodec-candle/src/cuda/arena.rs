//! Device memory that weights are decoded into, again and again.

use std::ops::Range;
use std::sync::{Arc, PoisonError, Weak};
use std::thread::ThreadId;

use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CudaStorage, D, DType, Error, InplaceOp1, Layout, Result, Storage, Tensor};
use candle_nn::{Linear, Module};
use wcodec::cuda::Event;

use super::memory::{CandleStream, allocate, lend};
use super::{DeviceWeight, Gpu};
use crate::convert;
use crate::resident::Weight;

/// Bytes that are decoded at a time at least, where weights are smaller: enough to keep a device busy, but no more than a part of all weights.
const GROUP_BYTES: u64 = 32 << 20;
const GROUP_SHARE: u64 = 64;
/// What matrices are aligned to: what candle's own allocations are, so that a product is computed in the same way.
const ALIGN: usize = 256;

/// A slab of a matrix.
#[derive(Clone)]
struct Piece<W> {
    weight: W,
    slab: usize,
    /// The element of the vector at which it begins.
    place: usize,
}

/// A vector of elements of one type, and what is decoded in it at present.
pub(super) struct Arena {
    /// One-dimensional.
    vector: Tensor,
    group: Vec<Piece<Weak<Weight>>>,
    /// When the last product was computed, and the thread that asked for it: candle has a stream for every thread.
    last: Event,
    thread: ThreadId,
}

impl Arena {
    pub(super) fn byte_len(&self) -> u64 {
        (self.vector.elem_count() * self.vector.dtype().size_in_bytes()) as u64
    }

    fn new(gpu: &Gpu, dtype: DType, elements: usize) -> Result<Self> {
        let group = (gpu.total_bytes / GROUP_SHARE).min(GROUP_BYTES) as usize;
        let elements = elements.max(group / dtype.size_in_bytes());
        let storage = Storage::Cuda(allocate(&gpu.candle, dtype, elements)?);
        let vector = Tensor::from_storage(storage, elements, BackpropOp::none(), false);
        let last = Event::new(gpu.wcodec.context()).map_err(Error::wrap)?;
        Ok(Self { vector, group: Vec::new(), last, thread: std::thread::current().id() })
    }

    fn place_of(&self, weight: &Arc<Weight>, slab: usize) -> Option<usize> {
        let is_it = |piece: &&Piece<Weak<Weight>>| {
            piece.slab == slab && std::ptr::eq(piece.weight.as_ptr(), Arc::as_ptr(weight))
        };
        self.group.iter().find(is_it).map(|piece| piece.place)
    }

    /// Decodes a slab of `weight` and, as far as there is room, what followed it in the last pass.
    fn fill(&mut self, gpu: &Gpu, weight: &Arc<Weight>, slab: usize, stream: &CandleStream) -> Result<usize> {
        let step = ALIGN / self.vector.dtype().size_in_bytes();
        let mut pieces: Vec<Piece<Arc<Weight>>> = Vec::new();
        let (mut next, mut end) = (Some((Arc::clone(weight), slab)), 0);
        while let Some((weight, slab)) = next.take() {
            let Some(device) = weight.device().filter(|device| {
                std::ptr::eq(&*device.gpu, gpu)
                    && device.stored == self.vector.dtype()
                    && end + device.slab_elements(&weight, slab) <= self.vector.elem_count()
            }) else {
                break;
            };
            if pieces.iter().any(|held| held.slab == slab && Arc::ptr_eq(&held.weight, &weight)) {
                break;
            }
            let place = end;
            end = (end + device.slab_elements(&weight, slab)).next_multiple_of(step);
            next = match slab + 1 < device.slabs.len() {
                true => Some((Arc::clone(&weight), slab + 1)),
                false => weight.successor().map(|weight| (weight, 0)),
            };
            pieces.push(Piece { weight, slab, place });
        }
        // Until it is done, nothing there is to be relied on.
        self.group.clear();
        self.vector.inplace_op1(&Fill { gpu, stream, pieces: &pieces })?;
        let held = |piece: &Piece<Arc<Weight>>| Piece {
            weight: Arc::downgrade(&piece.weight),
            slab: piece.slab,
            place: piece.place,
        };
        self.group = pieces.iter().map(held).collect();
        Ok(0)
    }
}

impl Gpu {
    /// `x` · weightᵀ, with the weight decoded for it, or with the last ones.
    pub(super) fn product(&self, weight: &Arc<Weight>, device: &DeviceWeight, x: &Tensor) -> Result<Tensor> {
        let part = |slab| {
            self.with_slab(weight, device, slab, |matrix| {
                Linear::new(convert::converted(&matrix, weight.dtype())?, None).forward(x)
            })
        };
        match device.slabs.len() {
            1 => part(0),
            slabs => Tensor::cat(&(0..slabs).map(part).collect::<Result<Vec<_>>>()?, D::Minus1),
        }
    }

    /// Lends a decoded slab, in the element type that it is stored in, for work in candle's stream.
    pub(super) fn with_slab<R>(
        &self,
        weight: &Arc<Weight>,
        device: &DeviceWeight,
        slab: usize,
        work: impl FnOnce(Tensor) -> Result<R>,
    ) -> Result<R> {
        let stream = CandleStream::new(self.wcodec.context(), &self.candle);
        let elements = device.slab_elements(weight, slab);
        let mut arenas = self.arenas.lock().unwrap_or_else(PoisonError::into_inner);
        let mut arena = match arenas.iter().position(|arena| arena.vector.dtype() == device.stored) {
            Some(at) => arenas.swap_remove(at),
            None => Arena::new(self, device.stored, elements)?,
        };
        let this = std::thread::current().id();
        if arena.thread != this {
            stream.wcodec().wait(&arena.last).map_err(Error::wrap)?;
            arena.thread = this;
        }
        if arena.vector.elem_count() < elements {
            // First the old one, so that both need not fit.
            drop(arena);
            arena = Arena::new(self, device.stored, elements)?;
        }
        let place = match arena.place_of(weight, slab) {
            Some(place) => place,
            None => arena.fill(self, weight, slab, &stream)?,
        };
        let shape = (device.slabs[slab].len(), weight.dims().1);
        let result = work(arena.vector.narrow(0, place, elements)?.reshape(shape)?);
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
    /// In the order of their places.
    pieces: &'a [Piece<Arc<Weight>>],
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
        let mut items = Vec::with_capacity(self.pieces.len());
        for Piece { weight, slab, place } in self.pieces {
            let device = weight.device().expect("only weights on a device are decoded there");
            let size = device.stored.size_in_bytes();
            let (start, bytes) = (place * size, device.slab_elements(weight, *slab) * size);
            let (_, from) = rest.split_at(start - end).map_err(Error::wrap)?;
            let (out, behind) = from.split_at(bytes).map_err(Error::wrap)?;
            let Range { start: first, end: last } = device.slabs[*slab];
            items.push((&device.tensor, first as u64..last as u64, out));
            (rest, end) = (behind, start + bytes);
        }
        self.gpu.wcodec.decode_rows(items, self.stream.wcodec()).map_err(Error::wrap)
    }
}
