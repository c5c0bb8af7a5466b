//! Contexts that share tables.
//!
//! Doubling a weight adds one to its exponent, so a context whose weights are whole octaves larger than another's may have the same
//! table, its values shifted. Sixteen contexts with a table each would not fit a decoder's registers; four tables, fitted to where the
//! contexts' distributions really differ, code nearly as well.

use wcodec_predict::log2_fixed;

use super::scales::BinMap;

/// Bins per octave, of a map that has octaves.
pub(super) const BINS_PER_OCTAVE: usize = 2;
/// Most octaves between contexts of one table.
pub(super) const MOST_OCTAVES: usize = 15;
/// Most rounds of assigning contexts to tables; nearly always three suffice.
const ROUNDS: usize = 8;

/// Which table every context has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableMap {
    pub(super) tables: usize,
    pub(super) contexts: Vec<Place>,
}

/// A context's table, and how many octaves its values lie above those of the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) table: u8,
    pub(super) octaves: u8,
}

impl TableMap {
    /// The map of contexts that are `unit` 1/256 octaves apart, by their places in the octave.
    pub(super) fn by_phase(contexts: usize, unit: usize, tables: usize) -> Self {
        let place = |context: usize| {
            let step = (context * unit * tables + 128) / 256;
            Place { table: (step % tables) as u8, octaves: (step / tables).min(MOST_OCTAVES) as u8 }
        };
        Self { tables, contexts: (0..contexts).map(place).collect() }
    }

    /// A map that codes contexts with these counts of bins in few bits. It starts from the tables of those contexts that serve the others
    /// best; then contexts and tables follow one another (Lloyd's algorithm, code lengths in place of distances), and as long as that
    /// helps, one table is given up for that of a single context.
    pub(super) fn fit(counts: &[u32], bins: &BinMap, tables: usize) -> Self {
        let fit = Fit::new(counts, bins);
        let chosen = fit.representatives(tables);
        let mut best = fit.settle(fit.places(chosen.iter().map(|&context| &fit.alone[context])));
        while let Some(places) = fit.exchange(&best.places, tables) {
            let found = fit.settle(places);
            if found.cost >= best.cost {
                break;
            }
            best = found;
        }
        let lowest = best.places.iter().map(|place| place.octaves).min().unwrap_or(0);
        best.places.iter_mut().for_each(|place| place.octaves -= lowest);
        Self { tables, contexts: best.places }
    }

    /// Gives contexts of one table the sum of their counts, each a shifted copy of the others.
    pub(super) fn pool(&self, counts: &mut [u64], bins: usize) {
        let highest = self.contexts.iter().map(|place| place.octaves).max().unwrap_or(0);
        // How many bins a context lies below the highest.
        let below = |place: &Place| usize::from(highest - place.octaves) * BINS_PER_OCTAVE;
        for table in 0..self.tables as u8 {
            let mut pool = vec![0u64; bins];
            let own = || self.contexts.iter().enumerate().filter(|(_, place)| place.table == table);
            for (context, place) in own() {
                for (bin, &n) in counts[context * bins..][..bins].iter().enumerate() {
                    pool[(bin + below(place)).min(bins - 1)] += n;
                }
            }
            for (context, place) in own() {
                for (bin, n) in counts[context * bins..][..bins].iter_mut().enumerate() {
                    *n = pool.get(bin + below(place)).copied().unwrap_or(0);
                }
            }
        }
    }
}

/// Contexts by their counts, while a map is fitted to them.
struct Fit<'a> {
    counts: &'a [u32],
    map: &'a BinMap,
    bins: usize,
    /// Mean bin of every context, in 1/64; none of an empty one.
    means: Vec<Option<i64>>,
    /// A table for every context alone, shifted such that all lie in one octave, and an octave above the lowest context.
    alone: Vec<Table>,
    /// What these cost for each context, and the octaves that they take.
    costs: Vec<Vec<(u64, u8)>>,
}

/// Code lengths of a table in 1/256 bit, from [`MARGIN`] bins below those of a context that lies no octaves above it.
struct Table {
    lengths: Vec<u32>,
    /// Mean bin of its weights in 1/64, counted from where such a context's bins begin.
    mean: i64,
}

/// Places of all contexts, and what they cost.
struct Found {
    places: Vec<Place>,
    cost: u64,
}

const OCTAVE: i64 = 64 * BINS_PER_OCTAVE as i64;
const MARGIN: usize = MOST_OCTAVES * BINS_PER_OCTAVE;
/// More than all weights of a sample cost, of contexts that have none.
const FAR: u64 = u64::MAX / 64;

impl<'a> Fit<'a> {
    fn new(counts: &'a [u32], map: &'a BinMap) -> Self {
        let bins = map.bins();
        let mean = |counts: &[u32]| {
            let total: u64 = counts.iter().map(|&n| u64::from(n)).sum();
            let sum: u64 = counts.iter().zip(0..).map(|(&n, bin)| u64::from(n) * bin).sum();
            (64 * sum).checked_div(total).map(|mean| mean as i64)
        };
        let means: Vec<Option<i64>> = counts.chunks_exact(bins).map(mean).collect();
        let mut fit = Self { counts, map, bins, means, alone: Vec::new(), costs: Vec::new() };
        let lowest = fit.means.iter().flatten().copied().min().unwrap_or(0);
        let contexts = fit.means.len();
        let alone = |context: usize| {
            let octaves = (fit.means[context].unwrap_or(lowest) - lowest) / OCTAVE + 1;
            let mut sums = fit.no_counts();
            fit.add(&mut sums, context, octaves.min(fit.most_octaves()) as usize);
            fit.table(&sums)
        };
        fit.alone = (0..contexts).map(alone).collect();
        let costs = |(table, mean): (&Table, &Option<i64>)| {
            (0..contexts).map(|context| if mean.is_some() { fit.best(context, table) } else { (FAR, 0) }).collect()
        };
        fit.costs = fit.alone.iter().zip(&fit.means).map(costs).collect();
        fit
    }

    fn of(&self, context: usize) -> &[u32] {
        &self.counts[context * self.bins..][..self.bins]
    }

    fn most_octaves(&self) -> i64 {
        if self.map.shifts() { MOST_OCTAVES as i64 } else { 0 }
    }

    fn no_counts(&self) -> Vec<u64> {
        vec![0; MARGIN + self.bins]
    }

    /// Adds the counts of a context so many octaves above a table to that table's.
    fn add(&self, sums: &mut [u64], context: usize, octaves: usize) {
        let sums = &mut sums[MARGIN - octaves * BINS_PER_OCTAVE..];
        sums.iter_mut().zip(self.of(context)).for_each(|(sum, &n)| *sum += u64::from(n));
    }

    fn table(&self, counts: &[u64]) -> Table {
        let total: u64 = counts.iter().sum();
        let sum: u64 = counts.iter().zip(0..).map(|(&n, bin)| n * bin).sum();
        let (all, none) = (log2_fixed(4 * total + counts.len() as u64), log2_fixed(1));
        let length = |&n: &u64| (all - if n == 0 { none } else { log2_fixed(4 * n + 1) }) as u32;
        let lengths = counts.iter().map(length).collect();
        Table { lengths, mean: (64 * sum / total.max(1)) as i64 - 64 * MARGIN as i64 }
    }

    /// The tables of contexts in these places.
    fn tables(&self, places: &[Place]) -> Vec<Table> {
        let tables = places.iter().map(|place| usize::from(place.table) + 1).max().unwrap_or(0);
        let mut sums = vec![self.no_counts(); tables];
        for (context, place) in places.iter().enumerate() {
            self.add(&mut sums[usize::from(place.table)], context, place.octaves.into());
        }
        sums.iter().map(|sums| self.table(sums)).collect()
    }

    /// What a table costs for a context so many octaves above it.
    fn cost(&self, context: usize, table: &Table, octaves: usize) -> u64 {
        let (counts, lengths) = (self.of(context), &table.lengths[MARGIN - octaves * BINS_PER_OCTAVE..]);
        counts.iter().zip(lengths).map(|(&n, &length)| u64::from(n) * u64::from(length)).sum()
    }

    /// The least cost of a table for a context, and the octaves that it takes: those that bring the means together, or one more.
    fn best(&self, context: usize, table: &Table) -> (u64, u8) {
        let mean = self.means[context].unwrap_or(table.mean);
        let first = (mean - table.mean).div_euclid(OCTAVE).clamp(0, self.most_octaves());
        let last = (first + 1).min(self.most_octaves());
        let cost = |octaves: i64| (self.cost(context, table, octaves as usize), octaves as u8);
        cost(first).min(cost(last))
    }

    /// The best place of every context among these tables.
    fn places<'t>(&self, tables: impl Iterator<Item = &'t Table> + Clone) -> Found {
        let mut cost = 0;
        let place = |context: usize| {
            let best = tables.clone().zip(0..).map(|(t, table)| (self.best(context, t), table)).min();
            let ((least, octaves), table) = best.expect("a table");
            cost += least;
            Place { table, octaves }
        };
        let places = (0..self.means.len()).map(place).collect();
        Found { places, cost }
    }

    /// Lets places and tables follow one another.
    fn settle(&self, mut best: Found) -> Found {
        for _ in 0..ROUNDS {
            let found = self.places(self.tables(&best.places).iter());
            if found.cost >= best.cost {
                break;
            }
            best = found;
        }
        best
    }

    /// What contexts cost with the tables of these contexts alone.
    fn cost_of(&self, chosen: impl Iterator<Item = usize> + Clone) -> u64 {
        let least = |context: usize| chosen.clone().map(|c| self.costs[c][context].0).min().unwrap_or(FAR);
        (0..self.means.len()).map(least).sum()
    }

    /// So many contexts whose tables serve all best: taken one by one, then exchanged while that helps.
    fn representatives(&self, tables: usize) -> Vec<usize> {
        let contexts = self.means.len();
        let mut chosen: Vec<usize> = Vec::with_capacity(tables);
        for _ in 0..tables {
            let with = |candidate: usize| self.cost_of(chosen.iter().copied().chain([candidate]));
            chosen.extend((0..contexts).min_by_key(|&candidate| with(candidate)));
        }
        let mut least = self.cost_of(chosen.iter().copied());
        let mut open = true;
        while open {
            open = false;
            for (i, candidate) in (0..tables).flat_map(|i| (0..contexts).map(move |c| (i, c))) {
                let before = std::mem::replace(&mut chosen[i], candidate);
                let cost = self.cost_of(chosen.iter().copied());
                if cost < least {
                    (least, open) = (cost, true);
                } else {
                    chosen[i] = before;
                }
            }
        }
        chosen
    }

    /// The places where one of the tables is given up for that of a context alone, the pair with which this costs least.
    fn exchange(&self, places: &[Place], count: usize) -> Option<Found> {
        let contexts = self.means.len();
        let mut tables = self.tables(places);
        let costs: Vec<Vec<u64>> =
            (0..contexts).map(|context| tables.iter().map(|table| self.best(context, table).0).collect()).collect();
        let with = |given_up: usize, alone: usize| -> u64 {
            let least = |(context, costs): (usize, &Vec<u64>)| {
                let kept = costs.iter().enumerate().filter(|(t, _)| *t != given_up).map(|(_, &cost)| cost);
                kept.chain([self.costs[alone][context].0]).min().unwrap_or(FAR)
            };
            costs.iter().enumerate().map(least).sum()
        };
        let pairs = (0..count.min(tables.len())).flat_map(|t| (0..contexts).map(move |context| (t, context)));
        let (given_up, alone) = pairs.min_by_key(|&(t, context)| with(t, context))?;
        tables.remove(given_up);
        Some(self.places(tables.iter().chain([&self.alone[alone]])))
    }
}
