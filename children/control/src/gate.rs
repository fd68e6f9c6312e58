//! One at a time, and few who wait: for work that takes much memory, or much time of the processor.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Lets one in at a time.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    free: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: bool,
    waiting: usize,
}

/// Inside as long as this is there.
#[derive(Debug)]
pub(crate) struct Pass<'a>(&'a Gate);

impl Gate {
    /// Waits `patience` at most, behind [`MOST_WAITING`] others at most; `None`: it is too full.
    pub(crate) fn enter(&self, patience: Duration) -> Option<Pass<'_>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.taken {
            if state.waiting >= MOST_WAITING {
                return None;
            }
            state.waiting += 1;
            let (waited, _) = self
                .free
                .wait_timeout_while(state, patience, |state| state.taken)
                .unwrap_or_else(PoisonError::into_inner);
            state = waited;
            state.waiting -= 1;
            if state.taken {
                return None;
            }
        }
        state.taken = true;
        Some(Pass(self))
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).taken = false;
        self.0.free.notify_one();
    }
}

/// Fewer than there are threads that answer requests, so that a flood of them leaves some for the others.
const MOST_WAITING: usize = 4;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_is_inside_and_few_wait() {
        let gate = Gate::default();
        let (inside, most, refused) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let first = gate.enter(Duration::ZERO).expect("it is free");
            assert!(gate.enter(Duration::from_millis(1)).is_none(), "nobody waits for ever");
            for _ in 0..20 {
                scope.spawn(|| match gate.enter(Duration::from_secs(60)) {
                    None => drop(refused.fetch_add(1, Ordering::Relaxed)),
                    Some(_pass) => {
                        most.fetch_max(inside.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::Relaxed);
                    }
                });
            }
            while refused.load(Ordering::Relaxed) < 20 - MOST_WAITING {
                std::thread::yield_now();
            }
            drop(first);
        });
        assert_eq!(most.load(Ordering::Relaxed), 1);
        assert_eq!(refused.load(Ordering::Relaxed), 20 - MOST_WAITING);
        assert!(gate.enter(Duration::ZERO).is_some());
    }
}
