//! Quantised weights: from codes and scales back to floats ([`Archive::dequantize`](crate::Archive::dequantize)), and from a checkpoint of
//! floats to one of codes and scales ([`quantize`]), which loses information and says how much.
//!
//! The formula, and what is exact about it, is that of [`wcodec_quant`]. Which tensors belong together:
//!
//! | codes | scales | zero points | layout |
//! |---|---|---|---|
//! | `X.weight` and any other name: I8, U8, F8_E4M3, F8_E5M2 | `X.weight_scale`, `X.weight_scale_inv`, `X.weight_scales`, `X.weight.scale`, `X.scales`, `X.scale` | `X.weight_zero_point`, `X.weight_zero_points`, `X.weight.zero_point`, `X.zero_point`, `X.zeros` | one scale for the tensor, a row, a column, or a block, by the shape of the scales |
//! | `X.weight_packed`: I32, eight unsigned nibbles a word along a row | `X.weight_scale` | `X.weight_zero_point`, packed down the rows; without it codes are 8 too large | `X.weight_shape`: rows and columns |
//! | `X.qweight`: I32 of rows ÷ 8 × columns (GPTQ) | `X.scales`, groups × columns | `X.qzeros`, groups × columns ÷ 8, stored one too small | `X.g_idx`: the group of every row |
//! | `X.qweight`: I32 of rows × columns ÷ 8 (AWQ) | `X.scales`, groups × columns | `X.qzeros`, groups × columns ÷ 8 | rows in equal groups |
//!
//! Scales are F32, BF16, F16 or F8_E8M0. The output has the rows and columns of the codes: GPTQ and AWQ store inputs × outputs.

mod checkpoint;
mod dequantize;
mod find;
mod numbers;

pub use checkpoint::{QuantizeOptions, QuantizedTensor, ScaleBlock, quantize};
pub use find::DequantizeOptions;
pub use wcodec_quant::{Code, FloatType, Loss, Order, QuantError, QuantizedType, Scheme};
