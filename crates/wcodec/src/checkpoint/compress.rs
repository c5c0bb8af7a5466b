//! Writing an archive from a checkpoint.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use rayon::prelude::*;
use wcodec_container::{
    ArchiveSink, ArchiveWriter, Blob, BlobPolicy, Crc32, Directory, DtypeCode, Extent, FileEntry, Segment, TensorEntry,
    TensorPayload, WriterOptions, crc32,
};

use super::input::{self, InputFile, InputTensor};
use super::{KIND, KIND_FILE, KIND_FOLDER, memory};
use crate::backend::Device;
use crate::error::{Error, Result};
use crate::frames::FrameMaker;
use crate::mode::Mode;
use crate::options::{EncodeOptions, Level, ModeChoice};
#[cfg(feature = "cuda")]
use crate::report::DeviceUse;
use crate::report::{Progress, Report, TensorReport};
use crate::small::{self, PooledParams};
use crate::tensor::{self, EncodedChunk, IndexPart, KnownTables, Prepared, Source};
use crate::wire::put_varint;

/// Tensors up to this size are encoded side by side, whole; larger ones one by one, chunk by chunk.
const WHOLE_TENSOR: usize = 8 << 20;
/// Decoded bytes, per thread, of what is encoded at a time, while as much is written.
const BATCH_BYTES: usize = 8 << 20;
/// Decoded bytes that a device encodes at a time: frames enough to keep it busy.
const DEVICE_BATCH_BYTES: usize = 256 << 20;
/// Literal bytes of one blob.
const LITERAL_BYTES: usize = 1 << 20;

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

/// As [`compress`], with a device that encodes. On a CUDA device that is zstd mode alone ([`ModeChoice::Zstd`]), by nvCOMP: frames of the
/// same kind, which any device, the CPU and any zstd read; [`EncodeOptions::zstd_level`] then only serves the choice between byte planes
/// and none.
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
    let target = Target::Memory(ArchiveSink::new(Vec::new())?);
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

/// Encodes files into `target`; returns its bytes too, if it is memory.
fn assemble(
    files: &[InputFile<'_>],
    kind: &str,
    target: Target,
    options: &EncodeOptions,
    maker: Option<&dyn FrameMaker>,
    progress: &dyn Progress,
) -> Result<(Report, Vec<u8>)> {
    progress.start(files.iter().map(|f| f.len() as u64).sum());
    let mut archive = Assembly {
        target,
        directory: Directory::default(),
        report: Report::default(),
        tables: HashMap::new(),
        known: Vec::new(),
        pending: BTreeMap::new(),
        seen: HashMap::new(),
        options,
        maker,
        progress,
    };
    archive.directory.metadata.insert(KIND.into(), kind.into());
    for file in files {
        archive.file(file, files)?;
    }
    archive.close_blobs(0);
    let Assembly { target, directory, mut report, .. } = archive;
    let bytes = match target {
        Target::File(writer) => {
            report.archive_bytes = writer.finish(&directory)?;
            Vec::new()
        }
        Target::Memory(sink) => {
            let (bytes, len) = sink.finish(&directory)?;
            report.archive_bytes = len;
            bytes
        }
    };
    Ok((report, bytes))
}

/// Where the archive goes.
enum Target {
    File(ArchiveWriter),
    Memory(ArchiveSink<Vec<u8>>),
}

impl Target {
    fn append_chunk(&mut self, payload: &mut TensorPayload, chunk: &EncodedChunk) -> Result<()> {
        let EncodedChunk { bytes, decoded_len, crc32_decoded, .. } = chunk;
        match self {
            Self::File(writer) => writer.append_chunk(payload, bytes, *decoded_len, *crc32_decoded)?,
            Self::Memory(sink) => sink.append_chunk(payload, bytes, *decoded_len, *crc32_decoded)?,
        };
        Ok(())
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<Extent> {
        Ok(match self {
            Self::File(writer) => writer.write_bytes(bytes)?,
            Self::Memory(sink) => sink.write_bytes(bytes)?,
        })
    }

    fn write_blob(&mut self, bytes: &[u8], policy: BlobPolicy) -> Result<Blob> {
        Ok(match self {
            Self::File(writer) => writer.write_blob(bytes, policy)?,
            Self::Memory(sink) => sink.write_blob(bytes, policy)?,
        })
    }
}

struct Assembly<'a> {
    target: Target,
    directory: Directory,
    report: Report,
    /// Pool index of every table set, so that equal ones are stored once.
    tables: HashMap<Vec<u8>, u64>,
    /// Table sets that later tensors may share.
    known: Vec<KnownTables>,
    /// Blobs of pooled tensors that take more, by dtype and kind (last part of the name): place in the pool, bytes, reported tensors.
    pending: BTreeMap<(DtypeCode, String), Pending>,
    /// Tensors by length and fingerprint of their bytes.
    seen: HashMap<(usize, u32), Vec<Seen>>,
    options: &'a EncodeOptions,
    /// Makes the frames of zstd mode, if that is not the CPU.
    maker: Option<&'a dyn FrameMaker>,
    progress: &'a dyn Progress,
}

/// A tensor that was met: its file, its place in the file, its entry in the directory.
type Seen = (usize, usize, u32);

/// A tensor encoded in memory.
type Encoded = (Prepared, Vec<EncodedChunk>);

/// Tensors of a file that are encoded side by side.
struct Batch<'a> {
    /// Number of the first in the file.
    first: usize,
    sources: Vec<Source<'a>>,
    originals: Vec<Option<u32>>,
    /// `None` for what is an alias, pooled or to be streamed.
    encoded: Vec<Option<Encoded>>,
}

/// What is written of a file.
struct Written {
    segments: Vec<Segment>,
    crc: Crc32,
    /// Bytes of it.
    at: usize,
}

/// A blob of pooled tensors that is being filled.
struct Pending {
    blob: usize,
    bytes: Vec<u8>,
    reports: Vec<usize>,
}

impl Assembly<'_> {
    fn file(&mut self, file: &InputFile<'_>, files: &[InputFile<'_>]) -> Result<()> {
        let number = files.iter().position(|f| std::ptr::eq(f, file)).expect("a file of the checkpoint");
        let mut written = Written { segments: Vec::new(), crc: Crc32::new(), at: 0 };
        let mut waiting: Option<Batch<'_>> = None;
        let mut next = 0;
        while next < file.tensors.len() {
            let count = self.batch(&file.tensors[next..]);
            let sources: Vec<Source<'_>> = (next..next + count).map(|number| source(file, number)).collect();
            let originals: Vec<Option<u32>> =
                (0..count).map(|i| self.original(files, number, next + i, &sources[i])).collect();
            let mut batch = Batch { first: next, sources, originals, encoded: Vec::new() };
            next += count;
            if batch.sources[0].data.len() > WHOLE_TENSOR {
                // It is encoded while it is written; what comes before it stands first.
                waiting.take().map_or(Ok(()), |before| self.write_batch(file, before, &mut written))?;
                batch.encoded.push(None);
                self.write_batch(file, batch, &mut written)?;
                continue;
            }
            // One batch is encoded while the one before it is written.
            let (options, maker, before) = (self.options, self.maker, waiting.take());
            let mut known = std::mem::take(&mut self.known);
            let (done, encoded) = rayon::join(
                || before.map_or(Ok(()), |before| self.write_batch(file, before, &mut written)),
                || encode(options, maker, &mut known, &batch.sources, &batch.originals),
            );
            done?;
            batch.encoded = encoded?;
            self.known = known;
            waiting = Some(batch);
        }
        waiting.map_or(Ok(()), |batch| self.write_batch(file, batch, &mut written))?;
        let Written { mut segments, mut crc, at } = written;
        self.literal(file, at..file.len(), &mut segments, &mut crc)?;
        self.report.files += 1;
        self.report.decoded_bytes += file.len() as u64;
        self.directory.files.push(FileEntry {
            path: file.name.clone(),
            len: file.len() as u64,
            crc32: crc.value(),
            segments,
        });
        Ok(())
    }

    /// Writes the tensors of a batch and the bytes before each.
    fn write_batch(&mut self, file: &InputFile<'_>, batch: Batch<'_>, written: &mut Written) -> Result<()> {
        let Batch { first, sources, originals, encoded } = batch;
        let tensors = &file.tensors[first..];
        for (((tensor, source), original), encoded) in tensors.iter().zip(sources).zip(originals).zip(encoded) {
            self.literal(file, written.at..tensor.bytes.start, &mut written.segments, &mut written.crc)?;
            written.at = tensor.bytes.end;
            let entry = match (original, encoded) {
                (Some(original), _) => self.alias(original, tensor),
                (None, _) if is_pooled(self.options, &source) => self.pooled(source),
                (None, Some((prepared, chunks))) => self.write(source, &prepared, chunks)?,
                (None, None) => self.stream(source)?,
            };
            written.crc.combine(entry.crc32_decoded, entry.decoded_len);
            written.segments.push(Segment::Tensor { index: self.directory.tensors.len() as u32 });
            self.directory.tensors.push(entry);
        }
        Ok(())
    }

    /// How many of `tensors` to encode side by side; 1 for a large one.
    fn batch(&self, tensors: &[InputTensor]) -> usize {
        let budget = BATCH_BYTES * rayon::current_num_threads();
        let mut bytes = 0;
        let small = tensors
            .iter()
            .take_while(|t| {
                bytes += t.bytes.len();
                t.bytes.len() <= WHOLE_TENSOR && bytes <= budget
            })
            .count();
        small.max(1)
    }

    /// Writes an encoded tensor.
    fn write(&mut self, source: Source<'_>, prepared: &Prepared, chunks: Vec<EncodedChunk>) -> Result<TensorEntry> {
        let mut payload = TensorPayload::new();
        let mut parts = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            parts.push(self.append(&mut payload, chunk)?);
        }
        self.entry(source, prepared, payload, parts)
    }

    /// Encodes and writes a large tensor, a few chunks at a time.
    fn stream(&mut self, source: Source<'_>) -> Result<TensorEntry> {
        let mut prepared = tensor::prepare(source, self.options)?;
        if shares_tables(self.options) {
            prepared.share_tables(&mut self.known);
        }
        let encoder = prepared.encoder()?;
        let ranges = prepared.chunks(source.data.len());
        let budget = match self.maker {
            Some(_) => DEVICE_BATCH_BYTES,
            None => BATCH_BYTES * rayon::current_num_threads(),
        };
        let (mut payload, mut parts) = (TensorPayload::new(), Vec::with_capacity(ranges.len()));
        let mut waiting: Vec<EncodedChunk> = Vec::new();
        let (mut first, maker) = (0, self.maker);
        while first < ranges.len() || !waiting.is_empty() {
            let rest = &ranges[first..];
            let start = rest.first().map_or(0, |r| r.start);
            let count = rest.iter().take_while(|r| r.end - start <= budget).count().max(1).min(rest.len());
            let encode = || {
                let chunks = rest[..count].par_iter().enumerate();
                chunks
                    .map(|(i, range)| encoder.encode(first + i, &source.data[range.clone()], source.name))
                    .collect::<Result<Vec<EncodedChunk>>>()
            };
            let made = || {
                let last = rest[..count].last()?;
                prepared.encode_with(maker?, &source.data[start..last.end])
            };
            // Some chunks are encoded while those before them are written.
            let (written, batch) = rayon::join(
                || {
                    waiting.drain(..).try_for_each(|chunk| {
                        parts.push(self.append(&mut payload, chunk)?);
                        Ok::<(), Error>(())
                    })
                },
                || made().unwrap_or_else(encode),
            );
            written?;
            waiting = batch?;
            first += count;
        }
        drop(encoder);
        self.entry(source, &prepared, payload, parts)
    }

    fn append(&mut self, payload: &mut TensorPayload, chunk: EncodedChunk) -> Result<IndexPart> {
        self.target.append_chunk(payload, &chunk)?;
        self.progress.advance(chunk.decoded_len);
        Ok(chunk.index)
    }

    fn entry(
        &mut self,
        source: Source<'_>,
        prepared: &Prepared,
        payload: TensorPayload,
        parts: Vec<IndexPart>,
    ) -> Result<TensorEntry> {
        let index = prepared.index(parts);
        let mut params = Vec::new();
        if let Some(tables) = prepared.tables() {
            let next = self.directory.pool.len() as u64;
            let id = *self.tables.entry(tables.into_owned()).or_insert_with_key(|tables| {
                self.directory.pool.push(tables.clone());
                next
            });
            put_varint(&mut params, id);
        }
        params.extend(prepared.params());
        let mut entry = TensorEntry {
            name: source.name.to_owned(),
            dtype: source.dtype,
            shape: source.shape.to_vec(),
            mode: prepared.mode().code(),
            params,
            index_crc32: crc32(&index),
            ..TensorEntry::default()
        };
        payload.store_in(&mut entry);
        if !index.is_empty() {
            entry.index = self.target.write_bytes(&index)?;
        }
        self.tell(&entry, prepared.mode(), entry.payload.len + entry.index.len);
        Ok(entry)
    }

    /// Adds a small tensor to the blob of its kind.
    fn pooled(&mut self, source: Source<'_>) -> TensorEntry {
        let kind = source.name.rsplit('.').next().unwrap_or_default().to_owned();
        let pool = &mut self.directory.pool;
        let pending = self.pending.entry((source.dtype, kind)).or_insert_with(|| {
            pool.push(Vec::new());
            Pending { blob: pool.len() - 1, bytes: Vec::new(), reports: Vec::new() }
        });
        let params = PooledParams { blob: pending.blob as u64, start: pending.bytes.len() as u64 };
        pending.bytes.extend_from_slice(source.data);
        pending.reports.push(self.report.tensors.len());
        let entry = TensorEntry {
            name: source.name.to_owned(),
            dtype: source.dtype,
            shape: source.shape.to_vec(),
            mode: Mode::Pooled.code(),
            params: params.to_bytes(),
            decoded_len: source.data.len() as u64,
            crc32_decoded: crc32(source.data),
            ..TensorEntry::default()
        };
        self.progress.advance(entry.decoded_len);
        self.tell(&entry, Mode::Pooled, 0);
        self.close_blobs(small::BLOB_BYTES);
        entry
    }

    /// Encodes pending blobs of `from` bytes and more.
    fn close_blobs(&mut self, from: usize) {
        let full: Vec<_> = self.pending.iter().filter(|(_, p)| p.bytes.len() >= from).map(|(k, _)| k.clone()).collect();
        for key in full {
            let Some(pending) = self.pending.remove(&key) else { continue };
            let blob = small::encode_blob(&pending.bytes, key.0);
            // Every tensor is told its share.
            let (mut done, mut told) = (0u64, 0u64);
            for report in pending.reports {
                let report = &mut self.report.tensors[report];
                done += report.decoded_bytes;
                let share = blob.len() as u64 * done / pending.bytes.len() as u64;
                report.stored_bytes = share - told;
                told = share;
            }
            self.directory.pool[pending.blob] = blob;
        }
    }

    /// The earlier tensor of the same type, shape and bytes, if there is one.
    fn original(&mut self, files: &[InputFile<'_>], file: usize, number: usize, source: &Source<'_>) -> Option<u32> {
        // Small ones are not worth the look-up table's growth.
        if source.data.len() < 4096 {
            return None;
        }
        let key = (source.data.len(), fingerprint(source.data));
        let same = self.seen.entry(key).or_default();
        for &(f, t, entry) in same.iter() {
            let other = &files[f].tensors[t];
            if other.dtype == source.dtype && other.shape == source.shape && files[f].tensor(t) == source.data {
                return Some(entry);
            }
        }
        // Entries follow the tensors of all files in order.
        let entry = files[..file].iter().map(|f| f.tensors.len()).sum::<usize>() + number;
        same.push((file, number, entry as u32));
        None
    }

    fn alias(&mut self, original: u32, tensor: &InputTensor) -> TensorEntry {
        let mut entry = self.directory.tensors[original as usize].clone();
        entry.name.clone_from(&tensor.name);
        self.progress.advance(entry.decoded_len);
        let mode = self.report.tensors[original as usize].mode;
        self.tell(&entry, mode, 0);
        entry
    }

    fn tell(&mut self, entry: &TensorEntry, mode: Mode, stored_bytes: u64) {
        self.report.tensors.push(TensorReport {
            name: entry.name.clone(),
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            mode,
            decoded_bytes: entry.decoded_len,
            stored_bytes,
        });
    }

    /// Writes bytes that belong to no tensor.
    fn literal(
        &mut self,
        file: &InputFile<'_>,
        range: std::ops::Range<usize>,
        segments: &mut Vec<Segment>,
        crc: &mut Crc32,
    ) -> Result<()> {
        for bytes in file.literal(range).chunks(LITERAL_BYTES) {
            let level = match self.options.level {
                Level::Fast => 3,
                _ => 19,
            };
            let blob = self.target.write_blob(bytes, BlobPolicy::Zstd { level })?;
            crc.combine(blob.crc32_decoded, blob.decoded_len);
            segments.push(Segment::Literal(blob));
            self.progress.advance(bytes.len() as u64);
        }
        Ok(())
    }
}

/// Whether tensors may take others' tables.
fn shares_tables(options: &EncodeOptions) -> bool {
    options.tuning.share_tables && options.level != Level::Fast
}

/// Whether a tensor is coded together with others.
fn is_pooled(options: &EncodeOptions, source: &Source<'_>) -> bool {
    options.tuning.pool_small
        && matches!(options.mode, ModeChoice::Auto | ModeChoice::Float)
        && small::is_pooled(source.dtype, source.data.len())
}

/// Encodes a batch; `None` for what is an alias, pooled or to be streamed.
fn encode(
    options: &EncodeOptions,
    maker: Option<&dyn FrameMaker>,
    known: &mut Vec<KnownTables>,
    sources: &[Source<'_>],
    originals: &[Option<u32>],
) -> Result<Vec<Option<Encoded>>> {
    let mut prepared = sources
        .par_iter()
        .zip(originals)
        .map(|(&source, original)| {
            let elsewhere = original.is_some() || source.data.len() > WHOLE_TENSOR || is_pooled(options, &source);
            if elsewhere { Ok(None) } else { tensor::prepare(source, options).map(Some) }
        })
        .collect::<Result<Vec<Option<Prepared>>>>()?;
    // In archive order, so that threads do not decide who shares with whom.
    if shares_tables(options) {
        prepared.iter_mut().flatten().for_each(|p| p.share_tables(known));
    }
    sources
        .par_iter()
        .zip(prepared)
        .map(|(&source, prepared)| prepared.map(|p| encode_whole(source, p, maker)).transpose())
        .collect()
}

/// Encodes a tensor in memory, and stores it after all when its real size says so.
fn encode_whole(source: Source<'_>, prepared: Prepared, maker: Option<&dyn FrameMaker>) -> Result<Encoded> {
    let made = maker.and_then(|maker| prepared.encode_with(maker, source.data));
    let chunks = made.unwrap_or_else(|| encode_chunks(source, &prepared))?;
    let stored: usize = chunks.iter().map(|c| c.bytes.len()).sum();
    let overhead = prepared.tables().map_or(0, |t| t.len()) + prepared.params().len();
    if stored + overhead < source.data.len() || prepared.mode() == Mode::Store {
        return Ok((prepared, chunks));
    }
    let prepared = Prepared::store(source.data.len() as u64);
    let chunks = encode_chunks(source, &prepared)?;
    Ok((prepared, chunks))
}

fn encode_chunks(source: Source<'_>, prepared: &Prepared) -> Result<Vec<EncodedChunk>> {
    let encoder = prepared.encoder()?;
    let ranges = prepared.chunks(source.data.len());
    ranges.into_par_iter().enumerate().map(|(i, range)| encoder.encode(i, &source.data[range], source.name)).collect()
}

fn source<'a>(file: &'a InputFile<'_>, number: usize) -> Source<'a> {
    let tensor = &file.tensors[number];
    Source { name: &tensor.name, dtype: tensor.dtype, shape: &tensor.shape, data: file.tensor(number) }
}

/// A checksum of samples, to find candidates for equality.
fn fingerprint(data: &[u8]) -> u32 {
    let mut crc = Crc32::new();
    let step = (data.len() / 16).max(1);
    for start in (0..data.len()).step_by(step) {
        crc.update(&data[start..(start + 256).min(data.len())]);
    }
    crc.value()
}
