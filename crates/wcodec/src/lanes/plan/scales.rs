//! Scales of rows and columns: mean log magnitudes.

use rayon::prelude::*;
use wcodec_predict::scale::{ScaleClasses, UNITS_PER_OCTAVE};

use super::View;
use super::classes::{Classes, PER_OCTAVE};

/// Mean log magnitude of every row and column, 1/256 octave, and what maps heads to bins of like probability.
pub(super) struct Scales {
    rows: Vec<i32>,
    cols: Vec<i32>,
    pub(super) map: BinMap,
}

/// Heads to bins.
pub(super) enum BinMap {
    /// 16-bit floats: half octaves, 2^`shift` steps of magnitude each, below the largest magnitude, the last of [`BinMap::bins`].
    Halves { largest: u16, shift: u32 },
    /// 8-bit heads.
    Table { bins: usize, table: Box<[u8; 256]> },
}

/// Magnitude bits of a 16-bit float head.
const MAGNITUDE: u16 = 0x7fff;

impl BinMap {
    /// Number of bins, a multiple of 32.
    pub(super) fn bins(&self) -> usize {
        match self {
            Self::Halves { .. } => 32,
            Self::Table { bins, .. } => *bins,
        }
    }

    /// Bins of a row of heads.
    pub(super) fn map(&self, heads: &[u16], bins: &mut [u8]) {
        match self {
            Self::Halves { largest, shift } => {
                for (bin, &head) in bins.iter_mut().zip(heads) {
                    // Heads behind the sample may be larger than its largest.
                    let below = largest.saturating_sub(head & MAGNITUDE) >> shift;
                    *bin = 31 - below.min(31) as u8;
                }
            }
            Self::Table { table, .. } => {
                for (bin, &head) in bins.iter_mut().zip(heads) {
                    *bin = table[usize::from(head & 255)];
                }
            }
        }
    }
}

impl Scales {
    /// Rows by all their elements, columns by the rows of `sample`.
    pub(super) fn measure(view: &View<'_>, sample: &[usize]) -> Self {
        let logs = view.format.log_magnitudes();
        if view.format.head_bits == 16 {
            // All 16-bit heads are floats, whose magnitude bits are their logarithm but for a factor: 256 / 2^octave bits.
            let octave_bits = (0..15).find(|&o| logs[1 << o] == 256).unwrap_or(7);
            Self::measure_with(
                view,
                sample,
                |head| u32::from(head & MAGNITUDE),
                |sum, n| ((sum << 8 >> octave_bits) / n) as i32,
                |largest| BinMap::Halves { largest: largest as u16, shift: octave_bits.max(1) - 1 },
            )
        } else {
            Self::measure_with(
                view,
                sample,
                |head| u32::from(logs[usize::from(head)]),
                |sum, n| (sum / n) as i32,
                |largest| {
                    let mut table = Box::new([0; 256]);
                    let coarse = view.format.coarse(largest as u16);
                    let bins = if view.format.sign { 32 } else { 64 };
                    for (bin, &c) in table.iter_mut().zip(&coarse) {
                        *bin = (usize::from(c) + bins).saturating_sub(64) as u8;
                    }
                    BinMap::Table { bins, table }
                },
            )
        }
    }

    fn measure_with(
        view: &View<'_>,
        sample: &[usize],
        log: impl Fn(u16) -> u32 + Sync,
        mean: impl Fn(u64, u64) -> i32 + Sync,
        map: impl Fn(u32) -> BinMap,
    ) -> Self {
        let g = view.geometry;
        let rows: Vec<(Vec<i32>, u32)> = view
            .tasks()
            .into_par_iter()
            .map(|task| {
                let (mut heads, mut largest) = (Vec::with_capacity(g.cols), 0);
                let means = task
                    .map(|row| {
                        view.row(row, &mut heads);
                        // Sums of 2^15 logarithms of 16 bits fit 32.
                        let mut sum = 0u64;
                        for heads in heads.chunks(1 << 15) {
                            let (mut part, mut top) = (0u32, 0u32);
                            for &head in heads {
                                let log = log(head);
                                part += log;
                                top = top.max(log);
                            }
                            sum += u64::from(part);
                            largest = largest.max(top);
                        }
                        mean(sum, g.cols as u64)
                    })
                    .collect();
                (means, largest)
            })
            .collect();
        let largest = rows.iter().map(|r| r.1).max().unwrap_or(0);
        let sums: Vec<Vec<u64>> = sample
            .par_chunks(1 << 12)
            .map(|sample| {
                let (mut heads, mut sums) = (Vec::with_capacity(g.cols), vec![0u32; g.cols]);
                for &row in sample {
                    view.row(row, &mut heads);
                    for (sum, &head) in sums.iter_mut().zip(&heads) {
                        *sum += log(head);
                    }
                }
                sums.into_iter().map(u64::from).collect()
            })
            .collect();
        let cols = (0..g.cols).map(|j| mean(sums.iter().map(|s| s[j]).sum(), sample.len() as u64)).collect();
        Self { rows: rows.into_iter().flat_map(|r| r.0).collect(), cols, map: map(largest) }
    }

    pub(super) fn classes(&self, contexts: usize) -> Classes {
        let classes = ScaleClasses::from_scales(&self.rows, &self.cols, contexts as u8).expect("1 to 16 contexts");
        Classes { rows: classes.rows, cols: classes.cols, contexts: usize::from(classes.contexts), octaves: false }
    }

    /// Classes of a quarter of an octave each.
    pub(super) fn octaves(&self, contexts: usize) -> Classes {
        let unit = UNITS_PER_OCTAVE as u16 / PER_OCTAVE as u16;
        let classes = ScaleClasses::with_step(&self.rows, &self.cols, contexts as u8, unit).expect("1 to 16 contexts");
        Classes { rows: classes.rows, cols: classes.cols, contexts: usize::from(classes.contexts), octaves: true }
    }
}
