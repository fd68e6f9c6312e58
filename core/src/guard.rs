//! The guard of the outputs: a thread that writes their safe values itself when multus-io does not drive them. The watch
//! thread orders; the guard has everything prepared that it needs, and no other duty.
//!
//! Between two orders it waits. While it holds the outputs, what could not be written is tried again and again.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use multus_contract::config::hardware::{self, HardwareConfig};
use multus_contract::dirs::Dirs;
use multus_hardware::safe::SafeState;
use multus_ipc::MonoNs;
use multus_ipc::child::Lane;

use crate::sys;
use crate::wake::Wake;

/// What the watch thread wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Write all safe values, and see that they stay.
    Secure,
    /// Let go of the lines: multus-io is to have them.
    LetGo,
}

/// What the guard says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Secured {
    /// Outputs that could not be written.
    pub failed: u64,
    /// From the order to the end of the first try, ns.
    pub took_ns: u64,
}

/// Who has the outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Holder {
    /// There are none.
    Nobody = 0,
    /// multus-io, or it is about to.
    Scanner = 1,
    /// The guard.
    Guard = 2,
}

/// What others may know of the guard.
#[derive(Debug, Default)]
pub struct Shared {
    holder: AtomicU8,
    failed: Mutex<Vec<String>>,
    /// Native outputs that are open and can be given to multus-io.
    outputs: Mutex<Option<OwnedFd>>,
    /// The present multus-io has them.
    is_handed_out: AtomicBool,
}

impl Shared {
    /// Who has the outputs.
    pub fn holder(&self) -> Holder {
        match self.holder.load(Ordering::Relaxed) {
            1 => Holder::Scanner,
            2 => Holder::Guard,
            _ => Holder::Nobody,
        }
    }

    /// What the guard could not bring to its safe value, a sentence each.
    pub fn failed(&self) -> Vec<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The open native outputs, for a new multus-io; `None`: it has to open them itself, or may.
    pub fn hand_out(&self) -> Option<OwnedFd> {
        let outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let handed = outputs.as_ref().and_then(|fd| fd.try_clone().ok());
        self.is_handed_out.store(handed.is_some(), Ordering::Release);
        handed
    }

    fn open(&self, outputs: Option<OwnedFd>) {
        *self.outputs.lock().unwrap_or_else(PoisonError::into_inner) = outputs;
    }

    fn set(&self, holder: Holder, failed: &[String]) {
        self.holder.store(holder as u8, Ordering::Relaxed);
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed.to_vec();
    }
}

/// The ends of the rings that the guard holds, and everything it shares.
#[derive(Debug)]
pub struct Ends {
    /// From the watch thread, with the time of the order.
    pub orders: rtrb::Consumer<(Order, MonoNs)>,
    /// To the watch thread.
    pub answers: rtrb::Producer<Secured>,
    /// From the control thread: the lines; `None`: there are none any more.
    pub setups: rtrb::Consumer<Option<Box<HardwareConfig>>>,
    /// Wakes the guard.
    pub wake: Arc<Wake>,
    /// Wakes the watch thread.
    pub wake_watch: Arc<Wake>,
    /// For others to look at.
    pub shared: Arc<Shared>,
    /// Where a simulated board is.
    pub dirs: Dirs,
    /// SCHED_FIFO priority.
    pub priority: Option<u8>,
    /// The thread's own heartbeat.
    pub lane: Lane,
}

/// From try to try while lines are busy: the process that had them is about to be gone.
const PAUSE: Duration = Duration::from_micros(250);
/// When that takes longer, and when a chip does not answer, the pauses grow up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The first answer is given after this long, whatever is done by then.
const PATIENCE: Duration = Duration::from_secs(1);
/// The safe values are written a second time after this long.
const REPEAT: Duration = Duration::from_millis(5);
/// The thread beats at least this often.
const IDLE: Duration = Duration::from_millis(500);

/// Works until `end`. What was safe then stays so, as far as the hardware keeps it.
///
/// # Errors
/// What the system refused at the start.
pub fn run(ends: Ends, end: &AtomicBool) -> io::Result<()> {
    if let Some(priority) = ends.priority {
        // Refused only when the watch thread is refused too, which is said there.
        let _ = sys::set_scheduler(libc::SCHED_FIFO, priority, true);
    }
    let mut poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&ends.wake.raw()), Token(0), Interest::READABLE)?;
    let mut guard = Guard { ends, lines: None, task: None };
    let mut events = Events::with_capacity(4);
    loop {
        let pause = guard.task.as_ref().map_or(IDLE, |task| task.next.since(MonoNs::now()).min(IDLE));
        match poll.poll(&mut events, Some(pause)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        guard.ends.wake.drain();
        guard.ends.lane.beat();
        guard.obey();
        guard.go_on();
        if end.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// `multusd --safe-state`: all outputs safe, with nothing else running. What was done, in words; nothing to do is done. A
/// `hardware.toml` with an error is no reason to leave outputs as they are: those of the last one without are made safe.
///
/// # Errors
/// What is not safe, and why.
pub fn apply(dirs: &Dirs) -> Result<String, String> {
    let loaded = hardware::load(&dirs.config, None);
    let path = dirs.config.join(hardware::HARDWARE_FILE);
    if loaded.is_missing {
        return Ok(format!("{}: no such file, so there is no output", path.display()));
    }
    let found: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    let found = found.join("\n");
    let (config, whose) = match loaded.config {
        Some(config) => (config, String::new()),
        None => {
            let kept = hardware::kept(&dirs.state).ok_or_else(|| format!("no output was set: {found}"))?;
            (kept, format!(", those of the last {} without an error: {found}", path.display()))
        }
    };
    let (state, failed) = multus_hardware::safe::apply(&config, dirs, APPLY_PATIENCE);
    let outputs = config.lines.iter().filter(|line| line.kind.is_output()).count();
    if failed.is_empty() {
        let board = state.board().unwrap_or("no native one");
        return Ok(format!("{outputs} outputs have their safe values ({board}){whose}"));
    }
    Err(format!("not all of {outputs} outputs have their safe values: {}{whose}", failed.join("; ")))
}

/// A multus-io that dies with its multusd may need a moment to be gone.
const APPLY_PATIENCE: Duration = Duration::from_secs(2);

struct Guard {
    ends: Ends,
    /// The lines, and what is held of them.
    lines: Option<SafeState>,
    /// Something is to be secured.
    task: Option<Task>,
}

struct Task {
    ordered: MonoNs,
    next: MonoNs,
    pause: Duration,
    is_answered: bool,
    is_told: bool,
    /// Everything was written and once more.
    is_repeated: bool,
}

impl Task {
    fn new(ordered: MonoNs) -> Self {
        Self { ordered, next: ordered, pause: PAUSE, is_answered: false, is_told: false, is_repeated: false }
    }
}

impl Guard {
    fn obey(&mut self) {
        while let Ok(setup) = self.ends.setups.pop() {
            // First let go: the new lines may be the old ones.
            self.ends.shared.open(None);
            self.lines = None;
            self.lines = setup.map(|config| SafeState::prepare(*config, &self.ends.dirs));
            if self.lines.is_none() {
                self.task = None;
                self.ends.shared.set(Holder::Nobody, &[]);
            }
        }
        while let Ok((order, ordered)) = self.ends.orders.pop() {
            let Some(lines) = &mut self.lines else { continue };
            match order {
                Order::Secure => {
                    lines.begin();
                    self.task = Some(Task::new(ordered));
                }
                Order::LetGo => {
                    let has_shared = self.ends.shared.is_handed_out.load(Ordering::Acquire);
                    lines.let_go(has_shared);
                    self.ends.shared.open(lines.share_outputs());
                    self.task = None;
                    self.ends.shared.set(Holder::Scanner, &[]);
                }
            }
        }
    }

    fn go_on(&mut self) {
        let (Some(lines), Some(task)) = (&mut self.lines, &mut self.task) else { return };
        if MonoNs::now() < task.next {
            return;
        }
        let mut failed = lines.write_native();
        // A bus may hang; whoever wants the lines shall not wait for it.
        self.ends.shared.open(lines.share_outputs());
        failed.extend(lines.write_buses());
        let now = MonoNs::now();
        let is_over = failed.is_empty() || now.since(task.ordered) >= PATIENCE;
        if is_over && !std::mem::replace(&mut task.is_answered, true) {
            let answer = Secured { failed: failed.len() as u64, took_ns: now.0.saturating_sub(task.ordered.0) };
            // The watch thread empties the ring at every turn.
            let _ = self.ends.answers.push(answer);
            self.ends.wake_watch.wake();
        }
        self.ends.shared.set(Holder::Guard, &failed);
        if failed.is_empty() && !std::mem::replace(&mut task.is_repeated, true) {
            // A process that was killed ends the system call that it is in: what it wrote is written over.
            lines.begin();
            task.next = now.after(REPEAT);
            return;
        }
        if failed.is_empty() {
            if task.is_told {
                log::info!("all outputs have their safe values now");
            }
            self.task = None;
            return;
        }
        if is_over && !std::mem::replace(&mut task.is_told, true) {
            log::error!("not all outputs have their safe values; it is tried again: {}", failed.join("; "));
        }
        task.next = MonoNs::now().after(task.pause);
        // A process that was killed is gone within milliseconds; a chip that does not answer may take for ever.
        if now.since(task.ordered) > Duration::from_millis(100) {
            task.pause = (task.pause * 2).min(LONGEST_PAUSE);
        }
    }
}
