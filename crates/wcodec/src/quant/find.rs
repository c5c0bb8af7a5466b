//! Which tensors make up a quantised one, and how they fit together.

use wcodec_container::DtypeCode;
use wcodec_quant::{Code, FloatType, Order, Scheme};

use super::numbers::Side;
use crate::archive::{Archive, Tensor};
use crate::error::{Error, Result};

/// How to dequantise a tensor. The default finds everything by name and gives BF16.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DequantizeOptions {
    /// The output's type; `None`: BF16.
    pub float: Option<FloatType>,
    /// What the codes are, where type and name do not tell: packed 4-bit codes in U8.
    pub code: Option<Code>,
    /// The scales' tensor.
    pub scales: Option<String>,
    /// The zero points' tensor.
    pub zeros: Option<String>,
    /// Rows and columns that share a scale, where the shape of the scales does not tell.
    pub block: Option<[usize; 2]>,
    /// Zero points of GPTQ are as they are stored, not one larger: its second format.
    pub zeros_as_stored: bool,
}

impl Archive {
    /// The scheme of a quantised tensor: its codes' kind, scales and zero points, found by the names of [`crate::quant`] or named in
    /// `options`.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`], [`Error::BadArgument`] where no scales are found or parts do not fit each other, [`Error::Quant`]; else as
    /// [`Tensor::decode`].
    pub fn scheme(&self, name: &str, options: &DequantizeOptions) -> Result<Scheme> {
        let tensor = self.tensor(name)?;
        let parts = Parts { archive: self, tensor: &tensor, name, options };
        if let Some(stem) = name.strip_suffix("qweight") {
            parts.words(stem)
        } else if let Some(stem) = name.strip_suffix("weight_packed") {
            parts.packed(stem)
        } else {
            parts.plain()
        }
    }
}

struct Parts<'a> {
    archive: &'a Archive,
    tensor: &'a Tensor<'a>,
    name: &'a str,
    options: &'a DequantizeOptions,
}

impl Parts<'_> {
    /// Codes of a byte each, or what the caller says.
    fn plain(&self) -> Result<Scheme> {
        let code = match (self.options.code, self.tensor.dtype()) {
            (Some(code), _) => code,
            (None, DtypeCode::I8) => Code::I8,
            (None, DtypeCode::U8) => Code::U8,
            (None, DtypeCode::F8_E4M3) => Code::F8E4M3,
            (None, DtypeCode::F8_E5M2) => Code::F8E5M2,
            (None, other) => return Err(self.fault(format!("codes of type {other}"))),
        };
        let bits = self.tensor.dtype().bits().unwrap_or(8) as usize;
        let (rows, cols) = (size(self.tensor.row_count()), size(self.tensor.col_count()));
        // An element of the tensor may hold several codes.
        let each = (bits / code.bits()).max(1);
        let shape = match code.order() {
            Some(Order::RowWords) => [rows.saturating_mul(each), cols],
            _ => [rows, cols.saturating_mul(each)],
        };
        let name = self.name;
        let stem = name.strip_suffix("weight").unwrap_or(name);
        let scales = self.side(
            self.options.scales.as_deref(),
            &[
                format!("{name}_scale"),
                format!("{name}_scale_inv"),
                format!("{name}_scales"),
                format!("{name}.scale"),
                format!("{stem}scales"),
                format!("{stem}scale"),
            ],
        )?;
        let Some(scales) = scales else { return Err(self.no_scales()) };
        let zeros = self.side(
            self.options.zeros.as_deref(),
            &[
                format!("{name}_zero_point"),
                format!("{name}_zero_points"),
                format!("{name}.zero_point"),
                format!("{stem}zero_point"),
                format!("{stem}zeros"),
            ],
        )?;
        let scheme = Scheme::new(shape, code, self.block(shape, &scales)?, scales.floats()?)?;
        match zeros {
            Some(zeros) => Ok(scheme.with_zeros(&zeros.integers()?)?),
            None => Ok(scheme),
        }
    }

    /// `weight_packed`: nibbles along a row, 8 larger than the codes.
    fn packed(&self, stem: &str) -> Result<Scheme> {
        let shape = self.need(None, format!("{stem}weight_shape"))?;
        let [rows, cols] = match shape.integers()?[..] {
            [rows, cols] if rows >= 0 && cols >= 0 => [rows as usize, cols as usize],
            _ => return Err(shape.fault("not two dimensions".into())),
        };
        let scales = self.need(self.options.scales.as_deref(), format!("{stem}weight_scale"))?;
        let zeros = self.side(self.options.zeros.as_deref(), &[format!("{stem}weight_zero_point")])?;
        let block = self.block([rows, cols], &scales)?;
        let scheme = Scheme::new([rows, cols], Code::U4(Order::Pairs), block, scales.floats()?)?;
        let across = scheme.scale_cols();
        let count = scheme.scales().len();
        let zeros = match zeros {
            None => vec![8; count],
            Some(zeros) => {
                let down = count / across.max(1);
                let words = zeros.packed([down.div_ceil(8), across])?;
                let nibble = |i: usize| words[i / across / 8 * across + i % across] >> (4 * (i / across % 8)) & 15;
                (0..count).map(|i| nibble(i) as i32).collect()
            }
        };
        Ok(scheme.with_zeros(&zeros)?)
    }

    /// `qweight`: words down the rows (GPTQ) or along a row (AWQ).
    fn words(&self, stem: &str) -> Result<Scheme> {
        let scales = self.need(self.options.scales.as_deref(), format!("{stem}scales"))?;
        let zeros = self.need(self.options.zeros.as_deref(), format!("{stem}qzeros"))?;
        let &[groups, cols] = &scales.shape[..] else { return Err(scales.fault("not groups × columns".into())) };
        let (down, across) = (size(self.tensor.row_count()), size(self.tensor.col_count()));
        let (code, rows) = if across == cols {
            (Code::U4(Order::RowWords), down.saturating_mul(8))
        } else if across.saturating_mul(8) == cols {
            (Code::U4(Order::Interleaved), down)
        } else {
            return Err(self.fault(format!("{across} words of a row for {cols} scales")));
        };
        if groups == 0 || rows.div_ceil(rows.div_ceil(groups).max(1)) != groups {
            return Err(scales.fault(format!("{groups} groups of {rows} rows")));
        }
        let block = self.options.block.unwrap_or([rows.div_ceil(groups), 1]);
        let mut scheme = Scheme::new([rows, cols], code, block, scales.floats()?)?;
        let words = zeros.packed([groups, cols / 8])?;
        let gptq = code == Code::U4(Order::RowWords);
        let zero = |i: usize| {
            let (word, col) = (words[i / 8], i % 8);
            let nibble = if gptq { col } else { col / 2 + 4 * (col % 2) };
            let stored = (word >> (4 * nibble) & 15) as i32;
            if gptq && !self.options.zeros_as_stored { (stored + 1) & 15 } else { stored }
        };
        if cols % 8 != 0 {
            return Err(zeros.fault(format!("{cols} columns are no whole words")));
        }
        scheme = scheme.with_zeros(&(0..groups * cols).map(zero).collect::<Vec<_>>())?;
        if let Some(of_rows) = self.side(None, &[format!("{stem}g_idx")])?.filter(|_| gptq) {
            let of_rows = of_rows.integers()?;
            // A negative group is out of range as a large one is.
            scheme = scheme.with_row_groups(of_rows.into_iter().map(|group| group as u32).collect())?;
        }
        Ok(scheme)
    }

    /// Rows and columns that share a scale.
    fn block(&self, [rows, cols]: [usize; 2], scales: &Side) -> Result<[usize; 2]> {
        if let Some(block) = self.options.block {
            return Ok(block);
        }
        let count = scales.shape.iter().product::<usize>();
        let (down, across) = match scales.shape[..] {
            _ if count == 1 => (1, 1),
            [n] if n == rows => (n, 1),
            [n] if n == cols => (1, n),
            [down, across] => (down, across),
            _ => (0, 0),
        };
        match (part(rows, down), part(cols, across)) {
            (Some(block_rows), Some(block_cols)) => Ok([block_rows, block_cols]),
            _ => Err(scales.fault(format!("scales of shape {:?} for {rows} × {cols} codes", scales.shape))),
        }
    }

    /// The tensor that the caller names, or the first of `names` that is there.
    fn side(&self, named: Option<&str>, names: &[String]) -> Result<Option<Side>> {
        let found = match named {
            Some(name) => Some(name),
            None => names.iter().map(String::as_str).find(|name| self.archive.position(name).is_ok()),
        };
        let Some(name) = found else { return Ok(None) };
        let tensor = self.archive.tensor(name)?;
        Ok(Some(Side {
            name: name.to_owned(),
            dtype: tensor.dtype(),
            shape: tensor.shape().iter().map(|&dim| size(dim)).collect(),
            bytes: tensor.decode()?,
        }))
    }

    fn need(&self, named: Option<&str>, name: String) -> Result<Side> {
        self.side(named, std::slice::from_ref(&name))?.ok_or(Error::NoSuchTensor(name))
    }

    fn no_scales(&self) -> Error {
        self.fault(format!("no scales such as `{}_scale`", self.name))
    }

    fn fault(&self, what: String) -> Error {
        Error::BadArgument(format!("tensor `{}`: {what}", self.name))
    }
}

/// The size of `count` equal parts of `whole`, of which the last may be shorter: the exact quotient, else the power of two that gives as
/// many.
fn part(whole: usize, count: usize) -> Option<usize> {
    if count == 0 {
        return (whole == 0).then_some(1);
    }
    if whole.is_multiple_of(count) {
        return Some((whole / count).max(1));
    }
    let power = whole.div_ceil(count).next_power_of_two();
    (whole.div_ceil(power) == count).then_some(power)
}

/// A dimension; what does not fit into memory is refused later.
fn size(dim: u64) -> usize {
    usize::try_from(dim).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn blocks_follow_from_counts() {
        assert_eq!(part(4096, 32), Some(128));
        assert_eq!(part(300, 3), Some(100));
        assert_eq!(part(1536 + 64, 13), Some(128));
        assert_eq!(part(7, 1), Some(7));
        assert_eq!(part(7, 7), Some(1));
        assert_eq!(part(5, 9), None);
        assert_eq!((part(0, 0), part(3, 0)), (Some(1), None));
    }
}
