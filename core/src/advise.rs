//! Which deadline suits a child, from the intervals between beats that were seen: pure arithmetic on a histogram.
//!
//! Beyond what was seen the tail is taken to fall off exponentially, with twice the mean excess over its 99th percentile
//! (twice, because real tails are heavier). The advice is the shortest deadline that by this model raises at most one
//! false alarm in a hundred years, and at least twice the longest gap seen, rounded up to two digits.

use multus_contract::api::advice::Advice;
use multus_ipc::histogram::{self, BUCKETS};

/// Fewer intervals than this say nothing about rare ones.
pub const ENOUGH: u64 = 1000;
const YEAR_NS: f64 = 365.25 * 86_400e9;
/// False alarms a year that are put up with: one in a hundred years.
const TOLERATED: f64 = 0.01;

/// Advises on a lane from the counts of its histogram, its longest gap and its deadline, all in ns.
pub fn advise(counts: impl Fn(usize) -> u64 + Copy, max_ns: u64, deadline_ns: Option<u64>) -> Advice {
    let us = |ns: u64| ns as f64 / 1000.0;
    let percentile = |p| us(histogram::percentile(counts, p, max_ns).unwrap_or(0));
    let intervals = (0..BUCKETS).fold(0u64, |sum, i| sum.saturating_add(counts(i)));
    let mut advice = Advice {
        intervals,
        p50_us: percentile(500),
        p99_us: percentile(990),
        p999_us: percentile(999),
        max_us: us(max_ns),
        deadline_us: deadline_ns.map(us),
        ..Advice::default()
    };
    if intervals < ENOUGH || max_ns == 0 {
        return advice;
    }
    let tail = Tail::of(counts, max_ns, intervals);
    let wanted = tail.deadline_ns().max(2.0 * max_ns as f64);
    let advised = two_digits_up(wanted);
    advice.advised_us = Some(advised / 1000.0);
    advice.advised_alarms_per_year = Some(tail.alarms_per_year(advised));
    advice.alarms_per_year = deadline_ns.map(|ns| tail.alarms_per_year(ns as f64));
    advice
}

/// The model of rare intervals.
#[derive(Clone, Copy, Debug)]
struct Tail {
    /// From here on the model counts, ns.
    threshold: f64,
    /// Intervals a year that are longer.
    per_year: f64,
    /// Decline, ns.
    excess: f64,
}

impl Tail {
    fn of(counts: impl Fn(usize) -> u64 + Copy, max_ns: u64, intervals: u64) -> Self {
        let value = |bucket: usize| histogram::upper_ns(bucket).min(max_ns) as f64;
        let threshold_ns = histogram::percentile(counts, 990, max_ns).unwrap_or(max_ns);
        let threshold = threshold_ns as f64;
        let (mut total, mut above, mut excess) = (0.0, 0.0, 0.0);
        for bucket in 0..BUCKETS {
            let count = counts(bucket) as f64;
            total += count * value(bucket);
            if value(bucket) > threshold {
                above += count;
                excess += count * (value(bucket) - threshold);
            }
        }
        // Nothing above: as if the next interval had been there, by a bucket's width.
        let above_or_one = f64::max(above, 1.0);
        let least = threshold / 8.0;
        let mean = f64::max(total / intervals as f64, 1.0);
        Self {
            threshold,
            per_year: YEAR_NS / mean * above_or_one / intervals as f64,
            excess: 2.0 * f64::max(excess / above_or_one, least),
        }
    }

    fn alarms_per_year(&self, deadline_ns: f64) -> f64 {
        self.per_year * (-(deadline_ns - self.threshold).max(0.0) / self.excess).exp()
    }

    fn deadline_ns(&self) -> f64 {
        self.threshold + self.excess * (self.per_year / TOLERATED).ln().max(0.0)
    }
}

/// Rounded up to two digits, at least a millisecond (the least deadline).
fn two_digits_up(ns: f64) -> f64 {
    let unit = 10f64.powf(ns.max(1.0).log10().floor() - 1.0);
    ((ns / unit).ceil() * unit).max(1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(u64, u64)]) -> impl Fn(usize) -> u64 + Copy + use<> {
        let mut table = [0u64; BUCKETS];
        for (ns, count) in of {
            table[histogram::bucket(*ns)] += count;
        }
        move |i| table[i]
    }

    #[test]
    fn too_little_was_seen() {
        let advice = advise(counts(&[(10_000_000, 999)]), 10_000_000, Some(50_000_000));
        assert_eq!((advice.advised_us, advice.alarms_per_year), (None, None));
        assert_eq!(advise(|_| 0, 0, None).intervals, 0);
    }

    #[test]
    fn a_steady_child_gets_a_short_deadline_and_a_restless_one_a_long() {
        let steady = advise(counts(&[(10_000_000, 100_000)]), 10_100_000, Some(200_000_000));
        let restless = advise(
            counts(&[(10_000_000, 98_000), (30_000_000, 1_900), (90_000_000, 100)]),
            90_000_000,
            Some(100_000_000),
        );
        let (a, b) = (steady.advised_us.unwrap(), restless.advised_us.unwrap());
        assert!((20_000.0..200_000.0).contains(&a), "{a}");
        assert!(b >= 180_000.0 && b > 3.0 * a, "{b}");
        assert!(steady.alarms_per_year.unwrap() < 0.01);
        assert!(restless.alarms_per_year.unwrap() > 100.0, "100 ms is too near to what was seen");
        assert!(restless.advised_alarms_per_year.unwrap() <= 0.01 + 1e-9);
    }

    #[test]
    fn any_counts_give_finite_numbers() {
        for max in [0, 1, 1_000_000, u64::MAX] {
            let advice = advise(|_| u64::MAX / 232, max, Some(max));
            for value in [advice.advised_us, advice.alarms_per_year].into_iter().flatten() {
                assert!(value.is_finite(), "{advice:?}");
            }
        }
    }

    #[test]
    fn two_digits() {
        assert_eq!(two_digits_up(41_234_000.0), 42_000_000.0);
        assert_eq!(two_digits_up(7.0), 1e6);
    }
}
