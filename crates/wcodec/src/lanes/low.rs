//! The bytes below the head of wide elements, with as many bits per row as the row uses.
//!
//! Trained F32 checkpoints often hold rows that came from 16-bit ones: their low bits are zero. A row that needs only its upper b low
//! bits stores b bits per element.

/// Bits of the low field (`low_bytes` per element) that `row` needs: all above the lowest one that any element has set.
pub(crate) fn significant_bits(row: &[u8], element_bytes: usize, low_bytes: usize) -> u8 {
    let union = match element_bytes {
        4 => u64::from(row.as_chunks().0.iter().fold(0, |union, &e| union | u32::from_le_bytes(e))),
        8 => row.as_chunks().0.iter().fold(0, |union, &e| union | u64::from_le_bytes(e)),
        _ => row.chunks_exact(element_bytes).fold(0, |union, element| {
            let mut word = [0u8; 8];
            word[..element_bytes].copy_from_slice(element);
            union | u64::from_le_bytes(word)
        }),
    };
    (8 * low_bytes).saturating_sub(union.trailing_zeros() as usize) as u8
}

/// Bytes of one row segment of `cols` elements with `bits` stored bits each.
pub(crate) fn row_len(cols: usize, bits: usize) -> usize {
    (cols * bits).div_ceil(8)
}

/// Packs one row segment: the upper `bits` of every element's low field, lowest element first. `out` has [`row_len`] bytes.
pub(crate) fn pack_row(elements: &[u8], element_bytes: usize, low_bytes: usize, bits: usize, out: &mut [u8]) {
    match (element_bytes, low_bytes, bits) {
        (_, _, 0) => {}
        (4, 2, 16) => {
            for (to, element) in out.as_chunks_mut::<2>().0.iter_mut().zip(elements.as_chunks::<4>().0) {
                *to = [element[0], element[1]];
            }
        }
        (4, 2, _) => {
            pack(elements.as_chunks().0.iter().map(|&e| u64::from(u32::from_le_bytes(e) & 0xffff)), 16, bits, out)
        }
        (8, 6, _) => {
            pack(elements.as_chunks().0.iter().map(|&e| u64::from_le_bytes(e) & 0xffff_ffff_ffff), 48, bits, out)
        }
        _ => {
            let field = |element: &[u8]| {
                let mut word = [0u8; 8];
                word[..low_bytes].copy_from_slice(&element[..low_bytes]);
                u64::from_le_bytes(word)
            };
            pack(elements.chunks_exact(element_bytes).map(field), 8 * low_bytes, bits, out);
        }
    }
}

/// Packs the upper `bits`, at most 56, of fields of `of` bits.
fn pack(fields: impl Iterator<Item = u64>, of: usize, bits: usize, out: &mut [u8]) {
    let (mut pending, mut filled, mut at) = (0u64, 0, 0);
    for field in fields {
        let value = field >> (of - bits);
        pending |= value << filled;
        filled += bits;
        if filled >= 32 {
            // What did not fit into 64 bits is left in the value.
            let lost = filled.saturating_sub(64);
            out[at..at + 4].copy_from_slice(&(pending as u32).to_le_bytes());
            at += 4;
            pending >>= 32;
            filled -= 32;
            if lost > 0 {
                pending |= value >> (bits - lost) << 32;
            }
            if filled >= 32 {
                out[at..at + 4].copy_from_slice(&(pending as u32).to_le_bytes());
                at += 4;
                pending >>= 32;
                filled -= 32;
            }
        }
    }
    let rest = out.len() - at;
    out[at..].copy_from_slice(&pending.to_le_bytes()[..rest]);
}

/// Expands one row segment to `low_bytes` per element. `packed` has [`row_len`] bytes.
pub(crate) fn unpack_row(packed: &[u8], low_bytes: usize, bits: usize, out: &mut [u8]) {
    if bits == 8 * low_bytes {
        out.copy_from_slice(packed);
        return;
    }
    let field = |element: usize| {
        // At most 56 bits, from anywhere in a byte: 8 bytes hold them.
        let at = element * bits;
        let rest = &packed[at / 8..];
        let window = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut window = [0; 8];
            window[..rest.len()].copy_from_slice(rest);
            window
        });
        let value = (u64::from_le_bytes(window) >> (at % 8)) & ((1 << bits) - 1);
        value << (8 * low_bytes - bits)
    };
    if low_bytes == 2 {
        let elements = out.as_chunks_mut().0.iter_mut().enumerate();
        elements.for_each(|(i, element)| *element = (field(i) as u16).to_le_bytes());
    } else {
        let elements = out.chunks_exact_mut(low_bytes).enumerate();
        elements.for_each(|(i, element)| element.copy_from_slice(&field(i).to_le_bytes()[..low_bytes]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_come_back(low_bytes in 1usize..=7, bits in 0usize..=56, cols in 1usize..70, seed in any::<u64>()) {
            let bits = bits.min(8 * low_bytes);
            let element_bytes = low_bytes + 1;
            let mut row = Vec::new();
            let mut x = seed | 1;
            for _ in 0..cols {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let value = if bits == 0 { 0 } else { (x >> (64 - bits)) << (8 * low_bytes - bits) };
                row.extend_from_slice(&value.to_le_bytes()[..low_bytes]);
                row.push(7);
            }
            prop_assert!(usize::from(significant_bits(&row, element_bytes, low_bytes)) <= bits);
            let mut packed = vec![0; row_len(cols, bits)];
            pack_row(&row, element_bytes, low_bytes, bits, &mut packed);
            let mut out = vec![0xee; cols * low_bytes];
            unpack_row(&packed, low_bytes, bits, &mut out);
            let expected: Vec<u8> = row.chunks(element_bytes).flat_map(|e| e[..low_bytes].to_vec()).collect();
            prop_assert_eq!(out, expected);
        }
    }
}
