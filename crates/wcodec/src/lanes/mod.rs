//! The lanes mode: fields split, scale contexts, 64-lane rANS. The *float mode* of the format, and its contexts-on-the-symbol form for
//! 8-bit integers.
//!
//! A chunk is a run of strips. Its bytes are, for all its superblocks in order: raw fields, states, low bits, streams; behind the last
//! chunk's streams stand the elements that fill no row of the view.

mod decode;
mod encode;
mod geometry;
mod low;
mod params;
pub(crate) mod plan;
pub(crate) mod squeeze;

pub use decode::LanesSummary;
pub(crate) use decode::{LanesDecoder, Scratch};
pub(crate) use encode::{LanesEncoder, States};
pub(crate) use geometry::Geometry;
pub(crate) use params::{BlockIndex, LanesParams};
