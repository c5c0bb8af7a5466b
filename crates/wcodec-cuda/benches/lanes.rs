//! Speed of the lanes decoder: `cargo bench -p wcodec-cuda --bench lanes`. Device time, medians, GB/s of decoded bytes, next to the
//! floor that a kernel reaches which only moves as many bytes.
//!
//! Weights are Gaussian with a scale per row and per column, in BF16. One matrix is encoded and uploaded many times, so that no run
//! finds its input in the cache.

use wcodec_cuda::{
    BlockEntry, CudaContext, CudaDecoder, CudaError, DeviceBuffer, DeviceTensor, Event, LanesTensor, Stream, copy_floor,
};
use wcodec_rans::superblock::{Classes, Encoder, Shape};
use wcodec_rans::{HeadLayout, LANES, TableSet};

const BLOCK_ROWS: usize = 64;
const REPEAT: usize = 15;

fn main() -> Result<(), CudaError> {
    let context = match CudaContext::new(0) {
        Ok(context) => context,
        Err(reason) => {
            println!("no measurement: {reason}");
            return Ok(());
        }
    };
    println!("{}", context.device().name);
    let bench = Bench { stream: Stream::new(&context)?, decoder: CudaDecoder::new(&context) };
    let quick = std::env::args().any(|argument| argument == "--quick");
    for (contexts, table_bits) in [(16, 10), (16, 11), (8, 10), (1, 11)] {
        if quick && (contexts, table_bits) != (16, 10) {
            continue;
        }
        let matrix = Matrix::new(4096, 4096, contexts, table_bits);
        println!("K = {contexts}, P = {table_bits}, ratio {:.4}", matrix.ratio());
        bench.run("4096x4096", &[(&matrix, 1)])?;
        bench.run("16 of 4096x4096", &[(&matrix, 16)])?;
        let tall = matrix.repeated(16);
        bench.run("65536x4096", &[(&tall, 1)])?;
        drop(tall);
        if contexts == 16 && !quick {
            let small = Matrix::new(1024, 4096, contexts, table_bits);
            let wide = Matrix::new(4096, 14_336, contexts, table_bits);
            let tall = Matrix::new(14_336, 4096, contexts, table_bits);
            bench.run("Llama-3-8B layer", &[(&matrix, 2), (&small, 2), (&tall, 2), (&wide, 1)])?;
        }
    }
    Ok(())
}

struct Bench {
    stream: Stream,
    decoder: CudaDecoder,
}

impl Bench {
    /// Times one launch of all matrices, `count` of each, and the floor.
    fn run(&self, name: &str, matrices: &[(&Matrix, usize)]) -> Result<(), CudaError> {
        let stream = &self.stream;
        // Enough copies that a round does not fit into any cache.
        let bytes: usize = matrices.iter().map(|(matrix, count)| matrix.original.len() * 2 * count).sum();
        let copies = (400usize << 20).div_ceil(bytes);
        // Several launches of what is larger than the cache, so that the host's time to queue them is hidden.
        let launches = if bytes > 100 << 20 { 4 } else { 1 };
        let mut sets = Vec::new();
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
        let (start, end) = (Event::new(stream.context())?, Event::new(stream.context())?);
        let (mut times, mut floors) = (Vec::new(), Vec::new());
        // Work that keeps the device busy while the host queues what is timed.
        let idle = DeviceBuffer::zeroed(stream, 256 << 20)?;
        let mut busy = DeviceBuffer::zeroed(stream, 256 << 20)?;
        for round in 0..REPEAT * copies + 3 {
            let set = &mut sets[round % copies];
            copy_floor(stream, idle.as_slice(), busy.as_slice_mut())?;
            start.record(stream)?;
            for _ in 0..launches {
                self.decoder
                    .decode_batch(set.iter_mut().map(|(_, tensor, out)| (&*tensor, out.as_slice_mut())), stream)?;
            }
            end.record(stream)?;
            let time = end.elapsed_ms(&start)? / launches as f32;
            if round >= 3 {
                times.push(time);
            }
        }
        for (matrix, tensor, out) in sets.iter().flatten() {
            tensor.check(stream)?;
            let mut back = vec![0; out.len()];
            out.copy_to_host(stream, 0, &mut back)?;
            assert!(back.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).eq(matrix.original.iter().copied()));
        }
        let input: usize = matrices.iter().map(|(matrix, count)| matrix.compressed() * count).sum();
        let input = DeviceBuffer::zeroed(stream, input & !15)?;
        let mut output = DeviceBuffer::zeroed(stream, bytes)?;
        for _ in 0..REPEAT {
            copy_floor(stream, idle.as_slice(), busy.as_slice_mut())?;
            start.record(stream)?;
            copy_floor(stream, input.as_slice(), output.as_slice_mut())?;
            end.record(stream)?;
            floors.push(end.elapsed_ms(&start)?);
        }
        let (time, floor) = (median(&mut times), median(&mut floors));
        let speed = |ms: f32| bytes as f64 / f64::from(ms) / 1e6;
        println!(
            "    {name:<18} {:>7.1} MB  {:>8.1} us  {:>6.0} GB/s   floor {:>6.0} GB/s   {:>5.1} %",
            bytes as f64 / 1e6,
            time * 1e3,
            speed(time),
            speed(floor),
            100.0 * floor / time
        );
        Ok(())
    }
}

fn median(times: &mut [f32]) -> f32 {
    times.sort_by(f32::total_cmp);
    times[times.len() / 2]
}

struct Matrix {
    rows: usize,
    cols: usize,
    layout: HeadLayout,
    original: Vec<u16>,
    tables: TableSet,
    row_classes: Vec<u8>,
    col_classes: Vec<i8>,
    blocks: Vec<BlockEntry>,
    chunks: Vec<Vec<u8>>,
}

impl Matrix {
    fn new(rows: usize, cols: usize, contexts: usize, table_bits: u32) -> Self {
        let layout = HeadLayout::new(16, 6, true).expect("BF16");
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut uniform = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        // Twelve uniform numbers make a normal one; the tails beyond six sigma do not matter here.
        let mut normal = move || (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
        let row_scale: Vec<f32> = (0..rows).map(|_| 0.4 * normal()).collect();
        let col_scale: Vec<f32> = (0..cols).map(|_| 0.4 * normal()).collect();
        let original: Vec<u16> = row_scale
            .iter()
            .flat_map(|r| col_scale.iter().map(move |c| (r + c).exp2() * 0.02))
            .map(|scale| ((scale * normal()).to_bits() >> 16) as u16)
            .collect();
        // A class is a quarter of an octave.
        let middle = contexts as f32 / 2.0;
        let row_classes: Vec<u8> = row_scale
            .iter()
            .map(|r| if contexts == 1 { 0 } else { (4.0 * r + middle).round().clamp(0.0, 15.0) as u8 })
            .collect();
        let col_classes: Vec<i8> = col_scale
            .iter()
            .map(|c| if contexts == 1 { 0 } else { (4.0 * c).round().clamp(-15.0, 15.0) as i8 })
            .collect();
        let all = Classes { rows: &row_classes, cols: &col_classes };
        let mut counts = vec![vec![0u64; 512]; contexts];
        for (i, row) in original.chunks_exact(cols).enumerate() {
            for (j, &head) in row.iter().enumerate() {
                counts[all.context(i, j, contexts)][usize::from(layout.coded(head))] += 1;
            }
        }
        let floor = ((rows * cols) >> 18) as u64;
        counts.iter_mut().flatten().filter(|n| **n <= floor).for_each(|n| *n = 0);
        let tables = TableSet::from_counts(table_bits, &counts).expect("tables");
        let encoder = Encoder::new(layout, &tables).expect("an encoder");
        let strips: Vec<usize> = (0..rows / BLOCK_ROWS).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let parts: Vec<(Vec<BlockEntry>, Vec<Vec<u8>>)> = std::thread::scope(|scope| {
            let workers: Vec<_> = strips
                .chunks(strips.len().div_ceil(threads))
                .map(|strips| {
                    scope.spawn(|| {
                        strips
                            .iter()
                            .map(|&strip| encode_strip(&encoder, &original, all, cols, strip))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().expect("an encoder thread"))
                .map(|strips| {
                    let (blocks, chunks): (Vec<_>, Vec<_>) = strips.into_iter().unzip();
                    (blocks.concat(), chunks)
                })
                .collect()
        });
        let (blocks, chunks): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        Self {
            rows,
            cols,
            layout,
            tables,
            blocks: blocks.concat(),
            chunks: chunks.concat(),
            row_classes,
            col_classes,
            original,
        }
    }

    /// The matrix `times` times below itself.
    fn repeated(&self, times: usize) -> Self {
        Self {
            rows: self.rows * times,
            cols: self.cols,
            layout: self.layout,
            original: self.original.repeat(times),
            tables: self.tables.clone(),
            row_classes: self.row_classes.repeat(times),
            col_classes: self.col_classes.clone(),
            blocks: self.blocks.repeat(times),
            chunks: (0..times).flat_map(|_| self.chunks.iter().cloned()).collect(),
        }
    }

    fn compressed(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    fn ratio(&self) -> f64 {
        self.compressed() as f64 / (2 * self.original.len()) as f64
    }

    fn upload(&self, stream: &Stream) -> Result<DeviceTensor, CudaError> {
        let chunks: Vec<&[u8]> = self.chunks.iter().map(Vec::as_slice).collect();
        DeviceTensor::upload(
            stream,
            &LanesTensor {
                layout: self.layout,
                element_bytes: 2,
                rows: self.rows,
                cols: self.cols,
                rest: 0,
                block_rows: BLOCK_ROWS,
                strips_per_chunk: 1,
                tables: &self.tables,
                row_classes: &self.row_classes,
                col_classes: &self.col_classes,
                low_bits: &[],
                blocks: &self.blocks,
                chunks: &chunks,
            },
        )
    }
}

fn encode_strip(
    encoder: &Encoder,
    original: &[u16],
    all: Classes<'_>,
    cols: usize,
    strip: usize,
) -> (Vec<BlockEntry>, Vec<u8>) {
    let rows = strip * BLOCK_ROWS..(strip + 1) * BLOCK_ROWS;
    let shape = Shape::new(BLOCK_ROWS, LANES).expect("a shape");
    let [mut raw, mut states, mut streams] = [const { Vec::new() }; 3];
    let mut blocks = Vec::new();
    for col in (0..cols).step_by(LANES) {
        let heads: Vec<u16> = rows.clone().flat_map(|row| &original[row * cols + col..][..LANES]).copied().collect();
        let classes = Classes { rows: &all.rows[rows.clone()], cols: &all.cols[col..col + LANES] };
        let packed = encoder.encode(&heads, shape, classes).expect("a superblock");
        blocks.push(BlockEntry {
            stream_words: (packed.stream.len() / 4) as u16,
            base: packed.base,
            patches: packed.patches,
        });
        raw.extend(packed.raw);
        states.extend(packed.states);
        streams.extend(packed.stream);
    }
    (blocks, [raw, states, streams].concat())
}
