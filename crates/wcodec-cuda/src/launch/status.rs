//! Status words: the lowest failure of a tensor, `superblock << 2 | code`, or all ones.

use std::ops::Range;

use super::memory::DeviceBuffer;
use super::stream::Stream;
use crate::CudaError;

/// What a tensor without a failure has.
pub(super) const NONE: u32 = u32::MAX;

/// Lays out the status words of tensors behind what stands in `side`, one after the other, so that one copy reads them all; tells where.
pub(super) fn append<'a>(side: &mut Vec<u8>, places: impl Iterator<Item = &'a mut usize>) {
    side.resize(side.len().next_multiple_of(16), 0);
    for place in places {
        *place = side.len();
        side.extend_from_slice(&NONE.to_ne_bytes());
    }
}

/// Where a tensor's status word lies.
pub(super) type Word<'a> = (&'a DeviceBuffer, usize);

/// Superblock and code of a status word.
pub(super) fn failure_of(status: u32) -> Option<(u64, u32)> {
    (status != NONE).then_some((u64::from(status >> 2), status & 3))
}

/// The failures of tensors: superblock and code. Waits for the stream; words that lie close together come in one copy.
pub(super) fn read(stream: &Stream, words: &[Word<'_>]) -> Result<Vec<Option<(u64, u32)>>, CudaError> {
    // Tensors that were uploaded together have their words in one run.
    let mut runs: Vec<(&DeviceBuffer, Range<usize>, Vec<u8>)> = Vec::new();
    for &(buffer, at) in words {
        let word = at..at + size_of::<u32>();
        match runs.iter_mut().find(|(other, ..)| other.address() == buffer.address()) {
            Some((_, run, _)) => *run = run.start.min(word.start)..run.end.max(word.end),
            None => runs.push((buffer, word, Vec::new())),
        }
    }
    for (buffer, run, bytes) in &mut runs {
        bytes.resize(run.len(), 0);
        buffer.copy_to_host(stream, run.start, bytes)?;
    }
    let failure = |&(buffer, at): &Word<'_>| {
        let (_, run, bytes) = runs.iter().find(|(other, ..)| other.address() == buffer.address())?;
        failure_of(u32::from_ne_bytes(*bytes[at - run.start..].first_chunk()?))
    };
    Ok(words.iter().map(failure).collect())
}
