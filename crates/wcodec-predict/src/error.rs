//! Errors, split by who is at fault.

use crate::intra::Intra;

/// Result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Corrupt data: a prediction mode that does not exist.
    #[error("corrupt data: unknown prediction mode {code}")]
    UnknownMode {
        /// The code found.
        code: u8,
    },
    /// Corrupt or truncated data: not one mode per tile.
    #[error("corrupt data: {present} prediction modes for {needed} tiles")]
    ModeCount {
        /// Tiles of the region.
        needed: usize,
        /// Modes given.
        present: usize,
    },
    /// Corrupt or truncated data: not one residual per sample.
    #[error("corrupt data: {present} residuals for {needed} samples")]
    ResidualCount {
        /// Samples of the region or tile.
        needed: usize,
        /// Residuals given.
        present: usize,
    },
    /// Bad argument: a tile size other than 4, 8, 16, 32 or 64.
    #[error("bad argument: tile size {size} is none of 4, 8, 16, 32, 64")]
    TileSize {
        /// The size asked for.
        size: u32,
    },
    /// Bad argument: a tile with a side of zero or beyond the tile size.
    #[error("bad argument: a tile of {height} x {width} samples is empty or beyond the tile size {size}")]
    TileShape {
        /// Rows of the tile.
        height: usize,
        /// Columns of the tile.
        width: usize,
        /// The nominal side.
        size: usize,
    },
    /// Bad argument: rows overlap.
    #[error("bad argument: stride {stride} is less than the width {cols}")]
    Stride {
        /// The distance of rows.
        stride: usize,
        /// The samples of a row.
        cols: usize,
    },
    /// Bad argument: a slice of samples is too short for its shape.
    #[error("bad argument: {needed} samples are needed, {present} are present")]
    SampleCount {
        /// Samples needed.
        needed: usize,
        /// Samples given.
        present: usize,
    },
    /// Bad argument: the number of samples does not fit in `usize`.
    #[error("bad argument: {rows} rows {stride} samples apart overflow the address space")]
    TooLarge {
        /// Number of rows.
        rows: usize,
        /// The distance of rows.
        stride: usize,
    },
    /// Bad argument: a mode whose prediction needs the samples inside the tile.
    #[error("bad argument: {mode:?} does not predict from the border alone")]
    NotFromBorder {
        /// The mode asked for.
        mode: Intra,
    },
    /// Bad argument: no mode to choose from.
    #[error("bad argument: no prediction mode to choose from")]
    NoCandidates,
    /// Bad argument: a number of contexts outside `1..=16`.
    #[error("bad argument: {contexts} contexts, 1 to 16 are possible")]
    ContextCount {
        /// Contexts asked for.
        contexts: u8,
    },
}
