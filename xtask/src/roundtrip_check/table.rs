//! What was run, as a table: a row per dtype and mode.

use std::collections::BTreeMap;
use std::fmt;

use wcodec::Report;

use super::checks::Setting;
use super::generate::Source;

/// Counts per (dtype, mode) over all files and levels.
#[derive(Default)]
pub(crate) struct Table {
    rows: BTreeMap<(String, String), Row>,
}

#[derive(Default)]
struct Row {
    tensors: u64,
    elements: u64,
    bytes_in: u64,
    bytes_out: u64,
    chains: BTreeMap<&'static str, u64>,
    failed: u64,
}

impl Table {
    /// Counts the tensors of a file that was compressed.
    pub(crate) fn add(&mut self, source: &Source, setting: Setting, report: &Report) {
        for (tensor, told) in source.tensors.iter().zip(&report.tensors) {
            let row = self.row(tensor.dtype.to_string(), setting);
            row.tensors += 1;
            row.elements += tensor.shape.iter().product::<usize>() as u64;
            row.bytes_in += told.decoded_bytes;
            row.bytes_out += told.stored_bytes;
            *row.chains.entry(told.mode.name()).or_default() += 1;
        }
    }

    /// Counts a fault.
    pub(crate) fn fail(&mut self, dtype: String, setting: Setting) {
        self.row(dtype, setting).failed += 1;
    }

    fn row(&mut self, dtype: String, setting: Setting) -> &mut Row {
        self.rows.entry((dtype, format!("{:?}", setting.mode).to_lowercase())).or_default()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12} {:<6} {:>8} {:>12} {:>13} {:>13}  {:<12} coded as",
            "dtype", "mode", "tensors", "elements", "bytes in", "bytes out", "result"
        )?;
        for ((dtype, mode), row) in &self.rows {
            let Row { tensors, elements, bytes_in, bytes_out, chains, failed } = row;
            let result = if *failed == 0 { "exact".to_owned() } else { format!("{failed} FAILED") };
            let chains: Vec<String> = chains.iter().map(|(chain, n)| format!("{chain} {n}")).collect();
            writeln!(
                f,
                "{dtype:<12} {mode:<6} {tensors:>8} {elements:>12} {bytes_in:>13} {bytes_out:>13}  {result:<12} {}",
                chains.join(", ")
            )?;
        }
        Ok(())
    }
}
