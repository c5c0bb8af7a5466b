//! The tool chain of a tensor, as the number that stands in the directory.

/// The tool chain that a tensor went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// The bytes as they are.
    Store,
    /// Independent Zstd frames.
    Zstd,
    /// Byte planes through the single-state rANS coder.
    Plain,
    /// Scale contexts and 64-lane rANS.
    Lanes,
    /// Intra prediction, reversible transform, bitplanes, rANS.
    Integer,
    /// Coded together with other small tensors, in the directory.
    Pooled,
}

impl Mode {
    /// All modes, by number.
    pub const ALL: [Self; 6] = [Self::Store, Self::Zstd, Self::Plain, Self::Lanes, Self::Integer, Self::Pooled];

    /// The number in the directory.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The mode of a number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The name that the CLI prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Zstd => "zstd",
            Self::Plain => "plain",
            Self::Lanes => "lanes",
            Self::Integer => "integer",
            Self::Pooled => "pooled",
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
