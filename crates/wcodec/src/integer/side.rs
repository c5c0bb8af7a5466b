//! Side information: what the superblocks of a chunk chose.

use wcodec_predict::TileGrid;
use wcodec_rans::superblock::Shape;
use wcodec_transform::Transform;

use super::coefficients::{CoefficientOrder, TileChoice};
use super::params::IntegerParams;
use super::symbols::{SymbolForm, SymbolRows};
use crate::error::{Error, Result};
use crate::wire::{Cursor, put_coded};

/// Bytes of the length in front of the side information.
const LENGTH: usize = 4;

/// Side information of the superblocks of a chunk, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Side {
    /// [`SymbolForm::code`] per superblock.
    pub(crate) forms: Vec<u8>,
    /// [`TileChoice::code`] per tile.
    pub(crate) tiles: Vec<u8>,
    /// A class per run of rows of symbols.
    pub(crate) classes: Vec<u8>,
}

impl Side {
    /// Its bytes: length, three vectors, zeros up to a multiple of 4.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![0; LENGTH];
        for part in [&self.forms, &self.tiles, &self.classes] {
            put_coded(&mut out, part);
        }
        let len = (out.len() - LENGTH) as u32;
        out[..LENGTH].copy_from_slice(&len.to_le_bytes());
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    /// Reads the side information at the start of `chunk` and says how many bytes it took. Everything that it says of a
    /// superblock is then known to be possible.
    pub(crate) fn parse(
        params: &IntegerParams,
        blocks: &[Shape],
        contexts: usize,
        chunk: &[u8],
        tensor: &str,
        offset: u64,
    ) -> Result<(Self, usize)> {
        let fault = |what: &str| Err(Error::corrupt(tensor, offset, format!("integer mode: {what}")));
        let Some((len, rest)) = chunk.split_first_chunk::<LENGTH>() else {
            return fault("side information is truncated");
        };
        let len = u32::from_le_bytes(*len) as usize;
        let Some(bytes) = rest.get(..len) else { return fault("side information is truncated") };
        let used = (LENGTH + len).next_multiple_of(4);
        if chunk.get(LENGTH + len..used).is_none_or(|padding| padding.iter().any(|&b| b != 0)) {
            return fault("padding of the side information");
        }
        let mut cursor = Cursor::new(bytes, tensor, offset + LENGTH as u64);
        let forms = cursor.coded(blocks.len())?;
        let grids = || blocks.iter().map(|shape| TileGrid::new(shape.rows(), shape.cols(), params.tile));
        let tiles = cursor.coded(grids().map(|grid| grid.len()).sum())?;
        let (mut runs, mut from) = (0, 0);
        for ((&form, &shape), grid) in forms.iter().zip(blocks).zip(grids()) {
            let form = SymbolForm::from_code(form);
            let Some(rows) = SymbolRows::new(form, shape) else {
                return fault("more planes than a superblock can have");
            };
            runs += rows.run_count();
            let codes = &tiles[from..from + grid.len()];
            from += grid.len();
            let Some(choices) = codes.iter().map(|&c| TileChoice::from_code(c)).collect::<Option<Vec<_>>>() else {
                return fault("tile code");
            };
            let transformed = choices.iter().any(|c| c.transform != Transform::Identity);
            if transformed
                && (form == SymbolForm::Residuals || CoefficientOrder::new(shape, params.tile, choices).is_none())
            {
                return fault("transform where there can be none");
            }
        }
        let classes = cursor.coded(runs)?;
        if classes.iter().any(|&c| usize::from(c) >= contexts) {
            return fault("class without a table");
        }
        cursor.finish()?;
        Ok((Self { forms, tiles, classes }, used))
    }
}
