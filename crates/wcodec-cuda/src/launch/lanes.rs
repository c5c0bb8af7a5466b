//! Launches of the lanes kernels: the host's half of `kernels/lanes.cuh`.

use std::ffi::CStr;
use std::ops::Range;
use std::sync::Arc;

use cust::sys;
use wcodec_kernels::Module;
use wcodec_rans::HeadLayout;

use super::memory::{DeviceBuffer, DeviceSliceMut};
use super::side::{self, Side};
use super::{CudaContext, Grid, check, check_job, grid_size, launch, stream::Stream};
use crate::CudaError;

/// A tensor's parts as the kernels want them, all of them checked: every superblock's sections lie inside the first
/// `payload_bytes` of its payload, its rows and columns inside the view, every bucket's slots inside the tables.
#[derive(Debug)]
pub(crate) struct Uploaded {
    pub(crate) layout: HeadLayout,
    pub(crate) element_bytes: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// Bytes behind the last whole row.
    pub(crate) rest: usize,
    /// Where they begin in the payload.
    pub(crate) rest_at: usize,
    pub(crate) block_rows: usize,
    pub(crate) contexts: usize,
    pub(crate) table_bits: u32,
    pub(crate) payload_bytes: usize,
    /// `struct Block`s, those of the fast path first.
    pub(crate) blocks: Vec<u8>,
    /// How many of them the fast path takes.
    pub(crate) fast_blocks: u32,
    /// The same of each strip but the last.
    pub(crate) fast_across: u32,
    pub(crate) all_blocks: u32,
    /// `struct Bucket`s.
    pub(crate) buckets: Vec<u8>,
    /// log2 of a bucket's slots.
    pub(crate) bucket_bits: u32,
    pub(crate) row_classes: Vec<u8>,
    pub(crate) col_classes: Vec<u8>,
    pub(crate) low_bits: Vec<u8>,
}

/// `struct Block` of lanes.cuh.
pub(crate) const BLOCK_BYTES: usize = 32;
/// `struct Bucket`.
const BUCKET_BYTES: usize = 16;
/// `struct Tensor`.
const TENSOR_WORDS: usize = 30;
/// `MAX_TENSORS`.
const MAX_TENSORS: usize = 32;
/// `LANES_MORE_THREADS`.
pub(super) const MORE_THREADS: u32 = 1024;
/// `SHARE_BYTES`.
const SHARE_BYTES: u32 = 128;
/// `WARP_BYTES`: ring, mirror, row classes as words, classes as bytes.
const fn warp_bytes(ring: u32) -> u32 {
    ring + 512 + 256 + 128
}
/// The largest of these.
const MOST_WARP_BYTES: u32 = warp_bytes(3072);
pub(super) const ANY_THREADS: u32 = 512;

/// The kernels for full superblocks of a split of a head, which differ in the warps of a block.
#[derive(Debug, PartialEq)]
pub(super) struct Fast {
    pub(super) module: &'static Module,
    name: &'static CStr,
    more: &'static CStr,
    /// Bytes of an element, bits of a head, where the coded field begins, whether there is a sign.
    split: (usize, u32, u32, bool),
}

pub(super) static FAST: [Fast; 18] = [
    Fast::new(&wcodec_kernels::LANES_2_4, c"wcodec_lanes_2_4", c"wcodec_lanes_2_4_more", (2, 16, 4, true)),
    Fast::new(&wcodec_kernels::LANES_2_5, c"wcodec_lanes_2_5", c"wcodec_lanes_2_5_more", (2, 16, 5, true)),
    Fast::new(&wcodec_kernels::LANES_2_6, c"wcodec_lanes_2_6", c"wcodec_lanes_2_6_more", (2, 16, 6, true)),
    Fast::new(&wcodec_kernels::LANES_2_7, c"wcodec_lanes_2_7", c"wcodec_lanes_2_7_more", (2, 16, 7, true)),
    Fast::new(&wcodec_kernels::LANES_2_8, c"wcodec_lanes_2_8", c"wcodec_lanes_2_8_more", (2, 16, 8, true)),
    Fast::new(&wcodec_kernels::LANES_2_9, c"wcodec_lanes_2_9", c"wcodec_lanes_2_9_more", (2, 16, 9, true)),
    Fast::new(&wcodec_kernels::LANES_2_10, c"wcodec_lanes_2_10", c"wcodec_lanes_2_10_more", (2, 16, 10, true)),
    Fast::new(&wcodec_kernels::LANES_4_4, c"wcodec_lanes_4_4", c"wcodec_lanes_4_4_more", (4, 16, 4, true)),
    Fast::new(&wcodec_kernels::LANES_4_5, c"wcodec_lanes_4_5", c"wcodec_lanes_4_5_more", (4, 16, 5, true)),
    Fast::new(&wcodec_kernels::LANES_4_6, c"wcodec_lanes_4_6", c"wcodec_lanes_4_6_more", (4, 16, 6, true)),
    Fast::new(&wcodec_kernels::LANES_4_7, c"wcodec_lanes_4_7", c"wcodec_lanes_4_7_more", (4, 16, 7, true)),
    Fast::new(&wcodec_kernels::LANES_1_0, c"wcodec_lanes_1_0", c"wcodec_lanes_1_0_more", (1, 8, 0, true)),
    Fast::new(&wcodec_kernels::LANES_1_1, c"wcodec_lanes_1_1", c"wcodec_lanes_1_1_more", (1, 8, 1, true)),
    Fast::new(&wcodec_kernels::LANES_1_2, c"wcodec_lanes_1_2", c"wcodec_lanes_1_2_more", (1, 8, 2, true)),
    Fast::new(&wcodec_kernels::LANES_1_0U, c"wcodec_lanes_1_0u", c"wcodec_lanes_1_0u_more", (1, 8, 0, false)),
    Fast::new(&wcodec_kernels::LANES_1_1U, c"wcodec_lanes_1_1u", c"wcodec_lanes_1_1u_more", (1, 8, 1, false)),
    Fast::new(&wcodec_kernels::LANES_1_2U, c"wcodec_lanes_1_2u", c"wcodec_lanes_1_2u_more", (1, 8, 2, false)),
    Fast::new(&wcodec_kernels::LANES_1_3U, c"wcodec_lanes_1_3u", c"wcodec_lanes_1_3u_more", (1, 8, 3, false)),
];

impl Fast {
    /// The kernels for full superblocks of a layout, if there are any.
    fn of(layout: HeadLayout, element_bytes: usize) -> Option<&'static Self> {
        let split = (element_bytes, layout.bits(), layout.shift(), layout.sign());
        FAST.iter().find(|fast| fast.split == split)
    }

    const fn new(
        module: &'static Module,
        name: &'static CStr,
        more: &'static CStr,
        split: (usize, u32, u32, bool),
    ) -> Self {
        Self { module, name, more, split }
    }

    /// `Layout::warps`, in threads.
    pub(super) const fn threads(&self) -> u32 {
        match self.split {
            (1, ..) => 28 * 32,
            (_, _, shift, sign) if shift + sign as u32 > 8 => 24 * 32,
            _ => 20 * 32,
        }
    }

    /// `Layout::ring` of the kernel that loads ahead.
    const fn ring(&self) -> u32 {
        if self.split.0 == 1 { 3072 } else { 2048 }
    }

    /// Name, most threads and shared memory per warp of the kernel for a launch. The one that loads ahead is the faster, but where
    /// 32 warps take all superblocks in one round the other does not wait for the second.
    fn kernel(&self, superblocks: u32, multiprocessors: u32) -> (&'static CStr, u32, u32) {
        let round = |threads: u32| multiprocessors * (threads / 32);
        if round(self.threads()) < superblocks && superblocks <= round(MORE_THREADS) {
            (self.more, MORE_THREADS, warp_bytes(2048))
        } else {
            (self.name, self.threads(), warp_bytes(self.ring()))
        }
    }
}

/// A tensor in device memory.
#[derive(Debug)]
pub(crate) struct Resident {
    /// What was checked, without the bytes that are on the device now.
    tensor: Uploaded,
    payload: Region,
    pub(crate) side: Side,
    /// Offsets into `side`; `None` for parts that are not there.
    blocks: usize,
    /// The tables: as buckets, or expanded, see [`stores_entries`].
    buckets: Option<usize>,
    entries: Option<usize>,
    row_classes: Option<usize>,
    col_classes: Option<usize>,
    low_bits: Option<usize>,
    fast: Option<&'static Fast>,
}

/// A part of a buffer that others have parts of, too.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    pub(crate) buffer: Arc<DeviceBuffer>,
    /// A multiple of 16, inside the buffer.
    pub(crate) offset: usize,
}

impl Region {
    pub(super) fn address(&self) -> u64 {
        self.buffer.address() + self.offset as u64
    }
}

impl Resident {
    /// Whether full superblocks of `group` rows or multiples can take the fast path.
    pub(crate) fn has_fast_path(layout: HeadLayout, element_bytes: usize) -> bool {
        Fast::of(layout, element_bytes).is_some()
    }

    /// Bytes of tables, or the error that a block of the device has not enough shared memory for them and one warp.
    pub(crate) fn fits_tables(
        context: &CudaContext,
        contexts: usize,
        table_bits: u32,
    ) -> Result<Result<u64, CudaError>, CudaError> {
        let value = (contexts << table_bits) as u64 * 4;
        let limit = u64::from(context.shared_memory()?.saturating_sub(SHARE_BYTES + MOST_WARP_BYTES));
        let what = "the size of the tables";
        Ok(if value <= limit { Ok(value) } else { Err(CudaError::TooLarge { what, value, limit }) })
    }

    /// As [`Resident::fits_tables`], for a tensor.
    pub(crate) fn fits(context: &CudaContext, tensor: &Uploaded) -> Result<u64, CudaError> {
        Self::fits_tables(context, tensor.contexts, tensor.table_bits)?
    }

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
            let table_bytes = Self::fits(context, &tensor)?;
            let mut append = |part: &[u8]| (!part.is_empty()).then(|| layout.append(part));
            let blocks = append(&std::mem::take(&mut tensor.blocks)).unwrap_or(0);
            let (buckets, entries) = if stores_entries(&tensor, table_bytes) {
                (None, append(&entries(tensor.layout, &tensor.buckets, tensor.bucket_bits)))
            } else {
                (append(&tensor.buckets), None)
            };
            tensor.buckets = Vec::new();
            let row_classes = append(&std::mem::take(&mut tensor.row_classes));
            let col_classes = append(&std::mem::take(&mut tensor.col_classes));
            let low_bits = append(&std::mem::take(&mut tensor.low_bits));
            let fast = Fast::of(tensor.layout, tensor.element_bytes);
            let side = layout.tensor();
            residents.push(Self {
                tensor,
                payload,
                side,
                blocks,
                buckets,
                entries,
                row_classes,
                col_classes,
                low_bits,
                fast,
            });
        }
        layout.statuses(residents.iter_mut().map(|resident| &mut resident.side));
        Ok(residents)
    }

    /// Bytes of the decoded tensor.
    pub(crate) fn decoded_bytes(&self) -> usize {
        self.tensor.rows * self.row_stride() + self.tensor.rest
    }

    /// Bytes of device memory.
    pub(crate) fn device_bytes(&self) -> usize {
        self.tensor.payload_bytes + self.side.bytes()
    }

    fn row_stride(&self) -> usize {
        self.tensor.cols * self.tensor.element_bytes
    }

    /// The kernels for full superblocks that go to `address`, if there are any: the fast path stores two elements at once.
    fn fast_to(&self, address: u64) -> Option<&'static Fast> {
        let pair = 2 * self.tensor.element_bytes as u64;
        let aligned = address.is_multiple_of(pair) && (self.row_stride() as u64).is_multiple_of(pair);
        self.fast.filter(|_| aligned)
    }

    /// Bytes of an element.
    pub(crate) fn element_bytes(&self) -> usize {
        self.tensor.element_bytes
    }

    /// `struct Tensor` for superblocks from `part.first` on; `end` is their end within the launch.
    fn parameters(&self, part: &Part<'_>, end: u32) -> [u32; TENSOR_WORDS] {
        let t = &self.tensor;
        let at = |offset: Option<usize>| offset.map_or(0, |offset| self.side.address(offset));
        let addresses = [
            self.payload.address(),
            at(Some(self.blocks)) + u64::from(part.first) * BLOCK_BYTES as u64,
            at(self.buckets),
            at(self.entries),
            at(self.row_classes),
            at(self.col_classes),
            at(self.low_bits),
            part.out,
            part.clip.start,
            part.clip.end,
            self.side.status_address(),
        ];
        let mut words = [0; TENSOR_WORDS];
        for (pair, address) in words.chunks_exact_mut(2).zip(addresses) {
            // The kernels' and this machine's byte orders are the same, so halves of an address follow in that order.
            let bytes = address.to_ne_bytes();
            pair[0] = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            pair[1] = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        }
        words[22..].copy_from_slice(&[
            end,
            t.bucket_bits,
            t.contexts as u32,
            t.table_bits,
            t.block_rows as u32,
            t.cols.div_ceil(wcodec_rans::LANES) as u32,
            u32::from_ne_bytes([
                t.layout.bits() as u8,
                t.layout.shift() as u8,
                u8::from(t.layout.sign()),
                t.element_bytes as u8,
            ]),
            // `prepare` has found that it fits.
            self.row_stride() as u32,
        ]);
        words
    }

    /// Superblocks of strips, as two runs of the list on the device: those of the fast path, the others.
    fn blocks_of(&self, strips: &Range<usize>) -> [Range<u32>; 2] {
        let t = &self.tensor;
        let across = t.cols.div_ceil(wcodec_rans::LANES) as u32;
        let all_strips = t.rows.div_ceil(t.block_rows) as u32;
        let (start, end) = (strips.start as u32, strips.end as u32);
        let fast = |strip: u32| if strip == all_strips { t.fast_blocks } else { strip * t.fast_across };
        let others = |strip: u32| match strip {
            _ if strip == all_strips => t.all_blocks,
            _ => t.fast_blocks + strip * (across - t.fast_across),
        };
        [fast(start)..fast(end), others(start)..others(end)]
    }

    /// The parts that write bytes `range` of the tensor to `out`, which is as long.
    fn parts(&self, range: &Range<usize>, out: &DeviceSliceMut<'_>) -> Vec<(Option<&'static Fast>, Part<'_>)> {
        let t = &self.tensor;
        let (stride, strip) = (self.row_stride(), t.block_rows * self.row_stride());
        let (start, end) = (range.start.min(t.rows * stride), range.end.min(t.rows * stride));
        if start == end {
            return Vec::new();
        }
        let strips = start / strip..end.div_ceil(strip);
        // Strips of which all is wanted; the last one may be lower than the others.
        let last = if end == t.rows * stride { strips.end } else { end / strip };
        let first = start.div_ceil(strip).min(last);
        // The address of row 0, which lies before the output where the range does not begin with it.
        let base = out.address().wrapping_sub(range.start as u64);
        let clip = out.address()..out.address() + out.len() as u64;
        let mut parts = Vec::new();
        let mut add = |kernel: Option<&'static Fast>, blocks: Range<u32>| {
            if !blocks.is_empty() {
                let count = blocks.end - blocks.start;
                parts.push((kernel, Part { tensor: self, first: blocks.start, count, out: base, clip: clip.clone() }));
            }
        };
        for edge in [strips.start..first, last.max(first)..strips.end] {
            self.blocks_of(&edge).into_iter().for_each(|blocks| add(None, blocks));
        }
        let [fast, others] = self.blocks_of(&(first..last.max(first)));
        add(self.fast_to(base), fast);
        add(None, others);
        parts
    }
}

/// Whether a tensor's tables stand in memory as the fast path has them, since copying them is faster than making them: where they are no
/// larger than the buckets, or less than 1/128 of the decoded bytes.
fn stores_entries(tensor: &Uploaded, table_bytes: u64) -> bool {
    let decoded = (tensor.rows * tensor.cols * tensor.element_bytes) as u64;
    tensor.fast_blocks != 0 && table_bytes <= (decoded / 128).max(tensor.buckets.len() as u64)
}

/// Table entries of the fast path: `freq << (32 - value_bit) | value << value_bit | bias`.
pub(crate) fn entries(layout: HeadLayout, buckets: &[u8], bucket_bits: u32) -> Vec<u8> {
    // `Layout::value_bit` of lanes.cuh.
    let value_bit = match layout.coded_bits() {
        ..=8 => 12,
        9 | 10 => 11,
        _ => 10,
    };
    let mut entries = Vec::with_capacity((buckets.len() / BUCKET_BYTES * 4) << bucket_bits);
    for bucket in buckets.chunks_exact(BUCKET_BYTES) {
        let half = |i: usize| u16::from_ne_bytes([bucket[2 * i], bucket[2 * i + 1]]);
        for place in 0..1u16 << bucket_bits {
            let own = place < half(0);
            let bias = if own { place } else { place.wrapping_add(half(1)) };
            let (freq, value) = if own { (half(2), half(3)) } else { (half(4), half(5)) };
            let entry = u32::from(freq) << (32 - value_bit) | u32::from(value) << value_bit | u32::from(bias);
            entries.extend_from_slice(&entry.to_ne_bytes());
        }
    }
    entries
}

/// Some superblocks of a tensor, and where the tensor goes.
#[derive(Debug)]
struct Part<'a> {
    tensor: &'a Resident,
    first: u32,
    count: u32,
    /// Where the tensor's first byte would go.
    out: u64,
    /// What may be written.
    clip: Range<u64>,
}

/// A tensor, the bytes of it that are wanted, and where they go.
pub(crate) type Job<'a> = (&'a Resident, Range<usize>, DeviceSliceMut<'a>);

/// Queues the decoding of tensors, each into its own memory. Launches leave `spared` multiprocessors to others.
pub(crate) fn decode_lanes(stream: &Stream, jobs: &[Job<'_>], spared: u32) -> Result<(), CudaError> {
    // One launch per kernel takes the parts of many tensors.
    let mut launches: Vec<(Option<&'static Fast>, Vec<Part<'_>>)> = Vec::new();
    for (tensor, range, out) in jobs {
        let size = tensor.decoded_bytes();
        check_job(stream, tensor.payload.buffer.context(), size, range, out)?;
        for (what, value) in [("the range's begin", range.start), ("the range's end", range.end)] {
            let multiple = tensor.element_bytes() as u64;
            if value != size && !(value as u64).is_multiple_of(multiple) {
                return Err(CudaError::Misaligned { what, value: value as u64, multiple });
            }
        }
        for (kernel, part) in tensor.parts(range, out) {
            match launches.iter_mut().find(|(other, parts)| *other == kernel && parts.len() < MAX_TENSORS) {
                Some((_, parts)) => parts.push(part),
                None => launches.push((kernel, vec![part])),
            }
        }
    }
    for (kernel, parts) in &launches {
        run(stream, *kernel, parts, spared)?;
    }
    for (tensor, range, out) in jobs {
        let t = &tensor.tensor;
        let rest = t.rows * tensor.row_stride();
        let wanted = range.start.max(rest)..range.end;
        if !wanted.is_empty() {
            let _current = stream.context().enter()?;
            let to = out.address() + (wanted.start - range.start) as u64;
            let from = tensor.payload.address() + (t.rest_at + wanted.start - rest) as u64;
            // SAFETY: the rest lies inside the payload and its part of the range inside `out`, which is as long as the range.
            let code = unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, wanted.len(), stream.raw()) };
            check("cuMemcpyDtoDAsync", code)?;
        }
    }
    Ok(())
}

/// Queues one launch: of kernels for full superblocks, or of the one for all others.
fn run(stream: &Stream, fast: Option<&'static Fast>, parts: &[Part<'_>], spared: u32) -> Result<(), CudaError> {
    let context = stream.context();
    let mut batch = vec![0u32; 2 + MAX_TENSORS * TENSOR_WORDS];
    let (mut total, mut table_bytes) = (0u64, 0u32);
    for (part, words) in parts.iter().zip(batch[2..].chunks_exact_mut(TENSOR_WORDS)) {
        total += u64::from(part.count);
        let end = grid_size("the number of superblocks", total)?;
        words.copy_from_slice(&part.tensor.parameters(part, end));
        table_bytes = table_bytes.max((part.tensor.tensor.contexts as u32) << (part.tensor.tensor.table_bits + 2));
    }
    (batch[0], batch[1]) = (parts.len() as u32, total as u32);
    let multiprocessors = context.device().multiprocessors.saturating_sub(spared).max(1);
    let blocks = multiprocessors.clamp(1, total as u32);
    let (module, name, grid) = match fast {
        None => (
            &wcodec_kernels::LANES_ANY,
            c"wcodec_lanes_any",
            Grid { blocks, threads: ANY_THREADS, shared: SHARE_BYTES + table_bytes },
        ),
        Some(fast) => {
            let (name, threads, warp_bytes) = fast.kernel(total as u32, multiprocessors);
            // `upload` has found that at least one warp fits.
            let beside = SHARE_BYTES + table_bytes;
            let warps = ((context.shared_memory()? - beside) / warp_bytes).min(threads / 32);
            (fast.module, name, Grid { blocks, threads: 32 * warps, shared: beside + warps * warp_bytes })
        }
    };
    let function = context.function_with_shared_memory(module, name)?;
    let mut parameters = [batch.as_mut_ptr().cast()];
    // SAFETY: the parameter is a `struct Batch` of lanes.cuh: two words and 32 tensors of 30. Every tensor's memory belongs to
    // buffers that its owner keeps (or frees through cuMemFree, which waits); `Uploaded` says that what its superblocks
    // describe lies inside, and `decode_lanes` that the output is as long as the range, which the clip keeps to. The shared memory holds tables and rings.
    unsafe { launch(stream, function, grid, &mut parameters) }
}
