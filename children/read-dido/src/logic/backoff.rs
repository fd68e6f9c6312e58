//! How long to wait before the next connection: not at all at first, then longer and longer up to a second. A receiver that
//! comes back is found soon, and one that is gone costs a packet a second.

use std::time::Duration;

/// Waits so far since the last success.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait before the next try.
    pub(crate) fn next(&mut self) -> Duration {
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        match failures {
            0 => Duration::ZERO,
            n => FIRST.saturating_mul(1 << (n - 1).min(16)).min(LONGEST),
        }
    }

    /// It worked.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_at_once_and_never_takes_longer_than_a_second() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [0, 50, 100, 200, 400, 800, 1000, 1000]);
        let mut last = Duration::ZERO;
        for _ in 0..100 {
            last = backoff.next();
        }
        assert_eq!(last, LONGEST);
        backoff.succeeded();
        assert_eq!(backoff.next(), Duration::ZERO);
    }
}
