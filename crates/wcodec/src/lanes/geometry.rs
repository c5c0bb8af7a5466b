//! A tensor as rows × columns, and its superblocks.

use wcodec_rans::LANES;
use wcodec_rans::superblock::Shape;

/// Widest view in bytes: a strip of superblocks has to fit a thread's buffer.
const MAX_ROW_BYTES: u64 = 256 << 10;
/// Narrow tensors are folded into views of up to this many columns that keep whole rows together.
const MAX_FOLDED_COLS: u64 = 4096;

/// How the elements of a tensor are laid out in superblocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Rows of the view.
    pub(crate) rows: usize,
    /// Columns of the view.
    pub(crate) cols: usize,
    /// Elements behind the last whole row; stored as they are.
    pub(crate) rest: usize,
    /// Bytes of an element.
    pub(crate) element_bytes: usize,
    /// Rows of a superblock.
    pub(crate) block_rows: usize,
    /// Strips (rows of superblocks) of a chunk.
    pub(crate) strips_per_chunk: usize,
}

/// Superblocks of a chunk that has more than one strip.
const CHUNK_BLOCKS: usize = 128;

impl Geometry {
    /// The view of a tensor of `elements`, whose rows have `natural_cols`.
    ///
    /// Rows of a multiple of 64 columns, and long rows, stay as they are. Short ones are folded: as many rows side by side as make
    /// whole lanes, so that a lane still sees one column of the tensor; failing that, 64 elements in a row.
    pub(crate) fn choose(elements: u64, natural_cols: u64, element_bytes: usize, block_rows: usize) -> Option<Self> {
        let lanes = LANES as u64;
        let fits = |cols: u64| cols * element_bytes as u64 <= MAX_ROW_BYTES;
        let folded = natural_cols.max(1) / gcd(natural_cols.max(1), lanes) * lanes;
        let cols = if natural_cols >= lanes
            && fits(natural_cols)
            && (natural_cols.is_multiple_of(lanes) || natural_cols >= 16 * lanes)
        {
            natural_cols
        } else if folded <= MAX_FOLDED_COLS && elements / folded >= 64 {
            folded
        } else {
            lanes
        };
        let rows = usize::try_from(elements / cols).ok()?;
        Self::new(rows, cols as usize, (elements % cols) as usize, element_bytes, block_rows)
    }

    fn new(rows: usize, cols: usize, rest: usize, element_bytes: usize, block_rows: usize) -> Option<Self> {
        let blocks_across = cols.div_ceil(LANES);
        let strips_per_chunk = (CHUNK_BLOCKS * 64 / block_rows / blocks_across).max(1);
        (rows > 0).then_some(Self { rows, cols, rest, element_bytes, block_rows, strips_per_chunk })
    }

    /// The view that a directory entry describes, if it is consistent and no larger than `payload_len` allows.
    pub(crate) fn from_parts(
        elements: u64,
        cols: u64,
        element_bytes: usize,
        block_rows: usize,
        strips_per_chunk: u64,
        payload_len: u64,
    ) -> Option<Self> {
        if cols == 0 || cols > MAX_ROW_BYTES / element_bytes as u64 || strips_per_chunk == 0 {
            return None;
        }
        Shape::new(block_rows, 1).ok()?;
        let rows = usize::try_from(elements / cols).ok()?;
        let strips_per_chunk = usize::try_from(strips_per_chunk).ok()?;
        let geometry = Self {
            rows,
            cols: cols as usize,
            rest: (elements % cols) as usize,
            element_bytes,
            block_rows,
            strips_per_chunk,
        };
        // Every lane of every superblock stores a state: the bytes bound the blocks, and so the memory for them.
        let states = (geometry.strips() as u64).checked_mul(4 * cols)?;
        (rows > 0 && states <= payload_len).then_some(geometry)
    }

    pub(crate) fn strips(&self) -> usize {
        self.rows.div_ceil(self.block_rows)
    }

    pub(crate) fn blocks_across(&self) -> usize {
        self.cols.div_ceil(LANES)
    }

    pub(crate) fn blocks(&self) -> usize {
        self.strips() * self.blocks_across()
    }

    pub(crate) fn chunks(&self) -> usize {
        self.strips().div_ceil(self.strips_per_chunk)
    }

    pub(crate) fn row_bytes(&self) -> usize {
        self.cols * self.element_bytes
    }

    /// Strips of chunk `chunk`.
    pub(crate) fn chunk_strips(&self, chunk: usize) -> std::ops::Range<usize> {
        let first = chunk * self.strips_per_chunk;
        first..(first + self.strips_per_chunk).min(self.strips())
    }

    /// Rows of strip `strip`.
    pub(crate) fn strip_rows(&self, strip: usize) -> std::ops::Range<usize> {
        let first = strip * self.block_rows;
        first..(first + self.block_rows).min(self.rows)
    }

    /// Rows of chunk `chunk`.
    pub(crate) fn chunk_rows(&self, chunk: usize) -> std::ops::Range<usize> {
        let strips = self.chunk_strips(chunk);
        strips.start * self.block_rows..(strips.end * self.block_rows).min(self.rows)
    }

    /// Decoded bytes of chunk `chunk`; the last one has the rest.
    pub(crate) fn chunk_bytes(&self, chunk: usize) -> usize {
        let rest = if chunk + 1 == self.chunks() { self.rest * self.element_bytes } else { 0 };
        self.chunk_rows(chunk).len() * self.row_bytes() + rest
    }

    /// Columns of block `block` of a strip.
    pub(crate) fn block_cols(&self, block: usize) -> std::ops::Range<usize> {
        let first = block * LANES;
        first..(first + LANES).min(self.cols)
    }

    /// Shape of block `block` of strip `strip`.
    pub(crate) fn shape(&self, strip: usize, block: usize) -> Shape {
        Shape::new(self.strip_rows(strip).len(), self.block_cols(block).len()).expect("a block within the view")
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_cover_every_element_once() {
        for (elements, cols) in [
            (64, 1),
            (65, 1),
            (4096, 64),
            (1000 * 384, 384),
            (12_345, 7),
            (64 * 1000, 1000),
            (130 * 48, 48),
            (200_000, 200_000),
        ] {
            let Some(g) = Geometry::choose(elements, cols, 2, 64) else { panic!("{elements} {cols}") };
            assert_eq!((g.rows * g.cols + g.rest) as u64, elements);
            assert!(g.rest < g.cols);
            let bytes: usize = (0..g.chunks()).map(|c| g.chunk_bytes(c)).sum();
            assert_eq!(bytes as u64, 2 * elements);
            let covered: usize =
                (0..g.strips()).flat_map(|s| (0..g.blocks_across()).map(move |b| g.shape(s, b).elements())).sum();
            assert_eq!(covered, g.rows * g.cols);
        }
        assert!(Geometry::choose(63, 1, 2, 64).is_none());
        assert_eq!(Geometry::choose(4096 * 48, 48, 2, 64).unwrap().cols, 192);
    }
}
