//! What an encoder asks of many elements before it chooses classes and tables, at vector speed. Results are the same with every
//! instruction set.

use crate::arch::Backend;

/// The heads (of `head_bytes`, 1 or 2) of `elements` (of `element_bytes` each), as many as `heads` takes.
pub fn heads(elements: &[u8], element_bytes: usize, head_bytes: usize, heads: &mut [u16]) {
    let (all, cols) = (elements.len().max(1), heads.len().max(1));
    Backend::auto().heads_of(elements, all, cols, element_bytes, head_bytes, heads);
}

/// Sum and largest of the magnitude bits of floats' heads: the top 7 bits below the sign of one-byte floats, the top 15 of wider ones (2,
/// 4 or 8 bytes). Up to a factor they are logarithms.
///
/// ```
/// let weights: Vec<u8> = [0x3f80u16, 0xbf00].iter().flat_map(|w| w.to_le_bytes()).collect(); // 1 and −0.5 in BF16
/// assert_eq!(wcodec_rans::stats::magnitudes(&weights, 2), (0x3f80 + 0x3f00, 0x3f80));
/// ```
pub fn magnitudes(elements: &[u8], element_bytes: usize) -> (u64, u16) {
    Backend::auto().magnitudes(elements, element_bytes)
}

/// Sum of log2(2·|byte − middle| + 1) in 1/256, linear between powers of two; bytes are signed for `middle` 0 and unsigned for 128.
pub fn log_distances(bytes: &[u8], middle: u8) -> u64 {
    Backend::auto().log_distances(bytes, middle)
}

/// Adds the magnitude bits (`mask`) of a row of heads to the sums of its columns.
pub fn add_magnitudes(heads: &[u16], mask: u16, sums: &mut [u32]) {
    Backend::auto().add_magnitudes(heads, mask, sums);
}

/// Adds the logarithms of the distances of a row of byte heads, see [`log_distances`], to the sums of its columns.
pub fn add_log_distances(heads: &[u16], middle: u8, sums: &mut [u32]) {
    Backend::auto().add_log_distances(heads, middle, sums);
}

/// For every head, 31 less the number of whole steps of 2^`shift` that its magnitude bits (`mask`) are below `largest`; at least 0.
pub fn steps_below(heads: &[u16], mask: u16, largest: u16, shift: u32, bins: &mut [u8]) {
    Backend::auto().steps_below(heads, mask, largest, shift, bins);
}

/// For every head of a row of class `class`, `context << bits | value`: the context clamp(class + column class, 0, `last`), the value
/// that is the head's `field`, so many bits from a first one on: `[shift, bits]`.
pub fn places(heads: &[u16], class: i16, cols: &[i8], last: i16, field: [u32; 2], places: &mut [u16]) {
    Backend::auto().places(heads, class, cols, last, field, places);
}

/// Σ countᵢ·lengthᵢ, in 32 bits.
pub fn product(counts: &[i16], lengths: &[i16]) -> i32 {
    Backend::auto().product(counts, lengths)
}

/// What values cost in each of 16 classes: Σ count·length, of values with their counts, by every value's lengths in the classes.
///
/// ```
/// let mut lengths = [[0; 16]; 256];
/// lengths[7][1] = 100;
/// lengths[9] = [1; 16];
/// assert_eq!(wcodec_rans::stats::class_costs(&[(7, 3), (9, 2)], &lengths)[..3], [2, 302, 2]);
/// ```
pub fn class_costs(counts: &[(u8, i16)], lengths: &[[i16; 16]; 256]) -> [i32; 16] {
    Backend::auto().class_costs(counts, lengths)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Isa;

    proptest! {
        #[test]
        fn every_instruction_set_finds_the_same(bytes in prop::collection::vec(any::<u8>(), 0..600), class in 0i16..20) {
            let scalar = Backend::Scalar;
            let cols: Vec<i8> = bytes.iter().map(|&b| b as i8 / 4).collect();
            for backend in [Isa::Avx2, Isa::Avx512].into_iter().filter_map(Backend::new) {
                for n in [1, 2, 4, 8] {
                    prop_assert_eq!(backend.magnitudes(&bytes, n), scalar.magnitudes(&bytes, n));
                    let mut heads = [vec![0; bytes.len() / n], vec![0; bytes.len() / n]];
                    backend.heads_of(&bytes, 13 * n, 9, n, n.min(2), &mut heads[0]);
                    scalar.heads_of(&bytes, 13 * n, 9, n, n.min(2), &mut heads[1]);
                    prop_assert_eq!(&heads[0], &heads[1]);
                    let heads = &heads[0];
                    let mut bins = [vec![0; heads.len()], vec![0; heads.len()]];
                    backend.steps_below(heads, 0x7fff, 0x3f80, 6, &mut bins[0]);
                    scalar.steps_below(heads, 0x7fff, 0x3f80, 6, &mut bins[1]);
                    prop_assert_eq!(&bins[0], &bins[1]);
                    let mut places = [vec![0; heads.len()], vec![0; heads.len()]];
                    backend.places(heads, class, &cols, 15, [4, 11], &mut places[0]);
                    scalar.places(heads, class, &cols, 15, [4, 11], &mut places[1]);
                    prop_assert_eq!(&places[0], &places[1]);
                    let mut sums = [vec![0; heads.len()], vec![0; heads.len()]];
                    backend.add_magnitudes(heads, 0x7fff, &mut sums[0]);
                    scalar.add_magnitudes(heads, 0x7fff, &mut sums[1]);
                    backend.add_log_distances(heads, 128, &mut sums[0]);
                    scalar.add_log_distances(heads, 128, &mut sums[1]);
                    prop_assert_eq!(&sums[0], &sums[1]);
                }
                let counts: Vec<(u8, i16)> = bytes.iter().map(|&b| (b, i16::from(b) + 1)).collect();
                let lengths: [[i16; 16]; 256] =
                    std::array::from_fn(|value| std::array::from_fn(|class| (value * 37 + class * 613) as i16));
                prop_assert_eq!(backend.class_costs(&counts, &lengths), scalar.class_costs(&counts, &lengths));
                let signed: Vec<i16> = bytes.iter().map(|&b| i16::from(b) * 5).collect();
                prop_assert_eq!(backend.product(&signed, &signed), scalar.product(&signed, &signed));
            }
        }
    }

    #[test]
    fn distances_are_from_the_middle() {
        assert_eq!(log_distances(&[0, 1, 255], 0), 2 * (256 + 128));
        assert_eq!(log_distances(&[128, 127, 129], 128), 2 * (256 + 128));
        assert_eq!(log_distances(&[0], 128), 8 * 256 + 1);
    }
}
