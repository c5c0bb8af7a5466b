//! Runs of chunks of a tensor as its kernel takes them: a tensor as a whole, or a part of it that is loaded by itself.

use std::ops::Range;
use std::sync::Arc;

use wcodec_container::{ArchiveReader, Extent, TensorEntry};
use wcodec_cuda::{
    BlockEntry, CudaDecoder, CudaError, DeviceBuffer, DevicePayload, IntegerTensor, LanesTensor, PlainTensor,
    PreparedInteger, PreparedPlain, PreparedTensor,
};
use wcodec_rans::TableSet;

use super::check::damaged;
use super::upload::{chunks_of, superblocks_per_chunk};
use crate::archive::{Decoder, Tensor};
use crate::error::{Error, Result};
use crate::integer::IntegerDecoder;
use crate::lanes::LanesDecoder;
use crate::small;
use crate::wire::Cursor;

/// What a kernel needs of a run of chunks, all but what it writes beside their bytes.
pub(super) enum Prepared {
    Lanes(PreparedTensor),
    Integer(PreparedInteger),
    /// Its bytes go beside the others, not into the buffer.
    Plain(PreparedPlain),
    /// There is no kernel for the mode.
    None,
}

/// Prepares chunks `chunks` of a tensor; the first of them lies, or will lie, at `offset` of the buffer, the others as far behind it as
/// in the archive.
///
/// # Errors
/// Those of the CPU for damage; [`CudaError::TooLarge`] where the device has too little shared memory, see [`is_copied`].
pub(super) fn prepare(
    decoder: &CudaDecoder,
    tensor: &Tensor<'_>,
    chunks: Range<usize>,
    buffer: &Arc<DeviceBuffer>,
    offset: usize,
) -> Result<Prepared> {
    let run = Run { decoder, tensor, chunks, buffer, offset, extents: tensor.entry().chunk_extents().collect() };
    let prepared = match tensor.decoder() {
        Decoder::Lanes(lanes) => run.lanes(lanes).map(Prepared::Lanes),
        Decoder::Integer(integer) => run.integer(integer).map(Prepared::Integer),
        Decoder::Plain => run.plain().map(Prepared::Plain),
        _ => return Ok(Prepared::None),
    };
    match prepared {
        Err(error @ Error::Cuda(CudaError::TooLarge { .. })) => Err(error),
        Err(error) => {
            // The kernel's side says that the parts do not fit; the CPU says what is wrong with them.
            tensor.decode()?;
            Err(error)
        }
        Ok(prepared) => Ok(prepared),
    }
}

/// Whether a tensor in plain mode goes to its kernel: it is one chunk, as writers make it.
pub(super) fn is_plain(tensor: &Tensor<'_>) -> bool {
    matches!(tensor.decoder(), Decoder::Plain) && tensor.chunks() == 1
}

/// Whether a tensor's payload goes to the device as it is stored: there is a kernel for its mode, with room for its tables, or it is only copied.
pub(super) fn is_copied(decoder: &CudaDecoder, tensor: &Tensor<'_>) -> Result<bool> {
    Ok(match tensor.decoder() {
        // Kernels have no step that widens heads again.
        Decoder::Lanes(lanes) => {
            lanes.params.dropped == 0 && decoder.holds_lanes(lanes.tables.contexts(), lanes.tables.table_bits())?
        }
        Decoder::Integer(integer) => decoder.holds_integer(integer.tables.contexts(), integer.tables.table_bits())?,
        Decoder::Store => true,
        _ => false,
    })
}

/// The stored bytes of a run of chunks, and of the gaps between them.
pub(super) fn stored<'a>(reader: &'a ArchiveReader, entry: &TensorEntry, chunks: &Range<usize>) -> Result<&'a [u8]> {
    let mut run = entry.chunk_extents().skip(chunks.start).take(chunks.len());
    let Some(first) = run.next() else { return Ok(&[]) };
    let last = run.last().unwrap_or(first);
    Ok(reader.bytes(Extent { offset: first.offset, len: last.offset - first.offset + last.len })?)
}

struct Run<'r, 't> {
    decoder: &'r CudaDecoder,
    tensor: &'r Tensor<'t>,
    chunks: Range<usize>,
    buffer: &'r Arc<DeviceBuffer>,
    offset: usize,
    extents: Vec<Extent>,
}

impl Run<'_, '_> {
    fn place(&self) -> DevicePayload {
        let first = self.extents[self.chunks.start].offset;
        let at = |extent: &Extent| self.offset + (extent.offset - first) as usize;
        DevicePayload {
            buffer: Arc::clone(self.buffer),
            chunks: self.extents[self.chunks.clone()].iter().map(at).collect(),
        }
    }

    fn fault(&self, error: CudaError) -> Error {
        let chunks = chunks_of(self.tensor);
        let own = chunks.get(self.chunks.start..).unwrap_or_default();
        damaged(self.tensor.name(), own, superblocks_per_chunk(self.tensor), error)
    }

    fn lanes(&self, lanes: &LanesDecoder) -> Result<PreparedTensor> {
        let (params, g) = (&lanes.params, &lanes.params.geometry);
        let rows = g.chunk_rows(self.chunks.start).start..g.chunk_rows(self.chunks.end - 1).end;
        let strips = g.chunk_strips(self.chunks.start).start..g.chunk_strips(self.chunks.end - 1).end;
        let index = &lanes.index[strips.start * g.blocks_across()..strips.end * g.blocks_across()];
        let blocks: Vec<BlockEntry> = index
            .iter()
            .map(|block| BlockEntry { stream_words: block.stream_words, base: block.base, patches: block.patches })
            .collect();
        let bytes = stored(self.tensor.reader(), self.tensor.entry(), &self.chunks)?;
        let first = self.extents[self.chunks.start].offset;
        let of = |extent: &Extent| {
            let start = (extent.offset - first) as usize;
            &bytes[start..start + extent.len as usize]
        };
        let chunks: Vec<&[u8]> = self.extents[self.chunks.clone()].iter().map(of).collect();
        let tables = self.tables()?;
        let parts = LanesTensor {
            layout: params.layout,
            element_bytes: g.element_bytes,
            rows: rows.len(),
            cols: g.cols,
            rest: if self.chunks.end == g.chunks() { g.rest * g.element_bytes } else { 0 },
            block_rows: g.block_rows,
            strips_per_chunk: g.strips_per_chunk,
            tables: &tables,
            row_classes: params.row_classes.get(rows.clone()).unwrap_or_default(),
            col_classes: &params.col_classes,
            low_bits: params.low_bits.get(rows).unwrap_or_default(),
            blocks: &blocks,
            chunks: &chunks,
        };
        PreparedTensor::new(self.decoder, &parts, &self.place()).map_err(|error| self.fault(error))
    }

    fn integer(&self, integer: &IntegerDecoder) -> Result<PreparedInteger> {
        let (params, g) = (&integer.params, &integer.params.geometry);
        let bytes = stored(self.tensor.reader(), self.tensor.entry(), &self.chunks)?;
        let parts = integer.device_parts(self.chunks.clone(), bytes, &self.extents)?;
        let parts = IntegerTensor {
            rows: g.chunk_rows(self.chunks.end - 1).end - g.chunk_rows(self.chunks.start).start,
            cols: g.cols,
            block_rows: g.block_rows,
            tile: params.tile.get(),
            tables: &integer.tables,
            blocks: &parts.blocks,
            tiles: &parts.tiles,
            classes: &parts.classes,
            rest: parts.rest,
        };
        PreparedInteger::new(self.decoder, &parts, &self.place(), bytes.len()).map_err(|error| self.fault(error))
    }

    /// A chunk in plain mode.
    fn plain(&self) -> Result<PreparedPlain> {
        let (chunk, extent) = (&self.tensor.entry().chunks[self.chunks.start], self.extents[self.chunks.start]);
        let bytes = stored(self.tensor.reader(), self.tensor.entry(), &self.chunks)?;
        let len = chunk.decoded_len as usize;
        let (planes, rotated) =
            small::packed_planes(self.tensor.name(), self.tensor.dtype(), bytes, extent.offset, len)?;
        let parts = PlainTensor { elements: len / planes.len(), rotated, planes: &planes };
        PreparedPlain::new(&parts).map_err(|error| self.fault(error))
    }

    /// The table set of the tensor, which its decoder has found to be in order.
    fn tables(&self) -> Result<TableSet> {
        let (entry, offset) = (self.tensor.entry(), self.tensor.directory_offset());
        let mut cursor = Cursor::new(&entry.params, &entry.name, offset);
        let id = cursor.varint()?;
        match usize::try_from(id).ok().and_then(|id| self.tensor.pool().get(id)) {
            Some(bytes) => TableSet::from_bytes(bytes).map_err(|error| Error::rans(&entry.name, offset, error)),
            None => cursor.corrupt("no such table set"),
        }
    }
}
