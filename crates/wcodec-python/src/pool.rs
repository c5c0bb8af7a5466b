//! The threads that work is done on.

use std::mem;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};
use wcodec::{Error, Result};

/// Runs `work` in a pool of `threads` threads; without a number in this process's own: one per core, or as `RAYON_NUM_THREADS` says.
///
/// # Errors
/// Those of `work`; `BadArgument` when the system gives no threads.
pub(crate) fn install<T: Send>(threads: Option<usize>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    match threads {
        Some(count) => start(count)?.install(work),
        None => current()?.install(work),
    }
}

/// The pool of this process. Not rayon's global pool: a process that was forked (by a data loader, say) has inherited that pool without
/// its threads, and would wait for them for ever.
fn current() -> Result<Arc<ThreadPool>> {
    static POOL: Mutex<Option<(u32, Arc<ThreadPool>)>> = Mutex::new(None);
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    match &*pool {
        Some((owner, threads)) if *owner == process::id() => return Ok(Arc::clone(threads)),
        _ => {}
    }
    let threads = Arc::new(start(0)?);
    // The parent's pool cannot be shut down from here.
    mem::forget(pool.replace((process::id(), Arc::clone(&threads))));
    Ok(threads)
}

/// A pool of `count` threads; 0 for the default.
fn start(count: usize) -> Result<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(count).thread_name(|i| format!("wcodec-{i}")).build();
    pool.map_err(|error| Error::BadArgument(format!("cannot start {count} threads: {error}")))
}
