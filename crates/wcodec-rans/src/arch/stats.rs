//! The loops of an encoder's statistics, compiled once for every instruction set: each is written so that the compiler makes vectors of
//! it, and all give the same results.
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "entry into functions compiled for AVX2 and AVX-512"))]

use super::Backend;
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// Defines methods of [`Backend`] from bodies that are safe code, once for each instruction set.
macro_rules! stamped {
    ($($(#[$about:meta])* fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {
        impl Backend {
            $($(#[$about])*
            pub(crate) fn $name(self, $($arg: $type),*) $(-> $result)? {
                #[inline(always)]
                fn body($($arg: $type),*) $(-> $result)? $body

                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
                fn avx2(_: Avx2, $($arg: $type),*) $(-> $result)? {
                    body($($arg),*)
                }

                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
                fn avx512(_: Avx512, $($arg: $type),*) $(-> $result)? {
                    body($($arg),*)
                }

                match self {
                    Self::Scalar => body($($arg),*),
                    // SAFETY: a token exists only if the CPU has every feature that its functions are compiled for.
                    #[cfg(target_arch = "x86_64")]
                    Self::Avx2(token) => unsafe { avx2(token, $($arg),*) },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Self::Avx512(token) => unsafe { avx512(token, $($arg),*) },
                }
            })*
        }
    };
}

/// Elements whose 16-bit weights are added in 32 bits.
const RUN: usize = 1 << 15;

#[inline(always)]
fn each<const N: usize>(elements: &[u8], heads: &mut [u16], head: impl Fn([u8; N]) -> u16) {
    for (to, e) in heads.iter_mut().zip(elements.as_chunks().0) {
        *to = head(*e);
    }
}

#[inline(always)]
fn add<const N: usize>(elements: &[u8], weight: impl Fn([u8; N]) -> u16) -> (u64, u16) {
    let (mut sum, mut largest) = (0, 0);
    for elements in elements.as_chunks().0.chunks(RUN) {
        let mut part = 0u32;
        for &e in elements {
            let w = weight(e);
            part += u32::from(w);
            largest = largest.max(w);
        }
        sum += u64::from(part);
    }
    (sum, largest)
}

/// Logarithm of a byte's distance d from its format's middle: log2(2·d + 1) in 1/256, linear between powers of two.
#[inline(always)]
fn log_distance(byte: u8, middle: u8) -> u16 {
    let d = (byte ^ middle ^ 0x80).abs_diff(0x80);
    // Exponent and upper mantissa bits of a float are that.
    ((f32::from(2 * u16::from(d) + 1).to_bits() >> 15) - (127 << 8)) as u16
}

stamped! {
    /// See [`crate::stats::heads`]; of rows of `cols` elements, `row_stride` bytes apart.
    fn heads_of(bytes: &[u8], row_stride: usize, cols: usize, element_bytes: usize, head_bytes: usize, heads: &mut [u16]) {
        for (heads, row) in heads.chunks_mut(cols).zip(bytes.chunks(row_stride)) {
            match (element_bytes, head_bytes) {
                (1, _) => each(row, heads, |[e]: [u8; 1]| u16::from(e)),
                (2, 2) => each(row, heads, u16::from_le_bytes),
                (4, 2) => each(row, heads, |e| (u32::from_le_bytes(e) >> 16) as u16),
                (8, 2) => each(row, heads, |e| (u64::from_le_bytes(e) >> 48) as u16),
                (n, 2) => {
                    let elements = row.chunks_exact(n);
                    heads.iter_mut().zip(elements).for_each(|(h, e)| *h = u16::from_le_bytes([e[n - 2], e[n - 1]]));
                }
                (n, _) => heads.iter_mut().zip(row.chunks_exact(n)).for_each(|(h, e)| *h = u16::from(e[n - 1])),
            }
        }
    }

    /// See [`crate::stats::magnitudes`].
    fn magnitudes(elements: &[u8], element_bytes: usize) -> (u64, u16) {
        match element_bytes {
            1 => add(elements, |[e]: [u8; 1]| u16::from(e & 0x7f)),
            2 => add(elements, |e| u16::from_le_bytes(e) & 0x7fff),
            4 => add(elements, |e| (u32::from_le_bytes(e) >> 16) as u16 & 0x7fff),
            _ => add(elements, |e| (u64::from_le_bytes(e) >> 48) as u16 & 0x7fff),
        }
    }

    /// See [`crate::stats::log_distances`].
    fn log_distances(elements: &[u8], middle: u8) -> u64 {
        add(elements, |[e]: [u8; 1]| log_distance(e, middle)).0
    }

    /// See [`crate::stats::add_magnitudes`].
    fn add_magnitudes(heads: &[u16], mask: u16, sums: &mut [u32]) {
        sums.iter_mut().zip(heads).for_each(|(sum, &head)| *sum += u32::from(head & mask));
    }

    /// See [`crate::stats::add_log_distances`].
    fn add_log_distances(heads: &[u16], middle: u8, sums: &mut [u32]) {
        sums.iter_mut().zip(heads).for_each(|(sum, &head)| *sum += u32::from(log_distance(head as u8, middle)));
    }

    /// See [`crate::stats::steps_below`].
    fn steps_below(heads: &[u16], mask: u16, largest: u16, shift: u32, bins: &mut [u8]) {
        for (bin, &head) in bins.iter_mut().zip(heads) {
            *bin = 31 - (largest.saturating_sub(head & mask) >> shift).min(31) as u8;
        }
    }

    /// See [`crate::stats::places`].
    fn places(heads: &[u16], class: i16, cols: &[i8], last: i16, field: [u32; 2], places: &mut [u16]) {
        let [shift, bits] = field;
        let mask = ((1u32 << bits) - 1) as u16;
        for ((place, &head), &col) in places.iter_mut().zip(heads).zip(cols) {
            let context = (class + i16::from(col)).max(0).min(last) as u16;
            *place = context << bits | (head >> shift) & mask;
        }
    }

    /// See [`crate::stats::product`].
    fn product(counts: &[i16], lengths: &[i16]) -> i32 {
        counts.iter().zip(lengths).map(|(&n, &l)| i32::from(n) * i32::from(l)).sum()
    }

    /// See [`crate::histograms::Histograms::add`].
    fn add_line(counts: &[u8], kinds: &[i32], lowest: i32, bins: usize, starts: &[u32], sums: &mut [u32]) {
        for (counts, &kind) in counts.chunks_exact(bins).zip(kinds) {
            let sums = &mut sums[starts[(kind - lowest) as usize] as usize..][..bins];
            for (sums, counts) in sums.as_chunks_mut::<32>().0.iter_mut().zip(counts.as_chunks::<32>().0) {
                sums.iter_mut().zip(counts).for_each(|(sum, &n)| *sum += u32::from(n));
            }
        }
    }
}
