//! Counting lines side by side with AVX-512: a row of 64 values is a vector, and every value looks up, in one byte, which counters of half a byte it
//! raises.
//!
//! Sixteen permutations and additions count 32 different values of 64 lines. Every 15 rows, halves of bytes are added to bytes; a group's
//! are then transposed, so that a line's counts stand together.
#![expect(unsafe_code, reason = "vector loads and stores, and entry into functions compiled for AVX-512")]

use std::arch::x86_64::*;

use super::avx512::Avx512;
use crate::histograms::{LINES, Rows};

/// Values that are counted at a time.
const VALUES: usize = 32;
/// Rows until a counter of half a byte is full.
const ROWS: usize = 15;

/// Of every half of the values and every pair of counters, what each value adds to them.
static STEPS: [[[u8; 64]; VALUES / 2]; 2] = {
    let mut steps = [[[0; 64]; VALUES / 2]; 2];
    let mut value = 0;
    while value < 64 {
        steps[value / VALUES][value % VALUES / 2][value] = 1 << (4 * (value % 2));
        value += 1;
    }
    steps
};

impl Avx512 {
    /// See [`super::Backend::count_lines`].
    pub(crate) fn count_lines(self, matrix: &[[u8; LINES]], rows: &Rows, bins: usize, counts: &mut [u8]) {
        // SAFETY: `self` exists only if the CPU has every feature that the function is compiled for.
        unsafe { count(matrix, rows, bins, counts) }
    }

    /// See [`super::Backend::line_costs`].
    pub(crate) fn line_costs(
        self,
        counts: &[u8],
        kinds: &[i32],
        lowest: i32,
        bins: usize,
        lengths: &[i16],
    ) -> [i32; 3] {
        // SAFETY: as above.
        unsafe {
            match bins {
                32 => costs::<1>(counts, kinds, lowest, lengths),
                _ => costs::<2>(counts, kinds, lowest, lengths),
            }
        }
    }

    /// See [`super::Backend::transpose`].
    pub(crate) fn transpose(self, from: &[u8], cols: usize, to: &mut [u8], rows: usize) {
        // SAFETY: as above.
        unsafe { transpose(from, cols, to, rows) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn count(matrix: &[[u8; LINES]], rows: &Rows, bins: usize, counts: &mut [u8]) {
    let pitch = counts.len() / LINES;
    let nibble = _mm512_set1_epi8(15);
    for (group, rows) in rows.groups().enumerate() {
        for (half, steps) in STEPS.iter().take(bins / VALUES).enumerate() {
            let mut sums = [[_mm512_setzero_si512(); 2]; VALUES / 2];
            for rows in rows.chunks(ROWS) {
                let mut pairs = [_mm512_setzero_si512(); VALUES / 2];
                for &row in rows {
                    let values = load(&matrix[row as usize]);
                    for (pair, steps) in pairs.iter_mut().zip(steps) {
                        *pair = _mm512_add_epi8(*pair, _mm512_permutexvar_epi8(values, load(steps)));
                    }
                }
                for (sums, pair) in sums.iter_mut().zip(&pairs) {
                    sums[0] = _mm512_add_epi8(sums[0], _mm512_and_si512(*pair, nibble));
                    sums[1] = _mm512_add_epi8(sums[1], _mm512_and_si512(_mm512_srli_epi16::<4>(*pair), nibble));
                }
            }
            // Of 16 values each: vector j has those of lines j, j + 16, j + 32, j + 48.
            let mut halves = [[_mm512_setzero_si512(); 16]; 2];
            for i in 0..VALUES {
                halves[i / 16][i % 16] = sums[i / 2][i % 2];
            }
            let [low, high] = &mut halves;
            turn(low);
            turn(high);
            for j in 0..16 {
                let lines = [
                    _mm512_permutex2var_epi64(low[j], _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high[j]),
                    _mm512_permutex2var_epi64(low[j], _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high[j]),
                ];
                let at = group * bins + half * VALUES;
                for (i, lines) in [(j, lines[0]), (32 + j, lines[1])] {
                    store32(&mut counts[i * pitch + at..], _mm512_castsi512_si256(lines));
                    store32(&mut counts[(i + 16) * pitch + at..], _mm512_extracti64x4_epi64::<1>(lines));
                }
            }
        }
    }
}

/// Transposes the 16 × 16 bytes in every quarter of 16 vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn turn(x: &mut [__m512i; 16]) {
    // Interleaving vectors i and i + 8 four times over turns bits of the number of the vector into bits of that of the byte.
    for _ in 0..4 {
        let mut y = [_mm512_setzero_si512(); 16];
        for i in 0..8 {
            y[2 * i] = _mm512_unpacklo_epi8(x[i], x[i + 8]);
            y[2 * i + 1] = _mm512_unpackhi_epi8(x[i], x[i + 8]);
        }
        *x = y;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn costs<const N: usize>(counts: &[u8], kinds: &[i32], lowest: i32, lengths: &[i16]) -> [i32; 3] {
    let bins = VALUES * N;
    let mut sums = [_mm512_setzero_si512(); 3];
    for (counts, &kind) in counts.chunks_exact(bins).zip(kinds) {
        let lengths = &lengths[(kind - lowest) as usize * bins..][..3 * bins];
        for half in 0..N {
            let counts: &[u8; VALUES] = (&counts[half * VALUES..][..VALUES]).try_into().expect("32");
            // SAFETY: 32 readable bytes.
            let counts = _mm512_cvtepu8_epi16(unsafe { _mm256_loadu_si256(counts.as_ptr().cast()) });
            for (sum, lengths) in sums.iter_mut().zip(lengths.chunks_exact(bins)) {
                let lengths: &[i16; VALUES] = (&lengths[half * VALUES..][..VALUES]).try_into().expect("32");
                // SAFETY: 64 readable bytes.
                let lengths = unsafe { _mm512_loadu_si512(lengths.as_ptr().cast()) };
                *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(counts, lengths));
            }
        }
    }
    [_mm512_reduce_add_epi32(sums[0]), _mm512_reduce_add_epi32(sums[1]), _mm512_reduce_add_epi32(sums[2])]
}

/// By tiles of 16 rows and 64 columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx512vbmi,avx512vbmi2,bmi2,popcnt")]
fn transpose(from: &[u8], cols: usize, to: &mut [u8], rows: usize) {
    for first in (0..cols).step_by(LINES) {
        for (row, from) in (0..rows).step_by(16).zip(from.chunks_exact(16 * cols)) {
            let mut tile = [_mm512_setzero_si512(); 16];
            for (x, from) in tile.iter_mut().zip(from.chunks_exact(cols)) {
                *x = load(&from[first..]);
            }
            turn(&mut tile);
            for (j, x) in tile.iter().enumerate() {
                store16(&mut to[(first + j) * rows + row..], _mm512_castsi512_si128(*x));
                store16(&mut to[(first + 16 + j) * rows + row..], _mm512_extracti32x4_epi32::<1>(*x));
                store16(&mut to[(first + 32 + j) * rows + row..], _mm512_extracti32x4_epi32::<2>(*x));
                store16(&mut to[(first + 48 + j) * rows + row..], _mm512_extracti32x4_epi32::<3>(*x));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store32(to: &mut [u8], x: __m256i) {
    let to: &mut [u8; 32] = (&mut to[..32]).try_into().expect("32");
    // SAFETY: 32 writable bytes.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), x) };
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store16(to: &mut [u8], x: __m128i) {
    let to: &mut [u8; 16] = (&mut to[..16]).try_into().expect("16");
    // SAFETY: 16 writable bytes.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), x) };
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(from: &[u8]) -> __m512i {
    let from: &[u8; 64] = from[..64].try_into().expect("64");
    // SAFETY: 64 readable bytes.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}
