//! What can go wrong, by who is at fault: the machine, the device, the caller.

use wcodec_driver::{DriverError, error_name, error_text};

/// Why something could not be done on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// The machine has no usable CUDA driver.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// nvCOMP is missing, or refused something.
    #[error(transparent)]
    Nvcomp(#[from] crate::NvcompError),
    /// There is no device of that number.
    #[error("there is no CUDA device {ordinal}: this machine has {available}")]
    NoSuchDevice {
        /// The number asked for, counted from 0.
        ordinal: u32,
        /// How many devices there are.
        available: u32,
    },
    /// The device is older than every variant of a kernel.
    #[error("{device} has compute capability {}.{}, which is too old for kernel {module}", .capability.0, .capability.1)]
    DeviceTooOld {
        /// The device's name.
        device: String,
        /// Its compute capability, major and minor.
        capability: (u32, u32),
        /// The kernel's module.
        module: &'static str,
    },
    /// The driver does not accept a kernel's PTX.
    #[error("the driver rejected kernel {module}: {} ({code}): {log}", error_name(*.code))]
    ModuleRejected {
        /// The kernel's module.
        module: &'static str,
        /// The driver's result code.
        code: i32,
        /// The PTX compiler's log, possibly empty.
        log: String,
    },
    /// The device has not enough free memory.
    #[error("{bytes} bytes do not fit into the memory of the device")]
    OutOfDeviceMemory {
        /// The size asked for.
        bytes: usize,
    },
    /// The driver could not lock enough host memory.
    #[error("{bytes} bytes of host memory could not be locked")]
    OutOfPinnedMemory {
        /// The size asked for.
        bytes: usize,
    },
    /// A range does not lie inside a buffer.
    #[error("bytes {offset}..{} are outside a buffer of {size} bytes", .offset.saturating_add(*.bytes))]
    OutOfRange {
        /// First byte of the range.
        offset: usize,
        /// Length of the range.
        bytes: usize,
        /// Length of the buffer.
        size: usize,
    },
    /// An address or a length is not a multiple of what the kernel needs.
    #[error("{what} is {value}, which is no multiple of {multiple}")]
    Misaligned {
        /// The argument.
        what: &'static str,
        /// Its value.
        value: u64,
        /// What it must be a multiple of.
        multiple: u64,
    },
    /// More work than one launch can take.
    #[error("{what} is {value}, more than the {limit} that one launch takes")]
    TooLarge {
        /// The argument.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The greatest possible value.
        limit: u64,
    },
    /// The parts of a compressed tensor do not fit each other.
    #[error("compressed tensor: {what}")]
    Inconsistent {
        /// The part that does not fit.
        what: &'static str,
    },
    /// A superblock's stream ends before its last symbol.
    #[error("superblock {superblock}: its stream is too short")]
    TruncatedSuperblock {
        /// Its number within the tensor, row by row.
        superblock: u64,
    },
    /// A superblock holds what no encoder writes.
    #[error("superblock {superblock}: corrupt")]
    CorruptSuperblock {
        /// Its number within the tensor, row by row.
        superblock: u64,
    },
    /// A buffer, an event and a stream that are used together belong to different devices.
    #[error("{what} belongs to another device than the stream")]
    OtherDevice {
        /// The argument.
        what: &'static str,
    },
    /// Any other failure that the driver reports, which can be that of work launched earlier.
    #[error("{call} returned {} ({code}): {}", error_name(*.code), error_text(*.code))]
    Call {
        /// The driver function.
        call: &'static str,
        /// Its result code.
        code: i32,
    },
}
