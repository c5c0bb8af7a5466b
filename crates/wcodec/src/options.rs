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

/// Steps of the encoder that can be left out, to measure what each gains. All are on by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuning {
    /// Most contexts K of a tensor, 1 to 16.
    pub max_contexts: usize,
    /// Most mantissa bits of a wide float that are coded with its exponent.
    pub max_mantissa_bits: u8,
    /// Classes by code length, not by moments alone.
    pub refine_classes: bool,
    /// Raw bits carried in the states.
    pub pack_states: bool,
    /// Low bits stored only as far as a row uses them.
    pub trim_low_bits: bool,
    /// Heads coded without low bits that are 0 in the whole tensor.
    pub drop_idle_bits: bool,
    /// Tables shared by contexts whole octaves apart.
    pub map_contexts: bool,
    /// Small tensors coded together.
    pub pool_small: bool,
    /// Tables of an earlier tensor where its own would cost more than they gain.
    pub share_tables: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            max_contexts: 16,
            max_mantissa_bits: 4,
            refine_classes: true,
            pack_states: true,
            trim_low_bits: true,
            drop_idle_bits: true,
            map_contexts: true,
            pool_small: true,
            share_tables: true,
        }
    }
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
    /// Bytes of a Zstd frame before compression, 4 KiB to 1 MiB.
    pub zstd_frame: usize,
    /// Zstd level, 1 to 22; 0 lets the encoder's level choose.
    pub zstd_level: i32,
    /// Code 8-bit tensors so that their first bitplanes decode to a coarser tensor ([`crate::Tensor::decode_planes`]), even
    /// where another mode is smaller.
    pub progressive: bool,
    /// Replace an existing target.
    pub overwrite: bool,
    /// Steps left out.
    pub tuning: Tuning,
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
            tuning: Tuning::default(),
        }
    }
}
