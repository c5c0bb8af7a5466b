//! A table set as one entry per slot of every table, for decoders that look lanes up one by one.
//!
//! Where contexts share tables, T·2^P entries serve K contexts: an entry holds the symbol's value with the greatest shift of all contexts
//! added, and every context takes away, with saturation at 0, what that is too much. Value 0, which no context shifts, stays 0.

use crate::alias::AliasTable;
use crate::layout::HeadLayout;
use crate::table_set::{TableSet, max_value_bits};

/// Most contexts of a set.
const CONTEXTS: usize = crate::MAX_CONTEXTS;

/// See the [module](self).
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    /// `freq << (32 − P) | value << value_at | bias` at `table << P | slot`.
    pub(crate) entries: Vec<u32>,
    /// Lowest bit of the value in an entry: P, or the head's shift where that is more.
    pub(crate) value_at: u32,
    /// Bits of the value in an entry.
    pub(crate) value_bits: u32,
    /// For every context, `table << P` without its lowest eight bits, which are 0.
    pub(crate) starts: [u8; CONTEXTS],
    /// For every context, low and high byte of what to take from a value in its place in a head.
    pub(crate) excess: [[u8; CONTEXTS]; 2],
    /// Whether all contexts have one table.
    pub(crate) one: bool,
    /// Whether some context takes anything away.
    pub(crate) shifts: bool,
}

impl Slots {
    /// O(T·2^P).
    pub(crate) fn new(layout: HeadLayout, set: &TableSet, alias: &[AliasTable]) -> Self {
        let (p, shift) = (set.table_bits(), layout.shift());
        let contexts = || (0..set.contexts()).map(|k| set.context(k));
        let most = contexts().map(|context| context.shift).max().unwrap_or(0);
        // Both fit below the frequency: a field at its own shift ends at bit 16, and a value at P has what 2P bits leave it.
        let value_at = p.max(shift);
        let mut entries = vec![0; set.tables().len() << p];
        for ((table, alias), entries) in set.tables().iter().zip(alias).zip(entries.chunks_exact_mut(1 << p)) {
            for run in alias.runs() {
                let symbol = usize::from(run.symbol);
                let value = set.values()[symbol];
                let value = if value == 0 { 0 } else { u32::from(value) + u32::from(most) };
                let first = u32::from(table.freqs()[symbol]) << (32 - p) | value << value_at | u32::from(run.bias);
                let run = &mut entries[usize::from(run.slot)..][..usize::from(run.len)];
                run.iter_mut().zip(first..).for_each(|(entry, e)| *entry = e);
            }
        }
        let mut it = Self {
            entries,
            value_at,
            value_bits: layout.coded_bits().min(max_value_bits(p)),
            starts: [0; CONTEXTS],
            excess: [[0; CONTEXTS]; 2],
            one: contexts().all(|context| context.table == 0),
            shifts: contexts().any(|context| context.shift != most),
        };
        for (k, context) in contexts().enumerate() {
            it.starts[k] = context.table << (p - 8);
            [it.excess[0][k], it.excess[1][k]] = ((most - context.shift) << shift).to_le_bytes();
        }
        it
    }
}
