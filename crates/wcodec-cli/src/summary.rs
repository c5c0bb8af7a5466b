//! Tables of what lies in an archive, for people and programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};
use wcodec::{Archive, Mode, Report};

use crate::units::size;

/// Sizes of a whole archive, by element type and mode.
pub(crate) struct Summary {
    files: usize,
    tensors: usize,
    decoded_bytes: u64,
    archive_bytes: u64,
    groups: BTreeMap<(String, String), Group>,
}

/// Tensors of one element type and mode.
#[derive(Default)]
struct Group {
    tensors: usize,
    decoded_bytes: u64,
    stored_bytes: u64,
}

impl Summary {
    /// The summary of what was done.
    pub(crate) fn of_report(report: &Report) -> Self {
        let mut summary = Self::new(report.files, report.decoded_bytes, report.archive_bytes);
        for tensor in &report.tensors {
            let key = (tensor.dtype.to_string(), tensor.mode.to_string());
            summary.add(key, tensor.decoded_bytes, tensor.stored_bytes);
        }
        summary
    }

    /// The summary of an archive, from its directory alone.
    pub(crate) fn of_archive(archive: &Archive) -> Self {
        let directory = archive.container().directory();
        let decoded_bytes = directory.files.iter().map(|f| f.len).sum();
        let mut summary = Self::new(directory.files.len(), decoded_bytes, archive.container().file_len());
        for (tensor, stored_bytes) in directory.tensors.iter().zip(stored_bytes(archive)) {
            summary.add((tensor.dtype.to_string(), mode_name(tensor.mode)), tensor.decoded_len, stored_bytes);
        }
        summary
    }

    fn new(files: usize, decoded_bytes: u64, archive_bytes: u64) -> Self {
        Self { files, tensors: 0, decoded_bytes, archive_bytes, groups: BTreeMap::new() }
    }

    fn add(&mut self, key: (String, String), decoded_bytes: u64, stored_bytes: u64) {
        let group = self.groups.entry(key).or_default();
        group.tensors += 1;
        group.decoded_bytes += decoded_bytes;
        group.stored_bytes += stored_bytes;
        self.tensors += 1;
    }

    /// Bytes of all files of the checkpoint.
    pub(crate) fn decoded_bytes(&self) -> u64 {
        self.decoded_bytes
    }

    /// A table with a line per group and the totals.
    pub(crate) fn table(&self) -> String {
        let mut text =
            format!("{:<10} {:<8} {:>7} {:>11} {:>11} {:>7}\n", "dtype", "mode", "tensors", "raw", "stored", "ratio");
        let mut line = |dtype: &str, mode: &str, tensors: &str, raw: u64, stored: u64| {
            let (raw_size, stored_size, ratio) = (size(raw), size(stored), ratio(raw, stored));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{dtype:<10} {mode:<8} {tensors:>7} {raw_size:>11} {stored_size:>11} {ratio:>7.4}");
        };
        let (mut raw, mut stored) = (0, 0);
        for ((dtype, mode), group) in &self.groups {
            line(dtype, mode, &group.tensors.to_string(), group.decoded_bytes, group.stored_bytes);
            raw += group.decoded_bytes;
            stored += group.stored_bytes;
        }
        // Headers and files that hold no tensors; on the other side these, the directory and padding.
        line("other", "", "", self.decoded_bytes.saturating_sub(raw), self.archive_bytes.saturating_sub(stored));
        line("total", "", &self.tensors.to_string(), self.decoded_bytes, self.archive_bytes);
        text
    }

    /// The same as JSON fields, for the object that a command prints.
    pub(crate) fn json(&self) -> Value {
        let groups: Vec<Value> = self
            .groups
            .iter()
            .map(|((dtype, mode), group)| {
                json!({
                    "dtype": dtype,
                    "mode": mode,
                    "tensors": group.tensors,
                    "decoded_bytes": group.decoded_bytes,
                    "stored_bytes": group.stored_bytes,
                    "ratio": ratio(group.decoded_bytes, group.stored_bytes),
                })
            })
            .collect();
        json!({
            "files": self.files,
            "tensors": self.tensors,
            "decoded_bytes": self.decoded_bytes,
            "archive_bytes": self.archive_bytes,
            "ratio": ratio(self.decoded_bytes, self.archive_bytes),
            "groups": groups,
        })
    }
}

/// Stored bytes of every tensor; 0 for one that shares another's payload.
pub(crate) fn stored_bytes(archive: &Archive) -> Vec<u64> {
    match archive.report() {
        Ok(report) => report.tensors.iter().map(|t| t.stored_bytes).collect(),
        // A mode that this version does not know can be inspected all the same.
        Err(_) => archive.container().directory().tensors.iter().map(|t| t.payload.len + t.index.len).collect(),
    }
}

/// The name of a mode by its number, known or not.
pub(crate) fn mode_name(code: u8) -> String {
    Mode::from_code(code).map_or_else(|| format!("unknown({code})"), |mode| mode.to_string())
}

/// Stored size over raw size; 1 for nothing.
pub(crate) fn ratio(raw: u64, stored: u64) -> f64 {
    if raw == 0 { 1.0 } else { stored as f64 / raw as f64 }
}

/// Joins the fields of two JSON objects.
pub(crate) fn join(mut first: Value, second: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut first, second) {
        fields.extend(more);
    }
    first
}
