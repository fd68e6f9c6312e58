//! The launcher: the thread that carries out what the watch thread decides. It makes processes (through the
//! [`spawner`]), asks them to stop, kills whole trees and reaps them, and runs the commands of children.
//!
//! Nothing here waits for anything but its own poll: a slow process, a hanging hook, a cold disk hold up nobody. The
//! watch thread gives orders over a ring and gets answers over another; both sides are woken by event descriptors.

mod cgroup;
mod lines;
pub(crate) mod orphans;
pub mod plan;
pub mod spawner;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use multus_ipc::child::Lane;
use multus_ipc::map::{self, Table};
use multus_ipc::{MonoNs, heartbeat};
use multus_supervisor::{ExitStatus, Job, JobResult};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use cgroup::{Group, Hierarchy};
pub use lines::{Lines, request_page};
use plan::{Feed, Given, JobPlan, SlotPlan};
use spawner::{Descriptors, Spawner};

use crate::adapters::Attach;
use crate::flight::Traces;
use crate::sys::{self, Usage};
use crate::wake::Wake;

/// What the watch thread wants done.
#[derive(Debug)]
pub enum Order {
    /// Make a process.
    Spawn { slot: usize, generation: u32 },
    /// From now on this is the main process: what is asked to stop.
    Main { slot: usize, generation: u32, pidfd: OwnedFd },
    /// Send the stop signal.
    Stop { slot: usize, generation: u32 },
    /// Kill and reap the whole tree.
    Kill { slot: usize, generation: u32 },
    /// Run a command.
    Run { slot: usize, generation: u32, job: Job },
    /// End a command that still runs.
    CancelJobs { slot: usize },
    /// Run the exit hooks, then end.
    Finish,
}

/// What the launcher says.
#[derive(Debug)]
pub enum Answer {
    /// A process exists. The descriptors are for the watch thread: its end, and its way to exec. `names_main`: it may say
    /// that another of its processes is the main one.
    Spawned { slot: usize, generation: u32, pid: u32, pidfd: OwnedFd, report: OwnedFd, names_main: bool },
    /// A process could not be made.
    SpawnFailed { slot: usize, generation: u32, errno: i32 },
    /// SIGKILL was sent.
    Killed { slot: usize, generation: u32, at: MonoNs },
    /// Nothing is left of it.
    TreeGone { slot: usize, generation: u32, at: MonoNs, usage: Usage, leftovers: u32 },
    /// A command ended.
    JobDone { slot: usize, generation: u32, job: Job, result: JobResult },
    /// The last answer.
    Finished,
}

/// What the control thread prepares for a slot.
#[derive(Debug)]
pub struct SlotSetup {
    /// Which slot.
    pub slot: usize,
    /// The plan.
    pub plan: SlotPlan,
    /// Its cgroup, and that of its commands.
    pub groups: Arc<(Group, Group)>,
    /// Write ends of its log pipes.
    pub output: Arc<[OwnedFd; 2]>,
}

/// The ends of the rings that the launcher holds, and everything it shares.
#[derive(Debug)]
pub struct Ends {
    /// From the watch thread.
    pub orders: rtrb::Consumer<Order>,
    /// To the watch thread.
    pub answers: rtrb::Producer<Answer>,
    /// From the control thread.
    pub setups: rtrb::Consumer<SlotSetup>,
    /// To the adapters thread.
    pub attach: rtrb::Producer<Attach>,
    /// Wakes the adapters thread.
    pub wake_adapters: Arc<Wake>,
    /// Wakes the launcher.
    pub wake: Arc<Wake>,
    /// Wakes the watch thread.
    pub wake_watch: Arc<Wake>,
    /// The heartbeat table.
    pub table: Arc<Table>,
    /// The same pages as a whole, for the evidence thread.
    pub traces: Arc<Traces>,
    /// The program that can be the spawner.
    pub program: PathBuf,
    /// SCHED_FIFO priority of this thread and the spawner.
    pub priority: Option<u8>,
    /// Pages of inputs and outputs.
    pub lines: Lines,
    /// The thread's own heartbeat.
    pub lane: Lane,
    /// Whether orphans become children of the daemon (there is no cgroup).
    pub adopts_orphans: bool,
}

const WAKE: Token = Token(usize::MAX);
const SPAWNER: Token = Token(usize::MAX - 1);
/// A tree that is not gone yet is looked at again after this long.
const RETRY: Duration = Duration::from_millis(1);
/// A process is made within milliseconds; a spawner that has not answered for so long stands still.
const SPAWNER_PATIENCE: Duration = Duration::from_secs(10);
/// From try to try where the system makes no spawner.
const SPAWNER_AGAIN: Duration = Duration::from_secs(1);
/// The thread beats at least this often.
const IDLE: Duration = Duration::from_millis(500);
/// Outside a cgroup, members of a process group are not waited for any longer than this (they have got SIGKILL).
const GROUP_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Slot {
    setup: Option<SlotSetup>,
    /// A heartbeat page made ahead.
    page: Option<OwnedFd>,
    process: Option<Process>,
    /// The last process ended with exit code 0.
    ended_well: bool,
}

impl Slot {
    fn name(&self) -> Option<&str> {
        self.setup.as_ref().map(|setup| setup.plan.name.as_str())
    }
}

#[derive(Debug)]
struct Process {
    generation: u32,
    pid: i32,
    pidfd: OwnedFd,
    /// Another process of its own that is the main one.
    main: Option<OwnedFd>,
    killing: Option<Killing>,
    output: Arc<[OwnedFd; 2]>,
    groups: Arc<(Group, Group)>,
    /// Where it asks for outputs.
    request_page: Option<OwnedFd>,
}

#[derive(Debug)]
struct Killing {
    since: MonoNs,
    usage: Option<Usage>,
    leftovers: u32,
    /// Without a cgroup: processes that had left its session and were killed.
    orphans: BTreeSet<i32>,
}

#[derive(Debug)]
struct Running {
    slot: usize,
    generation: u32,
    job: Option<Job>,
    pid: i32,
    pidfd: OwnedFd,
    report: OwnedFd,
    until: MonoNs,
    timed_out: bool,
    cancelled: bool,
    /// It has ended; what it started may not have.
    ended: Option<ExitStatus>,
    groups: Arc<(Group, Group)>,
}

/// A process that was asked for.
#[derive(Debug)]
struct Asked {
    slot: usize,
    generation: u32,
    /// `None`: the main program; else the command, with its time limit.
    job: Option<(Option<Job>, Duration)>,
    at: MonoNs,
    /// Nobody wants it any more.
    cancelled: bool,
    report: OwnedFd,
    request_page: Option<OwnedFd>,
}

/// The launcher thread's state.
#[derive(Debug)]
pub struct Launcher {
    ends: Ends,
    poll: Poll,
    /// `None`: it is gone, and none could be started in its place yet.
    spawner: Option<Spawner>,
    /// When that is tried again.
    spawner_at: MonoNs,
    slots: Vec<Slot>,
    jobs: BTreeMap<u64, Running>,
    asked: BTreeMap<u64, Asked>,
    next_tag: u64,
    backlog: VecDeque<Answer>,
    finishing: bool,
    exit_hooks: usize,
}

impl Launcher {
    /// Starts the spawner. Call on the launcher's own thread, see [`Spawner::start`].
    ///
    /// # Errors
    /// What the system refused.
    pub fn new(ends: Ends) -> io::Result<Self> {
        if let Some(priority) = ends.priority {
            // Refused only when the watch thread is refused too, which is said there.
            let _ = sys::set_scheduler(libc::SCHED_FIFO, priority, true);
        }
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&ends.wake.raw()), WAKE, Interest::READABLE)?;
        let spawner = Spawner::start(&ends.program, ends.priority)?;
        poll.registry().register(&mut SourceFd(&spawner.socket().as_raw_fd()), SPAWNER, Interest::READABLE)?;
        let slots = (0..ends.table.slots()).map(|_| Slot::default()).collect();
        Ok(Self {
            ends,
            poll,
            spawner: Some(spawner),
            spawner_at: MonoNs::NEVER,
            slots,
            jobs: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_tag: 0,
            backlog: VecDeque::new(),
            finishing: false,
            exit_hooks: 0,
        })
    }

    /// Works until [`Order::Finish`] is carried out.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(64);
        loop {
            let pause = self.pause();
            match self.poll.poll(&mut events, Some(pause)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::error!("launcher: poll: {error}");
                    return;
                }
            }
            self.ends.lane.beat();
            for event in &events {
                match event.token() {
                    WAKE => self.ends.wake.drain(),
                    SPAWNER => self.hear_spawner(),
                    _ => {}
                }
            }
            self.look_after_spawner();
            self.take_setups();
            while let Ok(order) = self.ends.orders.pop() {
                // What an order is about was set up before it was given, but maybe after the last look.
                self.take_setups();
                self.obey(order);
            }
            self.attend_processes();
            self.attend_jobs();
            self.ends.lines.send();
            // A process that was asked for may have ended before its number is known: it is no orphan.
            if self.ends.adopts_orphans && events.is_empty() && self.asked.is_empty() {
                orphans::reap(&self.jobs_and_children());
            }
            self.send_backlog();
            if self.finishing && self.exit_hooks == 0 && self.backlog.is_empty() {
                self.answer(Answer::Finished);
                return;
            }
        }
    }

    fn pause(&self) -> Duration {
        let now = MonoNs::now();
        let killing = self.slots.iter().any(|s| s.process.as_ref().is_some_and(|p| p.killing.is_some()));
        let ending = self.jobs.values().any(|j| j.timed_out || j.cancelled || j.ended.is_some());
        let soonest =
            self.jobs.values().map(|j| j.until).min().unwrap_or(MonoNs::NEVER).min(self.spawner_at).since(now);
        let pause = if killing || ending || !self.backlog.is_empty() || self.ends.lines.lags() {
            RETRY
        } else {
            soonest.min(IDLE)
        };
        pause.max(RETRY)
    }

    fn take_setups(&mut self) {
        while let Ok(setup) = self.ends.setups.pop() {
            let slot = setup.slot;
            if let Some(place) = self.slots.get_mut(slot) {
                let is_another = place.name().is_some_and(|name| name != setup.plan.name);
                if is_another {
                    self.ends.traces.forget(slot);
                }
                place.setup = Some(setup);
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Spawn { slot, generation } => self.spawn(slot, generation),
            Order::Stop { slot, generation } => {
                if let Some(process) = self.process(slot, generation)
                    && let Some(setup) = &self.slots[slot].setup
                {
                    let main = process.main.as_ref().unwrap_or(&process.pidfd);
                    let _ = sys::pidfd_signal(main.as_fd(), setup.plan.stop_signal);
                }
            }
            Order::Main { slot, generation, pidfd } => {
                let place = self.slots.get_mut(slot).and_then(|s| s.process.as_mut());
                if let Some(process) = place.filter(|p| p.generation == generation) {
                    process.main = Some(pidfd);
                }
            }
            Order::Kill { slot, generation } => self.kill(slot, generation),
            Order::Run { slot, generation, job } => self.run_job(slot, generation, job),
            Order::CancelJobs { slot } => {
                // Also those that are being made: they are ended when their number is known.
                for asked in self.asked.values_mut().filter(|asked| asked.slot == slot && asked.job.is_some()) {
                    asked.cancelled = true;
                }
                for running in self.jobs.values_mut().filter(|j| j.slot == slot) {
                    running.cancelled = true;
                    end_job(running);
                }
            }
            Order::Finish => {
                self.finishing = true;
                for slot in 0..self.slots.len() {
                    self.run_exit_hook(slot);
                }
            }
        }
    }

    // ---- making ---------------------------------------------------------------------------------------------------

    fn spawn(&mut self, slot: usize, generation: u32) {
        if let Err(error) = self.try_spawn(slot, generation) {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            self.answer(Answer::SpawnFailed { slot, generation, errno });
        }
        // Made ahead for the next time, off the way from a crash to the next start.
        let wants_page = |s: &Slot| s.setup.as_ref().is_some_and(|s| s.plan.heartbeat.is_some());
        let place = &mut self.slots[slot];
        if place.page.is_none() && wants_page(place) {
            place.page = map::memfd(c"multus-heartbeat", heartbeat::WORDS).ok();
        }
    }

    fn try_spawn(&mut self, slot: usize, generation: u32) -> io::Result<()> {
        let place = &mut self.slots[slot];
        let setup = place.setup.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let page = match (setup.plan.heartbeat, place.page.take()) {
            (None, _) => None,
            (Some(deadline), page) => {
                let page = match page {
                    Some(page) => page,
                    None => map::memfd(c"multus-heartbeat", heartbeat::WORDS)?,
                };
                let page = File::from(page);
                let words = heartbeat::header(u64::from(generation), deadline);
                let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
                page.write_all_at(&bytes, 0)?;
                let checkpoints = &setup.plan.checkpoints;
                if !checkpoints.is_empty() {
                    let bytes: Vec<u8> = checkpoints.words().iter().flat_map(|w| w.to_le_bytes()).collect();
                    page.write_all_at(&bytes, 8 * heartbeat::CHECKPOINTS as u64)?;
                }
                self.ends.traces.put(slot, generation, page.try_clone()?);
                self.ends.table.install(slot, page.as_fd())?;
                if setup.plan.feed.is_some() {
                    let page = OwnedFd::from(page);
                    let attach = Attach::Page { slot, generation, page };
                    self.ends.attach.push(attach).map_err(|_| io::Error::from_raw_os_error(libc::EAGAIN))?;
                    self.ends.wake_adapters.wake();
                    None
                } else {
                    Some(page)
                }
            }
        };
        let (report, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK)?;
        let cgroup = setup.groups.0.dir();
        let has = |given| setup.plan.given.contains(&given);
        let request_page = if has(Given::RequestPage) { Some(lines::request_page()?) } else { None };
        let their_socket = if has(Given::RequestSocket) { Some(self.ends.lines.connect()?) } else { None };
        let outputs = if has(Given::Outputs) { Some(self.ends.lines.outputs()?) } else { None };
        let lines = &self.ends.lines;
        let given = setup.plan.given.iter().filter_map(|given| match given {
            Given::Heartbeat => page.as_ref().map(AsFd::as_fd),
            Given::Image => Some(lines.view.as_fd()),
            Given::RequestPage => request_page.as_ref().map(AsFd::as_fd),
            Given::ImageToWrite => Some(lines.image.as_fd()),
            Given::ForcePage => Some(lines.force.as_fd()),
            Given::RequestSocket => their_socket.as_ref().map(AsFd::as_fd),
            Given::Outputs => outputs.as_ref().map(AsFd::as_fd),
        });
        let fds = Descriptors {
            stdout: setup.output[0].as_fd(),
            stderr: setup.output[1].as_fd(),
            report: theirs.as_fd(),
            given: given.collect(),
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
        };
        self.next_tag += 1;
        let spawner = self.spawner.as_ref().ok_or(io::Error::from_raw_os_error(libc::EPIPE))?;
        spawner.ask(self.next_tag, &setup.plan.program, &fds)?;
        if their_socket.is_some() {
            // Also of those that are being made: they may read their page before this process is there.
            let pages = self.slots.iter().enumerate().filter_map(|(slot, place)| {
                let process = place.process.as_ref()?;
                Some((slot, place.name()?, process.generation, process.request_page.as_ref()?))
            });
            let pages: Vec<_> =
                pages.map(|(slot, name, generation, page)| lines::introduction(slot, name, generation, page)).collect();
            self.ends.lines.introduce(pages);
        }
        let at = MonoNs::now();
        self.asked
            .insert(self.next_tag, Asked { slot, generation, job: None, at, cancelled: false, report, request_page });
        Ok(())
    }

    fn hear_spawner(&mut self) {
        while let Some(spawner) = &self.spawner {
            match spawner.answer() {
                Ok(None) => return,
                Ok(Some((tag, result))) => self.made(tag, result),
                Err(_) => return self.replace_spawner("ended"),
            }
        }
    }

    /// One that stands still makes nothing, and nobody else would notice; one that could not be started is tried again.
    fn look_after_spawner(&mut self) {
        let now = MonoNs::now();
        if self.asked.values().any(|asked| now.since(asked.at) >= SPAWNER_PATIENCE) {
            self.replace_spawner("does not answer");
        } else if now >= self.spawner_at {
            self.start_spawner();
        }
    }

    fn made(&mut self, tag: u64, result: Result<i32, i32>) {
        let Some(asked) = self.asked.remove(&tag) else { return };
        let Asked { slot, generation, job, cancelled, report, request_page, .. } = asked;
        // Nobody but this thread reaps children, so the number still is this process.
        let opened = result.and_then(|pid| {
            let opened = sys::pidfd_open(pid).and_then(|pidfd| Ok((pid, pidfd.try_clone()?, pidfd)));
            opened.map_err(|error| {
                // Without a descriptor it cannot be watched, so it must not run. It is reaped as orphans are.
                for target in [pid, -pid] {
                    let _ = kill(Pid::from_raw(target), Signal::SIGKILL);
                }
                error.raw_os_error().unwrap_or(libc::EIO)
            })
        });
        match (opened, job) {
            (Ok((pid, pidfd, for_watch)), None) => {
                let token = Token(slot);
                let _ = self.poll.registry().register(&mut SourceFd(&pidfd.as_raw_fd()), token, Interest::READABLE);
                let Some(setup) = &self.slots[slot].setup else { return };
                let (output, groups) = (Arc::clone(&setup.output), Arc::clone(&setup.groups));
                let names_main = matches!(setup.plan.feed, Some(Feed::Notify(_))) && !setup.plan.is_stage;
                if setup.plan.feed.is_some() {
                    // Room was there for the page, which the adapters thread takes out first.
                    let groups = Arc::clone(&groups);
                    let _ = self.ends.attach.push(Attach::Process { slot, generation, pid, names_main, groups });
                    self.ends.wake_adapters.wake();
                }
                if let Some(page) = &request_page {
                    let name = &setup.plan.name;
                    self.ends.lines.introduce([lines::introduction(slot, name, generation, page)]);
                }
                let process =
                    Process { generation, pid, pidfd, main: None, killing: None, output, groups, request_page };
                self.slots[slot].process = Some(process);
                let pid = pid.unsigned_abs();
                self.answer(Answer::Spawned { slot, generation, pid, pidfd: for_watch, report, names_main });
            }
            (Ok((pid, pidfd, _)), Some((job, timeout))) => {
                let token = Token(self.slots.len());
                let _ = self.poll.registry().register(&mut SourceFd(&pidfd.as_raw_fd()), token, Interest::READABLE);
                let Some(setup) = &self.slots[slot].setup else { return };
                let groups = Arc::clone(&setup.groups);
                let until = MonoNs::now().after(timeout);
                let running = Running {
                    slot,
                    generation,
                    job,
                    pid,
                    pidfd,
                    report,
                    until,
                    timed_out: false,
                    cancelled,
                    ended: None,
                    groups,
                };
                if cancelled {
                    end_job(&running);
                }
                self.jobs.insert(tag, running);
            }
            (Err(errno), None) => {
                if let Some(setup) = &self.slots[slot].setup {
                    setup.groups.0.renew(true);
                }
                self.answer(Answer::SpawnFailed { slot, generation, errno });
            }
            (Err(_), Some(_)) if cancelled => {}
            (Err(errno), Some((job, _))) => self.job_ended(slot, generation, job, JobResult::NotStarted(errno)),
        }
    }

    fn replace_spawner(&mut self, why: &str) {
        let Some(spawner) = self.spawner.take() else { return };
        let _ = self.poll.registry().deregister(&mut SourceFd(&spawner.socket().as_raw_fd()));
        if let Ok(pidfd) = sys::pidfd_open(spawner.pid()) {
            let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = sys::reap(pidfd.as_fd());
        }
        log::error!("the spawner process {why}; a new one is started");
        for (_, Asked { slot, generation, job, .. }) in std::mem::take(&mut self.asked) {
            match job {
                None => {
                    // It may have been made, and nobody knows its number.
                    if let Some(setup) = &self.slots[slot].setup {
                        setup.groups.0.renew(true);
                    }
                    self.answer(Answer::SpawnFailed { slot, generation, errno: libc::EPIPE });
                }
                Some((job, _)) => self.job_ended(slot, generation, job, JobResult::NotStarted(libc::EPIPE)),
            }
        }
        self.start_spawner();
    }

    fn start_spawner(&mut self) {
        self.spawner_at = MonoNs::NEVER;
        match Spawner::start(&self.ends.program, self.ends.priority) {
            Ok(spawner) => {
                let fd = spawner.socket().as_raw_fd();
                let _ = self.poll.registry().register(&mut SourceFd(&fd), SPAWNER, Interest::READABLE);
                self.spawner = Some(spawner);
            }
            Err(error) => {
                log::error!("the spawner process cannot be started: {error}; tried again");
                self.spawner_at = MonoNs::now().after(SPAWNER_AGAIN);
            }
        }
    }

    // ---- ending ---------------------------------------------------------------------------------------------------

    fn process(&self, slot: usize, generation: u32) -> Option<&Process> {
        self.slots.get(slot)?.process.as_ref().filter(|p| p.generation == generation)
    }

    fn kill(&mut self, slot: usize, generation: u32) {
        if self.process(slot, generation).is_none() {
            let at = MonoNs::now();
            self.answer(Answer::TreeGone { slot, generation, at, usage: Usage::default(), leftovers: 0 });
            return;
        }
        if let Some(process) = &mut self.slots[slot].process {
            for pidfd in [Some(&process.pidfd), process.main.as_ref()].into_iter().flatten() {
                let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
            }
            // The process is not reaped, so its number is still taken and cannot be another group's.
            let _ = kill(Pid::from_raw(-process.pid), Signal::SIGKILL);
            // The whole cgroup only when there is more than the process itself.
            if process.groups.0.members().iter().any(|pid| *pid != process.pid) {
                process.groups.0.kill();
            }
            let at = MonoNs::now();
            process.killing.get_or_insert(Killing { since: at, usage: None, leftovers: 0, orphans: BTreeSet::new() });
            self.answer(Answer::Killed { slot, generation, at });
        }
        self.finish_kill(slot);
    }

    fn attend_processes(&mut self) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].process.as_ref().is_some_and(|p| p.killing.is_some()) {
                self.finish_kill(slot);
            }
        }
    }

    /// Goes as far as it can with a tree that is being killed.
    fn finish_kill(&mut self, slot: usize) {
        let place = &mut self.slots[slot];
        let Some(process) = &mut place.process else { return };
        let Some(killing) = &mut process.killing else { return };
        if killing.usage.is_none() {
            // Once more before the leader is reaped and its group's number is free.
            let _ = kill(Pid::from_raw(-process.pid), Signal::SIGKILL);
            match sys::reap(process.pidfd.as_fd()) {
                Ok(None) => return,
                Ok(Some((status, usage))) => {
                    place.ended_well = status == ExitStatus::Code(0);
                    killing.usage = Some(usage);
                }
                Err(_) => killing.usage = Some(Usage::default()),
            }
        }
        let groups = Arc::clone(&process.groups);
        let group = &groups.0;
        if group.exists() {
            if group.is_populated() {
                killing.leftovers = killing.leftovers.max(u32::try_from(group.members().len()).unwrap_or(u32::MAX));
                group.kill();
                return;
            }
        } else {
            let (pid, since) = (process.pid, killing.since);
            let mut killed = std::mem::take(&mut killing.orphans);
            let known = self.jobs_and_children();
            let name = self.slots[slot].setup.as_ref().map_or("", |s| s.plan.name.as_str());
            let all = orphans::kill(name, &known, &mut killed);
            let group_lives = kill(Pid::from_raw(-pid), None).is_ok();
            if let Some(killing) = self.slots[slot].process.as_mut().and_then(|p| p.killing.as_mut()) {
                killing.leftovers = u32::try_from(killed.len()).unwrap_or(u32::MAX);
                killing.orphans = killed;
            }
            if (group_lives || !all) && MonoNs::now().since(since) < GROUP_PATIENCE {
                return;
            }
        }
        let Some(process) = self.slots[slot].process.take() else { return };
        let _ = self.poll.registry().deregister(&mut SourceFd(&process.pidfd.as_raw_fd()));
        process.groups.0.renew(false);
        let Some(killing) = process.killing else { return };
        let (usage, leftovers) = (killing.usage.unwrap_or_default(), killing.leftovers);
        drop(process.output);
        if process.request_page.is_some()
            && let Some(name) = self.slots[slot].name()
        {
            // What it asked for goes with it.
            self.ends.lines.introduce([lines::farewell(slot, name)]);
        }
        let at = MonoNs::now();
        self.answer(Answer::TreeGone { slot, generation: process.generation, at, usage, leftovers });
    }

    /// Processes of ours that are no orphans.
    fn jobs_and_children(&self) -> Vec<i32> {
        let children = self.slots.iter().filter_map(|s| s.process.as_ref()).map(|p| p.pid);
        children.chain(self.jobs.values().map(|j| j.pid)).chain(self.spawner.as_ref().map(Spawner::pid)).collect()
    }

    // ---- commands of children -------------------------------------------------------------------------------------

    fn run_job(&mut self, slot: usize, generation: u32, job: Job) {
        let plan = self.slots[slot].setup.as_ref().and_then(|s| s.plan.jobs.get(&(job as u8))).cloned();
        // A service that was stopped in order has run its stop script itself.
        let is_stopped = job == Job::AfterStop
            && self.slots[slot].ended_well
            && self.slots[slot].setup.as_ref().is_some_and(|setup| setup.plan.stops_itself);
        match plan {
            _ if is_stopped => self.job_ended(slot, generation, Some(job), JobResult::Good),
            Some(plan) => self.start_job(slot, generation, Some(job), &plan),
            None => self.job_ended(slot, generation, Some(job), JobResult::Good),
        }
    }

    fn run_exit_hook(&mut self, slot: usize) {
        let hook = self.slots[slot].setup.as_ref().and_then(|s| s.plan.on_daemon_exit.clone());
        if let Some(plan) = hook {
            self.exit_hooks += 1;
            self.start_job(slot, 0, None, &plan);
        }
    }

    fn start_job(&mut self, slot: usize, generation: u32, job: Option<Job>, plan: &JobPlan) {
        if let Err(error) = self.try_start_job(slot, generation, job, plan) {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            self.job_ended(slot, generation, job, JobResult::NotStarted(errno));
        }
    }

    fn try_start_job(&mut self, slot: usize, generation: u32, job: Option<Job>, plan: &JobPlan) -> io::Result<()> {
        let setup = self.slots[slot].setup.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let (report, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK)?;
        let cgroup = setup.groups.1.dir();
        let fds = Descriptors {
            stdout: setup.output[0].as_fd(),
            stderr: setup.output[1].as_fd(),
            report: theirs.as_fd(),
            given: Vec::new(),
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
        };
        self.next_tag += 1;
        let spawner = self.spawner.as_ref().ok_or(io::Error::from_raw_os_error(libc::EPIPE))?;
        spawner.ask(self.next_tag, &plan.program, &fds)?;
        self.asked.insert(
            self.next_tag,
            Asked {
                slot,
                generation,
                job: Some((job, plan.timeout)),
                at: MonoNs::now(),
                cancelled: false,
                report,
                request_page: None,
            },
        );
        Ok(())
    }

    /// Whether no other command of the same child runs or is about to.
    fn is_alone(&self, tag: u64) -> bool {
        let Some(slot) = self.jobs.get(&tag).map(|job| job.slot) else { return false };
        let others = self.jobs.iter().any(|(other, job)| *other != tag && job.slot == slot);
        !others && !self.asked.values().any(|asked| asked.slot == slot && asked.job.is_some())
    }

    fn attend_jobs(&mut self) {
        let now = MonoNs::now();
        let tags: Vec<u64> = self.jobs.keys().copied().collect();
        for tag in tags {
            let alone = self.is_alone(tag);
            let Some(running) = self.jobs.get_mut(&tag) else { continue };
            if running.ended.is_none() {
                let Ok(Some(status)) = sys::exit_status(running.pidfd.as_fd()) else {
                    // Only who has not ended is late: this thread may be, too.
                    if now >= running.until && !running.timed_out {
                        running.timed_out = true;
                        end_job(running);
                    }
                    continue;
                };
                running.ended = Some(status);
                // Nothing that a command started outlives it.
                let _ = kill(Pid::from_raw(-running.pid), Signal::SIGKILL);
                let _ = sys::reap(running.pidfd.as_fd());
                let _ = self.poll.registry().deregister(&mut SourceFd(&running.pidfd.as_raw_fd()));
            }
            let Some(status) = running.ended else { continue };
            // What left its session goes with the last command of this child that runs: they share a cgroup.
            if alone && running.groups.1.is_populated() {
                running.groups.1.kill_members();
                continue;
            }
            let result = match (running.timed_out, exec_failure(&running.report), status) {
                (true, _, _) => JobResult::TimedOut,
                (_, Some((_, errno)), _) => JobResult::NotStarted(errno),
                (_, _, ExitStatus::Code(0)) => JobResult::Good,
                (_, _, ExitStatus::Code(code)) => JobResult::Code(code),
                (_, _, ExitStatus::Signal(signal, _)) => JobResult::Signal(signal),
                (_, _, ExitStatus::Unknown) => JobResult::Signal(libc::SIGKILL),
            };
            if let Some(ended) = self.jobs.remove(&tag)
                && !ended.cancelled
            {
                self.job_ended(ended.slot, ended.generation, ended.job, result);
            }
        }
    }

    fn job_ended(&mut self, slot: usize, generation: u32, job: Option<Job>, result: JobResult) {
        match job {
            Some(job) => self.answer(Answer::JobDone { slot, generation, job, result }),
            None => {
                self.exit_hooks = self.exit_hooks.saturating_sub(1);
                if result != JobResult::Good {
                    let name = self.slots[slot].setup.as_ref().map_or("?", |s| s.plan.name.as_str());
                    log::warn!("{name}: on_daemon_exit hook: {result:?}");
                }
            }
        }
    }

    // ---- answers --------------------------------------------------------------------------------------------------

    fn answer(&mut self, answer: Answer) {
        self.backlog.push_back(answer);
        self.send_backlog();
    }

    fn send_backlog(&mut self) {
        let mut sent = false;
        while let Some(answer) = self.backlog.pop_front() {
            if let Err(rtrb::PushError::Full(answer)) = self.ends.answers.push(answer) {
                self.backlog.push_front(answer);
                break;
            }
            sent = true;
        }
        if sent {
            self.ends.wake_watch.wake();
        }
    }
}

fn end_job(running: &Running) {
    if running.ended.is_some() {
        // It is reaped: its number may be somebody else's by now.
        return;
    }
    let _ = sys::pidfd_signal(running.pidfd.as_fd(), libc::SIGKILL);
    let _ = kill(Pid::from_raw(-running.pid), Signal::SIGKILL);
}

/// What the way to exec reported, if it failed: step and error number; of a stage that has found its main process: 0 and
/// that process. Reads without waiting.
///
/// # Real time
/// One system call.
pub fn exec_failure(report: &OwnedFd) -> Option<(u8, i32)> {
    let mut message = [0u8; 8];
    match nix::unistd::read(report, &mut message) {
        Ok(8) => Some((message[0], i32::from_le_bytes([message[4], message[5], message[6], message[7]]))),
        _ => None,
    }
}
