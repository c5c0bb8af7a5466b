//! Comparing splits and precisions for given classes: all by an estimate, the best by their real tables.

use rayon::prelude::*;
use wcodec_rans::freq::{MAX_ENTRIES, MAX_SYMBOLS};
use wcodec_rans::{Context, FrequencyTable, HeadLayout, TableSet};

use super::classes::{Classes, PER_OCTAVE};
use super::{Effort, Plan, View};
use crate::lanes::{Geometry, LanesParams};

/// Bits of a patched element: the patch, and the symbol that stands in.
const PATCH_BITS: f64 = 36.0;

/// The best way found to code a tensor with given classes.
pub(super) struct Pricing {
    classes: Classes,
    layout: HeadLayout,
    tables: TableSet,
    counts: Vec<Vec<u64>>,
    /// As [`Plan::bytes`].
    bytes: u64,
    /// Those, and what decoding them slowly is worth.
    pub(super) cost: f64,
}

/// One split and precision, by its estimate.
struct Candidate<'a> {
    /// Bytes beside [`fixed_bytes`].
    bytes: f64,
    table_bits: u32,
    split: &'a Split,
}

/// What one split of the heads gives to count.
struct Split {
    layout: HeadLayout,
    /// Counts of every context and coded value.
    counts: Vec<Vec<u64>>,
    /// Which table each context has, if contexts are mapped.
    map: Option<Vec<Context>>,
    /// Counts of every table and value, mapped contexts' shifted back.
    pools: Vec<Vec<u64>>,
    /// Elements whose values no symbol can stand for.
    lost: u64,
}

impl Split {
    fn new(layout: HeadLayout, counts: Vec<Vec<u64>>, octave_bits: Option<u32>) -> Self {
        let step = octave_bits.and_then(|o| o.checked_sub(layout.shift()));
        let Some(step) = step else { return Self { layout, pools: counts.clone(), counts, map: None, lost: 0 } };
        let map: Vec<Context> = (0..counts.len())
            .map(|k| Context { table: (k % PER_OCTAVE) as u8, shift: ((k / PER_OCTAVE) << step) as u16 })
            .collect();
        let highest = map.last().map_or(0, |c| usize::from(c.shift));
        let mut pools = vec![vec![0; 1 << layout.coded_bits()]; PER_OCTAVE.min(counts.len())];
        let mut lost = 0;
        for (counts, context) in counts.iter().zip(&map) {
            for (value, &n) in counts.iter().enumerate().filter(|(_, n)| **n > 0) {
                // With the greatest shift, a symbol's value has to be one yet.
                match context.unshifted(value as u16) {
                    Some(own) if usize::from(own) + highest < counts.len() => {
                        pools[usize::from(context.table)][usize::from(own)] += n;
                    }
                    _ => lost += n,
                }
            }
        }
        Self { layout, counts, map: Some(map), pools, lost }
    }
}

/// What decoding slowly is worth, as a part of the size, by the entries that a vector decoder keeps: T tables of B buckets (see
/// [`wcodec_rans::alias`]). Up to 128, 256 and 512 are looked up in 2, 4 and 8 registers each, at about 1, 3/4 and 1/2 of the
/// speed, more in memory, at 1/4.
fn slowness(tables: &TableSet) -> f64 {
    match tables.tables().len() * wcodec_rans::alias::buckets(tables.symbols()) {
        ..=128 => 0.0,
        129..=256 => 0.0003,
        257..=512 => 0.0010,
        _ => 0.0025,
    }
}

/// Symbols of an alphabet that keep T tables in few registers.
fn register_symbols(tables: usize) -> usize {
    match tables {
        1 => 128,
        2..=8 => 64,
        _ => 32,
    }
}

impl Pricing {
    /// `None` when not even the estimate is near `bound`. Tables come from `rows`, or from all.
    pub(super) fn new(
        view: &View<'_>,
        classes: Classes,
        rows: Option<&[usize]>,
        low_bits: &[u8],
        effort: Effort,
        bound: Option<f64>,
    ) -> Option<Self> {
        let g = view.geometry;
        let finest = view.format.shifts[0];
        let histogram = fine_histogram(view, &classes, rows);
        let counted: u64 = histogram.iter().flatten().sum();
        let scale = (g.rows * g.cols) as f64 / counted.max(1) as f64;
        let fixed = fixed_bytes(view, low_bits) + class_bytes(&classes);
        let logs: Vec<f64> = (0..=1u64 << wcodec_rans::freq::MAX_TABLE_BITS).map(|f| log2(f.max(1))).collect();

        let octave_bits = view.format.octave_bits().filter(|_| classes.octaves);
        let splits: Vec<Split> = view
            .format
            .shifts_with(effort.tuning.max_mantissa_bits)
            .map(|shift| {
                let fold = 1usize << (shift - finest);
                let counts = histogram.iter().map(|h| h.chunks(fold).map(|c| c.iter().sum()).collect()).collect();
                Split::new(view.format.layout(shift), counts, octave_bits)
            })
            .collect();
        let mut candidates = Vec::new();
        for split in &splits {
            let (layout, counts) = (split.layout, &split.pools);
            for &p in effort.table_bits {
                if 2 * p + layout.coded_bits() > 32 || classes.contexts << p > MAX_ENTRIES {
                    continue;
                }
                let bits = estimate(counts, p, &logs) + split.lost as f64 * PATCH_BITS;
                let bytes = scale * bits / 8.0 + table_bytes(counts, p) + split_bytes(&g, layout) as f64;
                candidates.push(Candidate { bytes, table_bits: p, split });
            }
        }
        candidates.sort_by(|a, b| a.bytes.total_cmp(&b.bytes));
        let mut exact = 0;
        let near = candidates.first()?.bytes * 1.001;
        let mut best: Option<(f64, u64, &Split, TableSet)> = None;
        for candidate in &candidates {
            let split = candidate.split;
            let hopeless = bound.is_some_and(|b| candidate.bytes + fixed as f64 > b * 1.002);
            if hopeless || exact == effort.exact || (exact > 0 && candidate.bytes > near) {
                break;
            }
            let mut tried = 0;
            for most in [MAX_SYMBOLS, register_symbols(split.pools.len())] {
                let Some((tables, bits)) = candidate.tables(most) else { continue };
                if tables.symbols() == tried {
                    break;
                }
                tried = tables.symbols();
                let beside = tables.to_bytes().len() as u64 + split_bytes(&g, split.layout) + fixed;
                let bytes = scale * bits / 8.0 + beside as f64;
                let cost = bytes * (1.0 + effort.haste * slowness(&tables));
                if best.as_ref().is_none_or(|b| cost < b.0) {
                    best = Some((cost, bytes as u64, split, tables));
                }
            }
            exact += usize::from(tried > 0);
        }
        let (cost, bytes, &Split { layout, ref counts, .. }, tables) = best?;
        let counts = counts.clone();
        Some(Self { classes, layout, tables, counts, bytes, cost })
    }

    pub(super) fn plan(self, view: &View<'_>, low_bits: Vec<u8>) -> Plan {
        let Self { mut classes, layout, tables, counts, bytes, cost: _ } = self;
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
            row_classes: classes.rows,
            col_classes: classes.cols,
            low_bits,
        };
        Plan { params, tables, counts, bytes }
    }
}

/// Bits of coding `counts` with `tables`, patches for what has no slot included; `None` for another number of contexts.
pub(crate) fn bits_with(tables: &TableSet, counts: &[Vec<u64>]) -> Option<f64> {
    if tables.contexts() != counts.len() {
        return None;
    }
    let p = f64::from(tables.table_bits());
    let bits = tables.context_tables().zip(counts).map(|((table, context), counts)| {
        let slots = tables.values().iter().zip(table.freqs()).filter(|(_, f)| **f > 0);
        let (mut coded, mut bits) = (0, 0.0);
        for (&value, &freq) in slots {
            let n = counts.get(usize::from(context.value(value))).copied().unwrap_or(0);
            coded += n;
            bits += n as f64 * (p - log2(u64::from(freq)));
        }
        bits + (counts.iter().sum::<u64>() - coded) as f64 * PATCH_BITS
    });
    Some(bits.sum())
}

impl Candidate<'_> {
    /// Tables of at most so many symbols, leaving values to patches where a slot would cost more, and the bits that coding with them takes.
    fn tables(&self, most: usize) -> Option<(TableSet, f64)> {
        let mut kept = self.split.pools.clone();
        for pool in &mut kept {
            let total: u64 = pool.iter().sum();
            for n in pool.iter_mut().filter(|n| **n > 0) {
                if !worth_a_slot(*n, total, self.table_bits) {
                    *n = 0;
                }
            }
        }
        let mut values: Vec<(u64, usize)> =
            (0..kept[0].len()).map(|v| (kept.iter().map(|p| p[v]).sum(), v)).filter(|&(n, _)| n > 0).collect();
        values.sort_unstable_by(|a, b| b.cmp(a));
        for &(_, v) in values.iter().skip(most) {
            kept.iter_mut().for_each(|pool| pool[v] = 0);
        }
        let mut set = TableSet::from_counts(self.table_bits, &kept).ok()?;
        let bits: f64 = set
            .tables()
            .iter()
            .zip(&kept)
            .map(|(table, counts): (&FrequencyTable, _)| {
                let dense: Vec<u64> =
                    set.values().iter().map(|&v| counts.get(usize::from(v)).copied().unwrap_or(0)).collect();
                table.cost(&dense)
            })
            .sum();
        if let Some(map) = &self.split.map {
            set = TableSet::with_contexts(set.values().to_vec(), set.tables().to_vec(), map.clone()).ok()?;
        }
        let sum = |pools: &[Vec<u64>]| pools.iter().flatten().sum::<u64>();
        let patched = sum(&self.split.pools) - sum(&kept) + self.split.lost;
        Some((set, bits + patched as f64 * PATCH_BITS))
    }
}

/// Whether `count` of `total` elements lose more as patches than others by one slot less.
fn worth_a_slot(count: u64, total: u64, table_bits: u32) -> bool {
    let slot_bits = total as f64 * std::f64::consts::LOG2_E / f64::from(1u32 << table_bits) + 6.0;
    count as f64 * (PATCH_BITS - f64::from(table_bits)) >= slot_bits
}

/// About the bits that tables of precision `table_bits` would code `counts` in: frequencies simply rounded.
fn estimate(counts: &[Vec<u64>], table_bits: u32, logs: &[f64]) -> f64 {
    let slots = f64::from(1u32 << table_bits);
    counts
        .iter()
        .map(|counts| {
            let total: u64 = counts.iter().sum();
            if total == 0 {
                return 0.0;
            }
            let per_count = slots / total as f64;
            let (mut bits, mut sum, mut coded) = (0.0, 0u64, 0u64);
            for &n in counts.iter().filter(|&&n| n > 0) {
                let share = n as f64 * per_count;
                if share < 1.0 && !worth_a_slot(n, total, table_bits) {
                    bits += n as f64 * PATCH_BITS;
                    continue;
                }
                let freq = ((share + 0.5) as u64).clamp(1, (1 << table_bits) - 1);
                bits -= n as f64 * logs[freq as usize];
                sum += freq;
                coded += n;
            }
            bits + coded as f64 * log2(sum.max(1))
        })
        .sum()
}

/// About the bytes of serialised tables.
fn table_bytes(counts: &[Vec<u64>], table_bits: u32) -> f64 {
    let bits: f64 = counts
        .iter()
        .map(|counts| {
            let total: u64 = counts.iter().sum();
            let kept = counts.iter().filter(|&&n| n > 0 && worth_a_slot(n, total, table_bits));
            kept.map(|&n| {
                let freq = (u128::from(n) << table_bits) / u128::from(total.max(1));
                0.8 * f64::from(128 - freq.leading_zeros()) + 1.2
            })
            .sum::<f64>()
        })
        .sum();
    bits / 8.0 + 20.0
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

/// Counts of every coded value at the finest split, per context, in `rows` or all.
fn fine_histogram(view: &View<'_>, classes: &Classes, rows: Option<&[usize]>) -> Vec<Vec<u64>> {
    let (cols, layout) = (view.geometry.cols, view.format.layout(view.format.shifts[0]));
    let (width, coded_bits) = (1usize << layout.coded_bits(), layout.coded_bits());
    let (shift, mask) = (layout.shift(), (width - 1) as u16);
    let last = classes.contexts as i16 - 1;
    let count = rows.map_or(view.geometry.rows, <[usize]>::len);
    // One task per so many elements: a histogram has to be worth its memory.
    let rows_per_task = ((1 << 21) / cols).clamp(64, 1 << 14);
    let tasks: Vec<usize> = (0..count).step_by(rows_per_task).collect();
    let parts: Vec<Vec<u32>> = tasks
        .into_par_iter()
        .map(|first| {
            let mut counts = [vec![0u32; classes.contexts * width], vec![0u32; classes.contexts * width]];
            let (mut heads, mut at) = (Vec::with_capacity(cols), vec![0u16; cols]);
            for i in first..(first + rows_per_task).min(count) {
                let row = rows.map_or(i, |r| r[i]);
                view.row(row, &mut heads);
                let class = i16::from(classes.rows[row]);
                // 16 contexts of at most 12 bits: an index has 16.
                for ((at, &head), &col) in at.iter_mut().zip(&heads).zip(&classes.cols) {
                    let context = (class + i16::from(col)).max(0).min(last) as u16;
                    *at = context << coded_bits | (head >> shift) & mask;
                }
                // Two histograms: neighbours that fall on one count would wait for each other.
                let [a, b] = &mut counts;
                for pair in at.chunks(2) {
                    a[usize::from(pair[0])] += 1;
                    if let [_, other] = pair {
                        b[usize::from(*other)] += 1;
                    }
                }
            }
            let [mut a, b] = counts;
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            a
        })
        .collect();
    let mut sum = vec![vec![0u64; width]; classes.contexts];
    for part in parts {
        for (s, p) in sum.iter_mut().zip(part.chunks(width)) {
            s.iter_mut().zip(p).for_each(|(s, &p)| *s += u64::from(p));
        }
    }
    sum
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
