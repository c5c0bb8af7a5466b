//! A table set as byte tables that stay in vector registers (or one cycle away): what a gather from 2^P entries would find,
//! found by permutations of bytes instead.
//!
//! Entry `t · B + bucket` of a byte table tells of that bucket of table t. A byte permutation looks up 128 entries, so sets of up to 128
//! entries take one permutation a look-up, 256 take two and a blend, 512 four and three.

use crate::alias::AliasTable;
use crate::layout::HeadLayout;
use crate::table_set::TableSet;

/// Most entries T·B.
pub(crate) const MAX_ENTRIES: usize = 512;
/// See the [module](self).
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(crate) struct Registers {
    /// Slots of a bucket's own symbol, at most 255: full buckets of 256 have their own symbol as alias, too.
    pub(crate) divide: [u8; MAX_ENTRIES],
    /// Low byte of the alias's entry.
    pub(crate) alias: [u8; MAX_ENTRIES],
    /// Frequency of the symbol whose own bucket this is, times 2^(16 − P): low and high byte.
    pub(crate) freq: [[u8; MAX_ENTRIES]; 2],
    /// [`crate::alias::Bucket::adjust`], low and high byte.
    pub(crate) adjust: [[u8; MAX_ENTRIES]; 2],
    /// Distances of symbols' values from [`Registers::base`], at every index that ends in the symbol's bits; in 8-bit heads in their place.
    pub(crate) distances: [u8; 256],
    /// For every context: low byte of `t · B` of its table t.
    pub(crate) tables: [u8; 64],
    /// For every context: bit 8 of `t · B`, as the byte's highest.
    pub(crate) high_tables: [u8; 64],
    /// For every context: its shift of values, in 8-bit heads in its place.
    pub(crate) shifts: [u8; 64],
    /// −1 in every halfword.
    pub(crate) ones: [u16; 32],
    /// log2 W in every halfword.
    pub(crate) width_bits: [u16; 32],
    /// What all values but 0 have more than their distances.
    pub(crate) base: u16,
    /// Whether 0 is among the values: it is not shifted, and has distance 0 whatever the base.
    pub(crate) zero: bool,
    /// log2 B.
    pub(crate) bucket_bits: u32,
    /// Vectors of 64 entries: 2, 4, 6 or 8.
    pub(crate) vectors: usize,
}

impl Registers {
    /// The byte tables; `None` for sets of too many entries, or of values that lie further apart than a byte can tell.
    pub(crate) fn new(layout: HeadLayout, set: &TableSet, alias: &[AliasTable]) -> Option<Self> {
        let buckets = alias[0].buckets().len();
        let entries = set.tables().len() * buckets;
        let contexts = || (0..set.contexts()).map(|k| set.context(k));
        let shift = contexts().map(|c| c.shift).max().unwrap_or(0);
        let (values, zero) = (set.values(), set.values()[0] == 0);
        let largest = values[values.len() - 1] + shift;
        // Distance 0 is value 0's alone.
        let base = if layout.bits() == 8 || largest < 256 { 0 } else { values[usize::from(zero)] - u16::from(zero) };
        if entries > MAX_ENTRIES || largest - base > 255 {
            return None;
        }
        let place = if layout.bits() == 8 { layout.shift() } else { 0 };
        let mut it = Self {
            divide: [0; MAX_ENTRIES],
            alias: [0; MAX_ENTRIES],
            freq: [[0; MAX_ENTRIES]; 2],
            adjust: [[0; MAX_ENTRIES]; 2],
            distances: [0; 256],
            tables: [0; 64],
            high_tables: [0; 64],
            shifts: [0; 64],
            ones: [u16::MAX; 32],
            width_bits: [alias[0].width_bits() as u16; 32],
            base,
            zero,
            bucket_bits: buckets.ilog2(),
            vectors: 2 * entries.div_ceil(128),
        };
        for (number, (alias, table)) in alias.iter().zip(set.tables()).enumerate() {
            for (own, bucket) in alias.buckets().iter().enumerate() {
                let entry = number * buckets + own;
                it.divide[entry] = bucket.divide.min(255) as u8;
                it.alias[entry] = (number * buckets + usize::from(bucket.alias)) as u8;
                let freq = table.freqs().get(own).copied().unwrap_or(0) << (16 - set.table_bits());
                [it.freq[0][entry], it.freq[1][entry]] = freq.to_le_bytes();
                [it.adjust[0][entry], it.adjust[1][entry]] = bucket.adjust.to_le_bytes();
            }
        }
        let distance =
            |symbol: usize| values.get(symbol & (buckets - 1)).map_or(0, |v| v.saturating_sub(base) << place);
        it.distances.iter_mut().enumerate().for_each(|(i, d)| *d = distance(i) as u8);
        for (k, context) in contexts().enumerate() {
            let first = usize::from(context.table) * buckets;
            it.tables[k] = first as u8;
            it.high_tables[k] = if first & 256 == 0 { 0 } else { 0x80 };
            it.shifts[k] = (context.shift << place) as u8;
        }
        Some(it)
    }
}
