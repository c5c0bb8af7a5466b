//! AVX-512, in two forms that share all but the step.
//!
//! *Registers*: states are split into halves, 32 lanes to a vector (even columns, odd columns), and buckets are looked up by byte
//! permutations: six look-ups per half row of one, two or four permutations of 128 entries each. Two superblocks go together, table by
//! table: that hides the chain state → bucket → alias → frequency → multiply → words, and loads every vector of a table once for four
//! halves (looked up half by half, the loads were the limit: 17 % slower at 256 entries). Four together lack registers and are slower.
//!
//! *Gather*: states are four vectors of sixteen, lanes 0–15, 16–31 (even columns), 32–47, 48–63 (odd columns), and a slot's entry
//! is gathered from 2^P. A row takes some 80 vector instructions and four gathers worth about 12 cycles each, more where the
//! tables outgrow the first-level cache. For sets of more than 512 entries.
#![expect(unsafe_code, reason = "vector loads, stores and gathers, and entry into functions compiled for AVX-512")]

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::plan::{Full, Output, Plan, ROW_WINDOW, scatter};
use super::registers::{Registers, SUMS};
use crate::superblock::{DecodeTables, GROUP_ROWS, Job, MAX_ROWS, Target};
use crate::{LANES, STATE_LOW};

/// Proof that the CPU has every feature this module is compiled for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn new() -> Option<Self> {
        let all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt");
        all.then_some(Self(()))
    }

    /// See [`super::Backend::expect`].
    #[inline]
    pub(crate) fn expect(self, job: &Job<'_>) {
        // SAFETY: `self` exists only if `new` saw every feature that `fetch` is compiled for.
        unsafe { fetch(job) }
    }

    /// See [`super::Backend::decode`].
    #[inline]
    pub(crate) fn decode<const N: usize>(
        self,
        tables: &DecodeTables,
        plan: &Plan,
        blocks: &[Full<'_>; N],
        target: &mut Target<'_>,
    ) -> Option<[usize; N]> {
        // SAFETY: `self` exists only if `new` saw every feature that `decode` is compiled for.
        unsafe { decode(tables, plan, blocks, target) }
    }
}

/// What a row needs besides states: vectors that no row changes.
struct Constants {
    slot_mask: __m512i,
    state_shift: __m512i,
    freq_shift: __m512i,
    state_low: __m512i,
    last_context: __m512i,
    /// Rotations that bring the value of lanes 16·v.. to its place in a value word.
    place: [__m512i; 4],
    value_mask: __m512i,
    coded_mask: __m512i,
    /// Whether coded fields are wider than the values of gathered entries, so that parts of frequencies must be masked away.
    wide: bool,
    /// Further rotation that brings raw codes to their places: 1 with sign, else 0.
    raw_turn: __m512i,
    sign_mask: __m512i,
    /// Byte indices that spread 32 words over the high halves of two vectors.
    spread: [__m512i; 2],
    /// Byte indices that bring the bytes of an 8-bit value word into column order.
    columns: __m512i,
}

/// Indices for permutations.
struct Orders {
    /// See [`Constants::spread`].
    spread: [[u8; 64]; 2],
    /// See [`Constants::columns`].
    columns: [u8; 64],
    /// Halfwords 2i + k of two vectors.
    split: [[u16; 32]; 2],
    /// Halfwords i + 16·k of one vector and of another, in turn.
    pairs: [[u16; 32]; 2],
    /// Byte 4w + q: low bytes of halfwords w, 16 + w of one vector, then of another.
    quads: [u8; 64],
    /// The halfword's first bit within its 64.
    bits: [u8; 64],
}

const ORDERS: Orders = {
    let mut o = Orders {
        spread: [[0; 64]; 2],
        columns: [0; 64],
        split: [[0; 32]; 2],
        pairs: [[0; 32]; 2],
        quads: [0; 64],
        bits: [0; 64],
    };
    let mut i = 0;
    while i < 32 {
        let mut half = 0;
        while half < 2 {
            o.spread[i / 16][4 * (i % 16) + 2 + half] = (2 * i + half) as u8;
            o.columns[2 * i + half] = (4 * (i % 16) + i / 16 + 2 * half) as u8;
            o.split[half][i] = (2 * i + half) as u16;
            o.pairs[half][i] = ((i / 2 + 16 * half) | ((i & 1) << 5)) as u16;
            o.quads[2 * i + half] = (2 * (i / 2) + 32 * half + 64 * (i & 1)) as u8;
            o.bits[2 * i + half] = (16 * (i % 4)) as u8;
            half += 1;
        }
        i += 1;
    }
    o
};

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn constants(tables: &DecodeTables, plan: &Plan) -> Constants {
    let p = tables.table_bits() as i32;
    let layout = plan.layout;
    let shift = layout.shift() as i32;
    let fill = |x: u32| _mm512_set1_epi32(x as i32);
    // Values are 32 − 2P bits wide in an entry; above them lies the frequency.
    let value_bits = layout.coded_bits().min(32 - 2 * p as u32);
    let coded = ((1u32 << layout.coded_bits()) - 1) << shift;
    let value = ((1u32 << value_bits) - 1) << shift;
    let (copies, places) =
        if plan.output.narrow() { (0x0101_0101, [0, 8, 16, 24]) } else { (0x0001_0001, [0, 0, 16, 16]) };
    let turn = |v: usize| fill((places[v] + shift - p).rem_euclid(32) as u32);
    Constants {
        slot_mask: fill((1 << p) - 1),
        state_shift: fill(p as u32),
        freq_shift: fill(32 - p as u32),
        state_low: fill(STATE_LOW),
        last_context: fill(((tables.contexts() - 1) << p) as u32),
        place: [turn(0), turn(1), turn(2), turn(3)],
        value_mask: fill(value * copies),
        coded_mask: fill(coded * copies),
        wide: tables.registers().is_none() && value != coded,
        raw_turn: fill(u32::from(layout.sign())),
        sign_mask: fill(if layout.sign() { 0x8080_8080 } else { 0 }),
        spread: [load(&ORDERS.spread[0]), load(&ORDERS.spread[1])],
        columns: load(&ORDERS.columns),
    }
}

/// Picks the loop for these tables and this size of heads.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn decode<const N: usize>(
    tables: &DecodeTables,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    target: &mut Target<'_>,
) -> Option<[usize; N]> {
    match tables.registers() {
        None => by_size::<N, 0, false>(tables, plan, blocks, target),
        Some(r) => match (r.vectors, r.wide) {
            (2, false) => by_size::<N, 2, false>(tables, plan, blocks, target),
            (4, false) => by_size::<N, 4, false>(tables, plan, blocks, target),
            (_, false) => by_size::<N, 8, false>(tables, plan, blocks, target),
            (4, true) => by_size::<N, 4, true>(tables, plan, blocks, target),
            (_, true) => by_size::<N, 8, true>(tables, plan, blocks, target),
        },
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn by_size<const N: usize, const VECTORS: usize, const WIDE: bool>(
    tables: &DecodeTables,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    target: &mut Target<'_>,
) -> Option<[usize; N]> {
    if plan.output.narrow() {
        superblocks::<N, VECTORS, WIDE, true>(tables, plan, blocks, target)
    } else {
        superblocks::<N, VECTORS, WIDE, false>(tables, plan, blocks, target)
    }
}

/// Instead of a number of vectors: no byte tables.
const GATHER: usize = 0;

/// A superblock's value words, row by row.
type Values = [MaybeUninit<[__m512i; 2]>; MAX_ROWS];

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
            index[b][h] = select($t.bucket_mask, own, _mm512_permutexvar_epi16(sums[b][h], $t.starts));
            if VECTORS > 2 {
                tops[b][h][0] = _mm512_movepi8_mask(index[b][h]);
            }
            if VECTORS > 4 {
                tops[b][h][1] = _mm512_movepi8_mask(_mm512_permutexvar_epi16(sums[b][h], $t.high_starts));
            }
            places[b][h] = _mm512_and_si512(low, $t.place_mask);
        });
        let divides = look_up!($n, &$t.tables.divide, index, tops);
        let aliases = look_up!($n, &$t.tables.alias, index, tops);
        let mut aliased = [[0u32; 2]; $n];
        let mut symbols = index;
        halves!($n, b, h, {
            let divide = _mm512_maskz_mov_epi8(LOW, divides[b][h]);
            aliased[b][h] = _mm512_cmpge_epu16_mask(places[b][h], divide);
            symbols[b][h] = _mm512_mask_mov_epi16(index[b][h], aliased[b][h], aliases[b][h]);
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
            let bias = _mm512_mask_add_epi16(places[b][h], aliased[b][h], places[b][h], adjust);
            let freq = _mm512_mask_mov_epi8(freq_high[b][h], LOW, freq_low[b][h]);
            let (low, high) = ($states[b][h], $states[b][2 + h]);
            let quotient = _mm512_shrdv_epi16(low, high, $t.table_bits);
            let next_low = _mm512_add_epi16(_mm512_mullo_epi16(freq, quotient), bias);
            let carry = _mm512_cmplt_epu16_mask(next_low, bias);
            let next_high = _mm512_add_epi16(
                _mm512_mulhi_epu16(freq, quotient),
                _mm512_mullo_epi16(freq, _mm512_srlv_epi16(high, $t.table_bits)),
            );
            let next_high = _mm512_mask_sub_epi16(next_high, carry, next_high, _mm512_set1_epi16(-1));
            let short = _mm512_testn_epi16_mask(next_high, next_high);
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
            let [even, odd] = values[b];
            values[b] = if NARROW {
                [_mm512_permutex2var_epi8(even, $t.join[0], odd), _mm512_setzero_si512()]
            } else {
                [_mm512_permutex2var_epi16(even, $t.join[0], odd), _mm512_permutex2var_epi16(even, $t.join[1], odd)]
            };
        });
        values
    }};
}

/// The vectors of a byte table of VECTORS.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn superblocks<const N: usize, const VECTORS: usize, const WIDE: bool, const NARROW: bool>(
    tables: &DecodeTables,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    target: &mut Target<'_>,
) -> Option<[usize; N]> {
    let c = constants(tables, plan);
    let mut states = [[_mm512_setzero_si512(); 4]; N];
    for b in 0..N {
        states[b] = first_states(&blocks[b])?;
    }
    let mut positions = [0usize; N];
    let mut values: [Values; N] = [[MaybeUninit::uninit(); MAX_ROWS]; N];
    if VECTORS == GATHER {
        gather_rows::<N, NARROW>(&c, tables, plan, blocks, &mut states, &mut positions, &mut values, target);
    } else {
        let t = LookUp::new(tables.registers()?, plan, tables.table_bits());
        register_rows::<N, VECTORS, WIDE, NARROW>(&t, plan, blocks, &mut states, &mut positions, &mut values, target);
    }
    for b in 0..N {
        let tails = carried(&states[b], &blocks[b], plan, &mut positions[b])?;
        let block = &blocks[b];
        match plan.raw_bits {
            _ if !plan.rows.is_multiple_of(GROUP_ROWS) => {
                join_rows::<NARROW, ANY_BITS>(&c, plan, block, &values[b], &tails, target);
            }
            6 if !NARROW => join_rows::<NARROW, 6>(&c, plan, block, &values[b], &tails, target),
            7 if !NARROW => join_rows::<NARROW, 7>(&c, plan, block, &values[b], &tails, target),
            9 if !NARROW => join_rows::<NARROW, 9>(&c, plan, block, &values[b], &tails, target),
            _ => join_rows::<NARROW, ANY_BITS>(&c, plan, block, &values[b], &tails, target),
        }
    }
    Some(positions)
}

/// Decodes the symbols of all rows by [`register_step`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn register_rows<const N: usize, const VECTORS: usize, const WIDE: bool, const NARROW: bool>(
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
            let row = register_step!(N, t, halves, sums, streams, at, false);
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
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

/// Decodes the symbols of all rows by [`gather_step`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
#[expect(clippy::too_many_arguments, reason = "the parts of one loop")]
fn gather_rows<const N: usize, const NARROW: bool>(
    c: &Constants,
    tables: &DecodeTables,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    states: &mut [[__m512i; 4]; N],
    positions: &mut [usize; N],
    values: &mut [Values; N],
    target: &Target<'_>,
) {
    let entries = Entries::new(tables);
    let mut cols = [[_mm512_setzero_si512(); 4]; N];
    for b in 0..N {
        cols[b] = column_contexts(&blocks[b], tables.table_bits());
    }
    let (mut x, mut at) = (*states, *positions);
    for i in 0..plan.rows {
        let whole = (0..N).all(|b| blocks[b].readable.len() >= at[b] + ROW_WINDOW);
        each!(N, b, {
            let (stream, position) = (blocks[b].readable, &mut at[b]);
            let class = i32::from(blocks[b].rows[i]) << tables.table_bits();
            let row = if whole {
                gather_step::<NARROW, false>(c, entries, &mut x[b], &cols[b], class, stream, position)
            } else {
                gather_step::<NARROW, true>(c, entries, &mut x[b], &cols[b], class, stream, position)
            };
            values[b][i].write(row);
            prefetch(plan, &blocks[b], i, at[b], target);
        });
    }
    (*states, *positions) = (x, at);
}

/// Instead of a number of raw bits: whatever the plan says, and any number of rows.
const ANY_BITS: usize = usize::MAX;

/// Joins all rows of value words with their raw codes and writes them. With BITS known, all positions in a group of rows are.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn join_rows<const NARROW: bool, const BITS: usize>(
    c: &Constants,
    plan: &Plan,
    block: &Full<'_>,
    values: &Values,
    tails: &[[__m512i; 2]; 2],
    target: &mut Target<'_>,
) {
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
                store_row::<NARROW>(c, plan.output, values, codes, block, group + i, target);
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
            store_row::<NARROW>(c, plan.output, values, codes, block, group + i, target);
        }
    }
}

/// What the steps in registers need: the byte tables and vectors that no row changes.
struct LookUp<'a> {
    tables: &'a Registers,
    /// Of every halfword, the eight bits that begin with the bucket.
    bucket_bits: __m512i,
    bucket_mask: __m512i,
    place_mask: __m512i,
    starts: __m512i,
    high_starts: __m512i,
    shifts: __m512i,
    table_bits: __m512i,
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
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
    fn new(tables: &'a Registers, plan: &Plan, table_bits: u32) -> Self {
        let width_bits = table_bits - tables.bucket_bits;
        Self {
            tables,
            bucket_bits: _mm512_add_epi8(load(&ORDERS.bits), _mm512_set1_epi8(width_bits as i8)),
            bucket_mask: _mm512_set1_epi8(((1u32 << tables.bucket_bits) - 1) as i8),
            place_mask: _mm512_set1_epi16(((1u32 << width_bits) - 1) as i16),
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn column_classes(block: &Full<'_>) -> [__m512i; 2] {
    // SAFETY: 64 readable bytes; the load needs no alignment.
    let pairs = unsafe { _mm512_loadu_si512(block.cols.as_ptr().cast()) };
    [_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(pairs)), _mm512_srai_epi16::<8>(pairs)]
}

/// Low halves of lanes 0–31 and 32–63, then their high halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn unsplit(halves: &[__m512i; 4]) -> [__m512i; 4] {
    let (begin, end) = (load_words(&ORDERS.pairs[0]), load_words(&ORDERS.pairs[1]));
    [
        _mm512_permutex2var_epi16(halves[0], begin, halves[2]),
        _mm512_permutex2var_epi16(halves[0], end, halves[2]),
        _mm512_permutex2var_epi16(halves[1], begin, halves[3]),
        _mm512_permutex2var_epi16(halves[1], end, halves[3]),
    ]
}

/// Decodes one symbol per lane and refills the states. Returns value words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn gather_step<const NARROW: bool, const CAREFUL: bool>(
    c: &Constants,
    entries: Entries<'_>,
    states: &mut [__m512i; 4],
    cols: &[__m512i; 4],
    row: i32,
    stream: &[u8],
    position: &mut usize,
) -> [__m512i; 2] {
    let row = _mm512_set1_epi32(row);
    let mut entry = [row; 4];
    let mut next = [row; 4];
    for v in 0..4 {
        let x = states[v];
        let sum = _mm512_add_epi32(cols[v], row);
        let context = _mm512_min_epi32(_mm512_max_epi32(sum, _mm512_setzero_si512()), c.last_context);
        let index = select(c.slot_mask, x, context);
        // SAFETY: a slot is below 2^P, a context is clamped to 0..K and comes times 2^P.
        entry[v] = unsafe { entries.gather(index) };
        next[v] = _mm512_add_epi32(
            _mm512_mullo_epi32(_mm512_srlv_epi32(entry[v], c.freq_shift), _mm512_srlv_epi32(x, c.state_shift)),
            _mm512_and_si512(entry[v], c.slot_mask),
        );
    }
    for h in 0..2 {
        let short =
            [_mm512_cmplt_epu32_mask(next[2 * h], c.state_low), _mm512_cmplt_epu32_mask(next[2 * h + 1], c.state_low)];
        let both = _mm512_kunpackw(u32::from(short[1]), u32::from(short[0]));
        let words = _mm512_maskz_expand_epi16(both, window::<CAREFUL>(stream, *position));
        for v in 0..2 {
            let high = _mm512_permutexvar_epi8(c.spread[v], words);
            states[2 * h + v] = _mm512_mask_shldi_epi32::<16>(next[2 * h + v], short[v], next[2 * h + v], high);
        }
        *position += 2 * both.count_ones() as usize;
    }
    let placed = [
        _mm512_rolv_epi32(entry[0], c.place[0]),
        _mm512_rolv_epi32(entry[1], c.place[1]),
        _mm512_rolv_epi32(entry[2], c.place[2]),
        _mm512_rolv_epi32(entry[3], c.place[3]),
    ];
    let low_half = _mm512_set1_epi32(0xffff);
    if NARROW {
        let even = select(_mm512_set1_epi32(0x0000_00ff), placed[0], placed[1]);
        let odd = select(_mm512_set1_epi32(0x00ff_0000), placed[2], placed[3]);
        [select(low_half, even, odd), _mm512_setzero_si512()]
    } else {
        [select(low_half, placed[0], placed[2]), select(low_half, placed[1], placed[3])]
    }
}

/// Raw codes that begin at `bit` of a halfword and end in it, where the head wants them; 8-bit heads want them at bit 0
/// of every halfword.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn turn_codes<const NARROW: bool>(c: &Constants, raw: [__m512i; 2], bit: usize) -> [__m512i; 2] {
    let mut by = _mm512_set1_epi32(bit as i32);
    if !NARROW {
        by = _mm512_add_epi32(by, c.raw_turn);
    }
    [_mm512_rorv_epi32(raw[0], by), _mm512_rorv_epi32(raw[1], by)]
}

/// As [`turn_codes`], for codes that end in the next halfword.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn join_codes<const NARROW: bool>(c: &Constants, first: [__m512i; 2], last: [__m512i; 2], bit: usize) -> [__m512i; 2] {
    let by = _mm512_set1_epi16(bit as i16);
    let codes = [_mm512_shrdv_epi16(first[0], last[0], by), _mm512_shrdv_epi16(first[1], last[1], by)];
    if NARROW {
        return codes;
    }
    [_mm512_rorv_epi32(codes[0], c.raw_turn), _mm512_rorv_epi32(codes[1], c.raw_turn)]
}

/// Joins a row of value words with its raw codes and writes it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn store_row<const NARROW: bool>(
    c: &Constants,
    output: Output,
    mut values: [__m512i; 2],
    codes: [__m512i; 2],
    block: &Full<'_>,
    row: usize,
    target: &mut Target<'_>,
) {
    if c.wide {
        values = values.map(|v| _mm512_and_si512(v, c.value_mask));
    }
    let at = block.offset + row * target.row_stride;
    if NARROW {
        let codes = select(_mm512_set1_epi32(0x00ff_00ff), codes[0], _mm512_slli_epi32::<8>(codes[1]));
        let signs = _mm512_rol_epi32::<23>(codes);
        let raw = select(c.sign_mask, signs, _mm512_rorv_epi32(codes, c.raw_turn));
        let heads = _mm512_permutexvar_epi8(c.columns, select(c.coded_mask, values[0], raw));
        if output == Output::Bytes {
            store(heads, (&mut target.bytes[at..at + 64]).try_into().expect("64 bytes"));
        } else {
            let mut bytes = [0u8; 64];
            store(heads, &mut bytes);
            scatter::<1>(&bytes, block, row, target);
        }
        return;
    }
    let heads = [select(c.coded_mask, values[0], codes[0]), select(c.coded_mask, values[1], codes[1])];
    match output {
        Output::Words => {
            let out: &mut [u8; 128] = (&mut target.bytes[at..at + 128]).try_into().expect("128 bytes");
            let (low, high) = out.split_at_mut(64);
            store(heads[0], low.try_into().expect("64 bytes"));
            store(heads[1], high.try_into().expect("64 bytes"));
        }
        Output::Fused => {
            let out: &mut [u8; 256] = (&mut target.bytes[at..at + 256]).try_into().expect("256 bytes");
            let low: &[u8; 128] = block.low[128 * row..128 * row + 128].try_into().expect("128 bytes");
            // Unpacking works within 128 bits, so quarters are brought to where it leaves columns in order.
            let order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
            for (h, (out, low)) in out.chunks_exact_mut(128).zip(low.chunks_exact(64)).enumerate() {
                let low = _mm512_permutexvar_epi64(order, load(low.try_into().expect("64 bytes")));
                let head = _mm512_permutexvar_epi64(order, heads[h]);
                let (a, b) = out.split_at_mut(64);
                store(_mm512_unpacklo_epi16(low, head), a.try_into().expect("64 bytes"));
                store(_mm512_unpackhi_epi16(low, head), b.try_into().expect("64 bytes"));
            }
        }
        _ => {
            let mut bytes = [[0u8; 64]; 2];
            store(heads[0], &mut bytes[0]);
            store(heads[1], &mut bytes[1]);
            scatter::<2>(bytes.as_flattened(), block, row, target);
        }
    }
}

/// Asks for the lines that storing `row` will want, for its share of the raw field, and for words further on. Rows of a wide tensor
/// lie on pages of their own, and streams and raw fields change with every superblock: no hardware prefetcher looks far enough ahead.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn prefetch(plan: &Plan, block: &Full<'_>, row: usize, position: usize, target: &Target<'_>) {
    let lines = match plan.output {
        Output::Bytes => 1,
        Output::Words => 2,
        Output::Fused => 4,
        _ => 0,
    };
    let first = target.bytes.as_ptr().wrapping_add(block.offset + row * target.row_stride);
    for line in 0..lines {
        _mm_prefetch::<_MM_HINT_ET0>(first.wrapping_add(64 * line).cast());
    }
    let raw = block.raw.as_ptr().wrapping_add(128 * plan.raw_bits * row / GROUP_ROWS);
    for ahead in [raw, block.stream.as_ptr().wrapping_add(position + 768)] {
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
    }
}

/// Asks for the states, the first words and the first raw codes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn fetch(job: &Job<'_>) {
    let block = &job.block;
    for (bytes, most) in [(block.states, 256), (block.stream, 768), (block.raw, 512)] {
        for line in bytes[..bytes.len().min(most)].chunks(64) {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
    }
}

/// States before the first row; `None` if one is below its interval.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn first_states(block: &Full<'_>) -> Option<[__m512i; 4]> {
    let mut states = quarters(block.states);
    for x in &mut states {
        if let Some(base) = block.base {
            *x = _mm512_and_si512(*x, _mm512_set1_epi32(0x7fff_ffff));
            *x = _mm512_add_epi32(*x, _mm512_set1_epi32(base as i32));
        }
        if _mm512_cmplt_epu32_mask(*x, _mm512_set1_epi32(STATE_LOW as i32)) != 0 {
            return None;
        }
    }
    Some(states)
}

/// Column classes in lane order, times 2^P.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn column_contexts(block: &Full<'_>, table_bits: u32) -> [__m512i; 4] {
    let mut lanes = [0i8; LANES];
    for (s, pair) in block.cols.chunks_exact(2).enumerate() {
        lanes[s] = pair[0];
        lanes[LANES / 2 + s] = pair[1];
    }
    let mut contexts = [_mm512_setzero_si512(); 4];
    for (context, lanes) in contexts.iter_mut().zip(lanes.chunks_exact(16)) {
        // SAFETY: a chunk has 16 bytes.
        let classes = unsafe { _mm_loadu_si128(lanes.as_ptr().cast()) };
        *context = _mm512_sllv_epi32(_mm512_cvtepi8_epi32(classes), _mm512_set1_epi32(table_bits as i32));
    }
    contexts
}

/// The two carried halfwords of all columns as raw words; moves `position` past the overflow. `None` if the words or the
/// overflow run past the stream, or a lane that carries nothing ends elsewhere than it started.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn carried(states: &[__m512i; 4], block: &Full<'_>, plan: &Plan, position: &mut usize) -> Option<[[__m512i; 2]; 2]> {
    let rest = block.stream.get(*position..)?;
    let mut tails = [_mm512_setzero_si512(); 4];
    let bytes;
    if block.base.is_some() {
        // 64 lanes lack at most 15 bits each: 120 bytes, and a window of 4 at the last.
        let mut overflow = [0u8; 128];
        let n = rest.len().min(overflow.len());
        overflow[..n].copy_from_slice(&rest[..n]);
        let stored = quarters(block.states);
        let mut bits = 0;
        for v in 0..4 {
            let missing = _mm512_lzcnt_epi32(states[v]);
            let through = prefix_sums(missing);
            let start = _mm512_add_epi32(_mm512_sub_epi32(through, missing), _mm512_set1_epi32(bits));
            let at = _mm512_srli_epi32::<3>(start);
            // SAFETY: states are at least 2^16 after every row, so at most 15 bits are missing per lane, `start` is at
            // most 63·15 and `at` at most 118.
            let window = unsafe { _mm512_i32gather_epi32::<1>(at, overflow.as_ptr().cast()) };
            let window = _mm512_srlv_epi32(window, _mm512_and_si512(start, _mm512_set1_epi32(7)));
            let one = _mm512_set1_epi32(1);
            let low = _mm512_and_si512(window, _mm512_sub_epi32(_mm512_sllv_epi32(one, missing), one));
            let upper = select(_mm512_set1_epi32(i32::MIN), stored[v], _mm512_sllv_epi32(states[v], missing));
            tails[v] = _mm512_or_si512(upper, low);
            bits += _mm512_reduce_add_epi32(missing);
        }
        bytes = (bits as usize).div_ceil(8);
        if bytes > rest.len() {
            return None;
        }
    } else {
        for x in states {
            if _mm512_cmpneq_epi32_mask(*x, _mm512_set1_epi32(STATE_LOW as i32)) != 0 {
                return None;
            }
        }
        if plan.carries {
            tails = quarters(rest.first_chunk()?);
            bytes = 4 * LANES;
        } else {
            bytes = 0;
        }
    }
    *position += bytes.next_multiple_of(2);
    let low_half = _mm512_set1_epi32(0xffff);
    let mut words = [[_mm512_setzero_si512(); 2]; 2];
    for h in 0..2 {
        words[0][h] = select(low_half, tails[h], _mm512_slli_epi32::<16>(tails[2 + h]));
        words[1][h] = select(low_half, _mm512_srli_epi32::<16>(tails[h]), tails[2 + h]);
    }
    Some(words)
}

/// Inclusive prefix sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn prefix_sums(x: __m512i) -> __m512i {
    let zero = _mm512_setzero_si512();
    let x = _mm512_add_epi32(x, _mm512_alignr_epi32::<15>(x, zero));
    let x = _mm512_add_epi32(x, _mm512_alignr_epi32::<14>(x, zero));
    let x = _mm512_add_epi32(x, _mm512_alignr_epi32::<12>(x, zero));
    _mm512_add_epi32(x, _mm512_alignr_epi32::<8>(x, zero))
}

/// Raw words of halfword `k`, all 32 column pairs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn raw_words(block: &Full<'_>, k: usize) -> [__m512i; 2] {
    halves_of(block.raw[128 * k..128 * k + 128].first_chunk().expect("128 bytes"))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn halves_of(words: &[u8; 128]) -> [__m512i; 2] {
    let (halves, _) = words.as_chunks::<64>();
    [load(&halves[0]), load(&halves[1])]
}

/// The next 32 words of the stream; with CAREFUL, zeros where it is over.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn window<const CAREFUL: bool>(stream: &[u8], at: usize) -> __m512i {
    if CAREFUL {
        let rest = stream.get(at..).unwrap_or(&[]);
        let mask = _bzhi_u32(u32::MAX, (rest.len() / 2).min(32) as u32);
        // SAFETY: the mask has a bit per whole word of `rest`, and no others.
        unsafe { _mm512_maskz_loadu_epi16(mask, rest.as_ptr().cast()) }
    } else {
        in_register(load(stream[at..at + 64].try_into().expect("64 bytes")))
    }
}

/// `x`, loaded: expanding words straight out of memory is microcode on some CPUs (AMD's Zen 4 and 5), and a compiler that folds the load
/// into the expansion makes decoding a third slower.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn in_register(mut x: __m512i) -> __m512i {
    // SAFETY: no instructions at all; only the register is named.
    unsafe {
        std::arch::asm!("/* {0} */", inlateout(zmm_reg) x, options(pure, nomem, nostack, preserves_flags));
    }
    x
}

/// `a` where `mask` is set, else `b`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn select(mask: __m512i, a: __m512i, b: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xca>(mask, a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn quarters(bytes: &[u8; 256]) -> [__m512i; 4] {
    let (quarters, _) = bytes.as_chunks::<64>();
    [load(&quarters[0]), load(&quarters[1]), load(&quarters[2]), load(&quarters[3])]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 readable bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn load_words(words: &[u16; 32]) -> __m512i {
    // SAFETY: 64 readable bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn store(x: __m512i, bytes: &mut [u8; 64]) {
    // SAFETY: 64 writable bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), x) }
}

/// Decoding entries, K·2^P of them.
#[derive(Clone, Copy)]
struct Entries<'a>(&'a [u32]);

impl<'a> Entries<'a> {
    fn new(tables: &'a DecodeTables) -> Self {
        assert_eq!(tables.entries().len(), tables.contexts() << tables.table_bits());
        Self(tables.entries())
    }

    /// Entries at `index`.
    ///
    /// # Safety
    /// Every index is below K·2^P, which is the number of entries. (Checking it here took 15 % of the speed.)
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
    unsafe fn gather(self, index: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_i32gather_epi32::<4>(index, self.0.as_ptr().cast()) }
    }
}
