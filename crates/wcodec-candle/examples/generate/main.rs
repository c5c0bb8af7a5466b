//! Chats with a llama model stored as a `.wcodec` archive.
//!
//! ```text
//! cargo xtask fetch-models --only smollm2-bf16 --only smollm2-config --only smollm2-tokenizer
//! cargo run --release -p wcodec-candle --example generate -- --prompt "Why is the sky blue?" --on-the-fly
//! ```
//!
//! Archives of the weights are made when there are none beside them. `--check` runs the plain safetensors file beside the archive and
//! compares every logit.

mod chat;
mod llama;
mod memory;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use clap::{Parser, ValueEnum};
use wcodec_candle::{Resident, Shards, var_builder};

use chat::Chat;
use llama::{Config, Layers, Llama};

#[derive(Parser)]
struct Args {
    /// A `.wcodec` file or a folder of them; or a safetensors file, which is run as it is.
    #[arg(long, default_value = "target/models/smollm2-bf16.wcodec")]
    weights: PathBuf,
    /// `config.json` of the model.
    #[arg(long, default_value = "target/models/smollm2-config.json")]
    config: PathBuf,
    /// `tokenizer.json` of the model.
    #[arg(long, default_value = "target/models/smollm2-tokenizer.json")]
    tokenizer: PathBuf,
    /// What to ask.
    #[arg(long, default_value = "Why is the sky blue?")]
    prompt: String,
    /// What the model is told about itself.
    #[arg(long, default_value = "You are a helpful AI assistant named SmolLM, trained by Hugging Face")]
    system: String,
    /// Tokens to generate at most.
    #[arg(long, default_value_t = 256)]
    tokens: usize,
    /// Goes on after the end of the answer.
    #[arg(long)]
    ignore_eos: bool,
    /// 0 takes the likeliest token; above, tokens are drawn.
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Draws from the likeliest tokens that have this probability together.
    #[arg(long, default_value_t = 0.95)]
    top_p: f64,
    /// Another seed, another answer.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Keeps matrices compressed in memory and decodes them for every token.
    #[arg(long)]
    on_the_fly: bool,
    /// With --on-the-fly: leaves them on the disk, mapped.
    #[arg(long, requires = "on_the_fly")]
    from_disk: bool,
    /// Where the model runs: in F32 on the CPU; with the feature `cuda` on the first CUDA device, in the element type of its weights.
    #[arg(long, value_enum, default_value_t = Machine::Cpu)]
    device: Machine,
    /// What keys and values are kept in: F32, or the element type of the model's weights.
    #[arg(long, value_enum, default_value_t = CacheDtype::F32)]
    kv_cache_dtype: CacheDtype,
    /// Runs the safetensors file of that name beside it, and compares every logit.
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum CacheDtype {
    F32,
    Model,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Machine {
    Cpu,
    Cuda,
}

/// Where a model runs, and what it computes in.
struct Place {
    device: Device,
    dtype: DType,
}

impl Place {
    fn new(args: &Args) -> Result<Self, Box<dyn Error>> {
        Ok(match args.device {
            // candle multiplies no BF16 on a CPU.
            Machine::Cpu => Self { device: Device::Cpu, dtype: DType::F32 },
            Machine::Cuda => Self { device: Device::new_cuda(0)?, dtype: weight_dtype(&args.weights)? },
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let config: Config = serde_json::from_slice(&read(&args.config)?)?;
    let chat = Chat::open(&args.tokenizer)?;
    make_archive(&args.weights)?;

    let place = Place::new(&args)?;
    let before = memory::resident();
    let start = Instant::now();
    let (model, resident) = load(&config, &args, &place)?;
    place.device.synchronize()?;
    let loaded = start.elapsed();
    let safetensors = args.weights.with_extension("safetensors");
    let plain = if args.check { Some(plain(&config, &safetensors, &place)?) } else { None };

    let cache_dtype = match args.kv_cache_dtype {
        CacheDtype::F32 => DType::F32,
        CacheDtype::Model => weight_dtype(&args.weights)?,
    };
    let mut random = SplitMix(args.seed);
    let (mut cache, mut plain_cache) = (model.cache(cache_dtype), plain.as_ref().map(|plain| plain.cache(cache_dtype)));
    let (mut answer, mut printed, mut next) = (Vec::new(), 0, chat.ask(&args.system, &args.prompt)?);
    let (prompt_len, mut start) = (next.len(), Instant::now());
    let mut prompted = start.elapsed();
    let mut compared = 0u64;
    while answer.len() < args.tokens {
        let logits = model.forward(&next, &mut cache)?;
        if let (Some(plain), Some(cache)) = (&plain, &mut plain_cache) {
            let expected = plain.forward(&next, cache)?;
            let differs = expected.iter().zip(&logits).position(|(a, b)| a.to_bits() != b.to_bits());
            if differs.is_some() || expected.len() != logits.len() {
                return Err(format!("token {}: logit {differs:?} differs", answer.len()).into());
            }
            compared += logits.len() as u64;
        }
        if answer.is_empty() {
            (prompted, start) = (start.elapsed(), Instant::now());
        }
        let token = if args.temperature > 0.0 {
            llama::sample(&logits, args.temperature, args.top_p, random.uniform())?
        } else {
            llama::greedy(&logits)
        };
        if token == config.eos_token_id && !args.ignore_eos {
            break;
        }
        answer.push(token);
        printed = chat.print(&answer, printed)?;
        next = vec![token];
    }
    let generated = start.elapsed().as_secs_f64();
    println!("\n");

    let threads = candle_core::utils::get_num_threads();
    println!("load      {:.3} s, {threads} thread(s)", loaded.as_secs_f64());
    println!("prompt    {prompt_len} tokens in {:.3} s", prompted.as_secs_f64());
    if answer.len() > 1 {
        println!("answer    {} tokens, {:.1} tokens/s", answer.len(), (answer.len() - 1) as f64 / generated);
    }
    if let Some(resident) = resident {
        println!("weights   {} of archives and buffers", mib(resident.resident_bytes()));
        #[cfg(feature = "cuda")]
        println!("device    {} of compressed weights and memory to decode into", mib(resident.device_bytes()));
    }
    if let (Some((before, _)), Some((now, peak))) = (before, memory::resident()) {
        println!("process   {} now, {} at most, {} before the weights", mib(now), mib(peak), mib(before));
    }
    if args.check {
        println!(
            "check     {compared} logits of {} tokens are those of the safetensors file, bit for bit",
            answer.len()
        );
    }
    Ok(())
}

/// The model, and what keeps its weights if they stay compressed.
fn load(config: &Config, args: &Args, place: &Place) -> Result<(Llama, Option<Resident>), Box<dyn Error>> {
    if is_safetensors(&args.weights) {
        return Ok((plain(config, &args.weights, place)?, None));
    }
    if !args.on_the_fly {
        let vb = var_builder(&args.weights, place.dtype, &place.device)?;
        return Ok((Llama::load(config, &vb, &Layers::Loaded)?, None));
    }
    // What a GPU has, it need not read again.
    let shards = if args.from_disk || args.device == Machine::Cuda {
        Shards::open(&args.weights)
    } else {
        Shards::read(&args.weights)
    };
    let resident = Resident::new(shards?, candle_core::utils::get_num_threads())?;
    let vb = resident.var_builder(place.dtype, &place.device)?;
    let model = Llama::load(config, &vb, &Layers::OnTheFly(resident.clone()))?;
    Ok((model, Some(resident)))
}

/// The model as it is without wcodec.
fn plain(config: &Config, path: &Path, place: &Place) -> Result<Llama, Box<dyn Error>> {
    let vb = VarBuilder::from_buffered_safetensors(read(path)?, place.dtype, &place.device)?;
    Ok(Llama::load(config, &vb, &Layers::Loaded)?)
}

/// The element type of the largest weight.
fn weight_dtype(path: &Path) -> Result<DType, Box<dyn Error>> {
    let name = if is_safetensors(path) {
        let bytes = read(path)?;
        let tensors = safetensors::SafeTensors::deserialize(&bytes)?;
        tensors.iter().map(|(_, view)| (view.data().len() as u64, view.dtype().to_string())).max()
    } else {
        Shards::open(path)?.entries().map(|entry| (entry.decoded_len, entry.dtype.to_string())).max()
    };
    match name.as_ref().map(|(_, name)| name.as_str()) {
        Some("BF16") => Ok(DType::BF16),
        Some("F16") => Ok(DType::F16),
        Some("F32") => Ok(DType::F32),
        Some(name) => Err(format!("this model does not compute in {name}").into()),
        None => Err("no tensor in the weights".into()),
    }
}

/// Compresses the safetensors file beside an archive that is not there.
fn make_archive(path: &Path) -> Result<(), Box<dyn Error>> {
    let source = path.with_extension("safetensors");
    if !is_safetensors(path) && !path.exists() && source.exists() {
        eprintln!("compressing {}", source.display());
        let report = wcodec::compress(&source, path, &wcodec::EncodeOptions::default(), &())?;
        eprintln!("{}: {} of {}", path.display(), mib(report.archive_bytes), mib(report.decoded_bytes));
    }
    Ok(())
}

fn is_safetensors(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "safetensors")
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct SplitMix(u64);

impl SplitMix {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}
