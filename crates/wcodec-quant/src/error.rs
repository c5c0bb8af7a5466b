//! What can be wrong with codes, scales and zero points that belong together.

/// Why something cannot be dequantised or quantised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// An array has another length than the shape asks for.
    #[error("{what}: {found} instead of {expected}")]
    Length {
        /// The array and its unit.
        what: &'static str,
        /// What the shape asks for.
        expected: usize,
        /// What is there.
        found: usize,
    },
    /// A dimension does not fit the order of the codes or the groups.
    #[error("{what} is {value}, which is no multiple of {multiple}")]
    Multiple {
        /// The dimension.
        what: &'static str,
        /// Its value.
        value: usize,
        /// What it must be a multiple of.
        multiple: usize,
    },
    /// A zero point or a row's group is out of range.
    #[error("{what} {index} is {value}, beyond {limit}")]
    Range {
        /// The array.
        what: &'static str,
        /// Which of them.
        index: usize,
        /// Its value.
        value: i64,
        /// The greatest possible magnitude.
        limit: i64,
    },
    /// The parts do not go together.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A weight that is to be quantised is infinite or no number.
    #[error("element {index} is {value}, which no code stands for")]
    NotFinite {
        /// Its number, row by row.
        index: usize,
        /// Its value as text.
        value: String,
    },
}
