//! The encoder: rows last to first.
//!
//! What depends on the lanes alone (slots of all elements, the runs of the states, the raw field) is in `arch::encode`, in scalar and
//! vector form; here is what they are for: choosing where every lane starts, and putting the parts together.

use super::{Classes, PLAIN_STATES, Shape, state_base};
use crate::arch::encode::{EncodeTables, Lanes, Turn};
use crate::arch::{Backend, Isa};
use crate::error::{RansError, Result};
use crate::freq::TableSet;
use crate::layout::HeadLayout;
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
    /// Whether states carry raw bits.
    packs: bool,
}

/// Memory that encoding reuses from superblock to superblock.
#[derive(Debug, Default)]
pub struct Workspace {
    lanes: Lanes,
}

/// Where the parts of an encoded superblock are appended.
#[derive(Debug)]
pub struct Sink<'a> {
    /// Receives [`Shape::state_bytes`] bytes.
    pub states: &'a mut Vec<u8>,
    /// Receives [`Shape::raw_bytes`] bytes.
    pub raw: &'a mut Vec<u8>,
    /// Receives words, overflow, patches; a multiple of 4 bytes.
    pub stream: &'a mut Vec<u8>,
}

/// What the index says of an encoded superblock, beyond the length of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// State base, or [`PLAIN_STATES`].
    pub base: u8,
    /// Number of patches at the end of the stream.
    pub patches: u16,
}

impl Encoder {
    /// An encoder for heads of `layout`.
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when an alphabet value does not fit the coded field.
    pub fn new(layout: HeadLayout, tables: &TableSet) -> Result<Self> {
        Ok(Self { tables: EncodeTables::new(layout, tables)?, backend: Backend::auto(), packs: true })
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
        Self { packs: false, ..self }
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
        let mut packed = EncodedSuperblock::default();
        let sink = Sink { states: &mut packed.states, raw: &mut packed.raw, stream: &mut packed.stream };
        let encoded = self.append(heads, shape, classes, &mut Workspace::default(), sink)?;
        packed.base = encoded.base;
        packed.patches = encoded.patches;
        Ok(packed)
    }

    /// As [`Encoder::encode`], but appends the parts to vectors of the caller, and allocates nothing else when `work` has served before.
    ///
    /// # Errors
    /// As [`Encoder::encode`]; then nothing has been appended.
    pub fn append(
        &self,
        heads: &[u16],
        shape: Shape,
        classes: Classes<'_>,
        work: &mut Workspace,
        sink: Sink<'_>,
    ) -> Result<Encoded> {
        classes.check(shape)?;
        if heads.len() != shape.elements() {
            return Err(RansError::BadArgument("heads must match the superblock's size"));
        }
        let (layout, cols, lanes) = (self.layout(), shape.cols(), &mut work.lanes);
        lanes.resize(shape, layout);
        let mut costs = [0u32; LANES];
        let patched = self.backend.encode_slots(&self.tables, heads, shape, classes, lanes, &mut costs);
        self.backend.encode_raw(layout, heads, shape, lanes);

        let carries = shape.carries(layout);
        let tails = if carries { lanes.tails(shape) } else { [0; LANES] };
        let packed = if carries && self.packs { self.pack_states(shape, lanes, &tails, &costs) } else { None };
        let plain = packed.is_none();
        let (base, lengths, finals) = packed.unwrap_or_else(|| {
            let mut states = [STATE_LOW; LANES];
            self.backend.encode_run(&self.tables, shape, lanes, &mut states);
            (PLAIN_STATES, [0; LANES], states)
        });

        let start = sink.stream.len();
        self.backend.encode_words(shape, lanes, sink.stream);
        let mut overflow = Overflow { out: sink.stream, pending: 0, filled: 0 };
        for lane in 0..cols {
            let t = tails[lane];
            let word = if plain {
                if carries {
                    overflow.write(t, 32);
                }
                finals[lane]
            } else {
                overflow.write(t, 31 - lengths[lane]);
                (finals[lane] - state_base(base)) | (t & 0x8000_0000)
            };
            sink.states.extend_from_slice(&word.to_le_bytes());
        }
        overflow.finish();
        let stream = sink.stream;
        stream.resize(start + (stream.len() - start).next_multiple_of(2), 0);
        let mut patches = 0;
        if patched {
            for (i, j, value) in lanes.patches(layout, heads, shape) {
                stream.extend_from_slice(&((i * LANES + j) as u16).to_le_bytes());
                stream.extend_from_slice(&value.to_le_bytes());
                patches += 1;
            }
        }
        stream.resize(start + (stream.len() - start).next_multiple_of(4), 0);
        lanes.store_raw(shape, layout, sink.raw);
        Ok(Encoded { base, patches })
    }

    /// Runs the lanes from the best starts: the base, and every lane's n and final state. `None` when no base serves all lanes.
    ///
    /// A lane's final state grows by one octave with n and wraps after 16, so one n of 16 lands it in a given octave,
    /// up to rounding: the symbols' costs foretell it for nearly all lanes, a neighbouring n serves the others, and where
    /// a lane falls between two, another base moves the octave's edge.
    fn pack_states(
        &self,
        shape: Shape,
        lanes: &mut Lanes,
        tails: &[u32; LANES],
        costs: &[u32; LANES],
    ) -> Option<(u8, [u32; LANES], [u32; LANES])> {
        let cols = shape.cols();
        // A leading one and the upper n of T's low 31 bits: with n, the state moves by exact octaves.
        let start = |t: u32, n: u32| (0x8000_0000 | t) >> (31 - n);
        let (mut lengths, mut states) = ([16u32; LANES], [STATE_LOW; LANES]);
        for lane in 0..cols {
            // log2 of the final state modulo 16, for n = 16; n makes it 15 and something.
            let log = log2_of_start(start(tails[lane], 16)).wrapping_add(costs[lane]) & 0xf_ffff;
            lengths[lane] = 16 + ((15 - (log >> 16)) & 15);
            states[lane] = start(tails[lane], lengths[lane]);
        }
        self.backend.encode_run(&self.tables, shape, lanes, &mut states);

        let turned = |n: u32, up: bool| 16 + (if up { n + 1 } else { n - 1 } & 15);
        let mut turns: [[Option<Turn>; 2]; LANES] = [const { [const { None }; 2] }; LANES];
        'bases: for base in 0..PLAIN_STATES {
            let low = state_base(base);
            let fits = |x: u32| x >= low && x - low < low;
            let mut picks = [None; LANES];
            for lane in 0..cols {
                let x = states[lane];
                if fits(x) {
                    continue;
                }
                // Just below the octave one more bit helps; far below, that is, wrapped, one less.
                let up_first = x < low && x >= low / 2;
                picks[lane] = [up_first, !up_first].into_iter().find(|&up| {
                    let turn = turns[lane][usize::from(up)].get_or_insert_with(|| {
                        let n = turned(lengths[lane], up);
                        lanes.run_lane(&self.tables, shape, lane, n, start(tails[lane], n))
                    });
                    fits(turn.state)
                });
                if picks[lane].is_none() {
                    continue 'bases;
                }
            }
            for lane in 0..cols {
                let Some(up) = picks[lane] else { continue };
                if let Some(turn) = turns[lane][usize::from(up)].take() {
                    lanes.replace(shape, lane, &turn);
                    lengths[lane] = turn.n;
                    states[lane] = turn.state;
                }
            }
            return Some((base, lengths, states));
        }
        None
    }
}

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
pub(crate) const fn log2_fixed(x: u32) -> u32 {
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
fn log2_of_start(x: u32) -> u32 {
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
