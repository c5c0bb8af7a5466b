//! A llama as candle would have it, over layers that are either loaded or decoded on the fly.

use candle_core::{D, DType, Device, IndexOp, Module, Result, Tensor};
use candle_nn::kv_cache::KvCache;
use candle_nn::rotary_emb::rope;
use candle_nn::{Embedding, Linear, RmsNorm, VarBuilder, rms_norm};
use serde::Deserialize;
use wcodec_candle::{CompressedLinear, Resident};

/// What `config.json` says.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Config {
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_key_value_heads: usize,
    pub(crate) max_position_embeddings: usize,
    pub(crate) vocab_size: usize,
    pub(crate) rms_norm_eps: f64,
    pub(crate) rope_theta: f32,
    pub(crate) tie_word_embeddings: bool,
    pub(crate) eos_token_id: u32,
}

impl Config {
    fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

/// Where layers get their weights. The rest of the model cannot tell.
pub(crate) enum Layers {
    /// Decoded, by candle's own layers.
    Loaded,
    /// Compressed in memory.
    OnTheFly(Resident),
}

type Layer = Box<dyn Module + Send + Sync>;

impl Layers {
    fn linear(&self, in_dim: usize, out_dim: usize, vb: VarBuilder<'_>) -> Result<Layer> {
        Ok(match self {
            Self::Loaded => Box::new(candle_nn::linear_no_bias(in_dim, out_dim, vb)?),
            Self::OnTheFly(resident) => Box::new(resident.linear_no_bias(in_dim, out_dim, vb)?),
        })
    }

    /// The embedding, and the layer that makes logits, which may share its weight.
    fn ends(&self, config: &Config, vb: &VarBuilder<'_>) -> Result<[Layer; 2]> {
        let (size, hidden) = (config.vocab_size, config.hidden_size);
        let tokens = vb.pp("model.embed_tokens");
        Ok(match self {
            Self::Loaded if config.tie_word_embeddings => {
                let weight = tokens.get((size, hidden), "weight")?;
                [Box::new(Embedding::new(weight.clone(), hidden)), Box::new(Linear::new(weight, None))]
            }
            Self::OnTheFly(resident) if config.tie_word_embeddings => {
                let embedding = resident.embedding(size, hidden, tokens)?;
                let head = CompressedLinear::new(embedding.weight().clone(), None);
                [Box::new(embedding), Box::new(head)]
            }
            Self::Loaded => {
                [Box::new(candle_nn::embedding(size, hidden, tokens)?), self.linear(hidden, size, vb.pp("lm_head"))?]
            }
            Self::OnTheFly(resident) => {
                [Box::new(resident.embedding(size, hidden, tokens)?), self.linear(hidden, size, vb.pp("lm_head"))?]
            }
        })
    }
}

/// A model, without the state of a conversation.
pub(crate) struct Llama {
    config: Config,
    embedding: Layer,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Layer,
    cos: Tensor,
    sin: Tensor,
}

/// Keys and values of the tokens so far, one pair per block.
pub(crate) struct Cache {
    pairs: Vec<KvCache>,
    dtype: DType,
}

impl Llama {
    /// Takes weights from `layers`, and from `vb` what is no matrix. Computes in the builder's dtype.
    pub(crate) fn load(config: &Config, vb: &VarBuilder<'_>, layers: &Layers) -> Result<Self> {
        let [embedding, head] = layers.ends(config, vb)?;
        let blocks = (0..config.num_hidden_layers)
            .map(|i| Block::load(config, &vb.pp(format!("model.layers.{i}")), layers))
            .collect::<Result<_>>()?;
        let norm = rms_norm(config.hidden_size, config.rms_norm_eps, vb.pp("model.norm"))?;
        let (cos, sin) = rotations(config, vb.dtype(), vb.device())?;
        Ok(Self { config: config.clone(), embedding, blocks, norm, head, cos, sin })
    }

    /// An empty cache that keeps keys and values in `dtype`.
    pub(crate) fn cache(&self, dtype: DType) -> Cache {
        let pair = || KvCache::new(2, self.config.max_position_embeddings);
        Cache { pairs: self.blocks.iter().map(|_| pair()).collect(), dtype }
    }

    /// Logits, one per token of the vocabulary, for what follows `tokens`, which follow those in the cache.
    pub(crate) fn forward(&self, tokens: &[u32], cache: &mut Cache) -> Result<Vec<f32>> {
        let start = cache.pairs.first().map_or(0, |pair| pair.current_seq_len());
        let mut x = self.embedding.forward(&Tensor::new(tokens, self.cos.device())?.unsqueeze(0)?)?;
        let angles = [&self.cos, &self.sin].map(|table| table.narrow(0, start, tokens.len()));
        let [cos, sin] = angles;
        let (cos, sin) = (cos?, sin?);
        let mask = (tokens.len() > 1).then(|| causal_mask(tokens.len(), start, x.device())).transpose()?;
        for (block, pair) in self.blocks.iter().zip(&mut cache.pairs) {
            x = block.forward(&self.config, &x, (&cos, &sin), mask.as_ref(), pair, cache.dtype)?;
        }
        let x = self.norm.forward(&x.i((.., tokens.len() - 1..))?.contiguous()?)?;
        self.head.forward(&x)?.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
    }
}

struct Block {
    attention_norm: RmsNorm,
    q: Layer,
    k: Layer,
    v: Layer,
    o: Layer,
    mlp_norm: RmsNorm,
    gate: Layer,
    up: Layer,
    down: Layer,
}

impl Block {
    fn load(config: &Config, vb: &VarBuilder<'_>, layers: &Layers) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let shared = config.num_key_value_heads * config.head_dim();
        let (attention, mlp) = (vb.pp("self_attn"), vb.pp("mlp"));
        let norm = |name| rms_norm(hidden, config.rms_norm_eps, vb.pp(name));
        Ok(Self {
            attention_norm: norm("input_layernorm")?,
            q: layers.linear(hidden, hidden, attention.pp("q_proj"))?,
            k: layers.linear(hidden, shared, attention.pp("k_proj"))?,
            v: layers.linear(hidden, shared, attention.pp("v_proj"))?,
            o: layers.linear(hidden, hidden, attention.pp("o_proj"))?,
            mlp_norm: norm("post_attention_layernorm")?,
            gate: layers.linear(hidden, inner, mlp.pp("gate_proj"))?,
            up: layers.linear(hidden, inner, mlp.pp("up_proj"))?,
            down: layers.linear(inner, hidden, mlp.pp("down_proj"))?,
        })
    }

    fn forward(
        &self,
        config: &Config,
        x: &Tensor,
        (cos, sin): (&Tensor, &Tensor),
        mask: Option<&Tensor>,
        cache: &mut KvCache,
        cache_dtype: DType,
    ) -> Result<Tensor> {
        let (heads, kv_heads, head_dim) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim());
        let (batch, len, hidden) = x.dims3()?;
        let split = |x: Tensor, heads| x.reshape((batch, len, heads, head_dim))?.transpose(1, 2)?.contiguous();

        let normed = self.attention_norm.forward(x)?;
        let q = rope(&split(self.q.forward(&normed)?, heads)?, cos, sin)?;
        let k = rope(&split(self.k.forward(&normed)?, kv_heads)?, cos, sin)?.to_dtype(cache_dtype)?;
        let v = split(self.v.forward(&normed)?, kv_heads)?.to_dtype(cache_dtype)?;
        let (k, v) = cache.append(&k, &v)?;
        let [k, v] = [k, v].map(|x| repeat(&x.to_dtype(q.dtype())?, heads / kv_heads));
        let scores = (q.matmul(&k?.t()?)? / (head_dim as f64).sqrt())?;
        let scores = match mask {
            Some(mask) => scores.broadcast_add(&mask.to_dtype(scores.dtype())?)?,
            None => scores,
        };
        let attended = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&v?)?;
        let attended = attended.transpose(1, 2)?.reshape((batch, len, hidden))?;
        let x = (x + self.o.forward(&attended)?)?;

        let normed = self.mlp_norm.forward(&x)?;
        let gated = (candle_nn::ops::silu(&self.gate.forward(&normed)?)? * self.up.forward(&normed)?)?;
        &x + self.down.forward(&gated)?
    }
}

/// Cosines and sines of the rotary embedding, one row per position, half a head wide.
fn rotations(config: &Config, dtype: DType, device: &Device) -> Result<(Tensor, Tensor)> {
    let head_dim = config.head_dim();
    let frequencies: Vec<f32> =
        (0..head_dim).step_by(2).map(|i| 1.0 / config.rope_theta.powf(i as f32 / head_dim as f32)).collect();
    let positions = Tensor::arange(0, config.max_position_embeddings as u32, device)?.to_dtype(DType::F32)?;
    let angles = positions.unsqueeze(1)?.matmul(&Tensor::new(frequencies, device)?.unsqueeze(0)?)?;
    Ok((angles.cos()?.to_dtype(dtype)?, angles.sin()?.to_dtype(dtype)?))
}

/// 0 where a token may look, −∞ at tokens behind it: `len` rows for `start` + `len` tokens.
fn causal_mask(len: usize, start: usize, device: &Device) -> Result<Tensor> {
    let cell = |row: usize, col: usize| if col > start + row { f32::NEG_INFINITY } else { 0.0 };
    let mask: Vec<f32> = (0..len).flat_map(|row| (0..start + len).map(move |col| cell(row, col))).collect();
    Tensor::from_vec(mask, (len, start + len), device)
}

/// Every head of keys or values, `times` over, for the heads of queries that share it.
fn repeat(x: &Tensor, times: usize) -> Result<Tensor> {
    if times == 1 {
        return x.contiguous();
    }
    let (batch, heads, len, head_dim) = x.dims4()?;
    x.unsqueeze(2)?.expand((batch, heads, times, len, head_dim))?.reshape((batch, heads * times, len, head_dim))
}

/// The token with the largest logit: the first of equals.
pub(crate) fn greedy(logits: &[f32]) -> u32 {
    let best = logits
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (token, &logit)| if logit > best.1 { (token, logit) } else { best });
    best.0 as u32
}

/// Draws a token from the most likely ones that together have probability `top_p`, after dividing logits by `temperature`.
/// `uniform` is from [0, 1).
pub(crate) fn sample(logits: &[f32], temperature: f64, top_p: f64, uniform: f64) -> Result<u32> {
    let logits = (Tensor::new(logits, &Device::Cpu)? / temperature)?;
    let probabilities = candle_nn::ops::softmax(&logits, D::Minus1)?.to_vec1::<f32>()?;
    let mut tokens: Vec<(usize, f64)> = probabilities.iter().map(|&p| f64::from(p)).enumerate().collect();
    tokens.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut mass = 0.0;
    let kept = tokens.iter().take_while(|(_, p)| {
        let more = mass < top_p;
        mass += p;
        more
    });
    let kept = kept.count().max(1);
    let total: f64 = tokens[..kept].iter().map(|(_, p)| p).sum();
    let mut left = uniform * total;
    for &(token, p) in &tokens[..kept] {
        left -= p;
        if left < 0.0 {
            return Ok(token as u32);
        }
    }
    Ok(tokens[kept - 1].0 as u32)
}
