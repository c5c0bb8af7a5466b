//! Decoding against memcpy of the same output bytes, per instruction set.
//!
//! The tensors are synthetic: normal weights whose rows and columns differ in scale, 64-row superblocks.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wcodec_rans::superblock::{Classes, DecodeTables, EncodedSuperblock, Encoder, Job, Shape, Superblock, Target};
use wcodec_rans::{Context, HeadLayout, Isa, TableSet};

/// Rows and columns of the tensor: 16 MiB of BF16, beyond the second cache level.
const ROWS: usize = 2048;
const COLS: usize = 4096;
/// Rows and columns of a superblock.
const HEIGHT: usize = 64;
const WIDTH: usize = 64;
const ALIGN: usize = 64;

struct Tensor {
    tables: TableSet,
    layout: HeadLayout,
    rows: Vec<u8>,
    cols: Vec<i8>,
    packed: Vec<EncodedSuperblock>,
    /// All streams, one behind the other as in an archive.
    streams: Vec<u8>,
    low: Vec<u8>,
    element_bytes: usize,
}

impl Tensor {
    /// With `mapped` tables, contexts share so many, shifted by an octave every four: classes are quarters of octaves.
    fn new(layout: HeadLayout, element_bytes: usize, contexts: usize, table_bits: u32, mapped: Option<usize>) -> Self {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let classes = |n: usize, random: &mut dyn FnMut() -> u64| -> Vec<u8> {
            (0..n).map(|_| (random() % contexts.div_ceil(2) as u64) as u8).collect()
        };
        let rows = classes(ROWS, &mut random);
        let cols: Vec<i8> = classes(COLS, &mut random).into_iter().map(|c| c as i8).collect();
        let heads: Vec<u16> = (0..ROWS * COLS)
            .map(|n| {
                // Twelve uniform numbers: normal enough.
                let sum = (0..3).fold(0u64, |s, _| {
                    let x = random();
                    s + (0..4).map(|i| (x >> (16 * i)) & 0xffff).sum::<u64>()
                });
                let class = f32::from(rows[n / COLS]) + f32::from(cols[n % COLS]);
                let weight = (sum as f32 / 65536.0 - 6.0) * 0.02 * (class / 4.0).exp2();
                match layout.bits() {
                    16 => (weight.to_bits() >> 16) as u16,
                    _ => u16::from((weight * 400.0).clamp(-127.0, 127.0) as i8 as u8),
                }
            })
            .collect();
        let mut counts = vec![vec![0u64; 1 << layout.coded_bits()]; contexts];
        let all = Classes { rows: &rows, cols: &cols };
        for (n, &head) in heads.iter().enumerate() {
            counts[all.context(n / COLS, n % COLS, contexts)][usize::from(layout.coded(head))] += 1;
        }
        let tables = match mapped {
            None => TableSet::from_counts(table_bits, &counts).unwrap(),
            Some(tables) => {
                let octave = 7 - layout.shift();
                let context = |k: usize| Context { table: (k % tables) as u8, shift: ((k / 4) << octave) as u16 };
                keep_largest(&mut counts, octave);
                TableSet::pooled(table_bits, &counts, (0..contexts).map(context).collect()).unwrap()
            }
        };
        let encoder = Encoder::new(layout, &tables).unwrap();
        let shape = Shape::new(HEIGHT, WIDTH).unwrap();
        let mut packed = Vec::new();
        for i in (0..ROWS).step_by(HEIGHT) {
            for j in (0..COLS).step_by(WIDTH) {
                let block: Vec<u16> =
                    (i..i + HEIGHT).flat_map(|i| &heads[i * COLS + j..i * COLS + j + WIDTH]).copied().collect();
                let classes = Classes { rows: &rows[i..i + HEIGHT], cols: &cols[j..j + WIDTH] };
                packed.push(encoder.encode(&block, shape, classes).unwrap());
            }
        }
        let low = vec![0x5a; HEIGHT * WIDTH * (element_bytes - layout.bytes())];
        let streams = packed.iter().flat_map(|p| p.stream.iter().copied()).collect();
        Self { tables, layout, rows, cols, packed, streams, low, element_bytes }
    }

    fn target<'a>(&self, bytes: &'a mut [u8]) -> Target<'a> {
        Target {
            bytes,
            row_stride: COLS * self.element_bytes,
            element_bytes: self.element_bytes,
            head_offset: self.element_bytes - self.layout.bytes(),
            low: &[],
        }
    }

    fn jobs(&self) -> Vec<Job<'_>> {
        let across = COLS / WIDTH;
        let mut begin = 0;
        self.packed
            .iter()
            .enumerate()
            .map(|(n, p)| {
                let (i, j) = (n / across * HEIGHT, n % across * WIDTH);
                let readable = &self.streams[begin..];
                begin += p.stream.len();
                Job {
                    shape: Shape::new(HEIGHT, WIDTH).unwrap(),
                    classes: Classes { rows: &self.rows[i..i + HEIGHT], cols: &self.cols[j..j + WIDTH] },
                    block: Superblock {
                        base: p.base,
                        patches: p.patches,
                        states: &p.states,
                        raw: &p.raw,
                        stream: &readable[..p.stream.len()],
                    },
                    offset: (i * COLS + j) * self.element_bytes,
                    low: &self.low,
                    readable,
                }
            })
            .collect()
    }
}

/// Leaves of every context the largest 64 values that its octave lets it have: an alphabet for registers, as the encoder cuts it.
fn keep_largest(counts: &mut [Vec<u64>], octave: u32) {
    let top = counts
        .iter()
        .enumerate()
        .filter_map(|(k, c)| c.iter().rposition(|&n| n > 0).map(|v| v - ((k / 4) << octave).min(v)))
        .max()
        .unwrap_or(0);
    for (k, counts) in counts.iter_mut().enumerate() {
        let above = top + ((k / 4) << octave);
        counts.iter_mut().enumerate().filter(|&(v, _)| v > above || v + 64 <= above).for_each(|(_, n)| *n = 0);
    }
}

fn decode(criterion: &mut Criterion) {
    let bf16 = HeadLayout::new(16, 6, true).unwrap();
    let fine = HeadLayout::new(16, 5, true).unwrap();
    let int8 = HeadLayout::new(8, 3, false).unwrap();
    let cases = [
        ("bf16 K16 T2 P11", fine, 2, 16, 11, Some(2)),
        ("bf16 K16 T4 P11", fine, 2, 16, 11, Some(4)),
        ("bf16 K16 T8 P11", fine, 2, 16, 11, Some(8)),
        ("bf16 K1 P10", bf16, 2, 1, 10, None),
        ("bf16 K8 P10", bf16, 2, 8, 10, None),
        ("bf16 K16 P10", bf16, 2, 16, 10, None),
        ("bf16 K16 P11", bf16, 2, 16, 11, None),
        ("f32 K16 P10", bf16, 4, 16, 10, None),
        ("int8 K8 P10", int8, 1, 8, 10, None),
    ];
    for (name, layout, element_bytes, contexts, table_bits, mapped) in cases {
        let tensor = Tensor::new(layout, element_bytes, contexts, table_bits, mapped);
        let jobs = tensor.jobs();
        // Aligned as allocators of tensors align.
        let mut buffer = vec![0u8; ROWS * COLS * element_bytes + ALIGN];
        let begin = buffer.as_ptr().align_offset(ALIGN);
        let out = &mut buffer[begin..begin + ROWS * COLS * element_bytes];
        let source = out.to_vec();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(out.len() as u64)).sample_size(20);
        group.bench_function("memcpy", |b| b.iter(|| black_box(&mut *out).copy_from_slice(black_box(&source))));
        for isa in [Isa::Avx512, Isa::Avx2, Isa::Scalar] {
            if !isa.is_available() {
                continue;
            }
            let tables = DecodeTables::new(layout, &tensor.tables).unwrap().with_isa(isa).unwrap();
            group.bench_function(BenchmarkId::new("batch", format!("{isa:?}")), |b| {
                b.iter(|| tables.decode_batch(black_box(&jobs), tensor.target(out)).unwrap());
            });
            group.bench_function(BenchmarkId::new("batch and CRC-32", format!("{isa:?}")), |b| {
                b.iter(|| tables.decode_batch_crc32(black_box(&jobs), tensor.target(out)).unwrap());
            });
            group.bench_function(BenchmarkId::new("single", format!("{isa:?}")), |b| {
                b.iter(|| jobs.iter().for_each(|j| tables.decode_batch(&[*j], tensor.target(out)).unwrap()));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, decode);
criterion_main!(benches);
