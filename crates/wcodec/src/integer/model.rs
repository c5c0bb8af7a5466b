//! Frequency tables, and which run of rows uses which.
//!
//! Runs of rows whose symbols have like distributions share a table. Which ones do is found by alternating: tables for the runs as
//! they are assigned, then for every run the table that codes it in the fewest bits (Lloyd's iteration with code length as the
//! distance; S. Lloyd, "Least squares quantization in PCM", 1982).

use wcodec_predict::log2_fixed;
use wcodec_rans::freq::{MAX_ENTRIES, MAX_TABLE_BITS};
use wcodec_rans::{MAX_CONTEXTS, RansError, TableSet};

use super::analysis::{Analysis, Candidate};

/// About what the class of a run costs, in 2^-8 bits.
const CLASS_COST: u64 = 2 << 8;
/// What a symbol without a slot costs, in 2^-8 bits: a patch.
const PATCH_COST: u32 = 40 << 8;
const ROUNDS: usize = 5;

/// Counts of every symbol, per table.
pub(crate) type Counts = Vec<Vec<u64>>;

pub(crate) fn no_counts(contexts: usize) -> Counts {
    vec![vec![0; 256]; contexts]
}

/// Code lengths of the symbols in every table.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    /// Of each symbol, per table, in 2^-8 bits; tables behind the last repeat it.
    lengths: Vec<[u32; MAX_CONTEXTS]>,
    pub(crate) contexts: usize,
}

impl Model {
    /// What these counts foretell; what was not seen counts as a quarter.
    fn from_counts(counts: &Counts) -> Self {
        let totals: Vec<u64> = counts.iter().map(|c| c.iter().sum::<u64>() + 64).collect();
        Self::new(counts.len(), |context, symbol| {
            (log2_fixed(4 * totals[context]) - log2_fixed(4 * counts[context][symbol] + 1)).max(0) as u32
        })
    }

    /// What these tables really cost.
    pub(crate) fn from_tables(tables: &TableSet) -> Self {
        let mut index = [None; 256];
        for (i, &value) in tables.values().iter().enumerate() {
            if let Some(entry) = index.get_mut(usize::from(value)) {
                *entry = Some(i);
            }
        }
        let bits = tables.table_bits() << 8;
        Self::new(tables.contexts(), |context, symbol| {
            match index[symbol].map_or(0, |i| tables.tables()[usize::from(tables.context(context).table)].freqs()[i]) {
                0 => PATCH_COST,
                freq => bits - log2_fixed(u64::from(freq)) as u32,
            }
        })
    }

    fn new(contexts: usize, length: impl Fn(usize, usize) -> u32) -> Self {
        let lengths =
            (0..256).map(|symbol| std::array::from_fn(|context| length(context.min(contexts - 1), symbol))).collect();
        Self { lengths, contexts }
    }

    /// The table that codes `symbols` in the fewest bits, and how many (2^-8).
    fn best(&self, symbols: &[u8]) -> (u8, u64) {
        let mut sums = [0u32; MAX_CONTEXTS];
        for &symbol in symbols {
            let lengths = &self.lengths[usize::from(symbol)];
            sums.iter_mut().zip(lengths).for_each(|(sum, &length)| *sum += length);
        }
        let (class, &cost) = sums.iter().enumerate().min_by_key(|&(class, &cost)| (cost, class)).expect("16 tables");
        (class as u8, u64::from(cost))
    }

    /// The best class of every run, and what they cost together.
    pub(crate) fn classes(&self, candidate: &Candidate) -> (Vec<u8>, u64) {
        let mut total = 0;
        let classes = candidate
            .runs()
            .map(|symbols| {
                let (class, cost) = self.best(symbols);
                total += cost + CLASS_COST;
                class
            })
            .collect();
        (classes, total + 8 * 256 * candidate.rows.shape.state_bytes() as u64)
    }

    /// The cheaper candidate of a superblock, with its classes and cost.
    pub(crate) fn choose<'a>(&self, analysis: &'a Analysis, only_planes: bool) -> (&'a Candidate, Vec<u8>, u64) {
        let planes = analysis.bitplanes.as_ref().map(|c| {
            let (classes, cost) = self.classes(c);
            (c, classes, cost)
        });
        if let (true, Some(planes)) = (only_planes, &planes) {
            return planes.clone();
        }
        let (classes, cost) = self.classes(&analysis.residuals);
        match planes {
            Some(planes) if planes.2 < cost => planes,
            _ => (&analysis.residuals, classes, cost),
        }
    }

    /// Chooses for a superblock and adds its symbols to `counts`.
    pub(crate) fn count(&self, analysis: &Analysis, only_planes: bool, counts: &mut Counts) {
        let (candidate, classes, _) = self.choose(analysis, only_planes);
        for (symbols, &class) in candidate.runs().zip(&classes) {
            let counts = &mut counts[usize::from(class)];
            symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
        }
    }
}

/// Trains a model on `sample`, with as many tables as pay for themselves when the sample stands for `scale` times as many
/// superblocks.
pub(crate) fn train(sample: &[Analysis], only_planes: bool, scale: u64, sizes: &[usize]) -> Result<Model, RansError> {
    let mut best: Option<(u64, Model)> = None;
    for &contexts in sizes {
        let both: Vec<&Candidate> =
            sample.iter().flat_map(|a| [Some(&a.residuals), a.bitplanes.as_ref()]).flatten().collect();
        let first = iterate(&both, contexts);
        // Tables that only served forms not chosen are free for those that were.
        let chosen: Vec<&Candidate> = sample.iter().map(|a| first.choose(a, only_planes).0).collect();
        let model = iterate(&chosen, contexts);
        let mut counts = no_counts(contexts);
        sample.iter().for_each(|a| model.count(a, only_planes, &mut counts));
        let tables = table_set(counts)?;
        let exact = Model::from_tables(&tables);
        let cost: u64 = sample.iter().map(|a| exact.choose(a, only_planes).2).sum();
        let total = cost * scale + 8 * 256 * tables.to_bytes().len() as u64;
        if best.as_ref().is_none_or(|(least, _)| total < *least) {
            best = Some((total, model));
        }
    }
    best.map(|(_, model)| model).ok_or(RansError::BadArgument("no number of tables to try"))
}

fn iterate(candidates: &[&Candidate], contexts: usize) -> Model {
    let mut order: Vec<(u32, &[u8])> = candidates.iter().flat_map(|c| c.runs()).map(|s| (entropy(s), s)).collect();
    order.sort_by_key(|&(bits, _)| bits);
    let mut counts = no_counts(contexts);
    let runs = order.len().max(1);
    for (i, (_, symbols)) in order.iter().enumerate() {
        let counts = &mut counts[i * contexts / runs];
        symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
    }
    let mut model = Model::from_counts(&counts);
    for _ in 0..ROUNDS {
        let mut counts = no_counts(contexts);
        for (_, symbols) in &order {
            let counts = &mut counts[usize::from(model.best(symbols).0)];
            symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
        }
        model = Model::from_counts(&counts);
    }
    model
}

/// Order-0 entropy per symbol in 2^-8 bits.
pub(crate) fn entropy(symbols: &[u8]) -> u32 {
    let mut counts = [0u64; 256];
    symbols.iter().for_each(|&s| counts[usize::from(s)] += 1);
    (total_bits(&counts) / symbols.len().max(1) as u64) as u32
}

/// Bits that coding `counts` with their own entropy takes, in units of 2^-8.
pub(crate) fn total_bits(counts: &[u64]) -> u64 {
    let total: u64 = counts.iter().sum();
    counts.iter().filter(|&&n| n > 0).map(|&n| n * (log2_fixed(total) - log2_fixed(n)) as u64).sum()
}

/// Tables for counts, as precise as their number allows; those that count nothing are left out.
pub(crate) fn table_set(mut counts: Counts) -> Result<TableSet, RansError> {
    counts.retain(|c| c.iter().any(|&n| n > 0));
    let table_bits = (MAX_ENTRIES / counts.len().max(1)).ilog2().min(MAX_TABLE_BITS);
    TableSet::from_counts(table_bits, &counts)
}
