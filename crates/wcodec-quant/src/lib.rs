//! Dequantisation: codes of 4 or 8 bits times scales, to BF16, F16 or F32. And its opposite, which loses information.
//!
//! # The formula
//! For a code q with zero point z and scale s:
//!
//! ```text
//! out = to_type(fl32((q − z) · s))
//! ```
//!
//! - q is the code's integer, or the exact value of an FP8 code (E4M3 as in OCP FP8: no infinities, NaN 0x7F and 0xFF; E5M2 with
//!   both). z is an integer of at most 2^20 in magnitude, for integer codes only; without zero points it is 0. q − z is exact.
//! - s is an F32; scales stored as BF16 or F16 are widened, which is exact.
//! - The product is rounded once to F32, and then once to the output type, both times to the nearest, ties to even. Subnormals are kept,
//!   overflow gives infinity.
//! - Where the product is a NaN, the output is the one NaN with a clear sign and all other bits set (F32 `7FFFFFFF`, BF16 and F16
//!   `7FFF`), because that is what GPUs make.
//!
//! The scalar code ([`dequantize_one`]) is the definition. Vector code and the CUDA kernel give the same bits.
//!
//! ```
//! use wcodec_quant::{Code, FloatType, Isa, Scheme};
//! // Two rows of four INT8 codes, a scale for each row.
//! let scheme = Scheme::new([2, 4], Code::I8, [1, 4], vec![0.5, 2.0])?;
//! let codes = [1i8, -2, 3, -4, 5, -6, 7, -8].map(|q| q as u8);
//! let mut out = [0; 8 * 4];
//! scheme.dequantize_rows(&codes, 0..2, FloatType::F32, Isa::Auto, &mut out)?;
//! assert_eq!(out[..4], 0.5f32.to_le_bytes());
//! assert_eq!(out[28..], (-16.0f32).to_le_bytes());
//! # Ok::<(), wcodec_quant::QuantError>(())
//! ```
//!
//! This crate knows no files and starts no threads. `unsafe` code is in `arch` alone.
#![deny(unsafe_code)]

mod arch;
mod code;
mod error;
mod float;
mod quantize;
mod scheme;

pub use arch::Isa;
pub use code::{Code, Order};
pub use error::QuantError;
pub use float::{FloatType, dequantize_one};
pub use quantize::{Loss, Quantized, QuantizedType, quantize};
pub use scheme::{MAX_ZERO, Scheme};
