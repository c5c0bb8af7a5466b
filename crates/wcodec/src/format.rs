//! What the codec knows of element types: where the bits that have structure are.

use wcodec_container::DtypeCode;
use wcodec_rans::HeadLayout;

/// How the elements of a dtype are coded in lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ElementFormat {
    /// Bytes of an element.
    pub(crate) bytes: usize,
    /// Bits of the head: the top 16 bits, or all 8.
    pub(crate) head_bits: u8,
    /// Whether the top bit is a sign that goes raw.
    pub(crate) sign: bool,
    /// Coded-field starts to choose from, finest (most coded bits) first.
    pub(crate) shifts: &'static [u8],
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Magnitude bits that order like a logarithm; an octave is 2^this many of them.
    Float {
        octave_bits: u32,
    },
    Signed,
    Unsigned,
}

impl ElementFormat {
    /// The lanes form of a dtype, `None` for those without (wide integers, complex, sub-byte).
    pub(crate) fn of(dtype: DtypeCode) -> Option<Self> {
        let float = |bytes, head_bits, octave_bits, shifts| Self {
            bytes,
            head_bits,
            sign: true,
            shifts,
            kind: Kind::Float { octave_bits },
        };
        let int = |kind| Self { bytes: 1, head_bits: 8, sign: false, shifts: &[0, 1, 2, 3], kind };
        Some(match dtype {
            DtypeCode::BF16 => float(2, 16, 7, &[4, 5, 6, 7]),
            DtypeCode::F16 => float(2, 16, 10, &[6, 7, 8, 9, 10]),
            DtypeCode::F32 => float(4, 16, 7, &[4, 5, 6, 7]),
            DtypeCode::F64 => float(8, 16, 4, &[3, 4]),
            DtypeCode::F8_E4M3 => float(1, 8, 3, &[0, 1, 2]),
            DtypeCode::F8_E5M2 => float(1, 8, 2, &[0, 1]),
            DtypeCode::I8 => int(Kind::Signed),
            DtypeCode::U8 | DtypeCode::F8_E8M0 => int(Kind::Unsigned),
            _ => return None,
        })
    }

    /// The coded-field starts of [`ElementFormat::shifts`] that put at most `mantissa_bits` beside the exponent of a wide float.
    pub(crate) fn shifts_with(&self, mantissa_bits: u8) -> impl Iterator<Item = u8> + use<> {
        let (head_bits, coarsest) = (self.head_bits, self.shifts.iter().copied().max().unwrap_or(0));
        self.shifts.iter().copied().filter(move |&s| head_bits == 8 || coarsest - s <= mantissa_bits)
    }

    /// The split with the coded field from bit `shift` on.
    pub(crate) fn layout(&self, shift: u8) -> HeadLayout {
        HeadLayout::new(self.head_bits, shift, self.sign).expect("shifts of the table above are valid")
    }

    /// For floats: an octave of magnitude is 2^this many steps of a head.
    pub(crate) fn octave_bits(&self) -> Option<u32> {
        match self.kind {
            Kind::Float { octave_bits } => Some(octave_bits),
            Kind::Signed | Kind::Unsigned => None,
        }
    }

    /// log2 of the magnitude of every head, in 1/256 octave, from an arbitrary origin. For statistics.
    pub(crate) fn log_magnitudes(&self) -> Vec<u16> {
        (0..1u32 << self.head_bits)
            .map(|head| match self.kind {
                Kind::Float { octave_bits } => {
                    (((head & ((1 << (self.head_bits - 1)) - 1)) << 8) >> octave_bits).min(65535) as u16
                }
                Kind::Signed => log_of((head as u8 as i8).unsigned_abs()),
                Kind::Unsigned => log_of((head as u8).abs_diff(128)),
            })
            .collect()
    }

    /// A class of 0..64 per head that keeps heads of like probability together, given the largest log magnitude.
    pub(crate) fn coarse(&self, largest: u16) -> Vec<u8> {
        match self.kind {
            // Half octaves below the largest, 32 octaves of them.
            Kind::Float { .. } => self
                .log_magnitudes()
                .iter()
                .map(|&l| 63 - (u32::from(largest.saturating_sub(l)) / 128).min(63) as u8)
                .collect(),
            Kind::Signed | Kind::Unsigned => (0..=255u8).map(|h| h >> 2).collect(),
        }
    }
}

fn log_of(magnitude: u8) -> u16 {
    // 256·log2(2m + 1), piecewise linear between powers of two.
    let x = 2 * u32::from(magnitude) + 1;
    let n = x.ilog2();
    ((n << 8) + (((x - (1 << n)) << 8) >> n)) as u16
}
