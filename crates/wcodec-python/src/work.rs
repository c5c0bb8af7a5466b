//! Long work: off the caller's thread, so that Python keeps handling signals and its callbacks run where it expects them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;

/// How often the caller's thread looks for signals and reports progress.
const TICK: Duration = Duration::from_millis(50);

/// How far work has come, and whether it is to stop.
#[derive(Default)]
pub(crate) struct Watch {
    total: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
}

/// What stopped work unwinds with.
struct Stopped;

impl wcodec::Progress for Watch {
    fn start(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        if self.stop.load(Ordering::Relaxed) {
            // Temporary files are removed on the way. Not `panic!`: no message, no backtrace.
            resume_unwind(Box::new(Stopped));
        }
    }
}

/// Runs `work` on another thread without the GIL. Meanwhile calls `progress(done, total)`, in bytes, on this one. An exception of
/// that call, or a signal's (KeyboardInterrupt), stops the work and is returned.
pub(crate) fn watched<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Watch) -> T + Send,
) -> PyResult<T> {
    let watch = Watch::default();
    let tell = || -> PyResult<()> {
        py.check_signals()?;
        if let Some(callback) = progress {
            callback.call1((watch.done.load(Ordering::Relaxed), watch.total.load(Ordering::Relaxed)))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let (sender, receiver) = channel();
        let worker = &watch;
        scope.spawn(move || {
            // The receiver waits for this message; it is there.
            let _ = sender.send(catch_unwind(AssertUnwindSafe(|| work(worker))));
        });
        let mut stopped = None;
        let receiver = std::sync::Mutex::new(receiver);
        loop {
            let wait = || receiver.lock().map(|r| r.recv_timeout(TICK)).unwrap_or(Err(RecvTimeoutError::Disconnected));
            match py.detach(wait) {
                Ok(Ok(value)) if stopped.is_none() => break tell().map(|()| value),
                // Done although it should have stopped.
                Ok(Ok(_)) => break Err(stopped.take().expect("checked above")),
                Ok(Err(payload)) => break Err(stopped.take().unwrap_or_else(|| panicked(payload))),
                Err(RecvTimeoutError::Disconnected) => break Err(panicked(Box::new("the worker is gone"))),
                Err(RecvTimeoutError::Timeout) if stopped.is_none() => {
                    if let Err(error) = tell() {
                        watch.stop.store(true, Ordering::Relaxed);
                        stopped = Some(error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    })
}

/// As [`watched`] for work that cannot be stopped half-way: a signal's exception is returned when it is done.
pub(crate) fn interruptible<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    watched(py, None, |_| work())
}

/// Goes on unwinding on this thread, where PyO3 makes an exception of it.
fn panicked(payload: Box<dyn Any + Send>) -> PyErr {
    resume_unwind(payload)
}
