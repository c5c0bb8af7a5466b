//! Stopping on Ctrl-C without leaving half-written files.
//!
//! Temporary files are removed by their destructors, which a signal's default action skips. So the signal only sets a
//! flag; whoever reports progress looks at it and unwinds to `main`, past all destructors.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit status of an interrupted command, as shells report SIGINT.
pub(crate) const EXIT_CODE: u8 = 130;

/// What an interrupted command unwinds with.
pub(crate) struct Interrupted;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Listens for Ctrl-C (and SIGTERM, SIGHUP). Asked a second time, the process ends at once.
pub(crate) fn install() {
    let listening = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(EXIT_CODE));
        }
    });
    if let Err(error) = listening {
        eprintln!("warning: an interrupt may leave a temporary file behind: {error}");
    }
}

/// Unwinds to `main` if an interrupt was asked for.
pub(crate) fn check() {
    if ASKED.load(Ordering::Relaxed) {
        // Not `panic!`: this is no fault, so no message and no backtrace.
        resume_unwind(Box::new(Interrupted));
    }
}
