//! Layers over compressed weights.

use candle_core::{DType, Error, Module, Result, Tensor};

use super::CompressedWeight;

/// `x · weightᵀ + bias`, with a weight that is decoded for every forward pass. Gives the bits that `candle_nn::Linear` gives with the
/// same weight decoded; what it gives has no gradient.
#[derive(Debug, Clone)]
pub struct CompressedLinear {
    weight: CompressedWeight,
    bias: Option<Tensor>,
}

impl CompressedLinear {
    /// The weight has out × in elements, the bias out.
    pub fn new(weight: CompressedWeight, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// The weight.
    pub fn weight(&self) -> &CompressedWeight {
        &self.weight
    }

    /// The bias.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Module for CompressedLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // The graph of a gradient would keep the buffer, which does not keep the weight.
        let product = self.weight.product(&x.detach())?;
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}

/// Rows of a weight by their numbers; only those asked for are decoded. Gives the bits that `candle_nn::Embedding` gives.
#[derive(Debug, Clone)]
pub struct CompressedEmbedding {
    weight: CompressedWeight,
}

impl CompressedEmbedding {
    /// The weight has a row for each number.
    pub fn new(weight: CompressedWeight) -> Self {
        Self { weight }
    }

    /// The weight, for a layer that shares it.
    pub fn weight(&self) -> &CompressedWeight {
        &self.weight
    }

    /// Elements of a row.
    pub fn hidden_size(&self) -> usize {
        self.weight.dims().1
    }
}

impl Module for CompressedEmbedding {
    fn forward(&self, indexes: &Tensor) -> Result<Tensor> {
        let (size, hidden_size) = self.weight.dims();
        let mut dims = indexes.dims().to_vec();
        dims.push(hidden_size);
        // candle takes the largest value of an index type for "no row", whose elements are zero.
        const NO_ROW: u32 = u32::MAX;
        let flat = indexes.flatten_all()?;
        let mut rows = match flat.dtype() {
            DType::U32 => flat.to_vec1::<u32>()?,
            DType::U8 => flat.to_vec1::<u8>()?.iter().map(|&i| if i == u8::MAX { NO_ROW } else { i.into() }).collect(),
            DType::I64 => flat
                .to_vec1::<i64>()?
                .into_iter()
                .map(|i| match u32::try_from(i) {
                    _ if i == i64::MAX => Ok(NO_ROW),
                    Ok(row) if row != NO_ROW => Ok(row),
                    _ => Err(Error::InvalidIndex { index: i as usize, size, op: "index-select" }.bt()),
                })
                .collect::<Result<_>>()?,
            dtype => return Err(Error::UnsupportedDTypeForOp(dtype, "index-select").bt()),
        };
        let mut wanted: Vec<usize> = rows.iter().filter(|&&row| row != NO_ROW).map(|&row| row as usize).collect();
        wanted.sort_unstable();
        wanted.dedup();
        if let Some(&index) = wanted.last().filter(|&&row| row >= size) {
            return Err(Error::InvalidIndex { index, size, op: "index-select" }.bt());
        }
        for row in rows.iter_mut().filter(|row| **row != NO_ROW) {
            *row = wanted.binary_search(&(*row as usize)).expect("every row is wanted") as u32;
        }
        let places = Tensor::new(rows, indexes.device())?;
        self.weight.rows(&wanted)?.index_select(&places, 0)?.reshape(dims)
    }
}
