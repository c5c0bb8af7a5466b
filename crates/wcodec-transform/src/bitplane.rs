//! Bitplanes: unsigned numbers split into planes of one bit each, from the most to the least significant.
//!
//! # Layout
//! `planes` planes follow one another, the most significant first. A plane of `n` elements takes `ceil(n / 8)` bytes;
//! bit `i % 8` (least significant first) of byte `i / 8` belongs to element `i`. Bits beyond the last element are written
//! as zero and ignored when read.
//!
//! ```
//! use wcodec_transform::bitplane::{error_bound, merge, plane_count, split};
//!
//! let values = [5, 0, 3, 6, 1];
//! let planes = plane_count(&values);
//! let mut bytes = Vec::new();
//! split(&values, planes, &mut bytes)?;
//! assert_eq!(bytes, [0b01001, 0b01100, 0b10101]);
//!
//! let mut back = [0; 5];
//! merge(&bytes, 5, planes, planes, &mut back)?;
//! assert_eq!(back, values);
//! merge(&bytes[..1], 5, planes, 1, &mut back)?; // the first plane alone
//! assert!(values.iter().zip(back).all(|(&v, b)| v.abs_diff(b) <= error_bound(planes, 1)));
//! # Ok::<(), wcodec_transform::Error>(())
//! ```

use crate::error::{Error, Result};

/// Most planes there can be.
pub const MAX_PLANES: u32 = u32::BITS;

/// The fewest planes that hold every value: 0 if all are zero, at most [`MAX_PLANES`].
pub fn plane_count(values: &[u32]) -> u32 {
    u32::BITS - values.iter().fold(0, |or, v| or | v).leading_zeros()
}

/// Bytes of one plane of `n` elements.
pub const fn plane_bytes(n: usize) -> usize {
    n.div_ceil(8)
}

/// Appends the lowest `planes` bits of every value to `out`, plane by plane.
///
/// # Errors
/// [`Error::TooManyPlanes`] above [`MAX_PLANES`]; [`Error::ValueTooLarge`] if a value has higher bits. `out` is then as
/// it was.
pub fn split(values: &[u32], planes: u32, out: &mut Vec<u8>) -> Result<()> {
    let total = total_bytes(values.len(), planes, MAX_PLANES)?;
    if let Some(index) = values.iter().position(|v| v.checked_shr(planes).unwrap_or(0) != 0) {
        return Err(Error::ValueTooLarge { index, planes });
    }
    out.reserve(total);
    for plane in (0..planes).rev() {
        out.extend(
            values
                .chunks(8)
                .map(|eight| eight.iter().enumerate().fold(0u8, |byte, (i, v)| byte | (((v >> plane) & 1) as u8) << i)),
        );
    }
    Ok(())
}

/// Rebuilds `n` values of `planes` bits from their first `first_k` planes.
///
/// Only the first `first_k · ceil(n / 8)` bytes are read, so a prefix of the planes is enough. If planes are missing, each
/// value is the upper middle of the interval it is known to lie in; see [`error_bound`].
///
/// # Errors
/// [`Error::TooManyPlanes`] if `planes` is above [`MAX_PLANES`] or `first_k` above `planes`; [`Error::OutputLength`] if
/// `out` does not have `n` elements; [`Error::Truncated`] if bytes are missing. `out` is then as it was.
pub fn merge(bytes: &[u8], n: usize, planes: u32, first_k: u32, out: &mut [u32]) -> Result<()> {
    if planes > MAX_PLANES {
        return Err(Error::TooManyPlanes { planes, max: MAX_PLANES });
    }
    let needed = total_bytes(n, first_k, planes)?;
    if out.len() != n {
        return Err(Error::OutputLength { needed: n, present: out.len() });
    }
    let Some(bytes) = bytes.get(..needed) else {
        return Err(Error::Truncated { needed, present: bytes.len() });
    };
    let missing = planes - first_k;
    out.fill(if missing == 0 { 0 } else { 1 << (missing - 1) });
    if n == 0 {
        return Ok(());
    }
    for (plane, row) in bytes.chunks_exact(plane_bytes(n)).enumerate() {
        let shift = planes - 1 - plane as u32;
        for (eight, &byte) in out.chunks_mut(8).zip(row) {
            for (i, v) in eight.iter_mut().enumerate() {
                *v |= u32::from(byte >> i & 1) << shift;
            }
        }
    }
    Ok(())
}

/// How far a value rebuilt from the first `first_k` of `planes` planes can be off: `2^(missing−1)`, or 0 when no plane
/// is missing. The bound is reached. More than [`MAX_PLANES`] planes count as that many.
pub const fn error_bound(planes: u32, first_k: u32) -> u32 {
    let planes = if planes > MAX_PLANES { MAX_PLANES } else { planes };
    match planes.saturating_sub(first_k) {
        0 => 0,
        missing => 1 << (missing - 1),
    }
}

/// Bytes of `planes` planes of `n` elements, of which there may be at most `max`.
fn total_bytes(n: usize, planes: u32, max: u32) -> Result<usize> {
    if planes > max {
        return Err(Error::TooManyPlanes { planes, max });
    }
    plane_bytes(n).checked_mul(planes as usize).ok_or(Error::TooLarge { elements: n, planes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_are_in_the_documented_order() {
        let mut values = [0u32; 11];
        values[3] = 0b10;
        values[9] = 0b01;
        let mut bytes = vec![0xee];
        split(&values, 2, &mut bytes).unwrap();
        assert_eq!(bytes, [0xee, 0b1000, 0, 0, 0b10]);
    }

    #[test]
    fn faults_have_their_own_errors() {
        let mut out = [9; 9];
        let mut bytes = vec![1];
        assert_eq!(split(&[1, 8], 3, &mut bytes), Err(Error::ValueTooLarge { index: 1, planes: 3 }));
        assert_eq!(split(&[1], 33, &mut bytes), Err(Error::TooManyPlanes { planes: 33, max: 32 }));
        assert_eq!(bytes, [1]);
        assert_eq!(merge(&[0; 99], 9, 33, 1, &mut out), Err(Error::TooManyPlanes { planes: 33, max: 32 }));
        assert_eq!(merge(&[0; 99], 9, 3, 4, &mut out), Err(Error::TooManyPlanes { planes: 4, max: 3 }));
        assert_eq!(merge(&[0; 99], 8, 3, 3, &mut out), Err(Error::OutputLength { needed: 8, present: 9 }));
        assert_eq!(merge(&[0; 5], 9, 3, 3, &mut out), Err(Error::Truncated { needed: 6, present: 5 }));
        assert_eq!(
            merge(&[0; 5], usize::MAX, 32, 32, &mut out),
            Err(Error::TooLarge { elements: usize::MAX, planes: 32 })
        );
        assert_eq!(out, [9; 9]);
    }

    #[test]
    fn nothing_splits_into_nothing() {
        let mut bytes = Vec::new();
        split(&[], 32, &mut bytes).unwrap();
        split(&[0, 0], plane_count(&[0, 0]), &mut bytes).unwrap();
        assert!(bytes.is_empty());
        merge(&[], 0, 32, 32, &mut []).unwrap();
        let mut out = [1, 1];
        merge(&[], 2, 0, 0, &mut out).unwrap();
        assert_eq!(out, [0, 0]);
    }

    proptest! {
        #[test]
        fn every_prefix_keeps_its_bound(values in prop::collection::vec(any::<u32>(), 1..70), shift in 0u32..32) {
            let values: Vec<u32> = values.into_iter().map(|v| v >> shift).collect();
            let planes = plane_count(&values);
            let mut bytes = Vec::new();
            split(&values, planes, &mut bytes).unwrap();
            prop_assert_eq!(bytes.len(), planes as usize * plane_bytes(values.len()));
            let mut back = vec![0; values.len()];
            for k in 0..=planes {
                let prefix = &bytes[..k as usize * plane_bytes(values.len())];
                merge(prefix, values.len(), planes, k, &mut back).unwrap();
                let bound = error_bound(planes, k);
                prop_assert!(values.iter().zip(&back).all(|(&v, &b)| v.abs_diff(b) <= bound));
            }
            prop_assert_eq!(back, values);
        }

        #[test]
        fn padding_is_ignored(values in prop::collection::vec(0u32..16, 1..8), noise: u8) {
            let n = values.len();
            let mut bytes = Vec::new();
            split(&values, 4, &mut bytes).unwrap();
            bytes.iter_mut().for_each(|b| *b |= noise.checked_shl(n as u32).unwrap_or(0));
            let mut back = vec![0; n];
            merge(&bytes, n, 4, 4, &mut back).unwrap();
            prop_assert_eq!(back, values);
        }
    }
}
