//! Joining value words with raw codes, and writing heads.
#![expect(unsafe_code, reason = "rows of values that are known to be written, and loads of parts of them")]

use std::arch::x86_64::*;

use super::super::plan::{BYTES, FUSED, Full, Output, Plan, SCATTERED_BYTES, SCATTERED_WORDS, WORDS, narrow, scatter};
use super::look_up::DistanceRow;
use super::vectors::{load, load_words, select, store, store_words};
use super::{Constants, Patches, Values, fold};
use crate::superblock::{GROUP_ROWS, Target};

/// Instead of a number of raw bits: whatever the plan says, and any number of rows.
const ANY_BITS: usize = usize::MAX;

/// Rows of values as either kind of step leaves them.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    /// Value words.
    Words(&'a Values),
    /// Distances of values, of this one of two superblocks.
    Distances(&'a [DistanceRow], usize, &'a Patches<'a>),
}

/// Joins all rows of values with their raw codes and writes them; gives the sum of the bytes ([`crate::crc`]) if the plan asks for
/// it and all bytes of the elements are written.
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn join(
    c: &Constants,
    plan: &Plan,
    block: &Full<'_>,
    values: Rows<'_>,
    tails: &[[__m512i; 2]; 2],
    target: &mut Target<'_>,
) -> Option<u32> {
    match plan.output {
        Output::Words => by_bits::<WORDS, 2>(c, plan, block, values, tails, target),
        Output::Fused => by_bits::<FUSED, 4>(c, plan, block, values, tails, target),
        Output::Bytes => rows::<BYTES, 1, ANY_BITS, true>(c, plan, block, values, tails, target),
        Output::ScatteredWords => rows::<SCATTERED_WORDS, 2, ANY_BITS, false>(c, plan, block, values, tails, target),
        Output::ScatteredBytes => rows::<SCATTERED_BYTES, 1, ANY_BITS, false>(c, plan, block, values, tails, target),
    }
}

/// Picks the loop for this number of raw bits.
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn by_bits<const OUT: u8, const L: usize>(
    c: &Constants,
    plan: &Plan,
    block: &Full<'_>,
    values: Rows<'_>,
    tails: &[[__m512i; 2]; 2],
    target: &mut Target<'_>,
) -> Option<u32> {
    let whole = plan.rows.is_multiple_of(GROUP_ROWS);
    match (plan.raw_bits, plan.sums.is_some()) {
        (6, true) if whole => rows::<OUT, L, 6, true>(c, plan, block, values, tails, target),
        (7, true) if whole => rows::<OUT, L, 7, true>(c, plan, block, values, tails, target),
        (9, true) if whole => rows::<OUT, L, 9, true>(c, plan, block, values, tails, target),
        (6, false) if whole => rows::<OUT, L, 6, false>(c, plan, block, values, tails, target),
        (7, false) if whole => rows::<OUT, L, 7, false>(c, plan, block, values, tails, target),
        (9, false) if whole => rows::<OUT, L, 9, false>(c, plan, block, values, tails, target),
        (_, true) => rows::<OUT, L, ANY_BITS, true>(c, plan, block, values, tails, target),
        (_, false) => rows::<OUT, L, ANY_BITS, false>(c, plan, block, values, tails, target),
    }
}

/// The values of a row in their places in heads, in the order of columns: 32 and 32 of 16 bits, or 64 of 8 bits. A macro, since it is to be
/// inlined into every loop. All rows must have been written.
macro_rules! value_row {
    ($c:ident, $rows:ident, $i:expr) => {
        match $rows {
            Rows::Words(words) => {
                // SAFETY: as above.
                let mut words = unsafe { words[$i].assume_init() };
                if narrow(OUT) {
                    words[0] = _mm512_permutexvar_epi8($c.columns, words[0]);
                }
                if $c.wide { words.map(|v| _mm512_and_si512(v, $c.value_mask)) } else { words }
            }
            Rows::Distances(distances, side, patches) => {
                // SAFETY: as above.
                let distances = unsafe { &distances[$i].assume_init_ref().0[side] };
                let mut words = if narrow(OUT) {
                    [load(distances), _mm512_setzero_si512()]
                } else {
                    let (halves, _) = distances.as_chunks::<32>();
                    [0, 1].map(|h| {
                        // SAFETY: 32 readable bytes; the load needs no alignment.
                        let half = unsafe { _mm256_loadu_si256(halves[h].as_ptr().cast()) };
                        let word = _mm512_sll_epi16(_mm512_cvtepu8_epi16(half), $c.shift);
                        if $c.zero {
                            _mm512_mask_add_epi16(word, _mm512_test_epi16_mask(word, word), word, $c.base)
                        } else {
                            _mm512_add_epi16(word, $c.base)
                        }
                    })
                };
                if patches.in_row($i) {
                    words = patch::<OUT>(words, patches, $i);
                }
                words
            }
        }
    };
}

/// Rows of L vectors. With BITS known, all positions in a group of rows are. With SUM, sums all bytes.
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn rows<const OUT: u8, const L: usize, const BITS: usize, const SUM: bool>(
    c: &Constants,
    plan: &Plan,
    block: &Full<'_>,
    values: Rows<'_>,
    tails: &[[__m512i; 2]; 2],
    target: &mut Target<'_>,
) -> Option<u32> {
    let mut sums = [_mm512_setzero_si512(); L];
    let stride = fold::pair(plan.sums.unwrap_or_default());
    let r = if BITS == ANY_BITS { plan.raw_bits } else { BITS };
    let words = |k: usize| if k < plan.stored { raw_words(block, k) } else { tails[(k - plan.stored) & 1] };
    for group in (0..plan.rows).step_by(GROUP_ROWS) {
        let rows = if BITS == ANY_BITS { GROUP_ROWS.min(plan.rows - group) } else { GROUP_ROWS };
        let first = r * (group / GROUP_ROWS);
        if BITS != ANY_BITS && first + BITS <= plan.stored {
            // All halfwords of the group are stored.
            let raw = &block.raw[128 * first..128 * (first + BITS)];
            let words = |k: usize| halves_of(raw[128 * k..128 * k + 128].first_chunk().expect("128 bytes"));
            for i in 0..GROUP_ROWS {
                let (k, bit) = (BITS * i / 16, BITS * i % 16);
                let codes = if bit + BITS <= 16 {
                    turn_codes::<OUT>(c, words(k), bit)
                } else {
                    join_codes::<OUT>(c, words(k), words(k + 1), bit)
                };
                let values = value_row!(c, values, group + i);
                let row = join_row::<OUT, L>(c, values, codes, block, group + i);
                if SUM {
                    for (sum, row) in sums.iter_mut().zip(&row) {
                        *sum = fold::fold(*sum, stride, *row);
                    }
                }
                store_row::<OUT, L>(row, block, group + i, target);
            }
            continue;
        }
        for i in 0..rows {
            let codes = if r == 0 {
                [_mm512_setzero_si512(); 2]
            } else {
                let (k, bit) = (first + r * i / 16, r * i % 16);
                if bit + r <= 16 {
                    turn_codes::<OUT>(c, words(k), bit)
                } else {
                    join_codes::<OUT>(c, words(k), words(k + 1), bit)
                }
            };
            let values = value_row!(c, values, group + i);
            let row = join_row::<OUT, L>(c, values, codes, block, group + i);
            if SUM {
                for (sum, row) in sums.iter_mut().zip(&row) {
                    *sum = fold::fold(*sum, stride, *row);
                }
            }
            store_row::<OUT, L>(row, block, group + i, target);
        }
    }
    (SUM && plan.sums.is_some()).then(|| fold::remainder(&sums))
}

/// A row's values after its patches.
#[cold]
#[inline(never)]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn patch<const OUT: u8>(mut words: [__m512i; 2], patches: &Patches<'_>, row: usize) -> [__m512i; 2] {
    for (col, value) in patches.of_row(row) {
        if narrow(OUT) {
            let mut bytes = [0; 64];
            store(words[0], &mut bytes);
            bytes[col] = value as u8;
            words[0] = load(&bytes);
        } else {
            let mut halfwords = [0; 32];
            store_words(words[col / 32], &mut halfwords);
            halfwords[col % 32] = value;
            words[col / 32] = load_words(&halfwords);
        }
    }
    words
}

/// Raw codes that begin at `bit` of a halfword and end in it, where the head wants them; 8-bit heads want them at bit 0
/// of every halfword.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn turn_codes<const OUT: u8>(c: &Constants, raw: [__m512i; 2], bit: usize) -> [__m512i; 2] {
    let mut by = _mm512_set1_epi32(bit as i32);
    if !narrow(OUT) {
        by = _mm512_add_epi32(by, c.raw_turn);
    }
    [_mm512_rorv_epi32(raw[0], by), _mm512_rorv_epi32(raw[1], by)]
}

/// As [`turn_codes`], for codes that end in the next halfword.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn join_codes<const OUT: u8>(c: &Constants, first: [__m512i; 2], last: [__m512i; 2], bit: usize) -> [__m512i; 2] {
    let by = _mm512_set1_epi16(bit as i16);
    let codes = [_mm512_shrdv_epi16(first[0], last[0], by), _mm512_shrdv_epi16(first[1], last[1], by)];
    if narrow(OUT) {
        return codes;
    }
    [_mm512_rorv_epi32(codes[0], c.raw_turn), _mm512_rorv_epi32(codes[1], c.raw_turn)]
}

/// Joins a row of value words with its raw codes, and with its low bytes where it is fused: its elements, or heads that are to be scattered.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn join_row<const OUT: u8, const L: usize>(
    c: &Constants,
    values: [__m512i; 2],
    codes: [__m512i; 2],
    block: &Full<'_>,
    row: usize,
) -> [__m512i; L] {
    let mut vectors = [_mm512_setzero_si512(); L];
    if narrow(OUT) {
        let codes = select(_mm512_set1_epi32(0x00ff_00ff), codes[0], _mm512_slli_epi32::<8>(codes[1]));
        let signs = _mm512_rol_epi32::<23>(codes);
        let raw = select(c.sign_mask, signs, _mm512_rorv_epi32(codes, c.raw_turn));
        vectors[0] = select(c.coded_mask, values[0], _mm512_permutexvar_epi8(c.columns, raw));
        return vectors;
    }
    let heads = [select(c.coded_mask, values[0], codes[0]), select(c.coded_mask, values[1], codes[1])];
    if OUT != FUSED {
        vectors.copy_from_slice(&heads);
        return vectors;
    }
    let low: &[u8; 128] = block.low[128 * row..128 * row + 128].try_into().expect("128 bytes");
    // Unpacking works within 128 bits, so quarters are brought to where it leaves columns in order.
    let order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    for (h, low) in halves_of(low).into_iter().enumerate() {
        let low = _mm512_permutexvar_epi64(order, low);
        let head = _mm512_permutexvar_epi64(order, heads[h]);
        vectors[2 * h] = _mm512_unpacklo_epi16(low, head);
        vectors[2 * h + 1] = _mm512_unpackhi_epi16(low, head);
    }
    vectors
}

/// Writes a row that [`join_row`] made.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn store_row<const OUT: u8, const L: usize>(
    vectors: [__m512i; L],
    block: &Full<'_>,
    row: usize,
    target: &mut Target<'_>,
) {
    if OUT == SCATTERED_WORDS || OUT == SCATTERED_BYTES {
        let mut heads = [[0u8; 64]; L];
        vectors.iter().zip(&mut heads).for_each(|(&vector, heads)| store(vector, heads));
        if OUT == SCATTERED_WORDS {
            scatter::<2>(heads.as_flattened(), block, row, target);
        } else {
            scatter::<1>(heads.as_flattened(), block, row, target);
        }
        return;
    }
    let at = block.offset + row * target.row_stride;
    let (parts, _) = target.bytes[at..at + 64 * L].as_chunks_mut::<64>();
    for (part, vector) in parts.iter_mut().zip(vectors) {
        store(vector, part);
    }
}

/// Raw words of halfword `k`, all 32 column pairs.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn raw_words(block: &Full<'_>, k: usize) -> [__m512i; 2] {
    halves_of(block.raw[128 * k..128 * k + 128].first_chunk().expect("128 bytes"))
}

#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn halves_of(words: &[u8; 128]) -> [__m512i; 2] {
    let (halves, _) = words.as_chunks::<64>();
    [load(&halves[0]), load(&halves[1])]
}
