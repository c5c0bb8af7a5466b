//! Which symbol a slot belongs to: the alias method.
//!
//! A table over S symbols has 2^P slots. They are cut into B *buckets* of W slots, B the least power of two that is at least 16 and at
//! least S, and no bucket belongs to more than two symbols: its own, which has the first `divide` slots, and an *alias*,
//! which has the rest (A. J. Walker, "An efficient method for generating discrete random variables with general
//! distributions", ACM TOMS 3, 1977; for rANS, F. Giesen, "rANS with static probability distributions", 2014). So a decoder finds symbol and bias
//! by one comparison and a few look-ups among B numbers, not 2^P of them: small enough for vector registers.
//!
//! Biases count up within a symbol: first the slots of its own bucket, then its parts of other buckets.

use crate::freq::FrequencyTable;

/// Fewest buckets of a table.
pub const MIN_BUCKETS: usize = 16;

/// Buckets of an alphabet of `symbols` symbols.
pub fn buckets(symbols: usize) -> usize {
    symbols.next_power_of_two().max(MIN_BUCKETS)
}

/// One bucket of W slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// Slots of the bucket's own symbol, 0 to W: the first ones.
    pub divide: u16,
    /// The symbol of the others; the bucket's own where there are none.
    pub alias: u8,
    /// What added to a place in the bucket, from `divide` on, gives the alias's bias (modulo 2^16).
    pub adjust: u16,
}

/// The slots of one [`FrequencyTable`].
///
/// ```
/// use wcodec_rans::{FrequencyTable, alias::AliasTable};
/// let table = FrequencyTable::new(8, vec![192, 64])?;
/// let alias = AliasTable::new(&table);
/// assert_eq!(alias.buckets().len(), 16);
/// // Slot 0 is symbol 0's first; slot 16 would be symbol 1's, whose own bucket is the second.
/// assert_eq!((alias.entry(0), alias.entry(16)), ((0, 0), (1, 0)));
/// # Ok::<(), wcodec_rans::RansError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasTable {
    table_bits: u32,
    buckets: Vec<Bucket>,
}

impl AliasTable {
    /// Shares out the slots. O(B).
    pub fn new(table: &FrequencyTable) -> Self {
        let count = buckets(table.freqs().len());
        let width = (1u16 << table.table_bits()) / count as u16;
        let mut left = table.freqs().to_vec();
        left.resize(count, 0);
        let full = |b| Bucket { divide: width, alias: b as u8, adjust: 0 };
        let mut buckets: Vec<Bucket> = (0..count).map(full).collect();
        // First those that lack slots, then, in the order in which that happens, those that have given too many away.
        let mut lacking: Vec<usize> = (0..count).filter(|&b| left[b] < width).collect();
        let mut giving = (0..count).filter(|&b| table.freqs().get(b).is_some_and(|&f| f > width));
        let mut giver = giving.next();
        let mut next = 0;
        // Slots lacking and slots to give are equally many, so a giver is there for every bucket that lacks some.
        while let (Some(&bucket), Some(from)) = (lacking.get(next), giver) {
            next += 1;
            let divide = left[bucket];
            left[from] -= width - divide;
            buckets[bucket] = Bucket { divide, alias: from as u8, adjust: left[from].wrapping_sub(divide) };
            if left[from] <= width {
                if left[from] < width {
                    lacking.push(from);
                }
                giver = giving.next();
            }
        }
        Self { table_bits: table.table_bits(), buckets }
    }

    /// The buckets, one for every symbol and for the idle numbers up to the next power of two.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// log2 W.
    pub fn width_bits(&self) -> u32 {
        self.table_bits - self.buckets.len().ilog2()
    }

    /// Symbol and bias of a slot below 2^P.
    #[inline]
    pub fn entry(&self, slot: u16) -> (u8, u16) {
        let own = slot >> self.width_bits();
        let place = slot & ((1 << self.width_bits()) - 1);
        let bucket = self.buckets[usize::from(own)];
        if place < bucket.divide { (own as u8, place) } else { (bucket.alias, place.wrapping_add(bucket.adjust)) }
    }

    /// The slots as runs of one symbol with rising biases, in order, at most two a bucket.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let width = 1u16 << self.width_bits();
        self.buckets.iter().enumerate().flat_map(move |(own, bucket)| {
            let first = own as u16 * width;
            let bias = bucket.divide.wrapping_add(bucket.adjust);
            [
                Run { slot: first, len: bucket.divide, symbol: own as u8, bias: 0 },
                Run { slot: first + bucket.divide, len: width - bucket.divide, symbol: bucket.alias, bias },
            ]
            .into_iter()
            .filter(|run| run.len > 0)
        })
    }

    /// Appends the slot of every symbol's every bias: that of symbol s, bias β at the sum of the frequencies of the symbols before s,
    /// plus β.
    pub(crate) fn append_slots(&self, table: &FrequencyTable, out: &mut Vec<u16>) {
        let from = out.len();
        out.resize(from + (1 << self.table_bits), 0);
        let starts = table.starts();
        for run in self.runs() {
            let at = from + usize::from(starts[usize::from(run.symbol)] + run.bias);
            out[at..at + usize::from(run.len)].iter_mut().zip(run.slot..).for_each(|(place, slot)| *place = slot);
        }
    }
}

/// Slots `slot..slot + len` are `symbol`'s, with biases from `bias` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) slot: u16,
    pub(crate) len: u16,
    pub(crate) symbol: u8,
    pub(crate) bias: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every bias of every symbol has one slot.
        #[test]
        fn slots_are_shared_out_by_frequency(
            p in crate::freq::MIN_TABLE_BITS..=crate::freq::MAX_TABLE_BITS,
            counts in prop::collection::vec(prop_oneof![Just(0u64), 1u64..5, 0u64..1_000_000], 2..=256),
        ) {
            let table = FrequencyTable::from_counts(p, &counts).unwrap();
            let alias = AliasTable::new(&table);
            let mut seen: Vec<Vec<bool>> = table.freqs().iter().map(|&f| vec![false; f.into()]).collect();
            for slot in 0..1u16 << p {
                let (symbol, bias) = alias.entry(slot);
                prop_assert!(!std::mem::replace(&mut seen[usize::from(symbol)][usize::from(bias)], true));
            }
            prop_assert!(seen.iter().flatten().all(|&s| s));
            let mut slots = Vec::new();
            alias.append_slots(&table, &mut slots);
            for (begin, &slot) in slots.iter().enumerate() {
                let (symbol, bias) = alias.entry(slot);
                prop_assert_eq!(usize::from(table.starts()[usize::from(symbol)] + bias), begin);
            }
        }
    }
}
