//! Is this beat good? One tracker per lane; a heartbeat page is an allegation, and this is where it is judged.

use multus_ipc::MonoNs;
use multus_ipc::heartbeat::RawBeat;

use crate::policy::Beats;

/// What no correct writer writes. The numbers are part of the event interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Corruption {
    /// A beat later than the present.
    Future = 1,
    /// A beat earlier than the one before.
    TimeBackwards = 2,
    /// A sequence lower than the one before.
    SequenceBackwards = 3,
    /// More beats than any processor makes.
    Impossible = 4,
    /// The header of the page was overwritten.
    Header = 5,
}

/// What is wrong with a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The page cannot be believed; the sequence or time that was found.
    Corrupt(Corruption, u64),
    /// Faster than allowed: beats, and the ns in which they were made.
    Runaway(u64, u64),
}

/// How far a time may lie in the future: clocks of two cores read within a page fault of each other (measured skew
/// on the boards we know: none; the margin is for those we do not).
const FUTURE_TOLERANCE_NS: u64 = 100_000;
/// The fastest beat that is believed; `beat()` takes about 30 ns.
const FASTEST_BEAT_NS: u64 = 5;
/// Beats that may come at once before the rate is judged.
const BURST: u64 = 10;

/// What is known of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Lane {
    sequence: u64,
    time: u64,
    /// No verdict of silence before this time: lateness that was granted.
    not_before: u64,
    granted: bool,
    /// Lateness granted since the last beat.
    granted_ns: u64,
    /// This silence was told about already.
    warned: bool,
}

impl Lane {
    /// A lane that is watched from `now` on.
    pub fn new(now: MonoNs) -> Self {
        Self { time: now.0, ..Self::default() }
    }

    /// A lane that was opened before this first look at it: the beats so far are taken as they are, the last one is still
    /// to be judged.
    pub fn joining(raw: RawBeat, now: MonoNs) -> Self {
        if raw.sequence == 0 {
            return Self::new(now);
        }
        Self { sequence: raw.sequence - 1, time: raw.time.0.min(now.0), ..Self::default() }
    }

    /// The last accepted beat, or the time from which the lane is watched.
    pub fn last(&self) -> MonoNs {
        MonoNs(self.time)
    }

    /// Beats so far.
    pub fn beats(&self) -> u64 {
        self.sequence
    }

    /// Lateness that was granted since the last beat, ns.
    pub fn granted_ns(&self) -> u64 {
        self.granted_ns
    }

    /// Takes in a look. `seen` is a time after the look. True when there was a new beat.
    ///
    /// # Errors
    /// What is wrong with it; the tracker is unchanged.
    ///
    /// # Real time
    /// O(1).
    pub fn judge(&mut self, raw: RawBeat, seen: MonoNs, beats: &Beats) -> Result<bool, Violation> {
        if raw.sequence == self.sequence {
            // A new time without a new sequence is half a beat: it does not count yet.
            return Ok(false);
        }
        let count = raw.sequence.wrapping_sub(self.sequence);
        if count > u64::MAX / 2 {
            return Err(Violation::Corrupt(Corruption::SequenceBackwards, raw.sequence));
        }
        if raw.time.0 > seen.0.saturating_add(FUTURE_TOLERANCE_NS) {
            return Err(Violation::Corrupt(Corruption::Future, raw.time.0));
        }
        if raw.time.0 < self.time {
            return Err(Violation::Corrupt(Corruption::TimeBackwards, raw.time.0));
        }
        // The sequence was read before the time, so `elapsed` is not too short for `count`.
        let elapsed = raw.time.0 - self.time;
        if count > elapsed / FASTEST_BEAT_NS + BURST {
            return Err(Violation::Corrupt(Corruption::Impossible, raw.sequence));
        }
        if beats.min_interval_ns > 0 && count > elapsed / beats.min_interval_ns + BURST {
            return Err(Violation::Runaway(count, elapsed));
        }
        *self = Self { sequence: raw.sequence, time: raw.time.0, ..Self::default() };
        Ok(true)
    }

    /// From when on silence is a fault.
    pub fn due(&self, deadline_ns: u64) -> MonoNs {
        MonoNs(self.time.saturating_add(deadline_ns).max(self.not_before))
    }

    /// When silence is to be told about; `NEVER` when that is not wanted or was done.
    pub fn warn_at(&self, beats: &Beats) -> MonoNs {
        if beats.warn_ns == 0 || self.warned { MonoNs::NEVER } else { self.due(beats.warn_ns) }
    }

    /// This silence has been told about.
    pub fn set_warned(&mut self) {
        self.warned = true;
    }

    /// No verdict of silence before `until`.
    pub fn excuse(&mut self, until: MonoNs) {
        self.not_before = self.not_before.max(until.0);
    }

    /// The loop woke `late_ns` after the time it was armed for. If the whole machine stood still, the child stood
    /// still too, and needs time to run before it is called dead: half the lateness, at most a whole deadline. That
    /// is granted once between two beats (else a loop that is always late would never find anything), or again
    /// whenever the lateness is as long as the deadline, which only a stopped machine explains.
    pub fn grant(&mut self, now: MonoNs, late_ns: u64, deadline_ns: u64) {
        if self.granted && late_ns < deadline_ns {
            return;
        }
        let until = now.0.saturating_add((late_ns / 2).min(deadline_ns));
        let due = self.due(deadline_ns).0;
        if until > due {
            self.not_before = until;
            self.granted = true;
            self.granted_ns = self.granted_ns.saturating_add(until - due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEATS: Beats = Beats { deadline_ns: 50_000_000, min_interval_ns: 0, warn_ns: 0 };

    fn raw(sequence: u64, time: u64) -> RawBeat {
        RawBeat { sequence, time: MonoNs(time) }
    }

    #[test]
    fn good_beats_move_the_deadline() {
        let mut lane = Lane::new(MonoNs(1_000));
        assert_eq!(lane.due(50), MonoNs(1_050));
        assert_eq!(lane.judge(raw(0, 0), MonoNs(2_000), &BEATS), Ok(false), "an untouched page");
        assert_eq!(lane.judge(raw(1, 1_500), MonoNs(2_000), &BEATS), Ok(true));
        assert_eq!(lane.judge(raw(1, 1_900), MonoNs(2_000), &BEATS), Ok(false), "half a beat does not count");
        assert_eq!(lane.due(50), MonoNs(1_550));
    }

    #[test]
    fn a_lane_that_joins_brings_its_beats_along() {
        let now = MonoNs(5_000_000_000);
        let mut lane = Lane::joining(raw(1_000, 4_990_000_000), now);
        assert_eq!(lane.judge(raw(1_000, 4_990_000_000), now, &BEATS), Ok(true));
        assert_eq!(lane.due(50_000_000), MonoNs(5_040_000_000));
        let mut lane = Lane::joining(raw(0, 0), now);
        assert_eq!(lane.judge(raw(0, 0), now, &BEATS), Ok(false));
        assert_eq!(lane.due(50_000_000), MonoNs(5_050_000_000), "one without a beat has a deadline from now on");
        let mut lane = Lane::joining(raw(7, u64::MAX), now);
        let verdict = lane.judge(raw(7, u64::MAX), now, &BEATS);
        assert_eq!(verdict, Err(Violation::Corrupt(Corruption::Future, u64::MAX)));
    }

    #[test]
    fn what_no_writer_writes_is_found() {
        let good = Lane { sequence: 10, time: 1_000_000, ..Lane::default() };
        let seen = MonoNs(2_000_000);
        for (found, expected) in [
            (raw(9, 1_500_000), Corruption::SequenceBackwards),
            (raw(u64::MAX, 1_500_000), Corruption::SequenceBackwards),
            (raw(11, u64::MAX), Corruption::Future),
            (raw(11, 2_100_001), Corruption::Future),
            (raw(11, 999_999), Corruption::TimeBackwards),
            (raw(10 + 200_000, 1_500_000), Corruption::Impossible),
        ] {
            let mut lane = good;
            let verdict = lane.judge(found, seen, &BEATS);
            assert!(matches!(verdict, Err(Violation::Corrupt(c, _)) if c == expected), "{found:?}: {verdict:?}");
            assert_eq!(lane, good, "a refused beat changes nothing");
        }
    }

    #[test]
    fn beats_faster_than_allowed_run_away() {
        let beats = Beats { min_interval_ns: 1_000_000, ..BEATS };
        let mut lane = Lane::new(MonoNs(0));
        assert_eq!(lane.judge(raw(60, 50_000_000), MonoNs(50_000_000), &beats), Ok(true));
        let verdict = lane.judge(raw(60 + 61, 100_000_000), MonoNs(100_000_000), &beats);
        assert_eq!(verdict, Err(Violation::Runaway(61, 50_000_000)));
    }

    #[test]
    fn lateness_is_granted_once_and_again_only_after_a_standstill() {
        let d = 50_000_000;
        let mut lane = Lane::new(MonoNs(0));
        lane.grant(MonoNs(60_000_000), 10_000_000, d);
        assert_eq!(lane.due(d), MonoNs(65_000_000));
        lane.grant(MonoNs(70_000_000), 5_000_000, d);
        assert_eq!(lane.due(d), MonoNs(65_000_000), "not a second time");
        lane.grant(MonoNs(5_000_000_000), 4_900_000_000, d);
        assert_eq!(lane.due(d), MonoNs(5_050_000_000), "a standstill grants at most a whole deadline");
        assert_eq!(lane.judge(raw(1, 5_010_000_000), MonoNs(5_020_000_000), &BEATS), Ok(true));
        assert_eq!((lane.due(d), lane.granted_ns()), (MonoNs(5_060_000_000), 0));
    }
}
