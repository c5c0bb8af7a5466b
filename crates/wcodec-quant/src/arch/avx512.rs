//! AVX-512: sixteen codes at a time.
#![expect(unsafe_code, reason = "vector loads and stores, and entry into functions compiled for AVX-512")]

use std::arch::x86_64::*;

use super::vector::loops;
use super::{Numbers, Span};
use crate::code::Code;
use crate::float::FloatType;

/// Proof that the CPU has every feature this module is compiled for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn new() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        all.then_some(Self(()))
    }

    /// Dequantises as many whole vectors as there are, and returns how many codes those were.
    pub(super) fn run(self, span: Span<'_>, out: &mut [u8]) -> usize {
        // SAFETY: `self` exists only if `new` saw every feature that `run` is compiled for.
        unsafe { run(span, out) }
    }
}

loops! {
    features: "avx512f,avx512bw,avx512vl", lanes: 16, vector: __m512,
    splat: _mm512_set1_ps, zero: _mm512_setzero_ps, load: _mm512_loadu_ps, load_codes: _mm_loadu_si128,
    sub: _mm512_sub_ps, mul: _mm512_mul_ps,
}

struct Signed;

impl Value for Signed {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn value(codes: __m128i) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))
    }
}

struct Unsigned;

impl Value for Unsigned {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn value(codes: __m128i) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes))
    }
}

/// An F16 has the digits of an E4M3 seven bits higher, with a bias that is larger by 8; as an F32 a power of two corrects it. (The same in
/// F32 alone would multiply subnormals, which some CPUs do slowly.)
struct E4m3;

impl Value for E4m3 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn value(codes: __m128i) -> __m512 {
        let wide = _mm256_cvtepu8_epi16(codes);
        let magnitude = _mm256_and_si256(wide, _mm256_set1_epi16(0x7f));
        let sign = _mm256_slli_epi16::<8>(_mm256_and_si256(wide, _mm256_set1_epi16(0x80)));
        let nan = _mm256_cmpeq_epi16_mask(magnitude, _mm256_set1_epi16(0x7f));
        let half = _mm256_or_si256(_mm256_slli_epi16::<7>(magnitude), sign);
        let half = _mm256_mask_mov_epi16(half, nan, _mm256_set1_epi16(0x7e00));
        _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256.0))
    }
}

struct E5m2;

impl Value for E5m2 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn value(codes: __m128i) -> __m512 {
        _mm512_cvtph_ps(_mm256_slli_epi16::<8>(_mm256_cvtepu8_epi16(codes)))
    }
}

struct ToF32;

impl Store for ToF32 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(out: &mut [u8], value: __m512) {
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
        let bits = _mm512_mask_mov_epi32(_mm512_castps_si512(value), nan, _mm512_set1_epi32(0x7fff_ffff));
        // SAFETY: the caller's contract.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), bits) }
    }
}

/// In integers: the instruction for it takes subnormals for zero.
struct ToBf16;

impl Store for ToBf16 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store(out: &mut [u8], value: __m512) {
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
        let bits = _mm512_castps_si512(value);
        let even = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded =
            _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, _mm512_add_epi32(even, _mm512_set1_epi32(0x7fff))));
        let rounded = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fff));
        // SAFETY: the caller's contract.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(rounded)) }
    }
}

struct ToF16;

impl Store for ToF16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn store(out: &mut [u8], value: __m512) {
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
        let half = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(value);
        let half = _mm256_mask_mov_epi16(half, nan, _mm256_set1_epi16(0x7fff));
        // SAFETY: the caller's contract.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), half) }
    }
}
