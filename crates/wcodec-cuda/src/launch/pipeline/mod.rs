//! Loading: compressed bytes on their way to the device while earlier ones are decoded.
//!
//! Work comes in groups. A group has a slot: room for its compressed bytes and for what stands beside them. One stream copies the
//! bytes. The caller's stream fetches what stands beside them from locked memory with a kernel of its own (a second stream of copies would make
//! the copy engine change between the two, which costs 30 µs each time), and decodes. Events keep them in step: a group is decoded
//! when its bytes are there, its slot is filled again when it has been decoded.

mod group;

use std::borrow::Cow;
use std::sync::Arc;

use cust::sys;

use super::integer;
use super::lanes;
use super::memory::{DeviceBuffer, DeviceSlice, DeviceSliceMut, PinnedBuffer, is_pinned};
use super::plain;
use super::stream::{Event, Stream};
use super::{check, copy_many, queue_crc32, side};

use crate::lanes::error_of;
use crate::{CudaContext, CudaError};
pub use group::{LoadGroup, LoadOutputs, ReadyGroup, Target};

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

/// Slots of a load: one being filled, one being decoded, which takes a tenth of the time.
pub const SLOTS: usize = 2;
/// Room for tables and superblock lists of a group. More is copied in pieces.
const SIDE_BYTES: usize = 1 << 20;
/// Slots that are kept from one load to the next take at most this.
const KEPT_BYTES: usize = 64 << 20;
/// What slots are aligned to.
const SLOT_ALIGN: usize = 256;

/// What loads need, which is kept from one to the next: making it takes as long as some hundred megabytes are on their way.
#[derive(Debug)]
pub struct LoadTools {
    copy: Stream,
    slots: Vec<Slot>,
    /// Compressed bytes: a part per slot.
    payloads: Option<Arc<DeviceBuffer>>,
    /// What goes to the sides of slots: a part per slot.
    side_staging: PinnedBuffer,
    results: DeviceBuffer,
}

#[derive(Debug)]
struct Slot {
    /// What stands beside the slot's compressed bytes.
    side: Arc<DeviceBuffer>,
    /// Behind the copies of the slot's bytes, behind the fetching of what stands beside them, and behind the last use of both.
    there: Event,
    fetched: Event,
    free: Event,
}

impl LoadTools {
    /// # Errors
    /// [`CudaError::OutOfDeviceMemory`], [`CudaError::OutOfPinnedMemory`], [`CudaError::Call`].
    pub fn new(context: &CudaContext) -> Result<Self, CudaError> {
        let slot = |_| {
            Ok(Slot {
                side: Arc::new(DeviceBuffer::new(context, SIDE_BYTES)?),
                there: Event::untimed(context)?,
                fetched: Event::untimed(context)?,
                free: Event::untimed(context)?,
            })
        };
        Ok(Self {
            copy: Stream::new(context)?,
            slots: (0..SLOTS).map(slot).collect::<Result<_, CudaError>>()?,
            payloads: None,
            side_staging: PinnedBuffer::new(context, SLOTS * SIDE_BYTES)?,
            results: DeviceBuffer::new(context, 64 << 10)?,
        })
    }

    /// Decodes groups into `outs`, in `stream`'s order, and waits. `feed` is given the buffer that holds compressed bytes with the offsets of its
    /// slots in it, the outputs, and what queues copies and decoding: for groups in order, the copy of a group first; group g has slot
    /// g mod [`SLOTS`], and is copied only when the group before it there was queued for decoding. Queueing returns at once. `stage` copies what does
    /// not lie in locked memory: into its argument, at the offsets given.
    ///
    /// Beside the outputs it takes its slots. Up to 64 MiB of them are kept.
    ///
    /// # Errors
    /// The first one of `feed`; [`CudaError::OutOfRange`] for what does not fit slot or output, and what the driver reports. Damage is
    /// no error here: it is in [`Loaded`].
    pub fn load<'a, E: From<CudaError>>(
        &mut self,
        stream: &Stream,
        outs: &mut [DeviceSliceMut<'_>],
        size: LoadSize,
        feed: impl FnOnce(&Arc<DeviceBuffer>, [usize; SLOTS], LoadOutputs<'_>, &mut dyn LoadQueue<'a>) -> Result<(), E>,
        stage: impl Fn(&mut [u8], &[(&[u8], usize)]) + Send,
    ) -> Result<Loaded, E> {
        let context = stream.context();
        let slot_bytes = size.slot_bytes.next_multiple_of(SLOT_ALIGN);
        let result_bytes = size.results * size_of::<u32>();
        if self.results.len() < result_bytes {
            self.results = DeviceBuffer::new(context, result_bytes)?;
        }
        let needed = SLOTS * slot_bytes;
        // The smaller ones go first, so that both need not fit.
        let kept = self.payloads.take().filter(|payloads| payloads.len() >= needed);
        let payloads = kept.map_or_else(|| DeviceBuffer::new(context, needed).map(Arc::new), Ok)?;
        if needed <= KEPT_BYTES {
            self.payloads = Some(Arc::clone(&payloads));
        }
        let outs = LoadOutputs { context, outs };
        let mut loader = Loader {
            tools: self,
            decode: stream,
            outs,
            stage,
            slot_bytes,
            payloads: Arc::clone(&payloads),
            sources: Vec::new(),
            staging: None,
            at: 0,
            copied: 0,
            decoded: 0,
            done: Vec::new(),
        };
        feed(&payloads, std::array::from_fn(|slot| slot * slot_bytes), outs, &mut loader)?;
        let mut bytes = vec![0; loader.at];
        loader.tools.results.copy_to_host(stream, 0, &mut bytes)?;
        let mut words = bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        let mut loaded = Loaded::default();
        for (tensors, checks) in std::mem::take(&mut loader.done) {
            for number in tensors {
                if let Some(failure) = words.next().and_then(side::failure_of) {
                    loaded.failures.push((number, error_of(failure)));
                }
            }
            loaded.crc32.extend(words.by_ref().take(checks));
        }
        Ok(loaded)
    }

    /// Queues the fetching of what stands beside the payloads of a slot.
    fn fetch(&mut self, number: usize, bytes: &[u8], decode: &Stream) -> Result<(), CudaError> {
        let (slot, context) = (&mut self.slots[number], decode.context());
        if bytes.len() > slot.side.len() {
            // Rare: a group of small tensors, with more beside their bytes than was foreseen. The last group must be done with it.
            slot.free.synchronize()?;
            slot.side = Arc::new(DeviceBuffer::new(context, 2 * bytes.len())?);
        }
        for (piece, bytes) in bytes.chunks(SIDE_BYTES).enumerate() {
            // What was there before has gone.
            slot.fetched.synchronize()?;
            let at = number * SIDE_BYTES;
            self.side_staging[at..at + bytes.len()].copy_from_slice(bytes);
            let side = slot.side.sub_slice(piece * SIDE_BYTES, bytes.len())?;
            let staged = &self.side_staging[at..at + bytes.len()];
            // SAFETY: locked memory, which the device reads at the host's address. It is not written again before the event has passed, nor
            // freed before the stream is done: `Loader` waits.
            let from = unsafe { DeviceSlice::from_raw(context, staged.as_ptr().addr() as u64, staged.len()) };
            // SAFETY: the buffer belongs to this slot, whose last group was queued on the same stream.
            let to = unsafe { DeviceSliceMut::from_raw(context, side.address(), side.len()) };
            copy_many(decode, [(from, to)])?;
            slot.fetched.record(decode)?;
        }
        Ok(())
    }
}

/// A load under way.
struct Loader<'l, 'a, F> {
    tools: &'l mut LoadTools,
    decode: &'l Stream,
    outs: LoadOutputs<'l>,
    stage: F,
    slot_bytes: usize,
    payloads: Arc<DeviceBuffer>,
    /// Bytes that the device may still be reading.
    sources: Vec<Source<'a>>,
    /// For bytes that do not lie in locked memory: a part per slot. Made when first needed.
    staging: Option<PinnedBuffer>,
    /// Bytes of results so far.
    at: usize,
    /// Groups whose copies, and whose decoding, were queued.
    copied: usize,
    decoded: usize,
    /// Of every group: the outputs of its tensors, and the number of its checksums.
    done: Vec<(Vec<usize>, usize)>,
}

impl<F> Drop for Loader<'_, '_, F> {
    /// Whatever happens, nothing that the device still reads is freed before it is done.
    fn drop(&mut self) {
        for stream in [&self.tools.copy, self.decode] {
            // A failure is that of work whose error is on its way already.
            let _ = stream.synchronize();
        }
    }
}

/// Queues the work of a load.
pub trait LoadQueue<'a>: Send {
    /// The copy of the next group's bytes.
    ///
    /// # Errors
    /// [`CudaError::Inconsistent`] when the group before it in the slot was not queued for decoding; else as [`LoadTools::load`].
    fn copy(&mut self, sources: Vec<Source<'a>>) -> Result<(), CudaError>;

    /// The decoding of the next group.
    ///
    /// # Errors
    /// [`CudaError::Inconsistent`] when its copy was not queued; else as [`LoadTools::load`].
    fn decode(&mut self, group: ReadyGroup) -> Result<(), CudaError>;
}

impl<'a, F: Fn(&mut [u8], &[(&[u8], usize)]) + Send> LoadQueue<'a> for Loader<'_, 'a, F> {
    fn copy(&mut self, sources: Vec<Source<'a>>) -> Result<(), CudaError> {
        if self.copied >= self.decoded + SLOTS {
            return Err(CudaError::Inconsistent {
                what: "a group is copied when its slot's last one was queued for decoding",
            });
        }
        let (number, context) = (self.copied % SLOTS, self.decode.context());
        let (tools, start) = (&*self.tools, number * self.slot_bytes);
        let slot = &tools.slots[number];
        // Events that were never recorded are passed.
        tools.copy.wait(&slot.free)?;
        let mut pageable = Vec::new();
        for (bytes, offset) in &sources {
            if offset.checked_add(bytes.len()).is_none_or(|end| end > self.slot_bytes) {
                return Err(CudaError::OutOfRange { offset: *offset, bytes: bytes.len(), size: self.slot_bytes });
            }
            // Bytes that are owned go with this call, wherever they lie.
            if matches!(bytes, Cow::Borrowed(_)) && is_pinned(context, bytes)? {
                queue(&tools.copy, self.payloads.address() + (start + offset) as u64, bytes)?;
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
            (self.stage)(&mut staging[start..start + self.slot_bytes], &pageable);
            for (bytes, offset) in pageable {
                let at = start + offset;
                queue(&tools.copy, self.payloads.address() + at as u64, &staging[at..at + bytes.len()])?;
            }
        }
        slot.there.record(&tools.copy)?;
        // Kept to the end: bytes that are borrowed cost nothing, and decoded ones were staged.
        self.sources.extend(sources.into_iter().filter(|(bytes, _)| matches!(bytes, Cow::Borrowed(_))));
        self.copied += 1;
        Ok(())
    }

    /// Results of a group: failures of tensors in lanes, integer and plain mode, checksums.
    fn decode(&mut self, group: ReadyGroup) -> Result<(), CudaError> {
        if self.decoded >= self.copied {
            return Err(CudaError::Inconsistent { what: "a group is copied before it is decoded" });
        }
        let number = self.decoded % SLOTS;
        self.tools.fetch(number, &group.side, self.decode)?;
        let (decode, context, slot) = (self.decode, self.decode.context(), &self.tools.slots[number]);
        let ReadyGroup { mut lanes, mut integer, mut plain, targets, copies, .. } = group;
        lanes.iter_mut().for_each(|tensor| tensor.side.attach(&slot.side));
        integer.iter_mut().for_each(|tensor| tensor.side.attach(&slot.side));
        plain.iter_mut().for_each(|tensor| tensor.side.attach(&slot.side));

        decode.wait(&slot.there)?;
        let place = |target: Target, bytes: usize| {
            let out = self.outs.get(target.output)?.sub_slice(target.offset, bytes)?;
            // SAFETY: memory that the caller has lent for writing. Two parts of one place would only garble it.
            Ok::<_, CudaError>((0..bytes, unsafe { DeviceSliceMut::from_raw(context, out.address(), bytes) }))
        };
        let mut jobs = Vec::with_capacity(lanes.len());
        for (tensor, &target) in lanes.iter().zip(&targets) {
            let (range, out) = place(target, tensor.decoded_bytes())?;
            jobs.push((tensor, range, out));
        }
        lanes::decode_lanes(decode, &jobs, 0)?;
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
        let mut pieces = Vec::with_capacity(copies.len());
        for (from, target) in &copies {
            let from = self.payloads.sub_slice(number * self.slot_bytes + from.start, from.len())?;
            let (_, out) = place(*target, from.len())?;
            pieces.push((from, out));
        }
        copy_many(decode, pieces)?;
        let ((segments_at, segments), (crc_at, checks)) = (group.segments, group.crc);
        queue_crc32(decode, slot.side.address() + segments_at as u64, segments, slot.side.address() + crc_at as u64)?;

        // Results leave the slot, which is filled again.
        let word = size_of::<u32>();
        let mut to = self.at;
        let mut keep = |from: usize, words: usize| {
            let from = slot.side.sub_slice(from, words * word)?;
            let target = self.tools.results.sub_slice(to, words * word)?;
            to += words * word;
            // SAFETY: the buffer belongs to this load, and each group has its own part of it.
            Ok::<_, CudaError>((from, unsafe { DeviceSliceMut::from_raw(context, target.address(), target.len()) }))
        };
        let kept = [
            keep(lanes.first().map_or(0, |tensor| tensor.side.status_at()), lanes.len())?,
            keep(integer.first().map_or(0, |tensor| tensor.side.status_at()), integer.len())?,
            keep(plain.first().map_or(0, |tensor| tensor.side.status_at()), plain.len())?,
            keep(crc_at, checks)?,
        ];
        copy_many(decode, kept)?;
        slot.free.record(decode)?;
        self.at = to;
        self.decoded += 1;
        self.done.push((targets.into_iter().map(|target| target.output).collect(), checks));
        Ok(())
    }
}

/// Queues a copy to device memory that is as long. [`Loader`] waits before the bytes can go.
fn queue(copy: &Stream, to: u64, bytes: &[u8]) -> Result<(), CudaError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let _current = copy.context().enter()?;
    // SAFETY: the target was found to be inside its buffer; source and target stay until the loader has waited.
    check("cuMemcpyHtoDAsync", unsafe { sys::cuMemcpyHtoDAsync_v2(to, bytes.as_ptr().cast(), bytes.len(), copy.raw()) })
}
