//! CRC-32 of a superblock's rows while they are in registers.
//!
//! Folding (V. Gopal, E. Ozturk et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel, 2009) carries 128
//! bits over any distance by two products. Usually the distance is to the next 16 bytes; here every 16 bytes of a row are carried to those
//! below them, a row's stride away: four products and two sums for a row of 128 bytes.

use std::arch::x86_64::*;

use crate::crc::{distance, power};

const VECTOR: [u64; 2] = distance(512);
const LANE: [u64; 2] = distance(128);
/// x⁶⁴ mod P, likewise.
const HALF: u64 = (power(64) as u64) << 1;
/// P, and the quotient x⁶⁴ / P, all 33 bits.
const BARRETT: [u64; 2] = [0x1_db71_0641, 0x1_f701_1641];

/// rows·x³² mod P, from the sums of their vectors in the order of columns.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn remainder(sums: &[__m512i]) -> u32 {
    let mut sum = sums[0];
    for next in &sums[1..] {
        sum = fold(sum, pair(VECTOR), *next);
    }
    let by = _mm512_castsi512_si128(pair(LANE));
    let mut x = _mm512_castsi512_si128(sum);
    for lane in
        [_mm512_extracti32x4_epi32::<1>(sum), _mm512_extracti32x4_epi32::<2>(sum), _mm512_extracti32x4_epi32::<3>(sum)]
    {
        let products = _mm_xor_si128(_mm_clmulepi64_si128::<0x00>(x, by), _mm_clmulepi64_si128::<0x11>(x, by));
        x = _mm_xor_si128(products, lane);
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
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn multiply(a: u32, b: u32) -> u32 {
    let product = _mm_clmulepi64_si128::<0x00>(_mm_cvtsi64_si128(a.into()), _mm_cvtsi64_si128(b.into()));
    // The product of reflected words lacks a place at the end.
    reduced(_mm_slli_epi64::<1>(product))
}

/// A polynomial of 64 coefficients mod P (Barrett's reduction).
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn reduced(x: __m128i) -> u32 {
    let word = _mm_set_epi64x(0, 0xffff_ffff);
    let barrett = _mm_set_epi64x(BARRETT[1] as i64, BARRETT[0] as i64);
    let quotient = _mm_clmulepi64_si128::<0x10>(_mm_and_si128(x, word), barrett);
    let multiple = _mm_clmulepi64_si128::<0x00>(_mm_and_si128(quotient, word), barrett);
    _mm_extract_epi32::<1>(_mm_xor_si128(x, multiple)) as u32
}

/// `sum` carried over a distance, and `next` added.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn fold(sum: __m512i, by: __m512i, next: __m512i) -> __m512i {
    let low = _mm512_clmulepi64_epi128::<0x00>(sum, by);
    let high = _mm512_clmulepi64_epi128::<0x11>(sum, by);
    _mm512_ternarylogic_epi64::<0x96>(low, high, next)
}

/// [`crate::crc::distance`] in every 128 bits.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn pair([low, high]: [u64; 2]) -> __m512i {
    _mm512_broadcast_i32x4(_mm_set_epi64x(high as i64, low as i64))
}
