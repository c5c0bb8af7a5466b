//! Which matrices a GPU decodes and multiplies piece by piece.

use std::ops::Range;

use candle_core::DType;

/// What a matrix takes at least to be cut, as a part of all weights: smaller ones do not make the memory much larger, and one
/// multiplication is faster than two.
const SHARE: u64 = 40;
/// What slabs begin at multiples of, so that superblocks are decoded once.
const STEP: usize = 64;

/// Cuts a matrix of `rows` × `cols` elements, `bytes` as it is stored, that is computed in `compute`, where its model's weights take `total`
/// bytes.
///
/// A product must not depend on the cut. cuBLAS adds up an element of a product in one order for all large matrices of two-byte floats, and
/// in others, with the inner dimension in parts, where there are too few rows to keep a GPU busy. On an H100 (CUDA 13, 1 to 512 columns of
/// the other factor) slabs of any height gave the bits of the whole up to 2048 columns, and slabs of more than 4096 rows at 4096 columns. In
/// F32 the order changes with every height, so those stay whole.
pub(super) fn cut(rows: usize, cols: usize, bytes: u64, compute: DType, total: u64) -> Vec<Range<usize>> {
    let least = if cols <= 2048 { 4096 } else { 8192 };
    let slabs = match compute {
        DType::BF16 | DType::F16 if bytes > total / SHARE => (rows / least).max(1),
        _ => 1,
    };
    // The last one is the highest.
    let height = rows / slabs / STEP * STEP;
    let end = |slab: usize| if slab == slabs { rows } else { slab * height };
    (0..slabs).map(|slab| end(slab)..end(slab + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_cover_the_rows_and_none_is_lower_than_it_must_be() {
        for rows in [0, 1, 63, 4095, 4096, 8191, 8193, 12_289, 32_000, 49_152, 128_256, 151_936] {
            for cols in [64, 2048, 2049, 8192] {
                let bytes = 2 * (rows * cols) as u64;
                for total in [bytes, 39 * bytes, 41 * bytes] {
                    let slabs = cut(rows, cols, bytes, DType::BF16, total);
                    let ends: Vec<usize> = slabs.iter().map(|slab| slab.end).collect();
                    let starts: Vec<usize> = slabs.iter().map(|slab| slab.start).collect();
                    assert_eq!((starts[0], *ends.last().unwrap()), (0, rows));
                    assert_eq!(starts[1..], ends[..ends.len() - 1]);
                    let least = if cols <= 2048 { 4096 } else { 8192 };
                    assert!(
                        slabs.len() == 1 || slabs.iter().all(|slab| (least..2 * least + 64 * 64).contains(&slab.len()))
                    );
                    assert!(slabs.len() == 1 || total < 40 * bytes);
                    assert_eq!(cut(rows, cols, bytes, DType::F32, total), [0..rows]);
                }
            }
        }
    }
}
