//! Frequency tables: counts, cost-optimal normalisation to a power of two, and their serialised form.

use crate::adaptive::{self, NumberModel};
use crate::error::{RansError, Result, corrupt};

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
        let mut assigned = 0u32;
        for (f, &c) in freqs.iter_mut().zip(counts) {
            if c > 0 {
                let share = (u128::from(c) * u128::from(slots) / total) as u32;
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
    // Ordered by gain, ties by symbol, so that every platform agrees. The gain is a correctly rounded division and
    // comparison: n·log2((f+1)/f) is compared through a monotone integer surrogate below.
    while assigned != slots {
        let grow = assigned < slots;
        let mut best: Option<(f64, usize)> = None;
        for (i, (&f, &c)) in freqs.iter().zip(counts).enumerate() {
            if c == 0 || (!grow && f <= 1) {
                continue;
            }
            let f = f64::from(f);
            let change = c as f64 * if grow { log_ratio(f + 1.0, f) } else { -log_ratio(f, f - 1.0) };
            if best.is_none_or(|(b, _)| change > b) {
                best = Some((change, i));
            }
        }
        let (_, i) = best.expect("a counted symbol can give or take a slot");
        if grow {
            freqs[i] += 1;
            assigned += 1;
        } else {
            freqs[i] -= 1;
            assigned -= 1;
        }
    }
}

/// ln(a/b) for a = b + 1 by the first terms of the area-tangent series: only +, ×, ÷, which IEEE 754 rounds the same
/// way everywhere, so that encoders on every platform write the same table.
fn log_ratio(a: f64, b: f64) -> f64 {
    let z = (a - b) / (a + b);
    let z2 = z * z;
    2.0 * z * (1.0 + z2 * (1.0 / 3.0 + z2 * (1.0 / 5.0 + z2 * (1.0 / 7.0 + z2 * (1.0 / 9.0 + z2 / 11.0)))))
}

/// The tables of K contexts over one alphabet of field values.
///
/// ```
/// use wcodec_rans::TableSet;
/// let mut counts = vec![vec![0u64; 512]; 1];
/// counts[0][240] = 900;
/// counts[0][241] = 100;
/// let set = TableSet::from_counts(10, &counts)?;
/// let bytes = set.to_bytes();
/// assert_eq!(TableSet::from_bytes(&bytes)?, set);
/// # Ok::<(), wcodec_rans::RansError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableSet {
    /// Field value of every symbol, ascending.
    values: Vec<u16>,
    tables: Vec<FrequencyTable>,
}

impl TableSet {
    /// Wraps an alphabet and its tables.
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when there are not 1 to 16 tables of together 2^15 entries at most, they differ in P or in alphabet, values are not
    /// strictly ascending, or a value does not fit 32 − 2P bits (what one 32-bit table entry leaves for it).
    pub fn new(values: Vec<u16>, tables: Vec<FrequencyTable>) -> Result<Self> {
        if !(1..=crate::MAX_CONTEXTS).contains(&tables.len()) {
            return Err(RansError::BadArgument("a table set has 1 to 16 contexts"));
        }
        let p = tables[0].table_bits;
        if tables.len() << p > MAX_ENTRIES {
            return Err(RansError::BadArgument("K·2^P exceeds 2^15 entries"));
        }
        if tables.iter().any(|t| t.table_bits != p || t.freqs.len() != values.len()) {
            return Err(RansError::BadArgument("tables of a set share P and alphabet"));
        }
        if values.windows(2).any(|w| w[0] >= w[1]) {
            return Err(RansError::BadArgument("alphabet values must ascend"));
        }
        if values.last().is_some_and(|&v| u32::from(v) >> max_value_bits(p) != 0) {
            return Err(RansError::BadArgument("a field value must fit 32 - 2P bits"));
        }
        Ok(Self { values, tables })
    }

    /// Tables for `counts[context][field value]` at precision `table_bits`. Values that no context counts stay out of
    /// the alphabet.
    ///
    /// # Errors
    /// As [`TableSet::new`]; also when more than 256 distinct values are counted.
    pub fn from_counts(table_bits: u32, counts: &[Vec<u64>]) -> Result<Self> {
        let width = counts.iter().map(Vec::len).max().unwrap_or(0);
        let mut values: Vec<u16> = (0..width.min(1 << 16))
            .filter(|&v| counts.iter().any(|c| c.get(v).is_some_and(|&n| n > 0)))
            .map(|v| v as u16)
            .collect();
        // A table needs two symbols; an idle one beside a constant costs 2^-P of a bit.
        let mut filler = 0u16;
        while values.len() < 2 {
            if !values.contains(&filler) {
                values.push(filler);
            }
            filler += 1;
        }
        values.sort_unstable();
        if values.len() > MAX_SYMBOLS {
            return Err(RansError::BadArgument("an alphabet has 2 to 256 symbols"));
        }
        let tables = counts
            .iter()
            .map(|c| {
                let dense: Vec<u64> = values.iter().map(|&v| c.get(usize::from(v)).copied().unwrap_or(0)).collect();
                FrequencyTable::from_counts(table_bits, &dense)
            })
            .collect::<Result<Vec<_>>>()?;
        Self::new(values, tables)
    }

    /// P of every table.
    pub fn table_bits(&self) -> u32 {
        self.tables[0].table_bits
    }

    /// Number of contexts K, 1 to 16.
    pub fn contexts(&self) -> usize {
        self.tables.len()
    }

    /// Field values of the alphabet, ascending.
    pub fn values(&self) -> &[u16] {
        &self.values
    }

    /// One table per context, over the alphabet of [`TableSet::values`].
    pub fn tables(&self) -> &[FrequencyTable] {
        &self.tables
    }

    /// Serialised form: see `docs/format.md`, "Table set". Adaptive: a frequency is told by how long the number before it
    /// and the one in the same place of the table before are.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut coder = adaptive::Encoder::default();
        coder.raw(self.table_bits() - MIN_TABLE_BITS, 3);
        coder.raw(self.contexts() as u32 - 1, 4);
        coder.raw(self.values.len() as u32 - 1, 8);
        let mut gaps = NumberModel::new(1);
        let mut next = 0;
        for &v in &self.values {
            gaps.encode(&mut coder, 0, u32::from(v) - next);
            next = u32::from(v) + 1;
        }
        let mut numbers = NumberModel::new(FREQ_CONTEXTS);
        let mut previous = None;
        for table in &self.tables {
            // What the others leave is the last frequency; told to stop early, a decoder need not be told zeros.
            let mut left = 1u32 << self.table_bits();
            let mut before = 0;
            for (s, &f) in table.freqs.iter().enumerate().take(self.values.len() - 1) {
                if left == 0 {
                    break;
                }
                numbers.encode(&mut coder, freq_context(previous, s, before), u32::from(f));
                left -= u32::from(f);
                before = f;
            }
            previous = Some(table);
        }
        coder.finish()
    }

    /// Reads a set that takes all of `bytes`.
    ///
    /// # Errors
    /// Truncated or corrupt bytes: a sum that is not 2^P, an alphabet that does not ascend or does not fit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut coder = adaptive::Decoder::new(bytes);
        let table_bits = coder.raw(3) + MIN_TABLE_BITS;
        if table_bits > MAX_TABLE_BITS {
            return corrupt("table set: precision P", 0);
        }
        let contexts = coder.raw(4) as usize + 1;
        if contexts << table_bits > MAX_ENTRIES {
            return corrupt("table set: too many entries", 0);
        }
        let symbols = coder.raw(8) as usize + 1;
        if symbols < 2 {
            return corrupt("table set: alphabet of one symbol", 1);
        }
        let mut gaps = NumberModel::new(1);
        let mut values = Vec::with_capacity(symbols);
        let mut next = 0u32;
        for _ in 0..symbols {
            let v = next.saturating_add(gaps.decode(&mut coder, 0));
            if v >> max_value_bits(table_bits) != 0 {
                return corrupt("table set: value does not fit", 2);
            }
            values.push(v as u16);
            next = v + 1;
        }
        coder.check()?;
        let mut numbers = NumberModel::new(FREQ_CONTEXTS);
        let mut tables: Vec<FrequencyTable> = Vec::with_capacity(contexts);
        for _ in 0..contexts {
            let mut freqs = vec![0u16; symbols];
            let mut left = 1u32 << table_bits;
            let mut before = 0;
            for s in 0..symbols - 1 {
                if left == 0 {
                    break;
                }
                let f = numbers.decode(&mut coder, freq_context(tables.last(), s, before));
                let Some(rest) = left.checked_sub(f) else {
                    return corrupt("table set: frequencies exceed 2^P", 2);
                };
                left = rest;
                before = f as u16;
                freqs[s] = before;
            }
            freqs[symbols - 1] = left as u16;
            coder.check()?;
            match FrequencyTable::new(table_bits, freqs) {
                Ok(t) => tables.push(t),
                Err(_) => return corrupt("table set: one symbol has every slot", 2),
            }
        }
        Self::new(values, tables).or_else(|_| corrupt("table set", 2))
    }
}

/// Contexts of a frequency: bit lengths (0 to 13) of the one above it and, coarser, of the one before it.
const FREQ_CONTEXTS: usize = 15 * 5;

fn freq_context(above: Option<&FrequencyTable>, symbol: usize, before: u16) -> usize {
    let length = |f: u16| (16 - f.leading_zeros()) as usize;
    let above = above.map_or(14, |t| length(t.freqs[symbol]));
    above * 5 + length(before).div_ceil(3).min(4)
}

/// Widest field value at precision P: a slot's frequency and bias take 2P bits of its 32-bit entry.
pub fn max_value_bits(table_bits: u32) -> u32 {
    (32 - 2 * table_bits).min(16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn normalised_tables_are_valid_and_come_back(
            p in MIN_TABLE_BITS..=MAX_TABLE_BITS,
            counts in prop::collection::vec(prop::collection::vec(prop_oneof![Just(0u64), 1u64..5, 0u64..1_000_000], 1..200), 1..=16),
        ) {
            let counts = &counts[..counts.len().min(MAX_ENTRIES >> p)];
            let set = TableSet::from_counts(p, counts).unwrap();
            for (table, c) in set.tables().iter().zip(counts) {
                for (&v, &f) in set.values().iter().zip(table.freqs()) {
                    let counted = c.get(usize::from(v)).copied().unwrap_or(0);
                    prop_assert!(counted == 0 || f > 0);
                }
            }
            let bytes = set.to_bytes();
            prop_assert_eq!(TableSet::from_bytes(&bytes).unwrap(), set);
            for cut in 0..bytes.len() {
                let _ = TableSet::from_bytes(&bytes[..cut]);
            }
        }

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

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = TableSet::from_bytes(&bytes);
        }
    }
}
