//! Time as it is used for every decision: nanoseconds of CLOCK_MONOTONIC.
#![allow(unsafe_code)]

use core::time::Duration;

/// A point in time: nanoseconds of CLOCK_MONOTONIC (range: 584 years since boot). Never wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonoNs(pub u64);

impl MonoNs {
    /// Later than every real time; what "no deadline" is compared as.
    pub const NEVER: Self = Self(u64::MAX);

    /// The present. A vDSO call (about 27 ns on x86-64), no system call on the boards we support.
    ///
    /// # Real time
    /// No allocation, no lock.
    pub fn now() -> Self {
        Self(clock(libc::CLOCK_MONOTONIC))
    }

    /// `self + duration`, at most [`Self::NEVER`].
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration_ns(duration)))
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in nanoseconds, at most `u64::MAX` (584 years).
pub fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Wall time in nanoseconds since 1970-01-01 UTC. For people and logs, never for a decision.
///
/// # Real time
/// As [`MonoNs::now`].
pub fn unix_ns() -> u64 {
    clock(libc::CLOCK_REALTIME)
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid, writable timespec for the whole call; the kernel writes nothing else.
    let rc = unsafe { libc::clock_gettime(id, &mut ts) };
    // Both clocks exist on every Linux, so the call cannot fail; a zero would be the harmless answer if it did.
    if rc != 0 {
        return 0;
    }
    let seconds = u64::try_from(ts.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(ts.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_panicking() {
        assert_eq!(MonoNs(u64::MAX - 1).after(Duration::from_secs(9)), MonoNs::NEVER);
        assert_eq!(MonoNs(5).since(MonoNs(9)), Duration::ZERO);
        assert_eq!(duration_ns(Duration::MAX), u64::MAX);
    }

    #[test]
    fn the_clock_does_not_run_backwards() {
        let mut last = MonoNs::now();
        for _ in 0..1000 {
            let now = MonoNs::now();
            assert!(now >= last);
            last = now;
        }
    }
}
