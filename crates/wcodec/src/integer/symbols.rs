//! The bytes that a superblock codes, and how they are laid out in rows of lanes.

use std::ops::Range;

use wcodec_rans::LANES;
use wcodec_rans::superblock::{MAX_ROWS, Shape};
use wcodec_transform::fold::MAX_MAGNITUDE_BITS;

/// Coefficients in a row of 64 bytes of a bitplane.
pub(crate) const ROW_COEFFICIENTS: usize = 8 * LANES;
/// Rows of residuals that share a class.
const RESIDUAL_RUN: usize = 4;
/// Rows of a bitplane that share a class.
const PLANE_RUN: usize = 2;

/// What the coded bytes of a superblock are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SymbolForm {
    /// The residuals, at the places of their samples.
    Residuals,
    /// Bitplanes of the coefficients: the sign plane, then magnitudes from the most significant bit down.
    Bitplanes {
        /// Bits of the largest magnitude; there is one plane more, for the sign.
        magnitude_bits: u32,
    },
}

impl SymbolForm {
    /// The byte in the side information: 0 for residuals, else the number of planes.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Residuals => 0,
            Self::Bitplanes { magnitude_bits } => 1 + magnitude_bits as u8,
        }
    }

    /// Number of planes, 0 for residuals.
    pub(crate) fn planes(self) -> u32 {
        u32::from(self.code())
    }

    /// The form of a byte. Whether its planes fit is for [`SymbolRows::new`] to say.
    pub(crate) fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Residuals,
            planes => Self::Bitplanes { magnitude_bits: u32::from(planes) - 1 },
        }
    }
}

/// The coded bytes of a superblock as rows of lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SymbolRows {
    /// Rows and columns of symbols.
    pub(crate) shape: Shape,
    /// Rows of one plane; all rows for residuals.
    pub(crate) plane_rows: usize,
    run: usize,
}

impl SymbolRows {
    /// The rows of a superblock of `block` samples, `None` where its planes would take more rows than the coder has, or magnitudes
    /// more bits than there are.
    pub(crate) fn new(form: SymbolForm, block: Shape) -> Option<Self> {
        match form {
            SymbolForm::Residuals => Some(Self { shape: block, plane_rows: block.rows(), run: RESIDUAL_RUN }),
            SymbolForm::Bitplanes { magnitude_bits } => {
                let plane_rows = block.elements().div_ceil(ROW_COEFFICIENTS);
                let rows = plane_rows * (magnitude_bits as usize + 1);
                let fits = magnitude_bits <= MAX_MAGNITUDE_BITS && rows <= MAX_ROWS;
                let shape = fits.then(|| Shape::new(rows, LANES).ok())??;
                Some(Self { shape, plane_rows, run: PLANE_RUN })
            }
        }
    }

    /// Ranges of rows that share a class, in order. No range crosses a plane.
    pub(crate) fn runs(self) -> impl Iterator<Item = Range<usize>> {
        let Self { shape, plane_rows, run } = self;
        (0..shape.rows()).step_by(plane_rows).flat_map(move |first| {
            let end = first + plane_rows;
            (first..end).step_by(run).map(move |row| row..(row + run).min(end))
        })
    }

    /// Number of [`SymbolRows::runs`].
    pub(crate) fn run_count(self) -> usize {
        self.shape.rows() / self.plane_rows * self.plane_rows.div_ceil(self.run)
    }

    /// The class of every row, from one class per run.
    pub(crate) fn row_classes(self, classes: &[u8], rows: &mut Vec<u8>) {
        rows.clear();
        for (run, &class) in self.runs().zip(classes) {
            rows.resize(run.end, class);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_every_row_once_and_stay_in_their_plane() {
        for (rows, cols, bits) in
            [(256, 64, 0), (256, 64, 7), (256, 64, 15), (512, 64, 7), (1, 1, 30), (37, 40, 9), (512, 3, 4)]
        {
            let block = Shape::new(rows, cols).unwrap();
            for form in [SymbolForm::Residuals, SymbolForm::Bitplanes { magnitude_bits: bits }] {
                assert_eq!(SymbolForm::from_code(form.code()), form);
                let symbols = SymbolRows::new(form, block).unwrap();
                let mut next = 0;
                for run in symbols.runs() {
                    assert_eq!(run.start, next);
                    assert_eq!(run.start / symbols.plane_rows, (run.end - 1) / symbols.plane_rows);
                    next = run.end;
                }
                assert_eq!(next, symbols.shape.rows());
                assert_eq!(symbols.runs().count(), symbols.run_count());
            }
        }
        let full = Shape::new(256, 64).unwrap();
        assert_eq!(SymbolRows::new(SymbolForm::Bitplanes { magnitude_bits: 16 }, full), None);
        let tiny = Shape::new(1, 1).unwrap();
        assert_eq!(SymbolRows::new(SymbolForm::Bitplanes { magnitude_bits: 32 }, tiny), None);
    }
}
