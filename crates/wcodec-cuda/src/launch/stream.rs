//! Queues of work, and marks in them.

use std::ffi::c_void;

use cust::sys;

use super::{check, context::CudaContext, same_device};
use crate::CudaError;

/// A queue of work on a device: one of its own, or one that belongs to somebody else (PyTorch's current stream).
#[derive(Debug)]
pub struct Stream {
    /// Belongs to `context`; valid as long as `self`.
    raw: sys::CUstream,
    owned: bool,
    context: CudaContext,
}

// SAFETY: the driver's stream functions may be called from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above; all methods take the stream by shared reference to the driver.
unsafe impl Sync for Stream {}

impl Stream {
    /// A new stream. It does not wait for the legacy default stream.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn new(context: &CudaContext) -> Result<Self, CudaError> {
        const NON_BLOCKING: u32 = 1;
        let _current = context.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one handle.
        check("cuStreamCreate", unsafe { sys::cuStreamCreate(&mut raw, NON_BLOCKING) })?;
        Ok(Self { raw, owned: true, context: context.clone() })
    }

    /// The legacy default stream of a context.
    pub fn legacy_default(context: &CudaContext) -> Self {
        Self { raw: std::ptr::null_mut(), owned: false, context: context.clone() }
    }

    /// Borrows a stream that belongs to somebody else, such as `torch.cuda.current_stream().cuda_stream`. It is not destroyed
    /// with the returned value.
    ///
    /// # Safety
    /// `raw` is a `CUstream` (or `cudaStream_t`) of `context`'s device's primary context, and it is not destroyed
    /// before the returned value. `CU_STREAM_PER_THREAD`, which candle takes for its own, is another stream on every thread: what is
    /// returned then serves the calling thread alone.
    pub unsafe fn from_raw(context: &CudaContext, raw: *mut c_void) -> Self {
        Self { raw: raw.cast(), owned: false, context: context.clone() }
    }

    /// Whether this is the handle of every thread's own default stream, so that other threads cannot queue work in it.
    pub fn is_per_thread(&self) -> bool {
        const PER_THREAD: usize = 2;
        self.raw.addr() == PER_THREAD
    }

    /// The `CUstream`, for other users of the driver. Valid as long as `self`.
    pub fn as_raw(&self) -> *mut c_void {
        self.raw.cast()
    }

    /// The context that the stream belongs to.
    pub fn context(&self) -> &CudaContext {
        &self.context
    }

    /// Waits until all work queued so far is done.
    ///
    /// # Errors
    /// [`CudaError::Call`], also for failures of that work.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        let _current = self.context.enter()?;
        // SAFETY: the stream is valid as long as `self`.
        check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.raw) })
    }

    /// Lets work queued from now on wait for `event`. Does not block the host.
    ///
    /// # Errors
    /// [`CudaError::OtherDevice`], [`CudaError::Call`].
    pub fn wait(&self, event: &Event) -> Result<(), CudaError> {
        same_device(self, "the event", &event.context)?;
        let _current = self.context.enter()?;
        // SAFETY: both handles are valid as long as their owners.
        check("cuStreamWaitEvent", unsafe { sys::cuStreamWaitEvent(self.raw, event.raw, 0) })
    }

    pub(super) fn raw(&self) -> sys::CUstream {
        self.raw
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.owned
            && let Ok(_current) = self.context.enter()
        {
            // SAFETY: made by `new`, destroyed once. Queued work still completes. A failure is that of earlier work.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.raw) };
        }
    }
}

/// A mark in a stream, with the time at which the device passed it.
#[derive(Debug)]
pub struct Event {
    /// Belongs to `context`; valid as long as `self`.
    raw: sys::CUevent,
    context: CudaContext,
}

// SAFETY: the driver's event functions may be called from any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// A new event, not recorded yet.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn new(context: &CudaContext) -> Result<Self, CudaError> {
        Self::with_flags(context, 0)
    }

    /// One without a time, which costs streams less: it is for order alone.
    pub(super) fn untimed(context: &CudaContext) -> Result<Self, CudaError> {
        const DISABLE_TIMING: u32 = 2;
        Self::with_flags(context, DISABLE_TIMING)
    }

    fn with_flags(context: &CudaContext, flags: u32) -> Result<Self, CudaError> {
        let _current = context.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one handle.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&mut raw, flags) })?;
        Ok(Self { raw, context: context.clone() })
    }

    /// Puts the mark behind all work queued on `stream` so far.
    ///
    /// # Errors
    /// [`CudaError::OtherDevice`], [`CudaError::Call`].
    pub fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        same_device(stream, "the event", &self.context)?;
        let _current = self.context.enter()?;
        // SAFETY: both handles are valid as long as their owners.
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.raw, stream.raw()) })
    }

    /// Waits until the device has passed the mark; returns at once when it was never recorded.
    ///
    /// # Errors
    /// [`CudaError::Call`], also for failures of the work before it.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        let _current = self.context.enter()?;
        // SAFETY: the event is valid as long as `self`.
        check("cuEventSynchronize", unsafe { sys::cuEventSynchronize(self.raw) })
    }

    /// Milliseconds of device time from `start` to this mark, to about half a microsecond. Waits for this mark.
    ///
    /// # Errors
    /// [`CudaError::Call`], also when one of the two was never recorded.
    pub fn elapsed_ms(&self, start: &Event) -> Result<f32, CudaError> {
        self.synchronize()?;
        let _current = self.context.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: both events are valid as long as their owners; writes one float.
        check("cuEventElapsedTime", unsafe { sys::cuEventElapsedTime(&mut milliseconds, start.raw, self.raw) })?;
        Ok(milliseconds)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(_current) = self.context.enter() {
            // SAFETY: made by `new`, destroyed once; the driver keeps what queued work still needs.
            let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}
