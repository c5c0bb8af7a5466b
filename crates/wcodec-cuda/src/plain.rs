//! Tensors in plain mode: their byte planes, checked and laid out for the kernel.

use std::ops::Range;

use wcodec_rans::plain::{Form, parse};

use crate::lanes::{error_of, inconsistent};
use crate::launch::{self, PlainResident, PlainUploaded};
use crate::{CudaDecoder, CudaError, DeviceSliceMut, Stream};

/// The parts of a tensor in plain mode, in host memory.
#[derive(Clone, Copy, Debug)]
pub struct PlainTensor<'a> {
    /// Number of elements, at most 2^18.
    pub elements: usize,
    /// Whether the last two bytes of every element, as a number, have to be rotated right by one bit.
    pub rotated: bool,
    /// Plain data of all first bytes of the elements, all second bytes, and so on: 1, 2, 4 or 8 planes.
    pub planes: &'a [&'a [u8]],
}

/// A tensor in plain mode in device memory, compressed.
#[derive(Debug)]
pub struct DevicePlain {
    resident: PlainResident,
}

/// A tensor whose parts were found to be in order.
#[derive(Debug)]
pub struct PreparedPlain {
    tensor: PlainUploaded,
}

/// Bytes of a `struct Plane` of plain.cu.
const PLANE_BYTES: usize = 16;
const MOST_ELEMENTS: usize = 1 << 18;

impl PreparedPlain {
    /// Checks the parts; planes in the adaptive code, 256 bytes at most, are decoded here. Work for the host alone.
    ///
    /// # Errors
    /// [`CudaError::Inconsistent`] for parts that cannot be, or planes that are damaged where it shows before decoding.
    pub fn new(tensor: &PlainTensor<'_>) -> Result<Self, CudaError> {
        let n = tensor.planes.len();
        if !matches!(n, 1 | 2 | 4 | 8) || tensor.elements > MOST_ELEMENTS || (tensor.rotated && n < 2) {
            return inconsistent("1, 2, 4 or 8 planes, of at most 2^18 elements, or a rotation of one plane");
        }
        let (mut heads, mut body, mut table_bits) = (Vec::with_capacity(n * PLANE_BYTES), Vec::new(), 0);
        for plane in tensor.planes {
            let Ok(form) = parse(plane, tensor.elements) else { return inconsistent("plain data of a plane") };
            let (symbols_at, mut count) = (n * PLANE_BYTES + body.len(), 0u32);
            let bytes = match &form {
                Form::Stored(bytes) => *bytes,
                Form::Decoded(bytes) => bytes,
                Form::Coded { tables, stream } => {
                    let p = tables.table_bits();
                    table_bits = table_bits.max(p);
                    for (&freq, &value) in tables.tables()[0].freqs().iter().zip(tables.values()) {
                        let symbol = u32::from(freq) | u32::from(value) << 16 | p << 24;
                        body.extend_from_slice(&symbol.to_ne_bytes());
                        count += 1;
                    }
                    stream
                }
            };
            let at = n * PLANE_BYTES + body.len();
            for word in [at as u32, bytes.len() as u32, symbols_at as u32, count] {
                heads.extend_from_slice(&word.to_ne_bytes());
            }
            body.extend_from_slice(bytes);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        heads.append(&mut body);
        Ok(Self {
            tensor: PlainUploaded {
                elements: tensor.elements,
                element_bytes: n,
                rotated: tensor.rotated,
                table_bits,
                bytes: heads,
            },
        })
    }

    pub(crate) fn into_parts(self) -> PlainUploaded {
        self.tensor
    }
}

impl DevicePlain {
    /// Copies tensors to the device, in one piece. Waits for the stream.
    ///
    /// # Errors
    /// [`CudaError::OutOfDeviceMemory`], [`CudaError::Call`].
    pub fn upload(stream: &Stream, tensors: Vec<PreparedPlain>) -> Result<Vec<Self>, CudaError> {
        let uploads = tensors.into_iter().map(PreparedPlain::into_parts).collect();
        Ok(PlainResident::upload(stream, uploads)?.into_iter().map(|resident| Self { resident }).collect())
    }

    /// Bytes of the decoded tensor.
    pub fn decoded_bytes(&self) -> usize {
        self.resident.decoded_bytes()
    }

    /// Bytes of device memory that the tensor takes.
    pub fn device_bytes(&self) -> usize {
        self.resident.device_bytes()
    }

    /// The failures of many tensors so far, in their order. Waits for the stream.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn failures<'a>(
        stream: &Stream,
        tensors: impl IntoIterator<Item = &'a Self>,
    ) -> Result<Vec<Option<CudaError>>, CudaError> {
        let failures = launch::failures(stream, tensors.into_iter().map(|tensor| &tensor.resident.side))?;
        Ok(failures.into_iter().map(|failure| failure.map(error_of)).collect())
    }
}

impl CudaDecoder {
    /// Queues the decoding of parts of tensors in plain mode, as [`CudaDecoder::decode_ranges`] does, but for any bytes. The whole tensor
    /// is decoded each time: these are small.
    ///
    /// # Errors
    /// As [`CudaDecoder::decode_ranges`].
    pub fn decode_plain<'a>(
        &self,
        items: impl IntoIterator<Item = (&'a DevicePlain, Range<usize>, DeviceSliceMut<'a>)>,
        stream: &Stream,
    ) -> Result<(), CudaError> {
        let jobs: Vec<_> = items.into_iter().map(|(tensor, range, out)| (&tensor.resident, range, out)).collect();
        launch::decode_plain(stream, &jobs)
    }
}
