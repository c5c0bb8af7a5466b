//! The decoders that this machine has.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use wcodec_rans::Isa;

/// A decoder. This is the only list of them: a new one is added to [`Backend::present`], and to [`Backend::check`] what makes a
/// process use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// The CPU with one instruction set.
    Cpu(Isa),
    /// The first CUDA device.
    Cuda,
}

impl Backend {
    /// Those that can run here, the one that this process itself uses first.
    pub(crate) fn present() -> Vec<Self> {
        let capped = std::env::var(ISA).ok();
        let widest = [Isa::Avx512, Isa::Avx2, Isa::Scalar].into_iter();
        let within =
            widest.skip_while(|&isa| capped.as_deref().is_some_and(|cap| CAPS.contains(&cap) && cap != name(isa)));
        let on_gpu = wcodec::cuda::devices().is_ok_and(|devices| !devices.is_empty());
        within.filter(|isa| isa.is_available()).map(Self::Cpu).chain(on_gpu.then_some(Self::Cuda)).collect()
    }

    /// Its name in the summary.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Cpu(isa) => format!("cpu/{}", name(isa)),
            Self::Cuda => "cuda:0".to_owned(),
        }
    }

    /// Checks the archives in `folder` in a process that uses this backend: a process chooses its instruction set once.
    pub(crate) fn check(self, folder: &Path) -> Result<()> {
        let mut command = Command::new(std::env::current_exe().context("no path of this program")?);
        command.arg("roundtrip-check").arg("--decode").arg(folder);
        match self {
            Self::Cpu(isa) => command.env(ISA, name(isa)),
            Self::Cuda => command.args(["--device", "cuda:0"]),
        };
        let output = command.output().context("cannot start this program again")?;
        if output.status.success() {
            return Ok(());
        }
        bail!("{}: {}", self.name(), String::from_utf8_lossy(&output.stderr).trim())
    }
}

/// The variable that caps the instruction set of a process.
const ISA: &str = "WCODEC_ISA";
/// Its values.
const CAPS: [&str; 3] = ["avx512", "avx2", "scalar"];

fn name(isa: Isa) -> &'static str {
    match isa {
        Isa::Avx512 => "avx512",
        Isa::Avx2 => "avx2",
        Isa::Scalar => "scalar",
        Isa::Auto => "auto",
    }
}
