//! Choosing split, contexts and tables for a tensor.
//!
//! A weight is noise of a scale that its row and its column foretell. The plan gives every row and column a class and every class sum
//! a table: first by mean log magnitude ([`scales`]), then by code length ([`classes`]; alternating: tables for the classes, classes for
//! the tables); then it compares splits and precisions ([`price`]). Large tensors are judged by a sample of rows; which rows, and so
//! the plan, depends on the shape alone.

mod classes;
mod price;
mod scales;

use std::ops::Range;

use rayon::prelude::*;
use wcodec_rans::{MAX_CONTEXTS, TableSet};

use self::classes::{Classes, Fitter, MOST_COUNTED};
use self::price::Pricing;
pub(crate) use self::price::bits_with;
use self::scales::Scales;
use super::encode::push_heads;
use super::low;
use super::{Geometry, LanesParams};
use crate::format::ElementFormat;
use crate::options::{Level, Tuning};

/// A tensor to plan for.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) geometry: Geometry,
    pub(crate) format: ElementFormat,
}

/// A plan, and what it is expected to cost.
pub(crate) struct Plan {
    pub(crate) params: LanesParams,
    pub(crate) tables: TableSet,
    /// How often each context has each coded value, in the sample that the tables were made from.
    pub(crate) counts: Vec<Vec<u64>>,
    /// Estimated payload and directory bytes.
    pub(crate) bytes: u64,
}

/// How far to search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Numbers of contexts to try.
    contexts: &'static [usize],
    /// Further ones for tensors whose tables and class maps weigh.
    small_contexts: &'static [usize],
    /// Rounds of class refinement; fewer when they stop paying.
    rounds: usize,
    /// Distance, in classes, that one round looks.
    reach: i32,
    /// Precisions P to try.
    table_bits: &'static [u32],
    /// Elements that classes and tables are fitted to.
    sample: usize,
    /// Splits and precisions of one set of classes that are priced exactly.
    exact: usize,
    /// Whether tables may come from the sample alone.
    sampled_tables: bool,
    /// How much of the size decoding speed is worth, see [`price`].
    haste: f64,
    /// Steps left out.
    tuning: Tuning,
}

/// Tensors of up to this many elements are small in the sense of [`Effort::small_contexts`].
const SMALL_ELEMENTS: usize = 1 << 19;

impl Effort {
    pub(crate) fn of(level: Level, tuning: Tuning) -> Self {
        let common = Self {
            contexts: &[16],
            small_contexts: &[],
            rounds: 0,
            reach: 0,
            // 10 bits is all that the long exponents of F64 leave room for. At 12 the rounding of a lane's steps is so coarse
            // that its last state often misses every octave, and plain states cost more than the precision gains.
            table_bits: &[10, 11],
            sample: 1 << 17,
            exact: 1,
            sampled_tables: true,
            haste: 1.0,
            tuning,
        };
        let effort = match level {
            Level::Fast => common,
            Level::Default => Self {
                small_contexts: &[6],
                rounds: 3,
                reach: 2,
                table_bits: &[10, 11],
                sample: 1 << 20,
                exact: 2,
                sampled_tables: false,
                ..common
            },
            Level::Max => Self {
                contexts: &[4, 8, 12, 16],
                small_contexts: &[2, 3, 6],
                rounds: 6,
                reach: 3,
                table_bits: &[10, 11],
                sample: 1 << 22,
                exact: 3,
                sampled_tables: false,
                haste: 0.05,
                tuning,
            },
        };
        Self { rounds: if tuning.refine_classes { effort.rounds } else { 0 }, ..effort }
    }
}

/// Rows that one task works on.
const TASK_ROWS: usize = 512;

impl View<'_> {
    fn row(&self, row: usize, heads: &mut Vec<u16>) {
        let bytes = self.geometry.row_bytes();
        heads.clear();
        push_heads(
            &self.data[row * bytes..(row + 1) * bytes],
            self.format.bytes,
            usize::from(self.format.head_bits / 8),
            heads,
        );
    }

    fn tasks(&self) -> Vec<Range<usize>> {
        (0..self.geometry.rows).step_by(TASK_ROWS).map(|r| r..(r + TASK_ROWS).min(self.geometry.rows)).collect()
    }

    /// About evenly spaced rows of together `elements` at most, but at least 64 rows; all rows of a small tensor.
    fn sample(&self, elements: usize) -> Vec<usize> {
        let g = self.geometry;
        let wanted = (elements / g.cols).clamp(64, MOST_COUNTED).min(g.rows);
        (0..wanted).map(|i| (2 * i + 1) * g.rows / (2 * wanted)).collect()
    }
}

/// Plans a tensor; `None` when its coded fields have more values than a table can hold, as wide floats of any bits do.
pub(crate) fn plan(view: View<'_>, effort: Effort) -> Option<Plan> {
    let g = view.geometry;
    let low_bits = if effort.tuning.trim_low_bits { low_bits(&view) } else { Vec::new() };
    let sample = view.sample(effort.sample);
    let scales = Scales::measure(&view, &sample);
    let fitter = Fitter::new(&view, &scales, &sample);
    let table_rows = if effort.sampled_tables { Some(sample.as_slice()) } else { None };

    let mut best: Option<Pricing> = None;
    let mut consider = |classes: Classes| {
        let pricing = Pricing::new(&view, classes, table_rows, &low_bits, effort, best.as_ref().map(|b| b.cost));
        if let Some(pricing) = pricing
            && best.as_ref().is_none_or(|b| pricing.cost < b.cost)
        {
            best = Some(pricing);
        }
    };
    let small = if g.rows * g.cols <= SMALL_ELEMENTS { effort.small_contexts } else { &[] };
    let tried = effort.contexts.iter().chain(small).filter(|&&k| k <= effort.tuning.max_contexts);
    for &contexts in tried {
        let mut classes = scales.classes(contexts);
        if classes.contexts < 2 {
            continue;
        }
        if effort.rounds > 0 {
            fitter.refine(&mut classes, effort.rounds, effort.reach);
        }
        consider(classes);
    }
    if view.format.octave_bits().is_some() && effort.tuning.map_contexts {
        let mut classes = scales.octaves(effort.tuning.max_contexts.min(MAX_CONTEXTS));
        if effort.rounds > 0 {
            fitter.refine(&mut classes, effort.rounds, effort.reach);
        }
        consider(classes);
    }
    consider(Classes { rows: vec![0; g.rows], cols: vec![0; g.cols], contexts: 1, octaves: false });
    Some(best?.plan(&view, low_bits))
}

/// Significant low bits per row; empty when every row has all of them.
fn low_bits(view: &View<'_>) -> Vec<u8> {
    let g = view.geometry;
    let low_bytes = view.format.bytes - usize::from(view.format.head_bits / 8);
    if low_bytes == 0 {
        return Vec::new();
    }
    let bits: Vec<u8> = view.data[..g.rows * g.row_bytes()]
        .par_chunks(g.row_bytes())
        .map(|row| low::significant_bits(row, g.element_bytes, low_bytes))
        .collect();
    if bits.iter().all(|&b| usize::from(b) == 8 * low_bytes) { Vec::new() } else { bits }
}
