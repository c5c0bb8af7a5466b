//! Launches of `kernels/copy.cu`.

use super::{DeviceSlice, DeviceSliceMut, Grid, Stream, launch, same_device};
use crate::CudaError;

/// `TILE` of copy.cu, in bytes.
const TILE: u64 = 32 << 10;
/// `MAX_PIECES`.
const MAX_PIECES: usize = 120;
/// Words of `struct Piece`.
const PIECE_WORDS: usize = 8;
pub(super) const THREADS: u32 = 256;
const BLOCKS_PER_SM: u32 = 8;

/// Queues copies within device memory, up to 120 of them in one launch. Pieces must not overlap what another piece writes.
///
/// # Errors
/// [`CudaError::OutOfRange`] for a piece whose two sides differ in length, [`CudaError::OtherDevice`], [`CudaError::TooLarge`]
/// beyond 2^32 - 1 tiles of 32 KiB, and what the driver reports.
pub fn copy_many<'a>(
    stream: &Stream,
    pieces: impl IntoIterator<Item = (DeviceSlice<'a>, DeviceSliceMut<'a>)>,
) -> Result<(), CudaError> {
    let mut list = Vec::new();
    for (from, to) in pieces {
        same_device(stream, "the source", from.context())?;
        same_device(stream, "the target", to.context())?;
        if from.len() != to.len() {
            return Err(CudaError::OutOfRange { offset: 0, bytes: from.len(), size: to.len() });
        }
        if !from.is_empty() {
            list.push((from.address(), to.address(), from.len() as u64));
        }
    }
    for part in list.chunks(MAX_PIECES) {
        run(stream, part)?;
    }
    Ok(())
}

fn run(stream: &Stream, pieces: &[(u64, u64, u64)]) -> Result<(), CudaError> {
    let function = stream.context().function(&wcodec_kernels::COPY, c"wcodec_copy")?;
    let mut words = vec![0u32; 2 + MAX_PIECES * PIECE_WORDS];
    let mut tiles = 0u64;
    for (&(from, to, bytes), piece) in pieces.iter().zip(words[2..].chunks_exact_mut(PIECE_WORDS)) {
        tiles += bytes.div_ceil(TILE);
        for (pair, value) in piece.chunks_exact_mut(2).zip([from, to, bytes]) {
            // Kernels and host have the same byte order.
            pair.copy_from_slice(&[value as u32, (value >> 32) as u32]);
        }
        piece[6] = tile_count(tiles)?;
    }
    let tiles = tile_count(tiles)?;
    (words[0], words[1]) = (pieces.len() as u32, tiles);
    let blocks = stream.context().device().multiprocessors.saturating_mul(BLOCKS_PER_SM).clamp(1, tiles);
    let mut parameters = [words.as_mut_ptr().cast()];
    // SAFETY: the parameter is a `struct Pieces` of copy.cu. Both sides of a piece are slices of its length, and the kernel copies
    // each piece's bytes once, tile by tile.
    unsafe { launch(stream, function, Grid { blocks, threads: THREADS, shared: 0 }, &mut parameters) }
}

fn tile_count(tiles: u64) -> Result<u32, CudaError> {
    u32::try_from(tiles).map_err(|_| CudaError::TooLarge {
        what: "the number of tiles",
        value: tiles,
        limit: u32::MAX.into(),
    })
}
