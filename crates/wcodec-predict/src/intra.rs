//! Intra prediction of one tile, and the residuals it leaves.

use crate::error::{Error, Result};
use crate::tile::{Neighbours, TileSize};

/// How a tile is predicted. Two families:
///
/// - *From the border* (all but the last two): the prediction depends only on the samples beside the tile, so a decoder
///   reconstructs all samples of a tile at once. `T[x]` is the row above, `L[y]` the column on the left.
/// - *Running differences* (`LeftDelta`, `TopDelta`): each sample is predicted by the sample just before it, and
///   reconstructed by a prefix sum modulo 256 along its row or column. Smooth tables want these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Intra {
    /// Predicts 0: residuals are the samples.
    #[default]
    None = 0,
    /// `L[y]`: the left column copied across.
    Left = 1,
    /// `T[x]`: the top row copied down.
    Top = 2,
    /// `(L[y] + T[x] + 1) >> 1`.
    Avg = 3,
    /// Mean of a horizontal and a vertical interpolation, for a tile size of `n = 2^k`, width `w` and height `h`:
    ///
    /// `((n−1−x)·L[y] + (x+1)·T[w−1] + (n−1−y)·T[x] + (y+1)·L[h−1] + n) >> (k+1)`
    ///
    /// The integer form of HEVC (ITU-T H.265, 8.4.4.2.5), with the ends of the tile's own border in place of the
    /// samples above right and below left, as in AV1's smooth modes: those below left are not yet decoded. The weights
    /// of a ragged tile are those of a full one.
    Planar = 4,
    /// Difference from the sample on the left; the first column from `L`.
    LeftDelta = 5,
    /// Difference from the sample above; the first row from `T`.
    TopDelta = 6,
}

impl Intra {
    /// All modes, by code.
    pub const ALL: [Self; 7] =
        [Self::None, Self::Left, Self::Top, Self::Avg, Self::Planar, Self::LeftDelta, Self::TopDelta];

    /// The code stored in a file.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The mode with this code.
    ///
    /// # Errors
    /// [`Error::UnknownMode`] if there is none.
    pub fn from_code(code: u8) -> Result<Self> {
        Self::ALL.get(usize::from(code)).copied().ok_or(Error::UnknownMode { code })
    }

    /// Whether the prediction depends on the samples beside the tile alone.
    pub const fn is_from_border(self) -> bool {
        !matches!(self, Self::LeftDelta | Self::TopDelta)
    }
}

impl TryFrom<u8> for Intra {
    type Error = Error;

    fn try_from(code: u8) -> Result<Self> {
        Self::from_code(code)
    }
}

/// Writes the prediction of a tile of `out.len() / width` rows of `width` samples, row-major.
///
/// # Errors
/// [`Error::NotFromBorder`] for the running differences; [`Error::TileShape`] if `out` is empty, is not a number of whole
/// rows, or is larger than `size` in either direction.
///
/// ```
/// use wcodec_predict::{Intra, Neighbours, TileSize, predict};
/// let mut around = Neighbours { top: [0; 64], left: [0; 64], corner: 0 };
/// around.left[..4].copy_from_slice(&[1, 2, 3, 4]);
/// let mut tile = [0; 12]; // 4 rows × 3
/// predict(Intra::Left, &around, TileSize::new(4)?, 3, &mut tile)?;
/// assert_eq!(tile, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]);
/// # Ok::<(), wcodec_predict::Error>(())
/// ```
pub fn predict(mode: Intra, around: &Neighbours, size: TileSize, width: usize, out: &mut [u8]) -> Result<()> {
    let height = height_of(out.len(), width, size)?;
    let (top, left) = (&around.top[..width], &around.left[..height]);
    let rows = out.chunks_exact_mut(width).zip(left);
    match mode {
        Intra::None => out.fill(0),
        Intra::Left => rows.for_each(|(row, &l)| row.fill(l)),
        Intra::Top => rows.for_each(|(row, _)| row.copy_from_slice(top)),
        Intra::Avg => rows.for_each(|(row, &l)| {
            row.iter_mut().zip(top).for_each(|(out, &t)| *out = ((u16::from(l) + u16::from(t) + 1) >> 1) as u8);
        }),
        Intra::Planar => planar(top, left, size, out),
        Intra::LeftDelta | Intra::TopDelta => return Err(Error::NotFromBorder { mode }),
    }
    Ok(())
}

/// Replaces the samples of a tile by their residuals, `sample − prediction` modulo 256.
///
/// # Errors
/// [`Error::TileShape`] as for [`predict`].
pub fn subtract(mode: Intra, around: &Neighbours, size: TileSize, width: usize, tile: &mut [u8]) -> Result<()> {
    let height = height_of(tile.len(), width, size)?;
    match mode {
        Intra::None => {}
        Intra::LeftDelta => {
            for (row, &first) in tile.chunks_exact_mut(width).zip(&around.left[..height]) {
                let mut before = first;
                for sample in row {
                    before = std::mem::replace(sample, sample.wrapping_sub(before));
                }
            }
        }
        Intra::TopDelta => {
            let mut above = around.top;
            for row in tile.chunks_exact_mut(width) {
                for (sample, before) in row.iter_mut().zip(&mut above) {
                    *before = std::mem::replace(sample, sample.wrapping_sub(*before));
                }
            }
        }
        // Clearing the largest tile would take longer than predicting a usual one.
        _ if tile.len() <= 16 * 16 => return subtract_predicted::<{ 16 * 16 }>(mode, around, size, width, tile),
        _ => return subtract_predicted::<{ 64 * 64 }>(mode, around, size, width, tile),
    }
    Ok(())
}

/// Subtracts the prediction from a tile of at most `N` samples.
fn subtract_predicted<const N: usize>(
    mode: Intra,
    around: &Neighbours,
    size: TileSize,
    width: usize,
    tile: &mut [u8],
) -> Result<()> {
    let mut prediction = [0; N];
    let prediction = &mut prediction[..tile.len()];
    predict(mode, around, size, width, prediction)?;
    tile.iter_mut().zip(prediction).for_each(|(sample, p)| *sample = sample.wrapping_sub(*p));
    Ok(())
}

/// Replaces the residuals of a tile by its samples; undoes [`subtract`].
///
/// # Errors
/// [`Error::TileShape`] as for [`predict`].
pub fn reconstruct(mode: Intra, around: &Neighbours, size: TileSize, width: usize, tile: &mut [u8]) -> Result<()> {
    let height = height_of(tile.len(), width, size)?;
    match mode {
        Intra::LeftDelta => {
            for (row, &first) in tile.chunks_exact_mut(width).zip(&around.left[..height]) {
                let mut sum = first;
                for sample in row {
                    sum = sum.wrapping_add(*sample);
                    *sample = sum;
                }
            }
        }
        Intra::TopDelta => {
            let mut sums = around.top;
            for row in tile.chunks_exact_mut(width) {
                for (sample, sum) in row.iter_mut().zip(&mut sums) {
                    *sum = sum.wrapping_add(*sample);
                    *sample = *sum;
                }
            }
        }
        _ => {
            let mut prediction = [0; 64 * 64];
            let prediction = &mut prediction[..tile.len()];
            predict(mode, around, size, width, prediction)?;
            tile.iter_mut().zip(prediction).for_each(|(sample, p)| *sample = sample.wrapping_add(*p));
        }
    }
    Ok(())
}

/// See [`Intra::Planar`]. The sum is at most `255 · 2n + n`, so the result needs no clamp.
fn planar(top: &[u8], left: &[u8], size: TileSize, out: &mut [u8]) {
    let n = size.get() as u32;
    let (right, bottom) = (u32::from(top[top.len() - 1]), u32::from(left[left.len() - 1]));
    for (y, (row, &l)) in (0u32..).zip(out.chunks_exact_mut(top.len()).zip(left)) {
        for (x, (out, &t)) in (0u32..).zip(row.iter_mut().zip(top)) {
            let horizontal = (n - 1 - x) * u32::from(l) + (x + 1) * right;
            let vertical = (n - 1 - y) * u32::from(t) + (y + 1) * bottom;
            *out = ((horizontal + vertical + n) >> (size.log2() + 1)) as u8;
        }
    }
}

/// Rows of a tile of `len` samples, after checking its shape.
fn height_of(len: usize, width: usize, size: TileSize) -> Result<usize> {
    let n = size.get();
    let height = len.checked_div(width).unwrap_or(0);
    if height == 0 || width > n || height > n || height * width != len {
        return Err(Error::TileShape { height, width, size: n });
    }
    Ok(height)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn around() -> impl Strategy<Value = Neighbours> {
        (prop::array::uniform32(any::<u8>()), prop::array::uniform32(any::<u8>()), any::<u8>()).prop_map(|(t, l, c)| {
            let twice = |a: [u8; 32]| std::array::from_fn(|i| a[i % 32].wrapping_add((i / 32) as u8));
            Neighbours { top: twice(t), left: twice(l), corner: c }
        })
    }

    #[test]
    fn predictions_are_as_documented() {
        let mut around = Neighbours { top: [0; 64], left: [0; 64], corner: 99 };
        around.top[..4].copy_from_slice(&[10, 20, 30, 255]);
        around.left[..4].copy_from_slice(&[7, 1, 255, 4]);
        let size = TileSize::new(4).unwrap();
        let of = |mode| {
            let mut out = [77; 8];
            predict(mode, &around, size, 4, &mut out).unwrap();
            out
        };
        assert_eq!(of(Intra::None), [0; 8]);
        assert_eq!(of(Intra::Left), [7, 7, 7, 7, 1, 1, 1, 1]);
        assert_eq!(of(Intra::Top), [10, 20, 30, 255, 10, 20, 30, 255]);
        assert_eq!(of(Intra::Avg), [9, 14, 19, 131, 6, 11, 16, 128]);
        // Two rows of a tile of four: L[h-1] is 1. (3·7 + 255 + 3·10 + 1 + 4) >> 3 = 38, and so on.
        assert_eq!(of(Intra::Planar), [38, 73, 108, 223, 35, 69, 104, 192]);
    }

    #[test]
    fn planar_of_a_constant_border_is_constant() {
        for log2 in 2..7 {
            let size = TileSize::new(1 << log2).unwrap();
            for (height, width) in [(1, 1), (3, 2), (size.get(), size.get())] {
                let around = Neighbours { top: [255; 64], left: [255; 64], corner: 0 };
                let mut out = vec![0; height * width];
                predict(Intra::Planar, &around, size, width, &mut out).unwrap();
                assert!(out.iter().all(|&p| p == 255));
            }
        }
    }

    #[test]
    fn bad_shapes_and_modes_are_errors() {
        let around = Neighbours { top: [0; 64], left: [0; 64], corner: 0 };
        let size = TileSize::new(4).unwrap();
        for (len, width) in [(0, 4), (4, 0), (7, 4), (20, 4), (10, 5)] {
            for f in [predict, subtract, reconstruct] {
                let error = f(Intra::Top, &around, size, width, &mut vec![0; len]).unwrap_err();
                assert!(matches!(error, Error::TileShape { size: 4, .. }), "{len} {width}");
            }
        }
        let mode = Intra::TopDelta;
        assert_eq!(predict(mode, &around, size, 4, &mut [0; 16]), Err(Error::NotFromBorder { mode }));
        for code in 0..=255 {
            match Intra::from_code(code) {
                Ok(mode) => assert_eq!(mode.code(), code),
                Err(error) => {
                    assert_eq!(error, Error::UnknownMode { code });
                    assert!(code > 6);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn reconstruct_undoes_subtract(
            around in around(),
            seed: [u8; 32],
            log2 in 2u32..7,
            height in 1usize..=64,
            width in 1usize..=64,
        ) {
            let size = TileSize::new(1 << log2).unwrap();
            let (height, width) = (height.min(size.get()), width.min(size.get()));
            let tile: Vec<u8> = (0..height * width).map(|i| seed[i % 32].wrapping_mul(i as u8 | 1)).collect();
            for mode in Intra::ALL {
                let mut coded = tile.clone();
                subtract(mode, &around, size, width, &mut coded).unwrap();
                if mode.is_from_border() {
                    let mut sum = vec![0; tile.len()];
                    predict(mode, &around, size, width, &mut sum).unwrap();
                    sum.iter_mut().zip(&coded).for_each(|(p, r)| *p = p.wrapping_add(*r));
                    prop_assert_eq!(&sum, &tile);
                }
                reconstruct(mode, &around, size, width, &mut coded).unwrap();
                prop_assert_eq!(&coded, &tile);
            }
        }
    }
}
