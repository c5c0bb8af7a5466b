//! Single zstd frames (RFC 8878) with a bounded decoder.

use zstd_safe::{DCtx, InBuffer, OutBuffer};

use crate::{ContainerError, Result};

/// How many bytes a frame of `stored_len` bytes may claim to decode to: 1024 times as many, and 1 MiB more.
///
/// zstd itself reaches a ratio of about 32000, which would let a small file ask for any amount of memory. Whoever writes
/// stores such bytes as they are, or splits them into pieces of at most 1 MiB.
pub const fn max_decoded_len(stored_len: u64) -> u64 {
    stored_len.saturating_mul(1024).saturating_add(1 << 20)
}

/// Compresses `bytes` into one zstd frame that records its content size. `None` if that is not smaller than `bytes`, or
/// so much smaller that [`max_decoded_len`] forbids it.
///
/// # Errors
/// `BadArgument` if zstd refuses.
///
/// ```
/// use wcodec_container::{compress_frame, decompress_frame};
/// # fn main() -> Result<(), wcodec_container::ContainerError> {
/// let bytes = [7u8; 1000];
/// let frame = compress_frame(&bytes, 3)?.expect("repetitive bytes");
/// assert_eq!(decompress_frame(&frame, 1000)?, bytes);
/// # Ok(())
/// # }
/// ```
pub fn compress_frame(bytes: &[u8], level: i32) -> Result<Option<Vec<u8>>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
    zstd_safe::compress(&mut frame, bytes, level).map_err(|code| ContainerError::argument(zstd_says(code)))?;
    let allowed = frame.len() < bytes.len() && bytes.len() as u64 <= max_decoded_len(frame.len() as u64);
    Ok(allowed.then_some(frame))
}

/// Decodes exactly one zstd frame of exactly `decoded_len` bytes.
///
/// Memory grows with what is really decoded. The offset of an error is 0: the caller knows where the frame lies.
///
/// # Errors
/// `Corrupt` if `frame` is anything else, or `decoded_len` is more than [`max_decoded_len`] allows.
pub fn decompress_frame(frame: &[u8], decoded_len: u64) -> Result<Vec<u8>> {
    decompress_frame_at(frame, decoded_len, 0, &|| "zstd frame".to_owned())
}

/// [`decompress_frame`] of a frame that lies at `offset` in the file and belongs to `what`.
pub(crate) fn decompress_frame_at(
    frame: &[u8],
    decoded_len: u64,
    offset: u64,
    what: &dyn Fn() -> String,
) -> Result<Vec<u8>> {
    let corrupt = |why: &str| ContainerError::corrupt(format!("{}: {why}", what()), offset);
    // zstd itself also takes skippable frames and, where it was built so, pre-1.0 ones.
    if !frame.starts_with(&FRAME_MAGIC) {
        return Err(corrupt("no zstd frame"));
    }
    let frame_len = zstd_safe::find_frame_compressed_size(frame).map_err(|code| corrupt(&zstd_says(code)))?;
    if frame_len != frame.len() {
        return Err(corrupt("bytes behind the zstd frame"));
    }
    // zstd allocates no larger window than the content size, so checking the size also bounds the decoder's own memory.
    if !matches!(zstd_safe::get_frame_content_size(frame), Ok(Some(len)) if len == decoded_len) {
        return Err(corrupt("the zstd frame does not have the recorded decoded length"));
    }
    let target = usize::try_from(decoded_len).map_err(|_| corrupt("decoded length exceeds the address space"))?;
    if decoded_len > max_decoded_len(frame.len() as u64) {
        return Err(corrupt("decoded length is out of proportion"));
    }

    let mut context = DCtx::try_create().ok_or_else(|| out_of_memory(std::mem::size_of::<usize>()))?;
    let mut decoded = Vec::new();
    let mut input = InBuffer::around(frame);
    loop {
        let step = (target - decoded.len()).min(decoded.len().max(FIRST_STEP));
        decoded.try_reserve_exact(step).map_err(|_| out_of_memory(step))?;
        let before = (decoded.len(), input.pos());
        let start = decoded.len();
        let mut output = OutBuffer::around_pos(&mut decoded, start);
        let left = context.decompress_stream(&mut output, &mut input).map_err(|code| corrupt(&zstd_says(code)))?;
        let after = (output.pos(), input.pos());
        if left == 0 {
            break;
        }
        if before == after {
            return Err(corrupt("the zstd frame does not end"));
        }
    }
    if decoded.len() != target || input.pos() != frame.len() {
        return Err(corrupt("the zstd frame does not have the recorded decoded length"));
    }
    Ok(decoded)
}

/// 0xFD2FB528, little-endian.
const FRAME_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// The first allocation; later ones double.
const FIRST_STEP: usize = 4 << 20;

fn zstd_says(code: usize) -> String {
    format!("zstd: {}", zstd_safe::get_error_name(code))
}

fn out_of_memory(bytes: usize) -> ContainerError {
    let message = format!("cannot allocate {bytes} bytes");
    ContainerError::Io { path: None, source: std::io::Error::new(std::io::ErrorKind::OutOfMemory, message) }
}
