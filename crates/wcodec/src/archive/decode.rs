//! Decoding whole tensors, ranges of bytes, and many tensors at once.

use std::ops::Range;

use rayon::prelude::*;
use wcodec_container::crc32;

use super::{Decoder, Tensor};
use crate::error::{Error, Result};
use crate::small;

/// Buffers that a thread reuses from chunk to chunk, and from tensor to tensor.
#[derive(Default)]
pub struct Scratch {
    pub(super) lanes: crate::lanes::Scratch,
    planes: Vec<u8>,
    pub(super) integer: crate::integer::Scratch,
    /// A chunk of which a part is wanted.
    pub(super) chunk: Vec<u8>,
}

impl Tensor<'_> {
    /// Decodes the tensor.
    ///
    /// # Errors
    /// As [`Tensor::decode_into`].
    pub fn decode(&self) -> Result<Vec<u8>> {
        let len = self.checked_len()?;
        let mut out = Vec::new();
        // The length is the archive's word; ask for the memory, do not take it for granted.
        out.try_reserve_exact(len)
            .map_err(|_| Error::BadArgument(format!("tensor `{}`: no memory for {len} bytes", self.name())))?;
        out.resize(len, 0);
        self.decode_into(&mut out)?;
        Ok(out)
    }

    /// Decodes the tensor into `out`, in parallel in the current rayon pool. Every byte is checked against its CRC.
    ///
    /// # Errors
    /// [`Error::BadArgument`] unless `out` has [`Tensor::byte_len`] bytes; [`Error::Rans`], [`Error::Corrupt`] or
    /// [`Error::Checksum`] for damaged data, after which `out` holds anything.
    pub fn decode_into(&self, out: &mut [u8]) -> Result<()> {
        decode_many(std::slice::from_ref(self), &mut [out])
    }

    /// Decodes bytes `range` of the tensor on the calling thread, for engines that schedule decoding themselves. Chunks of which
    /// only a part is wanted (see [`Tensor::boundaries`]) are decoded whole, into `scratch`.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for a range that is not in the tensor, or unless `out` is as long; else as [`Tensor::decode_into`].
    pub fn decode_range(&self, range: Range<u64>, out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
        let len = self.checked_len()? as u64;
        if range.start > range.end || range.end > len || range.end - range.start != out.len() as u64 {
            let (name, given) = (self.name(), out.len());
            return Err(Error::BadArgument(format!(
                "tensor `{name}` has {len} bytes; bytes {range:?} do not go into a buffer of {given}"
            )));
        }
        if let Some(bytes) = self.pooled_bytes() {
            self.check_whole(crc32(bytes))?;
            out.copy_from_slice(&bytes[range.start as usize..range.end as usize]);
            return Ok(());
        }
        let mut start = 0;
        for chunk in 0..self.chunks() {
            let held = start..start + self.chunk_len(chunk);
            start = held.end;
            let wanted = held.start.max(range.start)..held.end.min(range.end);
            if wanted.start >= wanted.end {
                continue;
            }
            let part = &mut out[(wanted.start - range.start) as usize..(wanted.end - range.start) as usize];
            if wanted == held {
                self.decode_chunk(chunk, part, scratch)?;
            } else {
                let mut whole = std::mem::take(&mut scratch.chunk);
                whole.resize((held.end - held.start) as usize, 0);
                let decoded = self.decode_chunk(chunk, &mut whole, scratch);
                let from = (wanted.start - held.start) as usize;
                part.copy_from_slice(&whole[from..from + part.len()]);
                scratch.chunk = whole;
                decoded?;
            }
        }
        Ok(())
    }

    /// Decodes one chunk and checks its CRC.
    pub(crate) fn decode_chunk(&self, chunk: usize, out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
        let extent = self.extents[chunk];
        let bytes = self.reader().bytes(extent)?;
        match &self.decoder {
            Decoder::Lanes(lanes) => {
                let crc = lanes.decode_chunk(chunk, bytes, extent.offset, out, &mut scratch.lanes)?;
                return self.check_chunk(chunk, crc);
            }
            Decoder::Frames(frames) => frames.decode_chunk(chunk, bytes, extent.offset, out, &mut scratch.planes)?,
            Decoder::Integer(integer) => {
                integer.decode_chunk(chunk, bytes, extent.offset, out, &mut scratch.integer)?
            }
            Decoder::Plain => small::decode(self.name(), self.dtype(), bytes, extent.offset, out)?,
            Decoder::Store if bytes.len() == out.len() => out.copy_from_slice(bytes),
            Decoder::Store | Decoder::Pooled { .. } => {
                return Err(Error::corrupt(self.name(), extent.offset, "stored chunk of another length"));
            }
        }
        self.check_chunk(chunk, crc32(out))
    }

    /// Compares the CRC-32 of a chunk's decoded bytes.
    fn check_chunk(&self, chunk: usize, found: u32) -> Result<()> {
        let expected = self.entry().chunks[chunk].crc32_decoded;
        if expected != found {
            return Err(Error::Checksum { what: format!("tensor `{}`, chunk {chunk}", self.name()), expected, found });
        }
        Ok(())
    }

    /// A coarser tensor from the first `planes` bitplanes of every superblock, and a bound on the error of its samples (read as the
    /// tensor's 8-bit integers, modulo 256). For tensors in integer mode, best encoded with [`crate::EncodeOptions::progressive`].
    ///
    /// # Errors
    /// [`Error::BadArgument`] for another mode; else as [`Tensor::decode_into`], without the check of the decoded bytes' CRC.
    pub fn decode_planes(&self, planes: u32) -> Result<(Vec<u8>, u8)> {
        let Decoder::Integer(integer) = &self.decoder else {
            return Err(Error::BadArgument(format!(
                "tensor `{}` is in {} mode, not integer",
                self.name(),
                self.mode()
            )));
        };
        let mut out = vec![0; self.checked_len()?];
        let (mut rest, mut bound, mut scratch) = (out.as_mut_slice(), 0, Scratch::default());
        for (chunk, extent) in self.extents.iter().enumerate() {
            let (part, tail) = rest.split_at_mut(self.chunk_len(chunk) as usize);
            let bytes = self.reader().bytes(*extent)?;
            bound = bound.max(integer.decode_progressive(
                chunk,
                bytes,
                extent.offset,
                planes,
                part,
                &mut scratch.integer,
            )?);
            rest = tail;
        }
        Ok((out, bound))
    }
}

/// Decodes many tensors, each into a buffer of its length, in parallel over all their chunks in the current rayon pool. Checks as
/// [`Tensor::decode_into`].
///
/// ```no_run
/// # fn main() -> wcodec::Result<()> {
/// let archive = wcodec::Archive::open("model.wcodec")?;
/// let tensors = (0..archive.len()).map(|i| archive.tensor_at(i)).collect::<wcodec::Result<Vec<_>>>()?;
/// let mut buffers: Vec<Vec<u8>> = tensors.iter().map(|t| vec![0; t.byte_len() as usize]).collect();
/// wcodec::decode_many(&tensors, &mut buffers.iter_mut().map(|b| b.as_mut_slice()).collect::<Vec<_>>())?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::BadArgument`] when there are not as many buffers as tensors or one has another length; else the first fault found.
pub fn decode_many(tensors: &[Tensor<'_>], outs: &mut [&mut [u8]]) -> Result<()> {
    if tensors.len() != outs.len() {
        return Err(Error::BadArgument(format!("{} tensors, {} buffers", tensors.len(), outs.len())));
    }
    let mut jobs = Vec::new();
    for (tensor, out) in tensors.iter().zip(outs) {
        if out.len() as u64 != tensor.byte_len() {
            let (name, len) = (tensor.name(), tensor.byte_len());
            return Err(Error::BadArgument(format!("tensor `{name}` has {len} bytes, the buffer {}", out.len())));
        }
        if let Some(bytes) = tensor.pooled_bytes() {
            out.copy_from_slice(bytes);
            tensor.check_whole(crc32(out))?;
            continue;
        }
        let mut rest: &mut [u8] = out;
        for chunk in 0..tensor.chunks() {
            let (part, tail) = rest.split_at_mut(tensor.chunk_len(chunk) as usize);
            jobs.push((tensor, chunk, part));
            rest = tail;
        }
    }
    // Jobs of one chunk each can be stolen to the last, so that all threads end together.
    jobs.into_par_iter()
        .with_max_len(1)
        .try_for_each_init(Scratch::default, |scratch, (tensor, chunk, part)| tensor.decode_chunk(chunk, part, scratch))
}
