//! The step in registers as assembly: one column parity of two superblocks, 64 lanes.
//!
//! Sixty-four buckets make one vector of bytes, 32 of either superblock, so that no byte permutation looks anything up twice. Halves
//! of states are vectors of 32 halfwords, one of either superblock; packing two such vectors to bytes leaves, in every 128 bits, eight lanes of the
//! first below eight of the second, and unpacking low and high bytes of what was looked up gives halfwords of the first and of the second again.
//!
//! With x = 2^16·h + l, slot = l mod 2^P, f the frequency and f' = f·2^(16 − P),
//!
//! ```text
//! f·(x >> P) + bias = h·f' + ((l − slot)·f' >> 16) + bias
//! ```
//!
//! where all but h·f' stays below 2^16: three products of halfwords and one carry, and nothing of the state need be shifted.
//!
//! A step has two parts. The *front* goes from the state to the symbol and the bias, the *back* from the symbol to the next state. In one
//! block of code stand the front of one step and the back of the step before it, of other lanes, in turns: the chain through a step takes some 50
//! cycles, and a CPU that meets one step after the other fills its schedulers with what has to wait.
#![expect(unsafe_code, reason = "assembly")]

use std::arch::x86_64::*;
use std::mem::offset_of;

use super::super::registers::{MAX_ENTRIES, Registers};
use super::look_up::{Context, LookUp};

/// Looks index bytes up in a table at an offset of [`Registers`]; clobbers, with four vectors, `x`, with more `y`, too. Masks hold the index's bits 7
/// and 8. What `$zero` leaves out is 0.
macro_rules! look_up {
    (2, $at:literal, $i:literal => $o:literal, $bit7:literal, $bit8:literal, $zero:literal) => {
        concat!(
            "vmovdqa64 {", $o, "}, [{tables} + {", $at, "}]\n",
            "vpermt2b {", $o, "}", $zero, ", {", $i, "}, [{tables} + {", $at, "} + 64]\n",
        )
    };
    (4, $at:literal, $i:literal => $o:literal, $bit7:literal, $bit8:literal, $zero:literal) => {
        concat!(
            "vmovdqa64 {x}, [{tables} + {", $at, "} + 128]\n",
            "vpermt2b {x}", $zero, ", {", $i, "}, [{tables} + {", $at, "} + 192]\n",
            look_up!(2, $at, $i => $o, $bit7, $bit8, $zero),
            "vmovdqu8 {", $o, "}{{", $bit7, "}}, {x}\n",
        )
    };
    (6, $at:literal, $i:literal => $o:literal, $bit7:literal, $bit8:literal, $zero:literal) => {
        concat!(
            "vmovdqa64 {y}, [{tables} + {", $at, "} + 256]\n",
            "vpermt2b {y}", $zero, ", {", $i, "}, [{tables} + {", $at, "} + 320]\n",
            look_up!(4, $at, $i => $o, $bit7, $bit8, $zero),
            "vmovdqu8 {", $o, "}{{", $bit8, "}}, {y}\n",
        )
    };
    (8, $at:literal, $i:literal => $o:literal, $bit7:literal, $bit8:literal, $zero:literal) => {
        concat!(
            "vmovdqa64 {y}, [{tables} + {", $at, "} + 256]\n",
            "vpermt2b {y}", $zero, ", {", $i, "}, [{tables} + {", $at, "} + 320]\n",
            "vmovdqa64 {x}, [{tables} + {", $at, "} + 384]\n",
            "vpermt2b {x}", $zero, ", {", $i, "}, [{tables} + {", $at, "} + 448]\n",
            "vmovdqu8 {y}{{", $bit7, "}}, {x}\n",
            look_up!(4, $at, $i => $o, $bit7, $bit8, $zero),
            "vmovdqu8 {", $o, "}{{", $bit8, "}}, {y}\n",
        )
    };
}

/// Masks of an index's bits 7 and 8. Bit 8 is the context's doing alone, since a table has at most 256 entries.
macro_rules! tops {
    (2, $index:literal, $high:literal, $bit7:literal, $bit8:literal) => {
        concat!("/* {x} {y} {", $high, "} {high} */")
    };
    (4, $index:literal, $high:literal, $bit7:literal, $bit8:literal) => {
        concat!("vpmovb2m ", $bit7, ", {", $index, "} /* {y} {", $high, "} {high} */")
    };
    ($v:tt, $index:literal, $high:literal, $bit7:literal, $bit8:literal) => {
        concat!("vpmovb2m ", $bit7, ", {", $index, "}\nkmovq ", $bit8, ", [{", $high, "} + {high}]")
    };
}

/// The front in pieces. Registers: low halves fl0, fl1 (slots are cleared); gives symbols fg and biases fd, fe.
macro_rules! front {
    ($v:tt, 1) => {
        "vpandd {fa}, {fl0}, {slot_mask}\nvpandd {fg}, {fl1}, {slot_mask}"
    };
    ($v:tt, 2) => {
        "vpandd {fd}, {fa}, {place_mask}\nvpandd {fe}, {fg}, {place_mask}"
    };
    ($v:tt, 3) => {
        "vpsrlvw {fc}, {fa}, [{tables} + {width_bits}]\nvpsrlvw {ff}, {fg}, [{tables} + {width_bits}]\nvpackuswb {fc}, {fc}, {ff}"
    };
    // Index c: table from the context, bucket from the state. Place f in the bucket.
    ($v:tt, 4) => {
        "vpackuswb {ff}, {fd}, {fe}\nvpord {fc}, {fc}, [{front_context} + {starts}]"
    };
    ($v:tt, 5) => {
        concat!("vpxord {fl0}, {fl0}, {fa}\nvpxord {fl1}, {fl1}, {fg}\n", tops!($v, "fc", "front_context", "k6", "k7"))
    };
    ($v:tt, 6) => {
        look_up!($v, "divide", "fc" => "fa", "k6", "k7", "")
    };
    // k1: the slot is the alias's.
    ($v:tt, 7) => {
        "vpcmpub k1, {ff}, {fa}, 5"
    };
    ($v:tt, 8) => {
        look_up!($v, "alias", "fc" => "fg", "k6", "k7", "")
    };
    ($v:tt, 9) => {
        "vpblendmb {fg}{{k1}}, {fc}, {fg}"
    };
    // The bias is the place, and for aliases what is to be added.
    ($v:tt, 10) => {
        look_up!($v, "adjust_low", "fc" => "fa", "k6", "k7", "{{k1}}{{z}}")
    };
    ($v:tt, 11) => {
        look_up!($v, "adjust_high", "fc" => "ff", "k6", "k7", "{{k1}}{{z}}")
    };
    ($v:tt, 12) => {
        "vpunpcklbw {fc}, {fa}, {ff}\nvpunpckhbw {fa}, {fa}, {ff}\nvpaddw {fd}, {fd}, {fc}\nvpaddw {fe}, {fe}, {fa}"
    };
}

/// The back in pieces, from symbols bg and biases bd, be: next states bl0, bl1 and bh0, bh1.
macro_rules! back {
    ($v:tt, 1) => {
        concat!(tops!($v, "bg", "back_context", "k4", "k5"), "\n", look_up!($v, "freq_low", "bg" => "ba", "k4", "k5", ""))
    };
    ($v:tt, 2) => {
        look_up!($v, "freq_high", "bg" => "bf", "k4", "k5", "")
    };
    ($v:tt, 3) => {
        "vmovdqa64 [{symbols}], {bg}\nvpunpcklbw {bg}, {ba}, {bf}\nvpunpckhbw {ba}, {ba}, {bf}"
    };
    ($v:tt, 4) => {
        "vpmulhuw {bl0}, {bl0}, {bg}\nvpmulhuw {bl1}, {bl1}, {ba}"
    };
    ($v:tt, 5) => {
        "vpaddw {bd}, {bd}, {bl0}\nvpaddw {be}, {be}, {bl1}\nvpmullw {bl0}, {bh0}, {bg}\nvpmullw {bl1}, {bh1}, {ba}"
    };
    ($v:tt, 6) => {
        "vpmulhuw {bh0}, {bh0}, {bg}\nvpmulhuw {bh1}, {bh1}, {ba}"
    };
    // k4 and k5: carries. k2 and k3: below 2^16, no high half and no carry into it.
    ($v:tt, 7) => {
        "vpaddw {bl0}, {bl0}, {bd}\nvpaddw {bl1}, {bl1}, {be}\nvptestnmw k2, {bh0}, {bh0}\nvptestnmw k3, {bh1}, {bh1}"
    };
    ($v:tt, 8) => {
        "vpcmpuw k4, {bl0}, {bd}, 1\nvpcmpuw k5, {bl1}, {be}, 1\nvmovdqu64 {ba}, [{at0}]\nvmovdqu64 {bg}, [{at1}]"
    };
    ($v:tt, 9) => {
        "kandnd k2, k4, k2\nkandnd k3, k5, k3"
    };
    ($v:tt, 10) => {
        "kmovd {n0:e}, k2\nkmovd {n1:e}, k3\npopcnt {n0:e}, {n0:e}\npopcnt {n1:e}, {n1:e}\nlea {at0}, [{at0} + 2*{n0}]\nlea {at1}, [{at1} + 2*{n1}]"
    };
    ($v:tt, 11) => {
        concat!(
            "vpsubw {bh0}{{k4}}, {bh0}, [{tables} + {ones}]\nvpsubw {bh1}{{k5}}, {bh1}, [{tables} + {ones}]\n",
            "vmovdqu16 {bh0}{{k2}}, {bl0}\nvmovdqu16 {bh1}{{k3}}, {bl1}",
        )
    };
    ($v:tt, 12) => {
        "vpexpandw {bl0}{{k2}}, {ba}\nvpexpandw {bl1}{{k3}}, {bg}"
    };
}

/// Twelve pieces of one kind, or of both in turns.
macro_rules! pieces {
    ($v:tt, front) => {
        pieces!($v, front, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    ($v:tt, back) => {
        pieces!($v, back, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    ($v:tt, both) => {
        pieces!($v, both, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    ($v:tt, both, $($n:tt)*) => {
        concat!($(front!($v, $n), "\n", back!($v, $n), "\n",)*)
    };
    ($v:tt, $part:ident, $($n:tt)*) => {
        concat!($($part!($v, $n), "\n",)*)
    };
}

/// The states of one column parity of two superblocks: low halves, high halves.
pub(super) type States = [__m512i; 4];

/// What goes from the front to the back of a step: symbols, and biases of either superblock.
#[derive(Clone, Copy)]
pub(super) struct Found {
    symbols: __m512i,
    biases: [__m512i; 2],
}

/// Where a step's context, streams and symbols are.
pub(super) struct Places<'a> {
    pub(super) context: *const Context,
    pub(super) streams: [&'a mut *const u8; 2],
    pub(super) symbols: *mut [u8; 64],
}

macro_rules! steps {
    ($front:ident, $back:ident, $both:ident, $v:tt) => {
        /// # Safety
        /// `context` must be valid.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq")]
        unsafe fn $front(t: &LookUp<'_>, states: &mut States, context: *const Context) -> Found {
            let [l0, l1, ..] = states;
            let (symbols, first, second): (__m512i, __m512i, __m512i);
            let (_x, _y, _a, _c, _f): (__m512i, __m512i, __m512i, __m512i, __m512i);
            // SAFETY: reads `tables` and the context; writes only its operands.
            unsafe {
                std::arch::asm!(
                    pieces!($v, front),
                    tables = in(reg) t.tables,
                    front_context = in(reg) context,
                    starts = const offset_of!(Context, starts),
                    high = const offset_of!(Context, high),
                    divide = const offset_of!(Registers, divide),
                    alias = const offset_of!(Registers, alias),
                    adjust_low = const offset_of!(Registers, adjust),
                    adjust_high = const offset_of!(Registers, adjust) + MAX_ENTRIES,
                    width_bits = const offset_of!(Registers, width_bits),
                    slot_mask = in(zmm_reg) t.slot_mask,
                    place_mask = in(zmm_reg) t.place_mask,
                    fl0 = inout(zmm_reg) *l0,
                    fl1 = inout(zmm_reg) *l1,
                    fg = out(zmm_reg) symbols,
                    fd = out(zmm_reg) first,
                    fe = out(zmm_reg) second,
                    fa = out(zmm_reg) _a, fc = out(zmm_reg) _c, ff = out(zmm_reg) _f,
                    x = out(zmm_reg) _x, y = out(zmm_reg) _y,
                    out("k1") _, out("k6") _, out("k7") _,
                    options(nostack, readonly),
                );
            }
            Found { symbols, biases: [first, second] }
        }

        /// # Safety
        /// As [`super::look_up::symbol_rows`] says of its places.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq")]
        unsafe fn $back(t: &LookUp<'_>, states: &mut States, found: Found, places: Places<'_>) {
            let [l0, l1, h0, h1] = states;
            let [at0, at1] = places.streams;
            let (_x, _y, _a, _f, _g, _d, _e): ( __m512i, __m512i, __m512i, __m512i, __m512i, __m512i, __m512i);
            // SAFETY: reads `tables`, the context, and 64 bytes of each stream from `at` on; writes its operands and the symbols.
            unsafe {
                std::arch::asm!(
                    pieces!($v, back),
                    tables = in(reg) t.tables,
                    back_context = in(reg) places.context,
                    high = const offset_of!(Context, high),
                    freq_low = const offset_of!(Registers, freq),
                    freq_high = const offset_of!(Registers, freq) + MAX_ENTRIES,
                    ones = const offset_of!(Registers, ones),
                    symbols = in(reg) places.symbols,
                    at0 = inout(reg) *at0,
                    at1 = inout(reg) *at1,
                    n0 = out(reg) _,
                    n1 = out(reg) _,
                    bl0 = inout(zmm_reg) *l0,
                    bl1 = inout(zmm_reg) *l1,
                    bh0 = inout(zmm_reg) *h0,
                    bh1 = inout(zmm_reg) *h1,
                    bg = inout(zmm_reg) found.symbols => _g,
                    bd = inout(zmm_reg) found.biases[0] => _d,
                    be = inout(zmm_reg) found.biases[1] => _e,
                    ba = out(zmm_reg) _a, bf = out(zmm_reg) _f,
                    x = out(zmm_reg) _x, y = out(zmm_reg) _y,
                    out("k2") _, out("k3") _, out("k4") _, out("k5") _,
                    options(nostack),
                );
            }
        }

        /// # Safety
        /// As both.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq")]
        unsafe fn $both(
            t: &LookUp<'_>,
            next: &mut States,
            context: *const Context,
            states: &mut States,
            found: Found,
            places: Places<'_>,
        ) -> Found {
            let [f0, f1, ..] = next;
            let [l0, l1, h0, h1] = states;
            let [at0, at1] = places.streams;
            let (symbols, first, second): (__m512i, __m512i, __m512i);
            let (_x, _y, _a, _c, _f): (__m512i, __m512i, __m512i, __m512i, __m512i);
            let (_ba, _bf, _g, _d, _e): (__m512i, __m512i, __m512i, __m512i, __m512i);
            // SAFETY: as in both.
            unsafe {
                std::arch::asm!(
                    pieces!($v, both),
                    tables = in(reg) t.tables,
                    front_context = in(reg) context,
                    back_context = in(reg) places.context,
                    starts = const offset_of!(Context, starts),
                    high = const offset_of!(Context, high),
                    divide = const offset_of!(Registers, divide),
                    alias = const offset_of!(Registers, alias),
                    adjust_low = const offset_of!(Registers, adjust),
                    adjust_high = const offset_of!(Registers, adjust) + MAX_ENTRIES,
                    freq_low = const offset_of!(Registers, freq),
                    freq_high = const offset_of!(Registers, freq) + MAX_ENTRIES,
                    width_bits = const offset_of!(Registers, width_bits),
                    ones = const offset_of!(Registers, ones),
                    slot_mask = in(zmm_reg) t.slot_mask,
                    place_mask = in(zmm_reg) t.place_mask,
                    symbols = in(reg) places.symbols,
                    at0 = inout(reg) *at0,
                    at1 = inout(reg) *at1,
                    n0 = out(reg) _,
                    n1 = out(reg) _,
                    fl0 = inout(zmm_reg) *f0,
                    fl1 = inout(zmm_reg) *f1,
                    fg = out(zmm_reg) symbols,
                    fd = out(zmm_reg) first,
                    fe = out(zmm_reg) second,
                    fa = out(zmm_reg) _a, fc = out(zmm_reg) _c, ff = out(zmm_reg) _f,
                    bl0 = inout(zmm_reg) *l0,
                    bl1 = inout(zmm_reg) *l1,
                    bh0 = inout(zmm_reg) *h0,
                    bh1 = inout(zmm_reg) *h1,
                    bg = inout(zmm_reg) found.symbols => _g,
                    bd = inout(zmm_reg) found.biases[0] => _d,
                    be = inout(zmm_reg) found.biases[1] => _e,
                    ba = out(zmm_reg) _ba, bf = out(zmm_reg) _bf,
                    x = out(zmm_reg) _x, y = out(zmm_reg) _y,
                    out("k1") _, out("k2") _, out("k3") _, out("k4") _, out("k5") _, out("k6") _, out("k7") _,
                    options(nostack),
                );
            }
            Found { symbols, biases: [first, second] }
        }
    };
}

steps!(front_2, back_2, both_2, 2);
steps!(front_4, back_4, both_4, 4);
steps!(front_6, back_6, both_6, 6);
steps!(front_8, back_8, both_8, 8);

/// The front of a step, with tables of V vectors: 2, 4, 6 or 8.
///
/// # Safety
/// `context` must be valid.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) unsafe fn front<const V: usize>(t: &LookUp<'_>, states: &mut States, context: *const Context) -> Found {
    // SAFETY: as above.
    unsafe {
        match V {
            2 => front_2(t, states, context),
            4 => front_4(t, states, context),
            6 => front_6(t, states, context),
            _ => front_8(t, states, context),
        }
    }
}

/// The back of a step.
///
/// # Safety
/// All `places` must be valid, and every stream have 64 readable bytes.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) unsafe fn back<const V: usize>(t: &LookUp<'_>, states: &mut States, found: Found, places: Places<'_>) {
    // SAFETY: as above.
    unsafe {
        match V {
            2 => back_2(t, states, found, places),
            4 => back_4(t, states, found, places),
            6 => back_6(t, states, found, places),
            _ => back_8(t, states, found, places),
        }
    }
}

/// The front of a step in the lanes of `next`, and the back of the step before it in those of `states`.
///
/// # Safety
/// As [`front`] and [`back`].
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) unsafe fn both<const V: usize>(
    t: &LookUp<'_>,
    next: &mut States,
    context: *const Context,
    states: &mut States,
    found: Found,
    places: Places<'_>,
) -> Found {
    // SAFETY: as above.
    unsafe {
        match V {
            2 => both_2(t, next, context, states, found, places),
            4 => both_4(t, next, context, states, found, places),
            6 => both_6(t, next, context, states, found, places),
            _ => both_8(t, next, context, states, found, places),
        }
    }
}
