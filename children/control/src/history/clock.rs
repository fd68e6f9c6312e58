//! Whether the clock can be believed when it says that something is old.
//!
//! A box without a battery-backed clock may start in 1970, or jump by years when it first hears the time, rightly or not. Rows
//! that are removed do not come back, so age is judged only by a clock that goes on as monotonic time does, and that does not
//! lie far ahead of the last row; otherwise only after it has gone steadily for a day.

use std::time::Duration;

/// What was seen of the clock. Times are since 1970 and on a monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// At the last look.
    unix: Duration,
    mono: Duration,
    /// From when on it is believed, on the monotonic clock.
    believed: Duration,
}

impl Clock {
    /// At the start, with the time of the last row there is.
    pub(super) fn new(unix: Duration, mono: Duration, last_row: Option<Duration>) -> Self {
        let is_near = last_row.is_none_or(|last| unix.saturating_sub(last) <= NEAR);
        Self { unix, mono, believed: if is_near { mono } else { mono.saturating_add(STEADY) } }
    }

    /// Whether age can be judged now.
    pub(super) fn is_believed(&mut self, unix: Duration, mono: Duration) -> bool {
        let expected = self.unix.saturating_add(mono.saturating_sub(self.mono));
        // Backwards nothing looks older than it is.
        if unix.saturating_sub(expected) > TOLERANCE {
            self.believed = mono.saturating_add(STEADY);
        }
        (self.unix, self.mono) = (unix, mono);
        mono >= self.believed
    }
}

/// So far a machine may have been switched off without a doubt about its clock.
const NEAR: Duration = Duration::from_secs(7 * 86_400);
/// Corrections of a network clock are far smaller.
const TOLERANCE: Duration = Duration::from_secs(300);
/// So long somebody can set a wrong clock right.
const STEADY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: Duration = Duration::from_secs(1_700_000_000);

    #[test]
    fn a_clock_that_goes_with_monotonic_time_is_believed_at_once() {
        let mut clock = Clock::new(NOW, HOUR, Some(NOW - 3 * DAY));
        assert!((1..100).all(|hour| clock.is_believed(NOW + HOUR * hour, HOUR + HOUR * hour)));
        assert!(Clock::new(NOW, HOUR, None).is_believed(NOW, HOUR), "an empty database has nothing to lose");
    }

    #[test]
    fn a_jump_ahead_is_believed_after_a_day_and_a_jump_back_harms_nothing() {
        let mut clock = Clock::new(NOW, HOUR, Some(NOW));
        let years = 3000 * DAY;
        assert!(!clock.is_believed(NOW + years, HOUR * 2));
        assert!(!clock.is_believed(NOW + years + HOUR * 22, HOUR * 24));
        assert!(clock.is_believed(NOW + years + HOUR * 24, HOUR * 26));
        // Set right again before the day is over: nothing was removed, and what comes is judged by the right time.
        let mut clock = Clock::new(NOW, HOUR, Some(NOW));
        assert!(!clock.is_believed(NOW + years, HOUR * 2));
        assert!(!clock.is_believed(NOW + HOUR * 2, HOUR * 3), "the doubt stays for its day");
        assert!(clock.is_believed(NOW + HOUR * 26, HOUR * 27));
    }

    #[test]
    fn a_clock_far_ahead_of_the_last_row_at_the_start_has_to_go_steadily_for_a_day() {
        let mut clock = Clock::new(NOW + 400 * DAY, HOUR, Some(NOW));
        assert!(!clock.is_believed(NOW + 400 * DAY, HOUR));
        assert!(clock.is_believed(NOW + 401 * DAY, HOUR + DAY));
    }
}
