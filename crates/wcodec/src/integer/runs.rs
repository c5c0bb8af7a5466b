//! How often each symbol stands in each run of rows.
//!
//! Classes and tables are found in many rounds, and all that a round asks of a run is how often each of its symbols occurs. Counted once,
//! a run of 256 residuals is a few dozen pairs.

use wcodec_predict::log2_fixed;

/// Symbols of a run with their counts: at most 4 rows of 64 lanes.
pub(crate) type Run = [(u8, i16)];

/// Most symbols of a run.
const MOST_SYMBOLS: usize = 256;
/// log2 of every count.
static LOGS: [i32; MOST_SYMBOLS + 1] = {
    let mut logs = [0; MOST_SYMBOLS + 1];
    let mut n = 0;
    while n <= MOST_SYMBOLS {
        logs[n] = log2_fixed(n as u64);
        n += 1;
    }
    logs
};

/// The runs of a superblock, or of several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    counts: Vec<(u8, i16)>,
    /// End in `counts` and entropy per symbol of every run.
    ends: Vec<(u32, u32)>,
}

impl Runs {
    /// Counts every run, of at most 256 symbols.
    pub(crate) fn of<'a>(runs: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut all = Self::default();
        let mut counts = [[0u16; 256]; 2];
        for symbols in runs {
            // Two histograms: neighbours that are equal would wait for each other.
            let [a, b] = &mut counts;
            let (pairs, rest) = symbols.as_chunks::<2>();
            for &[i, j] in pairs {
                a[usize::from(i)] += 1;
                b[usize::from(j)] += 1;
            }
            rest.iter().for_each(|&i| a[usize::from(i)] += 1);
            let (mut found, mut len) = ([(0, 0); 256 + 8], 0);
            let mut bits = 0;
            let whole = log2_fixed(symbols.len() as u64);
            for (first, (a, b)) in
                (0u8..=255).step_by(8).zip(a.as_chunks_mut::<8>().0.iter_mut().zip(b.as_chunks_mut::<8>().0))
            {
                let sums: [u16; 8] = std::array::from_fn(|i| a[i] + b[i]);
                if sums == [0; 8] {
                    continue;
                }
                (*a, *b) = ([0; 8], [0; 8]);
                for (symbol, n) in (first..=255).zip(sums) {
                    // No branch: nobody can foretell it.
                    found[len] = (symbol, n as i16);
                    len += usize::from(n > 0);
                    bits += u32::from(n) * (whole - LOGS[usize::from(n)]) as u32;
                }
            }
            all.counts.extend_from_slice(&found[..len]);
            all.ends.push((all.counts.len() as u32, bits / symbols.len().max(1) as u32));
        }
        all
    }

    /// The runs in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.with_entropy().map(|(_, run)| run)
    }

    /// The runs in order, each behind its order-0 entropy per symbol in 2^-8 bits.
    pub(crate) fn with_entropy(&self) -> impl Iterator<Item = (u32, &Run)> {
        let starts = [0].into_iter().chain(self.ends.iter().map(|e| e.0));
        starts.zip(&self.ends).map(|(start, &(end, entropy))| (entropy, &self.counts[start as usize..end as usize]))
    }
}

/// Bits that coding counts with their own entropy takes, in units of 2^-8.
pub(crate) fn total_bits(counts: impl Iterator<Item = u64> + Clone) -> u64 {
    let all = log2_fixed(counts.clone().sum());
    counts.filter(|&n| n > 0).map(|n| n * (all - log2_fixed(n)) as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_counted_apart(symbols in prop::collection::vec(any::<u8>(), 1..700), len in 1usize..=256, few: bool) {
            let symbols: Vec<u8> = symbols.iter().map(|&s| if few { s & 3 } else { s }).collect();
            let runs = Runs::of(symbols.chunks(len));
            prop_assert_eq!(runs.iter().count(), symbols.len().div_ceil(len));
            for (run, symbols) in runs.iter().zip(symbols.chunks(len)) {
                let mut expected: Vec<(u8, i16)> = Vec::new();
                for symbol in 0..=255 {
                    let n = symbols.iter().filter(|&&s| s == symbol).count();
                    expected.extend((n > 0).then_some((symbol, n as i16)));
                }
                prop_assert_eq!(run, &expected[..]);
            }
        }
    }

    #[test]
    fn entropies_are_those_of_the_counts() {
        let runs = Runs::of([&[1u8, 1, 2, 2][..], &[7; 256]].into_iter());
        assert_eq!(runs.with_entropy().map(|r| r.0).collect::<Vec<_>>(), [256, 0]);
    }
}
