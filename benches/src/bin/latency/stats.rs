//! Percentiles of what was measured.

use serde::Serialize;

/// Measured values, in the order in which they came.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Series {
    values: Vec<f64>,
}

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    pub(crate) fn extend(&mut self, values: impl IntoIterator<Item = f64>) {
        self.values.extend(values);
    }

    pub(crate) fn values(&self) -> &[f64] {
        &self.values
    }

    /// `None` without values.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let at = |per_mille| nearest_rank(&sorted, per_mille);
        Some(Summary { count: sorted.len(), min, p50: at(500), p90: at(900), p99: at(990), p999: at(999), max })
    }
}

/// How values spread. A percentile is one of the values: the smallest that so many of them do not exceed. Of fewer than
/// 1000 values, the 99.9th percentile is the largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// `sorted` has at least one value.
fn nearest_rank(sorted: &[f64], per_mille: usize) -> f64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000).clamp(1, sorted.len());
    sorted[rank - 1]
}

/// The difference of two points in time, in ns; negative when `end` is the earlier.
pub(crate) fn ns_between(start: u64, end: u64) -> f64 {
    // Differences are far below 2^53 ns (104 days), so nothing is lost.
    if end >= start { (end - start) as f64 } else { -((start - end) as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: impl IntoIterator<Item = u32>) -> Series {
        let mut series = Series::default();
        series.extend(values.into_iter().map(f64::from));
        series
    }

    #[test]
    fn percentiles_are_values_by_nearest_rank() {
        let s = series((1..=1000).rev()).summary().expect("values");
        assert_eq!(
            (s.count, s.min, s.p50, s.p90, s.p99, s.p999, s.max),
            (1000, 1.0, 500.0, 900.0, 990.0, 999.0, 1000.0)
        );
        let s = series(1..=200).summary().expect("values");
        assert_eq!((s.p50, s.p99, s.p999), (100.0, 198.0, 200.0));
        let s = series([7]).summary().expect("a value");
        assert_eq!((s.min, s.p50, s.p999, s.max), (7.0, 7.0, 7.0, 7.0));
        assert_eq!(Series::default().summary(), None);
    }

    #[test]
    fn an_odd_count_has_its_middle_value_as_median() {
        assert_eq!(series([9, 1, 5]).summary().expect("values").p50, 5.0);
    }

    #[test]
    fn too_early_is_negative() {
        assert_eq!(ns_between(10, 25), 15.0);
        assert_eq!(ns_between(25, 10), -15.0);
    }
}
