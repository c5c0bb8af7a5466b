//! Speed of one block and of the planes of a superblock.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wcodec_transform::{Transform, bitplane, forward, inverse};

fn blocks(c: &mut Criterion) {
    let block: [i32; 64] = std::array::from_fn(|i| (i as i32 * 37) % 256 - 128);
    let mut group = c.benchmark_group("block");
    group.throughput(Throughput::Elements(64));
    for t in [Transform::Dct, Transform::Adst] {
        group.bench_function(format!("forward {t:?}"), |b| {
            b.iter(|| {
                let mut x = black_box(block);
                forward(t, &mut x);
                x
            });
        });
        group.bench_function(format!("inverse {t:?}"), |b| {
            b.iter(|| {
                let mut x = black_box(block);
                inverse(t, &mut x);
                x
            });
        });
    }
    group.finish();
}

fn planes(c: &mut Criterion) {
    let values: Vec<u32> = (0..16384u32).map(|i| i.wrapping_mul(2_654_435_761) >> 23).collect();
    let mut bytes = Vec::new();
    bitplane::split(&values, 9, &mut bytes).expect("nine bits each");
    let mut back = vec![0; values.len()];
    let mut group = c.benchmark_group("bitplane");
    group.throughput(Throughput::Elements(values.len() as u64));
    group.bench_function("split", |b| {
        b.iter(|| {
            let mut out = Vec::with_capacity(bytes.len());
            bitplane::split(black_box(&values), 9, &mut out).expect("nine bits each");
            out
        });
    });
    group.bench_function("merge", |b| {
        b.iter(|| bitplane::merge(black_box(&bytes), values.len(), 9, 9, &mut back).expect("complete"));
    });
    group.finish();
}

criterion_group!(benches, blocks, planes);
criterion_main!(benches);
