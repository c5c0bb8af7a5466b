//! An archive in the making: files, their tensors, and the bytes between these.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use wcodec_container::{
    BlobPolicy, Crc32, Directory, DtypeCode, FileEntry, Segment, TensorEntry, TensorPayload, crc32,
};

use super::batch::{self, Batch, is_pooled};
use super::pooled::Pending;
use super::repeats::Seen;
use super::target::Target;
use crate::checkpoint::KIND;
use crate::checkpoint::input::InputFile;
use crate::error::Result;
use crate::frames::FrameMaker;
use crate::mode::Mode;
use crate::options::{EncodeOptions, Level};
use crate::report::{Progress, Report, TensorReport};
use crate::tensor::{EncodedChunk, IndexPart, KnownTables, Prepared, Source};
use crate::wire::put_varint;

/// Literal bytes of one blob.
const LITERAL_BYTES: usize = 1 << 20;

/// Encodes files into `target`; returns its bytes too, if it is memory.
pub(super) fn assemble(
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
            let (mut bytes, len) = sink.finish(&directory)?;
            bytes.shrink_to_fit();
            report.archive_bytes = len;
            bytes
        }
    };
    Ok((report, bytes))
}

pub(super) struct Assembly<'a> {
    pub(super) target: Target,
    pub(super) directory: Directory,
    pub(super) report: Report,
    /// Pool index of every table set, so that equal ones are stored once.
    tables: HashMap<Vec<u8>, u64>,
    /// Table sets that later tensors may share.
    pub(super) known: Vec<KnownTables>,
    /// Blobs of pooled tensors that take more, by dtype and kind (last part of the name): place in the pool, bytes, reported tensors.
    pub(super) pending: BTreeMap<(DtypeCode, String), Pending>,
    /// Tensors by length and fingerprint of their bytes.
    pub(super) seen: HashMap<(usize, u32), Vec<Seen>>,
    pub(super) options: &'a EncodeOptions,
    /// Makes the frames of zstd mode, if that is not the CPU.
    pub(super) maker: Option<&'a dyn FrameMaker>,
    pub(super) progress: &'a dyn Progress,
}

/// What is written of a file.
struct Written {
    segments: Vec<Segment>,
    crc: Crc32,
    /// Bytes of it.
    at: usize,
}

impl Assembly<'_> {
    fn file(&mut self, file: &InputFile<'_>, files: &[InputFile<'_>]) -> Result<()> {
        let number = files.iter().position(|f| std::ptr::eq(f, file)).expect("a file of the checkpoint");
        let mut written = Written { segments: Vec::new(), crc: Crc32::new(), at: 0 };
        let mut waiting: Option<Batch<'_>> = None;
        let mut next = 0;
        while next < file.tensors.len() {
            let count = batch::count(&file.tensors[next..]);
            let sources: Vec<Source<'_>> = (next..next + count).map(|number| source(file, number)).collect();
            let originals: Vec<Option<u32>> =
                (0..count).map(|i| self.original(files, number, next + i, &sources[i])).collect();
            let mut batch = Batch { first: next, sources, originals, encoded: Vec::new() };
            next += count;
            if batch.sources[0].data.len() > batch::WHOLE_TENSOR {
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
                || batch::encode(options, maker, &mut known, &batch.sources, &batch.originals),
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

    /// Writes an encoded tensor.
    fn write(&mut self, source: Source<'_>, prepared: &Prepared, chunks: Vec<EncodedChunk>) -> Result<TensorEntry> {
        let mut payload = TensorPayload::new();
        let mut parts = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            parts.push(self.append(&mut payload, chunk)?);
        }
        self.entry(source, prepared, payload, parts)
    }

    pub(super) fn append(&mut self, payload: &mut TensorPayload, chunk: EncodedChunk) -> Result<IndexPart> {
        self.target.append_chunk(payload, &chunk)?;
        self.progress.advance(chunk.decoded_len);
        Ok(chunk.index)
    }

    pub(super) fn entry(
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

    pub(super) fn tell(&mut self, entry: &TensorEntry, mode: Mode, stored_bytes: u64) {
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
        range: Range<usize>,
        segments: &mut Vec<Segment>,
        crc: &mut Crc32,
    ) -> Result<()> {
        for bytes in file.literal(range).chunks(LITERAL_BYTES) {
            let level = match self.options.level {
                Level::Fast => 3,
                Level::Default => 9,
                Level::Max => 19,
            };
            let blob = self.target.write_blob(bytes, BlobPolicy::Zstd { level })?;
            crc.combine(blob.crc32_decoded, blob.decoded_len);
            segments.push(Segment::Literal(blob));
            self.progress.advance(bytes.len() as u64);
        }
        Ok(())
    }
}

fn source<'a>(file: &'a InputFile<'_>, number: usize) -> Source<'a> {
    let tensor = &file.tensors[number];
    Source { name: &tensor.name, dtype: tensor.dtype, shape: &tensor.shape, data: file.tensor(number) }
}
