//! Superblocks of any bytes by every instruction set: the same heads as the scalar decoder's, or the same error, and nothing outside of
//! the target written.
#![no_main]

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use wcodec_rans::superblock::{Classes, DecodeTables, Encoder, Job, Shape, Superblock, Target};
use wcodec_rans::{Context, FrequencyTable, HeadLayout, Isa, LANES, TableSet};

const CANARY: u8 = 0xa5;

/// Two superblocks side by side, which vector decoders decode together.
#[derive(Debug)]
struct Case {
    shape: Shape,
    layout: HeadLayout,
    set: TableSet,
    rows: Vec<u8>,
    cols: Vec<i8>,
    element_bytes: usize,
    head_offset: usize,
    low: Vec<u8>,
    blocks: [Block; 2],
}

#[derive(Debug)]
struct Block {
    base: u8,
    patches: u16,
    states: Vec<u8>,
    raw: Vec<u8>,
    stream: Vec<u8>,
}

impl<'a> Arbitrary<'a> for Case {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let refused = |_| libfuzzer_sys::arbitrary::Error::IncorrectFormat;
        let wide = u.arbitrary::<bool>()?;
        let layout =
            HeadLayout::new(if wide { 16 } else { 8 }, u.int_in_range(0..=11)?, u.arbitrary()?).map_err(refused)?;
        let cols = if u.ratio(7, 8)? { LANES } else { u.int_in_range(1..=LANES)? };
        let shape = Shape::new(u.int_in_range(1..=96)?, cols).map_err(refused)?;
        let set = tables(u, layout)?;
        let rows = bytes(u, shape.rows())?;
        let cols: Vec<i8> = bytes(u, shape.cols())?.into_iter().map(|b| b as i8 % 20).collect();
        let head_offset = u.int_in_range(0..=3)?;
        let element_bytes = head_offset + layout.bytes() + usize::from(u.ratio(1u8, 8u8)?);
        let low = if u.arbitrary()? { bytes(u, head_offset * shape.elements())? } else { Vec::new() };
        let classes = Classes { rows: &rows, cols: &cols };
        // A superblock that an encoder wrote, damaged in places; or bytes that nobody wrote.
        let head_mask = if layout.bits() == 16 { u16::MAX } else { 0xff };
        let mut block = || -> Result<Block> {
            if u.ratio(1, 3)? {
                return Ok(Block {
                    base: u.arbitrary()?,
                    patches: u.int_in_range(0..=9)?,
                    states: bytes(u, shape.state_bytes())?,
                    raw: bytes(u, shape.raw_bytes(layout))?,
                    stream: u.arbitrary()?,
                });
            }
            let noise = bytes(u, 3 * shape.elements())?;
            let heads: Vec<u16> = noise
                .chunks(3)
                .enumerate()
                .map(|(n, noise)| {
                    let context = set.context(classes.context(n / shape.cols(), n % shape.cols(), set.contexts()));
                    let freqs = set.tables()[usize::from(context.table)].freqs();
                    let present = (0..freqs.len()).filter(|&s| freqs[s] > 0);
                    let symbol = present.cycle().nth(usize::from(noise[0])).expect("a table has a symbol");
                    let raw = u16::from_le_bytes([noise[1], noise[2]]);
                    match noise[0] {
                        // Most likely a patch.
                        0xff => raw & head_mask,
                        _ => layout
                            .join(context.value(set.values()[symbol]), raw & ((1 << layout.raw_bits()) - 1) as u16),
                    }
                })
                .collect();
            let encoded =
                Encoder::new(layout, &set).map_err(refused)?.encode(&heads, shape, classes).map_err(refused)?;
            let mut block = Block {
                base: encoded.base,
                patches: encoded.patches,
                states: encoded.states,
                raw: encoded.raw,
                stream: encoded.stream,
            };
            for _ in 0..u.int_in_range(0..=4)? {
                let at: usize = u.arbitrary()?;
                match u.int_in_range(0..=4)? {
                    0 => block.base = u.arbitrary()?,
                    1 => block.patches = u.int_in_range(0..=block.patches.saturating_add(3))?,
                    2 => set_byte(&mut block.states, at, u.arbitrary()?),
                    3 => set_byte(&mut block.stream, at, u.arbitrary()?),
                    _ => block.stream.truncate(at % (block.stream.len() + 1)),
                }
            }
            Ok(block)
        };
        let blocks = [block()?, block()?];
        Ok(Self { shape, layout, set, rows, cols, element_bytes, head_offset, low, blocks })
    }
}

fn set_byte(bytes: &mut [u8], at: usize, value: u8) {
    let len = bytes.len().max(1);
    if let Some(byte) = bytes.get_mut(at % len) {
        *byte = value;
    }
}

/// As many bytes as are wanted, from as few as there are.
fn bytes(u: &mut Unstructured<'_>, count: usize) -> Result<Vec<u8>> {
    let mut state = u.arbitrary::<u64>()? | 1;
    let mask = u.arbitrary::<u8>()?;
    Ok((0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8 & mask
        })
        .collect())
}

fn tables(u: &mut Unstructured<'_>, layout: HeadLayout) -> Result<TableSet> {
    let refused = |_| libfuzzer_sys::arbitrary::Error::IncorrectFormat;
    let table_bits = u.int_in_range(8..=12)?;
    let most = *u.choose(&[8u16, 32, 64, 128, 256])?;
    let symbols = u.int_in_range(1..=most)?;
    let step = u.int_in_range(1..=3)?;
    let first = u.int_in_range(0..=(1u16 << layout.coded_bits()) - 1)?;
    let values: Vec<u16> =
        (0..symbols).map(|s| first.saturating_add(s * step)).take_while(|v| v >> layout.coded_bits() == 0).collect();
    let count = u.int_in_range(1..=8)?;
    let mut tables = Vec::new();
    for _ in 0..count {
        let mut counts: Vec<u64> = bytes(u, values.len())?.into_iter().map(|b| u64::from(b) * u64::from(b)).collect();
        counts[0] += 1;
        tables.push(FrequencyTable::from_counts(table_bits, &counts).map_err(refused)?);
    }
    if u.arbitrary()? {
        return TableSet::new(values, tables).map_err(refused);
    }
    let room = (1u16 << layout.coded_bits()) - values.last().expect("one value at least");
    let mut contexts = Vec::new();
    for _ in 0..u.int_in_range(1..=16)? {
        contexts
            .push(Context { table: u.int_in_range(0..=tables.len() as u8 - 1)?, shift: u.int_in_range(0..=room - 1)? });
    }
    TableSet::with_contexts(values, tables, contexts).map_err(refused)
}

fuzz_target!(|case: Case| {
    let Ok(tables) = DecodeTables::new(case.layout, &case.set) else { return };
    let expected = decode(&case, &tables.clone().with_isa(Isa::Scalar).expect("scalar code runs everywhere"));
    for isa in [Isa::Avx2, Isa::Avx512] {
        if let Ok(tables) = tables.clone().with_isa(isa) {
            let got = decode(&case, &tables);
            assert_eq!(got.0, expected.0, "{isa:?}");
            // What a target holds after an error is nobody's business.
            if got.0.is_ok() {
                assert!(got.1 == expected.1, "{isa:?} decodes to other bytes");
            }
        }
    }
});

fn decode(case: &Case, tables: &DecodeTables) -> (wcodec_rans::Result<u32>, Vec<u8>) {
    let shape = case.shape;
    let width = shape.cols() * case.element_bytes;
    let stride = 2 * width;
    let len = stride * shape.rows();
    let margin = 128;
    let mut memory = vec![CANARY; len + 2 * margin];
    let jobs: Vec<Job<'_>> = case
        .blocks
        .iter()
        .enumerate()
        .map(|(b, block)| Job {
            shape,
            classes: Classes { rows: &case.rows, cols: &case.cols },
            block: Superblock {
                base: block.base,
                patches: block.patches,
                states: &block.states,
                raw: &block.raw,
                stream: &block.stream,
            },
            offset: b * width,
            low: &case.low,
            readable: &[],
        })
        .collect();
    let result = tables.decode_batch_crc32(
        &jobs,
        Target {
            bytes: &mut memory[margin..margin + len],
            row_stride: stride,
            element_bytes: case.element_bytes,
            head_offset: case.head_offset,
            low: &[],
        },
    );
    assert!(memory[..margin].iter().chain(&memory[margin + len..]).all(|&b| b == CANARY), "wrote outside the target");
    (result, memory)
}
