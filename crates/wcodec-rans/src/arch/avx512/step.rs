//! The step in registers as assembly, for half rows of two superblocks and alphabets of up to 64 symbols.
//!
//! It is [`super::look_up`]'s, instruction by instruction. Written out because compilers run out of registers over four half rows, and then
//! spill the states that the chain waits for; take masks through general registers, which costs the chain nine cycles; and load the
//! tables' vectors once per half. Even and odd columns take turns, so that one half's chain runs while the other's waits.
//!
//! Budget on Zen 5 (four vector operations a cycle, two of them permutations, shifts or products), both superblocks, a half row, 128, 256, 384 and
//! 512 entries: 75, 101, 129 and 153 vector operations, of which 26, 38, 52 and 64 permutations and the like, and 27, 45, 65 and 83 loads. By
//! the operations' latencies the chain from one row's state to the next is 42 cycles, 2 more above 128 entries: bucket 5, divide 5, compare and blend 8, frequency 7, product 5, masks 7, words 5.
#![expect(unsafe_code, reason = "assembly")]

use std::arch::x86_64::*;
use std::mem::offset_of;

use super::super::plan::Full;
use super::super::registers::{MAX_ENTRIES, Registers};
use super::look_up::LookUp;

/// Looks up two index vectors in a table at an offset of [`Registers`]. `$o` may be `$i`. Writes `t`, with four vectors also `z0` and `z1`, with six or
/// eight `w0` and `w1`.
macro_rules! look_up {
    (2, $at:literal, $i0:literal => $o0:literal, $i1:literal => $o1:literal) => {
        concat!(
            "vmovdqa64 {t}, [{tables} + {", $at, "}]\n",
            "vmovdqa64 {", $o0, "}, {", $i0, "}\n",
            "vmovdqa64 {", $o1, "}, {", $i1, "}\n",
            "vpermi2b {", $o0, "}, {t}, [{tables} + {", $at, "} + 64]\n",
            "vpermi2b {", $o1, "}, {t}, [{tables} + {", $at, "} + 64]\n",
        )
    };
    (4, $at:literal, $i0:literal => $o0:literal, $i1:literal => $o1:literal) => {
        concat!(
            "vmovdqa64 {t}, [{tables} + {", $at, "} + 128]\n",
            "vmovdqa64 {z0}, {", $i0, "}\n",
            "vmovdqa64 {z1}, {", $i1, "}\n",
            "vpermi2b {z0}, {t}, [{tables} + {", $at, "} + 192]\n",
            "vpermi2b {z1}, {t}, [{tables} + {", $at, "} + 192]\n",
            look_up!(2, $at, $i0 => $o0, $i1 => $o1),
            "vmovdqu8 {", $o0, "}{{k5}}, {z0}\n",
            "vmovdqu8 {", $o1, "}{{k6}}, {z1}\n",
        )
    };
    (6, $at:literal, $i0:literal => $o0:literal, $i1:literal => $o1:literal) => {
        concat!(
            "vmovdqa64 {t}, [{tables} + {", $at, "} + 256]\n",
            "vmovdqa64 {w0}, {", $i0, "}\n",
            "vmovdqa64 {w1}, {", $i1, "}\n",
            "vpermi2b {w0}, {t}, [{tables} + {", $at, "} + 320]\n",
            "vpermi2b {w1}, {t}, [{tables} + {", $at, "} + 320]\n",
            look_up!(4, $at, $i0 => $o0, $i1 => $o1),
            "vmovdqu8 {", $o0, "}{{k3}}, {w0}\n",
            "vmovdqu8 {", $o1, "}{{k4}}, {w1}\n",
        )
    };
    (8, $at:literal, $i0:literal => $o0:literal, $i1:literal => $o1:literal) => {
        concat!(
            "vmovdqa64 {t}, [{tables} + {", $at, "} + 256]\n",
            "vmovdqa64 {w0}, {", $i0, "}\n",
            "vmovdqa64 {w1}, {", $i1, "}\n",
            "vpermi2b {w0}, {t}, [{tables} + {", $at, "} + 320]\n",
            "vpermi2b {w1}, {t}, [{tables} + {", $at, "} + 320]\n",
            "vmovdqa64 {t}, [{tables} + {", $at, "} + 384]\n",
            "vmovdqa64 {z0}, {", $i0, "}\n",
            "vmovdqa64 {z1}, {", $i1, "}\n",
            "vpermi2b {z0}, {t}, [{tables} + {", $at, "} + 448]\n",
            "vpermi2b {z1}, {t}, [{tables} + {", $at, "} + 448]\n",
            "vmovdqu8 {w0}{{k5}}, {z0}\n",
            "vmovdqu8 {w1}{{k6}}, {z1}\n",
            look_up!(4, $at, $i0 => $o0, $i1 => $o1),
            "vmovdqu8 {", $o0, "}{{k3}}, {w0}\n",
            "vmovdqu8 {", $o1, "}{{k4}}, {w1}\n",
        )
    };
}

/// Which 128 entries an index is in is the context's doing alone, as long as tables have at most 128 entries. Masks k5 and k6 hold its bit 7, k3
/// and k4 bit 8.
macro_rules! tops {
    (2) => {
        "/* {z0}, {z1}, {w0}, {w1} and {high_starts} are not needed. */"
    };
    (4) => {
        "vpmovb2m k5, {i0}\nvpmovb2m k6, {i1} /* {w0}, {w1} and {high_starts} are not needed. */"
    };
    (6) => {
        tops!(8)
    };
    (8) => {
        concat!(
            "vpermw {w0}, {s0}, [{tables} + {high_starts}]\n",
            "vpermw {w1}, {s1}, [{tables} + {high_starts}]\n",
            "vpmovb2m k5, {i0}\n",
            "vpmovb2m k6, {i1}\n",
            "vpmovb2m k3, {w0}\n",
            "vpmovb2m k4, {w1}\n",
        )
    };
}

type Temporaries = (
    __m512i,
    __m512i,
    __m512i,
    __m512i,
    __m512i,
    __m512i,
    __m512i,
    __m512i,
    __m512i,
    __m512i,
    __m512i,
    __m512i,
    __m512i,
);

/// Decodes the symbols of half a row (H = 0: even columns, 1: odd ones) of two superblocks; see [`super::look_up`]. Writes value words.
///
/// # Safety
/// From its position on, every stream must have 64 readable bytes. N must be 2, and V, the vectors of a table, 2, 4, 6 or 8.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) unsafe fn step_of_two<const N: usize, const V: usize, const H: usize>(
    t: &LookUp<'_>,
    states: &mut [[__m512i; 4]; N],
    sums: &[[__m512i; 2]; N],
    blocks: &[Full<'_>; N],
    positions: &mut [usize; N],
    values: &mut [[__m512i; 2]; N],
) {
    let ([a, b], [at0, at1]) = (states.as_mut_slice(), positions.as_mut_slice()) else { unreachable!("N = 2") };
    let sums = [sums[0][H], sums[1][H]];
    let streams = [blocks[0].readable.as_ptr(), blocks[1].readable.as_ptr()];
    // SAFETY: as above.
    let [first, second] = unsafe {
        match V {
            2 => step_2(t, [a, b], H, sums, streams, [at0, at1]),
            4 => step_4(t, [a, b], H, sums, streams, [at0, at1]),
            6 => step_6(t, [a, b], H, sums, streams, [at0, at1]),
            _ => step_8(t, [a, b], H, sums, streams, [at0, at1]),
        }
    };
    (values[0][H], values[1][H]) = (first, second);
}

macro_rules! step {
    ($name:ident, $vectors:tt) => {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq")]
        unsafe fn $name(
            t: &LookUp<'_>,
            [a, b]: [&mut [__m512i; 4]; 2],
            h: usize,
            sums: [__m512i; 2],
            streams: [*const u8; 2],
            at: [&mut usize; 2],
        ) -> [__m512i; 2] {
            let [at0, at1] = at;
            let (value0, value1): (__m512i, __m512i);
            let (_t, _i0, _i1, _y0, _y1, _p0, _p1, _f0, _f1, _z0, _z1, _w0, _w1): Temporaries;
            // SAFETY: reads `tables`, and 64 bytes of each stream from `at` on; writes only its operands.
            unsafe {
                std::arch::asm!(
                    // Index i: table from the context, bucket from the state.
                    "vpermw {i0}, {s0}, [{tables} + {starts}]",
                    "vpermw {i1}, {s1}, [{tables} + {starts}]",
                    "vpmultishiftqb {x0}, {bucket_bits}, {l0}",
                    "vpmultishiftqb {x1}, {bucket_bits}, {l1}",
                    tops!($vectors),
                    "vpternlogd {i0}, {x0}, {bucket_mask}, 0xd8",
                    "vpternlogd {i1}, {x1}, {bucket_mask}, 0xd8",
                    // Place p in the bucket, in both bytes; k1 and k2: the alias's. Symbol x.
                    look_up!($vectors, "divide", "i0" => "x0", "i1" => "x1"),
                    "vpmultishiftqb {p0}, {place_bits}, {l0}",
                    "vpmultishiftqb {p1}, {place_bits}, {l1}",
                    "vpshrdvw {l0}, {h0}, {table_bits}",
                    "vpshrdvw {l1}, {h1}, {table_bits}",
                    look_up!($vectors, "alias", "i0" => "y0", "i1" => "y1"),
                    "vpandd {p0}, {p0}, {place_mask}",
                    "vpandd {p1}, {p1}, {place_mask}",
                    "vpcmpub k1, {p0}, {x0}, 5",
                    "vpcmpub k2, {p1}, {x1}, 5",
                    "vpsrlvw {h0}, {h0}, {table_bits}",
                    "vpsrlvw {h1}, {h1}, {table_bits}",
                    "vpblendmb {x0}{{k1}}, {i0}, {y0}",
                    "vpblendmb {x1}{{k2}}, {i1}, {y1}",
                    // Frequency f.
                    look_up!($vectors, "freq_low", "x0" => "y0", "x1" => "y1"),
                    look_up!($vectors, "freq_high", "x0" => "f0", "x1" => "f1"),
                    "vmovdqu8 {f0}{{{even}}}, {y0}",
                    "vmovdqu8 {f1}{{{even}}}, {y1}",
                    // Bias p: the place, and for aliases what is to be added.
                    look_up!($vectors, "adjust_low", "i0" => "y0", "i1" => "y1"),
                    look_up!($vectors, "adjust_high", "i0" => "i0", "i1" => "i1"),
                    "vmovdqu8 {i0}{{{even}}}, {y0}",
                    "vmovdqu8 {i1}{{{even}}}, {y1}",
                    "vmovdqu8 {i0}{{k1}}{{z}}, {i0}",
                    "vmovdqu8 {i1}{{k2}}{{z}}, {i1}",
                    "vmovdqu8 {p0}{{{even}}}{{z}}, {p0}",
                    "vmovdqu8 {p1}{{{even}}}{{z}}, {p1}",
                    // f · (x >> P) + p in halves.
                    "vpmullw {y0}, {f0}, {l0}",
                    "vpmullw {y1}, {f1}, {l1}",
                    "vpmulhuw {l0}, {f0}, {l0}",
                    "vpmulhuw {l1}, {f1}, {l1}",
                    "vpmullw {h0}, {f0}, {h0}",
                    "vpmullw {h1}, {f1}, {h1}",
                    "vpaddw {p0}, {p0}, {i0}",
                    "vpaddw {p1}, {p1}, {i1}",
                    "vpaddw {h0}, {h0}, {l0}",
                    "vpaddw {h1}, {h1}, {l1}",
                    "vpaddw {l0}, {y0}, {p0}",
                    "vpaddw {l1}, {y1}, {p1}",
                    // k1 and k2: carries. k3 and k4: below 2^16, no high half and no carry into it.
                    "vptestnmw k3, {h0}, {h0}",
                    "vptestnmw k4, {h1}, {h1}",
                    "vpcmpuw k1, {l0}, {p0}, 1",
                    "vpcmpuw k2, {l1}, {p1}, 1",
                    "kandnd k3, k1, k3",
                    "kandnd k4, k2, k4",
                    "vmovdqu64 {y0}, [{stream0} + {at0}]",
                    "vmovdqu64 {y1}, [{stream1} + {at1}]",
                    "kmovd {n0:e}, k3",
                    "kmovd {n1:e}, k4",
                    "popcnt {n0:e}, {n0:e}",
                    "popcnt {n1:e}, {n1:e}",
                    "lea {at0}, [{at0} + 2*{n0}]",
                    "lea {at1}, [{at1} + 2*{n1}]",
                    "vpternlogd {t}, {t}, {t}, 0xff",
                    "vpsubw {h0}{{k1}}, {h0}, {t}",
                    "vpsubw {h1}{{k2}}, {h1}, {t}",
                    "vmovdqu16 {h0}{{k3}}, {l0}",
                    "vmovdqu16 {h1}{{k4}}, {l1}",
                    "vpexpandw {l0}{{k3}}, {y0}",
                    "vpexpandw {l1}{{k4}}, {y1}",
                    // Values, shifted where they are not zero.
                    "vmovdqa64 {t}, [{tables} + {values}]",
                    "vpermi2w {x0}, {t}, [{tables} + {values} + 64]",
                    "vpermi2w {x1}, {t}, [{tables} + {values} + 64]",
                    "vpermw {y0}, {s0}, [{tables} + {shifts}]",
                    "vpermw {y1}, {s1}, [{tables} + {shifts}]",
                    "vptestmw k1, {x0}, {x0}",
                    "vptestmw k2, {x1}, {x1}",
                    "vpaddw {x0}{{k1}}, {x0}, {y0}",
                    "vpaddw {x1}{{k2}}, {x1}, {y1}",
                    tables = in(reg) t.tables,
                    divide = const offset_of!(Registers, divide),
                    alias = const offset_of!(Registers, alias),
                    freq_low = const offset_of!(Registers, freq),
                    freq_high = const offset_of!(Registers, freq) + MAX_ENTRIES,
                    adjust_low = const offset_of!(Registers, adjust),
                    adjust_high = const offset_of!(Registers, adjust) + MAX_ENTRIES,
                    starts = const offset_of!(Registers, tables),
                    high_starts = const offset_of!(Registers, high_tables),
                    shifts = const offset_of!(Registers, shifts),
                    values = const offset_of!(Registers, values),
                    bucket_bits = in(zmm_reg) t.bucket_bits,
                    bucket_mask = in(zmm_reg) t.bucket_mask,
                    place_bits = in(zmm_reg) t.place_bits,
                    place_mask = in(zmm_reg) t.place_mask,
                    table_bits = in(zmm_reg) t.table_bits,
                    even = in(kreg) 0x5555_5555_5555_5555u64,
                    l0 = inout(zmm_reg) a[h],
                    l1 = inout(zmm_reg) b[h],
                    h0 = inout(zmm_reg) a[2 + h],
                    h1 = inout(zmm_reg) b[2 + h],
                    s0 = in(zmm_reg) sums[0],
                    s1 = in(zmm_reg) sums[1],
                    stream0 = in(reg) streams[0],
                    stream1 = in(reg) streams[1],
                    at0 = inout(reg) *at0,
                    at1 = inout(reg) *at1,
                    n0 = out(reg) _,
                    n1 = out(reg) _,
                    x0 = out(zmm_reg) value0,
                    x1 = out(zmm_reg) value1,
                    t = out(zmm_reg) _t,
                    i0 = out(zmm_reg) _i0,
                    i1 = out(zmm_reg) _i1,
                    y0 = out(zmm_reg) _y0,
                    y1 = out(zmm_reg) _y1,
                    p0 = out(zmm_reg) _p0,
                    p1 = out(zmm_reg) _p1,
                    f0 = out(zmm_reg) _f0,
                    f1 = out(zmm_reg) _f1,
                    z0 = out(zmm_reg) _z0,
                    z1 = out(zmm_reg) _z1,
                    w0 = out(zmm_reg) _w0,
                    w1 = out(zmm_reg) _w1,
                    out("k1") _, out("k2") _, out("k3") _, out("k4") _, out("k5") _, out("k6") _,
                    options(nostack, readonly),
                );
            }
            [value0, value1]
        }
    };
}

step!(step_2, 2);
step!(step_4, 4);
step!(step_6, 6);
step!(step_8, 8);
