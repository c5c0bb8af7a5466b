//! Lifting steps: the only arithmetic of the transforms.
//!
//! # Rotation
//! A plane rotation by θ, `(a, b) → (a cos θ − b sin θ, a sin θ + b cos θ)`, is three shears (Daubechies and Sweldens,
//! "Factoring wavelet transforms into lifting steps", J. Fourier Anal. Appl. 4, 1998, section 7):
//!
//! ```text
//! a −= round(t·b)     t = tan(θ/2)
//! b += round(s·a)     s = sin θ
//! a −= round(t·b)
//! ```
//!
//! Each step adds to one variable a function of the *other*, so its inverse subtracts the very same integer: rounding
//! never has to be undone. The constants are dyadic rationals `k / 2^14` (see [`ROTATIONS`]), and
//! `round(k·x) = (k·x + 2^13) >> 14` with an arithmetic shift.
//!
//! # Butterfly
//! The S-transform, `d = a − b`, `m = b + (d >> 1) = floor((a + b) / 2)`: one rounding instead of three, and the
//! difference of equal numbers is exactly zero, so a constant block has no coefficient but its first. Against the
//! orthonormal butterfly the mean is smaller by √2 and the difference larger by √2; both transforms are laid out so that
//! every rotation mixes two numbers of the same scale.
//!
//! # Arithmetic
//! Additions and subtractions wrap modulo 2^32 and the product is the low 32 bits of the exact shifted product. A lifting
//! step is a bijection of `Z/2^32` whatever it adds, so forward and inverse are exact inverses for *every* `i32`, and
//! corrupt coefficients can neither panic nor overflow. In C++ and CUDA C++ use `unsigned` for the additions (signed
//! overflow is undefined there) and [`scale`]'s two-product form, or one 64-bit product; while `|x| < 2^17`, which holds
//! for everything that 8-bit residuals lead to, the plain 32-bit `(k * x + 8192) >> 14` gives the same integer.

/// Eight numbers transformed side by side: one for each row or column of a block.
pub(crate) type Lanes = [i32; 8];

/// Fractional bits of the lifting constants.
pub const FRACTION_BITS: u32 = 14;

/// The constants of one rotation, in units of `2^-14`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// `round(2^14 · tan(θ/2))`, the first and third step.
    pub tan_half: i32,
    /// `round(2^14 · sin θ)`, the second step.
    pub sin: i32,
}

/// Every rotation that the transforms use; θ in the comment. All constants lie in `(0, 2^14)`.
///
/// Rows 0-3 serve the DCT, rows 0, 1 and 4-7 the ADST.
pub const ROTATIONS: [Rotation; 8] = [
    Rotation { tan_half: 6786, sin: 11585 },  // 0:  8π/32 = π/4
    Rotation { tan_half: 3259, sin: 6270 },   // 1:  4π/32 = π/8
    Rotation { tan_half: 1614, sin: 3196 },   // 2:  2π/32 = π/16
    Rotation { tan_half: 4970, sin: 9102 },   // 3:  6π/32 = 3π/16
    Rotation { tan_half: 805, sin: 1606 },    // 4:   π/32
    Rotation { tan_half: 4104, sin: 7723 },   // 5:  5π/32
    Rotation { tan_half: 7749, sin: 12665 },  // 6:  9π/32
    Rotation { tan_half: 12151, sin: 15679 }, // 7: 13π/32
];

/// `floor(k·x / 2^14 + 1/2)` for `0 <= k < 2^14` and every `x`.
///
/// Split as `x = 2^14·h + l`, so that both products stay in 32 bits: vectors of `i32` need no widening.
///
/// ```
/// use wcodec_transform::lifting::scale;
/// assert_eq!(scale(11585, 1000), 707);
/// assert_eq!(scale(11585, -1000), -707);
/// ```
#[inline(always)]
pub const fn scale(k: i32, x: i32) -> i32 {
    const HALF: i32 = 1 << (FRACTION_BITS - 1);
    const LOW: i32 = (1 << FRACTION_BITS) - 1;
    let high = k.wrapping_mul(x >> FRACTION_BITS);
    let low = k.wrapping_mul(x & LOW).wrapping_add(HALF) >> FRACTION_BITS;
    high.wrapping_add(low)
}

/// Rotates `(a, b)` by θ.
#[inline(always)]
pub(crate) fn rotate(r: Rotation, a: &mut Lanes, b: &mut Lanes) {
    for i in 0..8 {
        a[i] = a[i].wrapping_sub(scale(r.tan_half, b[i]));
        b[i] = b[i].wrapping_add(scale(r.sin, a[i]));
        a[i] = a[i].wrapping_sub(scale(r.tan_half, b[i]));
    }
}

/// Undoes [`rotate`].
#[inline(always)]
pub(crate) fn unrotate(r: Rotation, a: &mut Lanes, b: &mut Lanes) {
    for i in 0..8 {
        a[i] = a[i].wrapping_add(scale(r.tan_half, b[i]));
        b[i] = b[i].wrapping_sub(scale(r.sin, a[i]));
        a[i] = a[i].wrapping_add(scale(r.tan_half, b[i]));
    }
}

/// `(a, b)` becomes (mean, difference).
#[inline(always)]
pub(crate) fn butterfly(a: &mut Lanes, b: &mut Lanes) {
    for i in 0..8 {
        let difference = a[i].wrapping_sub(b[i]);
        a[i] = b[i].wrapping_add(difference >> 1);
        b[i] = difference;
    }
}

/// (mean, difference) becomes `(a, b)`; undoes [`butterfly`].
#[inline(always)]
pub(crate) fn unbutterfly(mean: &mut Lanes, difference: &mut Lanes) {
    for i in 0..8 {
        let b = mean[i].wrapping_sub(difference[i] >> 1);
        mean[i] = b.wrapping_add(difference[i]);
        difference[i] = b;
    }
}

/// Changes the sign; its own inverse.
#[inline(always)]
pub(crate) fn negate(a: &mut Lanes) {
    for x in a {
        *x = x.wrapping_neg();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANGLES_IN_32NDS_OF_PI: [f64; 8] = [8.0, 4.0, 2.0, 6.0, 1.0, 5.0, 9.0, 13.0];

    #[test]
    fn the_table_holds_the_rounded_constants() {
        for (r, n) in ROTATIONS.iter().zip(ANGLES_IN_32NDS_OF_PI) {
            let theta = n * std::f64::consts::PI / 32.0;
            assert_eq!(f64::from(r.tan_half), ((theta / 2.0).tan() * 16384.0).round(), "tan at {n}π/32");
            assert_eq!(f64::from(r.sin), (theta.sin() * 16384.0).round(), "sin at {n}π/32");
        }
    }

    #[test]
    fn the_mean_is_the_floor() {
        let (mut a, mut b) = ([-3, 4, 7, 0, i32::MAX, 5, -1, 1], [0, 4, -2, -1, i32::MAX, 6, -1, 0]);
        butterfly(&mut a, &mut b);
        assert_eq!((a, b), ([-2, 4, 2, -1, i32::MAX, 5, -1, 0], [-3, 0, 9, 1, 0, -1, 0, 1]));
    }

    proptest! {
        #[test]
        fn scale_is_the_rounded_64_bit_product(k in 0..1 << 14, x: i32) {
            prop_assert_eq!(i64::from(scale(k, x)), (i64::from(k) * i64::from(x) + 8192) >> 14);
        }

        #[test]
        fn one_32_bit_product_is_enough_below_2_17(k in 0..1 << 14, x in -(1 << 17) + 1..1 << 17) {
            prop_assert_eq!(scale(k, x), (k * x + 8192) >> 14);
        }

        #[test]
        fn steps_undo_each_other(a: Lanes, b: Lanes, which in 0usize..8) {
            let (mut x, mut y) = (a, b);
            rotate(ROTATIONS[which], &mut x, &mut y);
            unrotate(ROTATIONS[which], &mut x, &mut y);
            prop_assert_eq!((x, y), (a, b));
            butterfly(&mut x, &mut y);
            unbutterfly(&mut x, &mut y);
            prop_assert_eq!((x, y), (a, b));
        }
    }
}
