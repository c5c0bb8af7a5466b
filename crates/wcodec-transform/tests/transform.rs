//! Properties of the transforms: exact inversion, closeness to the real-valued transform, energy compaction.

use proptest::prelude::*;
use std::f64::consts::PI;
use wcodec_transform::{
    Error, MAX_INPUT, SAMPLE_ERROR_GAIN, SAMPLE_ERROR_ROUNDING, Transform, bitplane, fold, forward, forward_separable,
    inverse, inverse_separable,
};

fn any_transform() -> impl Strategy<Value = Transform> {
    prop::sample::select(&Transform::ALL[..])
}

fn block_of(range: impl Strategy<Value = i32> + Clone + 'static) -> impl Strategy<Value = [i32; 64]> {
    prop::collection::vec(range, 64).prop_map(|v| v.try_into().unwrap())
}

/// Blocks of any size of number up to the documented range, extremes included.
fn samples() -> impl Strategy<Value = [i32; 64]> {
    (0u32..=20).prop_flat_map(|bits| {
        let m = 1 << bits;
        block_of(prop_oneof![4 => -m..=m, 1 => Just(m), 1 => Just(-m)])
    })
}

/// Coefficient `k` of the orthonormal transform, as weight of sample `n`.
fn basis(transform: Transform, k: usize, n: usize) -> f64 {
    let (k, n) = (k as f64, n as f64);
    match transform {
        Transform::Identity => f64::from(u8::from(k == n)),
        Transform::Dct if k == 0.0 => 0.125f64.sqrt(),
        Transform::Dct => 0.5 * (PI * k * (2.0 * n + 1.0) / 16.0).cos(),
        Transform::Adst => 0.5 * (PI * (2.0 * k + 1.0) * (2.0 * n + 1.0) / 32.0).sin(),
    }
}

/// The real-valued transform with the documented scales.
fn reference(horizontal: Transform, vertical: Transform, x: &[i32; 64]) -> [f64; 64] {
    std::array::from_fn(|i| {
        let (u, v) = (i / 8, i % 8);
        let sum: f64 = (0..64).map(|j| basis(vertical, u, j / 8) * basis(horizontal, v, j % 8) * f64::from(x[j])).sum();
        sum * vertical.scales()[u] * horizontal.scales()[v]
    })
}

/// Share of the energy in the `count` largest orthonormal coefficients.
fn compaction(transform: Transform, block: &[i32; 64], count: usize) -> f64 {
    let s = transform.scales();
    let mut energy: Vec<f64> = (0..64).map(|i| (f64::from(block[i]) / (s[i / 8] * s[i % 8])).powi(2)).collect();
    energy.sort_by(|a, b| b.total_cmp(a));
    energy[..count].iter().sum::<f64>() / energy.iter().sum::<f64>()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn inverts_in_the_documented_range(x in samples(), t in any_transform()) {
        let mut y = x;
        forward(t, &mut y);
        inverse(t, &mut y);
        prop_assert_eq!(y, x);
    }

    #[test]
    fn inverts_for_every_integer_both_ways(x in block_of(any::<i32>()), h in any_transform(), v in any_transform()) {
        let mut y = x;
        forward_separable(h, v, &mut y);
        inverse_separable(h, v, &mut y);
        prop_assert_eq!(y, x);
        inverse_separable(h, v, &mut y);
        forward_separable(h, v, &mut y);
        prop_assert_eq!(y, x);
    }

    #[test]
    fn approximates_the_real_transform(x in samples(), h in any_transform(), v in any_transform()) {
        let mut y = x;
        forward_separable(h, v, &mut y);
        let largest = x.iter().map(|v| v.unsigned_abs()).max().unwrap();
        // Rounding noise, and what 14-bit constants are off by.
        let tolerance = 16.0 + f64::from(largest) / 1024.0;
        for (i, (&got, want)) in y.iter().zip(reference(h, v, &x)).enumerate() {
            prop_assert!((f64::from(got) - want).abs() <= tolerance, "{} at {}: {} for {}", tolerance, i, got, want);
        }
    }

    #[test]
    fn a_constant_block_has_one_dct_coefficient(c in -MAX_INPUT..=MAX_INPUT) {
        let mut y = [c; 64];
        forward(Transform::Dct, &mut y);
        prop_assert_eq!(y[0], c);
        prop_assert!(y[1..].iter().all(|&v| v == 0));
    }

    #[test]
    fn a_prefix_of_the_planes_keeps_its_bounds(x in block_of(-300..=300), t in any_transform()) {
        let mut coefficients = x;
        forward(t, &mut coefficients);
        let bits = fold::magnitude_bits(&coefficients);
        let (mut folded, mut bytes) = (Vec::new(), Vec::new());
        fold::sign_first(&coefficients, bits, &mut folded).unwrap();
        bitplane::split(&folded, bits + 1, &mut bytes).unwrap();
        for k in 0..=bits + 1 {
            let mut back = [0; 64];
            bitplane::merge(&bytes, 64, bits + 1, k, &mut back).unwrap();
            let mut block = back.map(|u| fold::sign_first_to_signed(u, bits));
            let bound = fold::sign_first_error_bound(bits, k);
            prop_assert!(block.iter().zip(&coefficients).all(|(a, b)| a.abs_diff(*b) <= bound));
            inverse(t, &mut block);
            let bound = if bound == 0 { 0 } else { SAMPLE_ERROR_GAIN * bound + SAMPLE_ERROR_ROUNDING };
            prop_assert!(block.iter().zip(&x).all(|(a, b)| a.abs_diff(*b) <= bound));
        }
    }
}

#[test]
fn the_extremes_do_not_wrap() {
    // The signs of the basis functions with the largest gain: coefficients 3 and 5.
    for t in [Transform::Dct, Transform::Adst] {
        for u in 0..8 {
            for v in 0..8 {
                let x: [i32; 64] = std::array::from_fn(|i| {
                    let sign = basis(t, u, i / 8) * basis(t, v, i % 8);
                    if sign < 0.0 { -MAX_INPUT } else { MAX_INPUT }
                });
                let mut y = x;
                forward(t, &mut y);
                let want = reference(t, t, &x)[u * 8 + v];
                assert!((f64::from(y[u * 8 + v]) - want).abs() < 2048.0, "{t:?} {u} {v}");
                assert!(y.iter().all(|c| c.unsigned_abs() < 1 << 25));
            }
        }
    }
}

#[test]
fn dct_gathers_the_energy_of_smooth_blocks() {
    let ramp: [i32; 64] = std::array::from_fn(|i| 11 * (i / 8) as i32 - 7 * (i % 8) as i32);
    let cosine: [i32; 64] = std::array::from_fn(|i| {
        let (r, c) = ((i / 8) as f64, (i % 8) as f64);
        (100.0 * (PI * 2.0 * (2.0 * r + 1.0) / 16.0).cos() * (PI * 3.0 * (2.0 * c + 1.0) / 16.0).cos()).round() as i32
    });
    for (x, count) in [(ramp, 3), (cosine, 1)] {
        assert!(compaction(Transform::Identity, &x, count) < 0.5, "the samples alone are spread out");
        let mut y = x;
        forward(Transform::Dct, &mut y);
        assert!(compaction(Transform::Dct, &y, count) > 0.95);
    }
}

#[test]
fn adst_gathers_the_energy_of_residuals_that_grow_from_the_edge() {
    let x: [i32; 64] = std::array::from_fn(|i| 4 * (i / 8 + 1) as i32 * (i % 8 + 1) as i32);
    let (mut adst, mut dct) = (x, x);
    forward(Transform::Adst, &mut adst);
    forward(Transform::Dct, &mut dct);
    assert!(compaction(Transform::Adst, &adst, 3) > 0.95);
    assert!(compaction(Transform::Adst, &adst, 1) > compaction(Transform::Dct, &dct, 1));
}

#[test]
fn known_coefficients() {
    // Frozen: another implementation (SIMD, CUDA) must give these very integers.
    let x: [i32; 64] = std::array::from_fn(|i| (i as i32 * 37) % 101 - 50);
    let sums = [Transform::Identity, Transform::Dct, Transform::Adst].map(|t| {
        let mut y = x;
        forward(t, &mut y);
        y.iter().fold(0u32, |h, &v| (h ^ v as u32).wrapping_mul(0x0100_0193).rotate_left(5))
    });
    assert_eq!(sums, [3_705_847_082, 459_150_301, 987_510_538]);
}

#[test]
fn codes_round_trip_and_others_are_corrupt() {
    for code in 0..=u8::MAX {
        match Transform::from_code(code) {
            Ok(t) => assert_eq!(t.code(), code),
            Err(e) => {
                assert!(usize::from(code) >= Transform::ALL.len());
                assert_eq!(e, Error::UnknownTransform { code });
            }
        }
    }
}
