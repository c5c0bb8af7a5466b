//! A cheap guess of what the integer mode would take.

use wcodec_predict::{Intra, Neighbours, Plane, Tile, TileGrid, TileSize, residual_cost, subtract};
use wcodec_transform::Transform;

use super::analysis::transformed_cost;
use super::coefficients::is_transformable;
use super::model::total_bits;
use crate::lanes::Geometry;

/// Tiles to look at.
const SAMPLE_TILES: usize = 256;
/// Scale classes that residuals are counted in.
const CLASSES: usize = 8;
/// What the logarithmic cost of a sample leaves out, in 2^-8 bits: about 1.5 bits for the form of the distribution.
const SAMPLE_BITS: u64 = 384;

/// About how many bytes the integer mode would take for `data`, all of a tensor of one byte per element, with 16×16 tiles.
///
/// Looks at 256 tiles, whatever the size. Good enough to leave out tensors for which the mode is hopeless, such as trained
/// weights; not for a choice between near equals.
pub(crate) fn estimate(data: &[u8], geometry: Geometry) -> u64 {
    let size = TileSize::default();
    let mut counts = vec![[0u64; 256]; CLASSES];
    let (mut samples, mut plain, mut transformed) = (0u64, 0u64, 0u64);
    for (block, tile) in sampled_tiles(&geometry, size) {
        let rows = geometry.strip_rows(block / geometry.blocks_across());
        let cols = geometry.block_cols(block % geometry.blocks_across());
        let first = rows.start * geometry.row_bytes() + cols.start;
        let Some(Ok(plane)) = data.get(first..).map(|d| Plane::new(d, rows.len(), cols.len(), geometry.row_bytes()))
        else {
            continue;
        };
        let around = Neighbours::of(&plane, &tile);
        let residuals = |mode: Intra| -> Option<Vec<u8>> {
            let mut residuals = Vec::with_capacity(tile.height * tile.width);
            for row in tile.row..tile.row + tile.height {
                residuals.extend_from_slice(plane.row(row, tile.col..tile.col + tile.width)?);
            }
            subtract(mode, &around, size, tile.width, &mut residuals).ok()?;
            Some(residuals)
        };
        let best = Intra::ALL.into_iter().filter_map(residuals).min_by_key(|r| residual_cost(r));
        let Some(best) = best else { continue };
        let cost = residual_cost(&best);
        // Eight bits a sample are the most.
        let class = (cost * CLASSES as u64 / (best.len() as u64 * 8 * 256)).min(CLASSES as u64 - 1);
        best.iter().for_each(|&r| counts[class as usize][usize::from(r)] += 1);
        let dct = if is_transformable(&tile, size) {
            transformed_cost(&best, tile.width, Transform::Dct, cost)
        } else {
            cost
        };
        let base = best.len() as u64 * SAMPLE_BITS;
        (samples, plain, transformed) = (samples + best.len() as u64, plain + cost + base, transformed + dct + base);
    }
    if samples == 0 {
        return data.len() as u64;
    }
    let elements = (geometry.rows * geometry.cols) as u128;
    let bits = u128::from(counts.iter().map(|c| total_bits(c)).sum::<u64>());
    let coded = bits * elements * u128::from(transformed) / u128::from(samples) / u128::from(plain) / (8 * 256);
    let states = 4 * geometry.strips() * geometry.cols;
    let side = elements as usize / 1024;
    coded as u64 + (states + side + geometry.rest) as u64
}

/// Tiles spread evenly over superblocks and over the places in them.
fn sampled_tiles(geometry: &Geometry, size: TileSize) -> impl Iterator<Item = (usize, Tile)> {
    let blocks = geometry.blocks();
    let wanted = SAMPLE_TILES.min(blocks);
    let per_block = SAMPLE_TILES.div_ceil(wanted);
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
