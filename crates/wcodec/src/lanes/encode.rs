//! Encoding the chunks of a planned tensor.

use std::cell::RefCell;
use std::ops::Range;

use wcodec_rans::superblock::{Classes, Encoded, Encoder, Shape, Source, Task, Workspace};
use wcodec_rans::{RansError, TableSet};

use super::params::{BlockIndex, LanesParams};
use super::{low, squeeze};
use crate::error::{Error, Result};
use crate::options::{Level, Tuning};

/// What the states of superblocks carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum States {
    /// Nothing.
    Plain,
    /// Raw bits.
    Packed,
    /// As many as can be.
    Tightest,
}

impl States {
    pub(crate) fn of(level: Level, tuning: Tuning) -> Self {
        match (tuning.pack_states, level) {
            (false, _) => Self::Plain,
            (true, Level::Max) => Self::Tightest,
            (true, _) => Self::Packed,
        }
    }
}

/// Memory that a thread reuses from chunk to chunk.
#[derive(Default)]
struct Scratch {
    work: Workspace,
    streams: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Encodes chunks of one tensor; shared by threads.
pub(crate) struct LanesEncoder<'a> {
    params: &'a LanesParams,
    encoder: Encoder,
    zero_rows: Vec<u8>,
    zero_cols: Vec<i8>,
}

impl<'a> LanesEncoder<'a> {
    pub(crate) fn new(params: &'a LanesParams, tables: &TableSet, states: States) -> Result<Self> {
        let encoder = Encoder::new(params.layout, tables).map_err(|e| Error::BadArgument(e.to_string()))?;
        let encoder = match states {
            States::Plain => encoder.with_plain_states(),
            States::Packed => encoder,
            States::Tightest => encoder.with_tightest_states(),
        };
        let zero_rows = vec![0; params.geometry.block_rows];
        Ok(Self { params, encoder, zero_rows, zero_cols: vec![0; wcodec_rans::LANES] })
    }

    /// Encodes chunk `chunk`, whose decoded bytes are `data`: its bytes and the index of its superblocks.
    pub(crate) fn encode_chunk(&self, chunk: usize, data: &[u8]) -> Result<(Vec<u8>, Vec<BlockIndex>)> {
        let g = &self.params.geometry;
        let mut squeezed = Vec::new();
        if self.params.dropped > 0 {
            squeezed.extend_from_slice(data);
            let rows = g.chunk_rows(chunk).len() * g.row_bytes();
            squeeze::squeeze(&mut squeezed[..rows], g.element_bytes, self.params.dropped);
        }
        let data = if squeezed.is_empty() { data } else { &squeezed };
        SCRATCH.with_borrow_mut(|scratch| self.encode_with(chunk, data, scratch))
    }

    fn encode_with(&self, chunk: usize, data: &[u8], scratch: &mut Scratch) -> Result<(Vec<u8>, Vec<BlockIndex>)> {
        let (g, layout) = (&self.params.geometry, self.params.layout);
        let (first_row, low_bytes) = (g.chunk_rows(chunk).start, self.params.low_bytes());
        let blocks = || {
            let strips = g.chunk_strips(chunk);
            strips.flat_map(|strip| (0..g.blocks_across()).map(move |block| (strip, block, g.shape(strip, block))))
        };
        // All but the streams have lengths that are known: everything gets its place at once.
        let raw_len: usize = blocks().map(|(.., shape)| shape.raw_bytes(layout)).sum();
        let states_len: usize = blocks().map(|(.., shape)| shape.state_bytes()).sum();
        let low_len: usize = blocks().map(|(strip, _, shape)| self.low_len(strip, shape.cols())).sum();
        let known = raw_len + states_len + low_len;
        let Scratch { work, streams } = scratch;
        let mut out = Vec::with_capacity(known + data.len() / 2);
        out.resize(known, 0);
        streams.clear();
        let (mut raw, rest) = out.split_at_mut(raw_len);
        let (mut states, mut low) = rest.split_at_mut(states_len);
        let mut index = Vec::with_capacity(blocks().count());
        let mut task = |strip: usize, block: usize, shape: Shape| {
            let (rows, cols) = (g.strip_rows(strip), g.block_cols(block));
            let bytes = &data[(rows.start - first_row) * g.row_bytes() + cols.start * g.element_bytes..];
            if low_bytes > 0 {
                let own = split_off(&mut low, self.low_len(strip, shape.cols()));
                self.pack_low(rows.clone(), bytes, cols.len(), own);
            }
            Task {
                source: Source { bytes, row_stride: g.row_bytes(), element_bytes: g.element_bytes },
                classes: Classes {
                    rows: self.params.row_classes.get(rows.clone()).unwrap_or(&self.zero_rows[..rows.len()]),
                    cols: self.params.col_classes.get(cols).unwrap_or(&self.zero_cols[..shape.cols()]),
                },
                states: split_off(&mut states, shape.state_bytes()),
                raw: split_off(&mut raw, shape.raw_bytes(layout)),
            }
        };
        let mut add = |encoded: &[Encoded]| {
            encoded.iter().try_for_each(|encoded| {
                let stream_words = u16::try_from(encoded.stream_bytes / 4)
                    .map_err(|_| Error::BadArgument("superblock stream too long".into()))?;
                index.push(BlockIndex { stream_words, base: encoded.base, patches: encoded.patches });
                Ok::<(), Error>(())
            })
        };
        let failed = |e: RansError| Error::BadArgument(e.to_string());
        // Two of one shape go together.
        let mut rest = blocks().peekable();
        while let Some((strip, block, shape)) = rest.next() {
            let first = task(strip, block, shape);
            match rest.next_if(|next| next.2 == shape) {
                Some((strip, block, _)) => {
                    let second = task(strip, block, shape);
                    add(&self.encoder.append(shape, [first, second], work, streams).map_err(failed)?)?;
                }
                None => add(&self.encoder.append(shape, [first], work, streams).map_err(failed)?)?,
            }
        }
        out.extend_from_slice(streams);
        out.extend_from_slice(&data[g.chunk_rows(chunk).len() * g.row_bytes()..]);
        Ok((out, index))
    }

    /// Bytes of the low bits of a superblock of `cols` columns.
    fn low_len(&self, strip: usize, cols: usize) -> usize {
        if self.params.low_bytes() == 0 {
            return 0;
        }
        let rows = self.params.geometry.strip_rows(strip);
        rows.map(|row| low::row_len(cols, self.params.row_low_bits(row))).sum::<usize>().next_multiple_of(4)
    }

    /// Packs the low bits of a superblock whose elements begin at `bytes` into all of `out`.
    fn pack_low(&self, rows: Range<usize>, bytes: &[u8], cols: usize, mut out: &mut [u8]) {
        let g = &self.params.geometry;
        for (row, bytes) in rows.zip(bytes.chunks(g.row_bytes())) {
            let bits = self.params.row_low_bits(row);
            let packed = split_off(&mut out, low::row_len(cols, bits));
            low::pack_row(&bytes[..cols * g.element_bytes], g.element_bytes, self.params.low_bytes(), bits, packed);
        }
    }
}

/// The first `len` elements of `rest`, which keeps the others.
fn split_off<'a>(rest: &mut &'a mut [u8], len: usize) -> &'a mut [u8] {
    let (first, others) = std::mem::take(rest).split_at_mut(len);
    *rest = others;
    first
}
