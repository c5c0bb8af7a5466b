//! Making archives.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use wcodec::{DtypeCode, Report, TensorData};

use crate::memory::Region;
use crate::options::Options;
use crate::work::{Watch, watched};
use crate::{errors, pool};

/// What was made, for `wcodec.Report`: files, bytes of the files, bytes of the archive, and of every tensor name, dtype, shape, mode,
/// decoded and stored bytes.
pub(crate) type Told = (usize, u64, u64, Vec<(String, String, Vec<u64>, String, u64, u64)>);

pub(crate) fn told(report: Report) -> Told {
    let tensors = report
        .tensors
        .into_iter()
        .map(|t| (t.name, t.dtype.to_string(), t.shape, t.mode.to_string(), t.decoded_bytes, t.stored_bytes));
    (report.files, report.decoded_bytes, report.archive_bytes, tensors.collect())
}

/// Compresses a safetensors file or a checkpoint folder.
#[pyfunction]
pub(crate) fn compress(
    py: Python<'_>,
    input: PathBuf,
    output: PathBuf,
    options: Options,
    threads: Option<usize>,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<Told> {
    let options = options.encode(py)?;
    encode(py, threads, progress, |watch| wcodec::compress(&input, &output, &options, watch)).map(told)
}

/// A tensor in the caller's memory: name, dtype, shape, region.
type Given = (String, String, Vec<u64>, Region);

/// Compresses tensors into an archive at `output`.
#[pyfunction]
pub(crate) fn compress_tensors(
    py: Python<'_>,
    tensors: Vec<Given>,
    metadata: BTreeMap<String, String>,
    output: PathBuf,
    options: Options,
    threads: Option<usize>,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<Told> {
    let options = options.encode(py)?;
    let tensors = data(py, &tensors)?;
    encode(py, threads, progress, |watch| wcodec::compress_tensors(&tensors, &metadata, &output, &options, watch))
        .map(told)
}

/// Compresses tensors into the bytes of an archive.
#[pyfunction]
pub(crate) fn compress_tensors_to_bytes<'py>(
    py: Python<'py>,
    tensors: Vec<Given>,
    metadata: BTreeMap<String, String>,
    options: Options,
    threads: Option<usize>,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let options = options.encode(py)?;
    let tensors = data(py, &tensors)?;
    let made =
        encode(py, threads, progress, |watch| wcodec::compress_tensors_to_vec(&tensors, &metadata, &options, watch))?;
    Ok(PyBytes::new(py, &made))
}

fn data<'a>(py: Python<'_>, tensors: &'a [Given]) -> PyResult<Vec<TensorData<'a>>> {
    tensors
        .iter()
        .map(|(name, dtype, shape, region)| {
            let dtype = DtypeCode::from_name(dtype)
                .ok_or_else(|| errors::bad_argument(py, &format!("tensor `{name}`: no dtype `{dtype}`")))?;
            Ok(TensorData { name, dtype, shape, data: region.bytes(py)? })
        })
        .collect()
}

fn encode<T: Send>(
    py: Python<'_>,
    threads: Option<usize>,
    progress: Option<Bound<'_, PyAny>>,
    work: impl FnOnce(&Watch) -> wcodec::Result<T> + Send,
) -> PyResult<T> {
    let done = watched(py, progress.as_ref(), |watch| pool::install(threads, || work(watch)))?;
    done.map_err(|error| errors::of(py, &error, None))
}
