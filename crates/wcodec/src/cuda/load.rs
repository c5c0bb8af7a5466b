//! Loading a checkpoint: decoded once, while the rest is on its way.

use std::borrow::Cow;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use wcodec_container::{ArchiveReader, ChunkEntry};
use wcodec_cuda::{
    DeviceBuffer, DeviceSliceMut, Event, LOAD_SLOTS, LoadGroup, LoadSize, PinnedBuffer, Queue, Stream, Target,
};

use super::device::CudaDevice;
use super::parts::{self, Prepared, stored};
use crate::archive::{Archive, Scratch, Tensor};
use crate::error::{Error, Result};
use crate::mode::Mode;

/// Stored bytes of a group: long enough that starting its copy and its kernels costs little beside it, short enough that three
/// of them are little memory and that little is left to decode when the last byte has arrived.
const GROUP_BYTES: u64 = 16 << 20;
/// Parts of a group: what one launch takes.
const GROUP_PARTS: usize = 32;
/// Groups that are prepared at a time, while those before them are on their way; the first ones are fewer, so that the copy starts at once.
const WAVE: usize = 8;
/// Bytes that a thread reads or copies at a time.
const PIECE_BYTES: usize = 4 << 20;
/// What the parts of a group are aligned to in its slot.
const ALIGN: usize = 256;

impl CudaDevice {
    /// Decodes tensors once, each into the first [`Tensor::byte_len`] bytes of its memory, without keeping them compressed: groups of
    /// their chunks are copied while earlier groups are decoded, so that it takes little longer than the copy of the compressed bytes.
    /// All checksums of decoded bytes are compared, on the device. Works in `stream`'s order and waits.
    ///
    /// The copy is fastest from an archive in locked memory ([`CudaDevice::read_pinned`]); bytes of others are first copied there,
    /// group by group. Beside the outputs it takes three groups in device memory, about 50 MB.
    ///
    /// # Errors
    /// As for decoding on the CPU, for the first damaged tensor; [`Error::BadArgument`] unless there is an output for every tensor, and
    /// it is long enough; [`Error::Cuda`].
    pub fn load(&self, tensors: &[Tensor<'_>], outs: Vec<DeviceSliceMut<'_>>, stream: &Stream) -> Result<LoadReport> {
        if tensors.len() != outs.len() {
            return Err(Error::BadArgument(format!("{} tensors, {} outputs", tensors.len(), outs.len())));
        }
        if stream.is_per_thread() {
            // Threads of the pool queue the work; for each of them that would be another stream.
            let (own, before) = (Stream::new(self.context())?, Event::new(self.context())?);
            before.record(stream)?;
            own.wait(&before)?;
            return self.load(tensors, outs, &own);
        }
        let mut exact = Vec::with_capacity(outs.len());
        for (tensor, out) in tensors.iter().zip(outs) {
            let (len, present) = (tensor.byte_len(), out.len());
            if (present as u64) < len {
                let name = tensor.name();
                return Err(Error::BadArgument(format!(
                    "tensor `{name}`: {len} bytes do not go into device memory of {present}"
                )));
            }
            exact.push(out.take(len as usize)?);
        }
        let as_stored =
            tensors.iter().map(|tensor| parts::is_copied(&self.decoder, tensor)).collect::<Result<Vec<_>>>()?;
        let groups = groups(tensors, &as_stored);
        let size = LoadSize {
            slot_bytes: groups.iter().map(|group| group.bytes).max().unwrap_or(0),
            results: groups.iter().flat_map(|group| &group.parts).map(|part| 1 + part.chunks.len().max(1)).sum(),
        };
        let mut feeder = Feeder {
            device: self,
            tensors,
            groups: &groups,
            as_stored: &as_stored,
            expected: Vec::new(),
            by_kernel: vec![false; tensors.len()],
        };
        let loaded = wcodec_cuda::load(stream, &mut exact, size, |slots, queue| feeder.feed(slots, queue), stage)?;
        if let Some((number, failure)) = loaded.failures.into_iter().min_by_key(|(number, _)| *number) {
            // The device says that there is damage; the CPU says where and what it is.
            tensors[number].decode()?;
            return Err(Error::Cuda(failure));
        }
        for (&(number, chunk, expected), found) in feeder.expected.iter().zip(loaded.crc32) {
            if expected != found {
                let what = match tensors[number].mode() {
                    Mode::Pooled => format!("tensor `{}`", tensors[number].name()),
                    _ => format!("tensor `{}`, chunk {chunk}", tensors[number].name()),
                };
                return Err(Error::Checksum { what, expected, found });
            }
        }
        let mut report = LoadReport::default();
        for (tensor, &by_kernel) in tensors.iter().zip(&feeder.by_kernel) {
            match tensor.mode() {
                _ if by_kernel => report.by_kernel += 1,
                Mode::Store => report.by_copy += 1,
                _ if tensor.byte_len() == 0 => report.by_copy += 1,
                _ => report.by_host += 1,
            }
        }
        Ok(report)
    }

    /// An archive in locked memory, which the device reads by itself at the speed of the bus. The file is read by many threads at
    /// once, in the current rayon pool.
    ///
    /// # Errors
    /// As [`Archive::read`]; [`Error::Io`]; [`Error::Cuda`] when that much memory cannot be locked.
    pub fn read_pinned(&self, path: impl AsRef<Path>) -> Result<Archive> {
        let path = path.as_ref();
        let io = |source| Error::io(path, source);
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let len =
            usize::try_from(len).map_err(|_| Error::BadArgument(format!("{}: larger than memory", path.display())))?;
        let mut memory = PinnedBuffer::new(self.context(), len.max(1))?;
        memory[..len]
            .par_chunks_mut(PIECE_BYTES)
            .enumerate()
            .try_for_each(|(number, piece)| read_at(&file, piece, (number * PIECE_BYTES) as u64).map_err(io))?;
        Ok(Archive::new(ArchiveReader::from_bytes(PinnedArchive { memory, len })?))
    }
}

/// How tensors were loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors that kernels decoded.
    pub by_kernel: usize,
    /// Tensors that are stored as they are, and were copied.
    pub by_copy: usize,
    /// Tensors that the CPU decoded, because their mode has no kernel.
    pub by_host: usize,
}

/// Chunks of a tensor that are copied and decoded together, and their place in the group's slot and in the tensor.
struct Part {
    tensor: usize,
    chunks: Range<usize>,
    slot: Range<usize>,
    decoded: Range<usize>,
}

/// Parts that share a slot.
#[derive(Default)]
struct Group {
    parts: Vec<Part>,
    bytes: usize,
}

/// Cuts tensors into runs of chunks, and gathers these. `as_stored`: which tensors go to the device as they are stored.
fn groups(tensors: &[Tensor<'_>], as_stored: &[bool]) -> Vec<Group> {
    let mut groups = vec![Group::default()];
    for (number, (tensor, &as_stored)) in tensors.iter().zip(as_stored).enumerate() {
        let entry = tensor.entry();
        // What each chunk takes in a slot, gaps included. A pooled tensor is one without a number.
        let plain = parts::is_plain(tensor);
        let size = |chunk: &ChunkEntry| match () {
            () if as_stored => chunk.len.next_multiple_of(64),
            () if plain => 0,
            () => chunk.decoded_len,
        };
        let mut sizes: Vec<(u64, u64)> = entry.chunks.iter().map(|chunk| (size(chunk), chunk.decoded_len)).collect();
        if sizes.is_empty() && entry.decoded_len > 0 {
            sizes.push((entry.decoded_len, entry.decoded_len));
        }
        let (mut chunk, mut decoded) = (0, 0u64);
        while let Some(&(needed, _)) = sizes.get(chunk) {
            let last = groups.last().map_or((0, 0), |group| (group.parts.len(), group.bytes as u64));
            if last.0 == GROUP_PARTS || (last.0 > 0 && last.1 + needed > GROUP_BYTES) {
                groups.push(Group::default());
            }
            let Some(group) = groups.last_mut() else { break };
            let (start, first, begin) = (group.bytes, chunk, decoded);
            let mut end = start as u64;
            while let Some(&(bytes, len)) = sizes.get(chunk)
                && (chunk == first || end + bytes <= GROUP_BYTES)
            {
                (end, decoded, chunk) = (end + bytes, decoded + len, chunk + 1);
            }
            let chunks = first..chunk.min(entry.chunks.len());
            let (slot, decoded) = (start..end as usize, begin as usize..decoded as usize);
            group.bytes = slot.end.next_multiple_of(ALIGN);
            group.parts.push(Part { tensor: number, chunks, slot, decoded });
        }
    }
    groups
}

/// Prepares groups and queues them.
struct Feeder<'f, 't> {
    device: &'f CudaDevice,
    tensors: &'f [Tensor<'t>],
    groups: &'f [Group],
    /// Of every tensor: whether it goes to the device as it is stored.
    as_stored: &'f [bool],
    /// Of every part to check: tensor, chunk, CRC-32.
    expected: Vec<(usize, usize, u32)>,
    /// Of every tensor: whether a kernel decodes it.
    by_kernel: Vec<bool>,
}

impl<'f> Feeder<'f, '_> {
    /// Queues a wave of groups while the next one is being prepared.
    fn feed(&mut self, slots: &[Arc<DeviceBuffer>], queue: &mut Queue<'_, 'f>) -> Result<()> {
        let mut ready: Vec<LoadGroup<'f>> = Vec::new();
        let (mut next, mut wave) = (0, 1);
        loop {
            let numbers = next..(next + wave).min(self.groups.len());
            for group in &self.groups[numbers.clone()] {
                self.expect(group);
            }
            let this = &*self;
            let prepare = || {
                let groups = numbers.clone().into_par_iter();
                groups
                    .map(|number| this.prepare(&this.groups[number], &slots[number % LOAD_SLOTS]))
                    .collect::<Result<Vec<_>>>()
            };
            let mut submit = || ready.drain(..).try_for_each(&mut *queue);
            let (prepared, submitted) = rayon::join(prepare, &mut submit);
            submitted?;
            for (group, kernels) in prepared? {
                kernels.into_iter().for_each(|tensor| self.by_kernel[tensor] = true);
                ready.push(group);
            }
            if ready.is_empty() {
                return Ok(());
            }
            next = numbers.end;
            wave = (2 * wave).min(WAVE);
        }
    }

    /// Notes the checksums of a group.
    fn expect(&mut self, group: &Group) {
        for part in &group.parts {
            let entry = self.tensors[part.tensor].entry();
            if entry.chunks.is_empty() {
                self.expected.push((part.tensor, 0, entry.crc32_decoded));
            }
            let chunks = part.chunks.clone().map(|chunk| (part.tensor, chunk, entry.chunks[chunk].crc32_decoded));
            self.expected.extend(chunks);
        }
    }

    /// A group that will lie in `buffer`, and which of its tensors have a kernel.
    fn prepare(&self, group: &Group, buffer: &Arc<DeviceBuffer>) -> Result<(LoadGroup<'f>, Vec<usize>)> {
        let work = group.parts.par_iter().map(|part| {
            let tensor = &self.tensors[part.tensor];
            let extents: Vec<_> = tensor.entry().chunk_extents().collect();
            if !self.as_stored[part.tensor] && !parts::is_plain(tensor) {
                return Ok((Cow::Owned(decode(tensor, part)?), Prepared::None));
            }
            let prepared = parts::prepare(&self.device.decoder, tensor, part.chunks.clone(), buffer, part.slot.start)?;
            let bytes = if self.as_stored[part.tensor] { stored(tensor, &part.chunks, &extents)? } else { &[] };
            Ok((Cow::Borrowed(bytes), prepared))
        });
        let mut load = LoadGroup::default();
        let mut by_kernel = Vec::new();
        for (part, (bytes, prepared)) in group.parts.iter().zip(work.collect::<Result<Vec<_>>>()?) {
            let (tensor, target) =
                (&self.tensors[part.tensor], Target { output: part.tensor, offset: part.decoded.start });
            match prepared {
                Prepared::Lanes(prepared) => {
                    by_kernel.push(part.tensor);
                    load.lanes.push((target, prepared));
                }
                Prepared::Integer(prepared) => {
                    by_kernel.push(part.tensor);
                    load.integer.push((target, prepared));
                }
                Prepared::Plain(prepared) => {
                    by_kernel.push(part.tensor);
                    load.plain.push((target, prepared));
                }
                Prepared::None if self.as_stored[part.tensor] => {
                    // Stored chunks, with gaps between them.
                    let (mut from, mut to) = (part.slot.start, part.decoded.start);
                    for chunk in &tensor.entry().chunks[part.chunks.clone()] {
                        let len = chunk.decoded_len as usize;
                        load.copies.push((from..from + len, Target { output: part.tensor, offset: to }));
                        from += len.next_multiple_of(64);
                        to += len;
                    }
                }
                Prepared::None => load.copies.push((part.slot.start..part.slot.start + part.decoded.len(), target)),
            }
            load.sources.push((bytes, part.slot.start));
            let mut start = part.decoded.start;
            for chunk in &tensor.entry().chunks[part.chunks.clone()] {
                load.checks.push((part.tensor, start..start + chunk.decoded_len as usize));
                start += chunk.decoded_len as usize;
            }
            if tensor.entry().chunks.is_empty() {
                load.checks.push((part.tensor, part.decoded.clone()));
            }
        }
        Ok((load, by_kernel))
    }
}

/// A part of a tensor whose mode has no kernel.
fn decode(tensor: &Tensor<'_>, part: &Part) -> Result<Vec<u8>> {
    let mut bytes = vec![0; part.decoded.len()];
    let range = part.decoded.start as u64..part.decoded.end as u64;
    tensor.decode_range(range, &mut bytes, &mut Scratch::default())?;
    Ok(bytes)
}

/// Copies into locked memory, many pieces at once.
fn stage(memory: &mut [u8], sources: &[(&[u8], usize)]) {
    let mut rest = memory;
    let (mut at, mut parts) = (0, Vec::new());
    let mut ordered = sources.to_vec();
    ordered.sort_by_key(|(_, offset)| *offset);
    for (bytes, offset) in ordered {
        let (part, others) = rest.split_at_mut(offset - at).1.split_at_mut(bytes.len());
        parts.push((part, bytes));
        rest = others;
        at = offset + bytes.len();
    }
    parts.into_par_iter().for_each(|(to, from)| {
        to.par_chunks_mut(PIECE_BYTES)
            .zip(from.par_chunks(PIECE_BYTES))
            .for_each(|(to, from)| to.copy_from_slice(from));
    });
}

/// The bytes of an archive in locked memory, which cannot be empty.
struct PinnedArchive {
    memory: PinnedBuffer,
    len: usize,
}

impl AsRef<[u8]> for PinnedArchive {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[read..];
        offset += read as u64;
    }
    Ok(())
}
