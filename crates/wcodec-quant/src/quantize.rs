//! From weights to codes and scales. This loses information, so it says how much.
//!
//! Absolute maximum ("absmax"), symmetric: s = fl32(max |w| / m) over a block, with m = 127 for INT8 and 448 for E4M3; a code is w / s
//! in F32, rounded to nearest even. Where max |w| is 0, or so small that s would be, s is 1 and all codes are 0.

use crate::{Code, QuantError};

/// What to quantise to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuantizedType {
    /// [`Code::I8`], −127 to 127.
    I8,
    /// [`Code::F8E4M3`].
    F8E4M3,
}

impl QuantizedType {
    /// The code.
    pub fn code(self) -> Code {
        match self {
            Self::I8 => Code::I8,
            Self::F8E4M3 => Code::F8E4M3,
        }
    }

    /// The greatest magnitude of a code.
    fn largest(self) -> f32 {
        match self {
            Self::I8 => 127.0,
            Self::F8E4M3 => 448.0,
        }
    }

    fn encode(self, x: f32) -> u8 {
        match self {
            Self::I8 => (x.round_ties_even().clamp(-127.0, 127.0) as i8) as u8,
            Self::F8E4M3 => e4m3(x),
        }
    }
}

/// Codes, scales and what was lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// One byte for each weight, row by row.
    pub codes: Vec<u8>,
    /// One scale for each block, row by row of blocks.
    pub scales: Vec<f32>,
    /// The distance between the weights and what the codes stand for in F32.
    pub loss: Loss,
}

/// A distance between weights and what they are dequantised to. Sums can be added up over parts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Loss {
    /// Largest |difference|.
    pub max: f64,
    /// Number of weights.
    pub count: u64,
    /// Σ difference².
    pub squares: f64,
    /// Σ before · after.
    pub dot: f64,
    /// Σ before².
    pub before: f64,
    /// Σ after².
    pub after: f64,
}

impl Loss {
    /// Of two equally long sequences.
    pub fn between(before: impl IntoIterator<Item = f32>, after: impl IntoIterator<Item = f32>) -> Self {
        before.into_iter().zip(after).fold(Self::default(), |sum, (a, b)| {
            let (a, b) = (f64::from(a), f64::from(b));
            Self {
                max: sum.max.max((a - b).abs()),
                count: sum.count + 1,
                squares: sum.squares + (a - b) * (a - b),
                dot: sum.dot + a * b,
                before: sum.before + a * a,
                after: sum.after + b * b,
            }
        })
    }

    /// Of two parts together.
    pub fn and(self, other: Self) -> Self {
        Self {
            max: self.max.max(other.max),
            count: self.count + other.count,
            squares: self.squares + other.squares,
            dot: self.dot + other.dot,
            before: self.before + other.before,
            after: self.after + other.after,
        }
    }

    /// Root mean square of the differences.
    pub fn rms(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.squares / self.count as f64).sqrt() }
    }

    /// Cosine of the angle between before and after; 1 where one of them is zero everywhere.
    pub fn cosine(&self) -> f64 {
        let norm = (self.before * self.after).sqrt();
        if norm == 0.0 { 1.0 } else { self.dot / norm }
    }
}

/// Quantises a matrix of `shape` (rows, columns) with one scale per block of `block` (rows, columns).
///
/// ```
/// use wcodec_quant::{QuantizedType, quantize};
/// let q = quantize(&[1.0, -2.0, 0.5, 4.0], [2, 2], QuantizedType::I8, [1, 2])?;
/// assert_eq!(q.scales, [2.0 / 127.0, 4.0 / 127.0]);
/// assert_eq!(q.codes.iter().map(|&q| q as i8).collect::<Vec<_>>(), [64, -127, 16, 127]);
/// assert!(q.loss.max < 0.02);
/// # Ok::<(), wcodec_quant::QuantError>(())
/// ```
///
/// # Errors
/// [`QuantError::Length`] unless there are rows × columns weights, [`QuantError::NotFinite`], [`QuantError::Unsupported`] for an empty
/// block.
pub fn quantize(
    weights: &[f32],
    shape: [usize; 2],
    to: QuantizedType,
    block: [usize; 2],
) -> Result<Quantized, QuantError> {
    let [rows, cols] = shape;
    if block.contains(&0) {
        return Err(QuantError::Unsupported("a block of scales without rows or columns"));
    }
    if rows.checked_mul(cols) != Some(weights.len()) {
        let expected = rows.saturating_mul(cols);
        return Err(QuantError::Length { what: "weights", expected, found: weights.len() });
    }
    if let Some(index) = weights.iter().position(|w| !w.is_finite()) {
        return Err(QuantError::NotFinite { index, value: weights[index].to_string() });
    }
    let across = cols.div_ceil(block[1]);
    let mut largest = vec![0f32; rows.div_ceil(block[0]) * across];
    let each = |row: usize, col: usize| row / block[0] * across + col / block[1];
    for (row, line) in weights.chunks(cols.max(1)).enumerate() {
        for (col, part) in line.chunks(block[1]).enumerate() {
            let of_part = part.iter().fold(0f32, |m, w| m.max(w.abs()));
            let slot = &mut largest[row / block[0] * across + col];
            *slot = slot.max(of_part);
        }
    }
    let scales: Vec<f32> =
        largest.iter().map(|&m| Some(m / to.largest()).filter(|&s| s >= f32::MIN_POSITIVE).unwrap_or(1.0)).collect();
    let mut codes = Vec::with_capacity(weights.len());
    for (row, line) in weights.chunks(cols.max(1)).enumerate() {
        codes.extend(line.iter().enumerate().map(|(col, &w)| to.encode(w / scales[each(row, col)])));
    }
    let after = codes.iter().enumerate().map(|(i, &q)| to.code().value(q) * scales[each(i / cols, i % cols)]);
    let loss = Loss::between(weights.iter().copied(), after);
    Ok(Quantized { codes, scales, loss })
}

/// The E4M3 code nearest to `x`, ties to even, at most 448 in magnitude.
fn e4m3(x: f32) -> u8 {
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let x = x.abs().min(448.0);
    // Below 2^-6 codes are 2^-9 apart; above, eight to an octave.
    if x < f32::from_bits((127 - 6) << 23) {
        return sign | (x * 512.0).round_ties_even() as u8;
    }
    let bits = x.to_bits();
    let rounded = (bits + 0x7_ffff + (bits >> 20 & 1)) >> 20;
    sign | (rounded - (120 << 3)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_takes_the_nearest_code() {
        let codes: Vec<u8> = (0..=0x7e).collect();
        let of = |q: u8| Code::F8E4M3.value(q);
        for &q in &codes {
            assert_eq!(e4m3(of(q)), q);
            assert_eq!(e4m3(-of(q)), q | 0x80);
        }
        for pair in codes.windows(2) {
            let (low, high) = (of(pair[0]), of(pair[1]));
            let middle = (low + high) / 2.0;
            assert_eq!(e4m3(middle), if pair[0] % 2 == 0 { pair[0] } else { pair[1] });
            assert_eq!(e4m3(f32::from_bits(middle.to_bits() - 1)), pair[0]);
            assert_eq!(e4m3(f32::from_bits(middle.to_bits() + 1)), pair[1]);
        }
        assert_eq!((e4m3(1e9), e4m3(-460.0)), (0x7e, 0xfe));
    }

    #[test]
    fn blocks_without_weights_of_any_size_have_scale_one() {
        let q = quantize(&[0.0, -0.0, 1e-45, 0.0], [2, 2], QuantizedType::I8, [1, 2]).unwrap();
        assert_eq!((q.scales, q.codes), (vec![1.0, 1.0], vec![0; 4]));
        assert!(quantize(&[], [0, 5], QuantizedType::I8, [1, 5]).unwrap().codes.is_empty());
        let error = quantize(&[1.0, f32::NAN], [1, 2], QuantizedType::I8, [1, 2]).unwrap_err();
        assert!(matches!(error, QuantError::NotFinite { index: 1, .. }));
    }
}
