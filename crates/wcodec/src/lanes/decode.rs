//! Decoding chunks, and rectangles of them.

use std::ops::Range;

use wcodec_container::TensorEntry;
use wcodec_rans::superblock::{Classes, DecodeTables, Superblock, Target};
use wcodec_rans::{LANES, TableSet};

use super::low;
use super::params::{BlockIndex, LanesParams};
use crate::error::{Error, Result};
use crate::wire::Cursor;

/// Everything that decoding the chunks of one tensor needs; shared by threads.
pub(crate) struct LanesDecoder {
    pub(crate) params: LanesParams,
    pub(crate) tables: DecodeTables,
    pub(crate) index: Vec<BlockIndex>,
    tensor: String,
    zero_rows: Vec<u8>,
    zero_cols: Vec<i8>,
}

/// Byte ranges of a chunk's sections.
struct Sections {
    raw: usize,
    states: usize,
    low: usize,
    stream: usize,
}

/// Buffers that a thread reuses from chunk to chunk.
#[derive(Default)]
pub(crate) struct Scratch {
    low: Vec<u8>,
}

impl LanesDecoder {
    /// Reads parameters, tables (from the pool) and index of a tensor.
    pub(crate) fn new(entry: &TensorEntry, index: &[u8], pool: &[Vec<u8>], directory_offset: u64) -> Result<Self> {
        let tensor = entry.name.clone();
        let mut cursor = Cursor::new(&entry.params, &tensor, directory_offset);
        let table_id = cursor.varint()?;
        let params = LanesParams::parse(&mut cursor, entry.decoded_len, entry.payload.len)?;
        cursor.finish()?;
        let Some(table_bytes) = usize::try_from(table_id).ok().and_then(|i| pool.get(i)) else {
            return cursor.corrupt("lanes mode: no such table set");
        };
        let set = TableSet::from_bytes(table_bytes).map_err(|e| Error::rans(&tensor, directory_offset, e))?;
        let Ok(tables) = DecodeTables::new(params.layout, &set) else {
            return cursor.corrupt("lanes mode: table set does not fit the coded field");
        };
        let g = &params.geometry;
        let index = BlockIndex::unpack(index, g.blocks(), &tensor, entry.index.offset)?;
        if entry.chunks.len() != g.chunks()
            || entry.chunks.iter().enumerate().any(|(i, c)| c.decoded_len != g.chunk_bytes(i) as u64)
        {
            return cursor.corrupt("lanes mode: chunks do not match the view");
        }
        let zero_rows = vec![0; g.block_rows];
        Ok(Self { params, tables, index, tensor, zero_rows, zero_cols: vec![0; LANES] })
    }

    fn low_block_len(&self, rows: Range<usize>, cols: usize) -> usize {
        if self.params.low_bytes() == 0 {
            return 0;
        }
        let len: usize = if self.params.low_bits.is_empty() {
            rows.len() * low::row_len(cols, 8 * self.params.low_bytes())
        } else {
            rows.map(|r| low::row_len(cols, self.params.row_low_bits(r))).sum()
        };
        len.next_multiple_of(4)
    }

    /// Where the sections of chunk `chunk` start, after checking that they and the rest fill `len` bytes.
    fn sections(&self, chunk: usize, len: usize, offset: u64) -> Result<Sections> {
        let g = &self.params.geometry;
        let (mut raw, mut states, mut lows, mut streams) = (0, 0, 0, 0);
        for strip in g.chunk_strips(chunk) {
            for block in 0..g.blocks_across() {
                let shape = g.shape(strip, block);
                raw += shape.raw_bytes(self.params.layout);
                states += shape.state_bytes();
                lows += self.low_block_len(g.strip_rows(strip), shape.cols());
                streams += 4 * usize::from(self.index[strip * g.blocks_across() + block].stream_words);
            }
        }
        let rest = g.chunk_bytes(chunk) - g.chunk_rows(chunk).len() * g.row_bytes();
        if raw + states + lows + streams + rest != len {
            return Err(Error::corrupt(&self.tensor, offset, format!("chunk {chunk}: sections do not fill its bytes")));
        }
        Ok(Sections { raw: 0, states: raw, low: raw + states, stream: raw + states + lows })
    }

    /// Decodes the superblocks of chunk `chunk` that `wanted` accepts; `place` says where a block's first element goes in `out` and
    /// how many bytes lie between its rows.
    fn decode_blocks(
        &self, chunk: usize, bytes: &[u8], offset: u64, scratch: &mut Scratch,
        mut wanted: impl FnMut(usize, usize) -> bool,
        mut decode: impl FnMut(&DecodeTables, usize, usize, Classes<'_>, Superblock<'_>, &[u8]) -> Result<(), wcodec_rans::RansError>,
    ) -> Result<usize> {
        let g = &self.params.geometry;
        let mut at = self.sections(chunk, bytes.len(), offset)?;
        for strip in g.chunk_strips(chunk) {
            let rows = g.strip_rows(strip);
            let row_classes = self.params.row_classes.get(rows.clone()).unwrap_or(&self.zero_rows[..rows.len()]);
            for block in 0..g.blocks_across() {
                let (cols, shape) = (g.block_cols(block), g.shape(strip, block));
                let entry = self.index[strip * g.blocks_across() + block];
                let take = |from: &mut usize, len: usize| {
                    let part = &bytes[*from..*from + len];
                    *from += len;
                    part
                };
                let raw = take(&mut at.raw, shape.raw_bytes(self.params.layout));
                let states = take(&mut at.states, shape.state_bytes());
                let low = take(&mut at.low, self.low_block_len(rows.clone(), shape.cols()));
                let stream = take(&mut at.stream, 4 * usize::from(entry.stream_words));
                if !wanted(strip, block) {
                    continue;
                }
                let low = self.dense_low(low, rows.clone(), shape.cols(), &mut scratch.low);
                let classes = Classes {
                    rows: row_classes,
                    cols: self.params.col_classes.get(cols.clone()).unwrap_or(&self.zero_cols[..cols.len()]),
                };
                let superblock = Superblock { base: entry.base, patches: entry.patches, states, raw, stream };
                decode(&self.tables, strip, block, classes, superblock, low)
                    .map_err(|e| Error::rans(&self.tensor, offset, e))?;
            }
        }
        Ok(at.stream)
    }

    /// The low bytes of a superblock, `low_bytes` per element.
    fn dense_low<'b>(&self, packed: &'b [u8], rows: Range<usize>, cols: usize, scratch: &'b mut Vec<u8>) -> &'b [u8] {
        let low_bytes = self.params.low_bytes();
        if self.params.low_bits.is_empty() {
            return &packed[..rows.len() * cols * low_bytes];
        }
        scratch.resize(rows.len() * cols * low_bytes, 0);
        let mut from = 0;
        for (row, out) in rows.zip(scratch.chunks_exact_mut(cols * low_bytes)) {
            let bits = self.params.row_low_bits(row);
            let len = low::row_len(cols, bits);
            low::unpack_row(&packed[from..from + len], low_bytes, bits, out);
            from += len;
        }
        scratch
    }

    /// Decodes all of chunk `chunk` into `out` (its decoded length).
    pub(crate) fn decode_chunk(
        &self, chunk: usize, bytes: &[u8], offset: u64, out: &mut [u8], scratch: &mut Scratch,
    ) -> Result<()> {
        let g = &self.params.geometry;
        let first_row = g.chunk_rows(chunk).start;
        let (element_bytes, head_offset) = (g.element_bytes, self.params.low_bytes());
        let rest_at = self.decode_blocks(chunk, bytes, offset, scratch, |_, _| true, |tables, strip, block, classes, superblock, low| {
            let start = (g.strip_rows(strip).start - first_row) * g.row_bytes() + g.block_cols(block).start * element_bytes;
            let target = Target { bytes: &mut out[start..], row_stride: g.row_bytes(), element_bytes, head_offset, low };
            tables.decode(g.shape(strip, block), classes, superblock, target)
        })?;
        let whole_rows = g.chunk_rows(chunk).len() * g.row_bytes();
        out[whole_rows..].copy_from_slice(&bytes[rest_at..]);
        Ok(())
    }

    /// Decodes the part of chunk `chunk` inside `rows` × `cols` of the view into `out`, a dense matrix of that rectangle.
    pub(crate) fn decode_rect(
        &self, chunk: usize, bytes: &[u8], offset: u64, rows: Range<usize>, cols: Range<usize>, out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let g = &self.params.geometry;
        let e = g.element_bytes;
        let overlaps = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
        let mut block_bytes = vec![0u8; g.block_rows * LANES * e];
        let wanted = |strip, block| overlaps(&g.strip_rows(strip), &rows) && overlaps(&g.block_cols(block), &cols);
        self.decode_blocks(chunk, bytes, offset, scratch, wanted, |tables, strip, block, classes, superblock, low| {
            let (block_rows, block_cols) = (g.strip_rows(strip), g.block_cols(block));
            let stride = block_cols.len() * e;
            let target = Target {
                bytes: &mut block_bytes[..block_rows.len() * stride],
                row_stride: stride, element_bytes: e, head_offset: self.params.low_bytes(), low,
            };
            tables.decode(g.shape(strip, block), classes, superblock, target)?;
            let shared = block_cols.start.max(cols.start)..block_cols.end.min(cols.end);
            for row in block_rows.start.max(rows.start)..block_rows.end.min(rows.end) {
                let from = (row - block_rows.start) * stride + (shared.start - block_cols.start) * e;
                let to = ((row - rows.start) * cols.len() + shared.start - cols.start) * e;
                let len = shared.len() * e;
                out[to..to + len].copy_from_slice(&block_bytes[from..from + len]);
            }
            Ok(())
        })?;
        Ok(())
    }
}
