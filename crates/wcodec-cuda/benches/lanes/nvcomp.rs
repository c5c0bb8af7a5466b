//! nvCOMP's ANS codec in its half-float mode, through the C interface of nvCOMP 6 (`nvcomp/ans.h`), from a library that is found at
//! run time: `WCODEC_NVCOMP=/path/to/libnvcomp.so.6`.
#![expect(unsafe_code, reason = "calls a C library; every call's SAFETY line names what makes it sound")]

use std::error::Error;
use std::ffi::{c_int, c_void};

use libloading::{Library, Symbol};
use wcodec_cuda::{DeviceBuffer, Stream};

use crate::timing::Clock;

/// `nvcompBatchedANSCompressOpts_t`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct CompressOptions {
    algorithm: c_int,
    data_type: c_int,
    max_sub_chunk_count: u8,
    states_per_lane: u8,
    histogram_reduction_log2: u8,
    reserved: [u8; 53],
}

/// `nvcompBatchedANSDecompressOpts_t`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct DecompressOptions {
    backend: c_int,
    data_type: c_int,
    max_sub_chunk_count: u8,
    states_per_lane: u8,
    skip_validate: u8,
    reserved: [u8; 53],
}

const RANS: c_int = 0;
const BACKEND_DEFAULT: c_int = 0;
/// `NVCOMP_TYPE_FLOAT16`, "applicable to all half-precision data formats".
const FLOAT16: c_int = 10;

type CompressTempSize = unsafe extern "C" fn(usize, usize, CompressOptions, *mut usize, usize, *mut c_void) -> c_int;
type MaxOutputSize = unsafe extern "C" fn(usize, CompressOptions, *mut usize) -> c_int;
type Compress = unsafe extern "C" fn(
    *const *const c_void,
    *const usize,
    usize,
    usize,
    *mut c_void,
    usize,
    *const *mut c_void,
    *mut usize,
    CompressOptions,
    *mut c_int,
    *mut c_void,
) -> c_int;
type DecompressTempSize =
    unsafe extern "C" fn(usize, usize, DecompressOptions, *mut usize, usize, *mut c_void) -> c_int;
type Decompress = unsafe extern "C" fn(
    *const *const c_void,
    *const usize,
    *const usize,
    *mut usize,
    usize,
    *mut c_void,
    usize,
    *const *mut c_void,
    DecompressOptions,
    *mut c_int,
    *mut c_void,
) -> c_int;

/// The library.
pub(crate) struct Nvcomp(Library);

/// One measurement.
pub(crate) struct Measured {
    pub(crate) chunk_bytes: usize,
    pub(crate) states_per_lane: u8,
    /// Bytes of all compressed chunks; their lengths would have to be stored, too.
    pub(crate) compressed: usize,
    pub(crate) ms: f32,
}

impl Nvcomp {
    /// The library that `WCODEC_NVCOMP` names, if it does.
    pub(crate) fn from_env() -> Result<Option<Self>, Box<dyn Error>> {
        let Some(path) = std::env::var_os("WCODEC_NVCOMP") else { return Ok(None) };
        // SAFETY: whoever sets the variable names a library whose initialisers may run here.
        Ok(Some(Self(unsafe { Library::new(path) }?)))
    }

    /// # Safety
    /// `T` is the function's type.
    unsafe fn function<T>(&self, name: &str) -> Result<Symbol<'_, T>, Box<dyn Error>> {
        // SAFETY: the caller's contract.
        Ok(unsafe { self.0.get(name) }?)
    }

    /// Compresses device memory in chunks, times decompression, and compares its result with `original`.
    pub(crate) fn measure(
        &self,
        stream: &Stream,
        clock: &mut Clock<'_>,
        original: &[u8],
        chunk_bytes: usize,
        states_per_lane: u8,
    ) -> Result<Measured, Box<dyn Error>> {
        let _current = stream.context().enter()?;
        let compressing = CompressOptions {
            algorithm: RANS,
            data_type: FLOAT16,
            max_sub_chunk_count: 0,
            states_per_lane,
            histogram_reduction_log2: 0,
            reserved: [0; 53],
        };
        // Naming what the stream says anyway lets a more specialised kernel run.
        let decompressing = DecompressOptions {
            backend: BACKEND_DEFAULT,
            data_type: FLOAT16,
            max_sub_chunk_count: 0,
            states_per_lane,
            skip_validate: 0,
            reserved: [0; 53],
        };
        let total = original.len();
        let chunks = total.div_ceil(chunk_bytes);
        let raw_stream = stream.as_raw();

        let mut stride = 0;
        // SAFETY: the type is that of the header; writes one number.
        check("max output size", unsafe {
            self.function::<MaxOutputSize>("nvcompBatchedANSCompressGetMaxOutputChunkSize")?(
                chunk_bytes,
                compressing,
                &mut stride,
            )
        })?;
        let stride = stride.next_multiple_of(256);
        let plain = DeviceBuffer::from_host(stream, original)?;
        let packed = DeviceBuffer::zeroed(stream, stride * chunks)?;
        let back = DeviceBuffer::zeroed(stream, total)?;
        let numbers =
            |at: &dyn Fn(usize) -> u64| -> Vec<u8> { (0..chunks).flat_map(|i| at(i).to_ne_bytes()).collect() };
        let upload = |at: &dyn Fn(usize) -> u64| DeviceBuffer::from_host(stream, &numbers(at));
        let plain_at = upload(&|i| plain.address() + (i * chunk_bytes) as u64)?;
        let packed_at = upload(&|i| packed.address() + (i * stride) as u64)?;
        let back_at = upload(&|i| back.address() + (i * chunk_bytes) as u64)?;
        let plain_bytes = upload(&|i| chunk_bytes.min(total - i * chunk_bytes) as u64)?;
        let packed_bytes = upload(&|_| 0)?;
        let back_bytes = upload(&|_| 0)?;
        let statuses = DeviceBuffer::zeroed(stream, 4 * chunks)?;

        let mut bytes = 0;
        // SAFETY: as above.
        check("temporary size", unsafe {
            self.function::<CompressTempSize>("nvcompBatchedANSCompressGetTempSize")?(
                chunks,
                chunk_bytes,
                compressing,
                &mut bytes,
                total,
                raw_stream,
            )
        })?;
        let scratch = DeviceBuffer::zeroed(stream, bytes.max(8))?;
        // SAFETY: arrays of `chunks` addresses and lengths; every output has the room that the library asked for; all
        // buffers live until the stream has been waited for below.
        check("compression", unsafe {
            self.function::<Compress>("nvcompBatchedANSCompressAsync")?(
                pointer(&plain_at).cast(),
                pointer(&plain_bytes).cast(),
                chunk_bytes,
                chunks,
                pointer(&scratch),
                scratch.len(),
                pointer(&packed_at).cast(),
                pointer(&packed_bytes).cast(),
                compressing,
                pointer(&statuses).cast(),
                raw_stream,
            )
        })?;
        stream.synchronize()?;
        let mut lengths = vec![0; 8 * chunks];
        packed_bytes.copy_to_host(stream, 0, &mut lengths)?;
        let compressed = lengths.chunks_exact(8).map(|n| usize::from_ne_bytes(n.try_into().expect("8 bytes"))).sum();

        // SAFETY: as above.
        check("temporary size", unsafe {
            self.function::<DecompressTempSize>("nvcompBatchedANSDecompressGetTempSize")?(
                chunks,
                chunk_bytes,
                decompressing,
                &mut bytes,
                total,
                raw_stream,
            )
        })?;
        let scratch = DeviceBuffer::zeroed(stream, bytes.max(8))?;
        // SAFETY: the type is that of the header.
        let decompress = unsafe { self.function::<Decompress>("nvcompBatchedANSDecompressAsync") }?;
        let mut code = 0;
        let ms = clock.median(|_| {
            // SAFETY: as for compression.
            let result = unsafe {
                decompress(
                    pointer(&packed_at).cast(),
                    pointer(&packed_bytes).cast(),
                    pointer(&plain_bytes).cast(),
                    pointer(&back_bytes).cast(),
                    chunks,
                    pointer(&scratch),
                    scratch.len(),
                    pointer(&back_at).cast(),
                    decompressing,
                    pointer(&statuses).cast(),
                    raw_stream,
                )
            };
            code = if code == 0 { result } else { code };
            Ok(())
        })?;
        check("decompression", code)?;
        let mut result = vec![0; total];
        back.copy_to_host(stream, 0, &mut result)?;
        if result != original {
            return Err("nvCOMP did not restore the data".into());
        }
        Ok(Measured { chunk_bytes, states_per_lane, compressed, ms })
    }
}

fn pointer(buffer: &DeviceBuffer) -> *mut c_void {
    std::ptr::without_provenance_mut(buffer.address() as usize)
}

fn check(what: &str, code: c_int) -> Result<(), Box<dyn Error>> {
    if code == 0 { Ok(()) } else { Err(format!("nvCOMP's {what}: nvcompStatus_t {code}").into()) }
}
