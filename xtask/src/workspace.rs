//! Where things lie in this repository, and how files are written into it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folder of the workspace's root manifest.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable for `cargo run`, so a binary that has been moved still finds the right checkout.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let manifest = PathBuf::from(manifest);
    manifest.parent().map(Path::to_path_buf).unwrap_or(manifest)
}

/// Where `fetch-models` puts its files. Fixed, whatever CARGO_TARGET_DIR says, so that tests and benches find them.
pub(crate) fn models_dir() -> PathBuf {
    root().join("target").join("models")
}

/// Writes `bytes` to a temporary file beside `path` and renames it, so that `path` is never half a file.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().with_context(|| format!("{} has no folder", path.display()))?;
    let name = path.file_name().with_context(|| format!("{} has no file name", path.display()))?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report; a temporary file that cannot be removed either adds nothing.
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}
