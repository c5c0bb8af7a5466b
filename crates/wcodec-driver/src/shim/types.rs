//! The C types in the driver's signatures, by their names in `cuda.h`. Handles and pointed-to structures are opaque,
//! enums are ints.
#![expect(non_camel_case_types, reason = "the names of cuda.h")]

pub(super) use std::ffi::{c_char, c_int, c_uchar, c_uint, c_ushort, c_void};

pub(super) type CUdevice = c_int;
pub(super) type CUdeviceptr = u64;
pub(super) type CUtexObject = u64;
pub(super) type CUsurfObject = u64;

pub(super) type CUarray = *mut c_void;
pub(super) type CUcontext = *mut c_void;
pub(super) type CUevent = *mut c_void;
pub(super) type CUexternalMemory = *mut c_void;
pub(super) type CUfunction = *mut c_void;
pub(super) type CUgraph = *mut c_void;
pub(super) type CUgraphNode = *mut c_void;
pub(super) type CUlinkState = *mut c_void;
pub(super) type CUmodule = *mut c_void;
pub(super) type CUstream = *mut c_void;

pub(super) type CUdevice_attribute = c_int;
pub(super) type CUfunc_cache = c_int;
pub(super) type CUfunction_attribute = c_int;
pub(super) type CUgraphNodeType = c_int;
pub(super) type CUjitInputType = c_int;
pub(super) type CUjit_option = c_int;
pub(super) type CUlimit = c_int;
pub(super) type CUmem_advise = c_int;
pub(super) type CUpointer_attribute = c_int;
pub(super) type CUsharedconfig = c_int;
pub(super) type CUstreamCaptureStatus = c_int;

pub(super) type CUDA_ARRAY3D_DESCRIPTOR = c_void;
pub(super) type CUDA_EXTERNAL_MEMORY_BUFFER_DESC = c_void;
pub(super) type CUDA_EXTERNAL_MEMORY_HANDLE_DESC = c_void;
pub(super) type CUDA_KERNEL_NODE_PARAMS = c_void;
pub(super) type CUDA_MEMCPY2D = c_void;
pub(super) type CUDA_RESOURCE_DESC = c_void;
pub(super) type CUDA_RESOURCE_VIEW_DESC = c_void;
pub(super) type CUDA_TEXTURE_DESC = c_void;

pub(super) type CUhostFn = Option<unsafe extern "C" fn(*mut c_void)>;
pub(super) type CUoccupancyB2DSize = Option<unsafe extern "C" fn(c_int) -> usize>;
