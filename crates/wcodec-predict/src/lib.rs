//! Tiles, intra prediction and row/column scale classes.
//!
//! Two predictors of different kinds:
//!
//! - [`encode_region`] and [`decode_region`] predict the *value* of 8-bit samples, tile by tile, from the samples beside
//!   the tile, and leave residuals modulo 256. It pays on smooth tensors: position tables, filters, rotary caches.
//! - [`scale`] predicts the *distribution* of a weight from its row and its column: classes whose sum picks the frequency
//!   table. It is what pays on trained weights.
//!
//! Samples are `u8`. Signed 8-bit tensors are taken as the same bits: all prediction and all residuals are modulo 256, so
//! what is decoded is exact for either reading.
//!
//! ```
//! use wcodec_predict::{Choice, Intra, TileSize, decode_region, encode_region};
//!
//! let (h, w) = (20, 30); // ragged: not a multiple of the tile
//! let samples: Vec<u8> = (0..h * w).map(|i| (i / w * 3 + i % w * 2) as u8).collect();
//! let coded = encode_region(&samples, w, h, w, TileSize::default(), Choice::Among(&Intra::ALL))?;
//!
//! let mut back = vec![0; h * w];
//! decode_region(&coded.modes, &coded.residuals, h, w, TileSize::default(), &mut back, w)?;
//! assert_eq!(back, samples);
//! # Ok::<(), wcodec_predict::Error>(())
//! ```

#![deny(unsafe_code)]

mod cost;
mod error;
mod intra;
mod log2;
mod region;
pub mod scale;
mod tile;

pub use cost::{COST_FRACTION_BITS, residual_cost};
pub use error::{Error, Result};
pub use intra::{Intra, predict, reconstruct, subtract};
pub use log2::log2_fixed;
pub use region::{Choice, EncodedRegion, decode_region, encode_region};
pub use tile::{Neighbours, Plane, Tile, TileGrid, TileSize};
