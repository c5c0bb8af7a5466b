//! wcodec archives for [candle](https://github.com/huggingface/candle).
//!
//! Two ways to use a model that is stored as a `.wcodec` file, or as a folder of such shards:
//!
//! - **Loaded.** [`var_builder`] gives candle's own `VarBuilder`. Whatever model reads safetensors through one reads archives
//!   unchanged; every weight is decoded once, and then it is an ordinary tensor.
//! - **On the fly.** [`Resident`] makes linear layers and embeddings whose weights stay compressed in memory. Each forward pass
//!   decodes them into a few small buffers, the next ones on other threads while this one multiplies.
//!
//! Both give the bits that the uncompressed model gives. With the feature `cuda` and a `Device::Cuda` the same functions decode on the
//! GPU, straight into candle's memory; compressed weights then lie in device memory.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::Module;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let (input, path) = (folder.path().join("m.safetensors"), folder.path().join("m.wcodec"));
//! # let weights = Tensor::arange(0f32, 64. * 128., &Device::Cpu)?.reshape((64, 128))?.to_dtype(DType::BF16)?;
//! # weights.save_safetensors("proj.weight", &input)?;
//! # wcodec::compress(&input, &path, &wcodec::EncodeOptions::default(), &())?;
//! let x = Tensor::ones((1, 128), DType::F32, &Device::Cpu)?;
//!
//! let vb = wcodec_candle::var_builder(&path, DType::F32, &Device::Cpu)?;
//! let loaded = candle_nn::linear_no_bias(128, 64, vb.pp("proj"))?;
//!
//! let resident = wcodec_candle::Resident::new(wcodec_candle::Shards::read(&path)?, 2)?;
//! let vb = resident.var_builder(DType::F32, &Device::Cpu)?;
//! let on_the_fly = resident.linear_no_bias(128, 64, vb.pp("proj"))?;
//!
//! assert_eq!(loaded.forward(&x)?.to_vec2::<f32>()?, on_the_fly.forward(&x)?.to_vec2::<f32>()?);
//! # Ok(())
//! # }
//! ```
//!
//! Functions return candle's `Result`, so that they stand in a model's code without conversions. Errors of an archive name the
//! shard and the tensor.

mod ahead;
mod convert;
#[cfg(feature = "cuda")]
mod cuda;
mod load;
mod resident;
mod shards;

pub use load::{LoadOptions, var_builder, var_builder_with};
pub use resident::{CompressedEmbedding, CompressedLinear, CompressedWeight, Resident};
pub use shards::Shards;

/// The code of `docs/embedding.md`, to be compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/embedding.md")]
struct Embedding;
