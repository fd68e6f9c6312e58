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

/// One line. The first value that is known is believed at once. That nobody knows it must last for [`GRACE`]: a multus-io that
/// starts anew, or does not come round on a busy machine, is no reason to switch something off elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Debounce {
    time: Duration,
    on: Option<bool>,
    changes: u64,
    /// Something else, and when it counts.
    candidate: Option<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    on: Option<bool>,
    due: Duration,
}

impl Debounce {
    /// A change counts after `time`; zero: at once.
    pub(crate) fn new(time: Duration) -> Self {
        Self { time, on: None, changes: 0, candidate: None }
    }

    /// What the line is, with this look at `now`.
    pub(crate) fn look(&mut self, seen: Seen, now: Duration) -> Option<bool> {
        let has_changed = std::mem::replace(&mut self.changes, seen.changes) != seen.changes;
        if self.on.is_none() || self.on == seen.on {
            (self.on, self.candidate) = (seen.on, None);
            return self.on;
        }
        let due = match self.candidate {
            Some(Candidate { on, due }) if on == seen.on && !has_changed => due,
            _ => now + if seen.on.is_some() { self.time } else { GRACE },
        };
        if now >= due {
            (self.on, self.candidate) = (seen.on, None);
        } else {
            self.candidate = Some(Candidate { on: seen.on, due });
        }
        self.on
    }

    /// When to look next although nothing changes; `None`: not before something does.
    pub(crate) fn due(&self) -> Option<Duration> {
        self.candidate.map(|candidate| candidate.due)
    }
}

/// How long a line may be unknown before that is told.
pub(crate) const GRACE: Duration = Duration::from_millis(250);

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
        assert_eq!(line.look(seen(false, 0), Duration::ZERO), Some(false), "the first value is believed");
        assert_eq!(line.look(seen(true, 1), 5 * MS), Some(false));
        assert_eq!(line.due(), Some(15 * MS));
        assert_eq!(line.look(seen(true, 1), 14 * MS), Some(false));
        assert_eq!(line.look(seen(true, 1), 15 * MS), Some(true));
        assert_eq!(line.due(), None);
    }

    #[test]
    fn what_goes_back_or_chatters_between_two_looks_begins_anew() {
        let mut line = Debounce::new(10 * MS);
        line.look(seen(false, 0), Duration::ZERO);
        line.look(seen(true, 1), MS);
        assert_eq!(line.look(seen(false, 2), 5 * MS), Some(false));
        assert_eq!(line.due(), None);
        line.look(seen(true, 3), 6 * MS);
        assert_eq!(line.look(seen(true, 5), 16 * MS), Some(false), "off and on again in between");
        assert_eq!(line.due(), Some(26 * MS));
        assert_eq!(line.look(seen(true, 5), 26 * MS), Some(true));
    }

    #[test]
    fn what_is_not_known_is_told_after_a_while_and_is_over_at_once() {
        let mut line = Debounce::new(10 * MS);
        let unknown = Seen { on: None, changes: 1 };
        line.look(seen(true, 1), Duration::ZERO);
        assert_eq!((line.look(unknown, MS), line.due()), (Some(true), Some(251 * MS)));
        assert_eq!((line.look(seen(true, 1), 200 * MS), line.due()), (Some(true), None), "it is back in time");
        line.look(unknown, 300 * MS);
        assert_eq!(line.look(unknown, 549 * MS), Some(true));
        assert_eq!((line.look(unknown, 550 * MS), line.due()), (None, None));
        assert_eq!(line.look(seen(false, 2), 551 * MS), Some(false));
        line.look(unknown, 560 * MS);
        assert_eq!((line.look(seen(true, 3), 600 * MS), line.due()), (Some(false), Some(610 * MS)), "another value");
    }
}
