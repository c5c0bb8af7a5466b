//! cust on top of this crate. That this binary starts at all where no driver is installed is the first test; the others
//! are that errors arrive as values.

use cust::error::CudaError;

#[test]
fn cust_agrees_with_available() {
    match wcodec_driver::available() {
        Ok(version) => {
            assert!(version.major() >= 11, "{version}");
            // A driver without a device is legal: it must say so by a code.
            if let Err(error) = cust::init(cust::CudaFlags::empty()) {
                println!("driver {version} without a usable device: {error}");
            }
        }
        Err(wcodec_driver::DriverError::Missing { tried }) => {
            assert!(tried[0].contains("libcuda.so.1"), "{tried:?}");
            assert_eq!(cust::init(cust::CudaFlags::empty()), Err(CudaError::NoDevice));
            assert_eq!(cust::device::Device::num_devices(), Err(CudaError::NoDevice));
            assert_eq!(cust::quick_init().err(), Some(CudaError::NoDevice));
        }
        Err(error) => println!("the driver is unusable: {error}"),
    }
}

#[test]
fn every_error_can_be_printed() {
    for error in [CudaError::NoDevice, CudaError::InvalidPtx, CudaError::UnknownError, CudaError::NotSupported] {
        assert!(error.to_string().len() > 4, "{error:?}");
    }
}
