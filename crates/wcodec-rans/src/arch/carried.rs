//! What the final states carry, for AVX2: the last two halfwords of every column's raw field.
#![expect(unsafe_code, reason = "vector loads and stores")]

use std::arch::x86_64::*;

use super::plan::{Full, Plan};
use crate::{LANES, STATE_LOW};

/// States of a vector.
const V: usize = 8;

/// The two carried halfwords of all columns as raw words, from the lanes' final states; moves `position` past the
/// overflow. `None` if the words or the overflow run past the stream, or a lane that carries nothing ends elsewhere than
/// it started.
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
pub(crate) fn carried(
    finals: &[u32; LANES],
    block: &Full<'_>,
    plan: &Plan,
    position: &mut usize,
) -> Option<[[u8; 2 * LANES]; 2]> {
    let rest = block.stream.get(*position..)?;
    let mut tails = [_mm256_setzero_si256(); LANES / V];
    let bytes;
    if block.base.is_some() {
        bytes = with_overflow(finals, block.states, rest, &mut tails);
        if bytes > rest.len() {
            return None;
        }
    } else {
        let start = _mm256_set1_epi32(STATE_LOW as i32);
        let mut moved = _mm256_setzero_si256();
        for x in finals.as_chunks::<V>().0 {
            moved = _mm256_or_si256(moved, _mm256_xor_si256(states(x), start));
        }
        if _mm256_testz_si256(moved, moved) == 0 {
            return None;
        }
        bytes = if plan.carries { 4 * LANES } else { 0 };
        for (tail, whole) in tails.iter_mut().zip(rest.get(..bytes)?.as_chunks::<{ 4 * V }>().0) {
            *tail = load(whole);
        }
    }
    *position += bytes.next_multiple_of(2);
    let mut words = [[0; 2 * LANES]; 2];
    let (even, odd) = tails.split_at(LANES / V / 2);
    let [first, second] = &mut words;
    let outputs = first.as_chunks_mut::<32>().0.iter_mut().zip(second.as_chunks_mut::<32>().0);
    for ((first, second), (&even, &odd)) in outputs.zip(even.iter().zip(odd)) {
        const UPPER: i32 = 0b1010_1010;
        store(_mm256_blend_epi16::<UPPER>(even, _mm256_slli_epi32::<16>(odd)), first);
        store(_mm256_blend_epi16::<UPPER>(_mm256_srli_epi32::<16>(even), odd), second);
    }
    Some(words)
}

/// Fills every state up to 32 bits: the uppermost from its stored word, and below it as many bits as it lacks from the overflow at the
/// beginning of `rest`. Gives the bytes of the overflow.
#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn with_overflow(
    finals: &[u32; LANES],
    stored: &[u8; 4 * LANES],
    rest: &[u8],
    tails: &mut [__m256i; LANES / V],
) -> usize {
    // 64 lanes lack at most 15 bits each: 120 bytes, and a window of 16 at the last.
    let mut copy = [0u8; 120 + 16];
    let overflow = rest.first_chunk().unwrap_or_else(|| {
        copy[..rest.len()].copy_from_slice(rest);
        &copy
    });
    let (one, top) = (_mm256_set1_epi32(1), _mm256_set1_epi32(i32::MIN));
    // The lowest byte of every lane in its three lowest, which count on from it.
    let spread = twice(&[0, 0, 0, 128, 4, 4, 4, 128, 8, 8, 8, 128, 12, 12, 12, 128]);
    let three = _mm256_set1_epi32(i32::from_le_bytes([0, 1, 2, 128]));
    let mut bit = 0;
    let stored = stored.as_chunks::<{ 4 * V }>().0;
    for ((tail, x), stored) in tails.iter_mut().zip(finals.as_chunks::<V>().0).zip(stored) {
        let x = states(x);
        // A float holds the upper half exactly; its exponent tells the leading zeros.
        let upper = _mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_srli_epi32::<16>(x)));
        let missing = _mm256_sub_epi32(_mm256_set1_epi32(127 + 15), _mm256_srli_epi32::<23>(upper));
        let missing = _mm256_min_epu32(missing, _mm256_set1_epi32(15));
        let through = prefix_sums(missing);
        // Eight lanes lack at most 120 bits, from anywhere in a byte: 16 bytes.
        let window = twice(overflow[bit / 8..].first_chunk().expect("16 bytes behind 120"));
        let start = _mm256_add_epi32(_mm256_sub_epi32(through, missing), _mm256_set1_epi32((bit % 8) as i32));
        bit += _mm256_extract_epi32::<7>(through) as usize;
        // Of every lane three bytes of the window, which hold 15 bits wherever in the first one these begin.
        let at = _mm256_add_epi8(_mm256_shuffle_epi8(_mm256_srli_epi32::<3>(start), spread), three);
        let bits = _mm256_srlv_epi32(_mm256_shuffle_epi8(window, at), _mm256_and_si256(start, _mm256_set1_epi32(7)));
        let low = _mm256_and_si256(bits, _mm256_sub_epi32(_mm256_sllv_epi32(one, missing), one));
        let high = _mm256_andnot_si256(top, _mm256_sllv_epi32(x, missing));
        *tail = _mm256_or_si256(_mm256_or_si256(high, low), _mm256_and_si256(top, load(stored)));
    }
    bit.div_ceil(8)
}

/// Inclusive prefix sums.
#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn prefix_sums(x: __m256i) -> __m256i {
    let x = _mm256_add_epi32(x, _mm256_slli_si256::<4>(x));
    let x = _mm256_add_epi32(x, _mm256_slli_si256::<8>(x));
    // The lower half's sum goes to all of the upper one.
    let lower = _mm256_permute2x128_si256::<0x08>(x, x);
    _mm256_add_epi32(x, _mm256_shuffle_epi32::<0xff>(lower))
}

#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn states(x: &[u32; V]) -> __m256i {
    // SAFETY: 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn load(bytes: &[u8; 4 * V]) -> __m256i {
    // SAFETY: 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn store(x: __m256i, bytes: &mut [u8; 4 * V]) {
    // SAFETY: 32 writable bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), x) }
}

/// 16 bytes in both halves.
#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn twice(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: 16 readable bytes; the load needs no alignment.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}
