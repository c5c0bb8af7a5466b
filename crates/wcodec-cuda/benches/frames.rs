//! Speed of zstd mode and of dequantisation on a device: `cargo bench -p wcodec-cuda --bench frames`. Device time, medians of 15, next to
//! nvCOMP called directly on the same frames, and to the floor that a kernel reaches which only moves as many bytes.
#![expect(unsafe_code, reason = "calls nvCOMP directly, as the thing to compare with")]

use std::ffi::c_void;

use libloading::Library;
use wcodec_cuda::{
    CudaContext, DeviceBuffer, DeviceFrames, DeviceScheme, Event, FrameDecoder, FrameEncoder, FrameTarget,
    FramesTensor, Nvcomp, Stream, copy_floor, dequantize,
};
use wcodec_quant::{Code, FloatType, Order, Scheme};
use zstd_safe::{CCtx, CParameter};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const REPEAT: usize = 15;
const FRAME: usize = 64 << 10;

fn main() -> Result<()> {
    let context = match CudaContext::new(0) {
        Ok(context) => context,
        Err(reason) => {
            println!("no measurement: {reason}");
            return Ok(());
        }
    };
    println!("{}", context.device().name);
    let bench = Bench { stream: Stream::new(&context)? };
    bench.dequantisation()?;
    match Nvcomp::find() {
        Ok(nvcomp) => bench.frames(&nvcomp),
        Err(reason) => {
            println!("frames not measured: {reason}");
            Ok(())
        }
    }
}

struct Bench {
    stream: Stream,
}

impl Bench {
    /// Median device time of `work` in milliseconds, behind work that hides the host's time to queue it.
    fn time(&self, repeat: usize, mut work: impl FnMut(usize) -> Result<()>) -> Result<f64> {
        let context = self.stream.context();
        let (start, end) = (Event::new(context)?, Event::new(context)?);
        let idle = DeviceBuffer::zeroed(&self.stream, 256 << 20)?;
        let mut busy = DeviceBuffer::zeroed(&self.stream, 256 << 20)?;
        let mut times = Vec::new();
        for round in 0..repeat + 2 {
            copy_floor(&self.stream, idle.as_slice(), busy.as_slice_mut())?;
            start.record(&self.stream)?;
            work(round)?;
            end.record(&self.stream)?;
            let time = f64::from(end.elapsed_ms(&start)?);
            if round >= 2 {
                times.push(time);
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    fn floor(&self, read: usize, written: usize) -> Result<f64> {
        let from = DeviceBuffer::zeroed(&self.stream, read)?;
        let mut to = DeviceBuffer::zeroed(&self.stream, written)?;
        self.time(REPEAT, |_| Ok(copy_floor(&self.stream, from.as_slice(), to.as_slice_mut())?))
    }

    fn dequantisation(&self) -> Result<()> {
        let stream = &self.stream;
        let [rows, cols] = [16_384, 16_384];
        println!("dequantisation of {rows} x {cols} (GB/s of codes and output; per cent of the floor for these)");
        let noise: Vec<u8> =
            (0..rows * cols).map(|i| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        let codes = DeviceBuffer::from_host(stream, &noise)?;
        drop(noise);
        let mut out = DeviceBuffer::new(stream.context(), rows * cols * 4)?;
        let (tensor, row, column, group, tall) = ([rows, cols], [1, cols], [rows, 1], [1, 128], [128, 1]);
        use FloatType::{BF16, F16, F32};
        for (name, code, block, zeros, float) in [
            ("INT8, tensor", Code::I8, tensor, false, BF16),
            ("INT8, row", Code::I8, row, false, BF16),
            ("INT8, row", Code::I8, row, false, F16),
            ("INT8, row", Code::I8, row, false, F32),
            ("UINT8, row, zero points", Code::U8, row, true, BF16),
            ("INT8, groups of 128", Code::I8, group, false, BF16),
            ("INT8, column", Code::I8, column, false, BF16),
            ("E4M3, tensor", Code::F8E4M3, tensor, false, BF16),
            ("E4M3, blocks of 128 x 128", Code::F8E4M3, [128, 128], false, BF16),
            ("E5M2, tensor", Code::F8E5M2, tensor, false, F16),
            ("INT4 pairs, groups of 128", Code::I4(Order::Pairs), group, false, BF16),
            ("INT4 pairs, groups of 128", Code::I4(Order::Pairs), group, false, F32),
            ("UINT4 GPTQ, groups of 128", Code::U4(Order::RowWords), tall, true, F16),
            ("UINT4 AWQ, groups of 128", Code::U4(Order::Interleaved), tall, true, F16),
        ] {
            let count = rows.div_ceil(block[0]) * cols.div_ceil(block[1]);
            let scales = (0..count).map(|i| 0.001 + i as f32 * 1e-7).collect();
            let mut scheme = Scheme::new([rows, cols], code, block, scales)?;
            if zeros {
                scheme = scheme.with_zeros(&vec![7; count])?;
            }
            let scheme = DeviceScheme::upload(stream, &scheme)?;
            let (read, written) = (scheme.code_bytes(), scheme.out_bytes(float));
            let time = self.time(REPEAT, |_| {
                let to = out.sub_slice_mut(0, written)?;
                Ok(dequantize(stream, &scheme, codes.sub_slice(0, read)?, float, to)?)
            })?;
            let floor = self.floor(read, written)?;
            let speed = (read + written) as f64 / time / 1e6;
            println!(
                "    {:<42} {time:>7.3} ms {speed:>6.0} {:>5.1} %",
                format!("{name} to {float:?}"),
                100.0 * floor / time
            );
        }
        Ok(())
    }

    fn frames(&self, nvcomp: &Nvcomp) -> Result<()> {
        println!("nvCOMP {} ({})", nvcomp.version(), nvcomp.path().display());
        for (file, planes) in [
            ("fixtures/minilm-layer-bf16.safetensors", 1),
            ("fixtures/minilm-layer-bf16.safetensors", 2),
            ("fixtures/minilm-layer-int8.safetensors", 1),
        ] {
            let path = [file.to_owned(), format!("{}/../../{file}", env!("CARGO_MANIFEST_DIR"))];
            let data = path.iter().find_map(|path| std::fs::read(path).ok()).ok_or("no fixtures")?;
            self.file(nvcomp, file, &data[data.len() % FRAME..], planes)?;
        }
        Ok(())
    }

    /// 256 MiB of a file's bytes over and over, each copy with frames of its own in memory.
    fn file(&self, nvcomp: &Nvcomp, name: &str, data: &[u8], planes: usize) -> Result<()> {
        let (stream, context) = (&self.stream, self.stream.context());
        let copies = (256 << 20) / data.len();
        let one = frames(data, planes)?;
        let all: Vec<&[u8]> = (0..copies).flat_map(|_| one.iter().map(Vec::as_slice)).collect();
        let bytes = copies * data.len();
        let stored: usize = all.iter().map(|frame| frame.len()).sum();
        println!(
            "{name}, {planes} plane(s), level 3, {} MB, ratio {:.4}",
            bytes / 1_000_000,
            stored as f64 / bytes as f64
        );
        let tensor =
            DeviceFrames::upload(stream, &FramesTensor { frame: FRAME, planes, decoded_bytes: bytes, frames: &all })?;
        let decoder = FrameDecoder::new(nvcomp, context)?;
        let mut out = DeviceBuffer::new(context, bytes)?;
        let speed = |ms: f64| bytes as f64 / ms / 1e6;

        let direct = Direct::new(nvcomp, stream, &all, &out)?;
        let by_nvcomp = self.time(REPEAT, |_| direct.decode(stream))?;
        let ours = self.time(REPEAT, |_| {
            let target = FrameTarget::Bytes(0..bytes, out.as_slice_mut());
            Ok(decoder.decode([(&tensor, target)], stream)?)
        })?;
        let again = self.time(REPEAT, |_| direct.decode(stream))?;
        tensor.check(stream)?;
        println!(
            "    decode: wcodec {:.1} GB/s, nvCOMP directly {:.1} and {:.1} GB/s (leaves planes): {:.3} of the better",
            speed(ours),
            speed(by_nvcomp),
            speed(again),
            by_nvcomp.min(again) / ours
        );
        let mut found = vec![0; data.len()];
        let target = FrameTarget::Bytes(0..bytes, out.as_slice_mut());
        decoder.decode([(&tensor, target)], stream)?;
        out.copy_to_host(stream, bytes - data.len(), &mut found)?;
        assert!(found == data);

        let encoder = FrameEncoder::new(nvcomp, context)?;
        let host: Vec<u8> = (0..copies).flat_map(|_| data.iter().copied()).collect();
        let (mut size, mut on_device, mut sealing) = (0, f64::MAX, f64::MAX);
        for _ in 0..3 {
            let start = std::time::Instant::now();
            let encoded = encoder.encode(&host, FRAME, planes, stream)?;
            on_device = on_device.min(start.elapsed().as_secs_f64());
            let start = std::time::Instant::now();
            size = 0;
            for (number, piece) in host.chunks(FRAME).enumerate() {
                size += encoded.seal(number, piece)?.len();
            }
            sealing = sealing.min(start.elapsed().as_secs_f64());
        }
        println!(
            "    encode, ratio {:.4}: {:.2} GB/s with both copies, then {:.2} GB/s per thread to seal frames",
            size as f64 / bytes as f64,
            bytes as f64 / on_device / 1e9,
            bytes as f64 / sealing / 1e9
        );
        Ok(())
    }
}

fn frames(data: &[u8], planes: usize) -> Result<Vec<Vec<u8>>> {
    let mut context = CCtx::create();
    for parameter in [CParameter::CompressionLevel(3), CParameter::ChecksumFlag(true)] {
        context.set_parameter(parameter).map_err(zstd_safe::get_error_name)?;
    }
    let mut all = Vec::new();
    for piece in data.chunks(FRAME) {
        let piece: Vec<u8> = (0..planes).flat_map(|p| piece.iter().skip(p).step_by(planes).copied()).collect();
        let mut out = Vec::with_capacity(zstd_safe::compress_bound(piece.len()));
        context.compress2(&mut out, &piece).map_err(zstd_safe::get_error_name)?;
        all.push(out);
    }
    Ok(all)
}

/// Options of nvCOMP's functions; zeros are the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
struct Options([u32; 16]);

type TempSize = unsafe extern "C" fn(usize, usize, Options, *mut usize, usize, *mut c_void) -> i32;
type Decompress = unsafe extern "C" fn(u64, u64, u64, u64, usize, u64, usize, u64, Options, u64, *mut c_void) -> i32;

/// nvCOMP as its documentation says, with everything prepared beforehand.
struct Direct {
    decompress: Decompress,
    /// Six arrays: addresses, lengths, room, targets, decoded lengths, statuses.
    arrays: DeviceBuffer,
    count: usize,
    temp: DeviceBuffer,
    _payload: DeviceBuffer,
    _library: Library,
}

impl Direct {
    fn new(nvcomp: &Nvcomp, stream: &Stream, frames: &[&[u8]], out: &DeviceBuffer) -> Result<Self> {
        // SAFETY: the library that was found; signatures as in nvcomp/zstd.h of version 6.
        let (library, temp_size, decompress) = unsafe {
            let library = Library::new(nvcomp.path())?;
            let temp_size = *library.get::<TempSize>(b"nvcompBatchedZstdDecompressGetTempSize")?;
            let decompress = *library.get::<Decompress>(b"nvcompBatchedZstdDecompressAsync")?;
            (library, temp_size, decompress)
        };
        let (count, bytes) = (frames.len(), out.len());
        let mut payload = Vec::new();
        let mut at = Vec::new();
        for frame in frames {
            at.push(payload.len() as u64);
            payload.extend_from_slice(frame);
            payload.resize(payload.len().next_multiple_of(16), 0);
        }
        let payload = DeviceBuffer::from_host(stream, &payload)?;
        let mut arrays: Vec<u8> = Vec::new();
        at.iter().for_each(|at| arrays.extend((payload.address() + at).to_ne_bytes()));
        frames.iter().for_each(|frame| arrays.extend((frame.len() as u64).to_ne_bytes()));
        (0..count).for_each(|i| arrays.extend((FRAME.min(bytes - i * FRAME) as u64).to_ne_bytes()));
        (0..count).for_each(|i| arrays.extend((out.address() + (i * FRAME) as u64).to_ne_bytes()));
        arrays.resize(arrays.len() + count * 12, 0);
        let arrays = DeviceBuffer::from_host(stream, &arrays)?;
        let mut temp = 0;
        let _current = stream.context().enter()?;
        // SAFETY: writes one number.
        let status = unsafe { temp_size(count, FRAME, Options([0; 16]), &mut temp, bytes, stream.as_raw()) };
        if status != 0 {
            return Err(format!("nvCOMP's status is {status}").into());
        }
        let temp = DeviceBuffer::new(stream.context(), temp)?;
        Ok(Self { decompress, arrays, count, temp, _payload: payload, _library: library })
    }

    fn decode(&self, stream: &Stream) -> Result<()> {
        let array = |i: usize| self.arrays.address() + (i * 8 * self.count) as u64;
        let _current = stream.context().enter()?;
        // SAFETY: the arrays name the payload's frames and pieces of the output, which both outlive the measurement.
        let status = unsafe {
            (self.decompress)(
                array(0),
                array(1),
                array(2),
                array(4),
                self.count,
                self.temp.address(),
                self.temp.len(),
                array(3),
                Options([0; 16]),
                array(5),
                stream.as_raw(),
            )
        };
        if status == 0 { Ok(()) } else { Err(format!("nvCOMP's status is {status}").into()) }
    }
}
