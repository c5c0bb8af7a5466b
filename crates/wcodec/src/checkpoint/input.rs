//! Reading a checkpoint: which files there are, and where their tensors lie.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use safetensors::SafeTensors;
use wcodec_container::{DtypeCode, MappedFile};

use crate::error::{Error, Result};

/// A file of the checkpoint.
pub(crate) struct InputFile<'a> {
    /// Its name in the archive, `/`-separated.
    pub(crate) name: String,
    content: Content<'a>,
    /// Its tensors in the order of their bytes; empty for other files.
    pub(crate) tensors: Vec<InputTensor>,
}

/// Where a file's bytes are.
enum Content<'a> {
    Mapped(MappedFile),
    /// A safetensors file that nobody has written: the header, and behind it every tensor where its owner keeps it.
    Parts {
        header: Vec<u8>,
        /// In the order of `InputFile::tensors`.
        tensors: Vec<&'a [u8]>,
    },
}

/// A tensor of a safetensors file.
pub(crate) struct InputTensor {
    pub(crate) name: String,
    pub(crate) dtype: DtypeCode,
    pub(crate) shape: Vec<u64>,
    /// Bytes of the file.
    pub(crate) bytes: Range<usize>,
}

/// Opens a safetensors file, or everything in a folder.
pub(crate) fn open(input: &Path) -> Result<Vec<InputFile<'static>>> {
    let kind = fs::metadata(input).map_err(|e| Error::io(input, e))?;
    if kind.is_dir() {
        let mut names = Vec::new();
        walk(input, "", &mut names)?;
        names.sort();
        if names.is_empty() {
            return Err(Error::BadArgument(format!("{}: the folder has no files", input.display())));
        }
        check_indexes(input, &names)?;
        names.into_iter().map(|name| open_file(&input.join(&name), name)).collect()
    } else {
        let name = input.file_name().and_then(|n| n.to_str()).map(str::to_owned);
        let name = name.ok_or_else(|| Error::BadArgument(format!("{}: the file name is no UTF-8", input.display())))?;
        if !is_safetensors(&name) {
            return Err(Error::BadArgument(format!("{}: not a .safetensors file or a folder", input.display())));
        }
        Ok(vec![open_file(input, name)?])
    }
}

fn is_safetensors(name: &str) -> bool {
    name.ends_with(".safetensors")
}

fn walk(folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<()> {
    for item in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let item = item.map_err(|e| Error::io(folder, e))?;
        let path = item.path();
        let name = item.file_name();
        let name = name
            .to_str()
            .ok_or_else(|| Error::BadArgument(format!("{}: the file name is no UTF-8", path.display())))?;
        let name = format!("{prefix}{name}");
        // Follows links: hub caches link every file to a blob elsewhere. A link to a folder could be a loop.
        let kind = fs::metadata(&path).map_err(|e| Error::io(&path, e))?;
        if kind.is_file() {
            names.push(name);
        } else if kind.is_dir() && !item.file_type().map_err(|e| Error::io(&path, e))?.is_symlink() {
            walk(&path, &format!("{name}/"), names)?;
        } else {
            return Err(Error::BadArgument(format!("{}: neither a file nor a folder", path.display())));
        }
    }
    Ok(())
}

/// Every shard that an index file names must be there.
fn check_indexes(folder: &Path, names: &[String]) -> Result<()> {
    for index in names.iter().filter(|n| n.ends_with(".safetensors.index.json")) {
        let path = folder.join(index);
        let text = fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let json: serde_json::Value = serde_json::from_slice(&text).map_err(|e| Error::Safetensors {
            file: path.clone(),
            offset: 0,
            what: format!("index: {e}"),
        })?;
        let Some(map) = json.get("weight_map").and_then(|m| m.as_object()) else { continue };
        let parent = index.rfind('/').map_or("", |i| &index[..=i]);
        let shards: BTreeSet<&str> = map.values().filter_map(|v| v.as_str()).collect();
        for shard in shards {
            if !names.contains(&format!("{parent}{shard}")) {
                return Err(Error::MissingShard { index: path, shard: shard.to_owned() });
            }
        }
    }
    Ok(())
}

fn open_file(path: &Path, name: String) -> Result<InputFile<'static>> {
    wcodec_container::validate_path(&name).map_err(|e| Error::BadArgument(format!("{}: {e}", path.display())))?;
    let map = MappedFile::open(path)?;
    let tensors = if is_safetensors(&name) { parse(path, &map)? } else { Vec::new() };
    Ok(InputFile { name, content: Content::Mapped(map), tensors })
}

impl<'a> InputFile<'a> {
    /// The file `name` that would have this header and then these tensors, with the bytes in `data`.
    pub(crate) fn of_parts(name: String, header: Vec<u8>, tensors: Vec<InputTensor>, data: Vec<&'a [u8]>) -> Self {
        Self { name, content: Content::Parts { header, tensors: data }, tensors }
    }

    /// Bytes of the file.
    pub(crate) fn len(&self) -> usize {
        match &self.content {
            Content::Mapped(map) => map.len(),
            Content::Parts { header, .. } => self.tensors.last().map_or(header.len(), |t| t.bytes.end),
        }
    }

    /// The bytes of tensor number `number`.
    pub(crate) fn tensor(&self, number: usize) -> &[u8] {
        match &self.content {
            Content::Mapped(map) => &map[self.tensors[number].bytes.clone()],
            Content::Parts { tensors, .. } => tensors[number],
        }
    }

    /// Bytes of the file that belong to no tensor.
    pub(crate) fn literal(&self, range: Range<usize>) -> &[u8] {
        match &self.content {
            Content::Mapped(map) => &map[range],
            // Between and behind the tensors there is nothing.
            Content::Parts { header, .. } => header.get(range).unwrap_or_default(),
        }
    }
}

/// The tensors of a safetensors file, in the order of their bytes.
fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<InputTensor>> {
    let fault = |offset: u64, what: String| Error::Safetensors { file: path.to_owned(), offset, what };
    let (header_len, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| fault(0, e.to_string()))?;
    let start = 8 + header_len;
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let range = start + info.data_offsets.0..start + info.data_offsets.1;
        if bytes.len() < range.end {
            return Err(fault(range.start as u64, format!("tensor `{name}` ends behind the end of the file")));
        }
        let dtype = format!("{:?}", info.dtype);
        let dtype = DtypeCode::from_name(&info.dtype.to_string())
            .or_else(|| DtypeCode::from_name(&dtype))
            .unwrap_or(DtypeCode::UNKNOWN);
        tensors.push(InputTensor { name, dtype, shape: info.shape.iter().map(|&d| d as u64).collect(), bytes: range });
    }
    tensors.sort_by(|a, b| (a.bytes.start, a.bytes.end, &a.name).cmp(&(b.bytes.start, b.bytes.end, &b.name)));
    for pair in tensors.windows(2) {
        if pair[0].bytes.end > pair[1].bytes.start {
            let what = format!("tensors `{}` and `{}` overlap", pair[0].name, pair[1].name);
            return Err(fault(pair[1].bytes.start as u64, what));
        }
    }
    Ok(tensors)
}
