//! Everything that talks to the driver with raw addresses, and the only module with `unsafe` code.
//!
//! This file has one safe function per kernel. Each checks its arguments against what the kernel reads and writes, so that no
//! safe caller can make a kernel touch memory outside the buffers it was given. The submodules hold the handles:
//! `context`, `stream`, `memory`.
#![expect(unsafe_code, reason = "calls the driver; every call's SAFETY line names what makes it sound")]

use std::ffi::c_void;
use std::ops::Range;

use cust::sys;

use crate::crc::Plan;
use crate::{CudaError, DeviceInfo};

mod context;
mod copy;
mod dequant;
mod framed;
mod integer;
mod lanes;
mod memory;
mod nvcomp;
mod pipeline;
mod plain;
mod side;
mod stream;

use context::Function;
pub use context::{CudaContext, Current};
pub use copy::copy_many;
pub(crate) use dequant::{Numbers, dequantize};
pub(crate) use framed::{Cut, Lists, join_planes, split_planes};
pub(crate) use integer::{
    BLOCK_BYTES as INTEGER_BLOCK_BYTES, Resident as IntegerResident, Uploaded as IntegerUploaded, decode_integer,
    holds_integer,
};
#[cfg(test)]
pub(crate) use lanes::entries;
pub(crate) use lanes::{BLOCK_BYTES, Region, Resident, Uploaded, decode_lanes};
pub use memory::{DeviceBuffer, DeviceSlice, DeviceSliceMut, PinnedBuffer};
pub(crate) use nvcomp::{Api, Batch, FramePart, SUPPORTED_MAJOR, decode_frames, encode_pieces};
pub use pipeline::{LoadGroup, LoadOutputs, LoadQueue, LoadSize, LoadTools, Loaded, ReadyGroup, SLOTS, Source, Target};
pub(crate) use plain::{Resident as PlainResident, Uploaded as PlainUploaded, decode_plain};
pub(crate) use side::failures;
pub use stream::{Event, Stream};

/// Reads `input` and writes `output` in 16-byte accesses and does nothing else: the time that no decoder of these sizes can
/// beat. With equal sizes it is a copy; otherwise `output` holds pieces of `input`, or zeros where `input` is empty.
/// Returns once the work is queued on `stream`.
///
/// # Errors
/// [`CudaError::Misaligned`] unless addresses and lengths are multiples of 16, [`CudaError::OtherDevice`],
/// [`CudaError::TooLarge`] beyond 2^31 - 1 tiles of 16 KiB, and what the driver reports.
pub fn copy_floor(stream: &Stream, input: DeviceSlice<'_>, output: DeviceSliceMut<'_>) -> Result<(), CudaError> {
    same_device(stream, "the input", input.context())?;
    same_device(stream, "the output", output.context())?;
    let in_vectors = vectors("the input's address", "the input's length", input.address(), input.len())?;
    let out_vectors = vectors("the output's address", "the output's length", output.address(), output.len())?;
    let tiles = in_vectors.max(out_vectors).div_ceil(copy_floor_tile());
    if tiles == 0 {
        return Ok(());
    }
    let function = stream.context().function(&wcodec_kernels::COPY_FLOOR, c"wcodec_copy_floor")?;
    let grid = Grid { blocks: grid_size("the number of tiles", tiles)?, threads: COPY_FLOOR_THREADS, shared: 0 };
    let (mut input, mut output, mut in_vectors, mut out_vectors) =
        (input.address(), output.address(), in_vectors, out_vectors);
    let mut parameters = [
        (&raw mut input).cast(),
        (&raw mut in_vectors).cast(),
        (&raw mut output).cast(),
        (&raw mut out_vectors).cast(),
    ];
    // SAFETY: the parameters have the types that copy_floor.cu declares. Tiles are proportional slices of both ranges and at
    // most `copy_floor_tile` vectors long, which is what one block handles, so every access lies inside the slices.
    unsafe { launch(stream, function, grid, &mut parameters) }
}

const COPY_FLOOR_THREADS: u32 = 256;
const COPY_FLOOR_PER_THREAD: u32 = 4;

fn copy_floor_tile() -> u64 {
    u64::from(COPY_FLOOR_THREADS * COPY_FLOOR_PER_THREAD)
}

/// Runs `plan` over `buffers` and waits for the results, one per buffer.
pub(crate) fn crc32(stream: &Stream, buffers: &[DeviceSlice<'_>], plan: &Plan) -> Result<Vec<u32>, CudaError> {
    if plan.segments.is_empty() {
        return Ok(plan.presets.clone());
    }
    let segments = DeviceBuffer::from_host(stream, &crc32_segments(stream.context(), buffers, plan)?)?;
    let presets: Vec<u8> = plan.presets.iter().flat_map(|preset| preset.to_ne_bytes()).collect();
    let results = DeviceBuffer::from_host(stream, &presets)?;
    queue_crc32(stream, segments.address(), plan.segments.len(), results.address())?;
    let mut bytes = vec![0; presets.len()];
    results.copy_to_host(stream, 0, &mut bytes)?;
    Ok(bytes.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]])).collect())
}

/// `struct Segment`s of crc32.cu.
fn crc32_segments(context: &CudaContext, buffers: &[DeviceSlice<'_>], plan: &Plan) -> Result<Vec<u8>, CudaError> {
    let mut segments = Vec::with_capacity(plan.segments.len() * SEGMENT_BYTES);
    for segment in &plan.segments {
        let buffer = &buffers[segment.buffer];
        if buffer.context() != context {
            return Err(CudaError::OtherDevice { what: "a buffer" });
        }
        let data = buffer.sub_slice(segment.offset as usize, segment.bytes as usize)?;
        segments.extend_from_slice(&data.address().to_ne_bytes());
        for word in [segment.bytes, segment.factor, segment.buffer as u32, 0] {
            segments.extend_from_slice(&word.to_ne_bytes());
        }
    }
    Ok(segments)
}

/// Queues the CRC kernel for segments on the device, made by [`crc32_segments`], and results that hold the presets of the same plan.
fn queue_crc32(stream: &Stream, segments: u64, count: usize, results: u64) -> Result<(), CudaError> {
    if count == 0 {
        return Ok(());
    }
    let count = u32::try_from(count).map_err(|_| CudaError::TooLarge {
        what: "the number of segments",
        value: count as u64,
        limit: u32::MAX.into(),
    })?;
    let function = stream.context().function(&wcodec_kernels::CRC32, c"wcodec_crc32")?;
    let warps_per_block = CRC32_THREADS / 32;
    let blocks = count.div_ceil(warps_per_block).min(crc32_blocks(stream.context().device()));
    let grid = Grid { blocks, threads: CRC32_THREADS, shared: 0 };
    let (mut segments, mut count, mut results) = (segments, count, results);
    let mut parameters = [(&raw mut segments).cast(), (&raw mut count).cast(), (&raw mut results).cast()];
    // SAFETY: the parameters have the types that crc32.cu declares. `segments` holds `count` of its structures, each a range
    // that `sub_slice` found inside its buffer, with an index below the number of presets (one per buffer).
    unsafe { launch(stream, function, grid, &mut parameters) }
}

/// How many warps of the CRC kernel a device runs at once.
pub(crate) fn crc32_warps(device: &DeviceInfo) -> u64 {
    u64::from(crc32_blocks(device)) * u64::from(CRC32_THREADS / 32)
}

fn crc32_blocks(device: &DeviceInfo) -> u32 {
    device.multiprocessors.saturating_mul(CRC32_BLOCKS_PER_SM).max(1)
}

const CRC32_THREADS: u32 = 512;
const CRC32_BLOCKS_PER_SM: u32 = 3;
/// `struct Segment` of crc32.cu.
const SEGMENT_BYTES: usize = 24;

/// The shape of a launch: one-dimensional blocks.
#[derive(Clone, Copy)]
struct Grid {
    blocks: u32,
    threads: u32,
    /// Bytes of dynamic shared memory of a block.
    shared: u32,
}

/// Queues a kernel.
///
/// # Safety
/// `parameters` point to values of the types and in the order that the kernel declares, and with them the kernel
/// touches only memory that stays allocated until the stream has done this work. (Buffers free themselves by
/// `cuMemFree`, which waits for the device.)
unsafe fn launch(
    stream: &Stream,
    function: Function,
    grid: Grid,
    parameters: &mut [*mut c_void],
) -> Result<(), CudaError> {
    let _current = stream.context().enter()?;
    // SAFETY: the function belongs to a module of this context, which outlives the stream; the driver copies the
    // parameters before it returns; the caller vouches for them.
    let code = unsafe {
        sys::cuLaunchKernel(
            function.raw(),
            grid.blocks,
            1,
            1,
            grid.threads,
            1,
            1,
            grid.shared,
            stream.raw(),
            parameters.as_mut_ptr(),
            std::ptr::null_mut(),
        )
    };
    check("cuLaunchKernel", code)
}

fn check(call: &'static str, code: sys::CUresult) -> Result<(), CudaError> {
    match code {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        code => Err(CudaError::Call { call, code: code as i32 }),
    }
}

fn same_device(stream: &Stream, what: &'static str, context: &CudaContext) -> Result<(), CudaError> {
    if stream.context() == context { Ok(()) } else { Err(CudaError::OtherDevice { what }) }
}

/// Checks what is to be decoded: bytes `range` of a tensor of `size` bytes, in a payload on the device `payload`, into `out`, which is as long.
fn check_job(
    stream: &Stream,
    payload: &CudaContext,
    size: usize,
    range: &Range<usize>,
    out: &DeviceSliceMut<'_>,
) -> Result<(), CudaError> {
    same_device(stream, "the compressed tensor", payload)?;
    same_device(stream, "the output", out.context())?;
    if range.start > range.end || range.end > size {
        return Err(CudaError::OutOfRange { offset: range.start, bytes: range.len(), size });
    }
    if out.len() != range.len() {
        return Err(CudaError::OutOfRange { offset: 0, bytes: range.len(), size: out.len() });
    }
    Ok(())
}

/// The number of 16-byte vectors in a range that must consist of them.
fn vectors(
    address_name: &'static str,
    length_name: &'static str,
    address: u64,
    bytes: usize,
) -> Result<u64, CudaError> {
    for (what, value) in [(address_name, address), (length_name, bytes as u64)] {
        if !value.is_multiple_of(16) {
            return Err(CudaError::Misaligned { what, value, multiple: 16 });
        }
    }
    Ok(bytes as u64 / 16)
}

fn grid_size(what: &'static str, blocks: u64) -> Result<u32, CudaError> {
    const LIMIT: u32 = i32::MAX as u32;
    let fits = u32::try_from(blocks).ok().filter(|&blocks| blocks <= LIMIT);
    fits.ok_or(CudaError::TooLarge { what, value: blocks, limit: LIMIT.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel's launch bounds are in its PTX, so both sides can be compared without a device.
    #[test]
    fn launch_constants_are_those_of_the_kernels() {
        let text = |module: &wcodec_kernels::Module| module.variants[0].text;
        let crc32 = text(&wcodec_kernels::CRC32);
        assert!(crc32.contains(&format!(".maxntid {CRC32_THREADS}, 1, 1")));
        assert!(crc32.contains(&format!(".minnctapersm {CRC32_BLOCKS_PER_SM}")));
        for fast in &lanes::FAST {
            for threads in [fast.threads(), lanes::MORE_THREADS] {
                assert!(text(fast.module).contains(&format!(".maxntid {threads}, 1, 1")), "{}", fast.module.name);
            }
        }
        assert!(text(&wcodec_kernels::COPY).contains(&format!(".maxntid {}, 1, 1", copy::THREADS)));
        assert!(text(&wcodec_kernels::LANES_ANY).contains(&format!(".maxntid {}, 1, 1", lanes::ANY_THREADS)));
        assert!(text(&wcodec_kernels::FRAMES).contains(&format!(".maxntid {}, 1, 1", framed::THREADS)));
        assert!(text(&wcodec_kernels::DEQUANT).contains(&format!(".maxntid {}, 1, 1", dequant::THREADS)));
        assert!(text(&wcodec_kernels::COPY_FLOOR).contains(&format!(".maxntid {COPY_FLOOR_THREADS}, 1, 1")));
    }

    #[test]
    fn grids_are_bounded() {
        assert_eq!(grid_size("n", i32::MAX as u64), Ok(i32::MAX as u32));
        assert!(grid_size("n", 1 << 31).is_err());
        assert!(grid_size("n", u64::MAX).is_err());
    }
}
