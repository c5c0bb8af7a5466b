//! Decoding chunks, and rectangles of them.

use std::ops::Range;

use wcodec_container::{Crc32, TensorEntry, crc32};
use wcodec_rans::superblock::{Classes, DecodeTables, Job, Shape, Superblock, Target};
use wcodec_rans::{HeadLayout, LANES, TableSet};

use super::params::{BlockIndex, LanesParams};
use super::{low, squeeze};
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
    /// The low bytes of a superblock, where no row stores any.
    zero_low: Vec<u8>,
}

/// How lanes mode codes a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LanesSummary {
    /// The split of heads.
    pub layout: HeadLayout,
    /// Low bits of heads that are 0 everywhere and coded without.
    pub dropped_bits: u32,
    /// Columns of the view that superblocks are cut from.
    pub cols: usize,
    /// Rows of a superblock.
    pub block_rows: usize,
    /// Contexts K.
    pub contexts: usize,
    /// Frequency tables; fewer than contexts where these share them.
    pub tables: usize,
    /// Precision P of the tables.
    pub table_bits: u32,
    /// Symbols of the alphabet.
    pub symbols: usize,
    /// Whether rows, and whether columns, have scale classes.
    pub classes: [bool; 2],
}

/// Byte ranges of a chunk's sections.
struct Sections {
    raw: usize,
    states: usize,
    low: usize,
    stream: usize,
}

/// A superblock of a chunk: its place in the view, and its bytes.
struct Block<'a> {
    rows: Range<usize>,
    cols: Range<usize>,
    shape: Shape,
    classes: Classes<'a>,
    coded: Superblock<'a>,
    /// Packed low bits.
    low: &'a [u8],
    /// See [`Job::readable`].
    readable: &'a [u8],
}

/// Buffers that a thread reuses from chunk to chunk.
#[derive(Default)]
pub(crate) struct Scratch {
    low: Vec<u8>,
    /// A strip of which a part is wanted.
    strip: Vec<u8>,
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
        let bare = !params.low_bits.is_empty() && params.low_bits.iter().all(|&bits| bits == 0);
        let zero_low = vec![0; if bare { g.block_rows * LANES * params.low_bytes() } else { 0 }];
        Ok(Self { params, tables, index, tensor, zero_rows, zero_cols: vec![0; LANES], zero_low })
    }

    pub(crate) fn summary(&self) -> LanesSummary {
        let p = &self.params;
        LanesSummary {
            layout: p.layout,
            dropped_bits: p.dropped.into(),
            cols: p.geometry.cols,
            block_rows: p.geometry.block_rows,
            contexts: self.tables.contexts(),
            table_bits: self.tables.table_bits(),
            tables: self.tables.set().tables().len(),
            symbols: self.tables.set().symbols(),
            classes: [!p.row_classes.is_empty(), !p.col_classes.is_empty()],
        }
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

    /// The superblocks of chunk `chunk` in order, and where the rest begins.
    fn blocks<'b>(&'b self, chunk: usize, bytes: &'b [u8], offset: u64) -> Result<(Vec<Block<'b>>, usize)> {
        let g = &self.params.geometry;
        let mut at = self.sections(chunk, bytes.len(), offset)?;
        let mut blocks = Vec::with_capacity(g.chunk_strips(chunk).len() * g.blocks_across());
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
                let readable = &bytes[at.stream..];
                let stream = take(&mut at.stream, 4 * usize::from(entry.stream_words));
                let classes = Classes {
                    rows: row_classes,
                    cols: self.params.col_classes.get(cols.clone()).unwrap_or(&self.zero_cols[..cols.len()]),
                };
                let coded = Superblock { base: entry.base, patches: entry.patches, states, raw, stream };
                blocks.push(Block { rows: rows.clone(), cols, shape, classes, coded, low, readable });
            }
        }
        Ok((blocks, at.stream))
    }

    /// The low bytes of a superblock all of whose rows store all their bits, or none.
    fn whole_low<'b>(&'b self, block: &Block<'b>) -> Option<&'b [u8]> {
        if !self.zero_low.is_empty() {
            return Some(&self.zero_low[..block.shape.elements() * self.params.low_bytes()]);
        }
        let all = 8 * self.params.low_bytes();
        let whole =
            self.params.low_bits.is_empty() || block.rows.clone().all(|row| self.params.row_low_bits(row) == all);
        whole.then(|| &block.low[..block.shape.elements() * self.params.low_bytes()])
    }

    /// The low bytes of a superblock, `low_bytes` per element.
    fn dense_low<'b>(&'b self, block: &'b Block<'_>, scratch: &'b mut Vec<u8>) -> &'b [u8] {
        let (low_bytes, cols) = (self.params.low_bytes(), block.cols.len());
        if let Some(low) = self.whole_low(block) {
            return low;
        }
        scratch.resize(block.shape.elements() * low_bytes, 0);
        let mut from = 0;
        for (row, out) in block.rows.clone().zip(scratch.chunks_exact_mut(cols * low_bytes)) {
            let bits = self.params.row_low_bits(row);
            let len = low::row_len(cols, bits);
            low::unpack_row(&block.low[from..from + len], low_bytes, bits, out);
            from += len;
        }
        scratch
    }

    /// Decodes all of chunk `chunk` into `out` (its decoded length). Gives the CRC-32 of `out`.
    pub(crate) fn decode_chunk(
        &self,
        chunk: usize,
        bytes: &[u8],
        offset: u64,
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<u32> {
        let g = &self.params.geometry;
        let (blocks, rest_at) = self.blocks(chunk, bytes, offset)?;
        let (rows, rest) = out.split_at_mut(g.chunk_rows(chunk).len() * g.row_bytes());
        rest.copy_from_slice(&bytes[rest_at..]);
        let target = (&mut *rows, [g.chunk_rows(chunk).start, 0], g.row_bytes());
        let crc = self.decode_blocks(&blocks, target, true, &mut scratch.low);
        let crc = crc.map_err(|e| Error::rans(&self.tensor, offset, e))?.unwrap_or_else(|| crc32(rows));
        if rest.is_empty() {
            return Ok(crc);
        }
        let mut whole = Crc32::new();
        whole.combine(crc, rows.len() as u64);
        whole.update(rest);
        Ok(whole.value())
    }

    /// Decodes superblocks that make up a matrix of elements of the view: its bytes, the first one's row and column, and the bytes from
    /// row to row. Gives the CRC-32 of its bytes if that is wanted and takes no second pass.
    fn decode_blocks(
        &self,
        blocks: &[Block<'_>],
        (out, [first_row, first_col], row_stride): (&mut [u8], [usize; 2], usize),
        summed: bool,
        low_scratch: &mut Vec<u8>,
    ) -> wcodec_rans::Result<Option<u32>> {
        let (element_bytes, head_offset) = (self.params.geometry.element_bytes, self.params.low_bytes());
        let start = |block: &Block<'_>| {
            (block.rows.start - first_row) * row_stride + (block.cols.start - first_col) * element_bytes
        };
        let mut jobs = Vec::with_capacity(blocks.len());
        for block in blocks {
            if let Some(low) = self.whole_low(block) {
                let (shape, classes, offset) = (block.shape, block.classes, start(block));
                jobs.push(Job { shape, classes, block: block.coded, offset, low, readable: block.readable });
                continue;
            }
            let low = self.dense_low(block, low_scratch);
            let bytes = &mut out[start(block)..];
            let target = Target { bytes, row_stride, element_bytes, head_offset, low };
            self.tables.decode(block.shape, block.classes, block.coded, target)?;
        }
        let target = Target { bytes: &mut *out, row_stride, element_bytes, head_offset, low: &[] };
        if summed && jobs.len() == blocks.len() && self.params.dropped == 0 {
            return self.tables.decode_batch_crc32(&jobs, target).map(Some);
        }
        self.tables.decode_batch(&jobs, target)?;
        if self.params.dropped > 0 {
            squeeze::widen(out, element_bytes, self.params.dropped);
        }
        Ok(None)
    }

    /// Decodes the part of chunk `chunk` inside these rows and columns of the view into `out`, a dense matrix of that rectangle.
    pub(crate) fn decode_rect(
        &self,
        chunk: usize,
        bytes: &[u8],
        offset: u64,
        [rows, cols]: [Range<usize>; 2],
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let element_bytes = self.params.geometry.element_bytes;
        let overlaps = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
        let (mut blocks, _) = self.blocks(chunk, bytes, offset)?;
        blocks.retain(|block| overlaps(&block.rows, &rows) && overlaps(&block.cols, &cols));
        let fault = |e| Error::rans(&self.tensor, offset, e);
        for strip in blocks.chunk_by(|a, b| a.rows == b.rows) {
            let (first, last) = (&strip[0], &strip[strip.len() - 1]);
            let held = [first.rows.clone(), first.cols.start..last.cols.end];
            let origin = [held[0].start, held[1].start];
            let stride = held[1].len() * element_bytes;
            let shared = held[0].start.max(rows.start)..held[0].end.min(rows.end);
            if shared == held[0] && cols == held[1] {
                let part = &mut out[(shared.start - rows.start) * stride..(shared.end - rows.start) * stride];
                self.decode_blocks(strip, (part, origin, stride), false, &mut scratch.low).map_err(fault)?;
                continue;
            }
            scratch.strip.resize(held[0].len() * stride, 0);
            let target = (scratch.strip.as_mut_slice(), origin, stride);
            self.decode_blocks(strip, target, false, &mut scratch.low).map_err(fault)?;
            let within = held[1].start.max(cols.start)..held[1].end.min(cols.end);
            let len = within.len() * element_bytes;
            for row in shared {
                let from = (row - held[0].start) * stride + (within.start - held[1].start) * element_bytes;
                let to = ((row - rows.start) * cols.len() + within.start - cols.start) * element_bytes;
                out[to..to + len].copy_from_slice(&scratch.strip[from..from + len]);
            }
        }
        Ok(())
    }
}
