//! Which machine decodes.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// What a caller asks for: [`Backend::open`] finds it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// The first CUDA device, or the CPU where there is none (or this build has no feature `cuda`).
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this number, counted from 0. Tensors in zstd mode need nvCOMP there, while [`Backend::Auto`] leaves them to the
    /// CPU where it is missing.
    Cuda(u32),
}

/// What decodes: an opened [`Backend`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Device {
    /// The CPU, in the current rayon pool.
    Cpu,
    /// A CUDA device.
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::CudaDevice),
}

impl Backend {
    /// Opens the backend. [`Backend::Auto`] takes the CPU only where there is no driver or no device: a device that fails is an
    /// error, and so are damaged bytes later, on whatever device.
    ///
    /// ```
    /// use wcodec::Backend;
    /// let device = Backend::Auto.open()?;
    /// println!("decoding on {device}");
    /// assert_eq!(Backend::Cpu.open()?.backend(), Backend::Cpu);
    /// # Ok::<(), wcodec::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoBackend`] for CUDA in a build without the feature `cuda`; `Error::Cuda` when the device is not there, or fails.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            #[cfg(feature = "cuda")]
            Self::Cuda(ordinal) => Ok(Device::Cuda(crate::cuda::CudaDevice::open(ordinal)?.requiring_nvcomp())),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => Err(Error::NoBackend { backend: self, feature: "cuda" }),
            #[cfg(feature = "cuda")]
            Self::Auto => match crate::cuda::CudaDevice::open(0) {
                Ok(device) => Ok(Device::Cuda(device)),
                Err(Error::Cuda(error)) if crate::cuda::is_absent(&error) => Ok(Device::Cpu),
                Err(error) => Err(error),
            },
            #[cfg(not(feature = "cuda"))]
            Self::Auto => Ok(Device::Cpu),
        }
    }
}

impl Device {
    /// The backend that this is: never [`Backend::Auto`].
    pub fn backend(&self) -> Backend {
        match self {
            Self::Cpu => Backend::Cpu,
            #[cfg(feature = "cuda")]
            Self::Cuda(device) => Backend::Cuda(device.ordinal()),
        }
    }
}

/// `cpu`, or `cuda:0 (NVIDIA H100 80GB HBM3)`.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            #[cfg(feature = "cuda")]
            Self::Cuda(device) => write!(f, "{} ({})", self.backend(), device.name()),
        }
    }
}

/// `auto`, `cpu`, `cuda:0`.
impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// `auto`, `cpu`, `cuda` (the first device) or `cuda:N`.
impl FromStr for Backend {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::BadArgument(format!("unknown device `{text}`: auto, cpu, cuda or cuda:N"));
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let ordinal = text.strip_prefix("cuda:").filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
                ordinal.and_then(|n| n.parse().ok()).map(Self::Cuda).ok_or_else(unknown)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_backends_correspond() {
        for backend in [Backend::Auto, Backend::Cpu, Backend::Cuda(0), Backend::Cuda(17)] {
            assert_eq!(backend.to_string().parse::<Backend>().unwrap(), backend);
        }
        assert_eq!("cuda".parse::<Backend>().unwrap(), Backend::Cuda(0));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:+1", "cuda:-1", "cuda:99999999999", "CPU"] {
            assert!(matches!(text.parse::<Backend>(), Err(Error::BadArgument(_))), "{text}");
        }
    }
}
