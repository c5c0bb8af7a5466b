//! Joining value words with raw codes, and writing heads.
#![expect(unsafe_code, reason = "rows of values that are known to be written, and products of 256 bits")]

use std::arch::x86_64::*;

use super::super::fold;
use super::super::plan::{BYTES, FUSED, Full, Output, Plan, SCATTERED_BYTES, SCATTERED_WORDS, WORDS, narrow, scatter};
use super::{Values, load, store};
use crate::superblock::{GROUP_ROWS, Target};

/// Instead of a number of raw bits: whatever the plan says, and any number of rows.
const ANY_BITS: usize = usize::MAX;

/// How rows are summed: not at all, by 128 bits, or by 256.
const NONE: u8 = 0;
const NARROW: u8 = 1;
const WIDE: u8 = 2;

/// The two carried halfwords of all columns as raw words.
pub(super) type Tails = [[u8; 128]; 2];

/// What no row changes.
struct Constants {
    /// Sign and low raw bits of both halves of a 16-bit head's word; low raw bits alone of an 8-bit head's.
    raw_mask: __m256i,
    /// 1 with sign, else 0.
    sign: i32,
    /// Shift right and mask that place the sign of an 8-bit head in an even column.
    even_sign: (__m128i, __m256i),
    /// Shift left and mask that place it in an odd column.
    odd_sign: (__m128i, __m256i),
}

/// Joins all rows of value words with their raw codes and writes them; gives the sum of the bytes ([`crate::crc`]) if the plan asks for
/// it and all bytes of the elements are written.
///
/// # Safety
/// With `wide`, the CPU must have VPCLMULQDQ.
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
pub(super) unsafe fn join(
    wide: bool,
    plan: &Plan,
    block: &Full<'_>,
    values: &[Values],
    tails: &Tails,
    target: &mut Target<'_>,
) -> Option<u32> {
    // SAFETY: the caller's promise.
    unsafe {
        match plan.output {
            Output::Words => by_bits::<WORDS, 4>(wide, plan, block, values, tails, target),
            Output::Fused => by_bits::<FUSED, 8>(wide, plan, block, values, tails, target),
            Output::Bytes => by_bits::<BYTES, 2>(wide, plan, block, values, tails, target),
            Output::ScatteredWords => rows::<SCATTERED_WORDS, 4, ANY_BITS, NONE>(plan, block, values, tails, target),
            Output::ScatteredBytes => rows::<SCATTERED_BYTES, 2, ANY_BITS, NONE>(plan, block, values, tails, target),
        }
    }
}

/// Picks the loop for this way of summing.
///
/// # Safety
/// As [`join`].
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
unsafe fn by_bits<const OUT: u8, const L: usize>(
    wide: bool,
    plan: &Plan,
    block: &Full<'_>,
    values: &[Values],
    tails: &Tails,
    target: &mut Target<'_>,
) -> Option<u32> {
    // SAFETY: the caller's promise.
    unsafe {
        match (plan.sums.is_some(), wide) {
            (false, _) => by_sum::<OUT, L, NONE>(plan, block, values, tails, target),
            (true, false) => by_sum::<OUT, L, NARROW>(plan, block, values, tails, target),
            (true, true) => by_sum::<OUT, L, WIDE>(plan, block, values, tails, target),
        }
    }
}

/// Picks the loop for this number of raw bits.
///
/// # Safety
/// As [`rows`].
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
unsafe fn by_sum<const OUT: u8, const L: usize, const SUM: u8>(
    plan: &Plan,
    block: &Full<'_>,
    values: &[Values],
    tails: &Tails,
    target: &mut Target<'_>,
) -> Option<u32> {
    let known = plan.rows.is_multiple_of(GROUP_ROWS) && plan.layout.sign();
    // SAFETY: the caller's promise.
    unsafe {
        match plan.raw_bits {
            0 => rows::<OUT, L, 0, SUM>(plan, block, values, tails, target),
            6 if known => rows::<OUT, L, 6, SUM>(plan, block, values, tails, target),
            7 if known => rows::<OUT, L, 7, SUM>(plan, block, values, tails, target),
            9 if known => rows::<OUT, L, 9, SUM>(plan, block, values, tails, target),
            _ => rows::<OUT, L, ANY_BITS, SUM>(plan, block, values, tails, target),
        }
    }
}

/// Rows of L vectors. With BITS known, all positions in a group of rows are; BITS above 0 are only for heads with signs, and whole groups.
///
/// # Safety
/// With [`WIDE`] sums, the CPU must have VPCLMULQDQ.
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
unsafe fn rows<const OUT: u8, const L: usize, const BITS: usize, const SUM: u8>(
    plan: &Plan,
    block: &Full<'_>,
    values: &[Values],
    tails: &Tails,
    target: &mut Target<'_>,
) -> Option<u32> {
    let mut c = constants(plan);
    if BITS != ANY_BITS {
        c.sign = i32::from(BITS > 0);
    }
    let mut sums = [[_mm_setzero_si128(); 2]; L];
    let mut wide_sums = [_mm256_setzero_si256(); L];
    let stride = fold::pair(plan.sums.unwrap_or_default());
    let wide_stride = _mm256_broadcastsi128_si256(stride);
    let r = if BITS == ANY_BITS { plan.raw_bits } else { BITS };
    for group in (0..plan.rows).step_by(GROUP_ROWS) {
        let first = r * (group / GROUP_ROWS);
        let mut finish = |i: usize, codes: [__m256i; 4]| {
            // SAFETY: all rows have been written.
            let values = unsafe { values[group + i].assume_init() };
            let row = join_row::<OUT, L, BITS>(&c, values, codes, block, group + i);
            if SUM == NARROW {
                for (sums, row) in sums.iter_mut().zip(&row) {
                    sums[0] = fold::fold(sums[0], stride, _mm256_castsi256_si128(*row));
                    sums[1] = fold::fold(sums[1], stride, _mm256_extracti128_si256::<1>(*row));
                }
            }
            if SUM == WIDE {
                for (sum, row) in wide_sums.iter_mut().zip(&row) {
                    // SAFETY: the caller's promise.
                    *sum = unsafe { wide_fold(*sum, wide_stride, *row) };
                }
            }
            store_row::<OUT, L>(row, block, group + i, target);
        };
        if BITS != ANY_BITS && BITS > 0 && first + BITS <= plan.stored {
            // All halfwords of the group are stored.
            let raw = &block.raw[128 * first..128 * (first + BITS)];
            let words = |k: usize| quarters_of(raw[128 * k..128 * k + 128].first_chunk().expect("128 bytes"));
            for i in 0..GROUP_ROWS {
                let (k, bit) = (BITS * i / 16, BITS * i % 16);
                let last = if bit + BITS <= 16 { None } else { Some(words(k + 1)) };
                finish(i, codes::<OUT>(&c, words(k), last, bit));
            }
            continue;
        }
        let words = |k: usize| match k.checked_sub(plan.stored) {
            None => quarters_of(block.raw[128 * k..128 * k + 128].first_chunk().expect("128 bytes")),
            Some(k) => quarters_of(&tails[k & 1]),
        };
        for i in 0..GROUP_ROWS.min(plan.rows - group) {
            let (k, bit) = (first + r * i / 16, r * i % 16);
            let codes = match r {
                0 => [_mm256_setzero_si256(); 4],
                _ if bit + r <= 16 => codes::<OUT>(&c, words(k), None, bit),
                _ => codes::<OUT>(&c, words(k), Some(words(k + 1)), bit),
            };
            finish(i, codes);
        }
    }
    if SUM == WIDE {
        for (sums, wide) in sums.iter_mut().zip(wide_sums) {
            *sums = [_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide)];
        }
    }
    (SUM != NONE).then(|| fold::remainder(sums.as_flattened()))
}

/// [`fold::fold`] for both halves.
///
/// # Safety
/// The CPU must have VPCLMULQDQ.
#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
unsafe fn wide_fold(sum: __m256i, by: __m256i, next: __m256i) -> __m256i {
    let (low, high);
    // SAFETY: the caller's promise. The intrinsics want functions compiled for the feature, which CPUs with AVX2 may lack.
    unsafe {
        std::arch::asm!(
            "vpclmulqdq {low}, {sum}, {by}, 0x00",
            "vpclmulqdq {high}, {sum}, {by}, 0x11",
            sum = in(ymm_reg) sum,
            by = in(ymm_reg) by,
            low = out(ymm_reg) low,
            high = lateout(ymm_reg) high,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    _mm256_xor_si256(_mm256_xor_si256(low, high), next)
}

#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn constants(plan: &Plan) -> Constants {
    let (bits, sign, shift) = (plan.layout.bits() as i32, plan.layout.sign(), plan.layout.shift());
    let fill = |x: u32| _mm256_set1_epi32(x as i32);
    let low = ((1 << shift) - 1) * 0x1_0001;
    Constants {
        raw_mask: fill(low | if sign && bits == 16 { 0x8000_8000 } else { 0 }),
        sign: i32::from(sign),
        even_sign: (_mm_cvtsi32_si128(17 - bits), fill(if sign { 1 << (bits - 1) } else { 0 })),
        odd_sign: (_mm_cvtsi32_si128(15 + bits), fill(if sign { 1 << (bits + 15) } else { 0 })),
    }
}

/// Raw codes that begin at `bit` of a halfword (and end in the next one, if that is given) where 16-bit heads want them, and other
/// rows' bits around them. 8-bit heads want them at bit 0 of every halfword.
#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn codes<const OUT: u8>(
    c: &Constants,
    mut codes: [__m256i; 4],
    last: Option<[__m256i; 4]>,
    bit: usize,
) -> [__m256i; 4] {
    let bit = bit as i32;
    let mut turn = bit;
    if narrow(OUT) || last.is_some() {
        let right = _mm_cvtsi32_si128(bit);
        // Loops, here and below: what other functions call, such as `map` does closures, is not inlined into functions compiled for AVX2.
        for code in &mut codes {
            *code = _mm256_srl_epi16(*code, right);
        }
        turn = 0;
    }
    if let Some(last) = last {
        let left = _mm_cvtsi32_si128(16 - bit);
        for (code, word) in codes.iter_mut().zip(last) {
            *code = _mm256_or_si256(*code, _mm256_sll_epi16(word, left));
        }
    }
    if narrow(OUT) {
        return codes;
    }
    // To the right around a word's end, which brings each column's sign to the top of the other's half.
    let (right, left) = (_mm_cvtsi32_si128(turn + c.sign), _mm_cvtsi32_si128(32 - turn - c.sign));
    for code in &mut codes {
        *code = _mm256_or_si256(_mm256_srl_epi32(*code, right), _mm256_sll_epi32(*code, left));
    }
    codes
}

/// Joins a row of value words with its raw codes, and with its low bytes where it is fused: its elements, or heads that are to be scattered.
#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn join_row<const OUT: u8, const L: usize, const BITS: usize>(
    c: &Constants,
    mut heads: [__m256i; 4],
    codes: [__m256i; 4],
    block: &Full<'_>,
    row: usize,
) -> [__m256i; L] {
    let mut vectors = [_mm256_setzero_si256(); L];
    for (head, code) in heads.iter_mut().zip(codes) {
        let code = if BITS == 0 {
            continue;
        } else if narrow(OUT) {
            let low = _mm256_and_si256(_mm256_srl_epi32(code, _mm_cvtsi32_si128(c.sign)), c.raw_mask);
            let even = _mm256_and_si256(_mm256_srl_epi32(code, c.even_sign.0), c.even_sign.1);
            let odd = _mm256_and_si256(_mm256_sll_epi32(code, c.odd_sign.0), c.odd_sign.1);
            _mm256_or_si256(_mm256_or_si256(even, odd), low)
        } else {
            _mm256_and_si256(code, c.raw_mask)
        };
        *head = _mm256_or_si256(*head, code);
    }
    // Packing and unpacking work within 128 bits, so quarters are brought to where columns come out in order.
    match OUT {
        FUSED => {
            let low = block.low[128 * row..128 * row + 128].as_chunks::<32>().0;
            for ((out, low), head) in vectors.as_chunks_mut::<2>().0.iter_mut().zip(low).zip(heads) {
                let low = _mm256_permute4x64_epi64::<0b11_01_10_00>(load(low));
                let head = _mm256_permute4x64_epi64::<0b11_01_10_00>(head);
                *out = [_mm256_unpacklo_epi16(low, head), _mm256_unpackhi_epi16(low, head)];
            }
        }
        BYTES | SCATTERED_BYTES => {
            for (out, pair) in vectors.iter_mut().zip(heads.as_chunks::<2>().0) {
                *out = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(pair[0], pair[1]));
            }
        }
        _ => vectors.copy_from_slice(&heads),
    }
    vectors
}

/// Writes a row that [`join_row`] made.
#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn store_row<const OUT: u8, const L: usize>(
    vectors: [__m256i; L],
    block: &Full<'_>,
    row: usize,
    target: &mut Target<'_>,
) {
    if OUT == SCATTERED_WORDS || OUT == SCATTERED_BYTES {
        let mut heads = [[0u8; 32]; L];
        vectors.iter().zip(&mut heads).for_each(|(&vector, heads)| store(vector, heads));
        if OUT == SCATTERED_WORDS {
            scatter::<2>(heads.as_flattened(), block, row, target);
        } else {
            scatter::<1>(heads.as_flattened(), block, row, target);
        }
        return;
    }
    let at = block.offset + row * target.row_stride;
    let (parts, _) = target.bytes[at..at + 32 * L].as_chunks_mut::<32>();
    for (part, vector) in parts.iter_mut().zip(vectors) {
        store(vector, part);
    }
}

#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn quarters_of(words: &[u8; 128]) -> [__m256i; 4] {
    let (quarters, _) = words.as_chunks::<32>();
    [load(&quarters[0]), load(&quarters[1]), load(&quarters[2]), load(&quarters[3])]
}
