//! One child instance: its state, and what is remembered across states.

use multus_ipc::MonoNs;
use multus_ipc::heartbeat::LANES;
use multus_ipc::status::FaultTimes;
use multus_ipc::words::{FaultKind, StateCode};

use crate::checkpoint::Tracker;
use crate::event::{ExitStatus, Job};
use crate::policy::{Beats, Policy};
use crate::watch::Lane;

/// What a child instance is doing. A time exists only in the state that needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not to be started.
    Disabled,
    /// Stopped on request.
    Stopped,
    /// Wants to start; something is missing.
    Blocked(Block),
    /// Waits for its restart delay, and then for its turn.
    Backoff {
        /// End of the delay.
        until: MonoNs,
    },
    /// From the request for a process to ready.
    Starting {
        /// How far it is.
        phase: Start,
        /// When the process was asked for.
        asked: MonoNs,
        /// When it must be ready.
        until: MonoNs,
    },
    /// Ready and watched.
    Running {
        /// Next run of the check; `NEVER` while one runs.
        check_at: MonoNs,
        /// Next run of the periodic hook; `NEVER` while one runs.
        periodic_at: MonoNs,
        /// When earlier failures are forgotten.
        forget_at: MonoNs,
        /// A fault was reported while snoozed; it is not reported again until beats come back.
        overlooked: bool,
    },
    /// On its way down.
    Stopping {
        /// How far it is.
        phase: Phase,
        /// What comes after.
        then: Then,
    },
}

/// What a blocked child waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Its turn; this passes at once when nothing is missing.
    Turn,
    /// The temperature.
    Temperature,
    /// This slot to be ready.
    Slot(usize),
}

/// How far a start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Asked for a process.
    Spawning,
    /// The process exists, but does not run the child's program yet.
    Executing,
    /// The program runs; it has not said that it is ready.
    Waiting,
}

/// How far a stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A process was asked for and the answer is not there yet.
    AwaitSpawn,
    /// Evidence is collected until then at most.
    Evidence(MonoNs),
    /// Asked to stop; killed then.
    Terminating(MonoNs),
    /// Killed; the order is repeated then if the tree is not gone.
    Killing(MonoNs),
    /// The process is gone; this job runs, and is not waited for beyond then.
    Job(Job, MonoNs),
}

/// What comes after a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Restart after the delay of a failure.
    Backoff,
    /// Start again at once.
    Again,
    /// Stay stopped.
    Stopped,
    /// Stay disabled.
    Disabled,
    /// Free the slot.
    Removed,
}

/// A fault that was detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What it was.
    pub kind: FaultKind,
    /// What belongs to that kind, see `docs/abi.md`.
    pub args: [u64; 4],
    /// Its times, as far as they happened.
    pub times: FaultTimes,
    /// Lateness of the loop that was granted before the verdict, ns.
    pub granted_ns: u64,
    /// The child was snoozed.
    pub snoozed: bool,
}

/// One child instance.
#[derive(Clone, Debug)]
pub struct Child {
    /// How it is supervised.
    pub policy: Policy,
    pub(crate) state: State,
    pub(crate) since: MonoNs,
    pub(crate) generation: u32,
    pub(crate) pid: u32,
    pub(crate) wanted: bool,
    pub(crate) was_ready: bool,
    pub(crate) safe: bool,
    pub(crate) failures: u32,
    pub(crate) degraded: bool,
    pub(crate) check_failures: u16,
    pub(crate) faults: u64,
    pub(crate) fault: Option<Fault>,
    /// The fault is not over: outputs are safe because of it.
    pub(crate) recovering: bool,
    pub(crate) snooze_until: Option<MonoNs>,
    pub(crate) exit: Option<ExitStatus>,
    /// The deadline that this process asked for, ns; 0: that of the policy.
    pub(crate) deadline_ns: u64,
    pub(crate) lanes: [Lane; LANES],
    pub(crate) known_lanes: usize,
    pub(crate) checkpoints: Tracker,
}

impl Child {
    pub(crate) fn new(policy: Policy, now: MonoNs) -> Self {
        Self {
            policy,
            state: if policy.enabled { State::Blocked(Block::Turn) } else { State::Disabled },
            since: now,
            generation: 0,
            pid: 0,
            wanted: true,
            was_ready: false,
            safe: false,
            failures: 0,
            degraded: false,
            check_failures: 0,
            faults: 0,
            fault: None,
            recovering: false,
            snooze_until: None,
            exit: None,
            deadline_ns: 0,
            lanes: [Lane::default(); LANES],
            known_lanes: 0,
            checkpoints: Tracker::default(),
        }
    }

    /// The policy has changed, `before` it was another one: what is done to a running process from time to time goes by the new times.
    pub(crate) fn retime(&mut self, before: &Policy, now: MonoNs) {
        let State::Running { check_at, periodic_at, .. } = &mut self.state else { return };
        let interval = |policy: &Policy| (policy.check.map_or(0, |check| check.interval_ns), policy.periodic_ns);
        let (old, new) = (interval(before), interval(&self.policy));
        for (at, old, new) in [(check_at, old.0, new.0), (periodic_at, old.1, new.1)] {
            // One that is under way gets its next time when it ends.
            let is_under_way = old != 0 && *at == MonoNs::NEVER;
            if old != new && !is_under_way {
                *at = if new == 0 { MonoNs::NEVER } else { MonoNs(now.0.saturating_add(new)) };
            }
        }
    }

    /// What it is doing.
    pub fn state(&self) -> State {
        self.state
    }

    /// What it is doing, in one word.
    pub fn state_code(&self) -> StateCode {
        match self.state {
            State::Disabled => StateCode::Disabled,
            State::Stopped => StateCode::Stopped,
            State::Blocked(_) => StateCode::Blocked,
            State::Backoff { .. } => StateCode::Backoff,
            State::Starting { .. } => StateCode::Starting,
            State::Running { .. } => StateCode::Running,
            State::Stopping { .. } => StateCode::Stopping,
        }
    }

    /// Since when.
    pub fn since(&self) -> MonoNs {
        self.since
    }

    /// Number of its present or last process, from 1; 0 before the first.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Its process id; 0 without a process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How its last process ended; `None` while it lives.
    pub fn exit(&self) -> Option<ExitStatus> {
        self.exit
    }

    /// Whether its outputs are forced.
    pub fn is_safe(&self) -> bool {
        self.safe
    }

    /// Whether it keeps failing.
    pub fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// Faults so far.
    pub fn faults(&self) -> u64 {
        self.faults
    }

    /// The last fault.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// End of the snooze.
    pub fn snooze_until(&self) -> Option<MonoNs> {
        self.snooze_until
    }

    /// How beats are judged now.
    pub fn beats(&self) -> Option<Beats> {
        let beats = self.policy.beats?;
        Some(if self.deadline_ns == 0 { beats } else { Beats { deadline_ns: self.deadline_ns, ..beats } })
    }

    /// Lane 0.
    pub fn main_lane(&self) -> &Lane {
        &self.lanes[0]
    }

    /// Whether a process exists or was asked for.
    pub fn is_alive(&self) -> bool {
        match self.state {
            State::Starting { .. } | State::Running { .. } => true,
            State::Stopping { phase, .. } => !matches!(phase, Phase::Job(..)),
            State::Disabled | State::Stopped | State::Blocked(_) | State::Backoff { .. } => false,
        }
    }

    /// Whether nothing is left to be done before the slot can be left alone.
    pub(crate) fn is_down(&self) -> bool {
        !matches!(self.state, State::Starting { .. } | State::Running { .. } | State::Stopping { .. })
    }

    pub(crate) fn is_snoozed(&self, now: MonoNs) -> bool {
        self.snooze_until.is_some_and(|until| now < until)
    }
}
