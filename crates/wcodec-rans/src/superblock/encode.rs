//! The encoder: rows last to first, lanes last to first.

use super::{Classes, PLAIN_STATES, Shape, raw_position, state_base};
use crate::bits::BitWriter;
use crate::error::{RansError, Result};
use crate::freq::TableSet;
use crate::layout::HeadLayout;
use crate::{LANES, STATE_LOW};

/// What one symbol needs to be coded in one context.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// ⌈2^(32+P) / freq⌉. For x < `limit` = freq·2^(32−P), x·reciprocal stays below 2^64 and, shifted right by 32 + P, is
    /// exactly ⌊x / freq⌋, since x·(reciprocal·freq − 2^(32+P)) < freq²·2^(32−P) < 2^(32+P).
    reciprocal: u64,
    /// States from here on shed a word first: freq·2^(32−P).
    limit: u32,
    freq: u16,
    start: u16,
    /// log2(2^P / freq) in 1/65536 bit.
    cost: u32,
}

/// One encoded superblock; the parts are stored where the caller's layout puts them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedSuperblock {
    /// State base, or [`PLAIN_STATES`].
    pub base: u8,
    /// Number of patches at the end of `stream`.
    pub patches: u16,
    /// States, [`Shape::state_bytes`] bytes.
    pub states: Vec<u8>,
    /// Raw field, [`Shape::raw_bytes`] bytes.
    pub raw: Vec<u8>,
    /// Words, overflow, patches; a multiple of 4 bytes.
    pub stream: Vec<u8>,
}

/// Encodes superblocks with one table set. Immutable: threads share it.
///
/// ```
/// use wcodec_rans::superblock::{Classes, DecodeTables, Encoder, Shape, Superblock, Target};
/// use wcodec_rans::{HeadLayout, TableSet};
///
/// let layout = HeadLayout::new(16, 6, true)?; // BF16
/// let heads: Vec<u16> = (0..64 * 64u32).map(|i| 0x3c00 | (i.wrapping_mul(2654435761) >> 20) as u16 & 0x83ff).collect();
/// let mut counts = vec![vec![0u64; 512]];
/// heads.iter().for_each(|&h| counts[0][usize::from(layout.coded(h))] += 1);
/// let tables = TableSet::from_counts(10, &counts)?;
///
/// let (shape, classes) = (Shape::new(64, 64)?, Classes { rows: &[0; 64], cols: &[0; 64] });
/// let packed = Encoder::new(layout, &tables)?.encode(&heads, shape, classes)?;
///
/// let mut out = vec![0u8; 64 * 64 * 2];
/// let block = Superblock { base: packed.base, patches: packed.patches, states: &packed.states, raw: &packed.raw, stream: &packed.stream };
/// DecodeTables::new(layout, &tables)?.decode(shape, classes, block, Target { bytes: &mut out, row_stride: 128, element_bytes: 2, head_offset: 0, low: &[] })?;
/// assert!(out.chunks(2).map(|b| u16::from_le_bytes([b[0], b[1]])).eq(heads));
/// # Ok::<(), wcodec_rans::RansError>(())
/// ```
#[derive(Debug)]
pub struct Encoder {
    layout: HeadLayout,
    table_bits: u32,
    contexts: usize,
    symbols: usize,
    /// Symbol of every field value; `symbols` where there is none.
    index: Vec<u16>,
    /// `contexts × symbols` slots.
    slots: Vec<Slot>,
    /// Per context the symbol that stands in for a value without a slot.
    stand_in: Vec<u16>,
}

impl Encoder {
    /// An encoder for heads of `layout`.
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when an alphabet value does not fit the coded field.
    pub fn new(layout: HeadLayout, tables: &TableSet) -> Result<Self> {
        let symbols = tables.values().len();
        let mut index = vec![symbols as u16; 1 << layout.coded_bits()];
        for (s, &v) in tables.values().iter().enumerate() {
            let Some(i) = index.get_mut(usize::from(v)) else {
                return Err(RansError::BadArgument("alphabet value wider than the coded field"));
            };
            *i = s as u16;
        }
        let p = tables.table_bits();
        let mut slots = Vec::with_capacity(tables.contexts() * symbols);
        let mut stand_in = Vec::with_capacity(tables.contexts());
        for table in tables.tables() {
            let top = (0..symbols).max_by_key(|&s| (table.freqs()[s], symbols - s)).unwrap_or(0);
            stand_in.push(top as u16);
            for (&freq, start) in table.freqs().iter().zip(table.starts()) {
                slots.push(Slot {
                    reciprocal: (1u64 << (32 + p)).div_ceil(u64::from(freq.max(1))),
                    limit: u32::from(freq) << (32 - p),
                    freq,
                    start,
                    cost: (p << 16) - log2_fixed(u32::from(freq.max(1))),
                });
            }
        }
        Ok(Self { layout, table_bits: p, contexts: tables.contexts(), symbols, index, slots, stand_in })
    }

    /// The split of heads that this encoder codes.
    pub fn layout(&self) -> HeadLayout {
        self.layout
    }

    /// Encodes `shape` heads given row by row.
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when `heads` or `classes` have another size than `shape`.
    pub fn encode(&self, heads: &[u16], shape: Shape, classes: Classes<'_>) -> Result<EncodedSuperblock> {
        classes.check(shape)?;
        if heads.len() != shape.elements() {
            return Err(RansError::BadArgument("heads must match the superblock's size"));
        }
        let (steps, patches) = self.steps(heads, shape, classes);
        let halves = raw_halfwords(heads, shape, self.layout);
        let carried: Option<Vec<u32>> = shape
            .carries(self.layout)
            .then(|| shape.lane_columns().map(|c| tail(&halves, shape, self.layout, c)).collect());

        let mut words = Vec::with_capacity(heads.len() / 3);
        let packed = carried.as_ref().and_then(|t| self.pack_states(&steps, shape, t, &mut words));
        let plain = packed.is_none();
        let (base, lengths, finals) = packed.unwrap_or_else(|| {
            let mut states = vec![STATE_LOW; shape.cols()];
            words.clear();
            self.run(&steps, shape, &mut states, |w| words.push(w));
            (PLAIN_STATES, vec![0; shape.cols()], states)
        });

        let mut states = Vec::with_capacity(shape.state_bytes());
        let mut overflow = BitWriter::new();
        for lane in 0..shape.cols() {
            let t = carried.as_ref().map(|c| c[lane]);
            let word = match t {
                Some(t) if !plain => {
                    let n = lengths[lane];
                    overflow.write(t, 31 - n);
                    (finals[lane] - state_base(base)) | (t & 0x8000_0000)
                }
                t => {
                    if let Some(t) = t {
                        overflow.write(t, 32);
                    }
                    finals[lane]
                }
            };
            states.extend_from_slice(&word.to_le_bytes());
        }

        let stored = 4 * shape.pairs() * shape.stored_halfwords(self.layout);
        let raw = halves.iter().flat_map(|h| h.to_le_bytes()).take(stored).collect();
        let mut stream: Vec<u8> = words.iter().rev().flat_map(|w| w.to_le_bytes()).collect();
        stream.extend(overflow.finish());
        stream.resize(stream.len().next_multiple_of(2), 0);
        for &(position, value) in &patches {
            stream.extend_from_slice(&position.to_le_bytes());
            stream.extend_from_slice(&value.to_le_bytes());
        }
        stream.resize(stream.len().next_multiple_of(4), 0);
        Ok(EncodedSuperblock { base, patches: patches.len() as u16, states, raw, stream })
    }

    /// Slot index of every element, row by row in lane order, and the patches.
    fn steps(&self, heads: &[u16], shape: Shape, classes: Classes<'_>) -> (Vec<u32>, Vec<(u16, u16)>) {
        let mut steps = Vec::with_capacity(heads.len());
        let mut patches = Vec::new();
        for (i, row) in heads.chunks_exact(shape.cols()).enumerate() {
            for j in shape.lane_columns() {
                let context = classes.context(i, j, self.contexts);
                let value = self.layout.coded(row[j]);
                let symbol = usize::from(self.index[usize::from(value)]);
                let slot = context * self.symbols + symbol;
                let codable = symbol < self.symbols && self.slots[slot].freq != 0;
                if codable {
                    steps.push(slot as u32);
                } else {
                    steps.push((context * self.symbols + usize::from(self.stand_in[context])) as u32);
                    patches.push(((i * LANES + j) as u16, value));
                }
            }
        }
        (steps, patches)
    }

    /// Runs every lane from `states` over all rows; `emit` gets the words, last decoded first.
    fn run(&self, steps: &[u32], shape: Shape, states: &mut [u32], mut emit: impl FnMut(u16)) {
        for row in steps.chunks_exact(shape.cols()).rev() {
            for (x, &slot) in states.iter_mut().zip(row).rev() {
                let slot = &self.slots[slot as usize];
                if *x >= slot.limit {
                    emit(*x as u16);
                    *x >>= 16;
                }
                *x = self.step(*x, slot);
            }
        }
    }

    #[inline]
    fn step(&self, x: u32, slot: &Slot) -> u32 {
        let q = ((u64::from(x) * slot.reciprocal) >> (32 + self.table_bits)) as u32;
        (q << self.table_bits) + (x - q * u32::from(slot.freq)) + u32::from(slot.start)
    }

    /// The state that one lane started at `x` ends in.
    fn run_lane(&self, steps: &[u32], shape: Shape, lane: usize, mut x: u32) -> u32 {
        for row in steps.chunks_exact(shape.cols()).rev() {
            let slot = &self.slots[row[lane] as usize];
            if x >= slot.limit {
                x >>= 16;
            }
            x = self.step(x, slot);
        }
        x
    }

    /// Finds the base and every lane's n, and leaves the words in `words`. `None` when no base serves all lanes.
    ///
    /// A lane's final state grows by one octave with n and wraps after 16, so one n of 16 lands it in a given octave,
    /// up to rounding: where it falls between two, another base moves the octave's edge.
    fn pack_states(
        &self,
        steps: &[u32],
        shape: Shape,
        carried: &[u32],
        words: &mut Vec<u16>,
    ) -> Option<(u8, Vec<u32>, Vec<u32>)> {
        let mut cost = vec![0u32; shape.cols()];
        for row in steps.chunks_exact(shape.cols()) {
            for (c, &slot) in cost.iter_mut().zip(row) {
                *c = c.wrapping_add(self.slots[slot as usize].cost);
            }
        }
        // A leading one and the upper n of T's low 31 bits: with n, the state moves by exact octaves.
        let start = |t: u32, n: u32| (0x8000_0000 | t) >> (31 - n);
        let lengths: Vec<u32> = carried
            .iter()
            .zip(&cost)
            .map(|(&t, &c)| {
                // log2 of the final state modulo 16, for n = 16; n makes it 15 and something.
                let log = (log2_fixed(start(t, 16)) + c) & 0xf_ffff;
                16 + ((15 - (log >> 16)) & 15)
            })
            .collect();
        let mut states: Vec<u32> = carried.iter().zip(&lengths).map(|(&t, &n)| start(t, n)).collect();
        words.clear();
        self.run(steps, shape, &mut states, |w| words.push(w));
        if states.iter().all(|&x| x >= state_base(0)) {
            return Some((0, lengths, states));
        }

        // The slow way: the neighbouring lengths' states too, then the smallest base that has a length for every lane.
        let turn = |n: u32, by: i32| 16 + ((n as i32 - 16 + by) & 15) as u32;
        let candidates: Vec<[(u32, u32); 3]> = (0..shape.cols())
            .map(|lane| {
                let at = |n: u32| (n, self.run_lane(steps, shape, lane, start(carried[lane], n)));
                let n = lengths[lane];
                [(n, states[lane]), at(turn(n, -1)), at(turn(n, 1))]
            })
            .collect();
        for base in 0..PLAIN_STATES {
            let low = state_base(base);
            let fits = |x: u32| x >= low && x - low < low;
            let picks: Option<Vec<(u32, u32)>> =
                candidates.iter().map(|c| c.iter().copied().find(|&(_, x)| fits(x))).collect();
            if let Some(picks) = picks {
                let lengths: Vec<u32> = picks.iter().map(|p| p.0).collect();
                let mut states: Vec<u32> = carried.iter().zip(&lengths).map(|(&t, &n)| start(t, n)).collect();
                words.clear();
                self.run(steps, shape, &mut states, |w| words.push(w));
                return Some((base, lengths, states));
            }
        }
        None
    }
}

/// log2 in 1/65536, rounded down: the mantissa squared once per fraction bit.
fn log2_fixed(x: u32) -> u32 {
    let n = x.ilog2();
    let mut mantissa = u64::from(x) << 31 >> n; // in [2^31, 2^32)
    let mut log = n;
    for _ in 0..16 {
        mantissa = (mantissa * mantissa) >> 31;
        let bit = (mantissa >> 32) as u32;
        mantissa >>= bit;
        log = (log << 1) | bit;
    }
    log
}

/// Raw halfwords of the whole superblock: halfword k of pair p at `k·pairs + p`.
fn raw_halfwords(heads: &[u16], shape: Shape, layout: HeadLayout) -> Vec<u32> {
    let (r, pairs) = (layout.raw_bits() as usize, shape.pairs());
    let mut halves = vec![0u32; pairs * shape.halfwords(layout)];
    if r == 0 {
        return halves;
    }
    for (i, row) in heads.chunks_exact(shape.cols()).enumerate() {
        let (k, bit) = raw_position(i, r);
        for (p, pair) in row.chunks(2).enumerate() {
            let mut codes = [layout.raw(pair[0]), pair.get(1).map_or(0, |&h| layout.raw(h))];
            if layout.sign() && pair.len() == 2 {
                codes = trade_signs(codes);
            }
            for (half, code) in codes.into_iter().enumerate() {
                let wide = u32::from(code) << bit;
                halves[k * pairs + p] |= (wide & 0xffff) << (16 * half);
                if bit + r > 16 {
                    halves[(k + 1) * pairs + p] |= (wide >> 16) << (16 * half);
                }
            }
        }
    }
    halves
}

/// Swaps bit 0 of the two raw codes of a pair.
pub(super) fn trade_signs([a, b]: [u16; 2]) -> [u16; 2] {
    [(a & !1) | (b & 1), (b & !1) | (a & 1)]
}

/// T of column `c`: its last two halfwords.
fn tail(halves: &[u32], shape: Shape, layout: HeadLayout, c: usize) -> u32 {
    let (last, pairs) = (shape.halfwords(layout) - 1, shape.pairs());
    let half = |k: usize| (halves[k * pairs + c / 2] >> (16 * (c % 2))) & 0xffff;
    half(last - 1) | (half(last) << 16)
}
