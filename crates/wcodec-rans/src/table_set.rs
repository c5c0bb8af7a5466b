//! Table sets: the frequency tables of all contexts over one alphabet, and their serialised form.

use crate::adaptive::{self, NumberModel};
use crate::bits::{BitReader, BitWriter};
use crate::error::{RansError, Result, corrupt, truncated};
use crate::freq::{FrequencyTable, MAX_ENTRIES, MAX_SYMBOLS, MAX_TABLE_BITS, MIN_TABLE_BITS};
use crate::plain;

/// Which table a context codes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Context {
    /// Number of the table.
    pub table: u8,
    /// What a value of this context has more than its symbol's. Value 0 is not shifted.
    pub shift: u16,
}

/// The tables of K contexts over one alphabet of field values.
///
/// Either every context has a table of its own, or contexts are *mapped*: several share a table, and their values differ by a
/// shift. A weight times two has an exponent greater by one and the same mantissa, so contexts whole octaves apart can share.
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
    contexts: Vec<Context>,
}

impl Context {
    /// The value in this context of a symbol that has `value` in the alphabet.
    #[inline]
    pub fn value(self, value: u16) -> u16 {
        if value == 0 { 0 } else { value + self.shift }
    }

    /// The reverse of [`Context::value`], if there is one.
    #[inline]
    pub fn unshifted(self, value: u16) -> Option<u16> {
        match value.checked_sub(self.shift) {
            _ if value == 0 => Some(0),
            Some(0) | None => None,
            some => some,
        }
    }
}

impl TableSet {
    /// Wraps an alphabet and its tables, one for each context.
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when there are not 1 to 16 tables of together 2^15 entries at most, they differ in P or in alphabet, values are not
    /// strictly ascending, or a value does not fit 32 − 2P bits (what one 32-bit table entry leaves for it).
    pub fn new(values: Vec<u16>, tables: Vec<FrequencyTable>) -> Result<Self> {
        let contexts = (0..tables.len()).map(|k| Context { table: k as u8, shift: 0 }).collect();
        Self::with_contexts(values, tables, contexts)
    }

    /// Wraps an alphabet, its tables, and which of them each context codes with.
    ///
    /// # Errors
    /// As [`TableSet::new`], for shifted values too; also when there are not 1 to 16 contexts of together 2^15 entries at most, or one has no table.
    pub fn with_contexts(values: Vec<u16>, tables: Vec<FrequencyTable>, contexts: Vec<Context>) -> Result<Self> {
        if !(1..=crate::MAX_CONTEXTS).contains(&tables.len()) || !(1..=crate::MAX_CONTEXTS).contains(&contexts.len()) {
            return Err(RansError::BadArgument("a table set has 1 to 16 contexts and tables"));
        }
        if contexts.iter().any(|c| usize::from(c.table) >= tables.len()) {
            return Err(RansError::BadArgument("a context of a table that is not there"));
        }
        let p = tables[0].table_bits();
        if tables.len().max(contexts.len()) << p > MAX_ENTRIES {
            return Err(RansError::BadArgument("K·2^P exceeds 2^15 entries"));
        }
        if tables.iter().any(|t| t.table_bits() != p || t.freqs().len() != values.len()) {
            return Err(RansError::BadArgument("tables of a set share P and alphabet"));
        }
        if values.windows(2).any(|w| w[0] >= w[1]) {
            return Err(RansError::BadArgument("alphabet values must ascend"));
        }
        let shift = contexts.iter().map(|c| u32::from(c.shift)).max().unwrap_or(0);
        if values.last().is_some_and(|&v| (u32::from(v) + shift) >> max_value_bits(p) != 0) {
            return Err(RansError::BadArgument("a field value must fit 32 - 2P bits"));
        }
        Ok(Self { values, tables, contexts })
    }

    /// As [`TableSet::from_counts`], with mapped contexts: a table is made of the counts of all contexts that have it, each shifted
    /// back. A value below its context's shift has no symbol, unless it is 0; nor has the value that equals the shift, since symbol 0's is 0.
    ///
    /// # Errors
    /// As [`TableSet::from_counts`] and [`TableSet::with_contexts`]; also when there are not as many contexts as `counts`.
    pub fn pooled(table_bits: u32, counts: &[Vec<u64>], contexts: Vec<Context>) -> Result<Self> {
        if counts.len() != contexts.len() {
            return Err(RansError::BadArgument("counts must match the contexts"));
        }
        let tables = contexts.iter().map(|c| usize::from(c.table) + 1).max().unwrap_or(0);
        let width = counts.iter().map(Vec::len).max().unwrap_or(0);
        let mut pools = vec![vec![0u64; width]; tables.min(crate::MAX_CONTEXTS)];
        for (counts, context) in counts.iter().zip(&contexts) {
            let Some(pool) = pools.get_mut(usize::from(context.table)) else { continue };
            for (value, &n) in counts.iter().enumerate() {
                if let Some(own) = context.unshifted(value as u16) {
                    pool[usize::from(own)] += n;
                }
            }
        }
        let Self { values, tables, .. } = Self::from_counts(table_bits, &pools)?;
        Self::with_contexts(values, tables, contexts)
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
        self.tables[0].table_bits()
    }

    /// Number of contexts K, 1 to 16.
    pub fn contexts(&self) -> usize {
        self.contexts.len()
    }

    /// Which table context `k` codes with.
    ///
    /// # Panics
    /// When there is no such context.
    pub fn context(&self, k: usize) -> Context {
        self.contexts[k]
    }

    /// Of every context, its table and what it is.
    pub fn context_tables(&self) -> impl Iterator<Item = (&FrequencyTable, Context)> {
        self.contexts.iter().map(|&c| (&self.tables[usize::from(c.table)], c))
    }

    /// Whether contexts are mapped: not each has the table of its number and no shift.
    pub fn is_mapped(&self) -> bool {
        let own = |(k, c): (usize, &Context)| usize::from(c.table) == k && c.shift == 0;
        self.contexts.len() != self.tables.len() || !self.contexts.iter().enumerate().all(own)
    }

    /// Number of symbols S, 2 to 256.
    pub fn symbols(&self) -> usize {
        self.values.len()
    }

    /// Field values of the alphabet, ascending; a context's values are these, [shifted](Context::value).
    pub fn values(&self) -> &[u16] {
        &self.values
    }

    /// The tables, over the alphabet of [`TableSet::values`].
    pub fn tables(&self) -> &[FrequencyTable] {
        &self.tables
    }

    /// Serialised form: see `docs/format.md`, "Table set". The bit length of a frequency is told as its difference from that of
    /// the one in the same place of the table before, the bits below the leading one as they are.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bits = BitWriter::new();
        bits.write(self.table_bits() - MIN_TABLE_BITS, 3);
        bits.write(self.tables.len() as u32 - 1, 4);
        bits.write(self.values.len() as u32 - 1, 8);
        bits.write(u32::from(self.is_mapped()), 1);
        if self.is_mapped() {
            bits.write(self.contexts.len() as u32 - 1, 4);
            for context in &self.contexts {
                bits.write(u32::from(context.table), 4);
                bits.write(u32::from(context.shift), 16);
            }
        }
        let mut next = 0;
        for &v in &self.values {
            let gap = u32::from(v) - next;
            bits.write(u32::from(gap > 0), 1);
            if gap > 0 {
                bits.write(gap, 16);
            }
            next = u32::from(v) + 1;
        }
        let mut lengths = Vec::with_capacity(self.tables.len() * self.values.len());
        let mut above = vec![0u8; self.values.len()];
        for table in &self.tables {
            for (above, &f) in above.iter_mut().zip(table.freqs()) {
                let length = bit_length(f);
                lengths.push(length.wrapping_sub(*above) & 15);
                *above = length;
                if length > 1 {
                    bits.write(u32::from(f), u32::from(length) - 1);
                }
            }
        }
        let lengths = plain::compress(&lengths);
        let mut out = (lengths.len() as u16).to_le_bytes().to_vec();
        out.extend(lengths);
        out.extend(bits.finish());
        out
    }

    /// Reads a set that takes all of `bytes`.
    ///
    /// # Errors
    /// Truncated or corrupt bytes: a sum that is not 2^P, an alphabet that does not ascend or does not fit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let Some((size, rest)) = bytes.split_at_checked(2) else { return truncated("table set", bytes.len()) };
        let size = usize::from(u16::from_le_bytes([size[0], size[1]]));
        let Some((lengths, rest)) = rest.split_at_checked(size) else { return truncated("table set", bytes.len()) };
        let mut bits = BitReader::new(rest);
        let (table_bits, count, symbols) = Self::read_header(&mut |n| bits.read(n))?;
        let mut contexts: Vec<Context> = (0..count).map(|k| Context { table: k as u8, shift: 0 }).collect();
        if bits.read(1)? == 1 {
            contexts.resize(bits.read(4)? as usize + 1, Context::default());
            for context in &mut contexts {
                *context = Context { table: bits.read(4)? as u8, shift: bits.read(16)? as u16 };
            }
        }
        let mut values = Vec::with_capacity(symbols);
        let mut next = 0u32;
        for _ in 0..symbols {
            let gap = if bits.read(1)? == 1 { bits.read(16)? } else { 0 };
            let v = next + gap;
            if v >> max_value_bits(table_bits) != 0 {
                return corrupt("table set: value does not fit", 2 + size + bits.bytes_read());
            }
            values.push(v as u16);
            next = v + 1;
        }
        let lengths = plain::decompress(lengths, count * symbols)?;
        let mut above = vec![0u8; symbols];
        let mut tables = Vec::with_capacity(count);
        for row in lengths.chunks_exact(symbols) {
            let mut freqs = Vec::with_capacity(symbols);
            for (above, &told) in above.iter_mut().zip(row) {
                let length = above.wrapping_add(told) & 15;
                *above = length;
                freqs.push(match length {
                    0 => 0,
                    n => (1 << (n - 1)) | bits.read(u32::from(n) - 1)? as u16,
                });
            }
            match FrequencyTable::new(table_bits, freqs) {
                Ok(table) => tables.push(table),
                Err(_) => return corrupt("table set: frequencies", 2 + size + bits.bytes_read()),
            }
        }
        if bits.bytes_read() != rest.len() {
            return corrupt("table set: too long", 2 + size + bits.bytes_read());
        }
        Self::with_contexts(values, tables, contexts).or_else(|_| corrupt("table set", 2))
    }

    /// P, tables and symbols.
    fn read_header(read: &mut impl FnMut(u32) -> Result<u32>) -> Result<(u32, usize, usize)> {
        let table_bits = read(3)? + MIN_TABLE_BITS;
        let tables = read(4)? as usize + 1;
        let symbols = read(8)? as usize + 1;
        if table_bits > MAX_TABLE_BITS || tables << table_bits > MAX_ENTRIES || symbols < 2 {
            return corrupt("table set: precision, tables or symbols", 0);
        }
        Ok((table_bits, tables, symbols))
    }
}

fn bit_length(f: u16) -> u8 {
    16 - f.leading_zeros() as u8
}

// One table in the adaptive code: the form of `plain`, whose tables are small and stand alone.
impl TableSet {
    pub(crate) fn to_adaptive(&self) -> Vec<u8> {
        let mut coder = adaptive::Encoder::default();
        coder.raw(self.table_bits() - MIN_TABLE_BITS, 3);
        coder.raw(self.values.len() as u32 - 1, 8);
        let (mut gaps, mut numbers) = (NumberModel::<1>::default(), NumberModel::<FREQ_CONTEXTS>::default());
        let mut next = 0;
        for &v in &self.values {
            gaps.encode(&mut coder, 0, u32::from(v) - next);
            next = u32::from(v) + 1;
        }
        let mut before = 0;
        // What the others leave is the last frequency.
        for &f in &self.tables[0].freqs()[..self.values.len() - 1] {
            numbers.encode(&mut coder, freq_context(before), u32::from(f));
            before = f;
        }
        coder.finish()
    }

    pub(crate) fn from_adaptive(bytes: &[u8]) -> Result<Self> {
        let (values, table) = read_adaptive(bytes)?;
        Self::new(values, vec![table]).or_else(|_| corrupt("table", 2))
    }
}

/// Values and frequencies of one table of bytes.
pub(crate) fn read_adaptive(bytes: &[u8]) -> Result<(Vec<u16>, FrequencyTable)> {
    let mut coder = adaptive::Decoder::new(bytes);
    let table_bits = coder.raw(3) + MIN_TABLE_BITS;
    let symbols = coder.raw(8) as usize + 1;
    if table_bits > MAX_TABLE_BITS || symbols < 2 {
        return corrupt("table: precision or symbols", 0);
    }
    let (mut gaps, mut numbers) = (NumberModel::<1>::default(), NumberModel::<FREQ_CONTEXTS>::default());
    let mut values = Vec::with_capacity(symbols);
    let mut next = 0u32;
    for _ in 0..symbols {
        let v = next.saturating_add(gaps.decode(&mut coder, 0));
        if v > 255 {
            return corrupt("table: value is no byte", 1);
        }
        values.push(v as u16);
        next = v + 1;
    }
    let (mut freqs, mut left, mut before) = (Vec::with_capacity(symbols), 1u32 << table_bits, 0);
    for _ in 0..symbols - 1 {
        let f = numbers.decode(&mut coder, freq_context(before));
        let Some(rest) = left.checked_sub(f) else { return corrupt("table: frequencies exceed 2^P", 2) };
        left = rest;
        before = f as u16;
        freqs.push(before);
    }
    freqs.push(left as u16);
    coder.check()?;
    let table = FrequencyTable::new(table_bits, freqs).or_else(|_| corrupt("table: frequencies", 2))?;
    Ok((values, table))
}

/// Contexts of a frequency in the adaptive form: the bit length of the one before, in steps of 3.
const FREQ_CONTEXTS: usize = 5;

fn freq_context(before: u16) -> usize {
    usize::from(bit_length(before)).div_ceil(3).min(FREQ_CONTEXTS - 1)
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
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = TableSet::from_bytes(&bytes);
        }
    }

    /// The example of `docs/format.md`.
    #[test]
    fn documented_table_set() {
        let set = TableSet::new(vec![65, 66], vec![FrequencyTable::new(8, vec![192, 64]).unwrap()]).unwrap();
        let bytes = [3, 0, 0, 8, 7, 0x80, 0x00, 0x83, 0, 0, 1];
        assert_eq!(set.to_bytes(), bytes);
        assert_eq!(TableSet::from_bytes(&bytes).unwrap(), set);
    }
}
