//! Named tensors held in memory, to and from safetensors bytes.

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// One named array; `data` is little-endian, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

impl Tensor {
    /// The elements of an F32 tensor.
    pub(crate) fn to_f32(&self) -> Result<Vec<f32>> {
        ensure!(self.dtype == Dtype::F32, "tensor {} is {:?}, not F32", self.name, self.dtype);
        let (words, rest) = self.data.as_chunks::<4>();
        ensure!(rest.is_empty(), "tensor {} ends in the middle of an element", self.name);
        Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }

    /// The tensor's first `rows` rows (dim 0), or the whole tensor if it has no more.
    pub(crate) fn first_rows(&self, rows: usize) -> Result<Tensor> {
        let &all = self.shape.first().with_context(|| format!("tensor {} has no rows", self.name))?;
        let kept = rows.min(all);
        let row_bytes = self.data.len().checked_div(all).unwrap_or(0);
        let mut shape = self.shape.clone();
        shape[0] = kept;
        Ok(Tensor { shape, data: self.data[..kept * row_bytes].to_vec(), ..self.clone() })
    }
}

/// Every tensor of a safetensors file, in the order of their data.
pub(crate) fn parse(file: &[u8]) -> Result<Vec<Tensor>> {
    let (header_len, metadata) = SafeTensors::read_metadata(file).context("not a safetensors file")?;
    let data = &file[8 + header_len..];
    metadata
        .offset_keys()
        .into_iter()
        .map(|name| {
            let info = metadata.info(&name).with_context(|| format!("no entry for {name}"))?;
            let (start, end) = info.data_offsets;
            let data = data.get(start..end).with_context(|| format!("tensor {name} ends beyond the file"))?.to_vec();
            Ok(Tensor { dtype: info.dtype, shape: info.shape.clone(), data, name })
        })
        .collect()
}

/// A safetensors file of the tensors. The same tensors give the same bytes, whatever their order.
pub(crate) fn serialize(tensors: &[Tensor]) -> Result<Vec<u8>> {
    let views = tensors
        .iter()
        .map(|tensor| {
            let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.data)
                .with_context(|| format!("tensor {}", tensor.name))?;
            Ok((tensor.name.as_str(), view))
        })
        .collect::<Result<Vec<_>>>()?;
    // One entry only: the crate keeps metadata in a hash map, and two entries could change places.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize(views, Some(metadata)).context("cannot serialize")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Tensor> {
        let data: Vec<u8> = [1.0f32, -2.0, 3.0, 0.5, 0.25, -0.125].iter().flat_map(|x| x.to_le_bytes()).collect();
        vec![
            Tensor { name: "a".into(), dtype: Dtype::F32, shape: vec![3, 2], data },
            Tensor { name: "b".into(), dtype: Dtype::I8, shape: vec![3], data: vec![1, 2, 3] },
        ]
    }

    #[test]
    fn a_file_gives_its_tensors_back_in_any_order() {
        let mut tensors = sample();
        let file = serialize(&tensors).unwrap();
        assert_eq!(parse(&file).unwrap(), tensors);
        tensors.reverse();
        assert_eq!(serialize(&tensors).unwrap(), file);
    }

    #[test]
    fn a_cut_file_is_refused() {
        let file = serialize(&sample()).unwrap();
        for length in 0..file.len() {
            assert!(parse(&file[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn first_rows_keeps_whole_rows() {
        let tensor = &sample()[0];
        let cut = tensor.first_rows(2).unwrap();
        assert_eq!((cut.shape.as_slice(), cut.to_f32().unwrap()), ([2, 2].as_slice(), vec![1.0, -2.0, 3.0, 0.5]));
        assert_eq!(&tensor.first_rows(9).unwrap(), tensor);
    }
}
