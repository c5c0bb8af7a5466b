//! Tensors in memory, seen as the safetensors file that they would make.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};
use wcodec_container::DtypeCode;

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
    for tensor in tensors {
        check(tensor)?;
    }
    let described: Vec<_> = tensors.iter().map(|t| (t.name, t.dtype, t.shape)).collect();
    let (header, offsets) = header_of(&described, metadata)?;
    let mut placed: Vec<_> = tensors
        .iter()
        .zip(offsets)
        .map(|(t, offset)| {
            let start = header.len() + offset as usize;
            let bytes = start..start + t.data.len();
            (InputTensor { name: t.name.to_owned(), dtype: t.dtype, shape: t.shape.to_vec(), bytes }, t)
        })
        .collect();
    // Tensors without bytes begin where the next one does; names then decide, as in the header.
    placed.sort_by(|a, b| order(a.1.dtype, a.1.name).cmp(&order(b.1.dtype, b.1.name)));
    let (placed, data): (Vec<_>, Vec<_>) = placed.into_iter().map(|(tensor, t)| (tensor, t.data)).unzip();
    Ok(InputFile::of_parts(name, header, placed, data))
}

/// The order of tensors in a file: as the format's own writer has it, wider elements first, then by name.
fn order(dtype: DtypeCode, name: &str) -> (std::cmp::Reverse<Option<u32>>, &str) {
    (std::cmp::Reverse(dtype.bits()), name)
}

/// The header of a safetensors file with these tensors (name, type, shape), its length in front of it; and where each tensor begins
/// behind it.
pub(crate) fn header_of(
    tensors: &[(&str, DtypeCode, &[u64])],
    metadata: &BTreeMap<String, String>,
) -> Result<(Vec<u8>, Vec<u64>)> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA.into(), json!(metadata));
    }
    let mut sorted: Vec<usize> = (0..tensors.len()).collect();
    sorted.sort_by(|&a, &b| order(tensors[a].1, tensors[a].0).cmp(&order(tensors[b].1, tensors[b].0)));
    let mut names = HashSet::new();
    let mut offsets = vec![0; tensors.len()];
    let mut at = 0u64;
    for number in sorted {
        let (name, dtype, shape) = tensors[number];
        if name == METADATA || !names.insert(name) {
            return Err(Error::BadArgument(format!("tensor `{name}`: the name is taken")));
        }
        let Some(end) = byte_len(dtype, shape).and_then(|bytes| at.checked_add(bytes)) else {
            return Err(Error::BadArgument(format!("tensor `{name}`: shape {shape:?} of {dtype} has no length")));
        };
        let entry = json!({ "dtype": dtype.name().unwrap_or_default(), "shape": shape, "data_offsets": [at, end] });
        header.insert(name.to_owned(), entry);
        offsets[number] = at;
        at = end;
    }
    let mut text = Value::Object(header).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(text.as_bytes());
    Ok((header, offsets))
}

/// Bytes of a tensor; `None` where there is no such length.
fn byte_len(dtype: DtypeCode, shape: &[u64]) -> Option<u64> {
    let elements = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
    let bits = elements.checked_mul(dtype.bits()?.into())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

fn check(tensor: &TensorData<'_>) -> Result<()> {
    let bad = |what: String| Err(Error::BadArgument(format!("tensor `{}`: {what}", tensor.name)));
    if tensor.dtype.bits().is_none() {
        return bad("unknown element type".into());
    }
    match byte_len(tensor.dtype, tensor.shape) {
        Some(bytes) if bytes == tensor.data.len() as u64 => Ok(()),
        _ => bad(format!("shape {:?} of {} does not take {} bytes", tensor.shape, tensor.dtype, tensor.data.len())),
    }
}
