//! Joining value words with raw codes, and writing heads.
#![expect(unsafe_code, reason = "rows of values that are known to be written")]

use std::arch::x86_64::*;

use super::super::plan::{Full, Output, Plan, scatter};
use super::vectors::{load, select, store, stream};
use super::{Constants, Values, fold};
use crate::superblock::{GROUP_ROWS, Target};

/// Instead of a number of raw bits: whatever the plan says, and any number of rows.
pub(super) const ANY_BITS: usize = usize::MAX;

/// Joins all rows of value words with their raw codes and writes them; with SUM, gives the sum of the bytes ([`crate::crc`]). With BITS
/// known, all positions in a group of rows are.
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn join_rows<const NARROW: bool, const SUM: bool, const BITS: usize>(
    c: &Constants,
    plan: &Plan,
    block: &Full<'_>,
    values: &Values,
    tails: &[[__m512i; 2]; 2],
    target: &mut Target<'_>,
) -> Option<u32> {
    let mut sums = [_mm512_setzero_si512(); 4];
    let stride = fold::pair(plan.batch.sums.unwrap_or_default());
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
                    turn_codes::<NARROW>(c, words(k), bit)
                } else {
                    join_codes::<NARROW>(c, words(k), words(k + 1), bit)
                };
                // SAFETY: all rows have been written.
                let values = unsafe { values[group + i].assume_init() };
                let row = join_row::<NARROW>(c, plan.output, values, codes, block, group + i);
                if SUM {
                    sum(plan.output, &mut sums, stride, &row);
                }
                store_row(plan, row, block, group + i, target);
            }
            continue;
        }
        for i in 0..rows {
            let codes = if r == 0 {
                [_mm512_setzero_si512(); 2]
            } else {
                let (k, bit) = (first + r * i / 16, r * i % 16);
                if bit + r <= 16 {
                    turn_codes::<NARROW>(c, words(k), bit)
                } else {
                    join_codes::<NARROW>(c, words(k), words(k + 1), bit)
                }
            };
            // SAFETY: all rows have been written.
            let values = unsafe { values[group + i].assume_init() };
            let row = join_row::<NARROW>(c, plan.output, values, codes, block, group + i);
            if SUM {
                sum(plan.output, &mut sums, stride, &row);
            }
            store_row(plan, row, block, group + i, target);
        }
    }
    SUM.then(|| fold::remainder(&sums[..vectors(plan.output)]))
}

/// Vectors of a row of elements.
fn vectors(output: Output) -> usize {
    match output {
        Output::Bytes | Output::ScatteredBytes => 1,
        Output::Words | Output::ScatteredWords => 2,
        Output::Fused => 4,
    }
}

/// Adds a row's vectors to their sums.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn sum(output: Output, sums: &mut [__m512i; 4], stride: __m512i, row: &[__m512i; 4]) {
    for v in 0..4 {
        if v < vectors(output) {
            sums[v] = fold::fold(sums[v], stride, row[v]);
        }
    }
}

/// Raw codes that begin at `bit` of a halfword and end in it, where the head wants them; 8-bit heads want them at bit 0
/// of every halfword.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn turn_codes<const NARROW: bool>(c: &Constants, raw: [__m512i; 2], bit: usize) -> [__m512i; 2] {
    let mut by = _mm512_set1_epi32(bit as i32);
    if !NARROW {
        by = _mm512_add_epi32(by, c.raw_turn);
    }
    [_mm512_rorv_epi32(raw[0], by), _mm512_rorv_epi32(raw[1], by)]
}

/// As [`turn_codes`], for codes that end in the next halfword.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn join_codes<const NARROW: bool>(c: &Constants, first: [__m512i; 2], last: [__m512i; 2], bit: usize) -> [__m512i; 2] {
    let by = _mm512_set1_epi16(bit as i16);
    let codes = [_mm512_shrdv_epi16(first[0], last[0], by), _mm512_shrdv_epi16(first[1], last[1], by)];
    if NARROW {
        return codes;
    }
    [_mm512_rorv_epi32(codes[0], c.raw_turn), _mm512_rorv_epi32(codes[1], c.raw_turn)]
}

/// Joins a row of value words with its raw codes, and with its low bytes where it is fused: its elements, or heads that are to be scattered.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn join_row<const NARROW: bool>(
    c: &Constants,
    output: Output,
    mut values: [__m512i; 2],
    codes: [__m512i; 2],
    block: &Full<'_>,
    row: usize,
) -> [__m512i; 4] {
    let zero = _mm512_setzero_si512();
    if c.wide {
        values = values.map(|v| _mm512_and_si512(v, c.value_mask));
    }
    if NARROW {
        let codes = select(_mm512_set1_epi32(0x00ff_00ff), codes[0], _mm512_slli_epi32::<8>(codes[1]));
        let signs = _mm512_rol_epi32::<23>(codes);
        let raw = select(c.sign_mask, signs, _mm512_rorv_epi32(codes, c.raw_turn));
        let heads = _mm512_permutexvar_epi8(c.columns, select(c.coded_mask, values[0], raw));
        return [heads, zero, zero, zero];
    }
    let heads = [select(c.coded_mask, values[0], codes[0]), select(c.coded_mask, values[1], codes[1])];
    if output != Output::Fused {
        return [heads[0], heads[1], zero, zero];
    }
    let low: &[u8; 128] = block.low[128 * row..128 * row + 128].try_into().expect("128 bytes");
    let low = halves_of(low);
    // Unpacking works within 128 bits, so quarters are brought to where it leaves columns in order.
    let order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    let low = low.map(|low| _mm512_permutexvar_epi64(order, low));
    let heads = heads.map(|head| _mm512_permutexvar_epi64(order, head));
    [
        _mm512_unpacklo_epi16(low[0], heads[0]),
        _mm512_unpackhi_epi16(low[0], heads[0]),
        _mm512_unpacklo_epi16(low[1], heads[1]),
        _mm512_unpackhi_epi16(low[1], heads[1]),
    ]
}

/// Writes a row that [`join_row`] made.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn store_row(plan: &Plan, vectors: [__m512i; 4], block: &Full<'_>, row: usize, target: &mut Target<'_>) {
    let at = block.offset + row * target.row_stride;
    match plan.output {
        Output::Words => store_vectors::<2>(plan, vectors, &mut target.bytes[at..at + 128]),
        Output::Fused => store_vectors::<4>(plan, vectors, &mut target.bytes[at..at + 256]),
        Output::Bytes => store_vectors::<1>(plan, vectors, &mut target.bytes[at..at + 64]),
        Output::ScatteredWords => {
            let mut bytes = [[0u8; 64]; 2];
            store(vectors[0], &mut bytes[0]);
            store(vectors[1], &mut bytes[1]);
            scatter::<2>(bytes.as_flattened(), block, row, target);
        }
        Output::ScatteredBytes => {
            let mut bytes = [0u8; 64];
            store(vectors[0], &mut bytes);
            scatter::<1>(&bytes, block, row, target);
        }
    }
}

#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn store_vectors<const L: usize>(plan: &Plan, vectors: [__m512i; 4], bytes: &mut [u8]) {
    let (parts, _) = bytes.as_chunks_mut::<64>();
    for (part, vector) in parts.iter_mut().zip(vectors).take(L) {
        if plan.batch.streaming {
            stream(vector, part);
        } else {
            store(vector, part);
        }
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
