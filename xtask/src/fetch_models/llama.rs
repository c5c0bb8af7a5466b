//! From llama.cpp's names and row order of a llama model to those of its original checkpoint.

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::Dtype;

use super::cast;
use super::gguf::Gguf;
use crate::tensors::Tensor;

/// Every tensor of a llama-architecture GGUF as BF16 under its original name, in the original row order.
pub(crate) fn bf16_checkpoint(gguf: &Gguf<'_>) -> Result<Vec<Tensor>> {
    let heads = gguf.integer("llama.attention.head_count")?;
    let kv_heads = gguf.integer("llama.attention.head_count_kv")?;
    gguf.tensors()
        .iter()
        .map(|info| {
            let name = original_name(&info.name)?;
            let mut values = gguf.dequantise(info)?;
            let permuted_heads = match name.as_str() {
                name if name.ends_with("q_proj.weight") => Some(heads),
                name if name.ends_with("k_proj.weight") => Some(kv_heads),
                _ => None,
            };
            if let Some(heads) = permuted_heads {
                let rows = *info.shape.first().context("a projection without rows")?;
                values = halves_from_pairs(&values, rows, heads).with_context(|| name.clone())?;
            }
            Ok(Tensor { name, dtype: Dtype::BF16, shape: info.shape.clone(), data: cast::to_bf16(&values) })
        })
        .collect()
}

fn original_name(name: &str) -> Result<String> {
    match name {
        "token_embd.weight" => return Ok("model.embed_tokens.weight".into()),
        "output_norm.weight" => return Ok("model.norm.weight".into()),
        "output.weight" => return Ok("lm_head.weight".into()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).unwrap_or_default();
    let part = match part {
        "attn_norm.weight" => "input_layernorm",
        "attn_q.weight" => "self_attn.q_proj",
        "attn_k.weight" => "self_attn.k_proj",
        "attn_v.weight" => "self_attn.v_proj",
        "attn_output.weight" => "self_attn.o_proj",
        "ffn_norm.weight" => "post_attention_layernorm",
        "ffn_gate.weight" => "mlp.gate_proj",
        "ffn_up.weight" => "mlp.up_proj",
        "ffn_down.weight" => "mlp.down_proj",
        _ => bail!("no llama tensor is called {name}"),
    };
    Ok(format!("model.layers.{layer}.{part}.weight"))
}

/// llama.cpp rotates neighbouring rows of a head, original checkpoints row j with row j + half, so its converter
/// (`LlamaModel.permute` in convert_hf_to_gguf.py) interleaves the two halves of each head; this undoes it.
fn halves_from_pairs(values: &[f32], rows: usize, heads: usize) -> Result<Vec<f32>> {
    ensure!(heads > 0 && rows > 0 && rows.is_multiple_of(2 * heads), "{rows} rows are no {heads} heads of pairs");
    let columns = values.len() / rows;
    let half = rows / heads / 2;
    let mut restored = Vec::with_capacity(values.len());
    for row in 0..rows {
        let (head, within) = (row / (2 * half), row % (2 * half));
        let from = head * 2 * half + 2 * (within % half) + within / half;
        restored.extend_from_slice(&values[from * columns..(from + 1) * columns]);
    }
    Ok(restored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_halves() {
        // Two heads of 6 rows × 2 columns; the value is the row's place in the original order.
        let interleaved = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11];
        let values: Vec<f32> = interleaved.iter().flat_map(|row| [*row as f32, -(*row as f32)]).collect();
        let restored = halves_from_pairs(&values, 12, 2).unwrap();
        let expect: Vec<f32> = (0..12).flat_map(|row| [row as f32, -(row as f32)]).collect();
        assert_eq!(restored, expect);
        assert!(halves_from_pairs(&values, 12, 4).is_err());
        assert!(halves_from_pairs(&[], 0, 2).is_err());
    }

    #[test]
    fn names_are_the_original_ones() {
        assert_eq!(original_name("blk.12.attn_q.weight").unwrap(), "model.layers.12.self_attn.q_proj.weight");
        assert_eq!(original_name("token_embd.weight").unwrap(), "model.embed_tokens.weight");
        for unknown in ["blk.0.attn_q.bias", "blk.0", "rope_freqs.weight", ""] {
            assert!(original_name(unknown).is_err(), "{unknown}");
        }
    }
}
