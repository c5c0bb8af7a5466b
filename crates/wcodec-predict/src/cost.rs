//! Estimated cost of residuals, to choose a mode by.

use crate::log2::log2_floor;

/// Fraction bits of [`residual_cost`].
pub const COST_FRACTION_BITS: u32 = 8;

/// `Σ log2(1 + folded residual)` in units of `2^-8` bits.
///
/// A residual `r`, read as signed, is folded to `(r << 1) ^ (r >> 7)`: 0, −1, 1, −2, … become 0, 1, 2, 3, …. The sum is
/// the code length under a Laplace-like law up to a constant per sample, so it ranks modes of one tile; it is no
/// prediction of a size. Unlike the entropy of the tile's own histogram it does not favour the mode that spreads 256
/// samples over few distinct but large values. Integers only, so every platform chooses the same mode.
///
/// ```
/// use wcodec_predict::residual_cost;
/// assert_eq!(residual_cost(&[0, 0]), 0);
/// assert_eq!(residual_cost(&[255]), 256); // -1: one bit
/// assert!(residual_cost(&[1, 1]) < residual_cost(&[0, 40]));
/// ```
pub fn residual_cost(residuals: &[u8]) -> u64 {
    residuals.iter().map(|&r| u64::from(COST[usize::from(r)])).sum()
}

const COST: [u16; 256] = {
    let mut table = [0; 256];
    let mut r = 0;
    while r < 256 {
        let signed = r as u8 as i8;
        let folded = ((signed << 1) ^ (signed >> 7)) as u8;
        table[r] = ((log2_floor(folded as u64 + 1, COST_FRACTION_BITS + 1) + 1) >> 1) as u16;
        r += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::COST;

    #[test]
    fn the_table_is_the_rounded_logarithm() {
        for r in 0..=255u8 {
            let signed = f64::from(r as i8);
            let folded = if signed < 0.0 { -2.0 * signed - 1.0 } else { 2.0 * signed };
            assert_eq!(f64::from(COST[usize::from(r)]), ((folded + 1.0).log2() * 256.0).round(), "{signed}");
        }
    }
}
