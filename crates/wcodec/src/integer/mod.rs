//! The integer mode, for tensors of one byte per element: intra prediction per tile, then either the residuals themselves or the
//! bitplanes of (possibly transformed) residuals, as bytes through the 64-lane coder.
//!
//! Every superblock stands for itself: samples outside it count as 0. What it chose stands in the side information at the start of
//! its chunk; see `docs/format.md`, "Integer mode". A chunk is, for all its superblocks in order: side information, states, streams; behind
//! the last chunk's streams stand the elements that fill no row of the view.
//!
//! Reading order: [`symbols`], which bytes a superblock codes and in which order; [`analysis`], how the encoder picks modes and
//! transforms; [`runs`] and [`model`], tables and classes; then the encoder, the decoder and its progressive form.

mod analysis;
mod coefficients;
mod decode;
#[cfg(feature = "cuda")]
mod device;
mod encode;
mod estimate;
mod model;
mod params;
mod plan;
mod progressive;
mod runs;
mod side;
mod symbols;

pub(crate) use analysis::Analysis;
pub(crate) use decode::{IntegerDecoder, Scratch};
pub(crate) use encode::IntegerEncoder;
pub(crate) use estimate::estimate;
pub(crate) use params::IntegerParams;
pub(crate) use plan::{IntegerOptions, IntegerPlan, plan};

#[cfg(test)]
mod tests;
