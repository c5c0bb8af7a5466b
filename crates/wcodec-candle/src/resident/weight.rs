//! A compressed matrix and its slabs.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use candle_core::{D, DType, Error, Result, Shape, Tensor};
use wcodec::Scratch;

use super::Core;
use super::slabs::{Key, Slab};
#[cfg(feature = "cuda")]
use crate::cuda::{DeviceWeight, Gpu};
use crate::{Shards, convert};

/// Elements that a slab has at least, where the matrix has as many: somewhat less than a chunk of 2¹⁹, since chunks end with a strip
/// of superblocks.
const SLAB_ELEMENTS: usize = 7 << 16;

/// Rows that a slab of several is multiplied with at least. One that has fewer is multiplied with whatever is behind it in its
/// buffer, and what that gives is cut off.
///
/// A product must not depend on the cut. gemm, which candle multiplies with, adds up each element of a product in an order that
/// depends on the inner dimension alone, except where the product has at most 256 elements or at most 64 rows and columns.
pub(super) const SLAB_ROWS: usize = 272;

/// A matrix that stays compressed: rows × columns, as in the checkpoint. Cheap to clone; layers may share it, as those of models
/// with tied embeddings do.
#[derive(Clone)]
pub struct CompressedWeight {
    pub(super) weight: Arc<Weight>,
    pub(super) core: Arc<Core>,
}

impl CompressedWeight {
    /// The tensor's name.
    pub fn name(&self) -> &str {
        self.weight.tensor.name()
    }

    /// Rows and columns.
    pub fn dims(&self) -> (usize, usize) {
        (self.weight.rows, self.weight.cols)
    }

    /// The dtype that it is used in.
    pub fn dtype(&self) -> DType {
        self.weight.dtype
    }

    /// Bytes that it takes in the archive.
    pub fn stored_len(&self) -> u64 {
        self.weight.tensor.stored_len()
    }

    /// Elements of the largest slab: what a buffer must hold.
    pub fn slab_elements(&self) -> usize {
        (0..self.slabs()).map(|slab| self.weight.slab_room(slab) * self.weight.cols).max().unwrap_or(0)
    }

    /// Number of slabs.
    fn slabs(&self) -> usize {
        self.weight.slabs.len()
    }

    /// `x` · weightᵀ.
    pub(super) fn product(&self, x: &Tensor) -> Result<Tensor> {
        self.core.used(&self.weight);
        #[cfg(feature = "cuda")]
        if let Some(device) = self.weight.device() {
            return device.product(&self.weight, x);
        }
        let part = |slab| self.slab(slab)?.product(x);
        match self.slabs() {
            1 => part(0),
            slabs => Tensor::cat(&(0..slabs).map(part).collect::<Result<Vec<_>>>()?, D::Minus1),
        }
    }

    /// Slab `slab`, decoded. Slabs are to be asked for in their order.
    fn slab(&self, slab: usize) -> Result<Slab> {
        self.core.ahead.take(&Key { weight: Arc::clone(&self.weight), slab })
    }

    /// Rows `wanted` (ascending), one after the other, in the dtype of the weight.
    pub(super) fn rows(&self, wanted: &[usize]) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(device) = self.weight.device() {
            return device.rows(&self.weight, wanted);
        }
        self.weight.decode_rows(wanted, &mut self.core.ahead.plan().scratch())
    }
}

impl std::fmt::Debug for CompressedWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Weight { rows, cols, dtype, .. } = &*self.weight;
        write!(f, "CompressedWeight({}, {rows} × {cols}, {dtype:?})", self.name())
    }
}

pub(crate) struct Weight {
    tensor: wcodec::Tensor<'static>,
    shards: Shards,
    rows: usize,
    cols: usize,
    dtype: DType,
    /// Rows of each slab.
    slabs: Vec<Range<usize>>,
    /// What was used after it.
    next: Mutex<Weak<Weight>>,
    /// If it is there, weights are decoded there.
    #[cfg(feature = "cuda")]
    device: Option<DeviceWeight>,
}

/// What a thread needs for decoding.
#[derive(Default)]
pub(super) struct Buffers {
    bytes: Vec<u8>,
    scratch: Scratch,
}

impl Buffers {
    /// Bytes of the buffer for a slab; the decoder's own scratch is small.
    pub(super) fn byte_len(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Weight {
    pub(super) fn new(shards: &Shards, name: &str, rows: usize, cols: usize, dtype: DType) -> Result<Self> {
        let tensor = shards.tensor(name)?;
        let got = convert::shape(tensor.shape())?;
        if got != [rows, cols] {
            let msg = format!("shape mismatch for {name}");
            let (expected, got) = (Shape::from((rows, cols)), Shape::from(got));
            return Err(Error::UnexpectedShape { msg, expected, got }.bt());
        }
        if convert::whole_bytes(tensor.dtype()).is_none() {
            return Err(Error::msg(format!("tensor `{name}`: {} cannot be decoded by rows", tensor.dtype())));
        }
        let slabs = cut(&tensor.boundaries(), rows, usize::try_from(tensor.byte_len())?, cols);
        Ok(Self {
            tensor,
            shards: shards.clone(),
            rows,
            cols,
            dtype,
            slabs,
            next: Mutex::default(),
            #[cfg(feature = "cuda")]
            device: None,
        })
    }

    /// Compares the checksums of stored bytes that are in memory.
    pub(super) fn check_stored(&self) -> Result<()> {
        if !self.shards.in_memory() {
            return Ok(());
        }
        self.tensor.verify_stored().map_err(|error| self.blame(error))
    }

    /// Moves it to a GPU, compressed, and decodes it there once.
    #[cfg(feature = "cuda")]
    pub(super) fn onto(mut self, gpu: &Arc<Gpu>) -> Result<Arc<Self>> {
        let dims = (self.rows, self.cols);
        self.device = Some(DeviceWeight::new(gpu, &self.shards, &self.tensor, dims, self.dtype)?);
        let weight = Arc::new(self);
        if let Some(device) = &weight.device {
            device.verify(&weight, &weight.shards)?;
        }
        Ok(weight)
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn device(&self) -> Option<&DeviceWeight> {
        self.device.as_ref()
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn dims(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn elements(&self) -> usize {
        self.rows * self.cols
    }

    /// The weight that followed this one.
    pub(crate) fn successor(&self) -> Option<Arc<Self>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    pub(super) fn slab_rows(&self, slab: usize) -> Range<usize> {
        self.slabs[slab].clone()
    }

    /// Rows that slab `slab` is multiplied with.
    pub(super) fn slab_room(&self, slab: usize) -> usize {
        let rows = self.slabs[slab].len();
        if self.slabs.len() == 1 { rows } else { rows.max(SLAB_ROWS) }
    }

    /// What followed slab `slab` of this weight.
    pub(super) fn next(self: &Arc<Self>, slab: usize) -> Option<(Arc<Self>, usize)> {
        if slab + 1 < self.slabs.len() {
            return Some((Arc::clone(self), slab + 1));
        }
        Some((self.successor()?, 0))
    }

    pub(super) fn set_next(&self, next: &Arc<Self>) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(next);
    }

    fn blame(&self, error: wcodec::Error) -> Error {
        self.shards.blame(self.tensor.name(), error)
    }

    fn row_bytes(&self) -> u64 {
        self.tensor.byte_len() / self.rows.max(1) as u64
    }

    /// Decodes rows `rows` into the front of `out`, a vector on the CPU.
    pub(super) fn decode_into(&self, rows: Range<usize>, out: &Tensor, buffers: &mut Buffers) -> Result<()> {
        let bytes = rows.start as u64 * self.row_bytes()..rows.end as u64 * self.row_bytes();
        convert::overwrite(out, rows.len() * self.cols, self.tensor.dtype(), &mut buffers.bytes, |out| {
            self.tensor.decode_range(bytes, out, &mut buffers.scratch).map_err(|error| self.blame(error))
        })
    }

    /// Rows in which it pays to decode a whole slab instead of each row by itself, which checks its chunk's checksum every time.
    const WORTH_A_SLAB: usize = 4;

    fn decode_rows(&self, wanted: &[usize], buffers: &mut Buffers) -> Result<Tensor> {
        let row_bytes = self.row_bytes() as usize;
        let rows = convert::tensor(self.tensor.dtype(), &[wanted.len(), self.cols], wanted.len() * row_bytes, |out| {
            let (mut wanted, mut out) = (wanted, out);
            for slab in &self.slabs {
                let (here, rest) = wanted.split_at(wanted.partition_point(|&row| row < slab.end));
                let (part, tail) = out.split_at_mut(here.len() * row_bytes);
                (wanted, out) = (rest, tail);
                let targets = here.iter().zip(part.chunks_exact_mut(row_bytes.max(1)));
                if here.len() >= Self::WORTH_A_SLAB {
                    let bytes = slab.start as u64 * self.row_bytes()..slab.end as u64 * self.row_bytes();
                    buffers.bytes.resize(slab.len() * row_bytes, 0);
                    let decoded = self.tensor.decode_range(bytes, &mut buffers.bytes, &mut buffers.scratch);
                    decoded.map_err(|error| self.blame(error))?;
                    for (row, target) in targets {
                        target.copy_from_slice(&buffers.bytes[(row - slab.start) * row_bytes..][..row_bytes]);
                    }
                } else {
                    for (&row, target) in targets {
                        let rows = row as u64..row as u64 + 1;
                        let decoded = self.tensor.rect_into(rows, 0..self.cols as u64, target, &mut buffers.scratch);
                        decoded.map_err(|error| self.blame(error))?;
                    }
                }
            }
            Ok(())
        })?;
        convert::converted(&rows, self.dtype)
    }
}

/// Cuts a matrix where chunks end with a row, into slabs of at least [`SLAB_ELEMENTS`] and [`SLAB_ROWS`], but for the last one.
fn cut(boundaries: &[u64], rows: usize, byte_len: usize, cols: usize) -> Vec<Range<usize>> {
    let row_bytes = (byte_len / rows.max(1)) as u64;
    let ends =
        boundaries.iter().filter(|&&end| row_bytes > 0 && end % row_bytes == 0).map(|end| (end / row_bytes) as usize);
    let enough = |rows: usize| rows >= SLAB_ROWS && rows * cols >= SLAB_ELEMENTS;
    let mut cuts = vec![0];
    for end in ends {
        if enough(end - cuts[cuts.len() - 1]) && end < rows {
            cuts.push(end);
        }
    }
    cuts.push(rows);
    cuts.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slabs_cover_the_rows_and_are_not_too_small(rows in 1usize..5000, cols in 1usize..3000, chunk_rows in 1usize..900) {
            let byte_len = 2 * rows * cols;
            let boundaries: Vec<u64> =
                (0..rows).step_by(chunk_rows).chain([rows]).map(|row| (2 * row * cols) as u64).collect();
            let slabs = cut(&boundaries, rows, byte_len, cols);
            let mut end = 0;
            for slab in &slabs {
                prop_assert_eq!(slab.start, end);
                prop_assert!(slab.len() >= SLAB_ROWS || slab.end == rows);
                end = slab.end;
            }
            prop_assert_eq!(end, rows);
            // No slab is more than what it must have and a chunk.
            let most = (SLAB_ELEMENTS / cols + 1).max(SLAB_ROWS) + chunk_rows;
            prop_assert!(slabs.iter().all(|slab| slab.len() <= most));
        }

        #[test]
        fn chunks_that_end_within_rows_cut_nothing(rows in 1usize..3000) {
            let cut = cut(&[0, 1001, 2 * rows as u64 * 576], rows, 2 * rows * 576, 576);
            prop_assert_eq!(cut, vec![0..rows]);
        }
    }
}
