//! The parts of the encoder that have a vector form, in the scalar form that defines them.

use super::Backend;
use super::encode_registers::SlotRegisters;
use crate::LANES;
use crate::alias::AliasTable;
use crate::error::{RansError, Result};
use crate::freq::MAX_TABLE_BITS;
use crate::layout::HeadLayout;
use crate::superblock::{Classes, Shape, log2_of_start, raw_position, trade_signs};
use crate::table_set::{Context, TableSet};

/// A slot says how to code one symbol in one context: `freq | begin << 12`, where `begin` is the place of its bias 0 in
/// [`EncodeTables::places`], and [`PATCHED`] where it stands in for a value without one.
pub(crate) type Slot = u32;
/// Mark of a slot that is not its element's own.
pub(crate) const PATCHED: Slot = 1 << 31;

/// Frequencies are below.
const FREQS: usize = 1 << MAX_TABLE_BITS;

/// Frequency of a slot, 1 to 4095.
#[inline]
pub(crate) fn freq(slot: Slot) -> u32 {
    slot & (FREQS as u32 - 1)
}

/// See [`Slot`]; below K·2^P ≤ 2^15.
fn begin(slot: Slot) -> u32 {
    (slot >> 12) & 0x7fff
}

/// A table set laid out for encoding.
#[derive(Debug)]
pub(crate) struct EncodeTables {
    pub(crate) layout: HeadLayout,
    pub(crate) table_bits: u32,
    pub(crate) contexts: usize,
    /// The smallest value of the alphabet.
    pub(crate) first: u16,
    /// Entries of one context: one per value from `first` to the largest, and one for all others.
    pub(crate) width: usize,
    /// `contexts · width` entries.
    entries: Vec<Slot>,
    /// The same for vectors, where there are few enough.
    pub(crate) registers: Option<Box<SlotRegisters>>,
    /// ⌈2^(32+P) / freq⌉ of every frequency that some slot has. For x < freq·2^(32−P), x·reciprocal stays below 2^64 and, shifted right
    /// by 32 + P, is exactly ⌊x / freq⌋, since x·(reciprocal·freq − 2^(32+P)) < freq²·2^(32−P) < 2^(32+P).
    reciprocals: Box<[u64; FREQS]>,
    /// Of every table, in blocks of 2^P, the slot of every symbol's every bias; and one more number, so that every place has 32 bits.
    places: Vec<u16>,
}

impl EncodeTables {
    /// # Errors
    /// [`RansError::BadArgument`] when an alphabet value does not fit the coded field.
    pub(crate) fn new(layout: HeadLayout, set: &TableSet) -> Result<Self> {
        let values = set.values();
        if set.context_tables().any(|(_, c)| values.iter().any(|&v| u32::from(c.value(v)) >> layout.coded_bits() != 0))
        {
            return Err(RansError::BadArgument("alphabet value wider than the coded field"));
        }
        let coded = |c: Context| values.iter().map(move |&v| c.value(v));
        let all = || set.context_tables().flat_map(|(_, c)| coded(c));
        let (first, last) = (all().min().unwrap_or(0), all().max().unwrap_or(0));
        let (p, width) = (set.table_bits(), usize::from(last - first) + 2);
        let mut reciprocals = Box::new([0; FREQS]);
        let mut entries = Vec::with_capacity(set.contexts() * width);
        let mut places = Vec::with_capacity(set.tables().len() << p);
        for table in set.tables() {
            AliasTable::new(table).append_slots(table, &mut places);
        }
        places.push(0);
        for (table, context) in set.context_tables() {
            let starts = table.starts();
            let top = (0..values.len()).max_by_key(|&s| (table.freqs()[s], values.len() - s)).unwrap_or(0);
            let mut entry = |s: usize, mark: Slot| {
                let freq = table.freqs()[s];
                reciprocals[usize::from(freq)] = (1u64 << (32 + p)).div_ceil(u64::from(freq));
                let begin = (u32::from(context.table) << p) + u32::from(starts[s]);
                u32::from(freq) | (begin << 12) | mark
            };
            let from = entries.len();
            entries.resize(from + width, entry(top, PATCHED));
            for (s, v) in coded(context).enumerate().filter(|&(s, _)| table.freqs()[s] != 0) {
                entries[from + usize::from(v - first)] = entry(s, 0);
            }
        }
        let registers = SlotRegisters::new(set, &entries, first, width).map(Box::new);
        let contexts = set.contexts();
        Ok(Self { layout, table_bits: p, contexts, first, width, entries, registers, reciprocals, places })
    }

    /// The slot of every bias at [`begin`] + bias: T·2^P of them.
    pub(crate) fn places(&self) -> &[u16] {
        &self.places[..self.places.len() - 1]
    }

    /// [`EncodeTables::places`], and one number behind them.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn padded_places(&self) -> &[u16] {
        &self.places
    }

    /// Costs of lanes in 1/65536 bit, from the products of their frequencies.
    pub(crate) fn costs(
        &self,
        shape: Shape,
        mantissas: &[f32; LANES],
        exponents: &[u32; LANES],
        out: &mut [u32; LANES],
    ) {
        let all = (shape.rows() as u32 * self.table_bits) << 16;
        for ((out, m), e) in out.iter_mut().zip(mantissas).zip(exponents) {
            // The upper 16 bits of the mantissa, and its leading one.
            let log = log2_of_start(m.to_bits() << 9 >> 16 | 1 << 16) - (16 << 16);
            *out = all - (e << 16) - log;
        }
    }

    /// All entries: `contexts · width`.
    pub(crate) fn entries(&self) -> &[Slot] {
        &self.entries
    }

    /// The state after coding `slot` in state `x`, and whether `x` shed a word first.
    #[inline]
    fn step(&self, x: u32, slot: Slot) -> (u32, bool) {
        let freq = freq(slot);
        let shed = x >= freq << (32 - self.table_bits);
        let x = if shed { x >> 16 } else { x };
        let q = ((u64::from(x) * self.reciprocals[freq as usize]) >> (32 + self.table_bits)) as u32;
        ((q << self.table_bits) + u32::from(self.places[(begin(slot) + x - q * freq) as usize]), shed)
    }
}

/// What the lanes of one superblock do.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// Slot of every element, row by row in lane order.
    pub(crate) slots: Vec<Slot>,
    /// The low half of every state before its step, in the same order.
    pub(crate) words: Vec<u16>,
    /// Per row, something else than 0 if any of its slots is [`PATCHED`].
    pub(crate) patched: Vec<u64>,
    /// Per row, the lanes that shed their low half.
    pub(crate) sheds: Vec<u64>,
    /// The raw field: halfword k of column pair p at `k · pairs + p`.
    pub(crate) halves: Vec<u32>,
}

/// Another run of one lane.
#[derive(Debug)]
pub(crate) struct Turn {
    lane: usize,
    pub(crate) n: u32,
    /// The final state.
    pub(crate) state: u32,
    /// Where its rows begin in [`Turns`], and its place in them.
    first: usize,
    place: usize,
}

/// What was run again.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    turns: Vec<Turn>,
    /// Low halves of the states before every row's step, and which of them are shed: runs side by side.
    rows: Vec<([u16; TOGETHER], u8)>,
}

impl Turns {
    pub(crate) fn clear(&mut self) {
        self.turns.clear();
        self.rows.clear();
    }

    /// The run of a lane with `n`.
    pub(crate) fn find(&self, lane: usize, n: u32) -> Option<&Turn> {
        self.turns.iter().find(|turn| turn.lane == lane && turn.n == n)
    }
}

impl Lanes {
    pub(crate) fn resize(&mut self, shape: Shape, layout: HeadLayout) {
        self.slots.resize(shape.elements(), 0);
        self.words.resize(shape.elements(), 0);
        self.sheds.resize(shape.rows(), 0);
        self.patched.resize(shape.rows(), 0);
        self.halves.resize(shape.pairs() * shape.halfwords(layout), 0);
    }

    /// T of every column, its last two halfwords, in lane order.
    pub(crate) fn tails(&self, shape: Shape) -> [u32; LANES] {
        let (pairs, cols) = (shape.pairs(), shape.cols());
        let (rest, last) = self.halves.split_at(self.halves.len() - pairs);
        let mut tails = [0; LANES];
        let (even, odd) = tails.split_at_mut(pairs);
        for ((t, &low), &high) in even.iter_mut().zip(&rest[rest.len() - pairs..]).zip(last) {
            *t = (low & 0xffff) | (high << 16);
        }
        for ((t, &low), &high) in odd[..cols - pairs].iter_mut().zip(&rest[rest.len() - pairs..]).zip(last) {
            *t = (low >> 16) | (high & 0xffff_0000);
        }
        tails
    }

    /// Row, column and value of every element that has a stand-in.
    pub(crate) fn patches<'a>(
        &'a self,
        layout: HeadLayout,
        heads: &'a [u16],
        shape: Shape,
    ) -> impl Iterator<Item = (usize, usize, u16)> + 'a {
        let rows = self.slots.chunks_exact(shape.cols()).zip(heads.chunks_exact(shape.cols())).enumerate();
        // Most rows have none.
        let rows = rows.zip(&self.patched).filter(|(_, patched)| **patched != 0).map(|(row, _)| row);
        rows.flat_map(move |(i, (slots, heads))| {
            let lanes = slots.iter().zip(shape.lane_columns());
            lanes.filter(|(slot, _)| **slot & PATCHED != 0).map(move |(_, j)| (i, j, layout.coded(heads[j])))
        })
    }

    /// Runs some lanes again, each with an n and from a state x of its own: `(lane, n, x)`. Side by side, since a step is a chain of some
    /// twenty cycles.
    pub(crate) fn run_lanes(
        &self,
        tables: &EncodeTables,
        shape: Shape,
        lanes: &[(usize, u32, u32)],
        turns: &mut Turns,
    ) {
        for lanes in lanes.chunks(TOGETHER) {
            match lanes.len() {
                1 => self.run_together::<1>(tables, shape, lanes, turns),
                2 => self.run_together::<2>(tables, shape, lanes, turns),
                3..=4 => self.run_together::<4>(tables, shape, lanes, turns),
                _ => self.run_together::<TOGETHER>(tables, shape, lanes, turns),
            }
        }
    }

    /// Runs up to N lanes; the last one as often as there are fewer.
    fn run_together<const N: usize>(
        &self,
        tables: &EncodeTables,
        shape: Shape,
        lanes: &[(usize, u32, u32)],
        turns: &mut Turns,
    ) {
        let lane: [(usize, u32, u32); N] = std::array::from_fn(|i| lanes[i.min(lanes.len() - 1)]);
        let mut x = lane.map(|(.., x)| x);
        let first = turns.rows.len();
        turns.rows.resize(first + shape.rows(), ([0; TOGETHER], 0));
        for ((words, sheds), slots) in turns.rows[first..].iter_mut().zip(self.slots.chunks_exact(shape.cols())).rev() {
            for i in 0..N {
                let (next, shed) = tables.step(x[i], slots[lane[i].0]);
                words[i] = x[i] as u16;
                *sheds |= u8::from(shed) << i;
                x[i] = next;
            }
        }
        turns.turns.extend(lanes.iter().enumerate().map(|(place, &(lane, n, _))| Turn {
            lane,
            n,
            state: x[place],
            first,
            place,
        }));
    }

    /// Puts another run in the place of a lane's first.
    pub(crate) fn replace(&mut self, shape: Shape, turns: &Turns, turn: &Turn) {
        let words = self.words.chunks_exact_mut(shape.cols());
        for ((words, sheds), (again, shed)) in words.zip(&mut self.sheds).zip(&turns.rows[turn.first..]) {
            words[turn.lane] = again[turn.place];
            *sheds = (*sheds & !(1 << turn.lane)) | (u64::from(shed >> turn.place & 1) << turn.lane);
        }
    }

    fn slots_scalar(&mut self, tables: &EncodeTables, heads: &[u16], shape: Shape, classes: Classes<'_>) {
        let rows = self.slots.chunks_exact_mut(shape.cols()).zip(heads.chunks_exact(shape.cols()));
        for ((i, (slots, heads)), patched) in rows.enumerate().zip(&mut self.patched) {
            *patched = 0;
            for (slot, j) in slots.iter_mut().zip(shape.lane_columns()) {
                let context = classes.context(i, j, tables.contexts);
                let value = usize::from(tables.layout.coded(heads[j]).wrapping_sub(tables.first));
                *slot = tables.entries[context * tables.width + value.min(tables.width - 1)];
                *patched |= u64::from(*slot & PATCHED);
            }
        }
    }

    /// The product of a lane's frequencies as mantissa and exponent, in floats that every instruction set rounds alike.
    fn costs_scalar(&self, tables: &EncodeTables, shape: Shape, costs: &mut [u32; LANES]) {
        let (mut mantissas, mut exponents) = ([1f32; LANES], [0u32; LANES]);
        for rows in self.slots.chunks(PRODUCT_ROWS * shape.cols()) {
            for slots in rows.chunks_exact(shape.cols()) {
                mantissas.iter_mut().zip(slots).for_each(|(m, &slot)| *m *= freq(slot) as f32);
            }
            for (m, e) in mantissas.iter_mut().zip(&mut exponents) {
                *e += (m.to_bits() >> 23) - 127;
                *m = f32::from_bits(m.to_bits() & 0x7f_ffff | 127 << 23);
            }
        }
        tables.costs(shape, &mantissas, &exponents, costs);
    }

    fn run_scalar(&mut self, tables: &EncodeTables, shape: Shape, states: &mut [u32; LANES]) {
        let cols = shape.cols();
        let rows = self.slots.chunks_exact(cols).zip(self.words.chunks_exact_mut(cols)).zip(&mut self.sheds);
        for ((slots, words), sheds) in rows.rev() {
            *sheds = 0;
            for (lane, ((x, &slot), word)) in states.iter_mut().zip(slots).zip(words).enumerate() {
                let (next, shed) = tables.step(*x, slot);
                *word = *x as u16;
                *sheds |= u64::from(shed) << lane;
                *x = next;
            }
        }
    }

    fn raw_scalar(&mut self, layout: HeadLayout, heads: &[u16], shape: Shape) {
        let (r, pairs) = (layout.raw_bits() as usize, shape.pairs());
        self.halves.fill(0);
        if r == 0 {
            return;
        }
        for (i, row) in heads.chunks_exact(shape.cols()).enumerate() {
            let (k, bit) = raw_position(i, r);
            for (p, pair) in row.chunks(2).enumerate() {
                let mut codes = [layout.raw(pair[0]), pair.get(1).map_or(0, |&h| layout.raw(h))];
                if layout.sign() && pair.len() == 2 {
                    codes = trade_signs(codes);
                }
                for (half, code) in codes.into_iter().enumerate() {
                    let wide = u32::from(code) << bit;
                    self.halves[k * pairs + p] |= (wide & 0xffff) << (16 * half);
                    if bit + r > 16 {
                        self.halves[(k + 1) * pairs + p] |= (wide >> 16) << (16 * half);
                    }
                }
            }
        }
    }

    fn words_scalar(&self, shape: Shape, out: &mut Vec<u8>) {
        for (words, &sheds) in self.words.chunks_exact(shape.cols()).zip(&self.sheds) {
            let mut left = sheds;
            while left != 0 {
                out.extend_from_slice(&words[left.trailing_zeros() as usize].to_le_bytes());
                left &= left - 1;
            }
        }
    }
}

/// Lanes that run again side by side.
const TOGETHER: usize = 8;

/// Rows whose frequencies are multiplied before the product is normalised: 8 · 12 bits fit a float's exponent.
pub(crate) const PRODUCT_ROWS: usize = 8;

/// Least precision P of the vector runs: their quotients, below 2^(32 − P), have to come out of 24-bit floats within one.
#[cfg(target_arch = "x86_64")]
const VECTOR_TABLE_BITS: u32 = 10;

impl Backend {
    /// The heads of a superblock's elements, row by row.
    pub(crate) fn encode_heads(
        self,
        bytes: &[u8],
        row_stride: usize,
        element_bytes: usize,
        layout: HeadLayout,
        shape: Shape,
        heads: &mut [u16],
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) if shape.cols() == LANES && layout.bytes() == 2 && matches!(element_bytes, 2 | 4) => {
                token.encode_heads(bytes, row_stride, element_bytes, heads);
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) if shape.cols() == LANES && layout.bytes() == 2 && matches!(element_bytes, 2 | 4) => {
                token.encode_heads(bytes, row_stride, element_bytes, heads);
            }
            _ => self.heads_of(bytes, row_stride, shape.cols(), element_bytes, layout.bytes(), heads),
        }
    }

    /// Finds every element's slot, and which rows have [`PATCHED`] ones.
    pub(crate) fn encode_slots(
        self,
        tables: &EncodeTables,
        heads: &[u16],
        shape: Shape,
        classes: Classes<'_>,
        lanes: &mut Lanes,
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) if shape.cols() == LANES => token.encode_slots(tables, heads, classes, lanes),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) if shape.cols() == LANES => token.encode_slots(tables, heads, classes, lanes),
            _ => lanes.slots_scalar(tables, heads, shape, classes),
        }
    }

    /// What every lane's slots cost, log2 of the factor by which they make its state grow, in 1/65536 bit.
    pub(crate) fn encode_costs(self, tables: &EncodeTables, shape: Shape, lanes: &Lanes, costs: &mut [u32; LANES]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) if shape.cols() == LANES => token.encode_costs(tables, shape, lanes, costs),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) if shape.cols() == LANES => token.encode_costs(tables, shape, lanes, costs),
            _ => lanes.costs_scalar(tables, shape, costs),
        }
    }

    /// Runs every lane of one superblock, or of two of one shape, from its state over all rows, last to first.
    pub(crate) fn encode_run<const N: usize>(
        self,
        tables: &EncodeTables,
        shape: Shape,
        lanes: [&mut Lanes; N],
        states: [&mut [u32; LANES]; N],
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) if shape.cols() == LANES && tables.table_bits >= VECTOR_TABLE_BITS => {
                token.encode_run(tables, lanes, states);
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) if shape.cols() == LANES && tables.table_bits >= VECTOR_TABLE_BITS => {
                token.encode_run(tables, lanes, states);
            }
            _ => lanes.into_iter().zip(states).for_each(|(lanes, states)| lanes.run_scalar(tables, shape, states)),
        }
    }

    /// Packs the raw codes.
    pub(crate) fn encode_raw(self, layout: HeadLayout, heads: &[u16], shape: Shape, lanes: &mut Lanes) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) if shape.cols() == LANES && layout.raw_bits() > 0 => {
                token.encode_raw(layout, heads, &mut lanes.halves);
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) if shape.cols() == LANES && layout.raw_bits() > 0 => {
                token.encode_raw(layout, heads, &mut lanes.halves);
            }
            _ => lanes.raw_scalar(layout, heads, shape),
        }
    }

    /// Appends the shed words in the order in which a decoder takes them.
    pub(crate) fn encode_words(self, shape: Shape, lanes: &Lanes, out: &mut Vec<u8>) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) if shape.cols() == LANES => token.encode_words(lanes, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) if shape.cols() == LANES => token.encode_words(lanes, out),
            _ => lanes.words_scalar(shape, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::superblock::{Classes, EncodedSuperblock, Encoder, Shape, Source, Task, Workspace};
    use crate::{Context, HeadLayout, Isa, TableSet};
    use proptest::prelude::*;

    fn layouts() -> impl Strategy<Value = HeadLayout> {
        prop_oneof![
            (4u8..=12).prop_map(|s| HeadLayout::new(16, s, true).unwrap()),
            (0u8..8).prop_map(|s| HeadLayout::new(8, s, false).unwrap()),
            (0u8..6).prop_map(|s| HeadLayout::new(8, s, true).unwrap()),
            (4u8..8).prop_map(|s| HeadLayout::new(16, s, false).unwrap()),
        ]
    }

    /// Tables of every slope: one or two symbols with nearly all slots, many with one each, anything between.
    fn tables(layout: HeadLayout, contexts: usize, p: u32, slope: u32, seed: u64) -> TableSet {
        let values = 1usize << layout.coded_bits();
        let mut x = seed | 1;
        let counts: Vec<Vec<u64>> = (0..contexts)
            .map(|k| {
                let mut counts = vec![0; values];
                for i in 0..(1 + (seed as usize >> 3) % 200).min(values) {
                    x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    counts[(i * 7 + k + seed as usize % 5) % values] =
                        (1u64 << 40) >> ((i as u32 * slope / 4).min(40)) | (x >> 60);
                }
                counts
            })
            .collect();
        let kept: Vec<usize> = (0..values).filter(|&v| counts.iter().any(|c| c[v] > 0)).take(250.min(1 << p)).collect();
        let counts: Vec<Vec<u64>> =
            counts.iter().map(|c| (0..values).map(|v| if kept.contains(&v) { c[v] } else { 0 }).collect()).collect();
        if seed & 2 == 0 {
            return TableSet::from_counts(p, &counts).unwrap();
        }
        // Contexts of few tables, with the shifts that the values leave room for.
        let tables = 1 + seed as usize / 4 % contexts;
        let last = *kept.last().unwrap_or(&0);
        let context = |k: usize| Context { table: (k % tables) as u8, shift: (k * 3 % (values - last)) as u16 };
        TableSet::pooled(p, &counts, (0..contexts).map(context).collect())
            .unwrap_or_else(|_| TableSet::from_counts(p, &counts).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn every_instruction_set_writes_the_same_bytes(
            rows in 1usize..=140, cols in prop_oneof![4 => Just(64usize), 1 => 1usize..64], layout in layouts(), contexts in 1usize..=16,
            p in 8u32..=12, slope in 0u32..20, stray in 0u32..3, seed in any::<u64>(),
        ) {
            let p = p.min((32 - layout.coded_bits()) / 2);
            let contexts = contexts.min(1 << (15 - p));
            let set = tables(layout, contexts, p, slope, seed);
            let shape = Shape::new(rows, cols).unwrap();
            let mut x = seed | 1;
            let mut next = || { x ^= x << 13; x ^= x >> 7; x ^= x << 17; x };
            let heads: Vec<u16> = (0..shape.elements()).map(|_| {
                let value = match next() % 8 {
                    // Strays may have no slot anywhere.
                    0 if stray > 0 => next() as u16 & ((1 << layout.coded_bits()) - 1),
                    1 => set.values()[next() as usize % set.values().len()],
                    _ => {
                        let context = set.context(next() as usize % contexts);
                        let table = &set.tables()[usize::from(context.table)];
                        let mut slot = (next() & ((1 << p) - 1)) as u32;
                        let s = table.freqs().iter().position(|&f| if slot < u32::from(f) { true } else { slot -= u32::from(f); false });
                        context.value(set.values()[s.unwrap()])
                    }
                };
                layout.join(value, next() as u16 & ((1 << layout.raw_bits()) - 1))
            }).collect();
            let row_classes: Vec<u8> = (0..rows).map(|_| (next() % 18) as u8).collect();
            let col_classes: Vec<i8> = (0..cols).map(|_| (next() % 12) as i8 - 6).collect();
            let classes = Classes { rows: &row_classes, cols: &col_classes };
            let scalar = Encoder::new(layout, &set).unwrap().with_isa(Isa::Scalar).unwrap().encode(&heads, shape, classes).unwrap();
            // Two side by side, the other way round.
            let bytes: Vec<u8> = heads.iter().flat_map(|h| h.to_le_bytes().into_iter().take(layout.bytes())).collect();
            let source = Source { bytes: &bytes, row_stride: cols * layout.bytes(), element_bytes: layout.bytes() };
            let turned_classes: Vec<u8> = row_classes.iter().rev().copied().collect();
            let turned = Classes { rows: &turned_classes, cols: &col_classes };
            let second = Encoder::new(layout, &set).unwrap().with_isa(Isa::Scalar).unwrap().encode(&heads, shape, turned).unwrap();
            for isa in [Isa::Scalar, Isa::Avx2, Isa::Avx512].into_iter().filter(|i| i.is_available()) {
                let encoder = Encoder::new(layout, &set).unwrap().with_isa(isa).unwrap();
                prop_assert_eq!(&encoder.encode(&heads, shape, classes).unwrap(), &scalar);
                let [mut states, mut others] = [(); 2].map(|()| vec![0; shape.state_bytes()]);
                let [mut raw, mut other_raw] = [(); 2].map(|()| vec![0; shape.raw_bytes(layout)]);
                let mut stream = Vec::new();
                let tasks = [
                    Task { source, classes, states: &mut states, raw: &mut raw },
                    Task { source, classes: turned, states: &mut others, raw: &mut other_raw },
                ];
                let two = encoder.append(shape, tasks, &mut Workspace::default(), &mut stream).unwrap();
                let mut at = 0;
                for (one, encoded, states, raw) in [(&scalar, two[0], states, raw), (&second, two[1], others, other_raw)] {
                    let stream = stream[at..at + encoded.stream_bytes].to_vec();
                    at += encoded.stream_bytes;
                    let (base, patches) = (encoded.base, encoded.patches);
                    prop_assert_eq!(&EncodedSuperblock { base, patches, states, raw, stream }, one);
                }
            }
        }
    }

    /// Every frequency with states at the edges of its quotients: what the vector form's float quotients have to get right.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn quotients_are_exact_at_their_edges() {
        use super::{EncodeTables, Lanes};
        use crate::arch::Backend;
        use crate::{FrequencyTable, LANES};

        let backends = || [Isa::Avx2, Isa::Avx512].into_iter().filter_map(Backend::new);
        let layout = HeadLayout::new(16, 6, true).unwrap();
        let shape = Shape::new(1, LANES).unwrap();
        for p in 10..=12u32 {
            for freq in 1..1u32 << p {
                let table = FrequencyTable::new(p, vec![freq as u16, ((1 << p) - freq) as u16]).unwrap();
                let tables = EncodeTables::new(layout, &TableSet::new(vec![0, 1], vec![table]).unwrap()).unwrap();
                let limit = u64::from(freq) << (32 - p);
                let quotients = limit / u64::from(freq);
                let mut states = [0u32; LANES];
                for (i, x) in states.iter_mut().enumerate() {
                    // Around multiples of freq near the upper end, in the middle and near the lower end, and just shed states.
                    let multiple = match i % 4 {
                        0 => quotients - (i as u64 / 4) / 3,
                        1 => quotients / 2 + i as u64 * 97,
                        2 => (1 << 16) / u64::from(freq) + 1 + i as u64 / 12,
                        _ => quotients - i as u64 * 131,
                    };
                    let edge =
                        (multiple * u64::from(freq) + 1 - (i as u64 / 4) % 3).clamp(1 << 16, u64::from(u32::MAX));
                    *x = edge as u32;
                }
                let mut lanes = Lanes::default();
                lanes.resize(shape, layout);
                lanes.slots.fill(tables.entries()[0]);
                let mut scalar = states;
                lanes.run_scalar(&tables, shape, &mut scalar);
                for backend in backends() {
                    let mut vector = states;
                    backend.encode_run(&tables, shape, [&mut lanes], [&mut vector]);
                    assert_eq!(vector, scalar, "{:?}, P {p}, frequency {freq}", backend.isa());
                }
            }
        }
    }
}
