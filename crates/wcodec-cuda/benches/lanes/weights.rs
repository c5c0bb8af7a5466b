//! Weights to measure with: Gaussian, with a scale per row and per column, as elements of several types, encoded as an archive
//! holds them.

use half::{bf16, f16};
use wcodec_cuda::{BlockEntry, CudaError, DeviceTensor, LanesTensor, Stream};
use wcodec_rans::superblock::{Classes, Encoder, Shape};
use wcodec_rans::{HeadLayout, LANES, TableSet};

/// Rows of a superblock, as the encoder makes them.
pub(crate) const BLOCK_ROWS: usize = 64;

/// An element type, with a split of its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    Bf16,
    F16,
    F32,
    /// FP8 with 4 exponent bits, one scale for all.
    E4m3,
    /// INT8, one scale per row.
    Int8,
}

impl Element {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
            Self::F32 => "F32",
            Self::E4m3 => "FP8 E4M3",
            Self::Int8 => "INT8",
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
            Self::E4m3 | Self::Int8 => 1,
        }
    }

    fn layout(self) -> HeadLayout {
        let (bits, shift, sign) = match self {
            Self::Bf16 | Self::F32 => (16, 6, true),
            Self::F16 => (16, 9, true),
            Self::E4m3 => (8, 0, true),
            Self::Int8 => (8, 0, false),
        };
        HeadLayout::new(bits, shift, sign).expect("a layout")
    }

    /// Appends a row of weights, little-endian.
    fn append(self, row: &[f32], largest: f32, to: &mut Vec<u8>) {
        match self {
            Self::Bf16 => row.iter().for_each(|&w| to.extend(bf16::from_f32(w).to_le_bytes())),
            Self::F16 => row.iter().for_each(|&w| to.extend(f16::from_f32(w).to_le_bytes())),
            Self::F32 => row.iter().for_each(|&w| to.extend(w.to_le_bytes())),
            Self::E4m3 => to.extend(row.iter().map(|&w| e4m3(w / largest * 448.0))),
            Self::Int8 => {
                let largest = row.iter().fold(0f32, |most, w| most.max(w.abs()));
                to.extend(row.iter().map(|&w| (w / largest * 127.0).round() as i8 as u8));
            }
        }
    }
}

/// The nearest E4M3 of a number of magnitude up to 448.
fn e4m3(x: f32) -> u8 {
    let magnitude = x.abs();
    let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(-6);
    let eighths = (magnitude / (exponent as f32 - 3.0).exp2()).round() as i32;
    let code = if eighths < 8 { eighths } else { ((exponent + 7) << 3) + eighths - 8 };
    code.min(0x7e) as u8 | if x < 0.0 { 0x80 } else { 0 }
}

/// How a matrix is coded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coding {
    pub(crate) element: Element,
    pub(crate) contexts: usize,
    pub(crate) table_bits: u32,
}

/// A matrix, encoded.
pub(crate) struct Matrix {
    rows: usize,
    cols: usize,
    element: Element,
    layout: HeadLayout,
    /// The elements, little-endian.
    pub(crate) original: Vec<u8>,
    tables: TableSet,
    row_classes: Vec<u8>,
    col_classes: Vec<i8>,
    blocks: Vec<BlockEntry>,
    /// One per strip.
    chunks: Vec<Vec<u8>>,
}

impl Matrix {
    /// A random matrix; `rows` is a multiple of [`BLOCK_ROWS`], `cols` one of 64.
    pub(crate) fn new(rows: usize, cols: usize, coding: Coding) -> Self {
        let Coding { element, contexts, table_bits } = coding;
        let layout = element.layout();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let row_scale: Vec<f32> = (0..rows).map(|_| 0.4 * random.normal()).collect();
        let col_scale: Vec<f32> = (0..cols).map(|_| 0.4 * random.normal()).collect();
        let largest = 0.02 * (6.0 * 2f32.powf(0.4 * 2.0 * 4.0));
        let original = on_all_cores(rows, |strip| {
            let mut random = Random(strip.start as u64 * 0x2545_f491_4f6c_dd1d + 1);
            let mut bytes = Vec::with_capacity(strip.len() * cols * element.bytes());
            for row in strip {
                let weights: Vec<f32> =
                    col_scale.iter().map(|c| (row_scale[row] + c).exp2() * 0.02 * random.normal()).collect();
                element.append(&weights, largest, &mut bytes);
            }
            bytes
        })
        .concat();
        // A class is a quarter of an octave. Rows of INT8 have their scale taken out.
        let middle = contexts as f32 / 2.0;
        let class = |scale: f32| if contexts == 1 { 0.0 } else { (4.0 * scale).round() };
        let row_classes: Vec<u8> = row_scale
            .iter()
            .map(|&r| if element == Element::Int8 { middle } else { class(r) + middle.floor() })
            .map(|class| if contexts == 1 { 0 } else { class.clamp(0.0, 15.0) as u8 })
            .collect();
        let col_classes: Vec<i8> = col_scale.iter().map(|&c| class(c).clamp(-15.0, 15.0) as i8).collect();

        let mut matrix = Self {
            rows,
            cols,
            element,
            layout,
            original,
            tables: TableSet::from_counts(table_bits, &[vec![1, 1]]).expect("tables"),
            row_classes,
            col_classes,
            blocks: Vec::new(),
            chunks: Vec::new(),
        };
        matrix.encode(contexts, table_bits);
        matrix
    }

    fn encode(&mut self, contexts: usize, table_bits: u32) {
        let all = Classes { rows: &self.row_classes, cols: &self.col_classes };
        let parts = on_all_cores(self.rows, |strip| {
            let mut counts = vec![vec![0u64; 1 << self.layout.coded_bits()]; contexts];
            for row in strip {
                for col in 0..self.cols {
                    counts[all.context(row, col, contexts)][usize::from(self.layout.coded(self.head(row, col)))] += 1;
                }
            }
            counts
        });
        let mut counts = vec![vec![0u64; 1 << self.layout.coded_bits()]; contexts];
        for part in parts {
            for (sum, n) in counts.iter_mut().flatten().zip(part.into_iter().flatten()) {
                *sum += n;
            }
        }
        // Values that hardly occur become patches, as the encoder makes them.
        let floor = ((self.rows * self.cols) >> 18) as u64;
        counts.iter_mut().flatten().filter(|n| **n <= floor).for_each(|n| *n = 0);
        self.tables = TableSet::from_counts(table_bits, &counts).expect("tables");
        let encoder = Encoder::new(self.layout, &self.tables).expect("an encoder");
        let strips = on_all_cores(self.rows, |strip| self.encode_strip(&encoder, all, strip.start));
        let (blocks, chunks): (Vec<_>, Vec<_>) = strips.into_iter().unzip();
        (self.blocks, self.chunks) = (blocks.concat(), chunks);
    }

    fn head(&self, row: usize, col: usize) -> u16 {
        let end = (row * self.cols + col + 1) * self.element.bytes();
        match self.layout.bytes() {
            1 => u16::from(self.original[end - 1]),
            _ => u16::from_le_bytes([self.original[end - 2], self.original[end - 1]]),
        }
    }

    /// The superblocks of rows from `first` on: raw fields, states, low bytes, streams.
    fn encode_strip(&self, encoder: &Encoder, all: Classes<'_>, first: usize) -> (Vec<BlockEntry>, Vec<u8>) {
        let shape = Shape::new(BLOCK_ROWS, LANES).expect("a shape");
        let low_bytes = self.element.bytes() - self.layout.bytes();
        let [mut raw, mut states, mut lows, mut streams] = [const { Vec::new() }; 4];
        let mut blocks = Vec::new();
        let rows = first..first + BLOCK_ROWS;
        for col in (0..self.cols).step_by(LANES) {
            let places = rows.clone().flat_map(|row| (col..col + LANES).map(move |col| (row, col)));
            let heads: Vec<u16> = places.clone().map(|(row, col)| self.head(row, col)).collect();
            let classes = Classes { rows: &all.rows[rows.clone()], cols: &all.cols[col..col + LANES] };
            let packed = encoder.encode(&heads, shape, classes).expect("a superblock");
            blocks.push(BlockEntry {
                stream_words: (packed.stream.len() / 4) as u16,
                base: packed.base,
                patches: packed.patches,
            });
            raw.extend(packed.raw);
            states.extend(packed.states);
            for (row, col) in places {
                let at = (row * self.cols + col) * self.element.bytes();
                lows.extend_from_slice(&self.original[at..at + low_bytes]);
            }
            streams.extend(packed.stream);
        }
        (blocks, [raw, states, lows, streams].concat())
    }

    /// The matrix `times` times below itself.
    pub(crate) fn repeated(&self, times: usize) -> Self {
        Self {
            rows: self.rows * times,
            cols: self.cols,
            element: self.element,
            layout: self.layout,
            original: self.original.repeat(times),
            tables: self.tables.clone(),
            row_classes: self.row_classes.repeat(times),
            col_classes: self.col_classes.clone(),
            blocks: self.blocks.repeat(times),
            chunks: (0..times).flat_map(|_| self.chunks.iter().cloned()).collect(),
        }
    }

    /// Bytes of all that a decoder reads: chunks, index (5 bytes per superblock), classes and serialised tables.
    pub(crate) fn compressed(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(Vec::len).sum();
        let classes = self.row_classes.len() + self.col_classes.len();
        chunks + 5 * self.blocks.len() + classes + self.tables.to_bytes().len()
    }

    /// Patches per superblock.
    pub(crate) fn patches(&self) -> f64 {
        self.blocks.iter().map(|block| f64::from(block.patches)).sum::<f64>() / self.blocks.len() as f64
    }

    pub(crate) fn upload(&self, stream: &Stream) -> Result<DeviceTensor, CudaError> {
        let chunks: Vec<&[u8]> = self.chunks.iter().map(Vec::as_slice).collect();
        DeviceTensor::upload(
            stream,
            &LanesTensor {
                layout: self.layout,
                element_bytes: self.element.bytes(),
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

/// What `work` makes of every strip of [`BLOCK_ROWS`] rows, in order.
fn on_all_cores<T: Send>(rows: usize, work: impl Fn(std::ops::Range<usize>) -> T + Sync) -> Vec<T> {
    let strips: Vec<_> = (0..rows).step_by(BLOCK_ROWS).map(|row| row..(row + BLOCK_ROWS).min(rows)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = strips
            .chunks(strips.len().div_ceil(threads))
            .map(|strips| scope.spawn(|| strips.iter().cloned().map(&work).collect::<Vec<T>>()))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    })
}

struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Twelve uniform numbers make a normal one; the tails beyond six sigma do not matter here.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}
