//! Reading an archive: whole tensors, row ranges, rectangles.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use wcodec_container::{ArchiveReader, DtypeCode, Extent, TensorEntry, crc32};

use crate::error::{Error, Result};
use crate::frames::FrameDecoder;
use crate::integer::IntegerDecoder;
use crate::lanes::{LanesDecoder, LanesSummary};
use crate::mode::Mode;
use crate::report::{Report, TensorReport};
use crate::small::{self, PooledParams};

/// An open `.wcodec` archive.
///
/// ```
/// # fn main() -> wcodec::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let (input, output) = (folder.path().join("m.safetensors"), folder.path().join("m.wcodec"));
/// # let header = br#"{"w":{"dtype":"U8","shape":[2,3],"data_offsets":[0,6]}}"#;
/// # let mut file = (header.len() as u64).to_le_bytes().to_vec();
/// # file.extend_from_slice(header);
/// # file.extend_from_slice(&[1, 2, 3, 4, 5, 6]);
/// # std::fs::write(&input, file).unwrap();
/// # wcodec::compress(&input, &output, &wcodec::EncodeOptions::default(), &())?;
/// let archive = wcodec::Archive::open(&output)?;
/// let tensor = archive.tensor("w")?;
/// assert_eq!(tensor.shape(), [2, 3]);
/// assert_eq!(tensor.decode()?, [1, 2, 3, 4, 5, 6]);
/// assert_eq!(tensor.rows(1..2)?, [4, 5, 6]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Archive {
    reader: ArchiveReader,
    /// Decoded blobs of pooled tensors, by place in the pool.
    blobs: Vec<OnceLock<(DtypeCode, Vec<u8>)>>,
}

impl Archive {
    /// Opens and validates an archive; the file is memory-mapped and must not change while it is open.
    ///
    /// # Errors
    /// [`Error::Container`] when the file is no archive, damaged, or of an unknown version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::new(ArchiveReader::open(path)?))
    }

    /// Reads the whole archive into memory, so that nobody can change it underneath and no decoder waits for the disk.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::new(ArchiveReader::read(path)?))
    }

    /// An archive in memory: a `Vec<u8>`, an `Arc<[u8]>`, or anything else that lends its bytes.
    ///
    /// # Errors
    /// As [`Archive::open`].
    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        Ok(Self::new(ArchiveReader::from_bytes(bytes)?))
    }

    pub(crate) fn new(reader: ArchiveReader) -> Self {
        let blobs = reader.directory().pool.iter().map(|_| OnceLock::new()).collect();
        Self { reader, blobs }
    }

    /// The container underneath: directory, files, checksums.
    pub fn container(&self) -> &ArchiveReader {
        &self.reader
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.reader.directory().tensors.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of all tensors, in archive order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.reader.directory().tensors.iter().map(|t| t.name.as_str())
    }

    /// What the directory says of every tensor, in archive order: names, types, shapes, lengths.
    pub fn entries(&self) -> &[TensorEntry] {
        &self.reader.directory().tensors
    }

    /// The first tensor of that name.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`]; [`Error::Corrupt`] or [`Error::Rans`] when its parameters are damaged.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        self.tensor_at(self.position(name)?)
    }

    /// Tensor number `index`, in archive order.
    ///
    /// # Errors
    /// As [`Archive::tensor`].
    pub fn tensor_at(&self, index: usize) -> Result<Tensor<'_>> {
        Tensor::new(Source::Lent(self), index)
    }

    /// The first tensor of that name, with a share in the archive: it goes wherever its owner goes, to other threads too.
    ///
    /// # Errors
    /// As [`Archive::tensor`].
    pub fn shared_tensor(self: &Arc<Self>, name: &str) -> Result<Tensor<'static>> {
        self.shared_tensor_at(self.position(name)?)
    }

    /// Tensor number `index`, in archive order, with a share in the archive.
    ///
    /// # Errors
    /// As [`Archive::tensor`].
    pub fn shared_tensor_at(self: &Arc<Self>, index: usize) -> Result<Tensor<'static>> {
        Tensor::new(Source::Shared(Arc::clone(self)), index)
    }

    /// The number of the first tensor of that name, in archive order.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`].
    pub fn position(&self, name: &str) -> Result<usize> {
        self.reader.find(name).ok_or_else(|| Error::NoSuchTensor(name.to_owned()))
    }

    fn decoder(&self, entry: &TensorEntry) -> Result<(Mode, Decoder)> {
        let directory = self.reader.directory();
        let offset = self.reader.trailer().directory.offset;
        let mode = Mode::from_code(entry.mode)
            .ok_or_else(|| Error::corrupt(&entry.name, offset, format!("unknown mode {}", entry.mode)))?;
        let index = self.reader.index_bytes(entry)?;
        let decoder = match mode {
            Mode::Lanes => Decoder::Lanes(Box::new(LanesDecoder::new(entry, index, &directory.pool, offset)?)),
            Mode::Zstd => Decoder::Frames(FrameDecoder::new(entry, index, offset)?),
            Mode::Plain => Decoder::Plain,
            Mode::Store => Decoder::Store,
            Mode::Integer => Decoder::Integer(Box::new(IntegerDecoder::new(entry, index, &directory.pool, offset)?)),
            Mode::Pooled => self.pooled(entry, offset)?,
        };
        if entry.chunks.is_empty() && entry.decoded_len > 0 && mode != Mode::Pooled {
            return Err(Error::corrupt(&entry.name, offset, "no chunks"));
        }
        // Buffers are sized by what the directory says; lanes and integer mode hold that against their own parameters.
        let possible = entry.chunks.iter().all(|chunk| match mode {
            Mode::Store => chunk.decoded_len == chunk.len,
            Mode::Plain => chunk.decoded_len <= small::MAX_BYTES as u64,
            Mode::Zstd => chunk.decoded_len <= wcodec_container::max_decoded_len(chunk.len),
            _ => true,
        });
        if !possible {
            return Err(Error::corrupt(&entry.name, offset, "chunk with an impossible decoded length"));
        }
        Ok((mode, decoder))
    }

    /// What the archive holds, and what each tensor takes: shared payloads counted once, pooled tensors by their share of the blob.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a tensor of an unknown mode.
    pub fn report(&self) -> Result<Report> {
        let directory = self.reader.directory();
        let offset = self.reader.trailer().directory.offset;
        let mut report = Report {
            files: directory.files.len(),
            decoded_bytes: directory.files.iter().map(|f| f.len).sum(),
            archive_bytes: self.reader.file_len(),
            ..Report::default()
        };
        let mut payloads = HashSet::new();
        // Of every blob: decoded bytes of all its tensors; then those already told, and their share.
        let mut blobs: HashMap<u64, [u64; 3]> = HashMap::new();
        let blob_of = |entry: &TensorEntry| PooledParams::parse(&entry.params, &entry.name, offset).map(|p| p.blob);
        for entry in directory.tensors.iter().filter(|t| t.mode == Mode::Pooled.code()) {
            let all = &mut blobs.entry(blob_of(entry)?).or_default()[0];
            *all = all.saturating_add(entry.decoded_len);
        }
        for entry in &directory.tensors {
            let mode = Mode::from_code(entry.mode)
                .ok_or_else(|| Error::corrupt(&entry.name, offset, format!("unknown mode {}", entry.mode)))?;
            let stored_bytes = if mode == Mode::Pooled {
                let id = blob_of(entry)?;
                let len = usize::try_from(id).ok().and_then(|i| directory.pool.get(i)).map_or(0, Vec::len);
                let [all, done, told] = blobs.entry(id).or_default();
                *done = done.saturating_add(entry.decoded_len);
                let share = (len as u128 * u128::from(*done) / u128::from((*all).max(1))) as u64;
                share - std::mem::replace(told, share)
            } else if entry.payload.len == 0 || payloads.insert(entry.payload.offset) {
                entry.payload.len + entry.index.len
            } else {
                0
            };
            report.tensors.push(TensorReport {
                name: entry.name.clone(),
                dtype: entry.dtype,
                shape: entry.shape.clone(),
                mode,
                decoded_bytes: entry.decoded_len,
                stored_bytes,
            });
        }
        Ok(report)
    }

    /// Where the bytes of a pooled tensor are. Its blob is decoded once and kept.
    fn pooled(&self, entry: &TensorEntry, offset: u64) -> Result<Decoder> {
        if !entry.chunks.is_empty() {
            return Err(Error::corrupt(&entry.name, offset, "pooled tensor with chunks"));
        }
        let params = PooledParams::parse(&entry.params, &entry.name, offset)?;
        let pool = &self.reader.directory().pool;
        let place = usize::try_from(params.blob).ok().filter(|&i| i < pool.len());
        let Some(place) = place else { return Err(Error::corrupt(&entry.name, offset, "no such blob in the pool")) };
        let blob = match self.blobs[place].get() {
            Some((dtype, blob)) if *dtype == entry.dtype => blob,
            Some(_) => return Err(Error::corrupt(&entry.name, offset, "pooled tensors of one blob differ in dtype")),
            None => {
                let blob = small::decode_blob(&entry.name, entry.dtype, &pool[place], offset)?;
                &self.blobs[place].get_or_init(|| (entry.dtype, blob)).1
            }
        };
        let bytes = params.range(blob, entry.decoded_len, &entry.name, offset)?;
        Ok(Decoder::Pooled { blob: place, bytes })
    }
}

/// A tensor of an archive, with its decoder prepared.
pub struct Tensor<'a> {
    archive: Source<'a>,
    /// In the directory.
    index: usize,
    mode: Mode,
    decoder: Decoder,
    extents: Vec<Extent>,
}

/// The archive that a tensor reads.
enum Source<'a> {
    Lent(&'a Archive),
    Shared(Arc<Archive>),
}

impl std::ops::Deref for Source<'_> {
    type Target = Archive;

    fn deref(&self) -> &Archive {
        match self {
            Self::Lent(archive) => archive,
            Self::Shared(archive) => archive,
        }
    }
}

pub(crate) enum Decoder {
    /// Of a blob in the pool, decoded and kept by the archive.
    Pooled {
        blob: usize,
        bytes: Range<usize>,
    },
    Integer(Box<IntegerDecoder>),
    Store,
    Plain,
    Frames(FrameDecoder),
    Lanes(Box<LanesDecoder>),
}

/// Buffers that a thread reuses from chunk to chunk, and from tensor to tensor.
#[derive(Default)]
pub struct Scratch {
    lanes: crate::lanes::Scratch,
    planes: Vec<u8>,
    integer: crate::integer::Scratch,
    chunk: Vec<u8>,
}

impl<'a> Tensor<'a> {
    fn new(archive: Source<'a>, index: usize) -> Result<Self> {
        let entry = archive.reader.directory().tensors.get(index);
        let entry = entry.ok_or_else(|| Error::NoSuchTensor(format!("number {index}")))?;
        let (mode, decoder) = archive.decoder(entry)?;
        let extents = entry.chunk_extents().collect();
        Ok(Self { archive, index, mode, decoder, extents })
    }

    fn reader(&self) -> &ArchiveReader {
        &self.archive.reader
    }

    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.entry().name
    }

    /// Element type.
    pub fn dtype(&self) -> DtypeCode {
        self.entry().dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[u64] {
        &self.entry().shape
    }

    /// The tool chain that coded it.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Decoded bytes.
    pub fn byte_len(&self) -> u64 {
        self.entry().decoded_len
    }

    /// Stored bytes: payload and index, without the directory entry.
    pub fn stored_len(&self) -> u64 {
        self.entry().payload.len + self.entry().index.len
    }

    /// The directory entry.
    pub fn entry(&self) -> &TensorEntry {
        &self.reader().directory().tensors[self.index]
    }

    /// How lanes mode codes the tensor; `None` in other modes.
    pub fn lanes(&self) -> Option<LanesSummary> {
        match &self.decoder {
            Decoder::Lanes(lanes) => Some(lanes.summary()),
            _ => None,
        }
    }

    /// Decodes the tensor.
    ///
    /// # Errors
    /// As [`Tensor::decode_into`].
    pub fn decode(&self) -> Result<Vec<u8>> {
        let len = self.checked_len()?;
        let mut out = Vec::new();
        // The length is the archive's word; ask for the memory, do not take it for granted.
        out.try_reserve_exact(len)
            .map_err(|_| Error::BadArgument(format!("tensor `{}`: no memory for {len} bytes", self.name())))?;
        out.resize(len, 0);
        self.decode_into(&mut out)?;
        Ok(out)
    }

    /// Decodes the tensor into `out`, in parallel in the current rayon pool. Every byte is checked against its CRC.
    ///
    /// # Errors
    /// [`Error::BadArgument`] unless `out` has [`Tensor::byte_len`] bytes; [`Error::Rans`], [`Error::Corrupt`] or
    /// [`Error::Checksum`] for damaged data, after which `out` holds anything.
    pub fn decode_into(&self, out: &mut [u8]) -> Result<()> {
        decode_many(std::slice::from_ref(self), &mut [out])
    }

    /// Byte offsets in the decoded tensor at which its chunks begin, and last its length: what [`Tensor::decode_range`] decodes
    /// between two of them it decodes straight into its target, and nothing else.
    pub fn boundaries(&self) -> Vec<u64> {
        let mut boundaries = vec![0];
        let mut end = 0;
        boundaries.extend(self.entry().chunks.iter().map(|chunk| {
            end += chunk.decoded_len;
            end
        }));
        if end < self.byte_len() {
            boundaries.push(self.byte_len());
        }
        boundaries
    }

    /// Decodes bytes `range` of the tensor on the calling thread, for engines that schedule decoding themselves. Chunks of which
    /// only a part is wanted (see [`Tensor::boundaries`]) are decoded whole, into `scratch`.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for a range that is not in the tensor, or unless `out` is as long; else as [`Tensor::decode_into`].
    pub fn decode_range(&self, range: Range<u64>, out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
        let len = self.checked_len()? as u64;
        if range.start > range.end || range.end > len || range.end - range.start != out.len() as u64 {
            let (name, given) = (self.name(), out.len());
            return Err(Error::BadArgument(format!(
                "tensor `{name}` has {len} bytes; bytes {range:?} do not go into a buffer of {given}"
            )));
        }
        if let Some(bytes) = self.pooled_bytes() {
            self.check_whole(crc32(bytes))?;
            out.copy_from_slice(&bytes[range.start as usize..range.end as usize]);
            return Ok(());
        }
        let mut start = 0;
        for chunk in 0..self.chunks() {
            let held = start..start + self.chunk_len(chunk);
            start = held.end;
            let wanted = held.start.max(range.start)..held.end.min(range.end);
            if wanted.start >= wanted.end {
                continue;
            }
            let part = &mut out[(wanted.start - range.start) as usize..(wanted.end - range.start) as usize];
            if wanted == held {
                self.decode_chunk(chunk, part, scratch)?;
            } else {
                let mut whole = std::mem::take(&mut scratch.chunk);
                whole.resize((held.end - held.start) as usize, 0);
                let decoded = self.decode_chunk(chunk, &mut whole, scratch);
                let from = (wanted.start - held.start) as usize;
                part.copy_from_slice(&whole[from..from + part.len()]);
                scratch.chunk = whole;
                decoded?;
            }
        }
        Ok(())
    }

    /// What decodes it.
    #[cfg(feature = "cuda")]
    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Its bytes as they are stored: chunks, and padding between them.
    #[cfg(feature = "cuda")]
    pub(crate) fn payload(&self) -> Result<&[u8]> {
        Ok(self.reader().bytes(self.entry().payload)?)
    }

    /// What tensors of the archive share.
    #[cfg(feature = "cuda")]
    pub(crate) fn pool(&self) -> &[Vec<u8>] {
        &self.reader().directory().pool
    }

    /// Where the directory stands in the archive, for errors in it.
    #[cfg(feature = "cuda")]
    pub(crate) fn directory_offset(&self) -> u64 {
        self.reader().trailer().directory.offset
    }

    /// Number of chunks.
    pub(crate) fn chunks(&self) -> usize {
        self.entry().chunks.len()
    }

    /// Decoded bytes of chunk `chunk`.
    pub(crate) fn chunk_len(&self, chunk: usize) -> u64 {
        self.entry().chunks[chunk].decoded_len
    }

    /// Decodes one chunk and checks its CRC.
    pub(crate) fn decode_chunk(&self, chunk: usize, out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
        let extent = self.extents[chunk];
        let bytes = self.reader().bytes(extent)?;
        match &self.decoder {
            Decoder::Lanes(lanes) => lanes.decode_chunk(chunk, bytes, extent.offset, out, &mut scratch.lanes)?,
            Decoder::Frames(frames) => frames.decode_chunk(chunk, bytes, extent.offset, out, &mut scratch.planes)?,
            Decoder::Integer(integer) => {
                integer.decode_chunk(chunk, bytes, extent.offset, out, &mut scratch.integer)?
            }
            Decoder::Plain => small::decode(self.name(), self.dtype(), bytes, extent.offset, out)?,
            Decoder::Store if bytes.len() == out.len() => out.copy_from_slice(bytes),
            Decoder::Store | Decoder::Pooled { .. } => {
                return Err(Error::corrupt(self.name(), extent.offset, "stored chunk of another length"));
            }
        }
        let (expected, found) = (self.entry().chunks[chunk].crc32_decoded, crc32(out));
        if expected != found {
            return Err(Error::Checksum { what: format!("tensor `{}`, chunk {chunk}", self.name()), expected, found });
        }
        Ok(())
    }

    /// Compares the checksums of the stored bytes; decodes nothing. What passes is what the encoder wrote, accidents considered.
    ///
    /// # Errors
    /// [`Error::Container`], naming the tensor; [`Error::Checksum`].
    pub fn verify_stored(&self) -> Result<()> {
        match self.pooled_bytes() {
            Some(bytes) => self.check_whole(crc32(bytes)),
            None => Ok(self.reader().verify_stored(self.entry())?),
        }
    }

    /// Checks the stored bytes' CRC and that everything decodes to its recorded CRC.
    ///
    /// # Errors
    /// As [`Tensor::decode_into`], and [`Error::Container`] for a checksum of stored bytes.
    pub fn verify(&self) -> Result<()> {
        if let Some(bytes) = self.pooled_bytes() {
            return self.check_whole(crc32(bytes));
        }
        self.reader().verify_stored(self.entry())?;
        (0..self.chunks()).into_par_iter().try_for_each_init(
            || (Scratch::default(), Vec::new()),
            |(scratch, buffer), chunk| {
                buffer.resize(self.chunk_len(chunk) as usize, 0);
                self.decode_chunk(chunk, buffer, scratch)
            },
        )?;
        self.check_chunks()
    }

    /// Checks that the recorded CRCs of the chunks make up that of the tensor.
    pub(crate) fn check_chunks(&self) -> Result<()> {
        if self.pooled_bytes().is_some() {
            return Ok(());
        }
        let mut whole = wcodec_container::Crc32::new();
        self.entry().chunks.iter().for_each(|chunk| whole.combine(chunk.crc32_decoded, chunk.decoded_len));
        self.check_whole(whole.value())
    }

    fn check_whole(&self, found: u32) -> Result<()> {
        let expected = self.entry().crc32_decoded;
        if found == expected {
            Ok(())
        } else {
            Err(Error::Checksum { what: format!("tensor `{}`", self.name()), expected, found })
        }
    }

    /// The bytes of a pooled tensor, which needs no decoding.
    pub(crate) fn pooled_bytes(&self) -> Option<&[u8]> {
        let Decoder::Pooled { blob, bytes } = &self.decoder else { return None };
        let (_, blob) = self.archive.blobs[*blob].get().expect("decoded when the tensor was prepared");
        Some(&blob[bytes.clone()])
    }

    /// A coarser tensor from the first `planes` bitplanes of every superblock, and a bound on the error of its samples (read as the
    /// tensor's 8-bit integers, modulo 256). For tensors in integer mode, best encoded with [`crate::EncodeOptions::progressive`].
    ///
    /// # Errors
    /// [`Error::BadArgument`] for another mode; else as [`Tensor::decode_into`], without the check of the decoded bytes' CRC.
    pub fn decode_planes(&self, planes: u32) -> Result<(Vec<u8>, u8)> {
        let Decoder::Integer(integer) = &self.decoder else {
            return Err(Error::BadArgument(format!("tensor `{}` is in {} mode, not integer", self.name(), self.mode)));
        };
        let mut out = vec![0; self.checked_len()?];
        let (mut rest, mut bound, mut scratch) = (out.as_mut_slice(), 0, Scratch::default());
        for (chunk, extent) in self.extents.iter().enumerate() {
            let (part, tail) = rest.split_at_mut(self.chunk_len(chunk) as usize);
            let bytes = self.reader().bytes(*extent)?;
            bound = bound.max(integer.decode_progressive(
                chunk,
                bytes,
                extent.offset,
                planes,
                part,
                &mut scratch.integer,
            )?);
            rest = tail;
        }
        Ok((out, bound))
    }

    /// Rows of the tensor as a matrix: its first dimension (1 for a scalar).
    pub fn row_count(&self) -> u64 {
        self.entry().shape.first().copied().unwrap_or(1)
    }

    /// Columns of the tensor as a matrix: the product of the other dimensions.
    pub fn col_count(&self) -> u64 {
        // Saturates where another dimension is 0: the directory bounds the product of all, not of some.
        self.entry().shape.iter().skip(1).fold(1, |product, &dim| product.saturating_mul(dim))
    }

    /// Rows `rows` of the tensor, decoding only the superblocks (or frames) that hold them.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for rows that are not there or a dtype whose rows are no whole bytes; else as
    /// [`Tensor::decode_into`].
    pub fn rows(&self, rows: Range<u64>) -> Result<Vec<u8>> {
        self.rect(rows, 0..self.col_count())
    }

    /// The rectangle `rows` × `cols` of the tensor as a matrix (first dimension × the others), row by row.
    ///
    /// Chunks of which only a part is decoded are checked by the CRC of their stored bytes.
    ///
    /// # Errors
    /// As [`Tensor::rows`].
    pub fn rect(&self, rows: Range<u64>, cols: Range<u64>) -> Result<Vec<u8>> {
        let mut out = vec![0; self.rect_len(&rows, &cols)?];
        self.rect_into(rows, cols, &mut out, &mut Scratch::default())?;
        Ok(out)
    }

    /// As [`Tensor::rect`], into `out`, on the calling thread.
    ///
    /// # Errors
    /// As [`Tensor::rows`]; [`Error::BadArgument`] unless `out` is as large as the rectangle.
    pub fn rect_into(&self, rows: Range<u64>, cols: Range<u64>, out: &mut [u8], scratch: &mut Scratch) -> Result<()> {
        let len = self.rect_len(&rows, &cols)?;
        if out.len() != len {
            let (name, given) = (self.name(), out.len());
            return Err(Error::BadArgument(format!("tensor `{name}`: rectangle of {len} bytes, buffer of {given}")));
        }
        if out.is_empty() {
            return Ok(());
        }
        let col_count = self.col_count();
        let element = out.len() / ((rows.end - rows.start) * (cols.end - cols.start)) as usize;
        let [rows, cols] = [rows, cols].map(|r| r.start as usize..r.end as usize);
        let row_bytes = col_count as usize * element;
        if let Some(bytes) = self.pooled_bytes() {
            copy_rows(bytes, 0..bytes.len(), row_bytes, &rows, cols.start * element..cols.end * element, out);
            return Ok(());
        }
        let mut start = 0usize;
        for chunk in 0..self.chunks() {
            let bytes = start..start + self.chunk_len(chunk) as usize;
            start = bytes.end;
            if bytes.end <= rows.start * row_bytes || bytes.start >= rows.end * row_bytes {
                continue;
            }
            match &self.decoder {
                Decoder::Lanes(lanes) if lanes.params.geometry.cols == col_count as usize => {
                    let held = lanes.params.geometry.chunk_rows(chunk);
                    let wanted = held.start.max(rows.start)..held.end.min(rows.end);
                    let stride = cols.len() * element;
                    let to = (wanted.start - rows.start) * stride..(wanted.end - rows.start) * stride;
                    let stored = self.checked_chunk(chunk)?;
                    let (offset, part) = (self.extents[chunk].offset, [wanted, cols.clone()]);
                    lanes.decode_rect(chunk, stored, offset, part, &mut out[to], &mut scratch.lanes)?;
                }
                Decoder::Integer(integer) if integer.params.geometry.cols == col_count as usize => {
                    let held = integer.params.geometry.chunk_rows(chunk);
                    let wanted = held.start.max(rows.start)..held.end.min(rows.end);
                    let stride = cols.len() * element;
                    let to = (wanted.start - rows.start) * stride..(wanted.end - rows.start) * stride;
                    let offset = self.extents[chunk].offset;
                    let (stored, part) = (self.checked_chunk(chunk)?, [wanted, cols.clone()]);
                    integer.decode_rect(chunk, stored, offset, part, &mut out[to], &mut scratch.integer)?;
                }
                _ => {
                    let mut whole = std::mem::take(&mut scratch.chunk);
                    whole.resize(bytes.len(), 0);
                    let decoded = self.decode_chunk(chunk, &mut whole, scratch);
                    copy_rows(&whole, bytes, row_bytes, &rows, cols.start * element..cols.end * element, out);
                    scratch.chunk = whole;
                    decoded?;
                }
            }
        }
        Ok(())
    }

    /// Bytes of a rectangle, after checking that it is there.
    fn rect_len(&self, rows: &Range<u64>, cols: &Range<u64>) -> Result<usize> {
        let (row_count, col_count) = (self.row_count(), self.col_count());
        if rows.start > rows.end || rows.end > row_count || cols.start > cols.end || cols.end > col_count {
            return Err(Error::BadArgument(format!(
                "tensor `{}` is {row_count} × {col_count}; there is no rectangle {rows:?} × {cols:?}",
                self.name()
            )));
        }
        let Some(element) = self.dtype().bits().filter(|b| b % 8 == 0).map(|b| (b / 8) as usize) else {
            return Err(Error::BadArgument(format!("tensor `{}`: elements are no whole bytes", self.name())));
        };
        self.checked_len()?;
        Ok((rows.end - rows.start) as usize * (cols.end - cols.start) as usize * element)
    }

    /// The stored bytes of a chunk of which a part is to be decoded, checked by their CRC.
    fn checked_chunk(&self, chunk: usize) -> Result<&[u8]> {
        let what = || format!("tensor `{}`, chunk {chunk}", self.name());
        Ok(self.reader().verified_bytes(self.extents[chunk], self.entry().chunks[chunk].crc32_compressed, what)?)
    }

    fn checked_len(&self) -> Result<usize> {
        usize::try_from(self.entry().decoded_len)
            .map_err(|_| Error::BadArgument(format!("tensor `{}` is larger than memory can be", self.name())))
    }
}

/// Decodes many tensors, each into a buffer of its length, in parallel over all their chunks in the current rayon pool. Checks as
/// [`Tensor::decode_into`].
///
/// ```no_run
/// # fn main() -> wcodec::Result<()> {
/// let archive = wcodec::Archive::open("model.wcodec")?;
/// let tensors = (0..archive.len()).map(|i| archive.tensor_at(i)).collect::<wcodec::Result<Vec<_>>>()?;
/// let mut buffers: Vec<Vec<u8>> = tensors.iter().map(|t| vec![0; t.byte_len() as usize]).collect();
/// wcodec::decode_many(&tensors, &mut buffers.iter_mut().map(|b| b.as_mut_slice()).collect::<Vec<_>>())?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::BadArgument`] when there are not as many buffers as tensors or one has another length; else the first fault found.
pub fn decode_many(tensors: &[Tensor<'_>], outs: &mut [&mut [u8]]) -> Result<()> {
    if tensors.len() != outs.len() {
        return Err(Error::BadArgument(format!("{} tensors, {} buffers", tensors.len(), outs.len())));
    }
    let mut jobs = Vec::new();
    for (tensor, out) in tensors.iter().zip(outs) {
        if out.len() as u64 != tensor.byte_len() {
            let (name, len) = (tensor.name(), tensor.byte_len());
            return Err(Error::BadArgument(format!("tensor `{name}` has {len} bytes, the buffer {}", out.len())));
        }
        if let Some(bytes) = tensor.pooled_bytes() {
            out.copy_from_slice(bytes);
            tensor.check_whole(crc32(out))?;
            continue;
        }
        let mut rest: &mut [u8] = out;
        for chunk in 0..tensor.chunks() {
            let (part, tail) = rest.split_at_mut(tensor.chunk_len(chunk) as usize);
            jobs.push((tensor, chunk, part));
            rest = tail;
        }
    }
    jobs.into_par_iter()
        .try_for_each_init(Scratch::default, |scratch, (tensor, chunk, part)| tensor.decode_chunk(chunk, part, scratch))
}

/// Copies what `part` (bytes `at` of a matrix with `row_bytes` per row) holds of `rows` × `within` (bytes of a row) into the dense `out`.
fn copy_rows(
    part: &[u8],
    at: Range<usize>,
    row_bytes: usize,
    rows: &Range<usize>,
    within: Range<usize>,
    out: &mut [u8],
) {
    let first = rows.start.max(at.start / row_bytes);
    let last = rows.end.min(at.end.div_ceil(row_bytes));
    for row in first..last {
        let wanted = row * row_bytes + within.start..row * row_bytes + within.end;
        let held = wanted.start.max(at.start)..wanted.end.min(at.end);
        if held.start < held.end {
            let to = (row - rows.start) * within.len() + (held.start - wanted.start);
            out[to..to + held.len()].copy_from_slice(&part[held.start - at.start..held.end - at.start]);
        }
    }
}
