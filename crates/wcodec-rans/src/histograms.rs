//! Histograms of 64 lines at a time: of the columns of a matrix of small values, apart for rows of different kinds.
//!
//! An encoder that looks for the class of every column asks how often each value stands in it in the rows of every class, and does so in
//! every round. Counted side by side, 64 columns take half an instruction a value. For the classes of rows, the matrix is
//! [transposed](transpose) first. Results are the same with every instruction set.
//!
//! ```
//! use wcodec_rans::histograms::{Histograms, LINES, Rows};
//!
//! // Four rows of 64 values, which are 7 in the first and the last row and 1 in the others; these are of kind 5.
//! let matrix = [[7u8; LINES], [1; LINES], [1; LINES], [7; LINES]];
//! let rows = Rows::of([0, 5, 5, 0].into_iter());
//! let mut histograms = Histograms::new(32, &rows);
//! histograms.count(&matrix, &rows);
//! let mut sums = vec![0; 2 * 32];
//! histograms.add(9, &[0, 0, 0, 0, 0, 32], &mut sums);
//! assert_eq!((sums[7], sums[32 + 1]), (2, 2));
//! ```

use crate::arch::Backend;

/// Lines that are counted side by side.
pub const LINES: usize = 64;
/// Most rows of a group: their counts fit a byte.
const MOST_ROWS: usize = 255;

/// The rows of a matrix by their kinds, in groups of at most 255.
#[derive(Debug)]
pub struct Rows {
    /// Numbers of rows, group by group.
    order: Vec<u32>,
    /// End in `order` and kind of every group.
    groups: Vec<(u32, i32)>,
}

impl Rows {
    /// Groups rows of these kinds.
    pub fn of(kinds: impl Iterator<Item = i32>) -> Self {
        let mut rows: Vec<(i32, u32)> = kinds.zip(0..).collect();
        rows.sort_unstable();
        let mut groups: Vec<(u32, i32)> = Vec::new();
        let mut left = 0;
        for (i, &(kind, _)) in (1..).zip(&rows) {
            match groups.last_mut() {
                Some((end, last)) if *last == kind && left > 0 => *end = i,
                _ => {
                    groups.push((i, kind));
                    left = MOST_ROWS;
                }
            }
            left -= 1;
        }
        Self { order: rows.into_iter().map(|(_, row)| row).collect(), groups }
    }

    /// The same groups of every `step`-th row of a larger matrix.
    pub fn every(mut self, step: usize) -> Self {
        self.order.iter_mut().for_each(|row| *row *= step as u32);
        self
    }

    /// The rows of every group.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &[u32]> {
        let starts = [0].into_iter().chain(self.groups.iter().map(|g| g.0));
        starts.zip(&self.groups).map(|(start, &(end, _))| &self.order[start as usize..end as usize])
    }
}

/// How often each of 64 lines has each value in every group of rows.
#[derive(Debug)]
pub struct Histograms {
    bins: usize,
    kinds: Vec<i32>,
    /// The lowest kind.
    lowest: i32,
    /// By line, group and value.
    counts: Vec<u8>,
}

impl Histograms {
    /// For values below `bins`, 32 or 64, in the groups of `rows`.
    pub fn new(bins: usize, rows: &Rows) -> Self {
        assert!(bins == 32 || bins == 64, "values of 5 or 6 bits");
        let kinds: Vec<i32> = rows.groups.iter().map(|g| g.1).collect();
        let lowest = kinds.iter().copied().min().unwrap_or(0);
        Self { bins, counts: vec![0; LINES * kinds.len() * bins], kinds, lowest }
    }

    /// The lowest kind of row.
    pub fn lowest(&self) -> i32 {
        self.lowest
    }

    /// Counts the values in 64 columns of a matrix, in the rows that `self` was made for.
    ///
    /// # Panics
    /// If the matrix has too few rows, or a value is too large.
    pub fn count(&mut self, matrix: &[[u8; LINES]], rows: &Rows) {
        Backend::auto().count_lines(matrix, rows, self.bins, &mut self.counts);
    }

    /// What the values of a line cost in three neighbouring classes. `lengths`, of every value in turn, begin with those for the sum of the first of
    /// the classes and the [lowest](Histograms::lowest) kind; other sums follow in order.
    pub fn costs(&self, line: usize, lengths: &[i16]) -> [i32; 3] {
        Backend::auto().line_costs(self.line(line), &self.kinds, self.lowest, self.bins, lengths)
    }

    /// Adds the counts of a line to sums by value. `starts` says where the sums of groups begin: of those of the lowest kind, of the next kind, and
    /// so on.
    pub fn add(&self, line: usize, starts: &[u32], sums: &mut [u32]) {
        Backend::auto().add_line(self.line(line), &self.kinds, self.lowest, self.bins, starts, sums);
    }

    fn line(&self, line: usize) -> &[u8] {
        let len = self.kinds.len() * self.bins;
        &self.counts[line * len..][..len]
    }
}

/// Transposes a matrix of bytes; numbers of rows and columns are multiples of 64.
///
/// # Panics
/// If they are not, or matrices have other sizes.
pub fn transpose(from: &[u8], cols: usize, to: &mut [u8]) {
    assert!(cols.is_multiple_of(LINES) && from.len().is_multiple_of(cols.max(1) * LINES) && from.len() == to.len());
    Backend::auto().transpose(from, cols, to);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Isa;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_instruction_set_counts_alike(
            kinds in prop::collection::vec(-4i32..4, 1..600), wide: bool, few: bool, seed: u64,
        ) {
            let bins = if wide { 64 } else { 32 };
            let mut x = seed | 1;
            let mut next = || { x ^= x << 13; x ^= x >> 7; x ^= x << 17; x };
            let stride = 2 * LINES;
            let padded = kinds.len().next_multiple_of(LINES);
            let most = if few { 2 } else { bins as u64 };
            let matrix: Vec<u8> = (0..padded * stride).map(|_| (next() % most) as u8).collect();
            let block: Vec<[u8; LINES]> = matrix.chunks_exact(stride).map(|row| row[LINES..].try_into().unwrap()).collect();
            let rows = Rows::of(kinds.iter().map(|k| if few { 0 } else { *k }));
            let lengths: Vec<i16> = (0..11 * bins).map(|_| (next() % 6000) as i16).collect();
            let mut of_sets = Vec::new();
            for backend in [Isa::Scalar, Isa::Avx2, Isa::Avx512].into_iter().filter_map(Backend::new) {
                let mut h = Histograms::new(bins, &rows);
                backend.count_lines(&block, &rows, bins, &mut h.counts);
                let costs: Vec<[i32; 3]> =
                    (0..LINES).map(|line| backend.line_costs(h.line(line), &h.kinds, h.lowest, bins, &lengths)).collect();
                let mut turned = vec![0; matrix.len()];
                backend.transpose(&matrix, stride, &mut turned);
                of_sets.push((h.counts, costs, turned));
            }
            prop_assert!(of_sets.windows(2).all(|two| two[0] == two[1]));
            let (counts, costs, turned) = &of_sets[0];
            let line = 17;
            let of_line: Vec<usize> = (0..kinds.len()).map(|row| usize::from(block[row][line])).collect();
            let len = counts.len() / LINES;
            prop_assert_eq!(counts[line * len..][..len].iter().map(|&n| usize::from(n)).sum::<usize>(), kinds.len());
            let lowest = kinds.iter().map(|k| if few { 0 } else { *k }).min().unwrap();
            for (class, &cost) in (0..).zip(&costs[line]) {
                let expected: i32 = of_line.iter().zip(&kinds).map(|(value, kind)| {
                    let sum = (if few { 0 } else { *kind } - lowest + class) as usize;
                    i32::from(lengths[sum * bins + value])
                }).sum();
                prop_assert_eq!(cost, expected);
            }
            prop_assert!((0..padded).all(|row| turned[(LINES + line) * padded + row] == block[row][line]));
        }
    }
}
