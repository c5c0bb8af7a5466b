//! Loaded on a GPU and on the fly there: the bits that candle gives there with the safetensors file. Skipped, with the reason printed,
//! where there is no device.

mod common;
#[path = "../examples/generate/llama.rs"]
#[expect(dead_code, reason = "nothing is drawn here")]
mod llama;
#[path = "common/small.rs"]
mod small;

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{Embedding, Linear, VarBuilder};
use common::*;
use llama::{Layers, Llama};
use wcodec::cuda::CudaError;
use wcodec_candle::{CompressedLinear, LoadOptions, Resident, Shards, var_builder, var_builder_with};

/// The first device, or the reason printed.
fn device() -> Option<Device> {
    match wcodec::cuda::CudaDevice::open(0) {
        Ok(_) => Some(Device::new_cuda(0).unwrap()),
        Err(reason @ wcodec::Error::Cuda(CudaError::Driver(_) | CudaError::NoSuchDevice { .. })) => {
            println!("skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn candles(path: &std::path::Path, dtype: DType, device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_buffered_safetensors(std::fs::read(path).unwrap(), dtype, device).unwrap()
}

/// `x` of those dimensions.
fn input(dims: &[usize], dtype: DType, device: &Device) -> Tensor {
    let n = dims.iter().product::<usize>();
    let values: Vec<f32> = (0..n).map(|i| ((i * 7919 % 1009) as f32 / 500.0 - 1.0) * 0.7).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap().to_device(device).unwrap()
}

#[test]
fn every_element_type_is_loaded_as_by_candle() {
    let Some(device) = device() else { return };
    let checkpoint = Checkpoint::new();
    let noise = |n: usize| (0..n).map(|i| (i * 37 % 251) as u8).collect::<Vec<u8>>();
    let widths =
        [("F64", 8), ("I64", 8), ("F32", 4), ("I32", 4), ("U32", 4), ("BF16", 2), ("F16", 2), ("I16", 2), ("U8", 1)];
    let mut tensors: Vec<(&str, &str, &[usize], Vec<u8>)> =
        widths.iter().map(|&(dtype, width)| (dtype, dtype, &[70usize, 200][..], noise(14_000 * width))).collect();
    tensors.push(("empty", "BF16", &[0, 7], Vec::new()));
    tensors.push(("F8_E4M3", "F8_E4M3", &[70, 200], noise(14_000)));
    write_safetensors(&checkpoint.safetensors("m"), &tensors);
    checkpoint.compress("m");
    // With names in and out of order, and with nothing, little and much read ahead.
    for dtype in [DType::F32, DType::BF16, DType::F64] {
        let expected = candles(&checkpoint.safetensors("m"), dtype, &device);
        for read_ahead in [0, 100_000, 64 << 20] {
            let options = LoadOptions { device_read_ahead: read_ahead, ..LoadOptions::default() };
            let shards = Shards::open(checkpoint.archive("m")).unwrap();
            let found = var_builder_with(shards, dtype, &device, &options).unwrap();
            assert_eq!(found.get((0, 7), "empty").unwrap().dims(), [0, 7]);
            for (name, _, shape, _) in tensors.iter().chain(tensors.iter().rev()) {
                // candle-core 0.11.1 never returns from this conversion on a CPU.
                if (*name, dtype) == ("F8_E4M3", DType::F64) {
                    continue;
                }
                match (expected.get(*shape, name), found.get(*shape, name)) {
                    (Ok(expected), Ok(found)) => {
                        assert!(found.device().same_device(&device) && found.dims() == *shape);
                        let [expected, found] = [expected, found].map(|t| bits(&t.to_device(&Device::Cpu).unwrap()));
                        assert!(expected == found, "{name} as {dtype:?}");
                    }
                    // What candle cannot bring to a device: no elements, for one.
                    (Err(_), _) => {}
                    (expected, found) => panic!("{name} as {dtype:?}: {expected:?}, {found:?}"),
                }
            }
        }
    }
}

#[test]
fn layers_give_candles_bits() {
    let Some(device) = device() else { return };
    let checkpoint = Checkpoint::new();
    // One of them is multiplied in slabs.
    let shapes = [(200, 320), (3000, 600), (9000, 320), (1500, 1001), (4096, 4096), (64, 64)];
    let stored = [DType::BF16, DType::F16, DType::F32];
    let name = |(out, inner): (usize, usize), dtype: DType| format!("{dtype:?}.{out}.{inner}");
    for (seed, &dtype) in stored.iter().enumerate() {
        let tensors: Vec<(String, Tensor)> = shapes
            .iter()
            .map(|&(out, inner)| {
                (format!("{}.weight", name((out, inner), dtype)), weights(out, inner, seed as u64, dtype))
            })
            .collect();
        checkpoint
            .shard(&format!("{dtype:?}"), &tensors.iter().map(|(n, t)| (n.as_str(), t.clone())).collect::<Vec<_>>());
    }
    let resident = Resident::new(Shards::open(checkpoint.archives()).unwrap(), 1).unwrap();
    for compute in [DType::BF16, DType::F16, DType::F32] {
        let plain = var_builder(checkpoint.archives(), compute, &device).unwrap();
        let vb = resident.var_builder(compute, &device).unwrap();
        let layers: Vec<_> = stored
            .iter()
            .flat_map(|&dtype| shapes.map(|shape| (shape, name(shape, dtype))))
            .map(|((out, inner), name)| {
                let expected = candle_nn::linear_no_bias(inner, out, plain.pp(&name)).unwrap();
                (inner, expected, resident.linear_no_bias(inner, out, vb.pp(&name)).unwrap())
            })
            .collect();
        let pass = |order: &mut dyn Iterator<Item = usize>, x_dims: &[usize]| {
            for (inner, expected, layer) in order.map(|i| &layers[i]) {
                let x = input(&[x_dims, &[*inner][..]].concat(), compute, &device);
                let (expected, found) = (expected.forward(&x).unwrap(), layer.forward(&x).unwrap());
                assert!(
                    bits(&expected.to_device(&Device::Cpu).unwrap()) == bits(&found.to_device(&Device::Cpu).unwrap())
                );
            }
        };
        for x_dims in [&[1][..], &[1, 5], &[2, 3, 2]] {
            pass(&mut (0..layers.len()), x_dims);
            pass(&mut (0..layers.len()).map(|i| i * 7 % layers.len()), x_dims);
        }
        // candle has a stream for every thread; the memory that weights are decoded into is one. What is expected comes from one thread:
        // cuBLAS promises the same bits only while one stream is active, and candle's own products of several threads are not in turns.
        let x = |inner: usize| input(&[1, 2, inner], compute, &device);
        let on_cpu = |product: Tensor| bits(&product.to_device(&Device::Cpu).unwrap());
        let products: Vec<_> =
            layers.iter().map(|(inner, expected, _)| on_cpu(expected.forward(&x(*inner)).unwrap())).collect();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for ((inner, _, layer), expected) in layers.iter().zip(&products).cycle().take(4 * layers.len()) {
                        assert!(on_cpu(layer.forward(&x(*inner)).unwrap()) == *expected);
                    }
                });
            }
        });
    }
    assert!(resident.device_bytes() > 0);
}

#[test]
fn embeddings_decode_the_rows_that_are_asked_for() {
    let Some(device) = device() else { return };
    let checkpoint = Checkpoint::new();
    checkpoint.shard("m", &[("weight", weights(20_000, 200, 11, DType::BF16))]);
    let resident = Resident::new(Shards::open(checkpoint.archives()).unwrap(), 1).unwrap();
    for compute in [DType::BF16, DType::F32] {
        let vb = resident.var_builder(compute, &device).unwrap();
        let plain = Embedding::new(vb.get((20_000, 200), "weight").unwrap(), 200);
        let layer = resident.embedding(20_000, 200, vb).unwrap();
        let head = CompressedLinear::new(layer.weight().clone(), None);
        for ids in [&[7u32][..], &[4999, 0, 1, 2, 63, 64, 64, 700], &[u32::MAX, 5], &[u32::MAX]] {
            let ids = Tensor::new(ids, &device).unwrap();
            let (expected, found) = (plain.forward(&ids).unwrap(), layer.forward(&ids).unwrap());
            assert_eq!(expected.dims(), found.dims());
            assert!(bits(&expected.to_device(&Device::Cpu).unwrap()) == bits(&found.to_device(&Device::Cpu).unwrap()));
            let (expected, found) =
                (Linear::new(plain.embeddings().clone(), None).forward(&found), head.forward(&found));
            let [expected, found] = [expected, found].map(|x| bits(&x.unwrap().to_device(&Device::Cpu).unwrap()));
            assert!(expected == found);
        }
        let absent = Tensor::new(&[20_000u32], &device).unwrap();
        assert!(layer.forward(&absent).unwrap_err().to_string().contains("20000"));
    }
}

#[test]
fn logits_are_those_of_the_safetensors_file() {
    let Some(device) = device() else { return };
    for tied in [true, false] {
        let config = small::config(tied);
        let checkpoint = small::checkpoint(&config);
        for compute in [DType::BF16, DType::F32] {
            let plain = candles(&checkpoint.safetensors("m"), compute, &device);
            let plain = Llama::load(&config, &plain, &Layers::Loaded).unwrap();
            let loaded = var_builder(checkpoint.archives(), compute, &device).unwrap();
            let loaded = Llama::load(&config, &loaded, &Layers::Loaded).unwrap();
            let resident = Resident::new(Shards::open(checkpoint.archives()).unwrap(), 1).unwrap();
            let vb = resident.var_builder(compute, &device).unwrap();
            let on_the_fly = Llama::load(&config, &vb, &Layers::OnTheFly(resident)).unwrap();
            let expected = small::generate(&plain, compute);
            assert!(small::generate(&loaded, compute) == expected);
            assert!(small::generate(&on_the_fly, compute) == expected);
        }
    }
}

#[test]
fn damage_is_an_error_of_the_load_that_names_tensor_and_shard() {
    let Some(device) = device() else { return };
    let checkpoint = Checkpoint::new();
    let tensors =
        ["first", "second", "third"].map(|n| (format!("{n}.weight"), weights(96, 256, n.len() as u64, DType::BF16)));
    checkpoint.shard("part", &tensors.each_ref().map(|(n, t)| (n.as_str(), t.clone())));
    let path = checkpoint.archive("part");
    let mut bytes = std::fs::read(&path).unwrap();
    let archive = wcodec::Archive::from_bytes(bytes.clone()).unwrap();
    let payload = archive.tensor("second.weight").unwrap().entry().payload;
    bytes[(payload.offset + payload.len / 2) as usize] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    let named = |error: candle_core::Error| {
        let error = plain(error);
        assert!(error.contains("second.weight") && error.contains("part.wcodec"), "{error}");
    };
    let vb = var_builder(&path, DType::BF16, &device).unwrap();
    vb.get((96, 256), "first.weight").unwrap();
    named(vb.get((96, 256), "second.weight").unwrap_err());
    vb.get((96, 256), "third.weight").unwrap();
    let resident = Resident::new(Shards::open(&path).unwrap(), 1).unwrap();
    let vb = resident.var_builder(DType::BF16, &device).unwrap();
    resident.linear_no_bias(256, 96, vb.pp("first")).unwrap();
    named(resident.linear_no_bias(256, 96, vb.pp("second")).map(drop).unwrap_err());
}
