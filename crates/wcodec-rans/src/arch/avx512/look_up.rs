//! Rows by byte permutations: buckets looked up in [`Registers`], four superblocks or two together.
#![expect(unsafe_code, reason = "steps that read ahead, and what they write")]

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::super::plan::{Full, Output, Plan, ROW_WINDOW};
use super::super::registers::Registers;
use super::step::{Places, States, back, both, front};
use super::vectors::{ORDERS, load, load_words, store};
use crate::superblock::{GROUP_ROWS, Target};

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

/// The contexts of the rows of two superblocks, each met once; and at which byte of them a row has its own.
pub(super) struct Contexts<'a> {
    pub(super) all: &'a mut [PairContext],
    pub(super) of_row: &'a mut [u32],
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
        const NEW: u32 = u32::MAX;
        let cols = blocks.map(|block| column_classes(block));
        let mut known = [NEW; 256];
        // Superblocks side by side have the same rows.
        let alike = blocks[0].rows == blocks[1].rows;
        let mut count = 0;
        for (i, of_row) in self.of_row.iter_mut().enumerate() {
            let classes = blocks.map(|block| block.rows[i]);
            let known = &mut known[usize::from(classes[0])];
            if *known == NEW || !alike {
                self.all[count].write(context(t, classes, &cols));
                *known = (count * size_of::<PairContext>()) as u32;
                count += 1;
            }
            *of_row = *known;
        }
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
    assert!((0..PAIRS).all(|p| rows.end <= contexts[p].of_row.len() && rows.end <= distances[p].len()));
    // Plain pointers, and all of a row's places by one index: what is not a step has to be little.
    let offsets: [*const u32; PAIRS] = std::array::from_fn(|p| contexts[p].of_row.as_ptr());
    let all: [*const Context; PAIRS] = std::array::from_fn(|p| contexts[p].all.as_ptr().cast());
    let found_at: [*mut [u8; 64]; PAIRS] = std::array::from_fn(|p| distances[p].as_mut_ptr().cast());
    let ahead = Ahead::new::<PAIRS>(plan, blocks, target);
    // Locals stay in registers.
    let mut x = *lanes;
    let mut at_now = *at;
    macro_rules! context {
        ($p:expr, $i:expr) => {
            all[$p].byte_add(*offsets[$p].add($i) as usize)
        };
    }
    macro_rules! places {
        ($p:expr, $h:expr, $i:expr, $contexts:expr) => {{
            let [first, second] = &mut at_now[$p];
            Places { context: $contexts.add($h), streams: [first, second], symbols: found_at[$p].add(2 * $i + $h) }
        }};
    }
    // SAFETY: as above; rows of contexts and symbols are there.
    unsafe {
        let mut first = context!(0, rows.start);
        let mut found = front::<V>(t, &mut x[0][0], first);
        for i in rows.clone() {
            let of_first = first;
            first = context!(0, (i + 1).min(rows.end - 1));
            let [even, odd] = &mut x[0];
            found = both::<V>(t, odd, of_first.add(1), even, found, places!(0, 0, i, of_first));
            ahead.fetch::<2>(0, i, at_now[0]);
            if PAIRS == 2 {
                let second = context!(1, i);
                let [x0, x1] = x.as_mut_slice() else { unreachable!("two pairs") };
                found = both::<V>(t, &mut x1[0], second, &mut x0[1], found, places!(0, 1, i, of_first));
                measure(t, of_first, found_at[0].add(2 * i));
                let [even, odd] = x1;
                found = both::<V>(t, odd, second.add(1), even, found, places!(1, 0, i, second));
                ahead.fetch::<2>(2, i, at_now[1]);
                let places = places!(1, 1, i, second);
                if i + 1 == rows.end {
                    back::<V>(t, &mut x1[1], found, places);
                } else {
                    found = both::<V>(t, &mut x0[0], first, &mut x1[1], found, places);
                }
                measure(t, second, found_at[1].add(2 * i));
            } else {
                let places = places!(0, 1, i, of_first);
                if i + 1 == rows.end {
                    back::<V>(t, odd, found, places);
                } else {
                    found = both::<V>(t, even, first, odd, found, places);
                }
                measure(t, of_first, found_at[0].add(2 * i));
            }
        }
    }
    *lanes = x;
    *at = at_now;
}

/// As [`super::prefetch`], for all superblocks by one index: a row of scalar code for each would take as long as a third of a step.
struct Ahead {
    rows: [*const u8; 4],
    raw: [*const u8; 4],
    low: [*const u8; 4],
    row_stride: usize,
    /// Bytes of raw field per row.
    raw_stride: usize,
    fused: bool,
}

impl Ahead {
    #[inline]
    fn new<const PAIRS: usize>(plan: &Plan, blocks: &[[&Full<'_>; 2]; PAIRS], target: &Target<'_>) -> Self {
        let block = |n: usize| blocks[(n / 2).min(PAIRS - 1)][n % 2];
        Self {
            rows: std::array::from_fn(|n| target.bytes.as_ptr().wrapping_add(block(n).offset)),
            raw: std::array::from_fn(|n| block(n).raw.as_ptr()),
            low: std::array::from_fn(|n| block(n).low.as_ptr()),
            row_stride: target.row_stride,
            raw_stride: 128 * plan.raw_bits / GROUP_ROWS,
            fused: plan.output == Output::Fused,
        }
    }

    /// For row `i` of N superblocks from the `first` on.
    #[inline]
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
    )]
    fn fetch<const N: usize>(&self, first: usize, i: usize, streams: [*const u8; N]) {
        for b in 0..N {
            let row = self.rows[first + b].wrapping_add(i * self.row_stride);
            _mm_prefetch::<_MM_HINT_ET0>(row.cast());
            _mm_prefetch::<_MM_HINT_ET0>(row.wrapping_add(64).cast());
            _mm_prefetch::<_MM_HINT_T0>(self.raw[first + b].wrapping_add(i * self.raw_stride).cast());
            _mm_prefetch::<_MM_HINT_T0>(streams[b].wrapping_add(768).cast());
            if self.fused {
                let low = self.low[first + b].wrapping_add(128 * i);
                _mm_prefetch::<_MM_HINT_ET0>(row.wrapping_add(128).cast());
                _mm_prefetch::<_MM_HINT_ET0>(row.wrapping_add(192).cast());
                _mm_prefetch::<_MM_HINT_T0>(low.cast());
                _mm_prefetch::<_MM_HINT_T0>(low.wrapping_add(64).cast());
            }
        }
    }
}

/// Makes distances of a row's symbols, which the steps have left in its place: from even and odd columns, in the order of [`super::step`], to rows.
///
/// # Safety
/// `contexts` and `row` must be those of both parities, and symbols be written.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
unsafe fn measure(t: &LookUp<'_>, contexts: *const Context, row: *mut [u8; 64]) {
    // SAFETY: as above.
    let (contexts, row) = unsafe { (&*contexts.cast::<[Context; 2]>(), &mut *row.cast::<[[u8; 64]; 2]>()) };
    let mut halves = [_mm512_setzero_si512(); 2];
    for h in 0..2 {
        let symbols = load(&row[h]);
        let distance = if t.tables.bucket_bits <= 6 {
            _mm512_permutexvar_epi8(symbols, t.distances)
        } else {
            let (vectors, _) = t.tables.distances.as_chunks::<64>();
            let low = _mm512_permutex2var_epi8(load(&vectors[0]), symbols, load(&vectors[1]));
            let high = _mm512_permutex2var_epi8(load(&vectors[2]), symbols, load(&vectors[3]));
            _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(symbols), high)
        };
        let shift = load(&contexts[h].shifts);
        halves[h] = if t.tables.zero {
            _mm512_mask_add_epi8(distance, _mm512_test_epi8_mask(distance, distance), distance, shift)
        } else {
            _mm512_add_epi8(distance, shift)
        };
    }
    let [even, odd] = halves;
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
