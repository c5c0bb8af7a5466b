//! What all vector decoders derive from a shape and a layout before the first row.

use crate::LANES;
use crate::layout::HeadLayout;
use crate::superblock::{Job, PLAIN_STATES, Shape, Target, state_base};

/// Most bytes of words that one row takes.
pub(crate) const ROW_WINDOW: usize = 2 * LANES;

/// How the heads of a row reach the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// 16-bit heads side by side.
    Words,
    /// 16-bit heads on top of 16 low bits each.
    Fused,
    /// 8-bit heads side by side.
    Bytes,
    /// 16-bit heads, each inside a larger element.
    ScatteredWords,
    /// 8-bit heads, each inside a larger element.
    ScatteredBytes,
}

impl Output {
    /// Whether heads have 8 bits.
    pub(crate) fn narrow(self) -> bool {
        matches!(self, Self::Bytes | Self::ScatteredBytes)
    }
}

// [`Output`] as const arguments.
pub(crate) const WORDS: u8 = 0;
pub(crate) const FUSED: u8 = 1;
pub(crate) const BYTES: u8 = 2;
pub(crate) const SCATTERED_WORDS: u8 = 3;
pub(crate) const SCATTERED_BYTES: u8 = 4;

/// Whether heads have 8 bits.
pub(crate) const fn narrow(out: u8) -> bool {
    out == BYTES || out == SCATTERED_BYTES
}

/// One full superblock, 64 columns wide, its parts in the sizes that this implies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Full<'a> {
    pub(crate) rows: &'a [u8],
    pub(crate) cols: &'a [i8; LANES],
    pub(crate) states: &'a [u8; 4 * LANES],
    pub(crate) raw: &'a [u8],
    pub(crate) stream: &'a [u8],
    /// The stream and what may be read behind it. Positions beyond the stream's end are found when they are held against it.
    pub(crate) readable: &'a [u8],
    /// Lower end of the stored states' octave; `None` when they are stored whole.
    pub(crate) base: Option<u32>,
    /// Where in the target the first element lies.
    pub(crate) offset: usize,
    /// Low bytes to be written along, or empty.
    pub(crate) low: &'a [u8],
    /// Patches at the stream's end.
    pub(crate) patches: u16,
}

/// A superblock that a backend has decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    /// Where in its stream the patches begin, if the backend has not applied them.
    pub(crate) patches: Option<usize>,
    /// The sum of its bytes ([`crate::crc`]), if asked for and all of them went through registers.
    pub(crate) sum: Option<u32>,
}

impl<'a> Full<'a> {
    /// The superblock, if it has all 64 lanes.
    pub(crate) fn new(job: &Job<'a>) -> Option<Self> {
        let block = &job.block;
        let stream = block.stream;
        let ahead = job.readable.len() >= stream.len() && std::ptr::eq(job.readable.as_ptr(), stream.as_ptr());
        Some(Self {
            rows: job.classes.rows,
            cols: job.classes.cols.try_into().ok()?,
            states: block.states.try_into().ok()?,
            raw: block.raw,
            stream,
            readable: if ahead { job.readable } else { stream },
            base: (block.base != PLAIN_STATES).then(|| state_base(block.base)),
            offset: job.offset,
            low: job.low,
            patches: block.patches,
        })
    }
}

/// Sizes and positions that depend only on shape, layout and target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rows: usize,
    pub(crate) raw_bits: usize,
    pub(crate) layout: HeadLayout,
    /// Halfwords of raw field per column that lie in [`Full::raw`].
    pub(crate) stored: usize,
    /// Whether two more halfwords come out of the states.
    pub(crate) carries: bool,
    pub(crate) output: Output,
    /// Whether each superblock's bytes are to be summed, and then what carries a sum from row to row ([`crate::crc::distance`]).
    pub(crate) sums: Option<[u64; 2]>,
}

impl Plan {
    pub(crate) fn new(
        shape: Shape,
        layout: HeadLayout,
        target: &Target<'_>,
        low: bool,
        sums: Option<[u64; 2]>,
    ) -> Self {
        let raw_bits = layout.raw_bits() as usize;
        let output = match (layout.bytes(), target.element_bytes, low) {
            (2, 2, _) => Output::Words,
            (2, 4, true) if target.head_offset == 2 => Output::Fused,
            (2, ..) => Output::ScatteredWords,
            (_, 1, _) => Output::Bytes,
            _ => Output::ScatteredBytes,
        };
        Self {
            rows: shape.rows(),
            raw_bits,
            layout,
            stored: shape.stored_halfwords(layout),
            carries: shape.carries(layout),
            output,
            sums,
        }
    }
}

/// Writes the heads (and low bytes) of one row into elements that are larger than a head.
pub(crate) fn scatter<const BYTES: usize>(heads: &[u8], block: &Full<'_>, row: usize, target: &mut Target<'_>) {
    let (size, below) = (target.element_bytes, target.head_offset);
    let at = block.offset + row * target.row_stride;
    let elements = target.bytes[at..at + LANES * size].chunks_exact_mut(size);
    for (element, head) in elements.zip(heads.chunks_exact(BYTES)).take(LANES) {
        element[below..below + BYTES].copy_from_slice(head);
    }
    if !block.low.is_empty() && below > 0 {
        let low = &block.low[row * LANES * below..(row + 1) * LANES * below];
        let elements = target.bytes[at..at + LANES * size].chunks_exact_mut(size);
        for (element, bytes) in elements.zip(low.chunks_exact(below)) {
            element[..below].copy_from_slice(bytes);
        }
    }
}
