//! Bringing tensors to a device.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;
use wcodec_cuda::{DeviceBuffer, DeviceInteger, DevicePlain, Stream, crc32_device};

use super::device::CudaDevice;
use super::parts::{self, Prepared};
use super::tensor::{ChunkInfo, DecodedBy, DeviceTensor, Held, Piece};
use crate::archive::{Decoder, Tensor};
use crate::error::{Error, Result};
use crate::lanes::Geometry;
use crate::mode::Mode;

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
        let plan = self.plan(tensors)?;
        let mut buffer = DeviceBuffer::new(self.context(), plan.bytes)?;
        let mut gathered = Vec::new();
        let mut gathered_at = 0;
        for (tensor, place) in tensors.iter().zip(&plan.places) {
            match place.source {
                Source::Payload => buffer.copy_from_host(stream, place.offset, tensor.payload()?)?,
                Source::Shared | Source::Beside => {}
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
        check_stored(tensors, &held, &plan.places, stream)?;
        let prepare = |(tensor, place): (&Tensor<'_>, &Place)| match place.source {
            Source::Decoded => Ok(Prepared::None),
            _ => parts::prepare(&self.decoder, tensor, 0..tensor.chunks(), &buffer, place.offset),
        };
        let prepared = tensors.par_iter().zip(&plan.places).map(prepare).collect::<Result<Vec<_>>>()?;
        let (mut lanes, mut integer, mut plain) = (Kind::default(), Kind::default(), Kind::default());
        for (number, prepared) in prepared.into_iter().enumerate() {
            match prepared {
                Prepared::Lanes(tensor) => lanes.push(number, tensor),
                Prepared::Integer(tensor) => integer.push(number, tensor),
                Prepared::Plain(tensor) => plain.push(number, tensor),
                Prepared::None => {}
            }
        }
        for (number, tensor) in lanes.numbers.into_iter().zip(wcodec_cuda::DeviceTensor::adopt(stream, lanes.prepared)?)
        {
            let superblocks_per_chunk = superblocks_per_chunk(&tensors[number]);
            held[number].held = Held::Lanes { tensor: Box::new(tensor), superblocks_per_chunk };
        }
        for (number, tensor) in integer.numbers.into_iter().zip(DeviceInteger::adopt(stream, integer.prepared)?) {
            let superblocks_per_chunk = superblocks_per_chunk(&tensors[number]);
            held[number].held = Held::Integer { tensor: Box::new(tensor), superblocks_per_chunk };
        }
        for (number, tensor) in plain.numbers.into_iter().zip(DevicePlain::upload(stream, plain.prepared)?) {
            tensors[number].verify_stored()?;
            held[number].held = Held::Plain { tensor: Box::new(tensor) };
        }
        let numbers: Vec<usize> = (0..tensors.len())
            .filter(|&number| tensors[number].mode() == Mode::Zstd && plan.places[number].source == Source::Beside)
            .collect();
        let frames: Vec<&Tensor<'_>> = numbers.iter().map(|&number| &tensors[number]).collect();
        for (number, frames) in numbers.into_iter().zip(self.upload_frames(&frames, stream)?) {
            held[number].held = Held::Frames(Box::new(frames));
        }
        Ok(held)
    }

    /// Where tensors go: payloads first, decoded bytes behind them.
    fn plan(&self, tensors: &[Tensor<'_>]) -> Result<Plan> {
        let frames = self.keeps_frames(tensors)?;
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
            if parts::is_plain(tensor) || (frames && tensor.mode() == Mode::Zstd) {
                place.source = Source::Beside;
            } else if parts::is_copied(&self.decoder, tensor)? {
                let payload = tensor.entry().payload;
                *place = match payloads.get(&(payload.offset, payload.len)) {
                    Some(&offset) => Place { offset, source: Source::Shared },
                    None => Place { offset: next(payload.len)?, source: Source::Payload },
                };
                payloads.insert((payload.offset, payload.len), place.offset);
            }
        }
        for (tensor, place) in tensors.iter().zip(&mut places) {
            if place.source == Source::Decoded {
                place.offset = next(tensor.byte_len())?;
            }
        }
        Ok(Plan { places, bytes })
    }
}

/// Tensors of one kernel, ready for it, and their numbers.
struct Kind<T> {
    numbers: Vec<usize>,
    prepared: Vec<T>,
}

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self { numbers: Vec::new(), prepared: Vec::new() }
    }
}

impl<T> Kind<T> {
    fn push(&mut self, number: usize, prepared: T) {
        self.numbers.push(number);
        self.prepared.push(prepared);
    }
}

/// Where tensors go in a buffer.
struct Plan {
    places: Vec<Place>,
    bytes: usize,
}

/// Where a tensor goes.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: usize,
    source: Source,
}

/// What goes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The payload as it is stored.
    Payload,
    /// The same, which comes with an earlier tensor.
    Shared,
    /// Nothing: planes and frames have memory of their own.
    Beside,
    /// Bytes that the CPU decodes.
    Decoded,
}

/// What is known of a tensor, with its bytes as pieces of the buffer.
fn describe(tensor: &Tensor<'_>, place: &Place, buffer: &Arc<DeviceBuffer>) -> DeviceTensor {
    let entry = tensor.entry();
    let pieces = match place.source {
        Source::Decoded => vec![Piece { offset: place.offset, bytes: entry.decoded_len as usize }],
        Source::Beside => Vec::new(),
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
        Decoder::Lanes(lanes) => blocks_of_chunk(&lanes.params.geometry),
        Decoder::Integer(integer) => blocks_of_chunk(&integer.params.geometry),
        _ => 1,
    }
}

fn blocks_of_chunk(geometry: &Geometry) -> usize {
    geometry.strips_per_chunk.saturating_mul(geometry.blocks_across())
}
