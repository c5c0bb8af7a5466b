//! Frequency tables, and which run of rows uses which.
//!
//! Runs of rows whose symbols have like distributions share a table. Which ones do is found by alternating: tables for the runs as
//! they are assigned, then for every run the table that codes it in the fewest bits (Lloyd's iteration with code length as the
//! distance; S. Lloyd, "Least squares quantization in PCM", 1982).

use wcodec_predict::log2_fixed;
use wcodec_rans::freq::{MAX_ENTRIES, MAX_TABLE_BITS};
use wcodec_rans::{MAX_CONTEXTS, RansError, TableSet, stats};

use super::analysis::{Analysis, Candidate};
use super::runs::Run;

/// About what the class of a run costs, in 2^-8 bits.
const CLASS_COST: u64 = 2 << 8;
/// What a symbol without a slot costs, in 2^-8 bits: a patch.
const PATCH_COST: i16 = 40 << 8;
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
    lengths: Box<[[i16; MAX_CONTEXTS]; 256]>,
    pub(crate) contexts: usize,
}

impl Model {
    /// What these counts foretell; what was not seen counts as a quarter.
    fn from_counts(counts: &Counts) -> Self {
        Self::new(counts.len(), |context, lengths| {
            let counts = &counts[context];
            let total = log2_fixed(4 * (counts.iter().sum::<u64>() + 64));
            lengths.iter_mut().zip(counts).for_each(|(l, &n)| *l = (total - log2_fixed(4 * n + 1)).max(0) as i16);
        })
    }

    /// What these tables really cost.
    pub(crate) fn from_tables(tables: &TableSet) -> Self {
        let bits = (tables.table_bits() << 8) as i16;
        Self::new(tables.contexts(), |context, lengths| {
            lengths.fill(PATCH_COST);
            let freqs = tables.tables()[usize::from(tables.context(context).table)].freqs();
            for (&value, &freq) in tables.values().iter().zip(freqs).filter(|(_, freq)| **freq > 0) {
                if let Some(length) = lengths.get_mut(usize::from(value)) {
                    *length = bits - log2_fixed(u64::from(freq)) as i16;
                }
            }
        })
    }

    fn new(contexts: usize, of_context: impl Fn(usize, &mut [i16; 256])) -> Self {
        let mut lengths = Box::new([[0; MAX_CONTEXTS]; 256]);
        let mut own = [0; 256];
        for context in 0..MAX_CONTEXTS {
            if context < contexts {
                of_context(context, &mut own);
            }
            lengths.iter_mut().zip(own).for_each(|(lengths, length)| lengths[context] = length);
        }
        Self { lengths, contexts }
    }

    /// The table that codes a run in the fewest bits, and how many (2^-8).
    fn best(&self, run: &Run) -> (u8, u64) {
        let sums = stats::class_costs(run, &self.lengths);
        let (class, &cost) = sums.iter().enumerate().min_by_key(|&(class, &cost)| (cost, class)).expect("16 tables");
        (class as u8, cost as u64)
    }

    /// The best class of every run, and what they cost together.
    pub(crate) fn classes(&self, candidate: &Candidate) -> (Vec<u8>, u64) {
        let mut total = 0;
        let classes = candidate
            .runs
            .iter()
            .map(|run| {
                let (class, cost) = self.best(run);
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
        for (run, &class) in candidate.runs.iter().zip(&classes) {
            add(&mut counts[usize::from(class)], run);
        }
    }
}

fn add(counts: &mut [u64], run: &Run) {
    run.iter().for_each(|&(symbol, n)| counts[usize::from(symbol)] += n as u64);
}

/// Trains a model on `sample`, with as many tables as pay for themselves when the sample stands for `scale` times as many
/// superblocks. `None` once it shows that all that costs more than `enough`, in 2^-8 bits: the most tables code symbols in the fewest
/// bits, and are tried first.
pub(crate) fn train(
    sample: &[Analysis],
    only_planes: bool,
    scale: u64,
    sizes: &[usize],
    enough: u64,
) -> Result<Option<Model>, RansError> {
    let both: Vec<&Candidate> =
        sample.iter().flat_map(|a| [Some(&a.residuals), a.bitplanes.as_ref()]).flatten().collect();
    let mut best: Option<(u64, Model)> = None;
    for &contexts in sizes.iter().rev() {
        // Each superblock has only one form: what both cost together tells nothing.
        let most = if best.is_none() && both.len() == sample.len() {
            enough.saturating_add(enough / 128) / scale
        } else {
            u64::MAX
        };
        let Some(mut model) = iterate(&both, contexts, most) else { return Ok(None) };
        // Tables that only served forms not chosen are free for those that were.
        let chosen: Vec<&Candidate> = sample.iter().map(|a| model.choose(a, only_planes).0).collect();
        if chosen.len() < both.len() {
            model = iterate(&chosen, contexts, u64::MAX).expect("no limit");
        }
        let mut counts = no_counts(contexts);
        sample.iter().for_each(|a| model.count(a, only_planes, &mut counts));
        let tables = table_set(counts)?;
        let exact = Model::from_tables(&tables);
        let cost: u64 = sample.iter().map(|a| exact.choose(a, only_planes).2).sum();
        if best.is_none() && cost * scale > enough {
            return Ok(None);
        }
        let total = cost * scale + 8 * 256 * tables.to_bytes().len() as u64;
        // Of equals, the one with fewer tables.
        if best.as_ref().is_none_or(|(least, _)| total <= *least) {
            best = Some((total, model));
        }
    }
    let (total, model) = best.ok_or(RansError::BadArgument("no number of tables to try"))?;
    Ok((total <= enough).then_some(model))
}

/// `None` if symbols cost more than `most` after two rounds: what rounds gain later is less than a hundredth.
fn iterate(candidates: &[&Candidate], contexts: usize, most: u64) -> Option<Model> {
    let mut order: Vec<(u32, &Run)> = candidates.iter().flat_map(|c| c.runs.with_entropy()).collect();
    order.sort_by_key(|&(bits, _)| bits);
    let mut counts = no_counts(contexts);
    let runs = order.len().max(1);
    for (i, (_, run)) in order.iter().enumerate() {
        add(&mut counts[i * contexts / runs], run);
    }
    let mut model = Model::from_counts(&counts);
    if contexts > 1 {
        for round in 0..ROUNDS {
            let (mut counts, mut cost) = (no_counts(contexts), 0);
            for (_, run) in &order {
                let (class, bits) = model.best(run);
                add(&mut counts[usize::from(class)], run);
                cost += bits;
            }
            if round == 1 && cost > most {
                return None;
            }
            model = Model::from_counts(&counts);
        }
    }
    Some(model)
}

/// Tables for counts, as precise as their number allows; those that count nothing are left out.
pub(crate) fn table_set(mut counts: Counts) -> Result<TableSet, RansError> {
    counts.retain(|c| c.iter().any(|&n| n > 0));
    let table_bits = (MAX_ENTRIES / counts.len().max(1)).ilog2().min(MAX_TABLE_BITS);
    TableSet::from_counts(table_bits, &counts)
}
