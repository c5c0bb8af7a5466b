//! 64-lane interleaved rANS for neural-network weights.
//!
//! Weights are nearly white noise whose *scale* is predictable from row and column. This crate codes a tensor in
//! [superblocks](superblock) of R rows × 64 columns. Each column is a *lane* with a rANS state of its own, so one step
//! codes one row segment: on a GPU 32 threads of two lanes, in AVX-512 four vectors. A *context*,
//! `clamp(row class + column class, 0, K-1)`, picks the frequency table of an element; the bits that are noise bypass
//! the coder as a *raw field*.
//!
//! For plain bytes there is a single-state coder in [`plain`]:
//!
//! ```
//! let text = b"abracadabra abracadabra abracadabra";
//! let packed = wcodec_rans::plain::compress(text);
//! assert_eq!(wcodec_rans::plain::decompress(&packed, text.len())?, text);
//! # Ok::<(), wcodec_rans::RansError>(())
//! ```
//!
//! # Reading order
//! [`freq`]: tables, [`table_set`]: those of all contexts. [`alias`]: which slots of a table are whose. [`plain`]: the coder at its simplest. [`layout`]: which bits are coded. [`superblock`]: lanes,
//! words, state packing and the scalar decoder, which *defines* the format.

pub mod adaptive;
pub mod alias;
mod arch;
pub mod bits;
mod chains;
mod crc;
mod error;
pub mod freq;
pub mod histograms;
pub mod layout;
pub mod plain;
pub mod stats;
pub mod superblock;
pub mod table_set;

pub use arch::Isa;
pub use error::{RansError, Result};
pub use freq::FrequencyTable;
pub use layout::HeadLayout;
pub use table_set::{Context, TableSet};

/// Lanes of a superblock: one per column.
pub const LANES: usize = 64;
/// Most contexts of one table set.
pub const MAX_CONTEXTS: usize = 16;
/// Lower end L of the state interval [L, 2^16·L): states are renormalised by 16-bit words.
pub const STATE_LOW: u32 = 1 << 16;
