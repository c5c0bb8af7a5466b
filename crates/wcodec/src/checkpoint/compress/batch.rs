//! Tensors that are encoded side by side, each whole and in memory.

use rayon::prelude::*;

use crate::checkpoint::input::InputTensor;
use crate::error::Result;
use crate::frames::FrameMaker;
use crate::mode::Mode;
use crate::options::{EncodeOptions, Level, ModeChoice};
use crate::small;
use crate::tensor::{self, EncodedChunk, KnownTables, Prepared, Source};

/// Tensors up to this size are encoded side by side, whole; larger ones one by one, chunk by chunk.
pub(super) const WHOLE_TENSOR: usize = 8 << 20;
/// Decoded bytes, per thread, of what is encoded at a time, while as much is written.
pub(super) const BATCH_BYTES: usize = 8 << 20;

/// A tensor encoded in memory.
pub(super) type Encoded = (Prepared, Vec<EncodedChunk>);

/// Tensors of a file that are encoded side by side.
pub(super) struct Batch<'a> {
    /// Number of the first in the file.
    pub(super) first: usize,
    pub(super) sources: Vec<Source<'a>>,
    pub(super) originals: Vec<Option<u32>>,
    /// `None` for what is an alias, pooled or to be streamed.
    pub(super) encoded: Vec<Option<Encoded>>,
}

/// How many of `tensors` to encode side by side; 1 for a large one.
pub(super) fn count(tensors: &[InputTensor]) -> usize {
    let budget = BATCH_BYTES * rayon::current_num_threads();
    let mut bytes = 0;
    let small = tensors
        .iter()
        .take_while(|t| {
            bytes += t.bytes.len();
            t.bytes.len() <= WHOLE_TENSOR && bytes <= budget
        })
        .count();
    small.max(1)
}

/// Whether tensors may take others' tables.
pub(super) fn shares_tables(options: &EncodeOptions) -> bool {
    options.tuning.share_tables && options.level != Level::Fast
}

/// Whether a tensor is coded together with others.
pub(super) fn is_pooled(options: &EncodeOptions, source: &Source<'_>) -> bool {
    options.tuning.pool_small
        && matches!(options.mode, ModeChoice::Auto | ModeChoice::Float)
        && small::is_pooled(source.dtype, source.data.len())
}

/// Encodes a batch; `None` for what is an alias, pooled or to be streamed.
pub(super) fn encode(
    options: &EncodeOptions,
    maker: Option<&dyn FrameMaker>,
    known: &mut Vec<KnownTables>,
    sources: &[Source<'_>],
    originals: &[Option<u32>],
) -> Result<Vec<Option<Encoded>>> {
    let mut prepared = sources
        .par_iter()
        .zip(originals)
        .map(|(&source, original)| {
            let elsewhere = original.is_some() || source.data.len() > WHOLE_TENSOR || is_pooled(options, &source);
            if elsewhere { Ok(None) } else { tensor::prepare(source, options).map(Some) }
        })
        .collect::<Result<Vec<Option<Prepared>>>>()?;
    // In archive order, so that threads do not decide who shares with whom.
    if shares_tables(options) {
        prepared.iter_mut().flatten().for_each(|p| p.share_tables(known));
    }
    sources
        .par_iter()
        .zip(prepared)
        .map(|(&source, prepared)| prepared.map(|p| encode_whole(source, p, maker)).transpose())
        .collect()
}

/// Encodes a tensor in memory, and stores it after all when its real size says so.
fn encode_whole(source: Source<'_>, prepared: Prepared, maker: Option<&dyn FrameMaker>) -> Result<Encoded> {
    let made = maker.and_then(|maker| prepared.encode_with(maker, source.data));
    let chunks = made.unwrap_or_else(|| encode_chunks(source, &prepared))?;
    let stored: usize = chunks.iter().map(|c| c.bytes.len()).sum();
    let overhead = prepared.tables().map_or(0, |t| t.len()) + prepared.params().len();
    if stored + overhead < source.data.len() || prepared.mode() == Mode::Store {
        return Ok((prepared, chunks));
    }
    let prepared = Prepared::store(source.data.len() as u64);
    let chunks = encode_chunks(source, &prepared)?;
    Ok((prepared, chunks))
}

fn encode_chunks(source: Source<'_>, prepared: &Prepared) -> Result<Vec<EncodedChunk>> {
    let encoder = prepared.encoder()?;
    let ranges = prepared.chunks(source.data.len());
    ranges.into_par_iter().enumerate().map(|(i, range)| encoder.encode(i, &source.data[range], source.name)).collect()
}
