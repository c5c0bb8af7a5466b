//! Dequantisation on the device: the host's half of `kernels/dequant.cu`. The formula is [`wcodec_quant`]'s.

use wcodec_quant::{FloatType, Scheme};

use crate::launch::{self, Cut, Numbers};
use crate::{CudaError, DeviceBuffer, DeviceSlice, DeviceSliceMut, Stream};

/// A [`Scheme`] in device memory: scales, zero points, groups of rows.
#[derive(Debug)]
pub struct DeviceScheme {
    pub(crate) numbers: Numbers,
}

impl DeviceScheme {
    /// Copies a scheme to the device. Waits for the stream.
    ///
    /// # Errors
    /// [`CudaError::TooLarge`] for more than 2^31 - 1 rows or columns, [`CudaError::OutOfDeviceMemory`], [`CudaError::Call`].
    pub fn upload(stream: &Stream, scheme: &Scheme) -> Result<Self, CudaError> {
        let word = |what, value: usize| {
            u32::try_from(value).map_err(|_| CudaError::TooLarge { what, value: value as u64, limit: u32::MAX.into() })
        };
        let ([rows, cols], [block_rows, block_cols]) = (scheme.shape(), scheme.block());
        let shape = [word("the number of rows", rows)?, word("the number of columns", cols)?];
        let block = [word("the rows of a block", block_rows)?, word("the columns of a block", block_cols)?];
        let mut side: Vec<u8> = scheme.scales().iter().flat_map(|scale| scale.to_ne_bytes()).collect();
        let mut append = |part: Vec<u8>| {
            side.resize(side.len().next_multiple_of(16), 0);
            let at = side.len();
            side.extend_from_slice(&part);
            (!part.is_empty()).then_some(at)
        };
        let zeros_at = append(scheme.zeros().iter().flat_map(|zero| zero.to_ne_bytes()).collect());
        let groups_at = append(scheme.row_groups().iter().flat_map(|group| group.to_ne_bytes()).collect());
        let buffer = DeviceBuffer::from_host(stream, &side)?;
        let scale_cols = word("the number of scales", scheme.scale_cols())?;
        Ok(Self { numbers: Numbers { shape, code: scheme.code(), block, scale_cols, buffer, zeros_at, groups_at } })
    }

    /// Bytes of the codes.
    pub fn code_bytes(&self) -> usize {
        let [rows, cols] = self.numbers.shape;
        rows as usize * cols as usize * self.numbers.code.bits() / 8
    }

    /// Bytes of the output in a type.
    pub fn out_bytes(&self, float: FloatType) -> usize {
        let [rows, cols] = self.numbers.shape;
        rows as usize * cols as usize * float.bytes()
    }

    /// Bytes of device memory.
    pub fn device_bytes(&self) -> usize {
        self.numbers.buffer.len()
    }
}

/// Queues dequantising a matrix of codes, as many bytes as [`DeviceScheme::code_bytes`], into as many of `out` as
/// [`DeviceScheme::out_bytes`].
///
/// Fastest where rows, and groups in a row, are multiples of 16 bytes of output.
///
/// # Errors
/// [`CudaError::OutOfRange`] for other lengths, [`CudaError::OtherDevice`], and what the driver reports.
///
/// ```
/// use wcodec_cuda::{CudaContext, DeviceBuffer, DeviceScheme, Stream, dequantize};
/// use wcodec_quant::{Code, FloatType, Scheme};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let scheme = Scheme::new([2, 4], Code::I8, [1, 4], vec![0.5, 2.0])?;
/// # let Ok(context) = CudaContext::new(0) else { return Ok(()) };
/// let stream = Stream::new(&context)?;
/// let codes = DeviceBuffer::from_host(&stream, &[1, 2, 3, 4, 5, 6, 7, 8])?;
/// let mut out = DeviceBuffer::new(&context, 16)?;
/// let scheme = DeviceScheme::upload(&stream, &scheme)?;
/// dequantize(&stream, &scheme, codes.as_slice(), FloatType::BF16, out.as_slice_mut())?;
/// let mut back = [0; 16];
/// out.copy_to_host(&stream, 0, &mut back)?;
/// assert_eq!(back[14..], 0x4180u16.to_le_bytes());
/// # Ok(())
/// # }
/// ```
pub fn dequantize(
    stream: &Stream,
    scheme: &DeviceScheme,
    codes: DeviceSlice<'_>,
    float: FloatType,
    out: DeviceSliceMut<'_>,
) -> Result<(), CudaError> {
    launch::dequantize(stream, &scheme.numbers, (Cut::none(codes.len()), codes), float, out)
}
