//! Which devices there are.

use cust::device::{Device, DeviceAttribute};
use wcodec_driver::DriverError;

use crate::CudaError;

/// A CUDA device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Its number, counted from 0 in the driver's order (`CUDA_VISIBLE_DEVICES` applies).
    pub ordinal: u32,
    /// Its name, as the driver gives it.
    pub name: String,
    /// Its compute capability, major and minor: `(9, 0)` for an H100.
    pub compute_capability: (u32, u32),
    /// All of its memory, in bytes.
    pub total_memory: u64,
    /// How many streaming multiprocessors it has.
    pub multiprocessors: u32,
}

/// All CUDA devices of this machine; none where there is a driver but no device.
///
/// # Errors
/// [`CudaError::Driver`] without a usable driver, [`CudaError::Call`] when the driver fails.
///
/// ```
/// match wcodec_cuda::devices() {
///     Ok(devices) => devices.iter().for_each(|device| println!("{}: {}", device.ordinal, device.name)),
///     Err(reason) => println!("{reason}"),
/// }
/// ```
pub fn devices() -> Result<Vec<DeviceInfo>, CudaError> {
    (0..count()?).map(|ordinal| open(ordinal).map(|(_, info)| info)).collect()
}

/// Device `ordinal`, and what is known about it.
pub(crate) fn open(ordinal: u32) -> Result<(Device, DeviceInfo), CudaError> {
    let available = count()?;
    if ordinal >= available {
        return Err(CudaError::NoSuchDevice { ordinal, available });
    }
    let device = Device::get_device(ordinal).map_err(failed("cuDeviceGet"))?;
    let attribute = |attribute| {
        let value = device.get_attribute(attribute).map_err(failed("cuDeviceGetAttribute"))?;
        // Counts and versions; no attribute used here is ever negative.
        Ok::<u32, CudaError>(u32::try_from(value).unwrap_or(0))
    };
    let info = DeviceInfo {
        ordinal,
        name: device.name().map_err(failed("cuDeviceGetName"))?,
        compute_capability: (
            attribute(DeviceAttribute::ComputeCapabilityMajor)?,
            attribute(DeviceAttribute::ComputeCapabilityMinor)?,
        ),
        total_memory: device.total_memory().map_err(failed("cuDeviceTotalMem"))? as u64,
        multiprocessors: attribute(DeviceAttribute::MultiprocessorCount)?,
    };
    Ok((device, info))
}

fn count() -> Result<u32, CudaError> {
    wcodec_driver::available()?;
    match cust::init(cust::CudaFlags::empty()) {
        Ok(()) => Device::num_devices().map_err(failed("cuDeviceGetCount")),
        Err(cust::error::CudaError::NoDevice) => Ok(0),
        Err(error) => Err(DriverError::Failed { function: "cuInit", code: error as i32 }.into()),
    }
}

/// Wraps an error of cust's.
pub(crate) fn failed(call: &'static str) -> impl Fn(cust::error::CudaError) -> CudaError {
    move |error| CudaError::Call { call, code: error as i32 }
}
