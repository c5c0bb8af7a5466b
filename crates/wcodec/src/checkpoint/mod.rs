//! Whole checkpoints: a safetensors file, or a folder of shards and whatever lies beside them.

mod compress;
mod decompress;
#[cfg(feature = "cuda")]
mod device;
mod files;
mod input;
mod memory;

pub use compress::{TensorData, compress, compress_on, compress_tensors, compress_tensors_to_vec};
pub use decompress::{decompress, decompress_on, verify, verify_on};
pub(crate) use files::metadata_of;
pub(crate) use input::{InputFile, open};
pub(crate) use memory::header_of;

/// Metadata key that says what the archive was made from.
pub(crate) const KIND: &str = "kind";
/// [`KIND`] of a single file.
pub(crate) const KIND_FILE: &str = "file";
/// [`KIND`] of a folder.
pub(crate) const KIND_FOLDER: &str = "folder";
