//! Layers over compressed weights give the bits of candle's own layers.

mod common;

use candle_core::{D, DType, Device, Module, Tensor};
use candle_nn::{Embedding, Linear, VarBuilder};
use common::*;
use proptest::prelude::*;
use wcodec_candle::{CompressedLinear, Resident, Shards, var_builder};

fn resident(checkpoint: &Checkpoint, in_memory: bool, threads: usize) -> Resident {
    let shards = if in_memory { Shards::read(checkpoint.archives()) } else { Shards::open(checkpoint.archives()) };
    Resident::new(shards.unwrap(), threads).unwrap()
}

/// `x` of those dimensions.
fn input(dims: &[usize], dtype: DType) -> Tensor {
    let n = dims.iter().product::<usize>();
    let values: Vec<f32> = (0..n).map(|i| ((i * 7919 % 1009) as f32 / 500.0 - 1.0) * 0.7).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

#[test]
fn linear_layers_give_candles_bits() {
    // One slab, several, an odd number of columns, more rows than a slab with a small rest, few columns.
    let shapes = [(200, 320), (3000, 600), (1500, 1001), (1100, 577), (20_000, 64), (2049, 256)];
    let stored = [DType::BF16, DType::F16, DType::F32];
    let checkpoint = Checkpoint::new();
    let name = |(out, inner): (usize, usize), dtype: DType| format!("{dtype:?}.{out}.{inner}");
    for (seed, &dtype) in stored.iter().enumerate() {
        let tensors: Vec<(String, Tensor)> = shapes
            .iter()
            .flat_map(|&(out, inner)| {
                let bias = weights(1, out, 77, dtype).flatten_all().unwrap();
                let weight = weights(out, inner, seed as u64, dtype);
                [("weight", weight), ("bias", bias)]
                    .map(|(part, t)| (format!("{}.{part}", name((out, inner), dtype)), t))
            })
            .collect();
        checkpoint
            .shard(&format!("{dtype:?}"), &tensors.iter().map(|(n, t)| (n.as_str(), t.clone())).collect::<Vec<_>>());
    }
    for threads in [1, 2, 4] {
        let resident = resident(&checkpoint, threads != 2, threads);
        for compute in [DType::F32, DType::F16] {
            let plain = var_builder(checkpoint.archives(), compute, &Device::Cpu).unwrap();
            let vb = resident.var_builder(compute, &Device::Cpu).unwrap();
            let layers: Vec<(usize, Linear, CompressedLinear)> = stored
                .iter()
                .flat_map(|&dtype| shapes.map(|shape| (shape, name(shape, dtype))))
                .enumerate()
                .map(|(i, ((out, inner), name))| {
                    let expected = candle_nn::linear_b(inner, out, i % 2 == 0, plain.pp(&name)).unwrap();
                    (inner, expected, resident.linear_b(inner, out, i % 2 == 0, vb.pp(&name)).unwrap())
                })
                .collect();
            // The second and third pass are foretold; the rows of x differ.
            for x_dims in [&[1][..], &[1, 5], &[2, 3, 2]] {
                for (inner, expected, layer) in &layers {
                    let x = input(&[x_dims, &[*inner][..]].concat(), compute);
                    let (expected, found) = (expected.forward(&x).unwrap(), layer.forward(&x).unwrap());
                    assert_eq!(expected.dims(), found.dims());
                    assert!(
                        bits(&expected) == bits(&found),
                        "{:?}, {threads} threads, {compute:?}, {x_dims:?}",
                        layer.weight()
                    );
                }
            }
        }
    }
}

#[test]
fn inputs_that_are_not_contiguous_and_layers_out_of_order() {
    let checkpoint = Checkpoint::new();
    let tensors =
        ["a", "b", "c"].map(|n| (format!("{n}.weight"), weights(1200, 800, n.as_bytes()[0].into(), DType::BF16)));
    checkpoint.shard("m", &tensors.each_ref().map(|(n, t)| (n.as_str(), t.clone())));
    let resident = resident(&checkpoint, true, 3);
    let vb = resident.var_builder(DType::F32, &Device::Cpu).unwrap();
    let plain = tensors.each_ref().map(|(_, t)| Linear::new(t.to_dtype(DType::F32).unwrap(), None));
    let layers = ["a", "b", "c"].map(|name| resident.linear_no_bias(800, 1200, vb.pp(name)).unwrap());
    assert!(layers[0].weight().slab_elements() < 1200 * 800, "{:?} is one slab", layers[0].weight());
    let x = input(&[2, 800, 3], DType::F32).transpose(1, 2).unwrap();
    for i in (0..40).map(|i| i * i % 7 % 3) {
        assert!(bits(&plain[i].forward(&x).unwrap()) == bits(&layers[i].forward(&x).unwrap()));
    }
    // Several users of the same layers at once.
    std::thread::scope(|scope| {
        for start in 0..3 {
            let (plain, layers, x) = (&plain, &layers, &x);
            scope.spawn(move || {
                for i in (start..start + 12).map(|i| i % 3) {
                    assert!(bits(&plain[i].forward(x).unwrap()) == bits(&layers[i].forward(x).unwrap()));
                }
            });
        }
    });
}

#[test]
fn nothing_of_a_layer_is_kept_but_buffers_of_a_slab() {
    let checkpoint = Checkpoint::new();
    checkpoint.shard("m", &[("head.weight", weights(16_000, 256, 3, DType::BF16))]);
    let threads = 2;
    let resident = resident(&checkpoint, true, threads);
    let vb = resident.var_builder(DType::F32, &Device::Cpu).unwrap();
    let layer = resident.linear_no_bias(256, 16_000, vb.pp("head")).unwrap();
    for _ in 0..3 {
        layer.forward(&input(&[1, 256], DType::F32)).unwrap();
    }
    let slab = layer.weight().slab_elements() as u64;
    assert!(slab < 16_000 * 256 / 4);
    let buffers = resident.resident_bytes() - resident.shards().byte_len();
    assert!(buffers <= (threads as u64 + 2) * slab * (4 + 2), "{buffers} bytes of buffers, slabs of {slab} elements");
}

#[test]
fn a_gradient_ends_at_a_compressed_layer() {
    let checkpoint = Checkpoint::new();
    checkpoint.shard("m", &[("a.weight", weights(64, 64, 1, DType::F32))]);
    let resident = resident(&checkpoint, true, 1);
    let vb = resident.var_builder(DType::F32, &Device::Cpu).unwrap();
    let layer = resident.linear_no_bias(64, 64, vb.pp("a")).unwrap();
    let x = candle_core::Var::from_tensor(&input(&[1, 64], DType::F32)).unwrap();
    let loss = layer.forward(&x).unwrap().sum_all().unwrap();
    assert!(loss.backward().unwrap().get(&x).is_none());
}

#[test]
fn what_a_layer_cannot_do_is_refused() {
    let checkpoint = Checkpoint::new();
    checkpoint.shard("m", &[("a.weight", weights(70, 64, 1, DType::BF16))]);
    let resident = resident(&checkpoint, true, 1);
    let vb = resident.var_builder(DType::F32, &Device::Cpu).unwrap();
    let shape = resident.linear_no_bias(70, 64, vb.pp("a")).unwrap_err();
    assert!(shape.to_string().contains("a.weight"), "{shape}");
    let absent = resident.linear_no_bias(64, 70, vb.pp("b")).unwrap_err();
    assert_eq!(plain(absent), "cannot find tensor b.weight");
    assert!(resident.linear_no_bias(64, 70, vb.to_dtype(DType::I64).pp("a")).is_err());
    let layer = resident.linear_no_bias(64, 70, vb.pp("a")).unwrap();
    assert!(layer.forward(&input(&[1, 63], DType::F32)).is_err());
    layer.forward(&input(&[1, 64], DType::F32)).unwrap();
}

#[test]
fn tied_weights_serve_both_ends() {
    let checkpoint = Checkpoint::new();
    checkpoint.shard("m", &[("embed.weight", weights(3000, 192, 5, DType::BF16))]);
    let resident = resident(&checkpoint, true, 2);
    let vb = resident.var_builder(DType::F32, &Device::Cpu).unwrap();
    let embedding = resident.embedding(3000, 192, vb.pp("embed")).unwrap();
    let head = CompressedLinear::new(embedding.weight().clone(), None);
    let plain = vb.get((3000, 192), "embed.weight").unwrap();
    let ids = Tensor::new(&[[0u32, 2999, 7]], &Device::Cpu).unwrap();
    let x = embedding.forward(&ids).unwrap();
    assert!(bits(&x) == bits(&Embedding::new(plain.clone(), 192).forward(&ids).unwrap()));
    assert!(bits(&head.forward(&x).unwrap()) == bits(&Linear::new(plain, None).forward(&x).unwrap()));
    assert_eq!(head.forward(&x).unwrap().dim(D::Minus1).unwrap(), 3000);
}

/// An embedding of several slabs, cut and uncut.
fn embedding() -> (Tensor, VarBuilder<'static>, Resident) {
    let checkpoint = Checkpoint::new();
    let table = weights(5000, 200, 11, DType::BF16);
    checkpoint.shard("m", &[("weight", table.clone())]);
    let resident = resident(&checkpoint, true, 1);
    let vb = resident.var_builder(DType::F32, &Device::Cpu).unwrap();
    (table.to_dtype(DType::F32).unwrap(), vb, resident)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn embeddings_give_candles_bits(ids in prop::collection::vec(0u32..5000, 0..60), near in 0u32..4900) {
        let (table, vb, resident) = embedding();
        let layer = resident.embedding(5000, 200, vb).unwrap();
        let plain = Embedding::new(table, 200);
        // Rows far from each other, rows of one chunk, the same row twice, and candle's "no row".
        let ids: Vec<u32> = ids.iter().copied().chain((near..near + 20).chain([near, u32::MAX])).collect();
        let ids = Tensor::new(ids, &Device::Cpu).unwrap();
        prop_assert!(bits(&layer.forward(&ids).unwrap()) == bits(&plain.forward(&ids).unwrap()));
        let wide = Tensor::new(&[[3i64, i64::MAX], [4999, 0]], &Device::Cpu).unwrap();
        let (expected, found) = (plain.forward(&wide).unwrap(), layer.forward(&wide).unwrap());
        prop_assert_eq!(expected.dims(), found.dims());
        prop_assert!(bits(&expected) == bits(&found));
    }
}

#[test]
fn rows_that_are_not_there_are_refused_as_by_candle() {
    let (table, vb, resident) = embedding();
    let (layer, plain) = (resident.embedding(5000, 200, vb).unwrap(), Embedding::new(table, 200));
    for ids in
        [Tensor::new(&[5000i64], &Device::Cpu), Tensor::new(&[-1i64], &Device::Cpu), Tensor::new(&[0f32], &Device::Cpu)]
    {
        let ids = ids.unwrap();
        assert!(plain.forward(&ids).is_err());
        assert!(layer.forward(&ids).is_err());
    }
    let error = layer.forward(&Tensor::new(&[5000u32], &Device::Cpu).unwrap()).unwrap_err();
    assert_eq!(common::plain(error), "index-select invalid index 5000 with dim size 5000");
}
