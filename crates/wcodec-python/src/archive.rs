//! Reading archives.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use rayon::prelude::*;
use std::collections::BTreeMap;
use wcodec::Scratch;

use crate::encode::{self, Told};
use crate::memory::Region;
use crate::work::{interruptible, watched};
use crate::{errors, pool};

/// Bytes that are decoded between two looks at whether the caller wants to stop.
const BATCH_BYTES: u64 = 1 << 30;

/// An open archive.
#[pyclass(frozen, module = "wcodec._native")]
pub(crate) struct Archive {
    archive: Arc<wcodec::Archive>,
    path: Option<PathBuf>,
}

/// A tensor of an archive, with its decoder prepared.
#[pyclass(frozen, module = "wcodec._native")]
pub(crate) struct Tensor {
    tensor: wcodec::Tensor<'static>,
    path: Option<PathBuf>,
}

/// A tensor as a tuple: number, name, dtype, shape, decoded bytes.
type Info = (usize, String, String, Vec<u64>, u64);

#[pymethods]
impl Archive {
    /// Maps the archive at `path`.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let archive = py.detach(|| wcodec::Archive::open(&path)).map_err(|e| errors::of(py, &e, Some(&path)))?;
        Ok(Self { archive: Arc::new(archive), path: Some(path) })
    }

    /// An archive in memory; the bytes are shared, not copied.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: PyBackedBytes) -> PyResult<Self> {
        let archive = py.detach(|| wcodec::Archive::from_bytes(data)).map_err(|e| errors::of(py, &e, None))?;
        Ok(Self { archive: Arc::new(archive), path: None })
    }

    /// Paths of the files that the archive reproduces.
    #[getter]
    fn files(&self) -> Vec<String> {
        self.archive.container().directory().files.iter().map(|f| f.path.clone()).collect()
    }

    /// The tensors of the file `file`, or of all files; the first of those with one name.
    fn infos(&self, py: Python<'_>, file: Option<&str>) -> PyResult<Vec<Info>> {
        let container = self.archive.container();
        let directory = container.directory();
        if let Some(file) = file
            && !directory.files.iter().any(|f| f.path == file)
        {
            return Err(errors::bad_argument(py, &format!("no file `{file}` in the archive")));
        }
        let first = |name: &str| match file {
            Some(file) => container.find_in(file, name),
            None => container.find(name),
        };
        let tensors = directory.tensors.iter().enumerate().filter(|(i, t)| first(&t.name) == Some(*i));
        Ok(tensors.map(|(i, t)| (i, t.name.clone(), t.dtype.to_string(), t.shape.clone(), t.decoded_len)).collect())
    }

    /// Tensor number `index`.
    fn tensor(&self, py: Python<'_>, index: usize) -> PyResult<Tensor> {
        let tensor = py.detach(|| self.archive.shared_tensor_at(index)).map_err(|e| self.error(py, &e))?;
        Ok(Tensor { tensor, path: self.path.clone() })
    }

    /// A whole file of the archive.
    fn read_file<'py>(&self, py: Python<'py>, path: &str) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py.detach(|| self.archive.read_file(path)).map_err(|e| self.error(py, &e))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// The `__metadata__` of a safetensors file of the archive.
    fn file_metadata(&self, py: Python<'_>, path: &str) -> PyResult<BTreeMap<String, String>> {
        py.detach(|| self.archive.file_metadata(path)).map_err(|e| self.error(py, &e))
    }

    /// Sizes and modes of everything.
    fn report(&self, py: Python<'_>) -> PyResult<Told> {
        py.detach(|| self.archive.report()).map(encode::told).map_err(|e| self.error(py, &e))
    }

    /// Decodes tensors by number, each into its region, in parallel over all their chunks.
    fn decode(&self, py: Python<'_>, targets: Vec<(usize, Region)>) -> PyResult<()> {
        let mut outs = targets.iter().map(|(_, region)| region.fresh(py)).collect::<PyResult<Vec<_>>>()?;
        let archive = &self.archive;
        let bytes: u64 = outs.iter().map(|out| out.len() as u64).sum();
        let work = || {
            let tensors =
                targets.par_iter().map(|&(index, _)| archive.tensor_at(index)).collect::<wcodec::Result<Vec<_>>>()?;
            wcodec::decode_many(&tensors, &mut outs)
        };
        let work = || pool::install(None, work);
        // A thread of its own is worth its start only where somebody could get impatient.
        let done = if bytes < BATCH_BYTES { py.detach(work) } else { interruptible(py, work)? };
        done.map_err(|error| self.error(py, &error))
    }

    /// Restores what the archive was made from.
    fn decompress(
        &self,
        py: Python<'_>,
        output: PathBuf,
        overwrite: bool,
        threads: Option<usize>,
        progress: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Told> {
        let done = watched(py, progress.as_ref(), |watch| {
            pool::install(threads, || wcodec::decompress(&self.archive, &output, overwrite, watch))
        })?;
        done.map(encode::told).map_err(|error| self.error(py, &error))
    }

    /// Decodes everything, writes nothing, compares all checksums.
    fn verify(&self, py: Python<'_>, threads: Option<usize>, progress: Option<Bound<'_, PyAny>>) -> PyResult<Told> {
        let done =
            watched(py, progress.as_ref(), |watch| pool::install(threads, || wcodec::verify(&self.archive, watch)))?;
        done.map(encode::told).map_err(|error| self.error(py, &error))
    }
}

impl Archive {
    pub(crate) fn inner(&self) -> &wcodec::Archive {
        &self.archive
    }

    /// The exception for `error`, which names this archive.
    pub(crate) fn error(&self, py: Python<'_>, error: &wcodec::Error) -> PyErr {
        errors::of(py, error, self.path.as_deref())
    }
}

#[pymethods]
impl Tensor {
    #[getter]
    fn name(&self) -> &str {
        self.tensor.name()
    }

    /// The safetensors name of the element type.
    #[getter]
    fn dtype(&self) -> String {
        self.tensor.dtype().to_string()
    }

    #[getter]
    fn shape(&self) -> Vec<u64> {
        self.tensor.shape().to_vec()
    }

    /// Decoded bytes.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.tensor.byte_len()
    }

    /// Stored bytes.
    #[getter]
    fn stored_bytes(&self) -> u64 {
        self.tensor.stored_len()
    }

    #[getter]
    fn mode(&self) -> String {
        self.tensor.mode().to_string()
    }

    /// Decodes the tensor into `region`.
    fn decode(&self, py: Python<'_>, region: Region) -> PyResult<()> {
        let out = region.bytes_mut(py)?;
        py.detach(|| pool::install(None, || self.tensor.decode_into(out))).map_err(|e| self.error(py, &e))
    }

    /// Decodes columns `first_col..last_col` of some ranges of rows, one behind the other, into `region`.
    fn decode_rows(
        &self,
        py: Python<'_>,
        ranges: Vec<(u64, u64)>,
        first_col: u64,
        last_col: u64,
        region: Region,
    ) -> PyResult<()> {
        let out = region.bytes_mut(py)?;
        let rows: u64 = ranges.iter().map(|(first, last)| last.saturating_sub(*first)).sum();
        let stride = usize::try_from(rows).ok().filter(|&rows| rows > 0).map_or(0, |rows| out.len() / rows);
        let mut jobs = Vec::with_capacity(ranges.len());
        let mut rest: &mut [u8] = out;
        for (first, last) in ranges {
            let len = usize::try_from(last.saturating_sub(first)).unwrap_or(usize::MAX).saturating_mul(stride);
            let Some((part, tail)) = rest.split_at_mut_checked(len) else {
                return Err(errors::bad_argument(py, "ranges of rows larger than their target"));
            };
            jobs.push((first..last, part));
            rest = tail;
        }
        let work = || {
            pool::install(None, || {
                jobs.into_par_iter().try_for_each_init(Scratch::default, |scratch, (range, part)| {
                    self.tensor.rect_into(range, first_col..last_col, part, scratch)
                })
            })
        };
        py.detach(work).map_err(|e| self.error(py, &e))
    }
}

impl Tensor {
    fn error(&self, py: Python<'_>, error: &wcodec::Error) -> PyErr {
        errors::of(py, error, self.path.as_deref())
    }
}
