//! A real archive of every mode, damaged in several places, with checksums that hold: decoded to something or refused, by every entry point.
#![no_main]

#[path = "../../crates/wcodec/tests/common/mod.rs"]
mod common;

use std::sync::LazyLock;

use common::{archive_of, directory, mend, safetensors, sampler, with_directory};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use wcodec::{Archive, EncodeOptions};

static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let file = safetensors(&sampler());
    [EncodeOptions::default(), EncodeOptions { progressive: true, superblock_rows: 16, ..EncodeOptions::default() }]
        .iter()
        .map(|options| archive_of(&file, options))
        .collect()
});

/// One damage: a byte of a part of the archive gets another value.
#[derive(Arbitrary, Debug)]
enum Damage {
    Payload { at: u32, value: u8 },
    Parameter { tensor: u8, at: u16, value: u8 },
    Pool { blob: u8, at: u16, value: u8 },
    Mode { tensor: u8, mode: u8 },
    Dimension { tensor: u8, axis: u8, len: u32 },
}

fuzz_target!(|input: (bool, Vec<Damage>)| {
    let (which, damages) = input;
    let sample = &SAMPLES[usize::from(which)];
    let (mut bytes, mut directory) = (sample.clone(), directory(sample));
    for damage in damages {
        match damage {
            Damage::Payload { at, value } => {
                let at = 16 + at as usize % (bytes.len() - 16);
                bytes[at] = value;
            }
            Damage::Parameter { tensor, at, value } => {
                let count = directory.tensors.len();
                set(&mut directory.tensors[usize::from(tensor) % count].params, at, value);
            }
            Damage::Pool { blob, at, value } => {
                let count = directory.pool.len().max(1);
                if let Some(blob) = directory.pool.get_mut(usize::from(blob) % count) {
                    set(blob, at, value);
                }
            }
            Damage::Mode { tensor, mode } => {
                let count = directory.tensors.len();
                directory.tensors[usize::from(tensor) % count].mode = mode;
            }
            Damage::Dimension { tensor, axis, len } => {
                let count = directory.tensors.len();
                let shape = &mut directory.tensors[usize::from(tensor) % count].shape;
                let axes = shape.len().max(1);
                if let Some(dimension) = shape.get_mut(usize::from(axis) % axes) {
                    *dimension = u64::from(len);
                }
            }
        }
    }
    // The trailer is written anew behind the directory, so its damage counts only up to here.
    let trailer = bytes.len() - 40;
    bytes[trailer..].copy_from_slice(&sample[trailer..]);
    mend(&mut bytes, &mut directory);
    if let Some(damaged) = with_directory(&bytes, &directory) {
        read(damaged);
    }
});

fn set(bytes: &mut [u8], at: u16, value: u8) {
    let len = bytes.len().max(1);
    if let Some(byte) = bytes.get_mut(usize::from(at) % len) {
        *byte = value;
    }
}

fn read(bytes: Vec<u8>) {
    let Ok(archive) = Archive::from_bytes(bytes) else { return };
    let _ = wcodec::verify(&archive, &());
    for i in 0..archive.len() {
        let Ok(tensor) = archive.tensor_at(i) else { continue };
        let (rows, cols) = (tensor.row_count(), tensor.col_count());
        let _ = tensor.rect(rows / 3..rows, cols / 4..cols);
        let _ = tensor.decode_planes(3);
        let _ = tensor.decode();
    }
}
