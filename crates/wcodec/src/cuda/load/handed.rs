//! Values that tasks of a pool hand over.

use std::sync::{Mutex, PoisonError};

use rayon::Yield;

/// A value that one task of a pool hands to another, which may be the only one that the pool has a thread for.
pub(super) struct Handed<T>(Mutex<State<T>>);

enum State<T> {
    Awaited,
    There(T),
    /// Taken, or its giver panicked.
    Gone,
}

impl<T> Default for Handed<T> {
    fn default() -> Self {
        Self(Mutex::new(State::Awaited))
    }
}

impl<T> Handed<T> {
    /// Who is to give the value.
    pub(super) fn giver(&self) -> Giver<'_, T> {
        Giver(self)
    }

    fn set(&self, state: State<T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Waits for the value, with other work of the pool if the calling thread is one of its; `None` if its giver panicked.
    pub(super) fn take(&self) -> Option<T> {
        loop {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match std::mem::replace(&mut *state, State::Awaited) {
                State::There(value) => {
                    *state = State::Gone;
                    return Some(value);
                }
                State::Gone => return None,
                State::Awaited => drop(state),
            }
            if rayon::yield_now() != Some(Yield::Executed) {
                std::thread::yield_now();
            }
        }
    }
}

/// Who gives a value, or not.
pub(super) struct Giver<'a, T>(&'a Handed<T>);

impl<T> Giver<'_, T> {
    pub(super) fn give(self, value: T) {
        self.0.set(State::There(value));
        std::mem::forget(self);
    }
}

impl<T> Drop for Giver<'_, T> {
    fn drop(&mut self) {
        self.0.set(State::Gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_handed_over_in_a_pool_of_one_thread() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
        let handed: Vec<Handed<usize>> = (0..20).map(|_| Handed::default()).collect();
        let taken: Vec<_> = pool.install(|| {
            rayon::in_place_scope_fifo(|scope| {
                for (number, handed) in handed.iter().enumerate() {
                    scope.spawn_fifo(move |_| handed.giver().give(number));
                }
                handed.iter().map(Handed::take).collect()
            })
        });
        assert_eq!(taken, (0..20).map(Some).collect::<Vec<_>>());
    }

    #[test]
    fn nobody_waits_for_a_giver_that_panicked() {
        let handed = Handed::<u8>::default();
        drop(handed.giver());
        assert_eq!(handed.take(), None);
    }
}
