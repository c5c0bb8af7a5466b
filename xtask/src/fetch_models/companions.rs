//! What a runner of a model needs beside its weights, in the formats of the original checkpoint.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::gguf::Gguf;

/// `config.json` of a llama-architecture model, with the chat template and the tokens that end a reply.
pub(crate) fn config(gguf: &Gguf<'_>) -> Result<Vec<u8>> {
    let rope_dimensions = gguf.integer("llama.rope.dimension_count")?;
    let (hidden, heads) = (gguf.integer("llama.embedding_length")?, gguf.integer("llama.attention.head_count")?);
    ensure!(heads > 0 && rope_dimensions == hidden / heads, "rotary embeddings of a part of a head");
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": gguf.integer("llama.feed_forward_length")?,
        "num_hidden_layers": gguf.integer("llama.block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": gguf.integer("llama.attention.head_count_kv")?,
        "max_position_embeddings": gguf.integer("llama.context_length")?,
        "vocab_size": gguf.integer("llama.vocab_size")?,
        "rms_norm_eps": gguf.float("llama.attention.layer_norm_rms_epsilon")?,
        "rope_theta": gguf.float("llama.rope.freq_base")?,
        "tie_word_embeddings": !gguf.tensors().iter().any(|info| info.name == "output.weight"),
        "torch_dtype": "bfloat16",
        "bos_token_id": gguf.integer("tokenizer.ggml.bos_token_id")?,
        "eos_token_id": gguf.integer("tokenizer.ggml.eos_token_id")?,
        "chat_template": gguf.text("tokenizer.chat_template")?,
    });
    pretty(&config)
}

/// `tokenizer.json` of a byte-level BPE vocabulary, as the `tokenizers` libraries read it.
pub(crate) fn tokenizer(gguf: &Gguf<'_>) -> Result<Vec<u8>> {
    let (model, split) = (gguf.text("tokenizer.ggml.model")?, gguf.text("tokenizer.ggml.pre")?);
    // What llama.cpp calls `smollm`: every digit by itself, then GPT-2's pattern (llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM).
    ensure!((model, split) == ("gpt2", "smollm"), "a {model} vocabulary split as {split} is not supported");
    let (tokens, merges) = (gguf.texts("tokenizer.ggml.tokens")?, gguf.texts("tokenizer.ggml.merges")?);
    let kinds = gguf.integers("tokenizer.ggml.token_type")?;
    ensure!(kinds.len() == tokens.len(), "{} tokens, {} token types", tokens.len(), kinds.len());
    /// A token that stands for itself in a text (`LLAMA_TOKEN_TYPE_CONTROL`).
    const CONTROL: u64 = 3;
    let special = tokens.iter().zip(kinds).enumerate().filter(|(_, (_, kind))| *kind == CONTROL);
    let added: Vec<Value> = special
        .map(|(id, (token, _))| {
            json!({ "id": id, "content": token, "special": true, "normalized": false,
                    "single_word": false, "lstrip": false, "rstrip": false })
        })
        .collect();
    let vocabulary: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, t)| ((*t).to_owned(), id.into())).collect();
    ensure!(vocabulary.len() == tokens.len(), "a token occurs twice");
    let merges: Vec<[&str; 2]> = merges
        .iter()
        .map(|merge| Ok(merge.split_once(' ').with_context(|| format!("merge without a space: {merge}"))?.into()))
        .collect::<Result<_>>()?;
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{ "type": "Digits", "individual_digits": true }, bytes],
        },
        "post_processor": null,
        "decoder": bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": merges,
        },
    });
    pretty(&tokenizer)
}

/// The same bytes on every machine: serde_json keeps keys in alphabetical order.
fn pretty(value: &Value) -> Result<Vec<u8>> {
    Ok([serde_json::to_vec_pretty(value)?, b"\n".to_vec()].concat())
}

#[cfg(test)]
mod tests {
    use super::super::gguf::tests::{metadata, text, texts, u32s};
    use super::*;

    fn vocabulary(pre: &str, kinds: &[u32]) -> Vec<u8> {
        metadata(&[
            text("tokenizer.ggml.model", "gpt2"),
            text("tokenizer.ggml.pre", pre),
            texts("tokenizer.ggml.tokens", &["<end>", "a", "b", "ab"]),
            u32s("tokenizer.ggml.token_type", kinds),
            texts("tokenizer.ggml.merges", &["a b"]),
        ])
    }

    #[test]
    fn a_vocabulary_becomes_a_tokenizer_file() {
        let file = vocabulary("smollm", &[3, 1, 1, 1]);
        let json: Value = serde_json::from_slice(&tokenizer(&Gguf::parse(&file).unwrap()).unwrap()).unwrap();
        assert_eq!(json["model"]["vocab"], json!({ "<end>": 0, "a": 1, "b": 2, "ab": 3 }));
        assert_eq!(json["model"]["merges"], json!([["a", "b"]]));
        assert_eq!(json["added_tokens"].as_array().unwrap().len(), 1);
        assert_eq!(json["added_tokens"][0]["content"], "<end>");
    }

    #[test]
    fn a_vocabulary_that_would_be_split_otherwise_is_refused() {
        for file in [vocabulary("llama-bpe", &[3, 1, 1, 1]), vocabulary("smollm", &[3, 1])] {
            assert!(tokenizer(&Gguf::parse(&file).unwrap()).is_err());
        }
    }
}
