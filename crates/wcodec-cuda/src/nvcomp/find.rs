//! Where nvCOMP may be.

use std::env;
use std::path::{Path, PathBuf};

use super::{Nvcomp, NvcompError};

/// The library's file.
const FILE: &str = if cfg!(windows) { "nvcomp64_6.dll" } else { "libnvcomp.so.6" };
/// Where NVIDIA's Python package keeps it.
const IN_PACKAGE: [&str; 3] = ["nvidia/libnvcomp/lib64", "nvidia/libnvcomp/lib", "nvidia/libnvcomp/bin"];
/// Names a file and ends the search.
const VARIABLE: &str = "WCODEC_NVCOMP";

/// See [`Nvcomp::find`].
pub(super) fn find() -> Result<Nvcomp, NvcompError> {
    if let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return Nvcomp::open(Path::new(&path));
    }
    let mut all = Vec::new();
    for path in candidates(&package_folders()).into_iter().chain([PathBuf::from(FILE)]) {
        match Nvcomp::open(&path) {
            Ok(found) => return Ok(found),
            Err(NvcompError::Missing { tried }) => all.extend(tried),
            Err(other) => all.push(other.to_string()),
        }
    }
    Err(NvcompError::Missing { tried: all })
}

/// The libraries that are in `folders`.
fn candidates(folders: &[PathBuf]) -> Vec<PathBuf> {
    let files = folders.iter().flat_map(|folder| IN_PACKAGE.map(|part| folder.join(part).join(FILE)));
    files.filter(|file| file.is_file()).collect()
}

/// Folders that hold Python packages, nearest first.
fn package_folders() -> Vec<PathBuf> {
    let path_of = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut folders: Vec<PathBuf> =
        env::var_os("PYTHONPATH").map_or_else(Vec::new, |paths| env::split_paths(&paths).collect());
    let prefixes = [
        path_of("VIRTUAL_ENV"),
        path_of("CONDA_PREFIX"),
        path_of("HOME").map(|home| home.join(".local")),
        Some(PathBuf::from("/usr/local")),
        Some(PathBuf::from("/usr")),
    ];
    for prefix in prefixes.into_iter().flatten() {
        folders.extend(packages_below(&prefix));
    }
    folders
}

/// `lib/python3*/site-packages` and `dist-packages` of an installation, newest Python first.
fn packages_below(prefix: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(prefix.join("lib")) else { return Vec::new() };
    let mut pythons: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let minor = path.file_name()?.to_str()?.strip_prefix("python3")?.to_owned();
            Some((minor.trim_start_matches('.').parse().unwrap_or(0), path))
        })
        .collect();
    pythons.sort_by_key(|python| std::cmp::Reverse(python.0));
    pythons.into_iter().flat_map(|(_, path)| ["site-packages", "dist-packages"].map(|part| path.join(part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_found_newest_python_first() {
        let root = tempfile::tempdir().unwrap();
        for python in ["python3.9", "python3.12", "python2.7", "perl"] {
            std::fs::create_dir_all(root.path().join("lib").join(python).join("site-packages")).unwrap();
        }
        let folders = packages_below(root.path());
        let expected = ["python3.12", "python3.9"].map(|p| root.path().join("lib").join(p).join("site-packages"));
        assert_eq!(folders.iter().filter(|f| f.exists()).cloned().collect::<Vec<_>>(), expected);
        let library = expected[1].join(IN_PACKAGE[0]).join(FILE);
        std::fs::create_dir_all(library.parent().unwrap()).unwrap();
        std::fs::write(&library, b"no library").unwrap();
        assert_eq!(candidates(&folders), std::slice::from_ref(&library));
        assert!(matches!(Nvcomp::open(&library), Err(NvcompError::Missing { .. })));
    }
}
