//! Frequency tables: counts and their cost-optimal normalisation to a power of two.

use crate::error::{RansError, Result};

/// Smallest and largest precision P of a table: frequencies sum to 2^P.
pub const MIN_TABLE_BITS: u32 = 8;
/// See [`MIN_TABLE_BITS`].
pub const MAX_TABLE_BITS: u32 = 12;
/// Most decoding entries K·2^P of a set: 128 KiB, which a GPU's shared memory and a CPU's second-level cache hold.
pub const MAX_ENTRIES: usize = 1 << 15;
/// Most symbols of one alphabet.
pub const MAX_SYMBOLS: usize = 256;

/// Frequencies of up to 256 symbols, summing to 2^P, none of them 2^P itself.
///
/// That no frequency fills the table means that at least two symbols have one, so a state always moves and the
/// frequency of a slot fits P bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FrequencyTable {
    table_bits: u32,
    freqs: Vec<u16>,
}

impl FrequencyTable {
    /// Wraps frequencies that sum to 2^`table_bits`.
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when P is out of range, the alphabet has fewer than 2 or more than 256 symbols, the
    /// sum is not 2^P, or one symbol has all of it.
    pub fn new(table_bits: u32, freqs: Vec<u16>) -> Result<Self> {
        if !(MIN_TABLE_BITS..=MAX_TABLE_BITS).contains(&table_bits) {
            return Err(RansError::BadArgument("table bits out of 8..=12"));
        }
        if !(2..=MAX_SYMBOLS).contains(&freqs.len()) {
            return Err(RansError::BadArgument("an alphabet has 2 to 256 symbols"));
        }
        let total = 1u32 << table_bits;
        if freqs.iter().map(|&f| u32::from(f)).sum::<u32>() != total {
            return Err(RansError::BadArgument("frequencies must sum to 2^P"));
        }
        if freqs.iter().any(|&f| u32::from(f) == total) {
            return Err(RansError::BadArgument("one symbol must not have every slot"));
        }
        Ok(Self { table_bits, freqs })
    }

    /// The table that codes `counts` in the fewest bits at precision P, among those that give every counted symbol a slot.
    ///
    /// The cost −Σ nᵢ·log2 fᵢ is a sum of convex functions, so moving one slot at a time to where it saves most ends at
    /// the optimum (greedy marginal allocation; Fox, "Discrete optimization via marginal analysis", 1966).
    /// O((s + |drift|)·log s) for s symbols.
    ///
    /// ```
    /// use wcodec_rans::FrequencyTable;
    /// let table = FrequencyTable::from_counts(8, &[3, 0, 1])?;
    /// assert_eq!(table.freqs(), [192, 0, 64]);
    /// # Ok::<(), wcodec_rans::RansError>(())
    /// ```
    ///
    /// # Errors
    /// [`RansError::BadArgument`] for P or an alphabet out of range, or more counted symbols than slots.
    pub fn from_counts(table_bits: u32, counts: &[u64]) -> Result<Self> {
        if !(MIN_TABLE_BITS..=MAX_TABLE_BITS).contains(&table_bits) {
            return Err(RansError::BadArgument("table bits out of 8..=12"));
        }
        if !(2..=MAX_SYMBOLS).contains(&counts.len()) {
            return Err(RansError::BadArgument("an alphabet has 2 to 256 symbols"));
        }
        let slots = 1u32 << table_bits;
        let used = counts.iter().filter(|&&c| c > 0).count();
        let mut freqs = vec![0u16; counts.len()];
        if used < 2 {
            // Nothing to optimise: the counted symbol (or the first) gets all slots but one.
            let only = counts.iter().position(|&c| c > 0).unwrap_or(0);
            freqs[only] = (slots - 1) as u16;
            freqs[usize::from(only == 0)] = 1;
            return Self::new(table_bits, freqs);
        }
        if used > slots as usize {
            return Err(RansError::BadArgument("more symbols than slots"));
        }
        let total: u128 = counts.iter().map(|&c| u128::from(c)).sum();
        let narrow = u64::try_from(total).ok().filter(|t| *t < 1 << (64 - MAX_TABLE_BITS));
        let mut assigned = 0u32;
        for (f, &c) in freqs.iter_mut().zip(counts) {
            if c > 0 {
                let share = match narrow {
                    Some(total) => (c * u64::from(slots) / total) as u32,
                    None => (u128::from(c) * u128::from(slots) / total) as u32,
                };
                *f = share.clamp(1, slots - 1) as u16;
                assigned += u32::from(*f);
            }
        }
        settle(&mut freqs, counts, assigned, slots);
        Self::new(table_bits, freqs)
    }

    /// P: frequencies sum to 2^P.
    pub fn table_bits(&self) -> u32 {
        self.table_bits
    }

    /// Frequency of every symbol of the alphabet; 0 for a symbol that this table cannot code.
    pub fn freqs(&self) -> &[u16] {
        &self.freqs
    }

    /// Length in bits of coding `counts` with this table, ∞ when a counted symbol has no slot.
    pub fn cost(&self, counts: &[u64]) -> f64 {
        let p = f64::from(self.table_bits);
        counts
            .iter()
            .zip(&self.freqs)
            .filter(|(c, _)| **c > 0)
            .map(|(&c, &f)| if f == 0 { f64::INFINITY } else { c as f64 * (p - f64::from(f).log2()) })
            .sum()
    }

    /// Start of every symbol's slots.
    pub(crate) fn starts(&self) -> Vec<u16> {
        let mut start = 0;
        self.freqs
            .iter()
            .map(|&f| {
                let s = start;
                start += f;
                s
            })
            .collect()
    }
}

/// Moves slots until `freqs` sums to `slots`, each time where it costs least or gains most.
fn settle(freqs: &mut [u16], counts: &[u64], mut assigned: u32, slots: u32) {
    // Ordered by gain, ties by symbol, so that every platform agrees: the gain is made of correctly rounded operations only.
    let grow = assigned < slots;
    let change = |f: u16, c: u64| {
        let f = f64::from(f);
        match (c, grow) {
            (0, _) => f64::NEG_INFINITY,
            (_, true) => c as f64 * log_ratio(f + 1.0, f),
            (_, false) if f <= 1.0 => f64::NEG_INFINITY,
            (_, false) => -(c as f64 * log_ratio(f, f - 1.0)),
        }
    };
    let mut changes: Vec<f64> =
        if assigned == slots { Vec::new() } else { freqs.iter().zip(counts).map(|(&f, &c)| change(f, c)).collect() };
    while assigned != slots {
        let mut best = (f64::NEG_INFINITY, 0);
        for (i, &change) in changes.iter().enumerate() {
            if change > best.0 {
                best = (change, i);
            }
        }
        let i = best.1;
        if grow {
            freqs[i] += 1;
            assigned += 1;
        } else {
            freqs[i] -= 1;
            assigned -= 1;
        }
        changes[i] = change(freqs[i], counts[i]);
    }
}

/// ln(a/b) for a = b + 1 by the first terms of the area-tangent series: only +, ×, ÷, which IEEE 754 rounds the same
/// way everywhere, so that encoders on every platform write the same table.
fn log_ratio(a: f64, b: f64) -> f64 {
    let z = (a - b) / (a + b);
    let z2 = z * z;
    2.0 * z * (1.0 + z2 * (1.0 / 3.0 + z2 * (1.0 / 5.0 + z2 * (1.0 / 7.0 + z2 * (1.0 / 9.0 + z2 / 11.0)))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_single_slot_move_saves_bits(counts in prop::collection::vec(0u64..100_000, 2..60)) {
            let table = FrequencyTable::from_counts(10, &counts).unwrap();
            if counts.iter().filter(|&&c| c > 0).count() < 2 { return Ok(()); }
            let best = table.cost(&counts);
            for from in 0..counts.len() {
                for to in 0..counts.len() {
                    if from == to || table.freqs()[from] < 2 || counts[to] == 0 { continue; }
                    let mut moved = table.freqs().to_vec();
                    moved[from] -= 1;
                    moved[to] += 1;
                    let Ok(moved) = FrequencyTable::new(10, moved) else { continue };
                    prop_assert!(moved.cost(&counts) >= best - best.abs() * 1e-12 - 1e-9);
                }
            }
        }
    }
}
