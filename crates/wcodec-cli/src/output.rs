//! What reaches stdout and stderr.

use std::io::{self, Write};

use anyhow::Context;

/// Writes `text` to stdout. A reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

/// Writes one JSON object to stdout.
pub(crate) fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    print(&format!("{value:#}\n"))
}

/// All messages of an error, outermost first; without those that the message before already ends with.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut shown = String::new();
    for cause in error.chain() {
        let message = cause.to_string();
        if shown.is_empty() {
            shown = message;
        } else if !shown.ends_with(&message) {
            shown = format!("{shown}: {message}");
        }
    }
    shown
}

/// A name from an archive, harmless to a terminal: control characters are escaped.
pub(crate) fn safe(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_repeats_nothing() {
        let inner = io::Error::new(io::ErrorKind::NotFound, "gone");
        let error = anyhow::Error::new(inner).context("m.wcodec: gone").context("opening the archive");
        assert_eq!(chain(&error), "opening the archive: m.wcodec: gone");
        assert_eq!(chain(&anyhow::anyhow!("low").context("high")), "high: low");
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(safe("läyer.0\u{1b}[2J\n"), "läyer.0\\u{1b}[2J\\n");
    }
}
