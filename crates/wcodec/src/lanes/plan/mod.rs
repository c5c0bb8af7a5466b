//! Choosing split, contexts and tables for a tensor.
//!
//! A weight is noise of a scale that its row and its column foretell. The plan gives every row and column a class and every class sum
//! a table: first by mean log magnitude ([`scales`]), then by code length ([`fitter`]; alternating: tables for the classes, classes for
//! the tables); then it compares splits and precisions ([`price`]). Large tensors are judged by a sample of rows; which rows, and so
//! the plan, depends on the shape alone.

mod classes;
mod counts;
mod fitter;
mod price;
mod scales;
mod table_map;

use std::ops::Range;

use rayon::prelude::*;
use wcodec_rans::{MAX_CONTEXTS, TableSet, stats};

use self::classes::Classes;
pub(crate) use self::counts::Counts;
use self::fitter::{Fitter, MOST_COUNTED};
use self::price::Pricing;
pub(crate) use self::price::TableCosts;
use self::scales::Scales;
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
    /// The tables serialised.
    pub(crate) table_bytes: Vec<u8>,
    /// What the tables were made from, perhaps of a sample of rows.
    pub(crate) counts: Counts,
    /// Estimated payload and directory bytes.
    pub(crate) bytes: u64,
}

/// How far to search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// How many to an octave there are, at most, of the contexts of floats that share tables: sets of classes to try.
    shared: &'static [usize],
    /// Numbers of contexts to try for floats that have a table each.
    contexts: &'static [usize],
    /// The same for integers.
    integer_contexts: &'static [usize],
    /// Further ones for tensors whose tables and class maps weigh.
    small_contexts: &'static [usize],
    /// Elements by which one set of classes is picked before it is refined; none: all are refined.
    picked_by: Option<usize>,
    /// Rounds of class refinement; fewer when they stop paying.
    rounds: usize,
    /// Distance, in classes, that one round looks.
    reach: i32,
    /// Precisions P to try.
    table_bits: &'static [u32],
    /// Elements that classes are fitted to.
    sample: usize,
    /// Elements that tables are made from.
    counted: usize,
    /// Splits and precisions of one set of classes that are priced exactly.
    exact: usize,
    /// Steps left out.
    tuning: Tuning,
}

/// Tables that 16 contexts share: with 64 symbols each they are what a decoder looks up in four registers.
const SHARED_TABLES: usize = 4;
/// Tensors of up to this many elements are small in the sense of [`Effort::small_contexts`].
const SMALL_ELEMENTS: usize = 1 << 19;

impl Effort {
    pub(crate) fn of(level: Level, tuning: Tuning) -> Self {
        let effort = match level {
            Level::Fast => Self {
                shared: &[4],
                contexts: &[],
                integer_contexts: &[12],
                small_contexts: &[],
                picked_by: None,
                rounds: 0,
                reach: 0,
                table_bits: &[10],
                sample: 1 << 16,
                counted: 1 << 16,
                exact: 1,
                tuning,
            },
            Level::Default => Self {
                shared: &[5],
                contexts: &[],
                integer_contexts: &[8, 12],
                small_contexts: &[],
                picked_by: Some(1 << 15),
                rounds: 2,
                reach: 2,
                // 10 bits is all that the long exponents of F64 leave room for, and half the tables for a GPU.
                table_bits: &[10, 11],
                sample: 1 << 18,
                counted: 1 << 20,
                exact: 2,
                tuning,
            },
            Level::Max => Self {
                shared: &[5, 8],
                contexts: &[8],
                integer_contexts: &[4, 8, 12],
                small_contexts: &[3],
                picked_by: None,
                rounds: 4,
                reach: 3,
                // At 12 the rounding of a lane's steps is so coarse that its last state often misses every octave, and plain
                // states cost more than the precision gains.
                table_bits: &[10, 11],
                sample: 1 << 20,
                counted: usize::MAX,
                exact: 3,
                tuning,
            },
        };
        Self { rounds: if tuning.refine_classes { effort.rounds } else { 0 }, ..effort }
    }
}

/// Rows that one task works on.
const TASK_ROWS: usize = 512;

impl View<'_> {
    fn row_bytes(&self, row: usize) -> &[u8] {
        let bytes = self.geometry.row_bytes();
        &self.data[row * bytes..(row + 1) * bytes]
    }

    /// The heads of a row.
    fn row(&self, row: usize, heads: &mut [u16]) {
        stats::heads(self.row_bytes(row), self.format.bytes, usize::from(self.format.head_bits / 8), heads);
    }

    fn tasks(&self) -> Vec<Range<usize>> {
        (0..self.geometry.rows).step_by(TASK_ROWS).map(|r| r..(r + TASK_ROWS).min(self.geometry.rows)).collect()
    }

    /// About evenly spaced rows of together `elements` at most, but at least 64 rows; all rows of a small tensor.
    fn spread(&self, elements: usize, most: usize) -> Vec<usize> {
        let g = self.geometry;
        let wanted = (elements / g.cols).clamp(64, most).min(g.rows);
        (0..wanted).map(|i| (2 * i + 1) * g.rows / (2 * wanted)).collect()
    }
}

/// Some rows and their heads.
struct Sample {
    rows: Vec<usize>,
    heads: Vec<u16>,
}

impl Sample {
    fn take(view: &View<'_>, elements: usize) -> Self {
        let rows = view.spread(elements, MOST_COUNTED);
        let cols = view.geometry.cols;
        let mut heads = vec![0; rows.len() * cols];
        heads.par_chunks_mut(64 * cols).zip(rows.par_chunks(64)).for_each(|(heads, rows)| {
            heads.chunks_exact_mut(cols).zip(rows).for_each(|(heads, &row)| view.row(row, heads));
        });
        Self { rows, heads }
    }
}

/// Plans a tensor; `None` when its coded fields have more values than a table can hold, as wide floats of any bits do.
pub(crate) fn plan(view: View<'_>, effort: Effort) -> Option<Plan> {
    let g = view.geometry;
    let low_bits = if effort.tuning.trim_low_bits { low_bits(&view) } else { Vec::new() };
    let sample = Sample::take(&view, effort.sample);
    let scales = Scales::measure(&view, &sample);
    let fitter = (effort.rounds > 0).then(|| Fitter::new(&view, &scales, &sample));
    let counted = (g.rows * g.cols > effort.counted).then(|| view.spread(effort.counted, usize::MAX));

    let most = effort.tuning.max_contexts.min(MAX_CONTEXTS);
    let contexts = if view.format.octave_bits().is_some() { effort.contexts } else { effort.integer_contexts };
    let small = if g.rows * g.cols <= SMALL_ELEMENTS { effort.small_contexts } else { &[] };
    let mut tried: Vec<Classes> =
        contexts.iter().chain(small).filter(|&&k| k <= most).map(|&k| scales.classes(k)).collect();
    if view.format.octave_bits().is_some() && effort.tuning.map_contexts && most > 1 {
        let shared = |&per_octave: &usize| scales.shared(most, per_octave, SHARED_TABLES);
        let fitted = fitter.is_some() || scales.map.shifts();
        tried.extend(effort.shared.iter().filter(|_| fitted).map(shared));
    }
    if tried.is_empty() {
        tried.push(scales.classes(most.min(if fitter.is_some() { 8 } else { SHARED_TABLES })));
    }
    if let Some(elements) = effort.picked_by
        && tried.len() > 1
    {
        let rows = view.spread(elements, usize::MAX);
        let price = |classes| Pricing::new(&view, classes, Some(&rows), &low_bits, effort, None, false);
        let costs = tried.iter().map(|classes| price(classes.clone()).map_or(f64::INFINITY, |p| p.cost));
        let first = costs.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(i, _)| i);
        tried = vec![tried.swap_remove(first)];
    }

    let mut best: Option<Pricing> = None;
    for (i, mut classes) in tried.into_iter().enumerate() {
        if let Some(fitter) = &fitter
            && classes.contexts > 1
        {
            fitter.refine(&mut classes, effort.rounds, effort.reach);
        }
        // The counts of classes have those of none in them.
        let pricing = Pricing::new(&view, classes, counted.as_deref(), &low_bits, effort, best.as_ref(), i == 0);
        best = pricing.or(best);
    }
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
