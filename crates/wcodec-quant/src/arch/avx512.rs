//! AVX-512: sixteen codes at a time.
#![expect(unsafe_code, reason = "vector loads and stores, and entry into functions compiled for AVX-512")]

use std::arch::x86_64::*;

use super::{Numbers, Span};
use crate::code::Code;
use crate::float::FloatType;

/// Proof that the CPU has every feature this module is compiled for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

const LANES: usize = 16;

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

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn run(span: Span<'_>, out: &mut [u8]) -> usize {
    // One loop per code, so that none branches on it.
    match span.code {
        Code::U8 | Code::U4(_) => each::<Unsigned>(span, out),
        Code::F8E4M3 => each::<E4m3>(span, out),
        Code::F8E5M2 => each::<E5m2>(span, out),
        _ => each::<Signed>(span, out),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn each<V: Value>(span: Span<'_>, out: &mut [u8]) -> usize {
    match span.float {
        FloatType::BF16 => numbers::<V, ToBf16>(span, out),
        FloatType::F16 => numbers::<V, ToF16>(span, out),
        FloatType::F32 => numbers::<V, ToF32>(span, out),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn numbers<V: Value, S: Store>(span: Span<'_>, out: &mut [u8]) -> usize {
    let integer = span.code.is_integer();
    let codes = span.codes.chunks_exact(LANES);
    let outs = out.chunks_exact_mut(LANES * span.float.bytes());
    let done = span.codes.len() / LANES * LANES;
    match span.numbers {
        Numbers::One(scale, zero) => {
            let (scale, zero) = (_mm512_set1_ps(scale), _mm512_set1_ps(zero));
            for (codes, out) in codes.zip(outs) {
                // SAFETY: the slices hold 16 codes and 16 elements; all functions are compiled for what this one is.
                unsafe {
                    S::store(out, product(V::value(_mm_loadu_si128(codes.as_ptr().cast())), zero, scale, integer))
                }
            }
        }
        Numbers::Each(scales, zeros) => {
            for (i, (codes, out)) in codes.zip(outs).enumerate() {
                let part = i * LANES..(i + 1) * LANES;
                // SAFETY: as above; both parts hold 16 numbers.
                unsafe {
                    let scale = _mm512_loadu_ps(scales[part.clone()].as_ptr());
                    let zero = zeros.map_or(_mm512_setzero_ps(), |z| _mm512_loadu_ps(z[part].as_ptr()));
                    S::store(out, product(V::value(_mm_loadu_si128(codes.as_ptr().cast())), zero, scale, integer));
                }
            }
        }
    }
    done
}

/// A code's value.
trait Value {
    /// # Safety
    /// The CPU has what this module is compiled for.
    unsafe fn value(codes: __m128i) -> __m512;
}

/// Rounding to the output type.
trait Store {
    /// # Safety
    /// The CPU has what this module is compiled for; `out` holds a vector of elements.
    unsafe fn store(out: &mut [u8], value: __m512);
}

#[inline]
#[target_feature(enable = "avx512f")]
fn product(value: __m512, zero: __m512, scale: __m512, integer: bool) -> __m512 {
    let value = if integer { _mm512_sub_ps(value, zero) } else { value };
    _mm512_mul_ps(value, scale)
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
