//! Safetensors files, whole and damaged, for tests of the façade.

#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::fs;
use std::path::{Path, PathBuf};

use wcodec::{Archive, EncodeOptions, Level, ModeChoice};
use wcodec_container::{Directory, Extent, Trailer, crc32};

/// A tensor to write.
pub(crate) struct Raw {
    pub(crate) name: String,
    pub(crate) dtype: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

impl Raw {
    pub(crate) fn new(name: &str, dtype: &'static str, shape: &[usize], data: Vec<u8>) -> Self {
        Self { name: name.to_owned(), dtype, shape: shape.to_vec(), data }
    }
}

/// A safetensors file of the tensors, written here so that tests do not trust one library twice.
pub(crate) fn safetensors(tensors: &[Raw]) -> Vec<u8> {
    let mut at = 0;
    let entries: Vec<String> = tensors
        .iter()
        .map(|t| {
            let start = at;
            at += t.data.len();
            format!(r#""{}":{{"dtype":"{}","shape":{:?},"data_offsets":[{start},{at}]}}"#, t.name, t.dtype, t.shape)
        })
        .collect();
    let data: Vec<u8> = tensors.iter().flat_map(|t| t.data.iter().copied()).collect();
    with_header(&format!("{{{}}}", entries.join(",")), &data)
}

/// Length, header, data.
pub(crate) fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// Noise whose scale depends on row and column, as BF16.
pub(crate) fn weights(rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) | 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut out = Vec::with_capacity(2 * rows * cols);
    for row in 0..rows {
        for col in 0..cols {
            let scale = 2f32.powi((row % 5) as i32 - (col % 7) as i32);
            let bell = uniform() + uniform() + uniform() + uniform();
            out.extend_from_slice(&((bell * scale).to_bits() >> 16).to_le_bytes()[..2]);
        }
    }
    out
}

/// The same with three bits of mantissa, as if it had been widened from F8_E4M3.
pub(crate) fn widened(rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    let mut data = weights(rows, cols, seed);
    data.iter_mut().step_by(2).for_each(|low| *low &= 0xf0);
    data
}

/// A smooth surface of bytes.
pub(crate) fn surface(rows: usize, cols: usize) -> Vec<u8> {
    let at = |row: usize, col: usize| (60.0 * (row as f32 / 11.0).sin() + 50.0 * (col as f32 / 17.0).cos()) as i8 as u8;
    (0..rows).flat_map(|row| (0..cols).map(move |col| at(row, col))).collect()
}

/// Small tensors that together take every mode.
pub(crate) fn sampler() -> Vec<Raw> {
    let text = b"all work and no play makes a dull codec. ".repeat(130);
    let noise = weights(9, 31, 5);
    vec![
        Raw::new("lanes", "BF16", &[160, 129], weights(160, 129, 1)),
        Raw::new("widened", "BF16", &[67, 65], widened(67, 65, 2)),
        Raw::new("integer", "I8", &[70, 130], surface(70, 130)),
        Raw::new("zstd", "U8", &[text.len()], text),
        Raw::new("pooled.weight", "BF16", &[10, 20], weights(10, 20, 3)),
        Raw::new("scalar", "F32", &[], vec![0, 0, 128, 63]),
        Raw::new("empty", "F16", &[0, 7], Vec::new()),
        Raw::new("noise", "I64", &[69], noise[..552].to_vec()),
        Raw::new("plain", "U16", &[300], (0..300u16).flat_map(|i| (i.wrapping_mul(i) % 31).to_le_bytes()).collect()),
    ]
}

/// Compresses bytes to an archive in memory.
pub(crate) fn archive_of(file: &[u8], options: &EncodeOptions) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("m.safetensors"), folder.path().join("m.wcodec"));
    fs::write(&input, file).unwrap();
    wcodec::compress(&input, &output, options, &()).unwrap();
    fs::read(&output).unwrap()
}

/// Every mode at every level.
pub(crate) fn settings() -> Vec<EncodeOptions> {
    let modes = [ModeChoice::Auto, ModeChoice::Float, ModeChoice::Int, ModeChoice::Zstd, ModeChoice::Store];
    let levels = [Level::Fast, Level::Default, Level::Max];
    let all = modes.into_iter().flat_map(|mode| levels.map(|level| (mode, level)));
    all.map(|(mode, level)| EncodeOptions { mode, level, overwrite: true, ..EncodeOptions::default() }).collect()
}

/// Names of everything in a folder, subfolders with their contents.
pub(crate) fn listing(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, root: &Path, names: &mut Vec<String>) {
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            names.push(path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"));
            if path.is_dir() {
                walk(&path, root, names);
            }
        }
    }
    let mut names = Vec::new();
    walk(folder, folder, &mut names);
    names.sort();
    names
}

/// The fixtures of the repository, or those beside a test program that was taken to another machine.
pub(crate) fn fixtures() -> Vec<PathBuf> {
    let mut folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    if !folder.is_dir() {
        folder = PathBuf::from("fixtures");
    }
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|item| item.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "safetensors"));
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

/// The archive with other directory bytes and checksums that hold.
pub(crate) fn with_directory(archive: &[u8], directory: &Directory) -> Option<Vec<u8>> {
    let trailer = Trailer::parse(archive).unwrap();
    let end = trailer.directory.offset;
    let decoded = directory.encode(end).ok()?;
    let mut out = archive[..end as usize].to_vec();
    out.extend_from_slice(&decoded);
    let len = decoded.len() as u64;
    let trailer =
        Trailer { directory: Extent { offset: end, len }, decoded_len: len, directory_crc32: crc32(&decoded) };
    out.extend_from_slice(&trailer.encode(archive.first_chunk().unwrap()));
    Some(out)
}

pub(crate) fn directory(archive: &[u8]) -> Directory {
    Archive::from_bytes(archive.to_vec()).unwrap().container().directory().clone()
}

/// Payload bytes have checksums of their own, which nobody compares before decoding; these make them hold.
pub(crate) fn mend(archive: &mut [u8], directory: &mut Directory) {
    for tensor in &mut directory.tensors {
        let at = |e: Extent| e.offset as usize..(e.offset + e.len) as usize;
        let extents: Vec<Extent> = tensor.chunk_extents().collect();
        for (extent, chunk) in extents.into_iter().zip(&mut tensor.chunks) {
            chunk.crc32_compressed = crc32(&archive[at(extent)]);
        }
        tensor.crc32_compressed = crc32(&archive[at(tensor.payload)]);
        tensor.index_crc32 = crc32(&archive[at(tensor.index)]);
    }
}
