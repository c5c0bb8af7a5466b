//! Encoding with AVX-512: a row is four vectors of sixteen states, in lane order.
//!
//! A row of 64 heads takes about 45 instructions for its slots (by byte permutations; where a set has too many entries, by gathers of 22
//! cycles each), 90 and 64 loads for the states' step, 10 each for words and raw codes.
#![expect(unsafe_code, reason = "vector loads, stores and gathers, and entry into functions compiled for AVX-512")]

use std::arch::x86_64::*;

use super::avx512::Avx512;
use super::encode::{EncodeTables, Lanes, PATCHED, PRODUCT_ROWS};
use super::encode_registers::{SlotRegisters, ZERO};
use crate::LANES;
use crate::layout::HeadLayout;
use crate::superblock::{Classes, GROUP_ROWS, Shape};

/// Vectors of a row.
const VECTORS: usize = LANES / 16;

impl Avx512 {
    /// See [`super::Backend::encode_heads`]; of 64 columns of 2 or 4 bytes.
    pub(crate) fn encode_heads(self, bytes: &[u8], row_stride: usize, element_bytes: usize, heads: &mut [u16]) {
        // SAFETY: `self` exists only if the CPU has every feature that the functions are compiled for.
        unsafe {
            if element_bytes == 2 { heads_of_2(bytes, row_stride, heads) } else { heads_of_4(bytes, row_stride, heads) }
        }
    }

    /// See [`super::Backend::encode_slots`]; for 64 columns.
    pub(crate) fn encode_slots(self, tables: &EncodeTables, heads: &[u16], classes: Classes<'_>, lanes: &mut Lanes) {
        let out = (&mut *lanes.slots, &mut *lanes.patched);
        // Sums of classes have to fit a byte.
        let narrow = classes.rows.iter().fold(0, |any, class| any | class) < 128;
        // SAFETY: `self` exists only if the CPU has every feature that the functions are compiled for.
        unsafe {
            match tables.registers.as_deref().filter(|_| narrow) {
                Some(registers) if registers.pairs == 1 => {
                    slots_by_registers::<1>(tables, registers, heads, classes, out)
                }
                Some(registers) if registers.pairs == 2 => {
                    slots_by_registers::<2>(tables, registers, heads, classes, out)
                }
                Some(registers) => slots_by_registers::<4>(tables, registers, heads, classes, out),
                None => slots_by_gathers(tables, heads, classes, out),
            }
        }
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn heads_of_2(bytes: &[u8], row_stride: usize, heads: &mut [u16]) {
    for (heads, row) in heads.as_chunks_mut::<LANES>().0.iter_mut().zip(bytes.chunks(row_stride)) {
        // What the next superblock of the strip reads.
        prefetch(row.as_ptr().wrapping_add(128));
        prefetch(row.as_ptr().wrapping_add(192));
        // Not a copy of slices: the compiler would call a function for so few bytes.
        let (low, high) =
            (load_bytes(row[..64].try_into().expect("64")), load_bytes(row[64..128].try_into().expect("64")));
        store_heads(heads, low, high);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn heads_of_4(bytes: &[u8], row_stride: usize, heads: &mut [u16]) {
    const UPPER: [u16; 32] = {
        let mut upper = [0; 32];
        let mut i = 0;
        while i < 32 {
            upper[i] = 2 * i as u16 + 1;
            i += 1;
        }
        upper
    };
    let upper = load_words(&UPPER);
    for (heads, row) in heads.as_chunks_mut::<LANES>().0.iter_mut().zip(bytes.chunks(row_stride)) {
        for i in [256, 320, 384, 448] {
            prefetch(row.as_ptr().wrapping_add(i));
        }
        let at = |i: usize| row[i..i + 64].try_into().expect("64");
        let low = _mm512_permutex2var_epi16(load_bytes(at(0)), upper, load_bytes(at(64)));
        let high = _mm512_permutex2var_epi16(load_bytes(at(128)), upper, load_bytes(at(192)));
        store_heads(heads, low, high);
    }
}

/// Asks for the bytes at any address, valid or not: a prefetch never faults.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch(at: *const u8) {
    _mm_prefetch::<_MM_HINT_T0>(at.cast());
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_heads(heads: &mut [u16; LANES], low: __m512i, high: __m512i) {
    let (first, second) = heads.split_at_mut(32);
    // SAFETY: 64 writable bytes each.
    unsafe {
        _mm512_storeu_si512(first.as_mut_ptr().cast(), low);
        _mm512_storeu_si512(second.as_mut_ptr().cast(), high);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn slots_by_gathers(
    tables: &EncodeTables,
    heads: &[u16],
    classes: Classes<'_>,
    (slots, patched): (&mut [u32], &mut [u64]),
) {
    let layout = tables.layout;
    let fill = |x: usize| _mm512_set1_epi32(x as i32);
    let mask = fill((1 << layout.coded_bits()) - 1);
    let (first, other) = (fill(usize::from(tables.first)), fill(tables.width - 1));
    let last_context = fill((tables.contexts - 1) * tables.width);
    let shifts = [_mm_cvtsi32_si128(layout.shift() as i32), _mm_cvtsi32_si128(layout.shift() as i32 + 16)];
    // Columns' classes in lane order, in entries.
    let mut offsets = [0i32; LANES];
    for (lane, offset) in offsets.iter_mut().enumerate() {
        *offset = i32::from(classes.cols[column_of(lane)]) * tables.width as i32;
    }
    let offsets = [
        load_signed((&offsets[..16]).try_into().expect("16")),
        load_signed((&offsets[16..32]).try_into().expect("16")),
        load_signed((&offsets[32..48]).try_into().expect("16")),
        load_signed((&offsets[48..]).try_into().expect("16")),
    ];

    let rows = heads.chunks_exact(LANES).zip(slots.chunks_exact_mut(LANES)).zip(classes.rows).zip(patched);
    for (((heads, slots), &class), patched) in rows {
        let mut any = _mm512_setzero_si512();
        let class = fill(usize::from(class) * tables.width);
        let heads = [load_words(&heads[..32]), load_words(&heads[32..])];
        for v in 0..4 {
            let value = _mm512_and_si512(_mm512_srl_epi32(heads[v % 2], shifts[v / 2]), mask);
            let value = _mm512_min_epu32(_mm512_sub_epi32(value, first), other);
            let context = _mm512_add_epi32(class, offsets[v]);
            let context = _mm512_min_epi32(_mm512_max_epi32(context, _mm512_setzero_si512()), last_context);
            let index = _mm512_add_epi32(context, value);
            // SAFETY: value < width, and context ≤ (contexts − 1)·width. A bounds check per lane would double the instructions of a row.
            let slot = unsafe { _mm512_i32gather_epi32::<4>(index, tables.entries().as_ptr().cast()) };
            any = _mm512_or_si512(any, slot);
            store((&mut slots[16 * v..16 * v + 16]).try_into().expect("16"), slot);
        }
        *patched = u64::from(_mm512_test_epi32_mask(any, _mm512_set1_epi32(PATCHED as i32)));
    }
}

/// The lane whose byte stands at `i`, so that widening bytes to 32 bits within quarters of a vector, which is what unpacking does, gives
/// lanes in order.
const fn lane_at(i: usize) -> usize {
    16 * (i / 4 % 4) + 4 * (i / 16) + i % 4
}

/// Column of a lane.
const fn column_of(lane: usize) -> usize {
    2 * (lane % 32) + lane / 32
}

/// `PAIRS` · 128 entries in pairs of vectors. A row takes about 45 instructions with 256 entries.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn slots_by_registers<const PAIRS: usize>(
    tables: &EncodeTables,
    registers: &SlotRegisters,
    heads: &[u16],
    classes: Classes<'_>,
    (slots, patched): (&mut [u32], &mut [u64]),
) {
    let layout = tables.layout;
    let mask = _mm512_set1_epi16(((1u32 << layout.coded_bits()) - 1) as i16);
    let shift = _mm_cvtsi32_si128(layout.shift() as i32);
    let below = _mm512_set1_epi16(registers.below as i16);
    let widest = _mm512_set1_epi16(i16::from(ZERO) - 1);
    let (above, zero) = (_mm512_set1_epi8(registers.above as i8), _mm512_set1_epi8(registers.zero as i8));
    let last_context = _mm512_set1_epi8(tables.contexts as i8 - 1);
    // A vector of heads has two bytes a column, so a byte's number in both vectors is twice its column.
    const COLUMNS: [u8; LANES] = {
        let mut columns = [0; LANES];
        let mut i = 0;
        while i < LANES {
            columns[i] = 2 * column_of(lane_at(i)) as u8;
            i += 1;
        }
        columns
    };
    let columns = load_bytes(&COLUMNS);
    let mut offsets = [0u8; LANES];
    offsets
        .iter_mut()
        .zip(&COLUMNS)
        .for_each(|(offset, &column)| *offset = classes.cols[usize::from(column) / 2] as u8);
    let offsets = load_bytes(&offsets);
    let (bases, highs, shifts) =
        (load_bytes(&registers.base), load_bytes(&registers.high), load_bytes(&registers.shift));

    let rows = heads.chunks_exact(LANES).zip(slots.chunks_exact_mut(LANES)).zip(classes.rows).zip(patched);
    for (((heads, slots), &class), patched) in rows {
        // Loops, here and below: a closure that other functions call, such as `map`, would stay a call, and not keep vectors in registers.
        let mut values = [load_words(&heads[..32]), load_words(&heads[32..])];
        for value in &mut values {
            *value = _mm512_and_si512(_mm512_srl_epi16(*value, shift), mask);
            let zero = _mm512_testn_epi16_mask(*value, *value);
            *value = _mm512_min_epu16(_mm512_subs_epu16(*value, below), widest);
            if registers.has_zero {
                *value = _mm512_mask_blend_epi16(zero, *value, _mm512_set1_epi16(ZERO.into()));
            }
        }
        let u = _mm512_permutex2var_epi8(values[0], columns, values[1]);
        let sum = _mm512_adds_epi8(_mm512_set1_epi8(class as i8), offsets);
        let context = _mm512_min_epi8(_mm512_max_epi8(sum, _mm512_setzero_si512()), last_context);
        let own = _mm512_min_epu8(_mm512_subs_epu8(u, _mm512_permutexvar_epi8(context, shifts)), above);
        let own = if registers.has_zero {
            _mm512_mask_blend_epi8(_mm512_cmpeq_epi8_mask(u, _mm512_set1_epi8(ZERO as i8)), own, zero)
        } else {
            own
        };
        let entry = _mm512_add_epi8(own, _mm512_permutexvar_epi8(context, bases));
        let upper = _mm512_movepi8_mask(entry);
        let high = _mm512_permutexvar_epi8(context, highs);
        let high = _mm512_test_epi8_mask(high, high);
        let mut bytes = [_mm512_setzero_si512(); 4];
        for (byte, table) in bytes.iter_mut().zip(&registers.bytes) {
            let mut pairs = [_mm512_setzero_si512(); PAIRS];
            for (pair, entries) in pairs.iter_mut().zip(table.chunks_exact(128)) {
                let (low, high) = entries.split_at(64);
                let (low, high) = (load_bytes(low.try_into().expect("64")), load_bytes(high.try_into().expect("64")));
                *pair = _mm512_permutex2var_epi8(low, entry, high);
            }
            *byte = match PAIRS {
                1 => pairs[0],
                2 => _mm512_mask_blend_epi8(upper, pairs[0], pairs[1]),
                _ => {
                    let low = _mm512_mask_blend_epi8(upper, pairs[0], pairs[1]);
                    _mm512_mask_blend_epi8(high, low, _mm512_mask_blend_epi8(upper, pairs[2], pairs[3]))
                }
            };
        }
        // Byte 3 is what the mark is in.
        *patched = _mm512_movepi8_mask(bytes[3]);
        let low = [_mm512_unpacklo_epi8(bytes[0], bytes[1]), _mm512_unpackhi_epi8(bytes[0], bytes[1])];
        let high = [_mm512_unpacklo_epi8(bytes[2], bytes[3]), _mm512_unpackhi_epi8(bytes[2], bytes[3])];
        let out = [
            _mm512_unpacklo_epi16(low[0], high[0]),
            _mm512_unpackhi_epi16(low[0], high[0]),
            _mm512_unpacklo_epi16(low[1], high[1]),
            _mm512_unpackhi_epi16(low[1], high[1]),
        ];
        for (slots, out) in slots.chunks_exact_mut(16).zip(out) {
            store(slots.try_into().expect("16"), out);
        }
    }
}

/// See [`Lanes::costs_scalar`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn products(slots: &[u32]) -> ([f32; LANES], [u32; LANES]) {
    let mut m = [_mm512_set1_ps(1.0); 4];
    let mut e = [_mm512_setzero_si512(); 4];
    for rows in slots.chunks(PRODUCT_ROWS * LANES) {
        for slots in rows.chunks_exact(LANES) {
            for v in 0..4 {
                let slot = load((&slots[16 * v..16 * v + 16]).try_into().expect("16"));
                let freq = _mm512_and_si512(slot, _mm512_set1_epi32(0xfff));
                m[v] = _mm512_mul_ps(m[v], _mm512_cvtepi32_ps(freq));
            }
        }
        for v in 0..4 {
            let bits = _mm512_castps_si512(m[v]);
            let exponent = _mm512_sub_epi32(_mm512_srli_epi32::<23>(bits), _mm512_set1_epi32(127));
            e[v] = _mm512_add_epi32(e[v], exponent);
            let fraction = _mm512_and_si512(bits, _mm512_set1_epi32(0x7f_ffff));
            m[v] = _mm512_castsi512_ps(_mm512_or_si512(fraction, _mm512_set1_epi32(127 << 23)));
        }
    }
    let (mut mantissas, mut exponents) = ([0f32; LANES], [0u32; LANES]);
    for v in 0..4 {
        store((&mut exponents[16 * v..16 * v + 16]).try_into().expect("16"), e[v]);
        let to: &mut [f32; 16] = (&mut mantissas[16 * v..16 * v + 16]).try_into().expect("16");
        // SAFETY: 64 writable bytes.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), m[v]) };
    }
    (mantissas, exponents)
}

/// Runs the states of one superblock, or of two of as many rows side by side.
///
/// A step is a division, which gives places, and 64 loads from there; the one is a chain of operations on vectors, the other fills the
/// schedulers of loads while it waits for the first. So the loads of one superblock stand behind the division of the other: two take
/// 13 ns a row each, one alone 22 ns, two in steps that follow each other as much (Zen 5).
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn run<const N: usize>(tables: &EncodeTables, lanes: [&mut Lanes; N], states: [&mut [u32; LANES]; N]) {
    let (step, entries) = (Step::new(tables), tables.places());
    let zero = [_mm512_setzero_si512(); VECTORS];
    let mut rows = [Row { states: zero, quotients: zero, places: [0; LANES] }; N];
    // The two halves of a step; not functions, which the compiler would call: words, sheds, quotients and places; then the states.
    macro_rules! divide {
        ($n:expr, $row:expr) => {{
            let (of, lanes, row): (&mut Row, &mut Lanes, usize) = (&mut rows[$n], &mut *lanes[$n], $row);
            let slots: &[u32; LANES] = (&lanes.slots[LANES * row..][..LANES]).try_into().expect("64");
            let words: &mut [u16; LANES] = (&mut lanes.words[LANES * row..][..LANES]).try_into().expect("64");
            let mut sheds = 0;
            each!(VECTORS, v, {
                let slot = load((&slots[16 * v..16 * v + 16]).try_into().expect("16"));
                let x = of.states[v];
                store_half((&mut words[16 * v..16 * v + 16]).try_into().expect("16"), _mm512_cvtepi32_epi16(x));
                let (shed, quotient, place) = step.divide(x, slot);
                sheds |= u64::from(shed) << (16 * v);
                of.quotients[v] = quotient;
                store((&mut of.places[16 * v..16 * v + 16]).try_into().expect("16"), place);
            });
            lanes.sheds[row] = sheds;
        }};
    }
    macro_rules! look_up {
        ($n:expr) => {{
            let of: &mut Row = &mut rows[$n];
            each!(VECTORS, v, {
                // SAFETY: `divide` gives places below `entries.len()`.
                let at = unsafe { look_up(entries, (&of.places[16 * v..16 * v + 16]).try_into().expect("16")) };
                of.states[v] = _mm512_add_epi32(_mm512_sll_epi32(of.quotients[v], step.table_bits), at);
            });
        }};
    }

    for (row, states) in rows.iter_mut().zip(&states) {
        for (x, states) in row.states.iter_mut().zip(states.as_chunks().0) {
            *x = load(states);
        }
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
    for (states, row) in states.into_iter().zip(&rows) {
        for (states, x) in states.as_chunks_mut().0.iter_mut().zip(&row.states) {
            store(states, *x);
        }
    }
}

/// The states of a superblock and where they are in their step.
#[derive(Clone, Copy)]
struct Row {
    states: [__m512i; VECTORS],
    quotients: [__m512i; VECTORS],
    /// Below the number of places.
    places: [u32; LANES],
}

/// What every step of the states needs.
struct Step {
    table_bits: __m128i,
    limit_shift: __m128i,
    last_place: __m512i,
}

impl Step {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
    fn new(tables: &EncodeTables) -> Self {
        Self {
            table_bits: _mm_cvtsi32_si128(tables.table_bits as i32),
            limit_shift: _mm_cvtsi32_si128(32 - tables.table_bits as i32),
            last_place: _mm512_set1_epi32(tables.places().len() as i32 - 1),
        }
    }

    /// Which states shed a word, the quotients of what is left, and the places of the biases.
    ///
    /// The quotient of state and frequency comes from floats of 24 bits that are rounded down: the state to one, and their quotient. Either
    /// takes less than 2^-23 of a quotient below 2^22, together less than one, so truncation gives it or one less, and the remainder
    /// tells which. (x < freq·2^(32 − P) after shedding; P ≥ 10.)
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
    fn divide(&self, x: __m512i, slot: __m512i) -> (__mmask16, __m512i, __m512i) {
        const DOWN: i32 = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
        let freq = _mm512_and_si512(slot, _mm512_set1_epi32(0xfff));
        let begin = _mm512_and_si512(_mm512_srli_epi32::<12>(slot), _mm512_set1_epi32(0x7fff));
        let shed = _mm512_cmpge_epu32_mask(x, _mm512_sll_epi32(freq, self.limit_shift));
        let y = _mm512_mask_srli_epi32::<16>(x, shed, x);

        let quotient = _mm512_div_round_ps::<DOWN>(_mm512_cvt_roundepu32_ps::<DOWN>(y), _mm512_cvtepi32_ps(freq));
        let q = _mm512_cvttps_epi32(quotient);
        let rest = _mm512_sub_epi32(y, _mm512_mullo_epi32(q, freq));
        let high = _mm512_cmpge_epu32_mask(rest, freq);
        let q = _mm512_mask_add_epi32(q, high, q, _mm512_set1_epi32(1));
        let rest = _mm512_mask_sub_epi32(rest, high, rest, freq);
        (shed, q, _mm512_min_epu32(_mm512_add_epi32(begin, rest), self.last_place))
    }
}

/// The entries at these places, by loads one by one: a gather of sixteen takes 22 cycles on Zen 5, and nothing else goes on meanwhile.
///
/// # Safety
/// Places are below `entries.len()`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
unsafe fn look_up(entries: &[u16], places: &[u32; 16]) -> __m512i {
    macro_rules! entry {
        ($i:expr) => {
            // SAFETY: as said; a bounds check each would take as long as the load. Volatile, so that places do come from memory: the
            // compiler would take them out of the vector instead, two operations each.
            unsafe { i32::from(*entries.get_unchecked(places.as_ptr().add($i).read_volatile() as usize)) }
        };
    }
    macro_rules! eight {
        ($i:expr) => {{
            let x = _mm_cvtsi32_si128(entry!($i));
            let x = _mm_insert_epi16::<1>(x, entry!($i + 1));
            let x = _mm_insert_epi16::<2>(x, entry!($i + 2));
            let x = _mm_insert_epi16::<3>(x, entry!($i + 3));
            let x = _mm_insert_epi16::<4>(x, entry!($i + 4));
            let x = _mm_insert_epi16::<5>(x, entry!($i + 5));
            let x = _mm_insert_epi16::<6>(x, entry!($i + 6));
            _mm_insert_epi16::<7>(x, entry!($i + 7))
        }};
    }
    _mm512_cvtepu16_epi32(_mm256_set_m128i(eight!(8), eight!(0)))
}

/// Two heads of a column pair are one 32-bit word; turned left by one it has each low field one bit up and the other's sign below it.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn raw(layout: HeadLayout, heads: &[u16], halves: &mut [u32]) {
    let r = layout.raw_bits() as usize;
    let mask = _mm512_set1_epi16(((1u32 << r) - 1) as i16);
    let mut out = halves.chunks_exact_mut(32);
    for group in heads.chunks(GROUP_ROWS * LANES) {
        let mut filled = 0;
        let mut pending = [_mm512_setzero_si512(); 2];
        for row in group.chunks_exact(LANES) {
            let shift = _mm_cvtsi32_si128(filled as i32);
            let back = _mm_cvtsi32_si128(16 - filled as i32);
            let mut codes = [load_words(&row[..32]), load_words(&row[32..])];
            for code in &mut codes {
                let turned = match (layout.sign(), layout.bits()) {
                    (false, _) => *code,
                    (true, 16) => _mm512_rol_epi32::<1>(*code),
                    // An 8-bit head has its sign in bit 7, and so has to give it to the other half.
                    (true, _) => {
                        let sign = _mm512_rol_epi32::<16>(_mm512_srli_epi16::<7>(*code));
                        _mm512_or_si512(_mm512_slli_epi16::<1>(*code), sign)
                    }
                };
                *code = _mm512_and_si512(turned, mask);
            }
            for h in 0..2 {
                pending[h] = _mm512_or_si512(pending[h], _mm512_sll_epi16(codes[h], shift));
            }
            filled += r;
            if filled >= 16 {
                put(&mut out, pending);
                filled -= 16;
                pending = [_mm512_srl_epi16(codes[0], back), _mm512_srl_epi16(codes[1], back)];
            }
        }
        if filled > 0 {
            put(&mut out, pending);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn put(out: &mut std::slice::ChunksExactMut<'_, u32>, pair: [__m512i; 2]) {
    if let Some(out) = out.next() {
        let (low, high) = out.split_at_mut(16);
        store(low.try_into().expect("16"), pair[0]);
        store(high.try_into().expect("16"), pair[1]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn words(words: &[u16], sheds: &[u64], out: &mut Vec<u8>) {
    // Vectors are stored whole, each over the idle end of the one before; the slack is for the last one's.
    let mut at = out.len();
    let total: usize = sheds.iter().map(|s| s.count_ones() as usize).sum();
    out.resize(at + 2 * total + 64, 0);
    for (words, &sheds) in words.chunks_exact(LANES).zip(sheds) {
        for (words, sheds) in [(&words[..32], sheds as u32), (&words[32..], (sheds >> 32) as u32)] {
            let packed = _mm512_maskz_compress_epi16(sheds, load_words(words));
            store_bytes((&mut out[at..at + 64]).try_into().expect("64"), packed);
            at += 2 * sheds.count_ones() as usize;
        }
    }
    out.truncate(at);
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(from: &[u32; 16]) -> __m512i {
    // SAFETY: 64 readable bytes.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_bytes(from: &[u8; 64]) -> __m512i {
    // SAFETY: 64 readable bytes.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_signed(from: &[i32; 16]) -> __m512i {
    // SAFETY: 64 readable bytes.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_words(from: &[u16]) -> __m512i {
    let from: &[u16; 32] = from.try_into().expect("32");
    // SAFETY: 64 readable bytes.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(to: &mut [u32; 16], x: __m512i) {
    // SAFETY: 64 writable bytes.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_bytes(to: &mut [u8; 64], x: __m512i) {
    // SAFETY: 64 writable bytes.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store_half(to: &mut [u16; 16], x: __m256i) {
    // SAFETY: 32 writable bytes.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), x) }
}
