//! Output types, and the formula for one code.

use crate::Code;

/// A type to dequantise to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// The upper half of an F32.
    BF16,
    /// IEEE binary16.
    F16,
    /// IEEE binary32.
    F32,
}

impl FloatType {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// The bits of `value` in this type, rounded to nearest even; in the lower half for types of 16 bits.
    #[inline(always)]
    pub(crate) fn bits(self, value: f32) -> u32 {
        match self {
            Self::F32 if value.is_nan() => 0x7fff_ffff,
            Self::BF16 | Self::F16 if value.is_nan() => 0x7fff,
            Self::F32 => value.to_bits(),
            Self::BF16 => half::bf16::from_f32(value).to_bits().into(),
            Self::F16 => half::f16::from_f32(value).to_bits().into(),
        }
    }
}

/// The formula for one code: the bits of the output, in the lower half for types of 16 bits. A 4-bit code is in the lower half of
/// `byte`. `zero` is an integer of at most [`crate::MAX_ZERO`] in magnitude, and 0 for FP8.
///
/// ```
/// use wcodec_quant::{Code, FloatType, dequantize_one};
/// assert_eq!(dequantize_one(Code::U8, 130, 128.0, 0.25, FloatType::F32), 0.5f32.to_bits());
/// assert_eq!(dequantize_one(Code::F8E4M3, 0x7f, 0.0, 1.0, FloatType::BF16), 0x7fff);
/// ```
pub fn dequantize_one(code: Code, byte: u8, zero: f32, scale: f32, float: FloatType) -> u32 {
    let q = code.value(byte);
    // A code of FP8 keeps the sign of its zero.
    let difference = if code.is_integer() { q - zero } else { q };
    float.bits(difference * scale)
}
