//! AVX-512, in two forms that share all but the step.
//!
//! *Registers*: states are split into halves, 32 lanes to a vector (even columns, odd columns), and buckets are looked up by byte
//! permutations, those of two superblocks in one vector: six look-ups of one to four permutations of 128 entries each for 64 lanes. Four
//! superblocks go together, since the chain state → bucket → alias → frequency → multiply → words is as long as four steps take. The
//! step is assembly (`step`), around it are intrinsics (`look_up`).
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

use self::join::{Rows, join};
use self::look_up::{Contexts, DistanceRow, LookUp, PairContext};
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
    /// From distances to values in 16-bit heads: the coded field's place, and [`super::Registers::base`] in it.
    shift: __m128i,
    base: __m512i,
    /// As [`super::Registers::zero`].
    zero: bool,
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
        shift: _mm_cvtsi32_si128(shift),
        base: _mm512_set1_epi16(tables.registers().map_or(0, |r| r.base << shift) as i16),
        zero: tables.registers().is_some_and(|r| r.zero),
    }
}

/// Picks the loop for these tables.
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn decode<const N: usize>(
    tables: &DecodeTables,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    target: &mut Target<'_>,
) -> Option<[Done; N]> {
    let Some(registers) = tables.registers() else {
        return if plan.output.narrow() {
            gathered::<N, true>(tables, plan, blocks, target)
        } else {
            gathered::<N, false>(tables, plan, blocks, target)
        };
    };
    match registers.vectors {
        2 => looked_up::<N, 2>(tables, plan, blocks, target),
        4 => looked_up::<N, 4>(tables, plan, blocks, target),
        6 => looked_up::<N, 6>(tables, plan, blocks, target),
        _ => looked_up::<N, 8>(tables, plan, blocks, target),
    }
}

/// A superblock's value words, row by row.
type Values = [MaybeUninit<[__m512i; 2]>; MAX_ROWS];

/// Decodes superblocks by gathers, one after the other: the chains of more would not hide more.
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn gathered<const N: usize, const NARROW: bool>(
    tables: &DecodeTables,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    target: &mut Target<'_>,
) -> Option<[Done; N]> {
    let c = constants(tables, plan);
    let mut done = [Done { patches: None, sum: None }; N];
    for (blocks, done) in blocks.chunks(2).zip(done.chunks_mut(2)) {
        match blocks.as_array::<2>() {
            Some(blocks) => done.copy_from_slice(&gather::<2, NARROW>(&c, tables, plan, blocks, target)?),
            None => done.copy_from_slice(&gather::<1, NARROW>(&c, tables, plan, blocks.first_chunk()?, target)?),
        }
    }
    Some(done)
}

#[inline(never)]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn gather<const N: usize, const NARROW: bool>(
    c: &Constants,
    tables: &DecodeTables,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    target: &mut Target<'_>,
) -> Option<[Done; N]> {
    let mut states = [[_mm512_setzero_si512(); 4]; N];
    for b in 0..N {
        states[b] = first_states(&blocks[b])?;
    }
    let mut positions = [0usize; N];
    let mut values: [Values; N] = [[MaybeUninit::uninit(); MAX_ROWS]; N];
    gather::gather_rows::<N, NARROW>(c, tables, plan, blocks, &mut states, &mut positions, &mut values, target);
    let mut done = [Done { patches: None, sum: None }; N];
    for b in 0..N {
        let (block, values) = (&blocks[b], &mut values[b]);
        let tails = carried(&states[b], block, plan, &mut positions[b])?;
        // Values that are wider than those of entries would be cut when heads are joined.
        if c.wide && block.patches > 0 {
            done[b].patches = Some(positions[b]);
        } else {
            patch::<NARROW>(&Patches::new(block, plan, positions[b])?, values);
        }
        let sum = join(c, plan, block, Rows::Words(values), &tails, target);
        done[b].sum = sum.filter(|_| done[b].patches.is_none());
    }
    Some(done)
}

/// Decodes superblocks by byte permutations: four together, or two, or one beside itself. Buffers are for the usual height, or for the greatest.
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn looked_up<const N: usize, const V: usize>(
    tables: &DecodeTables,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    target: &mut Target<'_>,
) -> Option<[Done; N]> {
    let mut done = [Done { patches: None, sum: None }; N];
    let mut pairs = [[&blocks[0]; 2]; 2];
    blocks.iter().enumerate().for_each(|(b, block)| pairs[b / 2][b % 2] = block);
    if N == 1 {
        pairs[0][1] = &blocks[0];
    }
    let usual = plan.rows <= USUAL_ROWS;
    // Rows of fused elements are so long that four superblocks' would leave the first-level cache before they are written.
    if N > 2 && plan.output != Output::Fused {
        if usual {
            look_up_pairs::<2, V, USUAL_ROWS>(tables, plan, &pairs, &mut done, target)?;
        } else {
            look_up_pairs::<2, V, MAX_ROWS>(tables, plan, &pairs, &mut done, target)?;
        }
        return Some(done);
    }
    for (pair, done) in pairs.iter().zip(done.chunks_mut(2)) {
        if usual {
            look_up_pairs::<1, V, USUAL_ROWS>(tables, plan, &[*pair], done, target)?;
        } else {
            look_up_pairs::<1, V, MAX_ROWS>(tables, plan, &[*pair], done, target)?;
        }
    }
    Some(done)
}

/// Rows of most superblocks.
const USUAL_ROWS: usize = 64;

/// As [`looked_up`] (whose caller is not to clear the stack for the largest buffers), for PAIRS pairs of at most ROWS rows, or the first of a pair.
#[inline(never)]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn look_up_pairs<const PAIRS: usize, const V: usize, const ROWS: usize>(
    tables: &DecodeTables,
    plan: &Plan,
    blocks: &[[&Full<'_>; 2]; PAIRS],
    done: &mut [Done],
    target: &mut Target<'_>,
) -> Option<()> {
    let t = LookUp::new(tables.registers()?, tables.table_bits(), tables.contexts());
    let mut states = [[[_mm512_setzero_si512(); 4]; 2]; PAIRS];
    let mut positions = [[0usize; 2]; PAIRS];
    let mut distances = [[DistanceRow::uninit(); ROWS]; PAIRS];
    let mut contexts = [[PairContext::uninit(); ROWS]; PAIRS];
    let mut of_row = [[0u32; ROWS]; PAIRS];
    let mut parts = contexts.iter_mut().zip(&mut of_row);
    let mut contexts: [Contexts<'_>; PAIRS] = std::array::from_fn(|_| {
        let (all, of_row) = parts.next().expect("as many");
        Contexts { all, of_row: &mut of_row[..plan.rows] }
    });
    for p in 0..PAIRS {
        for b in 0..2 {
            states[p][b] = first_states(blocks[p][b])?;
        }
        contexts[p].fill(&t, blocks[p]);
    }
    let mut parts = distances.iter_mut();
    let mut distances: [&mut [DistanceRow]; PAIRS] =
        std::array::from_fn(|_| parts.next().expect("as many").as_mut_slice());
    look_up::symbol_rows::<PAIRS, V>(&t, plan, blocks, &contexts, &mut states, &mut positions, &mut distances, target);
    let c = constants(tables, plan);
    for (b, done) in done.iter_mut().enumerate() {
        let (p, b) = (b / 2, b % 2);
        let block = blocks[p][b];
        let tails = carried(&states[p][b], block, plan, &mut positions[p][b])?;
        let patches = Patches::new(block, plan, positions[p][b])?;
        done.sum = join(&c, plan, block, Rows::Distances(distances[p], b, &patches), &tails, target);
    }
    Some(())
}

/// The patches of a superblock.
struct Patches<'a> {
    patches: &'a [[u8; PATCH_BYTES]],
    /// Shift of values to their places.
    shift: u32,
    /// A bit per row that has any.
    rows: [u64; MAX_ROWS / 64],
}

impl<'a> Patches<'a> {
    /// Those at `position` of the stream; `None` if one has no place, or the stream does not end behind them.
    #[inline]
    fn new(block: &Full<'a>, plan: &Plan, position: usize) -> Option<Self> {
        let end = position + PATCH_BYTES * usize::from(block.patches);
        if end.next_multiple_of(4) != block.stream.len() {
            return None;
        }
        let (patches, shift) = (block.stream[position..end].as_chunks().0, plan.layout.shift());
        let mut it = Self { patches, shift, rows: [0; MAX_ROWS / 64] };
        for patch in patches {
            let (row, _, value) = it.parts(*patch);
            if row >= plan.rows
                || u32::from(value >> shift) >> plan.layout.coded_bits() != 0
                || patch[2..] != (value >> shift).to_le_bytes()
            {
                return None;
            }
            it.rows[row / 64] |= 1 << (row % 64);
        }
        Some(it)
    }

    /// Row, column, and the value in its place.
    fn parts(&self, [p0, p1, v0, v1]: [u8; PATCH_BYTES]) -> (usize, usize, u16) {
        let at = usize::from(u16::from_le_bytes([p0, p1]));
        (at / LANES, at % LANES, u16::from_le_bytes([v0, v1]) << self.shift)
    }

    fn all(&self) -> impl Iterator<Item = (usize, usize, u16)> {
        self.patches.iter().map(|patch| self.parts(*patch))
    }

    #[inline]
    fn in_row(&self, row: usize) -> bool {
        (self.rows[row / 64] >> (row % 64)) & 1 == 1
    }

    /// Column and value of every patch in `row`.
    fn of_row(&self, row: usize) -> impl Iterator<Item = (usize, u16)> {
        self.all().filter(move |p| p.0 == row).map(|(_, col, value)| (col, value))
    }
}

/// Puts patched values in their places among the value words.
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn patch<const NARROW: bool>(patches: &Patches<'_>, values: &mut Values) {
    for (row, col, value) in patches.all() {
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
}

/// Asks for the lines that storing `row` will want, for its share of the raw field, and for words further on. Rows of a wide tensor
/// lie on pages of their own, and streams and raw fields change with every superblock: no hardware prefetcher looks far enough ahead.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
fn prefetch(plan: &Plan, block: &Full<'_>, row: usize, stream: *const u8, target: &Target<'_>) {
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
    for ahead in [raw, stream.wrapping_add(768)] {
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
