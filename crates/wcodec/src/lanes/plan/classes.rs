//! Classes by code length.

use wcodec_predict::log2_fixed;

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
    pub(super) fn new(counts: &[u32], bins: usize, contexts: usize, octaves: bool) -> Self {
        let mut totals: Vec<u64> = counts.iter().map(|&n| u64::from(n)).collect();
        if octaves {
            pool_octaves(&mut totals, bins, contexts);
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
