//! The number formats that models are cast to. Integer or IEEE 754 arithmetic only: the same bytes on every machine.

use half::{bf16, f16};

/// Largest finite FP8 E4M3 magnitude.
pub(crate) const FP8_E4M3_MAX: f32 = 448.0;

/// Largest INT8 code in use. -128 is left out, so that a code and its negative both exist.
pub(crate) const INT8_MAX: f32 = 127.0;

/// F32 to BF16, round to nearest, ties to even; little-endian bytes.
pub(crate) fn to_bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()
}

/// F32 to FP16, round to nearest, ties to even, with subnormals; little-endian bytes.
pub(crate) fn to_f16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()
}

/// F32 to FP8 E4M3 (the form without infinities, "FP8 Formats for Deep Learning", Micikevicius et al. 2022, section 3):
/// 1 sign bit, 4 exponent bits with bias 7, 3 mantissa bits, the code 0x7f is NaN.
///
/// Rounds to nearest, ties to even; magnitudes beyond 448, infinities included, saturate to 448; NaN stays NaN.
pub(crate) fn fp8_e4m3(x: f32) -> u8 {
    let sign = (x.to_bits() >> 24) as u8 & 0x80;
    let magnitude = x.abs();
    if magnitude.is_nan() {
        return sign | 0x7f;
    }
    // 2^-6 is the smallest normal number; below it codes are multiples of 2^-9, and code 8 is 2^-6 itself.
    if magnitude < 1.0 / 64.0 {
        return sign | (magnitude * 512.0).round_ties_even() as u8;
    }
    let bits = magnitude.to_bits();
    // Half of the 20 dropped bits' unit less one, plus the last kept bit: a tie carries only into an odd code.
    let rounded = (bits + 0x7_ffff + (bits >> 20 & 1)) >> 20;
    let code = rounded - ((127 - 7) << 3);
    sign | code.min(0x7e) as u8
}

/// A number as INT8 code: nearest, ties to even, saturated to ±127. NaN gives 0.
pub(crate) fn int8(x: f32) -> i8 {
    x.round_ties_even().clamp(-INT8_MAX, INT8_MAX) as i8
}

/// The scale that maps the largest magnitude of `values` to `largest_code`; 1 where all values are zero.
pub(crate) fn absmax_scale(values: &[f32], largest_code: f32) -> f32 {
    let absmax = values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    if absmax == 0.0 { 1.0 } else { absmax / largest_code }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, spelled out from the format's table.
    fn fp8_value(code: u8) -> f32 {
        let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
        let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
        match (exponent, code & 7) {
            (15, 7) => f32::NAN,
            (0, _) => sign * mantissa / 8.0 * 2f32.powi(-6),
            _ => sign * (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
        }
    }

    #[test]
    fn every_fp8_code_comes_back() {
        for code in 0..=255u8 {
            assert_eq!(fp8_e4m3(fp8_value(code).copysign(if code < 128 { 1.0 } else { -1.0 })), code, "{code:#04x}");
        }
    }

    #[test]
    fn fp8_ties_go_to_the_even_code_and_their_neighbours_do_not() {
        for code in 0..0x7eu8 {
            // Exact in F32: both ends have at most 4 significant bits and a common exponent range.
            let middle = (fp8_value(code) + fp8_value(code + 1)) / 2.0;
            assert_eq!(fp8_e4m3(middle), code + (code & 1), "tie above {code:#04x}");
            assert_eq!(fp8_e4m3(middle.next_down()), code);
            assert_eq!(fp8_e4m3(middle.next_up()), code + 1);
            assert_eq!(fp8_e4m3(-middle), 0x80 | (code + (code & 1)));
        }
    }

    #[test]
    fn fp8_saturates_and_keeps_nan() {
        for x in [448.0, 463.9, 464.0, 480.0, 1e9, f32::MAX, f32::INFINITY] {
            assert_eq!((fp8_e4m3(x), fp8_e4m3(-x)), (0x7e, 0xfe), "{x}");
        }
        assert_eq!(fp8_e4m3(f32::NAN) & 0x7f, 0x7f);
        assert_eq!((fp8_e4m3(0.0), fp8_e4m3(-0.0)), (0x00, 0x80));
        assert_eq!(fp8_e4m3(f32::from_bits(1)), 0);
    }

    #[test]
    fn int8_ties_go_to_even_and_ends_saturate() {
        let cases = [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (127.4, 127), (128.0, 127), (-1e9, -127)];
        for (x, code) in cases {
            assert_eq!(int8(x), code, "{x}");
        }
        assert_eq!((int8(f32::NAN), int8(f32::INFINITY)), (0, 127));
    }

    #[test]
    fn bf16_and_f16_ties_go_to_even() {
        let bf16_one_ulp = f32::from_bits(0x3f80_8000);
        assert_eq!(to_bf16(&[bf16_one_ulp, bf16_one_ulp.next_up()]), [0x80, 0x3f, 0x81, 0x3f]);
        assert_eq!(to_bf16(&[f32::from_bits(0x3f81_8000)]), [0x82, 0x3f]);
        let half_an_ulp = 1.0 + 2f32.powi(-11);
        assert_eq!(to_f16(&[half_an_ulp, half_an_ulp.next_up()]), [0x00, 0x3c, 0x01, 0x3c]);
    }

    #[test]
    fn scales_reach_the_largest_code() {
        assert_eq!(absmax_scale(&[1.0, -254.0], INT8_MAX), 2.0);
        assert_eq!(absmax_scale(&[0.0, -0.0], INT8_MAX), 1.0);
        assert_eq!(absmax_scale(&[], INT8_MAX), 1.0);
    }

    proptest! {
        #[test]
        fn fp8_picks_a_nearest_code(x in -600.0f32..600.0) {
            let got = (fp8_value(fp8_e4m3(x)) - x).abs();
            let best = (0..=255u8).map(|c| (fp8_value(c) - x).abs()).fold(f32::INFINITY, f32::min);
            prop_assert_eq!(got, best);
        }

        #[test]
        fn fp8_is_monotone(a in any::<f32>(), b in any::<f32>()) {
            prop_assume!(a <= b);
            prop_assert!(fp8_value(fp8_e4m3(a)) <= fp8_value(fp8_e4m3(b)));
        }
    }
}
