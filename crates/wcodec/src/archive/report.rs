//! What an archive holds, and what each tensor takes.

use std::collections::{HashMap, HashSet};

use wcodec_container::TensorEntry;

use super::Archive;
use crate::error::{Error, Result};
use crate::mode::Mode;
use crate::report::{Report, TensorReport};
use crate::small::PooledParams;

impl Archive {
    /// What the archive holds, and what each tensor takes: shared payloads counted once, pooled tensors by their share of the blob.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a tensor of an unknown mode.
    pub fn report(&self) -> Result<Report> {
        let directory = self.reader.directory();
        let offset = self.reader.trailer().directory.offset;
        let mut report = Report {
            files: directory.files.len(),
            decoded_bytes: directory.files.iter().map(|f| f.len).sum(),
            archive_bytes: self.reader.file_len(),
            ..Report::default()
        };
        let mut payloads = HashSet::new();
        // Of every blob: decoded bytes of all its tensors; then those already told, and their share.
        let mut blobs: HashMap<u64, [u64; 3]> = HashMap::new();
        let blob_of = |entry: &TensorEntry| PooledParams::parse(&entry.params, &entry.name, offset).map(|p| p.blob);
        for entry in directory.tensors.iter().filter(|t| t.mode == Mode::Pooled.code()) {
            let all = &mut blobs.entry(blob_of(entry)?).or_default()[0];
            *all = all.saturating_add(entry.decoded_len);
        }
        for entry in &directory.tensors {
            let mode = Mode::from_code(entry.mode)
                .ok_or_else(|| Error::corrupt(&entry.name, offset, format!("unknown mode {}", entry.mode)))?;
            let stored_bytes = if mode == Mode::Pooled {
                let id = blob_of(entry)?;
                let len = usize::try_from(id).ok().and_then(|i| directory.pool.get(i)).map_or(0, Vec::len);
                let [all, done, told] = blobs.entry(id).or_default();
                *done = done.saturating_add(entry.decoded_len);
                let share = (len as u128 * u128::from(*done) / u128::from((*all).max(1))) as u64;
                share - std::mem::replace(told, share)
            } else if entry.payload.len == 0 || payloads.insert(entry.payload.offset) {
                entry.payload.len + entry.index.len
            } else {
                0
            };
            report.tensors.push(TensorReport {
                name: entry.name.clone(),
                dtype: entry.dtype,
                shape: entry.shape.clone(),
                mode,
                decoded_bytes: entry.decoded_len,
                stored_bytes,
            });
        }
        Ok(report)
    }
}
