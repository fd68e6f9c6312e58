//! What may happen a thousand times a second and is told once a minute.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One kind of it.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    what: String,
    when: Option<Instant>,
    more: u64,
}

impl Told {
    /// Tells, unless `what` was told a moment ago; `tell` gets how often it was not told, in words.
    pub(crate) fn tell(&self, what: &str, tell: impl FnOnce(&str)) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.what == what && last.when.is_some_and(|when| when.elapsed() < QUIET) {
            last.more += 1;
            return;
        }
        let more = match last.more {
            0 => String::new(),
            more => format!(" ({more} more since the last time)"),
        };
        *last = Last { what: what.to_owned(), when: Some(Instant::now()), more: 0 };
        drop(last);
        tell(&more);
    }
}

const QUIET: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_and_counted() {
        let told = Told::default();
        let said = std::cell::RefCell::new(Vec::new());
        let tell = |what: &str| told.tell(what, |more| said.borrow_mut().push(format!("{what}{more}")));
        for what in ["a", "a", "a", "b", "b"] {
            tell(what);
        }
        assert_eq!(*said.borrow(), ["a", "b (2 more since the last time)"]);
    }
}
