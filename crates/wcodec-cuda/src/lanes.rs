//! Tensors in lanes mode: kept compressed in device memory, decoded into device memory.

use std::ops::Range;
use std::sync::Arc;

use wcodec_rans::alias::AliasTable;
use wcodec_rans::superblock::{GROUP_ROWS, PATCH_BYTES, PLAIN_STATES, Shape};
use wcodec_rans::{Context, HeadLayout, LANES, TableSet};

use crate::launch::{self, BLOCK_BYTES, Region, Resident, Uploaded};
use crate::{CudaContext, CudaError, DeviceBuffer, DeviceSliceMut, Stream};

/// The parts of a compressed tensor, in host memory.
///
/// The tensor is seen as `rows` × `cols` elements and `rest` bytes behind them, cut into strips of `block_rows` rows and those
/// into superblocks of 64 columns. A chunk holds `strips_per_chunk` strips: of all their superblocks, strip by strip, first
/// the raw fields, then the states, then the low bits, then the streams; the last chunk ends with the rest.
#[derive(Clone, Copy, Debug)]
pub struct LanesTensor<'a> {
    /// The split of heads.
    pub layout: HeadLayout,
    /// Bytes of an element, at least those of a head.
    pub element_bytes: usize,
    /// Rows of the view.
    pub rows: usize,
    /// Columns of the view.
    pub cols: usize,
    /// Bytes behind the last whole row.
    pub rest: usize,
    /// Rows of a superblock, 1 to 512; those of the last strip may be fewer.
    pub block_rows: usize,
    /// Strips of a chunk; those of the last chunk may be fewer.
    pub strips_per_chunk: usize,
    /// Frequency tables.
    pub tables: &'a TableSet,
    /// One class per row, or empty: all are 0.
    pub row_classes: &'a [u8],
    /// One class per column, or empty: all are 0.
    pub col_classes: &'a [i8],
    /// Stored bits of the bytes below the head, per row; or empty: all of them.
    pub low_bits: &'a [u8],
    /// The index, strip by strip.
    pub blocks: &'a [BlockEntry],
    /// The bytes of every chunk.
    pub chunks: &'a [&'a [u8]],
}

/// What the index says of one superblock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockEntry {
    /// Length of the stream in 32-bit words.
    pub stream_words: u16,
    /// State base.
    pub base: u8,
    /// Patches at the end of the stream.
    pub patches: u16,
}

/// A compressed tensor in device memory.
///
/// It takes the compressed bytes and, for each superblock, 32 bytes: 0.4 % of the decoded size for superblocks of 64 rows in
/// BF16. Decoding needs no memory beside it and the output.
#[derive(Debug)]
pub struct DeviceTensor {
    resident: Resident,
}

impl DeviceTensor {
    /// Checks that the parts fit each other and copies them to the device. Waits for the stream.
    ///
    /// # Errors
    /// [`CudaError::Inconsistent`] for parts that do not fit each other, [`CudaError::CorruptSuperblock`] where the index
    /// already says so, [`CudaError::TooLarge`] for more than 16 GiB of compressed bytes or tables larger than a block's
    /// shared memory, [`CudaError::OutOfDeviceMemory`], [`CudaError::Call`].
    pub fn upload(stream: &Stream, tensor: &LanesTensor<'_>) -> Result<Self, CudaError> {
        let (mut payload, mut starts) = (Vec::new(), Vec::with_capacity(tensor.chunks.len()));
        for chunk in tensor.chunks {
            starts.push(payload.len());
            payload.extend_from_slice(chunk);
            payload.resize(payload.len().next_multiple_of(PAYLOAD_ALIGN), 0);
        }
        let tensor = prepare(tensor, &starts)?;
        let region = Region { buffer: Arc::new(DeviceBuffer::from_host(stream, &payload)?), offset: 0 };
        let resident = Resident::upload(stream, vec![(tensor, region)])?.pop();
        resident.map_or(inconsistent("no tensor"), |resident| Ok(Self { resident }))
    }

    /// Tensors whose compressed bytes are on the device already, or are on their way there on `stream`: copies what stands beside
    /// these bytes, in one piece for all tensors. Waits for the stream.
    ///
    /// # Errors
    /// [`CudaError::TooLarge`] for tables larger than a block's shared memory, [`CudaError::OutOfDeviceMemory`],
    /// [`CudaError::Call`].
    pub fn adopt(stream: &Stream, tensors: Vec<PreparedTensor>) -> Result<Vec<Self>, CudaError> {
        let uploads = tensors.into_iter().map(PreparedTensor::into_parts).collect();
        Ok(Resident::upload(stream, uploads)?.into_iter().map(|resident| Self { resident }).collect())
    }

    /// Bytes of the decoded tensor.
    pub fn decoded_bytes(&self) -> usize {
        self.resident.decoded_bytes()
    }

    /// Bytes of device memory that the tensor takes.
    pub fn device_bytes(&self) -> usize {
        self.resident.device_bytes()
    }

    /// Waits for the stream and says whether all decoding of this tensor so far went well. A failure stays: compressed bytes
    /// do not heal.
    ///
    /// # Errors
    /// [`CudaError::TruncatedSuperblock`] or [`CudaError::CorruptSuperblock`] for the first superblock in error,
    /// [`CudaError::Call`].
    pub fn check(&self, stream: &Stream) -> Result<(), CudaError> {
        launch::failures(stream, [&self.resident.side])?[0].map_or(Ok(()), |failure| Err(error_of(failure)))
    }

    /// The failures of many tensors, in their order, as [`DeviceTensor::check`] gives them. Waits for the stream.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn failures<'a>(
        stream: &Stream,
        tensors: impl IntoIterator<Item = &'a Self>,
    ) -> Result<Vec<Option<CudaError>>, CudaError> {
        let failures = launch::failures(stream, tensors.into_iter().map(|tensor| &tensor.resident.side))?;
        Ok(failures.into_iter().map(|failure| failure.map(error_of)).collect())
    }
}

pub(crate) fn error_of((superblock, code): (u64, u32)) -> CudaError {
    const TRUNCATED: u32 = 1;
    match code {
        TRUNCATED => CudaError::TruncatedSuperblock { superblock },
        _ => CudaError::CorruptSuperblock { superblock },
    }
}

/// A tensor whose parts were found to fit each other, and its place on the device, see [`DeviceTensor::adopt`].
#[derive(Debug)]
pub struct PreparedTensor {
    tensor: Uploaded,
    payload: Region,
}

impl PreparedTensor {
    /// Checks that the parts fit each other, the place, and what `decoder`'s device can hold. Of `tensor.chunks` only the lengths matter. Work for the host alone.
    ///
    /// # Errors
    /// As [`DeviceTensor::upload`]; [`CudaError::OutOfRange`] and [`CudaError::Misaligned`] for chunks that are not in the buffer
    /// or begin at no multiple of 16.
    pub fn new(decoder: &CudaDecoder, tensor: &LanesTensor<'_>, payload: &DevicePayload) -> Result<Self, CudaError> {
        let Some(&offset) = payload.chunks.first() else { return inconsistent("a place for every chunk") };
        let mut starts = Vec::with_capacity(payload.chunks.len());
        for (&start, chunk) in payload.chunks.iter().zip(tensor.chunks) {
            payload.buffer.sub_slice(start, chunk.len())?;
            let Some(relative) = start.checked_sub(offset) else { return inconsistent("chunks in order") };
            if !start.is_multiple_of(PAYLOAD_ALIGN) {
                let (what, value, multiple) = ("a chunk's offset", start as u64, PAYLOAD_ALIGN as u64);
                return Err(CudaError::Misaligned { what, value, multiple });
            }
            starts.push(relative);
        }
        let payload = Region { buffer: Arc::clone(&payload.buffer), offset };
        let tensor = prepare(tensor, &starts)?;
        Resident::fits(decoder.context(), &tensor)?;
        Ok(Self { tensor, payload })
    }

    pub(crate) fn into_parts(self) -> (Uploaded, Region) {
        (self.tensor, self.payload)
    }
}

/// Where the compressed bytes of a tensor lie on the device.
#[derive(Clone, Debug)]
pub struct DevicePayload {
    /// Holds the chunks of this tensor, and maybe of others.
    pub buffer: Arc<DeviceBuffer>,
    /// The offset of every chunk in it, ascending multiples of 16.
    pub chunks: Vec<usize>,
}

/// What chunks are aligned to on the device.
pub(crate) const PAYLOAD_ALIGN: usize = 16;

/// Decodes tensors on one device.
///
/// ```
/// use wcodec_cuda::{BlockEntry, CudaContext, CudaDecoder, DeviceBuffer, DeviceTensor, LanesTensor, Stream};
/// use wcodec_rans::superblock::{Classes, Encoder, Shape};
/// use wcodec_rans::{HeadLayout, TableSet};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // One superblock of 64 rows of BF16.
/// let layout = HeadLayout::new(16, 6, true)?;
/// let heads: Vec<u16> = (0..64 * 64u32).map(|i| 0x3c00 | (i.wrapping_mul(2654435761) >> 20) as u16 & 0x83ff).collect();
/// let mut counts = vec![vec![0u64; 512]];
/// heads.iter().for_each(|&h| counts[0][usize::from(layout.coded(h))] += 1);
/// let tables = TableSet::from_counts(10, &counts)?;
/// let classes = Classes { rows: &[0; 64], cols: &[0; 64] };
/// let packed = Encoder::new(layout, &tables)?.encode(&heads, Shape::new(64, 64)?, classes)?;
/// let chunk = [packed.raw, packed.states, packed.stream.clone()].concat();
///
/// # let Ok(context) = CudaContext::new(0) else { return Ok(()) };
/// let stream = Stream::new(&context)?;
/// let tensor = DeviceTensor::upload(&stream, &LanesTensor {
///     layout,
///     element_bytes: 2,
///     rows: 64,
///     cols: 64,
///     rest: 0,
///     block_rows: 64,
///     strips_per_chunk: 1,
///     tables: &tables,
///     row_classes: &[],
///     col_classes: &[],
///     low_bits: &[],
///     blocks: &[BlockEntry { stream_words: (packed.stream.len() / 4) as u16, base: packed.base, patches: packed.patches }],
///     chunks: &[&chunk],
/// })?;
/// let mut out = DeviceBuffer::new(&context, tensor.decoded_bytes())?;
/// CudaDecoder::new(&context).decode(&tensor, out.as_slice_mut(), &stream)?;
/// tensor.check(&stream)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CudaDecoder {
    context: CudaContext,
    /// Multiprocessors that its launches leave to others.
    spared: u32,
}

impl CudaDecoder {
    /// A decoder for tensors on this device. Its kernels are loaded when they are first needed (below a second, once per process;
    /// the driver keeps the compiled form on disk).
    pub fn new(context: &CudaContext) -> Self {
        Self { context: context.clone(), spared: 0 }
    }

    /// The same decoder, whose launches of lanes kernels leave `multiprocessors` of the device to others, as long as one remains. These
    /// kernels take whole multiprocessors until they are done; where small kernels on another stream need not wait for that, both streams
    /// are done earlier.
    #[must_use]
    pub fn sparing(&self, multiprocessors: u32) -> Self {
        Self { spared: multiprocessors, ..self.clone() }
    }

    /// Whether the device has enough shared memory for lanes mode with that many contexts and that precision.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn holds_lanes(&self, contexts: usize, table_bits: u32) -> Result<bool, CudaError> {
        Ok(Resident::fits_tables(&self.context, contexts, table_bits)?.is_ok())
    }

    /// The device's context.
    pub fn context(&self) -> &CudaContext {
        &self.context
    }

    /// Queues the decoding of `tensor` into the first [`DeviceTensor::decoded_bytes`] of `out`. Whether the bytes were in order is
    /// known later: [`DeviceTensor::check`].
    ///
    /// Fastest where `out` and the rows of the view begin at multiples of two elements.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`] when `out` is too short, [`CudaError::OtherDevice`], and what the driver reports.
    pub fn decode(&self, tensor: &DeviceTensor, out: DeviceSliceMut<'_>, stream: &Stream) -> Result<(), CudaError> {
        self.decode_batch([(tensor, out)], stream)
    }

    /// Queues the decoding of many tensors, up to 32 with a common split of heads in one launch: for small tensors this is much
    /// faster than one after the other.
    ///
    /// # Errors
    /// As [`CudaDecoder::decode`]; nothing is queued then unless the driver itself fails.
    pub fn decode_batch<'a>(
        &self,
        items: impl IntoIterator<Item = (&'a DeviceTensor, DeviceSliceMut<'a>)>,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let whole = items.into_iter().map(|(tensor, out)| {
            let bytes = tensor.decoded_bytes();
            Ok((tensor, 0..bytes, out.take(bytes)?))
        });
        self.decode_ranges(whole.collect::<Result<Vec<_>, CudaError>>()?, stream)
    }

    /// Queues the decoding of parts of tensors: of each, the superblocks that the bytes `range` of the decoded tensor meet. `out` is
    /// as long as the range, nothing else is written. A tensor may occur more than once.
    ///
    /// # Errors
    /// As [`CudaDecoder::decode`]; [`CudaError::OutOfRange`] for a range that is not in the tensor or an output of another length,
    /// [`CudaError::Misaligned`] for a range of no whole elements.
    pub fn decode_ranges<'a>(
        &self,
        items: impl IntoIterator<Item = (&'a DeviceTensor, Range<usize>, DeviceSliceMut<'a>)>,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let jobs: Vec<_> = items.into_iter().map(|(tensor, range, out)| (&tensor.resident, range, out)).collect();
        launch::decode_lanes(stream, &jobs, self.spared)
    }
}

pub(crate) fn inconsistent<T>(what: &'static str) -> Result<T, CudaError> {
    Err(CudaError::Inconsistent { what })
}

/// Checks the parts and lays them out for the kernels. Chunks begin at `starts` in the payload, ascending multiples of 16.
fn prepare(t: &LanesTensor<'_>, starts: &[usize]) -> Result<Uploaded, CudaError> {
    let layout = t.layout;
    if !matches!(t.element_bytes, 1 | 2 | 4 | 8) || t.element_bytes < layout.bytes() {
        return inconsistent("elements have 1, 2, 4 or 8 bytes and hold a head");
    }
    if t.rows == 0 || t.cols == 0 || t.strips_per_chunk == 0 || Shape::new(t.block_rows, 1).is_err() {
        return inconsistent("the view is empty, or a superblock has not 1 to 512 rows");
    }
    let fits = |n: usize| u32::try_from(n).is_ok_and(|n| n <= i32::MAX as u32);
    if !fits(t.rows) || !fits(t.cols.saturating_mul(t.element_bytes)) {
        return inconsistent("more rows, or bytes of a row, than 2^31 - 1");
    }
    for (len, expected, what) in [
        (t.row_classes.len(), t.rows, "one row class per row"),
        (t.col_classes.len(), t.cols, "one column class per column"),
        (t.low_bits.len(), t.rows, "low bits for every row"),
    ] {
        if len != 0 && len != expected {
            return inconsistent(what);
        }
    }
    let low_bytes = t.element_bytes - layout.bytes();
    if t.low_bits.iter().any(|&bits| usize::from(bits) > 8 * low_bytes) {
        return inconsistent("low bits of a row do not fit below the head");
    }
    let (strips, across) = (t.rows.div_ceil(t.block_rows), t.cols.div_ceil(LANES));
    let count = strips.saturating_mul(across);
    let chunks = strips.div_ceil(t.strips_per_chunk);
    if t.blocks.len() != count || t.chunks.len() != chunks || starts.len() != chunks {
        return inconsistent("index or chunks do not match the view");
    }
    const MOST_BLOCKS: usize = 1 << 29;
    if count > MOST_BLOCKS {
        return Err(CudaError::TooLarge {
            what: "the number of superblocks",
            value: count as u64,
            limit: MOST_BLOCKS as u64,
        });
    }
    let (buckets, bucket_bits) = buckets(layout, t.tables)?;
    let (contexts, table_bits) = (t.tables.contexts(), t.tables.table_bits());

    // As in the kernels: a raw code of one bit needs two groups for two halfwords.
    let group = if layout.raw_bits() == 1 { 2 * GROUP_ROWS } else { GROUP_ROWS };
    // The fast path's table entries have room for every coded field, not only for those in the alphabet.
    let has_fast_path = Resident::has_fast_path(layout, t.element_bytes)
        && t.low_bits.is_empty()
        && 2 * table_bits + layout.coded_bits() <= 32;
    let (mut fast, mut others) = (Vec::with_capacity(count * BLOCK_BYTES), Vec::new());
    let (mut rest_at, mut payload_bytes) = (0, 0);
    for (chunk, (bytes, &begin)) in t.chunks.iter().zip(starts).enumerate() {
        let first = chunk * t.strips_per_chunk;
        let strips = first..(first + t.strips_per_chunk).min(strips);
        let shape = |strip: usize, block: usize| {
            let rows = t.block_rows.min(t.rows - strip * t.block_rows);
            Shape::new(rows, LANES.min(t.cols - block * LANES)).or(inconsistent("a superblock's shape"))
        };
        let low_len = |strip: usize, cols: usize| -> usize {
            let rows = strip * t.block_rows..((strip + 1) * t.block_rows).min(t.rows);
            let len: usize = match t.low_bits.get(rows.clone()) {
                Some(bits) if !bits.is_empty() => bits.iter().map(|&b| (cols * usize::from(b)).div_ceil(8)).sum(),
                _ => rows.len() * cols * low_bytes,
            };
            len.next_multiple_of(4)
        };
        let (mut raw, mut states, mut low) = (0, 0, 0);
        for strip in strips.clone() {
            for block in 0..across {
                let shape = shape(strip, block)?;
                raw += shape.raw_bytes(layout);
                states += shape.state_bytes();
                low += low_len(strip, shape.cols());
            }
        }
        let (mut raw_at, mut states_at, mut low_at, mut stream_at) =
            (begin, begin + raw, begin + raw + states, begin + raw + states + low);
        for strip in strips {
            for block in 0..across {
                let shape = shape(strip, block)?;
                let number = strip * across + block;
                let entry = t.blocks[number];
                // A raw field of two halfwords is what travels in states.
                let carries = carries(shape, layout);
                let stream_bytes = 4 * usize::from(entry.stream_words);
                if (!carries && entry.base != PLAIN_STATES) || usize::from(entry.patches) * PATCH_BYTES > stream_bytes {
                    return Err(CudaError::CorruptSuperblock { superblock: number as u64 });
                }
                // The fast path fetches row classes four at a time.
                let aligned = (strip * t.block_rows).is_multiple_of(4);
                let is_fast = has_fast_path && aligned && shape.cols() == LANES && shape.rows().is_multiple_of(group);
                let to = if is_fast { &mut fast } else { &mut others };
                for at in [raw_at, states_at, low_at, stream_at] {
                    to.extend_from_slice(&words_at(at)?.to_ne_bytes());
                }
                to.extend_from_slice(&entry.stream_words.to_ne_bytes());
                to.extend_from_slice(&[entry.base, shape.cols() as u8]);
                to.extend_from_slice(&entry.patches.to_ne_bytes());
                to.extend_from_slice(&(shape.rows() as u16).to_ne_bytes());
                to.extend_from_slice(&((strip * t.block_rows) as u32).to_ne_bytes());
                to.extend_from_slice(&((block * LANES) as u32).to_ne_bytes());
                raw_at += shape.raw_bytes(layout);
                states_at += shape.state_bytes();
                low_at += low_len(strip, shape.cols());
                stream_at += stream_bytes;
            }
        }
        rest_at = stream_at;
        let rest = if chunk + 1 == t.chunks.len() { t.rest } else { 0 };
        if stream_at - begin + rest != bytes.len() {
            return inconsistent("the sections of a chunk do not fill its bytes");
        }
        payload_bytes = payload_bytes.max(begin + bytes.len());
    }
    let fast_blocks = (fast.len() / BLOCK_BYTES) as u32;
    let whole_columns = t.cols / LANES;
    let fast_across = if has_fast_path && t.block_rows.is_multiple_of(group) { whole_columns as u32 } else { 0 };
    fast.append(&mut others);
    Ok(Uploaded {
        layout,
        element_bytes: t.element_bytes,
        rows: t.rows,
        cols: t.cols,
        rest: t.rest,
        rest_at,
        block_rows: t.block_rows,
        contexts,
        table_bits,
        payload_bytes,
        blocks: fast,
        fast_blocks,
        fast_across,
        all_blocks: count as u32,
        buckets,
        bucket_bits,
        row_classes: t.row_classes.to_vec(),
        col_classes: t.col_classes.iter().map(|&class| class as u8).collect(),
        low_bits: t.low_bits.to_vec(),
    })
}

/// Whether the last two halfwords of raw field travel in the states.
fn carries(shape: Shape, layout: HeadLayout) -> bool {
    let raw = layout.raw_bits() as usize;
    raw * (shape.rows() / GROUP_ROWS) + (raw * (shape.rows() % GROUP_ROWS)).div_ceil(16) >= 2
}

pub(crate) fn words_at(bytes: usize) -> Result<u32, CudaError> {
    let limit = 4 * u64::from(u32::MAX);
    u32::try_from(bytes / 4).map_err(|_| CudaError::TooLarge {
        what: "the size of the compressed tensor",
        value: bytes as u64,
        limit,
    })
}

/// `struct Bucket`s of lanes.cuh, and log2 of the slots of one.
fn buckets(layout: HeadLayout, tables: &TableSet) -> Result<(Vec<u8>, u32), CudaError> {
    let values = |context: Context| tables.values().iter().map(move |&value| context.value(value));
    if tables.context_tables().any(|(_, context)| values(context).any(|v| u32::from(v) >> layout.coded_bits() != 0)) {
        return inconsistent("a table's values do not fit the coded field");
    }
    if tables.contexts() << tables.table_bits() > 1 << 15 {
        return inconsistent("more than 2^15 table entries");
    }
    let (mut buckets, mut bucket_bits) = (Vec::new(), 0);
    for (table, context) in tables.context_tables() {
        let alias = AliasTable::new(table);
        bucket_bits = alias.width_bits();
        // Buckets behind the last symbol have no slots of their own.
        let symbol = |symbol: usize| match (table.freqs().get(symbol), tables.values().get(symbol)) {
            (Some(&freq), Some(&value)) => [freq, context.value(value)],
            _ => [0, 0],
        };
        for (own, bucket) in alias.buckets().iter().enumerate() {
            let ([own_freq, own_value], [alias_freq, alias_value]) = (symbol(own), symbol(bucket.alias.into()));
            for half in [bucket.divide, bucket.adjust, own_freq, own_value, alias_freq, alias_value, 0, 0] {
                buckets.extend_from_slice(&half.to_ne_bytes());
            }
        }
    }
    Ok((buckets, bucket_bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wcodec_rans::superblock::DecodeTables;

    /// What goes to the device against the scalar decoder's tables, without a device.
    #[test]
    fn tables_have_the_entries_of_the_scalar_decoder() {
        let layout = HeadLayout::new(16, 6, true).expect("BF16");
        for (contexts, table_bits, step) in [(1, 8, 1), (3, 10, 7), (16, 11, 40), (4, 10, 5)] {
            let count = |k: u64, v: u64| if v < 200 && v % step == k % step { 1 + (v * v + 91 * k) % 1009 } else { 0 };
            let counts: Vec<Vec<u64>> = (0..contexts).map(|k| (0..512).map(|v| count(k, v)).collect()).collect();
            let tables = if contexts == 4 {
                // Two tables for four contexts, the upper ones two values higher.
                let contexts = (0..4u16).map(|k| Context { table: (k % 2) as u8, shift: k / 2 * 2 }).collect();
                TableSet::pooled(table_bits, &counts, contexts)
            } else {
                TableSet::from_counts(table_bits, &counts)
            };
            let tables = tables.expect("tables");
            let (buckets, bucket_bits) = buckets(layout, &tables).expect("buckets");
            let entries = launch::entries(layout, &buckets, bucket_bits);
            let scalar = DecodeTables::new(layout, &tables).expect("tables");
            let mine = entries.chunks_exact(4).map(|e| u32::from_ne_bytes([e[0], e[1], e[2], e[3]]));
            // `value_bit` is 11 for nine coded bits.
            let mine: Vec<_> = mine.map(|e| (e >> 21, e >> 11 & 0x1ff, e & 0x7ff)).collect();
            let p = table_bits;
            let expected = scalar.entries().iter();
            let expected: Vec<_> =
                expected.map(|e| (e >> (32 - p), e >> p & ((1 << (32 - 2 * p)) - 1), e & ((1 << p) - 1))).collect();
            assert_eq!(mine, expected);
        }
    }
}
