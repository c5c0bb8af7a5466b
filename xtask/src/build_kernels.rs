//! `cargo xtask build-kernels`: compiles `kernels/*.cu` to PTX under `crates/wcodec-kernels/ptx/` and lists the results in
//! `crates/wcodec-kernels/src/modules.rs`. Both are committed, so that `cargo build` never needs a CUDA compiler.
//!
//! Each PTX file starts with a stamp: the SHA-256 of the source with the headers it includes, and of the PTX itself.
//! `--check` compares stamps and needs no compiler.
//!
//! A source's first line may ask for architectures: `// wcodec: arch=80,90`. Without it there is one, 80.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::workspace;

mod toolkit;

use toolkit::Toolkit;

/// Arguments of `build-kernels`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tell whether the committed PTX belongs to the sources. Needs no CUDA compiler.
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let folders = Folders::new(&workspace::root());
    let kernels = kernels(&folders)?;
    if args.check { check(&folders, &kernels) } else { build(&folders, &kernels) }
}

/// PTX that a driver of CUDA 13.0 still loads.
const NEWEST_PTX: (u32, u32) = (9, 0);

/// The architectures whose register use is shown.
const REPORTED: [u32; 2] = [80, 90];

struct Folders {
    sources: PathBuf,
    ptx: PathBuf,
    list: PathBuf,
    toolkit: PathBuf,
}

impl Folders {
    fn new(root: &Path) -> Self {
        let data = root.join("crates/wcodec-kernels");
        Self {
            sources: root.join("kernels"),
            ptx: data.join("ptx"),
            list: data.join("src/modules.rs"),
            toolkit: root.join("target/cuda-toolkit"),
        }
    }

    fn ptx_file(&self, kernel: &Kernel, arch: u32) -> PathBuf {
        self.ptx.join(file_name(&kernel.name, arch))
    }
}

/// One `.cu` file.
struct Kernel {
    name: String,
    archs: Vec<u32>,
    source_sha256: String,
}

/// Every `.cu` file, by name.
fn kernels(folders: &Folders) -> Result<Vec<Kernel>> {
    let mut kernels = Vec::new();
    for path in files_with_ending(&folders.sources, "cu")? {
        let name = path.file_stem().and_then(|stem| stem.to_str()).context("a kernel's name is not UTF-8")?.to_owned();
        let text = read(&path)?;
        kernels.push(Kernel { archs: architectures(&text, &name)?, source_sha256: source_hash(&path)?, name });
    }
    ensure!(!kernels.is_empty(), "no kernels in {}", folders.sources.display());
    Ok(kernels)
}

fn build(folders: &Folders, kernels: &[Kernel]) -> Result<()> {
    let toolkit = Toolkit::find_or_install(&folders.toolkit)?;
    println!("{}", toolkit.version()?);
    for kernel in kernels {
        for &arch in &kernel.archs {
            let ptx = toolkit.compile(&folders.sources.join(format!("{}.cu", kernel.name)), arch)?;
            check_ptx_version(&ptx).with_context(|| format!("{}.cu for compute_{arch}", kernel.name))?;
            workspace::write_atomic(&folders.ptx_file(kernel, arch), stamped(kernel, arch, &ptx).as_bytes())?;
        }
        for device in REPORTED {
            let Some(&arch) = kernel.archs.iter().filter(|&&arch| arch <= device).max() else { continue };
            println!("{} on sm_{device}:", kernel.name);
            for line in toolkit.resources(&folders.ptx_file(kernel, arch), device)? {
                println!("    {line}");
            }
        }
    }
    let expected = expected_files(kernels);
    for path in files_with_ending(&folders.ptx, "ptx")? {
        if !expected.contains(&name_of(&path)) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    workspace::write_atomic(&folders.list, module_list(kernels).as_bytes())
}

fn check(folders: &Folders, kernels: &[Kernel]) -> Result<()> {
    let mut stale = Vec::new();
    for kernel in kernels {
        for &arch in &kernel.archs {
            let path = folders.ptx_file(kernel, arch);
            let Ok(text) = fs::read_to_string(&path) else {
                stale.push(format!("{} is missing", name_of(&path)));
                continue;
            };
            let body = text.split_once(STAMP_END).map_or("", |(_, body)| body);
            check_ptx_version(body).with_context(|| name_of(&path))?;
            if text != stamped(kernel, arch, body) {
                stale.push(format!("{} does not belong to {}.cu as it is now", name_of(&path), kernel.name));
            }
        }
    }
    let expected = expected_files(kernels);
    for path in files_with_ending(&folders.ptx, "ptx")? {
        if !expected.contains(&name_of(&path)) {
            stale.push(format!("{} has no source", name_of(&path)));
        }
    }
    if read(&folders.list)? != module_list(kernels) {
        stale.push("crates/wcodec-kernels/src/modules.rs does not list what is in kernels/".to_owned());
    }
    if !stale.is_empty() {
        bail!("run `cargo xtask build-kernels` and commit the result:\n  {}", stale.join("\n  "));
    }
    println!("the committed PTX of {} kernels is current", kernels.len());
    Ok(())
}

/// The last line of a stamp.
const STAMP_END: &str = "// end of stamp\n";

/// `ptx` behind its stamp.
fn stamped(kernel: &Kernel, arch: u32, ptx: &str) -> String {
    format!(
        "// Generated by `cargo xtask build-kernels`; do not edit.\n\
         // source: kernels/{}.cu for compute_{arch}\n\
         // source-sha256: {}\n\
         // ptx-sha256: {}\n\
         {STAMP_END}{ptx}",
        kernel.name,
        kernel.source_sha256,
        hex(&Sha256::digest(ptx))
    )
}

/// The text of `modules.rs`, laid out as rustfmt would.
fn module_list(kernels: &[Kernel]) -> String {
    let mut text =
        String::from("//! Generated by `cargo xtask build-kernels`; do not edit.\n\nuse crate::{Module, Ptx};\n");
    for kernel in kernels {
        let variants = |indent: &str| {
            let mut lines = String::new();
            for arch in &kernel.archs {
                let file = file_name(&kernel.name, *arch);
                let _ = writeln!(lines, "{indent}Ptx {{ arch: {arch}, text: include_str!(\"../ptx/{file}\") }},");
            }
            lines
        };
        let variants = match kernel.archs.len() {
            1 => variants("").trim_end().trim_end_matches(',').to_owned(),
            _ => format!("\n{}    ", variants("        ")),
        };
        let _ = write!(
            text,
            "\n/// `kernels/{name}.cu`.\npub const {upper}: Module = Module {{\n    name: \"{name}\",\n    \
             source_sha256: \"{hash}\",\n    variants: &[{variants}],\n}};\n",
            name = kernel.name,
            upper = kernel.name.to_uppercase(),
            hash = kernel.source_sha256,
        );
    }
    let names: Vec<String> = kernels.iter().map(|kernel| kernel.name.to_uppercase()).collect();
    let _ = write!(text, "\n/// Every module.\npub const ALL: &[Module] = &[{}];\n", names.join(", "));
    text
}

fn file_name(kernel: &str, arch: u32) -> String {
    format!("{kernel}.compute_{arch}.ptx")
}

fn expected_files(kernels: &[Kernel]) -> BTreeSet<String> {
    kernels.iter().flat_map(|kernel| kernel.archs.iter().map(|&arch| file_name(&kernel.name, arch))).collect()
}

/// The architectures that the first line asks for.
fn architectures(source: &str, name: &str) -> Result<Vec<u32>> {
    let Some(list) = source.lines().next().and_then(|line| line.strip_prefix("// wcodec: arch=")) else {
        return Ok(vec![80]);
    };
    let mut archs = Vec::new();
    for arch in list.split(',') {
        let arch = arch.trim().parse().with_context(|| format!("{name}.cu: {list:?} is no list of architectures"))?;
        ensure!(arch >= 80, "{name}.cu: architectures before 80 are not supported");
        archs.push(arch);
    }
    archs.sort_unstable();
    archs.dedup();
    Ok(archs)
}

/// SHA-256 of a source and of every local header that it includes, each with its name and length.
fn source_hash(source: &Path) -> Result<String> {
    let mut files = BTreeSet::new();
    let mut open = vec![source.to_owned()];
    while let Some(path) = open.pop() {
        if files.insert(path.clone()) {
            let folder = path.parent().context("a source has no folder")?;
            let text = read(&path)?;
            let names = text.lines().filter_map(|line| line.trim().strip_prefix("#include \"")?.strip_suffix('"'));
            open.extend(names.map(|name| folder.join(name)));
        }
    }
    let mut hash = Sha256::new();
    for path in files {
        let text = read(&path)?;
        hash.update(format!("{} {}\n", name_of(&path), text.len()));
        hash.update(text);
    }
    Ok(hex(&hash.finalize()))
}

fn check_ptx_version(ptx: &str) -> Result<()> {
    let version = ptx.lines().find_map(|line| line.strip_prefix(".version ")).context("the PTX has no .version")?;
    let number = |part: Option<&str>| part.and_then(|digits| digits.trim().parse::<u32>().ok());
    let mut parts = version.split('.');
    let (Some(major), Some(minor)) = (number(parts.next()), number(parts.next())) else {
        bail!("the PTX version {version:?} is no number");
    };
    ensure!(
        (major, minor) <= NEWEST_PTX,
        "PTX {version} is newer than {}.{}, which is the newest that a driver of CUDA 13.0 loads: use nvcc 13.0",
        NEWEST_PTX.0,
        NEWEST_PTX.1
    );
    Ok(())
}

fn files_with_ending(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_architectures() {
        assert_eq!(architectures("// wcodec: arch=90, 80\nrest", "k").unwrap(), [80, 90]);
        assert_eq!(architectures("// something else", "k").unwrap(), [80]);
        assert!(architectures("// wcodec: arch=ninety", "k").is_err());
        assert!(architectures("// wcodec: arch=75", "k").is_err());
    }

    #[test]
    fn a_change_in_a_header_changes_the_hash() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("a.cu");
        let header = folder.path().join("b.cuh");
        fs::write(&source, "#include \"b.cuh\"\n#include <x>\n").unwrap();
        fs::write(&header, "1").unwrap();
        let before = source_hash(&source).unwrap();
        fs::write(&header, "2").unwrap();
        assert_ne!(before, source_hash(&source).unwrap());
    }

    #[test]
    fn ptx_newer_than_the_drivers_is_refused() {
        assert!(check_ptx_version("\n.version 9.0\n").is_ok());
        assert!(check_ptx_version(".version 8.7\n").is_ok());
        assert!(check_ptx_version(".version 9.1\n").is_err());
        assert!(check_ptx_version("no version").is_err());
    }
}
