//! Where the values of a synthetic tensor come from.

use std::ops::Range;

use anyhow::Context;
use clap::ValueEnum;

use super::dtype::Dtype;
use super::rng::Rng;

/// Standard deviation of float weights: that of trained linear layers, roughly.
const FLOAT_SCALE: f64 = 0.02;
/// Standard deviation of integer weights: four of them reach the end of the range.
const INTEGER_SCALE: f64 = 32.0;
/// Standard deviations of the scales' logarithms, in octaves.
const COLUMN_OCTAVES: f64 = 1.2;
const ROW_OCTAVES: f64 = 0.6;

/// A distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    /// Normal.
    Gaussian,
    /// Student's t with 4 degrees of freedom: outliers.
    Student,
    /// Two-sided exponential.
    Laplace,
    /// Floats in ±0.02, integers over all their codes.
    Uniform,
    /// One value.
    Constant,
    /// Rises along rows and columns.
    Ramp,
    /// Normal, each column and each row with a scale of its own, log-normal.
    ColumnScaled,
}

/// The values of one tensor.
pub(crate) struct Field {
    distribution: Distribution,
    dtype: Dtype,
    /// Names the tensor's random streams.
    seed: u64,
    tensor: u64,
    cols: u64,
    /// Of every column; empty for distributions without.
    col_scales: Vec<f64>,
}

/// What a stream of a tensor is for.
#[derive(Clone, Copy)]
enum Stream {
    Elements,
    Columns,
    Rows,
}

impl Field {
    /// The field of tensor number `tensor`; columns are the product of all dimensions but the first.
    pub(crate) fn new(
        distribution: Distribution,
        dtype: Dtype,
        seed: u64,
        tensor: u64,
        shape: &[u64],
    ) -> anyhow::Result<Self> {
        let cols: u64 = shape.iter().skip(1).product();
        let mut field = Self { distribution, dtype, seed, tensor, cols, col_scales: Vec::new() };
        if distribution == Distribution::ColumnScaled {
            let count = usize::try_from(cols).context("too many columns")?;
            field.col_scales.try_reserve_exact(count).context("no memory for the scales of the columns")?;
            let mut rng = field.stream(Stream::Columns, 0);
            field.col_scales.extend((0..count).map(|_| log_normal(&mut rng, COLUMN_OCTAVES)));
        }
        Ok(field)
    }

    /// The bytes of elements `elements`, which are block number `block`.
    pub(crate) fn block(&self, block: u64, elements: Range<u64>) -> Vec<u8> {
        let mut out = Vec::with_capacity((elements.end - elements.start) as usize * self.dtype.bytes());
        let mut rng = self.stream(Stream::Elements, block);
        let scale = if self.dtype.is_integer() { INTEGER_SCALE } else { FLOAT_SCALE };
        let mut push = |value: f64| self.dtype.push(value * scale, &mut out);
        match self.distribution {
            Distribution::Gaussian => {
                let mut spare = None;
                elements.for_each(|_| push(normal(&mut rng, &mut spare)));
            }
            Distribution::Student => {
                let mut spare = None;
                for _ in elements {
                    // t = z / sqrt(χ² / 4), and χ² of 4 degrees of freedom is twice the sum of two exponentials.
                    let chi = -2.0 * (rng.unit() * rng.unit()).ln();
                    push(normal(&mut rng, &mut spare) / (chi / 4.0).sqrt().max(1e-6));
                }
            }
            Distribution::Laplace => elements.for_each(|_| {
                let magnitude = -rng.unit().ln() * std::f64::consts::FRAC_1_SQRT_2;
                push(if rng.bits() >> 63 == 0 { magnitude } else { -magnitude });
            }),
            Distribution::Uniform => {
                // Integers reach every code: 128 / 32.
                let width = if self.dtype.is_integer() { 128.0 / INTEGER_SCALE } else { 1.0 };
                elements.for_each(|_| push((rng.unit() * 2.0 - 1.0) * width));
            }
            Distribution::Constant => elements.for_each(|_| push(1.0)),
            Distribution::Ramp => elements.for_each(|i| {
                let (row, col) = (i / self.cols, i % self.cols);
                // Integers run through their codes again and again.
                let steps = (row.wrapping_add(col) % 256) as f64 - 128.0;
                push(if self.dtype.is_integer() { steps / INTEGER_SCALE } else { (row + col) as f64 / 1024.0 });
            }),
            Distribution::ColumnScaled => {
                let (mut spare, mut row, mut row_scale) = (None, u64::MAX, 1.0);
                for i in elements {
                    if i / self.cols != row {
                        row = i / self.cols;
                        row_scale = log_normal(&mut self.stream(Stream::Rows, row), ROW_OCTAVES);
                    }
                    let col_scale = self.col_scales[(i % self.cols) as usize];
                    push(normal(&mut rng, &mut spare) * row_scale * col_scale);
                }
            }
        }
        out
    }

    fn stream(&self, stream: Stream, number: u64) -> Rng {
        Rng::new(&[self.seed, self.tensor, stream as u64, number])
    }
}

fn normal(rng: &mut Rng, spare: &mut Option<f64>) -> f64 {
    spare.take().unwrap_or_else(|| {
        let [first, second] = rng.normals();
        *spare = Some(second);
        first
    })
}

fn log_normal(rng: &mut Rng, octaves: f64) -> f64 {
    (rng.normals()[0] * octaves).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(distribution: Distribution, shape: [u64; 2]) -> Vec<f64> {
        let field = Field::new(distribution, Dtype::F64, 7, 0, &shape).unwrap();
        let bytes = field.block(0, 0..shape[0] * shape[1]);
        bytes.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap()) / FLOAT_SCALE).collect()
    }

    fn share_beyond(values: &[f64], limit: f64) -> f64 {
        values.iter().filter(|v| v.abs() > limit).count() as f64 / values.len() as f64
    }

    /// Shares of the true distributions: 2·(1 - Φ(3)), t₄ and e^(-3√2).
    #[test]
    fn tails_are_those_of_the_distribution() {
        for (distribution, share) in
            [(Distribution::Gaussian, 0.0027), (Distribution::Student, 0.0399), (Distribution::Laplace, 0.01437)]
        {
            let found = share_beyond(&values(distribution, [256, 256]), 3.0);
            assert!((found / share - 1.0).abs() < 0.25, "{distribution:?}: {found} instead of {share}");
        }
        let uniform = values(Distribution::Uniform, [256, 256]);
        assert!((share_beyond(&uniform, 0.5) - 0.5).abs() < 0.02 && share_beyond(&uniform, 1.0) == 0.0);
    }

    #[test]
    fn columns_differ_in_scale() {
        let (rows, cols) = (256, 64);
        let values = values(Distribution::ColumnScaled, [rows as u64, cols as u64]);
        let mut rms: Vec<f64> = (0..cols)
            .map(|c| (values.iter().skip(c).step_by(cols).map(|v| v * v).sum::<f64>() / rows as f64).sqrt())
            .collect();
        rms.sort_by(f64::total_cmp);
        assert!(rms[cols * 3 / 4] > 2.0 * rms[cols / 4]);
    }

    #[test]
    fn uniform_integers_reach_all_codes() {
        let field = Field::new(Distribution::Uniform, Dtype::U8, 1, 0, &[65536]).unwrap();
        let codes: std::collections::HashSet<u8> = field.block(0, 0..65536).into_iter().collect();
        assert_eq!(codes.len(), 256);
    }
}
