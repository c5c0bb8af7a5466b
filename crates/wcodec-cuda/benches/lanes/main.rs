//! Speed of the lanes decoder: `cargo bench -p wcodec-cuda --bench lanes [-- --quick] [NAME...]`. Device time, medians, GB/s of decoded
//! bytes, beside the floor that a kernel reaches which only moves as many bytes, and beside other decoders where they can be
//! found: nvCOMP's ANS (`WCODEC_NVCOMP`, a path to libnvcomp.so.6) and DFloat11 (`WCODEC_DFLOAT11`, a path to its decode.ptx).
//!
//! Matrices are encoded once and uploaded as often as it takes that no round finds its input in a cache. Every decoder's output is
//! compared with the weights.

use std::error::Error;

use wcodec_cuda::{CudaContext, CudaDecoder, DeviceBuffer, DeviceTensor, Stream};

mod dfloat11;
mod nvcomp;
mod timing;
mod weights;

use dfloat11::Dfloat11;
use nvcomp::Nvcomp;
use timing::Clock;
use weights::{Coding, Element, Matrix};

fn main() -> Result<(), Box<dyn Error>> {
    let context = match CudaContext::new(0) {
        Ok(context) => context,
        Err(reason) => {
            println!("no measurement: {reason}");
            return Ok(());
        }
    };
    println!("{}", context.device().name);
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|&n| n == name);

    let stream = Stream::new(&context)?;
    let mut bench = Bench { decoder: CudaDecoder::new(&context), clock: Clock::new(&stream)?, stream: &stream };
    let bf16 = |contexts, table_bits| Coding { element: Element::Bf16, contexts, table_bits };
    if wanted("bf16") {
        bench.head("BF16, 16 contexts of 2^10");
        let matrix = Matrix::new(4096, 4096, bf16(16, 10));
        let small = Matrix::new(1024, 4096, bf16(16, 10));
        let wide = Matrix::new(4096, 14_336, bf16(16, 10));
        let tall = Matrix::new(14_336, 4096, bf16(16, 10));
        bench.run("one 1024x4096", &[(&small, 1)])?;
        bench.run("one 4096x4096", &[(&matrix, 1)])?;
        bench.run("one 14336x4096", &[(&tall, 1)])?;
        bench.run("q, k, v and o of a layer", &[(&matrix, 2), (&small, 2)])?;
        bench.run("16 of 4096x4096", &[(&matrix, 16)])?;
        bench.run("layer of Llama-3-8B", &[(&matrix, 2), (&small, 2), (&tall, 2), (&wide, 1)])?;
        drop((small, wide, tall));
        let large = matrix.repeated(16);
        drop(matrix);
        bench.run("65536x4096", &[(&large, 1)])?;
        bench.copy(large.original.len())?;
        bench.peers(&large.original)?;
    }
    if wanted("tables") && !quick {
        for (contexts, table_bits) in [(16, 11), (8, 10), (8, 11), (8, 12), (1, 11), (1, 12)] {
            bench.head(&format!("BF16, {contexts} contexts of 2^{table_bits}"));
            let matrix = Matrix::new(4096, 4096, bf16(contexts, table_bits));
            bench.run("one 4096x4096", &[(&matrix, 1)])?;
            bench.run("65536x4096", &[(&matrix.repeated(16), 1)])?;
        }
    }
    if wanted("types") && !quick {
        for element in [Element::F16, Element::F32, Element::E4m3, Element::Int8] {
            bench.head(&format!("{}, 16 contexts of 2^10", element.name()));
            let matrix = Matrix::new(4096, 4096, Coding { element, contexts: 16, table_bits: 10 });
            bench.run("one 4096x4096", &[(&matrix, 1)])?;
            bench.run("65536x4096", &[(&matrix.repeated(16), 1)])?;
        }
    }
    Ok(())
}

struct Bench<'a> {
    stream: &'a Stream,
    decoder: CudaDecoder,
    clock: Clock<'a>,
}

impl Bench<'_> {
    fn head(&self, what: &str) {
        println!("\n{what}");
        println!("    {:<28} {:>9} {:>7} {:>10} {:>7} {:>10}", "", "MB", "ratio", "us", "GB/s", "of floor");
    }

    fn line(&mut self, name: &str, compressed: usize, bytes: usize, ms: f32) -> Result<(), Box<dyn Error>> {
        let floor = self.clock.floor(compressed, bytes)?;
        println!(
            "    {name:<28} {:>9.1} {:>7.4} {:>10.1} {:>7.0} {:>8.1} %",
            bytes as f64 / 1e6,
            compressed as f64 / bytes as f64,
            ms * 1e3,
            bytes as f64 / f64::from(ms) / 1e6,
            100.0 * floor / ms
        );
        Ok(())
    }

    /// One launch of all matrices, `count` of each.
    fn run(&mut self, name: &str, matrices: &[(&Matrix, usize)]) -> Result<(), Box<dyn Error>> {
        let stream = self.stream;
        let sum = |bytes: fn(&Matrix) -> usize| matrices.iter().map(|&(matrix, n)| bytes(matrix) * n).sum::<usize>();
        let (bytes, compressed) = (sum(|matrix| matrix.original.len()), sum(Matrix::compressed));
        let copies = (400usize << 20).div_ceil(bytes).min(8);
        let mut sets: Vec<Vec<(&Matrix, DeviceTensor, DeviceBuffer)>> = Vec::new();
        for _ in 0..copies {
            let mut set = Vec::new();
            for &(matrix, count) in matrices {
                for _ in 0..count {
                    let tensor = matrix.upload(stream)?;
                    let out = DeviceBuffer::zeroed(stream, tensor.decoded_bytes())?;
                    set.push((matrix, tensor, out));
                }
            }
            sets.push(set);
        }
        let decoder = &self.decoder;
        let ms = self.clock.median(|round| {
            let set = sets[round % copies].iter_mut();
            decoder.decode_batch(set.map(|(_, tensor, out)| (&*tensor, out.as_slice_mut())), stream)
        })?;
        for (matrix, tensor, out) in sets.iter().flatten() {
            tensor.check(stream)?;
            let mut back = vec![0; out.len()];
            out.copy_to_host(stream, 0, &mut back)?;
            if back != matrix.original {
                return Err(format!("{name}: decoded to other weights").into());
            }
        }
        let device: usize = sets[0].iter().map(|(_, tensor, _)| tensor.device_bytes()).sum();
        let beside = device.saturating_sub(compressed);
        drop(sets);
        self.line(name, compressed, bytes, ms)?;
        println!(
            "        memory beside input and output {:.2} % of the output, {:.1} patches per superblock",
            100.0 * beside as f64 / bytes as f64,
            matrices[0].0.patches()
        );
        Ok(())
    }

    /// A copy of as many bytes.
    fn copy(&mut self, bytes: usize) -> Result<(), Box<dyn Error>> {
        let ms = self.clock.floor(bytes, bytes)?;
        self.line("copy", bytes, bytes, ms)
    }

    fn peers(&mut self, original: &[u8]) -> Result<(), Box<dyn Error>> {
        if let Some(nvcomp) = Nvcomp::from_env()? {
            for chunk_bytes in [64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20] {
                for states in [1, 2] {
                    let m = nvcomp.measure(self.stream, &mut self.clock, original, chunk_bytes, states)?;
                    let name = format!("nvCOMP ANS, {} KiB, {} state", m.chunk_bytes >> 10, m.states_per_lane);
                    self.line(&name, m.compressed + 4 * original.len().div_ceil(chunk_bytes), original.len(), m.ms)?;
                }
            }
        } else {
            println!("    nvCOMP: WCODEC_NVCOMP names no library");
        }
        if let Some(dfloat11) = Dfloat11::from_env(self.stream)? {
            let (compressed, ms) = dfloat11.measure(self.stream, &mut self.clock, original)?;
            self.line("DFloat11", compressed, original.len(), ms)?;
        } else {
            println!("    DFloat11: WCODEC_DFLOAT11 names no kernel");
        }
        Ok(())
    }
}
