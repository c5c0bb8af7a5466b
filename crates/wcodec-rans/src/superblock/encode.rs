//! The encoder: rows last to first.
//!
//! What depends on the lanes alone (slots of all elements, the runs of the states, the raw field) is in `arch::encode`, in scalar and
//! vector form; here is what they are for: choosing where every lane starts, and putting the parts together.

use std::ops::Range;

use super::{Classes, PLAIN_STATES, Shape, state_base};
use crate::arch::encode::{EncodeTables, Lanes, Turns};
use crate::arch::{Backend, Isa};
use crate::error::{RansError, Result};
use crate::layout::HeadLayout;
use crate::table_set::TableSet;
use crate::{LANES, STATE_LOW};

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
    tables: EncodeTables,
    backend: Backend,
    packing: Packing,
}

/// What the states of lanes that have a raw field carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    /// Nothing.
    Plain,
    /// Raw bits; bases from 0 to this one are as welcome as 0.
    Bits { bases: u8 },
}

/// Last base of [`Packing::Bits`] by default. Base b tells b/178 of a bit less per lane, and a
/// choice of bases saves most second runs of lanes.
const WELCOME_BASES: u8 = 16;

/// Memory that encoding reuses from superblock to superblock.
#[derive(Debug, Default)]
pub struct Workspace([Block; 2]);

/// A superblock on its way.
#[derive(Debug, Default)]
struct Block {
    heads: Vec<u16>,
    lanes: Lanes,
    ends: Ends,
    turns: Turns,
}

/// Where lanes start and end.
#[derive(Debug)]
struct Ends {
    /// T of every lane.
    tails: [u32; LANES],
    /// n of every lane.
    lengths: [u32; LANES],
    /// First the encoder's first states, then its last ones.
    states: [u32; LANES],
    /// The base aimed at; none for plain states.
    aim: Option<u8>,
}

impl Default for Ends {
    fn default() -> Self {
        Self { tails: [0; LANES], lengths: [0; LANES], states: [STATE_LOW; LANES], aim: None }
    }
}

/// Elements to encode: a superblock inside rows of bytes. The counterpart of [`super::Target`].
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The first element's first byte, and everything behind it that the superblock spans.
    pub bytes: &'a [u8],
    /// Bytes from one row to the next.
    pub row_stride: usize,
    /// Bytes of an element: 1, 2, 4 or 8; its head is the last one or two.
    pub element_bytes: usize,
}

/// A superblock to encode, and where its parts go.
#[derive(Debug)]
pub struct Task<'a> {
    /// Its elements.
    pub source: Source<'a>,
    /// Their classes.
    pub classes: Classes<'a>,
    /// Filled with the states: [`Shape::state_bytes`] bytes.
    pub states: &'a mut [u8],
    /// Filled with the raw field: [`Shape::raw_bytes`] bytes.
    pub raw: &'a mut [u8],
}

/// What the index says of an encoded superblock, beyond the length of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// State base, or [`PLAIN_STATES`].
    pub base: u8,
    /// Number of patches at the end of the stream.
    pub patches: u16,
    /// Bytes of the stream.
    pub stream_bytes: usize,
}

impl Encoder {
    /// An encoder for heads of `layout`.
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when an alphabet value does not fit the coded field.
    pub fn new(layout: HeadLayout, tables: &TableSet) -> Result<Self> {
        let packing = Packing::Bits { bases: WELCOME_BASES };
        Ok(Self { tables: EncodeTables::new(layout, tables)?, backend: Backend::auto(), packing })
    }

    /// The same tables, encoding with `isa` only. For tests and comparisons; the bytes are the same with all.
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when the CPU lacks it.
    pub fn with_isa(self, isa: Isa) -> Result<Self> {
        let backend = Backend::new(isa).ok_or(RansError::BadArgument("this CPU lacks the instruction set"))?;
        Ok(Self { backend, ..self })
    }

    /// The same tables, with states that carry nothing: larger superblocks, to measure what carrying gains.
    pub fn with_plain_states(self) -> Self {
        Self { packing: Packing::Plain, ..self }
    }

    /// The same tables, with the states that take the fewest bits, whatever the time.
    pub fn with_tightest_states(self) -> Self {
        Self { packing: Packing::Bits { bases: 0 }, ..self }
    }

    /// The split of heads that this encoder codes.
    pub fn layout(&self) -> HeadLayout {
        self.tables.layout
    }

    /// Encodes `shape` heads given row by row.
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when `heads` or `classes` have another size than `shape`.
    pub fn encode(&self, heads: &[u16], shape: Shape, classes: Classes<'_>) -> Result<EncodedSuperblock> {
        if heads.len() != shape.elements() {
            return Err(RansError::BadArgument("heads must match the superblock's size"));
        }
        let mut packed = EncodedSuperblock {
            states: vec![0; shape.state_bytes()],
            raw: vec![0; shape.raw_bytes(self.layout())],
            ..EncodedSuperblock::default()
        };
        classes.check(shape)?;
        let mut block = Block { heads: heads.to_vec(), ..Block::default() };
        self.start(shape, classes, &mut block);
        self.backend.encode_run(&self.tables, shape, [&mut block.lanes], [&mut block.ends.states]);
        let encoded = self.finish(shape, &mut block, &mut packed.states, &mut packed.raw, &mut packed.stream);
        packed.base = encoded.base;
        packed.patches = encoded.patches;
        Ok(packed)
    }

    /// As [`Encoder::encode`], of one superblock or, in less time, of two side by side; takes heads from elements and puts the parts where the
    /// caller wants them. To `stream` are appended words, overflow and patches, a multiple of 4 bytes. Allocates nothing but the
    /// stream's growth when `work` has served before.
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when a part of a task has another size than `shape`; then nothing has been written.
    pub fn append<const N: usize>(
        &self,
        shape: Shape,
        tasks: [Task<'_>; N],
        work: &mut Workspace,
        stream: &mut Vec<u8>,
    ) -> Result<[Encoded; N]> {
        const { assert!(N == 1 || N == 2) };
        tasks.iter().try_for_each(|task| self.check(shape, task))?;
        for (task, block) in tasks.iter().zip(&mut work.0) {
            let Source { bytes, row_stride, element_bytes } = task.source;
            block.heads.resize(shape.elements(), 0);
            self.backend.encode_heads(bytes, row_stride, element_bytes, self.layout(), shape, &mut block.heads);
            self.start(shape, task.classes, block);
        }
        let [a, b] = &mut work.0;
        if N == 2 {
            let states = [&mut a.ends.states, &mut b.ends.states];
            self.backend.encode_run(&self.tables, shape, [&mut a.lanes, &mut b.lanes], states);
        } else {
            self.backend.encode_run(&self.tables, shape, [&mut a.lanes], [&mut a.ends.states]);
        }
        let mut blocks = work.0.iter_mut();
        Ok(tasks.map(|task| {
            let block = blocks.next().expect("two of them");
            self.finish(shape, block, task.states, task.raw, stream)
        }))
    }

    fn check(&self, shape: Shape, task: &Task<'_>) -> Result<()> {
        let Task { source, classes, states, raw } = task;
        let row_bytes = shape.cols() * source.element_bytes;
        let spanned = (shape.rows() - 1) * source.row_stride + row_bytes;
        if !matches!(source.element_bytes, 1 | 2 | 4 | 8)
            || source.element_bytes < self.layout().bytes()
            || source.row_stride < row_bytes
            || source.bytes.len() < spanned
        {
            return Err(RansError::BadArgument("elements must span the superblock"));
        }
        if states.len() != shape.state_bytes() || raw.len() != shape.raw_bytes(self.layout()) {
            return Err(RansError::BadArgument("room for states and raw field must match the superblock"));
        }
        classes.check(shape)
    }

    /// Everything before the run of the states: slots, raw codes, and the best starts.
    ///
    /// A lane's final state grows by one octave with n and wraps after 16, so one n of 16 lands it in a given octave, up to rounding:
    /// the symbols' costs foretell it. A base moves the octave's edges; one of the welcome bases is aimed at that is far from what is
    /// foretold of every lane.
    fn start(&self, shape: Shape, classes: Classes<'_>, block: &mut Block) {
        let (layout, cols, Block { heads, lanes, ends, .. }) = (self.layout(), shape.cols(), block);
        lanes.resize(shape, layout);
        self.backend.encode_slots(&self.tables, heads, shape, classes, lanes);
        self.backend.encode_raw(layout, heads, shape, lanes);
        *ends = Ends::default();
        if !shape.carries(layout) {
            return;
        }
        ends.tails = lanes.tails(shape);
        let Packing::Bits { bases } = self.packing else { return };
        let mut logs = [0; LANES];
        self.backend.encode_costs(&self.tables, shape, lanes, &mut logs);
        for (log, &t) in logs[..cols].iter_mut().zip(&ends.tails) {
            // log2 of the final state, for n = 16.
            *log = log.wrapping_add(log2_of_start(start(t, 16)));
        }
        let aim = if bases == 0 { 0 } else { quiet_base(&logs[..cols], bases) };
        ends.aim = Some(aim);
        let edge = (8 << 16) - log2_fixed(256 - u32::from(aim));
        for lane in 0..cols {
            // Modulo 16 octaves: n makes it 15 above the edge and something.
            let above = logs[lane].wrapping_add(edge) >> 16;
            ends.lengths[lane] = 16 + (15u32.wrapping_sub(above) & 15);
            ends.states[lane] = start(ends.tails[lane], ends.lengths[lane]);
        }
    }

    /// Everything behind the run: the base, lanes that run again for it, and the parts put together.
    fn finish(
        &self,
        shape: Shape,
        block: &mut Block,
        states: &mut [u8],
        raw: &mut [u8],
        stream: &mut Vec<u8>,
    ) -> Encoded {
        let (layout, cols, Block { heads, lanes, ends, turns }) = (self.layout(), shape.cols(), block);
        let carries = shape.carries(layout);
        let base = ends.aim.and_then(|aim| self.settle(shape, lanes, ends, turns, aim));
        if ends.aim.is_some() && base.is_none() {
            ends.states = [STATE_LOW; LANES];
            self.backend.encode_run(&self.tables, shape, [lanes], [&mut ends.states]);
        }

        let first = stream.len();
        self.backend.encode_words(shape, lanes, stream);
        let mut overflow = Overflow { out: stream, pending: 0, filled: 0 };
        for ((lane, stored), &t) in states.chunks_exact_mut(4).enumerate().zip(&ends.tails[..cols]) {
            let word = match base {
                Some(base) => {
                    overflow.write(t, 31 - ends.lengths[lane]);
                    (ends.states[lane] - state_base(base)) | (t & 0x8000_0000)
                }
                None => {
                    if carries {
                        overflow.write(t, 32);
                    }
                    ends.states[lane]
                }
            };
            stored.copy_from_slice(&word.to_le_bytes());
        }
        overflow.finish();
        stream.resize(first + (stream.len() - first).next_multiple_of(2), 0);
        let mut patches = 0;
        for (i, j, value) in lanes.patches(layout, heads, shape) {
            stream.extend_from_slice(&((i * LANES + j) as u16).to_le_bytes());
            stream.extend_from_slice(&value.to_le_bytes());
            patches += 1;
        }
        stream.resize(first + (stream.len() - first).next_multiple_of(4), 0);
        for (bytes, half) in raw.chunks_exact_mut(4).zip(&lanes.halves) {
            bytes.copy_from_slice(&half.to_le_bytes());
        }
        Encoded { base: base.unwrap_or(PLAIN_STATES), patches, stream_bytes: stream.len() - first }
    }

    /// The base for lanes that were aimed at one; `None` when none serves all. What happened mostly fits some base. Where it does not, single
    /// lanes run again with a neighbouring n.
    fn settle(&self, shape: Shape, lanes: &mut Lanes, ends: &mut Ends, turns: &mut Turns, aim: u8) -> Option<u8> {
        let states = &ends.states[..shape.cols()];
        let least = states.iter().fold(u32::MAX, |least, &x| least.min(x));
        let most = states.iter().fold(0, |most, &x| most.max(x));
        let lowest = (1u32 << 31).saturating_sub(least).div_ceil(1 << 23).min(PLAIN_STATES.into()) as u8;
        if lowest < PLAIN_STATES && u64::from(most) < 2 * u64::from(state_base(lowest)) {
            return Some(lowest);
        }
        self.turn_misfits(shape, lanes, ends, turns, aim)
    }

    /// Runs lanes that do not fit again, with a neighbouring n, and finds the first base that then serves all; from `aim` on, a window of
    /// bases at a time. Where a lane ends up is an octave away from where it was only up to rounding, so about ten bases miss a lane
    /// with either n.
    fn turn_misfits(&self, shape: Shape, lanes: &mut Lanes, ends: &mut Ends, turns: &mut Turns, aim: u8) -> Option<u8> {
        let Ends { tails, lengths, states, .. } = ends;
        let windows = [u32::from(aim)..u32::from(PLAIN_STATES), 0..u32::from(aim)];
        let windows = windows.into_iter().flat_map(|bases| {
            let end = bases.end;
            bases.step_by(WINDOW as usize).map(move |first| first..(first + WINDOW).min(end))
        });
        turns.clear();
        for window in windows {
            let (highest, lowest) = (state_base(window.start as u8), state_base(window.end as u8 - 1));
            // Lanes that some base of the window does not serve. Just below its octave one more bit helps; far below, that is,
            // wrapped, or above it, one less.
            let open = |x: u32| x < highest || u64::from(x) >= 2 * u64::from(lowest);
            let n_for = |x: u32, n: u32| 16 + (if x < highest && x >= highest / 2 { n + 1 } else { n - 1 } & 15);
            let misfits = || (0..shape.cols()).filter(|&lane| open(states[lane]));
            let wanted: Vec<(usize, u32, u32)> = misfits()
                .map(|lane| (lane, n_for(states[lane], lengths[lane])))
                .filter(|&(lane, n)| turns.find(lane, n).is_none())
                .map(|(lane, n)| (lane, n, start(tails[lane], n)))
                .collect();
            lanes.run_lanes(&self.tables, shape, &wanted, turns);
            let all = u32::MAX >> (32 - window.len());
            let fitting = misfits().fold(all, |fitting, lane| {
                let turned = turns.find(lane, n_for(states[lane], lengths[lane]));
                let turned = turned.map_or(0, |turn| bases_of(turn.state, &window));
                fitting & (bases_of(states[lane], &window) | turned)
            });
            if fitting == 0 {
                continue;
            }
            let place = fitting.trailing_zeros();
            for lane in misfits().collect::<Vec<_>>() {
                let n = n_for(states[lane], lengths[lane]);
                let Some(turn) = turns.find(lane, n).filter(|_| bases_of(states[lane], &window) >> place & 1 == 0)
                else {
                    continue;
                };
                lanes.replace(shape, turns, turn);
                (lengths[lane], states[lane]) = (turn.n, turn.state);
            }
            return Some((window.start + place) as u8);
        }
        None
    }
}

/// Bases that are looked at together.
const WINDOW: u32 = 4;

/// Which bases of a window serve a lane that ends with state `x`, A ≤ x < 2A, as bits.
fn bases_of(x: u32, window: &Range<u32>) -> u32 {
    let first = (1u32 << 31).saturating_sub(x).div_ceil(1 << 23).max(window.start);
    let end = ((1u64 << 32) - u64::from(x)).div_ceil(1 << 24).min(window.end.into()) as u32;
    if first < end { u32::MAX >> (32 - (end - first)) << (first - window.start) } else { 0 }
}

/// A leading one and the upper n of T's low 31 bits: with n, the state moves by exact octaves.
fn start(t: u32, n: u32) -> u32 {
    (0x8000_0000 | t) >> (31 - n)
}

/// The base up to `last` whose edge is farthest from where `logs`, in 1/65536 octave, put the lanes; the lowest of equals.
fn quiet_base(logs: &[u32], last: u8) -> u8 {
    // An octave's edge for base b is 2^31·(1 − b/256). A lane that is u below the next octave is between the edges of b and b + 1
    // for b = ⌊256·(1 − 2^−u)⌋, and a circle of 128 such places is the octave.
    let mut taken = 0u128;
    for log in logs {
        let below = 0xffff - (log & 0xffff);
        taken |= 1 << PLACES[(below >> 8) as usize];
    }
    let welcome = (1u128 << (last + 1)) - 1;
    let free = !taken;
    let (mut quiet, mut best) = (u128::MAX, 0);
    for reach in 0..64 {
        // Edge b has place b on one side, place b − 1 on the other.
        quiet &= free.rotate_right(reach) & free.rotate_left(reach + 1);
        if quiet & welcome == 0 {
            break;
        }
        best = (quiet & welcome).trailing_zeros() as u8;
    }
    best
}

/// ⌊256·(1 − 2^−u)⌋ for u = (i + ½)/256.
const PLACES: [u8; 256] = {
    let mut places = [0; 256];
    let mut place = 0;
    let mut i = 0u32;
    while i < 256 {
        // Place p ends where 256 − p − 1 = 256·2^−u.
        while ((8 << 16) - log2_fixed(255 - place as u32)) <= i * 256 + 128 && place < 127 {
            place += 1;
        }
        places[i as usize] = place;
        i += 1;
    }
    places
};

/// Bits behind the words, lowest first.
struct Overflow<'a> {
    out: &'a mut Vec<u8>,
    pending: u64,
    filled: u32,
}

impl Overflow<'_> {
    fn write(&mut self, value: u32, bits: u32) {
        self.pending |= (u64::from(value) & ((1u64 << bits) - 1)) << self.filled;
        self.filled += bits;
        if self.filled >= 32 {
            self.out.extend_from_slice(&(self.pending as u32).to_le_bytes());
            self.pending >>= 32;
            self.filled -= 32;
        }
    }

    fn finish(self) {
        let bytes = self.filled.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.pending.to_le_bytes()[..bytes]);
    }
}

/// log2 in 1/65536, rounded down: the mantissa squared once per fraction bit.
const fn log2_fixed(x: u32) -> u32 {
    let n = x.ilog2();
    let mut mantissa = (x as u64) << 31 >> n; // in [2^31, 2^32)
    let mut log = n;
    let mut i = 0;
    while i < 16 {
        mantissa = (mantissa * mantissa) >> 31;
        let bit = (mantissa >> 32) as u32;
        mantissa >>= bit;
        log = (log << 1) | bit;
        i += 1;
    }
    log
}

/// About log2 of x ∈ [2^16, 2^17) in 1/65536: linear between 257 points, within 1/65536 or so. What it foretells is checked.
pub(crate) fn log2_of_start(x: u32) -> u32 {
    const POINTS: [u32; 257] = {
        let mut points = [0; 257];
        let mut i = 0;
        while i < 257 {
            points[i] = log2_fixed((1 << 16) + ((i as u32) << 8));
            i += 1;
        }
        points
    };
    let at = ((x >> 8) & 255) as usize;
    POINTS[at] + (((POINTS[at + 1] - POINTS[at]) * (x & 255)) >> 8)
}

/// Swaps bit 0 of the two raw codes of a pair.
pub(crate) fn trade_signs([a, b]: [u16; 2]) -> [u16; 2] {
    [(a & !1) | (b & 1), (b & !1) | (a & 1)]
}
