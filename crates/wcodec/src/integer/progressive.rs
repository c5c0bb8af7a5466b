//! Decoding the first planes of every superblock: a coarser tensor, and how far it can be off.

use wcodec_predict::{Intra, TileGrid};
use wcodec_rans::superblock::DecodeTables;
use wcodec_rans::{LANES, RansError, STATE_LOW};
use wcodec_transform::{SAMPLE_ERROR_GAIN, SAMPLE_ERROR_ROUNDING, Transform, fold};

use super::coefficients::TileChoice;
use super::decode::{Block, IntegerDecoder, Scratch};
use super::symbols::SymbolForm;
use crate::error::Result;

/// No two bytes are farther apart.
const LARGEST_ERROR: u32 = 255;

impl IntegerDecoder {
    /// Decodes chunk `chunk` from the first `planes` bitplanes of every superblock (all of those that have fewer or none) into
    /// `out`, and gives a bound B: every byte is within B of the true one, counted modulo 256.
    ///
    /// With e the error of a coefficient (2^(missing − 1), or the largest magnitude without any plane), a residual is off by e, in
    /// a transformed tile by 10·e + 33. Prediction hands errors on from tile to tile, so B is useful for tensors that were
    /// encoded to be [progressive](super::IntegerOptions::progressive): nothing is predicted there, and read as I8 the distance
    /// also holds without the modulus.
    pub(crate) fn decode_progressive(
        &self,
        chunk: usize,
        bytes: &[u8],
        offset: u64,
        planes: u32,
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<u8> {
        let g = &self.params.geometry;
        let first_row = g.chunk_rows(chunk).start;
        let mut bound = 0;
        self.for_each_block(chunk, bytes, offset, out, |block, out| {
            let planes = if block.form == SymbolForm::Residuals { 0 } else { planes.min(block.form.planes()) };
            let start = (block.rows.start - first_row) * g.row_bytes() + block.cols.start;
            let out = &mut out[start..];
            if planes == block.form.planes() {
                return self.decode_block(&block, offset, out, g.row_bytes(), scratch);
            }
            let rows = planes as usize * block.symbol_rows.plane_rows;
            block.symbol_rows.row_classes(block.classes, &mut scratch.row_classes);
            scratch.symbols.resize(rows * LANES, 0);
            decode_first_rows(&self.tables, &block, &scratch.row_classes[..rows], &mut scratch.symbols)
                .map_err(|e| self.rans_fault(offset, e))?;
            self.reconstruct(&block, planes, offset, out, g.row_bytes(), scratch)?;
            bound = bound.max(self.error_bound(&block, planes, out, g.row_bytes()));
            Ok(())
        })?;
        Ok(bound as u8)
    }

    /// How far the samples of a superblock that was rebuilt from `planes` planes can be off, modulo 256.
    fn error_bound(&self, block: &Block<'_>, planes: u32, samples: &[u8], stride: usize) -> u32 {
        let SymbolForm::Bitplanes { magnitude_bits } = block.form else { return 0 };
        let error = fold::sign_first_error_bound(magnitude_bits, planes);
        let grid = TileGrid::new(block.shape.rows(), block.shape.cols(), self.params.tile);
        let mut bounds = Vec::<u32>::with_capacity(grid.len());
        for (tile, &code) in grid.iter().zip(block.tiles) {
            let Some(choice) = TileChoice::from_code(code) else { return LARGEST_ERROR };
            let own = match choice.transform {
                _ if error == 0 => 0,
                Transform::Identity => error,
                _ => SAMPLE_ERROR_GAIN.saturating_mul(error).saturating_add(SAMPLE_ERROR_ROUNDING),
            };
            // Outside the superblock samples are 0 on both sides.
            let left = if tile.col == 0 { 0 } else { bounds[tile.index - 1] };
            let top = if tile.row == 0 { 0 } else { bounds[tile.index - grid.tiles_across()] };
            let border = || {
                let above = (tile.row > 0).then(|| &samples[(tile.row - 1) * stride + tile.col..][..tile.width]);
                let before = (tile.row..tile.row + tile.height)
                    .filter_map(|row| Some(samples[row * stride + tile.col.checked_sub(1)?]));
                // The means are only off by their operands' error where no operand can have wrapped.
                let clear = |sample: u8, error: u32| u32::from(sample) >= error && u32::from(sample) + error <= 255;
                let safe =
                    above.into_iter().flatten().all(|&s| clear(s, top)) && before.into_iter().all(|s| clear(s, left));
                if safe { left.max(top) } else { LARGEST_ERROR }
            };
            let bound = match choice.mode {
                Intra::None => own,
                Intra::Left => left.saturating_add(own),
                Intra::Top => top.saturating_add(own),
                Intra::Avg | Intra::Planar => border().saturating_add(own),
                Intra::LeftDelta => left.saturating_add(own.saturating_mul(tile.width as u32)),
                Intra::TopDelta => top.saturating_add(own.saturating_mul(tile.height as u32)),
            };
            bounds.push(bound.min(LARGEST_ERROR));
        }
        bounds.into_iter().max().unwrap_or(0)
    }
}

/// Decodes the first `row_classes.len()` rows of a superblock of bitplanes, which are 64 lanes wide and carry no raw field and no
/// patches: what [`DecodeTables::decode`] does, without reading the stream to its end.
fn decode_first_rows(
    tables: &DecodeTables,
    block: &Block<'_>,
    row_classes: &[u8],
    symbols: &mut [u8],
) -> Result<(), RansError> {
    let (p, entries) = (tables.table_bits(), tables.entries());
    let mut states: Vec<u32> =
        block.coded.states.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
    if states.iter().any(|&x| x < STATE_LOW) {
        return Err(RansError::Corrupt { what: "superblock: state below its interval", offset: 0 });
    }
    let mut words = block.coded.stream.as_chunks::<2>().0.iter();
    for (row, &class) in symbols.chunks_exact_mut(LANES).zip(row_classes) {
        let table = &entries[usize::from(class) << p..][..1 << p];
        for (lane, x) in states.iter_mut().enumerate() {
            let entry = table[*x as usize & ((1 << p) - 1)];
            row[2 * (lane % 32) + lane / 32] = (entry >> p) as u8;
            *x = (entry >> (32 - p)) * (*x >> p) + (entry & ((1 << p) - 1));
            if *x < STATE_LOW {
                let Some(&word) = words.next() else {
                    return Err(RansError::Truncated { what: "superblock stream", offset: block.coded.stream.len() });
                };
                *x = (*x << 16) | u32::from(u16::from_le_bytes(word));
            }
        }
    }
    Ok(())
}
