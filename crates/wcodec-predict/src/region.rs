//! Prediction of a whole region (a superblock), tile by tile.

use crate::cost::residual_cost;
use crate::error::{Error, Result};
use crate::intra::{Intra, reconstruct, subtract};
use crate::tile::{MAX_SIDE, Neighbours, Plane, Tile, TileGrid, TileSize, span};

/// How the encoder picks the mode of each tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<'a> {
    /// This mode for all tiles.
    Fixed(Intra),
    /// The one of these with the least [`residual_cost`]; the first of equals.
    Among(&'a [Intra]),
}

/// What [`encode_region`] gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EncodedRegion {
    /// The code of each tile's mode, tiles in the order of [`TileGrid::iter`].
    pub modes: Vec<u8>,
    /// One residual per sample at the place of its sample: row-major, `w` to a row.
    pub residuals: Vec<u8>,
}

/// Predicts `h` × `w` samples whose rows lie `stride` apart, and gives modes and residuals.
///
/// Samples outside the region count as 0, so a region decodes without any other. Linear in the number of samples times
/// the number of candidate modes.
///
/// # Errors
/// [`Error::Stride`], [`Error::SampleCount`] or [`Error::TooLarge`] if the region is not within `samples`;
/// [`Error::NoCandidates`] if there is no mode to choose from.
pub fn encode_region(
    samples: &[u8],
    stride: usize,
    h: usize,
    w: usize,
    tile: TileSize,
    choose: Choice<'_>,
) -> Result<EncodedRegion> {
    let plane = Plane::new(samples, h, w, stride)?;
    let fixed;
    let candidates = match choose {
        Choice::Fixed(mode) => {
            fixed = [mode];
            &fixed[..]
        }
        Choice::Among(modes) => modes,
    };
    let Some((&first, others)) = candidates.split_first() else {
        return Err(Error::NoCandidates);
    };

    let grid = TileGrid::new(h, w, tile);
    let mut coded = EncodedRegion { modes: Vec::with_capacity(grid.len()), residuals: vec![0; h * w] };
    let mut buffers = [[0; MAX_SIDE * MAX_SIDE]; 3];
    let [original, best, trial] = &mut buffers;
    for t in grid.iter() {
        let len = t.height * t.width;
        let (original, mut best, mut trial) = (&mut original[..len], &mut best[..len], &mut trial[..len]);
        gather(samples, stride, &t, original);
        let around = Neighbours::of(&plane, &t);

        best.copy_from_slice(original);
        subtract(first, &around, tile, t.width, best)?;
        let mut mode = first;
        if !others.is_empty() {
            let mut least = residual_cost(best);
            for &other in others {
                trial.copy_from_slice(original);
                subtract(other, &around, tile, t.width, trial)?;
                let cost = residual_cost(trial);
                if cost < least {
                    (least, mode) = (cost, other);
                    std::mem::swap(&mut best, &mut trial);
                }
            }
        }
        coded.modes.push(mode.code());
        scatter(best, &t, w, &mut coded.residuals);
    }
    Ok(coded)
}

/// Rebuilds `h` × `w` samples from modes and residuals as [`encode_region`] gives them, into `out` with rows `stride`
/// apart. What lies between the rows of `out` stays as it was.
///
/// Allocates nothing.
///
/// # Errors
/// [`Error::ModeCount`], [`Error::ResidualCount`] and [`Error::UnknownMode`] for corrupt or truncated data;
/// [`Error::Stride`], [`Error::SampleCount`] or [`Error::TooLarge`] if `out` does not hold the region. Nothing has been
/// written then.
pub fn decode_region(
    modes: &[u8],
    residuals: &[u8],
    h: usize,
    w: usize,
    tile: TileSize,
    out: &mut [u8],
    stride: usize,
) -> Result<()> {
    let span = span(h, w, stride)?;
    if out.len() < span {
        return Err(Error::SampleCount { needed: span, present: out.len() });
    }
    // No overflow: `w <= stride`, and the span of an empty region is 0.
    let needed = if span == 0 { 0 } else { h * w };
    if residuals.len() != needed {
        return Err(Error::ResidualCount { needed, present: residuals.len() });
    }
    let grid = TileGrid::new(h, w, tile);
    if modes.len() != grid.len() {
        return Err(Error::ModeCount { needed: grid.len(), present: modes.len() });
    }
    for &code in modes {
        Intra::from_code(code)?;
    }

    let mut buffer = [0; MAX_SIDE * MAX_SIDE];
    for (t, &code) in grid.iter().zip(modes) {
        let samples = &mut buffer[..t.height * t.width];
        gather(residuals, w, &t, samples);
        let around = Neighbours::of(&Plane::new(out, h, w, stride)?, &t);
        reconstruct(Intra::from_code(code)?, &around, tile, t.width, samples)?;
        scatter(samples, &t, stride, out);
    }
    Ok(())
}

/// Copies a tile out of rows `stride` apart.
fn gather(from: &[u8], stride: usize, t: &Tile, tile: &mut [u8]) {
    for (row, y) in tile.chunks_exact_mut(t.width).zip(t.row..) {
        row.copy_from_slice(&from[y * stride + t.col..][..t.width]);
    }
}

/// Copies a tile into rows `stride` apart.
fn scatter(tile: &[u8], t: &Tile, stride: usize, into: &mut [u8]) {
    for (row, y) in tile.chunks_exact(t.width).zip(t.row..) {
        into[y * stride + t.col..][..t.width].copy_from_slice(row);
    }
}
