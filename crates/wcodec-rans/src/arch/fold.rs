//! CRC-32 arithmetic with carry-less products of 128-bit registers, for all instruction sets that have them.
//!
//! Folding (V. Gopal, E. Ozturk et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel, 2009) carries 128
//! bits over any distance by two products.

use std::arch::x86_64::*;

use crate::crc::{distance, power};

const LANE: [u64; 2] = distance(128);
/// x⁶⁴ mod P, likewise.
const HALF: u64 = (power(64) as u64) << 1;
/// P, and the quotient x⁶⁴ / P, all 33 bits.
const BARRETT: [u64; 2] = [0x1_db71_0641, 0x1_f701_1641];

/// [`crate::crc::distance`].
#[inline]
#[target_feature(enable = "sse4.1,pclmulqdq")]
pub(super) fn pair([low, high]: [u64; 2]) -> __m128i {
    _mm_set_epi64x(high as i64, low as i64)
}

/// `sum` carried over a distance, and `next` added.
#[inline]
#[target_feature(enable = "sse4.1,pclmulqdq")]
pub(super) fn fold(sum: __m128i, by: __m128i, next: __m128i) -> __m128i {
    let products = _mm_xor_si128(_mm_clmulepi64_si128::<0x00>(sum, by), _mm_clmulepi64_si128::<0x11>(sum, by));
    _mm_xor_si128(products, next)
}

/// The bytes of `parts`, one behind the other, times x³² mod P.
#[inline]
#[target_feature(enable = "sse4.1,pclmulqdq")]
pub(super) fn remainder(parts: &[__m128i]) -> u32 {
    let by = pair(LANE);
    let mut x = parts[0];
    for part in &parts[1..] {
        x = fold(x, by, *part);
    }
    // 128 bits to 96, 96 to 64, 64 to 32.
    let word = _mm_set_epi64x(0, 0xffff_ffff);
    x = _mm_xor_si128(_mm_clmulepi64_si128::<0x10>(x, by), _mm_srli_si128::<8>(x));
    let half = _mm_set_epi64x(0, HALF as i64);
    x = _mm_xor_si128(_mm_clmulepi64_si128::<0x00>(_mm_and_si128(x, word), half), _mm_srli_si128::<4>(x));
    reduced(x)
}

/// a·b mod P; as [`crate::crc::multiply`].
#[inline]
#[target_feature(enable = "sse4.1,pclmulqdq")]
pub(super) fn multiply(a: u32, b: u32) -> u32 {
    let product = _mm_clmulepi64_si128::<0x00>(_mm_cvtsi64_si128(a.into()), _mm_cvtsi64_si128(b.into()));
    // The product of reflected words lacks a place at the end.
    reduced(_mm_slli_epi64::<1>(product))
}

/// A polynomial of 64 coefficients mod P (Barrett's reduction).
#[inline]
#[target_feature(enable = "sse4.1,pclmulqdq")]
fn reduced(x: __m128i) -> u32 {
    let word = _mm_set_epi64x(0, 0xffff_ffff);
    let barrett = _mm_set_epi64x(BARRETT[1] as i64, BARRETT[0] as i64);
    let quotient = _mm_clmulepi64_si128::<0x10>(_mm_and_si128(x, word), barrett);
    let multiple = _mm_clmulepi64_si128::<0x00>(_mm_and_si128(quotient, word), barrett);
    _mm_extract_epi32::<1>(_mm_xor_si128(x, multiple)) as u32
}
