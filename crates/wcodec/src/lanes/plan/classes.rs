//! Classes by code length.

use rayon::prelude::*;
use wcodec_predict::log2_fixed;
use wcodec_rans::stats;

use super::scales::{BinMap, Scales};
use super::{Sample, View};

/// Row and column classes, and the number of contexts their sums are clamped to.
#[derive(Debug, Clone)]
pub(super) struct Classes {
    pub(super) rows: Vec<u8>,
    pub(super) cols: Vec<i8>,
    pub(super) contexts: usize,
    /// Whether classes are quarters of octaves, so that contexts four apart may share a table.
    pub(super) octaves: bool,
}

impl Classes {
    /// No classes: a single context.
    pub(super) fn none() -> Self {
        Self { rows: Vec::new(), cols: Vec::new(), contexts: 1, octaves: false }
    }
}

/// Contexts per octave where they are mapped.
pub(super) const PER_OCTAVE: usize = 4;
/// Bins per octave, of whatever map.
const BINS_PER_OCTAVE: usize = 2;

/// Refines classes on the bins of some rows.
pub(super) struct Fitter<'a> {
    view: &'a View<'a>,
    map: &'a BinMap,
    /// Rows that tables and column classes are fitted to.
    sample: &'a [usize],
    /// Their bins, row by row.
    bins: Vec<u8>,
}

/// Row classes lie in 0..=MAX_CLASS, column classes in −MAX_CLASS..=MAX_CLASS.
const MAX_CLASS: i32 = 100;
/// A round that saves less than one part in this many is the last.
const LEAST_GAIN: u64 = 5000;
/// Most elements that are counted in 16 bits.
pub(super) const MOST_COUNTED: usize = 32_000;

/// Code length of every bin for every sum of classes, in 1/256 bit: the lengths for one class with all classes of the other kind are one
/// slice.
struct Lengths {
    bins: usize,
    of_sums: Vec<i16>,
}

/// Sums of a row and a column class: from −MAX_CLASS to 2·MAX_CLASS.
const SUMS: usize = 3 * MAX_CLASS as usize + 1;

impl Lengths {
    /// Lengths by the counts of every sum and bin, sums clamped to contexts.
    fn new(counts: &[u32], bins: usize, contexts: usize, octaves: bool) -> Self {
        let context = |sum: usize| (sum as i32 - MAX_CLASS).clamp(0, contexts as i32 - 1) as usize;
        let mut totals = vec![0u64; contexts * bins];
        for (sum, counts) in counts.chunks_exact(bins).enumerate() {
            let of_context = &mut totals[context(sum) * bins..][..bins];
            of_context.iter_mut().zip(counts).for_each(|(t, &c)| *t += u64::from(c));
        }
        if octaves {
            pool_octaves(&mut totals, bins, contexts);
        }
        let lengths: Vec<i16> = totals
            .chunks_exact(bins)
            .flat_map(|counts| {
                let total: u64 = counts.iter().sum::<u64>() + bins as u64 / 4;
                // A quarter of a count for what was not seen keeps moves into a context possible.
                counts.iter().map(move |&n| (log2_fixed(4 * total) - log2_fixed(4 * n + 1)) as i16)
            })
            .collect();
        let mut of_sums = Vec::with_capacity(SUMS * bins);
        (0..SUMS).for_each(|sum| of_sums.extend_from_slice(&lengths[context(sum) * bins..][..bins]));
        Self { bins, of_sums }
    }

    fn from(&self, sum: i32) -> &[i16] {
        &self.of_sums[(sum + MAX_CLASS) as usize * self.bins..]
    }
}

/// Gives contexts whole octaves apart the sum of their counts, each a shifted copy of the others.
fn pool_octaves(totals: &mut [u64], bins: usize, contexts: usize) {
    let highest = (contexts - 1) / PER_OCTAVE;
    // How many bins a context lies below the highest of its phase.
    let below = |context: usize| (highest - context / PER_OCTAVE) * BINS_PER_OCTAVE;
    for phase in 0..PER_OCTAVE.min(contexts) {
        let mut pool = vec![0u64; bins];
        for context in (phase..contexts).step_by(PER_OCTAVE) {
            for (bin, &n) in totals[context * bins..][..bins].iter().enumerate() {
                pool[(bin + below(context)).min(bins - 1)] += n;
            }
        }
        for context in (phase..contexts).step_by(PER_OCTAVE) {
            for (bin, n) in totals[context * bins..][..bins].iter_mut().enumerate() {
                *n = pool.get(bin + below(context)).copied().unwrap_or(0);
            }
        }
    }
}

/// Smallest and number of the classes that there are.
#[derive(Clone, Copy)]
struct Kinds {
    low: i32,
    count: usize,
}

impl Kinds {
    fn of(classes: impl Iterator<Item = i32>) -> Self {
        let (low, high) = classes.fold((i32::MAX, i32::MIN), |(low, high), c| (low.min(c), high.max(c)));
        if low > high { Self { low: 0, count: 1 } } else { Self { low, count: (high - low + 1) as usize } }
    }
}

/// What a pass over rows or columns finds: their new classes, the counts per sum and bin that follow, and what all that costs.
struct Pass {
    classes: Vec<i32>,
    counts: Vec<u32>,
    cost: u64,
}

/// Where classes may go, and what naming one costs.
struct Moves {
    reach: i32,
    lowest: i32,
    rate: Vec<u32>,
}

impl Pass {
    fn new(len: usize, bins: usize) -> Self {
        Self { classes: Vec::with_capacity(len), counts: vec![0; SUMS * bins], cost: 0 }
    }

    /// Gives the next row (or column), `counts` per kind of the others and bin, the class near `now` that codes it in the fewest bits.
    fn choose(&mut self, counts: &[i16], now: i32, low: i32, lengths: &Lengths, moves: &Moves) {
        let cost = |class: i32| -> u64 {
            let told = u64::from(moves.rate[(class + CLASS_ORIGIN) as usize]);
            told + stats::product(counts, lengths.from(class + low)) as u64
        };
        let mut best = (cost(now), now);
        for direction in [-1, 1] {
            // Downhill only: costs have one valley, nearly always.
            for step in 1..=moves.reach {
                let class = now + direction * step;
                if class < moves.lowest || class > MAX_CLASS {
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
        self.cost += best.0;
        self.take(counts, best.1, low, lengths.bins);
    }

    /// Gives the next row (or column) this class.
    fn take(&mut self, counts: &[i16], class: i32, low: i32, bins: usize) {
        self.classes.push(class);
        let sums = &mut self.counts[(class + low + MAX_CLASS) as usize * bins..];
        sums.iter_mut().zip(counts).for_each(|(s, &c)| *s += c as u32);
    }

    fn join(parts: Vec<Self>) -> Self {
        parts
            .into_iter()
            .reduce(|mut all, part| {
                all.classes.extend(part.classes);
                all.counts.iter_mut().zip(part.counts).for_each(|(a, p)| *a += p);
                all.cost += part.cost;
                all
            })
            .expect("a tensor has rows and columns")
    }
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

impl<'a> Fitter<'a> {
    pub(super) fn new(view: &'a View<'a>, scales: &'a Scales, sample: &'a Sample) -> Self {
        let part = 64 * view.geometry.cols;
        let mut bins = vec![0; sample.heads.len()];
        bins.par_chunks_mut(part)
            .zip(sample.heads.par_chunks(part))
            .for_each(|(bins, heads)| scales.map.map(heads, bins));
        Self { view, map: &scales.map, sample: &sample.rows, bins }
    }

    /// Alternates between tables for the classes and classes for the tables; then gives the rows outside the sample theirs.
    pub(super) fn refine(&self, classes: &mut Classes, rounds: usize, reach: i32) {
        let (mut lengths, mut before) = (self.rows_pass(classes, None, 0, true).1, u64::MAX);
        for round in 0..rounds {
            let (pass, next) = self.rows_pass(classes, Some(&lengths), reach, true);
            for (&row, &class) in self.sample.iter().zip(&pass.classes) {
                classes.rows[row] = class as u8;
            }
            let (pass, next) = self.cols_pass(classes, &next, reach);
            classes.cols.iter_mut().zip(&pass.classes).for_each(|(c, &class)| *c = class as i8);
            lengths = next;
            if round > 0 && pass.cost + pass.cost / LEAST_GAIN >= before {
                break;
            }
            before = pass.cost;
        }
        if self.sample.len() < self.view.geometry.rows {
            let (pass, _) = self.rows_pass(classes, Some(&lengths), reach, false);
            classes.rows = pass.classes.iter().map(|&c| c as u8).collect();
        }
    }

    /// The best class of every row, of the sample's or of all, and the lengths that follow. Without `lengths` the classes stay.
    fn rows_pass(&self, classes: &Classes, lengths: Option<&Lengths>, reach: i32, sampled: bool) -> (Pass, Lengths) {
        let (bins, cols) = (self.map.bins(), self.view.geometry.cols);
        let kinds = Kinds::of(classes.cols.iter().map(|&c| i32::from(c)));
        let moves = Moves { reach, lowest: 0, rate: class_rate(classes.rows.iter().map(|&r| i32::from(r))) };
        // The counts of one row fit 16 bits: of a very wide one, those of every so many columns.
        let step = cols.div_ceil(MOST_COUNTED);
        let bases: Vec<u16> =
            classes.cols.iter().step_by(step).map(|&c| ((i32::from(c) - kinds.low) as usize * bins) as u16).collect();
        let rows = if sampled { self.sample.len() } else { self.view.geometry.rows };
        let tasks: Vec<usize> = (0..rows).step_by(super::TASK_ROWS).collect();
        let parts: Vec<Pass> = tasks
            .into_par_iter()
            .map(|first| {
                let range = first..(first + super::TASK_ROWS).min(rows);
                let mut pass = Pass::new(range.len(), bins);
                let (mut heads, mut own) = (vec![0; cols], vec![0; if sampled { 0 } else { cols }]);
                let mut counts = [vec![0i16; kinds.count * bins], vec![0i16; kinds.count * bins]];
                for i in range {
                    let (row, row_bins) = if sampled {
                        (self.sample[i], &self.bins[i * cols..][..cols])
                    } else {
                        self.view.row(i, &mut heads);
                        self.map.map(&heads, &mut own);
                        (i, own.as_slice())
                    };
                    counts.iter_mut().for_each(|c| c.fill(0));
                    if step == 1 {
                        // Two histograms: neighbours that fall on one count would wait for each other.
                        let [a, b] = &mut counts;
                        for (bin, base) in row_bins.chunks(2).zip(bases.chunks(2)) {
                            a[usize::from(base[0]) + usize::from(bin[0])] += 1;
                            if let ([_, bin], [_, base]) = (bin, base) {
                                b[usize::from(*base) + usize::from(*bin)] += 1;
                            }
                        }
                    } else {
                        for (&bin, &base) in row_bins.iter().step_by(step).zip(&bases) {
                            counts[0][usize::from(base) + usize::from(bin)] += 1;
                        }
                    }
                    let [a, b] = &mut counts;
                    a.iter_mut().zip(b.iter()).for_each(|(a, b)| *a += b);
                    let now = i32::from(classes.rows[row]);
                    match lengths {
                        Some(lengths) => pass.choose(a, now, kinds.low, lengths, &moves),
                        None => pass.take(a, now, kinds.low, bins),
                    }
                }
                pass
            })
            .collect();
        let pass = Pass::join(parts);
        let lengths = Lengths::new(&pass.counts, bins, classes.contexts, classes.octaves);
        (pass, lengths)
    }

    /// The best class of every column, by the sample.
    fn cols_pass(&self, classes: &Classes, lengths: &Lengths, reach: i32) -> (Pass, Lengths) {
        let (bins, cols) = (self.map.bins(), self.view.geometry.cols);
        let kinds = Kinds::of(self.sample.iter().map(|&r| i32::from(classes.rows[r])));
        let moves = Moves { reach, lowest: -MAX_CLASS, rate: class_rate(classes.cols.iter().map(|&c| i32::from(c))) };
        let width = kinds.count * bins;
        // Columns in slices whose counts stay in the first-level cache.
        let slice = (12 * 1024 / width).clamp(8, 64);
        let firsts: Vec<usize> = (0..cols).step_by(slice).collect();
        let parts: Vec<Pass> = firsts
            .par_iter()
            .map(|&first| {
                let range = first..(first + slice).min(cols);
                let mut counts = vec![0i16; range.len() * width];
                for (i, &row) in self.sample.iter().enumerate() {
                    let base = (i32::from(classes.rows[row]) - kinds.low) as usize * bins;
                    let row_bins = &self.bins[i * cols + range.start..i * cols + range.end];
                    for (&bin, counts) in row_bins.iter().zip(counts.chunks_exact_mut(width)) {
                        counts[base + usize::from(bin)] += 1;
                    }
                }
                let mut pass = Pass::new(range.len(), bins);
                for (col, counts) in range.zip(counts.chunks_exact(width)) {
                    pass.choose(counts, i32::from(classes.cols[col]), kinds.low, lengths, &moves);
                }
                pass
            })
            .collect();
        let pass = Pass::join(parts);
        let lengths = Lengths::new(&pass.counts, bins, classes.contexts, classes.octaves);
        (pass, lengths)
    }
}
