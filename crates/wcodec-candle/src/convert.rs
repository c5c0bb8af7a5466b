//! Decoded bytes as candle's tensors and storages.

use std::cell::RefCell;

use candle_core::safetensors::Load;
use candle_core::{CpuStorage, DType, Device, Error, InplaceOp1, Layout, Result, Tensor, WithDType};
use safetensors::tensor::{Dtype, TensorView};
use wcodec::DtypeCode;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// The element type that candle gives a tensor of `dtype`, where it takes the bytes as they are.
pub(crate) fn same(dtype: DtypeCode) -> Option<DType> {
    Some(match dtype {
        DtypeCode::U8 => DType::U8,
        DtypeCode::U32 => DType::U32,
        DtypeCode::I16 => DType::I16,
        DtypeCode::I32 => DType::I32,
        DtypeCode::I64 => DType::I64,
        DtypeCode::BF16 => DType::BF16,
        DtypeCode::F16 => DType::F16,
        DtypeCode::F32 => DType::F32,
        DtypeCode::F64 => DType::F64,
        _ => return None,
    })
}

/// The safetensors name of `dtype`, as candle's errors and its reader of rare types have it.
fn safetensors_dtype(dtype: DtypeCode) -> Option<Dtype> {
    Some(match dtype {
        DtypeCode::BOOL => Dtype::BOOL,
        DtypeCode::I8 => Dtype::I8,
        DtypeCode::F8_E5M2 => Dtype::F8_E5M2,
        DtypeCode::F8_E4M3 => Dtype::F8_E4M3,
        DtypeCode::F8_E8M0 => Dtype::F8_E8M0,
        DtypeCode::U16 => Dtype::U16,
        DtypeCode::U64 => Dtype::U64,
        DtypeCode::C64 => Dtype::C64,
        DtypeCode::F4 => Dtype::F4,
        DtypeCode::F6_E2M3 => Dtype::F6_E2M3,
        DtypeCode::F6_E3M2 => Dtype::F6_E3M2,
        _ => return None,
    })
}

/// A tensor on the CPU of `shape`, with elements of the stored type, whose bytes `fill` writes.
///
/// Common types are decoded in place. The others take candle's way from a safetensors view, with its conversions and refusals.
pub(crate) fn tensor(
    dtype: DtypeCode,
    shape: &[usize],
    byte_len: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<Tensor> {
    match same(dtype) {
        Some(DType::U8) => typed::<u8>(shape, byte_len, fill),
        Some(DType::U32) => typed::<u32>(shape, byte_len, fill),
        Some(DType::I16) => typed::<i16>(shape, byte_len, fill),
        Some(DType::I32) => typed::<i32>(shape, byte_len, fill),
        Some(DType::I64) => typed::<i64>(shape, byte_len, fill),
        Some(DType::BF16) => typed::<half::bf16>(shape, byte_len, fill),
        Some(DType::F16) => typed::<half::f16>(shape, byte_len, fill),
        Some(DType::F32) => typed::<f32>(shape, byte_len, fill),
        Some(DType::F64) => typed::<f64>(shape, byte_len, fill),
        _ => {
            let Some(dtype) = safetensors_dtype(dtype) else {
                return Err(Error::msg(format!("candle has no element type like {dtype}")));
            };
            let mut bytes = zeroed::<u8>(byte_len)?;
            fill(&mut bytes)?;
            TensorView::new(dtype, shape.to_vec(), &bytes)?.load(&Device::Cpu)
        }
    }
}

/// `tensor` as `to`. From F8_E4M3 to F64 by way of F32, which has all its values: candle-core 0.11.1 never returns from that conversion.
pub(crate) fn converted(tensor: &Tensor, to: DType) -> Result<Tensor> {
    if (tensor.dtype(), to) == (DType::F8E4M3, DType::F64) {
        return tensor.to_dtype(DType::F32)?.to_dtype(to);
    }
    tensor.to_dtype(to)
}

/// A tensor on the CPU of `shape`, stored as `dtype` and wanted as `to`, whose stored bytes `fill` writes.
///
/// Halves that are wanted as F32 are decoded into the vector that they are widened in, so that their bytes have no memory of their own.
pub(crate) fn tensor_as(
    to: DType,
    dtype: DtypeCode,
    shape: &[usize],
    byte_len: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<Tensor> {
    if !matches!((dtype, to), (DtypeCode::BF16 | DtypeCode::F16, DType::F32)) {
        return converted(&tensor(dtype, shape, byte_len, fill)?, to);
    }
    let mut elements = zeroed::<f32>(byte_len / 2)?;
    fill_widened(dtype, &mut elements, fill)?;
    Tensor::from_vec(elements, shape, &Device::Cpu)
}

/// BF16 or F16 elements, whose bytes `fill` writes, as F32.
fn fill_widened(dtype: DtypeCode, out: &mut [f32], fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<()> {
    let half = 2 * out.len();
    let bytes = out.as_mut_bytes();
    fill(&mut bytes[half..])?;
    match dtype {
        DtypeCode::BF16 => widen(bytes, |pair| half::bf16::from_le_bytes(pair).to_f32()),
        _ => widen(bytes, |pair| half::f16::from_le_bytes(pair).to_f32()),
    }
    Ok(())
}

fn typed<T: WithDType + FromZeros + FromBytes + IntoBytes>(
    shape: &[usize],
    byte_len: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<Tensor> {
    let mut elements = zeroed::<T>(byte_len / size_of::<T>())?;
    fill(elements.as_mut_bytes())?;
    Tensor::from_vec(elements, shape, &Device::Cpu)
}

/// Zeros that the operating system gives where it can; the length is the archive's word, so no memory is taken for granted.
fn zeroed<T: FromZeros>(len: usize) -> Result<Vec<T>> {
    T::new_vec_zeroed(len)
        .map_err(|_| Error::msg(format!("no memory for {} bytes", len.saturating_mul(size_of::<T>()))))
}

/// A shape as candle counts.
///
/// # Errors
/// For a dimension that is no `usize`.
pub(crate) fn shape(dims: &[u64]) -> Result<Vec<usize>> {
    Ok(dims.iter().map(|&dim| usize::try_from(dim)).collect::<std::result::Result<_, _>>()?)
}

/// Overwrites the first `elements` of the vector `out`, on the CPU, with stored elements of type `dtype`, converted as candle converts.
/// `decode` writes their bytes into the slice that it is given.
pub(crate) fn overwrite(
    out: &Tensor,
    elements: usize,
    dtype: DtypeCode,
    scratch: &mut Vec<u8>,
    decode: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<()> {
    out.inplace_op1(&Overwrite { elements, dtype, work: RefCell::new(Some((scratch, decode))) })
}

/// candle lends the storage of a tensor to an operation in place, and to nobody else.
struct Overwrite<'a, F> {
    elements: usize,
    dtype: DtypeCode,
    /// Taken when it is done: operations are called through a shared reference.
    work: RefCell<Option<(&'a mut Vec<u8>, F)>>,
}

impl<F: FnOnce(&mut [u8]) -> Result<()>> InplaceOp1 for Overwrite<'_, F> {
    fn name(&self) -> &'static str {
        "wcodec-overwrite"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        let Some((scratch, decode)) = self.work.take() else { return Ok(()) };
        let n = self.elements;
        match (self.dtype, &mut *storage) {
            (DtypeCode::F32, CpuStorage::F32(out)) => return decode(out[..n].as_mut_bytes()),
            (DtypeCode::F16, CpuStorage::F16(out)) => return decode(out[..n].as_mut_bytes()),
            (DtypeCode::BF16, CpuStorage::BF16(out)) => return decode(out[..n].as_mut_bytes()),
            (DtypeCode::F64, CpuStorage::F64(out)) => return decode(out[..n].as_mut_bytes()),
            _ => {}
        }
        if let (DtypeCode::BF16 | DtypeCode::F16, CpuStorage::F32(out)) = (self.dtype, &mut *storage) {
            return fill_widened(self.dtype, &mut out[..n], decode);
        }
        let Some(element_bytes) = whole_bytes(self.dtype) else {
            return Err(Error::msg(format!("elements of {} are no whole bytes", self.dtype)));
        };
        scratch.resize(n * element_bytes, 0);
        decode(scratch)?;
        let copy = |out: &mut [u8]| {
            out.copy_from_slice(scratch);
            Ok(())
        };
        copy_converted(&tensor(self.dtype, &[n], scratch.len(), copy)?, storage)
    }
}

/// Widens the elements of two bytes in the second half of `bytes` to four bytes each, from the first on.
///
/// Half of what is left goes to the half that is free, which borrows apart from its source, again and again.
fn widen(bytes: &mut [u8], to_f32: impl Fn([u8; 2]) -> f32) {
    let mut rest = bytes;
    loop {
        let n = rest.len() / 4;
        if n <= 1 {
            if let Some(&[_, _, low, high]) = rest.first_chunk::<4>() {
                rest.copy_from_slice(&to_f32([low, high]).to_le_bytes());
            }
            return;
        }
        let (free, held) = rest.split_at_mut(2 * n);
        let (targets, _) = free.as_chunks_mut::<4>();
        let (pairs, _) = held.as_chunks::<2>();
        targets.iter_mut().zip(pairs).for_each(|(target, &pair)| *target = to_f32(pair).to_le_bytes());
        rest = &mut rest[n / 2 * 4..];
    }
}

/// Bytes of an element, of types that have whole ones.
pub(crate) fn whole_bytes(dtype: DtypeCode) -> Option<usize> {
    dtype.bits().filter(|bits| bits % 8 == 0).map(|bits| (bits / 8) as usize)
}

/// Copies a vector into the front of a storage, converted by candle.
fn copy_converted(from: &Tensor, to: &mut CpuStorage) -> Result<()> {
    fn copy<T: WithDType>(from: &Tensor, to: &mut [T]) -> Result<()> {
        let from = converted(from, T::DTYPE)?.to_vec1::<T>()?;
        to[..from.len()].copy_from_slice(&from);
        Ok(())
    }
    match to {
        CpuStorage::F32(to) => copy(from, to),
        CpuStorage::F16(to) => copy(from, to),
        CpuStorage::BF16(to) => copy(from, to),
        CpuStorage::F64(to) => copy(from, to),
        _ => Err(Error::msg("compressed layers compute in F16, BF16, F32 or F64")),
    }
}

/// A dtype that compressed layers can compute in.
pub(crate) fn check_compute(dtype: DType) -> Result<()> {
    match dtype {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Ok(()),
        dtype => Err(Error::UnsupportedDTypeForOp(dtype, "compressed layer").bt()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_widened_in_place() {
        for n in 0..70u16 {
            let mut bytes = vec![0xaa; 2 * usize::from(n)];
            bytes.extend((0..n).flat_map(|i| (i * 937).to_le_bytes()));
            widen(&mut bytes, |pair| f32::from(u16::from_le_bytes(pair)));
            let expected: Vec<u8> = (0..n).flat_map(|i| f32::from(i * 937).to_le_bytes()).collect();
            assert_eq!(bytes, expected, "{n}");
        }
    }
}
