//! Making values before they are asked for: whoever takes them does so in an order that can mostly be foretold.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What is made, and in which order it is likely to be asked for.
pub(crate) trait Plan: Send + Sync + 'static {
    /// Names a value.
    type Key: Clone + PartialEq + Send + 'static;
    /// What is made.
    type Value: Send + 'static;

    /// What will be asked for after `key`, if that is known.
    fn next(&self, key: &Self::Key) -> Option<Self::Key>;

    /// What a value weighs against the budget.
    fn weight(&self, key: &Self::Key) -> usize;

    /// Makes a value. It may be made again later.
    fn make(&self, key: &Self::Key) -> Self::Value;
}

/// Makes the values of a plan on worker threads, up to a budget ahead of the last one taken.
pub(crate) struct Ahead<P: Plan> {
    shared: Arc<Shared<P>>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared<P: Plan> {
    plan: P,
    /// How much may be planned, in the making, or ready.
    budget: usize,
    /// Surprises in a row after which what was foretold is thrown away.
    patience: u32,
    state: Mutex<State<P>>,
    changed: Condvar,
}

struct State<P: Plan> {
    /// Nearest first.
    entries: Vec<Entry<P>>,
    surprises: u32,
    closing: bool,
}

struct Entry<P: Plan> {
    key: P::Key,
    stage: Stage<P::Value>,
}

enum Stage<V> {
    Planned,
    Making,
    Ready(V),
}

impl<P: Plan> Ahead<P> {
    /// Starts `workers` threads; with none, values are made when they are taken.
    ///
    /// A value that was not foretold is made at once. The `patience`-th such surprise in a row throws away what is planned, and
    /// planning starts afresh from there.
    pub(crate) fn new(plan: P, workers: usize, budget: usize, patience: u32) -> std::io::Result<Self> {
        let state = Mutex::new(State { entries: Vec::new(), surprises: 0, closing: false });
        let budget = if workers == 0 { 0 } else { budget };
        let shared = Arc::new(Shared { plan, budget, patience: patience.max(1), state, changed: Condvar::new() });
        let mut ahead = Self { shared: Arc::clone(&shared), workers: Vec::new() };
        for number in 0..workers {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("wcodec-ahead-{number}"));
            // If one cannot be started, dropping `ahead` ends those before it.
            ahead.workers.push(thread.spawn(move || shared.work())?);
        }
        Ok(ahead)
    }

    /// The plan.
    pub(crate) fn plan(&self) -> &P {
        &self.shared.plan
    }

    /// The value of `key`: made before, or now. While another thread makes it, this one makes the next.
    pub(crate) fn take(&self, key: &P::Key) -> P::Value {
        let shared = &*self.shared;
        let mut state = shared.lock();
        loop {
            let Some(at) = state.entries.iter().position(|entry| entry.key == *key) else {
                state.surprises += 1;
                if state.surprises >= shared.patience || state.entries.is_empty() {
                    state.entries.retain(|entry| matches!(entry.stage, Stage::Making));
                    state.surprises = 0;
                    shared.foretell(&mut state, key);
                }
                break;
            };
            match state.entries[at].stage {
                Stage::Making => state = shared.make_next(state).unwrap_or_else(|state| shared.wait(state)),
                Stage::Planned | Stage::Ready(_) => {
                    let entry = state.entries.remove(at);
                    state.surprises = 0;
                    shared.foretell(&mut state, key);
                    if let Stage::Ready(value) = entry.stage {
                        return value;
                    }
                    break;
                }
            }
        }
        drop(state);
        shared.plan.make(key)
    }
}

impl<P: Plan> Drop for Ahead<P> {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // `work` catches what `make` throws.
            let _ = worker.join();
        }
    }
}

impl<P: Plan> Shared<P> {
    /// No code that can panic runs under the lock; a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State<P>>) -> MutexGuard<'a, State<P>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans what will follow `key`, as far as the budget goes.
    fn foretell(&self, state: &mut State<P>, key: &P::Key) {
        let mut spent: usize = state.entries.iter().map(|entry| self.plan.weight(&entry.key)).sum();
        let mut next = self.plan.next(key);
        let mut steps = 0;
        // A cycle of values that are all there already must end, too.
        while let Some(key) = next.take_if(|_| steps <= state.entries.len()) {
            if state.entries.iter().any(|entry| entry.key == key) {
                steps += 1;
            } else {
                spent = spent.saturating_add(self.plan.weight(&key));
                if spent > self.budget {
                    break;
                }
                state.entries.push(Entry { key: key.clone(), stage: Stage::Planned });
            }
            next = self.plan.next(&key);
        }
        self.changed.notify_all();
    }

    /// Makes the nearest planned value, or gives the lock back if there is none.
    fn make_next<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<P>>,
    ) -> Result<MutexGuard<'a, State<P>>, MutexGuard<'a, State<P>>> {
        let Some(entry) = state.entries.iter_mut().find(|entry| matches!(entry.stage, Stage::Planned)) else {
            return Err(state);
        };
        entry.stage = Stage::Making;
        let key = entry.key.clone();
        drop(state);
        let made = catch_unwind(AssertUnwindSafe(|| self.plan.make(&key)));
        let mut state = self.lock();
        let at = state.entries.iter().position(|entry| entry.key == key && matches!(entry.stage, Stage::Making));
        if let Some(at) = at {
            match made {
                Ok(value) => state.entries[at].stage = Stage::Ready(value),
                // Whoever takes it makes it, and meets the panic where it belongs.
                Err(_) => drop(state.entries.remove(at)),
            }
        }
        self.changed.notify_all();
        Ok(state)
    }

    fn work(&self) {
        let mut state = self.lock();
        while !state.closing {
            state = self.make_next(state).unwrap_or_else(|state| self.wait(state));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// Squares of the numbers below `end`, in a ring.
    struct Squares {
        end: usize,
        made: AtomicUsize,
    }

    /// Has no square.
    const UNLUCKY: usize = 1313;

    impl Plan for Squares {
        type Key = usize;
        type Value = usize;

        fn next(&self, key: &usize) -> Option<usize> {
            Some((key + 1) % self.end)
        }

        fn weight(&self, _: &usize) -> usize {
            1
        }

        fn make(&self, key: &usize) -> usize {
            assert!(*key != UNLUCKY, "unlucky");
            self.made.fetch_add(1, Ordering::Relaxed);
            if key.is_multiple_of(7) {
                std::thread::sleep(Duration::from_micros(200));
            }
            key * key
        }
    }

    fn squares(end: usize, workers: usize, budget: usize) -> Ahead<Squares> {
        Ahead::new(Squares { end, made: AtomicUsize::new(0) }, workers, budget, 2).unwrap()
    }

    #[test]
    fn values_are_right_in_any_order_and_with_any_number_of_threads() {
        for workers in [0, 1, 3] {
            for budget in [0, 1, 2, 5, 100] {
                let ahead = squares(11, workers, budget);
                for key in (0..40).map(|i| i % 11).chain([5, 5, 1, 9, 0, 10, 3]).chain((0..30).rev().map(|i| i % 11)) {
                    assert_eq!(ahead.take(&key), key * key);
                }
            }
        }
    }

    #[test]
    fn a_foretold_order_makes_everything_once() {
        let ahead = squares(1000, 2, 4);
        // Two surprises start the plan.
        for key in [0, 0].into_iter().chain(1..900) {
            ahead.take(&key);
        }
        let made = ahead.plan().made.load(Ordering::Relaxed);
        assert!((901..=905).contains(&made), "{made}");
    }

    #[test]
    fn takers_on_several_threads_get_their_own() {
        let ahead = squares(12, 2, 6);
        std::thread::scope(|scope| {
            for start in 0..4 {
                let ahead = &ahead;
                scope.spawn(move || {
                    for key in (start..start + 200).map(|i| i % 12) {
                        assert_eq!(ahead.take(&key), key * key);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_of_a_worker_is_the_takers() {
        let ahead = squares(2000, 1, 4);
        for key in UNLUCKY - 4..UNLUCKY {
            assert_eq!(ahead.take(&key), key * key);
        }
        assert!(catch_unwind(AssertUnwindSafe(|| ahead.take(&UNLUCKY))).is_err());
        assert_eq!(ahead.take(&(UNLUCKY + 1)), (UNLUCKY + 1) * (UNLUCKY + 1));
    }
}
