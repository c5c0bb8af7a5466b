//! Element types of synthetic tensors.

use clap::ValueEnum;
use half::{bf16, f16};

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    Bf16,
    F16,
    F32,
    F64,
    #[value(name = "fp8-e4m3")]
    Fp8E4m3,
    I8,
    U8,
}

impl Dtype {
    /// The name in a safetensors header.
    pub(crate) fn safetensors_name(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
            Self::F32 => "F32",
            Self::F64 => "F64",
            Self::Fp8E4m3 => "F8_E4M3",
            Self::I8 => "I8",
            Self::U8 => "U8",
        }
    }

    /// Bytes of an element.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Fp8E4m3 => 1,
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Whether values are codes of a quantised tensor.
    pub(crate) fn is_integer(self) -> bool {
        matches!(self, Self::I8 | Self::U8)
    }

    /// Appends `value`, rounded to the nearest; integers and FP8 saturate, U8 has its zero at 128.
    pub(crate) fn push(self, value: f64, out: &mut Vec<u8>) {
        match self {
            Self::Bf16 => out.extend_from_slice(&bf16::from_f64(value).to_le_bytes()),
            Self::F16 => out.extend_from_slice(&f16::from_f64(value).to_le_bytes()),
            Self::F32 => out.extend_from_slice(&(value as f32).to_le_bytes()),
            Self::F64 => out.extend_from_slice(&value.to_le_bytes()),
            Self::Fp8E4m3 => out.push(to_e4m3(value)),
            Self::I8 => out.push((value.round().clamp(-127.0, 127.0) as i8) as u8),
            Self::U8 => out.push((value.round() + 128.0).clamp(0.0, 255.0) as u8),
        }
    }
}

/// Largest FP8 E4M3 number: 1.75 · 2⁸.
const E4M3_MAX: f64 = 448.0;

/// FP8 E4M3 as in Micikevicius et al., "FP8 formats for deep learning" (2022): bias 7, no infinity. Nearest, ties to
/// even, saturating.
fn to_e4m3(value: f64) -> u8 {
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    if value.is_nan() {
        return sign | 0x7f;
    }
    let magnitude = value.abs().min(E4M3_MAX);
    // Below 2^-6 numbers are multiples of 2^-9; above, of an eighth of their power of two.
    let exponent = (((magnitude.to_bits() >> 52) as i32) - 1023).max(-6);
    let eighths = (magnitude * 2f64.powi(3 - exponent)).round_ties_even() as u8;
    // 8 eighths are the implicit bit; 16 carry into the exponent by themselves.
    sign | ((((exponent + 6) as u8) << 3) + eighths)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Straight from the definition.
    fn of_e4m3(code: u8) -> f64 {
        let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7) / 8.0);
        let magnitude =
            if exponent == 0 { mantissa * 2f64.powi(-6) } else { (1.0 + mantissa) * 2f64.powi(exponent - 7) };
        if code & 0x80 == 0 { magnitude } else { -magnitude }
    }

    #[test]
    fn every_fp8_number_is_its_own_nearest() {
        for code in (0..=255u8).filter(|code| code & 0x7f != 0x7f) {
            assert_eq!(to_e4m3(of_e4m3(code)), code);
        }
    }

    #[test]
    fn fp8_rounds_to_the_nearest_and_ties_to_even() {
        for code in 0..0x7eu8 {
            let (low, high) = (of_e4m3(code), of_e4m3(code + 1));
            let middle = (low + high) / 2.0;
            let even = if code % 2 == 0 { code } else { code + 1 };
            assert_eq!(
                [low * 0.51 + high * 0.49, middle, low * 0.49 + high * 0.51].map(to_e4m3),
                [code, even, code + 1]
            );
        }
        assert_eq!([1e9, f64::INFINITY, -1e9].map(to_e4m3), [0x7e, 0x7e, 0xfe]);
        assert_eq!(to_e4m3(f64::NAN) & 0x7f, 0x7f);
    }

    #[test]
    fn integers_saturate() {
        let mut out = Vec::new();
        for value in [-1e9, -1.6, 0.0, 1e9] {
            Dtype::I8.push(value, &mut out);
            Dtype::U8.push(value, &mut out);
        }
        assert_eq!(out, [0x81, 0, 0xfe, 126, 0, 128, 127, 255]);
    }
}
