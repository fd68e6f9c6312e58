//! The public view of a slot: what the status page says about it.

use multus_ipc::status::{FaultTimes, SlotRecord, flag};
use multus_ipc::text::{Name, Text};
use multus_ipc::words::FaultKind;
use multus_supervisor::{Block, Child, Fault, State};

/// What the watch thread knows of a slot beyond the supervisor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SlotView {
    pub(super) name: Name,
    pub(super) instance: u32,
    pub(super) generation: u32,
    pub(super) pid: u32,
    pub(super) outputs: usize,
    pub(super) watched: bool,
    pub(super) evidence: Text<24>,
    pub(super) fault_about: Text<8>,
    pub(super) fault_unix: u64,
    pub(super) fault_last_beat: u64,
    /// What evidence would be about: when the fault was detected; 0 for a warning.
    pub(super) evidence_about: u64,
    pub(super) evidence_of_silence: bool,
    pub(super) interval_ns: [u64; 3],
}

impl SlotView {
    /// A process was asked for.
    pub(super) fn begin(&mut self, generation: u32) {
        self.generation = generation;
        self.interval_ns = [0; 3];
    }

    /// What the child is now.
    pub(super) fn take(&mut self, child: &Child) {
        self.pid = child.pid();
    }

    /// A fault was detected.
    pub(super) fn new_fault(&mut self, fault: &Fault, unix: u64) {
        self.evidence = Text::EMPTY;
        self.fault_unix = unix;
        self.fault_last_beat = fault.times.last_beat;
        self.evidence_about = fault.times.detected;
        self.evidence_of_silence = fault.kind == FaultKind::Hang;
    }

    /// The record for the status page.
    pub(super) fn record(&mut self, child: Option<&Child>) -> SlotRecord {
        let Some(child) = child else {
            self.watched = false;
            return SlotRecord::FREE;
        };
        self.take(child);
        self.watched = matches!(child.state(), State::Running { .. }) && child.policy.beats.is_some();
        let set = |on: bool, bit: u64| if on { bit } else { 0 };
        let lane = child.main_lane();
        let fault = child.fault();
        SlotRecord {
            name: self.name,
            instance: self.instance,
            generation: child.generation(),
            pid: child.pid(),
            state: child.state_code(),
            flags: set(child.is_safe(), flag::SAFE_STATE)
                | set(child.is_degraded(), flag::DEGRADED)
                | set(child.snooze_until().is_some(), flag::SNOOZED)
                | set(child.policy.enabled, flag::ENABLED),
            since_mono: child.since().0,
            restarts: u64::from(child.generation().saturating_sub(1)),
            deadline_ns: child.beats().map_or(0, |b| b.deadline_ns),
            last_beat_mono: if lane.beats() > 0 { lane.last().0 } else { 0 },
            beats: lane.beats(),
            interval_ns: self.interval_ns,
            snooze_until_mono: child.snooze_until().map_or(0, |t| t.0),
            restart_at_mono: if let State::Backoff { until } = child.state() { until.0 } else { 0 },
            blocked_by: match child.state() {
                State::Blocked(Block::Temperature) => 1,
                State::Blocked(Block::Slot(slot)) => 2 + slot as u64,
                _ => 0,
            },
            faults: child.faults(),
            fault: fault.map(|f| f.kind),
            fault_args: fault.map_or([0; 4], |f| f.args),
            fault_unix: self.fault_unix,
            fault_times: fault.map_or(FaultTimes::default(), |f| f.times),
            evidence: self.evidence.resized(),
            fault_about: self.fault_about,
        }
    }
}
