use super::*;
use crate::TableSet;
use proptest::prelude::*;

/// Heads whose coded field has about the spread of trained weights, with a few outliers.
fn heads(n: usize, layout: HeadLayout, spread: u32, seed: u64) -> Vec<u16> {
    let mut x = seed | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let mask = (1u64 << layout.coded_bits()) - 1;
    (0..n)
        .map(|_| {
            let fall = (next() | 1 << spread.min(40)).trailing_zeros() as u64;
            let value =
                if next() % 997 == 0 { next() & mask } else { (mask / 2).saturating_sub(fall * 2 + (next() & 1)) };
            layout.join(value as u16, (next() & ((1 << layout.raw_bits()) - 1)) as u16)
        })
        .collect()
}

struct Case {
    shape: Shape,
    layout: HeadLayout,
    heads: Vec<u16>,
    rows: Vec<u8>,
    cols: Vec<i8>,
    tables: TableSet,
}

impl Case {
    fn new(
        rows: usize,
        cols: usize,
        layout: HeadLayout,
        contexts: usize,
        table_bits: u32,
        spread: u32,
        seed: u64,
    ) -> Self {
        let shape = Shape::new(rows, cols).unwrap();
        let heads = heads(shape.elements(), layout, spread, seed);
        let row_classes: Vec<u8> = (0..rows).map(|i| ((i as u64 * 7 + seed) % contexts as u64) as u8).collect();
        let col_classes: Vec<i8> =
            (0..cols).map(|j| ((j as u64 * 5 + seed) % (contexts as u64 + 3)) as i8 - 3).collect();
        let classes = Classes { rows: &row_classes, cols: &col_classes };
        let mut counts = vec![vec![0u64; 1 << layout.coded_bits()]; contexts];
        for i in 0..rows {
            for j in 0..cols {
                let v = usize::from(layout.coded(heads[i * cols + j]));
                // Rare values are left to patches.
                if v >= (1 << layout.coded_bits()) / 8 {
                    counts[classes.context(i, j, contexts)][v] += 1;
                }
            }
        }
        let keep = 1usize << table_bits.min(8);
        let mut totals: Vec<(u64, usize)> =
            (0..1 << layout.coded_bits()).map(|v| (counts.iter().map(|c| c[v]).sum(), v)).collect();
        totals.sort_by(|a, b| b.cmp(a));
        for &(_, v) in totals.iter().skip(keep.min(256)) {
            counts.iter_mut().for_each(|c| c[v] = 0);
        }
        let tables = TableSet::from_counts(table_bits, &counts).unwrap();
        Self { shape, layout, heads, rows: row_classes, cols: col_classes, tables }
    }

    fn classes(&self) -> Classes<'_> {
        Classes { rows: &self.rows, cols: &self.cols }
    }

    fn encode(&self) -> EncodedSuperblock {
        Encoder::new(self.layout, &self.tables).unwrap().encode(&self.heads, self.shape, self.classes()).unwrap()
    }

    fn decode(&self, packed: &EncodedSuperblock) -> Result<Vec<u16>> {
        let bytes = self.layout.bytes();
        let stride = self.shape.cols() * bytes + 6;
        let mut out = vec![0xa5u8; stride * self.shape.rows()];
        DecodeTables::new(self.layout, &self.tables).unwrap().decode(
            self.shape,
            self.classes(),
            view(packed),
            Target { bytes: &mut out, row_stride: stride, element_bytes: bytes, head_offset: 0, low: &[] },
        )?;
        Ok(out
            .chunks(stride)
            .flat_map(|row| {
                assert!(row[self.shape.cols() * bytes..].iter().all(|&b| b == 0xa5), "wrote outside the superblock");
                row[..self.shape.cols() * bytes]
                    .chunks(bytes)
                    .map(|b| b.iter().rev().fold(0u16, |a, &b| a << 8 | u16::from(b)))
            })
            .collect())
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

fn layouts() -> impl Strategy<Value = HeadLayout> {
    prop_oneof![
        (5u8..=11).prop_map(|s| HeadLayout::new(16, s, true).unwrap()),
        (0u8..8).prop_map(|s| HeadLayout::new(8, s, false).unwrap()),
        (0u8..6).prop_map(|s| HeadLayout::new(8, s, true).unwrap()),
        (4u8..8).prop_map(|s| HeadLayout::new(16, s, false).unwrap()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn superblocks_come_back(
        rows in 1usize..=130, cols in 1usize..=64, layout in layouts(), contexts in 1usize..=16,
        bits in 8u32..=12, spread in 0u32..30, seed in any::<u64>(),
    ) {
        let bits = bits.min((32 - layout.coded_bits()) / 2);
        let contexts = contexts.min(1 << (15 - bits));
        let case = Case::new(rows, cols, layout, contexts, bits, spread, seed);
        let packed = case.encode();
        prop_assert_eq!(packed.raw.len(), case.shape.raw_bytes(layout));
        prop_assert_eq!(packed.states.len(), case.shape.state_bytes());
        prop_assert_eq!(case.decode(&packed).unwrap(), case.heads.clone());
    }

    #[test]
    fn damaged_superblocks_are_an_error_or_data(
        rows in 1usize..=70, cols in 1usize..=64, seed in any::<u64>(), part in 0usize..4, at in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let case = Case::new(rows, cols, HeadLayout::new(16, 6, true).unwrap(), 5, 10, 8, seed);
        let mut packed = case.encode();
        match part {
            0 => { let i = at.index(packed.states.len()); packed.states[i] ^= 1 << bit; }
            1 if !packed.raw.is_empty() => { let i = at.index(packed.raw.len()); packed.raw[i] ^= 1 << bit; }
            2 if !packed.stream.is_empty() => { let i = at.index(packed.stream.len()); packed.stream[i] ^= 1 << bit; }
            _ => { let keep = at.index(packed.stream.len() + 1); packed.stream.truncate(keep); packed.base ^= 1 << bit; packed.patches ^= 1 << bit; }
        }
        let _ = case.decode(&packed);
    }
}

#[test]
fn states_of_a_full_superblock_cost_almost_nothing() {
    let layout = HeadLayout::new(16, 6, true).unwrap();
    let (mut spent, mut ideal, mut packed_blocks) = (0.0, 0.0, 0);
    for seed in 0..40 {
        let case = Case::new(64, 64, layout, 8, 10, 12, seed * 77 + 5);
        let packed = case.encode();
        packed_blocks += u32::from(packed.base != PLAIN_STATES);
        let bytes =
            packed.states.len() + packed.raw.len() + packed.stream.len() - PATCH_BYTES * usize::from(packed.patches);
        spent += 8.0 * bytes as f64;
        ideal += 7.0 * 4096.0;
        for (i, row) in case.heads.chunks(64).enumerate() {
            for (j, &h) in row.iter().enumerate() {
                let table = &case.tables.tables()[case.classes().context(i, j, 8)];
                let freq = case.tables.values().binary_search(&layout.coded(h)).map_or(0, |s| table.freqs()[s]);
                let freq = if freq == 0 { *table.freqs().iter().max().unwrap() } else { freq };
                ideal += 10.0 - f64::from(freq).log2();
            }
        }
    }
    assert_eq!(packed_blocks, 40);
    let overhead = (spent - ideal) / 40.0;
    assert!(overhead < 64.0, "a superblock costs {overhead:.1} bits more than its symbols");
    println!("overhead per superblock: {overhead:.1} bits");
}

/// The examples of `docs/format.md`.
#[test]
fn documented_superblocks() {
    let set = |values: [u16; 2]| {
        TableSet::new(values.to_vec(), vec![crate::FrequencyTable::new(8, vec![192, 64]).unwrap()]).unwrap()
    };
    let plain = Encoder::new(HeadLayout::new(8, 0, false).unwrap(), &set([65, 66])).unwrap();
    let (rows, cols) = ([0; 5], [0]);
    let classes = |n: usize| Classes { rows: &rows[..n], cols: &cols };
    let packed = plain.encode(&[65, 66, 65], Shape::new(3, 1).unwrap(), classes(3)).unwrap();
    assert_eq!((packed.base, packed.patches), (PLAIN_STATES, 0));
    assert_eq!((packed.states.as_slice(), packed.raw.len(), packed.stream.len()), (&[0x60, 0x1e, 7, 0][..], 0, 0));

    let carrying = Encoder::new(HeadLayout::new(16, 6, true).unwrap(), &set([250, 251])).unwrap();
    let heads = [0x3e92, 0xbed1, 0x3e80, 0x3ebf, 0xbe81];
    let packed = carrying.encode(&heads, Shape::new(5, 1).unwrap(), classes(5)).unwrap();
    assert_eq!((packed.base, packed.patches), (0, 0));
    assert_eq!(packed.states, [0x38, 0xe7, 0x45, 0x4a]);
    assert_eq!((packed.raw, packed.stream), (vec![0xa4, 0x11, 0, 0], vec![0; 4]));
}
