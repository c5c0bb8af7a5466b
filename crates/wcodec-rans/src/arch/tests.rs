//! Every instruction set against the scalar decoder, byte for byte.

use proptest::prelude::*;

use super::Isa;
use crate::superblock::{
    Classes, DecodeTables, EncodedSuperblock, Encoder, GROUP_ROWS, Job, Shape, Superblock, Target,
};
use crate::{Context, FrequencyTable, HeadLayout, LANES, RansError, TableSet};

/// Bytes that no decoder may touch.
const CANARY: u8 = 0xa5;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// Tables of the widest range of shapes: even, geometric, and one symbol with all slots but one.
fn tables(random: &mut Random, layout: HeadLayout, contexts: usize, table_bits: u32) -> TableSet {
    let width = layout.coded_bits().min(32 - 2 * table_bits);
    let mut values: Vec<u16> = (0..1u16 << width).collect();
    let wanted = [2 + random.below(255), 2 + random.below(31)][random.below(2) as usize] as usize;
    // Some alphabets leave the upper half of the field to shifts.
    values.truncate((values.len() / (1 + random.below(2) as usize)).max(2));
    while values.len() > wanted.max(2) {
        values.remove(random.below(values.len() as u64) as usize);
    }
    let tables = (0..contexts)
        .map(|_| {
            let kind = random.below(3);
            let mut counts: Vec<u64> = (0..values.len())
                .map(|s| match kind {
                    0 => 1 + random.below(9),
                    1 => (1 << 40) >> (s % 41),
                    _ => 0,
                })
                .collect();
            let top = random.below(values.len() as u64) as usize;
            counts[top] += 1 << 20;
            if counts.iter().filter(|&&c| c > 0).count() > 1 << (table_bits - 1) {
                counts.iter_mut().enumerate().for_each(|(s, c)| *c *= u64::from(s % 2 == top % 2));
            }
            FrequencyTable::from_counts(table_bits, &counts).unwrap()
        })
        .collect();
    if random.below(2) == 0 {
        return TableSet::new(values, tables).unwrap();
    }
    // Contexts mapped to fewer tables, with all shifts that the field and a table's entry have room for.
    let tables: Vec<FrequencyTable> = tables.into_iter().take(1 + random.below(contexts as u64) as usize).collect();
    let room = (1u64 << width) - u64::from(*values.last().unwrap());
    let contexts = (0..contexts)
        .map(|_| Context { table: random.below(tables.len() as u64) as u8, shift: random.below(room) as u16 })
        .collect();
    TableSet::with_contexts(values, tables, contexts).unwrap()
}

/// Superblocks of one tensor, side by side, and where they go.
struct Case {
    shape: Shape,
    tables: DecodeTables,
    rows: Vec<u8>,
    cols: Vec<i8>,
    packed: Vec<EncodedSuperblock>,
    element_bytes: usize,
    head_offset: usize,
    gap: usize,
    low: Vec<u8>,
}

impl Case {
    #[expect(clippy::too_many_arguments, reason = "one argument per dimension of the format")]
    fn new(
        seed: u64,
        rows: usize,
        cols: usize,
        blocks: usize,
        layout: HeadLayout,
        contexts: usize,
        table_bits: u32,
        (element_bytes, head_offset, with_low): (usize, usize, bool),
    ) -> Self {
        let mut random = Random(seed | 1);
        // A set has at most 2^15 entries.
        let contexts = contexts.min(1 << (15 - table_bits));
        let set = tables(&mut random, layout, contexts, table_bits);
        let shape = Shape::new(rows, cols).unwrap();
        // Wild classes saturate at either end.
        let wild = random.below(3) == 0;
        let rows: Vec<u8> = (0..rows).map(|_| random.below(if wild { 256 } else { contexts as u64 }) as u8).collect();
        let cols: Vec<i8> = (0..cols * blocks).map(|_| random.below(if wild { 256 } else { 4 }) as u8 as i8).collect();
        let encoder = Encoder::new(layout, &set).unwrap();
        let packed = cols
            .chunks(shape.cols())
            .map(|cols| {
                let classes = Classes { rows: &rows, cols };
                let heads: Vec<u16> = (0..shape.elements())
                    .map(|n| {
                        let context = set.context(classes.context(n / shape.cols(), n % shape.cols(), contexts));
                        let table = &set.tables()[usize::from(context.table)];
                        let mut slot = random.below(1 << table_bits);
                        let mut symbol = 0;
                        while slot >= u64::from(table.freqs()[symbol]) {
                            slot -= u64::from(table.freqs()[symbol]);
                            symbol += 1;
                        }
                        let value = match random.below(500) {
                            0 => random.below(1 << layout.coded_bits()) as u16,
                            _ => context.value(set.values()[symbol]),
                        };
                        layout.join(value, random.below(1 << layout.raw_bits()) as u16)
                    })
                    .collect();
                encoder.encode(&heads, shape, classes).unwrap()
            })
            .collect();
        let low = (0..if with_low { shape.elements() * head_offset } else { 0 }).map(|_| random.below(256) as u8);
        let low = low.collect();
        let gap = random.below(9) as usize;
        let tables = DecodeTables::new(layout, &set).unwrap();
        Self { shape, tables, rows, cols, packed, element_bytes, head_offset, gap, low }
    }

    /// The whole buffer after decoding, gaps and all, or the error.
    fn decode(&self, isa: Isa, batch: bool) -> Result<Vec<u8>, RansError> {
        let tables = self.tables.clone().with_isa(isa).unwrap();
        let width = self.shape.cols() * self.element_bytes;
        let stride = width * self.packed.len() + self.gap;
        let margin = 3;
        let mut buffer = vec![CANARY; margin + stride * self.shape.rows() + 5];
        let end = margin + stride * (self.shape.rows() - 1) + width * self.packed.len();
        // Every other stream may be read on into what lies behind it.
        let mut streams = Vec::new();
        let mut starts = Vec::new();
        for packed in &self.packed {
            starts.push(streams.len());
            streams.extend_from_slice(&packed.stream);
        }
        streams.extend([CANARY; 100]);
        let jobs: Vec<Job<'_>> = self
            .packed
            .iter()
            .zip(self.cols.chunks(self.shape.cols()))
            .enumerate()
            .map(|(n, (packed, cols))| Job {
                shape: self.shape,
                classes: Classes { rows: &self.rows, cols },
                block: Superblock { stream: &streams[starts[n]..][..packed.stream.len()], ..view(packed) },
                offset: margin + n * width,
                low: &self.low,
                readable: if n % 2 == 0 { &streams[starts[n]..] } else { &[] },
            })
            .collect();
        let (element_bytes, head_offset) = (self.element_bytes, self.head_offset);
        fn target<'a>(bytes: &'a mut [u8], low: &'a [u8], layout: [usize; 3]) -> Target<'a> {
            let [row_stride, element_bytes, head_offset] = layout;
            Target { bytes, row_stride, element_bytes, head_offset, low }
        }
        let layout = [stride, element_bytes, head_offset];
        if batch {
            tables.decode_batch(&jobs, target(&mut buffer[..end], &[], layout))?;
        } else {
            for job in &jobs {
                let target = target(&mut buffer[job.offset..end], &self.low, layout);
                tables.decode(job.shape, job.classes, job.block, target)?;
            }
        }
        for (n, &byte) in buffer.iter().enumerate() {
            let inside = n >= margin && n < end && (n - margin) % stride < width * self.packed.len();
            assert!(inside || byte == CANARY, "byte {n} outside the superblocks was written");
        }
        Ok(buffer)
    }

    /// Two strips of the superblocks without a gap, and the CRC-32 that their decoder gives.
    fn decode_summed(&self, isa: Isa) -> Result<(Vec<u8>, u32), RansError> {
        self.decode_summed_by(&self.tables.clone().with_isa(isa).unwrap())
    }

    fn decode_summed_by(&self, tables: &DecodeTables) -> Result<(Vec<u8>, u32), RansError> {
        let width = self.shape.cols() * self.element_bytes;
        let row_stride = width * self.packed.len();
        let strip = row_stride * self.shape.rows();
        let mut buffer = vec![CANARY; 2 * strip];
        let mut jobs = Vec::new();
        for first in [0, strip] {
            for (n, (packed, cols)) in self.packed.iter().zip(self.cols.chunks(self.shape.cols())).enumerate() {
                let (classes, offset) = (Classes { rows: &self.rows, cols }, first + n * width);
                let block = view(packed);
                jobs.push(Job { shape: self.shape, classes, block, offset, low: &self.low, readable: &[] });
            }
        }
        let (element_bytes, head_offset) = (self.element_bytes, self.head_offset);
        let target = Target { bytes: &mut buffer, row_stride, element_bytes, head_offset, low: &[] };
        let crc = tables.decode_batch_crc32(&jobs, target)?;
        Ok((buffer, crc))
    }

    fn check(&self, isa: Isa) -> Result<(), TestCaseError> {
        let scalar = self.decode(Isa::Scalar, false);
        let dense = self.decode_summed(Isa::Scalar);
        prop_assert!(self.decode_summed(isa) == dense, "other bytes or another CRC-32 than scalar");
        #[cfg(target_arch = "x86_64")]
        if let (Isa::Avx2, Some(token)) = (isa, super::avx2::Avx2::new()) {
            let tables = self.tables.clone().with_backend(super::Backend::Avx2(token.narrow()));
            prop_assert!(self.decode_summed_by(&tables) == dense, "other bytes or another CRC-32 by 128 bits");
        }
        if let Ok((bytes, crc)) = &dense {
            prop_assert_eq!(crc32fast::hash(bytes), *crc);
        }
        for batch in [false, true] {
            let vector = self.decode(isa, batch);
            match (&scalar, &vector) {
                (Ok(a), Ok(b)) => prop_assert!(a == b, "other bytes than scalar"),
                (Err(a), Err(b)) => prop_assert_eq!(a, b),
                (a, b) => prop_assert!(false, "scalar {:?}, vector {:?}", a.as_ref().err(), b.as_ref().err()),
            }
        }
        Ok(())
    }
}

fn view(packed: &EncodedSuperblock) -> Superblock<'_> {
    Superblock {
        base: packed.base,
        patches: packed.patches,
        states: &packed.states,
        raw: &packed.raw,
        stream: &packed.stream,
    }
}

fn every_layout() -> Vec<HeadLayout> {
    let mut layouts = Vec::new();
    for bits in [8, 16] {
        for shift in 0..bits {
            layouts.extend([false, true].into_iter().filter_map(|sign| HeadLayout::new(bits, shift, sign).ok()));
        }
    }
    layouts
}

/// Element sizes and head offsets: heads alone, on top of low bytes given or left alone, and in the middle.
fn places(layout: HeadLayout) -> [(usize, usize, bool); 6] {
    match layout.bytes() {
        1 => [(1, 0, false), (2, 1, true), (2, 1, false), (4, 3, true), (3, 1, false), (1, 0, false)],
        _ => [(2, 0, false), (4, 2, true), (4, 2, false), (8, 6, true), (5, 1, true), (2, 0, false)],
    }
}

macro_rules! same_as_scalar {
    ($($name:ident: $isa:expr),*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn every_layout_precision_and_context_count() {
                if !$isa.is_available() {
                    return;
                }
                let mut seed = 1u64;
                for layout in every_layout() {
                    for table_bits in 8..=12 {
                        for place in places(layout) {
                            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                            let contexts = 1 + (seed >> 7) as usize % 16;
                            let rows = GROUP_ROWS * (1 + (seed >> 13) as usize % 4);
                            let blocks = 1 + (seed >> 17) as usize % 3;
                            let case = Case::new(seed, rows, LANES, blocks, layout, contexts, table_bits, place);
                            case.check($isa).unwrap_or_else(|e| panic!("{layout:?} P {table_bits} {place:?}: {e}"));
                        }
                    }
                }
            }

            proptest! {
                #![proptest_config(ProptestConfig::with_cases(150))]

                #[test]
                fn every_shape(
                    seed: u64, groups in 1usize..=32, ragged in 0usize..16, cols in 1usize..=LANES, full in 0u8..4,
                    blocks in 1usize..=3, layout in prop::sample::select(every_layout()), contexts in 1usize..=16,
                    table_bits in 8u32..=12, place in any::<prop::sample::Index>(),
                ) {
                    if !$isa.is_available() {
                        return Ok(());
                    }
                    let rows = (groups * GROUP_ROWS - if full == 0 { ragged } else { 0 }).clamp(1, 512);
                    let cols = if full == 1 { cols } else { LANES };
                    let place = *place.get(&places(layout));
                    Case::new(seed, rows, cols, blocks, layout, contexts, table_bits, place).check($isa)?;
                }

                #[test]
                fn damage_is_found_alike(
                    seed: u64, groups in 1usize..=5, layout in prop::sample::select(every_layout()),
                    contexts in 1usize..=16, part in 0usize..6, at in any::<prop::sample::Index>(), bit in 0u8..8,
                ) {
                    if !$isa.is_available() {
                        return Ok(());
                    }
                    let mut case =
                        Case::new(seed, groups * GROUP_ROWS, LANES, 2, layout, contexts, 10, places(layout)[0]);
                    let packed = &mut case.packed[(seed % 2) as usize];
                    let flip = |bytes: &mut Vec<u8>| {
                        if !bytes.is_empty() {
                            let n = at.index(bytes.len());
                            bytes[n] ^= 1 << bit;
                        }
                    };
                    match part {
                        0 => flip(&mut packed.states),
                        1 => flip(&mut packed.raw),
                        2 => flip(&mut packed.stream),
                        3 => packed.stream.truncate(at.index(packed.stream.len() + 1)),
                        4 => packed.base ^= 1 << bit,
                        _ => packed.patches ^= 1 << bit,
                    }
                    case.check($isa)?;
                }
            }
        }
    )*};
}

same_as_scalar!(avx512: Isa::Avx512, avx2: Isa::Avx2, auto: Isa::Auto);
