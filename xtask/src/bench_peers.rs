//! `cargo xtask bench-peers`: wcodec beside other lossless codecs, on one thread, on the same files, in one run.
//!
//! The measuring is done by `peers/bench_peers.py`, because the peers are Python packages; this module installs them
//! under target/peers, runs it and prints the table.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workspace;

/// Arguments of `bench-peers`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Safetensors files; without any, the MiniLM and Silero files that `fetch-models` makes.
    files: Vec<PathBuf>,
    /// Write the measurements here, too.
    #[arg(long, value_name = "OUT")]
    json: Option<PathBuf>,
    /// Runs of each operation; slow ones stop after 20 seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Leave out this codec (its name in the table, such as "zstd -19"); may be given several times.
    #[arg(long, value_name = "CODEC")]
    skip: Vec<String>,
    /// Use the peers as they are installed under target/peers.
    #[arg(long)]
    no_install: bool,
    /// The wcodec binary to measure; without it, one is built.
    #[arg(long, value_name = "PATH")]
    wcodec: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let files = if args.files.is_empty() { default_files()? } else { absolute(&args.files)? };
    let python = python(args.no_install)?;
    let wcodec = match &args.wcodec {
        Some(path) => Some(path.canonicalize().with_context(|| format!("no binary {}", path.display()))?),
        None => build_wcodec()?,
    };
    let report = measure(&python, wcodec.as_deref(), args, &files)?;
    print!("{}", table(&report)?);
    if let Some(path) = &args.json {
        let mut text = serde_json::to_string_pretty(&report)?;
        text.push('\n');
        workspace::write_atomic(&std::path::absolute(path)?, text.as_bytes())?;
    }
    Ok(())
}

fn absolute(files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    files.iter().map(|path| path.canonicalize().with_context(|| format!("no file {}", path.display()))).collect()
}

fn default_files() -> Result<Vec<PathBuf>> {
    let folder = workspace::models_dir();
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).context("no target/models (cargo xtask fetch-models makes it)")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".safetensors") && (name.starts_with("minilm-") || name.starts_with("silero.")) {
            files.push(path);
        }
    }
    ensure!(!files.is_empty(), "no models in {} (cargo xtask fetch-models makes them)", folder.display());
    files.sort();
    Ok(files)
}

/// The Python of the environment that holds the peers, made or brought up to date first unless `as_it_is`.
fn python(as_it_is: bool) -> Result<PathBuf> {
    let folder = workspace::root().join("target").join("peers");
    let python = folder.join("bin").join("python");
    if as_it_is {
        ensure!(python.exists(), "no peers are installed in {}; leave out --no-install", folder.display());
        return Ok(python);
    }
    let requirements = workspace::root().join("xtask").join("peers").join("requirements.txt");
    let wanted = fs::read(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    // Written when an installation is complete, so one that was cut off or has other pins is done again.
    let stamp = folder.join("installed.txt");
    if !python.exists() || fs::read(&stamp).ok().as_ref() != Some(&wanted) {
        eprintln!("installing the peers in {}", folder.display());
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        succeed(Command::new(&python).args(["-m", "pip", "install", "-q", "-r"]).arg(&requirements))?;
        workspace::write_atomic(&stamp, &wanted)?;
    }
    Ok(python)
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// The release binary of this checkout, or nothing where it does not build: the peers can be measured all the same.
fn build_wcodec() -> Result<Option<PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(&cargo)
        .args(["build", "--release", "--quiet", "--package", "wcodec-cli"])
        .current_dir(workspace::root())
        .status()
        .context("cannot run cargo")?;
    if !built.success() {
        eprintln!("wcodec: not available (it does not build)");
        return Ok(None);
    }
    let metadata = Command::new(&cargo)
        .args(["metadata", "--format-version=1", "--no-deps"])
        .current_dir(workspace::root())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&metadata.stdout).context("cargo metadata")?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(Some(Path::new(target).join("release").join(format!("wcodec{}", std::env::consts::EXE_SUFFIX))))
}

fn measure(python: &Path, wcodec: Option<&Path>, args: &Args, files: &[PathBuf]) -> Result<Value> {
    let mut command = Command::new(python);
    command.arg("-W").arg("ignore").arg(workspace::root().join("xtask").join("peers").join("bench_peers.py"));
    command.args(["--runs", &args.runs.to_string()]).args(args.skip.iter().map(|codec| format!("--skip={codec}")));
    if let Some(wcodec) = wcodec {
        command.arg("--wcodec").arg(wcodec);
    }
    command.args(files);
    // For libraries that size a thread pool themselves; the script also pins itself to one CPU.
    command.envs([("OMP_NUM_THREADS", "1"), ("MKL_NUM_THREADS", "1"), ("RAYON_NUM_THREADS", "1")]);
    // Freed memory stays mapped (mallopt(3)): no codec pays page faults for its output buffer again in every run.
    command.envs([("MALLOC_MMAP_MAX_", "0"), ("MALLOC_TRIM_THRESHOLD_", "1099511627776")]);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "bench_peers.py: {}", output.status);
    serde_json::from_slice(&output.stdout).context("bench_peers.py printed no JSON")
}

/// One row a codec and file. Speeds are of the original bytes, from the fastest run.
fn table(report: &Value) -> Result<String> {
    let mut files: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for row in report["results"].as_array().context("the report has no results")? {
        files.entry(row["file"].as_str().unwrap_or("?")).or_default().push(row);
    }
    let mut text = String::new();
    for (file, rows) in files {
        let bytes = rows[0]["bytes"].as_u64().unwrap_or(0);
        text += &format!("\n{file}, {bytes} bytes, one thread\n");
        text += &format!(
            "{:<16}{:>12}{:>8}{:>10}{:>10}{:>11}{:>11}{:>11}\n",
            "codec", "bytes", "size %", "enc GB/s", "dec GB/s", "dec/ZipNN", "dec/zstd-3", "dec/memcpy"
        );
        let speed = |row: &Value, operation: &str| {
            let seconds = row[format!("{operation}_seconds")].as_f64()?;
            (seconds > 0.0).then(|| bytes as f64 / seconds / 1e9)
        };
        let decode_of =
            |codec: &str| rows.iter().find(|row| row["codec"] == codec).and_then(|row| speed(row, "decode"));
        let references = ["ZipNN", "zstd -3", "memcpy"].map(decode_of);
        for row in &rows {
            let codec = row["codec"].as_str().unwrap_or("?");
            let Some(compressed) = row["compressed_bytes"].as_u64() else {
                text += &format!("{codec:<16}{}\n", row["error"].as_str().unwrap_or("no result"));
                continue;
            };
            let percent = 100.0 * compressed as f64 / bytes.max(1) as f64;
            let (encode, decode) = (speed(row, "encode"), speed(row, "decode"));
            text += &format!("{codec:<16}{compressed:>12}{percent:>8.2}{:>10}{:>10}", cell(encode), cell(decode));
            for reference in references {
                text += &format!("{:>11}", cell(decode.zip(reference).map(|(own, other)| own / other)));
            }
            text.push('\n');
        }
    }
    Ok(text)
}

fn cell(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_gives_speeds_their_ratios_and_what_failed() {
        let row = |codec: &str, compressed: u64, encode: f64, decode: f64| {
            json!({"file": "f", "bytes": 2_000_000_000u64, "codec": codec, "compressed_bytes": compressed,
                   "encode_seconds": encode, "decode_seconds": decode})
        };
        let failed = json!({"file": "f", "bytes": 2_000_000_000u64, "codec": "wcodec max", "error": "not available"});
        let report = json!({"results": [
            row("memcpy", 2_000_000_000, 0.2, 0.2),
            row("ZipNN", 1_400_000_000, 2.0, 1.0),
            row("wcodec fast", 1_300_000_000, 1.0, 0.5),
            failed,
        ]});
        let text = table(&report).unwrap();
        let line = |codec: &str| {
            let line = text.lines().find(|line| line.starts_with(codec)).unwrap();
            line[codec.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(line("wcodec fast"), ["1300000000", "65.00", "2.000", "4.000", "2.000", "-", "0.400"]);
        assert_eq!(line("memcpy"), ["2000000000", "100.00", "10.000", "10.000", "5.000", "-", "1.000"]);
        assert_eq!(line("wcodec max"), ["not", "available"]);
        assert!(table(&json!({})).is_err());
    }
}
