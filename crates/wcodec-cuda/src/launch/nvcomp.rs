//! Calls to nvCOMP: the functions of `nvcomp/zstd.h`, version 6.

use std::ffi::c_void;
use std::path::{Path, PathBuf};

use libloading::Library;

use super::framed::{Cut, Lists};
use super::memory::{DeviceBuffer, DeviceSlice, DeviceSliceMut};
use super::{same_device, stream::Stream};
use crate::CudaError;
use crate::nvcomp::{NvcompError, NvcompVersion};

/// `nvcompBatchedZstdCompressOpts_t` and `nvcompBatchedZstdDecompressOpts_t`: 64 bytes each; zeros are the defaults of both.
#[repr(C)]
#[derive(Clone, Copy)]
struct Options([u32; 16]);

const DEFAULT: Options = Options([0; 16]);

/// `nvcompProperties_t`.
#[repr(C)]
#[derive(Default)]
struct Properties {
    version: u32,
    runtime: u32,
}

/// `nvcompAlignmentRequirements_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Alignments {
    pub(crate) input: usize,
    pub(crate) output: usize,
    pub(crate) temp: usize,
}

type Status = i32;
type GetProperties = unsafe extern "C" fn(*mut Properties) -> Status;
type GetAlignments = unsafe extern "C" fn(Options, *mut Alignments) -> Status;
type GetTempSize = unsafe extern "C" fn(usize, usize, Options, *mut usize, usize, *mut c_void) -> Status;
type GetMaxOutput = unsafe extern "C" fn(usize, Options, *mut usize) -> Status;
type Decompress = unsafe extern "C" fn(u64, u64, u64, u64, usize, u64, usize, u64, Options, u64, *mut c_void) -> Status;
type Compress = unsafe extern "C" fn(u64, u64, usize, usize, u64, usize, u64, u64, Options, u64, *mut c_void) -> Status;

/// An opened library of a version that has these functions.
pub(crate) struct Api {
    path: PathBuf,
    version: NvcompVersion,
    decompress_temp: GetTempSize,
    decompress: Decompress,
    compress_temp: GetTempSize,
    max_output: GetMaxOutput,
    compress: Compress,
    decompress_alignments: Alignments,
    compress_alignments: Alignments,
    /// Keeps the functions' code in memory.
    _library: Library,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nvcomp").field("path", &self.path).field("version", &self.version).finish()
    }
}

/// nvCOMP's "batch" in one call: frames of the lists' first `count` places.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) count: usize,
    /// Bytes of the largest piece.
    pub(crate) largest: usize,
    /// Bytes of all pieces.
    pub(crate) total: usize,
}

impl Batch {
    pub(crate) fn add(&mut self, cut: Cut) {
        self.count += cut.pieces();
        self.largest = self.largest.max(cut.frame.min(cut.bytes));
        self.total += cut.bytes;
    }
}

impl Api {
    /// Opens a library by its path or, for a bare name, as the loader finds it. Runs the library's initialisers.
    pub(crate) fn open(path: &Path) -> Result<Self, NvcompError> {
        let missing = |reason: String| NvcompError::Missing { tried: vec![format!("{}: {reason}", path.display())] };
        // SAFETY: the caller names a library, or it is called as nvCOMP is. Its initialisers are the vendor's.
        let library = unsafe { Library::new(path) }.map_err(|error| missing(error.to_string()))?;
        // SAFETY: the types are those that nvcomp/zstd.h of version 6 declares: addresses as 64-bit numbers, `size_t` as `usize`,
        // options by value. `version` is checked before any but the first, which all versions have, is called.
        let (properties, api) = unsafe {
            let properties: GetProperties = symbol(&library, path, "nvcompGetProperties")?;
            let mut found = Properties::default();
            status("nvcompGetProperties", properties(&mut found))?;
            (found, |name| symbol::<*mut c_void>(&library, path, name))
        };
        let version = NvcompVersion(properties.version);
        if version.major() != SUPPORTED_MAJOR {
            return Err(NvcompError::Version { path: path.to_owned(), found: version });
        }
        // Named before the rest is looked up, so that a missing one is told by its name.
        api("nvcompBatchedZstdDecompressAsync")?;
        // SAFETY: as above.
        unsafe {
            let of_decompress: GetAlignments =
                symbol(&library, path, "nvcompBatchedZstdDecompressGetRequiredAlignments")?;
            let of_compress: GetAlignments = symbol(&library, path, "nvcompBatchedZstdCompressGetRequiredAlignments")?;
            let (mut decompress_alignments, mut compress_alignments) = (Alignments::default(), Alignments::default());
            status(
                "nvcompBatchedZstdDecompressGetRequiredAlignments",
                of_decompress(DEFAULT, &mut decompress_alignments),
            )?;
            status("nvcompBatchedZstdCompressGetRequiredAlignments", of_compress(DEFAULT, &mut compress_alignments))?;
            Ok(Self {
                path: path.to_owned(),
                version,
                decompress_temp: symbol(&library, path, "nvcompBatchedZstdDecompressGetTempSize")?,
                decompress: symbol(&library, path, "nvcompBatchedZstdDecompressAsync")?,
                compress_temp: symbol(&library, path, "nvcompBatchedZstdCompressGetTempSize")?,
                max_output: symbol(&library, path, "nvcompBatchedZstdCompressGetMaxOutputChunkSize")?,
                compress: symbol(&library, path, "nvcompBatchedZstdCompressAsync")?,
                decompress_alignments,
                compress_alignments,
                _library: library,
            })
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn version(&self) -> NvcompVersion {
        self.version
    }

    pub(crate) fn decompress_alignments(&self) -> Alignments {
        self.decompress_alignments
    }

    /// Bytes of temporary memory that decoding a batch takes.
    pub(crate) fn decompress_temp(&self, stream: &Stream, batch: Batch) -> Result<usize, CudaError> {
        self.temp(self.decompress_temp, "nvcompBatchedZstdDecompressGetTempSize", stream, batch)
    }

    /// Bytes of temporary memory that encoding a batch takes.
    pub(crate) fn compress_temp(&self, stream: &Stream, batch: Batch) -> Result<usize, CudaError> {
        self.temp(self.compress_temp, "nvcompBatchedZstdCompressGetTempSize", stream, batch)
    }

    fn temp(
        &self,
        function: GetTempSize,
        call: &'static str,
        stream: &Stream,
        batch: Batch,
    ) -> Result<usize, CudaError> {
        let _current = stream.context().enter()?;
        let mut bytes = 0;
        // SAFETY: writes one number.
        let code = unsafe { function(batch.count, batch.largest, DEFAULT, &mut bytes, batch.total, stream.as_raw()) };
        status(call, code)?;
        Ok(bytes)
    }

    /// The most bytes that a piece of `largest` bytes can become.
    pub(crate) fn max_output(&self, largest: usize) -> Result<usize, CudaError> {
        let mut bytes = 0;
        // SAFETY: writes one number.
        let code = unsafe { (self.max_output)(largest, DEFAULT, &mut bytes) };
        status("nvcompBatchedZstdCompressGetMaxOutputChunkSize", code)?;
        Ok(bytes)
    }

    /// Queues decoding the frames in `lists`.
    ///
    /// # Safety
    /// Frames are valid: nvCOMP does not check them. What the lists name stays allocated until the stream has done this work; `temp` is as
    /// long as [`Api::decompress_temp`] says of this batch; pieces written do not overlap.
    unsafe fn decompress(
        &self,
        stream: &Stream,
        lists: &Lists,
        batch: Batch,
        temp: &DeviceBuffer,
    ) -> Result<(), CudaError> {
        same_device(stream, "temporary memory", temp.context())?;
        let _current = stream.context().enter()?;
        // SAFETY: the arrays have room for `count`; the caller vouches for what they name.
        let code = unsafe {
            (self.decompress)(
                lists.sources(),
                lists.source_bytes(),
                lists.target_room(),
                lists.written(),
                batch.count,
                temp.address(),
                temp.len(),
                lists.targets(),
                DEFAULT,
                lists.statuses(),
                stream.as_raw(),
            )
        };
        status("nvcompBatchedZstdDecompressAsync", code)?;
        Ok(())
    }

    /// Queues encoding the pieces in `lists`.
    ///
    /// # Safety
    /// What the lists name stays allocated until the stream has done this work, with [`Api::max_output`] bytes for each frame; `temp` is as
    /// long as [`Api::compress_temp`] says of this batch.
    unsafe fn compress(
        &self,
        stream: &Stream,
        lists: &Lists,
        batch: Batch,
        temp: &DeviceBuffer,
    ) -> Result<(), CudaError> {
        same_device(stream, "temporary memory", temp.context())?;
        let _current = stream.context().enter()?;
        // SAFETY: the arrays have room for `count`; the caller vouches for what they name.
        let code = unsafe {
            (self.compress)(
                lists.sources(),
                lists.source_bytes(),
                batch.largest,
                batch.count,
                temp.address(),
                temp.len(),
                lists.targets(),
                lists.written(),
                DEFAULT,
                lists.statuses(),
                stream.as_raw(),
            )
        };
        status("nvcompBatchedZstdCompressAsync", code)?;
        Ok(())
    }
}

/// The major version whose functions these are.
pub(crate) const SUPPORTED_MAJOR: u32 = 6;

/// # Safety
/// The library's symbol `name` is of type `T`.
unsafe fn symbol<T: Copy>(library: &Library, path: &Path, name: &'static str) -> Result<T, NvcompError> {
    // SAFETY: the caller's contract.
    unsafe { library.get::<T>(name.as_bytes()) }
        .map(|symbol| *symbol)
        .map_err(|_| NvcompError::Symbol { path: path.to_owned(), name })
}

fn status(call: &'static str, code: Status) -> Result<(), NvcompError> {
    if code == 0 { Ok(()) } else { Err(NvcompError::Call { call, status: code }) }
}

/// Frames of one tensor that go into a batch.
pub(crate) struct FramePart<'a> {
    /// Addresses of the tensor's frames, then their lengths, `frames` of each. What they name belongs to whoever holds the table.
    pub(crate) table: DeviceSlice<'a>,
    pub(crate) frames: usize,
    /// The first frame of the part.
    pub(crate) first: usize,
    /// Where its pieces go.
    pub(crate) cut: Cut,
    pub(crate) to: DeviceSliceMut<'a>,
    /// A word for the lowest frame that failed.
    pub(crate) failed: DeviceSlice<'a>,
}

/// Queues decoding frames, and noting those that fail. `lists` have room for all, `temp` is as long as [`Api::decompress_temp`] says.
///
/// Frames are checked ones ([`crate::PreparedFrames`]); nothing more can be asked of this side.
pub(crate) fn decode_frames(
    stream: &Stream,
    api: &Api,
    lists: &mut Lists,
    temp: &DeviceBuffer,
    parts: Vec<FramePart<'_>>,
) -> Result<(), CudaError> {
    let mut batch = Batch::default();
    let mut noted = Vec::with_capacity(parts.len());
    let output = api.decompress_alignments.output.max(1);
    for part in parts {
        let cut = part.cut;
        // One piece may have any stride.
        if !part.to.address().is_multiple_of(output as u64) || (cut.pieces() > 1 && !cut.stride.is_multiple_of(output))
        {
            let (what, value, multiple) = ("the address of a piece", part.to.address(), output as u64);
            return Err(CudaError::Misaligned { what, value, multiple });
        }
        lists.add_frames(stream, batch.count, (part.table, part.frames), part.first, cut, part.to)?;
        noted.push((batch.count, part.first, cut.pieces(), part.failed));
        batch.add(cut);
    }
    if batch.count == 0 {
        return Ok(());
    }
    let needed = api.decompress_temp(stream, batch)?;
    if temp.len() < needed {
        return Err(CudaError::OutOfRange { offset: 0, bytes: needed, size: temp.len() });
    }
    // SAFETY: the lists name frames of tables and pieces inside slices, which their owners keep (or free through cuMemFree, which waits);
    // slices to write do not overlap, being borrowed mutably. The frames were checked as far as this side can.
    unsafe { api.decompress(stream, lists, batch, temp) }?;
    for (at, first, count, failed) in noted {
        lists.check_frames(stream, at, first, count, failed)?;
    }
    Ok(())
}

/// Queues encoding the pieces in `from`, each into `room` bytes of `to`, at least as many as [`Api::max_output`] says. The lists then hold
/// lengths and statuses.
pub(crate) fn encode_pieces(
    stream: &Stream,
    api: &Api,
    lists: &mut Lists,
    temp: &DeviceBuffer,
    (cut, from): (Cut, DeviceSlice<'_>),
    (to, room): (DeviceSliceMut<'_>, usize),
) -> Result<(), CudaError> {
    let align = api.compress_alignments;
    for (what, value, multiple) in [
        ("the address of the pieces", from.address(), align.input),
        ("the distance of pieces", cut.stride as u64, align.input),
        ("the address of the frames", to.address(), align.output),
        ("the distance of frames", room as u64, align.output),
    ] {
        let multiple = multiple.max(1) as u64;
        if !value.is_multiple_of(multiple) {
            return Err(CudaError::Misaligned { what, value, multiple });
        }
    }
    let mut batch = Batch::default();
    batch.add(cut);
    for (bytes, size) in [(api.max_output(batch.largest)?, room), (api.compress_temp(stream, batch)?, temp.len())] {
        if bytes > size {
            return Err(CudaError::OutOfRange { offset: 0, bytes, size });
        }
    }
    lists.set_pieces(stream, cut, from, to, room)?;
    // SAFETY: the lists name pieces of `from` and parts of `to`, which their owners keep; there is room for every frame.
    unsafe { api.compress(stream, lists, batch, temp) }
}
