//! AVX2 with F16C: eight codes at a time.
#![expect(unsafe_code, reason = "vector loads and stores, and entry into functions compiled for AVX2")]

use std::arch::x86_64::*;

use super::vector::loops;
use super::{Numbers, Span};
use crate::code::Code;
use crate::float::FloatType;

/// Proof that the CPU has every feature this module is compiled for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")).then_some(Self(()))
    }

    /// Dequantises as many whole vectors as there are, and returns how many codes those were.
    pub(super) fn run(self, span: Span<'_>, out: &mut [u8]) -> usize {
        // SAFETY: `self` exists only if `new` saw every feature that `run` is compiled for.
        unsafe { run(span, out) }
    }
}

loops! {
    features: "avx2,f16c", lanes: 8, vector: __m256,
    splat: _mm256_set1_ps, zero: _mm256_setzero_ps, load: _mm256_loadu_ps, load_codes: _mm_loadl_epi64,
    sub: _mm256_sub_ps, mul: _mm256_mul_ps,
}

struct Signed;

impl Value for Signed {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn value(codes: __m128i) -> __m256 {
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes))
    }
}

struct Unsigned;

impl Value for Unsigned {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn value(codes: __m128i) -> __m256 {
        _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes))
    }
}

/// As in `avx512.rs`.
struct E4m3;

impl Value for E4m3 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn value(codes: __m128i) -> __m256 {
        let wide = _mm_cvtepu8_epi16(codes);
        let magnitude = _mm_and_si128(wide, _mm_set1_epi16(0x7f));
        let sign = _mm_slli_epi16::<8>(_mm_and_si128(wide, _mm_set1_epi16(0x80)));
        let nan = _mm_cmpeq_epi16(magnitude, _mm_set1_epi16(0x7f));
        let half = _mm_or_si128(_mm_slli_epi16::<7>(magnitude), sign);
        // 0x3F80 becomes 0x7FFF or 0xFFFF, a NaN.
        let half = _mm_or_si128(half, _mm_and_si128(nan, _mm_set1_epi16(0x7fff)));
        _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256.0))
    }
}

struct E5m2;

impl Value for E5m2 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn value(codes: __m128i) -> __m256 {
        _mm256_cvtph_ps(_mm_slli_epi16::<8>(_mm_cvtepu8_epi16(codes)))
    }
}

struct ToF32;

impl Store for ToF32 {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store(out: &mut [u8], value: __m256) {
        let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(value, value);
        let bits = _mm256_blendv_ps(value, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fff_ffff)), nan);
        // SAFETY: the caller's contract.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr().cast(), bits) }
    }
}

struct ToBf16;

impl Store for ToBf16 {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store(out: &mut [u8], value: __m256) {
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
        let bits = _mm256_castps_si256(value);
        let even = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded =
            _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, _mm256_add_epi32(even, _mm256_set1_epi32(0x7fff))));
        let rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fff), nan);
        // SAFETY: the caller's contract.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), narrow(rounded)) }
    }
}

struct ToF16;

impl Store for ToF16 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn store(out: &mut [u8], value: __m256) {
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(value, value));
        let half = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value);
        let nan = narrow(_mm256_and_si256(nan, _mm256_set1_epi32(0xffff)));
        let half = _mm_blendv_epi8(half, _mm_set1_epi16(0x7fff), nan);
        // SAFETY: the caller's contract.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), half) }
    }
}

/// The lower halves of eight numbers below 2^16.
#[inline]
#[target_feature(enable = "avx2")]
fn narrow(wide: __m256i) -> __m128i {
    _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide))
}
