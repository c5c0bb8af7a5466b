//! How often every context has every coded value.

use rayon::prelude::*;
use wcodec_rans::{Context, stats};

use super::View;
use super::classes::Classes;

/// Counts of coded values from a first one on, per context (or table).
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    first: usize,
    width: usize,
    counts: Vec<u64>,
}

impl Counts {
    /// Counts at the finest split, in these rows or all.
    pub(super) fn of(view: &View<'_>, classes: &Classes, rows: Option<&[usize]>) -> Self {
        let (cols, layout) = (view.geometry.cols, view.format.layout(view.format.finest()));
        let (all, bits) = (1usize << layout.coded_bits(), layout.coded_bits());
        let last = classes.contexts as i16 - 1;
        let count = rows.map_or(view.geometry.rows, <[usize]>::len);
        // One task per so many elements: a histogram has to be worth its memory.
        let rows_per_task = ((1 << 21) / cols).clamp(64, 1 << 14);
        let tasks: Vec<usize> = (0..count).step_by(rows_per_task).collect();
        let parts: Vec<Vec<u32>> = tasks
            .into_par_iter()
            .map(|first| {
                let mut counts = [vec![0u32; classes.contexts * all], vec![0u32; classes.contexts * all]];
                let (mut heads, mut places) = (vec![0; cols], vec![0u16; cols]);
                for i in first..(first + rows_per_task).min(count) {
                    let row = rows.map_or(i, |r| r[i]);
                    view.row(row, &mut heads);
                    let class = i16::from(classes.rows[row]);
                    // 16 contexts of at most 12 bits: a place has 16.
                    stats::places(&heads, class, &classes.cols, last, [layout.shift(), bits], &mut places);
                    // Two histograms: neighbours that fall on one count would wait for each other.
                    let [a, b] = &mut counts;
                    let (fours, rest) = places.as_chunks::<4>();
                    for &[i, j, k, l] in fours {
                        a[usize::from(i)] += 1;
                        b[usize::from(j)] += 1;
                        a[usize::from(k)] += 1;
                        b[usize::from(l)] += 1;
                    }
                    rest.iter().for_each(|&place| a[usize::from(place)] += 1);
                }
                let [mut a, b] = counts;
                a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
                a
            })
            .collect();
        let mut used = vec![0u32; all];
        for counts in parts.iter().flat_map(|part| part.chunks_exact(all)) {
            used.iter_mut().zip(counts).for_each(|(used, &n)| *used |= n);
        }
        let first = used.iter().position(|&n| n > 0).unwrap_or(0);
        let width = used.iter().rposition(|&n| n > 0).unwrap_or(first) + 1 - first;
        let mut counts = vec![0u64; classes.contexts * width];
        for part in &parts {
            for (sums, part) in counts.chunks_exact_mut(width).zip(part.chunks_exact(all)) {
                sums.iter_mut().zip(&part[first..]).for_each(|(s, &p)| *s += u64::from(p));
            }
        }
        Self { first, width, counts }
    }

    /// Number of contexts.
    pub(crate) fn contexts(&self) -> usize {
        self.counts.len() / self.width
    }

    /// The counts of each context, of the values from [`Counts::first`] on.
    pub(crate) fn each(&self) -> impl Iterator<Item = &[u64]> {
        self.counts.chunks_exact(self.width)
    }

    /// The first value.
    pub(crate) fn first(&self) -> usize {
        self.first
    }

    /// Number of values.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// All that was counted.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The same with `bits` fewer bits of value.
    pub(super) fn coarser(&self, bits: u32) -> Self {
        let first = self.first >> bits;
        let width = ((self.first + self.width - 1) >> bits) + 1 - first;
        let mut counts = vec![0; self.contexts() * width];
        for (sums, counts) in counts.chunks_exact_mut(width).zip(self.each()) {
            for (value, &n) in (self.first..).zip(counts) {
                sums[(value >> bits) - first] += n;
            }
        }
        Self { first, width, counts }
    }

    /// Counts of tables, of the values that symbols have before contexts shift them; and how many elements' values have none: a
    /// symbol's value has to fit `bits` bits in every context.
    pub(super) fn pooled(&self, map: &[Context], bits: u32) -> (Self, u64) {
        let tables = map.iter().map(|c| usize::from(c.table) + 1).max().unwrap_or(1);
        let limit = (1usize << bits) - map.iter().map(|c| usize::from(c.shift)).max().unwrap_or(0);
        let width = limit.min(self.first + self.width);
        let mut pools = Self { first: 0, width, counts: vec![0; tables * width] };
        let mut lost = 0;
        for (counts, context) in self.each().zip(map) {
            let pool = &mut pools.counts[usize::from(context.table) * width..][..width];
            for (value, &n) in (self.first..).zip(counts).filter(|(_, n)| **n > 0) {
                match context.unshifted(value as u16).and_then(|own| pool.get_mut(usize::from(own))) {
                    Some(sum) => *sum += n,
                    None => lost += n,
                }
            }
        }
        (pools, lost)
    }

    /// The same without contexts.
    pub(super) fn merged(&self) -> Self {
        let mut counts = vec![0; self.width];
        self.each().for_each(|of| counts.iter_mut().zip(of).for_each(|(sum, &n)| *sum += n));
        Self { first: self.first, width: self.width, counts }
    }
}
