//! Tensors to load, open or not yet.

use std::sync::OnceLock;

use wcodec_container::{ArchiveReader, TensorEntry};
use wcodec_cuda::DeviceSliceMut;

use crate::archive::{Archive, Tensor};
use crate::error::{Error, Result};
use crate::mode::Mode;

/// A tensor to load: one that is open, or is opened when that is needed.
pub(super) enum Supply<'s> {
    Opened(&'s Tensor<'s>),
    /// `None` is one that cannot be opened.
    Lazy {
        archive: &'s Archive,
        index: usize,
        opened: OnceLock<Option<Tensor<'s>>>,
    },
}

impl<'s> Supply<'s> {
    pub(super) fn reader(&self) -> &'s ArchiveReader {
        match *self {
            Self::Opened(tensor) => tensor.reader(),
            Self::Lazy { archive, .. } => archive.container(),
        }
    }

    pub(super) fn entry(&self) -> &'s TensorEntry {
        match *self {
            Self::Opened(tensor) => tensor.entry(),
            Self::Lazy { archive, index, .. } => &archive.entries()[index],
        }
    }

    /// One that is not known is an error when the tensor is opened.
    pub(super) fn mode(&self) -> Mode {
        Mode::from_code(self.entry().mode).unwrap_or(Mode::Store)
    }

    /// As [`parts::is_plain`].
    pub(super) fn is_plain(&self) -> bool {
        self.mode() == Mode::Plain && self.entry().chunks.len() == 1
    }

    pub(super) fn tensor(&self) -> Result<&Tensor<'s>> {
        match self {
            Self::Opened(tensor) => Ok(tensor),
            Self::Lazy { archive, index, opened } => match opened.get_or_init(|| archive.tensor_at(*index).ok()) {
                Some(tensor) => Ok(tensor),
                None => archive.tensor_at(*index).and(Err(Error::NoSuchTensor(format!("number {index}")))),
            },
        }
    }
}

/// Outputs as long as their tensors.
pub(super) fn exact<'o>(supplies: &[Supply<'_>], outs: Vec<DeviceSliceMut<'o>>) -> Result<Vec<DeviceSliceMut<'o>>> {
    if supplies.len() != outs.len() {
        return Err(Error::BadArgument(format!("{} tensors, {} outputs", supplies.len(), outs.len())));
    }
    let exact = supplies.iter().zip(outs).map(|(supply, out)| {
        let (entry, present) = (supply.entry(), out.len());
        if (present as u64) < entry.decoded_len {
            let (name, len) = (&entry.name, entry.decoded_len);
            return Err(Error::BadArgument(format!(
                "tensor `{name}`: {len} bytes do not go into device memory of {present}"
            )));
        }
        Ok(out.take(entry.decoded_len as usize)?)
    });
    exact.collect()
}
