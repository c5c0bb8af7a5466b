//! Tables for a tensor.

use rayon::prelude::*;
use wcodec_predict::TileSize;
use wcodec_rans::TableSet;

use super::analysis::{Analysis, Search, analyse, bad_argument};
use super::model::{Model, no_counts, table_set, train};
use super::params::IntegerParams;
use crate::error::Result;
use crate::lanes::Geometry;
use crate::options::Level;

/// Superblocks that tables are trained on, at [`Level::Fast`] and above.
const SAMPLE_BLOCKS: [usize; 2] = [32, 128];
/// Up to this many superblocks a few tables may be enough; above, many pay for themselves.
const SMALL_BLOCKS: usize = 64;

/// What the caller of the integer mode chooses.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IntegerOptions {
    /// How hard to search.
    pub(crate) level: Level,
    /// The unit of prediction.
    pub(crate) tile: TileSize,
    /// Whether the tensor shall decode in part with a small error: bitplanes only, and nothing is predicted.
    pub(crate) progressive: bool,
    /// Neither bitplanes nor predictions, for a tensor where these gain nothing.
    pub(crate) plain: bool,
}

impl IntegerOptions {
    pub(super) fn search(self) -> Search {
        Search::new(self.level, self.progressive, self.plain)
    }
}

/// A plan for a tensor.
pub(crate) struct IntegerPlan {
    pub(crate) params: IntegerParams,
    pub(crate) tables: TableSet,
    /// All superblocks in order, or none if only a sample was looked at.
    pub(crate) analyses: Vec<Analysis>,
}

/// Plans a tensor of one byte per element: `data` is all of it, `geometry` its view with a number of rows in a superblock that is a
/// multiple of the tile. `None` if it would clearly take more than `enough` bytes.
///
/// Looks at every superblock (at [`Level::Fast`] and without `progressive`, at a sample), in parallel.
pub(crate) fn plan(
    data: &[u8],
    geometry: Geometry,
    options: IntegerOptions,
    enough: u64,
) -> Result<Option<IntegerPlan>> {
    let params = IntegerParams { geometry, tile: options.tile };
    if geometry.element_bytes != 1 || !geometry.block_rows.is_multiple_of(options.tile.get()) {
        return Err(bad_argument("integer mode: elements of one byte, whole tiles in a superblock"));
    }
    if data.len() != geometry.rows * geometry.cols + geometry.rest {
        return Err(bad_argument("integer mode: data of another length than the view's"));
    }
    let search = options.search();
    let blocks = geometry.blocks();
    let step = blocks.div_ceil(SAMPLE_BLOCKS[usize::from(options.level != Level::Fast)]);
    let sample = (0..blocks)
        .into_par_iter()
        .step_by(step)
        .map(|block| analyse_block(data, params, block, search))
        .collect::<Result<Vec<_>>>()?;
    let sizes: &[usize] = match (blocks <= SMALL_BLOCKS, options.level) {
        (true, Level::Fast) => &[4, 16],
        (true, _) => &[1, 2, 4, 8, 16],
        _ => &[8, 16],
    };
    let enough = enough.saturating_mul(8 * 256);
    let trained = train(&sample, options.progressive, step as u64, sizes, enough).map_err(bad_argument)?;
    let Some(model) = trained else { return Ok(None) };

    let counts = if step == 1 || (options.level == Level::Fast && !options.progressive) {
        let mut counts = no_counts(model.contexts);
        for analysis in &sample {
            model.count(analysis, options.progressive, &mut counts);
        }
        counts
    } else {
        count_all(data, params, search, &model)?
    };
    let tables = table_set(counts).map_err(bad_argument)?;
    Ok(Some(IntegerPlan { params, tables, analyses: if step == 1 { sample } else { Vec::new() } }))
}

fn count_all(data: &[u8], params: IntegerParams, search: Search, model: &Model) -> Result<Vec<Vec<u64>>> {
    (0..params.geometry.blocks())
        .into_par_iter()
        .try_fold(
            || no_counts(model.contexts),
            |mut counts, block| {
                let analysis = analyse_block(data, params, block, search)?;
                model.count(&analysis, search.only_planes, &mut counts);
                Ok(counts)
            },
        )
        .try_reduce(
            || no_counts(model.contexts),
            |mut sum, part| {
                sum.iter_mut().flatten().zip(part.iter().flatten()).for_each(|(s, &n)| *s += n);
                Ok(sum)
            },
        )
}

/// Analyses superblock `block` of the whole tensor.
fn analyse_block(data: &[u8], params: IntegerParams, block: usize, search: Search) -> Result<Analysis> {
    let g = params.geometry;
    let (strip, across) = (block / g.blocks_across(), block % g.blocks_across());
    let start = g.strip_rows(strip).start * g.row_bytes() + g.block_cols(across).start;
    analyse(&data[start..], g.row_bytes(), g.shape(strip, across), params.tile, search)
}
