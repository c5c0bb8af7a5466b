//! Scales of rows and columns by moments, and what maps heads to bins of like probability.

use rayon::prelude::*;
use wcodec_predict::scale::{ScaleClasses, UNITS_PER_OCTAVE};
use wcodec_rans::stats;

use super::classes::Classes;
use super::table_map::{BINS_PER_OCTAVE, MOST_OCTAVES, TableMap};
use super::{Sample, View};
use crate::format::Scale;

/// Mean logarithm of magnitudes of every row and column, in 1/256 octave.
pub(super) struct Scales {
    rows: Vec<i32>,
    cols: Vec<i32>,
    pub(super) map: BinMap,
}

/// Heads to bins.
pub(super) enum BinMap {
    /// Floats: half octaves, 2^`shift` steps of magnitude each, below the largest magnitude.
    Halves { mask: u16, largest: u16, shift: u32 },
    /// One-byte integers: four neighbours together. Finer bins were tried and led to worse classes.
    Quarters,
}

impl BinMap {
    /// Number of bins, a multiple of 32.
    pub(super) fn bins(&self) -> usize {
        match self {
            Self::Halves { .. } => 32,
            Self::Quarters => 64,
        }
    }

    /// Whether values of all bins can be shifted by octaves and back: those of F16 and FP8 would soon be too small.
    pub(super) fn shifts(&self) -> bool {
        match self {
            Self::Halves { largest, shift, .. } => {
                usize::from(largest >> shift) >= self.bins() + MOST_OCTAVES * BINS_PER_OCTAVE
            }
            Self::Quarters => false,
        }
    }

    /// Bins of heads.
    pub(super) fn map(&self, heads: &[u16], bins: &mut [u8]) {
        match self {
            // Heads behind the sample may be larger than its largest: they share its bin.
            Self::Halves { mask, largest, shift } => stats::steps_below(heads, *mask, *largest, *shift, bins),
            Self::Quarters => bins.iter_mut().zip(heads).for_each(|(bin, &head)| *bin = (head & 255) as u8 >> 2),
        }
    }
}

impl Scales {
    /// Rows by all their elements, columns by the sample.
    pub(super) fn measure(view: &View<'_>, sample: &Sample) -> Self {
        let g = view.geometry;
        let scale = view.format.scale();
        let mean = |sum: u64, n: usize| match scale {
            Scale::Octaves { bits, .. } => (((sum << 8) >> bits) / n as u64) as i32,
            Scale::Distance { .. } => (sum / n as u64) as i32,
        };
        let rows: Vec<(Vec<i32>, u16)> = view
            .tasks()
            .into_par_iter()
            .map(|task| {
                let mut largest = 0;
                let means = task.map(|row| {
                    let bytes = view.row_bytes(row);
                    let sum = match scale {
                        Scale::Octaves { .. } => {
                            let (sum, top) = stats::magnitudes(bytes, g.element_bytes);
                            largest = largest.max(top);
                            sum
                        }
                        Scale::Distance { middle } => stats::log_distances(bytes, middle),
                    };
                    mean(sum, g.cols)
                });
                (means.collect(), largest)
            })
            .collect();
        let sums: Vec<Vec<u32>> = sample
            .heads
            .par_chunks(g.cols << 12)
            .map(|heads| {
                // 2^12 weights of 16 bits fit.
                let mut sums = vec![0u32; g.cols];
                for heads in heads.chunks_exact(g.cols) {
                    match scale {
                        Scale::Octaves { mask, .. } => stats::add_magnitudes(heads, mask, &mut sums),
                        Scale::Distance { middle } => stats::add_log_distances(heads, middle, &mut sums),
                    }
                }
                sums
            })
            .collect();
        let of_col = |j: usize| mean(sums.iter().map(|s| u64::from(s[j])).sum(), sample.rows.len());
        let map = match scale {
            Scale::Octaves { mask, bits } => {
                let largest = rows.iter().map(|r| r.1).max().unwrap_or(0);
                BinMap::Halves { mask, largest, shift: bits.max(1) - 1 }
            }
            Scale::Distance { .. } => BinMap::Quarters,
        };
        Self { cols: (0..g.cols).map(of_col).collect(), rows: rows.into_iter().flat_map(|r| r.0).collect(), map }
    }

    /// Classes for so many contexts, which span the range of scales.
    pub(super) fn classes(&self, contexts: usize) -> Classes {
        let classes = ScaleClasses::from_scales(&self.rows, &self.cols, contexts as u8).expect("1 to 16 contexts");
        Classes { rows: classes.rows, cols: classes.cols, contexts: usize::from(classes.contexts), map: None }
    }

    /// Classes for so many contexts that share tables, 1/`per_octave` of an octave apart, or more if they have to span the range of scales.
    pub(super) fn shared(&self, contexts: usize, per_octave: usize, tables: usize) -> Classes {
        let unit = (UNITS_PER_OCTAVE as usize / per_octave) as u16;
        let (classes, unit) =
            ScaleClasses::with_least_step(&self.rows, &self.cols, contexts as u8, unit).expect("1 to 16 contexts");
        let map = Some(TableMap::by_phase(contexts, unit, tables));
        Classes { rows: classes.rows, cols: classes.cols, contexts: usize::from(classes.contexts), map }
    }
}
