//! Lossless compression of neural-network weights.
//!
//! ```no_run
//! # fn main() -> wcodec::Result<()> {
//! use wcodec::{Archive, EncodeOptions};
//! wcodec::compress("model.safetensors", "model.wcodec", &EncodeOptions::default(), &())?;
//! let archive = Archive::open("model.wcodec")?;
//! let weights: Vec<u8> = archive.tensor("model.embed_tokens.weight")?.decode()?;
//! # Ok(())
//! # }
//! ```
//!
//! This crate composes the others: [`wcodec_rans`] codes, [`wcodec_predict`] and [`wcodec_transform`] model, [`wcodec_container`] holds.
//! It works in the current rayon pool; to use another, call it inside `ThreadPool::install`.

mod archive;
mod backend;
mod checkpoint;
#[cfg(feature = "cuda")]
pub mod cuda;
mod error;
mod format;
mod frames;
mod integer;
mod lanes;
mod mode;
mod options;
mod probe;
pub mod quant;
mod report;
mod small;
mod tensor;
mod wire;

pub use archive::{Archive, Scratch, Tensor, decode_many};
pub use backend::{Backend, Device};
pub use checkpoint::{
    TensorData, compress, compress_on, compress_tensors, compress_tensors_to_vec, decompress, decompress_on, verify,
    verify_on,
};
pub use error::{Error, Result};
pub use lanes::LanesSummary;
pub use mode::Mode;
pub use options::{EncodeOptions, Level, ModeChoice, Tuning};
pub use report::{DeviceUse, Progress, Report, TensorReport};
pub use wcodec_container::{ContainerError, DtypeCode, Extent, TensorEntry};
pub use wcodec_rans::Isa;
