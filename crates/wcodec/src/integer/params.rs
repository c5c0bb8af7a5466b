//! What the directory says of a tensor in integer mode.

use wcodec_predict::TileSize;

use crate::error::Result;
use crate::lanes::Geometry;
use crate::wire::{Cursor, put_varint};

/// Parameters of the integer mode: see `docs/format.md`, "Integer mode".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IntegerParams {
    /// The view. Elements have one byte, `block_rows` is a multiple of the tile.
    pub(crate) geometry: Geometry,
    /// The unit of prediction.
    pub(crate) tile: TileSize,
}

impl IntegerParams {
    /// Serialised form, without the table reference that precedes it in the directory.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut out = vec![self.tile.get() as u8];
        put_varint(&mut out, self.geometry.cols as u64);
        put_varint(&mut out, self.geometry.block_rows as u64);
        put_varint(&mut out, self.geometry.strips_per_chunk as u64);
        out
    }

    /// Reads parameters of a tensor of `decoded_len` bytes whose payload has `payload_len`.
    pub(crate) fn parse(cursor: &mut Cursor<'_>, decoded_len: u64, payload_len: u64) -> Result<Self> {
        let tile = cursor.byte()?;
        let (cols, block_rows, strips_per_chunk) = (cursor.varint()?, cursor.varint()?, cursor.varint()?);
        let Ok(tile) = TileSize::new(u32::from(tile)) else {
            return cursor.corrupt("integer mode: tile size");
        };
        let geometry = usize::try_from(block_rows)
            .ok()
            .filter(|rows| rows.is_multiple_of(tile.get()))
            .and_then(|rows| Geometry::from_parts(decoded_len, cols, 1, rows, strips_per_chunk, payload_len));
        match geometry {
            Some(geometry) => Ok(Self { geometry, tile }),
            None => cursor.corrupt("integer mode: view"),
        }
    }
}
