//! Which changes are recorded: all, unless a line or the whole plant chatters.

use std::collections::HashMap;
use std::time::Duration;

use multus_contract::api::io::IoLine;

/// What was handed to the event database, and how much more may be.
#[derive(Debug)]
pub(super) struct Ledger {
    lines: HashMap<String, Entry>,
    all: Bucket,
}

#[derive(Debug)]
struct Entry {
    /// Value, changes, whether it was good, and the source, as last recorded.
    recorded: Option<(u64, u64, bool, String)>,
    bucket: Bucket,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { lines: HashMap::new(), all: Bucket::new(PLANT) }
    }
}

impl Ledger {
    /// Whether what the line holds is to be recorded now; it counts as recorded then. What is not is seen again at the next
    /// look: the last value of a line that chattered is always recorded in the end.
    ///
    /// The first look at a line says so as well; the database knows whether it is new.
    pub(super) fn is_due(&mut self, line: &IoLine, now: Duration) -> bool {
        if !self.lines.contains_key(&line.name) {
            self.lines.insert(line.name.clone(), Entry { recorded: None, bucket: Bucket::new(LINE) });
        }
        let Some(entry) = self.lines.get_mut(&line.name) else { return false };
        let same = |(value, changes, good, source): &(u64, u64, bool, String)| {
            (*value, *changes, *good) == (line.value.to_bits(), line.changes, line.good) && *source == line.source
        };
        if entry.recorded.as_ref().is_some_and(same) {
            return false;
        }
        // The first one of each line is free: there are only so many lines.
        if entry.recorded.is_some() && !(entry.bucket.has(now) && self.all.has(now)) {
            return false;
        }
        if entry.recorded.is_some() {
            entry.bucket.take();
            self.all.take();
        }
        entry.recorded = Some((line.value.to_bits(), line.changes, line.good, line.source.clone()));
        true
    }
}

/// So many at once, and one more after each of these times.
type Rate = (u32, Duration);

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    left: u32,
    /// Since when the next one is on its way.
    since: Duration,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self { rate, left: rate.0, since: Duration::ZERO }
    }

    fn has(&mut self, now: Duration) -> bool {
        let (most, each) = self.rate;
        let new = now.saturating_sub(self.since).as_nanos() / each.as_nanos().max(1);
        let new = u32::try_from(new).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(new).min(most);
        self.since = if self.left == most { now } else { self.since.saturating_add(each.saturating_mul(new)) };
        self.left > 0
    }

    fn take(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

/// Of one line: 20 at once, then 6 a minute, which is 8640 a day.
const LINE: Rate = (20, Duration::from_secs(10));
/// Of all together: 500 at once, then 2 a second.
const PLANT: Rate = (500, Duration::from_millis(500));

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, value: f64, changes: u64) -> IoLine {
        IoLine { name: name.into(), value, changes, good: true, ..IoLine::default() }
    }

    #[test]
    fn a_line_that_chatters_is_recorded_so_often_and_with_its_last_value() {
        let mut ledger = Ledger::default();
        let at = Duration::from_millis;
        // A hundred changes a second for a minute.
        let recorded = (0..6000u64).filter(|n| ledger.is_due(&line("DI1", (n % 2) as f64, *n), at(n * 10))).count();
        assert_eq!(recorded, 1 + 20 + 5, "the first look, those at once, and one in ten seconds");
        let last = line("DI1", 1.0, 5999);
        let end = (60_000..80_000).step_by(500).filter(|ms| ledger.is_due(&last, at(*ms))).count();
        assert_eq!(end, 1, "it is quiet: its last value, once");
        assert!(ledger.is_due(&line("DI2", 0.0, 9), at(80_000)), "others are not held up");
    }

    #[test]
    fn a_plant_that_chatters_is_recorded_so_often() {
        let mut ledger = Ledger::default();
        let mut recorded = 0;
        for second in 0..3600u64 {
            for name in 0..256 {
                let line = line(&format!("L{name}"), 0.0, second);
                recorded += usize::from(ledger.is_due(&line, Duration::from_secs(second)));
            }
        }
        assert!((256 + 7_000..=256 + 500 + 7_200).contains(&recorded), "{recorded}");
    }

    #[test]
    fn a_source_or_a_fault_is_recorded_as_a_value_is() {
        let mut ledger = Ledger::default();
        let mut seen = line("DO1", 1.0, 4);
        let mut due = |line: &IoLine| ledger.is_due(line, Duration::ZERO);
        assert!(due(&seen) && !due(&seen));
        seen.source = "forced".into();
        assert!(due(&seen) && !due(&seen));
        seen.good = false;
        assert!(due(&seen) && !due(&seen));
        seen.last_good = Some("2026-01-01T00:00:00Z".into());
        assert!(!due(&seen), "that it was read again is nothing");
    }
}
