//! Low bits that no head of a tensor uses: magnitudes are coded without them.
//!
//! Checkpoints that were widened from a narrower type have them: F16 from BF16 three, BF16 from F8_E4M3 four. The raw field, which
//! would store these zeros, gets narrower by as many bits.

use crate::format::ElementFormat;

/// Bits of a head below its sign.
const MAGNITUDE: u16 = 0x7fff;

/// How many low bits are 0 in the heads of all elements, as far as `format` can leave them out; 0 for elements of one byte, whose symbols
/// say it at no cost.
pub(crate) fn idle_bits(data: &[u8], format: ElementFormat) -> u8 {
    let most = format.most_dropped();
    let mut union = 0u16;
    for elements in data.chunks(1024 * format.bytes) {
        let heads = elements.chunks_exact(format.bytes).map(|e| u16::from_le_bytes([e[e.len() - 2], e[e.len() - 1]]));
        union |= if most == 0 { 1 } else { heads.fold(0, |union, head| union | head) };
        if union & 1 == 1 {
            return 0;
        }
    }
    // A tensor of zeros has no use for it.
    if union & MAGNITUDE == 0 { 0 } else { (union.trailing_zeros() as u8).min(most) }
}

/// Moves the magnitudes of heads down by `bits`, over zeros.
pub(crate) fn squeeze(data: &mut [u8], element_bytes: usize, bits: u8) {
    each_head(data, element_bytes, |head| (head & !MAGNITUDE) | ((head & MAGNITUDE) >> bits));
}

/// Undoes [`squeeze`]. Bits that do not fit a magnitude are lost: they were none.
pub(crate) fn widen(data: &mut [u8], element_bytes: usize, bits: u8) {
    each_head(data, element_bytes, |head| (head & !MAGNITUDE) | ((head << bits) & MAGNITUDE));
}

#[inline(always)]
fn each_head(data: &mut [u8], element_bytes: usize, change: impl Fn(u16) -> u16) {
    match element_bytes {
        2 => data.as_chunks_mut().0.iter_mut().for_each(|e| *e = change(u16::from_le_bytes(*e)).to_le_bytes()),
        4 => data.as_chunks_mut().0.iter_mut().for_each(|e| {
            let word = u32::from_le_bytes(*e);
            *e = ((word & 0xffff) | u32::from(change((word >> 16) as u16)) << 16).to_le_bytes();
        }),
        n => data.chunks_exact_mut(n).for_each(|e| {
            let head = change(u16::from_le_bytes([e[n - 2], e[n - 1]]));
            e[n - 2..].copy_from_slice(&head.to_le_bytes());
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wcodec_container::DtypeCode;

    /// The example of docs/format.md.
    #[test]
    fn documented_heads() {
        let mut data: Vec<u8> = [0x3fc0u16, 0xbe90, 0x0010].iter().flat_map(|head| head.to_le_bytes()).collect();
        assert_eq!(idle_bits(&data, ElementFormat::of(DtypeCode::BF16).unwrap()), 4);
        squeeze(&mut data, 2, 4);
        let heads: Vec<u16> = data.as_chunks().0.iter().map(|&e| u16::from_le_bytes(e)).collect();
        assert_eq!(heads, [0x03fc, 0x83e9, 0x0001]);
    }

    proptest! {
        #[test]
        fn heads_come_back(
            values in prop::collection::vec(any::<u64>(), 1..80), bits in 1u8..=7,
            dtype in prop::sample::select(vec![DtypeCode::BF16, DtypeCode::F16, DtypeCode::F32]),
        ) {
            let format = ElementFormat::of(dtype).unwrap();
            let mut data: Vec<u8> = values
                .iter()
                .flat_map(|v| {
                    let mut element = v.to_le_bytes()[..format.bytes].to_vec();
                    let head = u16::from_le_bytes([element[format.bytes - 2], element[format.bytes - 1]]) >> bits << bits;
                    element[format.bytes - 2..].copy_from_slice(&head.to_le_bytes());
                    element
                })
                .collect();
            let idle = idle_bits(&data, format);
            prop_assert!(idle >= bits.min(format.most_dropped()) || data.iter().skip(format.bytes - 1).step_by(format.bytes).all(|b| b & 0x7f == 0));
            let before = data.clone();
            squeeze(&mut data, format.bytes, bits);
            widen(&mut data, format.bytes, bits);
            prop_assert_eq!(data, before);
        }
    }
}
