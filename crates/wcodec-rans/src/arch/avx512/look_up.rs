//! Rows by byte permutations: states in halves, 32 lanes to a vector, buckets looked up in [`Registers`].
//!
//! Two superblocks with alphabets of up to 64 symbols go by the assembly of [`super::step`], which is this file's step, scheduled by hand.
#![expect(unsafe_code, reason = "a vector load, and steps that read ahead")]

use std::arch::x86_64::*;

use super::super::plan::{Full, Plan, ROW_WINDOW};
use super::super::registers::{Registers, SUMS};
use super::step::step_of_two;
use super::vectors::{ORDERS, load, load_words, select, window};
use super::{Values, prefetch};
use crate::superblock::Target;

/// Runs `body` for the even and the odd columns of every superblock.
macro_rules! halves {
    ($n:ident, $b:ident, $h:ident, $body:expr) => {
        each!($n, $b, {
            {
                let $h = 0;
                $body;
            }
            {
                let $h = 1;
                $body;
            }
        })
    };
}

/// Looks the indexes of all halves up, each vector of the table loaded once.
macro_rules! look_up {
    ($n:ident, $table:expr, $index:ident, $tops:ident) => {{
        let vectors = vectors::<VECTORS>($table);
        let mut found = $index;
        halves!($n, b, h, found[b][h] = pick::<VECTORS>(&vectors, $index[b][h], $tops[b][h]));
        found
    }};
}

/// Decodes one symbol per lane and refills the states, halves of states in 16-bit lanes. Gives value words.
///
/// `sums` are the lanes' row plus column classes. With x = state, slot = x mod 2^P: bucket and place say symbol and bias as
/// [`crate::alias`] explains; then freq·(x >> P) + bias in halves, with one carry. Table by table for all superblocks, since two loads
/// a cycle would otherwise be the limit. A macro, since states must stay in registers and a function of two call sites is not inlined.
macro_rules! register_step {
    ($n:ident, $t:expr, $states:expr, $sums:expr, $streams:expr, $positions:expr, $careful:literal) => {{
        /// The low bytes of all halfwords.
        const LOW: u64 = 0x5555_5555_5555_5555;
        let sums = $sums;
        let (mut index, mut places, mut tops) = (sums, sums, [[[0u64; 2]; 2]; $n]);
        halves!($n, b, h, {
            let low = $states[b][h];
            let own = _mm512_multishift_epi64_epi8($t.bucket_bits, low);
            let start = _mm512_permutexvar_epi16(sums[b][h], $t.starts);
            index[b][h] = select($t.bucket_mask, own, start);
            if VECTORS > 2 {
                tops[b][h][0] = _mm512_movepi8_mask(if WIDE { index[b][h] } else { start });
            }
            if VECTORS > 4 {
                tops[b][h][1] = _mm512_movepi8_mask(_mm512_permutexvar_epi16(sums[b][h], $t.high_starts));
            }
            places[b][h] = _mm512_and_si512(_mm512_multishift_epi64_epi8($t.place_bits, low), $t.place_mask);
        });
        let divides = look_up!($n, &$t.tables.divide, index, tops);
        let aliases = look_up!($n, &$t.tables.alias, index, tops);
        let mut aliased = [[0u64; 2]; $n];
        let mut symbols = index;
        halves!($n, b, h, {
            aliased[b][h] = _mm512_cmpge_epu8_mask(places[b][h], divides[b][h]);
            symbols[b][h] = _mm512_mask_mov_epi8(index[b][h], aliased[b][h], aliases[b][h]);
        });
        let adjust_low = look_up!($n, &$t.tables.adjust[0], index, tops);
        let adjust_high = look_up!($n, &$t.tables.adjust[1], index, tops);
        if WIDE {
            halves!($n, b, h, tops[b][h][0] = _mm512_movepi8_mask(symbols[b][h]));
        }
        let freq_low = look_up!($n, &$t.tables.freq[0], symbols, tops);
        let freq_high = look_up!($n, &$t.tables.freq[1], symbols, tops);
        let mut values = sums;
        halves!($n, b, h, {
            let adjust = _mm512_mask_mov_epi8(adjust_high[b][h], LOW, adjust_low[b][h]);
            let place = _mm512_maskz_mov_epi8(LOW, places[b][h]);
            let bias = _mm512_add_epi16(place, _mm512_maskz_mov_epi8(aliased[b][h], adjust));
            let freq = _mm512_mask_mov_epi8(freq_high[b][h], LOW, freq_low[b][h]);
            let (low, high) = ($states[b][h], $states[b][2 + h]);
            let quotient = _mm512_shrdv_epi16(low, high, $t.table_bits);
            let next_low = _mm512_add_epi16(_mm512_mullo_epi16(freq, quotient), bias);
            let carry = _mm512_cmplt_epu16_mask(next_low, bias);
            let next_high = _mm512_add_epi16(
                _mm512_mulhi_epu16(freq, quotient),
                _mm512_mullo_epi16(freq, _mm512_srlv_epi16(high, $t.table_bits)),
            );
            // Below 2^16: no high half, and no carry into it. Asked of both at once, since masks take long.
            let short = _kandn_mask32(carry, _mm512_testn_epi16_mask(next_high, next_high));
            let next_high = _mm512_mask_sub_epi16(next_high, carry, next_high, _mm512_set1_epi16(-1));
            $states[b][2 + h] = _mm512_mask_mov_epi16(next_high, short, next_low);
            $states[b][h] = _mm512_mask_expand_epi16(next_low, short, window::<$careful>($streams(b), $positions[b]));
            $positions[b] += 2 * short.count_ones() as usize;

            let symbol = symbols[b][h];
            let value = if WIDE {
                let (vectors, _) = $t.tables.distances.as_chunks::<64>();
                let two = |k: usize| _mm512_permutex2var_epi8(load(&vectors[k]), symbol, load(&vectors[k + 1]));
                let distance = _mm512_maskz_mov_epi8(LOW, _mm512_mask_mov_epi8(two(0), tops[b][h][0], two(2)));
                _mm512_sll_epi16(_mm512_add_epi16(distance, $t.first), $t.shift)
            } else {
                _mm512_permutex2var_epi16($t.values[0], symbol, $t.values[1])
            };
            let nonzero = _mm512_test_epi16_mask(value, value);
            let shift = _mm512_permutexvar_epi16(sums[b][h], $t.shifts);
            values[b][h] = _mm512_mask_add_epi16(value, nonzero, value, shift);
        });
        each!($n, b, {
            values[b] = ordered::<NARROW>($t, values[b]);
        });
        values
    }};
}

/// Value words in the order of columns, from those of even and of odd ones.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn ordered<const NARROW: bool>(t: &LookUp<'_>, [even, odd]: [__m512i; 2]) -> [__m512i; 2] {
    if NARROW {
        [_mm512_permutex2var_epi8(even, t.join[0], odd), _mm512_setzero_si512()]
    } else {
        [_mm512_permutex2var_epi16(even, t.join[0], odd), _mm512_permutex2var_epi16(even, t.join[1], odd)]
    }
}

/// The vectors of a byte table of VECTORS.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn vectors<const VECTORS: usize>(table: &[u8; 512]) -> [__m512i; 8] {
    let (all, _) = table.as_chunks::<64>();
    let mut vectors = [_mm512_setzero_si512(); 8];
    for (vector, bytes) in vectors.iter_mut().zip(all).take(VECTORS) {
        *vector = load(bytes);
    }
    vectors
}

/// Looks 8-bit indexes up in such a table; their bit 8 is in `tops[1]`, their bit 7 again in `tops[0]`.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn pick<const VECTORS: usize>(vectors: &[__m512i; 8], index: __m512i, tops: [u64; 2]) -> __m512i {
    let two = |k: usize| _mm512_permutex2var_epi8(vectors[k], index, vectors[k + 1]);
    match VECTORS {
        2 => two(0),
        4 => _mm512_mask_mov_epi8(two(0), tops[0], two(2)),
        _ => {
            let low = _mm512_mask_mov_epi8(two(0), tops[0], two(2));
            _mm512_mask_mov_epi8(low, tops[1], _mm512_mask_mov_epi8(two(4), tops[0], two(6)))
        }
    }
}

/// Decodes the symbols of all rows by [`register_step`].
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn register_rows<const N: usize, const VECTORS: usize, const WIDE: bool, const NARROW: bool>(
    t: &LookUp<'_>,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    states: &mut [[__m512i; 4]; N],
    positions: &mut [usize; N],
    values: &mut [Values; N],
    target: &Target<'_>,
) {
    let mut halves = [[_mm512_setzero_si512(); 4]; N];
    let mut cols = [[_mm512_setzero_si512(); 2]; N];
    let mut ordinary = true;
    for b in 0..N {
        halves[b] = split(&states[b]);
        cols[b] = column_classes(&blocks[b]);
        ordinary &= sums_fit(&blocks[b]);
    }
    let mut i = 0;
    while i < plan.rows {
        // Rows for which every stream has words enough, whatever they take.
        let left = (0..N).map(|b| blocks[b].readable.len().saturating_sub(positions[b]) / ROW_WINDOW).min();
        let rows = if ordinary { left.unwrap_or(0).min(plan.rows - i) } else { 0 };
        let mut at = *positions;
        for i in i..i + rows {
            let mut sums = cols;
            each!(N, b, {
                let row = _mm512_set1_epi16(i16::from(blocks[b].rows[i]));
                sums[b] = [_mm512_add_epi16(cols[b][0], row), _mm512_add_epi16(cols[b][1], row)];
                prefetch(plan, &blocks[b], i, at[b], target);
            });
            let streams = |b: usize| blocks[b].readable;
            let row = if N == 2 && !WIDE {
                let mut row = sums;
                // SAFETY: before every one of these rows all streams have the 128 bytes that it may take.
                unsafe {
                    step_of_two::<N, VECTORS, 0>(t, &mut halves, &sums, blocks, &mut at, &mut row);
                    step_of_two::<N, VECTORS, 1>(t, &mut halves, &sums, blocks, &mut at, &mut row);
                }
                row.map(|row| ordered::<NARROW>(t, row))
            } else {
                register_step!(N, t, halves, sums, streams, at, false)
            };
            each!(N, b, {
                values[b][i].write(row[b]);
            });
        }
        *positions = at;
        i += rows;
        if i < plan.rows {
            for b in 0..N {
                let row = careful_row::<VECTORS, WIDE, NARROW>(t, &blocks[b], i, &mut halves[b], &mut positions[b]);
                values[b][i].write(row);
            }
            i += 1;
        }
    }
    for b in 0..N {
        states[b] = unsplit(&halves[b]);
    }
}

/// One row where the stream may end, or where sums of classes lie outside of [`SUMS`].
#[inline(never)]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn careful_row<const VECTORS: usize, const WIDE: bool, const NARROW: bool>(
    t: &LookUp<'_>,
    block: &Full<'_>,
    i: usize,
    halves: &mut [__m512i; 4],
    position: &mut usize,
) -> [__m512i; 2] {
    const ONE: usize = 1;
    let row = _mm512_set1_epi16(i16::from(block.rows[i]));
    let clamp = |sum| _mm512_min_epi16(_mm512_max_epi16(sum, t.lowest), t.highest);
    let sums = column_classes(block).map(|col| clamp(_mm512_add_epi16(col, row)));
    let (mut states, mut positions) = ([*halves], [*position]);
    let streams = |_: usize| block.readable;
    let [values] = register_step!(ONE, t, states, [sums], streams, positions, true);
    [*halves] = states;
    [*position] = positions;
    values
}

/// What the steps in registers need: the byte tables and vectors that no row changes.
pub(super) struct LookUp<'a> {
    pub(super) tables: &'a Registers,
    /// Of every halfword, the eight bits that begin with the bucket.
    pub(super) bucket_bits: __m512i,
    pub(super) bucket_mask: __m512i,
    /// Of every halfword, the low eight bits, twice.
    pub(super) place_bits: __m512i,
    /// Bits of a place, in every byte.
    pub(super) place_mask: __m512i,
    starts: __m512i,
    high_starts: __m512i,
    shifts: __m512i,
    pub(super) table_bits: __m512i,
    values: [__m512i; 2],
    first: __m512i,
    lowest: __m512i,
    highest: __m512i,
    shift: __m128i,
    /// Where the halves of a value word come from.
    join: [__m512i; 2],
}

impl<'a> LookUp<'a> {
    #[inline]
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
    )]
    pub(super) fn new(tables: &'a Registers, plan: &Plan, table_bits: u32) -> Self {
        let width_bits = table_bits - tables.bucket_bits;
        Self {
            tables,
            bucket_bits: _mm512_add_epi8(load(&ORDERS.bits), _mm512_set1_epi8(width_bits as i8)),
            bucket_mask: _mm512_set1_epi8(((1u32 << tables.bucket_bits) - 1) as i8),
            place_bits: load(&ORDERS.bits),
            place_mask: _mm512_set1_epi8(((1u32 << width_bits) - 1) as i8),
            starts: load_words(&tables.tables),
            high_starts: load_words(&tables.high_tables),
            shifts: load_words(&tables.shifts),
            table_bits: _mm512_set1_epi16(table_bits as i16),
            values: {
                let (low, high) = tables.values.split_at(32);
                [load_words(low.try_into().expect("32")), load_words(high.try_into().expect("32"))]
            },
            first: _mm512_set1_epi16(tables.first as i16),
            lowest: _mm512_set1_epi16(*SUMS.start() as i16),
            highest: _mm512_set1_epi16(*SUMS.end() as i16),
            shift: _mm_cvtsi32_si128(plan.layout.shift() as i32),
            join: if plan.output.narrow() {
                [load(&ORDERS.quads), _mm512_setzero_si512()]
            } else {
                [load_words(&ORDERS.pairs[0]), load_words(&ORDERS.pairs[1])]
            },
        }
    }
}

/// Whether all sums of a row's and a column's class are among [`SUMS`].
fn sums_fit(block: &Full<'_>) -> bool {
    let ends = |sum: i32| SUMS.contains(&sum);
    let (low, high) = block.rows.iter().fold((u8::MAX, 0), |(low, high), &c| (low.min(c), high.max(c)));
    let (left, right) = block.cols.iter().fold((i8::MAX, i8::MIN), |(l, r), &c| (l.min(c), r.max(c)));
    ends(i32::from(low) + i32::from(left)) && ends(i32::from(high) + i32::from(right))
}

/// Column classes of the even and of the odd columns.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn column_classes(block: &Full<'_>) -> [__m512i; 2] {
    // SAFETY: 64 readable bytes; the load needs no alignment.
    let pairs = unsafe { _mm512_loadu_si512(block.cols.as_ptr().cast()) };
    [_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(pairs)), _mm512_srai_epi16::<8>(pairs)]
}

/// Low halves of lanes 0–31 and 32–63, then their high halves.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn split(states: &[__m512i; 4]) -> [__m512i; 4] {
    let (low, high) = (load_words(&ORDERS.split[0]), load_words(&ORDERS.split[1]));
    [
        _mm512_permutex2var_epi16(states[0], low, states[1]),
        _mm512_permutex2var_epi16(states[2], low, states[3]),
        _mm512_permutex2var_epi16(states[0], high, states[1]),
        _mm512_permutex2var_epi16(states[2], high, states[3]),
    ]
}

/// The reverse of [`split`].
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn unsplit(halves: &[__m512i; 4]) -> [__m512i; 4] {
    let (begin, end) = (load_words(&ORDERS.pairs[0]), load_words(&ORDERS.pairs[1]));
    [
        _mm512_permutex2var_epi16(halves[0], begin, halves[2]),
        _mm512_permutex2var_epi16(halves[0], end, halves[2]),
        _mm512_permutex2var_epi16(halves[1], begin, halves[3]),
        _mm512_permutex2var_epi16(halves[1], end, halves[3]),
    ]
}
