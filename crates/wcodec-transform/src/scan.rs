//! The order in which coefficients are written.

use crate::block::BLOCK_LEN;

/// Zigzag scan: `ZIGZAG[i]` is the row-major index of the `i`-th coefficient, by rising frequency.
///
/// Anti-diagonals from the first coefficient to the last, alternating direction; the first step goes right. The order
/// is JPEG's (ITU-T T.81, figure 5).
#[rustfmt::skip]
pub const ZIGZAG: [u8; BLOCK_LEN] = [
     0,  1,  8, 16,  9,  2,  3, 10,
    17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34,
    27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36,
    29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46,
    53, 60, 61, 54, 47, 55, 62, 63,
];

/// The coefficients of a block in zigzag order.
///
/// ```
/// use wcodec_transform::{from_zigzag, to_zigzag};
/// let block: [i32; 64] = std::array::from_fn(|i| i as i32);
/// assert_eq!(to_zigzag(&block)[..4], [0, 1, 8, 16]);
/// assert_eq!(from_zigzag(&to_zigzag(&block)), block);
/// ```
pub fn to_zigzag(block: &[i32; BLOCK_LEN]) -> [i32; BLOCK_LEN] {
    ZIGZAG.map(|i| block[usize::from(i)])
}

/// Undoes [`to_zigzag`].
pub fn from_zigzag(scanned: &[i32; BLOCK_LEN]) -> [i32; BLOCK_LEN] {
    let mut block = [0; BLOCK_LEN];
    for (&i, &coefficient) in ZIGZAG.iter().zip(scanned) {
        block[usize::from(i)] = coefficient;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::ZIGZAG;

    #[test]
    fn walks_the_diagonals_in_turn() {
        let mut want = Vec::new();
        for diagonal in 0..15usize {
            let rows = diagonal.saturating_sub(7)..=diagonal.min(7);
            let mut cells: Vec<usize> = rows.map(|r| r * 8 + (diagonal - r)).collect();
            if diagonal % 2 == 0 {
                cells.reverse();
            }
            want.extend(cells);
        }
        assert!(ZIGZAG.iter().map(|&i| usize::from(i)).eq(want));
    }
}
