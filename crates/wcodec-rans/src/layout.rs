//! How the bits of an element's head are divided between the entropy coder and the raw field.

use crate::error::{RansError, Result};

/// The split of one *head*: the 8 or 16 bits of an element that hold its coded field.
///
/// ```text
///   15   14 ................ shift   shift-1 ........ 0
///   sign |      coded field        |     low raw bits      (16-bit head with `sign`)
///        |      coded field        |     low raw bits      (head without `sign`: the field reaches the top bit)
/// ```
///
/// The coded field goes through the rANS lanes; sign and low bits together are the *raw code*
/// `low << 1 | sign` (or `low` without sign), stored as it is.
///
/// ```
/// use wcodec_rans::HeadLayout;
/// // BF16: 8 exponent bits and one mantissa bit are coded, the sign and 6 mantissa bits are raw.
/// let bf16 = HeadLayout::new(16, 6, true)?;
/// assert_eq!((bf16.coded_bits(), bf16.raw_bits()), (9, 7));
/// assert_eq!(bf16.join(bf16.coded(0xbf80), bf16.raw(0xbf80)), 0xbf80);
/// # Ok::<(), wcodec_rans::RansError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeadLayout {
    bits: u8,
    shift: u8,
    sign: bool,
}

impl HeadLayout {
    /// A head of `bits` (8 or 16) whose coded field starts at bit `shift` and ends below the sign bit
    /// (`sign`) or at the top.
    ///
    /// # Errors
    /// [`RansError::BadArgument`] when `bits` is neither 8 nor 16, or the coded field would have fewer than 1 or more
    /// than 12 bits.
    pub fn new(bits: u8, shift: u8, sign: bool) -> Result<Self> {
        if bits != 8 && bits != 16 {
            return Err(RansError::BadArgument("a head has 8 or 16 bits"));
        }
        let taken = u32::from(shift) + u32::from(sign);
        let coded = u32::from(bits).saturating_sub(taken);
        if !(1..=12).contains(&coded) {
            return Err(RansError::BadArgument("a coded field has 1 to 12 bits"));
        }
        Ok(Self { bits, shift, sign })
    }

    /// Bits of the head, 8 or 16.
    pub fn bits(self) -> u32 {
        u32::from(self.bits)
    }

    /// Bytes of the head, 1 or 2.
    pub fn bytes(self) -> usize {
        usize::from(self.bits / 8)
    }

    /// Lowest bit of the coded field.
    pub fn shift(self) -> u32 {
        u32::from(self.shift)
    }

    /// Whether the top bit of the head is a raw sign bit.
    pub fn sign(self) -> bool {
        self.sign
    }

    /// Width of the coded field in bits, 1 to 12.
    pub fn coded_bits(self) -> u32 {
        self.bits() - self.raw_bits()
    }

    /// Width of the raw code in bits, 0 to 15.
    pub fn raw_bits(self) -> u32 {
        u32::from(self.shift) + u32::from(self.sign)
    }

    /// The coded field of a head.
    #[inline]
    pub fn coded(self, head: u16) -> u16 {
        (head >> self.shift) & ((1u32 << self.coded_bits()) - 1) as u16
    }

    /// The raw code of a head.
    #[inline]
    pub fn raw(self, head: u16) -> u16 {
        let low = head & ((1u32 << self.shift) - 1) as u16;
        if self.sign { (low << 1) | (head >> (self.bits - 1)) } else { low }
    }

    /// The head with this coded field and raw code. Bits outside both fields are ignored.
    #[inline]
    pub fn join(self, coded: u16, raw: u16) -> u16 {
        if self.sign {
            let low = (raw >> 1) & ((1u32 << self.shift) - 1) as u16;
            (coded << self.shift) | low | ((raw & 1) << (self.bits - 1))
        } else {
            (coded << self.shift) | raw
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_survives_every_layout() {
        for bits in [8u8, 16] {
            for shift in 0..bits {
                for sign in [false, true] {
                    let Ok(layout) = HeadLayout::new(bits, shift, sign) else { continue };
                    for head in 0..=((1u32 << bits) - 1) as u16 {
                        assert_eq!(layout.join(layout.coded(head), layout.raw(head)), head, "{layout:?}");
                        assert!(u32::from(layout.raw(head)) < 1 << layout.raw_bits());
                    }
                }
            }
        }
        assert!(HeadLayout::new(16, 0, true).is_err());
        assert!(HeadLayout::new(12, 4, true).is_err());
        assert!(HeadLayout::new(8, 8, false).is_err());
    }
}
