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

    /// How the scale of elements shows in their heads.
    pub(crate) fn scale(&self) -> Scale {
        match self.kind {
            Kind::Float { octave_bits } => Scale::Octaves { mask: (1 << (self.head_bits - 1)) - 1, bits: octave_bits },
            Kind::Signed => Scale::Distance { middle: 0 },
            Kind::Unsigned => Scale::Distance { middle: 128 },
        }
    }
}

/// See [`ElementFormat::scale`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// The bits of `mask` are about a logarithm, of 2^`bits` to the octave.
    Octaves { mask: u16, bits: u32 },
    /// The distance from a middle value, 0 of signed bytes, 128 of unsigned ones.
    Distance { middle: u8 },
}
