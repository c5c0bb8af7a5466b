//! Rows by byte permutations: buckets looked up in [`Registers`], four superblocks or two together.
#![expect(unsafe_code, reason = "steps that read ahead, and what they write")]

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::super::plan::{Full, Plan, ROW_WINDOW};
use super::super::registers::Registers;
use super::prefetch;
use super::step::{Places, States, back, both, front};
use super::vectors::{ORDERS, load, load_words, store};
use crate::superblock::Target;

/// Distances ([`Registers::distances`], shifted) of one row of two superblocks.
pub(super) type DistanceRow = MaybeUninit<Row>;

/// A vector of each superblock's; the steps store whole vectors there.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Row(pub(super) [[u8; 64]; 2]);

/// What the classes of a row and of 32 columns each of two superblocks make of 64 lanes.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Context {
    /// [`Registers::tables`].
    pub(super) starts: [u8; 64],
    /// [`Registers::shifts`].
    pub(super) shifts: [u8; 64],
    /// [`Registers::high_tables`], a bit for each.
    pub(super) high: u64,
}

/// Contexts of the even and of the odd columns.
pub(super) type PairContext = MaybeUninit<[Context; 2]>;

/// The contexts of the rows of two superblocks, each met once; and which of them a row has.
pub(super) struct Contexts<'a> {
    pub(super) all: &'a mut [PairContext],
    pub(super) of_row: &'a mut [u16],
}

/// What the steps in registers need: the byte tables and vectors that no row changes.
pub(super) struct LookUp<'a> {
    pub(super) tables: &'a Registers,
    pub(super) slot_mask: __m512i,
    pub(super) place_mask: __m512i,
    contexts: i16,
    /// Distances of the first 64 symbols.
    distances: __m512i,
}

impl<'a> LookUp<'a> {
    #[inline]
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
    )]
    pub(super) fn new(tables: &'a Registers, table_bits: u32, contexts: usize) -> Self {
        let mask = |bits: u32| _mm512_set1_epi16(((1u32 << bits) - 1) as i16);
        Self {
            tables,
            slot_mask: mask(table_bits),
            place_mask: mask(table_bits - tables.bucket_bits),
            contexts: contexts as i16,
            distances: load(tables.distances.first_chunk().expect("256 bytes")),
        }
    }
}

impl Contexts<'_> {
    /// Those of two superblocks of equally many rows.
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
    )]
    pub(super) fn fill(&mut self, t: &LookUp<'_>, blocks: [&Full<'_>; 2]) {
        const NEW: u16 = u16::MAX;
        let cols = blocks.map(|block| column_classes(block));
        let mut known = [NEW; 256];
        // Superblocks side by side have the same rows.
        let alike = blocks[0].rows == blocks[1].rows;
        let mut count = 0;
        for (i, of_row) in self.of_row.iter_mut().enumerate() {
            let classes = blocks.map(|block| block.rows[i]);
            let known = &mut known[usize::from(classes[0])];
            if *known == NEW || !alike {
                *known = count;
                self.all[usize::from(count)].write(context(t, classes, &cols));
                count += 1;
            }
            *of_row = *known;
        }
    }

    /// The contexts of row `i`.
    ///
    /// # Safety
    /// They must have been [filled](Self::fill).
    #[inline]
    pub(super) unsafe fn row(&self, i: usize) -> &[Context; 2] {
        // SAFETY: as above.
        unsafe { self.all[usize::from(self.of_row[i])].assume_init_ref() }
    }
}

/// The contexts of one row of either superblock.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn context(t: &LookUp<'_>, rows: [u8; 2], cols: &[[__m512i; 2]; 2]) -> [Context; 2] {
    let (zero, last) = (_mm512_setzero_si512(), _mm512_set1_epi16(t.contexts - 1));
    let clamped = |b: usize, h: usize| {
        let sum = _mm512_add_epi16(cols[b][h], _mm512_set1_epi16(i16::from(rows[b])));
        _mm512_min_epi16(_mm512_max_epi16(sum, zero), last)
    };
    let mut contexts = [Context { starts: [0; 64], shifts: [0; 64], high: 0 }; 2];
    for (h, context) in contexts.iter_mut().enumerate() {
        let lanes = _mm512_packus_epi16(clamped(0, h), clamped(1, h));
        let look_up = |table: &[u8; 64]| _mm512_permutexvar_epi8(lanes, load(table));
        store(look_up(&t.tables.tables), &mut context.starts);
        store(look_up(&t.tables.shifts), &mut context.shifts);
        context.high = _mm512_movepi8_mask(look_up(&t.tables.high_tables));
    }
    contexts
}

/// Decodes the symbols of all rows of PAIRS pairs of superblocks.
#[expect(clippy::too_many_arguments, reason = "the parts of one loop")]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn symbol_rows<const PAIRS: usize, const V: usize>(
    t: &LookUp<'_>,
    plan: &Plan,
    blocks: &[[&Full<'_>; 2]; PAIRS],
    contexts: &[Contexts<'_>; PAIRS],
    states: &mut [[[__m512i; 4]; 2]; PAIRS],
    positions: &mut [[usize; 2]; PAIRS],
    distances: &mut [&mut [DistanceRow]; PAIRS],
    target: &Target<'_>,
) {
    let mut lanes = states.map(|pair| {
        let [[e0, o0, f0, p0], [e1, o1, f1, p1]] = [split(&pair[0]), split(&pair[1])];
        [[e0, e1, f0, f1], [o0, o1, p0, p1]]
    });
    let mut i = 0;
    while i < plan.rows {
        // Rows for which every stream has words enough, whatever they take.
        let left = |p: usize, b: usize| blocks[p][b].readable.len().saturating_sub(positions[p][b]) / ROW_WINDOW;
        let enough = (0..PAIRS).map(|p| left(p, 0).min(left(p, 1))).min().unwrap_or(0);
        if enough > 0 {
            let rows = i..(i + enough).min(plan.rows);
            i = rows.end;
            let begin: [[*const u8; 2]; PAIRS] =
                std::array::from_fn(|p| [0, 1].map(|b| blocks[p][b].readable[positions[p][b]..].as_ptr()));
            let mut at = begin;
            // SAFETY: before every one of these rows all streams have the 128 bytes that it may take.
            unsafe { run::<PAIRS, V>(t, plan, blocks, contexts, &mut lanes, &mut at, distances, rows, target) };
            for p in 0..PAIRS {
                for b in 0..2 {
                    positions[p][b] += at[p][b].addr() - begin[p][b].addr();
                }
            }
        } else {
            // What is left, and zeros behind it.
            let mut windows = [[[0u8; ROW_WINDOW]; 2]; PAIRS];
            for p in 0..PAIRS {
                for b in 0..2 {
                    let rest = blocks[p][b].readable.get(positions[p][b]..).unwrap_or(&[]);
                    let len = rest.len().min(ROW_WINDOW);
                    windows[p][b][..len].copy_from_slice(&rest[..len]);
                }
            }
            let begin: [[*const u8; 2]; PAIRS] = std::array::from_fn(|p| [0, 1].map(|b| windows[p][b].as_ptr()));
            let mut at = begin;
            // SAFETY: one row takes 128 bytes at most.
            unsafe { run::<PAIRS, V>(t, plan, blocks, contexts, &mut lanes, &mut at, distances, i..i + 1, target) };
            for p in 0..PAIRS {
                for b in 0..2 {
                    positions[p][b] += at[p][b].addr() - begin[p][b].addr();
                }
            }
            i += 1;
        }
    }
    for (states, lanes) in states.iter_mut().zip(&lanes) {
        let [[e0, e1, f0, f1], [o0, o1, p0, p1]] = *lanes;
        *states = [unsplit(&[e0, o0, f0, p0]), unsplit(&[e1, o1, f1, p1])];
    }
}

/// Decodes `rows`, each stream from `at` on.
///
/// # Safety
/// Before every row, every stream must have 128 readable bytes; all contexts must be filled, and rows of symbols be there.
#[inline]
#[expect(clippy::too_many_arguments, reason = "all that a row takes")]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
unsafe fn run<const PAIRS: usize, const V: usize>(
    t: &LookUp<'_>,
    plan: &Plan,
    blocks: &[[&Full<'_>; 2]; PAIRS],
    contexts: &[Contexts<'_>; PAIRS],
    lanes: &mut [[States; 2]; PAIRS],
    at: &mut [[*const u8; 2]; PAIRS],
    distances: &mut [&mut [DistanceRow]; PAIRS],
    rows: std::ops::Range<usize>,
    target: &Target<'_>,
) {
    macro_rules! places {
        ($p:expr, $h:expr, $i:expr, $contexts:expr) => {{
            let [first, second] = &mut at[$p];
            let row = distances[$p].as_mut_ptr().wrapping_add($i).cast::<[u8; 64]>();
            Places { context: &raw const $contexts[$h], streams: [first, second], symbols: row.wrapping_add($h) }
        }};
    }
    // SAFETY: as above.
    unsafe {
        let mut first = contexts[0].row(rows.start);
        let mut found = front::<V>(t, &mut lanes[0][0], &first[0]);
        for i in rows.clone() {
            let next = (i + 1).min(rows.end - 1);
            let of_first = first;
            first = contexts[0].row(next);
            {
                let [even, odd] = &mut lanes[0];
                found = both::<V>(t, odd, &of_first[1], even, found, places!(0, 0, i, of_first));
            }
            for b in 0..2 {
                prefetch(plan, blocks[0][b], i, at[0][b], target);
            }
            let (last, of_last) = if PAIRS == 2 {
                let second = contexts[1].row(i);
                let [lanes0, lanes1] = lanes.as_mut_slice() else { unreachable!("two pairs") };
                found = both::<V>(t, &mut lanes1[0], &second[0], &mut lanes0[1], found, places!(0, 1, i, of_first));
                measure(t, of_first, &mut distances[0][i]);
                let [even, odd] = lanes1;
                found = both::<V>(t, odd, &second[1], even, found, places!(1, 0, i, second));
                for b in 0..2 {
                    prefetch(plan, blocks[1][b], i, at[1][b], target);
                }
                (1, second)
            } else {
                (0, of_first)
            };
            let places = places!(last, 1, i, of_last);
            if i + 1 == rows.end {
                back::<V>(t, &mut lanes[last][1], found, places);
            } else if PAIRS == 2 {
                let [lanes0, lanes1] = lanes.as_mut_slice() else { unreachable!("two pairs") };
                found = both::<V>(t, &mut lanes0[0], &first[0], &mut lanes1[1], found, places);
            } else {
                let [even, odd] = &mut lanes[0];
                found = both::<V>(t, even, &first[0], odd, found, places);
            }
            measure(t, of_last, &mut distances[last][i]);
        }
    }
}

/// Makes distances of a row's symbols, which the steps have left in its place: from even and odd columns, in the order of [`super::step`], to rows.
///
/// # Safety
/// Both parities must have been written.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
unsafe fn measure(t: &LookUp<'_>, contexts: &[Context; 2], row: &mut DistanceRow) {
    // SAFETY: as above.
    let Row(row) = unsafe { row.assume_init_mut() };
    let [even, odd] = [0, 1].map(|h| {
        let symbols = load(&row[h]);
        let distance = if t.tables.bucket_bits <= 6 {
            _mm512_permutexvar_epi8(symbols, t.distances)
        } else {
            let (vectors, _) = t.tables.distances.as_chunks::<64>();
            let two = |k: usize| _mm512_permutex2var_epi8(load(&vectors[k]), symbols, load(&vectors[k + 1]));
            _mm512_mask_mov_epi8(two(0), _mm512_movepi8_mask(symbols), two(2))
        };
        let shift = load(&contexts[h].shifts);
        if t.tables.zero {
            _mm512_mask_add_epi8(distance, _mm512_test_epi8_mask(distance, distance), distance, shift)
        } else {
            _mm512_add_epi8(distance, shift)
        }
    });
    store(_mm512_unpacklo_epi8(even, odd), &mut row[0]);
    store(_mm512_unpackhi_epi8(even, odd), &mut row[1]);
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
