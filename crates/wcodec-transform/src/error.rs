//! Errors, split by who is at fault.

/// Result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Corrupt data: a transform code that no transform has.
    #[error("corrupt data: unknown transform code {code}")]
    UnknownTransform {
        /// The code found.
        code: u8,
    },
    /// Truncated data: the bytes given are fewer than the planes asked for need.
    #[error("truncated data: bitplanes need {needed} bytes, {present} are present")]
    Truncated {
        /// Bytes that the planes need.
        needed: usize,
        /// Bytes that were given.
        present: usize,
    },
    /// Bad argument: more planes than the integers have bits, or a first-k above the number of planes.
    #[error("bad argument: {planes} planes asked for, at most {max} are possible")]
    TooManyPlanes {
        /// Planes asked for.
        planes: u32,
        /// The most that is possible here.
        max: u32,
    },
    /// Bad argument: a value has bits above the planes it should be split into.
    #[error("bad argument: value {index} does not fit in {planes} planes")]
    ValueTooLarge {
        /// Index of the first such value.
        index: usize,
        /// The number of planes.
        planes: u32,
    },
    /// Bad argument: the output slice is not as long as the number of elements.
    #[error("bad argument: output has room for {present} elements, {needed} are to be written")]
    OutputLength {
        /// Elements to be written.
        needed: usize,
        /// Elements the output holds.
        present: usize,
    },
    /// Bad argument: the byte length of so many planes of so many elements does not fit in `usize`.
    #[error("bad argument: {planes} planes of {elements} elements overflow the address space")]
    TooLarge {
        /// Number of elements.
        elements: usize,
        /// Number of planes.
        planes: u32,
    },
}
