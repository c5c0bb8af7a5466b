//! CRC-32 of device memory: the host's half of `kernels/crc32.cu`, which explains the arithmetic.
//!
//! Polynomials over GF(2) modulo P are reflected, as in zlib: the highest bit of a word is the lowest power of x.

use crate::CudaError;
use crate::launch::{self, DeviceSlice, Stream};

/// CRC-32 (IEEE 802.3, as in zlib, PNG and `crc32fast`) of each buffer. Waits for the stream.
///
/// Cost: one read of the buffers at about the speed of the device's memory, and a few microseconds of host time per buffer.
///
/// # Errors
/// [`CudaError::OtherDevice`] for a buffer of another device than the stream's, [`CudaError::TooLarge`] for more than
/// 2^32 - 1 buffers, and whatever the driver reports.
///
/// ```
/// # use wcodec_cuda::{CudaContext, DeviceBuffer, Stream, crc32_device};
/// # let Ok(context) = CudaContext::new(0) else { return Ok(()) };
/// let stream = Stream::new(&context)?;
/// let buffer = DeviceBuffer::from_host(&stream, b"123456789")?;
/// assert_eq!(crc32_device(&stream, &[buffer.as_slice()])?, [0xcbf4_3926]);
/// # Ok::<(), wcodec_cuda::CudaError>(())
/// ```
pub fn crc32_device(stream: &Stream, buffers: &[DeviceSlice<'_>]) -> Result<Vec<u32>, CudaError> {
    let warps = launch::crc32_warps(stream.context().device());
    let plan = plan_of(buffers, segment_bytes(&spans(buffers), warps));
    launch::crc32(stream, buffers, &plan)
}

/// Cuts buffers into segments of at most `segment_bytes`, a multiple of 512.
pub(crate) fn plan_of(buffers: &[DeviceSlice<'_>], segment_bytes: u64) -> Plan {
    plan(&spans(buffers), segment_bytes)
}

fn spans(buffers: &[DeviceSlice<'_>]) -> Vec<Span> {
    buffers.iter().map(|buffer| Span { address: buffer.address(), bytes: buffer.len() as u64 }).collect()
}

/// What the kernel works on.
pub(crate) struct Plan {
    pub(crate) segments: Vec<Segment>,
    /// Per buffer: what its length alone contributes to the result.
    pub(crate) presets: Vec<u32>,
}

/// One warp's piece of work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Index of the buffer.
    pub(crate) buffer: usize,
    /// First byte within the buffer.
    pub(crate) offset: u64,
    /// At least 1, at most [`MAX_SEGMENT`].
    pub(crate) bytes: u32,
    /// What its remainder is multiplied by to get its part of the buffer's.
    pub(crate) factor: u32,
}

/// Where a buffer lies.
#[derive(Clone, Copy)]
struct Span {
    address: u64,
    bytes: u64,
}

/// A row of the kernel, in bytes. Segments begin on a multiple of it where they can.
const ROW: u64 = 512;
const MIN_SEGMENT: u64 = 4 << 10;
const MAX_SEGMENT: u64 = 4 << 20;

/// Small enough that every warp gets two segments, large enough that a segment's own cost (about 700 instructions per lane)
/// stays small beside its bytes.
fn segment_bytes(buffers: &[Span], warps: u64) -> u64 {
    let total: u64 = buffers.iter().map(|buffer| buffer.bytes).fold(0, u64::saturating_add);
    (total / (2 * warps.max(1))).clamp(MIN_SEGMENT, MAX_SEGMENT).next_multiple_of(ROW)
}

/// Cuts every buffer into segments of at most `segment_bytes`, a multiple of [`ROW`].
fn plan(buffers: &[Span], segment_bytes: u64) -> Plan {
    let mut segments = Vec::new();
    let mut presets = Vec::with_capacity(buffers.len());
    let whole = x_to_the_bytes(segment_bytes as i128);
    for (index, buffer) in buffers.iter().enumerate() {
        presets.push(!multiply(u32::MAX, x_to_the_bytes(buffer.bytes.into())));
        // Backwards, because a factor depends on what follows: x^(8 * bytes after) grows by one segment each time.
        let mut end = buffer.bytes;
        let mut after = ONE;
        while end > 0 {
            // The end of a segment is the begin of the next, so it lies on a row unless it is the buffer's.
            let row_of_end = (buffer.address + end).next_multiple_of(ROW);
            let begin = row_of_end.saturating_sub(segment_bytes).saturating_sub(buffer.address);
            let bytes = end - begin;
            let factor = match padding(buffer.address + begin, bytes) {
                0 => after,
                padding => multiply(after, x_to_the_bytes(-i128::from(padding))),
            };
            segments.push(Segment { buffer: index, offset: begin, bytes: bytes as u32, factor });
            after = multiply(after, if bytes == segment_bytes { whole } else { x_to_the_bytes(bytes.into()) });
            end = begin;
        }
    }
    Plan { segments, presets }
}

/// Zero bytes that the kernel reads after a segment: rows start at the 16-byte granule of the first byte.
fn padding(address: u64, bytes: u64) -> u64 {
    let base = address & !15;
    let length = address + bytes - base;
    length.next_multiple_of(ROW) - length
}

const POLYNOMIAL: u32 = 0xedb8_8320;
/// x^0.
const ONE: u32 = 1 << 31;

/// Product modulo P.
fn multiply(mut a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    while a != 0 {
        if a >> 31 == 1 {
            product ^= b;
        }
        a <<= 1;
        b = b >> 1 ^ if b & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    product
}

/// x^(8 * bytes) modulo P. The powers of x repeat after 2^32 - 1, so negative ones exist.
fn x_to_the_bytes(bytes: i128) -> u32 {
    let mut exponent = (8 * bytes).rem_euclid(u32::MAX.into()) as u32;
    let (mut power, mut square) = (ONE, ONE >> 1);
    while exponent != 0 {
        if exponent & 1 == 1 {
            power = multiply(power, square);
        }
        square = multiply(square, square);
        exponent >>= 1;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the kernel computes for one segment before it multiplies: the remainder of the bytes, the padding and 32 zero
    /// bits.
    fn remainder(bytes: &[u8], padding: u64) -> u32 {
        bytes.iter().copied().chain(std::iter::repeat_n(0, padding as usize)).fold(0, |state, byte| {
            (0..8).fold(state ^ u32::from(byte), |state, _| state >> 1 ^ if state & 1 == 1 { POLYNOMIAL } else { 0 })
        })
    }

    fn by_plan(buffers: &[(u64, &[u8])], segment_bytes: u64) -> Vec<u32> {
        let spans: Vec<Span> =
            buffers.iter().map(|&(address, bytes)| Span { address, bytes: bytes.len() as u64 }).collect();
        let plan = plan(&spans, segment_bytes);
        let mut results = plan.presets;
        for segment in plan.segments {
            let (address, bytes) = buffers[segment.buffer];
            let (begin, length) = (segment.offset as usize, segment.bytes as usize);
            let padding = padding(address + segment.offset, segment.bytes.into());
            assert!((1..=segment_bytes).contains(&u64::from(segment.bytes)));
            results[segment.buffer] ^= multiply(remainder(&bytes[begin..begin + length], padding), segment.factor);
        }
        results
    }

    proptest! {
        #[test]
        fn segments_add_up_to_the_crc(
            bytes in prop::collection::vec(any::<u8>(), 0..5000),
            address in (1u64 << 20)..(1 << 20) + 1100,
            cut in 0usize..5000,
            rows in 1u64..6,
        ) {
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let expected = [crc32fast::hash(first), crc32fast::hash(second)];
            prop_assert_eq!(by_plan(&[(address, first), (address + 7, second)], rows * ROW), expected);
        }

        #[test]
        fn segments_cover_a_buffer_once_and_begin_on_rows(
            address in 0u64..1 << 40, bytes in 0u64..1 << 28, warps in 1u64..10_000,
        ) {
            let span = Span { address, bytes };
            let size = segment_bytes(&[span], warps);
            let mut end = bytes;
            for segment in plan(&[span], size).segments {
                prop_assert_eq!(segment.offset + u64::from(segment.bytes), end);
                prop_assert!(segment.offset == 0 || (address + segment.offset) % ROW == 0);
                prop_assert!((1..=size).contains(&segment.bytes.into()));
                end = segment.offset;
            }
            prop_assert_eq!(end, 0);
        }
    }

    #[test]
    fn powers_of_x_have_inverses() {
        for bytes in [0, 1, 2, 511, 512, 1 << 40] {
            assert_eq!(multiply(x_to_the_bytes(bytes), x_to_the_bytes(-bytes)), ONE);
        }
    }
}
