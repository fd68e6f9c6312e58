//! How many lines per second a child may write: a token bucket that holds one second's worth.
//!
//! Once the bucket is empty it stays shut until it is full again (one second later). A flood therefore shows as a block
//! of lines, one line that says how many are missing, and the next block, instead of every second line being torn out. The
//! average that passes is the configured rate either way.

use super::SECOND_NS;

/// Decides about each line whether it may pass, and counts those that may not.
#[derive(Debug)]
pub struct RateLimit {
    lines_per_second: u64,
    /// Time is the currency: each line costs `SECOND_NS / lines_per_second`, the bucket holds at most one second.
    saved_ns: u64,
    last_ns: Option<u64>,
    shut_until_ns: Option<u64>,
    dropped: u64,
}

impl RateLimit {
    /// A full bucket. 0 lines per second means no limit.
    pub fn new(lines_per_second: u32) -> Self {
        Self {
            lines_per_second: lines_per_second.into(),
            saved_ns: SECOND_NS,
            last_ns: None,
            shut_until_ns: None,
            dropped: 0,
        }
    }

    /// The configured rate; 0 means no limit.
    pub fn lines_per_second(&self) -> u64 {
        self.lines_per_second
    }

    /// `true`: the line passes. `false`: it is counted as dropped.
    pub fn admit(&mut self, mono_ns: u64) -> bool {
        if self.lines_per_second == 0 {
            return true;
        }
        self.refill(mono_ns);
        let cost_ns = (SECOND_NS / self.lines_per_second).max(1);
        if self.shut_until_ns.is_none() {
            if let Some(rest_ns) = self.saved_ns.checked_sub(cost_ns) {
                self.saved_ns = rest_ns;
                return true;
            }
            self.shut_until_ns = Some(mono_ns.saturating_add(SECOND_NS));
        }
        self.dropped += 1;
        false
    }

    /// How many lines were dropped in a shut period that is over now; 0 while it lasts. Counts each line once.
    pub fn take_dropped(&mut self, mono_ns: u64) -> u64 {
        self.refill(mono_ns);
        if self.shut_until_ns.is_some() { 0 } else { std::mem::take(&mut self.dropped) }
    }

    /// The same without waiting for the end of the shut period: the child is gone, its log gets its last lines.
    pub fn take_dropped_early(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// When [`take_dropped`](Self::take_dropped) will have something to report; `None`: nothing is pending.
    pub fn report_at_ns(&self) -> Option<u64> {
        if self.dropped > 0 { Some(self.shut_until_ns.unwrap_or(0)) } else { None }
    }

    fn refill(&mut self, mono_ns: u64) {
        let passed_ns = mono_ns.saturating_sub(self.last_ns.unwrap_or(mono_ns));
        self.last_ns = Some(self.last_ns.unwrap_or(0).max(mono_ns));
        self.saved_ns = self.saved_ns.saturating_add(passed_ns).min(SECOND_NS);
        if self.shut_until_ns.is_some_and(|until_ns| mono_ns >= until_ns) {
            self.shut_until_ns = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(limit: &mut RateLimit, lines: u32, mono_ns: u64) -> u64 {
        (0..lines).filter(|_| limit.admit(mono_ns)).count() as u64
    }

    #[test]
    fn a_burst_of_one_second_passes_and_the_rest_is_counted() {
        let mut limit = RateLimit::new(100);
        assert_eq!(admitted(&mut limit, 250, 5), 100);
        assert_eq!(limit.take_dropped(5), 0, "still shut");
        assert_eq!(limit.report_at_ns(), Some(5 + SECOND_NS));
        assert_eq!(limit.take_dropped(5 + SECOND_NS), 150);
        assert_eq!(limit.take_dropped(5 + SECOND_NS), 0, "reported once");
        assert_eq!(admitted(&mut limit, 250, 5 + SECOND_NS), 100);
    }

    #[test]
    fn a_steady_flood_passes_at_the_configured_rate() {
        let mut limit = RateLimit::new(100);
        let mut passed = 0;
        for tenth in 0..1_000 {
            passed += admitted(&mut limit, 100, tenth * SECOND_NS / 10);
        }
        assert!((9_900..=10_200).contains(&passed), "{passed} of 100 000 lines in 100 s");
    }

    #[test]
    fn a_child_below_its_rate_is_never_limited() {
        let mut limit = RateLimit::new(100);
        for i in 0..10_000 {
            assert!(limit.admit(i * SECOND_NS / 100));
        }
        assert_eq!(limit.report_at_ns(), None);
    }

    #[test]
    fn time_that_stands_still_or_runs_backwards_gives_no_tokens() {
        let mut limit = RateLimit::new(10);
        assert_eq!(admitted(&mut limit, 20, 5 * SECOND_NS), 10);
        assert_eq!(admitted(&mut limit, 20, 3 * SECOND_NS), 0);
        assert_eq!(admitted(&mut limit, 20, u64::MAX), 10);
    }

    #[test]
    fn zero_means_no_limit() {
        let mut limit = RateLimit::new(0);
        assert_eq!(admitted(&mut limit, 10_000, 0), 10_000);
    }
}
