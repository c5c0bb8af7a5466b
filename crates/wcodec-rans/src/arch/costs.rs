//! What counted values cost in 16 classes: dispatch, the portable form that defines it, and AVX2.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "vector loads, and entry into functions compiled for AVX2")
)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::Backend;

/// Of every value, its lengths in the classes.
type Lengths = [[i16; 16]; 256];

impl Backend {
    /// See [`crate::stats::class_costs`].
    pub(crate) fn class_costs(self, counts: &[(u8, i16)], lengths: &Lengths) -> [i32; 16] {
        match self {
            Self::Scalar => scalar(counts, lengths),
            // SAFETY: a token exists only if the CPU has AVX2.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) | Self::Avx512(_) => unsafe { avx2(counts, lengths) },
        }
    }
}

fn scalar(counts: &[(u8, i16)], lengths: &Lengths) -> [i32; 16] {
    let mut sums = [0; 16];
    for &(value, n) in counts {
        for (sum, &length) in sums.iter_mut().zip(&lengths[usize::from(value)]) {
            *sum += i32::from(n) * i32::from(length);
        }
    }
    sums
}

/// Two values at a time: their lengths lie side by side, so that one operation multiplies both and adds. Left to itself, the compiler would
/// make vectors of values, and gather every length.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(counts: &[(u8, i16)], lengths: &Lengths) -> [i32; 16] {
    // SAFETY: 16 lengths are 32 bytes.
    let of = |value: u8| unsafe { _mm256_loadu_si256(lengths[usize::from(value)].as_ptr().cast()) };
    // Classes 0 to 3 and 8 to 11, and the others.
    let (mut even, mut odd) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    let mut add = |(a, n): (u8, i16), (b, m): (u8, i16)| {
        let both = _mm256_set1_epi32(i32::from(n as u16) | i32::from(m) << 16);
        let (a, b) = (of(a), of(b));
        even = _mm256_add_epi32(even, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), both));
        odd = _mm256_add_epi32(odd, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), both));
    };
    let (pairs, rest) = counts.as_chunks::<2>();
    pairs.iter().for_each(|&[a, b]| add(a, b));
    rest.iter().for_each(|&last| add(last, (0, 0)));
    let mut sums = [0; 16];
    let [low, high] = [_mm256_permute2x128_si256::<0x20>(even, odd), _mm256_permute2x128_si256::<0x31>(even, odd)];
    // SAFETY: 16 sums are 64 bytes.
    unsafe {
        _mm256_storeu_si256(sums.as_mut_ptr().cast(), low);
        _mm256_storeu_si256(sums.as_mut_ptr().add(8).cast(), high);
    }
    sums
}
