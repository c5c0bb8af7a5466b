//! Dequantisation on one thread, by instruction set, beside a copy of the output: `cargo bench -p wcodec-quant`. Throughput in bytes of output.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wcodec_quant::{Code, FloatType, Isa, Order, Scheme};

const SHAPE: [usize; 2] = [256, 4096];

fn dequantize(criterion: &mut Criterion) {
    let [rows, cols] = SHAPE;
    let codes: Vec<u8> =
        (0..rows * cols).map(|i| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    for (name, code, block, float) in [
        ("INT8 row to BF16", Code::I8, [1, cols], FloatType::BF16),
        ("INT8 row to F16", Code::I8, [1, cols], FloatType::F16),
        ("INT8 row to F32", Code::I8, [1, cols], FloatType::F32),
        ("INT8 groups of 128 to BF16", Code::I8, [1, 128], FloatType::BF16),
        ("INT8 column to BF16", Code::I8, [rows, 1], FloatType::BF16),
        ("E4M3 tensor to BF16", Code::F8E4M3, SHAPE, FloatType::BF16),
        ("INT4 pairs groups of 128 to BF16", Code::I4(Order::Pairs), [1, 128], FloatType::BF16),
        ("UINT4 GPTQ groups of 128 to BF16", Code::U4(Order::RowWords), [128, 1], FloatType::BF16),
    ] {
        let count = rows.div_ceil(block[0]) * cols.div_ceil(block[1]);
        let scheme = Scheme::new(SHAPE, code, block, vec![0.01; count]).expect("a scheme");
        let codes = &codes[..scheme.code_bytes()];
        let mut out = vec![0; rows * cols * float.bytes()];
        let like = out.clone();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(out.len() as u64)).sample_size(20);
        group.bench_function("copy", |b| b.iter(|| black_box(&mut out).copy_from_slice(black_box(&like))));
        for isa in [Isa::Scalar, Isa::Avx2, Isa::Avx512] {
            group.bench_function(format!("{isa:?}"), |b| {
                b.iter(|| scheme.dequantize_rows(black_box(codes), 0..rows, float, isa, &mut out).expect("a matrix"));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, dequantize);
criterion_main!(benches);
