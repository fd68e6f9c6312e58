//! Heartbeats of programs that know nothing of multusd: what they say in their own way becomes beats in the same kind of
//! page that others write themselves, so that the watch loop sees no difference.
//!
//! | method | what is a beat | where |
//! |---|---|---|
//! | `notify` | `WATCHDOG=1` of sd_notify(3) | [`notify`] |
//! | `control-port` | a byte over TCP, each the successor of the last | [`control_port`] |
//! | `file` | a file was touched | [`file`], with a thread of its own: looking at a file may block |
//!
//! One thread, just below the launcher in priority, bounded in what it does for one child before it turns to the next.
//! It is watched by the core like every other helper.

pub mod control_port;
pub mod file;
pub mod notify;

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use multus_ipc::MonoNs;
use multus_ipc::child::{Heartbeat, Lane};
use multus_supervisor::Told;

use crate::launcher::Group;
use crate::sys;
use crate::wake::Wake;
use control_port::Port;
use notify::{Said, Socket};

/// What tells of a child's beats.
#[derive(Debug)]
pub enum Source {
    /// Its notify socket.
    Notify(OwnedFd),
    /// Its control port.
    ControlPort(TcpListener),
    /// The file that it touches, and how often that is looked at.
    File(PathBuf, Duration),
}

/// From the control thread: which slots are fed.
#[derive(Debug)]
pub enum Setup {
    /// This slot is, from now on by this.
    Feed { slot: usize, name: String, source: Source },
    /// This slot is no longer.
    Drop { slot: usize },
}

/// From the launcher: which process is behind a slot.
#[derive(Debug)]
pub enum Attach {
    /// A process is about to be made; this is the page that its notices are written to.
    Page { slot: usize, generation: u32, page: OwnedFd },
    /// It exists. `names_main`: it may say that another of its processes is the main one.
    Process { slot: usize, generation: u32, pid: i32, names_main: bool, groups: Arc<(Group, Group)> },
}

/// To the watch thread: what is no beat.
#[derive(Debug)]
pub struct Report {
    /// Its slot.
    pub slot: usize,
    /// Its generation.
    pub generation: u32,
    /// What it said.
    pub what: What,
}

/// What a program says that is no beat.
#[derive(Debug)]
pub enum What {
    /// Something of itself.
    Told(Told),
    /// Which of its processes is the main one.
    Main(Main),
}

/// A process that a child named as its main process, and that is one of the child's own.
#[derive(Debug)]
pub struct Main {
    /// Its number.
    pub pid: i32,
    /// It and no other, for the watch thread.
    pub pidfd: OwnedFd,
    /// The same for the launcher.
    pub for_launcher: OwnedFd,
}

/// By which the watch thread learns that everything was heard that was said before a certain moment: a process that has
/// ended may have named another one as its main process right before.
#[derive(Debug, Default)]
pub struct Attention {
    asked: AtomicU64,
    heard: AtomicU64,
}

impl Attention {
    /// Asks for attention; the number is [`heard`](Self::heard) when everything said up to now was passed on.
    ///
    /// # Real time
    /// Wait-free. The adapters thread has to be woken.
    pub fn ask(&self) -> u64 {
        // Partner of the load at the beginning of a round of the adapters thread, which sees by it also what the launcher
        // told it of this process before.
        self.asked.fetch_add(1, Ordering::Release) + 1
    }

    /// The number of the last request that was answered. What was said before lies in the ring of reports by then.
    pub fn heard(&self) -> u64 {
        // Partner of the store at the end of a round of the adapters thread.
        self.heard.load(Ordering::Acquire)
    }
}

/// To the control thread: what the status shows.
#[derive(Clone, Debug)]
pub struct Text {
    /// Its slot.
    pub slot: usize,
    /// What the program says of itself; empty for a new process.
    pub text: String,
}

/// The ends of the rings that the adapters thread holds, and what it shares.
#[derive(Debug)]
pub struct Ends {
    /// From the control thread.
    pub setups: rtrb::Consumer<Setup>,
    /// From the launcher.
    pub attached: rtrb::Consumer<Attach>,
    /// To the watch thread.
    pub reports: rtrb::Producer<Report>,
    /// To the control thread.
    pub texts: rtrb::Producer<Text>,
    /// Wakes this thread.
    pub wake: Arc<Wake>,
    /// Asked by the watch thread.
    pub attention: Arc<Attention>,
    /// Wakes the watch thread.
    pub wake_watch: Arc<Wake>,
    /// SCHED_FIFO priority of this thread.
    pub priority: Option<u8>,
    /// The thread's own heartbeat.
    pub lane: Lane,
}

const WAKE: Token = Token(usize::MAX);
const IDLE: Duration = Duration::from_millis(500);
/// From one turn to the next for a child that sends more than a batch: bounds what a flood can take of a processor.
const FLOOD_PAUSE: Duration = Duration::from_millis(1);

struct Feed {
    name: String,
    kind: Kind,
    generation: u32,
    heartbeat: Heartbeat,
    /// There may be something to read.
    pending: bool,
    /// Nothing is read before this time.
    paused_until: MonoNs,
}

enum Kind {
    Notify(Socket),
    ControlPort(Port),
    File(PathBuf, Duration),
}

/// Works until `end` is set.
///
/// # Errors
/// The poll could not be made.
pub fn run(mut ends: Ends, end: &std::sync::atomic::AtomicBool) -> io::Result<()> {
    if let Some(priority) = ends.priority {
        // Refused only where the watch thread is refused too, which is said there.
        let _ = sys::set_scheduler(libc::SCHED_FIFO, priority, true);
    }
    let mut poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&ends.wake.raw()), WAKE, Interest::READABLE)?;
    let mut events = Events::with_capacity(128);
    let mut feeds: BTreeMap<usize, Feed> = BTreeMap::new();
    let mut files: Option<file::Looker> = None;
    let mut flooded = false;
    let mut all_at = MonoNs(0);
    while !end.load(Ordering::Relaxed) {
        match poll.poll(&mut events, Some(if flooded { FLOOD_PAUSE } else { IDLE })) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        ends.lane.beat();
        if events.iter().any(|event| event.token() == WAKE) {
            ends.wake.drain();
        }
        let asked = ends.attention.asked.load(Ordering::Acquire);
        while let Ok(setup) = ends.setups.pop() {
            set_up(&mut feeds, setup, poll.registry(), &mut files, &ends);
        }
        while let Ok(attach) = ends.attached.pop() {
            // Whom a process belongs to was set up before it was made, but maybe after the last look.
            while let Ok(setup) = ends.setups.pop() {
                set_up(&mut feeds, setup, poll.registry(), &mut files, &ends);
            }
            attached(&mut feeds, attach, &mut ends, files.as_ref());
        }
        for event in &events {
            if let Some(feed) = feeds.get_mut(&event.token().0) {
                feed.pending = true;
            }
        }
        while let Some(touched) = files.as_ref().and_then(file::Looker::touched) {
            if let Some(feed) = feeds.get(&touched.slot).filter(|f| f.generation == touched.generation) {
                feed.heartbeat.beat();
            }
        }
        let now = MonoNs::now();
        let attentive = asked != ends.attention.heard.load(Ordering::Relaxed);
        // Now and then everybody is asked: whom the poll did not take, and what a limit of the system held up.
        let all = now >= all_at || attentive;
        if all {
            all_at = now.after(IDLE);
        }
        flooded = false;
        let mut told = false;
        for (slot, feed) in &mut feeds {
            feed.pending |= all;
            if feed.pending && (attentive || now >= feed.paused_until) {
                told |= feed.read(*slot, poll.registry(), &mut ends, now);
            }
            flooded |= feed.pending;
        }
        ends.attention.heard.store(asked, Ordering::Release);
        if told || attentive {
            ends.wake_watch.wake();
        }
    }
    Ok(())
}

fn set_up(
    feeds: &mut BTreeMap<usize, Feed>,
    setup: Setup,
    registry: &Registry,
    files: &mut Option<file::Looker>,
    ends: &Ends,
) {
    let (Setup::Feed { slot, .. } | Setup::Drop { slot }) = &setup;
    if let Some(feed) = feeds.remove(slot) {
        match feed.kind {
            Kind::Notify(socket) => drop(registry.deregister(&mut SourceFd(&socket.raw()))),
            Kind::ControlPort(port) => port.close(registry),
            Kind::File(..) => {
                if let Some(files) = files {
                    files.leave(*slot);
                }
            }
        }
    }
    let Setup::Feed { slot, name, source } = setup else { return };
    let (kind, polled) = match source {
        Source::Notify(socket) => {
            let socket = Socket::new(socket);
            let polled = registry.register(&mut SourceFd(&socket.raw()), Token(slot), Interest::READABLE);
            (Kind::Notify(socket), polled)
        }
        Source::ControlPort(listener) => {
            let mut port = Port::new(listener);
            let polled = port.open(registry, Token(slot));
            (Kind::ControlPort(port), polled)
        }
        Source::File(path, often) => {
            if files.is_none() {
                match file::Looker::start(Arc::clone(&ends.wake), ends.priority) {
                    Ok(looker) => *files = Some(looker),
                    // Its silence will be a fault, again and again.
                    Err(error) => log::error!("{name}: no thread that looks at files: {error}"),
                }
            }
            (Kind::File(path, often), Ok(()))
        }
    };
    if let Err(error) = polled {
        // Still read twice a second.
        log::warn!("{name}: what tells of its beats cannot be polled: {error}");
    }
    let heartbeat = Heartbeat::inert();
    feeds.insert(slot, Feed { name, kind, generation: 0, heartbeat, pending: false, paused_until: MonoNs(0) });
}

fn attached(feeds: &mut BTreeMap<usize, Feed>, attach: Attach, ends: &mut Ends, files: Option<&file::Looker>) {
    match attach {
        Attach::Page { slot, generation, page } => {
            let Some(feed) = feeds.get_mut(&slot) else { return };
            feed.generation = generation;
            match Heartbeat::from_fd(page) {
                Ok(heartbeat) => feed.heartbeat = heartbeat,
                Err(error) => log::error!("{}: its heartbeat page cannot be mapped: {error}", feed.name),
            }
            match &mut feed.kind {
                Kind::Notify(socket) => socket.forget(),
                Kind::ControlPort(port) => port.forget(),
                Kind::File(path, often) => {
                    if let Some(files) = files {
                        files.look(slot, generation, path, *often);
                    }
                }
            }
            feed.pending = true;
            let _ = ends.texts.push(Text { slot, text: String::new() });
        }
        Attach::Process { slot, generation, pid, names_main, groups } => {
            if let Some(feed) = feeds.get_mut(&slot).filter(|f| f.generation == generation) {
                if let Kind::Notify(socket) = &mut feed.kind {
                    socket.attach(pid, names_main, groups);
                }
                feed.pending = true;
            }
        }
    }
}

impl Feed {
    /// Takes one batch; whether the watch thread was told something.
    fn read(&mut self, slot: usize, registry: &Registry, ends: &mut Ends, now: MonoNs) -> bool {
        let mut told = false;
        let generation = self.generation;
        let reports = &mut ends.reports;
        let mut tell = |what| {
            let pushed =
                reports.push(Report { slot, generation, what }).map_err(|rtrb::PushError::Full(back)| back.what);
            told |= pushed.is_ok();
            pushed
        };
        let more = match &mut self.kind {
            Kind::Notify(socket) if socket.is_attached() => {
                let texts = &mut ends.texts;
                socket.read(&self.name, &self.heartbeat, &mut |said| {
                    match said {
                        Said::Told(told) => drop(tell(What::Told(told))),
                        // A control thread that lags behind misses an old text, nothing else.
                        Said::Text(text) => drop(texts.push(Text { slot, text })),
                        Said::Main(main) => {
                            if let Err(What::Main(back)) = tell(What::Main(main)) {
                                return Err(Said::Main(back));
                            }
                        }
                    }
                    Ok(())
                })
            }
            Kind::ControlPort(port) => {
                let mut tell = |told| tell(What::Told(told)).is_ok();
                port.read(registry, Token(slot), &self.heartbeat, now, &mut tell)
            }
            // What waits in the socket is read when the process is known.
            Kind::Notify(_) | Kind::File(..) => false,
        };
        self.pending = more;
        if more {
            self.paused_until = now.after(FLOOD_PAUSE);
        }
        told
    }
}
