//! Lanes kernels against the scalar decoder of wcodec-rans, which defines the format: equal bytes, or an error from both.

use proptest::prelude::*;
use wcodec_cuda::{BlockEntry, CudaContext, CudaDecoder, CudaError, DeviceBuffer, DeviceTensor, LanesTensor, Stream};
use wcodec_rans::superblock::{Classes, DecodeTables, Encoder, Shape, Superblock, Target};
use wcodec_rans::{HeadLayout, LANES, TableSet};

/// A stream on the first device, or the reason printed.
fn stream() -> Option<Stream> {
    match CudaContext::new(0).and_then(|context| Stream::new(&context)) {
        Ok(stream) => Some(stream),
        Err(reason @ (CudaError::Driver(_) | CudaError::NoSuchDevice { .. })) => {
            println!("skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 7
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// What a tensor is made from.
#[derive(Clone, Debug)]
struct Spec {
    layout: HeadLayout,
    element_bytes: usize,
    rows: usize,
    cols: usize,
    rest: usize,
    block_rows: usize,
    strips_per_chunk: usize,
    contexts: usize,
    table_bits: u32,
    spread: u32,
    classes: bool,
    low_bits: bool,
    /// About half of the elements are patches.
    patched: bool,
    seed: u64,
}

struct Encoded {
    spec: Spec,
    tables: TableSet,
    row_classes: Vec<u8>,
    col_classes: Vec<i8>,
    low_bits: Vec<u8>,
    blocks: Vec<BlockEntry>,
    chunks: Vec<Vec<u8>>,
    original: Vec<u8>,
}

impl Spec {
    fn encode(&self) -> Encoded {
        let (layout, e) = (self.layout, self.element_bytes);
        let below = e - layout.bytes();
        let mut random = Random(self.seed | 1);
        let mask = (1u64 << layout.coded_bits()) - 1;
        let row_classes: Vec<u8> = (0..self.rows).map(|_| random.below(self.contexts + 2) as u8).collect();
        let col_classes: Vec<i8> = (0..self.cols).map(|_| random.below(self.contexts + 3) as i8 - 3).collect();
        let low_bits: Vec<u8> = (0..self.rows).map(|_| random.below(8 * below + 1) as u8).collect();
        let (row_classes, col_classes) =
            if self.classes { (row_classes, col_classes) } else { (Vec::new(), Vec::new()) };
        let low_bits = if self.low_bits && below > 0 { low_bits } else { Vec::new() };

        let mut original = Vec::with_capacity(self.rows * self.cols * e + self.rest);
        for row in 0..self.rows {
            for _ in 0..self.cols {
                let fall = u64::from((random.next() | 1 << self.spread.min(40)).trailing_zeros());
                let value = match random.next() % 997 {
                    0 => random.next() & mask,
                    n => (mask / 2).saturating_sub(2 * fall + (n & 1)),
                };
                let head = layout.join(value as u16, (random.next() & ((1 << layout.raw_bits()) - 1)) as u16);
                let bits = low_bits.get(row).map_or(8 * below, |&bits| usize::from(bits));
                let low = if bits == 0 { 0 } else { (random.next() & (u64::MAX >> (64 - bits))) << (8 * below - bits) };
                original.extend_from_slice(&low.to_le_bytes()[..below]);
                original.extend_from_slice(&head.to_le_bytes()[..layout.bytes()]);
            }
        }
        original.extend((0..self.rest).map(|_| random.next() as u8));

        let head = |row: usize, col: usize| {
            let at = (row * self.cols + col) * e + below;
            if layout.bytes() == 1 {
                u16::from(original[at])
            } else {
                u16::from_le_bytes([original[at], original[at + 1]])
            }
        };
        let zero_rows = vec![0u8; self.rows];
        let zero_cols = vec![0i8; self.cols];
        let classes = Classes {
            rows: if self.classes { &row_classes } else { &zero_rows },
            cols: if self.classes { &col_classes } else { &zero_cols },
        };
        let mut counts = vec![vec![0u64; 1 << layout.coded_bits()]; self.contexts];
        for row in 0..self.rows {
            for col in 0..self.cols {
                let value = usize::from(layout.coded(head(row, col)));
                // Rare values are left to patches, and frequent ones where many are wanted.
                let fewest =
                    if self.patched { (mask as usize / 2).saturating_sub(1) } else { (1 << layout.coded_bits()) / 8 };
                if value >= fewest {
                    counts[classes.context(row, col, self.contexts)][value] += 1;
                }
            }
        }
        let mut totals: Vec<(u64, usize)> =
            (0..1 << layout.coded_bits()).map(|v| (counts.iter().map(|c| c[v]).sum(), v)).collect();
        totals.sort_by(|a, b| b.cmp(a));
        for &(_, v) in totals.iter().skip(256.min(1 << self.table_bits)) {
            counts.iter_mut().for_each(|c| c[v] = 0);
        }
        let tables = TableSet::from_counts(self.table_bits, &counts).expect("tables");

        let encoder = Encoder::new(layout, &tables).expect("an encoder");
        let strips = self.rows.div_ceil(self.block_rows);
        let (mut blocks, mut chunks) = (Vec::new(), Vec::new());
        for chunk in 0..strips.div_ceil(self.strips_per_chunk) {
            let [mut raw, mut states, mut lows, mut streams] = [const { Vec::new() }; 4];
            let first = chunk * self.strips_per_chunk;
            for strip in first..(first + self.strips_per_chunk).min(strips) {
                let rows = strip * self.block_rows..((strip + 1) * self.block_rows).min(self.rows);
                for col in (0..self.cols).step_by(LANES) {
                    let cols = col..(col + LANES).min(self.cols);
                    let shape = Shape::new(rows.len(), cols.len()).expect("a shape");
                    let heads: Vec<u16> = rows
                        .clone()
                        .flat_map(|row| cols.clone().map(move |col| (row, col)))
                        .map(|(r, c)| head(r, c))
                        .collect();
                    let classes = Classes { rows: &classes.rows[rows.clone()], cols: &classes.cols[cols.clone()] };
                    let packed = encoder.encode(&heads, shape, classes).expect("a superblock");
                    for row in rows.clone().filter(|_| below > 0) {
                        let bits = low_bits.get(row).map_or(8 * below, |&bits| usize::from(bits));
                        let (mut pending, mut filled) = (0u128, 0);
                        for col in cols.clone() {
                            let at = (row * self.cols + col) * e;
                            let mut word = [0; 8];
                            word[..below].copy_from_slice(&original[at..at + below]);
                            let field = u64::from_le_bytes(word).checked_shr((8 * below - bits) as u32).unwrap_or(0);
                            pending |= u128::from(field) << filled;
                            filled += bits;
                            while filled >= 8 {
                                lows.push(pending as u8);
                                pending >>= 8;
                                filled -= 8;
                            }
                        }
                        if filled > 0 {
                            lows.push(pending as u8);
                        }
                    }
                    lows.resize(lows.len().next_multiple_of(4), 0);
                    blocks.push(BlockEntry {
                        stream_words: (packed.stream.len() / 4) as u16,
                        base: packed.base,
                        patches: packed.patches,
                    });
                    raw.extend(packed.raw);
                    states.extend(packed.states);
                    streams.extend(packed.stream);
                }
            }
            chunks.push([raw, states, lows, streams].concat());
        }
        if let Some(last) = chunks.last_mut() {
            last.extend_from_slice(&original[original.len() - self.rest..]);
        }
        Encoded { spec: self.clone(), tables, row_classes, col_classes, low_bits, blocks, chunks, original }
    }
}

impl Encoded {
    fn upload(&self, stream: &Stream) -> Result<DeviceTensor, CudaError> {
        let chunks: Vec<&[u8]> = self.chunks.iter().map(Vec::as_slice).collect();
        DeviceTensor::upload(
            stream,
            &LanesTensor {
                layout: self.spec.layout,
                element_bytes: self.spec.element_bytes,
                rows: self.spec.rows,
                cols: self.spec.cols,
                rest: self.spec.rest,
                block_rows: self.spec.block_rows,
                strips_per_chunk: self.spec.strips_per_chunk,
                tables: &self.tables,
                row_classes: &self.row_classes,
                col_classes: &self.col_classes,
                low_bits: &self.low_bits,
                blocks: &self.blocks,
                chunks: &chunks,
            },
        )
    }

    /// Decodes into poisoned memory with `before` bytes before the tensor and some behind it, which must stay as they are.
    fn decode(&self, stream: &Stream, before: usize) -> Result<Vec<u8>, CudaError> {
        let tensor = self.upload(stream)?;
        let bytes = tensor.decoded_bytes();
        assert_eq!(bytes, self.original.len());
        let poison = vec![0xa5; before + bytes + 200];
        let mut buffer = DeviceBuffer::from_host(stream, &poison)?;
        let out = buffer.sub_slice_mut(before, bytes)?;
        CudaDecoder::new(stream.context()).decode(&tensor, out, stream)?;
        let mut back = vec![0; poison.len()];
        buffer.copy_to_host(stream, 0, &mut back)?;
        assert!(
            back[..before] == poison[..before] && back[before + bytes..] == poison[before + bytes..],
            "wrote outside"
        );
        tensor.check(stream)?;
        Ok(back[before..before + bytes].to_vec())
    }

    /// Which superblocks the scalar decoder rejects, of a tensor that is a single chunk without low bits or rest.
    fn rejected_by_the_cpu(&self) -> (Option<u64>, Vec<u8>) {
        let s = &self.spec;
        let tables = DecodeTables::new(s.layout, &self.tables)
            .and_then(|tables| tables.with_isa(wcodec_rans::Isa::Scalar))
            .expect("tables");
        let mut out = vec![0u8; self.original.len()];
        let bytes = &self.chunks[0];
        let mut shapes = Vec::new();
        for row in (0..s.rows).step_by(s.block_rows) {
            for col in (0..s.cols).step_by(LANES) {
                let shape = Shape::new(s.block_rows.min(s.rows - row), LANES.min(s.cols - col)).expect("a shape");
                shapes.push((row, col, shape));
            }
        }
        let mut raw = 0;
        let mut states: usize = shapes.iter().map(|(_, _, shape)| shape.raw_bytes(s.layout)).sum();
        let mut streams = states + shapes.iter().map(|(_, _, shape)| shape.state_bytes()).sum::<usize>();
        let mut rejected = None;
        for (number, ((row, col, shape), entry)) in shapes.into_iter().zip(&self.blocks).enumerate() {
            let take = |at: &mut usize, len: usize| {
                let part = &bytes[*at..*at + len];
                *at += len;
                part
            };
            let block = Superblock {
                base: entry.base,
                patches: entry.patches,
                raw: take(&mut raw, shape.raw_bytes(s.layout)),
                states: take(&mut states, shape.state_bytes()),
                stream: take(&mut streams, 4 * usize::from(entry.stream_words)),
            };
            let (zero_rows, zero_cols) = (vec![0; shape.rows()], vec![0; shape.cols()]);
            let classes = Classes {
                rows: self.row_classes.get(row..row + shape.rows()).unwrap_or(&zero_rows),
                cols: self.col_classes.get(col..col + shape.cols()).unwrap_or(&zero_cols),
            };
            let target = Target {
                bytes: &mut out[(row * s.cols + col) * s.element_bytes..],
                row_stride: s.cols * s.element_bytes,
                element_bytes: s.element_bytes,
                head_offset: 0,
                low: &[],
            };
            if tables.decode(shape, classes, block, target).is_err() && rejected.is_none() {
                rejected = Some(number as u64);
            }
        }
        (rejected, out)
    }
}

/// Every split of a head that the kernels treat in a way of its own, and elements that hold it.
fn splits() -> Vec<(HeadLayout, usize)> {
    let new = |bits, shift, sign| HeadLayout::new(bits, shift, sign).expect("a layout");
    let mut splits = Vec::new();
    splits.extend((3..=11).map(|shift| (new(16, shift, true), 2)));
    splits.extend((3..=8).map(|shift| (new(16, shift, true), 4)));
    splits.extend((3..=5).map(|shift| (new(16, shift, true), 8)));
    splits.extend((0..=4).map(|shift| (new(8, shift, true), 1)));
    splits.extend((0..=5).map(|shift| (new(8, shift, false), 1)));
    splits.extend([(new(16, 6, false), 2), (new(8, 2, true), 2), (new(8, 1, false), 4)]);
    splits
}

fn spec() -> impl Strategy<Value = Spec> {
    (
        prop::sample::select(splits()),
        (
            1usize..200,
            1usize..200,
            0usize..70,
            prop::sample::select(vec![1usize, 16, 17, 32, 48, 64, 96, 128]),
            1usize..4,
        ),
        (1usize..=16, 8u32..=12, 0u32..30),
        any::<[bool; 3]>(),
        any::<u64>(),
    )
        .prop_map(
            |((layout, element_bytes), (rows, cols, rest, block_rows, strips_per_chunk), tables, flags, seed)| {
                let (contexts, table_bits, spread) = tables;
                let table_bits = table_bits.min((32 - layout.coded_bits()) / 2);
                // Half of the views are of whole superblocks.
                let (rows, cols) =
                    if flags[0] { (rows.next_multiple_of(32), cols.next_multiple_of(64)) } else { (rows, cols) };
                Spec {
                    layout,
                    element_bytes,
                    rows,
                    cols,
                    rest: rest.min(cols - 1) * element_bytes,
                    block_rows,
                    strips_per_chunk,
                    contexts: contexts.min((1 << 15) >> table_bits),
                    table_bits,
                    spread,
                    classes: flags[1],
                    low_bits: flags[2] && seed % 2 == 0,
                    patched: seed % 7 == 0,
                    seed,
                }
            },
        )
}

fn plain(layout: HeadLayout, element_bytes: usize) -> Spec {
    Spec {
        layout,
        element_bytes,
        rows: 128,
        cols: 192,
        rest: 0,
        block_rows: 64,
        strips_per_chunk: 1,
        contexts: 7,
        table_bits: 10.min((32 - layout.coded_bits()) / 2),
        spread: 12,
        classes: true,
        low_bits: false,
        patched: false,
        seed: 99,
    }
}

#[test]
fn every_split_decodes_on_the_fast_path_and_beside_it() {
    let Some(stream) = stream() else { return };
    for (layout, element_bytes) in splits() {
        for (rows, cols, spread) in
            [(128, 192, 12), (128, 192, 0), (160, 64, 30), (150, 100, 8), (1, 1, 3), (33, 65, 5)]
        {
            for block_rows in [64, 32, 512] {
                let spec = Spec { rows, cols, spread, block_rows, ..plain(layout, element_bytes) };
                let encoded = spec.encode();
                assert!(
                    encoded.decode(&stream, 0).unwrap_or_else(|e| panic!("{spec:?}: {e}")) == encoded.original,
                    "{spec:?}"
                );
            }
        }
    }
}

#[test]
fn every_number_of_contexts_and_precision_decodes() {
    let Some(stream) = stream() else { return };
    for table_bits in 8..=12 {
        for contexts in 1..=(32768usize >> table_bits).min(16) {
            let layout = HeadLayout::new(16, 8, true).expect("a layout");
            let spec = Spec { contexts, table_bits: table_bits.min(12), ..plain(layout, 2) };
            let encoded = spec.encode();
            assert!(encoded.decode(&stream, 0).expect("a tensor") == encoded.original, "{spec:?}");
        }
    }
}

#[test]
fn unaligned_outputs_decode() {
    let Some(stream) = stream() else { return };
    for (layout, element_bytes) in splits() {
        let encoded = plain(layout, element_bytes).encode();
        for before in [1, 2, 4, 8] {
            assert!(encoded.decode(&stream, before).expect("a tensor") == encoded.original, "{layout:?} {before}");
        }
    }
}

#[test]
fn batches_decode_as_their_tensors_do() {
    let Some(stream) = stream() else { return };
    let decoder = CudaDecoder::new(stream.context());
    let splits = splits();
    let encoded: Vec<Encoded> = (0..90)
        .map(|i| {
            let (layout, element_bytes) = if i % 3 == 0 { splits[i % splits.len()] } else { splits[3] };
            Spec {
                rows: 16 + 16 * (i % 9),
                cols: 64 * (1 + i % 5),
                contexts: 1 + i % 16,
                seed: i as u64,
                ..plain(layout, element_bytes)
            }
        })
        .map(|spec| spec.encode())
        .collect();
    let tensors: Vec<DeviceTensor> = encoded.iter().map(|e| e.upload(&stream).expect("a tensor")).collect();
    let mut outputs: Vec<DeviceBuffer> = encoded
        .iter()
        .map(|e| DeviceBuffer::from_host(&stream, &vec![0xa5; e.original.len()]).expect("a buffer"))
        .collect();
    decoder
        .decode_batch(tensors.iter().zip(outputs.iter_mut().map(DeviceBuffer::as_slice_mut)), &stream)
        .expect("a launch");
    for ((encoded, tensor), output) in encoded.iter().zip(&tensors).zip(&outputs) {
        tensor.check(&stream).expect("no failure");
        let mut back = vec![0; encoded.original.len()];
        output.copy_to_host(&stream, 0, &mut back).expect("a copy");
        assert!(back == encoded.original, "{:?}", encoded.spec);
    }
    let mut short = DeviceBuffer::zeroed(&stream, 100).expect("a buffer");
    let refused = decoder.decode(&tensors[0], short.as_slice_mut(), &stream);
    assert!(matches!(refused, Err(CudaError::OutOfRange { size: 100, .. })));
}

/// More superblocks than most kernels' warps take in one round, and no more than 32 warps of every multiprocessor do.
#[test]
fn launches_of_one_round_decode() {
    let Some(stream) = stream() else { return };
    let decoder = CudaDecoder::new(stream.context());
    let multiprocessors = stream.context().device().multiprocessors as usize;
    let new = |bits, shift, sign| HeadLayout::new(bits, shift, sign).expect("a layout");
    let layouts = [
        (new(16, 6, true), 2),
        (new(16, 9, true), 2),
        (new(16, 6, true), 4),
        (new(8, 1, true), 1),
        (new(8, 0, false), 1),
        (new(8, 2, false), 1),
    ];
    for (layout, element_bytes) in layouts {
        // Of one tensor, and of several, whose borders lie within blocks' shares.
        for strips in [&[31][..], &[10, 9, 11]] {
            let encoded: Vec<Encoded> = strips
                .iter()
                .map(|strips| {
                    let (rows, cols) = (16 * strips, 64 * multiprocessors);
                    Spec { rows, cols, block_rows: 16, seed: *strips as u64, ..plain(layout, element_bytes) }.encode()
                })
                .collect();
            let tensors: Vec<DeviceTensor> = encoded.iter().map(|e| e.upload(&stream).expect("a tensor")).collect();
            let mut outputs: Vec<DeviceBuffer> = encoded
                .iter()
                .map(|e| DeviceBuffer::from_host(&stream, &vec![0xa5; e.original.len()]).expect("a buffer"))
                .collect();
            decoder
                .decode_batch(tensors.iter().zip(outputs.iter_mut().map(DeviceBuffer::as_slice_mut)), &stream)
                .expect("a launch");
            for ((encoded, tensor), output) in encoded.iter().zip(&tensors).zip(&outputs) {
                tensor.check(&stream).expect("no failure");
                let mut back = vec![0; encoded.original.len()];
                output.copy_to_host(&stream, 0, &mut back).expect("a copy");
                assert!(back == encoded.original, "{layout:?}");
            }
        }
    }
}

#[test]
fn ranges_are_the_bytes_of_the_whole() {
    let Some(stream) = stream() else { return };
    let decoder = CudaDecoder::new(stream.context());
    for (layout, element_bytes) in splits() {
        for (rows, cols, block_rows) in [(200, 192, 64), (200, 100, 32), (49, 65, 17), (64, 128, 64), (130, 640, 64)] {
            let spec =
                Spec { rows, cols, block_rows, rest: 5.min(cols - 1) * element_bytes, ..plain(layout, element_bytes) };
            let encoded = spec.encode();
            let tensor = encoded.upload(&stream).expect("a tensor");
            let size = encoded.original.len();
            let stride = cols * element_bytes;
            let ranges = [
                0..size,
                0..0,
                3 * stride..4 * stride,
                10 * stride..size,
                stride * (block_rows - 1).min(rows)..stride * (2 * block_rows + 1).min(rows),
                stride * block_rows.min(rows)..stride * (2 * block_rows).min(rows),
                7 * element_bytes..size - 2 * element_bytes,
                rows * stride..size,
            ];
            let poison = vec![0xa5; size + 64];
            let mut outputs: Vec<DeviceBuffer> =
                ranges.iter().map(|_| DeviceBuffer::from_host(&stream, &poison).expect("a buffer")).collect();
            let jobs = ranges
                .iter()
                .zip(&mut outputs)
                .map(|(range, output)| (&tensor, range.clone(), output.sub_slice_mut(16, range.len()).expect("room")));
            decoder.decode_ranges(jobs, &stream).expect("a launch");
            tensor.check(&stream).expect("no failure");
            for (range, output) in ranges.iter().zip(&outputs) {
                let mut back = vec![0; poison.len()];
                output.copy_to_host(&stream, 0, &mut back).expect("a copy");
                let (before, rest) = back.split_at(16);
                let (inside, behind) = rest.split_at(range.len());
                assert!(inside == &encoded.original[range.clone()], "{:?} {range:?}", encoded.spec);
                assert!(
                    before.iter().chain(behind).all(|&byte| byte == 0xa5),
                    "{:?} {range:?} wrote outside",
                    encoded.spec
                );
            }
        }
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let Some(stream) = stream() else { return };
    let good = plain(HeadLayout::new(16, 6, true).expect("a layout"), 2).encode();
    let refused = |change: fn(&mut Encoded)| {
        let mut bad = good.spec.encode();
        change(&mut bad);
        matches!(bad.upload(&stream), Err(CudaError::Inconsistent { .. } | CudaError::CorruptSuperblock { .. }))
    };
    assert!(good.upload(&stream).is_ok());
    assert!(refused(|t| t.chunks[0].truncate(100)));
    assert!(refused(|t| t.chunks[1].push(0)));
    assert!(refused(|t| t.blocks[0].stream_words += 1));
    assert!(refused(|t| t.blocks[3].patches = u16::MAX));
    assert!(refused(|t| t.blocks.truncate(3)));
    assert!(refused(|t| t.row_classes.truncate(5)));
    assert!(refused(|t| t.col_classes.push(0)));
    assert!(refused(|t| t.spec.element_bytes = 3));
    assert!(refused(|t| t.spec.block_rows = 0));
    assert!(refused(|t| t.spec.rows = 0));
}

#[test]
fn the_last_patch_of_an_element_counts() {
    let Some(stream) = stream() else { return };
    for (layout, element_bytes) in splits() {
        for cols in [128, 100] {
            // A superblock's patches begin at most three bytes before their own length from its end; all of them become patches of
            // the first two elements, wherever they begin.
            let spec = Spec {
                element_bytes: layout.bytes(),
                cols,
                strips_per_chunk: 1000,
                spread: 2,
                patched: true,
                ..plain(layout, element_bytes)
            };
            let mut encoded = spec.encode();
            let streams: usize = encoded.blocks.iter().map(|block| 4 * usize::from(block.stream_words)).sum();
            let mut end = encoded.chunks[0].len() - streams;
            let mut random = Random(7);
            let mut most = 0;
            for block in &encoded.blocks {
                end += 4 * usize::from(block.stream_words);
                let patches = usize::from(block.patches);
                most = most.max(patches);
                for half in encoded.chunks[0][end - 4 * patches..end].chunks_exact_mut(2) {
                    half.copy_from_slice(&(random.next() as u16 & 1).to_le_bytes());
                }
            }
            assert!(most > 64, "{most} patches");
            let (rejected, expected) = encoded.rejected_by_the_cpu();
            assert_eq!(rejected, None);
            assert!(encoded.decode(&stream, 0).expect("no failure") == expected, "{:?}", encoded.spec);
        }
    }
}

proptest! {
    #[test]
    fn tensors_come_back(spec in spec()) {
        let Some(stream) = stream_once() else { return Ok(()) };
        let encoded = spec.encode();
        prop_assert!(encoded.decode(stream, 0).unwrap_or_else(|e| panic!("{spec:?}: {e}")) == encoded.original, "{:?}", spec);
    }

    #[test]
    fn damage_is_an_error_where_the_cpu_finds_one_and_the_same_bytes_elsewhere(
        spec in spec(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..6),
        index in prop::option::of((any::<prop::sample::Index>(), any::<u8>(), any::<bool>())),
    ) {
        let Some(stream) = stream_once() else { return Ok(()) };
        let element_bytes = spec.layout.bytes();
        let spec = Spec { element_bytes, rest: 0, strips_per_chunk: 1000, ..spec };
        let mut encoded = spec.encode();
        let length = encoded.chunks[0].len();
        for (at, bit) in flips {
            encoded.chunks[0][at.index(length)] ^= 1 << bit;
        }
        if let Some((at, value, base)) = index {
            let at = at.index(encoded.blocks.len());
            let block = &mut encoded.blocks[at];
            if base { block.base = value } else { block.patches = u16::from(value) }
        }
        // The façade and `upload` reject these; the scalar decoder need not see them.
        let on_device = encoded.decode(stream, 0);
        let (rejected, out) = encoded.rejected_by_the_cpu();
        match (on_device, rejected) {
            (Ok(bytes), None) => prop_assert!(bytes == out, "{:?}", spec),
            (Err(CudaError::TruncatedSuperblock { superblock } | CudaError::CorruptSuperblock { superblock }), Some(first)) => {
                // `upload` may find a later one in the index first.
                prop_assert!(superblock >= first, "{:?}", spec);
            }
            (result, rejected) => prop_assert!(false, "{:?}: {:?}, {:?}", spec, result.map(drop), rejected),
        }
    }
}

/// One stream for all cases of a property.
fn stream_once() -> Option<&'static Stream> {
    static STREAM: std::sync::OnceLock<Option<Stream>> = std::sync::OnceLock::new();
    STREAM.get_or_init(stream).as_ref()
}
