//! Bringing tensors to a device.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use wcodec_cuda::{
    BlockEntry, CudaError, DeviceBuffer, DeviceInteger, DevicePayload, IntegerTensor, LanesTensor, PreparedInteger,
    PreparedTensor, Stream, crc32_device,
};
use wcodec_rans::TableSet;

use super::check::damaged;
use super::device::CudaDevice;
use super::tensor::{ChunkInfo, DecodedBy, DeviceTensor, Held, Piece};
use crate::archive::{Decoder, Tensor};
use crate::error::{Error, Result};
use crate::integer::IntegerDecoder;
use crate::lanes::LanesDecoder;
use crate::mode::Mode;
use crate::wire::Cursor;

/// What payloads are aligned to on the device; in an archive they are aligned to 64 bytes.
const ALIGN: usize = 256;
/// Decoded bytes that are copied together.
const GATHER_BYTES: usize = 16 << 20;

impl CudaDevice {
    /// Copies tensors to the device as they are stored, with their tables and index: once, for any number of decodings. The checksums
    /// of the stored bytes are compared on the device. Payloads that tensors share are copied once. Waits for the stream.
    ///
    /// Frames of zstd mode are decoded by nvCOMP, if it is found. Tensors of a mode without a kernel are decoded on the CPU, in the current rayon pool, and copied decoded:
    /// [`DeviceTensor::decoded_by`] says so.
    ///
    /// # Errors
    /// [`Error::Checksum`] for stored bytes, [`Error::Corrupt`] and [`Error::Rans`] for damage that shows before decoding,
    /// [`Error::Cuda`] when memory runs out.
    pub fn upload(&self, tensors: &[Tensor<'_>], stream: &Stream) -> Result<Vec<DeviceTensor>> {
        let plan = Plan::new(tensors, self.keeps_frames(tensors)?)?;
        let mut buffer = DeviceBuffer::new(self.context(), plan.bytes)?;
        let mut gathered = Vec::new();
        let mut gathered_at = 0;
        for (tensor, place) in tensors.iter().zip(&plan.places) {
            match place.source {
                Source::Payload => buffer.copy_from_host(stream, place.offset, tensor.payload()?)?,
                Source::Shared | Source::Frames => {}
                Source::Decoded => {
                    if gathered.is_empty() {
                        gathered_at = place.offset;
                    }
                    gathered.resize(place.offset - gathered_at, 0);
                    gathered.extend_from_slice(&tensor.decode()?);
                    if gathered.len() >= GATHER_BYTES {
                        buffer.copy_from_host(stream, gathered_at, &gathered)?;
                        gathered.clear();
                    }
                }
            }
        }
        buffer.copy_from_host(stream, gathered_at, &gathered)?;
        self.hold(tensors, &plan, Arc::new(buffer), stream)
    }

    /// The tensors whose bytes lie in `buffer`, or are on their way there on `stream`.
    fn hold(
        &self,
        tensors: &[Tensor<'_>],
        plan: &Plan,
        buffer: Arc<DeviceBuffer>,
        stream: &Stream,
    ) -> Result<Vec<DeviceTensor>> {
        let mut held: Vec<DeviceTensor> =
            tensors.iter().zip(&plan.places).map(|(tensor, place)| describe(tensor, place, &buffer)).collect();
        let prepare = |(tensor, described): (&Tensor<'_>, &DeviceTensor)| self.prepare(tensor, described, &buffer);
        let prepared = tensors.par_iter().zip(&held).map(prepare).collect::<Result<Vec<_>>>()?;
        check_stored(tensors, &held, &plan.places, stream)?;
        let (mut lanes, mut integer) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for (number, prepared) in prepared.into_iter().enumerate() {
            match prepared {
                Some(Prepared::Lanes(tensor)) => lanes.extend([(number, tensor)]),
                Some(Prepared::Integer(tensor)) => integer.extend([(number, tensor)]),
                Some(Prepared::Decoded(bytes)) => {
                    let pieces = vec![Piece { offset: 0, bytes: bytes.len() }];
                    let buffer = Arc::new(DeviceBuffer::from_host(stream, &bytes)?);
                    held[number].held = Held::Bytes { buffer, pieces, by: DecodedBy::Host };
                }
                None => {}
            }
        }
        for (number, tensor) in lanes.0.into_iter().zip(wcodec_cuda::DeviceTensor::adopt(stream, lanes.1)?) {
            let superblocks_per_chunk = superblocks_per_chunk(&tensors[number]);
            held[number].held = Held::Lanes { tensor: Box::new(tensor), superblocks_per_chunk };
        }
        for (number, tensor) in integer.0.into_iter().zip(DeviceInteger::adopt(stream, integer.1)?) {
            let superblocks_per_chunk = superblocks_per_chunk(&tensors[number]);
            held[number].held = Held::Integer { tensor: Box::new(tensor), superblocks_per_chunk };
        }
        let numbers: Vec<usize> =
            (0..tensors.len()).filter(|&number| plan.places[number].source == Source::Frames).collect();
        let frames: Vec<&Tensor<'_>> = numbers.iter().map(|&number| &tensors[number]).collect();
        for (number, frames) in numbers.into_iter().zip(self.upload_frames(&frames, stream)?) {
            held[number].held = Held::Frames(Box::new(frames));
        }
        Ok(held)
    }

    /// What a kernel needs of a tensor whose payload is, or will be, where `described` says; `None` for a tensor without a kernel.
    pub(super) fn prepare(
        &self,
        tensor: &Tensor<'_>,
        described: &DeviceTensor,
        buffer: &Arc<DeviceBuffer>,
    ) -> Result<Option<Prepared>> {
        let prepared = match tensor.decoder() {
            Decoder::Lanes(lanes) => self.prepare_lanes(tensor, lanes, described, buffer).map(Prepared::Lanes),
            Decoder::Integer(integer) => {
                self.prepare_integer(tensor, integer, described, buffer).map(Prepared::Integer)
            }
            _ => return Ok(None),
        };
        match prepared {
            // A device with little shared memory, and large tables.
            Err(Error::Cuda(CudaError::TooLarge { .. })) => Ok(Some(Prepared::Decoded(tensor.decode()?))),
            Err(error) => {
                // The kernel's side says that the parts do not fit; the CPU says what is wrong with them.
                tensor.decode()?;
                Err(error)
            }
            Ok(prepared) => Ok(Some(prepared)),
        }
    }

    /// The parts of a tensor in lanes mode, checked.
    fn prepare_lanes(
        &self,
        tensor: &Tensor<'_>,
        lanes: &LanesDecoder,
        described: &DeviceTensor,
        buffer: &Arc<DeviceBuffer>,
    ) -> Result<PreparedTensor> {
        let pieces = described.pieces();
        let (params, g) = (&lanes.params, &lanes.params.geometry);
        let blocks: Vec<BlockEntry> = lanes
            .index
            .iter()
            .map(|block| BlockEntry { stream_words: block.stream_words, base: block.base, patches: block.patches })
            .collect();
        let payload = tensor.payload()?;
        let start = pieces.first().map_or(0, |piece| piece.offset);
        let bytes_of = |piece: &Piece| -> Range<usize> { piece.offset - start..piece.offset - start + piece.bytes };
        let chunks: Vec<&[u8]> = pieces.iter().filter_map(|piece| payload.get(bytes_of(piece))).collect();
        let tables = tables_of(tensor)?;
        let parts = LanesTensor {
            layout: params.layout,
            element_bytes: g.element_bytes,
            rows: g.rows,
            cols: g.cols,
            rest: g.rest * g.element_bytes,
            block_rows: g.block_rows,
            strips_per_chunk: g.strips_per_chunk,
            tables: &tables,
            row_classes: &params.row_classes,
            col_classes: &params.col_classes,
            low_bits: &params.low_bits,
            blocks: &blocks,
            chunks: &chunks,
        };
        let place =
            DevicePayload { buffer: Arc::clone(buffer), chunks: pieces.iter().map(|piece| piece.offset).collect() };
        let prepared = PreparedTensor::new(&self.decoder, &parts, &place);
        prepared.map_err(|error| damaged(tensor.name(), &described.chunks, superblocks_per_chunk(tensor), error))
    }

    /// The parts of a tensor in integer mode, checked.
    fn prepare_integer(
        &self,
        tensor: &Tensor<'_>,
        integer: &IntegerDecoder,
        described: &DeviceTensor,
        buffer: &Arc<DeviceBuffer>,
    ) -> Result<PreparedInteger> {
        let (params, g) = (&integer.params, &integer.params.geometry);
        let payload = tensor.payload()?;
        let extents: Vec<_> = tensor.entry().chunk_extents().collect();
        let parts = integer.device_parts(payload, &extents)?;
        let parts = IntegerTensor {
            rows: g.rows,
            cols: g.cols,
            block_rows: g.block_rows,
            tile: params.tile.get(),
            tables: &integer.tables,
            blocks: &parts.blocks,
            tiles: &parts.tiles,
            classes: &parts.classes,
            rest: parts.rest,
        };
        let prepared = PreparedInteger::new(&self.decoder, &parts, &place_of(described, buffer), payload.len());
        prepared.map_err(|error| damaged(tensor.name(), &described.chunks, superblocks_per_chunk(tensor), error))
    }
}

/// A tensor that is ready for its kernel but for what stands beside its payload.
pub(super) enum Prepared {
    Lanes(PreparedTensor),
    Integer(PreparedInteger),
    /// What the CPU decoded, because the kernel cannot.
    Decoded(Vec<u8>),
}

/// Where tensors go in a buffer.
pub(super) struct Plan {
    pub(super) places: Vec<Place>,
    pub(super) bytes: usize,
}

/// Where a tensor goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) offset: usize,
    pub(super) source: Source,
}

/// What goes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The payload as it is stored.
    Payload,
    /// The same, which comes with an earlier tensor.
    Shared,
    /// Bytes that the CPU decodes.
    Decoded,
    /// Frames, which get a buffer of their own.
    Frames,
}

impl Plan {
    /// Payloads first, decoded bytes behind them. `frames` says whether those of zstd mode are kept as they are.
    pub(super) fn new(tensors: &[Tensor<'_>], frames: bool) -> Result<Self> {
        let mut places = vec![Place { offset: 0, source: Source::Decoded }; tensors.len()];
        let mut bytes = 0usize;
        let mut payloads = HashMap::new();
        let mut next = |len: u64| {
            let offset = bytes;
            let end =
                usize::try_from(len).ok().and_then(|len| offset.checked_add(len)?.checked_next_multiple_of(ALIGN));
            bytes = end.ok_or_else(|| Error::BadArgument(format!("{len} bytes are more than memory can hold")))?;
            Ok::<usize, Error>(offset)
        };
        for (tensor, place) in tensors.iter().zip(&mut places) {
            if matches!(tensor.mode(), Mode::Lanes | Mode::Integer | Mode::Store) {
                let payload = tensor.entry().payload;
                *place = match payloads.get(&(payload.offset, payload.len)) {
                    Some(&offset) => Place { offset, source: Source::Shared },
                    None => Place { offset: next(payload.len)?, source: Source::Payload },
                };
                payloads.insert((payload.offset, payload.len), place.offset);
            }
        }
        for (tensor, place) in tensors.iter().zip(&mut places) {
            if frames && tensor.mode() == Mode::Zstd {
                place.source = Source::Frames;
            } else if place.source == Source::Decoded {
                place.offset = next(tensor.byte_len())?;
            }
        }
        Ok(Self { places, bytes })
    }
}

/// What is known of a tensor, with its bytes as pieces of the buffer.
pub(super) fn describe(tensor: &Tensor<'_>, place: &Place, buffer: &Arc<DeviceBuffer>) -> DeviceTensor {
    let entry = tensor.entry();
    let pieces = match place.source {
        Source::Frames => Vec::new(),
        Source::Decoded => vec![Piece { offset: place.offset, bytes: entry.decoded_len as usize }],
        Source::Payload | Source::Shared => entry
            .chunk_extents()
            .map(|extent| Piece {
                offset: place.offset + (extent.offset - entry.payload.offset) as usize,
                bytes: extent.len as usize,
            })
            .collect(),
    };
    let by = if tensor.mode() == Mode::Store { DecodedBy::Copy } else { DecodedBy::Host };
    DeviceTensor {
        name: entry.name.clone(),
        dtype: entry.dtype,
        shape: entry.shape.clone(),
        mode: tensor.mode(),
        byte_len: entry.decoded_len,
        chunks: chunks_of(tensor),
        held: Held::Bytes { buffer: Arc::clone(buffer), pieces, by },
    }
}

/// What is known of a tensor's chunks.
pub(super) fn chunks_of(tensor: &Tensor<'_>) -> Vec<ChunkInfo> {
    let entry = tensor.entry();
    let mut chunks: Vec<ChunkInfo> = entry
        .chunk_extents()
        .zip(&entry.chunks)
        .map(|(extent, chunk)| ChunkInfo {
            offset: extent.offset,
            decoded_len: chunk.decoded_len,
            crc32_decoded: chunk.crc32_decoded,
        })
        .collect();
    if chunks.is_empty() && entry.decoded_len > 0 {
        // Pooled tensors have no chunks, but a checksum.
        chunks.push(ChunkInfo { offset: 0, decoded_len: entry.decoded_len, crc32_decoded: entry.crc32_decoded });
    }
    chunks
}

/// Compares the CRC-32 of all chunks that were copied as they are stored.
fn check_stored(tensors: &[Tensor<'_>], held: &[DeviceTensor], places: &[Place], stream: &Stream) -> Result<()> {
    let (mut parts, mut expected) = (Vec::new(), Vec::new());
    for ((tensor, held), place) in tensors.iter().zip(held).zip(places) {
        let Held::Bytes { buffer, pieces, .. } = &held.held else { continue };
        if place.source == Source::Payload {
            for (number, (piece, chunk)) in pieces.iter().zip(&tensor.entry().chunks).enumerate() {
                parts.push(buffer.sub_slice(piece.offset, piece.bytes)?);
                expected.push((tensor, number, chunk.crc32_compressed));
            }
        }
    }
    for ((tensor, number, expected), found) in expected.into_iter().zip(crc32_device(stream, &parts)?) {
        if expected != found {
            let what = format!("tensor `{}`, stored bytes of chunk {number}", tensor.name());
            return Err(Error::Checksum { what, expected, found });
        }
    }
    Ok(())
}

pub(super) fn superblocks_per_chunk(tensor: &Tensor<'_>) -> usize {
    match tensor.decoder() {
        Decoder::Lanes(lanes) => lanes.params.geometry.strips_per_chunk * lanes.params.geometry.blocks_across(),
        Decoder::Integer(integer) => integer.params.geometry.strips_per_chunk * integer.params.geometry.blocks_across(),
        _ => 1,
    }
}

/// Where the chunks of a tensor lie that has not been given to a kernel yet.
fn place_of(described: &DeviceTensor, buffer: &Arc<DeviceBuffer>) -> DevicePayload {
    let chunks = described.pieces().iter().map(|piece| piece.offset).collect();
    DevicePayload { buffer: Arc::clone(buffer), chunks }
}

/// The table set of a tensor, which its decoder has found to be in order.
fn tables_of(tensor: &Tensor<'_>) -> Result<TableSet> {
    let (entry, offset) = (tensor.entry(), tensor.directory_offset());
    let mut cursor = Cursor::new(&entry.params, &entry.name, offset);
    let id = cursor.varint()?;
    match usize::try_from(id).ok().and_then(|id| tensor.pool().get(id)) {
        Some(bytes) => TableSet::from_bytes(bytes).map_err(|error| Error::rans(&entry.name, offset, error)),
        None => cursor.corrupt("no such table set"),
    }
}
