//! The extension module `wcodec._native`: what the Python package in `python/wcodec` stands on. Its functions take addresses of memory
//! that the package's Python side has allocated; users call that side.

#![deny(unsafe_code)]

mod archive;
mod cuda;
mod encode;
mod errors;
mod memory;
mod options;
mod pool;
mod work;

use std::ffi::OsString;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::archive::{Archive, Tensor};
    #[pymodule_export]
    use super::cuda::{Cuda, DeviceTensor};
    #[pymodule_export]
    use super::encode::{compress, compress_tensors, compress_tensors_to_bytes};
    #[pymodule_export]
    use super::{call, main};

    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}

/// The `wcodec` command. Returns its exit status.
#[pyfunction]
fn main(py: Python<'_>, args: Vec<OsString>) -> u8 {
    py.detach(|| wcodec_cli::main(args))
}

/// What `bench` or `synth` print as JSON.
#[pyfunction]
fn call(py: Python<'_>, args: Vec<OsString>) -> PyResult<String> {
    let called = work::interruptible(py, move || wcodec_cli::call(args))?;
    called
        .map(|value| value.to_string())
        .map_err(|error| errors::of_command(py, &format!("{error:#}"), error.downcast_ref::<wcodec::Error>()))
}
