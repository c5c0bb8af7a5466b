//! `cargo xtask gpu-bundle`: one folder with everything that checking and measuring on a GPU machine takes, and needs no toolchain there:
//! test programs, benches, the command, the Python package, fixtures, and the libraries that others' decoders are in. `run.sh check` and `run.sh bench`
//! run them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{test_python, workspace};

/// Arguments of `gpu-bundle`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder to make [default: target/gpu-bundle]. What is in it is replaced.
    #[arg(long, short, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// nvCOMP's library for Zstd mode and the benches, libnvcomp.so.6; it is in the Python package nvidia-libnvcomp-cu13.
    #[arg(long, value_name = "FILE")]
    nvcomp: Option<PathBuf>,
    /// DFloat11's kernel for the benches, its decode.ptx.
    #[arg(long, value_name = "FILE")]
    dfloat11: Option<PathBuf>,
    /// Keep symbols: programs are several times larger, and backtraces name lines.
    #[arg(long)]
    symbols: bool,
}

/// What `cargo` is asked to build, and what is taken of it.
const BUILDS: [(&[&str], &[&str]); 4] = [
    (&["test", "--package", "wcodec-cuda", "--no-run"], &["wcodec_cuda", "device", "lanes", "frames"]),
    (
        &["test", "--package", "wcodec", "--features", "cuda", "--test", "cuda", "--test", "cuda_frames", "--no-run"],
        &["cuda", "cuda_frames"],
    ),
    (&["bench", "--package", "wcodec-cuda", "--no-run"], &["bench-lanes", "bench-frames"]),
    (&["build", "--package", "wcodec-cli", "--release"], &["wcodec"]),
];

const RUN: &str = r#"#!/usr/bin/env bash
# ./run.sh check           every test program; a failure ends with its status
# ./run.sh sanitize        the damage tests under compute-sanitizer's memcheck, racecheck and initcheck, the last without nvCOMP, whose
#                          kernel for Zstd reads memory that it never wrote
# ./run.sh bench [NAME...] the lanes bench beside nvCOMP and DFloat11, Zstd and dequantisation, then loading a synthetic checkpoint
set -euo pipefail
cd "$(dirname "$0")"
what=${1:-check}
shift || true
[ -e libs/libnvcomp.so.6 ] && export WCODEC_NVCOMP=$PWD/libs/libnvcomp.so.6
case $what in
check)
    for test in tests/*; do
        echo "== $test"
        "$test" --nocapture
    done
    if python3 -c 'import pytest, torch' 2>/dev/null; then
        echo "== python"
        (cd python && WCODEC_FIXTURES=$PWD/../fixtures PYTHONPATH=$PWD python3 -m pytest -q -p no:cacheprovider tests/test_cuda.py)
    else
        echo "== python: left out, this machine has no pytest or no PyTorch"
    fi
    ;;
sanitize)
    for tool in memcheck racecheck initcheck; do
        echo "== $tool"
        [ $tool = initcheck ] && unset WCODEC_NVCOMP
        WCODEC_DAMAGE_STRIDE=${WCODEC_DAMAGE_STRIDE:-25} compute-sanitizer --tool $tool --error-exitcode 9 \
            tests/cuda damage --nocapture
    done
    ;;
bench)
    [ -e libs/decode.ptx ] && export WCODEC_DFLOAT11=$PWD/libs/decode.ptx
    bin/bench-lanes "$@"
    bin/bench-frames
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    bin/wcodec synth "$made/m.safetensors" --shape 4096x4096 --shape 1024x4096 --shape 14336x4096 --shape 4096x14336 --tensors 12
    bin/wcodec compress "$made/m.safetensors" -o "$made/m.wcodec"
    bin/wcodec bench "$made/m.wcodec" --device cuda --runs 9
    ;;
*)
    sed -n '2,5p' "$0"
    exit 2
    ;;
esac
"#;

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = workspace::root();
    let folder = args.output.clone().unwrap_or_else(|| root.join("target/gpu-bundle"));
    if folder.exists() {
        ensure!(
            folder.join("run.sh").is_file() || fs::read_dir(&folder)?.next().is_none(),
            "{} is no bundle: not replaced",
            folder.display()
        );
        fs::remove_dir_all(&folder).with_context(|| format!("cannot replace {}", folder.display()))?;
    }
    for part in ["bin", "tests", "fixtures", "libs"] {
        fs::create_dir_all(folder.join(part)).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    for (arguments, wanted) in BUILDS {
        let programs = build(&root, arguments)?;
        for &name in wanted {
            let target = name.strip_prefix("bench-").unwrap_or(name);
            let found = programs.iter().find(|(program, _)| program == target);
            let (_, program) = found.with_context(|| format!("cargo {} made no {target}", arguments.join(" ")))?;
            let to = folder.join(if arguments[0] == "test" { "tests" } else { "bin" }).join(name);
            copy(program, &to, args.symbols)?;
        }
    }
    for file in fs::read_dir(root.join("fixtures"))? {
        let file = file?.path();
        fs::copy(&file, folder.join("fixtures").join(file.file_name().unwrap_or(OsStr::new(""))))?;
    }
    python(&folder.join("python"))?;
    for (library, name) in [(&args.nvcomp, "libnvcomp.so.6"), (&args.dfloat11, "decode.ptx")] {
        if let Some(library) = library {
            fs::copy(library, folder.join("libs").join(name)).with_context(|| library.display().to_string())?;
        }
    }
    let script = folder.join("run.sh");
    fs::write(&script, RUN)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    println!("{}: {:.1} MB", folder.display(), size(&folder)? as f64 / 1e6);
    Ok(())
}

/// The Python package, unpacked, with its tests and benches.
fn python(folder: &Path) -> Result<()> {
    let wheel = test_python::build_wheel()?;
    let unpacked = Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(folder).status();
    ensure!(unpacked.context("cannot run python3")?.success(), "the wheel cannot be unpacked");
    for part in ["tests", "benches"] {
        fs::create_dir_all(folder.join(part))?;
        for file in fs::read_dir(test_python::package().join(part))? {
            let file = file?.path();
            if file.is_file() {
                fs::copy(&file, folder.join(part).join(file.file_name().unwrap_or(OsStr::new(""))))?;
            }
        }
    }
    Ok(())
}

/// Runs cargo and returns the programs that it made, by the name of their target.
fn build(root: &Path, arguments: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    println!("cargo {}", arguments.join(" "));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let output =
        cargo.current_dir(root).args(arguments).arg("--message-format=json").output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo {}:\n{}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    let lines = String::from_utf8(output.stdout).context("cargo's messages")?;
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages
        .filter_map(|message| {
            let program = message["executable"].as_str()?;
            Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(program)))
        })
        .collect())
}

/// Copies a program, without its symbols where `strip` is there to remove them.
fn copy(program: &Path, to: &Path, symbols: bool) -> Result<()> {
    fs::copy(program, to).with_context(|| format!("cannot copy {}", program.display()))?;
    if !symbols {
        // A larger program is no failure.
        let _ = Command::new("strip").arg(to).status();
    }
    Ok(())
}

fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for item in fs::read_dir(folder)? {
        let item = item?;
        let meta = item.metadata()?;
        bytes += if meta.is_dir() { size(&item.path())? } else { meta.len() };
    }
    Ok(bytes)
}
