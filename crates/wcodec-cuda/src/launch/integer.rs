//! Launches of `kernels/integer.cu`.

use std::ops::Range;

use super::lanes::Region;
use super::memory::DeviceSliceMut;
use super::side::{self, Side};
use super::{CudaContext, Grid, Stream, check_job, copy_many, grid_size, launch};
use crate::CudaError;

/// A tensor's parts as the kernel wants them, all of them checked: every superblock's sections lie inside the first
/// `payload_bytes` of its payload, its rows and columns inside the view, its tile codes and classes inside theirs, and these are
/// such that they exist.
#[derive(Debug)]
pub(crate) struct Uploaded {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Bytes behind the last whole row.
    pub(crate) rest: usize,
    /// Where they begin in the payload.
    pub(crate) rest_at: usize,
    pub(crate) block_rows: usize,
    pub(crate) tile_bits: u32,
    pub(crate) contexts: usize,
    pub(crate) table_bits: u32,
    pub(crate) payload_bytes: usize,
    /// `struct Block`s in order.
    pub(crate) blocks: Vec<u8>,
    /// `freq << (32 - P) | value << P | bias` of every slot.
    pub(crate) entries: Vec<u8>,
    pub(crate) tiles: Vec<u8>,
    /// Two to a byte.
    pub(crate) classes: Vec<u8>,
    /// The most bytes of bitplanes that a superblock has.
    pub(crate) symbol_bytes: usize,
}

/// `struct Block` of integer.cuh.
pub(crate) const BLOCK_BYTES: usize = 32;
/// Words of `struct Tensor`.
const TENSOR_WORDS: usize = 26;
/// Words of `struct Batch` before the tensors.
const HEAD_WORDS: usize = 6;
/// `MAX_TENSORS`.
const MAX_TENSORS: usize = 32;
/// `TRANSPOSE_BYTES`.
const TRANSPOSE_BYTES: u32 = 1024;
pub(super) const THREADS: u32 = 512;

/// A tensor in device memory.
#[derive(Debug)]
pub(crate) struct Resident {
    tensor: Uploaded,
    payload: Region,
    pub(crate) side: Side,
    /// Offsets into `side`.
    blocks: usize,
    entries: usize,
    tiles: usize,
    classes: usize,
}

/// Whether a block of the device has enough shared memory for such tables and the largest superblock.
pub(crate) fn holds_integer(context: &CudaContext, contexts: usize, table_bits: u32) -> Result<bool, CudaError> {
    const SUPERBLOCK: usize = 512 * wcodec_rans::LANES;
    let needed = (contexts << (table_bits + 2)) + 2 * SUPERBLOCK + TRANSPOSE_BYTES as usize;
    Ok(needed <= context.shared_memory()? as usize)
}

impl Uploaded {
    fn table_bytes(&self) -> u32 {
        (self.contexts as u32) << (self.table_bits + 2)
    }

    fn sample_bytes(&self) -> u32 {
        (self.block_rows.min(self.rows) * wcodec_rans::LANES) as u32
    }

    fn warp_bytes(&self) -> u32 {
        self.symbol_bytes as u32 + self.sample_bytes() + TRANSPOSE_BYTES
    }

    /// Whether a block of the device has enough shared memory for one warp.
    pub(crate) fn fits(&self, context: &CudaContext) -> Result<(), CudaError> {
        let (value, limit) = (self.table_bytes() + self.warp_bytes(), context.shared_memory()?);
        let what = "the size of tables and a superblock";
        if value <= limit {
            Ok(())
        } else {
            Err(CudaError::TooLarge { what, value: value.into(), limit: limit.into() })
        }
    }
}

impl Resident {
    /// Copies what stands beside the payloads to the device, in one piece for all of them. Waits for the stream.
    pub(crate) fn upload(stream: &Stream, tensors: Vec<(Uploaded, Region)>) -> Result<Vec<Self>, CudaError> {
        side::upload(stream, |side| Self::lay_out(stream.context(), tensors, side), |resident| &mut resident.side)
    }

    /// Appends to `side` what stands beside the payloads; it goes to the buffer that is attached later.
    pub(crate) fn lay_out(
        context: &CudaContext,
        tensors: Vec<(Uploaded, Region)>,
        side: &mut Vec<u8>,
    ) -> Result<Vec<Self>, CudaError> {
        let mut residents = Vec::with_capacity(tensors.len());
        let mut layout = side::Layout::new(context, side)?;
        for (mut tensor, payload) in tensors {
            if payload.buffer.context() != context {
                return Err(CudaError::OtherDevice { what: "the payload" });
            }
            payload.buffer.sub_slice(payload.offset, tensor.payload_bytes)?;
            tensor.fits(context)?;
            let blocks = layout.append(&std::mem::take(&mut tensor.blocks));
            let entries = layout.append(&std::mem::take(&mut tensor.entries));
            let tiles = layout.append(&std::mem::take(&mut tensor.tiles));
            let classes = layout.append(&std::mem::take(&mut tensor.classes));
            residents.push(Self { tensor, payload, side: layout.tensor(), blocks, entries, tiles, classes });
        }
        layout.statuses(residents.iter_mut().map(|resident| &mut resident.side));
        Ok(residents)
    }

    /// Bytes of the decoded tensor.
    pub(crate) fn decoded_bytes(&self) -> usize {
        self.tensor.rows * self.tensor.cols + self.tensor.rest
    }

    /// Bytes of device memory.
    pub(crate) fn device_bytes(&self) -> usize {
        self.tensor.payload_bytes + self.side.bytes()
    }

    fn across(&self) -> usize {
        self.tensor.cols.div_ceil(wcodec_rans::LANES)
    }
}

/// Some superblocks of a tensor, and where they go.
struct Part<'a> {
    tensor: &'a Resident,
    first: u32,
    count: u32,
    /// Where the tensor's first byte would go.
    out: u64,
    clip: Range<u64>,
}

impl Part<'_> {
    /// `struct Tensor`; `end` is the end of its superblocks within the launch.
    fn words(&self, end: u32) -> [u32; TENSOR_WORDS] {
        let (resident, t) = (self.tensor, &self.tensor.tensor);
        let at = |offset: usize| resident.side.address(offset);
        let addresses = [
            resident.payload.address(),
            at(resident.blocks) + u64::from(self.first) * BLOCK_BYTES as u64,
            at(resident.entries),
            at(resident.tiles),
            at(resident.classes),
            self.out,
            self.clip.start,
            self.clip.end,
            resident.side.status_address(),
        ];
        let mut words = [0; TENSOR_WORDS];
        for (pair, address) in words.chunks_exact_mut(2).zip(addresses) {
            // Kernels and host have the same byte order.
            pair.copy_from_slice(&[address as u32, (address >> 32) as u32]);
        }
        words[18..25].copy_from_slice(&[
            end,
            t.contexts as u32,
            t.table_bits,
            t.block_rows as u32,
            resident.across() as u32,
            t.tile_bits,
            t.cols as u32,
        ]);
        words
    }
}

/// A tensor, the bytes of it that are wanted, and where they go.
pub(crate) type Job<'a> = (&'a Resident, Range<usize>, DeviceSliceMut<'a>);

/// Queues the decoding of tensors, each into its own memory.
pub(crate) fn decode_integer(stream: &Stream, jobs: Vec<Job<'_>>) -> Result<(), CudaError> {
    let (mut parts, mut rests) = (Vec::new(), Vec::new());
    for (tensor, range, out) in jobs {
        check_job(stream, tensor.payload.buffer.context(), tensor.decoded_bytes(), &range, &out)?;
        let t = &tensor.tensor;
        let view = t.rows * t.cols;
        let wanted = range.start.min(view)..range.end.min(view);
        if !wanted.is_empty() {
            let strip = t.block_rows * t.cols;
            let strips = wanted.start / strip..wanted.end.div_ceil(strip);
            parts.push(Part {
                tensor,
                first: (strips.start * tensor.across()) as u32,
                count: (strips.len() * tensor.across()) as u32,
                out: out.address().wrapping_sub(range.start as u64),
                clip: out.address()..out.address() + out.len() as u64,
            });
        }
        let wanted = range.start.max(view)..range.end;
        if !wanted.is_empty() {
            let from = tensor
                .payload
                .buffer
                .sub_slice(tensor.payload.offset + t.rest_at + wanted.start - view, wanted.len())?;
            rests.push((from, out.split_at(wanted.start - range.start)?.1));
        }
    }
    for parts in parts.chunks(MAX_TENSORS) {
        run(stream, parts)?;
    }
    copy_many(stream, rests)
}

fn run(stream: &Stream, parts: &[Part<'_>]) -> Result<(), CudaError> {
    let context = stream.context();
    let function = context.function_with_shared_memory(&wcodec_kernels::INTEGER, c"wcodec_integer")?;
    let mut batch = vec![0u32; HEAD_WORDS + MAX_TENSORS * TENSOR_WORDS];
    let (mut total, mut table_bytes, mut symbol_bytes, mut sample_bytes) = (0u64, 0, 0, 0);
    for (part, words) in parts.iter().zip(batch[HEAD_WORDS..].chunks_exact_mut(TENSOR_WORDS)) {
        total += u64::from(part.count);
        words.copy_from_slice(&part.words(grid_size("the number of superblocks", total)?));
        let t = &part.tensor.tensor;
        table_bytes = table_bytes.max(t.table_bytes());
        symbol_bytes = symbol_bytes.max(t.symbol_bytes as u32);
        sample_bytes = sample_bytes.max(t.sample_bytes());
    }
    let warp_bytes = symbol_bytes + sample_bytes + TRANSPOSE_BYTES;
    let limit = context.shared_memory()?;
    if table_bytes + warp_bytes > limit && parts.len() > 1 {
        // Each fits by itself.
        return parts.iter().try_for_each(|part| run(stream, std::slice::from_ref(part)));
    }
    let warps = (limit.saturating_sub(table_bytes) / warp_bytes).clamp(1, THREADS / 32);
    batch[..5].copy_from_slice(&[parts.len() as u32, total as u32, table_bytes, symbol_bytes, sample_bytes]);
    let grid = Grid {
        blocks: context.device().multiprocessors.clamp(1, total as u32),
        threads: 32 * warps,
        shared: table_bytes + warps * warp_bytes,
    };
    let mut parameters = [batch.as_mut_ptr().cast()];
    // SAFETY: the parameter is a `struct Batch` of integer.cuh: six words and 32 tensors of 26. Every tensor's memory belongs to
    // buffers that its owner keeps (or frees through cuMemFree, which waits); `Uploaded` says that what its superblocks describe lies
    // inside, and the clip is the output. The shared memory holds the largest tables, and the largest superblock for every warp.
    unsafe { launch(stream, function, grid, &mut parameters) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launch_constants_are_those_of_the_kernel() {
        let text = wcodec_kernels::INTEGER.variants[0].text;
        assert!(text.contains(&format!(".maxntid {THREADS}, 1, 1")));
        let batch = 4 * (HEAD_WORDS + MAX_TENSORS * TENSOR_WORDS);
        assert!(text.contains(&format!("wcodec_integer_param_0[{batch}]")));
    }
}
