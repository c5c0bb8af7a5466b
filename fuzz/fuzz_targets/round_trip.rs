//! Any tensor of any type in any mode and level comes back; any header is compressed or refused.
#![no_main]

#[path = "../../crates/wcodec/tests/common/mod.rs"]
mod common;

use common::{Raw, safetensors, settings, with_header};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use wcodec::{Archive, EncodeOptions};

const DTYPES: [(&str, usize); 14] = [
    ("BF16", 2),
    ("F16", 2),
    ("F32", 4),
    ("F64", 8),
    ("F8_E4M3", 1),
    ("F8_E5M2", 1),
    ("I8", 1),
    ("U8", 1),
    ("I16", 2),
    ("U16", 2),
    ("I32", 4),
    ("I64", 8),
    ("BOOL", 1),
    ("U64", 8),
];

#[derive(Arbitrary, Debug)]
enum Input {
    Tensors { setting: u8, rows_16: bool, tensors: Vec<(u8, u8, Vec<u8>)> },
    Header { header: String, data: Vec<u8> },
}

fuzz_target!(|input: Input| {
    match input {
        Input::Tensors { setting, rows_16, tensors } => {
            let tensors: Vec<Raw> = tensors
                .into_iter()
                .enumerate()
                .map(|(i, (dtype, cols, mut data))| {
                    let (dtype, bytes) = DTYPES[usize::from(dtype) % DTYPES.len()];
                    let cols = usize::from(cols).max(1);
                    // Repeated up to a size at which rows and columns have something to say.
                    while !data.is_empty() && data.len() < 4096 {
                        data.extend(data.clone().into_iter().map(|b| b.rotate_left(3) ^ 0x11));
                    }
                    let rows = data.len() / (bytes * cols);
                    data.truncate(rows * bytes * cols);
                    Raw::new(&format!("t{i}"), dtype, &[rows, cols], data)
                })
                .collect();
            let settings = settings();
            let mut options = settings[usize::from(setting) % settings.len()].clone();
            if rows_16 {
                options.superblock_rows = 16;
            }
            let file = safetensors(&tensors);
            let archive = archive(&file, &options).expect("a well-formed file");
            for (i, tensor) in tensors.iter().enumerate() {
                assert!(archive.tensor(&format!("t{i}")).unwrap().decode().unwrap() == tensor.data, "t{i}");
            }
            wcodec::verify(&archive, &()).unwrap();
        }
        Input::Header { header, data } => {
            if let Ok(archive) = archive(&with_header(&header, &data), &EncodeOptions::default()) {
                wcodec::verify(&archive, &()).unwrap();
            }
        }
    }
});

fn archive(file: &[u8], options: &EncodeOptions) -> wcodec::Result<Archive> {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("m.safetensors"), folder.path().join("m.wcodec"));
    std::fs::write(&input, file).unwrap();
    wcodec::compress(&input, &output, options, &())?;
    Archive::from_bytes(std::fs::read(&output).unwrap())
}
