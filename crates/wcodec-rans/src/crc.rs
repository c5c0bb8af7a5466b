//! CRC-32 of what a batch of superblocks decodes to, without a second pass over it.
//!
//! A CRC is linear: that of a message is the sum (exclusive or) of what its parts would give alone, each followed by as many zero bytes
//! as lie behind it. So every superblock is summed while its rows are in registers, and the sums are brought together afterwards.
//!
//! Polynomials over GF(2) modulo P = x³² + … + 1 (IEEE 802.3) are 32-bit words, bit 31 − i the coefficient of xⁱ, as in zip and PNG.

use crate::arch::Backend;
use crate::superblock::{Job, Target};

/// P without x³².
const POLYNOMIAL: u32 = 0xedb8_8320;
/// The polynomial 1.
pub(crate) const ONE: u32 = 1 << 31;

/// a·b mod P.
pub(crate) const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        product ^= b & 0u32.wrapping_sub((a >> bit) & 1);
        b = (b >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(b & 1));
    }
    product
}

/// x^(2ⁱ) mod P.
const SQUARES: [u32; 64] = {
    let mut squares = [ONE >> 1; 64];
    let mut i = 1;
    while i < 64 {
        squares[i] = multiply(squares[i - 1], squares[i - 1]);
        i += 1;
    }
    squares
};

/// xⁿ mod P.
pub(crate) const fn power(mut n: u64) -> u32 {
    let mut result = ONE;
    while n > 0 {
        result = multiply(result, SQUARES[n.trailing_zeros() as usize]);
        n &= n - 1;
    }
    result
}

/// Those of [`SQUARES`] that make up xⁿ.
pub(crate) fn squares(n: u64) -> impl Iterator<Item = u32> {
    (0..64).filter(move |i| (n >> i) & 1 == 1).map(|i| SQUARES[i])
}

/// What carries the low and the high half of 128 bits over `bits` bits: x^(bits + 32) and x^(bits − 32) mod P, shifted as products of
/// reflected words want them.
pub(crate) const fn distance(bits: u64) -> [u64; 2] {
    carriers(power(bits + 32), power(bits - 32))
}

/// As [`distance`], from both powers.
pub(crate) const fn carriers(low: u32, high: u32) -> [u64; 2] {
    [(low as u64) << 1, (high as u64) << 1]
}

/// The sum of a target's superblocks as they come.
#[derive(Debug)]
pub(crate) struct TargetSum {
    backend: Backend,
    /// Of all superblocks up to now, as if the target ended at `end`.
    sum: u32,
    end: usize,
    /// Powers x^(8·n) by n: superblocks side by side and strips one below the other follow at the same distances over and over.
    powers: [(usize, u32); 4],
    next: usize,
}

impl TargetSum {
    pub(crate) fn new(backend: Backend) -> Self {
        Self { backend, sum: 0, end: 0, powers: [(0, ONE); 4], next: 0 }
    }

    fn skip(&mut self, bytes: usize) -> u32 {
        if let Some(&(_, power)) = self.powers.iter().find(|p| p.0 == bytes) {
            return power;
        }
        let power = self.backend.power(8 * bytes as u64);
        self.powers[self.next] = (bytes, power);
        self.next = (self.next + 1) % self.powers.len();
        power
    }

    /// Adds the superblock of `job`, decoded into `target`, whose own sum is `remainder` or else is computed here.
    pub(crate) fn add(&mut self, job: &Job<'_>, target: &Target<'_>, remainder: Option<u32>) {
        let (rows, width) = (job.shape.rows(), job.shape.cols() * target.element_bytes);
        let remainder = remainder.unwrap_or_else(|| {
            let skip = self.skip(target.row_stride);
            (0..rows).fold(0, |sum, row| {
                let at = job.offset + row * target.row_stride;
                self.backend.multiply(sum, skip) ^ remainder_of(&target.bytes[at..at + width])
            })
        });
        let end = job.offset + (rows - 1) * target.row_stride + width;
        if end >= self.end {
            let skip = self.skip(end - self.end);
            self.sum = self.backend.multiply(self.sum, skip) ^ remainder;
            self.end = end;
        } else {
            let skip = self.skip(self.end - end);
            self.sum ^= self.backend.multiply(remainder, skip);
        }
    }

    /// The CRC-32 of the target's `len` bytes.
    pub(crate) fn finish(self, len: usize) -> u32 {
        let (multiply, power) = (|a, b| self.backend.multiply(a, b), |bytes| self.backend.power(8 * bytes as u64));
        let sum = multiply(self.sum, power(len - self.end));
        // The CRC begins with ones, which are as if they stood before the message, and ends inverted.
        !(sum ^ multiply(u32::MAX, power(len)))
    }
}

/// bytes·x³² mod P.
fn remainder_of(bytes: &[u8]) -> u32 {
    // What crc32fast begins with is the inverse of its argument.
    let mut hasher = crc32fast::Hasher::new_with_initial(u32::MAX);
    hasher.update(bytes);
    !hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_backend_multiplies_alike(a: u32, b: u32) {
            prop_assert_eq!(Backend::auto().multiply(a, b), multiply(a, b));
        }
    }

    #[test]
    fn products_and_powers_are_those_of_the_crc() {
        assert_eq!(multiply(ONE, 0x1234_5678), 0x1234_5678);
        assert_eq!(power(32), POLYNOMIAL);
        assert_eq!(multiply(power(1000), power(24)), power(1024));
        // A byte more multiplies by x⁸.
        assert_eq!(remainder_of(b"wcodec\0"), multiply(remainder_of(b"wcodec"), power(8)));
    }
}
