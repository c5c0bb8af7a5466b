//! Byte ranges of the archive file.

use crate::{ContainerError, Result};

/// Chunks start at multiples of this many bytes, relative to the start of the file: a cache line and an AVX-512 vector,
/// and more than the GPU's widest load needs.
pub const CHUNK_ALIGN: u64 = 64;

/// A range of the archive file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl Extent {
    /// Nothing, nowhere.
    pub const EMPTY: Self = Self { offset: 0, len: 0 };

    /// Whether the extent has no bytes.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The first byte behind the extent, `None` if that is no `u64`.
    pub const fn end(self) -> Option<u64> {
        self.offset.checked_add(self.len)
    }

    /// The smallest extent from the start of this one to the end of `last`.
    ///
    /// # Errors
    /// `BadArgument` if `last` ends before this extent starts.
    pub fn through(self, last: Self) -> Result<Self> {
        let len = last.end().and_then(|end| end.checked_sub(self.offset));
        let len = len.ok_or_else(|| ContainerError::argument(format!("extent {last:?} lies before {self:?}")))?;
        Ok(Self { offset: self.offset, len })
    }
}

/// `offset` rounded up to a multiple of [`CHUNK_ALIGN`], `None` if that is no `u64`.
///
/// ```
/// use wcodec_container::align_up;
/// assert_eq!(align_up(65), Some(128));
/// assert_eq!(align_up(u64::MAX), None);
/// ```
pub const fn align_up(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(CHUNK_ALIGN)
}
