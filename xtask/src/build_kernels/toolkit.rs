//! Finds the CUDA compiler: in `CUDA_HOME`, on `PATH`, or from NVIDIA's Python packages under `target/cuda-toolkit/`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

/// What makes up a compiler. 13.0 is the newest release whose PTX a driver of CUDA 13.0 loads.
const PACKAGES: [&str; 4] =
    ["nvidia-cuda-nvcc==13.0.*", "nvidia-nvvm==13.0.*", "nvidia-cuda-crt==13.0.*", "nvidia-cuda-runtime==13.0.*"];

/// A folder with `nvcc` and `ptxas`.
pub(super) struct Toolkit {
    bin: PathBuf,
}

impl Toolkit {
    /// The compiler of `CUDA_HOME`, else of `PATH`, else the one installed in `folder`, which is installed there when missing.
    pub(super) fn find_or_install(folder: &Path) -> Result<Self> {
        if let Some(home) = env::var_os("CUDA_HOME").filter(|home| !home.is_empty()) {
            let bin = PathBuf::from(home).join("bin");
            ensure!(bin.join("nvcc").is_file(), "CUDA_HOME is set, but {} has no nvcc", bin.display());
            return Ok(Self { bin });
        }
        let on_path = env::var_os("PATH").unwrap_or_default();
        if let Some(bin) = env::split_paths(&on_path).find(|bin| bin.join("nvcc").is_file()) {
            return Ok(Self { bin });
        }
        match installed(folder) {
            Some(bin) => Ok(Self { bin }),
            None => install(folder),
        }
    }

    /// The compiler's own version line.
    pub(super) fn version(&self) -> Result<String> {
        let text = output(Command::new(self.bin.join("nvcc")).arg("--version"))?;
        Ok(text.lines().find(|line| line.contains("release")).unwrap_or("nvcc").to_owned())
    }

    /// The PTX of one source for one virtual architecture.
    pub(super) fn compile(&self, source: &Path, arch: u32) -> Result<String> {
        let folder = source.parent().context("a source has no folder")?;
        let result = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;
        // Run beside the source, so that no path of this machine gets into the output.
        let mut nvcc = Command::new(self.bin.join("nvcc"));
        nvcc.current_dir(folder).args(["-std=c++17", "-O3", "-Werror", "all-warnings", "-ptx"]);
        nvcc.arg(format!("-arch=compute_{arch}")).arg("-o").arg(result.path());
        nvcc.arg(source.file_name().unwrap_or(OsStr::new("")));
        output(&mut nvcc)?;
        fs::read_to_string(result.path()).context("nvcc wrote no text")
    }

    /// What each kernel takes on a device: registers, shared memory, spills.
    pub(super) fn resources(&self, ptx: &Path, device: u32) -> Result<Vec<String>> {
        let mut ptxas = Command::new(self.bin.join("ptxas"));
        ptxas.arg("-v").arg(format!("-arch=sm_{device}")).arg(ptx).args(["-o", "/dev/null"]);
        let text = output(&mut ptxas)?;
        let interesting = |line: &&str| ["Compiling entry", "spill", "Used"].iter().any(|word| line.contains(word));
        let lines = text.lines().filter(interesting);
        Ok(lines.map(|line| line.trim_start_matches("ptxas info    :").trim().to_owned()).collect())
    }
}

/// Installs [`PACKAGES`] into a private virtual environment.
fn install(folder: &Path) -> Result<Toolkit> {
    println!("no nvcc in CUDA_HOME or on PATH: installing {} into {}", PACKAGES.join(", "), folder.display());
    output(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    let mut pip = Command::new(folder.join("bin/python"));
    output(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES))?;
    let bin = installed(folder).with_context(|| format!("the packages brought no nvcc into {}", folder.display()))?;
    Ok(Toolkit { bin })
}

/// The folder with `nvcc` in a virtual environment; all four packages unpack into one `nvidia/cu13`, in a toolkit's layout.
fn installed(folder: &Path) -> Option<PathBuf> {
    let pythons = fs::read_dir(folder.join("lib")).ok()?;
    let bins = pythons.filter_map(|python| Some(python.ok()?.path().join("site-packages/nvidia/cu13/bin")));
    bins.into_iter().find(|bin| bin.join("nvcc").is_file() && bin.join("ptxas").is_file())
}

/// Both outputs of a command that must succeed.
fn output(command: &mut Command) -> Result<String> {
    let run = command.stdin(Stdio::null()).output();
    let run = run.with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    let text = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    if !run.status.success() {
        bail!("{command:?} failed ({}):\n{text}", run.status);
    }
    Ok(text)
}
