//! A small llama, with the example's code: loaded from an archive and on the fly it gives the logits of the safetensors file.

mod common;
#[path = "../examples/generate/llama.rs"]
#[expect(dead_code, reason = "no answer ends here")]
mod llama;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use common::*;
use llama::{Config, Layers, Llama};
use wcodec_candle::{Resident, Shards, var_builder};

fn config(tied: bool) -> Config {
    Config {
        hidden_size: 192,
        intermediate_size: 600,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        num_key_value_heads: 2,
        max_position_embeddings: 64,
        vocab_size: 5000,
        rms_norm_eps: 1e-5,
        rope_theta: 1e4,
        tie_word_embeddings: tied,
        eos_token_id: 0,
    }
}

fn checkpoint(config: &Config) -> Checkpoint {
    let (hidden, inner, shared) = (config.hidden_size, config.intermediate_size, config.hidden_size / 3);
    let mut shapes = vec![("model.embed_tokens".to_owned(), config.vocab_size, hidden)];
    if !config.tie_word_embeddings {
        shapes.push(("lm_head".to_owned(), config.vocab_size, hidden));
    }
    for i in 0..config.num_hidden_layers {
        let parts = [
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.k_proj", shared, hidden),
            ("self_attn.v_proj", shared, hidden),
            ("self_attn.o_proj", hidden, hidden),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ];
        shapes.extend(parts.map(|(part, rows, cols)| (format!("model.layers.{i}.{part}"), rows, cols)));
    }
    let norms = (0..config.num_hidden_layers)
        .flat_map(|i| ["input", "post_attention"].map(|part| format!("model.layers.{i}.{part}_layernorm")))
        .chain(["model.norm".to_owned()]);
    let mut tensors: Vec<_> = shapes
        .iter()
        .enumerate()
        .map(|(seed, (name, rows, cols))| (format!("{name}.weight"), weights(*rows, *cols, seed as u64, DType::BF16)))
        .collect();
    tensors.extend(norms.map(|name| {
        (format!("{name}.weight"), weights(1, hidden, 99, DType::BF16).flatten_all().unwrap().affine(1.0, 1.0).unwrap())
    }));
    let checkpoint = Checkpoint::new();
    checkpoint.shard("m", &tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect::<Vec<_>>());
    checkpoint
}

/// The logits of 20 tokens and the tokens, after a prompt.
fn generate(model: &Llama, cache: DType) -> (Vec<Vec<u32>>, Vec<u32>) {
    let (mut cache, mut next) = (model.cache(cache), vec![3, 1, 4, 1, 5, 9, 2, 6]);
    let (mut all, mut tokens) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let logits = model.forward(&next, &mut cache).unwrap();
        assert!(logits.iter().all(|logit| logit.is_finite()));
        tokens.push(llama::greedy(&logits));
        next = vec![tokens[tokens.len() - 1]];
        all.push(logits.into_iter().map(f32::to_bits).collect());
    }
    (all, tokens)
}

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
