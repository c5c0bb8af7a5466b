//! CRC-32 of a superblock's rows while they are in registers: every 16 bytes of a row are carried to those below them, a row's stride
//! away: four products and two sums for a row of 128 bytes. The arithmetic is [`crate::arch::fold`]'s.

use std::arch::x86_64::*;

use super::super::fold;
use crate::crc::distance;

const VECTOR: [u64; 2] = distance(512);

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
    fold::remainder(&[
        _mm512_castsi512_si128(sum),
        _mm512_extracti32x4_epi32::<1>(sum),
        _mm512_extracti32x4_epi32::<2>(sum),
        _mm512_extracti32x4_epi32::<3>(sum),
    ])
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
pub(super) fn pair(distance: [u64; 2]) -> __m512i {
    _mm512_broadcast_i32x4(fold::pair(distance))
}
