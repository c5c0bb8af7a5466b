//! Speed of a superblock's prediction and of scale classes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wcodec_predict::scale::ScaleClasses;
use wcodec_predict::{Choice, Intra, TileSize, decode_region, encode_region};

fn regions(c: &mut Criterion) {
    let (h, w, tile) = (256, 64, TileSize::default());
    let samples: Vec<u8> = (0..h * w).map(|i| (i / w * 3 + i % w * 5 + i * i % 7) as u8).collect();
    let mut group = c.benchmark_group("region");
    group.throughput(Throughput::Bytes(samples.len() as u64));
    group.bench_function("encode, all modes", |b| {
        b.iter(|| encode_region(black_box(&samples), w, h, w, tile, Choice::Among(&Intra::ALL)).expect("in bounds"));
    });
    for mode in Intra::ALL {
        let coded = encode_region(&samples, w, h, w, tile, Choice::Fixed(mode)).expect("in bounds");
        let mut out = vec![0; h * w];
        group.bench_function(format!("decode {mode:?}"), |b| {
            b.iter(|| {
                let residuals = black_box(&coded.residuals);
                decode_region(&coded.modes, residuals, h, w, tile, &mut out, w).expect("as encoded");
            });
        });
    }
    group.finish();
}

fn classes(c: &mut Criterion) {
    let rows: Vec<i32> = (0..4096).map(|i| i * 7919 % 1000).collect();
    let cols: Vec<i32> = (0..4096).map(|i| i * 104_729 % 500).collect();
    c.bench_function("classes of 4096 x 4096", |b| {
        b.iter(|| ScaleClasses::from_scales(black_box(&rows), &cols, 16).expect("16 contexts"));
    });
}

criterion_group!(benches, regions, classes);
criterion_main!(benches);
