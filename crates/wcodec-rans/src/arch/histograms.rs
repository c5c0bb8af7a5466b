//! Counting lines side by side: dispatch, and the portable form that defines it.

use super::Backend;
use crate::histograms::{LINES, Rows};

impl Backend {
    /// Counts in `counts`, by line, group and value, how often each of the 64 columns of a matrix has each value in the
    /// groups of rows.
    pub(crate) fn count_lines(self, matrix: &[[u8; LINES]], rows: &Rows, bins: usize, counts: &mut [u8]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.count_lines(matrix, rows, bins, counts),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.count_lines(matrix, rows, bins, counts),
            Self::Scalar => count(matrix, rows, bins, counts),
        }
    }

    /// See [`crate::histograms::Histograms::costs`].
    pub(crate) fn line_costs(
        self,
        counts: &[u8],
        kinds: &[i32],
        lowest: i32,
        bins: usize,
        lengths: &[i16],
    ) -> [i32; 3] {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.line_costs(counts, kinds, lowest, bins, lengths),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.line_costs(counts, kinds, lowest, bins, lengths),
            Self::Scalar => costs(counts, kinds, lowest, bins, lengths),
        }
    }

    /// See [`crate::histograms::transpose`].
    pub(crate) fn transpose(self, from: &[u8], cols: usize, to: &mut [u8]) {
        let rows = from.len() / cols.max(1);
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.transpose(from, cols, to, rows),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.transpose(from, cols, to, rows),
            Self::Scalar => transpose(from, cols, to, rows),
        }
    }
}

fn count(matrix: &[[u8; LINES]], rows: &Rows, bins: usize, counts: &mut [u8]) {
    counts.fill(0);
    let pitch = counts.len() / LINES;
    for (group, rows) in rows.groups().enumerate() {
        for &row in rows {
            for (counts, &value) in counts.chunks_exact_mut(pitch).zip(&matrix[row as usize]) {
                counts[group * bins + usize::from(value)] += 1;
            }
        }
    }
}

fn costs(counts: &[u8], kinds: &[i32], lowest: i32, bins: usize, lengths: &[i16]) -> [i32; 3] {
    let mut sums = [0; 3];
    for (counts, &kind) in counts.chunks_exact(bins).zip(kinds) {
        let lengths = &lengths[(kind - lowest) as usize * bins..][..3 * bins];
        for (sum, lengths) in sums.iter_mut().zip(lengths.chunks_exact(bins)) {
            *sum += counts.iter().zip(lengths).map(|(&n, &l)| i32::from(n) * i32::from(l)).sum::<i32>();
        }
    }
    sums
}

/// In tiles that stay in the first-level cache.
fn transpose(from: &[u8], cols: usize, to: &mut [u8], rows: usize) {
    for (first, from) in (0..rows).step_by(LINES).zip(from.chunks(LINES * cols)) {
        for start in (0..cols).step_by(LINES) {
            for (col, to) in (start..start + LINES).zip(to[start * rows..].chunks_exact_mut(rows)) {
                for (to, row) in to[first..first + LINES].iter_mut().zip(from.chunks_exact(cols)) {
                    *to = row[col];
                }
            }
        }
    }
}
