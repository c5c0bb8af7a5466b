//! Regions: exact inversion for all shapes and modes, choice of modes, corrupt input.

use proptest::prelude::*;
use wcodec_predict::{Choice, Error, Intra, TileSize, decode_region, encode_region, residual_cost};

fn size() -> impl Strategy<Value = TileSize> {
    prop::sample::select(&[4, 8, 16, 32, 64][..]).prop_map(|n| TileSize::new(n).unwrap())
}

/// Height, width, stride and the samples between.
fn region() -> impl Strategy<Value = (usize, usize, usize, Vec<u8>)> {
    (0usize..80, 0usize..80, 0usize..5).prop_flat_map(|(h, w, gap)| {
        let smooth = (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(move |(a, b, c)| {
            let sample = |i: usize| (i / (w + gap).max(1) * usize::from(a) + i * usize::from(b) + usize::from(c)) as u8;
            (0..h * (w + gap)).map(sample).collect::<Vec<u8>>()
        });
        let noise = prop::collection::vec(any::<u8>(), h * (w + gap));
        (Just(h), Just(w), Just(w + gap), prop_oneof![smooth, noise])
    })
}

proptest! {
    #[test]
    fn every_mode_inverts_on_every_shape((h, w, stride, samples) in region(), tile in size(), fill: u8) {
        let fixed = Intra::ALL.map(Choice::Fixed);
        for choose in fixed.into_iter().chain([Choice::Among(&Intra::ALL)]) {
            let coded = encode_region(&samples, stride, h, w, tile, choose).unwrap();
            let mut out = vec![fill; samples.len()];
            decode_region(&coded.modes, &coded.residuals, h, w, tile, &mut out, stride).unwrap();
            for (i, (&got, &want)) in out.iter().zip(&samples).enumerate() {
                prop_assert_eq!(got, if i % stride < w { want } else { fill });
            }
        }
    }

    #[test]
    fn mixed_modes_invert(h in 1usize..40, w in 1usize..40, seed: [u8; 32]) {
        // Any sequence of modes is decodable, and encoding its output gives the residuals back.
        let tile = TileSize::new(8).unwrap();
        let tiles = h.div_ceil(8) * w.div_ceil(8);
        let modes: Vec<u8> = (0..tiles).map(|i| seed[i % 32] % 7).collect();
        let residuals: Vec<u8> = (0..h * w).map(|i| seed[(i * 7) % 32].wrapping_add(i as u8)).collect();
        let mut out = vec![0; h * w];
        decode_region(&modes, &residuals, h, w, tile, &mut out, w).unwrap();
        for mode in Intra::ALL {
            let again = encode_region(&out, w, h, w, tile, Choice::Fixed(mode)).unwrap();
            for y in 0..h {
                for x in 0..w {
                    if modes[y / 8 * w.div_ceil(8) + x / 8] == mode.code() {
                        prop_assert_eq!(again.residuals[y * w + x], residuals[y * w + x]);
                    }
                }
            }
        }
    }

    #[test]
    fn the_choice_costs_no_more_than_any_fixed_mode((h, w, stride, samples) in region(), tile in size()) {
        let cost = |choose| residual_cost(&encode_region(&samples, stride, h, w, tile, choose).unwrap().residuals);
        let chosen = cost(Choice::Among(&Intra::ALL));
        for mode in Intra::ALL {
            prop_assert!(chosen <= cost(Choice::Fixed(mode)));
        }
    }

    #[test]
    fn corrupt_input_is_an_error_or_decodes(
        modes in prop::collection::vec(0u8..9, 0..12),
        residuals in prop::collection::vec(any::<u8>(), 0..200),
        h in 0usize..20,
        w in 0usize..20,
    ) {
        let tile = TileSize::new(8).unwrap();
        let mut out = vec![3; h * w];
        let result = decode_region(&modes, &residuals, h, w, tile, &mut out, w);
        let valid = residuals.len() == h * w
            && modes.len() == h.div_ceil(8) * w.div_ceil(8)
            && modes.iter().all(|&m| m < 7);
        prop_assert_eq!(result.is_ok(), valid);
        if !valid {
            prop_assert!(out.iter().all(|&s| s == 3), "nothing is written on error");
        }
    }
}

#[test]
fn fitting_modes_are_chosen() {
    let (h, w, tile) = (32, 32, TileSize::default());
    let chosen = |f: fn(usize, usize) -> u8| {
        let samples: Vec<u8> = (0..h * w).map(|i| f(i / w, i % w)).collect();
        let coded = encode_region(&samples, w, h, w, tile, Choice::Among(&Intra::ALL)).unwrap();
        Intra::from_code(coded.modes[3]).unwrap()
    };
    assert_eq!(chosen(|_, _| 0), Intra::None);
    assert_eq!(chosen(|y, _| (y * 97) as u8), Intra::Left);
    assert_eq!(chosen(|_, x| (x * 97) as u8), Intra::Top);
    assert_eq!(chosen(|y, x| (y * y * 31 + x) as u8), Intra::LeftDelta);
    assert_eq!(chosen(|y, x| (x * x * 31 + y) as u8), Intra::TopDelta);
}

#[test]
fn every_fault_has_its_error() {
    let tile = TileSize::default();
    let mut out = [0; 64];
    let mut decode = |modes: &[u8], residuals: &[u8], h, w, stride| {
        decode_region(modes, residuals, h, w, tile, &mut out, stride).unwrap_err()
    };
    assert_eq!(decode(&[7], &[0; 64], 8, 8, 8), Error::UnknownMode { code: 7 });
    assert_eq!(decode(&[], &[0; 64], 8, 8, 8), Error::ModeCount { needed: 1, present: 0 });
    assert_eq!(decode(&[0], &[0; 63], 8, 8, 8), Error::ResidualCount { needed: 64, present: 63 });
    assert_eq!(decode(&[0], &[0; 64], 8, 8, 7), Error::Stride { stride: 7, cols: 8 });
    assert_eq!(decode(&[0], &[0; 64], 8, 8, 9), Error::SampleCount { needed: 71, present: 64 });
    let huge = usize::MAX;
    assert_eq!(decode(&[0], &[0; 64], huge, 8, 8), Error::TooLarge { rows: huge, stride: 8 });
    assert_eq!(decode(&[0], &[], huge, 0, 0), Error::ModeCount { needed: 0, present: 1 });
    assert_eq!(encode_region(&[], 0, 0, 0, tile, Choice::Among(&[])).unwrap_err(), Error::NoCandidates);
    assert_eq!(
        encode_region(&[0; 3], 2, 2, 2, tile, Choice::Fixed(Intra::Top)).unwrap_err(),
        Error::SampleCount { needed: 4, present: 3 }
    );
}
