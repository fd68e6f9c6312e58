//! Who has the outputs: multus-io, or the guard, which writes the safe values itself when multus-io does not. Pure: what was
//! seen goes in, what is to be done comes out.
//!
//! ```text
//!             its process exists                ready
//! Guarded ------------------------> Handed -------------> Driving
//!    ^  ^                             |                      |
//!    |  +--- it failed or ended ------+                      |
//!    +------ it failed or ended, or did not put forced ------+
//!            outputs into force in time: kill it, secure
//! ```

use multus_ipc::MonoNs;
use multus_ipc::io::Forced;
use multus_supervisor::{Child, Phase, State};

/// Who has the outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// There are no outputs.
    Nobody,
    /// The guard holds the safe values.
    Guarded,
    /// multus-io starts: the guard has let go, so that it can take the lines.
    Handed,
    /// multus-io drives them.
    Driving,
}

/// What multus-io does, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scanner {
    /// It has no process that may touch a line, or must not touch one any more.
    Down,
    /// Its process exists and is not ready.
    Starts,
    /// It is ready, or was asked to stop and has not ended yet.
    Drives,
}

impl Scanner {
    /// Of the child that runs multus-io.
    pub(super) fn of(child: Option<&Child>) -> Self {
        let Some(child) = child.filter(|child| child.exit().is_none() && child.pid() != 0) else { return Self::Down };
        match child.state() {
            State::Running { .. } | State::Stopping { phase: Phase::Terminating(_), .. } => Self::Drives,
            State::Starting { .. } => Self::Starts,
            _ => Self::Down,
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// The guard lets go of the lines.
    LetGo,
    /// Kill multus-io if it has a process, and let the guard write the safe values.
    Secure,
    /// The same, and multus-io is faulty: forced outputs are not in force for so many ns.
    Accuse(u64),
    /// Forced outputs could not be written: so many.
    Unsafe(u64),
    /// They are again.
    Safe,
}

/// Forced outputs that are not acknowledged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Awaited {
    /// The change counter that must be acknowledged.
    changes: u64,
    since: MonoNs,
    /// multus-io has tried, and the hardware did not obey: that is told once.
    is_told: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outputs {
    holder: Holder,
    awaited: Option<Awaited>,
    ack_ns: u64,
    /// From time to time what could not be written is looked at again.
    look_at: MonoNs,
    /// This generation of multus-io gets nothing any more: it was killed.
    accused: Option<u32>,
}

/// From look to look at outputs that the hardware does not let be written.
const LOOK_AGAIN_NS: u64 = 100_000_000;

impl Outputs {
    /// Without lines.
    pub(super) const fn none() -> Self {
        Self { holder: Holder::Nobody, awaited: None, ack_ns: 0, look_at: MonoNs::NEVER, accused: None }
    }

    /// There are lines, to be put into force so soon, or none any more. A multus-io that drives them goes on.
    pub(super) fn configure(&mut self, ack_ns: Option<u64>) -> Option<Act> {
        self.ack_ns = ack_ns.unwrap_or_default();
        match (ack_ns, self.holder) {
            (None, _) => (self.holder, self.awaited) = (Holder::Nobody, None),
            (Some(_), Holder::Handed | Holder::Driving) => {}
            (Some(_), Holder::Nobody | Holder::Guarded) => {
                self.holder = Holder::Guarded;
                return Some(Act::Secure);
            }
        }
        None
    }

    /// Whether multusd itself holds the safe values.
    #[cfg(test)]
    fn is_guarded(&self) -> bool {
        self.holder == Holder::Guarded
    }

    /// When [`Self::look`] must be called, at the latest.
    pub(super) fn next(&self) -> MonoNs {
        match self.awaited {
            Some(Awaited { is_told: true, .. }) => self.look_at,
            Some(awaited) => MonoNs(awaited.since.0.saturating_add(self.ack_ns)),
            None => MonoNs::NEVER,
        }
    }

    /// Looks at what multus-io does. `changes` of the force page; `acknowledged` and `forced` as the image says.
    ///
    /// # Real time
    /// Comparisons.
    pub(super) fn look(
        &mut self,
        now: MonoNs,
        (scanner, generation): (Scanner, u32),
        changes: u64,
        acknowledged: u64,
        forced: &Forced,
    ) -> Option<Act> {
        match (self.holder, scanner) {
            (Holder::Nobody, _) => None,
            (Holder::Guarded, Scanner::Down) => {
                // It is gone; another child may begin with the same number.
                self.accused = None;
                None
            }
            (Holder::Guarded, _) if self.accused == Some(generation) => None,
            (Holder::Guarded, Scanner::Starts | Scanner::Drives) => {
                self.holder = Holder::Handed;
                Some(Act::LetGo)
            }
            (Holder::Handed | Holder::Driving, Scanner::Down) => {
                (self.holder, self.awaited) = (Holder::Guarded, None);
                Some(Act::Secure)
            }
            (Holder::Handed, Scanner::Starts) => None,
            (Holder::Handed | Holder::Driving, _) => {
                self.holder = Holder::Driving;
                let act = self.judge(now, changes, acknowledged, forced);
                if matches!(act, Some(Act::Accuse(_))) {
                    (self.holder, self.awaited, self.accused) = (Holder::Guarded, None, Some(generation));
                }
                act
            }
        }
    }

    fn judge(&mut self, now: MonoNs, changes: u64, acknowledged: u64, forced: &Forced) -> Option<Act> {
        // Counters never differ by much: the sign tells which is ahead.
        let reaches = |counter: u64, wanted: u64| counter.wrapping_sub(wanted).cast_signed() >= 0;
        let was_told = self.awaited.is_some_and(|awaited| awaited.is_told);
        if self.awaited.is_some_and(|awaited| reaches(acknowledged, awaited.changes)) {
            self.awaited = None;
            if was_told {
                return Some(Act::Safe);
            }
        }
        if self.awaited.is_none() && !reaches(acknowledged, changes) {
            self.awaited = Some(Awaited { changes, since: now, is_told: false });
        }
        let awaited = self.awaited.as_mut()?;
        if now.0 < awaited.since.0.saturating_add(self.ack_ns) {
            return None;
        }
        // It did what it could: killing it would not make a chip answer, and would disturb all other lines.
        let has_tried = reaches(forced.changes, awaited.changes) && forced.unwritten == forced.failing;
        if has_tried {
            self.look_at = MonoNs(now.0.saturating_add(LOOK_AGAIN_NS));
            return (!std::mem::replace(&mut awaited.is_told, true)).then_some(Act::Unsafe(forced.unwritten));
        }
        Some(Act::Accuse(now.0.saturating_sub(awaited.since.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK: u64 = 5_000_000;

    struct World {
        outputs: Outputs,
        now: u64,
        changes: u64,
        acknowledged: u64,
        forced: Forced,
        generation: u32,
    }

    impl World {
        fn new() -> Self {
            let mut outputs = Outputs::none();
            assert_eq!(outputs.configure(Some(ACK)), Some(Act::Secure));
            Self { outputs, now: 1_000_000_000, changes: 7, acknowledged: 0, forced: Forced::default(), generation: 1 }
        }

        fn driving() -> Self {
            let mut world = Self::new();
            assert_eq!(world.look(Scanner::Starts), Some(Act::LetGo));
            world.acknowledge();
            assert_eq!(world.look(Scanner::Drives), None);
            world
        }

        fn look(&mut self, scanner: Scanner) -> Option<Act> {
            let now = MonoNs(self.now);
            self.outputs.look(now, (scanner, self.generation), self.changes, self.acknowledged, &self.forced)
        }

        fn acknowledge(&mut self) {
            self.acknowledged = self.changes;
            self.forced = Forced { changes: self.changes, ..Forced::default() };
        }
    }

    #[test]
    fn the_guard_lets_go_when_multus_io_starts_and_secures_when_it_ends() {
        let mut world = World::new();
        assert_eq!(world.look(Scanner::Down), None);
        assert_eq!(world.look(Scanner::Starts), Some(Act::LetGo));
        assert_eq!(world.look(Scanner::Starts), None, "nothing is to be acknowledged before it is ready");
        assert_eq!(world.look(Scanner::Down), Some(Act::Secure), "it died while it started");
        assert!(world.outputs.is_guarded());
        let mut world = World::driving();
        assert_eq!(world.look(Scanner::Down), Some(Act::Secure));
        assert_eq!(world.look(Scanner::Down), None, "once");
    }

    #[test]
    fn forced_outputs_that_are_not_acknowledged_in_time_accuse_multus_io() {
        let mut world = World::driving();
        assert_eq!(world.outputs.next(), MonoNs::NEVER);
        world.changes += 1;
        assert_eq!(world.look(Scanner::Drives), None);
        assert_eq!(world.outputs.next(), MonoNs(world.now + ACK));
        world.now += ACK - 1;
        world.changes += 1;
        assert_eq!(world.look(Scanner::Drives), None, "a further change does not move the time");
        world.now += 1;
        assert_eq!(world.look(Scanner::Drives), Some(Act::Accuse(ACK)));
        assert_eq!(world.look(Scanner::Drives), None, "it is killed, and gets nothing back");
        assert_eq!(world.look(Scanner::Down), None, "the guard has the outputs already");
        assert_eq!(world.outputs.next(), MonoNs::NEVER);
        assert_eq!(world.look(Scanner::Starts), Some(Act::LetGo), "the next one does, whatever its number");
    }

    #[test]
    fn lines_that_are_read_again_leave_a_multus_io_that_drives_alone() {
        let mut world = World::driving();
        assert_eq!(world.outputs.configure(Some(2 * ACK)), None);
        assert_eq!(world.look(Scanner::Down), Some(Act::Secure));
        assert_eq!(world.outputs.configure(Some(ACK)), Some(Act::Secure), "the guard writes the new ones");
        assert_eq!(world.outputs.configure(None), None);
        assert_eq!(world.look(Scanner::Starts), None);
    }

    #[test]
    fn what_is_acknowledged_in_time_is_forgotten_and_the_next_change_has_its_own_time() {
        let mut world = World::driving();
        world.changes += 1;
        assert_eq!(world.look(Scanner::Drives), None);
        world.acknowledge();
        world.changes += 1;
        world.now += ACK;
        assert_eq!(world.look(Scanner::Drives), None);
        assert_eq!(world.outputs.next(), MonoNs(world.now + ACK));
    }

    #[test]
    fn a_chip_that_does_not_answer_is_told_and_kills_nobody() {
        let mut world = World::driving();
        world.changes += 1;
        assert_eq!(world.look(Scanner::Drives), None);
        world.now += ACK;
        world.forced = Forced { changes: world.changes, unwritten: 2, failing: 2, unknown: 0 };
        assert_eq!(world.look(Scanner::Drives), Some(Act::Unsafe(2)));
        world.now = world.outputs.next().0;
        assert_eq!(world.look(Scanner::Drives), None, "once");
        world.acknowledge();
        assert_eq!(world.look(Scanner::Drives), Some(Act::Safe));
    }

    #[test]
    fn one_that_is_still_at_it_when_the_time_is_over_is_accused_although_another_line_fails() {
        let mut world = World::driving();
        world.changes += 1;
        assert_eq!(world.look(Scanner::Drives), None);
        world.now += ACK;
        world.forced = Forced { changes: world.changes, unwritten: 2, failing: 1, unknown: 0 };
        assert_eq!(world.look(Scanner::Drives), Some(Act::Accuse(ACK)));
    }

    #[test]
    fn one_that_was_asked_to_stop_still_has_to_obey() {
        let mut world = World::driving();
        world.changes += 1;
        assert_eq!(world.look(Scanner::Drives), None);
        world.now += ACK;
        assert_eq!(world.look(Scanner::Drives), Some(Act::Accuse(ACK)), "a stop is no excuse");
    }

    #[test]
    fn counters_may_wrap() {
        let mut world = World::driving();
        (world.changes, world.acknowledged) = (1, u64::MAX);
        assert_eq!(world.look(Scanner::Drives), None);
        world.acknowledge();
        assert_eq!(world.look(Scanner::Drives), None);
        assert_eq!(world.outputs.next(), MonoNs::NEVER);
    }
}
