//! Decoding on a CUDA device, into PyTorch's memory, on PyTorch's streams.

use pyo3::prelude::*;
use rayon::prelude::*;
use wcodec::cuda::{CudaDevice, DecodedBy};

use crate::archive::Archive;
use crate::memory::{self, Region};
use crate::{errors, pool};

/// A CUDA device, in its primary context: the one that PyTorch works in.
#[pyclass(frozen, module = "wcodec._native")]
pub(crate) struct Cuda(CudaDevice);

/// A tensor in device memory, compressed.
#[pyclass(frozen, module = "wcodec._native")]
pub(crate) struct DeviceTensor(wcodec::cuda::DeviceTensor);

#[pymethods]
impl Cuda {
    /// Opens device `ordinal`.
    #[new]
    fn new(py: Python<'_>, ordinal: u32) -> PyResult<Self> {
        py.detach(|| CudaDevice::open(ordinal)).map(Self).map_err(|error| errors::of(py, &error, None))
    }

    /// The same device, whose launches leave so many multiprocessors to what runs beside them on other streams.
    fn sparing(&self, multiprocessors: u32) -> Self {
        Self(self.0.sparing(multiprocessors))
    }

    /// Copies tensors of an archive, by number, to the device as they are stored. Their memory is freed with the last of them. Waits
    /// for the stream.
    fn upload(
        &self,
        py: Python<'_>,
        archive: &Archive,
        indices: Vec<usize>,
        stream: usize,
    ) -> PyResult<Vec<DeviceTensor>> {
        let stream = memory::stream(self.0.context(), stream);
        let work = || {
            let tensors = indices.par_iter().map(|&index| archive.inner().tensor_at(index));
            self.0.upload(&tensors.collect::<wcodec::Result<Vec<_>>>()?, &stream)
        };
        let uploaded = py.detach(|| pool::install(None, work)).map_err(|error| archive.error(py, &error))?;
        Ok(uploaded.into_iter().map(DeviceTensor).collect())
    }

    /// Decodes tensors of an archive, by number, once, each into its region of device memory. Waits.
    fn load(&self, py: Python<'_>, archive: &Archive, targets: Vec<(usize, Region)>, stream: usize) -> PyResult<()> {
        let stream = memory::stream(self.0.context(), stream);
        let outs =
            targets.iter().map(|(_, region)| region.device(py, self.0.context())).collect::<PyResult<Vec<_>>>()?;
        let indices: Vec<usize> = targets.iter().map(|&(index, _)| index).collect();
        let work = || self.0.load_from(archive.inner(), &indices, outs, &stream);
        let loaded = py.detach(|| pool::install(None, work));
        loaded.map(drop).map_err(|error| archive.error(py, &error))
    }

    /// Queues the decoding of rows of tensors, each range into its region of device memory.
    fn decode_rows(
        &self,
        py: Python<'_>,
        items: Vec<(Py<DeviceTensor>, u64, u64, Region)>,
        stream: usize,
    ) -> PyResult<()> {
        let stream = memory::stream(self.0.context(), stream);
        let mut given = Vec::with_capacity(items.len());
        for (tensor, first, last, region) in &items {
            given.push((&tensor.get().0, *first..*last, region.device(py, self.0.context())?));
        }
        py.detach(|| self.0.decode_rows(given, &stream)).map_err(|error| errors::of(py, &error, None))
    }

    /// Waits for the stream, and raises if anything that was decoded of these tensors was damaged.
    fn check(&self, py: Python<'_>, tensors: Vec<Py<DeviceTensor>>, stream: usize) -> PyResult<()> {
        let stream = memory::stream(self.0.context(), stream);
        let given: Vec<&wcodec::cuda::DeviceTensor> = tensors.iter().map(|tensor| &tensor.get().0).collect();
        py.detach(|| self.0.check(given, &stream)).map_err(|error| errors::of(py, &error, None))
    }
}

#[pymethods]
impl DeviceTensor {
    /// Bytes of device memory that it takes.
    #[getter]
    fn device_bytes(&self) -> u64 {
        self.0.device_bytes()
    }

    /// What brings its bytes into the caller's memory: "kernel", "nvcomp", "copy", or "host" for one that the CPU has
    /// decoded on upload.
    #[getter]
    fn decoded_by(&self) -> &'static str {
        match self.0.decoded_by() {
            DecodedBy::Kernel => "kernel",
            DecodedBy::Nvcomp => "nvcomp",
            DecodedBy::Copy => "copy",
            _ => "host",
        }
    }
}
