//! The 8×8 transforms: eight 1-D transforms along the rows, then eight along the columns.

use crate::error::{Error, Result};
use crate::lifting::{Lanes, ROTATIONS, butterfly, negate, rotate, unbutterfly, unrotate};

/// Samples of a block: 8 rows × 8 columns, row-major.
pub const BLOCK_LEN: usize = 64;

/// The largest magnitude of a sample for which coefficients approximate the real-valued transform.
///
/// A 1-D pass makes no coefficient larger than 5.13 times its largest input, so those of such samples stay below
/// `2^25` and nothing wraps. Beyond it sums may wrap modulo 2^32: the inverse is exact all the same, only the
/// coefficients lose their meaning.
pub const MAX_INPUT: i32 = 1 << 20;

/// See [`SAMPLE_ERROR_ROUNDING`].
pub const SAMPLE_ERROR_GAIN: u32 = 10;

/// If every coefficient is off by at most `e`, every sample that [`inverse`] gives is off by at most
/// `SAMPLE_ERROR_GAIN · e + SAMPLE_ERROR_ROUNDING` (as long as nothing wraps).
///
/// Let `G` be the largest sum of magnitudes of a row of the 1-D inverse, and `R` what its rounding steps add when each
/// is off by one: a pass turns an error `e` into at most `G·e + R`, two passes into `G²·e + (G + 1)·R`. The lifting
/// constants give `G = 3.141, R = 7.003` for the DCT and `G = 2.943, R = 8.253` for the ADST.
pub const SAMPLE_ERROR_ROUNDING: u32 = 33;

/// A 1-D transform of eight points, applied along rows and columns.
///
/// Coefficients are those of the orthonormal real-valued transform times a scale per index, plus rounding noise of a few
/// units. The scales multiply to 1, so the transform preserves volume. In two dimensions the scales of the row and
/// column index multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Transform {
    /// Coefficients are the samples.
    #[default]
    Identity = 0,
    /// DCT-II: `c_k Σ x_n cos(π k (2n+1) / 16)` with `c_0 = √(1/8)`, else `c_k = 1/2`. For smooth blocks.
    ///
    /// Flow graph: Chen, Smith and Fralick, "A fast computational algorithm for the discrete cosine transform", IEEE
    /// Trans. Commun. 25(9), 1977; by lifting steps as in Liang and Tran, "Fast multiplierless approximations of the
    /// DCT with the lifting scheme", IEEE Trans. Signal Process. 49(12), 2001.
    Dct = 1,
    /// Asymmetric sine transform in its butterfly form, a DST-IV: `½ Σ x_n sin(π (2k+1)(2n+1) / 32)`. For residuals
    /// that grow away from the predicted edge (row 0, column 0).
    ///
    /// Source: Han, Xu and Mukherjee, "A butterfly structured design of the hybrid transform coding scheme", Picture
    /// Coding Symposium 2013; VP9 and AV1 use this variant at 8 points.
    Adst = 2,
}

impl Transform {
    /// All transforms, by code.
    pub const ALL: [Self; 3] = [Self::Identity, Self::Dct, Self::Adst];

    /// The code stored in a file.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The transform with this code.
    ///
    /// # Errors
    /// [`Error::UnknownTransform`] if there is none.
    pub const fn from_code(code: u8) -> Result<Self> {
        match code {
            0 => Ok(Self::Identity),
            1 => Ok(Self::Dct),
            2 => Ok(Self::Adst),
            _ => Err(Error::UnknownTransform { code }),
        }
    }

    /// How much larger each coefficient is than that of the orthonormal 1-D transform.
    ///
    /// ```
    /// # use wcodec_transform::Transform;
    /// let volume: f64 = Transform::Dct.scales().iter().product();
    /// assert!((volume - 1.0).abs() < 1e-12);
    /// ```
    pub const fn scales(self) -> [f64; 8] {
        use std::f64::consts::FRAC_1_SQRT_2 as R;
        match self {
            Self::Identity => [1.0; 8],
            Self::Dct => [R / 2.0, 1.0, 1.0, 2.0, R, 2.0, 1.0, 1.0],
            Self::Adst => [0.5, 1.0, 2.0, 1.0, 1.0, 2.0, 1.0, 0.5],
        }
    }
}

impl TryFrom<u8> for Transform {
    type Error = Error;

    fn try_from(code: u8) -> Result<Self> {
        Self::from_code(code)
    }
}

/// Replaces the samples of a block by their coefficients; coefficient `(u, v)` lies at `8u + v`.
///
/// Never fails or panics; see [`MAX_INPUT`] for the range in which the coefficients mean something.
#[inline]
pub fn forward(transform: Transform, block: &mut [i32; BLOCK_LEN]) {
    forward_separable(transform, transform, block);
}

/// Restores the samples from the coefficients: the exact inverse of [`forward`] for every `i32`.
#[inline]
pub fn inverse(transform: Transform, block: &mut [i32; BLOCK_LEN]) {
    inverse_separable(transform, transform, block);
}

/// [`forward`] with one transform along each row (`horizontal`) and another along each column (`vertical`).
pub fn forward_separable(horizontal: Transform, vertical: Transform, block: &mut [i32; BLOCK_LEN]) {
    if horizontal != Transform::Identity {
        let mut columns = transposed(rows_of(block));
        forward_1d(horizontal, &mut columns);
        *rows_of(block) = transposed(&columns);
    }
    forward_1d(vertical, rows_of(block));
}

/// The exact inverse of [`forward_separable`]: columns first, then rows.
pub fn inverse_separable(horizontal: Transform, vertical: Transform, block: &mut [i32; BLOCK_LEN]) {
    inverse_1d(vertical, rows_of(block));
    if horizontal != Transform::Identity {
        let mut columns = transposed(rows_of(block));
        inverse_1d(horizontal, &mut columns);
        *rows_of(block) = transposed(&columns);
    }
}

/// Eight points, each eight lanes wide.
type Points = [Lanes; 8];

const PI_4: usize = 0;
const PI_8: usize = 1;
const PI_16: usize = 2;
const PI_3_16: usize = 3;
/// First of the four rotations by `π(4i + 1)/32`.
const ADST_INPUT: usize = 4;
/// The ADST rotates sample `.0` with sample `.1` at its entry.
const ADST_PAIRS: [(usize, usize); 4] = [(7, 0), (5, 2), (3, 4), (1, 6)];

fn forward_1d(transform: Transform, x: &mut Points) {
    match transform {
        Transform::Identity => {}
        Transform::Dct => forward_dct(x),
        Transform::Adst => forward_adst(x),
    }
}

fn inverse_1d(transform: Transform, x: &mut Points) {
    match transform {
        Transform::Identity => {}
        Transform::Dct => inverse_dct(x),
        Transform::Adst => inverse_adst(x),
    }
}

/// Chen's graph. `butterfly` leaves the mean in its first argument; names on the right give the coefficient.
#[inline(always)]
fn forward_dct(x: &mut Points) {
    let [mut s0, mut s1, mut s2, mut s3, mut d3, mut d2, mut d1, mut d0] = *x;
    butterfly(&mut s0, &mut d0);
    butterfly(&mut s1, &mut d1);
    butterfly(&mut s2, &mut d2);
    butterfly(&mut s3, &mut d3);

    butterfly(&mut s0, &mut s3);
    butterfly(&mut s1, &mut s2);
    butterfly(&mut s0, &mut s1); // 0, 4
    negate(&mut s2);
    rotate(ROTATIONS[PI_8], &mut s3, &mut s2); // 2, 6

    rotate(ROTATIONS[PI_4], &mut d1, &mut d2);
    butterfly(&mut d0, &mut d2);
    butterfly(&mut d3, &mut d1);
    negate(&mut d3);
    rotate(ROTATIONS[PI_16], &mut d0, &mut d3); // 1, 7
    rotate(ROTATIONS[PI_3_16], &mut d2, &mut d1); // 3, 5
    *x = [s0, d0, s3, d2, s1, d1, s2, d3];
}

#[inline(always)]
fn inverse_dct(x: &mut Points) {
    let [mut s0, mut d0, mut s3, mut d2, mut s1, mut d1, mut s2, mut d3] = *x;
    unrotate(ROTATIONS[PI_3_16], &mut d2, &mut d1);
    unrotate(ROTATIONS[PI_16], &mut d0, &mut d3);
    negate(&mut d3);
    unbutterfly(&mut d3, &mut d1);
    unbutterfly(&mut d0, &mut d2);
    unrotate(ROTATIONS[PI_4], &mut d1, &mut d2);

    unrotate(ROTATIONS[PI_8], &mut s3, &mut s2);
    negate(&mut s2);
    unbutterfly(&mut s0, &mut s1);
    unbutterfly(&mut s1, &mut s2);
    unbutterfly(&mut s0, &mut s3);

    unbutterfly(&mut s0, &mut d0);
    unbutterfly(&mut s1, &mut d1);
    unbutterfly(&mut s2, &mut d2);
    unbutterfly(&mut s3, &mut d3);
    *x = [s0, s1, s2, s3, d3, d2, d1, d0];
}

/// Four rotations of sample pairs, then two stages of butterflies with rotations between, as in the paper.
#[inline(always)]
fn forward_adst(x: &mut Points) {
    let mut p = ADST_PAIRS.map(|(a, _)| x[a]);
    let mut t = ADST_PAIRS.map(|(_, b)| x[b]);
    for i in 0..4 {
        negate(&mut t[i]);
        rotate(ROTATIONS[ADST_INPUT + i], &mut p[i], &mut t[i]);
    }
    let ([mut p0, mut p1, mut p2, mut p3], [mut t0, mut t1, mut t2, mut t3]) = (p, t);
    butterfly(&mut p0, &mut p2);
    butterfly(&mut t0, &mut t2);
    butterfly(&mut p1, &mut p3);
    butterfly(&mut t1, &mut t3);

    negate(&mut t2);
    rotate(ROTATIONS[PI_8], &mut p2, &mut t2);
    rotate(ROTATIONS[PI_8], &mut t3, &mut p3);
    butterfly(&mut p0, &mut p1);
    butterfly(&mut t0, &mut t1);
    butterfly(&mut p2, &mut t3);
    butterfly(&mut t2, &mut p3);

    negate(&mut t1);
    rotate(ROTATIONS[PI_4], &mut p1, &mut t1);
    negate(&mut p3);
    rotate(ROTATIONS[PI_4], &mut t3, &mut p3);
    for negative in [&mut t0, &mut p2, &mut p1, &mut p3] {
        negate(negative);
    }
    *x = [p0, p2, t3, p1, t1, p3, t2, t0];
}

#[inline(always)]
fn inverse_adst(x: &mut Points) {
    let [mut p0, mut p2, mut t3, mut p1, mut t1, mut p3, mut t2, mut t0] = *x;
    for negative in [&mut t0, &mut p2, &mut p1, &mut p3] {
        negate(negative);
    }
    unrotate(ROTATIONS[PI_4], &mut t3, &mut p3);
    negate(&mut p3);
    unrotate(ROTATIONS[PI_4], &mut p1, &mut t1);
    negate(&mut t1);

    unbutterfly(&mut t2, &mut p3);
    unbutterfly(&mut p2, &mut t3);
    unbutterfly(&mut t0, &mut t1);
    unbutterfly(&mut p0, &mut p1);
    unrotate(ROTATIONS[PI_8], &mut t3, &mut p3);
    unrotate(ROTATIONS[PI_8], &mut p2, &mut t2);
    negate(&mut t2);

    unbutterfly(&mut t1, &mut t3);
    unbutterfly(&mut p1, &mut p3);
    unbutterfly(&mut t0, &mut t2);
    unbutterfly(&mut p0, &mut p2);
    let (mut p, mut t) = ([p0, p1, p2, p3], [t0, t1, t2, t3]);
    for i in 0..4 {
        unrotate(ROTATIONS[ADST_INPUT + i], &mut p[i], &mut t[i]);
        negate(&mut t[i]);
        x[ADST_PAIRS[i].0] = p[i];
        x[ADST_PAIRS[i].1] = t[i];
    }
}

fn rows_of(block: &mut [i32; BLOCK_LEN]) -> &mut Points {
    let (rows, _) = block.as_chunks_mut::<8>();
    rows.try_into().expect("64 samples are 8 rows of 8")
}

fn transposed(x: &Points) -> Points {
    std::array::from_fn(|r| std::array::from_fn(|c| x[c][r]))
}
