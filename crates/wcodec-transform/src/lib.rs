//! Reversible integer 8×8 DCT-II and ADST, and bitplanes.
//!
//! A *block* is 64 `i32` samples in row-major order. [`forward`] replaces it by its coefficients, [`inverse`] restores
//! the samples exactly, bit for bit, on every platform: only integer additions, multiplications and shifts are used, and
//! every multiplication sits in a lifting step that the inverse undoes with the same operands (see [`lifting`]).
//!
//! Coefficients become bytes in two steps: [`fold`] maps signed integers to unsigned ones, [`bitplane`] splits those
//! into planes from the most to the least significant bit. The first `k` planes alone give a coarser reconstruction
//! with a known error bound.
//!
//! ```
//! use wcodec_transform::{Transform, forward, inverse};
//!
//! let samples: [i32; 64] = std::array::from_fn(|i| 3 * (i / 8) as i32 + 5 * (i % 8) as i32);
//! let mut block = samples;
//! forward(Transform::Dct, &mut block);
//! assert_ne!(block, samples);
//! inverse(Transform::Dct, &mut block);
//! assert_eq!(block, samples);
//! ```

#![deny(unsafe_code)]

pub mod bitplane;
mod block;
mod error;
pub mod fold;
pub mod lifting;
mod scan;

pub use block::{
    BLOCK_LEN, MAX_INPUT, SAMPLE_ERROR_GAIN, SAMPLE_ERROR_ROUNDING, Transform, forward, forward_separable, inverse,
    inverse_separable,
};
pub use error::{Error, Result};
pub use scan::{ZIGZAG, from_zigzag, to_zigzag};
