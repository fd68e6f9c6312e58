//! The watch thread: the one loop that must never wait.
//!
//! ```text
//! arm timer with the next deadline -> poll (the only blocking call) -> now -> take in what happened -> decide what is
//! due (outputs are forced inside) -> hand orders over -> publish
//! ```
//! Once armed it allocates nothing, takes no lock, opens no file and looks up no name; its work in one turn is
//! bounded by the number of slots. What must be slow is somebody else's: see the table in the crate's documentation.

mod critical;
mod helpers;
mod outputs;
mod publish;
mod source;
mod timer;
mod world;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use multus_ipc::map::Table;
use multus_ipc::status::DaemonRecord;
use multus_ipc::text::{Name, Text};
use multus_ipc::words::EventKind;
use multus_ipc::{MonoNs, event_ring, force, histogram, status};
use multus_supervisor::{Child, Command, Event, List, Policy, Refusal, Settings, Supervisor, Told, World as _};

use crate::adapters::{Report, What};
use crate::launcher::{Answer, Order};
use crate::sys;
use crate::wake::Wake;
use crate::{evidence, guard};
pub use helpers::{Helper, SPARES};
/// Slots that the watch thread can tell apart.
pub const MAX_SLOTS: usize = source::MAX_SLOTS;
use critical::Critical;
use helpers::{Helpers, Verdict};
use outputs::{Act, Outputs, Scanner};
use source::Source;
use timer::Timer;
use world::Real;

/// Outputs that one child can name in `safe_state.outputs`. Those that it owns by `hardware.toml` are forced without that.
pub const MAX_OUTPUTS: usize = 16;
/// Outputs that people can hold at a value.
pub const MAX_HELD: usize = 64;

/// What the control thread asks of the watch thread.
#[allow(
    clippy::large_enum_variant,
    reason = "lies in a ring made at the start; boxing would free memory on the watch thread"
)]
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// Put a child into a slot, or give it a new policy.
    Configure {
        slot: usize,
        name: Name,
        instance: u32,
        policy: Policy,
        outputs: List<Output, MAX_OUTPUTS>,
        restart: bool,
    },
    /// Obey a person.
    Command { slot: usize, command: Command },
    /// The temperature was read.
    Temperature(Option<i32>),
    /// New settings for all.
    Settings(Settings),
    /// The configuration was read again: children added or changed, removed, left as they were because of errors.
    Reloaded { changed: u64, removed: u64, refused: u64 },
    /// The machine is to be started anew in so many ns; `None`: no longer.
    Reboot(Option<u64>),
    /// There are lines, which the child in this slot drives (if it is configured) and must put into force within so many ns;
    /// `None`: there are none.
    Lines(Option<(Option<usize>, u64)>),
    /// Hold an output at a value for a person, or no longer: it has the value that its owner asks for. The place is one of
    /// [`MAX_HELD`].
    Hold { place: usize, output: Output, held: bool },
    /// The child in a slot is critical and may be out of order for so many ns; with 0 it is not critical.
    Critical { slot: usize, recovery_ns: u64 },
    /// Something of the daemon is worth telling.
    Tell { kind: EventKind, arg: u64, text: Text<24> },
    /// The child in a slot tells something; so many notices of it were left out before.
    Notice { slot: usize, text: Text<24>, left_out: u64 },
    /// Stop everything and end.
    Shutdown,
}

/// One output of a child: its name and safe value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Output {
    /// Name.
    pub name: Text<4>,
    /// Safe value.
    pub value: f64,
}

impl Default for Output {
    fn default() -> Self {
        Self { name: Text::EMPTY, value: 0.0 }
    }
}

/// A numbered [`Ask`].
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Comes back in the reply; 0 wants none.
    pub id: u64,
    /// What is asked.
    pub ask: Ask,
}

/// What the watch thread tells the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The answer to a request.
    Done { id: u64, result: Result<(), Refusal> },
    /// A slot is free again.
    Removed { slot: usize },
    /// This helper is stuck; the n-th spare is to be started in its place.
    Replace { helper: Helper, spare: usize },
    /// A critical child is out of order since then.
    OutOfOrder { slot: usize, since: MonoNs },
    /// It is in order again.
    InOrder { slot: usize },
    /// The critical child that is out of order for longer than it may be; `None`: no longer.
    Culprit(Option<usize>),
    /// All children are down and the launcher has ended.
    Finished,
}

/// Everything the watch thread works with, made before it is armed.
#[derive(Debug)]
pub struct Parts {
    /// The heartbeat table; its last slot is the page of the daemon's own threads.
    pub table: Arc<Table>,
    /// Words of the status page.
    pub status: &'static [multus_ipc::sync::AtomicU64],
    /// Words of the event ring.
    pub events: &'static [multus_ipc::sync::AtomicU64],
    /// Words of the force page: [`MAX_OUTPUTS`] entries a slot, then [`MAX_HELD`].
    pub force: &'static [multus_ipc::sync::AtomicU64],
    /// The process image.
    pub image: multus_ipc::io::Reader<'static>,
    /// To the guard of the outputs.
    pub guard: rtrb::Producer<(guard::Order, MonoNs)>,
    /// From it.
    pub secured: rtrb::Consumer<guard::Secured>,
    /// Wakes the guard.
    pub wake_guard: Arc<Wake>,
    /// To and from the launcher.
    pub orders: rtrb::Producer<Order>,
    /// From the launcher.
    pub answers: rtrb::Consumer<Answer>,
    /// From the control thread.
    pub requests: rtrb::Consumer<Request>,
    /// To the control thread.
    pub replies: rtrb::Producer<Reply>,
    /// From the adapters thread.
    pub reports: rtrb::Consumer<crate::adapters::Report>,
    /// Asks the adapters thread to listen.
    pub attention: Arc<crate::adapters::Attention>,
    /// Wakes the adapters thread.
    pub wake_adapters: Arc<Wake>,
    /// To and from the evidence thread, and its spares.
    pub evidence: Vec<evidence::WatchEnd>,
    /// Wakes this thread.
    pub wake: Arc<Wake>,
    /// Wakes the launcher.
    pub wake_launcher: Arc<Wake>,
    /// Wakes the evidence thread.
    pub wake_evidence: Arc<Wake>,
    /// Wakes the log thread.
    pub wake_log: Arc<Wake>,
    /// Wakes the control thread.
    pub wake_control: Arc<Wake>,
    /// Settings for all children.
    pub settings: Settings,
    /// For the jitter of restart delays.
    pub seed: u64,
    /// The sign for those who pet the watchdogs.
    pub sign: Arc<crate::watchdog::Sign>,
    /// What the thread got of what it wanted, for the status.
    pub realtime: crate::realtime::Granted,
}

/// How often the status is brought up to date while nothing happens, at least.
const TICK: Duration = Duration::from_secs(1);
/// Slots whose beat statistics are brought up to date in one turn.
const STATISTICS_BATCH: usize = 16;
/// From the decision to end to the end: time for the log thread to write down why.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// Forced outputs are waited for at least so long where the watch loop, and so probably multus-io, is an ordinary thread.
const ACK_AT_LEAST_NS: u64 = 100_000_000;
/// Exit code when one of the daemon's own threads is stuck: EX_SOFTWARE of sysexits.h.
const EXIT_STUCK: i32 = 70;

/// The watch thread's state.
#[derive(Debug)]
pub struct Watch {
    supervisor: Supervisor,
    world: Real,
    poll: Poll,
    timer: Timer,
    helpers: Helpers,
    critical: Critical,
    answers: rtrb::Consumer<Answer>,
    requests: rtrb::Consumer<Request>,
    reports: rtrb::Consumer<crate::adapters::Report>,
    secured: rtrb::Consumer<guard::Secured>,
    outputs: Outputs,
    /// Slot of the child that runs multus-io.
    scanner: Option<usize>,
    image: multus_ipc::io::Reader<'static>,
    /// Refused requests that were told.
    refused_requests: u64,
    wake: Arc<Wake>,
    daemon: DaemonRecord,
    lateness: [u64; histogram::BUCKETS],
    tick_at: MonoNs,
    statistics: usize,
    faults_when_armed: u64,
    /// What was wanted and refused, to be told once.
    refused: Vec<String>,
    /// The daemon ends at this time: one of its threads is stuck and cannot be replaced.
    doomed: Option<MonoNs>,
}

impl Watch {
    /// Makes everything that needs allocation.
    ///
    /// # Errors
    /// What the system refused.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let slots = parts.table.slots() - 1;
        let poll = Poll::new()?;
        let timer = Timer::new()?;
        poll.registry().register(&mut SourceFd(&timer.raw()), Source::Timer.token(), Interest::READABLE)?;
        poll.registry().register(&mut SourceFd(&parts.wake.raw()), Source::Wake.token(), Interest::READABLE)?;
        let now = MonoNs::now();
        let helpers = Helpers::new(now);
        let status = status::Writer::new(parts.status, std::process::id());
        let world = Real::new(
            Arc::clone(&parts.table),
            status,
            event_ring::Writer::new(parts.events),
            force::Writer::new(parts.force, slots * MAX_OUTPUTS + MAX_HELD, slots),
            world::Outlets {
                orders: parts.orders,
                attention: parts.attention,
                wake_adapters: parts.wake_adapters,
                replies: parts.replies,
                evidence: parts.evidence,
                wake_launcher: parts.wake_launcher,
                wake_evidence: parts.wake_evidence,
                wake_log: parts.wake_log,
                wake_control: parts.wake_control,
                guard: parts.guard,
                wake_guard: parts.wake_guard,
            },
        );
        let daemon = DaemonRecord {
            started_mono: now.0,
            priority: parts.realtime.priority.unwrap_or(0),
            locked: parts.realtime.locked,
            ..DaemonRecord::default()
        };
        Ok(Self {
            supervisor: Supervisor::new(slots, parts.settings, parts.seed),
            world,
            poll,
            timer,
            helpers,
            critical: Critical::new(parts.sign, slots),
            answers: parts.answers,
            requests: parts.requests,
            reports: parts.reports,
            secured: parts.secured,
            outputs: Outputs::none(),
            scanner: None,
            image: parts.image,
            refused_requests: 0,
            wake: parts.wake,
            daemon,
            lateness: [0; histogram::BUCKETS],
            tick_at: now,
            statistics: 0,
            faults_when_armed: 0,
            refused: parts.realtime.refused,
            doomed: None,
        })
    }

    /// Watches until a shutdown is finished. The calling thread must have its priority already.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(256);
        sys::prefault_stack();
        self.world.record(None, EventKind::DaemonStarted, [0; 4]);
        for sentence in std::mem::take(&mut self.refused) {
            self.world.record_reduced(&sentence);
        }
        self.turn(MonoNs::now());
        self.faults_when_armed = sys::thread_page_faults();
        loop {
            let next = self.supervisor.next_deadline().min(self.helpers.next()).min(self.tick_at);
            let next = next.min(self.outputs.next()).min(self.critical.next());
            self.timer.arm(self.doomed.map_or(next, |end| end.min(next)));
            match self.poll.poll(&mut events, None) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Cannot happen with descriptors that live as long as the loop; ending is what a guard can act on.
                Err(_) => sys::exit_now(EXIT_STUCK),
            }
            let now = MonoNs::now();
            self.daemon.wakeups += 1;
            for event in &events {
                match Source::of(event.token()) {
                    Source::Timer => {
                        if let Some(armed) = self.timer.fired() {
                            let late = now.since(armed).as_nanos() as u64;
                            self.lateness[histogram::bucket(late)] += 1;
                            self.daemon.lateness_ns[2] = self.daemon.lateness_ns[2].max(late);
                        }
                    }
                    Source::Wake => self.wake.drain(),
                    Source::Exec { slot, generation } => self.exec_event(slot, generation, now),
                    Source::Exit { slot, generation } => self.process_event(slot, generation, now),
                }
            }
            self.turn(now);
            if self.world.is_finished() || self.doomed.is_some_and(|end| now >= end) {
                break;
            }
        }
        self.publish_daemon(MonoNs::now());
        if self.doomed.is_some() {
            sys::exit_now(EXIT_STUCK);
        }
        self.world.tell(Reply::Finished);
        self.world.wake_others();
    }

    /// Everything after the poll that does not depend on which descriptor woke us.
    fn turn(&mut self, now: MonoNs) {
        self.take_answers(now);
        self.take_requests(now);
        let heard = self.world.heard();
        while let Ok(Report { slot, generation, what }) = self.reports.pop() {
            let event = match what {
                What::Told(told) => Some(Event::Told { slot, generation, told }),
                What::Main(main) => self.world.adopt_main(slot, generation, main, &self.poll),
            };
            if let Some(event) = event {
                self.supervisor.handle(event, now, &mut self.world);
            }
        }
        while let Some((slot, generation)) = self.world.no_longer_held(heard, now) {
            self.process_event(slot, generation, now);
        }
        while let Some(found) = self.world.evidence() {
            let (slot, generation) = (found.slot, found.generation);
            self.world.keep_evidence(&found, self.supervisor.child(slot));
            self.supervisor.handle(Event::EvidenceCollected { slot, generation }, now, &mut self.world);
        }
        self.supervisor.handle_timeout(now, &mut self.world);
        self.watch_outputs(now);
        self.watch_helpers(now);
        if now >= self.tick_at {
            self.tick(now);
        }
        self.world.publish(&self.supervisor);
        // One that is about to end because a thread of its own is stuck is no longer on time.
        if self.doomed.is_none() {
            let (world, is_stopping) = (&mut self.world, self.daemon.stopping);
            self.critical.turn(now, &self.supervisor, is_stopping, &mut |reply| world.tell(reply));
        }
        self.world.wake_others();
    }

    /// Whether multus-io does its work; else the guard does.
    fn watch_outputs(&mut self, now: MonoNs) {
        while let Ok(guard::Secured { failed, took_ns }) = self.secured.pop() {
            self.world.record(None, EventKind::OutputsSecured, [failed, took_ns, 0, 0]);
        }
        let child = self.scanner.and_then(|slot| self.supervisor.child(slot));
        let (scanner, generation) = (Scanner::of(child), child.map_or(0, Child::generation));
        let (acknowledged, forced) = (self.image.acknowledged().0, self.image.forced());
        let changes = self.world.force_changes();
        match self.outputs.look(now, (scanner, generation), changes, acknowledged, &forced) {
            None => {}
            Some(Act::LetGo) => self.world.guard(guard::Order::LetGo, now),
            Some(Act::Secure) => self.secure(now),
            Some(Act::Unsafe(lines)) => self.world.record(None, EventKind::OutputsUnsafe, [lines, 0, 0, 0]),
            Some(Act::Safe) => self.world.record(None, EventKind::OutputsSafe, [0; 4]),
            Some(Act::Accuse(ns)) => {
                // Also of one that is snoozed or stopping: the outputs wait for no verdict.
                self.secure(now);
                if let Some(slot) = self.scanner {
                    let told = Told::Unacknowledged(ns);
                    self.supervisor.handle(Event::Told { slot, generation, told }, now, &mut self.world);
                }
            }
        }
    }

    /// multus-io has no say any more: what it writes while it is looked into could be wrong.
    fn secure(&mut self, now: MonoNs) {
        if let Some(slot) = self.scanner {
            self.world.kill_now(slot);
        }
        self.world.guard(guard::Order::Secure, now);
    }

    fn take_answers(&mut self, now: MonoNs) {
        while let Ok(answer) = self.answers.pop() {
            let event = match answer {
                Answer::Spawned { slot, generation, pid, pidfd, report, names_main } => {
                    self.world.adopt((slot, generation), pidfd, report, names_main, &self.poll);
                    Event::Spawned { slot, generation, pid }
                }
                Answer::SpawnFailed { slot, generation, errno } => Event::SpawnFailed { slot, generation, errno },
                Answer::Killed { slot, generation, at } => Event::Killed { slot, generation, at },
                Answer::TreeGone { slot, generation, at, usage, leftovers } => {
                    self.world.abandon(slot, generation, &self.poll);
                    self.world.account(slot, self.supervisor.child(slot), usage, leftovers);
                    Event::TreeGone { slot, generation, at }
                }
                Answer::JobDone { slot, generation, job, result } => Event::JobDone { slot, generation, job, result },
                Answer::Finished => {
                    self.world.set_finished();
                    continue;
                }
            };
            self.supervisor.handle(event, now, &mut self.world);
        }
    }

    fn take_requests(&mut self, now: MonoNs) {
        while let Ok(Request { id, ask }) = self.requests.pop() {
            let world = &mut self.world;
            let result = match ask {
                Ask::Configure { slot, name, instance, policy, outputs, restart } => {
                    world.define(slot, name, instance, outputs.as_slice(), now);
                    let result = self.supervisor.configure(slot, policy, restart, now, world);
                    world.force_as(slot, self.supervisor.child(slot), now);
                    result
                }
                Ask::Command { slot, command } => self.supervisor.command(slot, command, now, world),
                Ask::Temperature(reading) => {
                    self.daemon.temperature = reading.map_or(0, |t| (i64::from(t) + (1 << 31)).unsigned_abs());
                    self.supervisor.handle(Event::Temperature(reading), now, world);
                    Ok(())
                }
                Ask::Settings(settings) => {
                    self.supervisor.set_settings(settings, now, world);
                    Ok(())
                }
                Ask::Reloaded { changed, removed, refused } => {
                    world.record(None, EventKind::Reloaded, [changed, removed, refused, 0]);
                    Ok(())
                }
                Ask::Reboot(Some(ns)) => {
                    world.record(None, EventKind::RebootScheduled, [ns, 0, 0, 0]);
                    Ok(())
                }
                Ask::Reboot(None) => {
                    world.record(None, EventKind::RebootCancelled, [0; 4]);
                    Ok(())
                }
                Ask::Lines(lines) => {
                    self.scanner = lines.and_then(|(slot, _)| slot);
                    // Without real-time priority, being late is no sign of a fault.
                    let least = if self.daemon.priority == 0 { ACK_AT_LEAST_NS } else { 0 };
                    if self.outputs.configure(lines.map(|(_, ack_ns)| ack_ns.max(least))).is_some() {
                        world.guard(guard::Order::Secure, now);
                    }
                    Ok(())
                }
                Ask::Hold { place, output, held } => {
                    world.hold(place, held.then_some(output), now);
                    let kind = if held { EventKind::OutputForced } else { EventKind::OutputReleased };
                    world.record_output(kind, &output.name, output.value);
                    Ok(())
                }
                Ask::Critical { slot, recovery_ns } => {
                    self.critical.set(slot, recovery_ns, &mut |reply| world.tell(reply));
                    Ok(())
                }
                Ask::Tell { kind, arg, text } => {
                    world.record_saying(kind, arg, text);
                    Ok(())
                }
                Ask::Notice { slot, text, left_out } => {
                    world.record_notice(slot, self.supervisor.child(slot), text, left_out);
                    Ok(())
                }
                Ask::Shutdown => {
                    self.daemon.stopping = true;
                    self.supervisor.handle(Event::Shutdown, now, world);
                    Ok(())
                }
            };
            if id != 0 {
                world.tell(Reply::Done { id, result });
            }
        }
    }

    fn process_event(&mut self, slot: usize, generation: u32, now: MonoNs) {
        // The report of a failed exec was written before the process ended: first things first.
        self.exec_event(slot, generation, now);
        if let Some(status) = self.world.exit_status(slot, generation) {
            self.supervisor.handle(Event::Exited { slot, generation, status }, now, &mut self.world);
        }
    }

    fn exec_event(&mut self, slot: usize, generation: u32, now: MonoNs) {
        if let Some((event, main)) = self.world.exec_report(slot, generation, &self.poll) {
            for event in main.into_iter().chain([event]) {
                self.supervisor.handle(event, now, &mut self.world);
            }
        }
    }

    fn watch_helpers(&mut self, now: MonoNs) {
        while let Some(verdict) = self.helpers.check(now, self.world.own_page()) {
            match verdict {
                Verdict::Replace { helper, spare } => {
                    self.world.record(None, EventKind::HelperStuck, [helper as u64, 1, 0, 0]);
                    if helper == Helper::Evidence {
                        self.world.next_evidence();
                    }
                    self.world.tell(Reply::Replace { helper, spare });
                }
                Verdict::Recovered { helper } => {
                    self.world.record(None, EventKind::HelperRecovered, [helper as u64, 0, 0, 0]);
                }
                Verdict::End { helper } => {
                    if self.doomed.is_none() {
                        self.world.record(None, EventKind::HelperStuck, [helper as u64, 0, 0, 0]);
                        for slot in 0..self.supervisor.slots() {
                            self.world.force_safe(slot);
                        }
                        self.doomed = Some(now.after(LAST_WORDS));
                    }
                }
            }
            self.daemon.stuck_helpers = self.helpers.stuck();
        }
    }

    fn tick(&mut self, now: MonoNs) {
        let slots = self.supervisor.slots();
        for _ in 0..STATISTICS_BATCH.min(slots) {
            self.world.statistics(self.statistics % slots);
            self.statistics += 1;
        }
        for slot in 0..slots {
            if let Some(generation) = self.world.unpolled(slot) {
                self.process_event(slot, generation, now);
            }
        }
        let refused = self.image.refused();
        let new = refused.saturating_sub(self.refused_requests);
        self.refused_requests = refused;
        if new > 0 {
            self.world.record(None, EventKind::RequestsRefused, [new, 0, 0, 0]);
        }
        // Every slot once in two seconds, whatever their number.
        let turns = slots.div_ceil(STATISTICS_BATCH).max(2);
        let pause = (2 * TICK / u32::try_from(turns).unwrap_or(u32::MAX)).min(TICK);
        self.tick_at = now.after(pause);
        self.publish_daemon(now);
    }

    fn publish_daemon(&mut self, now: MonoNs) {
        let max = self.daemon.lateness_ns[2];
        for (place, per_mille) in [(0, 500), (1, 990)] {
            let value = histogram::percentile(|b| self.lateness[b], per_mille, max);
            self.daemon.lateness_ns[place] = value.unwrap_or(0);
        }
        self.daemon.too_hot = self.supervisor.is_too_hot();
        self.daemon.page_faults = sys::thread_page_faults().saturating_sub(self.faults_when_armed);
        self.daemon.updated_mono = now.0;
        self.world.publish_daemon(&mut self.daemon);
    }
}
