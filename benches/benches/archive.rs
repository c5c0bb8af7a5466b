//! Encoding, decoding and reading a few rows of the fixtures, beside a plain copy of the same bytes.

use std::path::PathBuf;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wcodec::{Archive, EncodeOptions, Level};

const FIXTURES: [&str; 4] = ["minilm-layer-bf16", "minilm-layer-f32", "minilm-layer-int8", "silero"];

fn archives(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in FIXTURES {
        let input: PathBuf =
            [env!("CARGO_MANIFEST_DIR"), "..", "fixtures", &format!("{name}.safetensors")].iter().collect();
        let output = folder.path().join("m.wcodec");
        let bytes = std::fs::metadata(&input).expect("a fixture").len();
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes)).sample_size(10);
        for (label, level) in [("encode fast", Level::Fast), ("encode default", Level::Default)] {
            let options = EncodeOptions { level, overwrite: true, ..EncodeOptions::default() };
            group.bench_function(label, |b| {
                b.iter(|| wcodec::compress(&input, &output, &options, &()).expect("encodes"))
            });
        }
        let archive = Archive::open(&output).expect("an archive");
        let tensors: Vec<_> = (0..archive.len()).map(|i| archive.tensor_at(i).expect("a tensor")).collect();
        let mut buffers: Vec<Vec<u8>> = tensors.iter().map(|t| vec![1; t.byte_len() as usize]).collect();
        group.bench_function("decode", |b| {
            b.iter(|| {
                let mut outs: Vec<&mut [u8]> = buffers.iter_mut().map(Vec::as_mut_slice).collect();
                wcodec::decode_many(&tensors, &mut outs).expect("decodes");
            });
        });
        let copy = buffers.clone();
        group.bench_function("memcpy", |b| {
            b.iter(|| buffers.iter_mut().zip(&copy).for_each(|(to, from)| to.copy_from_slice(from)));
        });
        let largest = tensors.iter().max_by_key(|t| t.byte_len()).expect("a tensor");
        let rows = largest.row_count();
        group.throughput(Throughput::Bytes((rows / 100 + 1) * largest.byte_len() / rows.max(1)));
        group.bench_function("1 % of the rows of the largest tensor", |b| {
            b.iter(|| largest.rows(rows / 2..rows / 2 + rows / 100 + 1).expect("rows"));
        });
        group.finish();
    }
}

criterion_group!(benches, archives);
criterion_main!(benches);
