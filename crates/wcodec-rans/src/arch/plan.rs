//! What all vector decoders derive from a shape and a layout before the first row.

use crate::LANES;
use crate::layout::HeadLayout;
use crate::superblock::{Classes, GROUP_ROWS, PLAIN_STATES, Shape, Superblock, Target, state_base};

/// Slots of the ring of value words, the largest [`Plan::delay`].
pub(crate) const RING: usize = 32;

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

/// One full superblock, its parts in the sizes that fullness implies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Full<'a> {
    pub(crate) rows: &'a [u8],
    pub(crate) cols: &'a [i8; LANES],
    pub(crate) states: &'a [u8; 4 * LANES],
    pub(crate) raw: &'a [u8],
    pub(crate) stream: &'a [u8],
    /// Lower end of the stored states' octave; `None` when they are stored whole.
    pub(crate) base: Option<u32>,
    /// Where in the target the first element lies.
    pub(crate) offset: usize,
    /// Low bytes to be written along, or empty.
    pub(crate) low: &'a [u8],
}

impl<'a> Full<'a> {
    /// The superblock, if `shape` is full and its parts have the sizes that `shape` says.
    pub(crate) fn new(
        shape: Shape,
        classes: Classes<'a>,
        block: Superblock<'a>,
        offset: usize,
        low: &'a [u8],
    ) -> Option<Self> {
        if !shape.is_full() {
            return None;
        }
        Some(Self {
            rows: classes.rows,
            cols: classes.cols.try_into().ok()?,
            states: block.states.try_into().ok()?,
            raw: block.raw,
            stream: block.stream,
            base: (block.base != PLAIN_STATES).then(|| state_base(block.base)),
            offset,
            low,
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
    /// Rows between decoding a row and storing it: those before the last `delay` need no carried halfword.
    pub(crate) delay: usize,
    pub(crate) output: Output,
}

impl Plan {
    pub(crate) fn new(shape: Shape, layout: HeadLayout, target: &Target<'_>, low: bool) -> Self {
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
            // Two halfwords are at most one group of rows from 2 bits on, two groups at 1 bit.
            delay: if raw_bits == 1 { shape.rows().min(RING) } else { GROUP_ROWS },
            output,
        }
    }

    /// Halfword and bit at which the raw code of `row` starts, and the halfword in which it ends.
    #[inline]
    pub(crate) fn raw_position(&self, row: usize) -> (usize, usize, usize) {
        let bit = self.raw_bits * (row % GROUP_ROWS);
        let first = self.raw_bits * (row / GROUP_ROWS) + bit / 16;
        let bit = bit % 16;
        (first, bit, first + usize::from(bit + self.raw_bits > 16))
    }
}

/// Writes the heads (and low bytes) of one row into elements that are larger than a head.
pub(crate) fn scatter<const BYTES: usize>(
    heads: &[u8],
    block: &Full<'_>,
    row: usize,
    target: &mut Target<'_>,
) {
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
