//! Buffers for decoded slabs, and what fills them.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{D, DType, Device, Module, Result, Tensor};
use candle_nn::Linear;

use super::weight::{Buffers, Weight};
use crate::ahead::Plan;

/// A slab of a weight.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) weight: Arc<Weight>,
    pub(super) slab: usize,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.slab == other.slab && Arc::ptr_eq(&self.weight, &other.weight)
    }
}

/// The plan of a forward pass: slab after slab, weight after weight as in the pass before.
#[derive(Default)]
pub(super) struct Slabs {
    pool: Arc<Pool>,
}

/// What is not in use.
#[derive(Default)]
struct Pool {
    /// Vectors for decoded elements.
    vectors: Mutex<Vec<Tensor>>,
    /// One for each thread that has decoded at the same time as others.
    scratch: Mutex<Vec<Buffers>>,
    /// Bytes of all vectors that there are.
    bytes: std::sync::atomic::AtomicU64,
}

/// A decoded slab. Its buffer goes back to the pool when it is dropped.
pub(super) struct Slab {
    /// At least `room` × `cols` elements.
    vector: Tensor,
    rows: usize,
    room: usize,
    cols: usize,
    pool: Arc<Pool>,
}

impl Slab {
    /// `x` · slabᵀ.
    pub(super) fn product(&self, x: &Tensor) -> Result<Tensor> {
        // Its elements are those of the buffer: the matrix must not outlive the slab.
        let matrix = self.vector.narrow(0, 0, self.room * self.cols)?.reshape((self.room, self.cols))?;
        let product = Linear::new(matrix, None).forward(x)?;
        if self.room == self.rows { Ok(product) } else { product.narrow(D::Minus1, 0, self.rows) }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        self.pool.vectors.lock().unwrap_or_else(PoisonError::into_inner).push(self.vector.clone());
    }
}

/// Lent by the pool.
pub(super) struct Lent<'a> {
    pool: &'a Pool,
    buffers: Option<Buffers>,
}

impl std::ops::Deref for Lent<'_> {
    type Target = Buffers;

    fn deref(&self) -> &Buffers {
        self.buffers.as_ref().expect("taken on drop alone")
    }
}

impl std::ops::DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Buffers {
        self.buffers.as_mut().expect("taken on drop alone")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut scratch = self.pool.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        scratch.extend(self.buffers.take());
    }
}

impl Slabs {
    /// Buffers for the calling thread.
    pub(super) fn scratch(&self) -> Lent<'_> {
        let buffers = self.pool.scratch.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Lent { pool: &self.pool, buffers: Some(buffers.unwrap_or_default()) }
    }

    /// Bytes of the buffers, those in use included, scratch while a thread has it not.
    pub(super) fn buffer_bytes(&self) -> u64 {
        let scratch = self.pool.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let scratch: usize = scratch.iter().map(Buffers::byte_len).sum();
        self.pool.bytes.load(std::sync::atomic::Ordering::Relaxed) + scratch as u64
    }

    /// A vector of at least `elements`, from the pool if it has one; one that is too small is replaced.
    fn vector(&self, elements: usize, dtype: DType) -> Result<Tensor> {
        let mut vectors = self.pool.vectors.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |vector: &Tensor| vector.dtype() == dtype && vector.elem_count() >= elements;
        if let Some(at) = vectors.iter().position(fits) {
            return Ok(vectors.swap_remove(at));
        }
        let bytes = |elements: usize| (elements * dtype.size_in_bytes()) as u64;
        let order = std::sync::atomic::Ordering::Relaxed;
        if let Some(at) = vectors.iter().position(|vector| vector.dtype() == dtype) {
            self.pool.bytes.fetch_sub(bytes(vectors.swap_remove(at).elem_count()), order);
        }
        drop(vectors);
        let vector = Tensor::zeros(elements, dtype, &Device::Cpu)?;
        self.pool.bytes.fetch_add(bytes(elements), order);
        Ok(vector)
    }
}

impl Plan for Slabs {
    type Key = Key;
    type Value = Result<Slab>;

    fn next(&self, key: &Key) -> Option<Key> {
        key.weight.next(key.slab).map(|(weight, slab)| Key { weight, slab })
    }

    fn weight(&self, _: &Key) -> usize {
        1
    }

    fn make(&self, key: &Key) -> Result<Slab> {
        let (rows, cols) = (key.weight.slab_rows(key.slab), key.weight.cols());
        let room = key.weight.slab_room(key.slab);
        let vector = self.vector(room * cols, key.weight.dtype())?;
        // From here on the vector goes back to the pool, come what may.
        let slab = Slab { vector, rows: rows.len(), room, cols, pool: Arc::clone(&self.pool) };
        key.weight.decode_into(rows, &slab.vector, &mut self.scratch())?;
        Ok(slab)
    }
}
