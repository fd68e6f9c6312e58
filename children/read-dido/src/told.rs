//! What may happen a thousand times a second and is told once a minute.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One kind of it.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What was told in the last minute, or is counted since.
    recent: Vec<Recent>,
    /// What there was no place for.
    more: u64,
}

#[derive(Debug)]
struct Recent {
    what: String,
    when: Instant,
    more: u64,
}

impl Told {
    /// Tells, unless `what` was told a moment ago; `tell` gets how often it was not told, in words.
    pub(crate) fn tell(&self, what: &str, tell: impl FnOnce(&str)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(more) = state.untold(what, Instant::now()) else { return };
        drop(state);
        tell(&match more {
            0 => String::new(),
            more => format!(" ({more} more since the last time)"),
        });
    }
}

impl State {
    /// Whether `what` is to be told at `now`, and how often it was not. What is new when many things were told a moment ago waits
    /// until one of these is old.
    fn untold(&mut self, what: &str, now: Instant) -> Option<u64> {
        let is_old = |recent: &Recent| now.saturating_duration_since(recent.when) >= QUIET;
        if let Some(recent) = self.recent.iter_mut().find(|recent| recent.what == what) {
            if !is_old(recent) {
                recent.more += 1;
                return None;
            }
            recent.when = now;
            return Some(std::mem::take(&mut recent.more));
        }
        if self.recent.len() == MOST {
            let Some(old) = self.recent.iter().position(is_old) else {
                self.more += 1;
                return None;
            };
            self.more += self.recent.swap_remove(old).more;
        }
        self.recent.push(Recent { what: what.to_owned(), when: now, more: 0 });
        Some(std::mem::take(&mut self.more))
    }
}

const QUIET: Duration = Duration::from_secs(60);
/// Things that are told apart.
const MOST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_and_counted_however_it_alternates() {
        let (mut state, now) = (State::default(), Instant::now());
        let told: Vec<_> = ["a", "b", "a", "b", "a"].iter().map(|what| state.untold(what, now)).collect();
        assert_eq!(told, [Some(0), Some(0), None, None, None]);
        assert_eq!((state.untold("a", now + QUIET), state.untold("b", now + QUIET)), (Some(2), Some(1)));
        assert_eq!(state.untold("a", now + QUIET), None);
    }

    #[test]
    fn many_different_things_are_told_now_and_then_and_do_not_fill_the_memory() {
        let (mut state, now) = (State::default(), Instant::now());
        let told = (0..1000).filter(|n| state.untold(&n.to_string(), now).is_some()).count();
        assert_eq!((told, state.recent.len()), (MOST, MOST));
        assert_eq!(state.untold("new", now + QUIET), Some(1000 - MOST as u64), "what was left out is counted");
    }

    #[test]
    fn who_tells_learns_how_often_it_was_left_out() {
        let (told, said) = (Told::default(), std::cell::RefCell::new(Vec::new()));
        for what in ["a", "a", "b"] {
            told.tell(what, |more| said.borrow_mut().push(format!("{what}{more}")));
        }
        assert_eq!(*said.borrow(), ["a", "b"]);
    }
}
