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
    let v = if v == 0 { 1 } else { v };
    let integer = v.ilog2();
    let x = (if integer > 31 { v >> (integer - 31) } else { v << (31 - integer) }) as u32;
    // A 1024th of the octave is less than one step, so its argument is at most one step above its first.
    let first = FIRST[(x >> 21) as usize - 1024];
    let step = first as i32 + (x > BELOW[first as usize + 1]) as i32;
    ((integer as i32) << (STEP_BITS - 1)) + ((step + 1) >> 1)
}

/// Fraction bits of the logarithm that [`log2_fixed`] rounds.
const STEP_BITS: u32 = 9;

/// Of every logarithm from 0 to 1, in steps: the greatest argument below it, with 31 fraction bits.
static BELOW: [u32; (1 << STEP_BITS) + 1] = {
    let mut below = [u32::MAX; (1 << STEP_BITS) + 1];
    let mut step = 0;
    while step < 1 << STEP_BITS {
        // `low` is below it, `high` is not.
        let (mut low, mut high) = ((1 << 31) - 1, u32::MAX);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if fraction(middle) < step as u64 {
                low = middle;
            } else {
                high = middle;
            }
        }
        below[step] = low;
        step += 1;
    }
    below
};

/// The logarithm at every 1024th of an octave, in steps.
static FIRST: [u16; 1024] = {
    let mut first = [0; 1024];
    let mut i = 0;
    while i < 1024 {
        first[i] = fraction(((1024 + i) as u32) << 21) as u16;
        i += 1;
    }
    first
};

/// The logarithm of an argument from 1 to 2 with 31 fraction bits, in steps.
const fn fraction(x: u32) -> u64 {
    log2_floor(x as u64, STEP_BITS) - (31 << STEP_BITS)
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

    proptest! {
        #[test]
        fn tables_say_what_squaring_does(v in 1u64.., shift in 0u32..63) {
            let v = (v >> shift).max(1);
            prop_assert_eq!(i64::from(log2_fixed(v)), ((log2_floor(v, STEP_BITS) + 1) >> 1) as i64);
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
