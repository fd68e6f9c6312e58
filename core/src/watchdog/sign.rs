//! The sign of life that the watch loop leaves behind for those who pet the watchdogs, and what they make of it.
//!
//! ```text
//! word    bits 16..64: when the loop last was on time, CLOCK_MONOTONIC in steps of 65536 ns
//!         bits  0..16: 0 all critical children are in order; else 1 + slot of one that is out of order for too long
//! ```

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use multus_ipc::MonoNs;
use multus_ipc::time::duration_ns;

/// What the threads that have to do with watchdogs share. Every word stands for itself: nothing else is read on the strength
/// of it, so relaxed order does.
#[derive(Debug)]
pub struct Sign {
    word: AtomicU64,
    pace_ns: AtomicU64,
    decision: AtomicU8,
    hold_until: AtomicU64,
    farewell: AtomicU8,
}

/// What the control thread says about the child that is out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Decision {
    /// Nothing yet.
    Open = 0,
    /// It is written down: the machine may be reset.
    Withhold = 1,
    /// The machine was reset too often: it is petted all the same.
    Forgive = 2,
}

/// How the threads part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Farewell {
    /// Not yet.
    None = 0,
    /// Multusd ends in good order: the watchdogs are switched off, as far as they can be.
    Disarm = 1,
    /// The machine is to go down, and did not: the watchdogs are left to it.
    Leave = 2,
}

/// Whether to pet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Pet,
    /// The loop has not watched yet.
    NotYet,
    /// The loop is not on time.
    Late,
    /// A critical child, that of this slot, is out of order for too long.
    Child(usize),
}

/// The control thread may take so long for writing down why the machine will be reset. Longer than a disk that works needs.
pub const WRITING: Duration = Duration::from_secs(2);

impl Sign {
    /// Nobody has signed yet.
    pub fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            pace_ns: AtomicU64::new(u64::MAX),
            decision: AtomicU8::new(0),
            hold_until: AtomicU64::new(0),
            farewell: AtomicU8::new(0),
        }
    }

    /// The watch loop was on time at `now`; `culprit` is the slot of a critical child that is out of order for too long.
    ///
    /// # Real time
    /// One store.
    pub fn on_time(&self, now: MonoNs, culprit: Option<usize>) {
        let slot = culprit.map_or(0, |slot| u64::try_from(slot + 1).unwrap_or(SLOT).min(SLOT));
        self.word.store(now.0 & !SLOT | slot, Ordering::Relaxed);
    }

    /// How often the watch loop has to sign, ns; `u64::MAX` when nobody reads it.
    ///
    /// # Real time
    /// One load.
    pub fn pace_ns(&self) -> u64 {
        self.pace_ns.load(Ordering::Relaxed)
    }

    /// The watch loop is to sign this often, from its next turn on.
    pub fn set_pace(&self, pace: Option<Duration>) {
        self.pace_ns.store(pace.map_or(u64::MAX, duration_ns), Ordering::Relaxed);
    }

    /// What the control thread has decided.
    pub fn decide(&self, decision: Decision) {
        self.decision.store(decision as u8, Ordering::Relaxed);
    }

    /// Whatever the watch loop does: pet until then. For the time in which the machine goes down.
    pub fn hold_until(&self, until: MonoNs) {
        self.hold_until.store(until.0, Ordering::Relaxed);
    }

    /// The end of petting; the keeper must be woken.
    pub fn part(&self, farewell: Farewell) {
        self.farewell.store(farewell as u8, Ordering::Relaxed);
    }

    /// Whether the end has come.
    pub fn farewell(&self) -> Farewell {
        match self.farewell.load(Ordering::Relaxed) {
            0 => Farewell::None,
            1 => Farewell::Disarm,
            _ => Farewell::Leave,
        }
    }

    pub(super) fn look(&self) -> Look {
        Look {
            word: self.word.load(Ordering::Relaxed),
            decision: match self.decision.load(Ordering::Relaxed) {
                0 => Decision::Open,
                1 => Decision::Withhold,
                _ => Decision::Forgive,
            },
            hold_until: MonoNs(self.hold_until.load(Ordering::Relaxed)),
        }
    }
}

impl Default for Sign {
    fn default() -> Self {
        Self::new()
    }
}

/// What was seen in one look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    word: u64,
    decision: Decision,
    hold_until: MonoNs,
}

/// The judge: remembers only since when a decision is waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Judge {
    open_since: Option<MonoNs>,
}

impl Judge {
    /// To be called with every look, before [`Self::verdict`].
    pub(super) fn see(&mut self, look: Look, now: MonoNs) {
        let is_open = look.word & SLOT != 0 && look.decision == Decision::Open;
        self.open_since = is_open.then(|| self.open_since.unwrap_or(now));
    }

    /// Whether a watchdog that takes a sign of this age is to be petted.
    pub(super) fn verdict(&self, look: Look, now: MonoNs, max_age: Duration) -> Verdict {
        let (time, slot) = (look.word & !SLOT, look.word & SLOT);
        if now < look.hold_until {
            return Verdict::Pet;
        }
        if time == 0 {
            return Verdict::NotYet;
        }
        if now.since(MonoNs(time)) > max_age {
            return Verdict::Late;
        }
        let waits = self.open_since.is_some_and(|since| now.since(since) < WRITING);
        match (usize::try_from(slot), look.decision) {
            (Ok(0) | Err(_), _) | (_, Decision::Forgive) => Verdict::Pet,
            (_, Decision::Open) if waits => Verdict::Pet,
            (Ok(slot), _) => Verdict::Child(slot - 1),
        }
    }
}

const SLOT: u64 = 0xffff;

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_millis(160);

    fn ms(ms: u64) -> MonoNs {
        MonoNs(ms * 1_000_000)
    }

    fn verdict(sign: &Sign, judge: &mut Judge, now: MonoNs) -> Verdict {
        let look = sign.look();
        judge.see(look, now);
        judge.verdict(look, now, AGE)
    }

    #[test]
    fn only_a_fresh_sign_is_petted_for() {
        let (sign, mut judge) = (Sign::new(), Judge::default());
        assert_eq!(verdict(&sign, &mut judge, ms(5000)), Verdict::NotYet);
        sign.on_time(ms(10_000), None);
        for (now, expected) in [
            (10_000, Verdict::Pet),
            (10_159, Verdict::Pet),
            (10_161, Verdict::Late),
            (9_999, Verdict::Pet), // read a little before it was written
            (900_000, Verdict::Late),
        ] {
            assert_eq!(verdict(&sign, &mut judge, ms(now)), expected, "at {now} ms");
        }
        sign.hold_until(ms(20_000));
        assert_eq!(verdict(&sign, &mut judge, ms(19_999)), Verdict::Pet, "while the machine goes down");
        assert_eq!(verdict(&sign, &mut judge, ms(20_000)), Verdict::Late);
    }

    #[test]
    fn a_child_out_of_order_counts_when_it_is_written_down_or_writing_takes_too_long() {
        let (sign, mut judge) = (Sign::new(), Judge::default());
        let mut at = |now, decision, culprit| {
            sign.on_time(ms(now), culprit);
            sign.decide(decision);
            verdict(&sign, &mut judge, ms(now))
        };
        assert_eq!(at(1000, Decision::Open, None), Verdict::Pet);
        assert_eq!(at(1100, Decision::Open, Some(7)), Verdict::Pet, "not written down yet");
        assert_eq!(at(1200, Decision::Withhold, Some(7)), Verdict::Child(7));
        assert_eq!(at(1300, Decision::Withhold, None), Verdict::Pet, "it came back");
        assert_eq!(at(2000, Decision::Open, Some(0)), Verdict::Pet);
        assert_eq!(at(3999, Decision::Open, Some(0)), Verdict::Pet);
        assert_eq!(at(4001, Decision::Open, Some(0)), Verdict::Child(0), "the control thread is stuck");
        assert_eq!(at(4100, Decision::Forgive, Some(0)), Verdict::Pet);
    }
}
