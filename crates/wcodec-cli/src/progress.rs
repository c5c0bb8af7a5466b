//! The progress bar.

use indicatif::{ProgressBar, ProgressStyle};

use crate::interrupt;

/// A bar on stderr, in bytes. Invisible where stderr is no terminal.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar that says what is going on; `quiet` hides it.
    pub(crate) fn new(what: &'static str, quiet: bool) -> Self {
        if quiet {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            .expect("a valid template");
        Self(ProgressBar::new(0).with_style(style).with_prefix(what))
    }
}

impl wcodec::Progress for Bar {
    fn start(&self, bytes: u64) {
        self.0.set_length(bytes);
        self.0.reset();
    }

    fn advance(&self, bytes: u64) {
        interrupt::check();
        self.0.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
