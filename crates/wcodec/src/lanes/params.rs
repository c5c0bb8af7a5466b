//! What the directory says of a tensor in lanes mode, and the index of its superblocks.

use wcodec_rans::HeadLayout;

use super::geometry::Geometry;
use crate::error::{Error, Result};
use crate::wire::{Cursor, put_coded, put_varint};

/// Parameters of the lanes mode: see `docs/format.md`, "Lanes mode".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LanesParams {
    pub(crate) geometry: Geometry,
    pub(crate) layout: HeadLayout,
    /// Low bits that heads are coded without.
    pub(crate) dropped: u8,
    /// Scale class per row of the view; empty when all are 0.
    pub(crate) row_classes: Vec<u8>,
    /// Scale class per column of the view; empty when all are 0.
    pub(crate) col_classes: Vec<i8>,
    /// Stored bits of the bytes below the head, per row; empty when every row has all.
    pub(crate) low_bits: Vec<u8>,
}

const HAS_SIGN: u8 = 1;
const HAS_ROW_CLASSES: u8 = 2;
const HAS_COL_CLASSES: u8 = 4;
const HAS_LOW_BITS: u8 = 8;
const HAS_DROPPED_BITS: u8 = 16;
const KNOWN_FLAGS: u8 = HAS_SIGN | HAS_ROW_CLASSES | HAS_COL_CLASSES | HAS_LOW_BITS | HAS_DROPPED_BITS;

impl LanesParams {
    /// Bytes below the head of an element.
    pub(crate) fn low_bytes(&self) -> usize {
        self.geometry.element_bytes - self.layout.bytes()
    }

    /// Serialised form, without the table reference that precedes it in the directory.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let flags = if self.layout.sign() { HAS_SIGN } else { 0 }
            | if self.row_classes.is_empty() { 0 } else { HAS_ROW_CLASSES }
            | if self.col_classes.is_empty() { 0 } else { HAS_COL_CLASSES }
            | if self.low_bits.is_empty() { 0 } else { HAS_LOW_BITS }
            | if self.dropped == 0 { 0 } else { HAS_DROPPED_BITS };
        out.push(flags);
        out.push(self.geometry.element_bytes as u8);
        out.push(self.layout.bits() as u8);
        out.push(self.layout.shift() as u8);
        put_varint(&mut out, self.geometry.cols as u64);
        put_varint(&mut out, self.geometry.block_rows as u64);
        put_varint(&mut out, self.geometry.strips_per_chunk as u64);
        if self.dropped > 0 {
            out.push(self.dropped);
        }
        if !self.row_classes.is_empty() {
            put_coded(&mut out, &self.row_classes);
        }
        if !self.col_classes.is_empty() {
            put_coded(&mut out, &self.col_classes.iter().map(|&c| c as u8).collect::<Vec<_>>());
        }
        if !self.low_bits.is_empty() {
            put_coded(&mut out, &self.low_bits);
        }
        out
    }

    /// Reads parameters of a tensor of `decoded_len` bytes whose payload has `payload_len`.
    pub(crate) fn parse(cursor: &mut Cursor<'_>, decoded_len: u64, payload_len: u64) -> Result<Self> {
        let flags = cursor.byte()?;
        let element_bytes = usize::from(cursor.byte()?);
        let (bits, shift) = (cursor.byte()?, cursor.byte()?);
        let cols = cursor.varint()?;
        let block_rows = cursor.varint()?;
        let strips_per_chunk = cursor.varint()?;
        if flags & !KNOWN_FLAGS != 0 || !matches!(element_bytes, 1 | 2 | 4 | 8) {
            return cursor.corrupt("lanes mode: flags or element size");
        }
        let Ok(layout) = HeadLayout::new(bits, shift, flags & HAS_SIGN != 0) else {
            return cursor.corrupt("lanes mode: split of the head");
        };
        let dropped = if flags & HAS_DROPPED_BITS == 0 { 0 } else { cursor.byte()? };
        if flags & HAS_DROPPED_BITS != 0 && !((1..=14).contains(&dropped) && bits == 16 && layout.sign()) {
            return cursor.corrupt("lanes mode: bits left out");
        }
        let whole = decoded_len.is_multiple_of(element_bytes as u64) && layout.bytes() <= element_bytes;
        let geometry = usize::try_from(block_rows).ok().filter(|_| whole).and_then(|block_rows| {
            let elements = decoded_len / element_bytes as u64;
            Geometry::from_parts(elements, cols, element_bytes, block_rows, strips_per_chunk, payload_len)
        });
        let Some(geometry) = geometry else { return cursor.corrupt("lanes mode: view") };
        let optional =
            [(HAS_ROW_CLASSES, geometry.rows), (HAS_COL_CLASSES, geometry.cols), (HAS_LOW_BITS, geometry.rows)];
        let present = optional.iter().filter(|(flag, _)| flags & flag != 0);
        let mut coded = cursor.coded_all(&present.map(|&(_, len)| len).collect::<Vec<_>>())?.into_iter();
        let [row_classes, col_classes, low_bits] =
            optional.map(|(flag, _)| if flags & flag == 0 { None } else { coded.next() }.unwrap_or_default());
        let col_classes = col_classes.into_iter().map(|c| c as i8).collect();
        let params = Self { geometry, layout, dropped, row_classes, col_classes, low_bits };
        if params.low_bits.iter().any(|&b| usize::from(b) > 8 * params.low_bytes()) {
            return cursor.corrupt("lanes mode: low bits of a row");
        }
        Ok(params)
    }

    /// Stored low bits of row `row`.
    pub(crate) fn row_low_bits(&self, row: usize) -> usize {
        self.low_bits.get(row).map_or(8 * self.low_bytes(), |&b| usize::from(b))
    }
}

/// What the index says of one superblock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BlockIndex {
    /// Length of the stream in 32-bit words.
    pub(crate) stream_words: u16,
    /// State base.
    pub(crate) base: u8,
    /// Patches at the end of the stream.
    pub(crate) patches: u16,
}

impl BlockIndex {
    /// The index of all superblocks, as five byte planes, each entropy-coded by itself.
    pub(crate) fn pack(blocks: &[Self]) -> Vec<u8> {
        let plane = |f: fn(&Self) -> u8| blocks.iter().map(f).collect::<Vec<u8>>();
        let mut out = Vec::new();
        put_coded(&mut out, &plane(|b| b.stream_words as u8));
        put_coded(&mut out, &plane(|b| (b.stream_words >> 8) as u8));
        put_coded(&mut out, &plane(|b| b.base));
        put_coded(&mut out, &plane(|b| b.patches as u8));
        put_coded(&mut out, &plane(|b| (b.patches >> 8) as u8));
        out
    }

    /// Reads `count` entries. `count` is bounded by the payload: see [`Geometry::from_parts`].
    pub(crate) fn unpack(bytes: &[u8], count: usize, tensor: &str, offset: u64) -> Result<Vec<Self>> {
        let mut cursor = Cursor::new(bytes, tensor, offset);
        let planes = cursor.coded_all(&[count; 5])?;
        cursor.finish()?;
        let [words, more_words, bases, patches, more_patches] = &planes[..] else {
            unreachable!("as many as asked for")
        };
        let mut blocks = Vec::with_capacity(count);
        for i in 0..count {
            let block = Self {
                stream_words: u16::from_le_bytes([words[i], more_words[i]]),
                base: bases[i],
                patches: u16::from_le_bytes([patches[i], more_patches[i]]),
            };
            if usize::from(block.patches) * wcodec_rans::superblock::PATCH_BYTES > 4 * usize::from(block.stream_words) {
                return Err(Error::corrupt(
                    tensor,
                    offset,
                    format!("index of superblock {i}: more patches than bytes"),
                ));
            }
            blocks.push(block);
        }
        Ok(blocks)
    }
}
