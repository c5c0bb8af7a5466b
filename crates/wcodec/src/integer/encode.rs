//! Encoding the chunks of a planned tensor.

use wcodec_rans::superblock::{Classes, EncodedSuperblock, Encoder};
use wcodec_rans::{HeadLayout, LANES, TableSet};

use super::analysis::{Analysis, Candidate, Search, analyse, bad_argument};
use super::model::Model;
use super::params::IntegerParams;
use super::plan::IntegerOptions;
use super::side::Side;
use crate::error::Result;
use crate::lanes::BlockIndex;

/// The split of symbols: all 8 bits are coded.
pub(crate) fn symbol_layout() -> HeadLayout {
    HeadLayout::new(8, 0, false).expect("a coded field of 8 bits")
}

/// Bitplanes that the model finds larger by one part in so many are not encoded.
const NEAR: u64 = 32;

/// Encodes chunks of one tensor; shared by threads.
pub(crate) struct IntegerEncoder {
    params: IntegerParams,
    encoder: Encoder,
    model: Model,
    search: Search,
}

/// A superblock in one form.
struct Attempt<'a> {
    candidate: &'a Candidate,
    classes: Vec<u8>,
    packed: EncodedSuperblock,
}

impl Attempt<'_> {
    /// Bytes, the classes estimated at two bits.
    fn len(&self) -> usize {
        self.packed.states.len() + self.packed.stream.len() + self.classes.len() / 4
    }
}

impl IntegerEncoder {
    /// An encoder for what [`plan`](super::plan()) gave for the same options.
    pub(crate) fn new(params: IntegerParams, tables: &TableSet, options: IntegerOptions) -> Result<Self> {
        let encoder = Encoder::new(symbol_layout(), tables).map_err(bad_argument)?;
        Ok(Self { params, encoder, model: Model::from_tables(tables), search: options.search() })
    }

    /// Encodes chunk `chunk`, whose decoded bytes are `data`: its bytes and the index of its superblocks. `analyses` are those of all
    /// superblocks of the tensor, or none.
    pub(crate) fn encode_chunk(
        &self,
        chunk: usize,
        data: &[u8],
        analyses: &[Analysis],
    ) -> Result<(Vec<u8>, Vec<BlockIndex>)> {
        let g = &self.params.geometry;
        if data.len() != g.chunk_bytes(chunk) {
            return Err(bad_argument("integer mode: data of another length than the chunk's"));
        }
        let first_row = g.chunk_rows(chunk).start;
        let (mut side, mut index) = (Side::default(), Vec::new());
        let (mut states, mut streams) = (Vec::new(), Vec::new());
        for strip in g.chunk_strips(chunk) {
            for block in 0..g.blocks_across() {
                let start = (g.strip_rows(strip).start - first_row) * g.row_bytes() + g.block_cols(block).start;
                let own;
                let analysis = match analyses.get(strip * g.blocks_across() + block) {
                    Some(analysis) => analysis,
                    None => {
                        let shape = g.shape(strip, block);
                        own = analyse(&data[start..], g.row_bytes(), shape, self.params.tile, self.search)?;
                        &own
                    }
                };
                let best = self.best(analysis)?;
                let packed = &best.packed;
                index.push(BlockIndex {
                    stream_words: u16::try_from(packed.stream.len() / 4)
                        .map_err(|_| bad_argument("superblock stream too long"))?,
                    base: packed.base,
                    patches: packed.patches,
                });
                states.extend_from_slice(&packed.states);
                streams.extend_from_slice(&packed.stream);
                side.forms.push(best.candidate.form.code());
                side.tiles.extend_from_slice(&best.candidate.tiles);
                side.classes.extend_from_slice(&best.classes);
            }
        }
        let mut out = side.to_bytes();
        out.extend_from_slice(&states);
        out.extend_from_slice(&streams);
        out.extend_from_slice(&data[g.chunk_rows(chunk).len() * g.row_bytes()..]);
        Ok((out, index))
    }

    /// The smaller form of a superblock.
    fn best<'a>(&self, analysis: &'a Analysis) -> Result<Attempt<'a>> {
        let planes = analysis.bitplanes.as_ref().map(|c| (c, self.model.classes(c)));
        let residuals = &analysis.residuals;
        let own = if self.search.only_planes && planes.is_some() { None } else { Some(self.model.classes(residuals)) };
        // Where the model sees a clear difference, there is no need to encode both.
        let planes = planes.filter(|(_, (_, cost))| own.as_ref().is_none_or(|(_, own)| *cost < own + own / NEAR));
        let planes = planes.map(|(c, (classes, _))| self.attempt(c, classes)).transpose()?;
        // A prefix of the planes decodes without the end of the stream, where patches stand.
        let planes = planes.filter(|p| p.packed.patches == 0);
        match planes {
            Some(planes) if self.search.only_planes => Ok(planes),
            planes => {
                let (classes, _) = own.unwrap_or_else(|| self.model.classes(residuals));
                let residuals = self.attempt(residuals, classes)?;
                Ok(planes.filter(|p| p.len() < residuals.len()).unwrap_or(residuals))
            }
        }
    }

    fn attempt<'a>(&self, candidate: &'a Candidate, classes: Vec<u8>) -> Result<Attempt<'a>> {
        let shape = candidate.rows.shape;
        let mut rows = Vec::with_capacity(shape.rows());
        candidate.rows.row_classes(&classes, &mut rows);
        let heads: Vec<u16> = candidate.symbols.iter().map(|&s| u16::from(s)).collect();
        let classes_of = Classes { rows: &rows, cols: &[0; LANES][..shape.cols()] };
        let packed = self.encoder.encode(&heads, shape, classes_of).map_err(bad_argument)?;
        Ok(Attempt { candidate, classes, packed })
    }
}
