//! What a code stands for, and how 4-bit codes lie in bytes.

/// What the bits of a code mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Eight bits, two's complement.
    I8,
    /// Eight bits, unsigned.
    U8,
    /// FP8 with 4 exponent bits, bias 7: largest 448, no infinities.
    F8E4M3,
    /// FP8 with 5 exponent bits, bias 15: the upper byte of an F16.
    F8E5M2,
    /// Four bits, two's complement.
    I4(Order),
    /// Four bits, unsigned.
    U4(Order),
}

/// How 4-bit codes lie in memory. Words are of 32 bits, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// Row by row, two in a byte, the first in the lower half. Also eight in a word, the first lowest: the same bytes.
    Pairs,
    /// A word holds eight rows of one column, the first lowest; words lie row by row. GPTQ packs so.
    RowWords,
    /// A word holds eight columns of one row: from the lowest nibble on, columns 0, 2, 4, 6, 1, 3, 5, 7. AWQ packs so.
    Interleaved,
}

impl Code {
    /// Bits of a code.
    pub fn bits(self) -> usize {
        match self {
            Self::I4(_) | Self::U4(_) => 4,
            _ => 8,
        }
    }

    /// The order of 4-bit codes.
    pub fn order(self) -> Option<Order> {
        match self {
            Self::I4(order) | Self::U4(order) => Some(order),
            _ => None,
        }
    }

    /// Whether codes are integers, which may have zero points.
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::F8E4M3 | Self::F8E5M2)
    }

    /// The 8-bit code that this one becomes when it has a byte of its own.
    pub(crate) fn widened(self) -> Self {
        match self {
            Self::I4(_) => Self::I8,
            Self::U4(_) => Self::U8,
            code => code,
        }
    }

    /// The exact value of an 8-bit code; of a 4-bit one in the lower half of `byte`.
    #[inline(always)]
    pub(crate) fn value(self, byte: u8) -> f32 {
        match self {
            Self::I8 => f32::from(byte as i8),
            Self::U8 => f32::from(byte),
            Self::I4(_) => f32::from((byte << 4) as i8 >> 4),
            Self::U4(_) => f32::from(byte & 15),
            Self::F8E4M3 if byte & 0x7f == 0x7f => f32::NAN,
            // The digits of an F32 whose bias is 120 larger; a power of two changes none of them, subnormal codes included.
            Self::F8E4M3 => {
                let magnitude = f32::from_bits(u32::from(byte & 0x7f) << 20) * f32::from_bits((127 + 120) << 23);
                if byte & 0x80 == 0 { magnitude } else { -magnitude }
            }
            Self::F8E5M2 => half::f16::from_bits(u16::from(byte) << 8).to_f32(),
        }
    }
}

/// Writes the codes of columns `first..first + out.len()` of row `row`, one to a byte and extended by its sign where it has one.
///
/// `codes` holds at least the whole row of a matrix of `cols` columns, in an order whose needs the scheme has checked.
pub(crate) fn unpack_row(code: Code, codes: &[u8], cols: usize, row: usize, first: usize, out: &mut [u8]) {
    let Some(order) = code.order() else {
        let at = row * cols + first;
        return out.copy_from_slice(&codes[at..at + out.len()]);
    };
    match order {
        Order::Pairs => {
            // Rows are even, and pieces begin and end on even columns: see `Scheme::dequantize_row`.
            let at = (row * cols + first) / 2;
            for (pair, &byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(&codes[at..]) {
                *pair = [byte & 15, byte >> 4];
            }
        }
        Order::RowWords => {
            let at = (row / 8 * cols + first) * 4 + row % 8 / 2;
            let shift = 4 * (row % 2);
            for (out, byte) in out.iter_mut().zip(codes[at..].iter().step_by(4)) {
                *out = byte >> shift & 15;
            }
        }
        Order::Interleaved => {
            let at = (row * cols + first) / 2;
            for (eight, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(codes[at..].as_chunks::<4>().0) {
                // Nibbles 0 to 3 are the even columns, 4 to 7 the odd ones.
                *eight = [0, 4, 1, 5, 2, 6, 3, 7].map(|nibble| word[nibble / 2] >> (4 * (nibble % 2)) & 15);
            }
        }
    }
    if let Code::I4(_) = code {
        out.iter_mut().for_each(|byte| *byte = ((*byte << 4) as i8 >> 4) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code of E4M3 by the definition: sign, exponent of bias 7, three digits.
    #[test]
    fn e4m3_is_what_the_format_says() {
        for byte in 0..=255u8 {
            let (exponent, digits) = (i32::from(byte >> 3 & 15), f64::from(byte & 7));
            let magnitude = match exponent {
                0 => digits / 8.0 * 2f64.powi(-6),
                _ => (1.0 + digits / 8.0) * 2f64.powi(exponent - 7),
            };
            let expected = if byte & 0x7f == 0x7f { f64::NAN } else { magnitude };
            let expected = if byte & 0x80 == 0 { expected } else { -expected };
            let found = Code::F8E4M3.value(byte);
            assert!(found.is_nan() && expected.is_nan() || f64::from(found) == expected, "{byte:02x}");
            if !found.is_nan() {
                assert_eq!(found.is_sign_negative(), byte >= 0x80);
            }
        }
    }

    #[test]
    fn nibbles_come_from_their_places() {
        // A word whose nibble i is i.
        let word = 0x7654_3210u32.to_le_bytes();
        let mut row = [0; 8];
        unpack_row(Code::U4(Order::Pairs), &word, 8, 0, 0, &mut row);
        assert_eq!(row, [0, 1, 2, 3, 4, 5, 6, 7]);
        unpack_row(Code::U4(Order::Interleaved), &word, 8, 0, 0, &mut row);
        assert_eq!(row, [0, 4, 1, 5, 2, 6, 3, 7]);
        for i in 0..8 {
            let mut one = [0];
            unpack_row(Code::U4(Order::RowWords), &word, 1, i, 0, &mut one);
            assert_eq!(usize::from(one[0]), i);
        }
        unpack_row(Code::I4(Order::Pairs), &[0x8f], 2, 0, 0, &mut row[..2]);
        assert_eq!(row[..2], [0xff, 0xf8]);
    }
}
