//! Rows by gathers: states in four vectors of sixteen, entries gathered from K·2^P.
#![expect(unsafe_code, reason = "gathers and a vector load")]

use std::arch::x86_64::*;

use super::super::plan::{Full, Plan, ROW_WINDOW};
use super::vectors::{select, window};
use super::{Constants, Values, prefetch};
use crate::LANES;
use crate::superblock::{DecodeTables, Target};

/// Decodes the symbols of all rows by [`gather_step`].
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
#[expect(clippy::too_many_arguments, reason = "the parts of one loop")]
pub(super) fn gather_rows<const N: usize, const NARROW: bool>(
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
            prefetch(plan, &blocks[b], i, stream.as_ptr().wrapping_add(at[b]), target);
        });
    }
    (*states, *positions) = (x, at);
}

/// Decodes one symbol per lane and refills the states. Returns value words.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
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

/// Column classes in lane order, times 2^P.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
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
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
    )]
    unsafe fn gather(self, index: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_i32gather_epi32::<4>(index, self.0.as_ptr().cast()) }
    }
}
