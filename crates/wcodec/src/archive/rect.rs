//! Rows and rectangles.

use std::ops::Range;

use super::{Decoder, Scratch, Tensor};
use crate::error::{Error, Result};

impl Tensor<'_> {
    /// Rows `rows` of the tensor, decoding only the superblocks (or frames) that hold them.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for rows that are not there or a dtype whose rows are no whole bytes; else as
    /// [`Tensor::decode_into`].
    pub fn rows(&self, rows: Range<u64>) -> Result<Vec<u8>> {
        self.rect(rows, 0..self.col_count())
    }

    /// The rectangle `rows` × `cols` of the tensor as a matrix (first dimension × the others), row by row.
    ///
    /// Chunks of which only a part is decoded are checked by the CRC of their stored bytes.
    ///
    /// # Errors
    /// As [`Tensor::rows`].
    pub fn rect(&self, rows: Range<u64>, cols: Range<u64>) -> Result<Vec<u8>> {
        let mut out = vec![0; self.rect_len(&rows, &cols)?];
        self.rect_into(rows, cols, &mut out, &mut Scratch::default())?;
        Ok(out)
    }

    /// As [`Tensor::rect`], into `out`, on the calling thread.
    ///
    /// # Errors
    /// As [`Tensor::rows`]; [`Error::BadArgument`] unless `out` is as large as the rectangle.
    pub fn rect_into(&self, rows: Range<u64>, cols: Range<u64>, out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
        let len = self.rect_len(&rows, &cols)?;
        if out.len() != len {
            let (name, given) = (self.name(), out.len());
            return Err(Error::BadArgument(format!("tensor `{name}`: rectangle of {len} bytes, buffer of {given}")));
        }
        if out.is_empty() {
            return Ok(());
        }
        let col_count = self.col_count();
        let element = out.len() / ((rows.end - rows.start) * (cols.end - cols.start)) as usize;
        let [rows, cols] = [rows, cols].map(|r| r.start as usize..r.end as usize);
        let row_bytes = col_count as usize * element;
        if let Some(bytes) = self.pooled_bytes() {
            copy_rows(bytes, 0..bytes.len(), row_bytes, &rows, cols.start * element..cols.end * element, out);
            return Ok(());
        }
        let mut start = 0usize;
        for chunk in 0..self.chunks() {
            let bytes = start..start + self.chunk_len(chunk) as usize;
            start = bytes.end;
            if bytes.end <= rows.start * row_bytes || bytes.start >= rows.end * row_bytes {
                continue;
            }
            match &self.decoder {
                Decoder::Lanes(lanes) if lanes.params.geometry.cols == col_count as usize => {
                    let held = lanes.params.geometry.chunk_rows(chunk);
                    let wanted = held.start.max(rows.start)..held.end.min(rows.end);
                    let stride = cols.len() * element;
                    let to = (wanted.start - rows.start) * stride..(wanted.end - rows.start) * stride;
                    let stored = self.checked_chunk(chunk)?;
                    let (offset, part) = (self.extents[chunk].offset, [wanted, cols.clone()]);
                    lanes.decode_rect(chunk, stored, offset, part, &mut out[to], &mut scratch.lanes)?;
                }
                Decoder::Integer(integer) if integer.params.geometry.cols == col_count as usize => {
                    let held = integer.params.geometry.chunk_rows(chunk);
                    let wanted = held.start.max(rows.start)..held.end.min(rows.end);
                    let stride = cols.len() * element;
                    let to = (wanted.start - rows.start) * stride..(wanted.end - rows.start) * stride;
                    let offset = self.extents[chunk].offset;
                    let (stored, part) = (self.checked_chunk(chunk)?, [wanted, cols.clone()]);
                    integer.decode_rect(chunk, stored, offset, part, &mut out[to], &mut scratch.integer)?;
                }
                _ => {
                    let mut whole = std::mem::take(&mut scratch.chunk);
                    whole.resize(bytes.len(), 0);
                    let decoded = self.decode_chunk(chunk, &mut whole, scratch);
                    copy_rows(&whole, bytes, row_bytes, &rows, cols.start * element..cols.end * element, out);
                    scratch.chunk = whole;
                    decoded?;
                }
            }
        }
        Ok(())
    }

    /// Bytes of a rectangle, after checking that it is there.
    fn rect_len(&self, rows: &Range<u64>, cols: &Range<u64>) -> Result<usize> {
        let (row_count, col_count) = (self.row_count(), self.col_count());
        if rows.start > rows.end || rows.end > row_count || cols.start > cols.end || cols.end > col_count {
            return Err(Error::BadArgument(format!(
                "tensor `{}` is {row_count} × {col_count}; there is no rectangle {rows:?} × {cols:?}",
                self.name()
            )));
        }
        let Some(element) = self.dtype().bits().filter(|b| b % 8 == 0).map(|b| (b / 8) as usize) else {
            return Err(Error::BadArgument(format!("tensor `{}`: elements are no whole bytes", self.name())));
        };
        self.checked_len()?;
        Ok((rows.end - rows.start) as usize * (cols.end - cols.start) as usize * element)
    }

    /// The stored bytes of a chunk of which a part is to be decoded, checked by their CRC.
    fn checked_chunk(&self, chunk: usize) -> Result<&[u8]> {
        let what = || format!("tensor `{}`, chunk {chunk}", self.name());
        Ok(self.reader().verified_bytes(self.extents[chunk], self.entry().chunks[chunk].crc32_compressed, what)?)
    }
}

/// Copies what `part` (bytes `at` of a matrix with `row_bytes` per row) holds of `rows` × `within` (bytes of a row) into the dense `out`.
fn copy_rows(
    part: &[u8],
    at: Range<usize>,
    row_bytes: usize,
    rows: &Range<usize>,
    within: Range<usize>,
    out: &mut [u8],
) {
    let first = rows.start.max(at.start / row_bytes);
    let last = rows.end.min(at.end.div_ceil(row_bytes));
    for row in first..last {
        let wanted = row * row_bytes + within.start..row * row_bytes + within.end;
        let held = wanted.start.max(at.start)..wanted.end.min(at.end);
        if held.start < held.end {
            let to = (row - rows.start) * within.len() + (held.start - wanted.start);
            out[to..to + held.len()].copy_from_slice(&part[held.start - at.start..held.end - at.start]);
        }
    }
}
