//! The bytes below the head of wide elements, with as many bits per row as the row uses.
//!
//! Trained F32 checkpoints often hold rows that came from 16-bit ones: their low bits are zero. A row that needs only its upper b low
//! bits stores b bits per element.

/// Bits of the low field (`low_bytes` per element) that `row` needs: all above the lowest one that any element has set.
pub(crate) fn significant_bits(row: &[u8], element_bytes: usize, low_bytes: usize) -> u8 {
    let mut union = 0u64;
    for element in row.chunks_exact(element_bytes) {
        let mut word = [0u8; 8];
        word[..low_bytes].copy_from_slice(&element[..low_bytes]);
        union |= u64::from_le_bytes(word);
    }
    if union == 0 { 0 } else { (8 * low_bytes) as u8 - union.trailing_zeros() as u8 }
}

/// Bytes of one row segment of `cols` elements with `bits` stored bits each.
pub(crate) fn row_len(cols: usize, bits: usize) -> usize {
    (cols * bits).div_ceil(8)
}

/// Appends one row segment: the upper `bits` of every element's low field, lowest element first.
pub(crate) fn pack_row(elements: &[u8], element_bytes: usize, low_bytes: usize, bits: usize, out: &mut Vec<u8>) {
    if bits == 8 * low_bytes {
        out.extend(elements.chunks_exact(element_bytes).flat_map(|e| &e[..low_bytes]));
        return;
    }
    let (mut pending, mut filled) = (0u128, 0);
    for element in elements.chunks_exact(element_bytes) {
        let mut word = [0u8; 8];
        word[..low_bytes].copy_from_slice(&element[..low_bytes]);
        let value = u64::from_le_bytes(word) >> (8 * low_bytes - bits);
        pending |= u128::from(value) << filled;
        filled += bits;
        while filled >= 8 {
            out.push(pending as u8);
            pending >>= 8;
            filled -= 8;
        }
    }
    if filled > 0 {
        out.push(pending as u8);
    }
}

/// Expands one row segment to `low_bytes` per element. `packed` has [`row_len`] bytes.
pub(crate) fn unpack_row(packed: &[u8], low_bytes: usize, bits: usize, out: &mut [u8]) {
    if bits == 8 * low_bytes {
        out.copy_from_slice(packed);
        return;
    }
    let (mut pending, mut filled, mut next) = (0u128, 0, packed.iter());
    for element in out.chunks_exact_mut(low_bytes) {
        while filled < bits {
            pending |= u128::from(*next.next().unwrap_or(&0)) << filled;
            filled += 8;
        }
        let value = (pending & ((1u128 << bits) - 1)) as u64;
        pending >>= bits;
        filled -= bits;
        element.copy_from_slice(&(value << (8 * low_bytes - bits)).to_le_bytes()[..low_bytes]);
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
            let mut packed = Vec::new();
            pack_row(&row, element_bytes, low_bytes, bits, &mut packed);
            prop_assert_eq!(packed.len(), row_len(cols, bits));
            let mut out = vec![0xee; cols * low_bytes];
            unpack_row(&packed, low_bytes, bits, &mut out);
            let expected: Vec<u8> = row.chunks(element_bytes).flat_map(|e| e[..low_bytes].to_vec()).collect();
            prop_assert_eq!(out, expected);
        }
    }
}
