//! Zstd mode: independent frames, each readable by any zstd.
//!
//! A frame holds `frame` bytes of the tensor (the last one fewer), as they are or as byte planes: all first bytes of its elements, then
//! all second bytes, and so on. Frames record content size and checksum. A chunk is a run of frames; the index has their lengths.

use wcodec_container::TensorEntry;
use zstd_safe::{CCtx, CParameter, DCtx};

use crate::error::{Error, Result};
use crate::wire::{Cursor, put_varint};

/// Content of a chunk: this much, or one frame where that is more.
const CHUNK_BYTES: u64 = 1 << 20;
/// Frame sizes that an archive may have. A chunk is then at most 1 MiB, which the smallest archive may claim.
const FRAME_RANGE: std::ops::RangeInclusive<u64> = 4 << 10..=1 << 20;

/// Parameters of the Zstd mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameParams {
    /// Bytes of a frame's content.
    pub(crate) frame: u64,
    /// Bytes of an element whose planes are separated; 1: no planes.
    pub(crate) plane_bytes: usize,
}

impl FrameParams {
    /// Parameters for frames of about `frame` bytes: whole elements, within the allowed range.
    pub(crate) fn new(frame: usize, plane_bytes: usize) -> Self {
        // Both ends of the range are whole elements.
        let frame = (frame as u64).clamp(*FRAME_RANGE.start(), *FRAME_RANGE.end());
        Self { frame: frame - frame % plane_bytes as u64, plane_bytes }
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.frame);
        out.push(self.plane_bytes as u8);
        out
    }

    /// Frames of a chunk.
    pub(crate) fn frames_per_chunk(self) -> usize {
        (CHUNK_BYTES / self.frame).max(1) as usize
    }

    /// Decoded bytes of a chunk.
    pub(crate) fn chunk_bytes(self) -> usize {
        self.frame as usize * self.frames_per_chunk()
    }
}

/// Makes the frames of zstd mode elsewhere than in [`encode_chunk`].
pub(crate) trait FrameMaker: Sync {
    /// A frame for every piece of `data`.
    fn frames(&self, params: FrameParams, data: &[u8]) -> Result<Vec<Vec<u8>>>;
}

/// Encodes one chunk: its bytes and the lengths of its frames.
pub(crate) fn encode_chunk(params: FrameParams, data: &[u8], level: i32, what: &str) -> Result<(Vec<u8>, Vec<u32>)> {
    let mut context = CCtx::create();
    for parameter in
        [CParameter::CompressionLevel(level), CParameter::ContentSizeFlag(true), CParameter::ChecksumFlag(true)]
    {
        context.set_parameter(parameter).map_err(|code| zstd_error(what, code))?;
    }
    let (mut out, mut lengths) = (Vec::new(), Vec::new());
    let mut planes = Vec::new();
    for content in data.chunks(params.frame as usize) {
        let content = if params.plane_bytes > 1 {
            planes.clear();
            for plane in 0..params.plane_bytes {
                planes.extend(content.iter().skip(plane).step_by(params.plane_bytes));
            }
            planes.as_slice()
        } else {
            content
        };
        let mut frame = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
        context.compress2(&mut frame, content).map_err(|code| zstd_error(what, code))?;
        lengths.push(frame.len() as u32);
        out.extend_from_slice(&frame);
    }
    Ok((out, lengths))
}

/// The index of a tensor: the lengths of all its frames.
pub(crate) fn pack_index(lengths: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    lengths.iter().for_each(|&l| put_varint(&mut out, u64::from(l)));
    out
}

/// Everything that decoding the chunks of one tensor needs.
#[derive(Debug)]
pub(crate) struct FrameDecoder {
    pub(crate) params: FrameParams,
    pub(crate) lengths: Vec<u32>,
    tensor: String,
}

impl FrameDecoder {
    pub(crate) fn new(entry: &TensorEntry, index: &[u8], directory_offset: u64) -> Result<Self> {
        let mut cursor = Cursor::new(&entry.params, &entry.name, directory_offset);
        let (frame, plane_bytes) = (cursor.varint()?, usize::from(cursor.byte()?));
        cursor.finish()?;
        if !FRAME_RANGE.contains(&frame) || !matches!(plane_bytes, 1 | 2 | 4 | 8) || frame % plane_bytes as u64 != 0 {
            return cursor.corrupt("zstd mode: frame size or planes");
        }
        let params = FrameParams { frame, plane_bytes };
        let count = entry.decoded_len.div_ceil(frame);
        let mut cursor = Cursor::new(index, &entry.name, entry.index.offset);
        if count > index.len() as u64 {
            return cursor.corrupt("zstd mode: index is too short");
        }
        let lengths = (0..count)
            .map(|_| {
                cursor.varint().and_then(|l| u32::try_from(l).or_else(|_| cursor.corrupt("zstd mode: frame length")))
            })
            .collect::<Result<Vec<u32>>>()?;
        cursor.finish()?;
        let chunk = params.chunk_bytes() as u64;
        let chunks = entry.decoded_len.div_ceil(chunk);
        let expected = |i: usize| (entry.decoded_len - i as u64 * chunk).min(chunk);
        if entry.chunks.len() as u64 != chunks
            || entry.chunks.iter().enumerate().any(|(i, c)| c.decoded_len != expected(i))
        {
            return cursor.corrupt("zstd mode: chunks do not match the frames");
        }
        Ok(Self { params, lengths, tensor: entry.name.clone() })
    }

    /// Decodes chunk `chunk` into `out`.
    pub(crate) fn decode_chunk(
        &self,
        chunk: usize,
        bytes: &[u8],
        offset: u64,
        out: &mut [u8],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let first = chunk * self.params.frames_per_chunk();
        let mut context = DCtx::create();
        let mut at = 0usize;
        for (content, &len) in out.chunks_mut(self.params.frame as usize).zip(&self.lengths[first..]) {
            let end = at + len as usize;
            let Some(frame) = bytes.get(at..end) else {
                return Err(Error::corrupt(&self.tensor, offset + at as u64, "zstd frame is truncated"));
            };
            self.decode_frame(&mut context, frame, offset + at as u64, content, scratch)?;
            at = end;
        }
        if at != bytes.len() {
            return Err(Error::corrupt(&self.tensor, offset + at as u64, "bytes behind the last zstd frame"));
        }
        Ok(())
    }

    fn decode_frame(
        &self,
        context: &mut DCtx<'_>,
        frame: &[u8],
        offset: u64,
        content: &mut [u8],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let fault = |what: &str| Error::corrupt(&self.tensor, offset, format!("zstd frame: {what}"));
        let n = self.params.plane_bytes;
        let decoded = if n > 1 {
            scratch.resize(content.len(), 0);
            context.decompress(&mut scratch[..], frame)
        } else {
            context.decompress(&mut *content, frame)
        };
        let decoded = decoded.map_err(|code| fault(zstd_safe::get_error_name(code)))?;
        if decoded != content.len() {
            return Err(fault("content is too short"));
        }
        if n > 1 {
            // The last frame of a tensor may end inside an element's plane order: plane p has every byte ≡ p (mod n).
            let mut from = 0;
            for plane in 0..n {
                for byte in content.iter_mut().skip(plane).step_by(n) {
                    *byte = scratch[from];
                    from += 1;
                }
            }
        }
        Ok(())
    }
}

fn zstd_error(what: &str, code: usize) -> Error {
    Error::Zstd { what: what.to_owned(), message: zstd_safe::get_error_name(code) }
}
