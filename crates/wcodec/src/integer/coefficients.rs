//! The order in which a superblock's residuals and coefficients stand in its bitplanes.

use wcodec_predict::{Intra, Tile, TileGrid, TileSize};
use wcodec_rans::superblock::Shape;
use wcodec_transform::{BLOCK_LEN, Transform, ZIGZAG, forward, inverse};

/// Side of a transform block.
const SIDE: usize = 8;
const MODES: u8 = Intra::ALL.len() as u8;
/// Tile codes below this are valid.
#[cfg(test)]
const TILE_CODES: u8 = MODES * Transform::ALL.len() as u8;

/// How one tile is predicted and transformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TileChoice {
    pub(crate) mode: Intra,
    pub(crate) transform: Transform,
}

impl TileChoice {
    /// The byte in the side information: `mode + 7 · transform`.
    pub(crate) fn code(self) -> u8 {
        self.mode.code() + MODES * self.transform.code()
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Some(Self { mode: Intra::from_code(code % MODES).ok()?, transform: Transform::from_code(code / MODES).ok()? })
    }
}

/// Whether a tile may be transformed: it is full, and whole blocks fill it.
pub(crate) fn is_transformable(tile: &Tile, size: TileSize) -> bool {
    size.get() >= SIDE && tile.height == size.get() && tile.width == size.get()
}

/// The coefficient order of one superblock: first all blocks of transformed tiles together, by rising frequency (zigzag) and for
/// each frequency block by block; then the residuals of the other tiles, tile by tile, row by row.
pub(crate) struct CoefficientOrder {
    width: usize,
    /// Transformed blocks: index of the first sample.
    blocks: Vec<(usize, Transform)>,
    plain: Vec<Tile>,
}

impl CoefficientOrder {
    /// The order for these tiles, `None` if a tile is transformed that cannot be.
    pub(crate) fn new(shape: Shape, size: TileSize, choices: impl IntoIterator<Item = TileChoice>) -> Option<Self> {
        let (mut blocks, mut plain) = (Vec::new(), Vec::new());
        for (tile, choice) in TileGrid::new(shape.rows(), shape.cols(), size).iter().zip(choices) {
            if choice.transform == Transform::Identity {
                plain.push(tile);
            } else if is_transformable(&tile, size) {
                let corner = |by: usize, bx: usize| (tile.row + by * SIDE) * shape.cols() + tile.col + bx * SIDE;
                let n = size.get() / SIDE;
                blocks.extend((0..n * n).map(|b| (corner(b / n, b % n), choice.transform)));
            } else {
                return None;
            }
        }
        Some(Self { width: shape.cols(), blocks, plain })
    }

    /// Coefficients of `residuals` (row by row), in order; appends to `out`.
    pub(crate) fn forward(&self, residuals: &[u8], out: &mut Vec<i32>) {
        let (start, count) = (out.len(), self.blocks.len());
        out.resize(start + count * BLOCK_LEN, 0);
        let coefficients = &mut out[start..];
        for (b, &(corner, transform)) in self.blocks.iter().enumerate() {
            let mut block: [i32; BLOCK_LEN] =
                std::array::from_fn(|i| i32::from(residuals[corner + i / SIDE * self.width + i % SIDE] as i8));
            forward(transform, &mut block);
            for (f, &i) in ZIGZAG.iter().enumerate() {
                coefficients[f * count + b] = block[usize::from(i)];
            }
        }
        for t in &self.plain {
            for row in t.row..t.row + t.height {
                let at = row * self.width + t.col;
                out.extend(residuals[at..at + t.width].iter().map(|&r| i32::from(r as i8)));
            }
        }
    }

    /// Residuals from coefficients in order. Exact for what [`CoefficientOrder::forward`] gave; otherwise the nearest value that
    /// a residual can have.
    pub(crate) fn inverse(&self, coefficients: &[i32], residuals: &mut [u8]) {
        let clamp = |v: i32| v.clamp(-128, 127) as u8;
        let count = self.blocks.len();
        for (b, &(corner, transform)) in self.blocks.iter().enumerate() {
            let mut block = [0; BLOCK_LEN];
            for (f, &i) in ZIGZAG.iter().enumerate() {
                block[usize::from(i)] = coefficients[f * count + b];
            }
            inverse(transform, &mut block);
            for (i, &v) in block.iter().enumerate() {
                residuals[corner + i / SIDE * self.width + i % SIDE] = clamp(v);
            }
        }
        let mut plain = coefficients[count * BLOCK_LEN..].iter();
        for t in &self.plain {
            for row in t.row..t.row + t.height {
                let at = row * self.width + t.col;
                residuals[at..at + t.width].iter_mut().zip(&mut plain).for_each(|(r, &v)| *r = clamp(v));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tile_codes_are_dense() {
        for code in 0..=255 {
            match TileChoice::from_code(code) {
                Some(choice) => assert_eq!(choice.code(), code),
                None => assert!(code >= TILE_CODES),
            }
        }
        assert!(TileChoice::from_code(TILE_CODES - 1).is_some());
    }

    #[test]
    fn the_same_frequency_of_all_blocks_is_adjacent() {
        let (shape, size) = (Shape::new(24, 24).unwrap(), TileSize::default());
        let residuals: Vec<u8> = (0..24 * 24).map(|i| (i * i / 7) as u8).collect();
        let dct = |index| {
            let transform = if index == 0 { Transform::Dct } else { Transform::Identity };
            TileChoice { mode: Intra::None, transform }
        };
        let order = CoefficientOrder::new(shape, size, (0..4).map(dct)).unwrap();
        let mut out = Vec::new();
        order.forward(&residuals, &mut out);
        assert_eq!(out.len(), 24 * 24);
        let mut second: [i32; 64] = std::array::from_fn(|i| i32::from(residuals[i / 8 * 24 + i % 8 + 8] as i8));
        forward(Transform::Dct, &mut second);
        assert_eq!((out[1], out[5], out[9]), (second[0], second[1], second[8]));
        assert_eq!(out[256], i32::from(residuals[16] as i8));
        let mut back = vec![0; residuals.len()];
        order.inverse(&out, &mut back);
        assert_eq!(back, residuals);
        assert!(CoefficientOrder::new(shape, size, (1..5).map(|i| dct(i % 4))).is_none(), "the last tile is ragged");
    }
}
