//! Loading a checkpoint: decoded once, while the rest is on its way.

mod feeder;
mod groups;
mod handed;
mod supply;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::prelude::*;
use wcodec_container::ArchiveReader;
use wcodec_cuda::{CudaContext, CudaError, DeviceSliceMut, Event, LoadSize, LoadTools, PinnedBuffer, Stream};

use super::device::CudaDevice;
use super::parts;
use crate::archive::{Archive, Tensor};
use crate::error::{Error, Result};
use crate::mode::Mode;
use feeder::{Feeder, Slots, Stop};
use groups::groups;
use supply::{Supply, exact};

/// Bytes that a thread reads or copies at a time.
const PIECE_BYTES: usize = 4 << 20;

/// What loads work with, kept from one to the next. Loads at the same time have their own.
#[derive(Debug, Clone, Default)]
pub(super) struct Tools(Arc<Mutex<Option<LoadTools>>>);

impl Tools {
    fn take(&self, context: &CudaContext) -> Result<LoadTools> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.map_or_else(|| Ok(LoadTools::new(context)?), Ok)
    }

    fn keep(&self, tools: LoadTools) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(tools);
    }
}

impl CudaDevice {
    /// Decodes tensors once, each into the first [`Tensor::byte_len`] bytes of its memory, without keeping them compressed: groups of
    /// their chunks are copied while earlier groups are decoded, so that it takes little longer than the copy of the compressed bytes.
    /// All checksums of decoded bytes are compared, on the device. Works in `stream`'s order and waits.
    ///
    /// The copy is fastest from an archive in locked memory ([`CudaDevice::read_pinned`]); bytes of others are first copied there,
    /// group by group. Beside the outputs it takes some groups in device memory, about 70 MB, of which it keeps 4 MB and the groups.
    ///
    /// # Errors
    /// As for decoding on the CPU, for the first damaged tensor; [`Error::BadArgument`] unless there is an output for every tensor, and
    /// it is long enough; [`Error::Cuda`].
    pub fn load(&self, tensors: &[Tensor<'_>], outs: Vec<DeviceSliceMut<'_>>, stream: &Stream) -> Result<LoadReport> {
        let supplies: Vec<Supply<'_>> = tensors.iter().map(Supply::Opened).collect();
        let mut outs = exact(&supplies, outs)?;
        self.load_known(&supplies, &mut outs, stream)
    }

    /// As [`CudaDevice::load`], of tensors of an archive by number. They are opened while the first ones are on their way.
    ///
    /// # Errors
    /// As [`CudaDevice::load`]; [`Error::NoSuchTensor`].
    pub fn load_from(
        &self,
        archive: &Archive,
        indices: &[usize],
        outs: Vec<DeviceSliceMut<'_>>,
        stream: &Stream,
    ) -> Result<LoadReport> {
        let entries = archive.entries();
        if let Some(index) = indices.iter().find(|&&index| index >= entries.len()) {
            return Err(Error::NoSuchTensor(format!("number {index}")));
        }
        let lazy = |&index: &usize| Supply::Lazy { archive, index, opened: OnceLock::new() };
        let supplies: Vec<Supply<'_>> = indices.iter().map(lazy).collect();
        // Whether that is so is known when they are open. Few are otherwise: with uncommonly large tables, for one.
        let as_stored =
            supplies.iter().map(|supply| matches!(supply.mode(), Mode::Lanes | Mode::Integer | Mode::Store));
        let mut outs = exact(&supplies, outs)?;
        match self.load_supplies(&supplies, &as_stored.collect::<Vec<_>>(), &mut outs, stream) {
            Ok(report) => Ok(report),
            Err(Stop::Error(error)) => Err(error),
            Err(Stop::NotAsStored) => self.load_known(&supplies, &mut outs, stream),
        }
    }

    /// Opens what is not open, and knows then what goes to the device as it is stored.
    fn load_known(
        &self,
        supplies: &[Supply<'_>],
        outs: &mut [DeviceSliceMut<'_>],
        stream: &Stream,
    ) -> Result<LoadReport> {
        let as_stored = supplies.par_iter().map(|supply| parts::is_copied(&self.decoder, supply.tensor()?));
        match self.load_supplies(supplies, &as_stored.collect::<Result<Vec<_>>>()?, outs, stream) {
            Ok(report) => Ok(report),
            Err(Stop::Error(error)) => Err(error),
            Err(Stop::NotAsStored) => Err(CudaError::Inconsistent { what: "tensors are what they were" }.into()),
        }
    }

    /// `as_stored`: which tensors go to the device as they are stored.
    fn load_supplies(
        &self,
        supplies: &[Supply<'_>],
        as_stored: &[bool],
        outs: &mut [DeviceSliceMut<'_>],
        stream: &Stream,
    ) -> Result<LoadReport, Stop> {
        if stream.is_per_thread() {
            // Threads of the pool queue the work; for each of them that would be another stream.
            let (own, before) = (Stream::new(self.context())?, Event::new(self.context())?);
            before.record(stream)?;
            own.wait(&before)?;
            return self.load_supplies(supplies, as_stored, outs, &own);
        }
        let groups = groups(supplies, as_stored);
        let size = LoadSize {
            slot_bytes: groups.iter().map(|group| group.bytes).max().unwrap_or(0),
            results: groups.iter().flat_map(|group| &group.parts).map(|part| 1 + part.chunks.len().max(1)).sum(),
        };
        let mut feeder = Feeder {
            device: self,
            supplies,
            groups: &groups,
            as_stored,
            expected: Vec::new(),
            by_kernel: vec![false; supplies.len()],
        };
        let mut tools = self.tools.take(self.context())?;
        let loaded = tools.load(
            stream,
            outs,
            size,
            |buffer, slots, outs, queue| feeder.feed(&Slots { buffer, starts: slots, outs }, queue),
            stage,
        );
        self.tools.keep(tools);
        let loaded = loaded?;
        if let Some((number, failure)) = loaded.failures.into_iter().min_by_key(|(number, _)| *number) {
            // The device says that there is damage; the CPU says where and what it is.
            supplies[number].tensor()?.decode()?;
            return Err(failure.into());
        }
        for (&(number, chunk, expected), found) in feeder.expected.iter().zip(loaded.crc32) {
            if expected != found {
                let name = &supplies[number].entry().name;
                let what = match supplies[number].mode() {
                    Mode::Pooled => format!("tensor `{name}`"),
                    _ => format!("tensor `{name}`, chunk {chunk}"),
                };
                return Err(Error::Checksum { what, expected, found }.into());
            }
        }
        let mut report = LoadReport::default();
        for (supply, &by_kernel) in supplies.iter().zip(&feeder.by_kernel) {
            match supply.mode() {
                _ if by_kernel => report.by_kernel += 1,
                Mode::Store => report.by_copy += 1,
                _ if supply.entry().decoded_len == 0 => report.by_copy += 1,
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
