//! Tensors in memory, seen as the safetensors file that they would make.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use super::compress::TensorData;
use super::input::{InputFile, InputTensor};
use crate::error::{Error, Result};

/// The key of a safetensors header that is no tensor.
pub(crate) const METADATA: &str = "__metadata__";

/// The file `name` with these tensors. As the format's own writer does, wider elements come first, so that all are aligned, and then
/// names decide.
pub(crate) fn file<'a>(
    name: String,
    tensors: &[TensorData<'a>],
    metadata: &BTreeMap<String, String>,
) -> Result<InputFile<'a>> {
    wcodec_container::validate_path(&name).map_err(|e| Error::BadArgument(format!("{name}: {e}")))?;
    let mut sorted: Vec<&TensorData<'_>> = tensors.iter().collect();
    sorted.sort_by_key(|t| (std::cmp::Reverse(t.dtype.bits()), t.name));
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA.into(), json!(metadata));
    }
    let mut names = HashSet::new();
    let mut at = 0;
    for tensor in &sorted {
        check(tensor)?;
        if tensor.name == METADATA || !names.insert(tensor.name) {
            return Err(Error::BadArgument(format!("tensor `{}`: the name is taken", tensor.name)));
        }
        let end = at + tensor.data.len();
        let dtype = tensor.dtype.name().unwrap_or_default();
        let entry = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [at, end] });
        header.insert(tensor.name.to_owned(), entry);
        at = end;
    }
    let mut text = Value::Object(header).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(text.as_bytes());
    let mut start = header.len();
    let placed = sorted
        .iter()
        .map(|t| {
            let bytes = start..start + t.data.len();
            start = bytes.end;
            InputTensor { name: t.name.to_owned(), dtype: t.dtype, shape: t.shape.to_vec(), bytes }
        })
        .collect();
    Ok(InputFile::of_parts(name, header, placed, sorted.iter().map(|t| t.data).collect()))
}

fn check(tensor: &TensorData<'_>) -> Result<()> {
    let bad = |what: String| Err(Error::BadArgument(format!("tensor `{}`: {what}", tensor.name)));
    let Some(bits) = tensor.dtype.bits() else { return bad("unknown element type".into()) };
    let elements = tensor.shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
    match elements.and_then(|n| n.checked_mul(u64::from(bits))) {
        Some(total) if total % 8 == 0 && total / 8 == tensor.data.len() as u64 => Ok(()),
        _ => bad(format!("shape {:?} of {} does not take {} bytes", tensor.shape, tensor.dtype, tensor.data.len())),
    }
}
