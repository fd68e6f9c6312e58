//! Keeps a remedy from becoming a loop: when it is due, and how often a day it may be done.

use std::time::Duration;

/// When something is to be done against a state that lasts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Remedy {
    /// How long it must have been down; `None`: nothing is ever done.
    pub after: Option<Duration>,
    tried: Option<Duration>,
}

impl Remedy {
    pub fn new(after: Option<Duration>) -> Self {
        Self { after, tried: None }
    }

    /// Whether it is due now, told once; if nothing gets better, again after the same time. `down_since`: `None` while it is
    /// not down. Times are those of the monotonic clock.
    pub fn is_due(&mut self, down_since: Option<Duration>, now: Duration) -> bool {
        let Some(after) = self.after else { return false };
        let Some(down_since) = down_since else {
            self.tried = None;
            return false;
        };
        let from = self.tried.map_or(down_since, |tried| tried.max(down_since));
        let is_due = now.saturating_sub(from) >= after;
        if is_due {
            self.tried = Some(now);
        }
        is_due
    }
}

/// What was done within a day. Survives restarts as a text, see [`Guard::to_text`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Unix seconds.
    done: Vec<u64>,
}

const DAY_S: u64 = 86_400;

impl Guard {
    /// Nothing was done yet.
    pub fn new() -> Self {
        Self { done: Vec::new() }
    }

    /// Whether one more is allowed at `now`, Unix seconds. What is dated later than now was done under another clock and
    /// counts: a box without a battery starts in the past.
    pub fn allows(&self, now: u64, per_day: u32) -> bool {
        let recent = self.done.iter().filter(|&&done| done.saturating_add(DAY_S) > now).count();
        u32::try_from(recent).unwrap_or(u32::MAX) < per_day
    }

    /// One more was done. What is older than a day is forgotten.
    pub fn note(&mut self, now: u64) {
        self.done.retain(|&done| done.saturating_add(DAY_S) > now);
        self.done.push(now);
    }

    /// One line for each.
    pub fn to_text(&self) -> String {
        self.done.iter().map(|done| format!("{done}\n")).collect()
    }

    /// # Errors
    /// The text is none of [`Guard::to_text`].
    pub fn from_text(text: &str) -> Result<Self, String> {
        let number = |line: &str| line.parse().map_err(|_| format!("found {line:?}, expected Unix seconds"));
        Ok(Self { done: text.lines().map(number).collect::<Result<_, _>>()? })
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_is_due_after_its_time_and_again_after_the_same_time() {
        let s = Duration::from_secs;
        let mut remedy = Remedy::new(Some(s(60)));
        for (down_since, now, expected) in [
            (None, 0, false),
            (Some(10), 10, false),
            (Some(10), 69, false),
            (Some(10), 70, true),
            (Some(10), 71, false),
            (Some(10), 129, false),
            (Some(10), 130, true),
            (None, 140, false),
            (Some(150), 150, false),
            (Some(150), 210, true),
        ] {
            assert_eq!(remedy.is_due(down_since.map(s), s(now)), expected, "down since {down_since:?}, now {now}");
        }
        assert!(!Remedy::new(None).is_due(Some(s(0)), s(1_000_000)));
    }

    #[test]
    fn a_day_has_so_many_and_no_more_whatever_the_clock_says() {
        let mut guard = Guard::new();
        let now = 1_800_000_000;
        assert!(!guard.allows(now, 0));
        for done in 0..2 {
            assert!(guard.allows(now + done, 2), "number {done}");
            guard.note(now + done);
        }
        for (at, expected) in [(now + 2, false), (now + DAY_S - 1, false), (now + DAY_S, true), (0, false)] {
            assert_eq!(guard.allows(at, 2), expected, "at {at}");
        }
        assert_eq!(Guard::from_text(&guard.to_text()), Ok(guard.clone()), "it survives a restart");
        guard.note(now + 10 * DAY_S);
        assert_eq!(guard.to_text().lines().count(), 1, "the past is forgotten");
        for bad in ["x\n", "1\n\n2\n", "-1\n"] {
            assert!(Guard::from_text(bad).is_err(), "{bad:?}");
        }
    }
}
