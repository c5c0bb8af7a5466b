//! Encoding with AVX2: a row is eight vectors of eight states, in lane order.
//!
//! A row of 64 heads takes some 70 vector instructions for the indexes of its slots and 260 for the states' step; slots and biases are loaded
//! one by one.
#![expect(
    unsafe_code,
    reason = "vector loads and stores, loads at places that tables vouch for, and entry into functions compiled for AVX2"
)]

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::encode::{EncodeTables, Lanes, PATCHED, PRODUCT_ROWS};
use crate::LANES;
use crate::layout::HeadLayout;
use crate::superblock::{Classes, GROUP_ROWS, Shape};

/// Vectors of a row.
const VECTORS: usize = LANES / 8;

impl Avx2 {
    /// See [`super::Backend::encode_heads`]; of 64 columns of 2 or 4 bytes.
    pub(crate) fn encode_heads(self, bytes: &[u8], row_stride: usize, element_bytes: usize, heads: &mut [u16]) {
        // SAFETY: `self` exists only if the CPU has every feature that the functions are compiled for.
        unsafe {
            if element_bytes == 2 { heads_of_2(bytes, row_stride, heads) } else { heads_of_4(bytes, row_stride, heads) }
        }
    }

    /// See [`super::Backend::encode_slots`]; for 64 columns.
    pub(crate) fn encode_slots(self, tables: &EncodeTables, heads: &[u16], classes: Classes<'_>, lanes: &mut Lanes) {
        // SAFETY: `self` exists only if the CPU has every feature that the functions are compiled for.
        unsafe { slots(tables, heads, classes, &mut lanes.slots, &mut lanes.patched) }
    }

    /// See [`super::Backend::encode_costs`]; for 64 columns.
    pub(crate) fn encode_costs(self, tables: &EncodeTables, shape: Shape, lanes: &Lanes, costs: &mut [u32; LANES]) {
        // SAFETY: as above.
        let (mantissas, exponents) = unsafe { products(&lanes.slots) };
        tables.costs(shape, &mantissas, &exponents, costs);
    }

    /// See [`super::Backend::encode_run`]; for 64 columns and P ≥ 10.
    pub(crate) fn encode_run<const N: usize>(
        self,
        tables: &EncodeTables,
        lanes: [&mut Lanes; N],
        states: [&mut [u32; LANES]; N],
    ) {
        // SAFETY: as above.
        unsafe { run(tables, lanes, states) }
    }

    /// See [`super::Backend::encode_raw`]; for 64 columns and at least one raw bit.
    pub(crate) fn encode_raw(self, layout: HeadLayout, heads: &[u16], halves: &mut [u32]) {
        // SAFETY: as above.
        unsafe { raw(layout, heads, halves) }
    }

    /// See [`super::Backend::encode_words`]; for 64 columns.
    pub(crate) fn encode_words(self, lanes: &Lanes, out: &mut Vec<u8>) {
        // SAFETY: as above.
        unsafe { words(&lanes.words, &lanes.sheds, out) }
    }
}

#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
fn heads_of_2(bytes: &[u8], row_stride: usize, heads: &mut [u16]) {
    for (heads, row) in heads.as_chunks_mut::<LANES>().0.iter_mut().zip(bytes.chunks(row_stride)) {
        // What the next superblock of the strip reads.
        prefetch(row.as_ptr().wrapping_add(128));
        prefetch(row.as_ptr().wrapping_add(192));
        // Not a copy of slices: the compiler would call a function for so few bytes.
        for (heads, bytes) in heads.as_chunks_mut::<16>().0.iter_mut().zip(row[..128].as_chunks::<32>().0) {
            store_words(heads, load_bytes(bytes));
        }
    }
}

#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
fn heads_of_4(bytes: &[u8], row_stride: usize, heads: &mut [u16]) {
    for (heads, row) in heads.as_chunks_mut::<LANES>().0.iter_mut().zip(bytes.chunks(row_stride)) {
        for i in [256, 320, 384, 448] {
            prefetch(row.as_ptr().wrapping_add(i));
        }
        for (heads, bytes) in
            heads.as_chunks_mut::<16>().0.iter_mut().zip(row[..256].as_chunks::<32>().0.as_chunks::<2>().0)
        {
            let upper = |of: &[u8; 32]| _mm256_srli_epi32::<16>(load_bytes(of));
            let packed = _mm256_packus_epi32(upper(&bytes[0]), upper(&bytes[1]));
            store_words(heads, _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
    }
}

/// Asks for the bytes at any address, valid or not: a prefetch never faults.
#[inline]
#[target_feature(enable = "avx2")]
fn prefetch(at: *const u8) {
    _mm_prefetch::<_MM_HINT_T0>(at.cast());
}

#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
fn slots(tables: &EncodeTables, heads: &[u16], classes: Classes<'_>, slots: &mut [u32], patched: &mut [u64]) {
    let layout = tables.layout;
    let fill = |x: usize| _mm256_set1_epi32(x as i32);
    let mask = fill((1 << layout.coded_bits()) - 1);
    let (first, other) = (fill(usize::from(tables.first)), fill(tables.width - 1));
    let last_context = fill((tables.contexts - 1) * tables.width);
    let shifts = [_mm_cvtsi32_si128(layout.shift() as i32), _mm_cvtsi32_si128(layout.shift() as i32 + 16)];
    // Columns' classes in lane order, in entries.
    let mut offsets = [0u32; LANES];
    for (lane, offset) in offsets.iter_mut().enumerate() {
        *offset = (i32::from(classes.cols[2 * (lane % 32) + lane / 32]) * tables.width as i32) as u32;
    }
    let entries = tables.entries();
    let rows = heads.as_chunks::<LANES>().0.iter().zip(slots.as_chunks_mut::<LANES>().0);
    for (((heads, slots), &class), patched) in rows.zip(classes.rows).zip(patched) {
        let class = fill(usize::from(class) * tables.width);
        let mut indexes = [0u32; LANES];
        for v in 0..VECTORS {
            let pairs = load_words(&heads[16 * (v % 4)..16 * (v % 4) + 16]);
            let value = _mm256_and_si256(_mm256_srl_epi32(pairs, shifts[v / 4]), mask);
            let value = _mm256_min_epu32(_mm256_sub_epi32(value, first), other);
            let context = _mm256_add_epi32(class, load(&offsets[8 * v..8 * v + 8]));
            let context = _mm256_min_epi32(_mm256_max_epi32(context, _mm256_setzero_si256()), last_context);
            store(&mut indexes[8 * v..8 * v + 8], _mm256_add_epi32(context, value));
        }
        let mut any = 0;
        for (slots, indexes) in slots.as_chunks_mut::<8>().0.iter_mut().zip(indexes.as_chunks::<8>().0) {
            // SAFETY: value < width, and context ≤ (contexts − 1)·width.
            any |= unsafe { copy_entries(entries, indexes, slots) };
        }
        *patched = u64::from(any & PATCHED);
    }
}

/// Copies the entries at these indexes; gives all their bits. In assembly, since compilers would make a slower gather of it.
///
/// # Safety
/// Indexes are below `entries.len()`.
#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
unsafe fn copy_entries(entries: &[u32], indexes: &[u32; 8], slots: &mut [u32; 8]) -> u32 {
    macro_rules! four {
        ($at:literal) => {
            concat!(
                "mov {a:e}, dword ptr [{indexes} + ",
                $at,
                "]\n",
                "mov {b:e}, dword ptr [{indexes} + ",
                $at,
                " + 4]\n",
                "mov {c:e}, dword ptr [{indexes} + ",
                $at,
                " + 8]\n",
                "mov {d:e}, dword ptr [{indexes} + ",
                $at,
                " + 12]\n",
                "mov {a:e}, dword ptr [{entries} + 4*{a}]\n",
                "mov {b:e}, dword ptr [{entries} + 4*{b}]\n",
                "mov {c:e}, dword ptr [{entries} + 4*{c}]\n",
                "mov {d:e}, dword ptr [{entries} + 4*{d}]\n",
                "mov dword ptr [{slots} + ",
                $at,
                "], {a:e}\n",
                "mov dword ptr [{slots} + ",
                $at,
                " + 4], {b:e}\n",
                "mov dword ptr [{slots} + ",
                $at,
                " + 8], {c:e}\n",
                "mov dword ptr [{slots} + ",
                $at,
                " + 12], {d:e}\n",
                "or {a:e}, {b:e}\n",
                "or {c:e}, {d:e}\n",
                "or {any:e}, {a:e}\n",
                "or {any:e}, {c:e}\n",
            )
        };
    }
    let mut any = 0u32;
    // SAFETY: the caller's promise; writes `slots` alone.
    unsafe {
        std::arch::asm!(
            four!("0"),
            four!("16"),
            entries = in(reg) entries.as_ptr(),
            indexes = in(reg) indexes.as_ptr(),
            slots = in(reg) slots.as_mut_ptr(),
            any = inout(reg) any,
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            d = out(reg) _,
            options(nostack),
        );
    }
    any
}

/// See [`Lanes::costs_scalar`].
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
fn products(slots: &[u32]) -> ([f32; LANES], [u32; LANES]) {
    let mut m = [_mm256_set1_ps(1.0); VECTORS];
    let mut e = [_mm256_setzero_si256(); VECTORS];
    for rows in slots.chunks(PRODUCT_ROWS * LANES) {
        for slots in rows.as_chunks::<LANES>().0 {
            for v in 0..VECTORS {
                let freq = _mm256_and_si256(load(&slots[8 * v..8 * v + 8]), _mm256_set1_epi32(0xfff));
                m[v] = _mm256_mul_ps(m[v], _mm256_cvtepi32_ps(freq));
            }
        }
        for v in 0..VECTORS {
            let bits = _mm256_castps_si256(m[v]);
            let exponent = _mm256_sub_epi32(_mm256_srli_epi32::<23>(bits), _mm256_set1_epi32(127));
            e[v] = _mm256_add_epi32(e[v], exponent);
            let fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x7f_ffff));
            m[v] = _mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(127 << 23)));
        }
    }
    let (mut mantissas, mut exponents) = ([0f32; LANES], [0u32; LANES]);
    for v in 0..VECTORS {
        store(&mut exponents[8 * v..8 * v + 8], e[v]);
        let to: &mut [f32; 8] = (&mut mantissas[8 * v..8 * v + 8]).try_into().expect("8");
        // SAFETY: 32 writable bytes.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), m[v]) };
    }
    (mantissas, exponents)
}

/// Runs the states of one superblock, or of two of as many rows side by side: the loads of one stand behind the division of the other.
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
fn run<const N: usize>(tables: &EncodeTables, lanes: [&mut Lanes; N], states: [&mut [u32; LANES]; N]) {
    let (step, entries) = (Step::new(tables), tables.padded_places());
    let mut steps = [Between { quotients: [0; LANES], places: [0; LANES] }; N];
    // The two halves of a step; not functions, which the compiler would call: words, sheds, quotients and places; then the states.
    macro_rules! divide {
        ($n:expr, $row:expr) => {{
            let (of, lanes, row): (&mut Between, &mut Lanes, usize) = (&mut steps[$n], &mut *lanes[$n], $row);
            let slots: &[u32; LANES] = lanes.slots[LANES * row..][..LANES].try_into().expect("64");
            let words: &mut [u16; LANES] = (&mut lanes.words[LANES * row..][..LANES]).try_into().expect("64");
            let mut sheds = 0;
            for h in 0..VECTORS / 2 {
                let mut low = [_mm256_setzero_si256(); 2];
                for k in 0..2 {
                    let lane = 16 * h + 8 * k;
                    let x = load(&states[$n][lane..lane + 8]);
                    low[k] = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
                    let (shed, quotient, place) = step.divide(x, load(&slots[lane..lane + 8]));
                    sheds |= u64::from(_mm256_movemask_ps(_mm256_castsi256_ps(shed)) as u8) << lane;
                    store(&mut of.quotients[lane..lane + 8], quotient);
                    store(&mut of.places[lane..lane + 8], place);
                }
                let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low[0], low[1]));
                store_words(&mut words[16 * h..16 * h + 16], packed);
            }
            lanes.sheds[row] = sheds;
        }};
    }
    macro_rules! look_up {
        ($n:expr) => {{
            let of: &Between = &steps[$n];
            for lane in (0..LANES).step_by(8) {
                // SAFETY: `divide` gives places below the number of them, and one more follows.
                let slot = unsafe { look_up(entries, of.places[lane..lane + 8].try_into().expect("8")) };
                let slot = _mm256_and_si256(slot, _mm256_set1_epi32(0xffff));
                let shifted = _mm256_sll_epi32(load(&of.quotients[lane..lane + 8]), step.table_bits);
                store(&mut states[$n][lane..lane + 8], _mm256_add_epi32(shifted, slot));
            }
        }};
    }

    let height = lanes.iter().map(|lanes| lanes.sheds.len()).min().unwrap_or(0);
    if N == 2 && height > 0 {
        divide!(1, height - 1);
    }
    for row in (0..height).rev() {
        divide!(0, row);
        if N == 2 {
            look_up!(1);
            if row > 0 {
                divide!(1, row - 1);
            }
        }
        look_up!(0);
    }
}

/// What the first half of a superblock's step leaves to the second.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Between {
    quotients: [u32; LANES],
    /// Below the number of places.
    places: [u32; LANES],
}

/// What every step of the states needs.
struct Step {
    table_bits: __m128i,
    limit_shift: __m128i,
    last_place: __m256i,
}

impl Step {
    #[inline]
    #[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
    fn new(tables: &EncodeTables) -> Self {
        Self {
            table_bits: _mm_cvtsi32_si128(tables.table_bits as i32),
            limit_shift: _mm_cvtsi32_si128(32 - tables.table_bits as i32),
            last_place: _mm256_set1_epi32(tables.places().len() as i32 - 1),
        }
    }

    /// Which states shed a word, the quotients of what is left, and the places of the biases.
    ///
    /// The quotient, below 2^22 (x < freq·2^(32 − P) after shedding; P ≥ 10), comes from floats of 24 bits: rounding the state to one costs at
    /// most 2^22 · 2^-24, rounding their quotient half a unit of 2^-2. Less one half, which floats have room for exactly, it so lies
    /// between an eighth and seven eighths below the true one: truncation gives the quotient or one less, and the remainder tells which.
    #[inline]
    #[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
    fn divide(&self, x: __m256i, slot: __m256i) -> (__m256i, __m256i, __m256i) {
        let freq = _mm256_and_si256(slot, _mm256_set1_epi32(0xfff));
        let begin = _mm256_and_si256(_mm256_srli_epi32::<12>(slot), _mm256_set1_epi32(0x7fff));
        let limit = _mm256_sll_epi32(freq, self.limit_shift);
        let shed = _mm256_cmpeq_epi32(_mm256_max_epu32(x, limit), x);
        let y = _mm256_blendv_epi8(x, _mm256_srli_epi32::<16>(x), shed);

        // Halves of y as the low mantissa bits of 2^23 and of 2^39; their sum is rounded once.
        let low = _mm256_blend_epi16::<0xaa>(y, _mm256_set1_epi32(0x4b00_0000));
        let high = _mm256_blend_epi16::<0xaa>(_mm256_srli_epi32::<16>(y), _mm256_set1_epi32(0x5300_0000));
        let both = _mm256_set1_ps(((1u64 << 39) + (1 << 23)) as f32);
        let float = _mm256_add_ps(_mm256_sub_ps(_mm256_castsi256_ps(high), both), _mm256_castsi256_ps(low));
        let quotient = _mm256_div_ps(float, _mm256_cvtepi32_ps(freq));
        let q = _mm256_cvttps_epi32(_mm256_sub_ps(quotient, _mm256_set1_ps(0.5)));
        let rest = _mm256_sub_epi32(y, _mm256_mullo_epi32(q, freq));
        let less = _mm256_cmpgt_epi32(freq, rest);
        let q = _mm256_add_epi32(_mm256_sub_epi32(q, _mm256_set1_epi32(-1)), less);
        let rest = _mm256_sub_epi32(rest, _mm256_andnot_si256(less, freq));
        (shed, q, _mm256_min_epu32(_mm256_add_epi32(begin, rest), self.last_place))
    }
}

/// 32 bits from each of these places on, the lower 16 of which are the entry there. Loads one by one, as in decoding.
///
/// # Safety
/// Places are below `entries.len() − 1`.
#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
unsafe fn look_up(entries: &[u16], places: &[u32; 8]) -> __m256i {
    let found: __m256i;
    // SAFETY: the caller's promise.
    unsafe {
        std::arch::asm!(
            "mov {a:e}, dword ptr [{places}]",
            "mov {b:e}, dword ptr [{places} + 4]",
            "mov {c:e}, dword ptr [{places} + 8]",
            "mov {d:e}, dword ptr [{places} + 12]",
            "vpbroadcastd {e}, dword ptr [{entries} + 2*{a}]",
            "vpbroadcastd {x}, dword ptr [{entries} + 2*{b}]",
            "vpbroadcastd {y}, dword ptr [{entries} + 2*{c}]",
            "vpbroadcastd {z}, dword ptr [{entries} + 2*{d}]",
            "mov {a:e}, dword ptr [{places} + 16]",
            "mov {b:e}, dword ptr [{places} + 20]",
            "mov {c:e}, dword ptr [{places} + 24]",
            "mov {d:e}, dword ptr [{places} + 28]",
            "vpblendd {e}, {e}, {x}, 0x02",
            "vpblendd {y}, {y}, {z}, 0x08",
            "vpbroadcastd {x}, dword ptr [{entries} + 2*{a}]",
            "vpbroadcastd {z}, dword ptr [{entries} + 2*{b}]",
            "vpblendd {e}, {e}, {y}, 0x0c",
            "vpblendd {x}, {x}, {z}, 0x20",
            "vpbroadcastd {y}, dword ptr [{entries} + 2*{c}]",
            "vpbroadcastd {z}, dword ptr [{entries} + 2*{d}]",
            "vpblendd {e}, {e}, {x}, 0x30",
            "vpblendd {y}, {y}, {z}, 0x80",
            "vpblendd {e}, {e}, {y}, 0xc0",
            entries = in(reg) entries.as_ptr(),
            places = in(reg) places.as_ptr(),
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            d = out(reg) _,
            e = out(ymm_reg) found,
            x = out(ymm_reg) _,
            y = out(ymm_reg) _,
            z = out(ymm_reg) _,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    found
}

/// Two heads of a column pair are one 32-bit word; turned left by one it has each low field one bit up and the other's sign below it.
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
fn raw(layout: HeadLayout, heads: &[u16], halves: &mut [u32]) {
    let r = layout.raw_bits() as usize;
    let mask = _mm256_set1_epi16(((1u32 << r) - 1) as i16);
    let mut out = halves.as_chunks_mut::<32>().0.iter_mut();
    for group in heads.chunks(GROUP_ROWS * LANES) {
        let mut filled = 0;
        let mut pending = [_mm256_setzero_si256(); 4];
        for row in group.as_chunks::<LANES>().0 {
            let shift = _mm_cvtsi32_si128(filled as i32);
            let back = _mm_cvtsi32_si128(16 - filled as i32);
            let mut codes = [_mm256_setzero_si256(); 4];
            for h in 0..4 {
                let pairs = load_words(&row[16 * h..16 * h + 16]);
                let turned = match (layout.sign(), layout.bits()) {
                    (false, _) => pairs,
                    (true, 16) => _mm256_or_si256(_mm256_slli_epi32::<1>(pairs), _mm256_srli_epi32::<31>(pairs)),
                    // An 8-bit head has its sign in bit 7, and so has to give it to the other half.
                    (true, _) => {
                        let sign = _mm256_srli_epi16::<7>(pairs);
                        let sign = _mm256_or_si256(_mm256_slli_epi32::<16>(sign), _mm256_srli_epi32::<16>(sign));
                        _mm256_or_si256(_mm256_slli_epi16::<1>(pairs), sign)
                    }
                };
                codes[h] = _mm256_and_si256(turned, mask);
                pending[h] = _mm256_or_si256(pending[h], _mm256_sll_epi16(codes[h], shift));
            }
            filled += r;
            if filled >= 16 {
                put(&mut out, pending);
                filled -= 16;
                for h in 0..4 {
                    pending[h] = _mm256_srl_epi16(codes[h], back);
                }
            }
        }
        if filled > 0 {
            put(&mut out, pending);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
fn put(out: &mut std::slice::IterMut<'_, [u32; 32]>, words: [__m256i; 4]) {
    if let Some(out) = out.next() {
        for h in 0..4 {
            store(&mut out[8 * h..8 * h + 8], words[h]);
        }
    }
}

#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
fn words(words: &[u16], sheds: &[u64], out: &mut Vec<u8>) {
    // Vectors are stored whole, each over the idle end of the one before; the slack is for the last one's.
    let mut at = out.len();
    let total: usize = sheds.iter().map(|s| s.count_ones() as usize).sum();
    out.resize(at + 2 * total + 16, 0);
    for (words, &sheds) in words.as_chunks::<LANES>().0.iter().zip(sheds) {
        for (words, sheds) in words.as_chunks::<8>().0.iter().zip(sheds.to_le_bytes()) {
            let to: &mut [u8; 16] = (&mut out[at..at + 16]).try_into().expect("16");
            let order = &PACK[usize::from(sheds)];
            // SAFETY: 16 readable bytes each, 16 writable ones.
            unsafe {
                let words = _mm_loadu_si128(words.as_ptr().cast());
                let packed = _mm_shuffle_epi8(words, _mm_loadu_si128(order.as_ptr().cast()));
                _mm_storeu_si128(to.as_mut_ptr().cast(), packed);
            }
            at += 2 * sheds.count_ones() as usize;
        }
    }
    out.truncate(at);
}

/// For each set of lanes, the bytes of their words, one behind the other.
static PACK: [[u8; 16]; 256] = {
    let mut table = [[0x80; 16]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut byte) = (0, 0);
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                table[mask][byte] = 2 * lane;
                table[mask][byte + 1] = 2 * lane + 1;
                byte += 2;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

#[inline]
#[target_feature(enable = "avx2")]
fn load(from: &[u32]) -> __m256i {
    let from: &[u32; 8] = from.try_into().expect("8");
    // SAFETY: 32 readable bytes.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_bytes(from: &[u8; 32]) -> __m256i {
    // SAFETY: 32 readable bytes.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_words(from: &[u16]) -> __m256i {
    let from: &[u16; 16] = from.try_into().expect("16");
    // SAFETY: 32 readable bytes.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(to: &mut [u32], x: __m256i) {
    let to: &mut [u32; 8] = to.try_into().expect("8");
    // SAFETY: 32 writable bytes.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), x) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_words(to: &mut [u16], x: __m256i) {
    let to: &mut [u16; 16] = to.try_into().expect("16");
    // SAFETY: 32 writable bytes.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), x) }
}
