//! What has to hold of one archive of one file.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rayon::ThreadPool;
use wcodec::{Archive, Device, EncodeOptions, Error, Level, Mode, ModeChoice, Report};

use super::generate::Source;
use super::values::Random;
use crate::tensors::Tensor;

/// What an encoder was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) mode: ModeChoice,
    pub(crate) level: Level,
    /// Rows of a superblock.
    rows: usize,
    progressive: bool,
}

impl Setting {
    /// What an encoder does when it is told nothing.
    pub(crate) const USUAL: Self = Self::new(ModeChoice::Auto, Level::Default);

    /// Every mode at every level, and what else there is to choose.
    pub(crate) fn all() -> Vec<Self> {
        use ModeChoice::{Auto, Float, Int, Store, Zstd};
        let levels = [Level::Fast, Level::Default, Level::Max];
        let modes = [Auto, Float, Int, Zstd, Store].into_iter();
        let mut all: Vec<Self> = modes.flat_map(|mode| levels.map(|level| Self::new(mode, level))).collect();
        all.extend([16, 48, 512].map(|rows| Self { rows, ..Self::new(Float, Level::Fast) }));
        all.extend([16, 512].map(|rows| Self { rows, ..Self::new(Int, Level::Default) }));
        all.push(Self { progressive: true, ..Self::USUAL });
        all
    }

    const fn new(mode: ModeChoice, level: Level) -> Self {
        Self { mode, level, rows: 64, progressive: false }
    }

    /// `auto-default`, for files and messages.
    pub(crate) fn name(self) -> String {
        let rows = if self.rows == 64 { String::new() } else { format!("-{}-rows", self.rows) };
        let progressive = if self.progressive { "-progressive" } else { "" };
        format!("{:?}-{:?}{rows}{progressive}", self.mode, self.level).to_lowercase()
    }

    fn options(self) -> EncodeOptions {
        EncodeOptions {
            mode: self.mode,
            level: self.level,
            superblock_rows: self.rows,
            progressive: self.progressive,
            overwrite: true,
            ..EncodeOptions::default()
        }
    }

    /// Whether a tensor may come out in `mode`.
    fn allows(self, mode: Mode) -> bool {
        match self.mode {
            ModeChoice::Store => mode == Mode::Store,
            ModeChoice::Zstd => matches!(mode, Mode::Store | Mode::Zstd),
            ModeChoice::Float => matches!(mode, Mode::Store | Mode::Plain | Mode::Lanes | Mode::Pooled),
            // Contexts on the samples themselves are the integer mode without a transform.
            ModeChoice::Int => matches!(mode, Mode::Store | Mode::Lanes | Mode::Integer),
            _ => true,
        }
    }
}

/// Compresses `input` to `output` in each of the pools, and checks that all write the same bytes.
pub(crate) fn compress(input: &Path, output: &Path, setting: Setting, pools: &[ThreadPool]) -> Result<Report> {
    let options = setting.options();
    let mut first: Option<(Report, u32)> = None;
    for pool in pools {
        let report = pool.install(|| wcodec::compress(input, output, &options, &())).context("compress")?;
        let crc = crc32fast::hash(&fs::read(output)?);
        match &first {
            None => first = Some((report, crc)),
            Some(first) => ensure!(
                (&report, crc) == (&first.0, first.1),
                "{} threads write another archive than {}",
                pool.current_num_threads(),
                pools[0].current_num_threads()
            ),
        }
    }
    let (report, _) = first.context("no thread pool")?;
    Ok(report)
}

/// Most bytes that a blob of pooled tensors takes beyond their own.
const POOL_LENGTHS: u64 = 40;

/// Checks what the encoder reported.
pub(crate) fn report(report: &Report, source: &Source, setting: Setting) -> Result<()> {
    ensure!(report.tensors.len() == source.tensors.len(), "reported {} tensors", report.tensors.len());
    ensure!(report.decoded_bytes == source.bytes.len() as u64, "reported {} bytes", report.decoded_bytes);
    for tensor in &report.tensors {
        ensure!(setting.allows(tensor.mode), "tensor {}: coded as {}", tensor.name, tensor.mode);
        // Pooled tensors lie in the directory, in blobs with a few lengths in front.
        let more = if tensor.mode == Mode::Pooled { POOL_LENGTHS } else { 0 };
        ensure!(
            tensor.stored_bytes <= tensor.decoded_bytes + more,
            "tensor {}: {} bytes became {} ({})",
            tensor.name,
            tensor.decoded_bytes,
            tensor.stored_bytes,
            tensor.mode
        );
    }
    Ok(())
}

/// Checks everything that an archive of `source` gives back, in every way in.
pub(crate) fn archive(device: &Device, path: &Path, source: &Source) -> Result<()> {
    let archive = Archive::open(path).context("open")?;
    let restored = path.with_extension("restored");
    wcodec::decompress_on(device, &archive, &restored, true, &()).context("decompress")?;
    ensure!(fs::read(&restored)? == source.bytes, "decompress gives other bytes");
    fs::remove_file(&restored)?;
    wcodec::verify_on(device, &archive, &()).context("verify")?;

    let directory = archive.container().trailer().directory.len;
    // Each tensor, index and literal starts at a multiple of 64; a header of any size may not shrink.
    let most = source.bytes.len() as u64 + directory + 64 * (3 * source.tensors.len() as u64 + 4);
    let len = archive.container().file_len();
    ensure!(len <= most, "{} bytes became {len}, {directory} of them the directory", source.bytes.len());

    let names: BTreeSet<&str> = archive.names().collect();
    ensure!(names == source.tensors.iter().map(|t| t.name.as_str()).collect(), "other names");
    for tensor in &source.tensors {
        one(&archive, tensor).with_context(|| format!("tensor {}", tensor.name))?;
    }
    Ok(())
}

/// Checks one tensor of an archive.
fn one(archive: &Archive, expected: &Tensor) -> Result<()> {
    let tensor = archive.tensor(&expected.name)?;
    let shape: Vec<usize> = tensor.shape().iter().map(|&d| d as usize).collect();
    ensure!(shape == expected.shape, "shape {shape:?}");
    ensure!(tensor.dtype().name().is_none_or(|name| name == expected.dtype.to_string()), "dtype {}", tensor.dtype());
    ensure!(tensor.decode().context("decode")? == expected.data, "decode gives other bytes ({})", tensor.mode());
    tensor.verify().context("verify")?;

    let (rows, cols) = (tensor.row_count(), tensor.col_count());
    let seed = crc32fast::hash(expected.name.as_bytes());
    let mut random = Random(u64::from(seed));
    for n in 0..4 {
        let (rows, cols) = match n {
            0 => (span(&mut random, rows), 0..cols),
            1 => (span(&mut random, rows).start..rows, span(&mut random, cols)),
            _ => (span(&mut random, rows), span(&mut random, cols)),
        };
        let part = tensor.rect(rows.clone(), cols.clone());
        // A dtype that the archive has no name for has no known width.
        if tensor.dtype().bits().is_none_or(|bits| bits % 8 != 0) {
            ensure!(matches!(part, Err(Error::BadArgument(_))), "rectangle of elements that are no whole bytes");
            continue;
        }
        let part = part.with_context(|| format!("rectangle {rows:?} × {cols:?}"))?;
        let element = expected.dtype.bitsize() / 8;
        let row_bytes = tensor.col_count() as usize * element;
        let within = cols.start as usize * element..cols.end as usize * element;
        let slices = rows.clone().map(|row| &expected.data[row as usize * row_bytes..][within.clone()]);
        if !part.iter().eq(slices.flatten()) {
            bail!("rectangle {rows:?} × {cols:?} gives other bytes ({})", tensor.mode());
        }
    }
    Ok(())
}

/// A range within `0..end`: short, long or empty.
fn span(random: &mut Random, end: u64) -> std::ops::Range<u64> {
    let start = random.below(end + 1);
    let longest = if random.below(2) == 0 { 70.min(end - start) } else { end - start };
    start..start + random.below(longest + 1)
}
