//! Whether a general-purpose compressor has a chance on a tensor: a look at a few windows, much cheaper than a trial.

/// Bytes whose repetition counts.
const WORD: usize = 8;
/// Places of the table of words seen.
const PLACES: usize = 1 << 12;

/// A look at some windows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    /// Share of elements at which eight bytes stand that stood before in the window, in 1/1024.
    repeats: u32,
    /// Bits of an element by the frequencies of the bytes in each of its places, in each window by itself.
    bits: f64,
}

impl Probe {
    /// Looks at `windows` windows of `window` bytes, evenly spread over a tensor of elements of `element` bytes.
    pub(crate) fn of(data: &[u8], element: usize, windows: usize, window: usize) -> Self {
        let window = window.min(data.len()) / element * element;
        let (mut seen, mut repeated, mut bits, mut elements) = (0u32, 0u32, 0.0, 0usize);
        let mut places = vec![0u16; PLACES];
        for i in 0..windows {
            let start = (data.len() - window) * (2 * i + 1) / (2 * windows) / element * element;
            let bytes = &data[start..start + window];
            places.fill(0);
            let word = |at: usize| u64::from_le_bytes(bytes[at * element..][..WORD].try_into().expect("a word"));
            for at in 0..(bytes.len() + element).saturating_sub(WORD) / element {
                let now = word(at);
                let place = &mut places[(now.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize];
                // No branches: nobody can foretell them. A place that nothing has taken points at the first word, which is another one:
                // if it were this one, it would have taken the place.
                let before = usize::from(std::mem::replace(place, at as u16));
                repeated += u32::from(word(before) == now) & u32::from(at > 0);
                seen += 1;
            }
            for plane in 0..element {
                bits += entropy(&bytes[plane..], element);
            }
            elements += window / element;
        }
        Self {
            repeats: (u64::from(repeated) * 1024 / u64::from(seen.max(1))) as u32,
            bits: bits / elements.max(1) as f64,
        }
    }

    /// Whether neither repeats nor the frequencies of bytes can bring elements below `bits` each. Zstd's Huffman codes and the headers of its
    /// blocks take a few hundredths more than these entropies.
    pub(crate) fn is_noise_above(&self, bits: f64) -> bool {
        self.repeats < 16 && self.bits * 1.02 >= bits
    }
}

/// Bits of every `step`-th byte by their frequencies.
fn entropy(bytes: &[u8], step: usize) -> f64 {
    let mut counts = [[0u32; 256]; 2];
    let [a, b] = &mut counts;
    for pair in bytes.chunks(2 * step) {
        a[usize::from(pair[0])] += 1;
        if let Some(&other) = pair.get(step) {
            b[usize::from(other)] += 1;
        }
    }
    let total = bytes.len().div_ceil(step) as f64;
    let used = a.iter().zip(&*b).map(|(a, b)| f64::from(a + b)).filter(|&n| n > 0.0);
    used.map(|n| n * (total / n).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_repeats_and_few_values_are_told_apart() {
        let mut x = 1u64;
        let noise: Vec<u8> = (0..60_000)
            .map(|_| {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (x >> 56) as u8
            })
            .collect();
        let probe = Probe::of(&noise, 2, 3, 16 << 10);
        assert!(probe.is_noise_above(15.0) && !probe.is_noise_above(17.0));
        let repeats: Vec<u8> = noise[..3000].iter().cycle().take(60_000).copied().collect();
        assert!(!Probe::of(&repeats, 2, 3, 16 << 10).is_noise_above(1.0));
        let few: Vec<u8> = noise.iter().map(|b| b & 3).collect();
        assert!(Probe::of(&few, 1, 3, 16 << 10).bits < 2.01);
        assert!(Probe::of(&[1, 2], 2, 2, 16 << 10).repeats == 0);
    }
}
