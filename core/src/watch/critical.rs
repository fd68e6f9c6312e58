//! Which critical children are in order, and the sign of life for those who pet the watchdogs.

use std::sync::Arc;
use std::time::Duration;

use multus_ipc::MonoNs;
use multus_supervisor::{Block, State, Supervisor, Then};

use super::Reply;
use crate::watchdog::Sign;

/// All critical children, on the watch thread.
#[derive(Debug)]
pub(super) struct Critical {
    sign: Arc<Sign>,
    slots: Vec<Slot>,
    /// Slots with a critical child.
    listed: Vec<usize>,
    culprit: Option<usize>,
    sign_at: MonoNs,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// How long it may be out of order, ns; 0: it is not critical.
    recovery_ns: u64,
    /// `NEVER`: it is in order.
    out_since: MonoNs,
    /// It was out of order for longer than it may be, and is not in order yet.
    is_overdue: bool,
}

impl Slot {
    const NONE: Self = Self { recovery_ns: 0, out_since: MonoNs::NEVER, is_overdue: false };
}

/// How a critical child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// It need not run now: a person or the temperature wants it so.
    Off,
    /// It runs since then.
    Runs(MonoNs),
    /// It should run, and does not.
    Out,
}

/// Who runs for so long again is in order, or for half of its recovery time: a child that crashes every second is not.
const STEADY: Duration = Duration::from_secs(10);

impl Critical {
    pub(super) fn new(sign: Arc<Sign>, slots: usize) -> Self {
        Self {
            sign,
            slots: vec![Slot::NONE; slots],
            listed: Vec::with_capacity(slots),
            culprit: None,
            sign_at: MonoNs::NEVER,
        }
    }

    /// When the next sign is due.
    pub(super) fn next(&self) -> MonoNs {
        self.sign_at
    }

    /// The child in this slot is critical, or with 0 it is not.
    pub(super) fn set(&mut self, slot: usize, recovery_ns: u64, tell: &mut impl FnMut(Reply)) {
        let Some(place) = self.slots.get_mut(slot) else { return };
        if place.out_since != MonoNs::NEVER && recovery_ns == 0 {
            tell(Reply::InOrder { slot });
        }
        *place = if recovery_ns == 0 { Slot::NONE } else { Slot { recovery_ns, ..*place } };
        // Within the capacity: a slot is listed once.
        self.listed.retain(|listed| *listed != slot);
        if recovery_ns > 0 {
            self.listed.push(slot);
        }
    }

    /// Looks at all critical children and signs. `now` is the beginning of the turn, so that its own length counts as age.
    ///
    /// # Real time
    /// O(critical children); one load and one store.
    pub(super) fn turn(
        &mut self,
        now: MonoNs,
        supervisor: &Supervisor,
        is_stopping: bool,
        tell: &mut impl FnMut(Reply),
    ) {
        let mut culprit = None;
        for &slot in &self.listed {
            let condition = if is_stopping { Condition::Off } else { condition(supervisor, slot) };
            let place = &mut self.slots[slot];
            let was_out = place.out_since != MonoNs::NEVER;
            place.judge(condition, now);
            let is_out = place.out_since != MonoNs::NEVER;
            match (was_out, is_out) {
                (false, true) => tell(Reply::OutOfOrder { slot, since: place.out_since }),
                (true, false) => tell(Reply::InOrder { slot }),
                _ => {}
            }
            // The same one as before for as long as it lasts.
            if place.is_overdue && (culprit.is_none() || self.culprit == Some(slot)) {
                culprit = Some(slot);
            }
        }
        if self.culprit != culprit {
            self.culprit = culprit;
            tell(Reply::Culprit(culprit));
        }
        self.sign.on_time(now, culprit);
        let pace = self.sign.pace_ns();
        self.sign_at = MonoNs(now.0.saturating_add(pace));
    }
}

impl Slot {
    fn judge(&mut self, condition: Condition, now: MonoNs) {
        let steady = (self.recovery_ns / 2).min(multus_ipc::time::duration_ns(STEADY));
        match condition {
            Condition::Off => (self.out_since, self.is_overdue) = (MonoNs::NEVER, false),
            Condition::Runs(since) if now.0 >= since.0.saturating_add(steady) => {
                (self.out_since, self.is_overdue) = (MonoNs::NEVER, false);
            }
            Condition::Runs(_) => {}
            Condition::Out => {
                self.out_since = self.out_since.min(now);
                self.is_overdue |= now.0.saturating_sub(self.out_since.0) > self.recovery_ns;
            }
        }
    }
}

fn condition(supervisor: &Supervisor, slot: usize) -> Condition {
    let Some(child) = supervisor.child(slot) else { return Condition::Off };
    if supervisor.is_too_hot() || child.snooze_until().is_some() {
        return Condition::Off;
    }
    match child.state() {
        State::Running { .. } => Condition::Runs(child.since()),
        State::Blocked(Block::Slot(other)) if waits_for_one_that_is_off(supervisor, other) => Condition::Off,
        state if is_off(state) => Condition::Off,
        _ => Condition::Out,
    }
}

fn is_off(state: State) -> bool {
    matches!(
        state,
        State::Disabled
            | State::Stopped
            | State::Blocked(Block::Temperature)
            | State::Stopping { then: Then::Stopped | Then::Disabled | Then::Removed, .. }
    )
}

/// Whether the child for which another one waits, or one for which that waits, is off. `after` has no circles.
fn waits_for_one_that_is_off(supervisor: &Supervisor, mut slot: usize) -> bool {
    for _ in 0..supervisor.slots() {
        match supervisor.child(slot).map(multus_supervisor::Child::state) {
            Some(State::Blocked(Block::Slot(other))) => slot = other,
            Some(state) => return is_off(state),
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(s: u64) -> MonoNs {
        MonoNs(s * 1_000_000_000)
    }

    #[test]
    fn the_recovery_time_counts_from_the_first_fault_until_it_runs_steadily() {
        let mut slot = Slot { recovery_ns: s(60).0, ..Slot::NONE };
        // (when, how it is, out of order, for too long)
        for (at, condition, out, overdue) in [
            (100, Condition::Out, true, false),
            (150, Condition::Out, true, false),
            (155, Condition::Runs(s(155)), true, false),
            (161, Condition::Runs(s(155)), true, false), // the time is over, but it runs
            (162, Condition::Out, true, true),           // again
            (163, Condition::Runs(s(163)), true, true),
            (172, Condition::Runs(s(163)), true, true),
            (173, Condition::Runs(s(163)), false, false),
            (200, Condition::Out, true, false),
            (260, Condition::Out, true, false),
            (261, Condition::Out, true, true),
            (262, Condition::Off, false, false), // a person stops or snoozes it
        ] {
            slot.judge(condition, s(at));
            assert_eq!((slot.out_since != MonoNs::NEVER, slot.is_overdue), (out, overdue), "at {at} s");
        }
    }

    #[test]
    fn a_child_that_crashes_again_and_again_is_found_although_it_runs_in_between() {
        let mut slot = Slot { recovery_ns: s(20).0, ..Slot::NONE };
        let mut found = None;
        for at in 0..100 {
            let condition = if at % 5 == 0 { Condition::Out } else { Condition::Runs(s(at - at % 5 + 1)) };
            slot.judge(condition, s(at));
            if slot.is_overdue {
                found.get_or_insert(at);
            }
        }
        assert_eq!(found, Some(25));
    }
}
