//! Adaptive binary arithmetic coding, for the few hundred numbers that describe a tensor: tables and class maps.
//!
//! Too slow for weights, but it needs no table of its own. The coder narrows a 32-bit interval bit by bit (as in M. Mahoney's fpaq0,
//! public domain); a bit's probability is learned with a rate that falls from 2/3 to 1/32 as it is seen more often.

use crate::error::{Result, truncated};

/// The estimate of one bit.
#[derive(Debug, Clone, Copy)]
pub struct BitModel {
    /// Probability of a one, 1/65536.
    one: u16,
    seen: u8,
}

impl Default for BitModel {
    fn default() -> Self {
        Self { one: 1 << 15, seen: 0 }
    }
}

impl BitModel {
    fn update(&mut self, bit: bool) {
        const RATE: [u16; 32] = {
            let mut rate = [0; 32];
            let mut n = 0;
            while n < 32 {
                rate[n] = (65536 * 2 / (2 * n + 3)) as u16;
                n += 1;
            }
            rate
        };
        let rate = i64::from(RATE[usize::from(self.seen)]);
        let target = if bit { 65535 - 32 } else { 32 };
        self.one = (i64::from(self.one) + (((target - i64::from(self.one)) * rate) >> 16)) as u16;
        self.seen = (self.seen + 1).min(31);
    }

    /// Splits an interval; the lower part is for a one.
    fn split(self, low: u32, high: u32) -> u32 {
        low + ((u64::from(high - low) * u64::from(self.one)) >> 16) as u32
    }
}

/// Encodes bits into bytes.
#[derive(Debug)]
pub struct Encoder {
    low: u32,
    high: u32,
    out: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { low: 0, high: u32::MAX, out: Vec::new() }
    }
}

impl Encoder {
    /// Encodes one bit and teaches its model.
    pub fn bit(&mut self, model: &mut BitModel, bit: bool) {
        let middle = model.split(self.low, self.high);
        if bit {
            self.high = middle
        } else {
            self.low = middle + 1
        }
        model.update(bit);
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push((self.low >> 24) as u8);
            self.low <<= 8;
            self.high = (self.high << 8) | 0xff;
        }
    }

    /// Encodes the low `bits` of `value`, highest first, at one bit each.
    pub fn raw(&mut self, value: u32, bits: u32) {
        for i in (0..bits).rev() {
            self.bit(&mut BitModel::default(), (value >> i) & 1 == 1);
        }
    }

    /// The bytes. A decoder reads up to four zeros behind the end.
    pub fn finish(mut self) -> Vec<u8> {
        // The shortest number in [low, high].
        for bytes in 0..=4u32 {
            let mask = u32::MAX.checked_shr(8 * bytes).unwrap_or(0);
            let value = self.low.wrapping_add(mask) & !mask;
            if (self.low..=self.high).contains(&value) && (bytes > 0 || self.low == 0) {
                self.out.extend((0..bytes).map(|i| (value >> (24 - 8 * i)) as u8));
                break;
            }
        }
        self.out
    }
}

/// Decodes bits that [`Encoder`] wrote.
#[derive(Debug)]
pub struct Decoder<'a> {
    low: u32,
    high: u32,
    value: u32,
    bytes: &'a [u8],
    read: usize,
}

impl<'a> Decoder<'a> {
    /// A decoder at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self { low: 0, high: u32::MAX, value: 0, bytes, read: 0 };
        for _ in 0..4 {
            decoder.value = (decoder.value << 8) | decoder.next_byte();
        }
        decoder
    }

    fn next_byte(&mut self) -> u32 {
        let byte = self.bytes.get(self.read).map_or(0, |&b| u32::from(b));
        self.read += 1;
        byte
    }

    /// Decodes one bit and teaches its model.
    pub fn bit(&mut self, model: &mut BitModel) -> bool {
        let middle = model.split(self.low, self.high);
        let bit = self.value <= middle;
        if bit {
            self.high = middle
        } else {
            self.low = middle + 1
        }
        model.update(bit);
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = (self.high << 8) | 0xff;
            self.value = (self.value << 8) | self.next_byte();
        }
        bit
    }

    /// Decodes `bits` bits written by [`Encoder::raw`].
    pub fn raw(&mut self, bits: u32) -> u32 {
        (0..bits).fold(0, |value, _| (value << 1) | u32::from(self.bit(&mut BitModel::default())))
    }

    /// Checks that what was decoded so far can have come from the bytes given.
    ///
    /// # Errors
    /// Truncated when the decoder looked further behind the end than an encoder lets it.
    pub fn check(&self) -> Result<()> {
        if self.read > self.bytes.len() + 4 { truncated("adaptive code", self.bytes.len()) } else { Ok(()) }
    }
}

/// Models for unsigned numbers: the bit length through a tree chosen by one of `CONTEXTS` contexts, then the two bits below the leading one, the rest as
/// it is.
#[derive(Debug)]
pub struct NumberModel<const CONTEXTS: usize> {
    length: [[BitModel; 32]; CONTEXTS],
    upper: [[BitModel; 4]; 33],
}

impl<const CONTEXTS: usize> Default for NumberModel<CONTEXTS> {
    fn default() -> Self {
        Self { length: [[BitModel::default(); 32]; CONTEXTS], upper: [[BitModel::default(); 4]; 33] }
    }
}

impl<const CONTEXTS: usize> NumberModel<CONTEXTS> {
    /// Encodes `value` (below 2^31) in context `context`.
    pub fn encode(&mut self, coder: &mut Encoder, context: usize, value: u32) {
        let length = 32 - value.leading_zeros();
        let mut node = 1;
        for i in (0..5).rev() {
            let bit = (length >> i) & 1;
            coder.bit(&mut self.length[context][node as usize], bit == 1);
            node = node * 2 + bit;
        }
        let below = length.saturating_sub(1);
        let mut node = 1;
        for i in (0..below).rev() {
            let bit = (value >> i) & 1;
            if below - i <= 2 {
                coder.bit(&mut self.upper[length as usize][node as usize], bit == 1);
                node = node * 2 + bit;
            } else {
                coder.raw(bit, 1);
            }
        }
    }

    /// Decodes a number.
    pub fn decode(&mut self, coder: &mut Decoder<'_>, context: usize) -> u32 {
        let mut node = 1u32;
        for _ in 0..5 {
            node = node * 2 + u32::from(coder.bit(&mut self.length[context][node as usize]));
        }
        let length = node - 32;
        if length == 0 {
            return 0;
        }
        let (below, mut value, mut node) = (length - 1, 1u32, 1u32);
        for i in (0..below).rev() {
            let bit = if below - i <= 2 {
                let bit = u32::from(coder.bit(&mut self.upper[length as usize][node as usize]));
                node = node * 2 + bit;
                bit
            } else {
                coder.raw(1)
            };
            value = (value << 1) | bit;
        }
        value
    }
}

/// Models for bytes: one tree.
struct ByteModel([BitModel; 256]);

impl ByteModel {
    fn new() -> Self {
        Self([BitModel::default(); 256])
    }

    fn encode(&mut self, coder: &mut Encoder, byte: u8) {
        let mut node = 1usize;
        for i in (0..8).rev() {
            let bit = (byte >> i) & 1 == 1;
            coder.bit(&mut self.0[node], bit);
            node = node * 2 + usize::from(bit);
        }
    }

    fn decode(&mut self, coder: &mut Decoder<'_>) -> u8 {
        (0..8).fold(1usize, |node, _| node * 2 + usize::from(coder.bit(&mut self.0[node]))) as u8
    }
}

/// Encodes bytes.
pub fn encode_bytes(data: &[u8]) -> Vec<u8> {
    let (mut coder, mut model) = (Encoder::default(), ByteModel::new());
    data.iter().for_each(|&b| model.encode(&mut coder, b));
    coder.finish()
}

/// Decodes `len` bytes of [`encode_bytes`].
///
/// # Errors
/// Truncated when the bytes cannot hold that many.
pub fn decode_bytes(bytes: &[u8], len: usize) -> Result<Vec<u8>> {
    let (mut coder, mut model) = (Decoder::new(bytes), ByteModel::new());
    let mut out = Vec::with_capacity(len.min(1 << 16));
    for _ in 0..len {
        out.push(model.decode(&mut coder));
        coder.check()?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_and_numbers_come_back(
            data in prop::collection::vec(prop_oneof![6 => 0u8..4, 1 => any::<u8>()], 0..600),
            numbers in prop::collection::vec((0usize..5, 0u32..1 << 31), 0..200),
        ) {
            let packed = encode_bytes(&data);
            prop_assert_eq!(decode_bytes(&packed, data.len()).unwrap(), data.clone());
            let (mut coder, mut model) = (Encoder::default(), NumberModel::<5>::default());
            for &(c, n) in &numbers { model.encode(&mut coder, c, n >> (n % 29)); coder.raw(n, 3); }
            let bytes = coder.finish();
            let (mut coder, mut model) = (Decoder::new(&bytes), NumberModel::<5>::default());
            for &(c, n) in &numbers {
                prop_assert_eq!(model.decode(&mut coder, c), n >> (n % 29));
                prop_assert_eq!(coder.raw(3), n & 7);
                prop_assert!(coder.check().is_ok());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), len in 0usize..2000) {
            let _ = decode_bytes(&bytes, len);
        }
    }

    #[test]
    fn a_constant_costs_little() {
        assert!(encode_bytes(&[7; 1000]).len() < 30);
    }
}
