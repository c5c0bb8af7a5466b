//! Launches of `kernels/plain.cu`.

use std::ops::Range;

use super::memory::DeviceSliceMut;
use super::side::{self, Side};
use super::{CudaContext, Grid, Stream, check_job, launch};
use crate::CudaError;

/// A tensor's parts as the kernel wants them, all of them checked: planes and symbols lie inside `bytes`, symbols fill tables of at most
/// 2^`table_bits` slots, stored planes have a byte for every element.
#[derive(Debug)]
pub(crate) struct Uploaded {
    pub(crate) elements: usize,
    /// 1, 2, 4 or 8.
    pub(crate) element_bytes: usize,
    pub(crate) rotated: bool,
    pub(crate) table_bits: u32,
    /// `struct Plane`s, then symbols and what is coded.
    pub(crate) bytes: Vec<u8>,
}

/// Words of `struct Tensor` of plain.cu.
const TENSOR_WORDS: usize = 14;
const HEAD_WORDS: usize = 2;
/// `MAX_TENSORS`.
const MAX_TENSORS: usize = 64;
/// `PIECE`.
const PIECE: u32 = 1024;
pub(super) const THREADS: u32 = 256;

/// A tensor in device memory.
#[derive(Debug)]
pub(crate) struct Resident {
    tensor: Uploaded,
    pub(crate) side: Side,
    /// Where it begins in `side`.
    base: usize,
}

impl Resident {
    /// Copies tensors to the device, in one piece. Waits for the stream.
    pub(crate) fn upload(stream: &Stream, tensors: Vec<Uploaded>) -> Result<Vec<Self>, CudaError> {
        side::upload(stream, |side| Self::lay_out(stream.context(), tensors, side), |resident| &mut resident.side)
    }

    /// Appends tensors to `side`; it goes to the buffer that is attached later.
    pub(crate) fn lay_out(
        context: &CudaContext,
        tensors: Vec<Uploaded>,
        side: &mut Vec<u8>,
    ) -> Result<Vec<Self>, CudaError> {
        let mut residents = Vec::with_capacity(tensors.len());
        let mut layout = side::Layout::new(context, side)?;
        for mut tensor in tensors {
            let base = layout.append(&std::mem::take(&mut tensor.bytes));
            residents.push(Self { tensor, side: layout.tensor(), base });
        }
        layout.statuses(residents.iter_mut().map(|resident| &mut resident.side));
        Ok(residents)
    }

    /// Bytes of the decoded tensor.
    pub(crate) fn decoded_bytes(&self) -> usize {
        self.tensor.elements * self.tensor.element_bytes
    }

    /// Bytes of device memory.
    pub(crate) fn device_bytes(&self) -> usize {
        self.side.bytes()
    }
}

/// A tensor, the bytes of it that are wanted, and where they go.
pub(crate) type Job<'a> = (&'a Resident, Range<usize>, DeviceSliceMut<'a>);

/// Queues the decoding of tensors, each into its own memory. A tensor is decoded whole, whatever of it is wanted.
pub(crate) fn decode_plain(stream: &Stream, jobs: &[Job<'_>]) -> Result<(), CudaError> {
    for (tensor, range, out) in jobs {
        check_job(stream, tensor.side.context(), tensor.decoded_bytes(), range, out)?;
    }
    let wanted: Vec<&Job<'_>> = jobs.iter().filter(|(_, range, _)| !range.is_empty()).collect();
    for part in wanted.chunks(MAX_TENSORS) {
        run(stream, part)?;
    }
    Ok(())
}

fn run(stream: &Stream, jobs: &[&Job<'_>]) -> Result<(), CudaError> {
    let context = stream.context();
    let function = context.function_with_shared_memory(&wcodec_kernels::PLAIN, c"wcodec_plain")?;
    let mut batch = vec![0u32; HEAD_WORDS + MAX_TENSORS * TENSOR_WORDS];
    let (mut slot_bytes, mut planes) = (0, 0);
    for ((tensor, range, out), words) in jobs.iter().zip(batch[HEAD_WORDS..].chunks_exact_mut(TENSOR_WORDS)) {
        let (t, base) = (&tensor.tensor, tensor.side.address(tensor.base));
        let addresses = [
            base,
            out.address().wrapping_sub(range.start as u64),
            out.address(),
            out.address() + out.len() as u64,
            base,
            tensor.side.status_address(),
        ];
        for (pair, address) in words.chunks_exact_mut(2).zip(addresses) {
            // Kernels and host have the same byte order.
            pair.copy_from_slice(&[address as u32, (address >> 32) as u32]);
        }
        words[12] = t.elements as u32;
        words[13] = u32::from_ne_bytes([t.element_bytes as u8, u8::from(t.rotated), t.table_bits as u8, 0]);
        slot_bytes = slot_bytes.max(4u32 << t.table_bits);
        planes = planes.max(t.element_bytes as u32);
    }
    (batch[0], batch[1]) = (jobs.len() as u32, slot_bytes);
    // `wcodec_plain` has a warp per plane; eight of them with the largest tables take 136 KiB.
    let (shared, limit) = (planes * (slot_bytes + PIECE), context.shared_memory()?);
    if shared > limit {
        let what = "the size of the tables";
        return Err(CudaError::TooLarge { what, value: shared.into(), limit: limit.into() });
    }
    let mut parameters = [batch.as_mut_ptr().cast()];
    let grid = Grid { blocks: jobs.len() as u32, threads: THREADS, shared };
    // SAFETY: the parameter is a `struct Batch` of plain.cu: two words and 64 tensors of 14. Every tensor's memory belongs to a buffer that
    // its owner keeps (or frees through cuMemFree, which waits); `Uploaded` says that what its planes describe lies inside, and the
    // clip is the output. The shared memory holds tables and a piece for every plane.
    unsafe { launch(stream, function, grid, &mut parameters) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launch_constants_are_those_of_the_kernel() {
        let text = wcodec_kernels::PLAIN.variants[0].text;
        assert!(text.contains(&format!(".maxntid {THREADS}, 1, 1")));
        let batch = 4 * (HEAD_WORDS + MAX_TENSORS * TENSOR_WORDS);
        assert!(text.contains(&format!("wcodec_plain_param_0[{batch}]")));
    }
}
