//! What can go wrong, split by who is at fault.

/// An error of this crate. Encoders return only [`RansError::BadArgument`]; decoders return the others for bytes
/// that no encoder wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RansError {
    /// The bytes end before the data does.
    #[error("{what}: truncated at byte {offset}")]
    Truncated {
        /// The part being read.
        what: &'static str,
        /// Byte offset inside that part.
        offset: usize,
    },
    /// The bytes contradict the format.
    #[error("{what}: corrupt at byte {offset}")]
    Corrupt {
        /// The part being read, and what is wrong with it.
        what: &'static str,
        /// Byte offset inside that part.
        offset: usize,
    },
    /// The caller's argument is out of range.
    #[error("bad argument: {0}")]
    BadArgument(&'static str),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, RansError>;

pub(crate) fn truncated<T>(what: &'static str, offset: usize) -> Result<T> {
    Err(RansError::Truncated { what, offset })
}

pub(crate) fn corrupt<T>(what: &'static str, offset: usize) -> Result<T> {
    Err(RansError::Corrupt { what, offset })
}
