//! AVX2: a row is eight vectors of eight states, the first four of even columns, the others of odd ones.
//!
//! Every symbol is one look-up among the [`Slots`] of the tables ([`step`]), words reach the states that want them through a table of 256 byte
//! shuffles (8 KiB). Two superblocks go together, row by row: one's chain runs while the other's waits. Their value words are joined
//! with raw codes, summed and stored afterwards ([`join`]).
#![expect(unsafe_code, reason = "vector loads and stores, and entry into functions compiled for AVX2")]

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

mod join;
mod step;

use self::step::{Lanes, ONE, SHIFTS, Step, TABLES};
use super::carried::carried;
use super::plan::{Done, Full, Output, Plan, ROW_WINDOW};
use crate::superblock::{DecodeTables, GROUP_ROWS, Job, MAX_ROWS, PATCH_BYTES, Target};
use crate::{LANES, STATE_LOW};

/// Proof that the CPU has AVX2, BMI2, LZCNT, POPCNT and PCLMULQDQ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2 {
    /// Whether it also has VPCLMULQDQ, two carry-less products at a time (AMD from Zen 3, Intel from Alder Lake).
    wide: bool,
}

impl Avx2 {
    pub(crate) fn new() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("pclmulqdq");
        all.then(|| Self { wide: is_x86_feature_detected!("vpclmulqdq") })
    }

    /// The same as on a CPU without VPCLMULQDQ.
    #[cfg(test)]
    pub(crate) fn narrow(self) -> Self {
        Self { wide: false }
    }

    /// See [`super::Backend::expect`].
    #[inline]
    pub(crate) fn expect(self, job: &Job<'_>) {
        // SAFETY: `self` exists only if `new` saw every feature that `fetch` is compiled for.
        unsafe { fetch(job) }
    }

    /// See [`super::Backend::multiply`].
    #[inline]
    pub(crate) fn multiply(self, a: u32, b: u32) -> u32 {
        // SAFETY: `self` exists only if `new` saw every feature that `multiply` is compiled for.
        unsafe { super::fold::multiply(a, b) }
    }

    /// See [`super::Backend::decode`].
    #[inline]
    pub(crate) fn decode<const N: usize>(
        self,
        tables: &DecodeTables,
        plan: &Plan,
        blocks: &[Full<'_>; N],
        target: &mut Target<'_>,
    ) -> Option<[Done; N]> {
        // SAFETY: `self` exists only if `new` saw every feature that `decode` is compiled for.
        unsafe { decode(self, tables, plan, blocks, target) }
    }
}

/// Picks the loop for these tables.
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn decode<const N: usize>(
    token: Avx2,
    tables: &DecodeTables,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    target: &mut Target<'_>,
) -> Option<[Done; N]> {
    let step = Step::new(tables.slots(), plan, tables.table_bits(), tables.contexts());
    match step.kind() {
        ONE => by_rows::<N, ONE>(token, &step, plan, blocks, target),
        TABLES => by_rows::<N, TABLES>(token, &step, plan, blocks, target),
        _ => by_rows::<N, SHIFTS>(token, &step, plan, blocks, target),
    }
}

/// Rows that most superblocks do not exceed.
const USUAL_ROWS: usize = 64;

/// A row's value words in the order of columns.
type Values = MaybeUninit<[__m256i; 4]>;

/// Picks the size of buffers: every page of a function's stack is touched when it is called, and larger ones are 128 KiB.
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn by_rows<const N: usize, const KIND: u8>(
    token: Avx2,
    step: &Step<'_>,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    target: &mut Target<'_>,
) -> Option<[Done; N]> {
    if plan.rows <= USUAL_ROWS {
        superblocks::<N, KIND, USUAL_ROWS>(token, step, plan, blocks, target)
    } else {
        superblocks::<N, KIND, MAX_ROWS>(token, step, plan, blocks, target)
    }
}

#[inline(never)]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn superblocks<const N: usize, const KIND: u8, const ROWS: usize>(
    token: Avx2,
    step: &Step<'_>,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    target: &mut Target<'_>,
) -> Option<[Done; N]> {
    let mut lanes = [Lanes::new([_mm256_setzero_si256(); 8], &blocks[0]); N];
    for b in 0..N {
        lanes[b] = Lanes::new(first_states(&blocks[b])?, &blocks[b]);
    }
    let mut values = [[Values::uninit(); ROWS]; N];
    let mut values = values.each_mut().map(|values| &mut values[..]);
    let mut i = 0;
    while i < plan.rows {
        // Rows for which every stream has words enough, whatever they take.
        let left = (0..N).map(|b| blocks[b].readable.len().saturating_sub(lanes[b].at) / ROW_WINDOW).min();
        let rows = left.unwrap_or(0).min(plan.rows - i);
        // SAFETY: the kind is the step's, and all streams have the 128 bytes that each row may take.
        unsafe { step::rows::<N, KIND>(step, plan, blocks, &mut lanes, i..i + rows, &mut values, target) };
        i += rows;
        if i < plan.rows {
            for b in 0..N {
                let mut words = [0; ROW_WINDOW];
                let rest = blocks[b].readable.get(lanes[b].at..).unwrap_or(&[]);
                let whole = (rest.len() / 2 * 2).min(ROW_WINDOW);
                words[..whole].copy_from_slice(&rest[..whole]);
                // SAFETY: the kind is the step's.
                let row = unsafe { step::row::<KIND>(step, &mut lanes[b], blocks[b].rows[i], &words) };
                values[b][i].write(row);
            }
            i += 1;
        }
    }
    let mut done = [Done { patches: None, sum: None }; N];
    for b in 0..N {
        let (block, values) = (&blocks[b], &mut *values[b]);
        let mut finals = [0; LANES];
        for (lanes, x) in finals.chunks_exact_mut(8).zip(lanes[b].states) {
            // SAFETY: a chunk has 32 writable bytes.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), x) };
        }
        let tails = carried(&finals, block, plan, &mut lanes[b].at)?;
        patch(block, plan, lanes[b].at, values)?;
        // SAFETY: the token tells of the CPU.
        done[b].sum = unsafe { join::join(token.wide, plan, block, values, &tails, target) };
    }
    Some(done)
}

/// Puts patched values in their places among the value words; `None` if one has no place, or the stream does not end behind them.
fn patch(block: &Full<'_>, plan: &Plan, position: usize, values: &mut [Values]) -> Option<()> {
    let end = position + PATCH_BYTES * usize::from(block.patches);
    if end.next_multiple_of(4) != block.stream.len() {
        return None;
    }
    for patch in block.stream[position..end].as_chunks::<PATCH_BYTES>().0 {
        let [p0, p1, v0, v1] = *patch;
        let (at, value) = (usize::from(u16::from_le_bytes([p0, p1])), u16::from_le_bytes([v0, v1]));
        let (row, col) = (at / LANES, at % LANES);
        if row >= plan.rows || u32::from(value) >> plan.layout.coded_bits() != 0 {
            return None;
        }
        // SAFETY: every row has been written, and is 64 words.
        unsafe { values[row].as_mut_ptr().cast::<u16>().add(col).write(value << plan.layout.shift()) };
    }
    Some(())
}

/// Asks for the lines that storing `row` will want, for its share of the raw field, and for words further on. Rows of a wide tensor
/// lie on pages of their own, and streams and raw fields change with every superblock: no hardware prefetcher looks far enough ahead.
#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn prefetch(plan: &Plan, block: &Full<'_>, row: usize, position: usize, target: &Target<'_>) {
    let lines = match plan.output {
        Output::Bytes => 1,
        Output::Words => 2,
        Output::Fused => 4,
        _ => 0,
    };
    let first = target.bytes.as_ptr().wrapping_add(block.offset + row * target.row_stride);
    for line in 0..4 {
        if line < lines {
            _mm_prefetch::<_MM_HINT_ET0>(first.wrapping_add(64 * line).cast());
        }
    }
    if plan.output == Output::Fused {
        let low = block.low.as_ptr().wrapping_add(128 * row);
        _mm_prefetch::<_MM_HINT_T0>(low.cast());
        _mm_prefetch::<_MM_HINT_T0>(low.wrapping_add(64).cast());
    }
    let raw = block.raw.as_ptr().wrapping_add(128 * plan.raw_bits * row / GROUP_ROWS);
    for ahead in [raw, block.stream.as_ptr().wrapping_add(position + 768)] {
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
    }
}

/// Asks for the states, the first words and the first raw codes.
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
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
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn first_states(block: &Full<'_>) -> Option<[__m256i; 8]> {
    let mut states = [_mm256_setzero_si256(); 8];
    for (x, bytes) in states.iter_mut().zip(block.states.as_chunks::<32>().0) {
        *x = load(bytes);
        if let Some(base) = block.base {
            *x = _mm256_and_si256(*x, _mm256_set1_epi32(0x7fff_ffff));
            *x = _mm256_add_epi32(*x, _mm256_set1_epi32(base as i32));
        }
        let low = _mm256_set1_epi32(STATE_LOW as i32);
        if _mm256_movemask_epi8(_mm256_cmpeq_epi32(_mm256_max_epu32(*x, low), *x)) != -1 {
            return None;
        }
    }
    Some(states)
}

#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn store(x: __m256i, bytes: &mut [u8; 32]) {
    // SAFETY: 32 writable bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), x) }
}
