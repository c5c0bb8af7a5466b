//! Rust errors as the exceptions of `wcodec.errors`.

use std::io;
use std::path::Path;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use wcodec::{ContainerError, Error};

/// What an exception says.
#[derive(Default)]
struct Told<'a> {
    class: &'static str,
    file: Option<&'a Path>,
    tensor: Option<&'a str>,
    offset: Option<u64>,
}

/// The exception for `error`; `file` is the archive that was read, where there is one.
pub(crate) fn of(py: Python<'_>, error: &Error, file: Option<&Path>) -> PyErr {
    let mut told = told(error);
    told.file = told.file.or(file);
    let message = match file {
        // Errors of the operating system name the file already.
        Some(file)
            if !matches!(told.class, "IoError" | "NotFoundError" | "AlreadyExistsError" | "TensorNotFoundError") =>
        {
            format!("{}: {error}", file.display())
        }
        _ => error.to_string(),
    };
    raise(py, &message, &told)
}

/// The exception for an argument that cannot be.
pub(crate) fn bad_argument(py: Python<'_>, message: &str) -> PyErr {
    raise(py, message, &Told { class: "BadArgumentError", ..Told::default() })
}

/// The exception for an error of the command: its whole message, and the codec's error if that is what it was.
pub(crate) fn of_command(py: Python<'_>, message: &str, error: Option<&Error>) -> PyErr {
    raise(py, message, &error.map_or(Told { class: "WcodecError", ..Told::default() }, told))
}

fn told(error: &Error) -> Told<'_> {
    let at = |class, tensor, offset| Told { class, tensor, offset, ..Told::default() };
    match error {
        Error::Container(container) => match container {
            ContainerError::Truncated { offset, .. } => at("TruncatedError", None, Some(*offset)),
            ContainerError::Corrupt { offset, .. } => at("CorruptError", None, Some(*offset)),
            ContainerError::ChecksumMismatch { offset, .. } => at("ChecksumError", None, Some(*offset)),
            ContainerError::UnsupportedVersion { .. } => at("UnsupportedError", None, None),
            ContainerError::UnsupportedFeature { offset, .. } => at("UnsupportedError", None, Some(*offset)),
            ContainerError::BadArgument { .. } => at("BadArgumentError", None, None),
            ContainerError::AlreadyExists { path } => Told { file: Some(path), ..at("AlreadyExistsError", None, None) },
            ContainerError::Io { path, source } => Told { file: path.as_deref(), ..at(io_class(source), None, None) },
            _ => at("WcodecError", None, None),
        },
        Error::Rans { tensor, offset, .. } | Error::Corrupt { tensor, offset, .. } => {
            at("CorruptError", Some(tensor), Some(*offset))
        }
        Error::Checksum { .. } => at("ChecksumError", None, None),
        Error::Safetensors { file, offset, .. } => Told { file: Some(file), ..at("InputError", None, Some(*offset)) },
        Error::MissingShard { index, .. } => Told { file: Some(index), ..at("InputError", None, None) },
        Error::NoSuchTensor(name) => at("TensorNotFoundError", Some(name), None),
        Error::BadArgument(_) => at("BadArgumentError", None, None),
        Error::AlreadyExists(path) => Told { file: Some(path), ..at("AlreadyExistsError", None, None) },
        Error::Io { path, source } => Told { file: Some(path), ..at(io_class(source), None, None) },
        Error::Cuda(_) | Error::NoBackend { .. } => at("DeviceError", None, None),
        _ => at("WcodecError", None, None),
    }
}

fn io_class(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::NotFound { "NotFoundError" } else { "IoError" }
}

/// Makes the exception; where even that fails, returns that failure.
fn raise(py: Python<'_>, message: &str, told: &Told<'_>) -> PyErr {
    let made = || -> PyResult<Bound<'_, PyAny>> {
        let named = PyDict::new(py);
        named.set_item("file", told.file.map(|f| f.display().to_string()))?;
        named.set_item("tensor", told.tensor)?;
        named.set_item("offset", told.offset)?;
        py.import("wcodec.errors")?.getattr(told.class)?.call((message,), Some(&named))
    };
    made().map_or_else(|error| error, PyErr::from_value)
}
