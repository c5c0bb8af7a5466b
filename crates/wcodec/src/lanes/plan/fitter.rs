//! Refining classes by code length.

use std::ops::Range;

use rayon::prelude::*;
use wcodec_predict::log2_fixed;
use wcodec_rans::histograms::{self, Histograms, LINES, Rows};

use super::classes::{Classes, Lengths, MAX_CLASS, context_starts, sum_index};
use super::scales::{BinMap, Scales};
use super::table_map::TableMap;
use super::{Sample, TASK_ROWS, View};

/// Refines classes on the bins of some rows.
pub(super) struct Fitter<'a> {
    view: &'a View<'a>,
    map: &'a BinMap,
    /// Rows that tables and column classes are fitted to.
    sample: &'a [usize],
    /// Their bins.
    by_cols: Matrix,
    /// The same, transposed.
    by_rows: Matrix,
}

/// Bins in blocks of 64 columns, whose histograms are taken together, one row of a block after the other. The last block is filled up.
struct Matrix {
    bins: Vec<[u8; LINES]>,
    rows: usize,
}

/// A round that saves less than one part in this many is the last.
const LEAST_GAIN: u64 = 5000;
/// Most elements of one row or column that are counted.
pub(super) const MOST_COUNTED: usize = 32_000;

impl<'a> Fitter<'a> {
    pub(super) fn new(view: &'a View<'a>, scales: &'a Scales, sample: &'a Sample) -> Self {
        let (cols, count) = (view.geometry.cols, sample.rows.len());
        let stride = cols.next_multiple_of(LINES);
        let mut by_rows = vec![[0; LINES]; stride * count.div_ceil(LINES)];
        let mut by_cols = vec![[0; LINES]; count * (stride / LINES)];
        let parts: Vec<Vec<u8>> = by_rows
            .par_chunks_mut(stride)
            .zip(sample.heads.par_chunks(LINES * cols))
            .map(|(turned, heads)| {
                let mut bins = vec![0; LINES * stride];
                let rows = bins.chunks_exact_mut(stride).zip(heads.chunks_exact(cols));
                rows.for_each(|(bins, heads)| scales.map.map(heads, &mut bins[..cols]));
                histograms::transpose(&bins, stride, turned.as_flattened_mut());
                bins
            })
            .collect();
        by_cols.par_chunks_mut(count).enumerate().for_each(|(block, rows)| {
            let segments =
                parts.iter().flat_map(|part| part.as_chunks::<LINES>().0.iter().skip(block).step_by(stride / LINES));
            rows.iter_mut().zip(segments).for_each(|(row, segment)| *row = *segment);
        });
        Self {
            view,
            map: &scales.map,
            sample: &sample.rows,
            by_cols: Matrix { bins: by_cols, rows: count },
            by_rows: Matrix { bins: by_rows, rows: stride },
        }
    }

    /// Alternates between tables for the classes and classes for the tables; then gives the rows outside the sample theirs. Contexts that
    /// are to share tables have their own in the first round; which ones then share is told anew in every round.
    pub(super) fn refine(&self, classes: &mut Classes, rounds: usize, reach: i32) {
        let tables = classes.map.take().map(|map| map.tables);
        let mut lengths = self.lengths(classes, self.rows_pass(classes, None).totals);
        let mut before = u64::MAX;
        for round in 0..rounds {
            let pass = self.rows_pass(classes, Some((&lengths, reach)));
            for (&row, &class) in self.sample.iter().zip(&pass.classes) {
                classes.rows[row] = class as u8;
            }
            let pass = self.cols_pass(classes, (&self.lengths(classes, pass.totals), reach));
            classes.cols.iter_mut().zip(&pass.classes).for_each(|(c, &class)| *c = class as i8);
            if let Some(tables) = tables {
                classes.map = Some(TableMap::fit(&pass.totals, self.map, tables));
            }
            lengths = self.lengths(classes, pass.totals);
            if round > usize::from(tables.is_some()) && pass.cost + pass.cost / LEAST_GAIN >= before {
                break;
            }
            before = pass.cost;
        }
        if self.sample.len() < self.view.geometry.rows {
            let found = self.other_rows(classes, (&lengths, reach));
            classes.rows = found.iter().map(|&c| c as u8).collect();
        }
    }

    fn lengths(&self, classes: &Classes, totals: Vec<u32>) -> Lengths {
        Lengths::new(&totals, self.map, classes.map.as_ref())
    }

    /// The best class of every row of the sample, and the counts that follow. Without lengths the classes stay.
    fn rows_pass(&self, classes: &Classes, search: Option<(&Lengths, i32)>) -> Pass {
        let now: Vec<i32> = self.sample.iter().map(|&row| i32::from(classes.rows[row])).collect();
        self.sample_pass(
            classes,
            &self.by_rows,
            &now,
            &self.columns(classes),
            search.map(|s| self.row_search(classes, s)),
        )
    }

    /// The best class of every column, by the sample, and the counts that follow.
    fn cols_pass(&self, classes: &Classes, (lengths, reach): (&Lengths, i32)) -> Pass {
        let now: Vec<i32> = classes.cols.iter().map(|&c| i32::from(c)).collect();
        let rows = Rows::of(self.sample.iter().map(|&row| i32::from(classes.rows[row])));
        let search = Search { lengths, reach, lowest: -MAX_CLASS, rate: class_rate(now.iter().copied()) };
        self.sample_pass(classes, &self.by_cols, &now, &rows, Some(search))
    }

    fn sample_pass(
        &self,
        classes: &Classes,
        matrix: &Matrix,
        now: &[i32],
        rows: &Rows,
        search: Option<Search<'_>>,
    ) -> Pass {
        let bins = self.map.bins();
        let starts: Vec<u32> = context_starts(bins, classes.contexts).collect();
        let tasks = now.par_chunks(TASK_LINES).zip(matrix.bins.par_chunks(TASK_LINES / LINES * matrix.rows));
        let parts: Vec<Pass> = tasks
            .map(|(now, blocks)| {
                let mut histograms = Histograms::new(bins, rows);
                let mut pass = Pass::new(now.len(), bins * classes.contexts);
                for (now, block) in now.chunks(LINES).zip(blocks.chunks_exact(matrix.rows)) {
                    histograms.count(block, rows);
                    for (line, &now) in now.iter().enumerate() {
                        let class = match &search {
                            Some(search) => pass.add(search.best(&histograms, line, now)),
                            None => now,
                        };
                        histograms.add(line, &starts[sum_index(class + histograms.lowest())..], &mut pass.totals);
                    }
                }
                pass
            })
            .collect();
        Pass::join(parts)
    }

    /// The best class of every row, of the sample or not.
    fn other_rows(&self, classes: &Classes, search: (&Lengths, i32)) -> Vec<i32> {
        let (rows, cols) = (self.view.geometry.rows, self.view.geometry.cols);
        let (search, columns) = (self.row_search(classes, search), self.columns(classes));
        let stride = cols.next_multiple_of(LINES);
        let task = |range: Range<usize>| {
            let mut histograms = Histograms::new(self.map.bins(), &columns);
            let mut heads = vec![0; cols];
            let (mut bins, mut turned) = (vec![0; LINES * stride], vec![[0; LINES]; stride]);
            let mut found = Vec::with_capacity(range.len());
            for first in range.clone().step_by(LINES) {
                let block = first..(first + LINES).min(range.end);
                for (row, bins) in block.clone().zip(bins.chunks_exact_mut(stride)) {
                    self.view.row(row, &mut heads);
                    self.map.map(&heads, &mut bins[..cols]);
                }
                histograms::transpose(&bins, stride, turned.as_flattened_mut());
                histograms.count(&turned, &columns);
                let best = |(line, row): (usize, usize)| search.best(&histograms, line, classes.rows[row].into()).1;
                found.extend(block.enumerate().map(best));
            }
            found
        };
        let tasks: Vec<usize> = (0..rows).step_by(TASK_ROWS).collect();
        let parts: Vec<Vec<i32>> =
            tasks.into_par_iter().map(|first| task(first..(first + TASK_ROWS).min(rows))).collect();
        parts.concat()
    }

    /// The columns by their classes; of very many, every so many.
    fn columns(&self, classes: &Classes) -> Rows {
        let step = classes.cols.len().div_ceil(MOST_COUNTED);
        Rows::of(classes.cols.iter().step_by(step).map(|&c| i32::from(c))).every(step)
    }

    fn row_search<'b>(&self, classes: &Classes, (lengths, reach): (&'b Lengths, i32)) -> Search<'b> {
        let rate = class_rate(classes.rows.iter().map(|&r| i32::from(r)));
        Search { lengths, reach, lowest: 0, rate }
    }
}

/// Rows or columns that one task works on.
const TASK_LINES: usize = 4 * LINES;

/// What a pass over rows or columns finds: their new classes, the counts per context and bin that follow, and what all that costs.
struct Pass {
    classes: Vec<i32>,
    totals: Vec<u32>,
    cost: u64,
}

impl Pass {
    fn new(len: usize, totals: usize) -> Self {
        Self { classes: Vec::with_capacity(len), totals: vec![0; totals], cost: 0 }
    }

    fn add(&mut self, (cost, class): (u64, i32)) -> i32 {
        self.cost += cost;
        self.classes.push(class);
        class
    }

    fn join(parts: Vec<Self>) -> Self {
        parts
            .into_iter()
            .reduce(|mut all, part| {
                all.classes.extend(part.classes);
                all.totals.iter_mut().zip(part.totals).for_each(|(a, p)| *a += p);
                all.cost += part.cost;
                all
            })
            .expect("a tensor has rows and columns")
    }
}

/// Where classes may go, and what they cost.
struct Search<'a> {
    lengths: &'a Lengths,
    /// Distance that is looked at.
    reach: i32,
    lowest: i32,
    /// What naming a class costs.
    rate: Vec<u32>,
}

impl Search<'_> {
    /// Cost and number of the class near `now` that codes a row (or column) in the fewest bits.
    fn best(&self, histograms: &Histograms, line: usize, now: i32) -> (u64, i32) {
        // Three neighbouring classes at a time.
        let around = |class: i32| histograms.costs(line, self.lengths.from(class - 1 + histograms.lowest()));
        let (mut centre, mut costs) = (now, around(now));
        let mut cost = |class: i32| {
            if (class - centre).abs() > 1 {
                (centre, costs) = (class, around(class));
            }
            u64::from(self.rate[(class + CLASS_ORIGIN) as usize]) + costs[(class - centre + 1) as usize] as u64
        };
        let mut best = (cost(now), now);
        for direction in [-1, 1] {
            // Downhill only: costs have one valley, nearly always.
            for step in 1..=self.reach {
                let class = now + direction * step;
                if class < self.lowest || class > MAX_CLASS {
                    break;
                }
                let c = cost(class);
                if c >= best.0 {
                    break;
                }
                best = (c, class);
            }
            if best.1 != now {
                break;
            }
        }
        best
    }
}

/// Index of class 0 in [`class_rate`].
const CLASS_ORIGIN: i32 = 128;

/// What naming a class costs, in 1/256 bit, when classes are spread as they are now.
fn class_rate(classes: impl Iterator<Item = i32>) -> Vec<u32> {
    let mut counts = [0u64; 256];
    let mut total = 0;
    for class in classes {
        counts[(class + CLASS_ORIGIN) as usize] += 1;
        total += 1;
    }
    let all = log2_fixed(8 * total + 8);
    counts.iter().map(|&n| (if n == 0 { all } else { all - log2_fixed(8 * n + 1) }) as u32).collect()
}
