//! Single files of an archive, without restoring the others.

use std::collections::BTreeMap;
use std::path::Path;

use wcodec_container::{Crc32, FileEntry, Segment};

use super::decompress::check_file;
use super::input::InputFile;
use super::memory::METADATA;
use crate::archive::Archive;
use crate::error::{Error, Result};

/// Longest header that a safetensors file may have, by that format's own reader.
const MAX_HEADER: u64 = 100_000_000;

impl Archive {
    /// The whole file `path` of the archive, in memory: a configuration, a tokenizer.
    ///
    /// # Errors
    /// [`Error::BadArgument`] when there is no such file or it is larger than memory; otherwise as [`crate::Tensor::decode_into`].
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.file(path)?;
        let mut bytes = Vec::new();
        for segment in &file.segments {
            match segment {
                Segment::Literal(blob) => bytes.extend_from_slice(&self.container().read_blob(blob)?),
                Segment::Tensor { index } => bytes.extend_from_slice(&self.tensor_at(*index as usize)?.decode()?),
            }
        }
        let mut crc = Crc32::new();
        crc.update(&bytes);
        check_file(file, crc.value())?;
        Ok(bytes)
    }

    /// The `__metadata__` of the safetensors file `path` of the archive; empty where it has none.
    ///
    /// # Errors
    /// [`Error::BadArgument`] when there is no such file; [`Error::Safetensors`] when it does not begin with a safetensors header.
    pub fn file_metadata(&self, path: &str) -> Result<BTreeMap<String, String>> {
        let file = self.file(path)?;
        let fault = |what: &str| Error::Safetensors { file: path.into(), offset: 0, what: what.to_owned() };
        let mut head = Vec::new();
        for segment in &file.segments {
            let Segment::Literal(blob) = segment else { break };
            head.extend_from_slice(&self.container().read_blob(blob)?);
            if head.len() as u64 > MAX_HEADER + 8 {
                break;
            }
        }
        let Some((len, rest)) = head.split_first_chunk::<8>() else { return Err(fault("no header")) };
        let len = u64::from_le_bytes(*len);
        let text = usize::try_from(len).ok().filter(|_| len <= MAX_HEADER).and_then(|len| rest.get(..len));
        let text = text.ok_or_else(|| fault("the header is cut short"))?;
        metadata_in(text).map_err(|e| fault(&format!("header: {e}")))
    }

    fn file(&self, path: &str) -> Result<&FileEntry> {
        let files = &self.container().directory().files;
        files
            .iter()
            .find(|f| f.path == path)
            .ok_or_else(|| Error::BadArgument(format!("no file `{path}` in the archive")))
    }
}

/// The `__metadata__` of an opened safetensors file.
pub(crate) fn metadata_of(file: &InputFile<'_>, path: &Path) -> Result<BTreeMap<String, String>> {
    let fault = |what: String| Error::Safetensors { file: path.to_owned(), offset: 0, what };
    // What was opened as such a file has a header.
    let len = file.literal(0..8).iter().rev().fold(0, |len, &byte| len << 8 | usize::from(byte));
    metadata_in(file.literal(8..8 + len)).map_err(|e| fault(format!("header: {e}")))
}

/// The `__metadata__` of a safetensors header.
fn metadata_in(header: &[u8]) -> serde_json::Result<BTreeMap<String, String>> {
    let header: serde_json::Value = serde_json::from_slice(header)?;
    let entries = header.get(METADATA).and_then(|metadata| metadata.as_object());
    let text_of = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    Ok(entries.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), text_of(value)?))).collect())
}
