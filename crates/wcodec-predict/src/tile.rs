//! Tiles of a region, and the samples around them.

use crate::error::{Error, Result};

/// Largest side of a tile.
pub(crate) const MAX_SIDE: usize = 64;

/// Side of a tile: 4, 8, 16 (the default), 32 or 64 samples.
///
/// A power of two, because PLANAR divides by it.
///
/// ```
/// use wcodec_predict::TileSize;
/// assert_eq!(TileSize::default().get(), 16);
/// assert_eq!(TileSize::new(32)?.log2(), 5);
/// assert!(TileSize::new(12).is_err());
/// # Ok::<(), wcodec_predict::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TileSize {
    /// 2 to 6.
    log2: u8,
}

impl TileSize {
    /// A tile of `size` × `size` samples.
    ///
    /// # Errors
    /// [`Error::TileSize`] unless `size` is 4, 8, 16, 32 or 64.
    pub const fn new(size: u32) -> Result<Self> {
        match size {
            4 | 8 | 16 | 32 | 64 => Ok(Self { log2: size.trailing_zeros() as u8 }),
            _ => Err(Error::TileSize { size }),
        }
    }

    /// Samples on a side.
    pub const fn get(self) -> usize {
        1 << self.log2
    }

    /// log2 of the side.
    pub const fn log2(self) -> u32 {
        self.log2 as u32
    }
}

impl Default for TileSize {
    fn default() -> Self {
        Self { log2: 4 }
    }
}

/// A view of `rows` × `cols` samples whose rows lie `stride` samples apart.
#[derive(Debug, Clone, Copy)]
pub struct Plane<'a> {
    /// At least `(rows − 1) · stride + cols` samples, or none needed if the plane is empty; `cols <= stride`.
    samples: &'a [u8],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a> Plane<'a> {
    /// A view of `samples`.
    ///
    /// # Errors
    /// [`Error::Stride`] if rows overlap, [`Error::SampleCount`] if `samples` is too short, [`Error::TooLarge`] if the
    /// length overflows.
    pub fn new(samples: &'a [u8], rows: usize, cols: usize, stride: usize) -> Result<Self> {
        let needed = span(rows, cols, stride)?;
        if samples.len() < needed {
            return Err(Error::SampleCount { needed, present: samples.len() });
        }
        Ok(Self { samples, rows, cols, stride })
    }

    /// Number of rows.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// Samples `cols` of row `row`, or `None` outside the plane.
    pub fn row(&self, row: usize, cols: std::ops::Range<usize>) -> Option<&'a [u8]> {
        if row >= self.rows || cols.end > self.cols {
            return None;
        }
        self.samples[row * self.stride..].get(cols)
    }

    /// One sample, or `None` outside the plane.
    pub fn get(&self, row: usize, col: usize) -> Option<u8> {
        Some(self.row(row, col..col.checked_add(1)?)?[0])
    }
}

/// Samples from the first of the first row to the last of the last row.
pub(crate) fn span(rows: usize, cols: usize, stride: usize) -> Result<usize> {
    if stride < cols {
        return Err(Error::Stride { stride, cols });
    }
    if rows == 0 || cols == 0 {
        return Ok(0);
    }
    let last = (rows - 1).checked_mul(stride).and_then(|last| last.checked_add(cols));
    last.ok_or(Error::TooLarge { rows, stride })
}

/// A tile within its region; ragged tiles at the right and lower edge are smaller than the tile size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Position in the order of [`TileGrid::iter`].
    pub index: usize,
    /// First row.
    pub row: usize,
    /// First column.
    pub col: usize,
    /// Rows, at least 1.
    pub height: usize,
    /// Columns, at least 1.
    pub width: usize,
}

/// The tiles of a region of `rows` × `cols` samples.
///
/// ```
/// use wcodec_predict::{TileGrid, TileSize};
/// let grid = TileGrid::new(20, 40, TileSize::default());
/// assert_eq!(grid.len(), 2 * 3);
/// let last = grid.iter().last().unwrap();
/// assert_eq!((last.row, last.col, last.height, last.width), (16, 32, 4, 8));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileGrid {
    rows: usize,
    cols: usize,
    size: TileSize,
}

impl TileGrid {
    /// The grid of a region; one without rows or columns has no tiles.
    pub const fn new(rows: usize, cols: usize, size: TileSize) -> Self {
        Self { rows, cols, size }
    }

    /// Number of tiles; saturates where a region could not exist in memory.
    pub const fn len(&self) -> usize {
        self.rows.div_ceil(self.size.get()).saturating_mul(self.tiles_across())
    }

    /// Whether there is no tile.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tiles in one row of tiles.
    pub const fn tiles_across(&self) -> usize {
        self.cols.div_ceil(self.size.get())
    }

    /// The side of a full tile.
    pub const fn tile_size(&self) -> TileSize {
        self.size
    }

    /// Tiles in raster order: left to right, then top to bottom.
    pub fn iter(&self) -> impl Iterator<Item = Tile> + use<> {
        let (grid, n, across) = (*self, self.size.get(), self.tiles_across());
        (0..self.len()).map(move |index| {
            let (row, col) = (index / across * n, index % across * n);
            Tile { index, row, col, height: n.min(grid.rows - row), width: n.min(grid.cols - col) }
        })
    }
}

/// The samples beside a tile: the row above, the column on the left, the corner between them.
///
/// Outside the plane, which is the superblock, samples are 0: superblocks decode without one another. Entries beyond the
/// tile's own width and height are 0 too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbours {
    /// The row above, left to right.
    pub top: [u8; MAX_SIDE],
    /// The column on the left, top to bottom.
    pub left: [u8; MAX_SIDE],
    /// The sample above the column on the left.
    pub corner: u8,
}

impl Neighbours {
    /// The samples around `tile` in `plane`. Only rows above and columns to the left of the tile are read.
    pub fn of(plane: &Plane<'_>, tile: &Tile) -> Self {
        let mut around = Self { top: [0; MAX_SIDE], left: [0; MAX_SIDE], corner: 0 };
        let above = tile.row.checked_sub(1);
        let before = tile.col.checked_sub(1);
        let (height, width) = (tile.height.min(MAX_SIDE), tile.width.min(MAX_SIDE));
        if let Some(row) = above.and_then(|r| plane.row(r, tile.col..tile.col.saturating_add(width))) {
            around.top[..width].copy_from_slice(row);
        }
        if let Some(col) = before {
            for (i, sample) in around.left[..height].iter_mut().enumerate() {
                *sample = plane.get(tile.row.saturating_add(i), col).unwrap_or(0);
            }
        }
        if let (Some(row), Some(col)) = (above, before) {
            around.corner = plane.get(row, col).unwrap_or(0);
        }
        around
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_powers_of_two_from_4_to_64() {
        let valid: Vec<u32> = (0..300).filter(|&n| TileSize::new(n).is_ok()).collect();
        assert_eq!(valid, [4, 8, 16, 32, 64]);
        assert!(valid.iter().all(|&n| TileSize::new(n).unwrap().get() == n as usize));
    }

    #[test]
    fn planes_check_their_bounds() {
        let samples = [0; 10];
        assert!(Plane::new(&samples, 3, 2, 4).is_ok());
        assert_eq!(Plane::new(&samples, 3, 3, 4).unwrap_err(), Error::SampleCount { needed: 11, present: 10 });
        assert_eq!(Plane::new(&samples, 1, 5, 4).unwrap_err(), Error::Stride { stride: 4, cols: 5 });
        assert_eq!(
            Plane::new(&samples, usize::MAX, 4, 4).unwrap_err(),
            Error::TooLarge { rows: usize::MAX, stride: 4 }
        );
        assert!(Plane::new(&[], 0, 4, 4).unwrap().get(0, 0).is_none());
        let plane = Plane::new(&samples, 3, 2, 4).unwrap();
        assert!(plane.get(2, 1).is_some() && plane.get(2, 2).is_none() && plane.get(3, 0).is_none());
        assert!(plane.get(0, usize::MAX).is_none());
    }

    #[test]
    fn neighbours_default_to_zero_at_the_edges() {
        let samples: Vec<u8> = (1..=100).collect();
        let plane = Plane::new(&samples, 10, 9, 10).unwrap();
        let tiles: Vec<Tile> = TileGrid::new(10, 9, TileSize::new(4).unwrap()).iter().collect();
        let first = Neighbours::of(&plane, &tiles[0]);
        assert_eq!((first.top, first.left, first.corner), ([0; 64], [0; 64], 0));
        let right = Neighbours::of(&plane, &tiles[1]);
        assert_eq!((&right.top[..4], &right.left[..5], right.corner), (&[0; 4][..], &[4, 14, 24, 34, 0][..], 0));
        let last = Neighbours::of(&plane, &tiles[8]);
        assert_eq!((&last.top[..2], &last.left[..3], last.corner), (&[79, 0][..], &[88, 98, 0][..], 78));
    }

    proptest! {
        #[test]
        fn tiles_cover_every_sample_once(rows in 0usize..150, cols in 0usize..150, log2 in 2u32..7) {
            let size = TileSize::new(1 << log2).unwrap();
            let grid = TileGrid::new(rows, cols, size);
            let mut seen = vec![0; rows * cols];
            for (i, tile) in grid.iter().enumerate() {
                prop_assert_eq!(tile.index, i);
                prop_assert!((1..=size.get()).contains(&tile.height) && (1..=size.get()).contains(&tile.width));
                for r in tile.row..tile.row + tile.height {
                    for c in tile.col..tile.col + tile.width {
                        seen[r * cols + c] += 1;
                    }
                }
            }
            prop_assert_eq!(grid.iter().count(), grid.len());
            prop_assert!(seen.iter().all(|&n| n == 1));
        }
    }
}
