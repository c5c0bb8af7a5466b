//! A cheap guess of what the integer mode would take.

use wcodec_predict::{Intra, Neighbours, Plane, Tile, TileGrid, TileSize, residual_cost, subtract};
use wcodec_transform::Transform;

use super::analysis::{are_correlated, transformed_cost};
use super::coefficients::is_transformable;
use super::runs::total_bits;
use crate::lanes::Geometry;

/// Scale classes that residuals are counted in.
const CLASSES: usize = 8;
/// What the logarithmic cost of a sample leaves out, in 2^-8 bits: about 1.5 bits for the form of the distribution.
const SAMPLE_BITS: u64 = 384;
/// What predictions and transforms have to gain, in 2^-8 bits a sample, for a tensor not to be noise.
const LEAST_GAIN: u64 = 4;

/// What a few tiles let expect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimate {
    /// Bytes of the whole tensor.
    pub(crate) bytes: u64,
    /// Whether predictions or transforms gain anything.
    pub(crate) predicted: bool,
}

/// About how many bytes the integer mode would take for `data`, all of a tensor of one byte per element, with 16×16 tiles.
///
/// Looks at `tiles` tiles, whatever the size. With 256, good enough to leave out tensors for which the mode is hopeless, such as trained
/// weights; not for a choice between near equals.
pub(crate) fn estimate(data: &[u8], geometry: Geometry, tiles: usize) -> Estimate {
    let size = TileSize::default();
    let mut counts = vec![[0u64; 256]; CLASSES];
    let (mut samples, mut bare, mut plain, mut transformed) = (0u64, 0u64, 0u64, 0u64);
    let (mut own, mut trial, mut best) = (Vec::new(), Vec::new(), Vec::new());
    for (block, tile) in sampled_tiles(&geometry, size, tiles) {
        let rows = geometry.strip_rows(block / geometry.blocks_across());
        let cols = geometry.block_cols(block % geometry.blocks_across());
        let first = rows.start * geometry.row_bytes() + cols.start;
        let Some(Ok(plane)) = data.get(first..).map(|d| Plane::new(d, rows.len(), cols.len(), geometry.row_bytes()))
        else {
            continue;
        };
        let around = Neighbours::of(&plane, &tile);
        own.clear();
        let rows = tile.row..tile.row + tile.height;
        own.extend(rows.filter_map(|row| plane.row(row, tile.col..tile.col + tile.width)).flatten());
        let mut costs = [u64::MAX; Intra::ALL.len()];
        let mut cost = u64::MAX;
        for mode in Intra::ALL {
            trial.clone_from(&own);
            if subtract(mode, &around, size, tile.width, &mut trial).is_err() {
                continue;
            }
            let of_mode = residual_cost(&trial);
            costs[usize::from(mode.code())] = of_mode;
            if of_mode < cost {
                cost = of_mode;
                std::mem::swap(&mut best, &mut trial);
            }
        }
        if cost == u64::MAX {
            continue;
        }
        let of = |mode: Intra| costs[usize::from(mode.code())];
        let (none, delta) = (of(Intra::None), of(Intra::LeftDelta).min(of(Intra::TopDelta)));
        // Eight bits a sample are the most.
        let class = (cost * CLASSES as u64 / (best.len() as u64 * 8 * 256)).min(CLASSES as u64 - 1);
        best.iter().for_each(|&r| counts[class as usize][usize::from(r)] += 1);
        let dct = if is_transformable(&tile, size) && are_correlated(none, delta, best.len()) {
            transformed_cost(&best, tile.width, Transform::Dct, cost)
        } else {
            cost
        };
        let base = best.len() as u64 * SAMPLE_BITS;
        (samples, bare) = (samples + best.len() as u64, bare + none);
        (plain, transformed) = (plain + cost + base, transformed + dct + base);
    }
    if samples == 0 {
        return Estimate { bytes: data.len() as u64, predicted: false };
    }
    let elements = (geometry.rows * geometry.cols) as u128;
    let bits = u128::from(counts.iter().map(|c| total_bits(c.iter().copied())).sum::<u64>());
    let coded = bits * elements * u128::from(transformed) / u128::from(samples) / u128::from(plain) / (8 * 256);
    let states = 4 * geometry.strips() * geometry.cols;
    let side = elements as usize / 1024;
    Estimate {
        bytes: coded as u64 + (states + side + geometry.rest) as u64,
        predicted: bare + samples * (SAMPLE_BITS - LEAST_GAIN) > transformed,
    }
}

/// Tiles spread evenly over superblocks and over the places in them.
fn sampled_tiles(geometry: &Geometry, size: TileSize, tiles: usize) -> impl Iterator<Item = (usize, Tile)> {
    let blocks = geometry.blocks();
    let wanted = tiles.min(blocks);
    let per_block = tiles.div_ceil(wanted);
    (0..wanted).flat_map(move |i| {
        let block = (i as u128 * blocks as u128 / wanted as u128) as usize;
        let shape = geometry.shape(block / geometry.blocks_across(), block % geometry.blocks_across());
        let grid = TileGrid::new(shape.rows(), shape.cols(), size);
        let take = per_block.min(grid.len());
        // A step that is odd reaches all columns of tiles.
        let places: Vec<usize> = (0..take).map(|k| (k * grid.len() / take + i * 7) % grid.len()).collect();
        let tiles: Vec<Tile> = grid.iter().collect();
        places.into_iter().map(move |place| (block, tiles[place]))
    })
}
