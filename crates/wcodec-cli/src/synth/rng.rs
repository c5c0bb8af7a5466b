//! Seeded random numbers that stay the same from release to release.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014): a counter behind a
/// mixing function, so streams of neighbouring seeds have nothing in common.
pub(crate) struct Rng(u64);

impl Rng {
    /// The stream of a path such as (seed, tensor, block).
    pub(crate) fn new(path: &[u64]) -> Self {
        Self(path.iter().fold(0, |state, &part| mix(state ^ mix(part.wrapping_add(STEP)))))
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// Uniform in (0, 1]: its logarithm is finite.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Two independent values of the standard normal distribution (Box and Muller, 1958).
    pub(crate) fn normals(&mut self) -> [f64; 2] {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.unit()).sin_cos();
        [radius * cos, radius * sin]
    }
}

/// The golden ratio's fraction, odd.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_have_mean_0_and_variance_1() {
        let mut rng = Rng::new(&[1, 2, 3]);
        let values: Vec<f64> = (0..50_000).flat_map(|_| rng.normals()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }

    #[test]
    fn paths_are_told_apart() {
        let paths: [&[u64]; 6] = [&[0, 0], &[0, 1], &[1, 0], &[0], &[0, 0, 0], &[1, 1]];
        let firsts: std::collections::HashSet<u64> = paths.iter().map(|path| Rng::new(path).bits()).collect();
        assert_eq!(firsts.len(), paths.len());
    }
}
