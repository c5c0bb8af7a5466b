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
/// Most symbols whose values are looked up as 16-bit words; above, they are told as distances of one byte from the first.
const WORD_VALUES: usize = 64;
/// Sums of classes that contexts are given for: −8 to 23, modulo 32.
pub(crate) const SUMS: std::ops::RangeInclusive<i32> = -8..=23;

/// See the [module](self).
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(crate) struct Registers {
    /// Slots of a bucket's own symbol, at most 255: full buckets of 256 have their own symbol as alias, too.
    pub(crate) divide: [u8; MAX_ENTRIES],
    /// Low byte of the alias's entry.
    pub(crate) alias: [u8; MAX_ENTRIES],
    /// Frequency of the symbol whose own bucket this is, low and high byte.
    pub(crate) freq: [[u8; MAX_ENTRIES]; 2],
    /// [`crate::alias::Bucket::adjust`], low and high byte.
    pub(crate) adjust: [[u8; MAX_ENTRIES]; 2],
    /// Where symbols have [word values](Self::wide): symbols' values in their place in a head, at every index that ends in the symbol's bits.
    pub(crate) values: [u16; WORD_VALUES],
    /// Where not: their distances from the first, likewise.
    pub(crate) distances: [u8; 256],
    /// For every sum of classes, that is, every context: low byte of `t · B` of its table t, in both bytes.
    pub(crate) tables: [u16; 32],
    /// Bit 8 of `t · B` in both bytes' highest bits.
    pub(crate) high_tables: [u16; 32],
    /// The context's shift of values, in its place in a head.
    pub(crate) shifts: [u16; 32],
    /// The alphabet's first value.
    pub(crate) first: u16,
    /// log2 B.
    pub(crate) bucket_bits: u32,
    /// Vectors of 64 entries: 2, 4, 6 or 8.
    pub(crate) vectors: usize,
    /// More than 64 symbols.
    pub(crate) wide: bool,
}

impl Registers {
    /// The byte tables; `None` for sets of too many entries, or of many values far apart.
    pub(crate) fn new(layout: HeadLayout, set: &TableSet, alias: &[AliasTable]) -> Option<Self> {
        let buckets = alias[0].buckets().len();
        let entries = set.tables().len() * buckets;
        let (first, last) = (set.values()[0], set.values()[set.values().len() - 1]);
        let wide = buckets > WORD_VALUES;
        if entries > MAX_ENTRIES || (wide && last - first > 255) {
            return None;
        }
        let mut it = Self {
            divide: [0; MAX_ENTRIES],
            alias: [0; MAX_ENTRIES],
            freq: [[0; MAX_ENTRIES]; 2],
            adjust: [[0; MAX_ENTRIES]; 2],
            values: [0; WORD_VALUES],
            distances: [0; 256],
            tables: [0; 32],
            high_tables: [0; 32],
            shifts: [0; 32],
            first,
            bucket_bits: buckets.ilog2(),
            vectors: match entries {
                ..=128 if !wide => 2,
                ..=256 => 4,
                ..=384 if !wide => 6,
                _ => 8,
            },
            wide,
        };
        for (number, (alias, table)) in alias.iter().zip(set.tables()).enumerate() {
            for (own, bucket) in alias.buckets().iter().enumerate() {
                let entry = number * buckets + own;
                it.divide[entry] = bucket.divide.min(255) as u8;
                it.alias[entry] = (number * buckets + usize::from(bucket.alias)) as u8;
                let freq = table.freqs().get(own).copied().unwrap_or(0);
                [it.freq[0][entry], it.freq[1][entry]] = freq.to_le_bytes();
                [it.adjust[0][entry], it.adjust[1][entry]] = bucket.adjust.to_le_bytes();
            }
        }
        let value = |symbol: usize| set.values().get(symbol & (buckets - 1)).copied().unwrap_or(first);
        if wide {
            it.distances.iter_mut().enumerate().for_each(|(i, d)| *d = (value(i) - first) as u8);
        } else {
            it.values.iter_mut().enumerate().for_each(|(i, v)| *v = value(i) << layout.shift());
        }
        for sum in SUMS {
            let context = set.context(sum.clamp(0, set.contexts() as i32 - 1) as usize);
            let (at, base) = ((sum & 31) as usize, usize::from(context.table) * buckets);
            it.tables[at] = (base & 255) as u16 * 0x101;
            it.high_tables[at] = if base & 256 == 0 { 0 } else { 0x8080 };
            it.shifts[at] = context.shift << layout.shift();
        }
        Some(it)
    }
}
