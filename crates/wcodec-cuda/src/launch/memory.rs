//! Device memory and locked host memory, with bounds.

use std::marker::PhantomData;

use cust::memory::LockedBuffer;
use cust::sys;

use super::{check, context::CudaContext, same_device, stream::Stream};
use crate::CudaError;

/// Bytes in device memory, aligned to 256. Freed when dropped, after the work that uses them.
#[derive(Debug)]
pub struct DeviceBuffer {
    /// Allocated in `context`, `bytes` long; 0 when empty.
    address: u64,
    bytes: usize,
    context: CudaContext,
}

impl DeviceBuffer {
    /// Allocates; the contents are unspecified.
    ///
    /// # Errors
    /// [`CudaError::OutOfDeviceMemory`], [`CudaError::Call`].
    pub fn new(context: &CudaContext, bytes: usize) -> Result<Self, CudaError> {
        let mut address = 0;
        if bytes != 0 {
            let _current = context.enter()?;
            // SAFETY: writes one address.
            match unsafe { sys::cuMemAlloc_v2(&mut address, bytes) } {
                sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => return Err(CudaError::OutOfDeviceMemory { bytes }),
                code => check("cuMemAlloc", code)?,
            }
        }
        Ok(Self { address, bytes, context: context.clone() })
    }

    /// Allocates and fills with zeros. Waits for the stream.
    ///
    /// # Errors
    /// As [`DeviceBuffer::new`].
    pub fn zeroed(stream: &Stream, bytes: usize) -> Result<Self, CudaError> {
        let buffer = Self::new(stream.context(), bytes)?;
        if bytes != 0 {
            let _current = stream.context().enter()?;
            // SAFETY: the range is the whole allocation, of the stream's context.
            check("cuMemsetD8Async", unsafe { sys::cuMemsetD8Async(buffer.address, 0, bytes, stream.raw()) })?;
            stream.synchronize()?;
        }
        Ok(buffer)
    }

    /// Allocates and copies `bytes` there. Waits for the stream.
    ///
    /// # Errors
    /// As [`DeviceBuffer::new`].
    pub fn from_host(stream: &Stream, bytes: &[u8]) -> Result<Self, CudaError> {
        let mut buffer = Self::new(stream.context(), bytes.len())?;
        buffer.copy_from_host(stream, 0, bytes)?;
        Ok(buffer)
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The device address, for other users of the driver. Valid as long as `self`.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The context that the memory belongs to.
    pub fn context(&self) -> &CudaContext {
        &self.context
    }

    /// All of it, to read.
    pub fn as_slice(&self) -> DeviceSlice<'_> {
        DeviceSlice { address: self.address, bytes: self.bytes, context: &self.context, _memory: PhantomData }
    }

    /// All of it, to write.
    pub fn as_slice_mut(&mut self) -> DeviceSliceMut<'_> {
        DeviceSliceMut(self.as_slice(), PhantomData)
    }

    /// `bytes` bytes from `offset`, to read.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`].
    pub fn sub_slice(&self, offset: usize, bytes: usize) -> Result<DeviceSlice<'_>, CudaError> {
        self.as_slice().sub_slice(offset, bytes)
    }

    /// `bytes` bytes from `offset`, to write.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`].
    pub fn sub_slice_mut(&mut self, offset: usize, bytes: usize) -> Result<DeviceSliceMut<'_>, CudaError> {
        Ok(DeviceSliceMut(self.sub_slice(offset, bytes)?, PhantomData))
    }

    /// Copies `from` to `offset`, in the stream's order. Waits for the stream.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`], [`CudaError::OtherDevice`], [`CudaError::Call`].
    pub fn copy_from_host(&mut self, stream: &Stream, offset: usize, from: &[u8]) -> Result<(), CudaError> {
        // SAFETY: `from` is borrowed until the stream is done.
        let queued = unsafe { self.queue_from_host(stream, offset, from) };
        queued.and(stream.synchronize())
    }

    /// Copies from `offset` to `to`, in the stream's order. Waits for the stream.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`], [`CudaError::OtherDevice`], [`CudaError::Call`].
    pub fn copy_to_host(&self, stream: &Stream, offset: usize, to: &mut [u8]) -> Result<(), CudaError> {
        // SAFETY: `to` is borrowed until the stream is done.
        let queued = unsafe { self.as_slice().queue_to_host(stream, offset, to) };
        queued.and(stream.synchronize())
    }

    /// Queues a copy of `from` to `offset`. With pinned memory the host does not wait.
    ///
    /// # Safety
    /// `from` is neither freed nor written before the stream has done this work.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`], [`CudaError::OtherDevice`], [`CudaError::Call`].
    pub unsafe fn queue_from_host(&mut self, stream: &Stream, offset: usize, from: &[u8]) -> Result<(), CudaError> {
        let target = self.sub_slice(offset, from.len())?;
        same_device(stream, "the buffer", &self.context)?;
        if from.is_empty() {
            return Ok(());
        }
        let _current = stream.context().enter()?;
        // SAFETY: the target lies inside the allocation, the source is a slice that the caller keeps alive.
        let code = unsafe { sys::cuMemcpyHtoDAsync_v2(target.address, from.as_ptr().cast(), from.len(), stream.raw()) };
        check("cuMemcpyHtoDAsync", code)
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.address != 0
            && let Ok(_current) = self.context.enter()
        {
            // SAFETY: allocated by `new`, freed once. A failure is that of earlier work, reported where that is waited for.
            let _ = unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}

/// A range of device memory to read.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSlice<'a> {
    /// `bytes` bytes from here are allocated in `context` for as long as `'a`.
    address: u64,
    bytes: usize,
    context: &'a CudaContext,
    _memory: PhantomData<&'a DeviceBuffer>,
}

impl<'a> DeviceSlice<'a> {
    /// Device memory that belongs to somebody else, a PyTorch tensor for one.
    ///
    /// # Safety
    /// `bytes` bytes from `address` are device memory of `context`'s device, which stays allocated for `'a` and
    /// beyond it until all work queued with the slice is done.
    pub unsafe fn from_raw(context: &'a CudaContext, address: u64, bytes: usize) -> Self {
        Self { address, bytes, context, _memory: PhantomData }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The device address.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The context that the memory belongs to.
    pub fn context(&self) -> &'a CudaContext {
        self.context
    }

    /// `bytes` bytes from `offset`.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`].
    pub fn sub_slice(&self, offset: usize, bytes: usize) -> Result<Self, CudaError> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(Self { address: self.address + offset as u64, bytes, ..*self }),
            _ => Err(CudaError::OutOfRange { offset, bytes, size: self.bytes }),
        }
    }

    /// Queues a copy from `offset` to `to`. With pinned memory the host does not wait.
    ///
    /// # Safety
    /// `to` is neither freed, read nor written before the stream has done this work.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`], [`CudaError::OtherDevice`], [`CudaError::Call`].
    pub unsafe fn queue_to_host(&self, stream: &Stream, offset: usize, to: &mut [u8]) -> Result<(), CudaError> {
        let source = self.sub_slice(offset, to.len())?;
        same_device(stream, "the buffer", self.context)?;
        if to.is_empty() {
            return Ok(());
        }
        let _current = stream.context().enter()?;
        // SAFETY: the source lies inside device memory, the target is a slice that the caller keeps alive.
        let code = unsafe { sys::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), source.address, to.len(), stream.raw()) };
        check("cuMemcpyDtoHAsync", code)
    }
}

/// A range of device memory to write.
#[derive(Debug)]
pub struct DeviceSliceMut<'a>(DeviceSlice<'a>, PhantomData<&'a mut DeviceBuffer>);

impl<'a> DeviceSliceMut<'a> {
    /// Device memory that belongs to somebody else, a PyTorch tensor for one.
    ///
    /// # Safety
    /// As [`DeviceSlice::from_raw`]; what the memory holds may be overwritten.
    pub unsafe fn from_raw(context: &'a CudaContext, address: u64, bytes: usize) -> Self {
        // SAFETY: the same contract.
        Self(unsafe { DeviceSlice::from_raw(context, address, bytes) }, PhantomData)
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.bytes
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.0.bytes == 0
    }

    /// The device address.
    pub fn address(&self) -> u64 {
        self.0.address
    }

    /// The context that the memory belongs to.
    pub fn context(&self) -> &'a CudaContext {
        self.0.context
    }

    /// The first `bytes` bytes, for as long as this one.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`].
    pub fn take(self, bytes: usize) -> Result<Self, CudaError> {
        Ok(Self(self.0.sub_slice(0, bytes)?, PhantomData))
    }

    /// The first `bytes` bytes, and the others.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`].
    pub fn split_at(self, bytes: usize) -> Result<(Self, Self), CudaError> {
        let first = self.0.sub_slice(0, bytes)?;
        let rest = self.0.sub_slice(bytes, self.0.bytes - bytes)?;
        Ok((Self(first, PhantomData), Self(rest, PhantomData)))
    }

    /// `bytes` bytes from `offset`, borrowed from this one.
    ///
    /// # Errors
    /// [`CudaError::OutOfRange`].
    pub fn sub_slice_mut(&mut self, offset: usize, bytes: usize) -> Result<DeviceSliceMut<'_>, CudaError> {
        Ok(DeviceSliceMut(self.0.sub_slice(offset, bytes)?, PhantomData))
    }
}

/// Host memory that the device reads and writes directly, at the speed of the bus. Starts as zeros.
///
/// Locked pages are taken from all processes of the machine: keep these few and reuse them.
#[derive(Debug)]
pub struct PinnedBuffer {
    /// `None` only while it is dropped.
    memory: Option<LockedBuffer<u8>>,
    context: CudaContext,
}

impl PinnedBuffer {
    /// Allocates and locks.
    ///
    /// # Errors
    /// [`CudaError::OutOfPinnedMemory`], [`CudaError::Call`].
    pub fn new(context: &CudaContext, bytes: usize) -> Result<Self, CudaError> {
        let _current = context.enter()?;
        let memory = LockedBuffer::new(&0, bytes).map_err(|error| match error {
            cust::error::CudaError::OutOfMemory => CudaError::OutOfPinnedMemory { bytes },
            error => CudaError::Call { call: "cuMemAllocHost", code: error as i32 },
        })?;
        Ok(Self { memory: Some(memory), context: context.clone() })
    }
}

/// Whether all of `bytes` is locked memory that the device reads directly.
pub(super) fn is_pinned(context: &CudaContext, bytes: &[u8]) -> Result<bool, CudaError> {
    const HOST: u32 = sys::CUmemorytype_enum::CU_MEMORYTYPE_HOST as u32;
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return Ok(true) };
    let _current = context.enter()?;
    Ok([first, last].into_iter().all(|byte| {
        let mut kind = 0u32;
        let attribute = sys::CUpointer_attribute_enum::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
        let address = std::ptr::from_ref(byte).addr() as u64;
        // SAFETY: writes one number. The address is only looked up; one that the driver does not know is an error.
        let code = unsafe { sys::cuPointerGetAttribute((&raw mut kind).cast(), attribute, address) };
        code == sys::CUresult::CUDA_SUCCESS && kind == HOST
    }))
}

impl AsRef<[u8]> for PinnedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::ops::Deref for PinnedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.as_deref().unwrap_or_default()
    }
}

impl std::ops::DerefMut for PinnedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.memory.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        // Locked memory is freed in its context, which need not be this thread's current one.
        let current = self.context.enter();
        drop(self.memory.take());
        drop(current);
    }
}
