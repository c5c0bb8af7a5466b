//! What a caller chooses.

/// How hard the encoder searches. All levels decode at the same speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Level {
    /// Scale classes from moments, one candidate.
    Fast,
    /// Classes refined by code length.
    #[default]
    Default,
    /// Every candidate.
    Max,
}

/// Which tool chains the encoder may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ModeChoice {
    /// Whatever is smallest.
    #[default]
    Auto,
    /// Lanes, where the dtype has them.
    Float,
    /// Prediction, transform and bitplanes, for 8-bit tensors.
    Int,
    /// Zstd frames.
    Zstd,
    /// As they are.
    Store,
}

/// Options of encoding.
///
/// ```
/// use wcodec::{EncodeOptions, Level};
/// let options = EncodeOptions { level: Level::Max, ..EncodeOptions::default() };
/// assert_eq!(options.superblock_rows, 64);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EncodeOptions {
    /// How hard to search.
    pub level: Level,
    /// Which tool chains may be used. A tensor that the chosen chain cannot code smaller than raw is stored.
    pub mode: ModeChoice,
    /// Rows of a superblock, 16 to 512 in steps of 16. Lower ones decode with more parallelism on a GPU.
    pub superblock_rows: usize,
    /// Bytes of a Zstd frame before compression.
    pub zstd_frame: usize,
    /// Zstd level, 1 to 22; 0 lets the encoder's level choose.
    pub zstd_level: i32,
    /// Code 8-bit tensors so that their first bitplanes decode to a coarser tensor ([`crate::Tensor::decode_planes`]), even
    /// where another mode is smaller.
    pub progressive: bool,
    /// Replace an existing target.
    pub overwrite: bool,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            level: Level::Default,
            mode: ModeChoice::Auto,
            superblock_rows: 64,
            zstd_frame: 64 << 10,
            zstd_level: 0,
            progressive: false,
            overwrite: false,
        }
    }
}
