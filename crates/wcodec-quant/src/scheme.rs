//! A quantised matrix: what its codes are, and which scale and zero point each has.

use std::ops::Range;

use crate::QuantError;
use crate::arch::{Backend, Isa, Numbers, Span};
use crate::code::{self, Code, Order};
use crate::float::FloatType;

/// The greatest magnitude of a zero point: with it the difference to any code is exact in F32, also where an unsigned code is put
/// below 2^23 first.
pub const MAX_ZERO: i32 = 1 << 20;

/// Codes unpacked at a time; they stay in the first-level cache. A multiple of 8.
const PIECE: usize = 4096;

/// How a matrix of `rows` × `cols` is quantised. One scale holds for a block of `block[0]` rows × `block[1]` columns, which covers every
/// common layout:
///
/// | scales | block |
/// |---|---|
/// | one for the tensor | rows × cols |
/// | one for each row (output channel) | 1 × cols |
/// | one for each column | rows × 1 |
/// | groups of g columns in a row | 1 × g |
/// | groups of g rows in a column (GPTQ, AWQ) | g × 1 |
/// | blocks of 128 × 128 | 128 × 128 |
///
/// Blocks at the right and at the bottom may be smaller. Scales lie row by row of blocks. With [`Scheme::with_row_groups`] a row names its
/// row of blocks itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheme {
    rows: usize,
    cols: usize,
    code: Code,
    block: [usize; 2],
    /// ⌈rows / block rows⌉ × ⌈cols / block cols⌉ numbers.
    scales: Vec<f32>,
    /// As many integers of at most `MAX_ZERO`, or none.
    zeros: Vec<f32>,
    /// One per row, each a row of blocks; or none.
    row_groups: Vec<u32>,
}

impl Scheme {
    /// A matrix of `shape` (rows, columns) with `scales` for blocks of `block` (rows, columns), without zero points. A block may be
    /// larger than the matrix.
    ///
    /// # Errors
    /// [`QuantError::Multiple`] where the order of 4-bit codes needs another shape, [`QuantError::Length`] for another number of scales,
    /// [`QuantError::Unsupported`] for an empty block or a matrix beyond memory.
    pub fn new(shape: [usize; 2], code: Code, block: [usize; 2], scales: Vec<f32>) -> Result<Self, QuantError> {
        let [rows, cols] = shape;
        if block.contains(&0) {
            return Err(QuantError::Unsupported("a block of scales without rows or columns"));
        }
        if rows.checked_mul(cols).is_none_or(|n| n > isize::MAX as usize / 4) {
            return Err(QuantError::Unsupported("more elements than memory can hold"));
        }
        let (what, value, multiple) = match code.order() {
            Some(Order::Pairs) => ("the number of columns", cols, 2),
            Some(Order::Interleaved) => ("the number of columns", cols, 8),
            Some(Order::RowWords) => ("the number of rows", rows, 8),
            None => ("", 0, 1),
        };
        if !value.is_multiple_of(multiple) {
            return Err(QuantError::Multiple { what, value, multiple });
        }
        let block = [block[0].min(rows.max(1)), block[1].min(cols.max(1))];
        let expected = rows.div_ceil(block[0]) * cols.div_ceil(block[1]);
        if scales.len() != expected {
            return Err(QuantError::Length { what: "scales", expected, found: scales.len() });
        }
        Ok(Self { rows, cols, code, block, scales, zeros: Vec::new(), row_groups: Vec::new() })
    }

    /// The same with a zero point for each scale.
    ///
    /// # Errors
    /// [`QuantError::Length`], [`QuantError::Range`], [`QuantError::Unsupported`] for FP8.
    pub fn with_zeros(mut self, zeros: &[i32]) -> Result<Self, QuantError> {
        if !self.code.is_integer() {
            return Err(QuantError::Unsupported("zero points for FP8 codes"));
        }
        if zeros.len() != self.scales.len() {
            return Err(QuantError::Length { what: "zero points", expected: self.scales.len(), found: zeros.len() });
        }
        if let Some((index, &zero)) = zeros.iter().enumerate().find(|(_, z)| z.unsigned_abs() > MAX_ZERO as u32) {
            let (value, limit) = (zero.into(), MAX_ZERO.into());
            return Err(QuantError::Range { what: "zero point", index, value, limit });
        }
        self.zeros = zeros.iter().map(|&z| z as f32).collect();
        Ok(self)
    }

    /// The same with the row of blocks that each row belongs to (GPTQ's `g_idx`), instead of row ÷ block rows.
    ///
    /// # Errors
    /// [`QuantError::Length`], [`QuantError::Range`].
    pub fn with_row_groups(mut self, groups: Vec<u32>) -> Result<Self, QuantError> {
        if groups.len() != self.rows {
            return Err(QuantError::Length { what: "groups of rows", expected: self.rows, found: groups.len() });
        }
        let count = self.rows.div_ceil(self.block[0]);
        if let Some((index, &group)) = groups.iter().enumerate().find(|&(_, &g)| g as usize >= count) {
            let (value, limit) = (group.into(), count as i64 - 1);
            return Err(QuantError::Range { what: "group of row", index, value, limit });
        }
        self.row_groups = groups;
        Ok(self)
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// What the codes are.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Rows and columns that share a scale, no more than the matrix has.
    pub fn block(&self) -> [usize; 2] {
        self.block
    }

    /// The scales, row by row of blocks.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The zero points as numbers; empty where there are none.
    pub fn zeros(&self) -> &[f32] {
        &self.zeros
    }

    /// The row of blocks of every row; empty where it is row ÷ block rows.
    pub fn row_groups(&self) -> &[u32] {
        &self.row_groups
    }

    /// Blocks side by side.
    pub fn scale_cols(&self) -> usize {
        self.cols.div_ceil(self.block[1])
    }

    /// Bytes of all codes.
    pub fn code_bytes(&self) -> usize {
        self.rows * self.cols * self.code.bits() / 8
    }

    /// Dequantises rows `rows` into `out`, row by row, little-endian. `codes` are those of the whole matrix. Allocates nothing.
    ///
    /// # Errors
    /// [`QuantError::Length`] when `codes` or `out` has another length, [`QuantError::Range`] for rows that are not there.
    pub fn dequantize_rows(
        &self,
        codes: &[u8],
        rows: Range<usize>,
        float: FloatType,
        isa: Isa,
        out: &mut [u8],
    ) -> Result<(), QuantError> {
        if rows.start > rows.end || rows.end > self.rows {
            let (value, limit) = (rows.end as i64, self.rows as i64);
            return Err(QuantError::Range { what: "end of rows from", index: rows.start, value, limit });
        }
        let row_bytes = self.cols * float.bytes();
        for (what, expected, found) in
            [("bytes of codes", self.code_bytes(), codes.len()), ("bytes of output", rows.len() * row_bytes, out.len())]
        {
            if expected != found {
                return Err(QuantError::Length { what, expected, found });
            }
        }
        if row_bytes == 0 {
            return Ok(());
        }
        let backend = Backend::new(isa);
        let mut unpacked = [0; PIECE];
        for (row, out) in rows.zip(out.chunks_exact_mut(row_bytes)) {
            self.dequantize_row(backend, codes, row, float, out, &mut unpacked);
        }
        Ok(())
    }

    fn dequantize_row(
        &self,
        backend: Backend,
        codes: &[u8],
        row: usize,
        float: FloatType,
        out: &mut [u8],
        unpacked: &mut [u8; PIECE],
    ) {
        let group = self.row_groups.get(row).map_or(row / self.block[0], |&g| g as usize);
        let numbers = group * self.scale_cols()..(group + 1) * self.scale_cols();
        let scales = &self.scales[numbers.clone()];
        let zeros = if self.zeros.is_empty() { None } else { Some(&self.zeros[numbers]) };
        // Pieces begin on multiples of 4096 columns, so on whole words of any order.
        for (piece, out) in out.chunks_mut(PIECE * float.bytes()).enumerate() {
            let first = piece * PIECE;
            let len = out.len() / float.bytes();
            let codes = if self.code.bits() == 8 {
                &codes[row * self.cols + first..][..len]
            } else {
                code::unpack_row(self.code, codes, self.cols, row, first, &mut unpacked[..len]);
                &unpacked[..len]
            };
            let span = |codes, numbers| Span { code: self.code.widened(), codes, numbers, float };
            if self.block[1] == 1 {
                let part = first..first + len;
                let numbers = Numbers::Each(&scales[part.clone()], zeros.map(|z| &z[part]));
                backend.run(span(codes, numbers), out);
                continue;
            }
            // Runs of one scale.
            let (mut at, mut block) = (0, first / self.block[1]);
            while at < len {
                let end = ((block + 1) * self.block[1] - first).min(len);
                let numbers = Numbers::One(scales[block], zeros.map_or(0.0, |z| z[block]));
                backend.run(span(&codes[at..end], numbers), &mut out[at * float.bytes()..end * float.bytes()]);
                (at, block) = (end, block + 1);
            }
        }
    }
}
