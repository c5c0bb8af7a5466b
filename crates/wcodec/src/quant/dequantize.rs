//! Whole tensors from codes to floats.

use rayon::prelude::*;
use wcodec_quant::{FloatType, Isa, Scheme};

use super::find::DequantizeOptions;
use crate::archive::Archive;
use crate::error::{Error, Result};

/// Bytes of output that a thread makes at a time.
const PIECE_BYTES: usize = 1 << 20;

impl Archive {
    /// Decodes a quantised tensor and multiplies it by its scales, by the formula of [`wcodec_quant`], in parallel in the current rayon
    /// pool: rows × columns little-endian floats.
    ///
    /// ```
    /// # fn main() -> wcodec::Result<()> {
    /// use wcodec::quant::{DequantizeOptions, FloatType};
    /// use wcodec::{Archive, DtypeCode, EncodeOptions, TensorData};
    /// let scales: Vec<u8> = [0.5f32, 2.0].iter().flat_map(|s| s.to_le_bytes()).collect();
    /// let tensors = [
    ///     TensorData { name: "up.weight", dtype: DtypeCode::I8, shape: &[2, 2], data: &[1, 2, 3, 4] },
    ///     TensorData { name: "up.weight_scale", dtype: DtypeCode::F32, shape: &[2, 1], data: &scales },
    /// ];
    /// let bytes = wcodec::compress_tensors_to_vec(&tensors, &Default::default(), &EncodeOptions::default(), &())?;
    /// let options = DequantizeOptions { float: Some(FloatType::F32), ..Default::default() };
    /// let floats = Archive::from_bytes(bytes)?.dequantize("up.weight", &options)?;
    /// assert_eq!(floats[12..], 8f32.to_le_bytes());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Archive::scheme`] and [`crate::Tensor::decode`].
    pub fn dequantize(&self, name: &str, options: &DequantizeOptions) -> Result<Vec<u8>> {
        let scheme = self.scheme(name, options)?;
        let codes = self.tensor(name)?.decode()?;
        dequantize(&scheme, &codes, options.float.unwrap_or(FloatType::BF16))
    }
}

fn dequantize(scheme: &Scheme, codes: &[u8], float: FloatType) -> Result<Vec<u8>> {
    let [rows, cols] = scheme.shape();
    let row_bytes = cols * float.bytes();
    let bytes = rows.checked_mul(row_bytes);
    let mut out = Vec::new();
    let fits = bytes.is_some_and(|bytes| out.try_reserve_exact(bytes).is_ok());
    let Some(bytes) = bytes.filter(|_| fits) else {
        return Err(Error::BadArgument(format!("no memory for {rows} × {cols} floats")));
    };
    out.resize(bytes, 0);
    let per_piece = (PIECE_BYTES / row_bytes.max(1)).max(1);
    out.par_chunks_mut((per_piece * row_bytes).max(1)).enumerate().try_for_each(|(piece, out)| {
        let first = piece * per_piece;
        scheme.dequantize_rows(codes, first..first + out.len() / row_bytes, float, Isa::Auto, out)
    })?;
    Ok(out)
}
