//! Launches of `kernels/dequant.cu`.

use std::ffi::CStr;

use wcodec_quant::{Code, FloatType, Order};

use super::framed::Cut;
use super::memory::{DeviceBuffer, DeviceSlice, DeviceSliceMut};
use super::{Grid, grid_size, launch, same_device, stream::Stream};
use crate::CudaError;

pub(super) const THREADS: u32 = 256;
/// Vectors of a thread; rows of a strip.
const UNROLL: u32 = 4;
/// Blocks per multiprocessor where elements go one by one.
const BLOCKS_PER_SM: u32 = 8;
/// Words of `struct Job`.
const JOB_WORDS: usize = 34;

/// A scheme's numbers in device memory, all of them checked by [`wcodec_quant::Scheme`].
#[derive(Debug)]
pub(crate) struct Numbers {
    pub(crate) shape: [u32; 2],
    pub(crate) code: Code,
    pub(crate) block: [u32; 2],
    pub(crate) scale_cols: u32,
    /// Scales, zero points, groups of rows, one behind the other at multiples of 16.
    pub(crate) buffer: DeviceBuffer,
    pub(crate) zeros_at: Option<usize>,
    pub(crate) groups_at: Option<usize>,
}

/// `Form` of dequant.cu.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Any = 0,
    One = 1,
    Each = 2,
    Rows = 3,
}

/// Queues dequantising the codes that lie in `codes` as `cut` says.
pub(crate) fn dequantize(
    stream: &Stream,
    numbers: &Numbers,
    (cut, codes): (Cut, DeviceSlice<'_>),
    float: FloatType,
    out: DeviceSliceMut<'_>,
) -> Result<(), CudaError> {
    for (what, context) in
        [("the codes", codes.context()), ("the output", out.context()), ("the scales", numbers.buffer.context())]
    {
        same_device(stream, what, context)?;
    }
    let [rows, cols] = numbers.shape;
    let elements = u64::from(rows) * u64::from(cols);
    let code_bytes = elements * numbers.code.bits() as u64 / 8;
    cut.fits(codes.len())?;
    for (needed, present) in [(code_bytes, cut.bytes), (elements * float.bytes() as u64, out.len())] {
        if needed != present as u64 {
            return Err(CudaError::OutOfRange { offset: 0, bytes: needed as usize, size: present });
        }
    }
    if elements == 0 {
        return Ok(());
    }
    let form = form(numbers, cut, codes.address(), float, out.address());
    let vector = 16 / float.bytes() as u64;
    let (items, blocks) = match form {
        Form::One => (elements / vector, (elements / vector).div_ceil(u64::from(THREADS) * u64::from(UNROLL))),
        Form::Each => {
            let strips = u64::from(rows.div_ceil(UNROLL)) * (u64::from(cols) / vector);
            (strips, strips.div_ceil(THREADS.into()))
        }
        Form::Rows => (elements / 32, (elements / 32).div_ceil(THREADS.into())),
        Form::Any => {
            let most = u64::from(stream.context().device().multiprocessors.saturating_mul(BLOCKS_PER_SM).max(1));
            (elements, elements.div_ceil(THREADS.into()).min(most))
        }
    };
    let name: &CStr = match float {
        FloatType::BF16 => c"wcodec_dequant_bf16",
        FloatType::F16 => c"wcodec_dequant_f16",
        FloatType::F32 => c"wcodec_dequant_f32",
    };
    let function = stream.context().function(&wcodec_kernels::DEQUANT, name)?;
    let grid = Grid { blocks: grid_size("the number of blocks", blocks)?, threads: THREADS, shared: 0 };
    let mut words = job(numbers, cut.words(codes.address()), out.address(), form, items, vector as u32);
    let mut parameters = [words.as_mut_ptr().cast()];
    // SAFETY: the parameter is a `struct Job` of dequant.cu. The codes and the output are as long as the shape says, the scheme has checked
    // that every element's scale is there, and `form` that vectors are whole and aligned.
    unsafe { launch(stream, function, grid, &mut parameters) }
}

/// The widest form that shape, groups and addresses allow.
fn form(numbers: &Numbers, cut: Cut, codes: u64, float: FloatType, out: u64) -> Form {
    let ([rows, cols], [_, block_cols]) = (numbers.shape, numbers.block);
    let vector = 16 / float.bytes() as u32;
    let order = numbers.code.order();
    // Bytes of codes that a thread loads at once.
    let load = match order {
        None => vector,
        Some(Order::Pairs) => vector / 2,
        Some(Order::Interleaved) => 4,
        Some(Order::RowWords) => 16,
    };
    // Numbers of items, rows and columns stay below what `struct Divisor` divides.
    let narrow = u64::from(rows) * u64::from(cols) < (1 << 31) - u64::from(THREADS * UNROLL);
    let aligned = out.is_multiple_of(16)
        && match cut.frame {
            0 => codes.is_multiple_of(load.into()),
            // No load crosses a piece.
            frame => frame.is_multiple_of(load.max(8) as usize),
        };
    if !narrow || !aligned {
        return Form::Any;
    }
    if order == Some(Order::RowWords) {
        return if block_cols == 1 && cols.is_multiple_of(4) { Form::Rows } else { Form::Any };
    }
    if !cols.is_multiple_of(vector) {
        Form::Any
    } else if block_cols >= cols || block_cols.is_multiple_of(vector) {
        Form::One
    } else if block_cols == 1 {
        Form::Each
    } else {
        Form::Any
    }
}

fn job(numbers: &Numbers, codes: [u32; 8], out: u64, form: Form, items: u64, vector: u32) -> [u32; JOB_WORDS] {
    let at = |offset: Option<usize>| offset.map_or(0, |offset| numbers.buffer.address() + offset as u64);
    let mut words = [0; JOB_WORDS];
    words[..8].copy_from_slice(&codes);
    let addresses = [out, at(Some(0)), at(numbers.zeros_at), at(numbers.groups_at)];
    for (pair, value) in words[8..16].chunks_exact_mut(2).zip(addresses) {
        // Kernels and host have the same byte order.
        pair.copy_from_slice(&[value as u32, (value >> 32) as u32]);
    }
    // Kinds and orders as the kernel numbers them; what makes codes unsigned, and by how much that moves them.
    let (kind, flip, moved) = match numbers.code {
        Code::I8 => (0, 0x8080_8080, 128.0),
        Code::I4(_) => (0, 0x0808_0808, 8.0),
        Code::U8 | Code::U4(_) => (0, 0, 0.0),
        Code::F8E4M3 => (1, 0, 0.0),
        _ => (2, 0, 0.0),
    };
    let order = match numbers.code.order() {
        None => 0,
        Some(Order::Pairs) => 1,
        Some(Order::Interleaved) => 2,
        Some(Order::RowWords) => 3,
    };
    const ORIGIN: f32 = 8_388_608.0;
    words[16..26].copy_from_slice(&[
        numbers.shape[0],
        numbers.shape[1],
        numbers.block[0],
        numbers.block[1],
        numbers.scale_cols,
        kind,
        order,
        form as u32,
        flip,
        (ORIGIN + moved).to_bits(),
    ]);
    (words[26], words[27]) = (items as u32, (items >> 32) as u32);
    let row_items = match form {
        Form::Any => 1,
        Form::Rows => numbers.shape[1] / 4,
        Form::One | Form::Each => numbers.shape[1] / vector,
    };
    let divisors = [row_items, numbers.block[0], numbers.block[1]];
    for (pair, divisor) in words[28..].chunks_exact_mut(2).zip(divisors) {
        pair.copy_from_slice(&reciprocal(divisor));
    }
    words
}

/// `struct Divisor` of dequant.cu.
fn reciprocal(divisor: u32) -> [u32; 2] {
    match divisor {
        0 | 1 => [0, 0],
        d => {
            let log = d.next_power_of_two().trailing_zeros();
            // At most 2^32 - 1, since d is above 2^(log - 1).
            [(1u64 << (31 + log)).div_ceil(d.into()) as u32, log - 1]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn divide(n: u32, d: u32) -> u32 {
        match reciprocal(d) {
            [0, _] => n,
            [factor, shift] => ((u64::from(n) * u64::from(factor)) >> 32) as u32 >> shift,
        }
    }

    proptest! {
        #[test]
        fn reciprocals_divide(n in 0u32..1 << 31, d in prop_oneof![1u32..200, 1u32..1 << 31]) {
            prop_assert_eq!(divide(n, d), n / d);
            // Where a quotient changes.
            let multiple = n / d * d;
            prop_assert_eq!(divide(multiple, d), n / d);
            prop_assert_eq!(divide(multiple.saturating_sub(1), d), multiple.saturating_sub(1) / d);
        }
    }

    #[test]
    fn powers_of_two_and_their_neighbours_divide() {
        for log in 1..31 {
            for d in [(1u32 << log) - 1, 1 << log, (1 << log) + 1] {
                for n in [0, 1, d - 1, d, d + 1, (1 << 31) - 1, ((1 << 31) - 1) / d * d] {
                    assert_eq!(divide(n, d), n / d, "{n} / {d}");
                }
            }
        }
    }
}
