//! What the tests of the command share.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The fixtures, by name.
pub(crate) const FIXTURES: [&str; 4] = [
    "minilm-layer-bf16.safetensors",
    "minilm-layer-f32.safetensors",
    "minilm-layer-int8.safetensors",
    "silero.safetensors",
];

/// The smallest fixture.
pub(crate) const SMALL: &str = FIXTURES[2];

/// The command, not yet run.
pub(crate) fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_wcodec"))
}

/// Runs the command.
pub(crate) fn wcodec<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    command().args(args).output().expect("the command starts")
}

/// Runs the command, which must succeed and complain of nothing; returns its stdout.
#[track_caller]
pub(crate) fn succeed<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let output = wcodec(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs the command, which must print one JSON object.
#[track_caller]
pub(crate) fn json<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Value {
    let value: Value = serde_json::from_str(&succeed(args)).expect("one JSON object");
    assert!(value.is_object());
    value
}

/// Runs the command, which must fail with exit code 1 and say why; returns what it said.
#[track_caller]
pub(crate) fn fail<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let output = wcodec(args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: ") && !stderr.contains("panicked"), "{stderr}");
    assert!(output.stdout.is_empty());
    stderr
}

/// Where a fixture lies in the repository.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// A folder with a copy of a fixture.
pub(crate) fn folder_with(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    fs::copy(fixture(name), &path).expect("the fixture is there");
    (folder, path)
}

/// A folder with a small archive.
pub(crate) fn folder_with_archive() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let archive = folder.path().join("m.wcodec");
    succeed([OsStr::new("compress"), fixture(SMALL).as_os_str(), "-o".as_ref(), archive.as_os_str()]);
    (folder, archive)
}

/// All files below a folder with their bytes, and all folders with none.
pub(crate) fn tree(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
        for item in fs::read_dir(folder).expect("a folder") {
            let path = item.expect("an entry").path();
            let name = path.strip_prefix(root).expect("below the root").to_owned();
            if path.is_dir() {
                found.insert(name, None);
                walk(root, &path, found);
            } else {
                found.insert(name, Some(fs::read(&path).expect("a readable file")));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, folder, &mut found);
    found
}

/// A safetensors file of this header and data.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// Arguments of several types as paths.
#[macro_export]
macro_rules! args {
    ($($arg:expr),* $(,)?) => { [$(std::ffi::OsString::from($arg)),*] };
}
