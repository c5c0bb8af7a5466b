//! Loading a checkpoint: decoded once, while the rest is on its way.

use std::borrow::Cow;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use wcodec_container::ArchiveReader;
use wcodec_cuda::{DeviceBuffer, DeviceSliceMut, LoadGroup, LoadSize, PinnedBuffer, Source, Stream};

use super::check::damaged;
use super::device::CudaDevice;
use super::tensor::{DecodedBy, DeviceTensor};
use super::upload::{Plan, Prepared, Source as Origin, chunks_of, describe, superblocks_per_chunk};
use crate::archive::{Archive, Tensor};
use crate::error::{Error, Result};
use crate::mode::Mode;

/// Bytes of a group: long enough that starting its copy and its kernels costs nothing beside it, short enough that little is left to
/// decode when the last byte has arrived.
const GROUP_BYTES: u64 = 32 << 20;
/// Tensors of a group: what one launch takes.
const GROUP_TENSORS: usize = 32;
/// Bytes that a thread reads or copies at a time.
const PIECE_BYTES: usize = 4 << 20;

impl CudaDevice {
    /// Decodes tensors once, each into the first [`Tensor::byte_len`] bytes of its memory, without keeping them compressed: groups of
    /// them are copied while earlier groups are decoded, so that it takes little longer than the copy of the compressed bytes. All
    /// checksums are compared on the device. Works in `stream`'s order and waits.
    ///
    /// The copy is fastest from an archive in locked memory ([`CudaDevice::read_pinned`]); bytes of others are first copied there,
    /// group by group. Beside the outputs it takes three groups in device memory: up to 100 MB, or three times the largest tensor's
    /// compressed bytes.
    ///
    /// # Errors
    /// As for decoding on the CPU, for the first damaged tensor; [`Error::BadArgument`] unless there is an output for every tensor, and
    /// it is long enough; [`Error::Cuda`].
    pub fn load(&self, tensors: &[Tensor<'_>], outs: Vec<DeviceSliceMut<'_>>, stream: &Stream) -> Result<LoadReport> {
        if tensors.len() != outs.len() {
            return Err(Error::BadArgument(format!("{} tensors, {} outputs", tensors.len(), outs.len())));
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
        let groups = groups(tensors)?;
        let size = LoadSize {
            groups: groups.len(),
            slot_bytes: groups.iter().map(|group| group.plan.bytes).max().unwrap_or(0),
            results: tensors.iter().map(|tensor| 1 + tensor.chunks().max(1)).sum(),
        };
        let mut expected = Vec::new();
        let mut report = LoadReport::default();
        let prepare = |number: usize, buffer: &Arc<DeviceBuffer>| {
            self.prepare_group(tensors, &groups[number], buffer, &mut expected, &mut report)
        };
        let loaded = wcodec_cuda::load(stream, &mut exact, size, prepare, stage)?;
        let failure = loaded.failures.into_iter().min_by_key(|(number, _)| *number);
        if let Some((number, failure)) = failure {
            // The device says where it found damage; the CPU says what it is.
            tensors[number].verify()?;
            let tensor = &tensors[number];
            return Err(damaged(tensor.name(), &chunks_of(tensor), superblocks_per_chunk(tensor), failure));
        }
        for ((number, chunk, expected), found) in expected.into_iter().zip(loaded.crc32) {
            if expected != found {
                let what = match tensors[number].mode() {
                    Mode::Pooled => format!("tensor `{}`", tensors[number].name()),
                    _ => format!("tensor `{}`, chunk {chunk}", tensors[number].name()),
                };
                return Err(Error::Checksum { what, expected, found });
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

    /// The tensors of a group, ready to be decoded from `buffer`.
    fn prepare_group<'a>(
        &self,
        tensors: &'a [Tensor<'_>],
        group: &Group,
        buffer: &Arc<DeviceBuffer>,
        expected: &mut Vec<(usize, usize, u32)>,
        report: &mut LoadReport,
    ) -> Result<LoadGroup<'a>> {
        let numbers = group.tensors.clone();
        let described: Vec<DeviceTensor> = tensors[numbers.clone()]
            .iter()
            .zip(&group.plan.places)
            .map(|(tensor, place)| describe(tensor, place, buffer))
            .collect();
        let work = numbers.clone().into_par_iter().zip(&described).zip(&group.plan.places);
        let prepared = work
            .map(|((number, described), place)| {
                let tensor = &tensors[number];
                let source = match place.source {
                    Origin::Payload => Some(Cow::Borrowed(tensor.payload()?)),
                    Origin::Shared | Origin::Frames => None,
                    Origin::Decoded => Some(Cow::Owned(tensor.decode()?)),
                };
                Ok((source, self.prepare(tensor, described, buffer)?))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut load = LoadGroup::default();
        for ((number, (source, prepared)), (described, place)) in
            numbers.zip(prepared).zip(described.iter().zip(&group.plan.places))
        {
            load.sources.extend(source.map(|bytes| -> Source<'a> { (bytes, place.offset) }));
            match prepared {
                Some(Prepared::Lanes(tensor)) => {
                    report.by_kernel += 1;
                    load.lanes.push((number, tensor));
                }
                Some(Prepared::Integer(tensor)) => {
                    report.by_kernel += 1;
                    load.integer.push((number, tensor));
                }
                Some(Prepared::Decoded(_)) => {
                    return Err(Error::BadArgument(format!(
                        "tensor `{}`: this device has too little shared memory for its tables",
                        tensors[number].name()
                    )));
                }
                None => {
                    match described.decoded_by() {
                        DecodedBy::Copy => report.by_copy += 1,
                        _ => report.by_host += 1,
                    }
                    let mut to = 0;
                    for piece in described.pieces() {
                        load.copies.push((piece.offset..piece.offset + piece.bytes, number, to));
                        to += piece.bytes;
                    }
                }
            }
            let mut start = 0;
            for (chunk, info) in described.chunks.iter().enumerate() {
                let range: Range<usize> = start..start + info.decoded_len as usize;
                start = range.end;
                load.checks.push((number, range));
                expected.push((number, chunk, info.crc32_decoded));
            }
        }
        Ok(load)
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

/// Tensors that are copied and decoded together.
struct Group {
    tensors: Range<usize>,
    plan: Plan,
}

fn groups(tensors: &[Tensor<'_>]) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    let mut start = 0;
    while start < tensors.len() {
        let (mut end, mut bytes) = (start, 0u64);
        while end < tensors.len() && end - start < GROUP_TENSORS {
            let tensor = &tensors[end];
            bytes = bytes.saturating_add(tensor.entry().payload.len.max(1));
            if end > start && bytes > GROUP_BYTES {
                break;
            }
            end += 1;
        }
        groups.push(Group { tensors: start..end, plan: Plan::new(&tensors[start..end], false)? });
        start = end;
    }
    Ok(groups)
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
