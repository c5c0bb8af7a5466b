//! Loading a model, and running it on the fly, beside the plain safetensors file: `cargo bench -p wcodec-candle`.
//!
//! Without `WCODEC_MODEL` (a safetensors file), the model is synthetic: the shapes of SmolLM2-135M, with BF16 noise whose scale
//! depends on the row and on the column. Every load and every mode runs in a process of its own, since memory that a process has used
//! before is much faster than new memory. The formats take turns; what counts are their ratios.
//!
//! A disk of 500 MB/s is imitated by a reader that hands out no byte before its time: the file is read through it into memory, and then
//! loaded from there. Reading and decoding do not overlap, for neither format.
//!
//! With the feature `cuda` and a device, the matrices are multiplied there too, in BF16; `WCODEC_BENCH_ONLY=cuda` does nothing else.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{Linear, VarBuilder};
use wcodec_candle::{CompressedLinear, LoadOptions, Resident, Shards, var_builder, var_builder_with};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What a network disk gives, in bytes a second.
const DISK: f64 = 500e6;
const RUNS: usize = 5;

fn main() -> Result<()> {
    if let Ok(part) = std::env::var("WCODEC_BENCH_PART") {
        let folder = PathBuf::from(std::env::var("WCODEC_BENCH_FOLDER")?);
        let (plain, archive) = (folder.join("model.safetensors"), folder.join("model.wcodec"));
        return match part.as_str() {
            "loaded" => passes(&archive, false),
            "on the fly" => passes(&archive, true),
            #[cfg(feature = "cuda")]
            "cuda" => on_device(&archive),
            load => load_once(load, &plain, &archive).map(|seconds| println!("{seconds}")),
        };
    }
    let folder = tempfile::tempdir()?;
    let (plain, archive) = (folder.path().join("model.safetensors"), folder.path().join("model.wcodec"));
    match std::env::var("WCODEC_MODEL") {
        Ok(model) => drop(std::fs::copy(model, &plain)?),
        Err(_) => synthesise(&plain)?,
    }
    let report = wcodec::compress(&plain, &archive, &wcodec::EncodeOptions::default(), &())?;
    let ratio = report.archive_bytes as f64 / report.decoded_bytes as f64;
    println!("model: {} bytes, archive {ratio:.4} of it, {} threads", report.decoded_bytes, threads());
    let run = |part: &str| -> Result<String> {
        let child = Command::new(std::env::current_exe()?)
            .env("WCODEC_BENCH_PART", part)
            .env("WCODEC_BENCH_FOLDER", folder.path())
            .stderr(Stdio::inherit())
            .output()?;
        if !child.status.success() {
            return Err(format!("{part}: {}", child.status).into());
        }
        Ok(String::from_utf8(child.stdout)?.trim().to_owned())
    };
    #[cfg(feature = "cuda")]
    {
        println!("{}", run("cuda")?);
        if std::env::var("WCODEC_BENCH_ONLY").is_ok_and(|only| only == "cuda") {
            return Ok(());
        }
    }
    for (dtype, disk) in [("F32", "cached"), ("F32", "slow"), ("BF16", "cached"), ("BF16", "slow")] {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..RUNS {
            for (times, format) in times.iter_mut().zip(["safetensors", "wcodec"]) {
                times.push(run(&format!("{format} {dtype} {disk}"))?.parse::<f64>()?);
            }
        }
        let [plain, archive] = times.map(median);
        let ratio = archive / plain;
        println!("load as {dtype:4}, {disk:6}: safetensors {plain:.3} s, wcodec {archive:.3} s, {ratio:.2} of it");
    }
    for mode in ["loaded", "on the fly"] {
        println!("{}", run(mode)?);
    }
    Ok(())
}

fn threads() -> usize {
    candle_core::utils::get_num_threads()
}

/// Seconds for all tensors of the checkpoint, as `what` says: format, dtype, disk.
fn load_once(what: &str, plain: &Path, archive: &Path) -> Result<f64> {
    let names: Vec<(String, Vec<usize>)> = Shards::open(archive)?
        .entries()
        .map(|entry| (entry.name.clone(), entry.shape.iter().map(|&dim| dim as usize).collect()))
        .collect();
    let dtype = if what.contains("BF16") { DType::BF16 } else { DType::F32 };
    let start = Instant::now();
    let vb = match (what.starts_with("wcodec"), what.ends_with("slow")) {
        (false, false) => {
            // SAFETY: nothing else knows of this file, which lies in a temporary folder.
            #[expect(unsafe_code, reason = "candle's own way to map safetensors, to compare with")]
            unsafe {
                VarBuilder::from_mmaped_safetensors(&[plain], dtype, &Device::Cpu)?
            }
        }
        (true, false) => var_builder(archive, dtype, &Device::Cpu)?,
        (false, true) => VarBuilder::from_buffered_safetensors(read_slowly(plain)?, dtype, &Device::Cpu)?,
        (true, true) => {
            let archive = wcodec::Archive::from_bytes(read_slowly(archive)?)?;
            let shards = Shards::from_archives([(PathBuf::from("memory"), archive)], true);
            var_builder_with(shards, dtype, &Device::Cpu, &LoadOptions::default())?
        }
    };
    let tensors =
        names.iter().map(|(name, shape)| vb.get(shape.as_slice(), name)).collect::<candle_core::Result<Vec<_>>>()?;
    let seconds = start.elapsed().as_secs_f64();
    drop(tensors);
    Ok(seconds)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The file's bytes, none of them before a disk of [`DISK`] bytes a second would have given it.
fn read_slowly(path: &Path) -> Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    let start = Instant::now();
    let mut read = 0;
    for piece in bytes.chunks_mut(1 << 20) {
        file.read_exact(piece)?;
        read += piece.len();
        std::thread::sleep(Duration::from_secs_f64(read as f64 / DISK).saturating_sub(start.elapsed()));
    }
    Ok(bytes)
}

/// Multiplies a vector with every matrix in turn, as a token does, and tells the memory that the weights take.
fn passes(archive: &Path, on_the_fly: bool) -> Result<()> {
    enum Layer {
        Loaded(Linear),
        OnTheFly(CompressedLinear),
    }
    let before = resident_bytes();
    let shards = if on_the_fly { Shards::read(archive)? } else { Shards::open(archive)? };
    let mut matrices: Vec<(String, usize, usize)> = Vec::new();
    let mut bf16 = 0;
    for entry in shards.entries() {
        bf16 += 2 * entry.shape.iter().product::<u64>();
        if let (Some(name), [rows, cols]) = (entry.name.strip_suffix(".weight"), entry.shape.as_slice()) {
            matrices.push((name.to_owned(), *rows as usize, *cols as usize));
        }
    }
    let resident = Resident::new(shards, threads())?;
    let vb = resident.var_builder(DType::F32, &Device::Cpu)?;
    let layers = matrices
        .iter()
        .map(|(name, rows, cols)| {
            let x = Tensor::ones((1, *cols), DType::F32, &Device::Cpu)?;
            let layer = if on_the_fly {
                Layer::OnTheFly(resident.linear_no_bias(*cols, *rows, vb.pp(name))?)
            } else {
                Layer::Loaded(candle_nn::linear_no_bias(*cols, *rows, vb.pp(name))?)
            };
            Ok((layer, x))
        })
        .collect::<candle_core::Result<Vec<_>>>()?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        for (layer, x) in &layers {
            match layer {
                Layer::Loaded(layer) => drop(layer.forward(x)?),
                Layer::OnTheFly(layer) => drop(layer.forward(x)?),
            }
        }
        times.push(start.elapsed().as_secs_f64());
    }
    let memory = match (before, resident_bytes()) {
        (Some(before), Some(now)) => {
            let grown = now.saturating_sub(before);
            format!("process grown by {grown} bytes, {:.3} of the weights as BF16", grown as f64 / bf16 as f64)
        }
        _ => "memory unknown".to_owned(),
    };
    let mode = if on_the_fly { "on the fly" } else { "loaded    " };
    println!("{mode} {:.1} ms for all {} matrices; {memory}", median(times) * 1e3, layers.len());
    Ok(())
}

/// The same on a GPU, where the products of both modes must be the same bits.
#[cfg(feature = "cuda")]
fn on_device(archive: &Path) -> Result<()> {
    let Ok(device) = Device::new_cuda(0) else {
        println!("no CUDA device");
        return Ok(());
    };
    let shards = Shards::open(archive)?;
    let mut matrices: Vec<(String, usize, usize)> = Vec::new();
    let mut bf16 = 0;
    for entry in shards.entries() {
        bf16 += 2 * entry.shape.iter().product::<u64>();
        if let (Some(name), [rows, cols]) = (entry.name.strip_suffix(".weight"), entry.shape.as_slice()) {
            matrices.push((name.to_owned(), *rows as usize, *cols as usize));
        }
    }
    let resident = Resident::new(shards, 1)?;
    let (plain, vb) = (var_builder(archive, DType::BF16, &device)?, resident.var_builder(DType::BF16, &device)?);
    let (mut loaded, mut on_the_fly) = (Vec::new(), Vec::new());
    for (name, rows, cols) in &matrices {
        loaded.push(candle_nn::linear_no_bias(*cols, *rows, plain.pp(name))?);
        on_the_fly.push(resident.linear_no_bias(*cols, *rows, vb.pp(name))?);
    }
    for tokens in [1, 16, 200] {
        for ((_, _, cols), (loaded, on_the_fly)) in matrices.iter().zip(loaded.iter().zip(&on_the_fly)) {
            let x = Tensor::randn(0f32, 1.0, (tokens, *cols), &device)?.to_dtype(DType::BF16)?;
            let products = [loaded.forward(&x)?, on_the_fly.forward(&x)?].map(|x| x.to_dtype(DType::F32));
            let [expected, found] = products;
            let differ = expected?.ne(&found?)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
            if differ > 0.0 {
                return Err(format!("{differ} elements of a product with {tokens} tokens differ").into());
            }
        }
    }
    let time = |pass: &dyn Fn() -> candle_core::Result<()>| -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..RUNS + 2 {
            device.synchronize()?;
            let start = Instant::now();
            pass()?;
            device.synchronize()?;
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(1e3 * median(times.split_off(2)))
    };
    let inputs = matrices
        .iter()
        .map(|(_, _, cols)| Tensor::ones((1, *cols), DType::BF16, &device))
        .collect::<candle_core::Result<Vec<_>>>()?;
    let plain = time(&|| loaded.iter().zip(&inputs).try_for_each(|(layer, x)| layer.forward(x).map(drop)))?;
    let fly = time(&|| on_the_fly.iter().zip(&inputs).try_for_each(|(layer, x)| layer.forward(x).map(drop)))?;
    println!(
        "on a GPU {} matrices in BF16: loaded {plain:.2} ms, on the fly {fly:.2} ms, the same bits for 1, 16 and 200 tokens; compressed \
         weights and the memory to decode into take {:.3} of the weights as BF16",
        matrices.len(),
        resident.device_bytes() as f64 / bf16 as f64
    );
    Ok(())
}

/// What Linux says that the process takes, code and mapped files apart.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Writes a model of SmolLM2-135M's shapes.
fn synthesise(path: &Path) -> Result<()> {
    let (hidden, inner, shared, vocabulary) = (576, 1536, 192, 49152);
    let mut shapes =
        vec![("model.embed_tokens".to_owned(), vec![vocabulary, hidden]), ("model.norm".to_owned(), vec![hidden])];
    for layer in 0..30 {
        let parts = [
            ("input_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![hidden, hidden]),
            ("self_attn.k_proj", vec![shared, hidden]),
            ("self_attn.v_proj", vec![shared, hidden]),
            ("self_attn.o_proj", vec![hidden, hidden]),
            ("post_attention_layernorm", vec![hidden]),
            ("mlp.gate_proj", vec![inner, hidden]),
            ("mlp.up_proj", vec![inner, hidden]),
            ("mlp.down_proj", vec![hidden, inner]),
        ];
        shapes.extend(parts.map(|(part, shape)| (format!("model.layers.{layer}.{part}"), shape)));
    }
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 + 0.5) / (1 << 24) as f32
    };
    let mut tensors = Vec::new();
    for (name, shape) in shapes {
        let cols = shape[shape.len() - 1];
        let rows = shape.iter().product::<usize>() / cols;
        // Box and Muller's normal numbers; scales vary by about a third from row to row and from column to column.
        let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f32::consts::TAU * uniform()).cos();
        let column_scales: Vec<f32> = (0..cols).map(|_| 0.02 * (0.3 * normal()).exp()).collect();
        let mut data = Vec::with_capacity(2 * rows * cols);
        for _ in 0..rows {
            let row_scale = (0.3 * normal()).exp();
            for scale in &column_scales {
                data.extend(half::bf16::from_f32(normal() * row_scale * scale).to_le_bytes());
            }
        }
        tensors.push((format!("{name}.weight"), shape, data));
    }
    let views = tensors
        .iter()
        .map(|(name, shape, data)| {
            Ok((name, safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, shape.clone(), data)?))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(safetensors::serialize_to_file(views, None, path)?)
}
