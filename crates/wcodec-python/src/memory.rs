//! The one place that turns addresses from Python into slices.
//!
//! NumPy arrays and PyTorch tensors have no common interface that lends BF16 or FP8 memory to an extension built for the stable ABI. So
//! the package's Python side, which owns the memory, passes its address and length, and keeps the owner alive during the call.
#![expect(unsafe_code, reason = "memory that Python has allocated is known by its address")]

use pyo3::prelude::*;
use wcodec::cuda::{CudaContext, DeviceSliceMut, Stream};

use crate::errors;

/// The large pages of x86-64 and, mostly, AArch64.
#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;

/// Memory of the caller.
#[derive(Clone, Copy, FromPyObject)]
pub(crate) struct Region(usize, usize);

impl Region {
    /// The region's bytes, to be written.
    ///
    /// # Errors
    /// `BadArgumentError` for a null address or a length that no allocation has.
    pub(crate) fn bytes_mut<'a>(self, py: Python<'_>) -> PyResult<&'a mut [u8]> {
        let Self(address, len) = self;
        if len == 0 {
            return Ok(&mut []);
        }
        self.check(py)?;
        // SAFETY: the package's Python side passes address and length of one array or tensor in main memory that it has just allocated,
        // contiguous, seen by nobody else until the call returns, and that it keeps a reference to meanwhile; no two regions of a call
        // overlap (python/wcodec/numpy.py, python/wcodec/torch/_io.py). Its bytes may not have been written yet: they come from an
        // allocator that the compiler does not know, so they have some value.
        Ok(unsafe { std::slice::from_raw_parts_mut(address as *mut u8, len) })
    }

    /// As [`Region::bytes_mut`], for memory that nobody has touched yet and that all will be written: asks the system to back a large
    /// region with large pages, where it would give 4 KiB ones, one fault each.
    ///
    /// # Errors
    /// As [`Region::bytes_mut`].
    pub(crate) fn fresh<'a>(self, py: Python<'_>) -> PyResult<&'a mut [u8]> {
        let bytes = self.bytes_mut(py)?;
        #[cfg(target_os = "linux")]
        {
            let inner = bytes.as_ptr().align_offset(HUGE_PAGE);
            let len = bytes.len().saturating_sub(inner) / HUGE_PAGE * HUGE_PAGE;
            if len >= 2 * HUGE_PAGE {
                // SAFETY: whole pages of `bytes`, whose contents the advice does not change. Advice that is not taken is no error.
                unsafe { libc::madvise(bytes.as_mut_ptr().add(inner).cast(), len, libc::MADV_HUGEPAGE) };
            }
        }
        Ok(bytes)
    }

    /// The region's bytes, to be read.
    ///
    /// # Errors
    /// As [`Region::bytes_mut`].
    pub(crate) fn bytes<'a>(self, py: Python<'_>) -> PyResult<&'a [u8]> {
        let Self(address, len) = self;
        if len == 0 {
            return Ok(&[]);
        }
        self.check(py)?;
        // SAFETY: as above: a contiguous array or tensor in main memory that Python keeps alive during the call. Whoever writes to it
        // meanwhile from another thread gets an archive of some mixture of values, as with every library that lets go of the GIL.
        Ok(unsafe { std::slice::from_raw_parts(address as *const u8, len) })
    }

    /// The region as memory of a device, to be written.
    ///
    /// # Errors
    /// As [`Region::bytes_mut`].
    pub(crate) fn device<'a>(self, py: Python<'_>, context: &'a CudaContext) -> PyResult<DeviceSliceMut<'a>> {
        let Self(address, len) = self;
        if len > 0 {
            self.check(py)?;
        }
        // SAFETY: the package's Python side passes address and length of a contiguous CUDA tensor of this device that it has just
        // allocated, or of its own scratch memory. Work is queued on the stream that the tensor was allocated on, or on one that the
        // tensor was recorded for, so that PyTorch's allocator does not hand the memory out again before it is done.
        Ok(unsafe { DeviceSliceMut::from_raw(context, address as u64, len) })
    }

    fn check(self, py: Python<'_>) -> PyResult<()> {
        let Self(address, len) = self;
        if address == 0 || isize::try_from(len).is_err() || address.checked_add(len).is_none() {
            return Err(errors::bad_argument(py, &format!("no memory of {len} bytes at {address:#x}")));
        }
        Ok(())
    }
}

/// PyTorch's stream with this handle; 0 is the legacy default stream.
pub(crate) fn stream(context: &CudaContext, handle: usize) -> Stream {
    // SAFETY: the package's Python side passes `cuda_stream` of a `torch.cuda.Stream` of this device, which PyTorch never destroys.
    unsafe { Stream::from_raw(context, std::ptr::without_provenance_mut(handle)) }
}
