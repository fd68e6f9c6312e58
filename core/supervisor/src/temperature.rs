//! The processor's temperature as a prerequisite, with hysteresis. All numbers in thousandths of a degree Celsius.

/// The range within which children may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Below: out of range.
    pub min: i32,
    /// Above: out of range.
    pub max: i32,
    /// Back in range only when this much inside of it.
    pub hysteresis: i32,
}

impl Range {
    /// Whether children may run, given the reading (`None`: unreadable, which counts as too hot) and whether they may
    /// now.
    pub fn allows(&self, reading: Option<i32>, allowed: bool) -> bool {
        let margin = if allowed { 0 } else { self.hysteresis.max(0) };
        reading
            .is_some_and(|t| t >= self.min.saturating_add(margin).min(self.max) && t <= self.max.saturating_sub(margin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_at_the_limit_and_comes_back_a_hysteresis_inside() {
        let range = Range { min: 0, max: 80_000, hysteresis: 5_000 };
        let readings = [79_000, 80_000, 80_001, 79_000, 75_001, 75_000, -1, 4_999, 5_000];
        let expected = [true, true, false, false, false, true, false, false, true];
        let mut allowed = true;
        for (reading, expected) in readings.into_iter().zip(expected) {
            allowed = range.allows(Some(reading), allowed);
            assert_eq!(allowed, expected, "at {reading}");
        }
        assert!(!range.allows(None, true), "unreadable is too hot");
        assert!(!range.allows(Some(i32::MIN), false) && !range.allows(Some(i32::MAX), false));
    }
}
