//! One tensor: choosing its mode, encoding its chunks.

use std::borrow::Cow;
use std::ops::Range;

use wcodec_container::{DtypeCode, crc32};
use wcodec_rans::{HeadLayout, TableSet};

use crate::error::Result;
use crate::format::ElementFormat;
use crate::frames::{self, FrameMaker, FrameParams};
use crate::integer::{self, Analysis, IntegerEncoder, IntegerOptions, IntegerParams, IntegerPlan};
use crate::lanes::plan::{self, Counts, Effort, TableCosts, View};
use crate::lanes::squeeze;
use crate::lanes::{BlockIndex, Geometry, LanesEncoder, LanesParams, States};
use crate::mode::Mode;
use crate::options::{EncodeOptions, Level, ModeChoice};
use crate::probe::Probe;
use crate::small;

/// A tensor's bytes and what they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) name: &'a str,
    pub(crate) dtype: DtypeCode,
    pub(crate) shape: &'a [u64],
    pub(crate) data: &'a [u8],
}

/// Below this many elements lanes cannot pay for their states.
const MIN_LANES_ELEMENTS: u64 = 2048;
/// Decoded bytes of a chunk of a stored tensor.
const STORE_CHUNK: usize = 1 << 20;
/// Up to this size candidates are judged by their real size; above it by samples and by the plan's exact model.
const TRIAL_BYTES: usize = 4 << 20;
/// Up to this size plain mode is tried beside lanes.
const PLAIN_TRIAL_BYTES: usize = 32 << 10;
/// Table sets that later tensors may share.
const KNOWN_TABLES: usize = 16;
/// Rows of a superblock in integer mode.
const INTEGER_ROWS: usize = 256;
/// Tiles that tell whether a tensor's neighbours foretell anything.
const FEW_TILES: usize = 16;
/// Zstd level of a quick look.
const QUICK_LEVEL: i32 = 3;
/// Frames of a quick look at what Zstd gives.
const QUICK_FRAMES: usize = 3;
/// Frames of the sample that decides for a large tensor.
const WIDE_FRAMES: usize = 24;
/// Content of a long Zstd frame.
const LONG_FRAME: usize = 1 << 20;

/// One encoded chunk.
#[derive(Clone)]
pub(crate) struct EncodedChunk {
    pub(crate) bytes: Vec<u8>,
    pub(crate) decoded_len: u64,
    pub(crate) crc32_decoded: u32,
    pub(crate) index: IndexPart,
}

/// What one chunk adds to its tensor's index.
#[derive(Clone)]
pub(crate) enum IndexPart {
    None,
    Blocks(Vec<BlockIndex>),
    Frames(Vec<u32>),
}

/// Tables that later tensors may share.
pub(crate) struct KnownTables {
    layout: HeadLayout,
    tables: TableSet,
    costs: TableCosts,
}

/// A tensor with its mode and model chosen, ready to be encoded chunk by chunk.
pub(crate) struct Prepared {
    coder: Coder,
    /// Estimated bytes, everything included.
    pub(crate) bytes: u64,
}

pub(crate) enum Coder {
    Store,
    Zstd { params: FrameParams, level: i32 },
    Plain(Vec<u8>),
    Lanes { params: LanesParams, tables: TableSet, table_bytes: Vec<u8>, counts: Counts, states: States },
    Integer { params: IntegerParams, tables: TableSet, options: IntegerOptions, encoded: Vec<EncodedChunk> },
}

/// Chooses the smallest allowed mode.
pub(crate) fn prepare(source: Source<'_>, options: &EncodeOptions) -> Result<Prepared> {
    let raw = source.data.len() as u64;
    let allowed = |mode: ModeChoice| options.mode == ModeChoice::Auto || options.mode == mode;
    let mut candidates = vec![Prepared::store(raw)];
    let symbols = matches!(source.dtype, DtypeCode::I8 | DtypeCode::U8) && options.mode == ModeChoice::Int;
    if allowed(ModeChoice::Float) || symbols {
        // The margin covers what the plan of a large tensor can be off by.
        let margin = if source.data.len() <= TRIAL_BYTES { 0 } else { raw / 512 };
        candidates.extend(prepare_lanes(source, options).filter(|c| c.bytes + margin < raw));
    }
    // Where lanes can work, their overhead weighs only in small tensors.
    let plain = candidates.len() == 1 || source.data.len() <= PLAIN_TRIAL_BYTES || options.level == Level::Max;
    if plain && allowed(ModeChoice::Float) && source.data.len() <= small::MAX_BYTES {
        let beat = candidates.iter().map(|c| c.bytes).min().unwrap_or(raw);
        if let Some(bytes) = small::encode_within(source.data, source.dtype, beat) {
            // The simpler one stands first.
            candidates.insert(1, Prepared { bytes: bytes.len() as u64, coder: Coder::Plain(bytes) });
        }
    }
    if allowed(ModeChoice::Zstd) {
        let beat = candidates.iter().map(|c| c.bytes).min().unwrap_or(raw);
        candidates.extend(prepare_frames(source, options, beat)?);
    }
    if allowed(ModeChoice::Int) && source.dtype.bits() == Some(8) {
        let beat = candidates.iter().map(|c| c.bytes).min().unwrap_or(raw);
        if let Some(integer) = prepare_integer(source, options, beat)? {
            if options.progressive {
                return Ok(integer);
            }
            candidates.push(integer);
        }
    }
    // The first of equals, so the simpler mode.
    Ok(candidates.into_iter().min_by_key(|c| c.bytes).expect("storing is always possible"))
}

fn prepare_lanes(source: Source<'_>, options: &EncodeOptions) -> Option<Prepared> {
    let mut format = ElementFormat::of(source.dtype)?;
    let elements = (source.data.len() / format.bytes) as u64;
    if elements < MIN_LANES_ELEMENTS {
        return None;
    }
    // A superblock of one-byte elements has twice the rows, so that it decodes to as much.
    let block_rows = if format.bytes == 1 { (2 * options.superblock_rows).min(512) } else { options.superblock_rows };
    let geometry = Geometry::choose(elements, natural_cols(source.shape), format.bytes, block_rows)?;
    let mut data = Cow::Borrowed(source.data);
    let idle = if options.tuning.drop_idle_bits { squeeze::idle_bits(source.data, format) } else { 0 };
    if idle > 0 {
        squeeze::squeeze(data.to_mut(), format.bytes, idle);
        format = format.without(idle);
    }
    let plan = plan::plan(View { data: &data, geometry, format }, Effort::of(options.level, options.tuning))?;
    let states = States::of(options.level, options.tuning);
    let plan::Plan { params, tables, table_bytes, counts, bytes } = plan;
    Some(Prepared { bytes, coder: Coder::Lanes { params, tables, table_bytes, counts, states } })
}

/// Columns of a tensor as a matrix; a vector is a column.
fn natural_cols(shape: &[u64]) -> u64 {
    shape.iter().skip(1).product()
}

/// The integer mode, if it may be smaller than `beat`. Trained weights are ruled out by a sample of tiles.
fn prepare_integer(source: Source<'_>, options: &EncodeOptions, beat: u64) -> Result<Option<Prepared>> {
    let (auto, progressive) = (options.mode == ModeChoice::Auto, options.progressive);
    // Floats have no neighbours to be predicted from in their bits.
    let float = matches!(source.dtype, DtypeCode::F8_E4M3 | DtypeCode::F8_E5M2 | DtypeCode::F8_E8M0);
    let elements = source.data.len() as u64;
    if elements < MIN_LANES_ELEMENTS || (auto && float && !progressive) {
        return Ok(None);
    }
    let geometry = Geometry::choose(elements, natural_cols(source.shape), 1, INTEGER_ROWS);
    let Some(geometry) = geometry else { return Ok(None) };
    // Where neighbours foretell nothing, this mode seldom wins, and little: the less a level searches, the less it looks.
    let foretold = options.level != Level::Max && integer::estimate(source.data, geometry, FEW_TILES).predicted;
    let tiles = match (options.level, foretold) {
        (Level::Fast, false) if auto && !progressive => return Ok(None),
        (Level::Fast, _) | (Level::Default, false) => 64,
        (Level::Default, true) | (Level::Max, _) => 256,
    };
    let guess = integer::estimate(source.data, geometry, tiles);
    let near = if options.level == Level::Max { beat + beat / 16 } else { beat };
    // Where only an estimate tells the size, it has to win clearly.
    let small = source.data.len() <= TRIAL_BYTES;
    let least = if small { guess.bytes } else { guess.bytes + guess.bytes / 16 };
    if least > if small { near } else { beat } && !progressive {
        return Ok(None);
    }
    let integer_options =
        IntegerOptions { level: options.level, progressive, plain: !guess.predicted, ..IntegerOptions::default() };
    // What a sample costs by its tables may be off by so much.
    let enough = if progressive { u64::MAX } else { beat + beat / 128 };
    let Some(plan) = integer::plan(source.data, geometry, integer_options, enough)? else { return Ok(None) };
    let IntegerPlan { params, tables, analyses } = plan;
    let (mut bytes, mut encoded) = (least, Vec::new());
    if small {
        let encoder = IntegerEncoder::new(params, &tables, integer_options)?;
        bytes = (params.to_bytes().len() + tables.to_bytes().len()) as u64;
        let mut start = 0;
        for chunk in 0..geometry.chunks() {
            let data = &source.data[start..][..geometry.chunk_bytes(chunk)];
            start += data.len();
            let chunk = encode_integer(&encoder, chunk, data, &analyses)?;
            bytes += (chunk.bytes.len() + 4 * geometry.blocks() / geometry.chunks()) as u64;
            encoded.push(chunk);
        }
    }
    let coder = Coder::Integer { params, tables, options: integer_options, encoded };
    Ok((progressive || bytes < beat).then_some(Prepared { coder, bytes }))
}

fn encode_integer(encoder: &IntegerEncoder, chunk: usize, data: &[u8], analyses: &[Analysis]) -> Result<EncodedChunk> {
    let (bytes, blocks) = encoder.encode_chunk(chunk, data, analyses)?;
    let (decoded_len, crc32_decoded) = (data.len() as u64, crc32(data));
    Ok(EncodedChunk { bytes, decoded_len, crc32_decoded, index: IndexPart::Blocks(blocks) })
}

/// Zstd frames of the form that is smallest, if they may be smaller than `beat`.
///
/// A quick look (a few frames at a low level) rules out the noise that trained weights are. Small tensors then get every form at the
/// level asked for, with long frames too: repeats further apart than a short frame are worth the coarser random access.
fn prepare_frames(source: Source<'_>, options: &EncodeOptions, beat: u64) -> Result<Option<Prepared>> {
    let len = source.data.len() as u64;
    if len == 0 {
        return Ok(None);
    }
    let auto = options.mode == ModeChoice::Auto;
    let level = match (options.zstd_level, options.level) {
        (0, Level::Fast) => 3,
        (0, _) if auto => 19,
        (0, Level::Default) => 9,
        (0, Level::Max) => 19,
        (level, _) => level,
    };
    let element = source.dtype.bits().map_or(1, |b| (b / 8).max(1) as usize);
    if auto {
        // Trained weights are noise to a general-purpose compressor: that much is cheap to see.
        let (windows, window) = match options.level {
            Level::Fast => (2, 8 << 10),
            Level::Default => (3, 16 << 10),
            Level::Max => (12, 16 << 10),
        };
        let bits = beat as f64 * 8.0 * element as f64 / len as f64;
        if Probe::of(source.data, element, windows, window).is_noise_above(bits) {
            return Ok(None);
        }
    }
    let planes = if element > 1 && source.data.len().is_multiple_of(element) { vec![1, element] } else { vec![1] };
    let mut forms = Vec::new();
    for &plane_bytes in &planes {
        let params = FrameParams::new(options.zstd_frame, plane_bytes);
        let look = trial(source, params, QUICK_LEVEL, if options.level == Level::Fast { 2 } else { QUICK_FRAMES })?;
        if !auto || look < beat + beat / 32 {
            forms.push((look, params));
        }
    }
    forms.sort_by_key(|f| f.0);
    if source.data.len() > TRIAL_BYTES || options.level == Level::Fast || !auto {
        let Some(&(_, params)) = forms.first() else { return Ok(None) };
        let bytes = trial(source, params, level, WIDE_FRAMES)?;
        // A sample has to win clearly.
        let wins = if auto { bytes + bytes / 64 < beat } else { bytes < beat };
        return Ok(wins.then_some(Prepared { coder: Coder::Zstd { params, level }, bytes }));
    }
    // At this level a few frames already tell near misses from wins, and what one frame gains by the level, far misses; a full trial of a
    // near miss costs more than all else.
    let Some(&(look, first)) = forms.first() else { return Ok(None) };
    if source.data.len() > first.frame as usize {
        let [quick, slow] = [trial(source, first, QUICK_LEVEL, 1)?, trial(source, first, level, 1)?];
        if u128::from(look) * u128::from(slow) > u128::from(quick) * u128::from(beat + beat / 128) {
            return Ok(None);
        }
    }
    let first_bytes = trial(source, first, level, QUICK_FRAMES)?;
    if first_bytes > beat {
        return Ok(None);
    }
    let whole = source.data.len().div_ceil(first.frame as usize) <= QUICK_FRAMES;
    // A tensor of one frame has no longer ones.
    if source.data.len() > options.zstd_frame {
        forms.extend(planes.iter().map(|&p| (0, FrameParams::new(LONG_FRAME, p))));
    }
    let mut best: Option<Prepared> = None;
    for (i, (_, params)) in forms.into_iter().enumerate() {
        let bytes = if i == 0 && whole { first_bytes } else { trial(source, params, level, usize::MAX)? };
        // Long frames come last and have to be worth it.
        if best.as_ref().is_none_or(|b| bytes < b.bytes - b.bytes / 32) {
            best = Some(Prepared { coder: Coder::Zstd { params, level }, bytes });
        }
    }
    Ok(best.filter(|b| b.bytes < beat))
}

/// Bytes of the tensor in frames, from all of them or from at most `frames` spread over it.
fn trial(source: Source<'_>, params: FrameParams, level: i32, frames: usize) -> Result<u64> {
    let frame = params.frame as usize;
    let count = source.data.len().div_ceil(frame);
    let tried = count.min(frames);
    let (mut taken, mut coded) = (0u64, 0u64);
    for i in 0..tried {
        let i = i * (count - 1) / (tried - 1).max(1);
        let content = &source.data[i * frame..((i + 1) * frame).min(source.data.len())];
        taken += content.len() as u64;
        coded += frames::encode_chunk(params, content, level, source.name)?.0.len() as u64;
    }
    Ok((u128::from(coded) * source.data.len() as u128 / u128::from(taken.max(1))) as u64 + 3 * count as u64)
}

impl Prepared {
    /// The tensor as it is.
    pub(crate) fn store(len: u64) -> Self {
        Self { coder: Coder::Store, bytes: len }
    }

    /// Takes one of `known` tables instead of its own where the sample says that this is smaller, and adds its own to them
    /// otherwise.
    pub(crate) fn share_tables(&mut self, known: &mut Vec<KnownTables>) {
        let Coder::Lanes { params, tables, table_bytes, counts, .. } = &mut self.coder else { return };
        let scale = (params.geometry.rows * params.geometry.cols) as f64 / counts.total().max(1) as f64;
        let costs = TableCosts::new(tables);
        let Some(own) = costs.bits(counts) else { return };
        let own = scale * own + 8.0 * table_bytes.len() as f64;
        let shared = known
            .iter()
            .filter(|k| k.layout == params.layout && k.tables.table_bits() <= tables.table_bits())
            .filter_map(|k| Some((scale * k.costs.bits(counts)?, k)))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        match shared {
            Some((bits, known)) if bits < own => {
                *tables = known.tables.clone();
                *table_bytes = known.tables.to_bytes();
            }
            _ => {
                if known.len() == KNOWN_TABLES {
                    known.remove(0);
                }
                known.push(KnownTables { layout: params.layout, tables: tables.clone(), costs });
            }
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        match self.coder {
            Coder::Store => Mode::Store,
            Coder::Zstd { .. } => Mode::Zstd,
            Coder::Plain(_) => Mode::Plain,
            Coder::Lanes { .. } => Mode::Lanes,
            Coder::Integer { .. } => Mode::Integer,
        }
    }

    /// Parameters for the directory, behind the table reference where there is one.
    pub(crate) fn params(&self) -> Vec<u8> {
        match &self.coder {
            Coder::Store | Coder::Plain(_) => Vec::new(),
            Coder::Zstd { params, .. } => params.to_bytes(),
            Coder::Lanes { params, .. } => params.to_bytes(),
            Coder::Integer { params, .. } => params.to_bytes(),
        }
    }

    /// The table set that goes to the archive's pool.
    pub(crate) fn tables(&self) -> Option<Cow<'_, [u8]>> {
        match &self.coder {
            Coder::Lanes { table_bytes, .. } => Some(table_bytes.into()),
            Coder::Integer { tables, .. } => Some(tables.to_bytes().into()),
            _ => None,
        }
    }

    /// Decoded byte ranges of the chunks.
    pub(crate) fn chunks(&self, len: usize) -> Vec<Range<usize>> {
        if let Some(geometry) = self.geometry() {
            let mut start = 0;
            return (0..geometry.chunks())
                .map(|chunk| {
                    let range = start..start + geometry.chunk_bytes(chunk);
                    start = range.end;
                    range
                })
                .collect();
        }
        let step = match &self.coder {
            Coder::Zstd { params, .. } => params.chunk_bytes(),
            Coder::Plain(_) => len.max(1),
            _ => STORE_CHUNK,
        };
        (0..len).step_by(step).map(|start| start..(start + step).min(len)).collect()
    }

    fn geometry(&self) -> Option<&Geometry> {
        match &self.coder {
            Coder::Lanes { params, .. } => Some(&params.geometry),
            Coder::Integer { params, .. } => Some(&params.geometry),
            _ => None,
        }
    }

    /// Encodes whole chunks of a tensor in zstd mode with frames made elsewhere; `None` for another mode.
    pub(crate) fn encode_with(&self, maker: &dyn FrameMaker, data: &[u8]) -> Option<Result<Vec<EncodedChunk>>> {
        let &Coder::Zstd { params, .. } = &self.coder else { return None };
        let chunks = maker.frames(params, data).map(|frames| {
            let contents = data.chunks(params.chunk_bytes());
            let chunks = contents.zip(frames.chunks(params.frames_per_chunk())).map(|(content, frames)| EncodedChunk {
                bytes: frames.concat(),
                decoded_len: content.len() as u64,
                crc32_decoded: crc32(content),
                index: IndexPart::Frames(frames.iter().map(|frame| frame.len() as u32).collect()),
            });
            chunks.collect()
        });
        Some(chunks)
    }

    /// What encoding chunks needs, once per tensor.
    pub(crate) fn encoder(&self) -> Result<ChunkEncoder<'_>> {
        Ok(match &self.coder {
            Coder::Lanes { params, tables, states, .. } => {
                ChunkEncoder::Lanes(Box::new(LanesEncoder::new(params, tables, *states)?))
            }
            Coder::Integer { params, tables, options, encoded } if encoded.is_empty() => {
                ChunkEncoder::Integer(Box::new(IntegerEncoder::new(*params, tables, *options)?))
            }
            Coder::Integer { encoded, .. } => ChunkEncoder::Encoded(encoded),
            coder => ChunkEncoder::Simple(coder),
        })
    }

    /// The index of a whole tensor.
    pub(crate) fn index(&self, parts: Vec<IndexPart>) -> Vec<u8> {
        match &self.coder {
            Coder::Lanes { .. } | Coder::Integer { .. } => {
                let blocks: Vec<BlockIndex> =
                    parts.into_iter().flat_map(|p| if let IndexPart::Blocks(b) = p { b } else { Vec::new() }).collect();
                BlockIndex::pack(&blocks)
            }
            Coder::Zstd { .. } => {
                let lengths: Vec<u32> =
                    parts.into_iter().flat_map(|p| if let IndexPart::Frames(f) = p { f } else { Vec::new() }).collect();
                frames::pack_index(&lengths)
            }
            Coder::Store | Coder::Plain(_) => Vec::new(),
        }
    }
}

/// Encodes the chunks of a prepared tensor; shared by threads.
pub(crate) enum ChunkEncoder<'a> {
    Lanes(Box<LanesEncoder<'a>>),
    Integer(Box<IntegerEncoder>),
    /// What was encoded to learn its size.
    Encoded(&'a [EncodedChunk]),
    Simple(&'a Coder),
}

impl ChunkEncoder<'_> {
    pub(crate) fn encode(&self, chunk: usize, data: &[u8], name: &str) -> Result<EncodedChunk> {
        let (bytes, index) = match self {
            Self::Lanes(encoder) => {
                let (bytes, blocks) = encoder.encode_chunk(chunk, data)?;
                (bytes, IndexPart::Blocks(blocks))
            }
            Self::Integer(encoder) => return encode_integer(encoder, chunk, data, &[]),
            Self::Encoded(chunks) => return Ok(chunks[chunk].clone()),
            Self::Simple(Coder::Zstd { params, level }) => {
                let (bytes, lengths) = frames::encode_chunk(*params, data, *level, name)?;
                (bytes, IndexPart::Frames(lengths))
            }
            Self::Simple(Coder::Plain(bytes)) => (bytes.clone(), IndexPart::None),
            Self::Simple(_) => (data.to_vec(), IndexPart::None),
        };
        Ok(EncodedChunk { bytes, decoded_len: data.len() as u64, crc32_decoded: crc32(data), index })
    }
}
