//! Maps signed coefficients to unsigned numbers whose bits become planes.
//!
//! Two maps, because two uses want the sign in different places:
//!
//! | map | number | sign is | for |
//! |---|---|---|---|
//! | zigzag | `(v << 1) ^ (v >> 31)`: 0, −1, 1, −2, … ↦ 0, 1, 2, 3, … | the *last* plane | complete decoding: small magnitudes, few planes |
//! | sign-first | bit `m` is the sign, bits `m−1 … 0` the magnitude | the *first* plane | progressive decoding |
//!
//! With zigzag a prefix of the planes bounds the magnitude but leaves the sign open until the last plane, so the error
//! of a partial reconstruction is as large as the number itself. Sign-first costs the same number of bits (a sign plane
//! instead of a last plane) and halves the error with every plane: see [`sign_first_error_bound`].

use crate::error::{Error, Result};

/// Most bits a magnitude can have in the sign-first map.
pub const MAX_MAGNITUDE_BITS: u32 = 31;

/// `(v << 1) ^ (v >> 31)`: numbers near zero become small.
///
/// ```
/// use wcodec_transform::fold::{unzigzag, zigzag};
/// assert_eq!([0, -1, 1, -2].map(zigzag), [0, 1, 2, 3]);
/// assert_eq!(unzigzag(zigzag(i32::MIN)), i32::MIN);
/// ```
pub const fn zigzag(v: i32) -> u32 {
    ((v << 1) ^ (v >> 31)) as u32
}

/// Undoes [`zigzag`].
pub const fn unzigzag(u: u32) -> i32 {
    (u >> 1) as i32 ^ -((u & 1) as i32)
}

/// The fewest magnitude bits that hold every value; a planar coding then has one plane more, for the sign.
///
/// `i32::MIN` needs 32, which [`sign_first`] refuses; no transform of samples within
/// [`MAX_INPUT`](crate::MAX_INPUT) gives it.
pub fn magnitude_bits(values: &[i32]) -> u32 {
    u32::BITS - values.iter().fold(0, |or, v| or | v.unsigned_abs()).leading_zeros()
}

/// Folds `values` into numbers of `bits + 1` bits: sign on top, magnitude below. Appends to `out`.
///
/// # Errors
/// [`Error::TooManyPlanes`] if `bits` is above [`MAX_MAGNITUDE_BITS`], [`Error::ValueTooLarge`] if a magnitude has more
/// than `bits` bits; `out` is then as it was.
///
/// ```
/// use wcodec_transform::fold::{sign_first, sign_first_to_signed};
/// let mut folded = Vec::new();
/// sign_first(&[5, -5, 0], 3, &mut folded)?;
/// assert_eq!(folded, [0b0101, 0b1101, 0b0000]);
/// assert_eq!(sign_first_to_signed(folded[1], 3), -5);
/// # Ok::<(), wcodec_transform::Error>(())
/// ```
pub fn sign_first(values: &[i32], bits: u32, out: &mut Vec<u32>) -> Result<()> {
    if bits > MAX_MAGNITUDE_BITS {
        return Err(Error::TooManyPlanes { planes: bits, max: MAX_MAGNITUDE_BITS });
    }
    if let Some(index) = values.iter().position(|v| v.unsigned_abs() >> bits != 0) {
        return Err(Error::ValueTooLarge { index, planes: bits });
    }
    out.extend(values.iter().map(|&v| u32::from(v < 0) << bits | v.unsigned_abs()));
    Ok(())
}

/// Undoes [`sign_first`] for one number. Bits above the sign are ignored, and so are `bits` above
/// [`MAX_MAGNITUDE_BITS`]; a negative zero is zero.
pub const fn sign_first_to_signed(u: u32, bits: u32) -> i32 {
    let bits = if bits > MAX_MAGNITUDE_BITS { MAX_MAGNITUDE_BITS } else { bits };
    let magnitude = (u & ((1 << bits) - 1)) as i32;
    if u >> bits & 1 == 1 { -magnitude } else { magnitude }
}

/// How far a value rebuilt from the first `first_k` planes of a sign-first folding with `bits` magnitude bits can be off.
///
/// With only `j = bits + 1 − first_k` magnitude planes missing, [`merge`](crate::bitplane::merge) puts the magnitude in
/// the middle of its interval: `2^(j−1)`, or 0 when none is missing. Without any plane the value is 0 and the bound the
/// largest magnitude. `bits` above [`MAX_MAGNITUDE_BITS`] counts as that.
pub const fn sign_first_error_bound(bits: u32, first_k: u32) -> u32 {
    let bits = if bits > MAX_MAGNITUDE_BITS { MAX_MAGNITUDE_BITS } else { bits };
    if first_k == 0 {
        (1 << bits) - 1
    } else if first_k > bits {
        0
    } else {
        1 << (bits - first_k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_does_not_fit() {
        let mut out = vec![7];
        assert_eq!(sign_first(&[3, -4], 2, &mut out), Err(Error::ValueTooLarge { index: 1, planes: 2 }));
        assert_eq!(sign_first(&[i32::MIN], 31, &mut out), Err(Error::ValueTooLarge { index: 0, planes: 31 }));
        assert_eq!(sign_first(&[0], 32, &mut out), Err(Error::TooManyPlanes { planes: 32, max: 31 }));
        assert_eq!(out, [7]);
    }

    proptest! {
        #[test]
        fn zigzag_is_a_bijection_ordered_by_magnitude(v: i32) {
            prop_assert_eq!(unzigzag(zigzag(v)), v);
            let expected = if v < 0 { 2 * v.unsigned_abs().wrapping_sub(1) + 1 } else { 2 * v as u32 };
            prop_assert_eq!(zigzag(v), expected);
        }

        #[test]
        fn sign_first_inverts(values in prop::collection::vec(-i32::MAX..=i32::MAX, 0..20), shift in 0u32..32) {
            let values: Vec<i32> = values.into_iter().map(|v| v.checked_shr(shift).unwrap_or(0)).collect();
            let bits = magnitude_bits(&values);
            let mut folded = Vec::new();
            sign_first(&values, bits, &mut folded).unwrap();
            let back: Vec<i32> = folded.iter().map(|&u| sign_first_to_signed(u, bits)).collect();
            prop_assert_eq!(back, values);
        }
    }
}
