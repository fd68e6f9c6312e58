//! The table of children and every transition.

use core::mem;

use multus_ipc::MonoNs;
use multus_ipc::heartbeat::LANES;
use multus_ipc::status::FaultTimes;
use multus_ipc::words::{EventKind, FaultKind};

use crate::checkpoint;
use crate::child::{Block, Child, Fault, Phase, Start, State, Then};
use crate::deadlines::Deadlines;
use crate::event::{Command, Event, ExitStatus, Job, JobResult, Refusal, Told, World};
use crate::policy::{EdgePolicy, Policy, Settings, switched};
use crate::watch::{Corruption, Lane, Violation};

/// Lateness below this is the ordinary latency of a timer, and granted to nobody.
const LATE_NS: u64 = 1_000_000;
/// Between two events about lateness.
const LATE_TELL_NS: u64 = 1_000_000_000;
/// A kill that did not end the tree (a process in uninterruptible sleep) is repeated this often.
const KILL_AGAIN_NS: u64 = 1_000_000_000;
/// A job whose end is not reported this long after its own time limit is not waited for any longer.
const JOB_GRACE_NS: u64 = 1_000_000_000;
/// The least deadline, whoever asks for it; the configuration has the same limit.
const LEAST_DEADLINE_NS: u64 = 1_000_000;
/// While a child starts, its page is looked at after an eighth of the time it has taken so far, within these limits:
/// ready is seen at most 12.5 % late, and nothing needs to wake the loop.
const READY_LOOK_NS: (u64, u64) = (500_000, 50_000_000);

/// The supervisor of all children. See the crate's page for how to drive it.
#[derive(Debug)]
pub struct Supervisor {
    children: Vec<Option<Child>>,
    deadlines: Deadlines,
    settings: Settings,
    random: u64,
    /// Whether the temperature allows children to run; `None` before the first reading.
    warm: Option<bool>,
    stopping: bool,
    finished: bool,
    /// Something changed that may let a child start.
    pump: bool,
    /// When lateness was last told about.
    late_told: MonoNs,
}

impl Supervisor {
    /// A supervisor with room for `slots` children. `seed` drives the jitter of restart delays. The only allocation.
    pub fn new(slots: usize, settings: Settings, seed: u64) -> Self {
        Self {
            children: (0..slots).map(|_| None).collect(),
            deadlines: Deadlines::new(slots),
            settings,
            random: seed | 1,
            warm: if settings.temperature.is_some() { None } else { Some(true) },
            stopping: false,
            finished: false,
            pump: false,
            late_told: MonoNs(0),
        }
    }

    /// The child in a slot.
    pub fn child(&self, slot: usize) -> Option<&Child> {
        self.children.get(slot)?.as_ref()
    }

    /// Number of slots, free ones included.
    pub fn slots(&self) -> usize {
        self.children.len()
    }

    /// Whether the temperature keeps all children down.
    pub fn is_too_hot(&self) -> bool {
        self.warm == Some(false)
    }

    /// Takes over new settings for all children. A temperature range that was switched off lets everybody run.
    pub fn set_settings(&mut self, settings: Settings, now: MonoNs, world: &mut impl World) {
        self.settings = settings;
        if settings.temperature.is_none() {
            self.warm = Some(true);
        }
        self.pump = true;
        self.run_pump(now, world);
    }

    /// When [`Self::handle_timeout`] must be called. Changes with every call that takes `&mut self`.
    pub fn next_deadline(&self) -> MonoNs {
        if self.pump { MonoNs(0) } else { self.deadlines.next() }
    }

    /// Puts a child into a slot, or gives the child there a new policy. A new child's outputs are forced safe at once,
    /// and it starts as soon as it may. With `restart`, a running process is stopped in good order and started anew;
    /// else the new policy holds for the process that runs.
    ///
    /// # Errors
    /// `Unknown` for a slot outside the table.
    pub fn configure(
        &mut self,
        slot: usize,
        policy: Policy,
        restart: bool,
        now: MonoNs,
        world: &mut impl World,
    ) -> Result<(), Refusal> {
        let place = self.children.get_mut(slot).ok_or(Refusal::Unknown)?;
        let Some(child) = place else {
            *place = Some(Child::new(policy, now));
            self.force_safe(slot, world);
            self.record(slot, EventKind::Added, [0; 4], world);
            self.settle(slot, now, world);
            self.pump = true;
            return Ok(());
        };
        let before = mem::replace(&mut child.policy, policy);
        child.retime(&before, now);
        if before.enabled != policy.enabled {
            child.wanted = true;
            self.record(slot, switched(policy.enabled), [0; 4], world);
        }
        if !policy.enabled {
            self.stop(slot, Then::Disabled, now, world);
        } else if self.kid(slot).state == State::Disabled {
            self.enter(slot, State::Blocked(Block::Turn), now, world);
        } else if let State::Stopping { phase, then: Then::Disabled } = self.kid(slot).state {
            self.enter(slot, State::Stopping { phase, then: Then::Again }, now, world);
        } else if restart {
            self.restart(slot, now, world);
        } else {
            self.settle(slot, now, world);
        }
        // What it waited for may be none of its needs any more.
        self.pump = true;
        Ok(())
    }

    /// Obeys a person.
    ///
    /// # Errors
    /// Why not.
    pub fn command(
        &mut self,
        slot: usize,
        command: Command,
        now: MonoNs,
        world: &mut impl World,
    ) -> Result<(), Refusal> {
        let child = self.children.get_mut(slot).and_then(Option::as_mut).ok_or(Refusal::Unknown)?;
        if self.stopping {
            return Err(Refusal::ShuttingDown);
        }
        match command {
            Command::Start | Command::Restart if !child.policy.enabled => return Err(Refusal::Disabled),
            Command::Start => {
                child.wanted = true;
                match child.state {
                    State::Stopped => {
                        child.failures = 0;
                        self.enter(slot, State::Blocked(Block::Turn), now, world);
                    }
                    State::Backoff { .. } => self.enter(slot, State::Backoff { until: now }, now, world),
                    State::Stopping { phase, then: Then::Stopped } => {
                        self.enter(slot, State::Stopping { phase, then: Then::Again }, now, world);
                    }
                    _ => {}
                }
            }
            Command::Restart => {
                child.wanted = true;
                self.restart(slot, now, world);
            }
            Command::Stop => self.stop(slot, Then::Stopped, now, world),
            Command::Remove => self.stop(slot, Then::Removed, now, world),
            Command::Snooze(until) if until <= now => self.end_snooze(slot, now, world),
            Command::Snooze(until) => {
                child.snooze_until = Some(until);
                world.changed(slot);
                self.record(slot, EventKind::SnoozeStarted, [until.0 - now.0, 0, 0, 0], world);
                self.settle(slot, now, world);
            }
        }
        Ok(())
    }

    /// Takes in what happened. Events of a generation that is no longer there are ignored.
    pub fn handle(&mut self, event: Event, now: MonoNs, world: &mut impl World) {
        match event {
            Event::Spawned { slot, generation, pid } => {
                if self.is_present(slot, generation) {
                    self.spawned(slot, pid, now, world);
                }
            }
            Event::SpawnFailed { slot, generation, errno } => {
                if self.is_present(slot, generation) {
                    self.spawn_failed(slot, errno, now, world);
                }
            }
            Event::Executed { slot, generation } => {
                if self.is_present(slot, generation) {
                    self.executed(slot, now, world);
                }
            }
            Event::ExecFailed { slot, generation, step, errno } => {
                let starting = |c: &Child| matches!(c.state, State::Starting { .. });
                if self.is_present(slot, generation) && starting(self.kid(slot)) {
                    // The process is ending by itself; there is nobody to ask for evidence.
                    self.kid_mut(slot).exit = Some(ExitStatus::Code(127));
                    let args = [u64::from(step), u64::from(errno.unsigned_abs()), 0, 0];
                    self.fault(slot, Verdict::new(FaultKind::ExecFailed, args), now, world);
                }
            }
            Event::Exited { slot, generation, status } => {
                if self.is_present(slot, generation) {
                    self.exited(slot, status, now, world);
                }
            }
            Event::EvidenceCollected { slot, generation } => {
                if self.is_present(slot, generation)
                    && matches!(self.kid(slot).state, State::Stopping { phase: Phase::Evidence(_), .. })
                {
                    self.kill(slot, now, world);
                }
            }
            Event::Killed { slot, generation, at } => {
                if self.is_present(slot, generation)
                    && matches!(self.kid(slot).state, State::Stopping { phase: Phase::Killing(_), .. })
                {
                    let child = self.kid_mut(slot);
                    note(child, |times| times.killed = first(times.killed, at));
                }
            }
            Event::TreeGone { slot, generation, at } => {
                if self.is_present(slot, generation)
                    && matches!(self.kid(slot).state, State::Stopping { phase: Phase::Killing(_), .. })
                {
                    let child = self.kid_mut(slot);
                    child.pid = 0;
                    note(child, |times| times.reaped = first(times.reaped, at));
                    self.next_job(slot, None, now, world);
                }
            }
            Event::JobDone { slot, generation, job, result } => {
                if self.is_present(slot, generation) {
                    self.job_done(slot, job, result, now, world);
                }
            }
            Event::Told { slot, generation, told } => {
                if self.is_present(slot, generation) {
                    self.told(slot, told, now, world);
                }
            }
            Event::Temperature(reading) => self.temperature(reading, now, world),
            Event::Shutdown => self.shutdown(now, world),
        }
        self.run_pump(now, world);
    }

    /// Decides everything whose time has come. `now` is the first thing read after waking.
    ///
    /// # Real time
    /// O(slots) plus one look for each child that is due.
    pub fn handle_timeout(&mut self, now: MonoNs, world: &mut impl World) {
        let late = now.0.saturating_sub(self.deadlines.next().0);
        if late >= LATE_NS {
            self.grant(late, now, world);
        }
        let mut from = 0;
        while let Some(slot) = self.deadlines.first_due(from, now) {
            self.attend(slot, now, world);
            from = slot + 1;
            if from >= self.children.len() {
                break;
            }
        }
        self.run_pump(now, world);
    }

    // ---- time -------------------------------------------------------------------------------------------------------

    fn attend(&mut self, slot: usize, now: MonoNs, world: &mut impl World) {
        let Some(child) = self.child(slot) else {
            self.deadlines.set(slot, MonoNs::NEVER, MonoNs::NEVER);
            return;
        };
        if child.snooze_until.is_some_and(|until| until <= now) {
            self.end_snooze(slot, now, world);
        }
        match self.kid(slot).state {
            State::Running { .. } => self.attend_running(slot, now, world),
            State::Starting { phase: Start::Waiting, asked, until } => {
                self.attend_starting(slot, asked, until, now, world);
            }
            State::Starting { until, .. } if now >= until => self.startup_timeout(slot, now, world),
            State::Backoff { until } if now >= until => self.pump = true,
            State::Stopping { phase: Phase::Evidence(until) | Phase::Terminating(until), .. } if now >= until => {
                self.kill(slot, now, world);
            }
            State::Stopping { phase: Phase::Killing(again), then } if now >= again => {
                world.kill_tree(slot, self.kid(slot).generation);
                let phase = Phase::Killing(MonoNs(now.0.saturating_add(KILL_AGAIN_NS)));
                self.kid_mut(slot).state = State::Stopping { phase, then };
            }
            State::Stopping { phase: Phase::Job(job, until), .. } if now >= until => {
                world.cancel_jobs(slot);
                self.job_done(slot, job, JobResult::TimedOut, now, world);
            }
            _ => {}
        }
        if self.child(slot).is_some() {
            self.settle(slot, now, world);
        }
    }

    fn attend_running(&mut self, slot: usize, now: MonoNs, world: &mut impl World) {
        if !self.look(slot, now, world) {
            return;
        }
        let generation = self.kid(slot).generation;
        let State::Running { check_at, periodic_at, forget_at, overlooked } = self.kid(slot).state else { return };
        let (mut check_at, mut periodic_at, mut forget_at) = (check_at, periodic_at, forget_at);
        if now >= check_at {
            world.run(slot, generation, Job::Check);
            check_at = MonoNs::NEVER;
        }
        if now >= periodic_at {
            world.run(slot, generation, Job::Periodic);
            periodic_at = MonoNs::NEVER;
        }
        if now >= forget_at {
            forget_at = MonoNs::NEVER;
            self.forget_failures(slot, world);
        }
        self.kid_mut(slot).state = State::Running { check_at, periodic_at, forget_at, overlooked };
    }

    /// Looks at all lanes of a running child. False when that made it leave `Running`.
    fn look(&mut self, slot: usize, now: MonoNs, world: &mut impl World) -> bool {
        let child = self.kid_mut(slot);
        let Some(beats) = child.beats() else { return true };
        if !world.is_whole(slot) && !child.is_snoozed(now) {
            let (kind, args) = describe(Violation::Corrupt(Corruption::Header, 0), 0, 0);
            self.beat_fault(slot, kind, args, 0, now, world);
            return false;
        }
        // A fault that was overlooked in a snooze is not reported again while it lasts.
        let overlooked = child.is_snoozed(now) && matches!(child.state, State::Running { overlooked: true, .. });
        let mut silent = false;
        let mut warned = None;
        // A lane that was seen is watched until it has left: a page that tells of fewer later silences nothing.
        for lane in 0..world.lanes(slot).min(LANES).max(child.known_lanes) {
            let (raw, seen) = world.look(slot, lane, now);
            if lane >= child.known_lanes {
                child.lanes[lane] = Lane::joining(raw, now);
                child.known_lanes = lane + 1;
            }
            if lane > 0 && world.has_left(slot, lane) {
                continue;
            }
            match child.lanes[lane].judge(raw, seen, &beats) {
                Ok(_) => {}
                Err(violation) => {
                    silent = true;
                    if overlooked {
                        continue;
                    }
                    let (kind, args) = describe(violation, lane, beats.min_interval_ns);
                    self.beat_fault(slot, kind, args, lane, now, world);
                    return self.is_running(slot);
                }
            }
            let deadline = lane_deadline(world, slot, lane, beats.deadline_ns);
            if now < child.lanes[lane].due(deadline) {
                if now >= child.lanes[lane].warn_at(&beats) {
                    child.lanes[lane].set_warned();
                    warned.get_or_insert((lane, now.since(child.lanes[lane].last()).as_nanos() as u64));
                }
                continue;
            }
            silent = true;
            if overlooked {
                continue;
            }
            let args = [now.since(child.lanes[lane].last()).as_nanos() as u64, deadline, lane as u64, 0];
            self.beat_fault(slot, FaultKind::Hang, args, lane, now, world);
            return self.is_running(slot);
        }
        if !overlooked && child.policy.checkpoints.sections > 0 {
            let what = child.policy.checkpoints;
            if let Some(violation) = child.checkpoints.judge(world.checkpoints(slot), now, &what) {
                let (kind, args) = describe_checkpoint(violation);
                self.beat_fault(slot, kind, args, 0, now, world);
                return self.is_running(slot);
            }
        }
        let (generation, still_overlooked) = (child.generation, silent);
        if let Some((lane, silence)) = warned {
            self.record(slot, EventKind::Warned, [silence, beats.warn_ns, lane as u64, 0], world);
            world.collect_evidence(slot, generation, false);
        }
        let child = self.kid_mut(slot);
        if !still_overlooked && let State::Running { overlooked: true, check_at, periodic_at, forget_at } = child.state
        {
            child.state = State::Running { overlooked: false, check_at, periodic_at, forget_at };
            self.record(slot, EventKind::Resumed, [0; 4], world);
            self.release(slot, world);
        }
        true
    }

    fn beat_fault(
        &mut self,
        slot: usize,
        kind: FaultKind,
        args: [u64; 4],
        lane: usize,
        now: MonoNs,
        world: &mut impl World,
    ) {
        let child = self.kid(slot);
        let last = child.lanes[lane].last();
        let deadline = match (kind, child.beats()) {
            (FaultKind::Hang, _) => last.0.saturating_add(args[1]),
            (FaultKind::CheckpointLate, _) => now.0.saturating_sub(args[0]).saturating_add(args[1]),
            _ => 0,
        };
        let times = FaultTimes { last_beat: last.0, deadline, ..FaultTimes::default() };
        self.fault(slot, Verdict { kind, args, times }, now, world);
    }

    fn attend_starting(&mut self, slot: usize, asked: MonoNs, until: MonoNs, now: MonoNs, world: &mut impl World) {
        let Some(beats) = self.kid(slot).beats() else {
            self.became_ready(slot, now, now, world);
            return;
        };
        if !world.is_whole(slot) {
            let (kind, args) = describe(Violation::Corrupt(Corruption::Header, 0), 0, 0);
            self.beat_fault(slot, kind, args, 0, now, world);
            return;
        }
        let (raw, seen) = world.look(slot, 0, now);
        let said_ready = world.is_ready(slot);
        let child = self.kid_mut(slot);
        match child.lanes[0].judge(raw, seen, &beats) {
            Err(violation) => {
                let (kind, args) = describe(violation, 0, beats.min_interval_ns);
                self.beat_fault(slot, kind, args, 0, now, world);
            }
            Ok(beaten) if beaten || said_ready => {
                let at = if beaten { child.lanes[0].last() } else { now };
                self.became_ready(slot, at.max(asked), now, world);
            }
            Ok(_) if now >= until => self.startup_timeout(slot, now, world),
            Ok(_) => {}
        }
    }

    fn startup_timeout(&mut self, slot: usize, now: MonoNs, world: &mut impl World) {
        let State::Starting { asked, until, phase } = self.kid(slot).state else { return };
        if phase == Start::Spawning {
            // The launcher has not answered; it is watched itself. There is no process to judge yet.
            self.kid_mut(slot).state = State::Starting { asked, until: MonoNs::NEVER, phase };
            return;
        }
        let args = [now.since(asked).as_nanos() as u64, self.kid(slot).policy.startup_ns, 0, 0];
        let times = FaultTimes { deadline: until.0, ..FaultTimes::default() };
        self.fault(slot, Verdict { kind: FaultKind::StartupTimeout, args, times }, now, world);
    }

    fn grant(&mut self, late: u64, now: MonoNs, world: &mut impl World) {
        let mut granted = 0u64;
        for slot in 0..self.children.len() {
            let Some(child) = &mut self.children[slot] else { continue };
            match &mut child.state {
                State::Running { .. } => {
                    let Some(beats) = child.beats() else { continue };
                    for lane in 0..child.known_lanes {
                        let deadline = lane_deadline(world, slot, lane, beats.deadline_ns);
                        // The grant counts from the last beat there is, not from the last one looked at. What is
                        // wrong with it comes out in this round's look.
                        let (raw, seen) = world.look(slot, lane, now);
                        let _ = child.lanes[lane].judge(raw, seen, &beats);
                        child.lanes[lane].grant(now, late, deadline);
                    }
                    child.checkpoints.grant(now, late, &child.policy.checkpoints);
                    granted += 1;
                }
                State::Starting { until, .. } | State::Stopping { phase: Phase::Terminating(until), .. } => {
                    *until = MonoNs(until.0.saturating_add(late));
                    granted += 1;
                }
                _ => continue,
            }
            // The new times come from what was just changed: attend to it in this very round.
            self.deadlines.set(slot, MonoNs(0), MonoNs(0));
        }
        // A machine that is late all the time is told about once a second.
        if granted > 0 && now.0.saturating_sub(self.late_told.0) >= LATE_TELL_NS {
            self.late_told = now;
            world.record(None, EventKind::LateWakeup, [late, granted, 0, 0]);
        }
    }

    /// Sets the slot's timer from its state. Every path that changes a state ends here.
    fn settle(&mut self, slot: usize, now: MonoNs, world: &mut impl World) {
        let child = self.kid(slot);
        let (early, at) = match child.state {
            State::Disabled | State::Stopped => (MonoNs::NEVER, MonoNs::NEVER),
            State::Blocked(_) => (MonoNs::NEVER, MonoNs::NEVER),
            State::Backoff { until } => {
                // Past its delay it waits for its turn; the pump knows.
                if until <= now { (MonoNs::NEVER, MonoNs::NEVER) } else { (until, until) }
            }
            State::Starting { phase: Start::Waiting, asked, until } => {
                let (least, most) = READY_LOOK_NS;
                let step = (now.0.saturating_sub(asked.0) / 8).clamp(least, most);
                let at = MonoNs(now.0.saturating_add(step)).min(until);
                (at, at)
            }
            State::Starting { until, .. } => (until, until),
            State::Running { check_at, periodic_at, forget_at, overlooked } => {
                let mut at = check_at.min(periodic_at).min(forget_at);
                let mut early = at;
                if let Some(beats) = child.beats() {
                    for lane in 0..child.known_lanes {
                        if lane > 0 && world.has_left(slot, lane) {
                            continue;
                        }
                        let deadline = lane_deadline(world, slot, lane, beats.deadline_ns);
                        let mut due = child.lanes[lane].due(deadline);
                        if overlooked && due <= now {
                            due = MonoNs(now.0.saturating_add(deadline));
                        }
                        let mut warn_at = child.lanes[lane].warn_at(&beats);
                        if overlooked && warn_at <= now {
                            // Nobody is warned of what is overlooked.
                            warn_at = MonoNs::NEVER;
                        }
                        at = at.min(due).min(warn_at);
                        early = early.min(warn_at);
                        // Whoever wakes in the last quarter of a deadline looks; see `deadlines`.
                        early = early.min(MonoNs(due.0.saturating_sub(deadline / 4)));
                    }
                    if child.policy.checkpoints.sections > 0 {
                        let what = &child.policy.checkpoints;
                        let due = child.checkpoints.due(world.checkpoints(slot), now, what);
                        // What is overlooked stays overdue: no reason to look without a pause.
                        let due = if due > now { due } else { MonoNs(now.0.saturating_add(LEAST_DEADLINE_NS)) };
                        (at, early) = (at.min(due), early.min(due));
                    }
                }
                (early, at)
            }
            State::Stopping { phase, .. } => match phase {
                Phase::AwaitSpawn => (MonoNs::NEVER, MonoNs::NEVER),
                Phase::Evidence(t) | Phase::Terminating(t) | Phase::Killing(t) | Phase::Job(_, t) => (t, t),
            },
        };
        let snooze = child.snooze_until.unwrap_or(MonoNs::NEVER);
        let window = match child.state {
            // The end of its start window may let another child start.
            State::Starting { asked, .. } => {
                let end = MonoNs(asked.0.saturating_add(self.settings.start_window_ns));
                if end > now { end } else { MonoNs::NEVER }
            }
            _ => MonoNs::NEVER,
        };
        if matches!(child.state, State::Starting { .. }) && window == MonoNs::NEVER {
            self.pump = true;
        }
        self.deadlines.set(slot, early.min(snooze).min(window), at.min(snooze).min(window));
    }

    // ---- starting ---------------------------------------------------------------------------------------------------

    /// Starts whoever may start. Runs after every event, does something only when something changed.
    fn run_pump(&mut self, now: MonoNs, world: &mut impl World) {
        if !mem::take(&mut self.pump) {
            return;
        }
        if self.stopping {
            self.pump_shutdown(now, world);
            return;
        }
        let mut busy = self.children.iter().flatten().filter(|c| self.counts_as_starting(c, now)).count();
        for slot in 0..self.children.len() {
            let Some(child) = self.child(slot) else { continue };
            if !matches!(child.state, State::Blocked(_)) {
                continue;
            }
            let block = self.missing(slot).unwrap_or(Block::Turn);
            if child.state != State::Blocked(block) {
                self.enter(slot, State::Blocked(block), now, world);
                if block != Block::Turn {
                    self.record(slot, EventKind::Blocked, blocked_args(block), world);
                }
            }
        }
        while busy < usize::from(self.settings.simultaneous.max(1)) {
            let Some(slot) = self.next_to_start(now) else { break };
            if let Some(block) = self.missing(slot) {
                self.enter(slot, State::Blocked(block), now, world);
                self.record(slot, EventKind::Blocked, blocked_args(block), world);
                continue;
            }
            self.spawn(slot, now, world);
            busy += 1;
        }
        self.pump = false;
    }

    fn counts_as_starting(&self, child: &Child, now: MonoNs) -> bool {
        matches!(child.state, State::Starting { asked, .. }
            if now.0 < asked.0.saturating_add(self.settings.start_window_ns))
    }

    /// Who has waited longest of those that only wait for their turn.
    fn next_to_start(&self, now: MonoNs) -> Option<usize> {
        let waiting = |child: &Child| match child.state {
            State::Blocked(Block::Turn) => Some(child.since),
            State::Backoff { until } if until <= now => Some(until),
            _ => None,
        };
        (0..self.children.len()).filter_map(|s| Some((waiting(self.child(s)?)?, s))).min().map(|(_, slot)| slot)
    }

    /// What keeps a child from starting.
    fn missing(&self, slot: usize) -> Option<Block> {
        if self.warm != Some(true) {
            return Some(Block::Temperature);
        }
        for edge in self.child(slot)?.policy.after.as_slice() {
            let other = usize::from(edge.slot);
            let Some(needed) = self.child(other) else { continue };
            let ready = matches!(needed.state, State::Running { .. });
            let was_enough = edge.on_restart == EdgePolicy::Ignore && needed.was_ready;
            if !(ready || was_enough) {
                return Some(Block::Slot(other));
            }
        }
        None
    }

    fn spawn(&mut self, slot: usize, now: MonoNs, world: &mut impl World) {
        self.force_safe(slot, world);
        let child = self.kid_mut(slot);
        child.generation = child.generation.wrapping_add(1).max(1);
        child.exit = None;
        child.deadline_ns = 0;
        child.check_failures = 0;
        child.lanes = [Lane::default(); LANES];
        child.lanes[0] = Lane::new(now);
        child.known_lanes = 1;
        child.checkpoints = checkpoint::Tracker::default();
        let until = MonoNs(now.0.saturating_add(child.policy.startup_ns));
        let generation = child.generation;
        self.enter(slot, State::Starting { phase: Start::Spawning, asked: now, until }, now, world);
        world.spawn(slot, generation);
    }

    fn spawned(&mut self, slot: usize, pid: u32, now: MonoNs, world: &mut impl World) {
        let child = self.kid_mut(slot);
        child.pid = pid;
        match child.state {
            State::Starting { phase: Start::Spawning, asked, .. } => {
                note(child, |times| times.spawned = first(times.spawned, now));
                // The start-up time counts from the process on, not from the request for it.
                let until = MonoNs(now.0.saturating_add(child.policy.startup_ns));
                child.state = State::Starting { phase: Start::Executing, asked, until };
                world.changed(slot);
                self.record(slot, EventKind::Spawned, [0; 4], world);
                self.settle(slot, now, world);
            }
            State::Stopping { phase: Phase::AwaitSpawn, then } => self.ask_to_stop(slot, then, now, world),
            _ => {}
        }
    }

    fn spawn_failed(&mut self, slot: usize, errno: i32, now: MonoNs, world: &mut impl World) {
        match self.kid(slot).state {
            State::Starting { phase: Start::Spawning, .. } => {
                let args = [u64::from(errno.unsigned_abs()), 0, 0, 0];
                self.report(slot, Verdict::new(FaultKind::SpawnFailed, args), now, world);
                self.kid_mut(slot).state = State::Stopping { phase: Phase::AwaitSpawn, then: Then::Backoff };
                self.next_job(slot, None, now, world);
            }
            State::Stopping { phase: Phase::AwaitSpawn, .. } => self.next_job(slot, None, now, world),
            _ => {}
        }
    }

    fn executed(&mut self, slot: usize, now: MonoNs, world: &mut impl World) {
        let State::Starting { phase: Start::Executing, asked, until } = self.kid(slot).state else { return };
        self.kid_mut(slot).state = State::Starting { phase: Start::Waiting, asked, until };
        if self.kid(slot).policy.beats.is_none() {
            self.became_ready(slot, now, now, world);
        } else {
            self.settle(slot, now, world);
        }
    }

    fn became_ready(&mut self, slot: usize, at: MonoNs, now: MonoNs, world: &mut impl World) {
        let child = self.kid_mut(slot);
        let policy = child.policy;
        child.was_ready = true;
        if child.lanes[0].beats() == 0 {
            child.lanes[0] = Lane::new(now);
        }
        note(child, |times| times.ready = first(times.ready, at));
        let recovered = mem::take(&mut child.recovering);
        let generation = child.generation;
        let running = State::Running {
            check_at: policy.check.map_or(MonoNs::NEVER, |c| {
                MonoNs(now.0.saturating_add(c.start_period_ns).saturating_add(c.interval_ns))
            }),
            periodic_at: in_ns(policy.periodic_ns, now),
            forget_at: if child.failures > 0 { in_ns(policy.forget_after_ns.max(1), now) } else { MonoNs::NEVER },
            overlooked: false,
        };
        self.enter(slot, running, now, world);
        self.release(slot, world);
        self.record(slot, if recovered { EventKind::Recovered } else { EventKind::Ready }, [0; 4], world);
        if policy.after_start {
            world.run(slot, generation, Job::AfterStart);
        }
        self.pump = true;
    }

    // ---- faults -----------------------------------------------------------------------------------------------------

    /// A fault of a child whose process may be alive: safe outputs, record, evidence, kill.
    fn fault(&mut self, slot: usize, verdict: Verdict, now: MonoNs, world: &mut impl World) {
        let child = self.kid(slot);
        let (alive, policy, generation) = (child.exit.is_none(), child.policy, child.generation);
        if alive && child.is_snoozed(now) {
            self.overlook(slot, verdict, now, world);
            return;
        }
        self.report(slot, verdict, now, world);
        world.cancel_jobs(slot);
        if alive && policy.evidence_budget_ns > 0 {
            let until = MonoNs(now.0.saturating_add(policy.evidence_budget_ns));
            self.enter(slot, State::Stopping { phase: Phase::Evidence(until), then: Then::Backoff }, now, world);
            world.collect_evidence(slot, generation, false);
        } else {
            self.enter(slot, State::Stopping { phase: Phase::Evidence(now), then: Then::Backoff }, now, world);
            self.kill(slot, now, world);
            world.collect_evidence(slot, generation, true);
        }
        self.restart_dependants(slot, now, world);
    }

    /// Outputs safe, then the fault on record.
    fn report(&mut self, slot: usize, verdict: Verdict, now: MonoNs, world: &mut impl World) {
        let safe = self.force_safe(slot, world);
        let child = self.kid_mut(slot);
        let times = FaultTimes { detected: now.0, safe: safe.0, ..verdict.times };
        let granted_ns = child.lanes[..child.known_lanes].iter().map(Lane::granted_ns).max().unwrap_or(0);
        child.fault = Some(Fault { kind: verdict.kind, args: verdict.args, times, granted_ns, snoozed: false });
        child.recovering = true;
        child.faults += 1;
        child.failures = child.failures.saturating_add(1);
        let degraded = !child.degraded && child.failures >= u32::from(child.policy.degraded_after.max(1));
        child.degraded |= degraded;
        let failures = u64::from(child.failures);
        self.record(slot, EventKind::Fault, verdict.args, world);
        if degraded {
            self.record(slot, EventKind::Degraded, [failures, 0, 0, 0], world);
        }
    }

    /// A fault while snoozed: reported once, outputs as configured, nobody is killed.
    fn overlook(&mut self, slot: usize, verdict: Verdict, now: MonoNs, world: &mut impl World) {
        let keep = self.kid(slot).policy.keep_outputs_while_snoozed;
        let safe = if keep { None } else { Some(self.force_safe(slot, world)) };
        let child = self.kid_mut(slot);
        child.faults += 1;
        let times = FaultTimes { detected: now.0, safe: safe.map_or(0, |t| t.0), ..verdict.times };
        child.fault = Some(Fault { kind: verdict.kind, args: verdict.args, times, granted_ns: 0, snoozed: true });
        match &mut child.state {
            State::Running { overlooked, .. } => *overlooked = true,
            // A start that takes too long may take until the snooze ends.
            State::Starting { until, .. } => *until = child.snooze_until.unwrap_or(*until),
            _ => {}
        }
        world.changed(slot);
        self.record(slot, EventKind::Fault, verdict.args, world);
        self.settle(slot, now, world);
    }

    fn end_snooze(&mut self, slot: usize, now: MonoNs, world: &mut impl World) {
        let child = self.kid_mut(slot);
        if child.snooze_until.take().is_none() {
            return;
        }
        match &mut child.state {
            State::Running { overlooked: true, .. } => {
                // A fresh deadline from here on: whoever was held in a debugger gets the time to beat.
                let deadline = child.beats().map_or(0, |b| b.deadline_ns);
                for lane in &mut child.lanes[..child.known_lanes] {
                    lane.grant(now, u64::MAX, deadline);
                }
            }
            State::Starting { until, .. } => *until = MonoNs(now.0.saturating_add(child.policy.startup_ns)),
            _ => {}
        }
        world.changed(slot);
        self.record(slot, EventKind::SnoozeEnded, [0; 4], world);
        self.settle(slot, now, world);
    }

    /// What the program says of itself.
    fn told(&mut self, slot: usize, told: Told, now: MonoNs, world: &mut impl World) {
        let child = self.kid_mut(slot);
        let stop_ns = child.policy.stop_timeout_ns;
        match told {
            Told::Trigger => return self.told_fault(slot, FaultKind::Trigger, [0; 4], now, world),
            Told::ControlByte { expected, got } => {
                let args = [u64::from(expected), u64::from(got), 0, 0];
                return self.told_fault(slot, FaultKind::ControlByte, args, now, world);
            }
            Told::Unacknowledged(ns) => {
                return self.told_fault(slot, FaultKind::Unacknowledged, [ns, 0, 0, 0], now, world);
            }
            Told::Deadline(ns) => child.deadline_ns = ns.max(LEAST_DEADLINE_NS),
            Told::Extend(ns) => {
                let extended = MonoNs(now.0.saturating_add(ns));
                if let State::Starting { until, .. } | State::Stopping { phase: Phase::Terminating(until), .. } =
                    &mut child.state
                {
                    *until = extended.max(*until);
                }
            }
            Told::Stopping => {
                let until = MonoNs(now.0.saturating_add(stop_ns));
                child.lanes[..child.known_lanes].iter_mut().for_each(|lane| lane.excuse(until));
            }
            // Without a process there is nobody whom it could stand for.
            Told::Main(pid) if child.pid != 0 => child.pid = pid,
            Told::Main(_) => return,
        }
        world.changed(slot);
        self.settle(slot, now, world);
    }

    /// A fault that somebody else found.
    fn told_fault(&mut self, slot: usize, kind: FaultKind, args: [u64; 4], now: MonoNs, world: &mut impl World) {
        let child = self.kid(slot);
        if matches!(child.state, State::Starting { .. } | State::Running { overlooked: false, .. }) {
            let times = FaultTimes { last_beat: child.lanes[0].last().0, ..FaultTimes::default() };
            self.fault(slot, Verdict { kind, args, times }, now, world);
        }
    }

    fn exited(&mut self, slot: usize, status: ExitStatus, now: MonoNs, world: &mut impl World) {
        let child = self.kid_mut(slot);
        child.exit = Some(status);
        match child.state {
            State::Starting { .. } | State::Running { .. } => {
                let args = match status {
                    ExitStatus::Code(code) => [0, u64::from(code.unsigned_abs()), 0, 0],
                    ExitStatus::Signal(signal, core) => [1, u64::from(signal.unsigned_abs()), u64::from(core), 0],
                    ExitStatus::Unknown => [2, 0, 0, 0],
                };
                // What the page says now is the last beat that this process made.
                if let Some(beats) = child.beats() {
                    let (raw, seen) = world.look(slot, 0, now);
                    let _ = child.lanes[0].judge(raw, seen, &beats);
                }
                let last = if child.lanes[0].beats() > 0 { child.lanes[0].last().0 } else { 0 };
                let times = FaultTimes { last_beat: last, ..FaultTimes::default() };
                self.fault(slot, Verdict { kind: FaultKind::Crash, args, times }, now, world);
            }
            State::Stopping { phase: Phase::Evidence(_) | Phase::Terminating(_), .. } => self.kill(slot, now, world),
            _ => {}
        }
    }

    /// The whole tree, whatever is left of it.
    fn kill(&mut self, slot: usize, now: MonoNs, world: &mut impl World) {
        let State::Stopping { then, .. } = self.kid(slot).state else { return };
        let generation = self.kid(slot).generation;
        let again = MonoNs(now.0.saturating_add(KILL_AGAIN_NS));
        self.enter(slot, State::Stopping { phase: Phase::Killing(again), then }, now, world);
        world.kill_tree(slot, generation);
    }

    // ---- stopping ---------------------------------------------------------------------------------------------------

    /// Brings a child down for good, or until asked again. Wins over a restart that is pending.
    fn stop(&mut self, slot: usize, then: Then, now: MonoNs, world: &mut impl World) {
        let child = self.kid_mut(slot);
        if then == Then::Stopped || then == Then::Removed {
            child.wanted = false;
        }
        match child.state {
            State::Starting { .. } | State::Running { .. } => self.begin_stop(slot, then, now, world),
            State::Stopping { phase, then: before } => {
                // Nothing takes back a removal.
                let then = if before == Then::Removed { before } else { then };
                self.enter(slot, State::Stopping { phase, then }, now, world);
            }
            State::Disabled | State::Stopped | State::Blocked(_) | State::Backoff { .. } => {
                self.down(slot, then, now, world);
            }
        }
    }

    fn restart(&mut self, slot: usize, now: MonoNs, world: &mut impl World) {
        match self.kid(slot).state {
            State::Starting { .. } | State::Running { .. } => self.begin_stop(slot, Then::Again, now, world),
            State::Stopping { then: Then::Removed | Then::Disabled, .. } => {}
            // Whoever was told to stop stays down, whatever becomes of the configuration meanwhile.
            State::Stopping { then: Then::Stopped, .. } if !self.kid(slot).wanted => {}
            State::Stopping { phase, .. } => {
                self.enter(slot, State::Stopping { phase, then: Then::Again }, now, world);
            }
            State::Disabled => {}
            State::Stopped if !self.kid(slot).wanted => {}
            State::Stopped | State::Blocked(_) | State::Backoff { .. } => {
                self.enter(slot, State::Blocked(Block::Turn), now, world);
            }
        }
    }

    fn begin_stop(&mut self, slot: usize, then: Then, now: MonoNs, world: &mut impl World) {
        self.force_safe(slot, world);
        world.cancel_jobs(slot);
        if let State::Starting { phase: Start::Spawning, .. } = self.kid(slot).state {
            self.enter(slot, State::Stopping { phase: Phase::AwaitSpawn, then }, now, world);
        } else {
            self.ask_to_stop(slot, then, now, world);
        }
        if then == Then::Again {
            self.restart_dependants(slot, now, world);
        }
    }

    fn ask_to_stop(&mut self, slot: usize, then: Then, now: MonoNs, world: &mut impl World) {
        let child = self.kid(slot);
        let until = MonoNs(now.0.saturating_add(child.policy.stop_timeout_ns));
        let generation = child.generation;
        self.enter(slot, State::Stopping { phase: Phase::Terminating(until), then }, now, world);
        world.ask_to_stop(slot, generation);
    }

    /// Those who asked to be restarted together with this child.
    fn restart_dependants(&mut self, slot: usize, now: MonoNs, world: &mut impl World) {
        for other in 0..self.children.len() {
            let Some(child) = self.child(other) else { continue };
            let follows =
                |edge: &crate::policy::Edge| usize::from(edge.slot) == slot && edge.on_restart == EdgePolicy::Restart;
            if matches!(child.state, State::Starting { .. } | State::Running { .. })
                && child.policy.after.as_slice().iter().any(follows)
            {
                self.begin_stop(other, Then::Again, now, world);
            }
        }
    }

    /// The process is gone: the safe-state command after a fault, then the hook, then down.
    fn next_job(&mut self, slot: usize, done: Option<Job>, now: MonoNs, world: &mut impl World) {
        let child = self.kid(slot);
        let State::Stopping { then, .. } = child.state else { return };
        let (policy, generation, faulty) = (child.policy, child.generation, child.recovering);
        let job = match done {
            None if faulty && policy.safe_command_ns > 0 => Some((Job::SafeState, policy.safe_command_ns)),
            None | Some(Job::SafeState) if policy.after_stop_ns > 0 => Some((Job::AfterStop, policy.after_stop_ns)),
            _ => None,
        };
        match job {
            Some((job, limit)) => {
                let until = MonoNs(now.0.saturating_add(limit).saturating_add(JOB_GRACE_NS));
                self.enter(slot, State::Stopping { phase: Phase::Job(job, until), then }, now, world);
                world.run(slot, generation, job);
            }
            None => self.down(slot, then, now, world),
        }
    }

    fn job_done(&mut self, slot: usize, job: Job, result: JobResult, now: MonoNs, world: &mut impl World) {
        let good = result == JobResult::Good;
        match (self.kid(slot).state, job) {
            (State::Stopping { phase: Phase::Job(running, _), .. }, _) if running == job => {
                if !good {
                    self.record(slot, EventKind::CommandFailed, job_args(job, result), world);
                }
                self.next_job(slot, Some(job), now, world);
            }
            (State::Running { .. }, Job::Check) => self.checked(slot, result, now, world),
            (State::Running { check_at, forget_at, overlooked, .. }, Job::Periodic) => {
                let periodic_at = in_ns(self.kid(slot).policy.periodic_ns, now);
                self.kid_mut(slot).state = State::Running { check_at, periodic_at, forget_at, overlooked };
                if !good {
                    self.record(slot, EventKind::CommandFailed, job_args(job, result), world);
                }
                self.settle(slot, now, world);
            }
            (_, Job::AfterStart) if !good => {
                self.record(slot, EventKind::CommandFailed, job_args(job, result), world);
            }
            _ => {}
        }
    }

    fn checked(&mut self, slot: usize, result: JobResult, now: MonoNs, world: &mut impl World) {
        let child = self.kid_mut(slot);
        let Some(check) = child.policy.check else { return };
        let State::Running { check_at, .. } = &mut child.state else { return };
        *check_at = MonoNs(now.0.saturating_add(check.interval_ns));
        if result == JobResult::Good {
            child.check_failures = 0;
        } else {
            child.check_failures = child.check_failures.saturating_add(1);
            let failures = child.check_failures;
            let [_, how, number, _] = job_args(Job::Check, result);
            if failures >= check.failures.max(1) {
                child.check_failures = 0;
                let args = [u64::from(failures), how, number, 0];
                self.fault(slot, Verdict::new(FaultKind::CheckFailed, args), now, world);
                return;
            }
            self.record(slot, EventKind::CommandFailed, job_args(Job::Check, result), world);
        }
        self.settle(slot, now, world);
    }

    /// Nothing is left of the process, nor of what had to be done after it.
    fn down(&mut self, slot: usize, then: Then, now: MonoNs, world: &mut impl World) {
        let child = self.kid_mut(slot);
        child.pid = 0;
        match then {
            Then::Removed => {
                self.force_safe(slot, world);
                self.record(slot, EventKind::Removed, [0; 4], world);
                self.children[slot] = None;
                self.deadlines.set(slot, MonoNs::NEVER, MonoNs::NEVER);
                self.pump = true;
                world.removed(slot);
                world.changed(slot);
            }
            Then::Disabled | Then::Stopped => {
                self.forget_failures(slot, world);
                let child = self.kid_mut(slot);
                child.recovering = false;
                let state =
                    if then == Then::Disabled || !child.policy.enabled { State::Disabled } else { State::Stopped };
                if child.state != state {
                    self.enter(slot, state, now, world);
                    self.record(slot, EventKind::Stopped, [0; 4], world);
                }
            }
            Then::Again => self.enter(slot, State::Blocked(Block::Turn), now, world),
            Then::Backoff => {
                let delay = child.policy.delay_ns(child.failures);
                let delay = delay.saturating_add(self.jitter(delay));
                let until = MonoNs(now.0.saturating_add(delay));
                self.enter(slot, State::Backoff { until }, now, world);
                if delay > 0 {
                    self.record(slot, EventKind::Backoff, [delay, 0, 0, 0], world);
                }
            }
        }
        self.pump = true;
    }

    fn forget_failures(&mut self, slot: usize, world: &mut impl World) {
        let child = self.kid_mut(slot);
        child.failures = 0;
        if mem::take(&mut child.degraded) {
            world.changed(slot);
            self.record(slot, EventKind::Healthy, [0; 4], world);
        }
    }

    fn temperature(&mut self, reading: Option<i32>, now: MonoNs, world: &mut impl World) {
        let Some(range) = self.settings.temperature else { return };
        let before = self.warm.replace(range.allows(reading, self.warm.unwrap_or(true)));
        let warm = self.warm == Some(true);
        if before == self.warm {
            return;
        }
        self.pump = true;
        if before.is_none() && warm {
            return;
        }
        let value = reading.map_or(0, |t| (i64::from(t) + (1 << 31)).unsigned_abs());
        let kind = if warm { EventKind::CooledDown } else { EventKind::TooHot };
        world.record(None, kind, [value, 0, 0, 0]);
        if !warm && !self.stopping {
            for slot in 0..self.children.len() {
                if self.child(slot).is_some_and(|c| matches!(c.state, State::Starting { .. } | State::Running { .. })) {
                    self.begin_stop(slot, Then::Again, now, world);
                }
            }
        }
    }

    fn shutdown(&mut self, now: MonoNs, world: &mut impl World) {
        if mem::replace(&mut self.stopping, true) {
            return;
        }
        world.record(None, EventKind::DaemonStopping, [0; 4]);
        for slot in 0..self.children.len() {
            if self.child(slot).is_some_and(|c| c.is_down() || matches!(c.state, State::Stopping { .. })) {
                self.stop(slot, Then::Stopped, now, world);
            }
        }
        self.pump = true;
    }

    /// Stops those whom nobody alive needs any more; finishes when nobody is left.
    fn pump_shutdown(&mut self, now: MonoNs, world: &mut impl World) {
        let mut alive = false;
        for slot in 0..self.children.len() {
            let Some(child) = self.child(slot) else { continue };
            alive |= !child.is_down();
            let needed = |other: &Child| {
                !other.is_down() && other.policy.after.as_slice().iter().any(|e| usize::from(e.slot) == slot)
            };
            if matches!(child.state, State::Starting { .. } | State::Running { .. })
                && !self.children.iter().flatten().any(needed)
            {
                self.begin_stop(slot, Then::Stopped, now, world);
            }
        }
        if !alive && !mem::replace(&mut self.finished, true) {
            world.finished();
        }
        self.pump = false;
    }

    // ---- small things -----------------------------------------------------------------------------------------------

    /// Sets a state and everything that hangs on it.
    fn enter(&mut self, slot: usize, state: State, now: MonoNs, world: &mut impl World) {
        let child = self.kid_mut(slot);
        if mem::discriminant(&child.state) != mem::discriminant(&state) {
            child.since = now;
        }
        child.state = state;
        if matches!(state, State::Blocked(_) | State::Backoff { .. }) {
            self.pump = true;
        }
        world.changed(slot);
        self.settle(slot, now, world);
    }

    fn force_safe(&mut self, slot: usize, world: &mut impl World) -> MonoNs {
        self.kid_mut(slot).safe = true;
        world.changed(slot);
        world.force_safe(slot)
    }

    fn release(&mut self, slot: usize, world: &mut impl World) {
        self.kid_mut(slot).safe = false;
        self.kid_mut(slot).recovering = false;
        world.changed(slot);
        world.release_outputs(slot);
    }

    fn record(&mut self, slot: usize, kind: EventKind, args: [u64; 4], world: &mut impl World) {
        world.record(self.child(slot).map(|child| (slot, child)), kind, args);
    }

    fn is_present(&self, slot: usize, generation: u32) -> bool {
        self.child(slot).is_some_and(|c| c.generation == generation)
    }

    fn is_running(&self, slot: usize) -> bool {
        self.child(slot).is_some_and(|c| matches!(c.state, State::Running { .. }))
    }

    /// A random share of the delay (xorshift64: any source will do, it only spreads restarts).
    fn jitter(&mut self, delay: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let most = delay / 100 * u64::from(self.settings.jitter_percent.min(100));
        if most == 0 { 0 } else { self.random % (most + 1) }
    }

    fn kid(&self, slot: usize) -> &Child {
        self.children[slot].as_ref().expect("callers checked that the slot is taken")
    }

    fn kid_mut(&mut self, slot: usize) -> &mut Child {
        self.children[slot].as_mut().expect("callers checked that the slot is taken")
    }
}

/// What was found to be wrong with a child.
#[derive(Clone, Copy, Debug)]
struct Verdict {
    kind: FaultKind,
    args: [u64; 4],
    /// As far as they happened before the detection.
    times: FaultTimes,
}

impl Verdict {
    /// A fault without times of its own.
    fn new(kind: FaultKind, args: [u64; 4]) -> Self {
        Self { kind, args, times: FaultTimes::default() }
    }
}

fn lane_deadline(world: &impl World, slot: usize, lane: usize, default_ns: u64) -> u64 {
    if lane == 0 { default_ns } else { world.lane_deadline_ns(slot, lane).unwrap_or(default_ns).max(LEAST_DEADLINE_NS) }
}

fn describe(violation: Violation, lane: usize, min_interval_ns: u64) -> (FaultKind, [u64; 4]) {
    match violation {
        Violation::Corrupt(what, value) => {
            (FaultKind::CorruptHeartbeat, [u64::from(what as u8), value, lane as u64, 0])
        }
        Violation::Runaway(beats, ns) => (FaultKind::Runaway, [beats, ns, lane as u64, min_interval_ns]),
    }
}

fn describe_checkpoint(violation: checkpoint::Violation) -> (FaultKind, [u64; 4]) {
    use checkpoint::Violation::{Early, Late, Order};
    match violation {
        // The beginning counts as 0, the first checkpoint as 1.
        Order(d) => (FaultKind::CheckpointOrder, [d.from.map_or(0, |f| u64::from(f) + 1), u64::from(d.to) + 1, 0, 0]),
        Early(number, took, min) => (FaultKind::CheckpointEarly, [took, min, number as u64, 0]),
        Late(number, took, max) => (FaultKind::CheckpointLate, [took, max, number as u64, 0]),
    }
}

fn blocked_args(block: Block) -> [u64; 4] {
    match block {
        Block::Turn => [0; 4],
        Block::Temperature => [1, 0, 0, 0],
        Block::Slot(slot) => [2, slot as u64, 0, 0],
    }
}

fn job_args(job: Job, result: JobResult) -> [u64; 4] {
    let (how, number) = match result {
        JobResult::Good => (0, 0),
        JobResult::Code(code) => (1, code.unsigned_abs()),
        JobResult::Signal(signal) => (2, signal.unsigned_abs()),
        JobResult::TimedOut => (3, 0),
        JobResult::NotStarted(errno) => (4, errno.unsigned_abs()),
    };
    [u64::from(job as u8), how, u64::from(number), 0]
}

/// Notes a time of the fault that is not over yet.
fn note(child: &mut Child, set: impl FnOnce(&mut FaultTimes)) {
    if child.recovering
        && let Some(fault) = &mut child.fault
    {
        set(&mut fault.times);
    }
}

/// So many ns from now on; 0: never.
fn in_ns(ns: u64, now: MonoNs) -> MonoNs {
    if ns == 0 { MonoNs::NEVER } else { MonoNs(now.0.saturating_add(ns)) }
}

fn first(before: u64, now: MonoNs) -> u64 {
    if before == 0 { now.0 } else { before }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_corruption_has_a_number() {
        let (kind, args) = describe(Violation::Corrupt(Corruption::Header, 7), 2, 0);
        assert_eq!((kind, args), (FaultKind::CorruptHeartbeat, [5, 7, 2, 0]));
    }
}
