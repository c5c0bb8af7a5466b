//! `cargo xtask roundtrip-check`: what goes in comes out, bit for bit, in every mode, at every level, on every backend.
//!
//! Files come from lists of awkward shapes and values, from random ones (`--seed` makes them again), from fixtures/, and with
//! `--models` from target/models/. What fails is saved under target/roundtrip-failures/, one tensor in a file.

mod backend;
mod checks;
mod generate;
mod table;
mod values;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use rayon::{ThreadPool, ThreadPoolBuilder};
use wcodec::{Device, Level, Report};

use crate::tensors::Tensor;
use crate::workspace;
use backend::Backend;
use checks::Setting;
use generate::Source;
use table::Table;

/// Arguments of `roundtrip-check`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Files of random tensors.
    #[arg(long, default_value_t = 12)]
    cases: u32,
    /// What the random values grow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The models under target/models/, too (`cargo xtask fetch-models` makes them). Takes long.
    #[arg(long)]
    models: bool,
    /// Only settings whose name starts with this, such as `auto`, or `float-max`.
    #[arg(long)]
    setting: Option<String>,
    /// Only check the archives in this folder against the file that they were made of.
    #[arg(long, hide = true)]
    decode: Option<PathBuf>,
    /// What decodes then.
    #[arg(long, hide = true, default_value = "cpu")]
    device: wcodec::Backend,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(folder) = &args.decode {
        return decode(folder, args.device);
    }
    let start = Instant::now();
    let fixtures = workspace::root().join("fixtures");
    let mut sources = generate::edges(args.seed)?;
    sources.extend(generate::random(args.cases, args.seed)?);
    sources.push(generate::large(args.seed)?);
    sources.extend(generate::folder(&fixtures, true)?);
    let settings: Vec<Setting> = Setting::all()
        .into_iter()
        .filter(|s| args.setting.as_ref().is_none_or(|only| s.name().starts_with(only)))
        .collect();
    let mut run = Run { settings, backends: Backend::present(), pools: pools()?, table: Table::default(), failures: 0 };
    for source in &sources {
        run.file(source)?;
    }
    let mut files = sources.len();
    drop(sources);
    if args.models {
        // One at a time: they are large.
        for path in generate::paths(&workspace::models_dir())? {
            run.file(&generate::read(&path, false)?)?;
            files += 1;
        }
    }
    let backends: Vec<String> = run.backends.iter().map(|b| b.name()).collect();
    println!("{}", run.table);
    println!(
        "{files} files (seed {}) × {} settings, decoded by {}, encoded with {THREADS:?} threads: {:.0} s",
        args.seed,
        run.settings.len(),
        backends.join(", "),
        start.elapsed().as_secs_f64()
    );
    if run.failures > 0 {
        bail!("{} failures; their tensors are under {}", run.failures, failures_dir().display());
    }
    Ok(())
}

/// Numbers of threads that have to write the same archive.
const THREADS: [usize; 3] = [2, 1, 4];
/// The file of a folder of archives that they were made of.
const INPUT: &str = "input.safetensors";
/// After this many failures it is clear that something is wrong.
const ENOUGH_FAILURES: usize = 40;

struct Run {
    settings: Vec<Setting>,
    backends: Vec<Backend>,
    pools: Vec<ThreadPool>,
    table: Table,
    failures: usize,
}

impl Run {
    /// Checks one file in every setting: in this process, then with the other backends.
    fn file(&mut self, source: &Source) -> Result<()> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let input = folder.path().join(INPUT);
        fs::write(&input, &source.bytes)?;
        for setting in self.settings.clone() {
            match guarded(|| self.setting(source, setting, folder.path())) {
                Ok(report) => self.table.add(source, setting, &report),
                Err(why) => self.failed(source, setting, &why)?,
            }
        }
        for backend in self.backends.iter().skip(1) {
            if let Err(why) = backend.check(folder.path()) {
                // Which archive it was stands in the message.
                self.failures += 1;
                self.table.fail(backend.name(), Setting::USUAL);
                save(source, &source.name)?;
                eprintln!("FAILED {}: {why:#}", source.name);
            }
        }
        if self.failures >= ENOUGH_FAILURES {
            bail!("{} failures; their tensors are under {}", self.failures, failures_dir().display());
        }
        Ok(())
    }

    fn setting(&self, source: &Source, setting: Setting, folder: &Path) -> Result<Report> {
        let output = folder.join(setting.name()).with_extension("wcodec");
        // The level decides what is searched, not how work is shared: one level is enough to compare threads.
        let compared = setting == Setting::USUAL || source.all_threads && setting.level == Level::Default;
        let pools = if compared { &self.pools[..] } else { &self.pools[..1] };
        let report = checks::compress(&folder.join(INPUT), &output, setting, pools)?;
        checks::report(&report, source, setting)?;
        self.pools[0].install(|| checks::archive(&Device::Cpu, &output, source))?;
        Ok(report)
    }

    /// Finds the tensors that fail by themselves, cuts them down, and saves them.
    fn failed(&mut self, source: &Source, setting: Setting, why: &anyhow::Error) -> Result<()> {
        eprintln!("FAILED {} {}: {why:#}", source.name, setting.name());
        self.failures += 1;
        let mut found = false;
        for tensor in &source.tensors {
            let Some(why) = self.fault_of(tensor, setting)? else { continue };
            let (mut smallest, mut why) = (tensor.clone(), why);
            while let Some((smaller, its)) = self.smaller(&smallest, setting)? {
                (smallest, why) = (smaller, its);
            }
            let name = format!("{}.{}.{}", source.name, setting.name(), tensor.name);
            eprintln!("  {} {:?}, cut to {:?}: {why:#}", tensor.dtype, tensor.shape, smallest.shape);
            self.table.fail(tensor.dtype.to_string(), setting);
            save(&generate::source(name.clone(), vec![smallest], true)?, &name)?;
            found = true;
        }
        if !found {
            eprintln!("  no tensor fails by itself");
            self.table.fail("(file)".into(), setting);
            save(source, &source.name)?;
        }
        Ok(())
    }

    /// The first half of a tensor's rows, if that fails, too.
    fn smaller(&self, tensor: &Tensor, setting: Setting) -> Result<Option<(Tensor, anyhow::Error)>> {
        let rows = tensor.shape.first().copied().unwrap_or(0);
        if rows < 2 {
            return Ok(None);
        }
        let half = tensor.first_rows(rows / 2)?;
        Ok(self.fault_of(&half, setting)?.map(|why| (half, why)))
    }

    fn fault_of(&self, tensor: &Tensor, setting: Setting) -> Result<Option<anyhow::Error>> {
        // Half the rows of packed elements may be no whole bytes, and then no file.
        let Ok(source) = generate::source("one".into(), vec![tensor.clone()], true) else { return Ok(None) };
        let folder = tempfile::tempdir().context("no temporary folder")?;
        fs::write(folder.path().join(INPUT), &source.bytes)?;
        Ok(guarded(|| self.setting(&source, setting, folder.path())).err())
    }
}

/// Checks archives that another process wrote.
fn decode(folder: &Path, device: wcodec::Backend) -> Result<()> {
    let device = device.open()?;
    let source = generate::read(&folder.join(INPUT), true)?;
    let mut archives: Vec<PathBuf> = fs::read_dir(folder)?.map(|item| Ok(item?.path())).collect::<Result<_>>()?;
    archives.retain(|path| path.extension().is_some_and(|e| e == "wcodec"));
    archives.sort();
    for path in archives {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        guarded(|| checks::archive(&device, &path, &source)).with_context(|| name)?;
    }
    Ok(())
}

/// Runs a check; a panic is a failure like any other.
fn guarded<T>(check: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(anyhow!("panicked: {}", text.unwrap_or("no message")))
    })
}

fn pools() -> Result<Vec<ThreadPool>> {
    let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build().context("no thread pool");
    THREADS.into_iter().map(pool).collect()
}

fn failures_dir() -> PathBuf {
    workspace::root().join("target").join("roundtrip-failures")
}

fn save(source: &Source, name: &str) -> Result<()> {
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' }).collect();
    workspace::write_atomic(&failures_dir().join(format!("{name}.safetensors")), &source.bytes)
}
