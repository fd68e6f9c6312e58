//! A change counts when it has lasted for a while.

use std::time::Duration;

/// What is known of a line at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Whether it is on; `None`: nobody knows.
    pub(crate) on: Option<bool>,
    /// How often it has changed: tells of changes between two looks.
    pub(crate) changes: u64,
}

/// One line. What is not known is so at once, and so is the first value after that: waiting would only make it later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Debounce {
    time: Duration,
    on: Option<bool>,
    changes: u64,
    /// Another value, and since when the line has had it.
    candidate: Option<(bool, Duration)>,
}

impl Debounce {
    /// A change counts after `time`; zero: at once.
    pub(crate) fn new(time: Duration) -> Self {
        Self { time, on: None, changes: 0, candidate: None }
    }

    /// What the line is, with this look at `now`.
    pub(crate) fn look(&mut self, seen: Seen, now: Duration) -> Option<bool> {
        let has_changed = std::mem::replace(&mut self.changes, seen.changes) != seen.changes;
        let (Some(on), Some(seen)) = (self.on, seen.on) else {
            (self.on, self.candidate) = (seen.on, None);
            return self.on;
        };
        if on == seen {
            self.candidate = None;
            return self.on;
        }
        let since = match self.candidate {
            Some((_, since)) if !has_changed => since,
            _ => now,
        };
        if now.saturating_sub(since) >= self.time {
            (self.on, self.candidate) = (Some(seen), None);
        } else {
            self.candidate = Some((seen, since));
        }
        self.on
    }

    /// When to look next although nothing changes; `None`: not before something does.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.candidate.map(|(_, since)| since + self.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn seen(on: bool, changes: u64) -> Seen {
        Seen { on: Some(on), changes }
    }

    #[test]
    fn without_a_time_every_change_counts_at_once() {
        let mut line = Debounce::new(Duration::ZERO);
        for (n, on) in [true, false, true].into_iter().enumerate() {
            assert_eq!(line.look(seen(on, n as u64), MS), Some(on));
            assert_eq!(line.due(), None);
        }
    }

    #[test]
    fn a_change_counts_when_it_has_lasted() {
        let mut line = Debounce::new(10 * MS);
        assert_eq!(line.look(seen(false, 0), 0 * MS), Some(false), "the first value is believed");
        assert_eq!(line.look(seen(true, 1), 5 * MS), Some(false));
        assert_eq!(line.due(), Some(15 * MS));
        assert_eq!(line.look(seen(true, 1), 14 * MS), Some(false));
        assert_eq!(line.look(seen(true, 1), 15 * MS), Some(true));
        assert_eq!(line.due(), None);
    }

    #[test]
    fn what_goes_back_or_chatters_between_two_looks_begins_anew() {
        let mut line = Debounce::new(10 * MS);
        line.look(seen(false, 0), 0 * MS);
        line.look(seen(true, 1), 1 * MS);
        assert_eq!(line.look(seen(false, 2), 5 * MS), Some(false));
        assert_eq!(line.due(), None);
        line.look(seen(true, 3), 6 * MS);
        assert_eq!(line.look(seen(true, 5), 16 * MS), Some(false), "off and on again in between");
        assert_eq!(line.due(), Some(26 * MS));
        assert_eq!(line.look(seen(true, 5), 26 * MS), Some(true));
    }

    #[test]
    fn what_is_not_known_is_so_at_once() {
        let mut line = Debounce::new(10 * MS);
        line.look(seen(true, 1), 0 * MS);
        line.look(seen(false, 2), 1 * MS);
        assert_eq!(line.look(Seen { on: None, changes: 2 }, 2 * MS), None);
        assert_eq!(line.due(), None);
        assert_eq!(line.look(seen(false, 2), 3 * MS), Some(false));
    }
}
