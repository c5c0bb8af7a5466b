//! Row and column scale classes: which frequency table codes a weight.
//!
//! A weight's magnitude is about the scale of its row times the scale of its column; in octaves, a sum. Every row and
//! every column gets a small integer class, and `context = clamp(row class + column class, 0, contexts − 1)` picks the
//! table. One step between classes is the same number of octaves for rows and columns.
//!
//! All arithmetic is in integers, in units of 1/256 octave ([`UNITS_PER_OCTAVE`]), so the classes do not depend on a
//! platform's floating-point library.
//!
//! ```
//! use wcodec_predict::scale::ScaleClasses;
//!
//! // Four rows an octave apart, columns all alike, four contexts: a context per row.
//! let classes = ScaleClasses::from_scales(&[-256, 0, 256, 512], &[0; 8], 4)?;
//! assert_eq!((0..4).map(|row| classes.context(row, 5)).collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(3)]);
//! # Ok::<(), wcodec_predict::Error>(())
//! ```

use crate::error::{Error, Result};

/// Fixed-point units in an octave.
pub const UNITS_PER_OCTAVE: i32 = 256;
/// Most contexts there can be.
pub const MAX_CONTEXTS: u8 = 16;
/// Row classes lie in `0..=MAX_CLASS`, column classes in `-MAX_CLASS..=MAX_CLASS`: sums fit in a byte.
pub const MAX_CLASS: u8 = 100;

/// Classes of the rows and columns of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleClasses {
    /// Class of each row, 0 for the smallest scale.
    pub rows: Vec<u8>,
    /// Class of each column, relative to the rows'.
    pub cols: Vec<i8>,
    /// Number of contexts, 1 to [`MAX_CONTEXTS`].
    pub contexts: u8,
}

impl ScaleClasses {
    /// Classes from the scale of each row and, rows' scales taken out, of each column, in 1/256 octave.
    ///
    /// The step is the range of row + column sums, without half a percent at each end, over `contexts − 1`; the sums are
    /// those of at most 256 rows and 256 columns, evenly spaced by rank. Sums beyond the range take the outermost
    /// contexts. Needs the time of sorting rows and columns.
    ///
    /// # Errors
    /// [`Error::ContextCount`] unless `contexts` is in `1..=16`.
    pub fn from_scales(row_scale: &[i32], col_scale: &[i32], contexts: u8) -> Result<Self> {
        check(contexts)?;
        let (low, high) = range_of_sums(row_scale, col_scale, GRID);
        let quantiser = Quantiser { range: (high - low).max(1), steps: i64::from(contexts) - 1 };
        Ok(Self::quantise(row_scale, col_scale, contexts, &quantiser, [low, high]))
    }

    /// As [`ScaleClasses::from_scales`], but one step is `unit` (1/256 octave) at the least, and the upper end of the range has the last
    /// context. Gives the step, too.
    ///
    /// # Errors
    /// [`Error::ContextCount`] unless `contexts` is in `1..=16`.
    pub fn with_least_step(row_scale: &[i32], col_scale: &[i32], contexts: u8, unit: u16) -> Result<(Self, usize)> {
        check(contexts)?;
        let (low, high) = range_of_sums(row_scale, col_scale, COARSE_GRID);
        let steps = i64::from(contexts) - 1;
        let range = (high - low).max(i64::from(unit.max(1)) * steps.max(1));
        let quantiser = Quantiser { range, steps };
        let classes = Self::quantise(row_scale, col_scale, contexts, &quantiser, [high - range, high]);
        Ok((classes, (range / steps.max(1)) as usize))
    }

    fn quantise(
        row_scale: &[i32],
        col_scale: &[i32],
        contexts: u8,
        quantiser: &Quantiser,
        [low, high]: [i64; 2],
    ) -> Self {
        // Rows count from the smallest scale, but a stray row (all zeros, say) must not push the classes of all others
        // to their limit: rows more than the whole range below the others share class 0.
        let smallest = row_scale.iter().copied().min().map_or(0, i64::from);
        let base =
            smallest.max(tail(&mut row_scale.iter().map(|&s| i64::from(s)).collect::<Vec<_>>()).0 - (high - low));
        let max = i64::from(MAX_CLASS);
        Self {
            rows: row_scale.iter().map(|&s| quantiser.class(i64::from(s) - base).clamp(0, max) as u8).collect(),
            cols: col_scale
                .iter()
                .map(|&s| quantiser.class(i64::from(s) + base - low).clamp(-max, max) as i8)
                .collect(),
            contexts,
        }
    }

    /// One class for everything: a single context.
    pub fn flat(rows: usize, cols: usize) -> Self {
        Self { rows: vec![0; rows], cols: vec![0; cols], contexts: 1 }
    }

    /// The context of a weight, or `None` outside the tensor.
    pub fn context(&self, row: usize, col: usize) -> Option<u8> {
        Some(context(*self.rows.get(row)?, *self.cols.get(col)?, self.contexts))
    }
}

/// `clamp(row_class + col_class, 0, contexts − 1)`; 0 contexts count as 1.
#[inline]
pub const fn context(row_class: u8, col_class: i8, contexts: u8) -> u8 {
    let sum = row_class as i16 + col_class as i16;
    let last = contexts.saturating_sub(1);
    if sum < 0 {
        0
    } else if sum > last as i16 {
        last
    } else {
        sum as u8
    }
}

/// Octaves to 1/256 octave: exact scaling, halves away from zero, saturating; NaN is 0.
pub fn octaves_to_fixed(octaves: f32) -> i32 {
    (octaves * UNITS_PER_OCTAVE as f32).round() as i32
}

/// Most rows, and most columns, whose sums are looked at where they make the step between classes.
const GRID: usize = 256;
/// The same where a least step makes up for some of their number.
const COARSE_GRID: usize = 64;

/// Rounds scales to classes of `range / steps` units.
struct Quantiser {
    /// At least 1.
    range: i64,
    /// 0 for a single context, which makes every class 0.
    steps: i64,
}

impl Quantiser {
    /// `round(difference · steps / range)`, halves up.
    fn class(&self, difference: i64) -> i64 {
        (2 * difference * self.steps + self.range).div_euclid(2 * self.range)
    }
}

fn check(contexts: u8) -> Result<()> {
    if contexts == 0 || contexts > MAX_CONTEXTS {
        return Err(Error::ContextCount { contexts });
    }
    Ok(())
}

/// The 0.5 % and 99.5 % points of row + column; 0 and 0 without any.
fn range_of_sums(row_scale: &[i32], col_scale: &[i32], grid: usize) -> (i64, i64) {
    let (rows, cols) = (order_statistics(row_scale, grid), order_statistics(col_scale, grid));
    let count = rows.len() * cols.len();
    let Some(last) = count.checked_sub(1) else { return (0, 0) };
    (nth_sum(&rows, &cols, count / 200), nth_sum(&rows, &cols, last - count / 200))
}

/// The sum of number `n`, from 0, among the ascending sums of one of `rows` and one of `cols`, both ascending and not empty: by bisection of
/// its value, which counts sums along the staircase between those up to it and those above.
fn nth_sum(rows: &[i64], cols: &[i64], n: usize) -> i64 {
    let up_to = |value: i64| {
        let mut below = cols.len();
        let of_row = |row: &i64| {
            while below > 0 && row + cols[below - 1] > value {
                below -= 1;
            }
            below
        };
        rows.iter().map(of_row).sum::<usize>()
    };
    let (mut low, mut high) = (rows[0] + cols[0], rows[rows.len() - 1] + cols[cols.len() - 1]);
    while low < high {
        let middle = low + (high - low) / 2;
        if up_to(middle) > n { high = middle } else { low = middle + 1 }
    }
    low
}

/// At most `grid` scales, evenly spaced *by rank*: by position, a stride would meet always the same phase of scales
/// that repeat from head to head.
fn order_statistics(scales: &[i32], grid: usize) -> Vec<i64> {
    let mut sorted: Vec<i64> = scales.iter().map(|&s| i64::from(s)).collect();
    sorted.sort_unstable();
    let (len, count) = (sorted.len() as u64, sorted.len().min(grid) as u64);
    (0..count).map(|i| sorted[((2 * i + 1) * len / (2 * count)) as usize]).collect()
}

/// The 0.5 % and 99.5 % points, by selection; 0 and 0 of nothing.
fn tail(values: &mut [i64]) -> (i64, i64) {
    let Some(last) = values.len().checked_sub(1) else {
        return (0, 0);
    };
    let cut = values.len() / 200;
    let low = *values.select_nth_unstable(cut).1;
    let high = *values.select_nth_unstable(last - cut).1;
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_are_found_by_their_number(
            rows in prop::collection::vec(-500i64..500, 1..20), cols in prop::collection::vec(-90i64..90, 1..20),
        ) {
            let (mut rows, mut cols) = (rows, cols);
            rows.sort_unstable();
            cols.sort_unstable();
            let mut sums: Vec<i64> = rows.iter().flat_map(|r| cols.iter().map(move |c| r + c)).collect();
            sums.sort_unstable();
            for (n, &sum) in sums.iter().enumerate() {
                prop_assert_eq!(nth_sum(&rows, &cols, n), sum);
            }
        }
    }

    #[test]
    fn contexts_outside_1_to_16_are_refused() {
        for contexts in [0, 17, 255] {
            let refused = ScaleClasses::from_scales(&[0], &[0], contexts);
            assert_eq!(refused, Err(Error::ContextCount { contexts }));
        }
    }

    #[test]
    fn empty_and_flat_tensors_have_classes() {
        assert_eq!(ScaleClasses::from_scales(&[], &[], 16).unwrap().context(0, 0), None);
        let no_rows = ScaleClasses::from_scales(&[], &[5, 6], 16).unwrap();
        assert_eq!((no_rows.rows.len(), no_rows.cols.len()), (0, 2));
        let flat = ScaleClasses::from_scales(&[-3000; 5], &[7; 9], 16).unwrap();
        assert!((0..5).all(|r| (0..9).all(|c| flat.context(r, c) == Some(0))));
        assert_eq!(ScaleClasses::flat(3, 2), ScaleClasses::from_scales(&[1, 2, 3], &[9, 9], 1).unwrap());
    }

    #[test]
    fn a_row_of_zeros_does_not_flatten_the_others() {
        let mut rows: Vec<i32> = (0..1000).map(|i| i % 4 * 256).collect();
        rows[7] = -50 * 256;
        let classes = ScaleClasses::from_scales(&rows, &[0, 256], 5).unwrap();
        assert_eq!(classes.context(7, 0), Some(0));
        for (r, c) in [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (3, 1)] {
            assert_eq!(classes.context(r, c), Some((r + c) as u8), "{r} {c}");
        }
    }

    #[test]
    fn a_least_step_ends_at_the_largest_scale() {
        let (classes, step) = ScaleClasses::with_least_step(&[-640, -64, 0, 64, 128], &[0, 64], 16, 64).unwrap();
        assert_eq!(step, 64);
        let contexts = |c| (0..5).map(|r| classes.context(r, c).unwrap()).collect::<Vec<_>>();
        assert_eq!((contexts(0), contexts(1)), (vec![2, 11, 12, 13, 14], vec![3, 12, 13, 14, 15]));
    }

    #[test]
    fn octaves_convert_exactly_and_saturate() {
        assert_eq!([1.0, -2.5, 0.001953125, -0.001953125, f32::NAN].map(octaves_to_fixed), [256, -640, 1, -1, 0]);
        assert_eq!([f32::INFINITY, f32::NEG_INFINITY, 1e30].map(octaves_to_fixed), [i32::MAX, i32::MIN, i32::MAX]);
    }

    fn scales() -> impl Strategy<Value = Vec<i32>> {
        prop::collection::vec(prop_oneof![8 => -4000..4000, 1 => any::<i32>()], 0..600)
    }

    proptest! {
        #[test]
        fn classes_stay_in_range_and_follow_the_scales(rows in scales(), cols in scales(), contexts in 1u8..=16) {
            let classes = ScaleClasses::from_scales(&rows, &cols, contexts).unwrap();
            prop_assert_eq!((classes.rows.len(), classes.cols.len()), (rows.len(), cols.len()));
            prop_assert!(classes.rows.iter().all(|&r| r <= MAX_CLASS));
            prop_assert!(classes.cols.iter().all(|&c| c.unsigned_abs() <= MAX_CLASS));
            let mut by_scale: Vec<_> = rows.iter().zip(&classes.rows).collect();
            by_scale.sort();
            prop_assert!(by_scale.is_sorted_by_key(|(_, class)| **class));
            let mut by_scale: Vec<_> = cols.iter().zip(&classes.cols).collect();
            by_scale.sort();
            prop_assert!(by_scale.is_sorted_by_key(|(_, class)| **class));
        }

        #[test]
        fn the_context_is_within_one_of_the_quantised_sum(
            rows in prop::collection::vec(-2000..2000, 1..256),
            cols in prop::collection::vec(-2000..2000, 1..256),
            contexts in 2u8..=16,
        ) {
            let classes = ScaleClasses::from_scales(&rows, &cols, contexts).unwrap();
            let (low, high) = range_of_sums(&rows, &cols, GRID);
            prop_assume!(high > low + 1600);
            let last = f64::from(contexts - 1);
            for (r, &row) in rows.iter().enumerate() {
                for (c, &col) in cols.iter().enumerate() {
                    let exact = (i64::from(row + col) - low) as f64 * last / (high - low) as f64;
                    let got = f64::from(classes.context(r, c).unwrap());
                    prop_assert!((got - exact.clamp(0.0, last)).abs() <= 1.0, "{} for {}", got, exact);
                }
            }
        }

        #[test]
        fn context_is_the_clamped_sum(row: u8, col: i8, contexts in 1u8..=16) {
            let want = (i32::from(row) + i32::from(col)).clamp(0, i32::from(contexts) - 1);
            prop_assert_eq!(i32::from(context(row, col, contexts)), want);
        }
    }
}
