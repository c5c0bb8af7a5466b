//! Comparing splits, precisions and alphabets for given classes: all by an estimate, the best by their real tables.

use std::sync::LazyLock;

use wcodec_rans::freq::{MAX_ENTRIES, MAX_SYMBOLS, MAX_TABLE_BITS};
use wcodec_rans::{Context, FrequencyTable, HeadLayout, TableSet, alias};

use super::classes::Classes;
use super::counts::Counts;
use super::table_map::{Place, TableMap};
use super::{Effort, Plan, View};
use crate::lanes::{Geometry, LanesParams};

/// Bits of a patched element: the patch, and the symbol that stands in.
const PATCH_BITS: f64 = 36.0;
/// Sizes of alphabets that decoders have a faster form for: the others' values become patches.
const ALPHABETS: [usize; 4] = [16, 32, 64, MAX_SYMBOLS];

/// The best way found to code a tensor with given classes.
pub(super) struct Pricing {
    classes: Classes,
    layout: HeadLayout,
    tables: TableSet,
    table_bytes: Vec<u8>,
    counts: Counts,
    /// As [`Plan::bytes`].
    bytes: u64,
    /// Those, and what decoding them slowly is worth.
    pub(super) cost: f64,
}

/// What one split of the heads, with contexts or without, gives to count.
struct Split {
    layout: HeadLayout,
    /// Counts of every context and coded value.
    counts: Counts,
    /// If contexts are mapped: which table each has, and the counts of every table.
    map: Option<(Vec<Context>, Counts)>,
    /// Elements whose values no symbol can stand for.
    lost: u64,
}

/// One split, precision and alphabet, by its estimate.
struct Candidate<'a> {
    cost: f64,
    split: &'a Split,
    table_bits: u32,
    /// Which of the tables' values have a slot.
    kept: Vec<bool>,
}

impl Split {
    fn new(layout: HeadLayout, counts: Counts, map: Option<&TableMap>, octave_bits: Option<u32>) -> Self {
        // Values do not shift by octaves where there is less than one to an octave, nor those of integers, whose contexts all lie in one.
        let step = octave_bits.map_or(Some(0), |bits| bits.checked_sub(layout.shift()));
        let Some((map, step)) = map.zip(step).filter(|_| counts.contexts() > 1) else {
            return Self { layout, counts, map: None, lost: 0 };
        };
        let context = |place: &Place| Context { table: place.table, shift: u16::from(place.octaves) << step };
        let map: Vec<Context> = map.contexts.iter().map(context).collect();
        let (pools, lost) = counts.pooled(&map, layout.coded_bits());
        Self { layout, counts, map: Some((map, pools)), lost }
    }

    /// The counts that tables are made from.
    fn pools(&self) -> &Counts {
        self.map.as_ref().map_or(&self.counts, |(_, pools)| pools)
    }
}

/// log2 of every frequency.
static LOGS: LazyLock<Vec<f64>> = LazyLock::new(|| (0..=1u64 << MAX_TABLE_BITS).map(|f| log2(f.max(1))).collect());

impl Pricing {
    /// The best pricing if it beats `best`. Tables come from `rows`, or from all; with `flat_too` a single context is considered, too.
    pub(super) fn new(
        view: &View<'_>,
        classes: Classes,
        rows: Option<&[usize]>,
        low_bits: &[u8],
        effort: Effort,
        best: Option<&Self>,
        flat_too: bool,
    ) -> Option<Self> {
        let g = view.geometry;
        let counted = Counts::of(view, &classes, rows);
        let scale = (g.rows * g.cols) as f64 / counted.total().max(1) as f64;
        let fixed = fixed_bytes(view, low_bits) as f64;
        let class_bytes = class_bytes(&classes) as f64;

        let octave_bits = view.format.octave_bits();
        let mut splits = Vec::new();
        for shift in view.format.shifts_with(effort.tuning.max_mantissa_bits) {
            let layout = view.format.layout(shift);
            let counts = counted.coarser(u32::from(shift - view.format.finest()));
            if flat_too && classes.contexts > 1 {
                splits.push(Split::new(layout, counts.merged(), None, None));
            }
            splits.push(Split::new(layout, counts, classes.map.as_ref(), octave_bits));
        }
        let told = |split: &Split| {
            split_bytes(&g, split.layout) as f64 + fixed + if split.counts.contexts() > 1 { class_bytes } else { 0.0 }
        };
        let mut candidates = Vec::new();
        for split in &splits {
            for &p in effort.table_bits {
                if 2 * p + split.layout.coded_bits() <= 32 && split.counts.contexts() << p <= MAX_ENTRIES {
                    consider(&mut candidates, split, p, |bits| scale * bits / 8.0 + told(split));
                }
            }
        }
        candidates.sort_by(|a, b| a.cost.total_cmp(&b.cost));
        let mut exact = 0;
        let near = candidates.first()?.cost * 1.001;
        let mut bound = best.map(|b| b.cost);
        let mut found: Option<Self> = None;
        for candidate in &candidates {
            let hopeless = bound.is_some_and(|b| candidate.cost > b * 1.002);
            if hopeless || exact == effort.exact || (exact > 0 && candidate.cost > near) {
                break;
            }
            let Some((tables, bits)) = candidate.tables() else { continue };
            exact += 1;
            let split = candidate.split;
            let table_bytes = tables.to_bytes();
            let bytes = scale * bits / 8.0 + table_bytes.len() as f64 + told(split);
            let cost = bytes * (1.0 + slowness(tables.tables().len(), tables.symbols()));
            if bound.is_none_or(|b| cost < b) {
                bound = Some(cost);
                let classes = if split.counts.contexts() > 1 { classes.clone() } else { Classes::none() };
                let (layout, counts, bytes) = (split.layout, split.counts.clone(), bytes as u64);
                found = Some(Self { classes, layout, tables, table_bytes, counts, bytes, cost });
            }
        }
        found
    }

    pub(super) fn plan(self, view: &View<'_>, low_bits: Vec<u8>) -> Plan {
        let Self { mut classes, layout, tables, table_bytes, counts, bytes, .. } = self;
        let flat = classes.contexts == 1;
        if flat || classes.rows.iter().all(|&c| c == 0) {
            classes.rows = Vec::new();
        }
        if flat || classes.cols.iter().all(|&c| c == 0) {
            classes.cols = Vec::new();
        }
        let params = LanesParams {
            geometry: view.geometry,
            layout,
            dropped: view.format.dropped,
            row_classes: classes.rows,
            col_classes: classes.cols,
            low_bits,
        };
        Plan { params, tables, table_bytes, counts, bytes }
    }
}

/// What decoding slowly is worth, as a part of the size, by the entries that a vector decoder keeps: T tables of B buckets (see
/// [`wcodec_rans::alias`]). Up to 128, 256 and 512 are looked up in 2, 4 and 8 registers each, at about 1, 5/6 and 2/3 of the
/// speed (`cargo bench -p wcodec-rans`); more in memory, at half of it.
fn slowness(tables: usize, symbols: usize) -> f64 {
    match tables * alias::buckets(symbols) {
        0..=128 => 0.0,
        129..=256 => 0.0003,
        257..=512 => 0.0010,
        _ => 0.0025,
    }
}

/// Adds the estimates of a split at precision `p` with different alphabets. `bytes` tells the size from the bits of the coded fields.
fn consider<'a>(candidates: &mut Vec<Candidate<'a>>, split: &'a Split, p: u32, bytes: impl Fn(f64) -> f64) {
    // What a value's slots are worth in all tables.
    let pools = split.pools();
    let mut worth = vec![0u64; pools.width()];
    for of in pools.each() {
        let total: u64 = of.iter().sum();
        for (worth, &n) in worth.iter_mut().zip(of) {
            if n > 0 && worth_a_slot(n, total, p) {
                *worth += n;
            }
        }
    }
    let mut ranks: Vec<usize> = (0..worth.len()).filter(|&v| worth[v] > 0).collect();
    ranks.sort_by_key(|&v| std::cmp::Reverse(worth[v]));
    let mut least = f64::INFINITY;
    for &symbols in ALPHABETS.iter().rev().filter(|&&s| s < ranks.len() || s == MAX_SYMBOLS) {
        let mut kept = vec![false; worth.len()];
        ranks.iter().take(symbols).for_each(|&v| kept[v] = true);
        let bits = estimate(pools, &kept, p) + split.lost as f64 * PATCH_BITS;
        // Smaller alphabets cost ever more.
        if bits > least * 1.01 {
            break;
        }
        least = least.min(bits);
        let slowness = slowness(pools.contexts(), ranks.len().min(symbols));
        let cost = bytes(bits + 8.0 * table_bytes(pools, &kept, p)) * (1.0 + slowness);
        candidates.push(Candidate { cost, split, table_bits: p, kept });
    }
}

/// A table set in the form that prices counts: the bits of values in every context.
#[derive(Debug, Clone)]
pub(crate) struct TableCosts {
    contexts: usize,
    /// Value and bits of every symbol, context by context.
    symbols: Vec<(u16, f32)>,
}

impl TableCosts {
    pub(crate) fn new(tables: &TableSet) -> Self {
        let p = f64::from(tables.table_bits());
        let bits = |f: u16| if f == 0 { PATCH_BITS as f32 } else { (p - LOGS[usize::from(f)]) as f32 };
        let of_context = |(table, context): (&FrequencyTable, Context)| {
            let symbols = tables.values().iter().zip(table.freqs());
            symbols.map(|(&v, &f)| (context.value(v), bits(f))).collect::<Vec<_>>()
        };
        Self { contexts: tables.contexts(), symbols: tables.context_tables().flat_map(of_context).collect() }
    }

    /// Bits of coding `counts`, patches for what has no slot included; `None` for another number of contexts.
    pub(crate) fn bits(&self, counts: &Counts) -> Option<f64> {
        if self.contexts != counts.contexts() {
            return None;
        }
        let (mut sum, mut coded) = (0.0, 0);
        for (of, symbols) in counts.each().zip(self.symbols.chunks_exact(self.symbols.len() / self.contexts)) {
            for &(value, bits) in symbols {
                let n = count_of(of, counts.first(), value);
                coded += n;
                sum += n as f64 * f64::from(bits);
            }
        }
        Some(sum + (counts.total() - coded) as f64 * PATCH_BITS)
    }
}

/// The count of a value in counts from `first` on.
fn count_of(counts: &[u64], first: usize, value: u16) -> u64 {
    usize::from(value).checked_sub(first).and_then(|v| counts.get(v)).copied().unwrap_or(0)
}

impl Candidate<'_> {
    /// Tables, leaving values to patches where a slot would cost more, and the bits that coding with them takes.
    fn tables(&self) -> Option<(TableSet, f64)> {
        let pools = self.split.pools();
        let mut values: Vec<u16> =
            (pools.first()..).zip(&self.kept).filter(|(_, kept)| **kept).map(|(v, _)| v as u16).collect();
        // A table needs two symbols; an idle one beside a constant costs 2^-P of a bit.
        let lacking = 2usize.saturating_sub(values.len());
        let fillers: Vec<u16> = (0..2).filter(|v| !values.contains(v)).take(lacking).collect();
        values.extend(fillers);
        values.sort_unstable();
        let (mut tables, mut bits) = (Vec::with_capacity(pools.contexts()), self.split.lost as f64 * PATCH_BITS);
        for of in pools.each() {
            let total: u64 = of.iter().sum();
            let (mut dense, mut coded) = (vec![0; values.len()], 0);
            for (dense, &value) in dense.iter_mut().zip(&values) {
                let n = count_of(of, pools.first(), value);
                if n > 0 && worth_a_slot(n, total, self.table_bits) {
                    *dense = n;
                    coded += n;
                }
            }
            let table = FrequencyTable::from_counts(self.table_bits, &dense).ok()?;
            let p = f64::from(self.table_bits);
            let of_symbols = dense.iter().zip(table.freqs()).filter(|(n, _)| **n > 0);
            bits += of_symbols.map(|(&n, &f)| n as f64 * (p - LOGS[usize::from(f)])).sum::<f64>();
            bits += (total - coded) as f64 * PATCH_BITS;
            tables.push(table);
        }
        let set = match &self.split.map {
            Some((map, _)) => TableSet::with_contexts(values, tables, map.clone()),
            None => TableSet::new(values, tables),
        };
        Some((set.ok()?, bits))
    }
}

/// Whether `count` of `total` elements lose more as patches than others by one slot less.
fn worth_a_slot(count: u64, total: u64, table_bits: u32) -> bool {
    let slot_bits = total as f64 * std::f64::consts::LOG2_E / f64::from(1u32 << table_bits) + 6.0;
    count as f64 * (PATCH_BITS - f64::from(table_bits)) >= slot_bits
}

/// About the bits that tables of precision `table_bits` for the values `kept` would code `counts` in: frequencies simply rounded.
fn estimate(counts: &Counts, kept: &[bool], table_bits: u32) -> f64 {
    let slots = f64::from(1u32 << table_bits);
    let of_context = |counts: &[u64]| {
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return 0.0;
        }
        let per_count = slots / total as f64;
        let (mut bits, mut sum, mut coded) = (0.0, 0u64, 0u64);
        for (&n, &kept) in counts.iter().zip(kept).filter(|(n, _)| **n > 0) {
            let share = n as f64 * per_count;
            if !kept || (share < 1.0 && !worth_a_slot(n, total, table_bits)) {
                bits += n as f64 * PATCH_BITS;
                continue;
            }
            let freq = ((share + 0.5) as u64).clamp(1, (1 << table_bits) - 1);
            bits -= n as f64 * LOGS[freq as usize];
            sum += freq;
            coded += n;
        }
        bits + coded as f64 * log2(sum.max(1))
    };
    counts.each().map(of_context).sum()
}

/// About the bytes of serialised tables.
fn table_bytes(counts: &Counts, kept: &[bool], table_bits: u32) -> f64 {
    let of_context = |counts: &[u64]| {
        let total: u64 = counts.iter().sum();
        let kept =
            counts.iter().zip(kept).filter(|(n, kept)| **kept && **n > 0 && worth_a_slot(**n, total, table_bits));
        kept.map(|(&n, _)| {
            let freq = (n << table_bits) / total.max(1);
            0.8 * f64::from(64 - freq.leading_zeros()) + 1.2
        })
        .sum::<f64>()
    };
    counts.each().map(of_context).sum::<f64>() / 8.0 + 20.0
}

/// log2, the same on every platform: only +, −, × and ÷, which are rounded alike everywhere.
fn log2(n: u64) -> f64 {
    let exponent = n.ilog2();
    let m = n as f64 / (1u64 << exponent) as f64; // in [1, 2)
    let (m, exponent) =
        if m > std::f64::consts::SQRT_2 { (m / 2.0, f64::from(exponent + 1)) } else { (m, f64::from(exponent)) };
    let z = (m - 1.0) / (m + 1.0);
    let z2 = z * z;
    let series = 1.0 + z2 * (1.0 / 3.0 + z2 * (1.0 / 5.0 + z2 * (1.0 / 7.0 + z2 * (1.0 / 9.0 + z2 / 11.0))));
    exponent + 2.0 * std::f64::consts::LOG2_E * z * series
}

/// Bytes that no split changes: low bits, rest, the directory's few numbers.
fn fixed_bytes(view: &View<'_>, low_bits: &[u8]) -> u64 {
    let g = &view.geometry;
    let low_bytes = view.format.bytes - usize::from(view.format.head_bits / 8);
    let low: u64 = if low_bits.is_empty() {
        (g.rows * g.cols * low_bytes) as u64
    } else {
        low_bits.iter().map(|&b| (g.cols * usize::from(b)) as u64 / 8).sum::<u64>() + class_map_bytes(low_bits)
    };
    low + (g.rest * g.element_bytes) as u64 + 16
}

/// Bytes of raw codes and of what superblocks cost beyond their symbols: an index entry and, where no raw field fills the states, three
/// bytes per lane.
fn split_bytes(g: &Geometry, layout: HeadLayout) -> u64 {
    let carried = g.shape(0, 0).raw_bytes(layout) > 0;
    let overhead = if carried { 5 } else { 5 + 3 * g.cols.min(wcodec_rans::LANES) as u64 };
    (g.rows * g.cols) as u64 * u64::from(layout.raw_bits()) / 8 + g.blocks() as u64 * overhead
}

fn class_bytes(classes: &Classes) -> u64 {
    if classes.contexts == 1 {
        return 0;
    }
    let cols: Vec<u8> = classes.cols.iter().map(|&c| c as u8).collect();
    class_map_bytes(&classes.rows) + class_map_bytes(&cols)
}

/// About the bytes of a class map in an adaptive code: its entropy, and something for learning it.
fn class_map_bytes(classes: &[u8]) -> u64 {
    let mut counts = [0u64; 256];
    classes.iter().for_each(|&c| counts[usize::from(c)] += 1);
    let used: Vec<u64> = counts.into_iter().filter(|&n| n > 0).collect();
    if used.len() < 2 {
        return 0;
    }
    let total = log2(classes.len() as u64);
    let bits: f64 = used.iter().map(|&n| n as f64 * (total - log2(n))).sum();
    (bits / 8.0) as u64 + used.len() as u64 + 4
}

#[cfg(test)]
mod tests {
    #[test]
    fn log2_is_near_the_library_one() {
        for n in (1..5000u64).chain((0..60).map(|e| (3 << e) + 1)) {
            assert!((super::log2(n) - (n as f64).log2()).abs() < 1e-8, "{n}");
        }
    }
}
