//! A small llama, with the example's code: loaded from an archive and on the fly it gives the logits of the safetensors file.

mod common;
#[path = "../examples/generate/llama.rs"]
#[expect(dead_code, reason = "no answer ends here")]
mod llama;
#[path = "common/small.rs"]
mod small;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use llama::{Layers, Llama};
use small::{checkpoint, config, generate};
use wcodec_candle::{Resident, Shards, var_builder};

#[test]
fn logits_are_those_of_the_safetensors_file() {
    for tied in [true, false] {
        let config = config(tied);
        let checkpoint = checkpoint(&config);
        let bytes = std::fs::read(checkpoint.safetensors("m")).unwrap();
        let vb = VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).unwrap();
        let plain = Llama::load(&config, &vb, &Layers::Loaded).unwrap();
        let vb = var_builder(checkpoint.archives(), DType::F32, &Device::Cpu).unwrap();
        let mut others = vec![Llama::load(&config, &vb, &Layers::Loaded).unwrap()];
        for (threads, in_memory) in [(1, true), (2, true), (3, false)] {
            let archives = checkpoint.archives();
            let shards = if in_memory { Shards::read(archives) } else { Shards::open(archives) };
            let resident = Resident::new(shards.unwrap(), threads).unwrap();
            let vb = resident.var_builder(DType::F32, &Device::Cpu).unwrap();
            others.push(Llama::load(&config, &vb, &Layers::OnTheFly(resident)).unwrap());
        }
        for cache in [DType::F32, DType::BF16] {
            let expected = generate(&plain, cache);
            for other in &others {
                assert!(generate(other, cache) == expected);
            }
        }
    }
}

#[test]
fn samples_are_likely_tokens() {
    let logits = [0.0, 5.0, 4.0, -3.0];
    assert_eq!(llama::greedy(&logits), 1);
    for i in 0..100 {
        let uniform = f64::from(i) / 100.0;
        assert!([1, 2].contains(&llama::sample(&logits, 1.0, 0.9, uniform).unwrap()));
        assert_eq!(llama::sample(&logits, 1.0, 0.1, uniform).unwrap(), 1);
        assert_eq!(llama::sample(&logits, 0.01, 1.0, uniform).unwrap(), 1);
    }
}
