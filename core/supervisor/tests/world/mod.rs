//! A simulated world: processes, a launcher, outputs and a clock that only the test moves. It also is the judge: every
//! effect that breaks an invariant of the supervisor panics here.
#![allow(dead_code, unreachable_pub, reason = "shared by several test programs, each of which uses a part")]

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;

use multus_ipc::MonoNs;
use multus_ipc::checkpoint;
use multus_ipc::heartbeat::RawBeat;
use multus_ipc::words::{EventKind, FaultKind, StateCode};
use multus_supervisor::{Child, Command, Event, ExitStatus, Job, JobResult, Policy, Settings, Supervisor, World};

pub const MS: u64 = 1_000_000;
pub const S: u64 = 1_000 * MS;

/// How a simulated process behaves once its program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Ready after 3 ms, beats every 10 ms.
    Good,
    /// Never ready.
    Mute,
    /// The program is missing.
    Missing,
    /// Exits with code 1 after 1 ms.
    Short,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    None,
    Asked,
    Alive,
    Dead,
}

/// The checkpoints of a page. A copy begins anew, as the page of the next process does.
#[derive(Debug)]
pub struct CheckpointPage(pub Vec<AtomicU64>, checkpoint::Plan);

impl CheckpointPage {
    pub fn new(plan: &checkpoint::Plan) -> Self {
        let words = plan.words().iter().copied().chain(std::iter::repeat(0));
        Self(words.take(checkpoint::WORDS).map(AtomicU64::new).collect(), plan.clone())
    }
}

impl Clone for CheckpointPage {
    fn clone(&self) -> Self {
        Self::new(&self.1)
    }
}

#[derive(Clone, Debug)]
pub struct Slot {
    pub process: Process,
    pub generation: u32,
    pub nature: Nature,
    pub hanging: bool,
    pub ignores_stop: bool,
    pub raw: RawBeat,
    pub ready: bool,
    pub whole: bool,
    pub outputs_safe: bool,
    pub faulty: bool,
    pub born: u64,
    pub executed: bool,
    pub next_beat: u64,
    pub dies_at: u64,
    pub spawns: u32,
    pub removed: bool,
    pub checkpoints: CheckpointPage,
    /// Further lanes: each with the beats of its own, and how many of them the page tells of.
    pub more: Vec<RawBeat>,
    pub told: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub slot: Option<usize>,
    pub kind: EventKind,
    pub fault: Option<FaultKind>,
    pub at: u64,
    pub args: [u64; 4],
}

/// Everything outside the supervisor.
#[derive(Debug)]
pub struct Sim {
    pub now: u64,
    pub slots: Vec<Slot>,
    pub answers: VecDeque<(u64, Event)>,
    pub records: Vec<Record>,
    pub latency: u64,
    pub job_result: JobResult,
    pub jobs: Vec<(usize, Job)>,
    pub kills: Vec<usize>,
    pub evidence: u32,
    pub finished: bool,
    /// Set by the driver before each call: who must not be started now.
    pub forbidden: Vec<bool>,
}

pub struct World0 {
    pub sup: Supervisor,
    pub sim: Sim,
}

impl World0 {
    pub fn new(policies: &[Policy], settings: Settings) -> Self {
        let slot = Slot {
            process: Process::None,
            generation: 0,
            nature: Nature::Good,
            hanging: false,
            ignores_stop: false,
            raw: RawBeat::default(),
            ready: false,
            whole: true,
            outputs_safe: false,
            faulty: false,
            born: 0,
            executed: false,
            next_beat: u64::MAX,
            dies_at: u64::MAX,
            spawns: 0,
            removed: false,
            checkpoints: CheckpointPage::new(&checkpoint::Plan::default()),
            more: Vec::new(),
            told: 0,
        };
        let sim = Sim {
            now: S,
            slots: vec![slot; policies.len()],
            answers: VecDeque::new(),
            records: Vec::new(),
            latency: MS / 2,
            job_result: JobResult::Good,
            jobs: Vec::new(),
            kills: Vec::new(),
            evidence: 0,
            finished: false,
            forbidden: vec![false; policies.len()],
        };
        let mut world = Self { sup: Supervisor::new(policies.len(), settings, 42), sim };
        for (slot, policy) in policies.iter().enumerate() {
            world.configure(slot, *policy, false);
        }
        world
    }

    pub fn configure(&mut self, slot: usize, policy: Policy, restart: bool) {
        let now = MonoNs(self.sim.now);
        self.sup.configure(slot, policy, restart, now, &mut self.sim).unwrap();
        self.check();
    }

    pub fn command(&mut self, slot: usize, command: Command) {
        let now = MonoNs(self.sim.now);
        let _ = self.sup.command(slot, command, now, &mut self.sim);
        self.check();
    }

    pub fn event(&mut self, event: Event) {
        let now = MonoNs(self.sim.now);
        self.sup.handle(event, now, &mut self.sim);
        self.check();
    }

    pub fn state(&self, slot: usize) -> StateCode {
        self.sup.child(slot).map_or(StateCode::Disabled, Child::state_code)
    }

    pub fn kinds(&self, slot: usize) -> Vec<EventKind> {
        self.sim.records.iter().filter(|r| r.slot == Some(slot)).map(|r| r.kind).collect()
    }

    pub fn faults(&self, slot: usize) -> Vec<FaultKind> {
        self.sim
            .records
            .iter()
            .filter(|r| r.slot == Some(slot) && r.kind == EventKind::Fault)
            .filter_map(|r| r.fault)
            .collect()
    }

    /// Lets the world go on for `ns`, waking the supervisor exactly when it asked for it.
    pub fn advance(&mut self, ns: u64) {
        let end = self.sim.now + ns;
        let mut wakes = (0, 0);
        loop {
            let supervisor = self.sup.next_deadline().0.max(self.sim.now);
            let next = self.sim.next_happening().min(supervisor).min(end);
            self.sim.now = next.max(self.sim.now);
            self.sim.live();
            while let Some(event) = self.sim.due_answer() {
                self.event(event);
            }
            if self.sup.next_deadline().0 <= self.sim.now {
                wakes = if wakes.0 == self.sim.now { (wakes.0, wakes.1 + 1) } else { (self.sim.now, 0) };
                assert!(wakes.1 < 1000, "it wakes again and again, and no time goes by");
                self.sup.handle_timeout(MonoNs(self.sim.now), &mut self.sim);
                self.check();
            }
            if self.sim.now >= end {
                return;
            }
        }
    }

    /// Everything stands still for `ns`, processes included; then the supervisor wakes first.
    pub fn stand_still(&mut self, ns: u64) {
        self.sim.now += ns;
        for slot in &mut self.sim.slots {
            if slot.next_beat != u64::MAX {
                slot.next_beat += ns;
            }
        }
        self.sup.handle_timeout(MonoNs(self.sim.now), &mut self.sim);
        self.check();
    }

    /// Invariants that can be seen between two calls.
    fn check(&mut self) {
        for (i, slot) in self.sim.slots.iter().enumerate() {
            let Some(child) = self.sup.child(i) else { continue };
            if !matches!(child.state_code(), StateCode::Running) && !slot.outputs_safe {
                panic!("slot {i} is {} with released outputs", child.state_code());
            }
            if child.state_code() == StateCode::Running && !slot.ready && child.policy.beats.is_some() {
                panic!("slot {i} runs without being ready");
            }
            assert_eq!(child.is_safe(), slot.outputs_safe, "slot {i}");
        }
    }
}

impl Sim {
    fn next_happening(&self) -> u64 {
        let answer = self.answers.iter().map(|(at, _)| *at).min().unwrap_or(u64::MAX);
        let life = self.slots.iter().filter(|s| s.process == Process::Alive).flat_map(|s| [s.next_beat, s.dies_at]);
        life.chain([answer]).min().unwrap_or(u64::MAX)
    }

    fn due_answer(&mut self) -> Option<Event> {
        let index = self.answers.iter().position(|(at, _)| *at <= self.now)?;
        self.answers.remove(index).map(|(_, event)| event)
    }

    /// What processes do by themselves up to now.
    fn live(&mut self) {
        for i in 0..self.slots.len() {
            let now = self.now;
            let slot = &mut self.slots[i];
            if slot.process != Process::Alive {
                continue;
            }
            if slot.dies_at <= now {
                self.die(i, ExitStatus::Code(1));
                continue;
            }
            if slot.next_beat <= now {
                if !slot.hanging {
                    slot.raw = RawBeat { sequence: slot.raw.sequence + 1, time: MonoNs(now) };
                    slot.ready = true;
                }
                slot.next_beat = now + 10 * MS;
            }
        }
    }

    pub fn die(&mut self, i: usize, status: ExitStatus) {
        let slot = &mut self.slots[i];
        if slot.process != Process::Alive {
            return;
        }
        slot.process = Process::Dead;
        slot.next_beat = u64::MAX;
        slot.dies_at = u64::MAX;
        let generation = slot.generation;
        if !slot.executed {
            // The shell hands over the launcher's report before the exit.
            self.answers.retain(|(_, e)| !matches!(e, Event::Executed { slot, .. } if *slot == i));
            self.answer(0, Event::Executed { slot: i, generation });
        }
        self.answer(0, Event::Exited { slot: i, generation, status });
    }

    fn answer(&mut self, after: u64, event: Event) {
        self.answers.push_back((self.now + after, event));
    }
}

impl World for Sim {
    fn look(&self, slot: usize, lane: usize, now: MonoNs) -> (RawBeat, MonoNs) {
        let slot = &self.slots[slot];
        (if lane == 0 { slot.raw } else { slot.more[lane - 1] }, now)
    }

    fn lanes(&self, slot: usize) -> usize {
        1 + self.slots[slot].told
    }

    fn has_left(&self, _slot: usize, _lane: usize) -> bool {
        false
    }

    fn lane_deadline_ns(&self, _slot: usize, _lane: usize) -> Option<u64> {
        None
    }

    fn checkpoints(&self, slot: usize) -> checkpoint::Reader<'_> {
        checkpoint::Reader::new(&self.slots[slot].checkpoints.0)
    }

    fn is_ready(&self, slot: usize) -> bool {
        self.slots[slot].ready
    }

    fn is_whole(&self, slot: usize) -> bool {
        self.slots[slot].whole
    }

    fn force_safe(&mut self, slot: usize) -> MonoNs {
        self.slots[slot].outputs_safe = true;
        MonoNs(self.now)
    }

    fn release_outputs(&mut self, slot: usize) {
        let s = &mut self.slots[slot];
        assert!(s.process == Process::Alive || s.process == Process::Dead, "outputs released without a process");
        s.outputs_safe = false;
    }

    fn spawn(&mut self, i: usize, generation: u32) {
        let slot = &mut self.slots[i];
        assert_eq!(slot.process, Process::None, "a second process in slot {i}");
        assert!(slot.outputs_safe, "slot {i} starts with released outputs");
        assert!(!self.forbidden[i], "slot {i} starts while blocked");
        assert!(generation > slot.generation, "generations rise");
        slot.generation = generation;
        slot.process = Process::Asked;
        slot.spawns += 1;
        slot.raw = RawBeat::default();
        slot.checkpoints = slot.checkpoints.clone();
        slot.ready = false;
        slot.whole = true;
        slot.hanging = false;
        slot.executed = false;
        slot.faulty = false;
        let latency = self.latency;
        self.answer(latency, Event::Spawned { slot: i, generation, pid: 1000 + generation });
        let then = match self.slots[i].nature {
            Nature::Missing => Event::ExecFailed { slot: i, generation, step: 9, errno: 2 },
            _ => Event::Executed { slot: i, generation },
        };
        self.answer(2 * latency, then);
        let now = self.now;
        let slot = &mut self.slots[i];
        slot.process = Process::Alive;
        slot.born = now;
        (slot.next_beat, slot.dies_at) = match slot.nature {
            Nature::Good => (now + 2 * latency + 3 * MS, u64::MAX),
            Nature::Mute | Nature::Missing => (u64::MAX, u64::MAX),
            Nature::Short => (u64::MAX, now + 2 * latency + MS),
        };
    }

    fn collect_evidence(&mut self, slot: usize, generation: u32, ended: bool) {
        self.evidence += 1;
        if !ended {
            self.answer(3 * self.latency, Event::EvidenceCollected { slot, generation });
        }
    }

    fn ask_to_stop(&mut self, i: usize, generation: u32) {
        let slot = &self.slots[i];
        assert_eq!(slot.generation, generation);
        if slot.process == Process::Alive && !slot.ignores_stop && !slot.hanging {
            self.die(i, ExitStatus::Signal(15, false));
        }
    }

    fn kill_tree(&mut self, i: usize, generation: u32) {
        let slot = &mut self.slots[i];
        assert!(slot.outputs_safe, "slot {i} is killed with released outputs");
        assert_eq!(slot.generation, generation);
        self.kills.push(i);
        slot.next_beat = u64::MAX;
        slot.dies_at = u64::MAX;
        // The old process is gone only when the answer comes; until then a spawn would be a second one.
        slot.process = Process::None;
        let at = MonoNs(self.now);
        self.answers
            .retain(|(_, e)| !matches!(e, Event::Executed { slot, .. } | Event::Exited { slot, .. } if *slot == i));
        let latency = self.latency;
        self.answer(latency, Event::Killed { slot: i, generation, at });
        self.answer(2 * latency, Event::TreeGone { slot: i, generation, at: MonoNs(at.0 + 2 * latency) });
    }

    fn run(&mut self, slot: usize, generation: u32, job: Job) {
        self.jobs.push((slot, job));
        let result = self.job_result;
        self.answer(self.latency, Event::JobDone { slot, generation, job, result });
    }

    fn cancel_jobs(&mut self, slot: usize) {
        self.answers.retain(|(_, e)| !matches!(e, Event::JobDone { slot: s, .. } if *s == slot));
    }

    fn record(&mut self, child: Option<(usize, &Child)>, kind: EventKind, args: [u64; 4]) {
        let (slot, fault) = match child {
            Some((slot, child)) => (Some(slot), child.fault().map(|f| f.kind)),
            None => (None, None),
        };
        self.records.push(Record { slot, kind, fault, at: self.now, args });
    }

    fn changed(&mut self, _slot: usize) {}

    fn removed(&mut self, slot: usize) {
        self.slots[slot].removed = true;
    }

    fn finished(&mut self) {
        assert!(self.slots.iter().all(|s| s.process == Process::None), "finished with live processes");
        self.finished = true;
    }
}
