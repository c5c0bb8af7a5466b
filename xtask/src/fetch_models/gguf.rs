//! Reading GGUF version 3 (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>) as far as llama models need it:
//! metadata, and tensors of the types below, dequantised to F32.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use half::f16;

/// A parsed file: metadata and tensor entries over the file's bytes.
pub(crate) struct Gguf<'a> {
    metadata: BTreeMap<String, Value>,
    tensors: Vec<Info>,
    /// Everything from the first tensor on.
    data: &'a [u8],
}

/// One value of the metadata.
#[derive(Debug, PartialEq)]
enum Value {
    /// A boolean, or an integer that is not negative.
    Integer(u64),
    /// The decimal number nearest to what is stored, as short as can be.
    Float(f64),
    Text(String),
    List(Vec<Value>),
    /// Negative; nothing here needs one.
    Negative,
}

/// One tensor as the file describes it.
pub(crate) struct Info {
    pub(crate) name: String,
    /// Rows first; the file has the contiguous dimension first.
    pub(crate) shape: Vec<usize>,
    kind: Kind,
    /// Relative to `Gguf::data`.
    offset: usize,
    elements: usize,
}

/// The storage types that are understood (`enum ggml_type` in the specification).
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q8_0,
}

impl<'a> Gguf<'a> {
    /// Reads the header; tensor data is only located, and checked to lie in the file.
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor { rest: file };
        ensure!(cursor.take(4)? == b"GGUF", "not a GGUF file");
        let version = cursor.u32()?;
        ensure!(version == 3, "GGUF version {version}, not 3");
        let (tensor_count, metadata_count) = (cursor.u64()?, cursor.u64()?);
        let mut metadata = BTreeMap::new();
        for _ in 0..metadata_count {
            let key = cursor.string()?;
            let value_type = cursor.u32()?;
            metadata.insert(key, cursor.value(value_type)?);
        }
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(Info::parse(&mut cursor)?);
        }
        let alignment = match metadata.get("general.alignment") {
            Some(Value::Integer(alignment)) => *alignment,
            _ => 32,
        };
        ensure!(alignment.is_power_of_two() && alignment <= 4096, "GGUF alignment {alignment}");
        let header = file.len() - cursor.rest.len();
        let data = file.get(header.next_multiple_of(alignment as usize)..).context("GGUF ends before its tensors")?;
        let gguf = Gguf { metadata, tensors, data };
        for info in &gguf.tensors {
            gguf.bytes(info)?;
        }
        Ok(gguf)
    }

    /// An integer or boolean of the metadata.
    pub(crate) fn integer(&self, key: &str) -> Result<usize> {
        let Some(Value::Integer(value)) = self.metadata.get(key) else { bail!("GGUF metadata has no integer {key}") };
        Ok(usize::try_from(*value)?)
    }

    /// A floating-point number of the metadata.
    pub(crate) fn float(&self, key: &str) -> Result<f64> {
        let Some(Value::Float(value)) = self.metadata.get(key) else { bail!("GGUF metadata has no float {key}") };
        Ok(*value)
    }

    /// A text of the metadata.
    pub(crate) fn text(&self, key: &str) -> Result<&str> {
        let Some(Value::Text(value)) = self.metadata.get(key) else { bail!("GGUF metadata has no text {key}") };
        Ok(value)
    }

    /// A list of texts of the metadata.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<&str>> {
        self.list(key, |value| if let Value::Text(text) = value { Some(text.as_str()) } else { None })
    }

    /// A list of integers of the metadata, none of them negative.
    pub(crate) fn integers(&self, key: &str) -> Result<Vec<u64>> {
        self.list(key, |value| if let Value::Integer(integer) = value { Some(*integer) } else { None })
    }

    fn list<'v, T>(&'v self, key: &str, get: impl Fn(&'v Value) -> Option<T>) -> Result<Vec<T>> {
        let list = if let Some(Value::List(list)) = self.metadata.get(key) { Some(list) } else { None };
        let list = list.and_then(|list| list.iter().map(get).collect::<Option<Vec<T>>>());
        list.with_context(|| format!("GGUF metadata has no such list: {key}"))
    }

    /// The tensors, in the order of the file's entries.
    pub(crate) fn tensors(&self) -> &[Info] {
        &self.tensors
    }

    /// A tensor's elements in row-major order.
    pub(crate) fn dequantise(&self, info: &Info) -> Result<Vec<f32>> {
        let bytes = self.bytes(info)?;
        let mut values = Vec::with_capacity(info.elements);
        for block in bytes.chunks_exact(info.kind.block_bytes()) {
            info.kind.dequantise(block, &mut values);
        }
        Ok(values)
    }

    fn bytes(&self, info: &Info) -> Result<&'a [u8]> {
        let length = (info.elements / info.kind.block_elements()).checked_mul(info.kind.block_bytes());
        length
            .and_then(|length| info.offset.checked_add(length))
            .and_then(|end| self.data.get(info.offset..end))
            .with_context(|| format!("tensor {} ends beyond the file", info.name))
    }
}

impl Info {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Info> {
        let name = cursor.string()?;
        let dimensions = cursor.u32()?;
        ensure!(dimensions <= 4, "tensor {name} has {dimensions} dimensions");
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(usize::try_from(cursor.u64()?)?);
        }
        let kind = Kind::new(cursor.u32()?).with_context(|| format!("tensor {name}"))?;
        let offset = usize::try_from(cursor.u64()?)?;
        let row = shape.first().copied().unwrap_or(1);
        ensure!(row % kind.block_elements() == 0, "tensor {name}: rows of {row} elements are no whole blocks");
        let elements = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        let elements = elements.with_context(|| format!("tensor {name} is too large"))?;
        shape.reverse();
        Ok(Info { name, shape, kind, offset, elements })
    }
}

impl Kind {
    fn new(code: u32) -> Result<Kind> {
        Ok(match code {
            0 => Kind::F32,
            1 => Kind::F16,
            2 => Kind::Q4_0,
            3 => Kind::Q4_1,
            8 => Kind::Q8_0,
            _ => bail!("GGUF tensor type {code} is not supported"),
        })
    }

    fn block_elements(self) -> usize {
        match self {
            Kind::F32 | Kind::F16 => 1,
            Kind::Q4_0 | Kind::Q4_1 | Kind::Q8_0 => 32,
        }
    }

    fn block_bytes(self) -> usize {
        match self {
            Kind::F32 => 4,
            Kind::F16 => 2,
            Kind::Q4_0 => 2 + 16,
            Kind::Q4_1 => 2 + 2 + 16,
            Kind::Q8_0 => 2 + 32,
        }
    }

    /// Appends the elements of one block of `block_bytes()` bytes. Multiply and add round separately, as in the C reference.
    fn dequantise(self, block: &[u8], values: &mut Vec<f32>) {
        let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
        // The low nibbles of the 16 bytes are elements 0 to 15, the high ones 16 to 31.
        let nibbles = |codes: &'_ [u8]| -> Vec<u8> {
            codes.iter().map(|byte| byte & 15).chain(codes.iter().map(|byte| byte >> 4)).collect()
        };
        match self {
            Kind::F32 => values.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
            Kind::F16 => values.push(half(0)),
            Kind::Q4_0 => {
                let scale = half(0);
                values.extend(nibbles(&block[2..]).iter().map(|code| (f32::from(*code) - 8.0) * scale));
            }
            Kind::Q4_1 => {
                let (scale, minimum) = (half(0), half(2));
                values.extend(nibbles(&block[4..]).iter().map(|code| f32::from(*code) * scale + minimum));
            }
            Kind::Q8_0 => {
                let scale = half(0);
                values.extend(block[2..].iter().map(|code| f32::from(*code as i8) * scale));
            }
        }
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).context("GGUF header is cut short")?;
        self.rest = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(self.unsigned(4)? as u32)
    }

    fn u64(&mut self) -> Result<u64> {
        self.unsigned(8)
    }

    fn unsigned(&mut self, bytes: usize) -> Result<u64> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn string(&mut self) -> Result<String> {
        let length = usize::try_from(self.u64()?)?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn value(&mut self, value_type: u32) -> Result<Value> {
        const STRING: u32 = 8;
        const ARRAY: u32 = 9;
        Ok(match value_type {
            STRING => Value::Text(self.string()?),
            ARRAY => {
                let (element_type, count) = (self.u32()?, self.u64()?);
                // The file format allows arrays of arrays; no model file here has them, and recursion would have no bound.
                ensure!(element_type != ARRAY, "GGUF metadata nests arrays");
                Value::List((0..count).map(|_| self.value(element_type)).collect::<Result<_>>()?)
            }
            6 => Value::Float(f32::from_bits(self.u32()?).to_string().parse()?),
            12 => Value::Float(f64::from_bits(self.u64()?)),
            _ => {
                let width = match value_type {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4 | 5 => 4,
                    10 | 11 => 8,
                    _ => bail!("GGUF metadata type {value_type} is not known"),
                };
                let value = self.unsigned(width)?;
                let is_signed = matches!(value_type, 1 | 3 | 5 | 11);
                if is_signed && value >> (8 * width - 1) == 1 { Value::Negative } else { Value::Integer(value) }
            }
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn entry(key: &str, value_type: u32, value: &[u8]) -> Vec<u8> {
        [string(key), value_type.to_le_bytes().to_vec(), value.to_vec()].concat()
    }

    fn list(key: &str, element_type: u32, count: usize, elements: &[u8]) -> Vec<u8> {
        entry(key, 9, &[&element_type.to_le_bytes()[..], &(count as u64).to_le_bytes(), elements].concat())
    }

    /// A text as an entry of the metadata.
    pub(crate) fn text(key: &str, value: &str) -> Vec<u8> {
        entry(key, 8, &string(value))
    }

    /// A list of texts as an entry of the metadata.
    pub(crate) fn texts(key: &str, values: &[&str]) -> Vec<u8> {
        list(key, 8, values.len(), &values.iter().flat_map(|value| string(value)).collect::<Vec<_>>())
    }

    /// A list of integers as an entry of the metadata.
    pub(crate) fn u32s(key: &str, values: &[u32]) -> Vec<u8> {
        list(key, 4, values.len(), &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
    }

    /// The start of a file: so many tensors are to follow.
    fn head(tensors: u64, entries: &[Vec<u8>]) -> Vec<u8> {
        let counts = [tensors.to_le_bytes(), (entries.len() as u64).to_le_bytes()].concat();
        [&b"GGUF"[..], &3u32.to_le_bytes(), &counts, &entries.concat()].concat()
    }

    /// A file without tensors.
    pub(crate) fn metadata(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut file = head(0, entries);
        file.resize(file.len().next_multiple_of(32), 0);
        file
    }

    /// Metadata of each shape, and one Q8_0 tensor of 2 rows × 32 columns.
    fn sample() -> Vec<u8> {
        let mut file = head(
            1,
            &[
                entry("heads", 4, &9u32.to_le_bytes()),
                entry("below", 5, &(-1i32).to_le_bytes()),
                entry("eps", 6, &1e-5f32.to_le_bytes()),
                text("name", "tiny"),
                texts("words", &["a", "bc"]),
                u32s("kinds", &[3, 1]),
            ],
        );
        file.extend([string("w"), 2u32.to_le_bytes().to_vec()].concat());
        file.extend([32u64.to_le_bytes(), 2u64.to_le_bytes()].concat());
        file.extend([&8u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat());
        file.resize(file.len().next_multiple_of(32), 0);
        for scale in [0.5f32, -2.0] {
            file.extend(f16::from_f32(scale).to_le_bytes());
            file.extend((0..32).map(|i| (i - 16) as i8 as u8));
        }
        file
    }

    #[test]
    fn a_small_file_is_read_whole() {
        let file = sample();
        let gguf = Gguf::parse(&file).unwrap();
        assert_eq!(gguf.integer("heads").unwrap(), 9);
        assert!(gguf.integer("name").is_err() && gguf.integer("below").is_err() && gguf.integer("absent").is_err());
        assert_eq!((gguf.float("eps").unwrap(), gguf.text("name").unwrap()), (1e-5, "tiny"));
        assert_eq!((gguf.texts("words").unwrap(), gguf.integers("kinds").unwrap()), (vec!["a", "bc"], vec![3, 1]));
        assert!(gguf.texts("kinds").is_err() && gguf.integers("words").is_err() && gguf.text("words").is_err());
        let info = &gguf.tensors()[0];
        assert_eq!((info.name.as_str(), info.shape.as_slice()), ("w", [2, 32].as_slice()));
        let expect: Vec<f32> =
            [0.5, -2.0].iter().flat_map(|scale| (0..32).map(move |i| (i - 16) as f32 * scale)).collect();
        assert_eq!(gguf.dequantise(info).unwrap(), expect);
    }

    #[test]
    fn a_cut_file_is_refused() {
        let file = sample();
        for length in 0..file.len() {
            assert!(Gguf::parse(&file[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn nibble_blocks_follow_their_definition() {
        let codes: Vec<u8> = (0..16).map(|i| i | (15 - i) << 4).collect();
        let mut block = f16::from_f32(0.25).to_le_bytes().to_vec();
        let mut q4_0 = Vec::new();
        Kind::Q4_0.dequantise(&[&block[..], &codes].concat(), &mut q4_0);
        block.extend(f16::from_f32(-3.0).to_le_bytes());
        let mut q4_1 = Vec::new();
        Kind::Q4_1.dequantise(&[&block[..], &codes].concat(), &mut q4_1);
        for i in 0..32 {
            let code = if i < 16 { i } else { 31 - i } as f32;
            assert_eq!(q4_0[i], (code - 8.0) / 4.0);
            assert_eq!(q4_1[i], code / 4.0 - 3.0);
        }
    }
}
