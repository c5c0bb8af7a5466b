//! The forms a model of F32 weights is stored in by real checkpoints, made from the same weights.

use anyhow::Result;
use safetensors::tensor::Dtype;

use super::cast;
use crate::tensors::Tensor;

/// What the F32 tensors of a model become. Tensors of other types are kept as they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Variant {
    /// Every tensor BF16.
    Bf16,
    /// Every tensor FP16.
    F16,
    /// Matrices FP8 E4M3 with one absmax scale each (`NAME_scale`, F32, no dimensions), other tensors BF16.
    Fp8,
    /// Matrices INT8 with one absmax scale each (`NAME_scale`, F32, shape `[1]`), other tensors BF16.
    Int8Tensor,
    /// Matrices INT8 with one absmax scale a row (`NAME_scale`, F32, shape `[rows, 1]`), other tensors BF16.
    Int8Row,
}

impl Variant {
    /// The model in this form. A matrix is a tensor of two or more dimensions; its rows are dim 0.
    pub(crate) fn of(self, model: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut tensors = Vec::new();
        for tensor in model {
            if tensor.dtype != Dtype::F32 {
                tensors.push(tensor.clone());
                continue;
            }
            let values = tensor.to_f32()?;
            let like = |dtype, data| Tensor { dtype, data, ..tensor.clone() };
            let is_matrix = tensor.shape.len() >= 2;
            match self {
                Variant::F16 => tensors.push(like(Dtype::F16, cast::to_f16(&values))),
                Variant::Fp8 if is_matrix => {
                    let scale = cast::absmax_scale(&values, cast::FP8_E4M3_MAX);
                    let codes = values.iter().map(|x| cast::fp8_e4m3(x / scale)).collect();
                    tensors.push(like(Dtype::F8_E4M3, codes));
                    tensors.push(scales(tensor, vec![], &[scale]));
                }
                Variant::Int8Tensor if is_matrix => {
                    let (codes, scale) = int8_codes(&values, values.len());
                    tensors.push(like(Dtype::I8, codes));
                    tensors.push(scales(tensor, vec![1], &scale));
                }
                Variant::Int8Row if is_matrix => {
                    let rows = tensor.shape[0];
                    let (codes, scale) = int8_codes(&values, values.len() / rows.max(1));
                    tensors.push(like(Dtype::I8, codes));
                    tensors.push(scales(tensor, vec![rows, 1], &scale));
                }
                Variant::Bf16 | Variant::Fp8 | Variant::Int8Tensor | Variant::Int8Row => {
                    tensors.push(like(Dtype::BF16, cast::to_bf16(&values)));
                }
            }
        }
        Ok(tensors)
    }
}

/// INT8 codes of `values` with one scale for each `group` of them, and the scales.
fn int8_codes(values: &[f32], group: usize) -> (Vec<u8>, Vec<f32>) {
    let groups = values.chunks(group.max(1));
    let scales: Vec<f32> = groups.clone().map(|values| cast::absmax_scale(values, cast::INT8_MAX)).collect();
    let codes = groups
        .zip(&scales)
        .flat_map(|(values, scale)| values.iter().map(move |x| cast::int8(x / scale) as u8))
        .collect();
    (codes, scales)
}

fn scales(of: &Tensor, shape: Vec<usize>, scales: &[f32]) -> Tensor {
    let data = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
    Tensor { name: format!("{}_scale", of.name), dtype: Dtype::F32, shape, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Vec<Tensor> {
        let data = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
        vec![
            Tensor { name: "w".into(), dtype: Dtype::F32, shape: vec![2, 2], data: data(&[1.0, -127.0, 0.0, 254.0]) },
            Tensor { name: "b".into(), dtype: Dtype::F32, shape: vec![2], data: data(&[1.0, 2.0]) },
            Tensor { name: "i".into(), dtype: Dtype::I64, shape: vec![1], data: vec![7; 8] },
        ]
    }

    fn kinds(variant: Variant) -> Vec<(String, Dtype, Vec<usize>)> {
        let tensors = variant.of(&model()).unwrap();
        // Serialising checks that shape, type and length agree.
        crate::tensors::serialize(&tensors).unwrap();
        tensors.into_iter().map(|t| (t.name, t.dtype, t.shape)).collect()
    }

    #[test]
    fn variants_have_the_promised_types_and_shapes() {
        let expect = |w: Dtype, scale: Option<Vec<usize>>, b: Dtype| {
            let mut list = vec![("w".to_owned(), w, vec![2, 2])];
            list.extend(scale.map(|shape| ("w_scale".to_owned(), Dtype::F32, shape)));
            list.extend([("b".to_owned(), b, vec![2]), ("i".to_owned(), Dtype::I64, vec![1])]);
            list
        };
        assert_eq!(kinds(Variant::Bf16), expect(Dtype::BF16, None, Dtype::BF16));
        assert_eq!(kinds(Variant::F16), expect(Dtype::F16, None, Dtype::F16));
        assert_eq!(kinds(Variant::Fp8), expect(Dtype::F8_E4M3, Some(vec![]), Dtype::BF16));
        assert_eq!(kinds(Variant::Int8Tensor), expect(Dtype::I8, Some(vec![1]), Dtype::BF16));
        assert_eq!(kinds(Variant::Int8Row), expect(Dtype::I8, Some(vec![2, 1]), Dtype::BF16));
    }

    #[test]
    fn int8_scales_follow_the_tensor_or_the_row() {
        let tensors = Variant::Int8Tensor.of(&model()).unwrap();
        // -127 / 2 is a tie: -64 is even.
        assert_eq!(tensors[0].data, [0, -64i8 as u8, 0, 127]);
        assert_eq!(tensors[1].to_f32().unwrap(), [2.0]);
        let tensors = Variant::Int8Row.of(&model()).unwrap();
        assert_eq!(tensors[0].data, [1, -127i8 as u8, 0, 127]);
        assert_eq!(tensors[1].to_f32().unwrap(), [1.0, 2.0]);
    }
}
