//! The primary context of a device, and the kernels loaded into it.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use cust::context::Context;
use cust::sys;
use wcodec_kernels::Module;

use super::check;
use crate::device::{self, failed};
use crate::{CudaError, DeviceInfo};

/// A device's primary context, retained, and the kernels loaded into it. Clones share both.
#[derive(Clone)]
pub struct CudaContext(Arc<Inner>);

struct Inner {
    /// Released when dropped; until then its handle is valid.
    context: Context,
    device: DeviceInfo,
    loaded: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, Handle<sys::CUmodule>>,
    functions: HashMap<&'static CStr, Function>,
    /// Most dynamic shared memory of a block, once asked for.
    shared_memory: Option<u32>,
}

/// A driver handle. The driver's functions may be called from any thread.
#[derive(Clone, Copy)]
struct Handle<T>(T);

// SAFETY: handles are opaque to this process, and the driver synchronises its own use of what they stand for.
unsafe impl<T> Send for Handle<T> {}

/// A kernel. Valid as long as the context whose [`CudaContext::function`] returned it.
#[derive(Clone, Copy)]
pub(super) struct Function(Handle<sys::CUfunction>);

impl Function {
    pub(super) fn raw(self) -> sys::CUfunction {
        self.0.0
    }
}

impl CudaContext {
    /// Retains the primary context of device `ordinal`, creating it when nobody has yet (about 0.2 s). The thread's
    /// current context stays what it was.
    ///
    /// # Errors
    /// [`CudaError::Driver`] without a driver, [`CudaError::NoSuchDevice`], [`CudaError::Call`].
    pub fn new(ordinal: u32) -> Result<Self, CudaError> {
        let (device, info) = device::open(ordinal)?;
        let mut before = std::ptr::null_mut();
        // SAFETY: writes one handle, null where there is no current context.
        check("cuCtxGetCurrent", unsafe { sys::cuCtxGetCurrent(&mut before) })?;
        let context = Context::new(device).map_err(failed("cuDevicePrimaryCtxRetain"))?;
        // SAFETY: the handle is null or that of the context that was current a moment ago; cust has replaced it.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(before) })?;
        Ok(Self(Arc::new(Inner { context, device: info, loaded: Mutex::default() })))
    }

    /// The device.
    pub fn device(&self) -> &DeviceInfo {
        &self.0.device
    }

    /// Makes this the thread's current context until the guard is dropped. All functions of this crate do so themselves; it is for
    /// callers that use the driver beside it.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn enter(&self) -> Result<Current<'_>, CudaError> {
        // SAFETY: the context is retained for as long as `self` lives.
        check("cuCtxPushCurrent", unsafe { sys::cuCtxPushCurrent_v2(self.0.context.as_raw()) })?;
        Ok(Current { _not_send: PhantomData, _context: PhantomData })
    }

    /// Waits for all work on the device that was queued through this context, by anybody.
    ///
    /// # Errors
    /// [`CudaError::Call`], also for failures of that work.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        let _current = self.enter()?;
        // SAFETY: has no preconditions.
        check("cuCtxSynchronize", unsafe { sys::cuCtxSynchronize() })
    }

    /// Free and total bytes of device memory.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn memory(&self) -> Result<(usize, usize), CudaError> {
        let _current = self.enter()?;
        cust::memory::mem_get_info().map_err(failed("cuMemGetInfo"))
    }

    /// The kernel `name` of `module`, which is compiled for the device when it is first asked for. Kernel names are unique over
    /// all modules.
    pub(super) fn function(&self, module: &Module, name: &'static CStr) -> Result<Function, CudaError> {
        // The maps stay whole if a holder of the lock panicked: entries are complete when they are inserted.
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = loaded.functions.get(name) {
            return Ok(function);
        }
        let _current = self.enter()?;
        let handle = match loaded.modules.get(module.name) {
            Some(&handle) => handle,
            None => {
                let handle = load(module, self.device())?;
                loaded.modules.insert(module.name, handle);
                handle
            }
        };
        let mut raw = std::ptr::null_mut();
        // SAFETY: the module is loaded in the current context, and the name is a C string.
        check("cuModuleGetFunction", unsafe { sys::cuModuleGetFunction(&mut raw, handle.0, name.as_ptr()) })?;
        let function = Function(Handle(raw));
        loaded.functions.insert(name, function);
        Ok(function)
    }

    /// The most shared memory, in bytes, that a block of this device can ask for.
    pub(super) fn shared_memory(&self) -> Result<u32, CudaError> {
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = loaded.shared_memory {
            return Ok(bytes);
        }
        let _current = self.enter()?;
        let (mut device, mut bytes) = (0, 0);
        // SAFETY: writes one number.
        check("cuCtxGetDevice", unsafe { sys::cuCtxGetDevice(&mut device) })?;
        let attribute = sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        // SAFETY: writes one number.
        check("cuDeviceGetAttribute", unsafe { sys::cuDeviceGetAttribute(&mut bytes, attribute, device) })?;
        let bytes = u32::try_from(bytes).unwrap_or(0);
        loaded.shared_memory = Some(bytes);
        Ok(bytes)
    }

    /// As [`CudaContext::function`], for a kernel that may be launched with all of [`CudaContext::shared_memory`].
    pub(super) fn function_with_shared_memory(
        &self,
        module: &Module,
        name: &'static CStr,
    ) -> Result<Function, CudaError> {
        let known = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner).functions.get(name).copied();
        if let Some(function) = known {
            return Ok(function);
        }
        let bytes = self.shared_memory()?;
        let function = self.function(module, name)?;
        let _current = self.enter()?;
        let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function belongs to a module loaded in the current context.
        check("cuFuncSetAttribute", unsafe { sys::cuFuncSetAttribute(function.raw(), attribute, bytes as i32) })?;
        Ok(function)
    }
}

impl PartialEq for CudaContext {
    fn eq(&self, other: &Self) -> bool {
        self.0.context.as_raw() == other.0.context.as_raw()
    }
}

impl Eq for CudaContext {}

impl std::fmt::Debug for CudaContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CudaContext").field(&self.0.device).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let loaded = self.loaded.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the context is still retained; its modules were loaded here and nobody can use them any more. At the end of a
        // process the driver may be gone already: then these calls return a code, which changes nothing.
        unsafe {
            if sys::cuCtxPushCurrent_v2(self.context.as_raw()) == sys::CUresult::CUDA_SUCCESS {
                for handle in loaded.modules.values() {
                    let _ = sys::cuModuleUnload(handle.0);
                }
                let mut popped = std::ptr::null_mut();
                let _ = sys::cuCtxPopCurrent_v2(&mut popped);
            }
        }
    }
}

/// While it lives, a context is current on this thread.
#[must_use = "the context is current only while this lives"]
#[derive(Debug)]
pub struct Current<'a> {
    /// The current context is a thread's.
    _not_send: PhantomData<*const ()>,
    _context: PhantomData<&'a CudaContext>,
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        let mut popped = std::ptr::null_mut();
        // SAFETY: writes one handle. It can only fail when the driver shuts down, and then there is nothing to restore.
        let _ = unsafe { sys::cuCtxPopCurrent_v2(&mut popped) };
    }
}

/// Compiles and loads a module into the current context, which is that of `device`.
fn load(module: &Module, device: &DeviceInfo) -> Result<Handle<sys::CUmodule>, CudaError> {
    let (major, minor) = device.compute_capability;
    let ptx = module.for_device(major, minor).ok_or_else(|| CudaError::DeviceTooOld {
        device: device.name.clone(),
        capability: device.compute_capability,
        module: module.name,
    })?;
    let rejected = |code: i32, log: String| CudaError::ModuleRejected { module: module.name, code, log };
    let text = CString::new(ptx.text).map_err(|error| rejected(0, error.to_string()))?;

    let mut log = vec![0u8; 8192];
    let mut options =
        [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    // The driver takes option values by value where they fit into a pointer.
    let mut values = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut::<c_void>(log.len())];
    let mut raw = std::ptr::null_mut();
    // SAFETY: the image is a C string, the two arrays are as long as stated, and the log buffer is as long as its option
    // says and outlives the call.
    let code = unsafe {
        sys::cuModuleLoadDataEx(
            &mut raw,
            text.as_ptr().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    if code == sys::CUresult::CUDA_SUCCESS {
        return Ok(Handle(raw));
    }
    let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
    Err(rejected(code as i32, String::from_utf8_lossy(&log[..end]).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wcodec_kernels::Ptx;

    #[test]
    fn a_rejected_module_carries_the_compilers_log() {
        const BROKEN: Module = Module {
            name: "broken",
            source_sha256: "",
            variants: &[Ptx {
                arch: 80,
                text: ".version 8.0\n.target sm_80\n.address_size 64\n.entry k() { nonsense; }\n",
            }],
        };
        let context = match CudaContext::new(0) {
            Ok(context) => context,
            Err(reason) => return println!("skipped: {reason}"),
        };
        match context.function(&BROKEN, c"k").err() {
            Some(CudaError::ModuleRejected { module: "broken", log, .. }) => assert!(log.contains("nonsense"), "{log}"),
            other => panic!("{other:?}"),
        }
    }
}
