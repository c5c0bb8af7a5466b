//! Prepares groups while those before them are on their way.

use std::borrow::Cow;
use std::sync::Arc;

use rayon::prelude::*;
use wcodec_cuda::{CudaError, DeviceBuffer, LOAD_SLOTS, LoadGroup, LoadOutputs, LoadQueue, ReadyGroup, Source, Target};

use super::groups::{Group, Part};
use super::handed::Handed;
use super::supply::Supply;
use crate::archive::{Scratch, Tensor};
use crate::cuda::device::CudaDevice;
use crate::cuda::parts::{self, Prepared, stored};
use crate::error::{Error, Result};

/// Groups that are prepared before those in front of them are queued: what all threads of a pool can be busy with.
const AHEAD: usize = 8;

/// Prepares groups and queues them.
pub(super) struct Feeder<'f, 't> {
    pub(super) device: &'f CudaDevice,
    pub(super) supplies: &'f [Supply<'t>],
    pub(super) groups: &'f [Group],
    /// Of every tensor: whether it goes to the device as it is stored.
    pub(super) as_stored: &'f [bool],
    /// Of every part to check: tensor, chunk, CRC-32.
    pub(super) expected: Vec<(usize, usize, u32)>,
    /// Of every tensor: whether a kernel decodes it.
    pub(super) by_kernel: Vec<bool>,
}

/// Why a load stops.
pub(super) enum Stop {
    Error(Error),
    /// A tensor that was taken to go to the device as it is stored does not.
    NotAsStored,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<CudaError> for Stop {
    fn from(error: CudaError) -> Self {
        Self::Error(error.into())
    }
}

/// Where groups are decoded from and to.
pub(super) struct Slots<'s> {
    pub(super) buffer: &'s Arc<DeviceBuffer>,
    pub(super) starts: [usize; LOAD_SLOTS],
    pub(super) outs: LoadOutputs<'s>,
}

/// A group that is ready to be queued, and the tensors of it that kernels decode.
type Laid = (ReadyGroup, Vec<usize>);

impl<'t> Feeder<'_, 't> {
    /// Queues groups in their order, each as soon as it is prepared and there is room: two are copied in little more than a millisecond, and
    /// preparing one can take as long.
    pub(super) fn feed(&mut self, slots: &Slots<'_>, queue: &mut dyn LoadQueue<'t>) -> Result<(), Stop> {
        let groups = self.groups;
        for group in groups.iter().take(LOAD_SLOTS) {
            queue.copy(self.sources(group)?)?;
        }
        groups.iter().for_each(|group| self.expect(group));
        let this = &*self;
        let prepared: Vec<Handed<Result<Laid, Stop>>> = groups.iter().map(|_| Handed::default()).collect();
        let kernels = rayon::in_place_scope_fifo(|scope| {
            let prepare = |number: usize| {
                if let Some(handed) = prepared.get(number) {
                    scope.spawn_fifo(move |_| {
                        let giver = handed.giver();
                        giver.give(this.prepare(number, slots));
                    });
                }
            };
            (0..AHEAD).for_each(prepare);
            let mut by_kernel = Vec::new();
            for (number, handed) in prepared.iter().enumerate() {
                let Some(group) = handed.take() else {
                    // The scope goes on with the panic.
                    return Ok(by_kernel);
                };
                let (group, kernels) = group?;
                prepare(number + AHEAD);
                by_kernel.extend(kernels);
                queue.decode(group)?;
                if let Some(group) = groups.get(number + LOAD_SLOTS) {
                    queue.copy(this.sources(group)?)?;
                }
            }
            Ok::<_, Stop>(by_kernel)
        })?;
        kernels.into_iter().for_each(|tensor| self.by_kernel[tensor] = true);
        Ok(())
    }

    /// The bytes of a group in host memory; those of modes without a kernel are decoded for it.
    fn sources(&self, group: &Group) -> Result<Vec<Source<'t>>> {
        let source = |part: &Part| {
            let supply = &self.supplies[part.tensor];
            let bytes = match () {
                () if self.as_stored[part.tensor] => {
                    Cow::Borrowed(stored(supply.reader(), supply.entry(), &part.chunks)?)
                }
                () if supply.is_plain() => Cow::Borrowed(&[][..]),
                () => Cow::Owned(decode(supply.tensor()?, part)?),
            };
            Ok((bytes, part.slot.start))
        };
        let work = |part: &Part| !self.as_stored[part.tensor] && !self.supplies[part.tensor].is_plain();
        if group.parts.iter().any(work) {
            group.parts.par_iter().map(source).collect()
        } else {
            group.parts.iter().map(source).collect()
        }
    }

    /// Notes the checksums of a group.
    fn expect(&mut self, group: &Group) {
        for part in &group.parts {
            let entry = self.supplies[part.tensor].entry();
            if entry.chunks.is_empty() {
                self.expected.push((part.tensor, 0, entry.crc32_decoded));
            }
            let chunks = part.chunks.clone().map(|chunk| (part.tensor, chunk, entry.chunks[chunk].crc32_decoded));
            self.expected.extend(chunks);
        }
    }

    /// Group `number`, and which of its tensors have a kernel.
    fn prepare(&self, number: usize, slots: &Slots<'_>) -> Result<Laid, Stop> {
        let (group, slot) = (&self.groups[number], slots.starts[number % LOAD_SLOTS]);
        let work = group.parts.par_iter().map(|part| {
            let tensor = self.supplies[part.tensor].tensor()?;
            let as_stored = self.as_stored[part.tensor];
            if as_stored && !parts::is_copied(&self.device.decoder, tensor)? {
                return Err(Stop::NotAsStored);
            }
            if !as_stored && !parts::is_plain(tensor) {
                return Ok(Prepared::None);
            }
            let offset = slot + part.slot.start;
            Ok(parts::prepare(&self.device.decoder, tensor, part.chunks.clone(), slots.buffer, offset)?)
        });
        let mut load = LoadGroup::default();
        let mut by_kernel = Vec::new();
        for (part, prepared) in group.parts.iter().zip(work.collect::<Result<Vec<_>, Stop>>()?) {
            let entry = self.supplies[part.tensor].entry();
            let target = Target { output: part.tensor, offset: part.decoded.start };
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
                    for chunk in &entry.chunks[part.chunks.clone()] {
                        let len = chunk.decoded_len as usize;
                        load.copies.push((from..from + len, Target { output: part.tensor, offset: to }));
                        from += len.next_multiple_of(64);
                        to += len;
                    }
                }
                Prepared::None => load.copies.push((part.slot.start..part.slot.start + part.decoded.len(), target)),
            }
            let mut start = part.decoded.start;
            for chunk in &entry.chunks[part.chunks.clone()] {
                load.checks.push((part.tensor, start..start + chunk.decoded_len as usize));
                start += chunk.decoded_len as usize;
            }
            if entry.chunks.is_empty() {
                load.checks.push((part.tensor, part.decoded.clone()));
            }
        }
        Ok((load.lay_out(slots.outs)?, by_kernel))
    }
}

/// A part of a tensor whose mode has no kernel.
fn decode(tensor: &Tensor<'_>, part: &Part) -> Result<Vec<u8>> {
    let mut bytes = vec![0; part.decoded.len()];
    let range = part.decoded.start as u64..part.decoded.end as u64;
    tensor.decode_range(range, &mut bytes, &mut Scratch::default())?;
    Ok(bytes)
}
