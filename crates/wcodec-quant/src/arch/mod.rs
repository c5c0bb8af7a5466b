//! The formula over runs of 8-bit codes, one module per instruction set. Scalar code is the definition; vector code takes whole
//! vectors and leaves the rest of a run to it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::code::Code;
use crate::float::{FloatType, dequantize_one};

/// An instruction set to dequantise with. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Isa {
    /// The widest that the CPU has.
    #[default]
    Auto,
    /// AVX-512 with F, BW and VL. Where the CPU lacks it, as [`Isa::Auto`].
    Avx512,
    /// AVX2 with F16C. Where the CPU lacks it, [`Isa::Scalar`].
    Avx2,
    /// Portable code.
    Scalar,
}

/// A proven instruction set.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Backend {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

/// Scales and zero points of a run.
#[derive(Clone, Copy)]
pub(crate) enum Numbers<'a> {
    /// One scale and one zero point for all.
    One(f32, f32),
    /// One for each code, as many as codes.
    Each(&'a [f32], Option<&'a [f32]>),
}

/// A run of 8-bit codes.
#[derive(Clone, Copy)]
pub(crate) struct Span<'a> {
    /// One of the 8-bit codes.
    pub(crate) code: Code,
    pub(crate) codes: &'a [u8],
    pub(crate) numbers: Numbers<'a>,
    pub(crate) float: FloatType,
}

impl Backend {
    pub(crate) fn new(isa: Isa) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx512 = || if isa == Isa::Avx2 { None } else { avx512::Avx512::new().map(Self::Avx512) };
            match isa {
                Isa::Scalar => Self::Scalar,
                _ => avx512().or_else(|| avx2::Avx2::new().map(Self::Avx2)).unwrap_or(Self::Scalar),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = isa;
            Self::Scalar
        }
    }

    /// Dequantises a run. `out` holds as many elements as there are codes.
    pub(crate) fn run(self, span: Span<'_>, out: &mut [u8]) {
        let done = match self {
            Self::Scalar => 0,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.run(span, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.run(span, out),
        };
        scalar(span, done, out);
    }
}

fn scalar(span: Span<'_>, first: usize, out: &mut [u8]) {
    let bytes = span.float.bytes();
    for (i, out) in out.chunks_exact_mut(bytes).enumerate().skip(first) {
        let (scale, zero) = match span.numbers {
            Numbers::One(scale, zero) => (scale, zero),
            Numbers::Each(scales, zeros) => (scales[i], zeros.map_or(0.0, |z| z[i])),
        };
        let bits = dequantize_one(span.code, span.codes[i], zero, scale, span.float);
        out.copy_from_slice(&bits.to_le_bytes()[..bytes]);
    }
}
