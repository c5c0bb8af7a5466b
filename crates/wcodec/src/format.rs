//! What the codec knows of element types: where the bits that have structure are.

use wcodec_container::DtypeCode;
use wcodec_rans::HeadLayout;

/// Least coded-field start of a head with bits left out: a coded field has 12 bits at most.
const LEAST_SHIFT: u8 = 3;

/// How the elements of a dtype are coded in lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ElementFormat {
    /// Bytes of an element.
    pub(crate) bytes: usize,
    /// Bits of the head: the top 16 bits, or all 8.
    pub(crate) head_bits: u8,
    /// Whether the top bit is a sign that goes raw.
    pub(crate) sign: bool,
    /// Coded-field starts, finest (most coded bits) first.
    shifts: &'static [u8],
    /// Low bits of heads that are left out, see [`crate::lanes::squeeze`].
    pub(crate) dropped: u8,
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
            dropped: 0,
            kind: Kind::Float { octave_bits },
        };
        let int = |kind| Self { bytes: 1, head_bits: 8, sign: false, shifts: &[0, 1, 2, 3], dropped: 0, kind };
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

    /// Coded-field starts to choose from, finest (most coded bits) first, that put at most `mantissa_bits` beside the exponent of a wide
    /// float.
    pub(crate) fn shifts_with(&self, mantissa_bits: u8) -> impl Iterator<Item = u8> + use<> {
        let Self { head_bits, dropped, .. } = *self;
        let coarsest = self.coarsest();
        let known = self.shifts.iter().copied().filter(move |&s| head_bits == 8 || coarsest - s <= mantissa_bits);
        known.filter(move |&s| dropped == 0 || s >= dropped + LEAST_SHIFT).map(move |s| s - dropped)
    }

    /// The first of all coded-field starts.
    pub(crate) fn finest(&self) -> u8 {
        self.shifts_with(u8::MAX).next().unwrap_or(self.coarsest() - self.dropped)
    }

    fn coarsest(&self) -> u8 {
        self.shifts.iter().copied().max().unwrap_or(0)
    }

    /// How many low bits of heads can be left out.
    pub(crate) fn most_dropped(&self) -> u8 {
        if self.head_bits == 8 { 0 } else { self.coarsest().saturating_sub(LEAST_SHIFT) }
    }

    /// The format of elements without the lowest `bits` bits of their heads.
    pub(crate) fn without(self, bits: u8) -> Self {
        Self { dropped: bits.min(self.most_dropped()), ..self }
    }

    /// The split with the coded field from bit `shift` on.
    pub(crate) fn layout(&self, shift: u8) -> HeadLayout {
        HeadLayout::new(self.head_bits, shift, self.sign).expect("shifts of the table above are valid")
    }

    /// For floats: an octave of magnitude is 2^this many steps of a head.
    pub(crate) fn octave_bits(&self) -> Option<u32> {
        match self.kind {
            Kind::Float { octave_bits } => Some(octave_bits - u32::from(self.dropped)),
            Kind::Signed | Kind::Unsigned => None,
        }
    }

    /// How the scale of elements shows in their heads.
    pub(crate) fn scale(&self) -> Scale {
        match self.kind {
            Kind::Float { octave_bits } => {
                Scale::Octaves { mask: (1 << (self.head_bits - 1)) - 1, bits: octave_bits - u32::from(self.dropped) }
            }
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
