//! The CUDA kernels as PTX text, which the driver compiles for its device when it loads them. Data only: no
//! dependencies, no build script, no toolkit.
//!
//! The sources are in `kernels/` at the top of the repository. `cargo xtask build-kernels` compiles them into `ptx/` and writes
//! the list of modules; `cargo xtask build-kernels --check` tells whether they are current, and needs no compiler for it.
//!
//! ```
//! let module = wcodec_kernels::CRC32;
//! let ptx = module.for_device(9, 0).expect("compute capability 9.0 is newer than 8.0");
//! assert!(ptx.text.contains("wcodec_crc32"));
//! ```
#![deny(unsafe_code)]

// Generated text is compared byte for byte.
#[rustfmt::skip]
mod modules;

pub use modules::*;

/// One `.cu` file, compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// The file's name without its ending.
    pub name: &'static str,
    /// SHA-256 of the file and all headers that it includes, in hexadecimal.
    pub source_sha256: &'static str,
    /// One PTX text per architecture, oldest first.
    pub variants: &'static [Ptx],
}

/// PTX text for one virtual architecture. It runs on every device of that compute capability or newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ptx {
    /// The compute capability times ten: 80 for 8.0.
    pub arch: u32,
    /// The text, as `cuModuleLoadData` takes it once a zero byte is appended.
    pub text: &'static str,
}

impl Module {
    /// The newest variant that runs on a device of this compute capability; `None` when the device is too old.
    pub fn for_device(&self, major: u32, minor: u32) -> Option<&'static Ptx> {
        let device = major.saturating_mul(10).saturating_add(minor);
        self.variants.iter().filter(|variant| variant.arch <= device).max_by_key(|variant| variant.arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_gets_the_newest_variant_it_can_run() {
        const VARIANTS: &[Ptx] = &[Ptx { arch: 80, text: "old" }, Ptx { arch: 90, text: "new" }];
        let module = Module { name: "", source_sha256: "", variants: VARIANTS };
        let text = |major, minor| module.for_device(major, minor).map(|ptx| ptx.text);
        assert_eq!(text(7, 5), None);
        assert_eq!(text(8, 0), Some("old"));
        assert_eq!(text(8, 9), Some("old"));
        assert_eq!(text(9, 0), Some("new"));
        assert_eq!(text(12, 1), Some("new"));
    }

    #[test]
    fn every_text_is_for_its_architecture_and_old_enough_for_a_driver_of_cuda_13_0() {
        for module in ALL {
            assert!(!module.variants.is_empty(), "{}", module.name);
            for ptx in module.variants {
                let directive = |name: &str| {
                    ptx.text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
                };
                assert_eq!(directive(".target"), Some(format!("sm_{}", ptx.arch)), "{}", module.name);
                let version: f32 = directive(".version").and_then(|value| value.parse().ok()).expect("a version");
                assert!(version <= 9.0, "{}: {version}", module.name);
                assert!(ptx.text.contains(module.source_sha256), "{}", module.name);
                assert!(!ptx.text.contains('\0'), "{}", module.name);
            }
        }
    }
}
