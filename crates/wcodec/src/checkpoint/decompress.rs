//! Restoring the files of an archive.

use std::fs::{self, File};
use std::io;
use std::marker::PhantomData;
use std::path::Path;

use rayon::prelude::*;
use wcodec_container::{Crc32, FileEntry, Segment};

use super::{KIND, KIND_FILE};
use crate::archive::{Archive, Scratch, Tensor};
use crate::backend::Device;
use crate::error::{Error, Result};
use crate::report::{DeviceUse, Progress, Report};

/// Restores what an archive was made from: a file at `output`, or a folder.
///
/// Every byte is checked against its CRC. The target appears only when it is complete. Works in the current rayon pool; memory beyond the
/// mapped archive is a chunk per thread, whatever the size of the tensors.
///
/// ```
/// # fn main() -> wcodec::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let [input, output, back] = ["m.safetensors", "m.wcodec", "back"].map(|n| folder.path().join(n));
/// # let header = br#"{"w":{"dtype":"U8","shape":[6],"data_offsets":[0,6]}}"#;
/// # let file = [&(header.len() as u64).to_le_bytes(), &header[..], b"weight"].concat();
/// # std::fs::write(&input, &file).unwrap();
/// wcodec::compress(&input, &output, &wcodec::EncodeOptions::default(), &())?;
/// wcodec::decompress(&wcodec::Archive::open(&output)?, &back, false, &())?;
/// assert_eq!(std::fs::read(&back).unwrap(), file);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::AlreadyExists`] when `output` exists and `overwrite` is off (a folder is never replaced); otherwise as [`Archive::open`] and
/// [`crate::Tensor::decode_into`], and [`Error::Io`].
pub fn decompress(
    archive: &Archive,
    output: impl AsRef<Path>,
    overwrite: bool,
    progress: &dyn Progress,
) -> Result<Report> {
    decompress_on(&Device::Cpu, archive, output, overwrite, progress)
}

/// As [`decompress`], with the tensors decoded on `device`. A batch of them (1 GiB, or one tensor where that is larger) lies in its
/// memory at a time, compressed and decoded. [`Report::device`] says what the device did.
///
/// # Errors
/// As [`decompress`], whatever the device; and `Error::Cuda`.
pub fn decompress_on(
    device: &Device,
    archive: &Archive,
    output: impl AsRef<Path>,
    overwrite: bool,
    progress: &dyn Progress,
) -> Result<Report> {
    let output = output.as_ref();
    let mut decoder = Decoder::new(device)?;
    let directory = archive.container().directory();
    progress.start(directory.files.iter().map(|f| f.len).sum());
    let exists = output.symlink_metadata().is_ok();
    let single = directory.metadata.get(KIND).map(String::as_str) == Some(KIND_FILE) && directory.files.len() == 1;
    if exists && (!overwrite || !single || output.is_dir()) {
        return Err(Error::AlreadyExists(output.to_owned()));
    }
    let parent = match output.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    if single {
        let temporary = builder(0o666).tempfile_in(parent).map_err(|e| Error::io(output, e))?;
        restore(&mut decoder, archive, &directory.files[0], temporary.as_file(), output, progress)?;
        let kept = if overwrite { temporary.persist(output) } else { temporary.persist_noclobber(output) };
        kept.map_err(|e| Error::io(output, e.error))?;
    } else {
        let folder = builder(0o777).tempdir_in(parent).map_err(|e| Error::io(output, e))?;
        for entry in &directory.files {
            // Paths were validated with the directory: relative, without `..`.
            let path = folder.path().join(&entry.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
            }
            let file = File::create_new(&path).map_err(|e| Error::io(&path, e))?;
            restore(&mut decoder, archive, entry, &file, &output.join(&entry.path), progress)?;
        }
        let folder = folder.keep();
        if let Err(e) = fs::rename(&folder, output) {
            // The error to report is the first one.
            let _ = fs::remove_dir_all(&folder);
            return Err(Error::io(output, e));
        }
    }
    Ok(Report { device: decoder.used(), ..archive.report()? })
}

/// What decodes tensors for their files.
struct Decoder<'a> {
    /// `None`: the CPU does.
    #[cfg(feature = "cuda")]
    worker: Option<super::device::Worker<'a>>,
    _device: PhantomData<&'a Device>,
}

impl<'a> Decoder<'a> {
    fn new(device: &'a Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        let worker = match device {
            Device::Cpu => None,
            Device::Cuda(device) => Some(super::device::Worker::new(device)?),
        };
        #[cfg(not(feature = "cuda"))]
        let Device::Cpu = device;
        Ok(Self {
            #[cfg(feature = "cuda")]
            worker,
            _device: PhantomData,
        })
    }

    /// What the device did, if there is one.
    fn used(self) -> Option<DeviceUse> {
        #[cfg(feature = "cuda")]
        return self.worker.map(|worker| worker.used);
        #[cfg(not(feature = "cuda"))]
        None
    }
}

/// Checks everything in an archive: checksums of stored bytes, and that every tensor and file decodes to its checksum.
///
/// ```
/// # fn main() -> wcodec::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let [input, output] = ["m.safetensors", "m.wcodec"].map(|n| folder.path().join(n));
/// # let header = br#"{"w":{"dtype":"U8","shape":[6],"data_offsets":[0,6]}}"#;
/// # let file = [&(header.len() as u64).to_le_bytes(), &header[..], b"weight"].concat();
/// # std::fs::write(&input, &file).unwrap();
/// wcodec::compress(&input, &output, &wcodec::EncodeOptions::default(), &())?;
/// wcodec::verify(&wcodec::Archive::open(&output)?, &())?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The first fault found, as [`decompress`].
pub fn verify(archive: &Archive, progress: &dyn Progress) -> Result<Report> {
    verify_on(&Device::Cpu, archive, progress)
}

/// As [`verify`], with the tensors decoded, and their checksums computed, on `device`.
///
/// # Errors
/// As [`verify`], whatever the device; and `Error::Cuda`.
pub fn verify_on(device: &Device, archive: &Archive, progress: &dyn Progress) -> Result<Report> {
    let directory = archive.container().directory();
    progress.start(directory.files.iter().map(|f| f.len).sum());
    let mut decoder = Decoder::new(device)?;
    let mut batch = Batch::default();
    for (index, tensor) in directory.tensors.iter().enumerate() {
        if batch.push((index, 0), tensor.decoded_len) {
            verify_tensors(&mut decoder, archive, &batch.take(), progress)?;
        }
    }
    verify_tensors(&mut decoder, archive, &batch.take(), progress)?;
    for file in &directory.files {
        let mut crc = Crc32::new();
        for segment in &file.segments {
            match segment {
                Segment::Literal(blob) => {
                    crc.update(&archive.container().read_blob(blob)?);
                    progress.advance(blob.decoded_len);
                }
                Segment::Tensor { index } => {
                    let entry = &directory.tensors[*index as usize];
                    crc.combine(entry.crc32_decoded, entry.decoded_len);
                }
            }
        }
        check_file(file, crc.value())?;
    }
    Ok(Report { device: decoder.used(), ..archive.report()? })
}

fn verify_tensors(
    decoder: &mut Decoder<'_>,
    archive: &Archive,
    batch: &[(usize, u64)],
    progress: &dyn Progress,
) -> Result<()> {
    #[cfg(feature = "cuda")]
    if let Some(worker) = &mut decoder.worker {
        let tensors = super::device::prepared(archive, batch)?;
        worker.decode(&tensors)?;
        return tensors.iter().try_for_each(|tensor| {
            tensor.check_chunks()?;
            tensor.verify_stored()?;
            progress.advance(tensor.byte_len());
            Ok(())
        });
    }
    #[cfg(not(feature = "cuda"))]
    let _ = decoder;
    batch.iter().try_for_each(|&(index, _)| {
        let tensor = archive.tensor_at(index)?;
        tensor.verify()?;
        progress.advance(tensor.byte_len());
        Ok(())
    })
}

/// Tensors, by number and place in their file, that are decoded side by side.
#[derive(Default)]
struct Batch {
    tensors: Vec<(usize, u64)>,
    bytes: u64,
}

impl Batch {
    /// Adds one; says whether the batch is now full.
    fn push(&mut self, tensor: (usize, u64), bytes: u64) -> bool {
        self.tensors.push(tensor);
        self.bytes = self.bytes.saturating_add(bytes);
        self.tensors.len() >= BATCH_TENSORS || self.bytes >= BATCH_BYTES
    }

    fn take(&mut self) -> Vec<(usize, u64)> {
        std::mem::take(self).tensors
    }
}

/// Tensors whose chunks are decoded side by side: at most this many of them, and of their bytes.
const BATCH_TENSORS: usize = 64;
const BATCH_BYTES: u64 = 1 << 30;

/// Writes one file of the archive; `shown` is its name in errors.
fn restore(
    decoder: &mut Decoder<'_>,
    archive: &Archive,
    entry: &FileEntry,
    file: &File,
    shown: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let directory = archive.container().directory();
    let mut at = 0u64;
    let mut crc = Crc32::new();
    let mut batch = Batch::default();
    for segment in &entry.segments {
        match segment {
            Segment::Literal(blob) => {
                let bytes = archive.container().read_blob(blob)?;
                write_at(file, &bytes, at).map_err(|e| Error::io(shown, e))?;
                at += blob.decoded_len;
                crc.combine(blob.crc32_decoded, blob.decoded_len);
                progress.advance(blob.decoded_len);
            }
            Segment::Tensor { index } => {
                let tensor = &directory.tensors[*index as usize];
                let full = batch.push((*index as usize, at), tensor.decoded_len);
                at += tensor.decoded_len;
                crc.combine(tensor.crc32_decoded, tensor.decoded_len);
                if full {
                    restore_tensors(decoder, archive, &batch.take(), file, shown, progress)?;
                }
            }
        }
    }
    restore_tensors(decoder, archive, &batch.take(), file, shown, progress)?;
    check_file(entry, crc.value())
}

/// Decodes tensors, each to its place in `file`, in parallel over all their chunks.
fn restore_tensors(
    decoder: &mut Decoder<'_>,
    archive: &Archive,
    batch: &[(usize, u64)],
    file: &File,
    shown: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    #[cfg(feature = "cuda")]
    if let Some(worker) = &mut decoder.worker {
        let tensors = super::device::prepared(archive, batch)?;
        tensors.iter().try_for_each(Tensor::check_chunks)?;
        let decoded = worker.decode(&tensors)?;
        return worker.read(&decoded, |number, offset, bytes| {
            write_at(file, bytes, batch[number].1 + offset).map_err(|e| Error::io(shown, e))?;
            progress.advance(bytes.len() as u64);
            Ok(())
        });
    }
    #[cfg(not(feature = "cuda"))]
    let _ = decoder;
    let tensors: Vec<(Tensor<'_>, u64)> =
        batch.par_iter().map(|&(index, at)| Ok((archive.tensor_at(index)?, at))).collect::<Result<_>>()?;
    let mut jobs = Vec::new();
    for (tensor, at) in &tensors {
        if let Some(bytes) = tensor.pooled_bytes() {
            tensor.verify()?;
            write_at(file, bytes, *at).map_err(|e| Error::io(shown, e))?;
            progress.advance(tensor.byte_len());
        }
        let mut start = *at;
        for chunk in 0..tensor.chunks() {
            jobs.push((tensor, chunk, start));
            start += tensor.chunk_len(chunk);
        }
        tensor.check_chunks()?;
    }
    jobs.into_par_iter().try_for_each_init(
        || (Scratch::default(), Vec::new()),
        |(scratch, buffer), (tensor, chunk, start)| {
            buffer.resize(tensor.chunk_len(chunk) as usize, 0);
            tensor.decode_chunk(chunk, buffer, scratch)?;
            write_at(file, buffer, start).map_err(|e| Error::io(shown, e))?;
            progress.advance(buffer.len() as u64);
            Ok(())
        },
    )
}

pub(super) fn check_file(entry: &FileEntry, found: u32) -> Result<()> {
    if found == entry.crc32 {
        Ok(())
    } else {
        Err(Error::Checksum { what: format!("file `{}`", entry.path), expected: entry.crc32, found })
    }
}

/// Temporary names whose files become ordinary ones: with `mode` less the umask, where the default is for private files.
fn builder(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".wcodec-").suffix(".partial");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}
