//! Encoder options by their names on the command line.

use pyo3::prelude::*;
use wcodec::{EncodeOptions, Level, ModeChoice};

use crate::errors;

/// Options as keyword arguments.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Options {
    level: String,
    mode: String,
    superblock_rows: usize,
    progressive: bool,
    overwrite: bool,
}

impl Options {
    /// The façade's options.
    ///
    /// # Errors
    /// `BadArgumentError` for an unknown name.
    pub(crate) fn encode(&self, py: Python<'_>) -> PyResult<EncodeOptions> {
        let level = match self.level.as_str() {
            "fast" => Level::Fast,
            "default" => Level::Default,
            "max" => Level::Max,
            other => return Err(errors::bad_argument(py, &format!("no level `{other}`: fast, default or max"))),
        };
        let mode = match self.mode.as_str() {
            "auto" => ModeChoice::Auto,
            "float" => ModeChoice::Float,
            "int" => ModeChoice::Int,
            "zstd" => ModeChoice::Zstd,
            "store" => ModeChoice::Store,
            other => {
                return Err(errors::bad_argument(py, &format!("no mode `{other}`: auto, float, int, zstd or store")));
            }
        };
        Ok(EncodeOptions {
            level,
            mode,
            superblock_rows: self.superblock_rows,
            progressive: self.progressive,
            overwrite: self.overwrite,
            ..EncodeOptions::default()
        })
    }
}
