//! Counting lines side by side with AVX2: half a row is a vector, and every value looks up, in one byte, which counters of half a byte it raises.
//!
//! Eight permutations and additions count 16 different values of 32 lines; other values have the highest bit of their index set and so look up 0.
//! Every 15 rows, halves of bytes are added to bytes; a group's are then transposed, so that a line's counts stand together.
#![expect(unsafe_code, reason = "vector loads and stores, and entry into functions compiled for AVX2")]

use std::arch::x86_64::*;

use super::avx2::Avx2;
use crate::histograms::{LINES, Rows};

/// Values that are counted at a time.
const VALUES: usize = 16;
/// Lines that are counted at a time.
const SIDE: usize = 32;
/// Rows until a counter of half a byte is full.
const ROWS: usize = 15;

/// Of every pair of counters, what each value adds to them.
static STEPS: [[u8; SIDE]; VALUES / 2] = {
    let mut steps = [[0; SIDE]; VALUES / 2];
    let mut i = 0;
    while i < SIDE {
        let value = i % VALUES;
        steps[value / 2][i] = 1 << (4 * (value % 2));
        i += 1;
    }
    steps
};

impl Avx2 {
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
                32 => costs::<32>(counts, kinds, lowest, lengths),
                _ => costs::<64>(counts, kinds, lowest, lengths),
            }
        }
    }

    /// See [`super::Backend::transpose`].
    pub(crate) fn transpose(self, from: &[u8], cols: usize, to: &mut [u8], rows: usize) {
        // SAFETY: as above.
        unsafe { transpose(from, cols, to, rows) }
    }
}

#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
fn count(matrix: &[[u8; LINES]], rows: &Rows, bins: usize, counts: &mut [u8]) {
    let pitch = counts.len() / LINES;
    for (group, rows) in rows.groups().enumerate() {
        for side in 0..LINES / SIDE {
            for first in (0..bins).step_by(VALUES) {
                let mut sums = count_values(matrix, rows, SIDE * side, first);
                turn(&mut sums);
                let at = group * bins + first;
                for (line, x) in (SIDE * side..).zip(&sums) {
                    store(&mut counts[line * pitch + at..], _mm256_castsi256_si128(*x));
                    store(&mut counts[(line + 16) * pitch + at..], _mm256_extracti128_si256::<1>(*x));
                }
            }
        }
    }
}

/// Counts of 16 values from `first` on, in 32 lines from `line` on: a vector for every value.
#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
fn count_values(matrix: &[[u8; LINES]], rows: &[u32], line: usize, first: usize) -> [__m256i; VALUES] {
    let nibble = _mm256_set1_epi8(15);
    let (own, above) = (_mm256_set1_epi8(first as i8), _mm256_set1_epi8(0x70));
    let mut sums = [_mm256_setzero_si256(); VALUES];
    for rows in rows.chunks(ROWS) {
        let mut pairs = [_mm256_setzero_si256(); VALUES / 2];
        for &row in rows {
            // From 0x80 on for values that are not counted.
            let index = _mm256_add_epi8(_mm256_xor_si256(load(&matrix[row as usize][line..]), own), above);
            for i in 0..VALUES / 2 {
                pairs[i] = _mm256_add_epi8(pairs[i], _mm256_shuffle_epi8(load(&STEPS[i]), index));
            }
        }
        for i in 0..VALUES / 2 {
            let (even, odd) = (pairs[i], _mm256_srli_epi16::<4>(pairs[i]));
            sums[2 * i] = _mm256_add_epi8(sums[2 * i], _mm256_and_si256(even, nibble));
            sums[2 * i + 1] = _mm256_add_epi8(sums[2 * i + 1], _mm256_and_si256(odd, nibble));
        }
    }
    sums
}

/// Transposes the 16 × 16 bytes in either half of 16 vectors.
#[inline]
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
fn turn(x: &mut [__m256i; 16]) {
    // Interleaving vectors i and i + 8 four times over turns bits of the number of the vector into bits of that of the byte.
    for _ in 0..4 {
        let mut y = [_mm256_setzero_si256(); 16];
        for i in 0..8 {
            y[2 * i] = _mm256_unpacklo_epi8(x[i], x[i + 8]);
            y[2 * i + 1] = _mm256_unpackhi_epi8(x[i], x[i + 8]);
        }
        *x = y;
    }
}

#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
fn costs<const BINS: usize>(counts: &[u8], kinds: &[i32], lowest: i32, lengths: &[i16]) -> [i32; 3] {
    let mut sums = [_mm256_setzero_si256(); 3];
    for (counts, &kind) in counts.as_chunks::<BINS>().0.iter().zip(kinds) {
        let lengths = &lengths[(kind - lowest) as usize * BINS..][..3 * BINS];
        for (i, counts) in counts.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: 16 readable bytes.
            let counts = _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(counts.as_ptr().cast()) });
            for (sum, lengths) in sums.iter_mut().zip(lengths.as_chunks::<BINS>().0) {
                let lengths: &[i16; 16] = lengths[16 * i..][..16].try_into().expect("16");
                // SAFETY: 32 readable bytes.
                let lengths = unsafe { _mm256_loadu_si256(lengths.as_ptr().cast()) };
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(counts, lengths));
            }
        }
    }
    let mut totals = [0; 3];
    for (total, sum) in totals.iter_mut().zip(sums) {
        let x = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
        *total = _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x)));
    }
    totals
}

/// By tiles of 16 rows and 32 columns.
#[target_feature(enable = "avx2,bmi2,lzcnt,popcnt")]
fn transpose(from: &[u8], cols: usize, to: &mut [u8], rows: usize) {
    for first in (0..cols).step_by(SIDE) {
        for (row, from) in (0..rows).step_by(16).zip(from.chunks_exact(16 * cols)) {
            let mut tile = [_mm256_setzero_si256(); 16];
            for (x, from) in tile.iter_mut().zip(from.chunks_exact(cols)) {
                *x = load(&from[first..]);
            }
            turn(&mut tile);
            for (col, x) in (first..).zip(&tile) {
                store(&mut to[col * rows + row..], _mm256_castsi256_si128(*x));
                store(&mut to[(col + 16) * rows + row..], _mm256_extracti128_si256::<1>(*x));
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(to: &mut [u8], x: __m128i) {
    let to: &mut [u8; 16] = (&mut to[..16]).try_into().expect("16");
    // SAFETY: 16 writable bytes.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), x) };
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(from: &[u8]) -> __m256i {
    let from: &[u8; SIDE] = from[..SIDE].try_into().expect("32");
    // SAFETY: 32 readable bytes.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}
