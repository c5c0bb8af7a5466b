//! CRC-32 (IEEE 802.3, reflected polynomial 0xEDB88320, as in zip and PNG).

/// The CRC-32 of `bytes`.
///
/// ```
/// assert_eq!(wcodec_container::crc32(b"123456789"), 0xCBF4_3926);
/// ```
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The CRC-32 of a concatenation, from the CRC-32 of its two parts and the length in bytes of the second. Takes time
/// logarithmic in `second_len`, so that chunks can be summed in parallel.
///
/// ```
/// use wcodec_container::{crc32, crc32_combine};
/// assert_eq!(crc32_combine(crc32(b"1234"), crc32(b"56789"), 5), crc32(b"123456789"));
/// ```
pub fn crc32_combine(first: u32, second: u32, second_len: u64) -> u32 {
    let mut sum = crc32fast::Hasher::new_with_initial(first);
    sum.combine(&crc32fast::Hasher::new_with_initial_len(second, second_len));
    sum.finalize()
}

/// A CRC-32 built piece by piece.
///
/// ```
/// use wcodec_container::{Crc32, crc32};
/// let mut sum = Crc32::new();
/// sum.update(b"1234");
/// sum.combine(crc32(b"56789"), 5);
/// assert_eq!((sum.value(), sum.len()), (0xCBF4_3926, 9));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Crc32 {
    hasher: crc32fast::Hasher,
    len: u64,
}

impl Crc32 {
    /// The sum of no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
    }

    /// Appends `len` bytes whose CRC-32 is `crc`.
    pub fn combine(&mut self, crc: u32, len: u64) {
        self.hasher.combine(&crc32fast::Hasher::new_with_initial_len(crc, len));
        self.len += len;
    }

    /// The sum so far.
    pub fn value(&self) -> u32 {
        self.hasher.clone().finalize()
    }

    /// The number of bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no byte came yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
