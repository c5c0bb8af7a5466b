//! One row: a symbol for each of 64 lanes, and words for the states that want them.
//!
//! Slots of an even and an odd column share a 32-bit lane, so that four vectors of indexes serve a row. They are stored, and every
//! entry is loaded by itself: 64 broadcasts, which any load port does, and 56 blends, which any vector port does. A gather of eight takes
//! eight cycles on Zen 3 and eleven on Zen 5, as long as sixteen lanes take so, and as long again on CPUs that guard gathers against
//! sampling of stale data.
#![expect(unsafe_code, reason = "loads at indexes that tables vouch for, in assembly")]

use std::arch::x86_64::*;

use super::super::plan::{Full, Plan, ROW_WINDOW};
use super::super::slots::Slots;
use super::{Values, load, prefetch};
use crate::superblock::Target;

/// The states of one superblock, and where in the stream its next words are.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    /// Eight vectors of eight, the first four of even columns, the others of odd ones.
    pub(super) states: [__m256i; 8],
    /// See [`column_classes`].
    cols: [__m256i; 2],
    pub(super) at: usize,
    /// Between the parts of a step: contexts in the order of `cols`, and indexes of entries in the order of columns.
    contexts: [__m256i; 2],
    indexes: [__m256i; 4],
}

impl Lanes {
    #[inline]
    #[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
    pub(super) fn new(states: [__m256i; 8], block: &Full<'_>) -> Self {
        let zero = _mm256_setzero_si256();
        Self { states, cols: column_classes(block), at: 0, contexts: [zero; 2], indexes: [zero; 4] }
    }
}

/// What a row needs besides states: vectors that no row changes.
pub(super) struct Step<'a> {
    entries: &'a [u32],
    slots: &'a Slots,
    /// Bits of a slot, in every halfword.
    slot_mask: __m256i,
    /// Bits of a bias, in every entry.
    bias_mask: __m256i,
    state_shift: __m256i,
    freq_shift: __m256i,
    /// From an entry to its value in the low half, and in the high half.
    even_shift: __m256i,
    odd_shift: __m256i,
    value_mask: __m256i,
    last_context: __m256i,
    starts: __m256i,
    excess: [__m256i; 2],
}

/// How contexts differ: not at all, in tables, or in tables and shifts.
pub(super) const ONE: u8 = 0;
pub(super) const TABLES: u8 = 1;
pub(super) const SHIFTS: u8 = 2;

impl<'a> Step<'a> {
    #[inline]
    #[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
    pub(super) fn new(slots: &'a Slots, plan: &Plan, table_bits: u32, contexts: usize) -> Self {
        let fill = |x: u32| _mm256_set1_epi32(x as i32);
        let both = |x: u32| fill(x << 16 | x);
        let shift = plan.layout.shift();
        // SAFETY: 16 readable bytes.
        let bytes = |b: &[u8; 16]| _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(b.as_ptr().cast()) });
        Self {
            entries: &slots.entries,
            slots,
            slot_mask: both((1 << table_bits) - 1),
            bias_mask: fill((1 << table_bits) - 1),
            state_shift: fill(table_bits),
            freq_shift: fill(32 - table_bits),
            even_shift: fill(slots.value_at - shift),
            odd_shift: fill(16 + shift - slots.value_at),
            value_mask: both(((1 << slots.value_bits) - 1) << shift),
            last_context: _mm256_set1_epi8(contexts as i8 - 1),
            starts: bytes(&slots.starts),
            excess: [bytes(&slots.excess[0]), bytes(&slots.excess[1])],
        }
    }

    /// What [`row`] is to be told.
    pub(super) fn kind(&self) -> u8 {
        match (self.slots.one, self.slots.shifts) {
            (_, true) => SHIFTS,
            (false, false) => TABLES,
            (true, false) => ONE,
        }
    }
}

/// Loads the entries of sixteen columns, the indexes of which are the halfwords from byte `$at` of `{index}` on: those of even columns,
/// and those of odd ones. Four indexes come with one load and are parted by shifts, since there are fewer ports for loads.
macro_rules! look_up {
    ($entries:expr, $index:expr, $at:literal) => {{
        let (even, odd): (__m256i, __m256i);
        // SAFETY: the caller's promise: every index is that of an entry, and 32 bytes of them are readable.
        unsafe {
            std::arch::asm!(
                look_up!(@four $at, "0"),
                "vpbroadcastd {e}, dword ptr [{entries} + 4*{b}]",
                "vpbroadcastd {o}, dword ptr [{entries} + 4*{c}]",
                "vpbroadcastd {x}, dword ptr [{entries} + 4*{d}]",
                "vpbroadcastd {y}, dword ptr [{entries} + 4*{a}]",
                look_up!(@four $at, "8"),
                "vpblendd {e}, {e}, {x}, 0x02",
                "vpblendd {o}, {o}, {y}, 0x02",
                look_up!(@load),
                look_up!(@four $at, "16"),
                look_up!(@blend "0x08", "0x0c"),
                look_up!(@load),
                look_up!(@four $at, "24"),
                look_up!(@blend "0x20", "0x30"),
                look_up!(@load),
                look_up!(@blend "0x80", "0xc0"),
                entries = in(reg) $entries,
                index = in(reg) $index,
                a = out(reg) _,
                b = out(reg) _,
                c = out(reg) _,
                d = out(reg) _,
                e = out(ymm_reg) even,
                o = out(ymm_reg) odd,
                x = out(ymm_reg) _,
                y = out(ymm_reg) _,
                z = out(ymm_reg) _,
                w = out(ymm_reg) _,
                options(pure, readonly, nostack),
            );
        }
        (even, odd)
    }};
    // Four indexes, in the order b, c, d, a.
    (@four $at:literal, $more:literal) => {
        concat!(
            "mov {a}, qword ptr [{index} + ", $at, " + ", $more, "]\n",
            "movzx {b:e}, {a:x}\n",
            "shr {a}, 16\n",
            "movzx {c:e}, {a:x}\n",
            "shr {a}, 16\n",
            "movzx {d:e}, {a:x}\n",
            "shr {a}, 16",
        )
    };
    (@load) => {
        concat!(
            "vpbroadcastd {x}, dword ptr [{entries} + 4*{b}]\n",
            "vpbroadcastd {y}, dword ptr [{entries} + 4*{c}]\n",
            "vpbroadcastd {z}, dword ptr [{entries} + 4*{d}]\n",
            "vpbroadcastd {w}, dword ptr [{entries} + 4*{a}]",
        )
    };
    (@blend $second:literal, $both:literal) => {
        concat!(
            "vpblendd {x}, {x}, {z}, ", $second, "\n",
            "vpblendd {y}, {y}, {w}, ", $second, "\n",
            "vpblendd {e}, {e}, {x}, ", $both, "\n",
            "vpblendd {o}, {o}, {y}, ", $both,
        )
    };
}

/// First part of a step: the contexts of a row of this class, and the indexes of its entries.
macro_rules! index {
    ($kind:ident, $t:expr, $lanes:expr, $class:expr) => {{
        let (t, lanes, zero) = ($t, &mut *$lanes, _mm256_setzero_si256());
        let mut starts = [zero; 4];
        if $kind != ONE {
            let row = _mm256_set1_epi8($class as i8);
            for h in 0..2 {
                let sum = _mm256_subs_epu8(_mm256_adds_epu8(lanes.cols[h], row), _mm256_set1_epi8(-128));
                let context = _mm256_min_epu8(sum, t.last_context);
                let start = _mm256_shuffle_epi8(t.starts, context);
                starts[2 * h] = _mm256_unpacklo_epi8(zero, start);
                starts[2 * h + 1] = _mm256_unpackhi_epi8(zero, start);
                lanes.contexts[h] = context;
            }
        }
        for h in 0..4 {
            let slots = _mm256_blend_epi16::<0xaa>(lanes.states[h], _mm256_slli_epi32::<16>(lanes.states[4 + h]));
            let slots = _mm256_and_si256(slots, t.slot_mask);
            lanes.indexes[h] = if $kind == ONE { slots } else { _mm256_or_si256(slots, starts[h]) };
        }
    }};
}

/// Second part: the entries at those indexes, states by them, and value words in the order of columns.
macro_rules! decode {
    ($kind:ident, $t:expr, $lanes:expr) => {{
        let (t, lanes, zero) = ($t, &mut *$lanes, _mm256_setzero_si256());
        let mut excess = [zero; 4];
        if $kind == SHIFTS {
            for h in 0..2 {
                let low = _mm256_shuffle_epi8(t.excess[0], lanes.contexts[h]);
                let high = _mm256_shuffle_epi8(t.excess[1], lanes.contexts[h]);
                excess[2 * h] = _mm256_unpacklo_epi8(low, high);
                excess[2 * h + 1] = _mm256_unpackhi_epi8(low, high);
            }
        }
        let (entries, index) = (t.entries.as_ptr(), lanes.indexes.as_ptr());
        let mut values = [zero; 4];
        macro_rules! pair {
            ($h:literal, $at:literal) => {{
                let (even, odd) = look_up!(entries, index, $at);
                for (v, entry) in [($h, even), (4 + $h, odd)] {
                    let factors =
                        (_mm256_srlv_epi32(entry, t.freq_shift), _mm256_srlv_epi32(lanes.states[v], t.state_shift));
                    let product = _mm256_mullo_epi32(factors.0, factors.1);
                    lanes.states[v] = _mm256_add_epi32(product, _mm256_and_si256(entry, t.bias_mask));
                }
                let value = _mm256_blend_epi16::<0xaa>(
                    _mm256_srlv_epi32(even, t.even_shift),
                    _mm256_sllv_epi32(odd, t.odd_shift),
                );
                let value = _mm256_and_si256(value, t.value_mask);
                values[$h] = if $kind == SHIFTS { _mm256_subs_epu16(value, excess[$h]) } else { value };
            }};
        }
        pair!(0, "0");
        pair!(1, "32");
        pair!(2, "64");
        pair!(3, "96");
        values
    }};
}

/// Third part: words for the states that are below 2^16, from a stream that has 128 readable bytes where they begin.
macro_rules! refill {
    ($lanes:expr, $words:expr) => {{
        let (words, lanes, zero) = ($words, &mut *$lanes, _mm256_setzero_si256());
        let words = words.wrapping_add(lanes.at);
        let mut taken = 0;
        for x in lanes.states.iter_mut() {
            // The upper halves of states that are below 2^16 are 0; their highest bits tell.
            let short = _mm256_castsi256_ps(_mm256_cmpeq_epi16(*x, zero));
            let mask = _mm256_movemask_ps(short) as usize & 0xff;
            // SAFETY: eight vectors of at most eight words each: the window ends within the 128 bytes.
            let window = unsafe { _mm_loadu_si128(words.add(2 * taken).cast()) };
            let word = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(window), load(&SPREAD.0[mask]));
            let refilled = _mm256_or_si256(_mm256_slli_epi32::<16>(*x), word);
            *x = _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(*x), _mm256_castsi256_ps(refilled), short));
            taken += mask.count_ones() as usize;
        }
        lanes.at += 2 * taken;
    }};
}

/// Decodes one symbol per lane and refills the states. Gives value words in the order of columns.
///
/// # Safety
/// KIND must be [`Step::kind`].
#[inline(never)]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
pub(super) unsafe fn row<const KIND: u8>(
    t: &Step<'_>,
    lanes: &mut Lanes,
    class: u8,
    words: &[u8; ROW_WINDOW],
) -> [__m256i; 4] {
    index!(KIND, t, lanes, class);
    let values = decode!(KIND, t, lanes);
    refill!(lanes, words.as_ptr().wrapping_sub(lanes.at));
    values
}

/// As [`row`], for the given rows of all superblocks, whose streams have words enough for them.
///
/// With two superblocks, one's parts of a step take turns with the other's, so that what a part waits for was begun a part earlier.
///
/// # Safety
/// KIND must be [`Step::kind`], and from `at` on every `readable` must have 128 bytes a row.
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
pub(super) unsafe fn rows<const N: usize, const KIND: u8>(
    t: &Step<'_>,
    plan: &Plan,
    blocks: &[Full<'_>; N],
    lanes: &mut [Lanes; N],
    rows: std::ops::Range<usize>,
    values: &mut [&mut [Values]; N],
    target: &Target<'_>,
) {
    let (first, last) = (0, N - 1);
    let words = |b: usize| blocks[b].readable.as_ptr();
    if rows.is_empty() {
        return;
    }
    index!(KIND, t, &mut lanes[first], blocks[first].rows[rows.start]);
    for i in rows.clone() {
        let next = blocks[first].rows[(i + 1).min(rows.end - 1)];
        prefetch(plan, &blocks[first], i, lanes[first].at, target);
        values[first][i].write(decode!(KIND, t, &mut lanes[first]));
        if N == 2 {
            index!(KIND, t, &mut lanes[last], blocks[last].rows[i]);
        }
        refill!(&mut lanes[first], words(first));
        if N == 2 {
            prefetch(plan, &blocks[last], i, lanes[last].at, target);
            values[last][i].write(decode!(KIND, t, &mut lanes[last]));
        }
        index!(KIND, t, &mut lanes[first], next);
        if N == 2 {
            refill!(&mut lanes[last], words(last));
        }
    }
}

/// For each set of lanes that take a word, the bytes of a window that every lane takes: those of its word, or none.
static SPREAD: Spread = {
    let mut table = [[0x80; 32]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut byte) = (0, 0);
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                table[mask][4 * lane] = byte;
                table[mask][4 * lane + 1] = byte + 1;
                byte += 2;
            }
            lane += 1;
        }
        mask += 1;
    }
    Spread(table)
};

/// Aligned, so that no load crosses a line.
#[repr(align(64))]
struct Spread([[u8; 32]; 256]);

/// Column classes + 128, in the order in which their bytes, unpacked with others within 128 bits, come out as columns 0-15, 16-31 and so on.
#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt,pclmulqdq")]
fn column_classes(block: &Full<'_>) -> [__m256i; 2] {
    let mut halves = [_mm256_set1_epi8(-128); 2];
    for (half, cols) in halves.iter_mut().zip(block.cols.as_chunks::<32>().0) {
        // SAFETY: 32 readable bytes; the load needs no alignment.
        let cols = unsafe { _mm256_loadu_si256(cols.as_ptr().cast()) };
        *half = _mm256_xor_si256(*half, _mm256_permute4x64_epi64::<0b11_01_10_00>(cols));
    }
    halves
}
