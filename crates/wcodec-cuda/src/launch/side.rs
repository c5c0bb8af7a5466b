//! What stands beside tensors' compressed bytes on a device: one buffer for all that are uploaded together. At its end are their status
//! words: the lowest failure of a tensor, `superblock << 2 | code`, or all ones.

use std::ops::Range;
use std::sync::Arc;

use super::memory::DeviceBuffer;
use super::{CudaContext, Stream};
use crate::CudaError;

/// A tensor's part of the buffer.
#[derive(Debug)]
pub(crate) struct Side {
    /// Shared with the tensors that were laid out together; one of no bytes until it is attached.
    buffer: Arc<DeviceBuffer>,
    /// Bytes of it that are this tensor's.
    bytes: usize,
    /// Where its status word lies.
    status: usize,
}

impl Side {
    /// The address of what was appended at `offset`.
    pub(super) fn address(&self, offset: usize) -> u64 {
        self.buffer.address() + offset as u64
    }

    /// The address of the status word.
    pub(super) fn status_address(&self) -> u64 {
        self.address(self.status)
    }

    /// Where the status word lies in the buffer; those of tensors that were laid out together follow one another.
    pub(super) fn status_at(&self) -> usize {
        self.status
    }

    /// Bytes of device memory that are this tensor's.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn context(&self) -> &CudaContext {
        self.buffer.context()
    }

    /// Gives the tensor the buffer that holds what was laid out.
    pub(super) fn attach(&mut self, buffer: &Arc<DeviceBuffer>) {
        self.buffer = Arc::clone(buffer);
    }
}

/// Lays out tensors behind what stands in `bytes`; they go to the buffer that is attached later.
pub(super) struct Layout<'a> {
    bytes: &'a mut Vec<u8>,
    /// Where the present tensor's part begins.
    begin: usize,
    nothing: Arc<DeviceBuffer>,
}

impl<'a> Layout<'a> {
    pub(super) fn new(context: &CudaContext, bytes: &'a mut Vec<u8>) -> Result<Self, CudaError> {
        Ok(Self { begin: bytes.len(), bytes, nothing: Arc::new(DeviceBuffer::new(context, 0)?) })
    }

    /// Appends a part of the present tensor at a multiple of 16 bytes and says where.
    pub(super) fn append(&mut self, part: &[u8]) -> usize {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let at = self.bytes.len();
        self.bytes.extend_from_slice(part);
        at
    }

    /// Ends the present tensor.
    pub(super) fn tensor(&mut self) -> Side {
        let bytes = self.bytes.len() - self.begin + size_of::<u32>();
        self.begin = self.bytes.len();
        Side { buffer: Arc::clone(&self.nothing), bytes, status: 0 }
    }

    /// Appends the status words of all tensors, in their order, so that one copy reads them all.
    pub(super) fn statuses<'s>(mut self, sides: impl Iterator<Item = &'s mut Side>) {
        self.append(&[]);
        for side in sides {
            side.status = self.bytes.len();
            self.bytes.extend_from_slice(&NO_FAILURE.to_ne_bytes());
        }
    }
}

/// Copies what `lay_out` lays out to the device, in one piece. Waits for the stream.
pub(super) fn upload<R>(
    stream: &Stream,
    lay_out: impl FnOnce(&mut Vec<u8>) -> Result<Vec<R>, CudaError>,
    side_of: impl Fn(&mut R) -> &mut Side,
) -> Result<Vec<R>, CudaError> {
    let mut bytes = Vec::new();
    let mut residents = lay_out(&mut bytes)?;
    let buffer = Arc::new(DeviceBuffer::from_host(stream, &bytes)?);
    residents.iter_mut().for_each(|resident| side_of(resident).attach(&buffer));
    Ok(residents)
}

/// What a tensor without a failure has.
const NO_FAILURE: u32 = u32::MAX;

/// Superblock and code of a status word.
pub(super) fn failure_of(status: u32) -> Option<(u64, u32)> {
    (status != NO_FAILURE).then_some((u64::from(status >> 2), status & 3))
}

/// The lowest failures of tensors so far: superblock and code. Waits for the stream; words that lie close together come in one copy.
pub(crate) fn failures<'a>(
    stream: &Stream,
    sides: impl IntoIterator<Item = &'a Side>,
) -> Result<Vec<Option<(u64, u32)>>, CudaError> {
    let sides: Vec<&Side> = sides.into_iter().collect();
    // Tensors that were uploaded together have their words in one run.
    let mut runs: Vec<(&DeviceBuffer, Range<usize>, Vec<u8>)> = Vec::new();
    for side in &sides {
        let word = side.status..side.status + size_of::<u32>();
        match runs.iter_mut().find(|(other, ..)| other.address() == side.buffer.address()) {
            Some((_, run, _)) => *run = run.start.min(word.start)..run.end.max(word.end),
            None => runs.push((&side.buffer, word, Vec::new())),
        }
    }
    for (buffer, run, bytes) in &mut runs {
        bytes.resize(run.len(), 0);
        buffer.copy_to_host(stream, run.start, bytes)?;
    }
    let failure = |side: &&Side| {
        let (_, run, bytes) = runs.iter().find(|(other, ..)| other.address() == side.buffer.address())?;
        failure_of(u32::from_ne_bytes(*bytes[side.status - run.start..].first_chunk()?))
    };
    Ok(sides.iter().map(failure).collect())
}
