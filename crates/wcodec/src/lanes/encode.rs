//! Encoding the chunks of a planned tensor.

use wcodec_rans::TableSet;
use wcodec_rans::superblock::{Classes, Encoder, Sink, Workspace};

use super::low;
use super::params::{BlockIndex, LanesParams};
use crate::error::{Error, Result};

/// Encodes chunks of one tensor; shared by threads.
pub(crate) struct LanesEncoder<'a> {
    params: &'a LanesParams,
    encoder: Encoder,
    zero_rows: Vec<u8>,
    zero_cols: Vec<i8>,
}

impl<'a> LanesEncoder<'a> {
    pub(crate) fn new(params: &'a LanesParams, tables: &TableSet, pack_states: bool) -> Result<Self> {
        let encoder = Encoder::new(params.layout, tables).map_err(|e| Error::BadArgument(e.to_string()))?;
        let encoder = if pack_states { encoder } else { encoder.with_plain_states() };
        let zero_rows = vec![0; params.geometry.block_rows];
        Ok(Self { params, encoder, zero_rows, zero_cols: vec![0; wcodec_rans::LANES] })
    }

    /// Encodes chunk `chunk`, whose decoded bytes are `data`: its bytes and the index of its superblocks.
    pub(crate) fn encode_chunk(&self, chunk: usize, data: &[u8]) -> Result<(Vec<u8>, Vec<BlockIndex>)> {
        let g = &self.params.geometry;
        let low_bytes = self.params.low_bytes();
        let first_row = g.chunk_rows(chunk).start;
        // All parts end up in the first.
        let mut raw = Vec::with_capacity(data.len());
        let (mut states, mut lows) = (Vec::with_capacity(data.len() / 16), Vec::new());
        let mut streams = Vec::with_capacity(data.len() / 2);
        let mut index = Vec::new();
        let mut work = Workspace::default();
        let mut heads = Vec::with_capacity(g.block_rows * wcodec_rans::LANES);
        for strip in g.chunk_strips(chunk) {
            let rows = g.strip_rows(strip);
            for block in 0..g.blocks_across() {
                let (cols, shape) = (g.block_cols(block), g.shape(strip, block));
                heads.clear();
                for row in rows.clone() {
                    let start = (row - first_row) * g.row_bytes() + cols.start * g.element_bytes;
                    let elements = &data[start..start + cols.len() * g.element_bytes];
                    push_heads(elements, g.element_bytes, self.params.layout.bytes(), &mut heads);
                    if low_bytes > 0 {
                        low::pack_row(elements, g.element_bytes, low_bytes, self.params.row_low_bits(row), &mut lows);
                    }
                }
                lows.resize(lows.len().next_multiple_of(4), 0);
                let classes = Classes {
                    rows: self.params.row_classes.get(rows.clone()).unwrap_or(&self.zero_rows[..rows.len()]),
                    cols: self.params.col_classes.get(cols.clone()).unwrap_or(&self.zero_cols[..cols.len()]),
                };
                let before = streams.len();
                let sink = Sink { states: &mut states, raw: &mut raw, stream: &mut streams };
                let encoded = self
                    .encoder
                    .append(&heads, shape, classes, &mut work, sink)
                    .map_err(|e| Error::BadArgument(e.to_string()))?;
                let stream_words = u16::try_from((streams.len() - before) / 4)
                    .map_err(|_| Error::BadArgument("superblock stream too long".into()))?;
                index.push(BlockIndex { stream_words, base: encoded.base, patches: encoded.patches });
            }
        }
        let rest = &data[g.chunk_rows(chunk).len() * g.row_bytes()..];
        for part in [&states, &lows, &streams] {
            raw.extend_from_slice(part);
        }
        raw.extend_from_slice(rest);
        Ok((raw, index))
    }
}

/// Appends the heads of `elements`: their top `head_bytes` bytes.
pub(crate) fn push_heads(elements: &[u8], element_bytes: usize, head_bytes: usize, heads: &mut Vec<u16>) {
    match (element_bytes, head_bytes) {
        (1, _) => heads.extend(elements.iter().map(|&b| u16::from(b))),
        (2, 2) => heads.extend(elements.chunks_exact(2).map(|e| u16::from_le_bytes([e[0], e[1]]))),
        (4, 2) => heads.extend(elements.chunks_exact(4).map(|e| u16::from_le_bytes([e[2], e[3]]))),
        (n, 2) => heads.extend(elements.chunks_exact(n).map(|e| u16::from_le_bytes([e[n - 2], e[n - 1]]))),
        (n, _) => heads.extend(elements.chunks_exact(n).map(|e| u16::from(e[n - 1]))),
    }
}
