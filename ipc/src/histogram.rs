//! The layout of a beat-interval histogram: 232 buckets, each at most an eighth wider than it is far from zero.
//!
//! Unit: 1024 ns, called a tick here. Ticks 0 to 7 have a bucket each, then every power of two is cut in eight:
//! a value is known to 12.5 %. The last bucket also takes everything above 36 minutes.

/// Number of buckets.
pub const BUCKETS: usize = 232;

/// The bucket of an interval.
///
/// # Real time
/// A handful of instructions, no branch that depends on history.
pub const fn bucket(interval_ns: u64) -> usize {
    let ticks = interval_ns >> 10;
    if ticks < 8 {
        return ticks as usize;
    }
    let exponent = 63 - ticks.leading_zeros() as usize;
    let index = (exponent - 2) * 8 + ((ticks >> (exponent - 3)) & 7) as usize;
    if index < BUCKETS { index } else { BUCKETS - 1 }
}

/// The largest interval, in nanoseconds, that falls into `bucket`; the last bucket says `u64::MAX`.
pub const fn upper_ns(bucket: usize) -> u64 {
    if bucket >= BUCKETS - 1 {
        return u64::MAX;
    }
    let next = bucket as u64 + 1;
    let ticks = if next < 8 { next } else { (8 + next % 8) << (next / 8 - 1) };
    (ticks << 10) - 1
}

/// The interval, in nanoseconds, that a share of `per_mille` of all counted ones does not exceed (upper bound of its
/// bucket, but never more than `max_ns`); `None` when nothing was counted.
pub fn percentile(counts: impl Fn(usize) -> u64, per_mille: u64, max_ns: u64) -> Option<u64> {
    let total = (0..BUCKETS).fold(0u64, |sum, i| sum.saturating_add(counts(i)));
    if total == 0 {
        return None;
    }
    let wanted = (u128::from(total) * u128::from(per_mille)).div_ceil(1000).max(1);
    let mut sum = 0u128;
    for i in 0..BUCKETS {
        sum += u128::from(counts(i));
        if sum >= wanted {
            return Some(upper_ns(i).min(max_ns));
        }
    }
    Some(max_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_rise_without_gaps_and_know_their_upper_end() {
        for i in 0..BUCKETS - 1 {
            assert_eq!(bucket(upper_ns(i)), i, "upper end of {i}");
            assert_eq!(bucket(upper_ns(i) + 1), i + 1, "first of {}", i + 1);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_value_is_known_to_an_eighth() {
        for ns in [10_000u64, 123_456, 5_000_000, 200_000_000, 60_000_000_000] {
            let upper = upper_ns(bucket(ns));
            assert!(upper >= ns && upper as f64 <= ns as f64 * 1.126, "{ns} {upper}");
        }
    }

    #[test]
    fn percentiles_of_nothing_and_of_something() {
        assert_eq!(percentile(|_| 0, 500, 7), None);
        let ten_ms = bucket(10_000_000);
        let fifty_ms = bucket(50_000_000);
        let counts = |i| if i == ten_ms { 99 } else { u64::from(i == fifty_ms) };
        assert_eq!(percentile(counts, 500, 51_000_000), Some(upper_ns(ten_ms)));
        assert_eq!(percentile(counts, 1000, 50_100_000), Some(50_100_000));
        assert_eq!(percentile(|_| u64::MAX, 500, 9), Some(9.min(upper_ns(115))));
    }
}
