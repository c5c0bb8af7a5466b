//! How the encoder predicts and transforms a superblock: per tile whatever leaves the fewest estimated bits.
//!
//! Decoding gives back every sample exactly, so the samples around a tile are known beforehand and tiles can be judged by
//! themselves. Rate is all that counts: the distortion of every choice is 0.

use std::sync::LazyLock;

use wcodec_predict::{Intra, Neighbours, Plane, TileGrid, TileSize, log2_fixed, residual_cost, subtract};
use wcodec_rans::superblock::Shape;
use wcodec_transform::{BLOCK_LEN, Transform, bitplane, fold, forward};

use super::coefficients::{CoefficientOrder, TileChoice, is_transformable};
use super::runs::Runs;
use super::symbols::{ROW_COEFFICIENTS, SymbolForm, SymbolRows};
use crate::error::{Error, Result};
use crate::options::Level;

/// How far to search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search {
    modes: &'static [Intra],
    transforms: &'static [Transform],
    /// Of the modes with the cheapest residuals, how many to try transforms on.
    transformed_modes: usize,
    /// Bitplanes wherever they are possible.
    pub(crate) only_planes: bool,
    /// Neither bitplanes nor predictions.
    plain: bool,
}

/// What neighbours have to agree on for a transform to be worth a trial, in 2^-8 bits a sample. Differences of neighbours without any
/// correlation take half a bit more than the samples; with a quarter of a bit correlation is 0.3, which a transform turns into a tenth of a bit.
const CORRELATED: u64 = 64;

impl Search {
    /// `progressive`: for decoding in part, so nothing is predicted, because an error would spread from tile to tile. `plain`: of a tensor
    /// where nothing is to be gained from predictions.
    pub(crate) fn new(level: Level, progressive: bool, plain: bool) -> Self {
        const BOTH: &[Transform] = &[Transform::Dct, Transform::Adst];
        let modes: &[Intra] = if progressive { &[Intra::None] } else { &Intra::ALL };
        let (transforms, transformed_modes) = match level {
            Level::Fast => (&BOTH[..1], 1),
            Level::Default => (BOTH, 2),
            Level::Max => (BOTH, 3),
        };
        Self { modes, transforms, transformed_modes, only_planes: progressive, plain: plain && !progressive }
    }
}

/// One way to code a superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) form: SymbolForm,
    pub(crate) rows: SymbolRows,
    /// Tile codes.
    pub(crate) tiles: Vec<u8>,
    /// Row by row.
    pub(crate) symbols: Vec<u8>,
    /// The symbols of every run of rows.
    pub(crate) runs: Runs,
}

impl Candidate {
    fn new(form: SymbolForm, rows: SymbolRows, tiles: Vec<u8>, symbols: Vec<u8>) -> Self {
        let cols = rows.shape.cols();
        let runs = Runs::of(rows.runs().map(|rows| &symbols[rows.start * cols..rows.end * cols]));
        Self { form, rows, tiles, symbols, runs }
    }
}

/// Both ways to code a superblock.
#[derive(Debug, Clone)]
pub(crate) struct Analysis {
    pub(crate) residuals: Candidate,
    /// `None` where there would be too many planes.
    pub(crate) bitplanes: Option<Candidate>,
}

/// Analyses the superblock of `shape` that `samples` starts with, rows `stride` apart.
pub(crate) fn analyse(samples: &[u8], stride: usize, shape: Shape, size: TileSize, search: Search) -> Result<Analysis> {
    let (height, width) = (shape.rows(), shape.cols());
    let plane = Plane::new(samples, height, width, stride).map_err(bad_argument)?;
    let grid = TileGrid::new(height, width, size);
    let rows = SymbolRows::new(SymbolForm::Residuals, shape).expect("residuals have the superblock's own shape");
    if search.plain {
        let symbols = (0..height).flat_map(|row| &samples[row * stride..][..width]).copied().collect();
        let tiles = vec![TileChoice { mode: Intra::None, transform: Transform::Identity }.code(); grid.len()];
        let residuals = Candidate::new(SymbolForm::Residuals, rows, tiles, symbols);
        return Ok(Analysis { residuals, bitplanes: None });
    }
    let mut residuals = vec![0; shape.elements()];
    let mut predicted = residuals.clone();
    let (mut residual_tiles, mut choices) = (Vec::with_capacity(grid.len()), Vec::with_capacity(grid.len()));
    let mut trials = Trials::default();
    for tile in grid.iter() {
        let around = Neighbours::of(&plane, &tile);
        trials.clear();
        for &mode in search.modes {
            let trial = trials.residuals(mode);
            for row in 0..tile.height {
                trial.extend_from_slice(&samples[(tile.row + row) * stride + tile.col..][..tile.width]);
            }
            subtract(mode, &around, size, tile.width, trial).map_err(bad_argument)?;
            trials.rank(mode);
        }
        let (plain, best) = trials.order[0];
        // A transform widens the error of a partial reconstruction, so there it has to save a sixteenth.
        let enough = if search.only_planes { plain - plain / 16 } else { plain };
        let mut least = (enough, best, Transform::Identity);
        if is_transformable(&tile, size) && trials.correlated() {
            for &(_, mode) in trials.order.iter().take(search.transformed_modes) {
                for &transform in search.transforms {
                    let cost = transformed_cost(trials.of(mode), size.get(), transform, least.0);
                    if cost < least.0 {
                        least = (cost, mode, transform);
                    }
                }
            }
        }
        residual_tiles.push(TileChoice { mode: best, transform: Transform::Identity }.code());
        choices.push(TileChoice { mode: least.1, transform: least.2 });
        for (from, into) in [(best, &mut residuals), (least.1, &mut predicted)] {
            for (row, part) in trials.of(from).chunks_exact(tile.width).enumerate() {
                into[(tile.row + row) * width + tile.col..][..tile.width].copy_from_slice(part);
            }
        }
    }
    let bitplanes = planes(&predicted, shape, size, &choices)?;
    Ok(Analysis { residuals: Candidate::new(SymbolForm::Residuals, rows, residual_tiles, residuals), bitplanes })
}

/// The bitplanes of a superblock's residuals.
fn planes(residuals: &[u8], shape: Shape, size: TileSize, choices: &[TileChoice]) -> Result<Option<Candidate>> {
    let order = CoefficientOrder::new(shape, size, choices.iter().copied()).expect("only whole tiles are transformed");
    let mut coefficients = Vec::with_capacity(residuals.len().next_multiple_of(ROW_COEFFICIENTS));
    order.forward(residuals, &mut coefficients);
    coefficients.resize(residuals.len().next_multiple_of(ROW_COEFFICIENTS), 0);
    let magnitude_bits = fold::magnitude_bits(&coefficients);
    let form = SymbolForm::Bitplanes { magnitude_bits };
    let Some(rows) = SymbolRows::new(form, shape) else { return Ok(None) };
    let (mut folded, mut symbols) = (Vec::with_capacity(coefficients.len()), Vec::new());
    fold::sign_first(&coefficients, magnitude_bits, &mut folded).map_err(bad_argument)?;
    bitplane::split(&folded, magnitude_bits + 1, &mut symbols).map_err(bad_argument)?;
    Ok(Some(Candidate::new(form, rows, choices.iter().map(|c| c.code()).collect(), symbols)))
}

/// Estimated bits of a tile's coefficients in units of 2^-8, like [`residual_cost`]; stops above `enough`.
pub(crate) fn transformed_cost(residuals: &[u8], width: usize, transform: Transform, enough: u64) -> u64 {
    let mut cost = 0;
    for corner in (0..residuals.len()).step_by(8 * width).flat_map(|row| (row..row + width).step_by(8)) {
        let mut block: [i32; BLOCK_LEN] =
            std::array::from_fn(|i| i32::from(residuals[corner + i / 8 * width + i % 8] as i8));
        forward(transform, &mut block);
        cost += block.iter().map(|&c| coefficient_cost(c)).sum::<u64>();
        if cost >= enough {
            break;
        }
    }
    cost
}

/// `log2(1 + folded coefficient)` in units of 2^-8 bits.
fn coefficient_cost(coefficient: i32) -> u64 {
    static COSTS: LazyLock<Vec<u16>> = LazyLock::new(|| (1..=1 << 12).map(|n| log2_fixed(n) as u16).collect());
    let folded = fold::zigzag(coefficient);
    COSTS.get(folded as usize).map_or_else(|| log2_fixed(u64::from(folded) + 1) as u64, |&c| u64::from(c))
}

/// Residuals of one tile under each mode.
#[derive(Default)]
struct Trials {
    residuals: [Vec<u8>; Intra::ALL.len()],
    /// Costs and tried modes, cheapest first.
    order: Vec<(u64, Intra)>,
}

impl Trials {
    fn clear(&mut self) {
        self.order.clear();
    }

    /// Where the residuals of a mode are to be put.
    fn residuals(&mut self, mode: Intra) -> &mut Vec<u8> {
        let residuals = &mut self.residuals[usize::from(mode.code())];
        residuals.clear();
        residuals
    }

    /// Takes the residuals that were put there.
    fn rank(&mut self, mode: Intra) {
        let cost = residual_cost(self.of(mode));
        let place = self.order.partition_point(|&(other, _)| other <= cost);
        self.order.insert(place, (cost, mode));
    }

    fn of(&self, mode: Intra) -> &[u8] {
        &self.residuals[usize::from(mode.code())]
    }

    fn cost(&self, mode: Intra) -> Option<u64> {
        self.order.iter().find(|&&(_, tried)| tried == mode).map(|&(cost, _)| cost)
    }

    /// Whether a transform may gain anything. Of what was not predicted by neighbours there is nothing to tell it by.
    fn correlated(&self) -> bool {
        let (none, left, top) = (self.cost(Intra::None), self.cost(Intra::LeftDelta), self.cost(Intra::TopDelta));
        let samples = self.of(Intra::None).len();
        none.zip(left.min(top)).is_none_or(|(none, delta)| are_correlated(none, delta, samples))
    }
}

/// Whether samples that cost `none` and whose differences to neighbours cost `delta` have so much in common that a transform may gain
/// something.
pub(crate) fn are_correlated(none: u64, delta: u64, samples: usize) -> bool {
    delta < none + CORRELATED * samples as u64
}

/// An error that only a caller's argument can cause.
pub(crate) fn bad_argument(error: impl std::fmt::Display) -> Error {
    Error::BadArgument(error.to_string())
}
