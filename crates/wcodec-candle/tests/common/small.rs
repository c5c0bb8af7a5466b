//! A llama small enough for tests.

use candle_core::DType;

use crate::common::{Checkpoint, weights};
use crate::llama::{self, Config, Llama};

pub(crate) fn config(tied: bool) -> Config {
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

pub(crate) fn checkpoint(config: &Config) -> Checkpoint {
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
pub(crate) fn generate(model: &Llama, cache: DType) -> (Vec<Vec<u32>>, Vec<u32>) {
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
