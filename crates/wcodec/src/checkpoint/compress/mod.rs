//! Writing an archive from a checkpoint.

mod assembly;
mod batch;
mod pooled;
mod repeats;
mod stream;
mod target;

use std::collections::BTreeMap;
use std::path::Path;

use wcodec_container::{ArchiveSink, ArchiveWriter, DtypeCode, WriterOptions};

use super::{KIND_FILE, KIND_FOLDER, input, memory};
use crate::backend::Device;
use crate::error::{Error, Result};
#[cfg(feature = "cuda")]
use crate::mode::Mode;
use crate::options::EncodeOptions;
#[cfg(feature = "cuda")]
use crate::options::ModeChoice;
#[cfg(feature = "cuda")]
use crate::report::DeviceUse;
use crate::report::{Progress, Report};
use assembly::assemble;
use target::Target;

/// Compresses a safetensors file or a checkpoint folder into one archive.
///
/// Works in the current rayon pool (`ThreadPool::install` chooses another); the archive's bytes do not depend on the number of threads.
/// The target appears only when it is complete.
///
/// ```
/// # fn main() -> wcodec::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let [input, output] = ["m.safetensors", "m.wcodec"].map(|n| folder.path().join(n));
/// # let header = br#"{"w":{"dtype":"U8","shape":[6],"data_offsets":[0,6]}}"#;
/// # let file = [&(header.len() as u64).to_le_bytes(), &header[..], b"weight"].concat();
/// # std::fs::write(&input, &file).unwrap();
/// let report = wcodec::compress(&input, &output, &wcodec::EncodeOptions::default(), &())?;
/// assert_eq!((report.tensors.len(), report.decoded_bytes), (1, file.len() as u64));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Safetensors`] or [`Error::MissingShard`] for a damaged input, [`Error::Container`] when the target exists and
/// [`EncodeOptions::overwrite`] is off or cannot be written, [`Error::Io`], [`Error::BadArgument`].
pub fn compress(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    options: &EncodeOptions,
    progress: &dyn Progress,
) -> Result<Report> {
    let (input, output) = (input.as_ref(), output.as_ref());
    check_options(options)?;
    let files = input::open(input)?;
    let kind = if input.is_dir() { KIND_FOLDER } else { KIND_FILE };
    let target = Target::File(ArchiveWriter::create(output, writer_options(options))?);
    Ok(assemble(&files, kind, target, options, None, progress)?.0)
}

/// As [`compress`], with a device that encodes. On a CUDA device that is zstd mode alone
/// ([`ModeChoice::Zstd`](crate::ModeChoice::Zstd)), by nvCOMP: frames of the same kind, which any device, the CPU and any zstd read;
/// [`EncodeOptions::zstd_level`] then only serves the choice between byte planes and none.
///
/// # Errors
/// As [`compress`]; [`Error::BadArgument`] for another mode on a device that is not the CPU; `Error::Cuda` without nvCOMP.
pub fn compress_on(
    device: &Device,
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    options: &EncodeOptions,
    progress: &dyn Progress,
) -> Result<Report> {
    match device {
        Device::Cpu => compress(input, output, options, progress),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            if options.mode != ModeChoice::Zstd {
                return Err(Error::BadArgument("only zstd mode is encoded on a GPU".into()));
            }
            let (input, output) = (input.as_ref(), output.as_ref());
            check_options(options)?;
            let maker = crate::cuda::DeviceFrameMaker::new(device)?;
            let files = input::open(input)?;
            let kind = if input.is_dir() { KIND_FOLDER } else { KIND_FILE };
            let target = Target::File(ArchiveWriter::create(output, writer_options(options))?);
            let mut report = assemble(&files, kind, target, options, Some(&maker), progress)?.0;
            let count = |mode| report.tensors.iter().filter(|tensor| tensor.mode == mode).count();
            report.device = Some(DeviceUse {
                name: format!("cuda:{} ({})", device.ordinal(), device.name()),
                by_nvcomp: count(Mode::Zstd),
                by_copy: count(Mode::Store),
                ..DeviceUse::default()
            });
            Ok(report)
        }
    }
}

/// A tensor in memory, to be compressed.
#[derive(Debug, Clone, Copy)]
pub struct TensorData<'a> {
    /// Its name, unique among the tensors of an archive.
    pub name: &'a str,
    /// Element type.
    pub dtype: DtypeCode,
    /// Dimensions, outermost first.
    pub shape: &'a [u64],
    /// Its elements, row by row, little-endian.
    pub data: &'a [u8],
}

/// Compresses tensors from memory into an archive at `output`: the one that [`compress`] would make of a safetensors file with these
/// tensors and this metadata, so that [`crate::decompress`] gives that file. Nothing is copied. The target appears only when it is
/// complete.
///
/// # Errors
/// [`Error::BadArgument`] for data that do not fit their shape and for a name given twice; otherwise as [`compress`].
pub fn compress_tensors(
    tensors: &[TensorData<'_>],
    metadata: &BTreeMap<String, String>,
    output: impl AsRef<Path>,
    options: &EncodeOptions,
    progress: &dyn Progress,
) -> Result<Report> {
    let output = output.as_ref();
    check_options(options)?;
    let stem = output.file_stem().and_then(|stem| stem.to_str()).unwrap_or("model");
    let file = memory::file(format!("{stem}.safetensors"), tensors, metadata)?;
    let target = Target::File(ArchiveWriter::create(output, writer_options(options))?);
    Ok(assemble(&[file], KIND_FILE, target, options, None, progress)?.0)
}

/// As [`compress_tensors`], into memory: the bytes of an archive.
///
/// ```
/// # fn main() -> wcodec::Result<()> {
/// use wcodec::{Archive, DtypeCode, EncodeOptions, TensorData};
/// let tensor = TensorData { name: "w", dtype: DtypeCode::U8, shape: &[2, 3], data: &[1, 2, 3, 4, 5, 6] };
/// let bytes = wcodec::compress_tensors_to_vec(&[tensor], &Default::default(), &EncodeOptions::default(), &())?;
/// assert_eq!(Archive::from_bytes(bytes)?.tensor("w")?.decode()?, tensor.data);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`compress_tensors`].
pub fn compress_tensors_to_vec(
    tensors: &[TensorData<'_>],
    metadata: &BTreeMap<String, String>,
    options: &EncodeOptions,
    progress: &dyn Progress,
) -> Result<Vec<u8>> {
    check_options(options)?;
    let file = memory::file("model.safetensors".into(), tensors, metadata)?;
    // Room for all of it, where the system gives as much: growing would copy what is there. What is not written takes no memory.
    let mut room = Vec::new();
    let _ = room.try_reserve_exact(file.len());
    let target = Target::Memory(ArchiveSink::new(room)?);
    Ok(assemble(&[file], KIND_FILE, target, options, None, progress)?.1)
}

fn check_options(options: &EncodeOptions) -> Result<()> {
    if !options.superblock_rows.is_multiple_of(16) || !(16..=512).contains(&options.superblock_rows) {
        return Err(Error::BadArgument("superblock rows: a multiple of 16 from 16 to 512".into()));
    }
    Ok(())
}

fn writer_options(options: &EncodeOptions) -> WriterOptions {
    WriterOptions { overwrite: options.overwrite, sync: false }
}
