//! When the next cycle is due. An absolute schedule: a late cycle does not move the ones after it, and a cycle that
//! overruns its period leaves out the turns it has covered instead of running after them.

use std::time::{Duration, Instant};

/// The times `first`, `first + period`, `first + 2 period` ...
#[derive(Debug)]
pub(crate) struct Schedule {
    next: Instant,
}

impl Schedule {
    /// A schedule whose first cycle begins at `first`.
    pub(crate) fn new(first: Instant) -> Self {
        Self { next: first }
    }

    /// When the next cycle begins.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Moves on by one period, and by as many more as have passed at `now`; these are returned. A period of zero means
    /// "at once".
    pub(crate) fn advance(&mut self, now: Instant, period: Duration) -> u64 {
        if period.is_zero() {
            self.next = now;
            return 0;
        }
        // A period beyond the range of the clock (centuries) is as good as a year.
        let far = Duration::from_secs(366 * 86_400);
        let due = self.next.checked_add(period).or_else(|| self.next.checked_add(far)).unwrap_or(self.next);
        let late_ns = now.saturating_duration_since(due).as_nanos();
        if late_ns == 0 {
            self.next = due;
            return 0;
        }
        let missed = late_ns / period.as_nanos();
        let into_period_ns = u64::try_from(late_ns % period.as_nanos()).unwrap_or(u64::MAX);
        // `due` + missed periods lies at or before now; a turn that is due already begins at once.
        self.next = now.checked_sub(Duration::from_nanos(into_period_ns)).unwrap_or(now);
        u64::try_from(missed).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_late_cycle_does_not_move_the_ones_after_it() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        for (end_of_cycle, next) in [(3, 10), (19, 20), (20, 30), (31, 40)] {
            assert_eq!(schedule.advance(start + end_of_cycle * MS, 10 * MS), 0);
            assert_eq!(schedule.next(), start + next * MS);
        }
    }

    #[test]
    fn an_overrun_is_counted_and_keeps_the_rhythm() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        assert_eq!(schedule.advance(start + 12 * MS, 10 * MS), 0, "late, but nothing was left out");
        assert_eq!(schedule.next(), start + 10 * MS);
        assert_eq!(schedule.advance(start + 57 * MS, 10 * MS), 3, "20, 30, 40 were left out");
        assert_eq!(schedule.next(), start + 50 * MS);
        assert_eq!(schedule.advance(start + 58 * MS, 10 * MS), 0);
        assert_eq!(schedule.next(), start + 60 * MS);
    }

    #[test]
    fn extreme_periods_do_not_overflow() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        assert_eq!(schedule.advance(start + MS, Duration::ZERO), 0);
        assert_eq!(schedule.next(), start + MS);
        assert_eq!(schedule.advance(start + MS, Duration::MAX), 0);
        assert!(schedule.next() > start + MS);
        let mut schedule = Schedule::new(start);
        assert_eq!(schedule.advance(start + Duration::from_secs(3600), Duration::from_nanos(1)), 3_600_000_000_000 - 1);
    }
}
