//! Scales and zero points out of tensors of many types.

use wcodec_container::DtypeCode;

use crate::error::{Error, Result};

/// A decoded tensor of side information.
pub(super) struct Side {
    pub(super) name: String,
    pub(super) dtype: DtypeCode,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Vec<u8>,
}

impl Side {
    /// The numbers as F32, all exact.
    pub(super) fn floats(&self) -> Result<Vec<f32>> {
        let halves =
            |of: fn(u16) -> f32| self.bytes.chunks_exact(2).map(|b| of(u16::from_le_bytes([b[0], b[1]]))).collect();
        Ok(match self.dtype {
            DtypeCode::F32 => {
                self.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            DtypeCode::BF16 => halves(|bits| f32::from_bits(u32::from(bits) << 16)),
            DtypeCode::F16 => halves(|bits| half::f16::from_bits(bits).to_f32()),
            // 2^(e - 127); 255 is a NaN.
            DtypeCode::F8_E8M0 => self
                .bytes
                .iter()
                .map(|&e| match e {
                    0 => f32::from_bits(1 << 22),
                    255 => f32::NAN,
                    e => f32::from_bits(u32::from(e) << 23),
                })
                .collect(),
            other => return Err(self.fault(format!("scales of type {other}"))),
        })
    }

    /// The numbers as integers.
    pub(super) fn integers(&self) -> Result<Vec<i32>> {
        let narrow = |wide: i64| i32::try_from(wide).map_err(|_| self.fault(format!("{wide} is out of range")));
        Ok(match self.dtype {
            DtypeCode::I8 => self.bytes.iter().map(|&b| i32::from(b as i8)).collect(),
            DtypeCode::U8 => self.bytes.iter().map(|&b| i32::from(b)).collect(),
            DtypeCode::I16 => self.bytes.chunks_exact(2).map(|b| i32::from(i16::from_le_bytes([b[0], b[1]]))).collect(),
            DtypeCode::I32 => self.words().map(|word| word as i32).collect(),
            DtypeCode::I64 => self
                .bytes
                .chunks_exact(8)
                .map(|b| narrow(i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])))
                .collect::<Result<_>>()?,
            other => return Err(self.fault(format!("integers of type {other}"))),
        })
    }

    /// The 32-bit words of packed codes.
    pub(super) fn packed(&self, shape: [usize; 2]) -> Result<Vec<u32>> {
        if !matches!(self.dtype, DtypeCode::I32 | DtypeCode::U32) || self.shape != shape {
            return Err(self.fault(format!("{} of shape {:?}, not words of {shape:?}", self.dtype, self.shape)));
        }
        Ok(self.words().collect())
    }

    fn words(&self) -> impl Iterator<Item = u32> {
        self.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    pub(super) fn fault(&self, what: String) -> Error {
        Error::BadArgument(format!("tensor `{}`: {what}", self.name))
    }
}
