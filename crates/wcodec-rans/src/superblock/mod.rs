//! Superblocks: R rows × up to 64 columns, one rANS state (*lane*) per column, one stream of 16-bit words.
//!
//! # Lanes
//! Lane s < 32 is column 2s, lane s ≥ 32 is column 2(s − 32) + 1: a GPU thread t holds lanes t and t + 32, which are
//! neighbouring columns. A superblock narrower than 64 columns has fewer lanes, in the same order. Row by row, every
//! lane decodes one symbol; then, in lane order, each lane whose state fell below 2^16 takes the next word.
//!
//! # Raw field
//! The raw codes (r bits) of one column are concatenated downwards into halfwords of 16 bits, 16 rows at a time (a group
//! of g rows takes ⌈r·g/16⌉ halfwords). Halfword k of a column pair is one 32-bit word, even column low. Where the head
//! has a sign, the two columns of a pair trade their sign bits (bit 0 of the raw code), so that one rotation of the word
//! brings signs and low bits of both columns to their places.
//!
//! # State packing
//! Sixty-four states of 32 bits would cost 1.3 % of a 64-row BF16 superblock. They cost next to nothing, because both
//! ends of a lane carry data. Let T be the last two halfwords of a column's raw field, which are *not* stored with the
//! others:
//! - the encoder starts a lane at 1‖(bits 30 to 31 − n of T), a number of n + 1 bits, 16 ≤ n ≤ 31, so the decoder finds
//!   n bits of T below the leading one of its final state;
//! - n is chosen such that the final encoder state lands in [A, 2A), where A = 2^31 − base·2^23: 31 bits say it, and
//!   bit 31 of T takes the free bit of the stored word;
//! - the 31 − n low bits of T follow the words, in lane order (*overflow*).
//!
//! A superblock for which no base puts every lane in its octave has base [`PLAIN_STATES`]: lanes start at 2^16, states
//! are stored whole and T is in the overflow. So has one with less than two halfwords of raw field; that has no T.
//!
//! # Patches
//! An element whose value has no slot in its context's table is coded as another symbol and corrected afterwards.

mod decode;
mod encode;
mod scalar;

pub use decode::{DecodeTables, Job, Superblock, Target};
pub use encode::{Encoded, EncodedSuperblock, Encoder, Source, Task, Workspace};
pub(crate) use encode::{log2_of_start, trade_signs};

use crate::LANES;
use crate::error::{RansError, Result};
use crate::layout::HeadLayout;

/// Most rows of a superblock.
pub const MAX_ROWS: usize = 512;
/// Rows of a group, the unit of raw packing.
pub const GROUP_ROWS: usize = 16;
/// The `base` of a superblock whose states are stored whole.
pub const PLAIN_STATES: u8 = 255;
/// Bytes of one patch: position `row · 64 + column` (u16), coded field (u16).
pub const PATCH_BYTES: usize = 4;

/// Lower end A of the octave that final encoder states are brought into.
pub(crate) fn state_base(base: u8) -> u32 {
    (1 << 31) - (u32::from(base) << 23)
}

/// Rows and columns of one superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    rows: u16,
    cols: u8,
}

impl Shape {
    /// A superblock of `rows` (1 to 512) × `cols` (1 to 64).
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when out of range.
    pub fn new(rows: usize, cols: usize) -> Result<Self> {
        if !(1..=MAX_ROWS).contains(&rows) || !(1..=LANES).contains(&cols) {
            return Err(RansError::BadArgument("a superblock has 1 to 512 rows and 1 to 64 columns"));
        }
        Ok(Self { rows: rows as u16, cols: cols as u8 })
    }

    /// Rows, 1 to 512.
    pub fn rows(self) -> usize {
        usize::from(self.rows)
    }

    /// Columns, 1 to 64.
    pub fn cols(self) -> usize {
        usize::from(self.cols)
    }

    /// Elements.
    pub fn elements(self) -> usize {
        self.rows() * self.cols()
    }

    /// Column pairs, the last one possibly of a single column.
    pub(crate) fn pairs(self) -> usize {
        self.cols().div_ceil(2)
    }

    /// Halfwords of raw field per column.
    pub(crate) fn halfwords(self, layout: HeadLayout) -> usize {
        let r = layout.raw_bits() as usize;
        r * (self.rows() / GROUP_ROWS) + (r * (self.rows() % GROUP_ROWS)).div_ceil(16)
    }

    /// Whether the last two halfwords of raw field travel in the states.
    pub(crate) fn carries(self, layout: HeadLayout) -> bool {
        self.halfwords(layout) >= 2
    }

    /// Halfwords of raw field per column that are stored as such.
    pub(crate) fn stored_halfwords(self, layout: HeadLayout) -> usize {
        let all = self.halfwords(layout);
        if all >= 2 { all - 2 } else { all }
    }

    /// Bytes of the stored raw field.
    pub fn raw_bytes(self, layout: HeadLayout) -> usize {
        4 * self.pairs() * self.stored_halfwords(layout)
    }

    /// Bytes of the stored states.
    pub fn state_bytes(self) -> usize {
        4 * self.cols()
    }

    /// Columns in lane order.
    pub(crate) fn lane_columns(self) -> impl DoubleEndedIterator<Item = usize> + Clone {
        let cols = self.cols();
        (0..cols).step_by(2).chain((1..cols).step_by(2))
    }
}

/// Scale classes of the rows and columns of one superblock.
///
/// The context of an element is `clamp(rows[i] + cols[j], 0, K - 1)`.
#[derive(Debug, Clone, Copy)]
pub struct Classes<'a> {
    /// One class per row.
    pub rows: &'a [u8],
    /// One class per column.
    pub cols: &'a [i8],
}

impl Classes<'_> {
    /// The context of row `i`, column `j` among `contexts` tables.
    #[inline]
    pub fn context(&self, i: usize, j: usize, contexts: usize) -> usize {
        (i32::from(self.rows[i]) + i32::from(self.cols[j])).clamp(0, contexts as i32 - 1) as usize
    }

    pub(crate) fn check(&self, shape: Shape) -> Result<()> {
        if self.rows.len() != shape.rows() || self.cols.len() != shape.cols() {
            return Err(RansError::BadArgument("classes must match the superblock's rows and columns"));
        }
        Ok(())
    }
}

/// Where raw code `row` of a column starts: halfword index and bit.
pub(crate) fn raw_position(row: usize, raw_bits: usize) -> (usize, usize) {
    let bit = raw_bits * (row % GROUP_ROWS);
    (raw_bits * (row / GROUP_ROWS) + bit / 16, bit % 16)
}

#[cfg(test)]
mod tests;
