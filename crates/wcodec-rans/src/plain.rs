//! The coder at its simplest: one state, one table, bytes. For short data, where 64 lanes would cost more than they save.
//!
//! State x ∈ [2^16, 2^32), words of 16 bits (J. Duda, "Asymmetric numeral systems", arXiv:1311.2540, §2; the streaming
//! form with x ≥ L after every step). Symbols are encoded last to first, so that the decoder runs forwards.

use crate::adaptive;
use crate::chains::{self, Chain};
use crate::error::{Result, corrupt, truncated};
use crate::freq::FrequencyTable;
use crate::table_set::{self, TableSet};
use crate::{RansError, STATE_LOW};

/// One encoding step: pushes at most one word, returns the new state.
#[inline]
pub(crate) fn encode_step(mut x: u32, freq: u32, start: u32, table_bits: u32, words: &mut Vec<u16>) -> u32 {
    if u64::from(x) >= u64::from(freq) << (32 - table_bits) {
        words.push(x as u16);
        x >>= 16;
    }
    ((x / freq) << table_bits) + (x % freq) + start
}

/// Encodes symbol indices with one table: the final state (4 bytes) and then the words, in decoding order.
///
/// # Errors
/// [`RansError::BadArgument`] when a symbol is outside the alphabet or has no slot.
pub fn encode(symbols: &[u8], table: &FrequencyTable) -> Result<Vec<u8>> {
    let starts = table.starts();
    let mut words = Vec::with_capacity(symbols.len() / 2);
    let mut x = STATE_LOW;
    for &s in symbols.iter().rev() {
        let freq = table.freqs().get(usize::from(s)).copied().unwrap_or(0);
        if freq == 0 {
            return Err(RansError::BadArgument("symbol without a slot"));
        }
        x = encode_step(x, u32::from(freq), u32::from(starts[usize::from(s)]), table.table_bits(), &mut words);
    }
    let mut out = Vec::with_capacity(4 + 2 * words.len());
    out.extend_from_slice(&x.to_le_bytes());
    out.extend(words.iter().rev().flat_map(|w| w.to_le_bytes()));
    Ok(out)
}

/// Decodes `count` symbol indices from bytes of [`encode`], all of which must be consumed.
///
/// # Errors
/// Truncated when words are missing; corrupt when some are left or the last state is not the encoder's first.
pub fn decode(bytes: &[u8], count: usize, table: &FrequencyTable) -> Result<Vec<u8>> {
    Chain::new(bytes, count, table, |symbol| symbol as u8)?.finish()
}

/// Most bytes that the adaptive form of [`compress`] is tried on: it costs tens of nanoseconds a byte.
const ADAPTIVE_BYTES: usize = 256;
/// Bytes of data that have to save one byte, for the adaptive form to be worth its time.
const ADAPTIVE_GAIN: usize = 8;

const STORED: u8 = 0;
const CODED: u8 = 1;
const ADAPTIVE: u8 = 2;

/// Compresses bytes in the form that is smallest: stored, with a table of their own, or, up to 256 bytes, adaptively where that saves much. A flag byte says
/// which. Never more than one byte longer than the input.
pub fn compress(data: &[u8]) -> Vec<u8> {
    let mut best = vec![STORED];
    best.extend_from_slice(data);
    if data.is_empty() {
        return best;
    }
    let mut consider = |flag: u8, body: Vec<u8>, least: usize| {
        if body.len() + 1 + least < best.len() {
            best.clear();
            best.push(flag);
            best.extend(body);
        }
    };
    if let Some(coded) = try_compress(data) {
        consider(CODED, coded, 0);
    }
    if data.len() <= ADAPTIVE_BYTES {
        consider(ADAPTIVE, adaptive::encode_bytes(data), data.len() / ADAPTIVE_GAIN);
    }
    best
}

fn try_compress(data: &[u8]) -> Option<Vec<u8>> {
    let mut counts = vec![0u64; 256];
    for &b in data {
        counts[usize::from(b)] += 1;
    }
    // A table of one bit more takes about a bit more for every symbol.
    let used = counts.iter().filter(|&&n| n > 0).count() as f64;
    let set = (crate::freq::MIN_TABLE_BITS..=crate::freq::MAX_TABLE_BITS)
        .filter_map(|p| {
            let set = TableSet::from_counts(p, std::slice::from_ref(&counts)).ok()?;
            let dense: Vec<u64> = set.values().iter().map(|&v| counts[usize::from(v)]).collect();
            Some((set.tables()[0].cost(&dense) + used * f64::from(p), set))
        })
        .min_by(|a, b| a.0.total_cmp(&b.0))?
        .1;
    let mut index = [0u8; 256];
    for (i, &v) in set.values().iter().enumerate() {
        index[usize::from(v)] = i as u8;
    }
    let symbols: Vec<u8> = data.iter().map(|&b| index[usize::from(b)]).collect();
    let tables = set.to_adaptive();
    let mut out = (tables.len() as u16).to_le_bytes().to_vec();
    out.extend(tables);
    out.extend(encode(&symbols, &set.tables()[0]).ok()?);
    Some(out)
}

/// Restores `len` bytes from [`compress`].
///
/// # Errors
/// Truncated or corrupt bytes, or data of another length.
pub fn decompress(bytes: &[u8], len: usize) -> Result<Vec<u8>> {
    Opened::new(bytes, len)?.finish()
}

/// Restores several data, each from its bytes and its length, in less time than one after the other.
///
/// # Errors
/// As [`decompress`], of the first that has one.
pub fn decompress_all(parts: &[(&[u8], usize)]) -> Result<Vec<Vec<u8>>> {
    let mut fault = None;
    let open = |&(bytes, len): &(_, _)| Opened::new(bytes, len).map_err(|error| fault = Some(error)).ok();
    let mut opened: Vec<Opened<'_>> = parts.iter().map_while(open).collect();
    chains::advance(opened.iter_mut().filter_map(Opened::chain));
    let decoded = opened.into_iter().map(Opened::finish).collect::<Result<_>>()?;
    fault.map_or(Ok(decoded), Err)
}

/// Bytes of [`compress`] by their form.
enum Packed<'a> {
    Stored(&'a [u8]),
    Coded { table: &'a [u8], stream: &'a [u8] },
    Adaptive(&'a [u8]),
}

fn split(bytes: &[u8], len: usize) -> Result<Packed<'_>> {
    match bytes.split_first() {
        Some((&STORED, stored)) if stored.len() == len => Ok(Packed::Stored(stored)),
        Some((&STORED, _)) => corrupt("plain data: length", 1),
        Some((&CODED, coded)) => {
            let Some((size, coded)) = coded.split_at_checked(2) else { return truncated("plain data", 1) };
            let size = usize::from(u16::from_le_bytes([size[0], size[1]]));
            let Some((table, stream)) = coded.split_at_checked(size) else { return truncated("plain data", 3) };
            Ok(Packed::Coded { table, stream })
        }
        Some((&ADAPTIVE, _)) if len > ADAPTIVE_BYTES => corrupt("plain data: too long for its form", 0),
        Some((&ADAPTIVE, coded)) => Ok(Packed::Adaptive(coded)),
        Some(_) => corrupt("plain data: flag", 0),
        None => truncated("plain data", 0),
    }
}

/// Data that is decoded, or about to be.
enum Opened<'a> {
    Decoded(Vec<u8>),
    Chain(Chain<'a>),
}

impl<'a> Opened<'a> {
    fn new(bytes: &'a [u8], len: usize) -> Result<Self> {
        Ok(match split(bytes, len)? {
            Packed::Stored(stored) => Self::Decoded(stored.to_vec()),
            Packed::Adaptive(coded) => Self::Decoded(adaptive::decode_bytes(coded, len)?),
            Packed::Coded { table, stream } => {
                let (values, table) = table_set::read_adaptive(table)?;
                Self::Chain(Chain::new(stream, len, &table, |symbol| values[symbol] as u8)?)
            }
        })
    }

    fn chain(&mut self) -> Option<&mut Chain<'a>> {
        if let Self::Chain(chain) = self { Some(chain) } else { None }
    }

    fn finish(self) -> Result<Vec<u8>> {
        match self {
            Self::Decoded(bytes) => Ok(bytes),
            Self::Chain(chain) => chain.finish(),
        }
    }
}

/// The form of bytes from [`compress`], taken apart.
#[derive(Debug, Clone)]
pub enum Form<'a> {
    /// The bytes themselves.
    Stored(&'a [u8]),
    /// State and words of a single-state coder.
    Coded {
        /// One table of bytes.
        tables: TableSet,
        /// What [`decode`] takes.
        stream: &'a [u8],
    },
    /// The bytes, which were in the adaptive code: at most 256.
    Decoded(Vec<u8>),
}

/// Takes apart what [`compress`] made of `len` bytes: for decoders of their own. Everything is checked but the stream.
///
/// # Errors
/// As [`decompress`].
pub fn parse(bytes: &[u8], len: usize) -> Result<Form<'_>> {
    Ok(match split(bytes, len)? {
        Packed::Stored(stored) => Form::Stored(stored),
        Packed::Adaptive(coded) => Form::Decoded(adaptive::decode_bytes(coded, len)?),
        Packed::Coded { table, stream } => Form::Coded { tables: TableSet::from_adaptive(table)?, stream },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_back(data in prop::collection::vec(prop_oneof![4 => 0u8..4, 1 => any::<u8>()], 0..2000)) {
            let packed = compress(&data);
            prop_assert!(packed.len() <= data.len() + 1);
            prop_assert_eq!(decompress(&packed, data.len()).unwrap(), data.clone());
            for cut in 0..packed.len().min(40) {
                let _ = decompress(&packed[..cut], data.len());
            }
        }

        /// Together as one by one, damaged or not.
        #[test]
        fn streams_decode_together(
            data in prop::collection::vec(prop::collection::vec(prop_oneof![6 => 0u8..4, 1 => any::<u8>()], 0..900), 0..9),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u8..), 0..3),
        ) {
            let mut packed: Vec<Vec<u8>> = data.iter().map(|data| compress(data)).collect();
            for (part, at, change) in damage.iter().filter(|_| !data.is_empty()) {
                let part = part.get_mut(&mut packed);
                *at.get_mut(part) ^= change;
            }
            let parts: Vec<_> = packed.iter().zip(&data).map(|(packed, data)| (packed.as_slice(), data.len())).collect();
            let one_by_one: Result<Vec<_>> = parts.iter().map(|&(packed, len)| decompress(packed, len)).collect();
            prop_assert_eq!(decompress_all(&parts), one_by_one);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), len in 0usize..5000) {
            let _ = decompress(&bytes, len);
        }
    }
}
