//! A safetensors file of floats to one of codes and scales. Lossy.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use rayon::prelude::*;
use wcodec_container::DtypeCode;
use wcodec_quant::{Loss, Quantized, QuantizedType};

use super::numbers::Side;
use crate::checkpoint::{InputFile, header_of, metadata_of, open};
use crate::error::{Error, Result};
use crate::report::Progress;

/// What shares a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ScaleBlock {
    /// The whole tensor; the scale has the shape `[1]`.
    Tensor,
    /// A row (dimension 0, an output channel); `[rows, 1]`.
    #[default]
    Row,
    /// This many elements of a row; `[rows, groups]`.
    Group(usize),
}

/// How to quantise a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizeOptions {
    /// The codes.
    pub to: QuantizedType,
    /// What shares a scale.
    pub scales: ScaleBlock,
    /// Tensors whose names contain one of these stay as they are.
    pub skip: Vec<String>,
    /// Replace an existing target.
    pub overwrite: bool,
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        Self { to: QuantizedType::I8, scales: ScaleBlock::default(), skip: Vec::new(), overwrite: false }
    }
}

/// What became of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedTensor {
    /// Its name.
    pub name: String,
    /// Its type before.
    pub dtype: DtypeCode,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// What was lost; `None` for a tensor that stayed as it is.
    pub loss: Option<Loss>,
}

/// Decoded bytes quantised together, per thread.
const BATCH_BYTES: usize = 64 << 20;

/// Quantises the matrices of a safetensors file by absolute maximum (see [`wcodec_quant::quantize`]): tensors `X` of BF16, F16 or F32
/// with two dimensions or more become codes under the same name, and `X_scale` in F32 beside them. All others are copied.
///
/// This loses information: the result says of every tensor how much. The output appears only when it is complete.
///
/// # Errors
/// [`Error::Safetensors`] for a damaged input; [`Error::BadArgument`] for a folder, an empty group, a name `X_scale` that is taken, or weights that are not
/// finite;
/// [`Error::AlreadyExists`], [`Error::Io`].
pub fn quantize(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    options: &QuantizeOptions,
    progress: &dyn Progress,
) -> Result<Vec<QuantizedTensor>> {
    let (input, output) = (input.as_ref(), output.as_ref());
    if input.is_dir() {
        return Err(Error::BadArgument(format!("{}: quantise the files of a folder one by one", input.display())));
    }
    if options.scales == ScaleBlock::Group(0) {
        return Err(Error::BadArgument("a group has at least one element".into()));
    }
    let file = open(input)?.pop().ok_or_else(|| Error::BadArgument(format!("{}: no file", input.display())))?;
    if !options.overwrite && output.exists() {
        return Err(Error::AlreadyExists(output.to_owned()));
    }
    let layout = Layout::new(&file, input, options)?;
    let io = |source| Error::io(output, source);
    let folder = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut target = tempfile::Builder::new().prefix(".wcodec-").tempfile_in(folder).map_err(io)?;
    target.write_all(&layout.header).map_err(io)?;
    progress.start(file.tensors.iter().map(|tensor| tensor.bytes.len() as u64).sum());

    let mut told = Vec::with_capacity(file.tensors.len());
    let mut next = 0;
    while next < file.tensors.len() {
        let budget = BATCH_BYTES * rayon::current_num_threads();
        let mut bytes = 0;
        let fits = file.tensors[next..].iter().take_while(|tensor| {
            bytes += tensor.bytes.len();
            bytes <= budget
        });
        let numbers = next..next + fits.count().max(1);
        next = numbers.end;
        let made = numbers.clone().into_par_iter().map(|number| layout.make(&file, number, options));
        for (number, made) in numbers.zip(made.collect::<Result<Vec<_>>>()?) {
            let tensor = &file.tensors[number];
            let mut put = |at: u64, bytes: &[u8]| {
                target.seek(SeekFrom::Start(layout.header.len() as u64 + at)).map_err(io)?;
                target.write_all(bytes).map_err(io)
            };
            let at = layout.places[number];
            match &made {
                None => put(at.codes, file.tensor(number))?,
                Some(made) => {
                    put(at.codes, &made.codes)?;
                    put(at.scales, &made.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect::<Vec<_>>())?;
                }
            }
            progress.advance(tensor.bytes.len() as u64);
            told.push(QuantizedTensor {
                name: tensor.name.clone(),
                dtype: tensor.dtype,
                shape: tensor.shape.clone(),
                loss: made.map(|made| made.loss),
            });
        }
    }
    target.flush().map_err(io)?;
    readable_by_all(target.path(), input).map_err(io)?;
    let kept = if options.overwrite { target.persist(output) } else { target.persist_noclobber(output) };
    kept.map_err(|error| match error.error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::AlreadyExists(output.to_owned()),
        _ => Error::io(output, error.error),
    })?;
    Ok(told)
}

/// A temporary file is its owner's alone; the result has the rights of the input.
fn readable_by_all(target: &Path, like: &Path) -> std::io::Result<()> {
    let mut rights = fs::metadata(like)?.permissions();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        rights.set_mode(rights.mode() | 0o200);
    }
    #[cfg(not(unix))]
    rights.set_readonly(false);
    fs::set_permissions(target, rights)
}

/// The output's header, and where tensors of the input go.
struct Layout {
    header: Vec<u8>,
    places: Vec<Place>,
    quantised: Vec<bool>,
}

/// Offsets behind the header.
#[derive(Clone, Copy, Default)]
struct Place {
    codes: u64,
    scales: u64,
}

impl Layout {
    fn new(file: &InputFile<'_>, input: &Path, options: &QuantizeOptions) -> Result<Self> {
        let quantised: Vec<bool> = file
            .tensors
            .iter()
            .map(|tensor| {
                matches!(tensor.dtype, DtypeCode::BF16 | DtypeCode::F16 | DtypeCode::F32)
                    && tensor.shape.len() >= 2
                    && !tensor.bytes.is_empty()
                    && !options.skip.iter().any(|part| tensor.name.contains(part.as_str()))
            })
            .collect();
        // Of the output: name, type, shape; number in the input and whether these are its scales.
        let mut outs = Vec::new();
        for (number, tensor) in file.tensors.iter().enumerate() {
            let dtype = match options.to {
                _ if !quantised[number] => tensor.dtype,
                QuantizedType::I8 => DtypeCode::I8,
                QuantizedType::F8E4M3 => DtypeCode::F8_E4M3,
            };
            outs.push((tensor.name.clone(), dtype, tensor.shape.clone(), number, false));
            if quantised[number] {
                let name = format!("{}_scale", tensor.name);
                let shape = match options.scales {
                    ScaleBlock::Tensor => vec![1],
                    ScaleBlock::Row => vec![tensor.shape[0], 1],
                    ScaleBlock::Group(len) => vec![tensor.shape[0], columns(&tensor.shape).div_ceil(len as u64)],
                };
                outs.push((name, DtypeCode::F32, shape, number, true));
            }
        }
        let mut metadata: BTreeMap<String, String> = metadata_of(file, input)?;
        let to = match options.to {
            QuantizedType::I8 => "int8",
            QuantizedType::F8E4M3 => "fp8 e4m3",
        };
        let scales = match options.scales {
            ScaleBlock::Tensor => "tensor".to_owned(),
            ScaleBlock::Row => "row".to_owned(),
            ScaleBlock::Group(len) => format!("group of {len}"),
        };
        metadata.insert("quantization".into(), format!("lossy: {to}, absmax per {scales}"));
        let described: Vec<_> = outs.iter().map(|out| (out.0.as_str(), out.1, out.2.as_slice())).collect();
        let (header, offsets) = header_of(&described, &metadata)?;
        let mut places = vec![Place::default(); file.tensors.len()];
        for (out, offset) in outs.iter().zip(offsets) {
            let place = &mut places[out.3];
            *if out.4 { &mut place.scales } else { &mut place.codes } = offset;
        }
        Ok(Self { header, places, quantised })
    }

    /// The codes of a tensor; `None` where it stays.
    fn make(&self, file: &InputFile<'_>, number: usize, options: &QuantizeOptions) -> Result<Option<Quantized>> {
        let tensor = &file.tensors[number];
        if !self.quantised[number] {
            return Ok(None);
        }
        let (rows, cols) = (tensor.shape[0] as usize, columns(&tensor.shape) as usize);
        let block = match options.scales {
            ScaleBlock::Tensor => [rows, cols],
            ScaleBlock::Row => [1, cols],
            ScaleBlock::Group(len) => [1, len],
        };
        let side = Side {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            shape: vec![rows, cols],
            bytes: file.tensor(number).to_vec(),
        };
        let made = wcodec_quant::quantize(&side.floats()?, [rows, cols], options.to, block);
        made.map(Some).map_err(|error| Error::BadArgument(format!("tensor `{}`: {error}", tensor.name)))
    }
}

fn columns(shape: &[u64]) -> u64 {
    shape.iter().skip(1).product()
}
