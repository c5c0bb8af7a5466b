//! Weights that stay compressed in memory and are decoded for every use.
//!
//! A weight is cut into *slabs*: runs of whole rows that are runs of whole chunks, about half a million elements each. Layers decode
//! and multiply slab by slab, so the decoded part of a model is a few slabs, however large its largest matrix; and a slab is still in
//! the cache when it is multiplied. While one is, other threads decode those that followed it in the last forward pass.

mod layers;
mod slabs;
mod weight;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use candle_core::{DType, Device, Error, Result};
use candle_nn::VarBuilder;

use crate::ahead::Ahead;
#[cfg(feature = "cuda")]
use crate::cuda::Gpu;
use crate::load::{LoadOptions, var_builder_with};
use crate::{Shards, convert};
pub use layers::{CompressedEmbedding, CompressedLinear};
use slabs::Slabs;
pub use weight::CompressedWeight;
pub(crate) use weight::Weight;

/// A model's compressed weights, and the threads and buffers that decode them on the fly. Cheap to clone.
///
/// Its functions are named as candle's and take the same `VarBuilder`, of which they use the path, the dtype to compute in and the
/// device. All layers made by one `Resident` share its buffers: with `threads` threads about `threads` + 1 slabs (see
/// [`CompressedWeight::slab_elements`]) of the dtype that is computed in.
///
/// For inference: what comes out of a compressed layer has no gradient.
#[derive(Clone)]
pub struct Resident(Arc<Core>);

pub(crate) struct Core {
    shards: Shards,
    ahead: Ahead<Slabs>,
    threads: usize,
    /// The weight that was last used.
    last: Mutex<Weak<Weight>>,
    /// The devices of its weights.
    #[cfg(feature = "cuda")]
    gpus: Mutex<Vec<Arc<Gpu>>>,
}

impl Resident {
    /// Takes the shards, to decode them with `threads` threads, the caller's included. With one, layers decode when they are used.
    ///
    /// # Errors
    /// candle's `Error` when threads cannot be started.
    pub fn new(shards: Shards, threads: usize) -> Result<Self> {
        let workers = threads.saturating_sub(1);
        let ahead = Ahead::new(Slabs::default(), workers, threads, 1)?;
        Ok(Self(Arc::new(Core {
            shards,
            ahead,
            threads,
            last: Mutex::default(),
            #[cfg(feature = "cuda")]
            gpus: Mutex::default(),
        })))
    }

    /// The shards.
    pub fn shards(&self) -> &Shards {
        &self.0.shards
    }

    /// A `VarBuilder` of the same shards, for the paths of layers, and for the tensors that are better decoded once: norms, biases.
    /// Reads ahead nothing.
    ///
    /// # Errors
    /// None today.
    pub fn var_builder(&self, dtype: DType, device: &Device) -> Result<VarBuilder<'static>> {
        let options = LoadOptions { threads: 1, read_ahead: 0, device_read_ahead: 0 };
        var_builder_with(self.0.shards.clone(), dtype, device, &options)
    }

    /// A linear layer whose weight stays compressed; its bias, a vector, is decoded now. Stands for `candle_nn::linear`.
    ///
    /// # Errors
    /// As [`Resident::weight`].
    pub fn linear(&self, in_dim: usize, out_dim: usize, vb: VarBuilder<'_>) -> Result<CompressedLinear> {
        let bias = vb.get(out_dim, "bias")?;
        Ok(CompressedLinear::new(self.weight(out_dim, in_dim, vb)?, Some(bias)))
    }

    /// A linear layer without bias. Stands for `candle_nn::linear_no_bias`.
    ///
    /// # Errors
    /// As [`Resident::weight`].
    pub fn linear_no_bias(&self, in_dim: usize, out_dim: usize, vb: VarBuilder<'_>) -> Result<CompressedLinear> {
        Ok(CompressedLinear::new(self.weight(out_dim, in_dim, vb)?, None))
    }

    /// A linear layer, with or without bias. Stands for `candle_nn::linear_b`.
    ///
    /// # Errors
    /// As [`Resident::weight`].
    pub fn linear_b(&self, in_dim: usize, out_dim: usize, bias: bool, vb: VarBuilder<'_>) -> Result<CompressedLinear> {
        if bias { self.linear(in_dim, out_dim, vb) } else { self.linear_no_bias(in_dim, out_dim, vb) }
    }

    /// An embedding that decodes the rows that it is asked for. Stands for `candle_nn::embedding`.
    ///
    /// # Errors
    /// As [`Resident::weight`].
    pub fn embedding(&self, in_size: usize, out_size: usize, vb: VarBuilder<'_>) -> Result<CompressedEmbedding> {
        Ok(CompressedEmbedding::new(self.weight(in_size, out_size, vb)?))
    }

    /// The matrix `weight` at the builder's path, to be used in its dtype. Layers may share it.
    ///
    /// In shards that were read into memory the checksums of its stored bytes are compared now; mapped bytes are only read when they are
    /// decoded. Every decoded slab is checked in either case.
    ///
    /// On a CUDA device the compressed bytes are copied there and decoded once, with all checksums compared; the shards may be mapped, as
    /// they are not read again.
    ///
    /// # Errors
    /// `CannotFindTensor`, `UnexpectedShape`; candle's `Error` that names tensor and shard for damaged bytes; for a device that is
    /// neither the CPU nor, with the feature `cuda`, a CUDA device; for a dtype that is no float.
    pub fn weight(&self, rows: usize, cols: usize, vb: VarBuilder<'_>) -> Result<CompressedWeight> {
        convert::check_compute(vb.dtype())?;
        let prefix = vb.prefix();
        let name = if prefix.is_empty() { "weight".to_owned() } else { format!("{prefix}.weight") };
        let weight = Weight::new(&self.0.shards, &name, rows, cols, vb.dtype())?;
        #[cfg(feature = "cuda")]
        if vb.device().is_cuda() {
            let weight = weight.onto(&self.0.gpu(vb.device())?)?;
            return Ok(CompressedWeight { weight, core: Arc::clone(&self.0) });
        }
        if !vb.device().is_cpu() {
            return Err(Error::msg("compressed layers decode on the CPU, and on CUDA devices with the feature `cuda`"));
        }
        weight.check_stored()?;
        Ok(CompressedWeight { weight: Arc::new(weight), core: Arc::clone(&self.0) })
    }

    /// Bytes that the weights take now: the archives in memory (if they are; mapped ones belong to the page cache), and the buffers.
    pub fn resident_bytes(&self) -> u64 {
        let archives = if self.0.shards.in_memory() { self.0.shards.byte_len() } else { 0 };
        archives + self.0.ahead.plan().buffer_bytes()
    }

    /// Bytes of device memory that the weights on CUDA devices take now: compressed, with their tables, and the memory that they are
    /// decoded into. That is a part in 64 of what all tensors take decoded, but at most 32 MiB; or more, as much as the largest weight
    /// takes, but for large ones that are computed in BF16 or F16, which are decoded and multiplied in slabs of 4096 rows, or of 8192 if
    /// they have more than 2048 columns.
    #[cfg(feature = "cuda")]
    pub fn device_bytes(&self) -> u64 {
        self.0.gpus.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|gpu| gpu.device_bytes()).sum()
    }
}

impl Core {
    #[cfg(feature = "cuda")]
    fn gpu(&self, device: &Device) -> Result<Arc<Gpu>> {
        let mut gpus = self.gpus.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = gpus.iter().find(|gpu| gpu.is(device)) {
            return Ok(Arc::clone(gpu));
        }
        gpus.push(Arc::new(Gpu::open(device, &self.shards)?));
        Ok(Arc::clone(&gpus[gpus.len() - 1]))
    }

    /// Notes that `weight` is used now: what comes after what is how the next pass is foretold.
    fn used(&self, weight: &Arc<Weight>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = std::mem::replace(&mut *last, Arc::downgrade(weight)).upgrade() {
            before.set_next(weight);
        }
    }
}

impl std::fmt::Debug for Resident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resident").field("shards", &self.0.shards).field("threads", &self.0.threads).finish()
    }
}
