//! `struct Framed` of `kernels/framed.cuh`, and the kernels of `kernels/frames.cu`.

use super::memory::{DeviceBuffer, DeviceSlice, DeviceSliceMut};
use super::{Grid, grid_size, launch, same_device, stream::Stream};
use crate::CudaError;

/// Bytes cut into pieces as zstd mode does, in device memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// All bytes.
    pub(crate) bytes: usize,
    /// Bytes of a piece, a multiple of `planes`.
    pub(crate) frame: usize,
    /// From one piece to the next, at least `frame`.
    pub(crate) stride: usize,
    /// 1, 2, 4 or 8.
    pub(crate) planes: usize,
}

impl Cut {
    /// Bytes that lie one behind the other.
    pub(crate) fn none(bytes: usize) -> Self {
        Self { bytes, frame: 0, stride: 0, planes: 1 }
    }

    pub(crate) fn pieces(&self) -> usize {
        if self.frame == 0 { 1 } else { self.bytes.div_ceil(self.frame) }
    }

    /// From the begin of the first piece to the end of the last one.
    pub(crate) fn extent(&self) -> usize {
        match self.pieces() {
            0 => 0,
            pieces if self.frame == 0 => self.bytes * pieces,
            pieces => (pieces - 1) * self.stride + (self.bytes - (pieces - 1) * self.frame),
        }
    }

    /// The kernel's structure, as eight words. `memory` holds the extent.
    pub(super) fn words(&self, address: u64) -> [u32; 8] {
        let mut words = [0; 8];
        for (pair, value) in words.chunks_exact_mut(2).zip([address, self.bytes as u64]) {
            // Kernels and host have the same byte order.
            pair.copy_from_slice(&[value as u32, (value >> 32) as u32]);
        }
        // A frame has at most 1 MiB, and a stride little more.
        words[4..7].copy_from_slice(&[self.frame as u32, self.stride as u32, self.planes.trailing_zeros()]);
        words
    }

    /// Checks that pieces lie inside `memory`.
    pub(super) fn fits(&self, bytes: usize) -> Result<(), CudaError> {
        const LARGEST: usize = 1 << 24;
        if !matches!(self.planes, 1 | 2 | 4 | 8) || self.frame > self.stride || self.stride > LARGEST {
            return Err(CudaError::Inconsistent { what: "pieces of a frame's length and 1, 2, 4 or 8 planes" });
        }
        let extent = self.extent();
        if extent <= bytes { Ok(()) } else { Err(CudaError::OutOfRange { offset: 0, bytes: extent, size: bytes }) }
    }
}

pub(super) const THREADS: u32 = 256;
/// Bytes of a thread of the plane kernels.
const GRANULE: usize = 16;

/// Queues joining the pieces in `from` into plain bytes.
pub(crate) fn join_planes(
    stream: &Stream,
    cut: Cut,
    from: DeviceSlice<'_>,
    to: DeviceSliceMut<'_>,
) -> Result<(), CudaError> {
    same_device(stream, "the pieces", from.context())?;
    same_device(stream, "the output", to.context())?;
    cut.fits(from.len())?;
    planes(stream, cut, from.address(), to.address(), to.len(), c"wcodec_join_planes")
}

/// Queues splitting plain bytes into pieces in `to`.
pub(crate) fn split_planes(
    stream: &Stream,
    cut: Cut,
    from: DeviceSlice<'_>,
    to: DeviceSliceMut<'_>,
) -> Result<(), CudaError> {
    same_device(stream, "the input", from.context())?;
    same_device(stream, "the pieces", to.context())?;
    cut.fits(to.len())?;
    planes(stream, cut, to.address(), from.address(), from.len(), c"wcodec_split_planes")
}

/// The pieces at `framed` hold the cut; `plain_bytes` bytes are at `plain`.
fn planes(
    stream: &Stream,
    cut: Cut,
    framed: u64,
    plain: u64,
    plain_bytes: usize,
    name: &'static std::ffi::CStr,
) -> Result<(), CudaError> {
    if plain_bytes != cut.bytes {
        return Err(CudaError::OutOfRange { offset: 0, bytes: cut.bytes, size: plain_bytes });
    }
    if cut.bytes == 0 {
        return Ok(());
    }
    let function = stream.context().function(&wcodec_kernels::FRAMES, name)?;
    let blocks = grid_size("the number of blocks", cut.bytes.div_ceil(GRANULE * THREADS as usize) as u64)?;
    let (mut words, mut plain) = (cut.words(framed), plain);
    let mut parameters = [words.as_mut_ptr().cast(), (&raw mut plain).cast()];
    // SAFETY: the parameters have the types that frames.cu declares. The pieces lie inside their memory, as `Cut::fits` says, and the
    // plain bytes are as many as the pieces hold; each byte of either side is touched by one thread.
    unsafe { launch(stream, function, Grid { blocks, threads: THREADS, shared: 0 }, &mut parameters) }
}

/// Device arrays about a batch of frames, for nvCOMP: four of numbers, one of results, one of statuses.
#[derive(Debug)]
pub(crate) struct Lists {
    buffer: DeviceBuffer,
    /// Frames that there is room for.
    room: usize,
}

impl Lists {
    pub(crate) fn new(context: &super::CudaContext, room: usize) -> Result<Self, CudaError> {
        Ok(Self { buffer: DeviceBuffer::new(context, room * (5 * 8 + 4))?, room })
    }

    pub(crate) fn room(&self) -> usize {
        self.room
    }

    fn array(&self, number: usize) -> u64 {
        self.buffer.address() + (number * self.room * 8) as u64
    }

    /// Addresses of what is read.
    pub(super) fn sources(&self) -> u64 {
        self.array(0)
    }

    /// Lengths of what is read.
    pub(super) fn source_bytes(&self) -> u64 {
        self.array(1)
    }

    /// Addresses of what is written.
    pub(super) fn targets(&self) -> u64 {
        self.array(2)
    }

    /// Room there.
    pub(super) fn target_room(&self) -> u64 {
        self.array(3)
    }

    /// Lengths of what was written.
    pub(super) fn written(&self) -> u64 {
        self.array(4)
    }

    pub(super) fn statuses(&self) -> u64 {
        self.array(5)
    }

    /// Lengths of what was written and statuses of the first `count`. Waits for the stream.
    pub(crate) fn results(&self, stream: &Stream, count: usize) -> Result<(Vec<u64>, Vec<u32>), CudaError> {
        let (mut lengths, mut statuses) = (vec![0; 8 * count], vec![0; 4 * count]);
        self.buffer.copy_to_host(stream, 4 * 8 * self.room, &mut lengths)?;
        self.buffer.copy_to_host(stream, 5 * 8 * self.room, &mut statuses)?;
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
        Ok((lengths.chunks_exact(8).map(word).collect(), statuses.chunks_exact(4).map(|b| word(b) as u32).collect()))
    }

    fn words(&self) -> [u32; 8] {
        let mut words = [0; 8];
        let arrays = [self.sources(), self.source_bytes(), self.targets(), self.target_room()];
        for (pair, value) in words.chunks_exact_mut(2).zip(arrays) {
            pair.copy_from_slice(&[value as u32, (value >> 32) as u32]);
        }
        words
    }

    /// Queues adding frames `first..first + pieces of target` of a tensor at position `at`: `frames` holds their addresses, then their
    /// lengths, as many as `all`. They are decoded into the pieces of `to`.
    pub(crate) fn add_frames(
        &mut self,
        stream: &Stream,
        at: usize,
        frames: (DeviceSlice<'_>, usize),
        first: usize,
        target: Cut,
        to: DeviceSliceMut<'_>,
    ) -> Result<(), CudaError> {
        let ((table, all), count) = (frames, target.pieces());
        target.fits(to.len())?;
        same_device(stream, "the output", to.context())?;
        same_device(stream, "the frames", table.context())?;
        self.inside(at, count)?;
        if first + count > all || table.len() < 16 * all {
            return Err(CudaError::OutOfRange { offset: first, bytes: count, size: all });
        }
        let function = stream.context().function(&wcodec_kernels::FRAMES, c"wcodec_list_frames")?;
        let (mut lists, mut at, mut addresses) = (self.words(), at as u32, table.address());
        let mut lengths = addresses + 8 * all as u64;
        let (mut first, mut items, mut target) = (first as u32, count as u32, target.words(to.address()));
        let mut parameters = [
            lists.as_mut_ptr().cast(),
            (&raw mut at).cast(),
            (&raw mut addresses).cast(),
            (&raw mut lengths).cast(),
            (&raw mut first).cast(),
            (&raw mut items).cast(),
            target.as_mut_ptr().cast(),
        ];
        // SAFETY: the parameters have the types that frames.cu declares; positions lie inside the lists and inside the table, as was
        // checked. What the lists then name: frames of the table, and pieces that lie inside `to`.
        unsafe { launch(stream, function, self.grid(count)?, &mut parameters) }
    }

    /// Queues making the list of all pieces in `from`, each to be encoded into `room` bytes of `to`.
    pub(crate) fn set_pieces(
        &mut self,
        stream: &Stream,
        source: Cut,
        from: DeviceSlice<'_>,
        to: DeviceSliceMut<'_>,
        room: usize,
    ) -> Result<(), CudaError> {
        let count = source.pieces();
        source.fits(from.len())?;
        same_device(stream, "the pieces", from.context())?;
        same_device(stream, "the output", to.context())?;
        self.inside(0, count)?;
        if count.checked_mul(room).is_none_or(|bytes| bytes > to.len()) || u32::try_from(room).is_err() {
            return Err(CudaError::OutOfRange { offset: 0, bytes: count.saturating_mul(room), size: to.len() });
        }
        let function = stream.context().function(&wcodec_kernels::FRAMES, c"wcodec_list_pieces")?;
        let (mut lists, mut items, mut source) = (self.words(), count as u32, source.words(from.address()));
        let (mut to, mut room) = (to.address(), room as u32);
        let mut parameters = [
            lists.as_mut_ptr().cast(),
            (&raw mut items).cast(),
            source.as_mut_ptr().cast(),
            (&raw mut to).cast(),
            (&raw mut room).cast(),
        ];
        // SAFETY: the parameters have the types that frames.cu declares, and the lists have room for all pieces. What they then name:
        // pieces that lie inside `from`, and parts of `to`.
        unsafe { launch(stream, function, self.grid(count)?, &mut parameters) }
    }

    /// Queues noting in the word at `failed` the lowest of frames `first..first + count` of a tensor that did not decode to its length;
    /// they are at position `at` of the lists.
    pub(crate) fn check_frames(
        &self,
        stream: &Stream,
        at: usize,
        first: usize,
        count: usize,
        failed: DeviceSlice<'_>,
    ) -> Result<(), CudaError> {
        same_device(stream, "the status", failed.context())?;
        self.inside(at, count)?;
        failed.sub_slice(0, 4)?;
        let function = stream.context().function(&wcodec_kernels::FRAMES, c"wcodec_check_frames")?;
        let (mut statuses, mut written, mut expected) = (self.statuses(), self.written(), self.target_room());
        let (mut at, mut first, mut items, mut failed) = (at as u32, first as u32, count as u32, failed.address());
        let mut parameters = [
            (&raw mut statuses).cast(),
            (&raw mut written).cast(),
            (&raw mut expected).cast(),
            (&raw mut at).cast(),
            (&raw mut first).cast(),
            (&raw mut items).cast(),
            (&raw mut failed).cast(),
        ];
        // SAFETY: the parameters have the types that frames.cu declares; positions lie inside the lists, and the word is four bytes of a
        // slice. It is written by atomic operations only.
        unsafe { launch(stream, function, self.grid(count)?, &mut parameters) }
    }

    fn inside(&self, at: usize, count: usize) -> Result<(), CudaError> {
        match at.checked_add(count) {
            Some(end) if end <= self.room => Ok(()),
            _ => Err(CudaError::OutOfRange { offset: at, bytes: count, size: self.room }),
        }
    }

    fn grid(&self, count: usize) -> Result<Grid, CudaError> {
        let blocks = grid_size("the number of frames", (count as u64).div_ceil(THREADS.into()))?;
        Ok(Grid { blocks: blocks.max(1), threads: THREADS, shared: 0 })
    }
}
