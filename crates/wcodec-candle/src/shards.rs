//! A checkpoint of one archive or of several.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Error, Result};
use wcodec::{Archive, Tensor, TensorEntry};

/// The archives of a checkpoint: one `.wcodec` file, or all of a folder. Cheap to clone.
///
/// A tensor that occurs several times is the last one of its name, as in candle's `MmapedSafetensors`: shards are taken in the order
/// of their file names.
#[derive(Debug, Clone)]
pub struct Shards(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shards: Vec<(PathBuf, Arc<Archive>)>,
    /// By name of the tensor: place of the shard, number in its archive.
    routes: HashMap<String, (usize, usize)>,
    in_memory: bool,
}

impl Shards {
    /// Maps the archive at `path`, or every `.wcodec` file of that folder. Bytes are read when they are decoded, so a model on the fly
    /// streams from the disk, or from the page cache as long as memory lasts. The files must not change while they are open.
    ///
    /// # Errors
    /// candle's `Error` with the path, for a file that cannot be opened or is no archive, or a folder without one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(path.as_ref(), false)
    }

    /// Reads the archive at `path`, or every `.wcodec` file of that folder, into memory.
    ///
    /// # Errors
    /// As [`Shards::open`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(path.as_ref(), true)
    }

    /// A checkpoint of archives that are open already, with the names to use for them in errors.
    pub fn from_archives(archives: impl IntoIterator<Item = (PathBuf, Archive)>, in_memory: bool) -> Self {
        let shards: Vec<_> = archives.into_iter().map(|(path, archive)| (path, Arc::new(archive))).collect();
        let mut routes = HashMap::new();
        for (shard, (_, archive)) in shards.iter().enumerate() {
            routes.extend(archive.names().enumerate().map(|(index, name)| (name.to_owned(), (shard, index))));
        }
        Self(Arc::new(Inner { shards, routes, in_memory }))
    }

    fn new(path: &Path, in_memory: bool) -> Result<Self> {
        let open = |path: PathBuf| {
            let archive = if in_memory { Archive::read(&path) } else { Archive::open(&path) };
            Ok((path.clone(), archive.map_err(|error| Error::wrap(error).with_path(&path))?))
        };
        let archives = files(path)?.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        Ok(Self::from_archives(archives, in_memory))
    }

    /// Whether the archives' bytes are in memory, where nobody can change them any more.
    pub fn in_memory(&self) -> bool {
        self.0.in_memory
    }

    /// Bytes of the archives.
    pub fn byte_len(&self) -> u64 {
        self.0.shards.iter().map(|(_, archive)| archive.container().file_len()).sum()
    }

    /// What the archives' directories say of all tensors, shard by shard.
    pub fn entries(&self) -> impl Iterator<Item = &TensorEntry> {
        self.0.shards.iter().flat_map(|(_, archive)| archive.entries())
    }

    /// Names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.routes.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.routes.contains_key(name)
    }

    /// Dimensions of the tensor of that name, outermost first.
    pub fn shape_of(&self, name: &str) -> Option<&[u64]> {
        self.entry(name).map(|entry| entry.shape.as_slice())
    }

    /// Decoded bytes of the tensor of that name; 0 if there is none.
    pub(crate) fn byte_len_of(&self, name: &str) -> usize {
        self.entry(name).map_or(0, |entry| usize::try_from(entry.decoded_len).unwrap_or(usize::MAX))
    }

    /// The element type of the tensor of that name.
    #[cfg(feature = "cuda")]
    pub(crate) fn dtype_of(&self, name: &str) -> Option<wcodec::DtypeCode> {
        self.entry(name).map(|entry| entry.dtype)
    }

    fn entry(&self, name: &str) -> Option<&TensorEntry> {
        let &(shard, index) = self.0.routes.get(name)?;
        self.0.shards[shard].1.entries().get(index)
    }

    /// The tensor of that name, with its decoder prepared and a share in its archive.
    ///
    /// # Errors
    /// `CannotFindTensor`; candle's `Error` with the shard's path when the tensor's parameters are damaged.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'static>> {
        let Some(&(shard, index)) = self.0.routes.get(name) else {
            return Err(Error::CannotFindTensor { path: name.to_owned() }.bt());
        };
        self.0.shards[shard].1.shared_tensor_at(index).map_err(|error| self.blame(name, error))
    }

    /// What went wrong with the tensor `name`, as candle's error, with the path of its shard.
    pub(crate) fn blame(&self, name: &str, error: wcodec::Error) -> Error {
        let error = Error::wrap(error);
        match self.0.routes.get(name) {
            Some(&(shard, _)) => error.with_path(&self.0.shards[shard].0),
            None => error,
        }
    }
}

/// `path`, or the `.wcodec` files in it in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let items = std::fs::read_dir(path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let items = items.map_err(|error| Error::from(error).with_path(path))?;
    let mut files: Vec<PathBuf> = items.into_iter().map(|item| item.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "wcodec"));
    files.sort();
    if files.is_empty() {
        return Err(Error::msg("no .wcodec file in this folder").with_path(path));
    }
    Ok(files)
}
