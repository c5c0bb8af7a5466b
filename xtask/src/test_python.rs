//! `cargo xtask test-python`: builds the Python package's wheel, installs it into an environment of its own and runs its tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::workspace;

const MATURIN: &str = "maturin==1.16.0";
/// What the tests always need.
const PACKAGES: [&str; 4] = ["numpy", "pytest", "ml_dtypes", "safetensors"];
/// What the tests of PyTorch and transformers need besides. From the package index PyTorch comes with CUDA, some gigabytes.
const TORCH_PACKAGES: [&str; 2] = ["torch==2.11.0", "transformers==5.24.0"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install PyTorch and transformers and run their tests too. Without it they run only where PyTorch is there already.
    #[arg(long)]
    torch: bool,
    /// Arguments for pytest.
    #[arg(last = true)]
    pytest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let wheel = build_wheel()?;
    let torch: &[&str] = if args.torch { &TORCH_PACKAGES } else { &[] };
    succeed(pip(&PACKAGES).args(torch))?;
    succeed(pip(&["--no-deps", "--force-reinstall"]).arg(wheel))?;
    let mut pytest = Command::new(python());
    pytest.args(["-m", "pytest", "-q", "-ra"]).args(&args.pytest).current_dir(package());
    // Tests load nothing from the network.
    pytest.env("HF_HUB_OFFLINE", "1").env_remove("PYTHONPATH");
    succeed(&mut pytest)
}

/// The folder of the Python package.
pub(crate) fn package() -> PathBuf {
    workspace::root().join("crates/wcodec-python")
}

/// Builds the package's wheel, with maturin in an environment of its own, and returns its path.
pub(crate) fn build_wheel() -> Result<PathBuf> {
    if !python().is_file() {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(folder()))?;
    }
    succeed(&mut pip(&[MATURIN]))?;
    let wheels = folder().join("wheels");
    // Whatever an earlier build left would be taken for this one's.
    match fs::remove_dir_all(&wheels) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("cannot clear the wheels");
        }
        _ => {}
    }
    // As it ships; xtask itself has most of it in this profile already.
    let mut maturin = Command::new(folder().join("bin/maturin"));
    maturin.args(["build", "--quiet", "--locked", "--release", "--compatibility", "linux", "--out"]);
    succeed(maturin.arg(&wheels).current_dir(package()))?;
    Ok(fs::read_dir(&wheels)?.next().context("maturin left no wheel")??.path())
}

fn folder() -> PathBuf {
    workspace::root().join("target/python-tests")
}

fn python() -> PathBuf {
    folder().join("bin/python")
}

fn pip(words: &[&str]) -> Command {
    let mut pip = Command::new(python());
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(words);
    pip
}

/// Runs a command that must succeed; its output is shown.
fn succeed(command: &mut Command) -> Result<()> {
    let name = Path::new(command.get_program()).display().to_string();
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run {name}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
