//! Decoders of full superblocks (64 lanes), one module per instruction set.
//!
//! ```text
//! DecodeTables ─ Backend (chosen once) ─┬─ avx512: 64 states in 4 vectors, words by vpexpandw; symbols by byte permutations
//!                                       │          of `registers`, or gathered where a set has too many entries
//!                                       ├─ avx2: 8 vectors of 8 states, words by a permute table; symbols one by one among `slots`
//!                                       └─ scalar: superblock/decode.rs, the definition
//! ```
//!
//! Every backend works in the same two steps: a superblock's symbols are decoded into *value words*, and these are then joined with
//! their raw bits, the last of which lie in the final states, summed and stored. A backend that meets damage gives up without a reason; the
//! scalar decoder then finds the same damage and names it.

/// Runs `body` for every superblock. Written out, not looped: states must stay in registers.
macro_rules! each {
    ($n:ident, $b:ident, $body:block) => {{
        const { assert!($n == 1 || $n == 2 || $n == 4) };
        {
            let $b = 0;
            $body
        }
        if $n >= 2 {
            let $b = 1;
            $body
        }
        if $n == 4 {
            let $b = 2;
            $body
            let $b = 3;
            $body
        }
    }};
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod carried;
mod costs;
pub(crate) mod encode;
#[cfg(target_arch = "x86_64")]
mod encode_avx2;
#[cfg(target_arch = "x86_64")]
mod encode_avx512;
mod encode_registers;
#[cfg(target_arch = "x86_64")]
mod fold;
mod histograms;
#[cfg(target_arch = "x86_64")]
mod histograms_avx2;
#[cfg(target_arch = "x86_64")]
mod histograms_avx512;
mod plan;
mod registers;
mod slots;
mod stats;

use crate::alias::AliasTable;
use crate::layout::HeadLayout;
use crate::superblock::{DecodeTables, Job, Target};
use crate::table_set::TableSet;

pub(crate) use plan::{Done, Full, Plan};
pub(crate) use registers::Registers;
pub(crate) use slots::Slots;

/// An instruction set to decode with.
///
/// ```
/// use wcodec_rans::Isa;
/// // Scalar code runs everywhere; the others where the CPU has them.
/// assert!(Isa::Scalar.is_available());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Isa {
    /// The widest that the CPU has, no wider than the environment variable `WCODEC_ISA` (`avx512`, `avx2` or `scalar`)
    /// says. The variable is read once per process; other values are as if it were unset.
    #[default]
    Auto,
    /// AVX-512 with BW, DQ, VL, CD, VBMI and VBMI2 (Intel from Ice Lake, AMD from Zen 4).
    Avx512,
    /// AVX2 with POPCNT.
    Avx2,
    /// Portable code.
    Scalar,
}

impl Isa {
    /// Whether this CPU has it.
    pub fn is_available(self) -> bool {
        Backend::new(self).is_some()
    }
}

/// A proven instruction set: the tokens inside exist only where the CPU has the features they stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Backend {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

impl Backend {
    /// The backend for `isa`, if the CPU has it.
    pub(crate) fn new(isa: Isa) -> Option<Self> {
        match isa {
            Isa::Auto => Some(Self::auto()),
            Isa::Scalar => Some(Self::Scalar),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::Avx2::new().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::Avx512::new().map(Self::Avx512),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }

    /// The widest backend within the cap of `WCODEC_ISA`.
    pub(crate) fn auto() -> Self {
        static AUTO: std::sync::OnceLock<Backend> = std::sync::OnceLock::new();
        *AUTO.get_or_init(|| {
            let widest_first: &[Isa] = match std::env::var("WCODEC_ISA").as_deref() {
                Ok("scalar") => &[],
                Ok("avx2") => &[Isa::Avx2],
                _ => &[Isa::Avx512, Isa::Avx2],
            };
            widest_first.iter().find_map(|&isa| Self::new(isa)).unwrap_or(Self::Scalar)
        })
    }

    /// The instruction set.
    pub(crate) fn isa(self) -> Isa {
        match self {
            Self::Scalar => Isa::Scalar,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => Isa::Avx512,
        }
    }

    /// Byte tables for this backend's registers, if it has a use for them and the set has few enough entries.
    pub(crate) fn registers(self, layout: HeadLayout, set: &TableSet, alias: &[AliasTable]) -> Option<Registers> {
        if self.isa() == Isa::Avx512 { Registers::new(layout, set, alias) } else { None }
    }

    /// Whether it sums what it decodes.
    pub(crate) fn sums(self) -> bool {
        self.isa() != Isa::Scalar
    }

    /// [`crate::crc::multiply`], in fewer steps where there are instructions for it.
    #[inline]
    pub(crate) fn multiply(self, a: u32, b: u32) -> u32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.multiply(a, b),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.multiply(a, b),
            Self::Scalar => crate::crc::multiply(a, b),
        }
    }

    /// [`crate::crc::power`], likewise.
    pub(crate) fn power(self, n: u64) -> u32 {
        crate::crc::squares(n).fold(crate::crc::ONE, |product, square| self.multiply(product, square))
    }

    /// How many superblocks decode fastest together: 1, 2 or 4.
    pub(crate) fn together(self) -> usize {
        match self.isa() {
            Isa::Avx512 => 4,
            Isa::Scalar => 1,
            _ => 2,
        }
    }

    /// Asks for what a decoder of `job` will read first, while others are decoded: behind the last superblock's bytes, no hardware
    /// prefetcher finds the beginnings of the next one's.
    #[inline]
    pub(crate) fn expect(self, job: &Job<'_>) {
        match self {
            Self::Scalar => {}
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.expect(job),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.expect(job),
        }
    }

    /// Decodes N full superblocks side by side. `None` when this backend has no vectors, or a superblock is damaged.
    #[inline]
    pub(crate) fn decode<const N: usize>(
        self,
        tables: &DecodeTables,
        plan: &Plan,
        blocks: &[Full<'_>; N],
        target: &mut Target<'_>,
    ) -> Option<[Done; N]> {
        match self {
            Self::Scalar => None,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.decode(tables, plan, blocks, target),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.decode(tables, plan, blocks, target),
        }
    }
}

#[cfg(test)]
mod tests;
