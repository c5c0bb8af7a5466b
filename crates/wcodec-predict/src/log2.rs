//! Logarithms in integers, so that no choice depends on a platform's floating-point library.

/// `floor(2^bits · log2(v))` for `v >= 1`, with `bits <= 26`. Zero counts as one.
///
/// By repeated squaring of the normalised argument, one fraction bit at a time; the argument keeps 31 fraction bits, so
/// the last place may be one too low just above an exact step.
pub(crate) const fn log2_floor(v: u64, bits: u32) -> u64 {
    let v = if v == 0 { 1 } else { v };
    let integer = v.ilog2();
    let mut x = if integer > 31 { v >> (integer - 31) } else { v << (31 - integer) };
    let mut log = integer as u64;
    let mut i = 0;
    while i < bits {
        x = (x * x) >> 31;
        let bit = x >> 32;
        x >>= bit;
        log = (log << 1) | bit;
        i += 1;
    }
    log
}

/// `log2(v)` in units of 1/256 octave, rounded; the same on every platform. Zero counts as one.
///
/// For scale statistics from integer moments: `(log2_fixed(sum_of_squares) - log2_fixed(count)) / 2` is the log2 of the
/// RMS.
///
/// ```
/// use wcodec_predict::log2_fixed;
/// assert_eq!(log2_fixed(1), 0);
/// assert_eq!(log2_fixed(1 << 40), 40 * 256);
/// assert_eq!(log2_fixed(3), 406); // 1.58496 octaves
/// ```
pub const fn log2_fixed(v: u64) -> i32 {
    ((log2_floor(v, 9) + 1) >> 1) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_close_to_the_real_logarithm(v in 1u64.., shift in 0u32..63) {
            let v = (v >> shift).max(1);
            let real = (v as f64).log2() * 256.0;
            prop_assert!((f64::from(log2_fixed(v)) - real).abs() <= 0.501);
        }

        #[test]
        fn never_falls(v in 1u64..u64::MAX, shift in 0u32..63) {
            let v = (v >> shift).max(1);
            prop_assert!(log2_fixed(v) <= log2_fixed(v + 1));
        }
    }

    #[test]
    fn powers_of_two_are_exact() {
        for e in 0..64 {
            assert_eq!(log2_fixed(1 << e), e * 256);
        }
        assert_eq!(log2_fixed(0), 0);
    }
}
