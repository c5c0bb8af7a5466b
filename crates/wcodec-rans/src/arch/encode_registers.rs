//! Slots as byte tables that stay in vector registers, or one cycle away: the counterpart of `registers` for encoding.
//!
//! A context's slots are those of its table, shifted. Entry `t · W + u` is the slot of table t for the value that is u − 1 above the
//! table's first one; u = 0 stands for all values below, the u behind the last value for those above, and u = W − 1 for
//! the value 0, which no context shifts.

use super::encode::Slot;
use crate::table_set::TableSet;

/// Most entries T·W.
pub(crate) const MAX_ENTRIES: usize = 512;
/// The u of a value 0 before its place at the end is known.
pub(crate) const ZERO: u8 = 255;

/// See the [module](self).
#[derive(Debug, Clone)]
#[repr(align(64))]
pub(crate) struct SlotRegisters {
    /// Byte k of every entry's slot.
    pub(crate) bytes: [[u8; MAX_ENTRIES]; 4],
    /// Of every context, low byte of `t · W`.
    pub(crate) base: [u8; 64],
    /// Of every context, whether `t · W` is 256 or more.
    pub(crate) high: [u8; 64],
    /// Of every context, its shift.
    pub(crate) shift: [u8; 64],
    /// What is taken from coded fields to make u, before the context's shift.
    pub(crate) below: u16,
    /// The u of values above the last.
    pub(crate) above: u8,
    /// W − 1.
    pub(crate) zero: u8,
    /// Whether value 0 is one of several and so has an entry of its own.
    pub(crate) has_zero: bool,
    /// Vectors of 128 entries: 1, 2 or 4.
    pub(crate) pairs: usize,
}

impl SlotRegisters {
    /// The byte tables of `entries`, which has one entry for every context and value from `first` on, `width` per context, the last of
    /// them for all other values; `None` for sets of too many.
    pub(crate) fn new(set: &TableSet, entries: &[Slot], first: u16, width: usize) -> Option<Self> {
        let (values, tables) = (set.values(), set.tables().len());
        let has_zero = values[0] == 0;
        let lowest = if has_zero { values[1] } else { values[0] };
        let span = usize::from(values[values.len() - 1] - lowest) + 1;
        let w = (span + 3).next_power_of_two();
        let most_shifted = set.context_tables().map(|(_, context)| context.shift).max().unwrap_or(0);
        if w > 256 || tables * w > MAX_ENTRIES || span + usize::from(most_shifted) > 253 {
            return None;
        }
        let mut it = Self {
            bytes: [[0; MAX_ENTRIES]; 4],
            base: [0; 64],
            high: [0; 64],
            shift: [0; 64],
            below: lowest - 1,
            above: (span + 1) as u8,
            zero: (w - 1) as u8,
            has_zero,
            pairs: (tables * w).div_ceil(128).next_power_of_two(),
        };
        for (number, ((_, context), entries)) in set.context_tables().zip(entries.chunks_exact(width)).enumerate() {
            let base = usize::from(context.table) * w;
            it.base[number] = base as u8;
            it.high[number] = u8::from(base > 255);
            it.shift[number] = context.shift as u8;
            let of = |value: Option<usize>| {
                let at = value.and_then(|v| v.checked_sub(usize::from(first))).unwrap_or(width - 1);
                entries[at.min(width - 1)]
            };
            let mut put = |u: usize, slot: Slot| {
                it.bytes.iter_mut().zip(slot.to_le_bytes()).for_each(|(bytes, byte)| bytes[base + u] = byte);
            };
            (0..w - 1).for_each(|u| {
                let inside = (1..=span).contains(&u);
                put(u, of(inside.then(|| u - 1 + usize::from(lowest + context.shift))));
            });
            put(w - 1, of(Some(0)));
        }
        Some(it)
    }
}
