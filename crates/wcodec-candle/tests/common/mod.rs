//! Checkpoints for tests: a safetensors file and the archive of it.

#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

/// A folder with `NAME.safetensors`, and `NAME.wcodec` in a folder of its own.
pub(crate) struct Checkpoint {
    pub(crate) folder: tempfile::TempDir,
}

impl Checkpoint {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("shards")).unwrap();
        Self { folder }
    }

    /// Writes a shard in both forms.
    pub(crate) fn shard(&self, name: &str, tensors: &[(&str, Tensor)]) {
        let tensors: HashMap<&str, Tensor> = tensors.iter().cloned().collect();
        candle_core::safetensors::save(&tensors, self.safetensors(name)).unwrap();
        self.compress(name);
    }

    pub(crate) fn compress(&self, name: &str) {
        let options = wcodec::EncodeOptions { overwrite: true, ..Default::default() };
        wcodec::compress(self.safetensors(name), self.archive(name), &options, &()).unwrap();
    }

    pub(crate) fn safetensors(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.safetensors"))
    }

    /// The folder of all archives.
    pub(crate) fn archives(&self) -> PathBuf {
        self.folder.path().join("shards")
    }

    pub(crate) fn archive(&self, name: &str) -> PathBuf {
        self.archives().join(format!("{name}.wcodec"))
    }
}

/// Noise whose scale depends on row and column, a little like a trained matrix.
pub(crate) fn weights(rows: usize, cols: usize, seed: u64, dtype: DType) -> Tensor {
    let mut state = seed.wrapping_mul(2) | 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let values: Vec<f32> = (0..rows * cols)
        .map(|i| {
            let scale = 2f32.powi((i / cols % 5) as i32 - (i % cols % 7) as i32 - 4);
            (uniform() + uniform() + uniform() + uniform()) * scale
        })
        .collect();
    Tensor::from_vec(values, (rows, cols), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// Bytes of a tensor's elements: equality of floats would take NaN for different and zeros for equal.
pub(crate) fn bits(tensor: &Tensor) -> Vec<u8> {
    let flat = tensor.flatten_all().unwrap();
    match tensor.dtype() {
        DType::U8 => flat.to_vec1::<u8>().unwrap(),
        DType::U32 => flat.to_vec1::<u32>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I16 => flat.to_vec1::<i16>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I32 => flat.to_vec1::<i32>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I64 => flat.to_vec1::<i64>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F16 => flat.to_vec1::<half::f16>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::BF16 => flat.to_vec1::<half::bf16>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F32 => flat.to_vec1::<f32>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F64 => flat.to_vec1::<f64>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect(),
        dtype => panic!("{dtype:?}"),
    }
}

/// A safetensors file written by hand, of types that candle does not write.
pub(crate) fn write_safetensors(path: &Path, tensors: &[(&str, &str, &[usize], Vec<u8>)]) {
    let mut at = 0;
    let entries: Vec<String> = tensors
        .iter()
        .map(|(name, dtype, shape, data)| {
            let start = at;
            at += data.len();
            format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{at}]}}"#)
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let data: Vec<u8> = tensors.iter().flat_map(|t| t.3.iter().copied()).collect();
    std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
}

/// What an error says, without the backtrace that candle adds where `RUST_BACKTRACE` asks for one.
pub(crate) fn plain(error: candle_core::Error) -> String {
    let text = error.to_string();
    text.split_once("\n   0: ").map_or(text.as_str(), |(text, _)| text).to_owned()
}
