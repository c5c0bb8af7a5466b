//! Tensors in integer mode: their parts, checked and laid out for the kernel.

use std::ops::Range;
use std::sync::Arc;

use wcodec_rans::LANES;
use wcodec_rans::superblock::{DecodeTables, PATCH_BYTES, Shape};

use crate::lanes::{PAYLOAD_ALIGN, error_of, inconsistent, words_at};
use crate::launch::{self, IntegerResident, IntegerUploaded, Region};
use crate::{CudaDecoder, CudaError, DevicePayload, DeviceSliceMut, Stream};

/// The parts of a tensor in integer mode, in host memory.
///
/// The tensor is seen as `rows` × `cols` bytes and `rest` bytes behind them, cut into strips of `block_rows` rows and those into
/// superblocks of 64 columns, numbered strip by strip. A superblock codes its residuals, or bitplanes of its coefficients.
#[derive(Clone, Debug)]
pub struct IntegerTensor<'a> {
    /// Rows of the view.
    pub rows: usize,
    /// Columns of the view.
    pub cols: usize,
    /// Rows of a superblock, 1 to 512; those of the last strip may be fewer.
    pub block_rows: usize,
    /// The side of a tile: 4, 8, 16, 32 or 64.
    pub tile: usize,
    /// Tables of 8-bit symbols.
    pub tables: &'a DecodeTables,
    /// All superblocks in order.
    pub blocks: &'a [IntegerBlock],
    /// Codes of all tiles, superblock by superblock: mode + 7 · transform.
    pub tiles: &'a [u8],
    /// Classes of all runs of symbol rows, superblock by superblock.
    pub classes: &'a [u8],
    /// Bytes behind the last whole row: a range of the payload.
    pub rest: Range<usize>,
}

/// A superblock of an [`IntegerTensor`]. Offsets count from the first chunk, as the chunks lie on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntegerBlock {
    /// Where its states begin, a multiple of 4.
    pub states: usize,
    /// Where its stream begins, a multiple of 4.
    pub stream: usize,
    /// Length of the stream in 32-bit words.
    pub stream_words: u16,
    /// Patches at the end of the stream.
    pub patches: u16,
    /// Bitplanes; 0 for residuals.
    pub planes: u8,
}

/// A tensor in integer mode in device memory, compressed.
#[derive(Debug)]
pub struct DeviceInteger {
    resident: IntegerResident,
}

/// A tensor whose parts were found to fit each other, and its place on the device.
#[derive(Debug)]
pub struct PreparedInteger {
    tensor: IntegerUploaded,
    payload: Region,
}

/// Coefficients in a row of 64 bytes of a bitplane.
const ROW_COEFFICIENTS: usize = 8 * LANES;
/// Rows of residuals, and of a bitplane, that share a class.
const RESIDUAL_RUN: usize = 4;
const PLANE_RUN: usize = 2;
const MODES: u8 = 7;
const TRANSFORMS: u8 = 3;
/// Rows that the coder can have.
const MAX_ROWS: usize = 512;
const MAX_PLANES: u8 = 32;

impl PreparedInteger {
    /// Checks that the parts fit each other, the place, and what `decoder`'s device can hold. Work for the host alone.
    ///
    /// # Errors
    /// [`CudaError::Inconsistent`] for parts that do not fit each other, [`CudaError::CorruptSuperblock`] where one superblock is at
    /// fault, [`CudaError::TooLarge`] for more than 16 GiB of compressed bytes, or tables and superblocks larger than a block's shared
    /// memory; [`CudaError::OutOfRange`] and [`CudaError::Misaligned`] for chunks that are not in the buffer or begin at no multiple
    /// of 16.
    pub fn new(
        decoder: &CudaDecoder,
        tensor: &IntegerTensor<'_>,
        payload: &DevicePayload,
        bytes: usize,
    ) -> Result<Self, CudaError> {
        let Some(&offset) = payload.chunks.first() else { return inconsistent("a place for every chunk") };
        if !offset.is_multiple_of(PAYLOAD_ALIGN) {
            let (what, value, multiple) = ("a chunk's offset", offset as u64, PAYLOAD_ALIGN as u64);
            return Err(CudaError::Misaligned { what, value, multiple });
        }
        payload.buffer.sub_slice(offset, bytes)?;
        let tensor = prepare(tensor, bytes)?;
        tensor.fits(decoder.context())?;
        Ok(Self { tensor, payload: Region { buffer: Arc::clone(&payload.buffer), offset } })
    }

    pub(crate) fn into_parts(self) -> (IntegerUploaded, Region) {
        (self.tensor, self.payload)
    }
}

impl DeviceInteger {
    /// Tensors whose compressed bytes are on the device already, or are on their way there on `stream`: copies what stands beside
    /// these bytes, in one piece for all tensors. Waits for the stream.
    ///
    /// # Errors
    /// [`CudaError::OutOfDeviceMemory`], [`CudaError::Call`].
    pub fn adopt(stream: &Stream, tensors: Vec<PreparedInteger>) -> Result<Vec<Self>, CudaError> {
        let uploads = tensors.into_iter().map(PreparedInteger::into_parts).collect();
        Ok(IntegerResident::upload(stream, uploads)?.into_iter().map(|resident| Self { resident }).collect())
    }

    /// Bytes of the decoded tensor.
    pub fn decoded_bytes(&self) -> usize {
        self.resident.decoded_bytes()
    }

    /// Bytes of device memory that the tensor takes.
    pub fn device_bytes(&self) -> usize {
        self.resident.device_bytes()
    }

    /// The failures of many tensors so far, in their order. Waits for the stream.
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

impl CudaDecoder {
    /// Whether the device has enough shared memory for integer mode with that many contexts and that precision, whatever the superblocks.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn holds_integer(&self, contexts: usize, table_bits: u32) -> Result<bool, CudaError> {
        launch::holds_integer(self.context(), contexts, table_bits)
    }

    /// Queues the decoding of parts of tensors in integer mode, as [`CudaDecoder::decode_ranges`] does.
    ///
    /// # Errors
    /// As [`CudaDecoder::decode_ranges`].
    pub fn decode_integer<'a>(
        &self,
        items: impl IntoIterator<Item = (&'a DeviceInteger, Range<usize>, DeviceSliceMut<'a>)>,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let jobs = items.into_iter().map(|(tensor, range, out)| (&tensor.resident, range, out)).collect();
        launch::decode_integer(stream, jobs)
    }
}

fn prepare(t: &IntegerTensor<'_>, payload_bytes: usize) -> Result<IntegerUploaded, CudaError> {
    if t.rows == 0 || t.cols == 0 || Shape::new(t.block_rows, 1).is_err() || !matches!(t.tile, 4 | 8 | 16 | 32 | 64) {
        return inconsistent("the view is empty, a superblock has not 1 to 512 rows, or tiles have another side");
    }
    let (strips, across) = (t.rows.div_ceil(t.block_rows), t.cols.div_ceil(LANES));
    let fits = |n: usize| i32::try_from(n).is_ok();
    if !fits(t.rows) || !fits(t.cols) || t.blocks.len() != strips.saturating_mul(across) || !fits(4 * t.blocks.len()) {
        return inconsistent("more rows or columns than 2^31 - 1, or another number of superblocks");
    }
    let (contexts, table_bits) = (t.tables.contexts(), t.tables.table_bits());
    if t.tables.layout().coded_bits() != 8 || t.tables.layout().raw_bits() != 0 {
        return inconsistent("tables of 8-bit symbols");
    }
    if t.tiles.iter().any(|&code| code >= MODES * TRANSFORMS)
        || t.classes.iter().any(|&class| usize::from(class) >= contexts)
    {
        return inconsistent("a tile code or a class that does not exist");
    }
    if t.rest.start > t.rest.end || t.rest.end > payload_bytes {
        return inconsistent("the rest outside the payload");
    }
    let mut blocks = Vec::with_capacity(t.blocks.len() * launch::INTEGER_BLOCK_BYTES);
    let (mut tiles_at, mut classes_at, mut symbol_bytes) = (0usize, 0usize, 0usize);
    for (number, block) in t.blocks.iter().enumerate() {
        let corrupt = || Err(CudaError::CorruptSuperblock { superblock: number as u64 });
        let (first_row, first_col) = (number / across * t.block_rows, number % across * LANES);
        let (rows, cols) = (t.block_rows.min(t.rows - first_row), LANES.min(t.cols - first_col));
        let (symbol_rows, lanes, runs) = if block.planes == 0 {
            (rows, cols, rows.div_ceil(RESIDUAL_RUN))
        } else {
            let plane_rows = (rows * cols).div_ceil(ROW_COEFFICIENTS);
            let planes = usize::from(block.planes);
            symbol_bytes = symbol_bytes.max(planes * plane_rows * LANES);
            (planes * plane_rows, LANES, planes * plane_rows.div_ceil(PLANE_RUN))
        };
        let stream_bytes = 4 * usize::from(block.stream_words);
        let inside = |start: usize, len: usize| {
            start.is_multiple_of(4) && start.checked_add(len).is_some_and(|end| end <= payload_bytes)
        };
        if symbol_rows > MAX_ROWS
            || block.planes > MAX_PLANES
            || (block.planes != 0 && block.patches != 0)
            || usize::from(block.patches) * PATCH_BYTES > stream_bytes
            || !inside(block.states, 4 * lanes)
            || !inside(block.stream, stream_bytes)
        {
            return corrupt();
        }
        let (down, side_by_side) = (rows.div_ceil(t.tile), cols.div_ceil(t.tile));
        let Some(codes) = t.tiles.get(tiles_at..tiles_at + down * side_by_side) else {
            return inconsistent("a code for every tile");
        };
        for (tile, &code) in codes.iter().enumerate() {
            let (row, col) = (tile / side_by_side * t.tile, tile % side_by_side * t.tile);
            let full = t.tile >= 8 && row + t.tile <= rows && col + t.tile <= cols;
            if code >= MODES && (block.planes == 0 || !full) {
                return corrupt();
            }
        }
        if t.classes.len() < classes_at + runs {
            return inconsistent("a class for every run");
        }
        for word in [words_at(block.states)?, words_at(block.stream)?, tiles_at as u32, classes_at as u32] {
            blocks.extend_from_slice(&word.to_ne_bytes());
        }
        blocks.extend_from_slice(&block.stream_words.to_ne_bytes());
        blocks.extend_from_slice(&[block.planes, cols as u8]);
        blocks.extend_from_slice(&block.patches.to_ne_bytes());
        blocks.extend_from_slice(&(rows as u16).to_ne_bytes());
        blocks.extend_from_slice(&(first_row as u32).to_ne_bytes());
        blocks.extend_from_slice(&(first_col as u32).to_ne_bytes());
        tiles_at += codes.len();
        classes_at += runs;
    }
    if tiles_at != t.tiles.len() || classes_at != t.classes.len() || !fits(tiles_at) || !fits(classes_at) {
        return inconsistent("tile codes or classes of no superblock");
    }
    Ok(IntegerUploaded {
        rows: t.rows,
        cols: t.cols,
        rest: t.rest.len(),
        rest_at: t.rest.start,
        block_rows: t.block_rows,
        tile_bits: t.tile.trailing_zeros(),
        contexts,
        table_bits,
        payload_bytes,
        blocks,
        entries: t.tables.entries().iter().flat_map(|entry| entry.to_ne_bytes()).collect(),
        tiles: t.tiles.to_vec(),
        classes: t.classes.chunks(2).map(|pair| pair[0] | pair.get(1).map_or(0, |&class| class << 4)).collect(),
        symbol_bytes,
    })
}
