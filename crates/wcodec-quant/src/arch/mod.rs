//! The formula over runs of 8-bit codes, one module per instruction set. Scalar code is the definition; vector code takes whole
//! vectors and leaves the rest of a run to it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod vector;

use crate::code::Code;
use crate::float::FloatType;

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
        if done < span.codes.len() {
            scalar(span, done, out);
        }
    }
}

/// The codes from `first` on. One loop for every code and output type, so that none decides per element.
fn scalar(span: Span<'_>, first: usize, out: &mut [u8]) {
    match span.code {
        Code::I8 | Code::I4(_) => each(span, first, out, |q| Code::I8.value(q)),
        Code::U8 | Code::U4(_) => each(span, first, out, |q| Code::U8.value(q)),
        Code::F8E4M3 => each(span, first, out, |q| Code::F8E4M3.value(q)),
        Code::F8E5M2 => each(span, first, out, |q| Code::F8E5M2.value(q)),
    }
}

#[inline(always)]
fn each(span: Span<'_>, first: usize, out: &mut [u8], value: impl Fn(u8) -> f32) {
    match span.float {
        FloatType::BF16 => numbers(span, first, out, value, |x| (FloatType::BF16.bits(x) as u16).to_le_bytes()),
        FloatType::F16 => numbers(span, first, out, value, |x| (FloatType::F16.bits(x) as u16).to_le_bytes()),
        FloatType::F32 => numbers(span, first, out, value, |x| FloatType::F32.bits(x).to_le_bytes()),
    }
}

#[inline(always)]
fn numbers<const N: usize>(
    span: Span<'_>,
    first: usize,
    out: &mut [u8],
    value: impl Fn(u8) -> f32,
    bytes: impl Fn(f32) -> [u8; N],
) {
    let elements = out.as_chunks_mut::<N>().0.iter_mut().zip(span.codes).skip(first);
    match span.numbers {
        // A code of FP8 keeps the sign of its zero.
        Numbers::One(scale, _) if !span.code.is_integer() => {
            elements.for_each(|(out, &q)| *out = bytes(value(q) * scale));
        }
        Numbers::One(scale, zero) => elements.for_each(|(out, &q)| *out = bytes((value(q) - zero) * scale)),
        Numbers::Each(scales, Some(zeros)) => {
            let numbers = scales.iter().zip(zeros).skip(first);
            elements.zip(numbers).for_each(|((out, &q), (scale, zero))| *out = bytes((value(q) - zero) * scale));
        }
        // Without zero points nothing is subtracted: an integer's 0 is +0 as it is.
        Numbers::Each(scales, None) => {
            elements.zip(scales.iter().skip(first)).for_each(|((out, &q), scale)| *out = bytes(value(q) * scale));
        }
    }
}
