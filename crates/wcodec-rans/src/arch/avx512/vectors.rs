//! Loads, stores, selections, and the indices of permutations.
#![expect(unsafe_code, reason = "vector loads and stores")]

use std::arch::x86_64::*;

/// Indices for permutations.
pub(super) struct Orders {
    /// See `Constants::spread`.
    pub(super) spread: [[u8; 64]; 2],
    /// See `Constants::columns`.
    pub(super) columns: [u8; 64],
    /// Halfwords 2i + k of two vectors.
    pub(super) split: [[u16; 32]; 2],
    /// Halfwords i + 16·k of one vector and of another, in turn.
    pub(super) pairs: [[u16; 32]; 2],
}

pub(super) const ORDERS: Orders = {
    let mut o = Orders { spread: [[0; 64]; 2], columns: [0; 64], split: [[0; 32]; 2], pairs: [[0; 32]; 2] };
    let mut i = 0;
    while i < 32 {
        let mut half = 0;
        while half < 2 {
            o.spread[i / 16][4 * (i % 16) + 2 + half] = (2 * i + half) as u8;
            o.columns[2 * i + half] = (4 * (i % 16) + i / 16 + 2 * half) as u8;
            o.split[half][i] = (2 * i + half) as u16;
            o.pairs[half][i] = ((i / 2 + 16 * half) | ((i & 1) << 5)) as u16;
            half += 1;
        }
        i += 1;
    }
    o
};

/// The next 32 words of the stream; with CAREFUL, zeros where it is over.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn window<const CAREFUL: bool>(stream: &[u8], at: usize) -> __m512i {
    if CAREFUL {
        let rest = stream.get(at..).unwrap_or(&[]);
        let mask = _bzhi_u32(u32::MAX, (rest.len() / 2).min(32) as u32);
        // SAFETY: the mask has a bit per whole word of `rest`, and no others.
        unsafe { _mm512_maskz_loadu_epi16(mask, rest.as_ptr().cast()) }
    } else {
        in_register(load(stream[at..at + 64].try_into().expect("64 bytes")))
    }
}

/// `x`, loaded: expanding words straight out of memory is microcode on some CPUs (AMD's Zen 4 and 5), and a compiler that folds the load
/// into the expansion makes decoding a third slower.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn in_register(mut x: __m512i) -> __m512i {
    // SAFETY: no instructions at all; only the register is named.
    unsafe {
        std::arch::asm!("/* {0} */", inlateout(zmm_reg) x, options(pure, nomem, nostack, preserves_flags));
    }
    x
}

/// `a` where `mask` is set, else `b`.
#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn select(mask: __m512i, a: __m512i, b: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xca>(mask, a, b)
}

#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn quarters(bytes: &[u8; 256]) -> [__m512i; 4] {
    let (quarters, _) = bytes.as_chunks::<64>();
    [load(&quarters[0]), load(&quarters[1]), load(&quarters[2]), load(&quarters[3])]
}

#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 readable bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn load_words(words: &[u16; 32]) -> __m512i {
    // SAFETY: 64 readable bytes; the load needs no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn store(x: __m512i, bytes: &mut [u8; 64]) {
    // SAFETY: 64 writable bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), x) }
}

#[inline]
#[target_feature(
    enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt,pclmulqdq,vpclmulqdq"
)]
pub(super) fn store_words(x: __m512i, words: &mut [u16; 32]) {
    // SAFETY: 64 writable bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), x) }
}
