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
use crate::{CudaError, PreparedInteger, PreparedPlain, PreparedTensor};

/// What is decoded together: tensors, or parts of them that are whole chunks, each with the number of its output and its place there.
#[derive(Debug, Default)]
pub struct LoadGroup {
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

/// Bytes in host memory, and where they go in the slot. Locked memory is read by the device itself.
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

/// What a load works with. Copies of compressed bytes, and of what stands beside them, have a stream each: the latter must not queue
/// behind copies that wait for a slot.
struct Loader<'l, 'a, F> {
    copy: &'l Stream,
    beside: &'l Stream,
    decode: &'l Stream,
    outs: &'l [DeviceSliceMut<'l>],
    stage: F,
    slots: Vec<Slot<'a>>,
    payloads: Arc<DeviceBuffer>,
    /// For what stands beside the payloads: a part per slot.
    side_staging: PinnedBuffer,
    /// For bytes that do not lie in locked memory: a part per slot. Made when first needed.
    staging: Option<PinnedBuffer>,
    results: DeviceBuffer,
    /// Bytes of results so far.
    at: usize,
    /// Groups whose copies, and whose decoding, were queued.
    copied: usize,
    decoded: usize,
    /// Of every group: the outputs of its tensors, and the number of its checksums.
    done: Vec<(Vec<usize>, usize)>,
}

struct Slot<'a> {
    /// Where it begins in the payload buffer, and its length.
    payload: Range<usize>,
    side: Arc<DeviceBuffer>,
    /// Behind the copies of the slot's bytes, of what stands beside them, and behind the last use of both.
    there: Event,
    beside: Event,
    free: Event,
    /// Bytes that the device may still be reading.
    sources: Vec<Source<'a>>,
}

/// Decodes groups into `outs`, in `stream`'s order, and waits. `feed` is given the buffer that holds compressed bytes with the offsets of its
/// slots in it, and what queues copies and decoding: for groups in order, the copy of a group first; group g has slot g mod 3, and
/// is copied only when group g - 3 was queued for decoding. Queueing returns at once. `stage` copies what does not lie in locked
/// memory: into its argument, at the offsets given.
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
    feed: impl FnOnce(&Arc<DeviceBuffer>, [usize; SLOTS], &mut dyn LoadQueue<'a>) -> Result<(), E>,
    stage: impl Fn(&mut [u8], &[(&[u8], usize)]) + Send,
) -> Result<Loaded, E> {
    let context = stream.context();
    let (copy, beside) = (Stream::new(context)?, Stream::new(context)?);
    let slot_bytes = size.slot_bytes.next_multiple_of(SLOT_ALIGN);
    let starts = std::array::from_fn(|slot| slot * slot_bytes);
    let mut loader = Loader {
        copy: &copy,
        beside: &beside,
        decode: stream,
        outs,
        stage,
        slots: Vec::with_capacity(SLOTS),
        payloads: Arc::new(DeviceBuffer::new(context, SLOTS * slot_bytes)?),
        side_staging: PinnedBuffer::new(context, SLOTS * side_bytes(slot_bytes))?,
        staging: None,
        results: DeviceBuffer::new(context, size.results * size_of::<u32>())?,
        at: 0,
        copied: 0,
        decoded: 0,
        done: Vec::new(),
    };
    for start in starts {
        loader.slots.push(Slot {
            payload: start..start + slot_bytes,
            side: Arc::new(DeviceBuffer::new(context, side_bytes(slot_bytes))?),
            there: Event::new(context)?,
            beside: Event::new(context)?,
            free: Event::new(context)?,
            sources: Vec::new(),
        });
    }
    // Declared last, so dropped first: whatever happens, nothing that the device still reads is freed before it is done.
    let _guard = Guard { streams: [&copy, &beside, stream] };
    let payloads = Arc::clone(&loader.payloads);
    feed(&payloads, starts, &mut loader)?;
    let mut bytes = vec![0; loader.at];
    loader.results.copy_to_host(stream, 0, &mut bytes)?;
    let mut words = bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    let mut loaded = Loaded::default();
    for (tensors, checks) in std::mem::take(&mut loader.done) {
        for number in tensors {
            if let Some(failure) = words.next().and_then(status::failure_of) {
                loaded.failures.push((number, error_of(failure)));
            }
        }
        loaded.crc32.extend(words.by_ref().take(checks));
    }
    Ok(loaded)
}

/// Queues the work of a load.
pub trait LoadQueue<'a>: Send {
    /// The copy of the next group's bytes.
    ///
    /// # Errors
    /// [`CudaError::Inconsistent`] when the group before it in the slot was not queued for decoding; else as [`load`].
    fn copy(&mut self, sources: Vec<Source<'a>>) -> Result<(), CudaError>;

    /// The decoding of the next group.
    ///
    /// # Errors
    /// [`CudaError::Inconsistent`] when its copy was not queued; else as [`load`].
    fn decode(&mut self, group: LoadGroup) -> Result<(), CudaError>;
}

/// What slots are aligned to.
const SLOT_ALIGN: usize = 256;

/// Room for tables and superblock lists of a group; more is made where it is needed.
fn side_bytes(slot_bytes: usize) -> usize {
    (slot_bytes / 32 + (256 << 10)).next_multiple_of(SLOT_ALIGN)
}

/// Waits for all streams when it goes.
struct Guard<'l> {
    streams: [&'l Stream; 3],
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        for stream in self.streams {
            // A failure is that of work whose error is on its way already.
            let _ = stream.synchronize();
        }
    }
}

impl<'a, F: Fn(&mut [u8], &[(&[u8], usize)]) + Send> LoadQueue<'a> for Loader<'_, 'a, F> {
    fn copy(&mut self, sources: Vec<Source<'a>>) -> Result<(), CudaError> {
        if self.copied >= self.decoded + SLOTS {
            return Err(CudaError::Inconsistent {
                what: "a group is copied when its slot's last one was queued for decoding",
            });
        }
        let (number, context) = (self.copied % SLOTS, self.copy.context());
        let slot = &mut self.slots[number];
        // Events that were never recorded are passed.
        self.copy.wait(&slot.free)?;
        let mut pageable = Vec::new();
        for (bytes, offset) in &sources {
            if offset.checked_add(bytes.len()).is_none_or(|end| end > slot.payload.len()) {
                return Err(CudaError::OutOfRange { offset: *offset, bytes: bytes.len(), size: slot.payload.len() });
            }
            // Bytes that are owned go with this call, wherever they lie.
            if matches!(bytes, Cow::Borrowed(_)) && is_pinned(context, bytes)? {
                queue(self.copy, self.payloads.address() + (slot.payload.start + offset) as u64, bytes)?;
            } else {
                pageable.push((&**bytes, *offset));
            }
        }
        if !pageable.is_empty() {
            let staging = match &mut self.staging {
                Some(staging) => staging,
                none => none.insert(PinnedBuffer::new(context, self.payloads.len())?),
            };
            // What was staged here before has gone.
            slot.there.synchronize()?;
            (self.stage)(&mut staging[slot.payload.clone()], &pageable);
            for (bytes, offset) in pageable {
                let at = slot.payload.start + offset;
                queue(self.copy, self.payloads.address() + at as u64, &staging[at..at + bytes.len()])?;
            }
        }
        slot.there.record(self.copy)?;
        // Kept to the end: bytes that are borrowed cost nothing, and decoded ones were staged.
        slot.sources.extend(sources.into_iter().filter(|(bytes, _)| matches!(bytes, Cow::Borrowed(_))));
        self.copied += 1;
        Ok(())
    }

    /// Results of a group: failures of tensors in lanes, integer and plain mode, checksums.
    fn decode(&mut self, group: LoadGroup) -> Result<(), CudaError> {
        if self.decoded >= self.copied {
            return Err(CudaError::Inconsistent { what: "a group is copied before it is decoded" });
        }
        let number = self.decoded % SLOTS;
        let context = self.decode.context();
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
            checked.push(output(self.outs, *number)?.sub_slice(range.start, range.len())?);
        }
        let plan: Plan = crc::plan_of(&checked, CRC_SEGMENT);
        side.resize(side.len().next_multiple_of(16), 0);
        let segments_at = side.len();
        side.extend(crc32_segments(self.decode, &checked, &plan)?);
        let crc_at = side.len();
        side.extend(plan.presets.iter().flat_map(|preset| preset.to_ne_bytes()));
        self.queue_side(number, &side)?;
        let slot = &self.slots[number];
        lanes.iter_mut().for_each(|tensor| tensor.attach(&slot.side));
        integer.iter_mut().for_each(|tensor| tensor.attach(&slot.side));
        plain.iter_mut().for_each(|tensor| tensor.attach(&slot.side));

        self.decode.wait(&slot.there)?;
        self.decode.wait(&slot.beside)?;
        let place = |target: Target, bytes: usize| {
            let out = output(self.outs, target.output)?.sub_slice(target.offset, bytes)?;
            // SAFETY: memory that the caller has lent for writing. Two parts of one place would only garble it.
            Ok::<_, CudaError>((0..bytes, unsafe { DeviceSliceMut::from_raw(context, out.address(), bytes) }))
        };
        let mut jobs = Vec::with_capacity(lanes.len());
        for (tensor, &target) in lanes.iter().zip(&targets) {
            let (range, out) = place(target, tensor.decoded_bytes())?;
            jobs.push((tensor, range, out));
        }
        lanes::decode_lanes(self.decode, &jobs)?;
        let mut jobs = Vec::with_capacity(integer.len());
        for (tensor, &target) in integer.iter().zip(&targets[lanes.len()..]) {
            let (range, out) = place(target, tensor.decoded_bytes())?;
            jobs.push((tensor, range, out));
        }
        integer::decode_integer(self.decode, jobs)?;
        let mut jobs = Vec::with_capacity(plain.len());
        for (tensor, &target) in plain.iter().zip(&targets[lanes.len() + integer.len()..]) {
            let (range, out) = place(target, tensor.decoded_bytes())?;
            jobs.push((tensor, range, out));
        }
        plain::decode_plain(self.decode, &jobs)?;
        let mut copies = Vec::with_capacity(group.copies.len());
        for (from, target) in &group.copies {
            let from = self.payloads.sub_slice(slot.payload.start + from.start, from.len())?;
            let (_, out) = place(*target, from.len())?;
            copies.push((from, out));
        }
        copy_many(self.decode, copies)?;
        queue_crc32(
            self.decode,
            slot.side.address() + segments_at as u64,
            plan.segments.len(),
            slot.side.address() + crc_at as u64,
        )?;

        // Results leave the slot, which is filled again.
        let word = size_of::<u32>();
        let mut to = self.at;
        let mut keep = |from: usize, words: usize| {
            let from = slot.side.sub_slice(from, words * word)?;
            let target = self.results.sub_slice(to, words * word)?;
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
        copy_many(self.decode, kept)?;
        slot.free.record(self.decode)?;
        self.at = to;
        self.decoded += 1;
        self.done.push((targets.into_iter().map(|target| target.output).collect(), checked.len()));
        Ok(())
    }
}

impl<F> Loader<'_, '_, F> {
    fn queue_side(&mut self, number: usize, bytes: &[u8]) -> Result<(), CudaError> {
        let (slot, room) = (&mut self.slots[number], self.side_staging.len() / SLOTS);
        // The last one of this slot has gone, and is no longer used.
        slot.beside.synchronize()?;
        if bytes.len() > slot.side.len() {
            // Rare: a group of small tensors, with more beside their bytes than was foreseen.
            slot.free.synchronize()?;
            slot.side = Arc::new(DeviceBuffer::new(self.beside.context(), 2 * bytes.len())?);
        }
        self.beside.wait(&slot.free)?;
        for (piece, bytes) in bytes.chunks(room).enumerate() {
            if piece > 0 {
                self.beside.synchronize()?;
            }
            let staged = &mut self.side_staging[number * room..number * room + bytes.len()];
            staged.copy_from_slice(bytes);
            queue(self.beside, slot.side.address() + (piece * room) as u64, staged)?;
        }
        slot.beside.record(self.beside)
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
