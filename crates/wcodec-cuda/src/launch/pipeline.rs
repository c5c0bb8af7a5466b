//! Loading: compressed bytes on their way to the device while earlier ones are decoded.
//!
//! Work comes in groups. A group has a slot: room for its compressed bytes and for what stands beside them. One stream copies, the
//! caller's stream decodes, and events keep them in step: a group is decoded when its bytes are there, its slot is filled again when it
//! has been decoded. The host only waits for a slot that is still in use.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use cust::sys;

use super::integer::{self, Resident as IntegerResident};
use super::lanes::{self, Resident as LanesResident};
use super::memory::{DeviceBuffer, DeviceSlice, DeviceSliceMut, PinnedBuffer, is_pinned};
use super::plain::{self, Resident as PlainResident};
use super::stream::{Event, Stream};
use super::{check, copy_many, crc32_segments, queue_crc32, status};
use crate::crc::{self, Plan};
use crate::lanes::error_of;
use crate::{CudaContext, CudaError, PreparedInteger, PreparedPlain, PreparedTensor};

/// What is decoded together: tensors, or parts of them that are whole chunks, each with the number of its output and its place there.
#[derive(Debug, Default)]
pub struct LoadGroup<'a> {
    /// Bytes in host memory and where they go in the slot. Locked memory is read by the device itself.
    pub sources: Vec<Source<'a>>,
    /// Of tensors in lanes mode.
    pub lanes: Vec<(Target, PreparedTensor)>,
    /// Of tensors in integer mode.
    pub integer: Vec<(Target, PreparedInteger)>,
    /// Of tensors in plain mode.
    pub plain: Vec<(Target, PreparedPlain)>,
    /// Bytes of the slot that are bytes of an output, and where they go.
    pub copies: Vec<(Range<usize>, Target)>,
    /// Parts of outputs whose CRC-32 is wanted.
    pub checks: Vec<(usize, Range<usize>)>,
}

/// A place in an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The output's number.
    pub output: usize,
    /// The first byte in it.
    pub offset: usize,
}

/// Bytes in host memory, and where they go in the slot.
pub type Source<'a> = (Cow<'a, [u8]>, usize);

/// How much is loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadSize {
    /// The most bytes that a group needs in its slot.
    pub slot_bytes: usize,
    /// Parts of tensors with a kernel, and parts to check, of all groups.
    pub results: usize,
}

/// What is known when all is decoded.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Tensors that were not in order, by the number of their output; superblocks count from the part's first.
    pub failures: Vec<(usize, CudaError)>,
    /// The CRC-32 of every part to check, group by group.
    pub crc32: Vec<u32>,
}

/// Slots of [`load`]: one being filled, one being decoded, one waiting.
pub const SLOTS: usize = 3;
/// Bytes that a warp of the CRC kernel takes: a group has a few dozen mebibytes, and there are thousands of warps.
const CRC_SEGMENT: u64 = 64 << 10;

struct Slot {
    payload: Arc<DeviceBuffer>,
    /// What the host writes: side data, and bytes that do not lie in locked memory.
    staging: Option<PinnedBuffer>,
    side_staging: PinnedBuffer,
    side: Arc<DeviceBuffer>,
    /// Behind the last use of the slot.
    free: Event,
    used: bool,
}

/// Decodes groups into `outs`, in `stream`'s order, and waits. `feed` is given the buffers of the slots and a function that queues a
/// group; it queues all groups in order: group g for slot g mod 3, whose buffer its tensors name. Queueing returns at once unless the slot
/// is still in use. `stage` copies what does not lie in locked memory: into its argument, at the offsets given.
///
/// Beside the outputs it takes three slots, and 4 bytes per result.
///
/// # Errors
/// The first one of `feed`; [`CudaError::OutOfRange`] for what does not fit slot or output, and what the driver reports. Damage is
/// no error here: it is in [`Loaded`].
pub fn load<'a, E: From<CudaError>>(
    stream: &Stream,
    outs: &mut [DeviceSliceMut<'_>],
    size: LoadSize,
    feed: impl FnOnce(&[Arc<DeviceBuffer>], &mut Queue<'_, 'a>) -> Result<(), E>,
    stage: impl Fn(&mut [u8], &[(&[u8], usize)]) + Sync,
) -> Result<Loaded, E> {
    let context = stream.context();
    let copy = Stream::new(context)?;
    let mut slots = Vec::with_capacity(SLOTS);
    for _ in 0..SLOTS {
        slots.push(Slot::new(context, size.slot_bytes)?);
    }
    let results = DeviceBuffer::new(context, size.results * size_of::<u32>())?;
    let mut at = 0;
    let mut number = 0;
    let mut done: Vec<(Vec<usize>, usize)> = Vec::new();
    let mut in_flight: [Option<Vec<Source<'a>>>; SLOTS] = [const { None }; SLOTS];
    let buffers: Vec<_> = slots.iter().map(|slot| Arc::clone(&slot.payload)).collect();
    // Declared last, so dropped first: whatever happens, nothing that the device still reads is freed before it is done.
    let _guard = Guard { copy: &copy, decode: stream };
    let mut queue = |mut group: LoadGroup<'a>| {
        let slot = &mut slots[number % SLOTS];
        if slot.used {
            slot.free.synchronize()?;
        }
        let sources = in_flight[number % SLOTS].insert(std::mem::take(&mut group.sources));
        slot.queue_sources(&copy, sources, &stage)?;
        let checks = group.checks.len();
        let tensors = slot.submit(&copy, stream, group, outs, &results, at)?;
        at += (tensors.len() + checks) * size_of::<u32>();
        number += 1;
        done.push((tensors, checks));
        Ok(())
    };
    feed(&buffers, &mut queue)?;
    let mut bytes = vec![0; at];
    results.copy_to_host(stream, 0, &mut bytes)?;
    let mut words = bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    let mut loaded = Loaded::default();
    for (tensors, checks) in done {
        for number in tensors {
            if let Some(failure) = words.next().and_then(status::failure_of) {
                loaded.failures.push((number, error_of(failure)));
            }
        }
        loaded.crc32.extend(words.by_ref().take(checks));
    }
    Ok(loaded)
}

/// Queues a group.
pub type Queue<'q, 'a> = dyn FnMut(LoadGroup<'a>) -> Result<(), CudaError> + Send + 'q;

/// Waits for both streams when it goes.
struct Guard<'a> {
    copy: &'a Stream,
    decode: &'a Stream,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // A failure is that of work whose error is on its way already.
        let _ = self.copy.synchronize();
        let _ = self.decode.synchronize();
    }
}

impl Slot {
    fn new(context: &CudaContext, bytes: usize) -> Result<Self, CudaError> {
        // Tables and superblock lists of a group; more is made room for where it is needed.
        let side = bytes / 32 + (256 << 10);
        Ok(Self {
            payload: Arc::new(DeviceBuffer::new(context, bytes)?),
            staging: None,
            side_staging: PinnedBuffer::new(context, side)?,
            side: Arc::new(DeviceBuffer::new(context, side)?),
            free: Event::new(context)?,
            used: false,
        })
    }

    /// Queues the decoding of a group whose bytes are on their way, and returns the numbers of its tensors. Their results, in that
    /// order, and behind them the checksums, go to `results` from `at` on.
    fn submit(
        &mut self,
        copy: &Stream,
        decode: &Stream,
        group: LoadGroup<'_>,
        outs: &[DeviceSliceMut<'_>],
        results: &DeviceBuffer,
        at: usize,
    ) -> Result<Vec<usize>, CudaError> {
        let context = decode.context();
        let mut side = Vec::new();
        let (mut targets, uploads): (Vec<_>, Vec<_>) =
            group.lanes.into_iter().map(|(n, t)| (n, t.into_parts())).unzip();
        let mut lanes = LanesResident::lay_out(context, uploads, &mut side)?;
        let (others, uploads): (Vec<_>, Vec<_>) = group.integer.into_iter().map(|(n, t)| (n, t.into_parts())).unzip();
        let mut integer = IntegerResident::lay_out(context, uploads, &mut side)?;
        targets.extend(others);
        let (others, uploads): (Vec<_>, Vec<_>) = group.plain.into_iter().map(|(n, t)| (n, t.into_parts())).unzip();
        let mut plain = PlainResident::lay_out(context, uploads, &mut side)?;
        targets.extend(others);
        let mut checked = Vec::with_capacity(group.checks.len());
        for (number, range) in &group.checks {
            checked.push(output(outs, *number)?.sub_slice(range.start, range.len())?);
        }
        let plan: Plan = crc::plan_of(&checked, CRC_SEGMENT);
        side.resize(side.len().next_multiple_of(16), 0);
        let segments_at = side.len();
        side.extend(crc32_segments(decode, &checked, &plan)?);
        let crc_at = side.len();
        side.extend(plan.presets.iter().flat_map(|preset| preset.to_ne_bytes()));
        self.queue_side(copy, &side)?;
        lanes.iter_mut().for_each(|tensor| tensor.attach(&self.side));
        integer.iter_mut().for_each(|tensor| tensor.attach(&self.side));
        plain.iter_mut().for_each(|tensor| tensor.attach(&self.side));

        let there = Event::new(context)?;
        there.record(copy)?;
        decode.wait(&there)?;
        let place = |target: Target, bytes: usize| {
            let out = output(outs, target.output)?.sub_slice(target.offset, bytes)?;
            // SAFETY: memory that the caller has lent for writing. Two parts of one place would only garble it.
            Ok::<_, CudaError>((0..bytes, unsafe { DeviceSliceMut::from_raw(context, out.address(), bytes) }))
        };
        let mut jobs = Vec::with_capacity(lanes.len());
        for (tensor, &target) in lanes.iter().zip(&targets) {
            let (range, out) = place(target, tensor.decoded_bytes())?;
            jobs.push((tensor, range, out));
        }
        lanes::decode_lanes(decode, &jobs)?;
        let mut jobs = Vec::with_capacity(integer.len());
        for (tensor, &target) in integer.iter().zip(&targets[lanes.len()..]) {
            let (range, out) = place(target, tensor.decoded_bytes())?;
            jobs.push((tensor, range, out));
        }
        integer::decode_integer(decode, jobs)?;
        let mut jobs = Vec::with_capacity(plain.len());
        for (tensor, &target) in plain.iter().zip(&targets[lanes.len() + integer.len()..]) {
            let (range, out) = place(target, tensor.decoded_bytes())?;
            jobs.push((tensor, range, out));
        }
        plain::decode_plain(decode, &jobs)?;
        let mut copies = Vec::with_capacity(group.copies.len());
        for (from, target) in &group.copies {
            let from = self.payload.sub_slice(from.start, from.len())?;
            let (_, out) = place(*target, from.len())?;
            copies.push((from, out));
        }
        copy_many(decode, copies)?;
        queue_crc32(
            decode,
            self.side.address() + segments_at as u64,
            plan.segments.len(),
            self.side.address() + crc_at as u64,
        )?;

        // Results leave the slot, which is filled again.
        let word = size_of::<u32>();
        let mut to = at;
        let mut keep = |from: usize, words: usize| {
            let from = self.side.sub_slice(from, words * word)?;
            let target = results.sub_slice(to, words * word)?;
            to += words * word;
            // SAFETY: the buffer belongs to this load, and each group has its own part of it.
            Ok::<_, CudaError>((from, unsafe { DeviceSliceMut::from_raw(context, target.address(), target.len()) }))
        };
        let kept = [
            keep(lanes.first().map_or(0, LanesResident::status_at), lanes.len())?,
            keep(integer.first().map_or(0, IntegerResident::status_at), integer.len())?,
            keep(plain.first().map_or(0, PlainResident::status_at), plain.len())?,
            keep(crc_at, checked.len())?,
        ];
        copy_many(decode, kept)?;
        self.free.record(decode)?;
        self.used = true;
        Ok(targets.into_iter().map(|target| target.output).collect())
    }

    /// Queues the copies of all sources; those not in locked memory go through the slot's own.
    fn queue_sources(
        &mut self,
        copy: &Stream,
        sources: &[Source<'_>],
        stage: &impl Fn(&mut [u8], &[(&[u8], usize)]),
    ) -> Result<(), CudaError> {
        let mut pageable = Vec::new();
        for (bytes, offset) in sources {
            self.payload.sub_slice(*offset, bytes.len())?;
            if is_pinned(copy.context(), bytes)? {
                queue(copy, self.payload.address() + *offset as u64, bytes)?;
            } else {
                pageable.push((&**bytes, *offset));
            }
        }
        if pageable.is_empty() {
            return Ok(());
        }
        let staging = match &mut self.staging {
            Some(staging) => staging,
            none => none.insert(PinnedBuffer::new(copy.context(), self.payload.len())?),
        };
        stage(staging, &pageable);
        for (bytes, offset) in pageable {
            queue(copy, self.payload.address() + offset as u64, &staging[offset..offset + bytes.len()])?;
        }
        Ok(())
    }

    fn queue_side(&mut self, copy: &Stream, bytes: &[u8]) -> Result<(), CudaError> {
        if bytes.len() > self.side.len() {
            // Rare: a group of small tensors, with more beside their bytes than was foreseen.
            let room = 2 * bytes.len();
            self.side = Arc::new(DeviceBuffer::new(copy.context(), room)?);
            self.side_staging = PinnedBuffer::new(copy.context(), room)?;
        }
        self.side_staging[..bytes.len()].copy_from_slice(bytes);
        queue(copy, self.side.address(), &self.side_staging[..bytes.len()])
    }
}

fn output<'o>(outs: &'o [DeviceSliceMut<'_>], number: usize) -> Result<DeviceSlice<'o>, CudaError> {
    let out = outs.get(number).ok_or(CudaError::Inconsistent { what: "an output for every tensor" })?;
    // SAFETY: the same memory, borrowed from its owner.
    Ok(unsafe { DeviceSlice::from_raw(out.context(), out.address(), out.len()) })
}

/// Queues a copy to device memory that is as long. [`Guard`] waits before the bytes can go.
fn queue(copy: &Stream, to: u64, bytes: &[u8]) -> Result<(), CudaError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let _current = copy.context().enter()?;
    // SAFETY: the target was found to be inside its buffer; source and target stay until the guard has waited.
    check("cuMemcpyHtoDAsync", unsafe { sys::cuMemcpyHtoDAsync_v2(to, bytes.as_ptr().cast(), bytes.len(), copy.raw()) })
}
