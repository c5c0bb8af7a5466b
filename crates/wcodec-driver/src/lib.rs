//! The CUDA driver, resolved when it is first called, so that one binary starts with or without `libcuda`.
//!
//! `cust` declares the driver's `cu*` functions and expects the linker to find them in `libcuda`. A program linked
//! that way does not start where no driver is installed. This crate defines those symbols itself: each one opens
//! `libcuda.so.1` on the first call and passes the call on. Without a driver they return `CUDA_ERROR_NO_DEVICE`,
//! and where the driver lacks a function, `CUDA_ERROR_NOT_FOUND`.
//!
//! To link it, a crate that uses `cust` calls [`available`] somewhere (which also is the polite thing to do first);
//! that reference pulls the whole table of symbols into the link.
//!
//! # Surprises
//! - `cust_raw` needs a folder to look for `-lcuda` in. Inside this workspace `.cargo/config.toml` points
//!   `CUDA_LIBRARY_PATH` at `link/`, which holds an empty archive. A build elsewhere needs a CUDA toolkit folder or
//!   the same variable; the binary is the same, since the symbols defined here win over the library's.
//! - `cust_raw` declares result codes as a Rust `enum`. A newer driver returns codes that the enum lacks, which would be
//!   undefined behaviour, so unknown codes become `CUDA_ERROR_UNKNOWN` (999) here.
//! - `cust`'s `Display` of an error panics when `cuGetErrorString` fails, so that one never fails here.
//! - On Linux the symbols are hidden (`.hidden`, in the object file itself). A shared library that contains this crate, such as
//!   a Python extension, therefore exports no `cu*` symbol, and a process that also loads the real driver, PyTorch
//!   for one, sees only the real ones. No version script is needed. `nm -D --defined-only LIBRARY | grep ' cu'`
//!   shows nothing.
#![deny(unsafe_code)]

mod codes;
mod shim;

pub use codes::{error_name, error_text};

/// The installed CUDA driver's version, as the newest CUDA release that it supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriverVersion(i32);

impl DriverVersion {
    /// The major version: 13 of CUDA 13.0.
    pub fn major(self) -> i32 {
        self.0 / 1000
    }

    /// The minor version: 0 of CUDA 13.0.
    pub fn minor(self) -> i32 {
        self.0 % 1000 / 10
    }
}

impl std::fmt::Display for DriverVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

/// Why the CUDA driver cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// No driver library could be opened.
    #[error("no CUDA driver is installed (tried {})", .tried.join("; "))]
    Missing {
        /// One line per library that was tried: its name and the loader's reason.
        tried: Vec<String>,
    },
    /// The driver library is there, but does not work.
    #[error("the CUDA driver does not work: {function} returned {} ({code}): {}", error_name(*.code), error_text(*.code))]
    Failed {
        /// The driver function that failed.
        function: &'static str,
        /// Its result code, as in `cuda.h`.
        code: i32,
    },
}

/// The version of the installed driver, or why there is none. The library is opened once per process; the
/// answer for a missing driver does not change afterwards. A driver without any device still answers with its version.
///
/// # Errors
/// [`DriverError::Missing`] without a driver library, [`DriverError::Failed`] when it does not answer (a toolkit's stub
/// library, for one).
///
/// ```
/// match wcodec_driver::available() {
///     Ok(version) => println!("CUDA {version}"),
///     Err(reason) => println!("{reason}"),
/// }
/// ```
pub fn available() -> Result<DriverVersion, DriverError> {
    shim::missing().map_or(Ok(()), |tried| Err(DriverError::Missing { tried: tried.to_vec() }))?;
    shim::driver_version()
        .map(DriverVersion)
        .map_err(|code| DriverError::Failed { function: "cuDriverGetVersion", code })
}

/// The names of the driver functions that this crate defines.
pub fn symbols() -> impl Iterator<Item = &'static str> {
    shim::SYMBOLS.iter().copied()
}
