//! Requests from outside, and a wait that they end at once.
//!
//! SIGTERM and SIGINT ask for an orderly end, SIGHUP for reading the configuration again; for a process that somebody
//! started in a terminal SIGHUP means that the terminal is gone, and asks for an end as well. A thread of this library takes
//! the signals and wakes the waiting work loop; it does nothing else, least of all beat. A second SIGTERM or SIGINT
//! ends the process as if nobody had caught it: the way out when a cycle hangs in a terminal.

use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The time is over.
    Elapsed,
    /// Read the configuration again. Told once for each request.
    Reload,
    /// End in good order. Told again at each wait.
    Stop,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) stop: bool,
    pub(crate) reload: bool,
}

/// What was asked for, shared between the thread that takes signals and the work loop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Requests {
    /// From now on signals become requests.
    pub(crate) fn from_signals() -> io::Result<Self> {
        let requests = Self::default();
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let taker = requests.clone();
        let in_terminal = io::stdin().is_terminal();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGHUP if !in_terminal => taker.ask(|state| state.reload = true),
                    _ if taker.stop_requested() => {
                        // Fails only for a signal without a default action; these have one.
                        let _ = signal_hook::low_level::emulate_default_handler(signal);
                    }
                    _ => taker.ask(|state| state.stop = true),
                }
            }
        })?;
        Ok(requests)
    }

    pub(crate) fn stop_requested(&self) -> bool {
        self.lock().stop
    }

    /// Waits until `due`, or for a request; a request that is there already is told at once.
    pub(crate) fn wait_until(&self, due: Instant) -> Wake {
        let mut state = self.lock();
        loop {
            if state.stop {
                return Wake::Stop;
            }
            if std::mem::take(&mut state.reload) {
                return Wake::Reload;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Wake::Elapsed;
            }
            state = self.shared.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn ask(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.shared.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Two flags cannot be left half changed by a panic.
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_request_ends_a_long_wait_and_stop_wins() {
        let requests = Requests::default();
        let asking = requests.clone();
        let thread = std::thread::spawn(move || asking.ask(|state| state.reload = true));
        let far = Instant::now() + Duration::from_secs(3600);
        assert_eq!(requests.wait_until(far), Wake::Reload);
        assert_eq!(requests.wait_until(Instant::now()), Wake::Elapsed, "a reload is told once");
        requests.ask(|state| (state.stop, state.reload) = (true, true));
        assert_eq!(requests.wait_until(far), Wake::Stop);
        assert_eq!(requests.wait_until(far), Wake::Stop, "a stop stays");
        assert!(thread.join().is_ok());
    }
}
