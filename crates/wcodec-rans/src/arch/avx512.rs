//! AVX-512, in two forms that share all but the step.
//!
//! *Registers*: states are split into halves, 32 lanes to a vector (even columns, odd columns), and buckets are looked up by byte
//! permutations: six look-ups per half row of one to four permutations of 128 entries each. Two superblocks go together, table by
//! table: that hides the chain state → bucket → alias → frequency → multiply → words, and loads every vector of a table once for both.
//! Four together lack registers and are slower. Alphabets of up to 64 symbols have this step in assembly (`step`), the others in
//! intrinsics (`look_up`).
//!
//! *Gather*: states are four vectors of sixteen, lanes 0–15, 16–31 (even columns), 32–47, 48–63 (odd columns), and a slot's entry
//! is gathered from 2^P. A row takes some 80 vector instructions and four gathers worth about 12 cycles each, more where the
//! tables outgrow the first-level cache. For sets of more than 512 entries.
#![expect(unsafe_code, reason = "entry into functions compiled for AVX-512, and one gather")]

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

mod fold;
mod gather;
mod join;
mod look_up;
mod step;
mod vectors;

use self::join::join;
use self::look_up::LookUp;
use self::vectors::{ORDERS, load, load_words, quarters, select, store, store_words};
use super::plan::{Done, Full, Output, Plan};
use crate::superblock::{DecodeTables, GROUP_ROWS, Job, MAX_ROWS, PATCH_BYTES, Target};
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
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("vpclmulqdq");
        all.then_some(Self(()))
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

#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
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
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn decode<const N: usize>(
    tables: &DecodeTables,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    target: &mut Target<'_>,
) -> Option<[Done; N]> {
    match tables.registers() {
        None => by_size::<N, 0, false>(tables, plan, blocks, target),
        Some(r) => match (r.vectors, r.wide) {
            (2, false) => by_size::<N, 2, false>(tables, plan, blocks, target),
            (4, false) => by_size::<N, 4, false>(tables, plan, blocks, target),
            (6, false) => by_size::<N, 6, false>(tables, plan, blocks, target),
            (_, false) => by_size::<N, 8, false>(tables, plan, blocks, target),
            (4, true) => by_size::<N, 4, true>(tables, plan, blocks, target),
            (_, true) => by_size::<N, 8, true>(tables, plan, blocks, target),
        },
    }
}

#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn by_size<const N: usize, const VECTORS: usize, const WIDE: bool>(
    tables: &DecodeTables,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    target: &mut Target<'_>,
) -> Option<[Done; N]> {
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

#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn superblocks<const N: usize, const VECTORS: usize, const WIDE: bool, const NARROW: bool>(
    tables: &DecodeTables,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    target: &mut Target<'_>,
) -> Option<[Done; N]> {
    let c = constants(tables, plan);
    let mut states = [[_mm512_setzero_si512(); 4]; N];
    for b in 0..N {
        states[b] = first_states(&blocks[b])?;
    }
    let mut positions = [0usize; N];
    let mut values: [Values; N] = [[MaybeUninit::uninit(); MAX_ROWS]; N];
    if VECTORS == GATHER {
        gather::gather_rows::<N, NARROW>(&c, tables, plan, blocks, &mut states, &mut positions, &mut values, target);
    } else {
        let t = LookUp::new(tables.registers()?, plan, tables.table_bits());
        look_up::register_rows::<N, VECTORS, WIDE, NARROW>(
            &t,
            plan,
            blocks,
            &mut states,
            &mut positions,
            &mut values,
            target,
        );
    }
    let mut done = [Done { patches: None, sum: None }; N];
    for b in 0..N {
        let (block, values) = (&blocks[b], &mut values[b]);
        let tails = carried(&states[b], block, plan, &mut positions[b])?;
        // Values that are wider than those of entries would be cut when heads are joined.
        if c.wide && block.patches > 0 {
            done[b].patches = Some(positions[b]);
        } else {
            patch::<NARROW>(block, plan, positions[b], values)?;
        }
        let sum = join(&c, plan, block, values, &tails, target);
        done[b].sum = sum.filter(|_| done[b].patches.is_none());
    }
    Some(done)
}

/// Puts patched values in their places among the value words; `None` if one has no place, or the stream does not end behind them.
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn patch<const NARROW: bool>(block: &Full<'_>, plan: &Plan, position: usize, values: &mut Values) -> Option<()> {
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
        let value = value << plan.layout.shift();
        // SAFETY: every row has been written.
        let row = unsafe { values[row].assume_init_mut() };
        if NARROW {
            let mut bytes = [0; 64];
            store(row[0], &mut bytes);
            bytes[usize::from(ORDERS.columns[col])] = value as u8;
            row[0] = load(&bytes);
        } else {
            let mut words = [0; 32];
            store_words(row[col / 32], &mut words);
            words[col % 32] = value;
            row[col / 32] = load_words(&words);
        }
    }
    Some(())
}

/// Asks for the lines that storing `row` will want, for its share of the raw field, and for words further on. Rows of a wide tensor
/// lie on pages of their own, and streams and raw fields change with every superblock: no hardware prefetcher looks far enough ahead.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
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
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
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
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
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

/// The two carried halfwords of all columns as raw words; moves `position` past the overflow. `None` if the words or the
/// overflow run past the stream, or a lane that carries nothing ends elsewhere than it started.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
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
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn prefix_sums(x: __m512i) -> __m512i {
    let zero = _mm512_setzero_si512();
    let x = _mm512_add_epi32(x, _mm512_alignr_epi32::<15>(x, zero));
    let x = _mm512_add_epi32(x, _mm512_alignr_epi32::<14>(x, zero));
    let x = _mm512_add_epi32(x, _mm512_alignr_epi32::<12>(x, zero));
    _mm512_add_epi32(x, _mm512_alignr_epi32::<8>(x, zero))
}
