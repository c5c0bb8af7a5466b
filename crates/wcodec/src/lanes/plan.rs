//! Choosing split, contexts and tables for a tensor.
//!
//! A weight is noise of a scale that its row and its column foretell. The plan gives every row and column a class and every class sum
//! a table: first by mean log magnitude, then by code length (alternating: tables for the classes, classes for the tables).

use rayon::prelude::*;
use wcodec_predict::log2_fixed;
use wcodec_predict::scale::ScaleClasses;
use wcodec_rans::freq::MAX_ENTRIES;
use wcodec_rans::{FrequencyTable, HeadLayout, TableSet};

use super::encode::push_heads;
use super::low;
use super::{Geometry, LanesParams};
use crate::format::ElementFormat;
use crate::options::Level;

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
    /// Rounds of class refinement.
    rounds: usize,
    /// Distance, in classes, that one round looks.
    reach: i32,
    /// Precisions P to try.
    table_bits: &'static [u32],
}

/// Tensors of up to this many elements are small in the sense of [`Effort::small_contexts`].
const SMALL_ELEMENTS: usize = 1 << 19;

impl Effort {
    pub(crate) fn of(level: Level) -> Self {
        match level {
            // 10 bits is all that the long exponents of F64 leave room for.
            Level::Fast => Self { contexts: &[16], small_contexts: &[], rounds: 0, reach: 0, table_bits: &[10, 11] },
            Level::Default => Self { contexts: &[16], small_contexts: &[6], rounds: 2, reach: 2, table_bits: &[10, 11, 12] },
            Level::Max => Self { contexts: &[4, 8, 12, 16], small_contexts: &[2, 3, 6], rounds: 6, reach: 3, table_bits: &[10, 11, 12] },
        }
    }
}

/// Bins of the coarse alphabet that classes are judged by.
const BINS: usize = 64;
/// Rows that one task works on.
const TASK_ROWS: usize = 512;

impl View<'_> {
    fn row(&self, row: usize, heads: &mut Vec<u16>) {
        let bytes = self.geometry.row_bytes();
        heads.clear();
        push_heads(&self.data[row * bytes..(row + 1) * bytes], self.format.bytes, usize::from(self.format.head_bits / 8), heads);
    }

    fn tasks(&self) -> Vec<std::ops::Range<usize>> {
        (0..self.geometry.rows).step_by(TASK_ROWS).map(|r| r..(r + TASK_ROWS).min(self.geometry.rows)).collect()
    }
}

/// Plans a tensor; `None` when its coded fields have more values than a table can hold, as wide floats of any bits do.
pub(crate) fn plan(view: View<'_>, effort: Effort) -> Option<Plan> {
    let g = view.geometry;
    let logs = view.format.log_magnitudes();
    let scales = Scales::measure(&view, &logs);
    let coarse = view.format.coarse(scales.largest);
    let low_bits = low_bits(&view);

    let mut best: Option<Plan> = None;
    let mut try_classes = |classes: &Classes| {
        let histogram = fine_histogram(&view, classes);
        for plan in price(&view, classes, &histogram, &low_bits, effort) {
            if best.as_ref().is_none_or(|b| plan.bytes < b.bytes) {
                best = Some(plan);
            }
        }
    };
    try_classes(&Classes { rows: vec![0; g.rows], cols: vec![0; g.cols], contexts: 1 });
    let small = if g.rows * g.cols <= SMALL_ELEMENTS { effort.small_contexts } else { &[] };
    for &contexts in effort.contexts.iter().chain(small) {
        let mut classes = scales.classes(contexts);
        if classes.contexts < 2 {
            continue;
        }
        for _ in 0..effort.rounds {
            if !classes.refine(&view, &coarse, effort.reach) {
                break;
            }
        }
        try_classes(&classes);
    }
    best
}

/// Mean log magnitude of every row and column, 1/256 octave.
struct Scales {
    rows: Vec<i32>,
    cols: Vec<i32>,
    largest: u16,
}

impl Scales {
    fn measure(view: &View<'_>, logs: &[u16]) -> Self {
        let g = view.geometry;
        let parts: Vec<(Vec<i32>, Vec<u64>, u16)> = view
            .tasks()
            .into_par_iter()
            .map(|task| {
                let (mut rows, mut cols, mut largest) = (Vec::with_capacity(task.len()), vec![0u64; g.cols], 0);
                let mut heads = Vec::with_capacity(g.cols);
                for row in task {
                    view.row(row, &mut heads);
                    let mut sum = 0u64;
                    for (&head, col) in heads.iter().zip(&mut cols) {
                        let log = logs[usize::from(head)];
                        sum += u64::from(log);
                        *col += u64::from(log);
                        largest = largest.max(log);
                    }
                    rows.push((sum / g.cols as u64) as i32);
                }
                (rows, cols, largest)
            })
            .collect();
        let mut cols = vec![0u64; g.cols];
        let mut rows = Vec::with_capacity(g.rows);
        let mut largest = 0;
        for (part_rows, part_cols, part_largest) in parts {
            rows.extend(part_rows);
            cols.iter_mut().zip(part_cols).for_each(|(c, p)| *c += p);
            largest = largest.max(part_largest);
        }
        Self { rows, cols: cols.iter().map(|&c| (c / g.rows as u64) as i32).collect(), largest }
    }

    fn classes(&self, contexts: usize) -> Classes {
        let classes = ScaleClasses::from_scales(&self.rows, &self.cols, contexts as u8).expect("1 to 16 contexts");
        Classes { rows: classes.rows, cols: classes.cols, contexts: usize::from(classes.contexts) }
    }
}

/// Row and column classes, and the number of contexts their sums are clamped to.
struct Classes {
    rows: Vec<u8>,
    cols: Vec<i8>,
    contexts: usize,
}

impl Classes {
    fn context(&self, row_class: u8, col_class: i8) -> usize {
        (i32::from(row_class) + i32::from(col_class)).clamp(0, self.contexts as i32 - 1) as usize
    }

    /// One round: tables for the classes as they are, then the best class for every row, then for every column. Says whether
    /// anything moved.
    fn refine(&mut self, view: &View<'_>, coarse: &[u8], reach: i32) -> bool {
        let lengths = self.code_lengths(view, coarse);
        let moved_rows = self.refine_rows(view, coarse, &lengths, reach);
        let lengths = self.code_lengths(view, coarse);
        let moved_cols = self.refine_cols(view, coarse, &lengths, reach);
        moved_rows || moved_cols
    }

    /// Code length of every bin in every context, in 1/256 bit.
    fn code_lengths(&self, view: &View<'_>, coarse: &[u8]) -> Vec<u32> {
        let counts: Vec<u64> = view
            .tasks()
            .into_par_iter()
            .map(|task| {
                let mut counts = vec![0u32; self.contexts * BINS];
                let mut heads = Vec::new();
                let mut bases = vec![0usize; view.geometry.cols];
                let mut last = None;
                for row in task {
                    view.row(row, &mut heads);
                    let class = self.rows[row];
                    if last != Some(class) {
                        bases.iter_mut().zip(&self.cols).for_each(|(b, &c)| *b = self.context(class, c) * BINS);
                        last = Some(class);
                    }
                    for (&head, &base) in heads.iter().zip(&bases) {
                        counts[base + usize::from(coarse[usize::from(head)])] += 1;
                    }
                }
                counts
            })
            .fold(|| vec![0u64; self.contexts * BINS], |mut sum, part| {
                sum.iter_mut().zip(part).for_each(|(s, p)| *s += u64::from(p));
                sum
            })
            .reduce(|| vec![0u64; self.contexts * BINS], |mut a, b| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
                a
            });
        counts
            .chunks(BINS)
            .flat_map(|context| {
                let total: u64 = context.iter().sum::<u64>() + BINS as u64 / 4;
                // A quarter of a count for what was not seen keeps moves into a context possible.
                context.iter().map(move |&n| (log2_fixed(4 * total) - log2_fixed(4 * n + 1)) as u32).collect::<Vec<_>>()
            })
            .collect()
    }

    fn refine_rows(&mut self, view: &View<'_>, coarse: &[u8], lengths: &[u32], reach: i32) -> bool {
        let (low, high) = (i32::from(*self.cols.iter().min().unwrap_or(&0)), i32::from(*self.cols.iter().max().unwrap_or(&0)));
        let kinds = (high - low + 1) as usize;
        let kind: Vec<usize> = self.cols.iter().map(|&c| (i32::from(c) - low) as usize * BINS).collect();
        let this = &*self;
        let rate = class_rate(self.rows.iter().map(|&r| i32::from(r)));
        let best: Vec<Vec<u8>> = view
            .tasks()
            .into_par_iter()
            .map(|task| {
                let mut heads = Vec::new();
                let mut counts = vec![0u32; kinds * BINS];
                task.map(|row| {
                    view.row(row, &mut heads);
                    counts.fill(0);
                    for (&head, &k) in heads.iter().zip(&kind) {
                        counts[k + usize::from(coarse[usize::from(head)])] += 1;
                    }
                    let now = i32::from(this.rows[row]);
                    best_class(&counts, now, reach, 0..=100, &rate, |k, class| this.length_row(lengths, class + low + k as i32)) as u8
                })
                .collect()
            })
            .collect();
        let best: Vec<u8> = best.into_iter().flatten().collect();
        let moved = best != self.rows;
        self.rows = best;
        moved
    }

    fn refine_cols(&mut self, view: &View<'_>, coarse: &[u8], lengths: &[u32], reach: i32) -> bool {
        let (low, high) = (i32::from(*self.rows.iter().min().unwrap_or(&0)), i32::from(*self.rows.iter().max().unwrap_or(&0)));
        let kinds = (high - low + 1) as usize;
        let g = view.geometry;
        let this = &*self;
        // Columns in slices whose counts stay in the cache.
        let slice = (512 * 1024 / (kinds * BINS * 4)).clamp(8, 256);
        let head_bytes = usize::from(view.format.head_bits / 8);
        let slices: Vec<usize> = (0..g.cols).step_by(slice).collect();
        let rate = class_rate(self.cols.iter().map(|&c| i32::from(c)));
        let best: Vec<Vec<i8>> = slices
            .into_par_iter()
            .map(|first| {
                let cols = first..(first + slice).min(g.cols);
                let mut counts = vec![0u32; cols.len() * kinds * BINS];
                let mut heads = Vec::new();
                for row in 0..g.rows {
                    let start = row * g.row_bytes();
                    heads.clear();
                    let bytes = start + cols.start * g.element_bytes..start + cols.end * g.element_bytes;
                    push_heads(&view.data[bytes], g.element_bytes, head_bytes, &mut heads);
                    let k = (i32::from(this.rows[row]) - low) as usize * BINS;
                    for (&head, counts) in heads.iter().zip(counts.chunks_exact_mut(kinds * BINS)) {
                        counts[k + usize::from(coarse[usize::from(head)])] += 1;
                    }
                }
                cols.zip(counts.chunks_exact(kinds * BINS))
                    .map(|(col, counts)| {
                        let now = i32::from(this.cols[col]);
                        best_class(counts, now, reach, -100..=100, &rate, |k, class| this.length_row(lengths, class + low + k as i32)) as i8
                    })
                    .collect()
            })
            .collect();
        let best: Vec<i8> = best.into_iter().flatten().collect();
        let moved = best != self.cols;
        self.cols = best;
        moved
    }

    fn length_row<'a>(&self, lengths: &'a [u32], sum: i32) -> &'a [u32] {
        let context = sum.clamp(0, self.contexts as i32 - 1) as usize;
        &lengths[context * BINS..][..BINS]
    }
}

/// The class within `reach` of `now` that codes `counts` (kinds × bins) in the fewest bits; `now` on a tie.
fn best_class<'a>(
    counts: &[u32], now: i32, reach: i32, range: std::ops::RangeInclusive<i32>, rate: &[u32], length: impl Fn(usize, i32) -> &'a [u32],
) -> i32 {
    let cost = |class: i32| -> u64 {
        let told = u64::from(rate[(class + CLASS_ORIGIN) as usize]);
        let coded: u64 = counts
            .chunks_exact(BINS)
            .enumerate()
            .map(|(k, bins)| bins.iter().zip(length(k, class)).map(|(&n, &l)| u64::from(n) * u64::from(l)).sum::<u64>())
            .sum();
        told + coded
    };
    let mut best = (cost(now), now);
    for step in 1..=reach {
        for class in [now - step, now + step] {
            if range.contains(&class) {
                let c = cost(class);
                if c < best.0 {
                    best = (c, class);
                }
            }
        }
    }
    best.1
}

/// Index of class 0 in [`class_rate`].
const CLASS_ORIGIN: i32 = 128;

/// What naming a class costs, in 1/256 bit, when classes are spread as they are now.
fn class_rate(classes: impl Iterator<Item = i32>) -> Vec<u32> {
    let mut counts = vec![0u64; 256];
    let mut total = 0;
    for class in classes {
        counts[(class + CLASS_ORIGIN) as usize] += 1;
        total += 1;
    }
    counts.iter().map(|&n| (log2_fixed(8 * total + 8) - log2_fixed(8 * n + 1)) as u32).collect()
}

/// Counts of every coded value at the finest split, per context.
fn fine_histogram(view: &View<'_>, classes: &Classes) -> Vec<Vec<u64>> {
    let layout = view.format.layout(view.format.shifts[0]);
    let width = 1usize << layout.coded_bits();
    let parts: Vec<Vec<u32>> = view
        .tasks()
        .par_chunks(16)
        .map(|tasks| {
            let mut counts = vec![0u32; classes.contexts * width];
            let mut heads = Vec::new();
            let mut bases = vec![0usize; view.geometry.cols];
            let mut last = None;
            for row in tasks.iter().flat_map(Clone::clone) {
                view.row(row, &mut heads);
                let class = classes.rows[row];
                if last != Some(class) {
                    bases.iter_mut().zip(&classes.cols).for_each(|(b, &c)| *b = classes.context(class, c) * width);
                    last = Some(class);
                }
                for (&head, &base) in heads.iter().zip(&bases) {
                    counts[base + usize::from(layout.coded(head))] += 1;
                }
            }
            counts
        })
        .collect();
    let mut sum = vec![vec![0u64; width]; classes.contexts];
    for part in parts {
        for (s, p) in sum.iter_mut().zip(part.chunks(width)) {
            s.iter_mut().zip(p).for_each(|(s, &p)| *s += u64::from(p));
        }
    }
    sum
}

/// Plans for these classes: every split and precision, with its price.
fn price<'a>(
    view: &'a View<'_>, classes: &'a Classes, histogram: &'a [Vec<u64>], low_bits: &'a [u8], effort: Effort,
) -> impl Iterator<Item = Plan> + 'a {
    let g = view.geometry;
    let elements = (g.rows * g.cols) as u64;
    let finest = view.format.shifts[0];
    view.format.shifts.iter().flat_map(move |&shift| {
        let layout = view.format.layout(shift);
        let fold = 1usize << (shift - finest);
        let counts: Vec<Vec<u64>> =
            histogram.iter().map(|h| h.chunks(fold).map(|c| c.iter().sum()).collect()).collect();
        effort.table_bits.iter().filter_map(move |&p| {
            if 2 * p + layout.coded_bits() > 32 || classes.contexts << p > MAX_ENTRIES {
                return None;
            }
            let (tables, coded_bits) = tables(p, &counts)?;
            let empty = classes.contexts == 1;
            let params = LanesParams {
                geometry: g,
                layout,
                row_classes: if empty || classes.rows.iter().all(|&c| c == 0) { Vec::new() } else { classes.rows.clone() },
                col_classes: if empty || classes.cols.iter().all(|&c| c == 0) { Vec::new() } else { classes.cols.clone() },
                low_bits: low_bits.to_vec(),
            };
            let low: u64 = if params.low_bits.is_empty() {
                elements * params.low_bytes() as u64
            } else {
                low_bits.iter().map(|&b| (g.cols * usize::from(b)) as u64 / 8).sum()
            };
            let bytes = (coded_bits / 8.0) as u64
                + elements * u64::from(layout.raw_bits()) / 8
                + low
                + (g.rest * g.element_bytes) as u64
                + block_overhead(&g, layout)
                + (tables.to_bytes().len() + params.to_bytes().len()) as u64;
            Some(Plan { params, tables, bytes })
        })
    })
}

/// Bytes that superblocks cost beyond their symbols: an index entry and, where no raw field fills the states, three bytes per lane.
fn block_overhead(g: &Geometry, layout: HeadLayout) -> u64 {
    let carried = g.shape(0, 0).raw_bytes(layout) > 0;
    g.blocks() as u64 * if carried { 5 } else { 5 + 3 * g.cols.min(wcodec_rans::LANES) as u64 }
}

/// Tables for `counts`, leaving values to patches where a slot would cost more, and the bits that coding with them takes.
fn tables(table_bits: u32, counts: &[Vec<u64>]) -> Option<(TableSet, f64)> {
    const PATCH_BITS: f64 = 36.0;
    let slots = f64::from(1u32 << table_bits);
    let mut kept = counts.to_vec();
    let mut patched = 0u64;
    for context in &mut kept {
        let total: u64 = context.iter().sum();
        let slot_bits = total as f64 * std::f64::consts::LOG2_E / slots + 6.0;
        for n in context.iter_mut().filter(|n| **n > 0) {
            if *n as f64 * (PATCH_BITS - f64::from(table_bits)) < slot_bits {
                patched += *n;
                *n = 0;
            }
        }
    }
    let set = TableSet::from_counts(table_bits, &kept).ok()?;
    let bits: f64 = set
        .tables()
        .iter()
        .zip(&kept)
        .map(|(table, counts): (&FrequencyTable, _)| {
            let dense: Vec<u64> = set.values().iter().map(|&v| counts.get(usize::from(v)).copied().unwrap_or(0)).collect();
            table.cost(&dense)
        })
        .sum();
    Some((set, bits + patched as f64 * PATCH_BITS))
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
