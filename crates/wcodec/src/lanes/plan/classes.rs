//! Classes by code length.

use wcodec_predict::log2_fixed;

use super::scales::BinMap;
use super::table_map::TableMap;

/// Row and column classes, and the number of contexts their sums are clamped to.
#[derive(Debug, Clone)]
pub(super) struct Classes {
    pub(super) rows: Vec<u8>,
    pub(super) cols: Vec<i8>,
    pub(super) contexts: usize,
    /// Which contexts share a table; none: each has its own.
    pub(super) map: Option<TableMap>,
}

impl Classes {
    /// No classes: a single context.
    pub(super) fn none() -> Self {
        Self { rows: Vec::new(), cols: Vec::new(), contexts: 1, map: None }
    }
}

/// Row classes lie in 0..=MAX_CLASS, column classes in −MAX_CLASS..=MAX_CLASS.
pub(super) const MAX_CLASS: i32 = 100;
/// Sums of a row and a column class, and one more at either end, whose lengths are looked up with those of its neighbours.
const SUMS: usize = 3 * MAX_CLASS as usize + 3;

/// Code length of every bin for every sum of classes, in 1/256 bit: the lengths for one class with all classes of the other kind are one
/// slice.
pub(super) struct Lengths {
    bins: usize,
    of_sums: Vec<i16>,
}

impl Lengths {
    /// Lengths by the counts of every context and bin.
    pub(super) fn new(counts: &[u32], map: &BinMap, tables: Option<&TableMap>) -> Self {
        let bins = map.bins();
        let contexts = counts.len() / bins;
        let mut totals: Vec<u64> = counts.iter().map(|&n| u64::from(n)).collect();
        if let Some(tables) = tables {
            tables.pool(&mut totals, bins);
        }
        let lengths: Vec<i16> = totals
            .chunks_exact(bins)
            .flat_map(|counts| {
                let total: u64 = counts.iter().sum::<u64>() + bins as u64 / 4;
                let whole = log2_fixed(4 * total);
                // A quarter of a count for what was not seen keeps moves into a context possible.
                counts.iter().map(move |&n| (whole - log2_fixed(4 * n + 1)) as i16)
            })
            .collect();
        let mut of_sums = Vec::with_capacity(SUMS * bins);
        context_starts(bins, contexts).for_each(|start| of_sums.extend_from_slice(&lengths[start as usize..][..bins]));
        Self { bins, of_sums }
    }

    /// The lengths for a sum of classes and those above it.
    pub(super) fn from(&self, sum: i32) -> &[i16] {
        &self.of_sums[sum_index(sum) * self.bins..]
    }
}

/// Of every sum of classes, in order, the start of its context's bins.
pub(super) fn context_starts(bins: usize, contexts: usize) -> impl Iterator<Item = u32> {
    (0..SUMS as i32).map(move |sum| (sum - MAX_CLASS - 1).clamp(0, contexts as i32 - 1) as u32 * bins as u32)
}

/// Place of a sum of classes in [`context_starts`] and [`Lengths`].
pub(super) fn sum_index(sum: i32) -> usize {
    (sum + MAX_CLASS + 1) as usize
}
