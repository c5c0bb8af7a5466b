//! Format versions: all decisions that depend on one stand here as predicates.

use std::fmt;

/// The version of an archive's format.
///
/// A major version changes what a reader must know; a minor version only adds what older readers may ignore. Version 0
/// is the exception: it promises nothing, so each of its minor versions stands alone.
///
/// ```
/// use wcodec_container::FormatVersion;
/// assert!(FormatVersion::CURRENT.is_supported());
/// assert!(!FormatVersion::new(7, 0).is_supported());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FormatVersion(u32);

impl FormatVersion {
    /// The version that this crate writes.
    pub const CURRENT: Self = Self::new(0, 0);

    /// The version `major.minor`.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self((major as u32) << 16 | minor as u32)
    }

    /// The major version.
    pub const fn major(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The minor version.
    pub const fn minor(self) -> u16 {
        self.0 as u16
    }

    /// Whether later readers promise to read this version.
    pub const fn is_stable(self) -> bool {
        self.major() >= 1
    }

    /// Whether this reader can read the version.
    pub const fn is_supported(self) -> bool {
        if self.is_stable() { self.major() == Self::CURRENT.major() } else { self.0 == Self::CURRENT.0 }
    }

    /// Whether an archive of this version may hold optional fields that this reader does not know.
    pub const fn may_have_unknown_fields(self) -> bool {
        self.0 > Self::CURRENT.0
    }
}

impl fmt::Display for FormatVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}
