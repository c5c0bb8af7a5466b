//! Arguments that several commands share.

use anyhow::Context;
use clap::ValueEnum;
use wcodec::{Backend, Device, EncodeOptions, Level, ModeChoice};

use crate::units::parse_size;

/// How to encode.
#[derive(clap::Args)]
pub(crate) struct Encoding {
    /// How hard to search. Decoding is equally fast.
    #[arg(long, value_enum, default_value_t = LevelName::Default)]
    pub(crate) level: LevelName,
    /// Which tool chains may be used; what they cannot make smaller is stored.
    #[arg(long, value_enum, default_value_t = ModeName::Auto)]
    pub(crate) mode: ModeName,
}

/// Threads to work with.
#[derive(clap::Args)]
pub(crate) struct Threads {
    /// Threads to work with [default: one per core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,
}

/// What decodes.
#[derive(clap::Args)]
pub(crate) struct OnDevice {
    /// What decodes: auto (a GPU where there is one), cpu, cuda or cuda:N. See `wcodec devices`.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Backend,
}

impl OnDevice {
    /// The device, opened.
    pub(crate) fn open(&self) -> anyhow::Result<Device> {
        self.device.open().with_context(|| format!("cannot decode on {}", self.device))
    }
}

/// A [`Level`] on the command line.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LevelName {
    Fast,
    Default,
    Max,
}

/// A [`ModeChoice`] on the command line.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ModeName {
    /// Whatever is smallest.
    Auto,
    /// Scale contexts and rANS.
    Float,
    /// Prediction, transform and bitplanes, for 8-bit tensors.
    Int,
    /// Zstd frames.
    Zstd,
    /// As they are.
    Store,
}

impl Encoding {
    /// The façade's options.
    pub(crate) fn options(&self) -> EncodeOptions {
        EncodeOptions { level: self.level.into(), mode: self.mode.into(), ..EncodeOptions::default() }
    }
}

impl Threads {
    /// Runs `work` in a pool of that many threads.
    pub(crate) fn install<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        // 0 is rayon's own default: RAYON_NUM_THREADS, or one per core.
        let count = self.threads.map_or(0, usize::from);
        let builder = rayon::ThreadPoolBuilder::new().num_threads(count);
        // One thread may as well be this one, whose memory the allocator keeps when it is freed.
        let own = count == 1 && rayon::current_thread_index().is_none();
        let builder = if own { builder.use_current_thread() } else { builder };
        builder.build()?.install(work)
    }
}

impl From<LevelName> for Level {
    fn from(name: LevelName) -> Self {
        match name {
            LevelName::Fast => Self::Fast,
            LevelName::Default => Self::Default,
            LevelName::Max => Self::Max,
        }
    }
}

impl From<ModeName> for ModeChoice {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Auto => Self::Auto,
            ModeName::Float => Self::Float,
            ModeName::Int => Self::Int,
            ModeName::Zstd => Self::Zstd,
            ModeName::Store => Self::Store,
        }
    }
}

/// The name of a value as it is written on the command line.
pub(crate) fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
}

/// Rows of a superblock.
pub(crate) fn parse_rows(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(rows) if (16..=512).contains(&rows) && rows % 16 == 0 => Ok(rows),
        _ => Err("a multiple of 16 from 16 to 512".to_owned()),
    }
}

/// Bytes of a Zstd frame: the façade clamps to what it can do.
pub(crate) fn parse_frame(text: &str) -> Result<usize, String> {
    match parse_size(text)? {
        0 => Err("a frame has at least one byte".to_owned()),
        bytes => usize::try_from(bytes).map_err(|e| e.to_string()),
    }
}
