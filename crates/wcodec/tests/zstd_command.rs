//! Zstd mode is readable without this project: the chunks of a tensor, one behind the other, are what the `zstd` command reads. Skipped
//! where there is no such command.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use wcodec::{Archive, EncodeOptions, Mode, ModeChoice};

#[test]
fn the_zstd_command_reads_every_frame() {
    if Command::new("zstd").arg("--version").stdout(Stdio::null()).status().is_err() {
        return println!("skipped: no zstd command");
    }
    let folder = tempfile::tempdir().unwrap();
    let [archive, frames] = ["a.wcodec", "a.zst"].map(|name| folder.path().join(name));
    let mut read = 0;
    for (file, level, frame) in [
        ("minilm-layer-int8.safetensors", 1, 64 << 10),
        ("minilm-layer-bf16.safetensors", 9, 64 << 10),
        ("silero.safetensors", 22, 1 << 20),
    ] {
        let input = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(file);
        let options = EncodeOptions {
            mode: ModeChoice::Zstd,
            zstd_level: level,
            zstd_frame: frame,
            overwrite: true,
            ..EncodeOptions::default()
        };
        wcodec::compress(input, &archive, &options, &()).unwrap();
        let archive = Archive::open(&archive).unwrap();
        for index in 0..archive.len() {
            let tensor = archive.tensor_at(index).unwrap();
            if tensor.mode() != Mode::Zstd {
                continue;
            }
            let mut out = std::fs::File::create(&frames).unwrap();
            for extent in tensor.entry().chunk_extents() {
                out.write_all(archive.container().bytes(extent).unwrap()).unwrap();
            }
            drop(out);
            let decoded = Command::new("zstd").args(["-d", "-c", "-q"]).arg(&frames).output().unwrap();
            assert!(decoded.status.success(), "{}", String::from_utf8_lossy(&decoded.stderr));
            // The parameters: the piece's length as a varint, then the planes.
            let (&planes, _) = tensor.entry().params.split_last().unwrap();
            let expected: Vec<u8> = tensor
                .decode()
                .unwrap()
                .chunks(frame)
                .flat_map(|piece| {
                    let planes = usize::from(planes);
                    (0..planes).flat_map(move |plane| piece.iter().skip(plane).step_by(planes).copied())
                })
                .collect();
            assert!(decoded.stdout == expected, "{file} {}", tensor.name());
            read += 1;
        }
    }
    assert!(read > 10, "{read} tensors in zstd mode");
}
