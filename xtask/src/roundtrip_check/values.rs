//! Contents of tensors: what weights look like, and what weights never look like.

use half::{bf16, f16};
use safetensors::tensor::Dtype;

/// What the elements of a tensor are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// All bits zero.
    Zeros,
    /// One value.
    Constant,
    /// One value, and now and then another.
    Outliers,
    /// Element number i has the bits of i.
    Distinct,
    /// Two values in turn.
    Alternating,
    /// Any bits: every NaN payload, infinity and subnormal among them.
    Random,
    /// Only infinities, NaN with payloads, subnormals, both zeros, the largest and the smallest numbers.
    Special,
    /// A bell curve around 0.
    Gaussian,
    /// A bell curve with a scale per row and per column, octaves apart.
    Scaled,
    /// As `Scaled`, with the low half of every bit pattern zero in two rows of three.
    ZeroLow,
    /// Straight lines along rows and columns.
    Ramp,
    /// A smooth surface.
    Smooth,
    /// Noise that repeats after a while.
    Repeating,
}

impl Values {
    /// All kinds.
    pub(crate) const ALL: [Self; 13] = [
        Self::Gaussian,
        Self::Scaled,
        Self::Special,
        Self::Random,
        Self::Ramp,
        Self::Smooth,
        Self::ZeroLow,
        Self::Outliers,
        Self::Zeros,
        Self::Constant,
        Self::Distinct,
        Self::Alternating,
        Self::Repeating,
    ];

    /// The bytes of a tensor with these values: elements in row-major order, those below a byte packed from the lowest bit up.
    pub(crate) fn fill(self, dtype: Dtype, shape: &[usize], seed: u64) -> Vec<u8> {
        let rows = shape.first().copied().unwrap_or(1);
        let cols: usize = shape.iter().skip(1).product();
        let mut random = Random(seed);
        let scales: Vec<f64> = (0..rows + cols).map(|_| (6.0 * random.bell()).exp2()).collect();
        let constant = element(dtype, random.bell());
        let other = random.next();
        let period = 100 + (other % 400) as usize;
        let mut bits = Vec::with_capacity(rows * cols);
        for row in 0..rows {
            for col in 0..cols {
                let number = bits.len();
                let scaled = |random: &mut Random| random.bell() * scales[row] * scales[rows + col];
                bits.push(match self {
                    Self::Zeros => 0,
                    Self::Constant => constant,
                    Self::Outliers if random.next().is_multiple_of(97) => random.next(),
                    Self::Outliers => constant,
                    Self::Distinct => number as u64,
                    Self::Alternating => [constant, other][number % 2],
                    Self::Random => random.next(),
                    Self::Special => special(dtype, random.next()),
                    Self::Gaussian => element(dtype, random.bell()),
                    Self::Scaled => element(dtype, scaled(&mut random)),
                    Self::ZeroLow => {
                        let kept = [u64::MAX, !0 << (dtype.bitsize() / 2), !0 << (dtype.bitsize() / 3)][row % 3];
                        element(dtype, scaled(&mut random)) & kept
                    }
                    Self::Ramp => element(dtype, (row as f64 + 2.0 * col as f64) / 16.0 - 4.0),
                    Self::Smooth => element(dtype, (row as f64 / 9.0).sin() + (col as f64 / 23.0).cos()),
                    Self::Repeating if number >= period => bits[number - period],
                    Self::Repeating => random.next(),
                });
            }
        }
        pack(dtype, &bits)
    }
}

/// The bit pattern nearest to `x`, by truncation for the small floats; integers count sixteenths.
fn element(dtype: Dtype, x: f64) -> u64 {
    let bits = x as f32;
    match dtype {
        Dtype::F64 => x.to_bits(),
        Dtype::F32 => u64::from(bits.to_bits()),
        Dtype::C64 => u64::from(bits.to_bits()) | u64::from((-0.7 * bits).to_bits()) << 32,
        Dtype::BF16 => u64::from(bf16::from_f32(bits).to_bits()),
        Dtype::F16 => u64::from(f16::from_f32(bits).to_bits()),
        Dtype::F8_E5M2 | Dtype::F8_E5M2FNUZ => u64::from(f16::from_f32(bits).to_bits() >> 8),
        Dtype::F8_E4M3 | Dtype::F8_E4M3FNUZ => {
            let single = bits.to_bits();
            let magnitude = (single >> 20 & 0x7ff).saturating_sub((127 - 7) << 3).min(0x7f);
            u64::from(single >> 31 << 7 | magnitude)
        }
        Dtype::F8_E8M0 => u64::from(bits.to_bits() >> 23 & 0xff),
        Dtype::BOOL => u64::from(x > 0.0),
        Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => (16.0 * x + 128.0) as u64,
        _ => (16.0 * x) as i64 as u64,
    }
}

/// A bit pattern at a border of what the dtype can say; `choice` chooses which, and the payload of a NaN.
fn special(dtype: Dtype, choice: u64) -> u64 {
    let bits = dtype.bitsize() as u32;
    // Mantissa bits, for integers half the width: borders all the same.
    let mantissa = match dtype {
        Dtype::F64 => 52,
        Dtype::F32 | Dtype::C64 => 23,
        Dtype::BF16 => 7,
        Dtype::F16 => 10,
        Dtype::F8_E4M3 | Dtype::F8_E4M3FNUZ => 3,
        Dtype::F8_E5M2 | Dtype::F8_E5M2FNUZ | Dtype::F6_E3M2 => 2,
        _ => bits / 2,
    };
    let sign = choice >> 7 & 1 << (bits - 1);
    let low = choice >> 16 & ((1 << mantissa) - 1);
    let exponent = (1u64 << (bits - 1)) - (1 << mantissa);
    sign | match choice % 6 {
        0 => 0,
        1 => exponent,
        2 => exponent | low,
        3 => low,
        4 => exponent - 1,
        _ => 1 << mantissa,
    }
}

/// The low bits of every element, packed from the lowest bit of the first byte up.
fn pack(dtype: Dtype, elements: &[u64]) -> Vec<u8> {
    let width = dtype.bitsize();
    if width.is_multiple_of(8) {
        return elements.iter().flat_map(|e| e.to_le_bytes().into_iter().take(width / 8)).collect();
    }
    let mut out = vec![0u8; (elements.len() * width).div_ceil(8)];
    for (i, element) in elements.iter().enumerate() {
        for bit in 0..width {
            let at = i * width + bit;
            out[at / 8] |= ((element >> bit & 1) as u8) << (at % 8);
        }
    }
    out
}

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`, 0 if there is none.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// About normal, of unit variance: a sum of twelve uniform numbers, less its mean.
    fn bell(&mut self) -> f64 {
        let sum: u64 = (0..3)
            .map(|_| {
                let n = self.next();
                (0..4).map(|i| n >> (16 * i) & 0xffff).sum::<u64>()
            })
            .sum();
        sum as f64 / 65536.0 - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::generate;
    use super::*;

    #[test]
    fn every_kind_fills_every_shape_of_every_dtype() {
        for dtype in generate::DTYPES {
            for values in Values::ALL {
                for shape in [&[8, 12][..], &[4], &[0, 3], &[2, 2, 2]] {
                    let data = values.fill(dtype, shape, 3);
                    assert_eq!(data.len() * 8, shape.iter().product::<usize>() * dtype.bitsize(), "{dtype} {values:?}");
                    assert_eq!(data, values.fill(dtype, shape, 3));
                }
            }
        }
    }

    #[test]
    fn special_values_are_what_they_say() {
        let data = Values::Special.fill(Dtype::F32, &[3000], 1);
        let values: Vec<f32> = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        assert!(values.iter().any(|v| v.is_nan() && v.to_bits() & 0x1fff != 0));
        assert!(values.contains(&f32::INFINITY) && values.contains(&f32::NEG_INFINITY));
        assert!(values.iter().any(|v| v.is_subnormal()));
        assert!(values.iter().any(|v| v.to_bits() == (-0.0f32).to_bits()));
        assert!(values.contains(&f32::MAX) && values.contains(&f32::MIN_POSITIVE));
    }

    #[test]
    fn small_elements_are_packed_without_gaps() {
        assert_eq!(pack(Dtype::F4, &[1, 2, 3, 4]), [0x21, 0x43]);
        assert_eq!(pack(Dtype::F6_E2M3, &[1, 2, 3, 4]), [0b1000_0001, 0b0011_0000, 0b0001_0000]);
    }
}
