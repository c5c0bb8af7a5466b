//! Decoding chunks, and rectangles of them.

use std::ops::Range;

use wcodec_container::TensorEntry;
use wcodec_predict::{TileGrid, decode_region};
use wcodec_rans::superblock::{Classes, DecodeTables, PLAIN_STATES, Shape, Superblock, Target};
use wcodec_rans::{LANES, TableSet};
use wcodec_transform::{bitplane, fold};

use super::coefficients::{CoefficientOrder, TileChoice};
use super::encode::symbol_layout;
use super::params::IntegerParams;
use super::side::Side;
use super::symbols::{ROW_COEFFICIENTS, SymbolForm, SymbolRows};
use crate::error::{Error, Result};
use crate::lanes::BlockIndex;
use crate::wire::Cursor;

/// Everything that decoding the chunks of one tensor needs; shared by threads.
#[derive(Debug)]
pub(crate) struct IntegerDecoder {
    pub(crate) params: IntegerParams,
    pub(crate) tables: DecodeTables,
    index: Vec<BlockIndex>,
    tensor: String,
}

/// Buffers that a thread reuses from chunk to chunk.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(super) symbols: Vec<u8>,
    pub(super) row_classes: Vec<u8>,
    folded: Vec<u32>,
    coefficients: Vec<i32>,
    pub(super) residuals: Vec<u8>,
}

/// One superblock of a chunk: where it lies in the view, what it chose, its bytes.
pub(super) struct Block<'a> {
    pub(super) rows: Range<usize>,
    pub(super) cols: Range<usize>,
    pub(super) shape: Shape,
    pub(super) form: SymbolForm,
    pub(super) symbol_rows: SymbolRows,
    pub(super) tiles: &'a [u8],
    pub(super) classes: &'a [u8],
    pub(super) coded: Superblock<'a>,
}

impl IntegerDecoder {
    /// Reads parameters, tables (from the pool) and index of a tensor.
    pub(crate) fn new(entry: &TensorEntry, index: &[u8], pool: &[Vec<u8>], directory_offset: u64) -> Result<Self> {
        let tensor = entry.name.clone();
        let mut cursor = Cursor::new(&entry.params, &tensor, directory_offset);
        let table_id = cursor.varint()?;
        let params = IntegerParams::parse(&mut cursor, entry.decoded_len, entry.payload.len)?;
        cursor.finish()?;
        let Some(table_bytes) = usize::try_from(table_id).ok().and_then(|i| pool.get(i)) else {
            return cursor.corrupt("integer mode: no such table set");
        };
        let set = TableSet::from_bytes(table_bytes).map_err(|e| Error::rans(&tensor, directory_offset, e))?;
        let Ok(tables) = DecodeTables::new(symbol_layout(), &set) else {
            return cursor.corrupt("integer mode: table set is not one of bytes");
        };
        let g = &params.geometry;
        if entry.chunks.len() != g.chunks()
            || entry.chunks.iter().enumerate().any(|(i, c)| c.decoded_len != g.chunk_bytes(i) as u64)
        {
            return cursor.corrupt("integer mode: chunks do not match the view");
        }
        let index = BlockIndex::unpack(index, g.blocks(), &tensor, entry.index.offset)?;
        Ok(Self { params, tables, index, tensor })
    }

    /// Decodes all of chunk `chunk` into `out` (its decoded length).
    pub(crate) fn decode_chunk(
        &self,
        chunk: usize,
        bytes: &[u8],
        offset: u64,
        out: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let g = &self.params.geometry;
        let first_row = g.chunk_rows(chunk).start;
        self.for_each_block(chunk, bytes, offset, out, |block, out| {
            let start = (block.rows.start - first_row) * g.row_bytes() + block.cols.start;
            self.decode_block(&block, offset, &mut out[start..], g.row_bytes(), scratch)
        })
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
        let overlaps = |a: &Range<usize>, b: &Range<usize>| a.start < b.end && b.start < a.end;
        let mut samples = vec![0u8; self.params.geometry.block_rows * LANES];
        let (side, streams) = self.side(chunk, bytes, offset)?;
        self.blocks(chunk, bytes, &side, streams, |block| {
            if !overlaps(&block.rows, &rows) || !overlaps(&block.cols, &cols) {
                return Ok(());
            }
            let width = block.cols.len();
            self.decode_block(&block, offset, &mut samples, width, scratch)?;
            let shared = block.cols.start.max(cols.start)..block.cols.end.min(cols.end);
            for row in block.rows.start.max(rows.start)..block.rows.end.min(rows.end) {
                let from = (row - block.rows.start) * width + shared.start - block.cols.start;
                let to = (row - rows.start) * cols.len() + shared.start - cols.start;
                out[to..to + shared.len()].copy_from_slice(&samples[from..from + shared.len()]);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Runs `decode` for every superblock of a chunk and copies the rest behind them.
    pub(super) fn for_each_block(
        &self,
        chunk: usize,
        bytes: &[u8],
        offset: u64,
        out: &mut [u8],
        mut decode: impl FnMut(Block<'_>, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let g = &self.params.geometry;
        if out.len() != g.chunk_bytes(chunk) {
            return Err(Error::BadArgument(format!(
                "tensor `{}`, chunk {chunk}: output of another length",
                self.tensor
            )));
        }
        let (side, streams) = self.side(chunk, bytes, offset)?;
        let end = self.blocks(chunk, bytes, &side, streams, |block| decode(block, out))?;
        out[g.chunk_rows(chunk).len() * g.row_bytes()..].copy_from_slice(&bytes[end..]);
        Ok(())
    }

    /// The side information of a chunk, and where states and streams start, after checking that these and the rest fill it.
    pub(super) fn side(&self, chunk: usize, bytes: &[u8], offset: u64) -> Result<(Side, [usize; 2])> {
        let g = &self.params.geometry;
        let strips = g.chunk_strips(chunk);
        let blocks = || strips.clone().flat_map(|strip| (0..g.blocks_across()).map(move |block| (strip, block)));
        let shapes: Vec<Shape> = blocks().map(|(strip, block)| g.shape(strip, block)).collect();
        let (side, states_at) =
            Side::parse(&self.params, &shapes, self.tables.contexts(), bytes, &self.tensor, offset)?;
        let (mut states, mut streams) = (0, 0);
        for ((&form, shape), (strip, block)) in side.forms.iter().zip(&shapes).zip(blocks()) {
            let entry = self.index[strip * g.blocks_across() + block];
            let planes = form != 0;
            states += 4 * if planes { LANES } else { shape.cols() };
            streams += 4 * usize::from(entry.stream_words);
            if entry.base != PLAIN_STATES || (planes && entry.patches != 0) {
                return Err(Error::corrupt(&self.tensor, offset, "integer mode: state base, or patches in bitplanes"));
            }
        }
        let rest = g.chunk_bytes(chunk) - g.chunk_rows(chunk).len() * g.row_bytes();
        if states_at + states + streams + rest != bytes.len() {
            return Err(Error::corrupt(&self.tensor, offset, format!("chunk {chunk}: sections do not fill its bytes")));
        }
        Ok((side, [states_at, states_at + states]))
    }

    /// Visits the superblocks of a chunk whose side information was checked; says where the streams end.
    pub(super) fn blocks(
        &self,
        chunk: usize,
        bytes: &[u8],
        side: &Side,
        [mut states_at, mut stream_at]: [usize; 2],
        mut visit: impl FnMut(Block<'_>) -> Result<()>,
    ) -> Result<usize> {
        let g = &self.params.geometry;
        let (mut tiles, mut classes) = (side.tiles.as_slice(), side.classes.as_slice());
        let mut forms = side.forms.iter();
        for strip in g.chunk_strips(chunk) {
            for block in 0..g.blocks_across() {
                let shape = g.shape(strip, block);
                let form = SymbolForm::from_code(*forms.next().expect("a form per superblock"));
                let symbol_rows = SymbolRows::new(form, shape).expect("checked with the side information");
                let entry = self.index[strip * g.blocks_across() + block];
                let grid = TileGrid::new(shape.rows(), shape.cols(), self.params.tile);
                let states = &bytes[states_at..states_at + symbol_rows.shape.state_bytes()];
                let stream = &bytes[stream_at..stream_at + 4 * usize::from(entry.stream_words)];
                states_at += states.len();
                stream_at += stream.len();
                visit(Block {
                    rows: g.strip_rows(strip),
                    cols: g.block_cols(block),
                    shape,
                    form,
                    symbol_rows,
                    tiles: tiles.split_off(..grid.len()).expect("checked with the side information"),
                    classes: classes.split_off(..symbol_rows.run_count()).expect("checked with the side information"),
                    coded: Superblock { base: entry.base, patches: entry.patches, states, raw: &[], stream },
                })?;
            }
        }
        Ok(stream_at)
    }

    pub(super) fn decode_block(
        &self,
        block: &Block<'_>,
        offset: u64,
        out: &mut [u8],
        stride: usize,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let shape = block.symbol_rows.shape;
        block.symbol_rows.row_classes(block.classes, &mut scratch.row_classes);
        scratch.symbols.resize(shape.elements(), 0);
        let classes = Classes { rows: &scratch.row_classes, cols: &[0; LANES][..shape.cols()] };
        let target = Target {
            bytes: &mut scratch.symbols,
            row_stride: shape.cols(),
            element_bytes: 1,
            head_offset: 0,
            low: &[],
        };
        self.tables.decode(shape, classes, block.coded, target).map_err(|e| Error::rans(&self.tensor, offset, e))?;
        let planes = block.form.planes();
        self.reconstruct(block, planes, offset, out, stride, scratch)
    }

    /// Samples of a superblock from its symbols (`scratch.symbols`), of bitplanes the first `planes`.
    pub(super) fn reconstruct(
        &self,
        block: &Block<'_>,
        planes: u32,
        offset: u64,
        out: &mut [u8],
        stride: usize,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let fault = |what: String| Error::corrupt(&self.tensor, offset, what);
        let choices = || block.tiles.iter().filter_map(|&code| TileChoice::from_code(code));
        let residuals = match block.form {
            SymbolForm::Residuals => &scratch.symbols,
            SymbolForm::Bitplanes { magnitude_bits } => {
                let padded = block.symbol_rows.plane_rows * ROW_COEFFICIENTS;
                scratch.folded.resize(padded, 0);
                scratch.coefficients.clear();
                if planes == 0 {
                    scratch.coefficients.resize(padded, 0);
                } else {
                    bitplane::merge(&scratch.symbols, padded, magnitude_bits + 1, planes, &mut scratch.folded)
                        .map_err(|e| fault(e.to_string()))?;
                    scratch
                        .coefficients
                        .extend(scratch.folded.iter().map(|&u| fold::sign_first_to_signed(u, magnitude_bits)));
                }
                let order = CoefficientOrder::new(block.shape, self.params.tile, choices())
                    .ok_or_else(|| fault("integer mode: transform where there can be none".into()))?;
                scratch.residuals.resize(block.shape.elements(), 0);
                order.inverse(&scratch.coefficients[..block.shape.elements()], &mut scratch.residuals);
                &scratch.residuals
            }
        };
        let modes: Vec<u8> = choices().map(|choice| choice.mode.code()).collect();
        let (rows, cols) = (block.shape.rows(), block.shape.cols());
        decode_region(&modes, residuals, rows, cols, self.params.tile, out, stride).map_err(|e| fault(e.to_string()))
    }

    pub(super) fn rans_fault(&self, offset: u64, source: wcodec_rans::RansError) -> Error {
        Error::rans(&self.tensor, offset, source)
    }
}
