//! The log thread: drains the output of children into their log files, writes every event to the events file and the
//! daemon's own log. When it is stuck (a disk that does not answer), a spare takes its place: what it works on is
//! shared, and what a stuck thread may hold (open files) is its own.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use multus_contract::config::{ChildLogConfig, EventsConfig};
use multus_ipc::child::Lane;
use multus_ipc::event_ring::{self, EventRecord, Found};
use multus_ipc::time::unix_ns;
use multus_ipc::words::EventKind;
use multus_ipc::{MonoNs, status};

use crate::capture::{ChildLog, News, Now, RotatingFile, Stream, drain};
use crate::describe;
use crate::wake::Wake;

/// What the log threads share with the others.
#[derive(Debug)]
pub struct Shared {
    /// Where logs go.
    pub logs: PathBuf,
    /// Directory of the events file.
    pub state: PathBuf,
    /// Size and number of events files.
    pub events: EventsConfig,
    /// The event ring.
    pub ring: &'static [multus_ipc::sync::AtomicU64],
    /// The status page: names of slots.
    pub status: &'static [multus_ipc::sync::AtomicU64],
    /// Wakes the log thread.
    pub wake: Arc<Wake>,
    registry: Mutex<Registry>,
    /// Number of the next event to write.
    next_event: AtomicU64,
    /// Number of the thread that is in charge; an older one that comes back to life ends.
    in_charge: AtomicU64,
    end: AtomicBool,
}

#[derive(Debug, Default)]
struct Registry {
    sources: BTreeMap<usize, Entry>,
    version: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    config: ChildLogConfig,
    pipes: Arc<[OwnedFd; 2]>,
}

impl Shared {
    /// Nothing to write yet.
    pub fn new(
        logs: PathBuf,
        state: PathBuf,
        events: EventsConfig,
        ring: &'static [multus_ipc::sync::AtomicU64],
        status: &'static [multus_ipc::sync::AtomicU64],
        wake: Arc<Wake>,
    ) -> Self {
        Self {
            logs,
            state,
            events,
            ring,
            status,
            wake,
            registry: Mutex::default(),
            next_event: AtomicU64::new(0),
            in_charge: AtomicU64::new(0),
            end: AtomicBool::new(false),
        }
    }

    /// From now on the output of a slot goes to the log `name`.
    pub fn add(&self, slot: usize, name: &str, config: ChildLogConfig, pipes: Arc<[OwnedFd; 2]>) {
        self.change(|sources| {
            sources.insert(slot, Entry { name: name.to_owned(), config, pipes });
        });
    }

    /// The slot is free; what is left in its pipes is written before it is forgotten.
    pub fn remove(&self, slot: usize) {
        self.change(|sources| {
            sources.remove(&slot);
        });
    }

    /// Write what is left and end.
    pub fn finish(&self) {
        self.end.store(true, Ordering::Relaxed);
        self.wake.wake();
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<usize, Entry>)) {
        // A thread that panicked inside would have ended the daemon; the data is whole in any case.
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut registry.sources);
        registry.version += 1;
        drop(registry);
        self.wake.wake();
    }
}

const WAKE: Token = Token(usize::MAX);
const IDLE: Duration = Duration::from_millis(500);

struct Room<'a> {
    shared: &'a Shared,
    number: u64,
    poll: Poll,
    version: u64,
    logs: BTreeMap<usize, (Entry, ChildLog)>,
    events: RotatingFile,
    lane: Lane,
}

/// Works as the `number`-th log thread (0 first) until it is told to finish or is replaced.
///
/// # Errors
/// The poll could not be made.
pub fn run(shared: &Shared, number: u64, lane: Lane) -> io::Result<()> {
    shared.in_charge.fetch_max(number, Ordering::Relaxed);
    let poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&shared.wake.raw()), WAKE, Interest::READABLE)?;
    let events = RotatingFile::open_records(&shared.state, "events.jsonl", shared.events.max_size, shared.events.files);
    let mut room = Room { shared, number, poll, version: 0, logs: BTreeMap::new(), events, lane };
    let mut events = Events::with_capacity(128);
    loop {
        let ending = shared.end.load(Ordering::Relaxed);
        let more = room.turn();
        if room.is_replaced() {
            return Ok(());
        }
        if ending && !more {
            room.close();
            return Ok(());
        }
        let pause = if more || ending { Duration::ZERO } else { room.pause() };
        match room.poll.poll(&mut events, Some(pause)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        shared.wake.drain();
    }
}

impl Room<'_> {
    fn is_replaced(&self) -> bool {
        self.shared.in_charge.load(Ordering::Relaxed) != self.number
    }

    fn pause(&self) -> Duration {
        let now = MonoNs::now();
        let soonest =
            self.logs.values().filter_map(|(_, log)| log.next_wakeup()).chain(self.events.next_wakeup()).min();
        soonest.map_or(IDLE, |at| MonoNs(at).since(now)).clamp(Duration::from_millis(1), IDLE)
    }

    /// One round over everything; true when there is more to read at once.
    fn turn(&mut self) -> bool {
        self.lane.beat();
        self.take_registry();
        let mut more = false;
        let slots: Vec<usize> = self.logs.keys().copied().collect();
        for slot in slots {
            more |= self.drain(slot);
            if self.is_replaced() {
                return false;
            }
        }
        self.write_events();
        more
    }

    /// Brings the own logs in line with the registry.
    fn take_registry(&mut self) {
        let registry = self.shared.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if registry.version == self.version {
            return;
        }
        self.version = registry.version;
        let sources = registry.sources.clone();
        drop(registry);
        let gone: Vec<usize> = self.logs.keys().filter(|slot| !sources.contains_key(slot)).copied().collect();
        for slot in gone {
            self.drain(slot);
            if let Some((entry, mut log)) = self.logs.remove(&slot) {
                self.watch_pipes(&entry, slot, false);
                log.flush(now());
            }
        }
        for (slot, entry) in sources {
            let same =
                |e: &Entry| Arc::ptr_eq(&e.pipes, &entry.pipes) && e.config == entry.config && e.name == entry.name;
            if self.logs.get(&slot).is_some_and(|(e, _)| same(e)) {
                continue;
            }
            if let Some((old, mut log)) = self.logs.remove(&slot) {
                self.watch_pipes(&old, slot, false);
                log.flush(now());
            }
            let file = RotatingFile::open(&self.shared.logs, &entry.name, entry.config.max_size, entry.config.files);
            let log = ChildLog::new(file, entry.config.lines_per_second);
            self.watch_pipes(&entry, slot, true);
            self.logs.insert(slot, (entry, log));
        }
    }

    fn watch_pipes(&self, entry: &Entry, slot: usize, on: bool) {
        for (i, pipe) in entry.pipes.iter().enumerate() {
            let fd = pipe.as_raw_fd();
            let registry = self.poll.registry();
            let result = if on {
                registry.register(&mut SourceFd(&fd), Token(slot * 2 + i), Interest::READABLE)
            } else {
                registry.deregister(&mut SourceFd(&fd))
            };
            if let (true, Err(error)) = (on, result) {
                // Still read every half second, with every round.
                log::warn!("{}: its output cannot be polled: {error}", entry.name);
            }
        }
    }

    fn drain(&mut self, slot: usize) -> bool {
        let Some((entry, log)) = self.logs.get_mut(&slot) else { return false };
        let now = now();
        let mut more = false;
        for (pipe, stream) in entry.pipes.iter().zip([Stream::Out, Stream::Err]) {
            more |= drain(pipe.as_fd(), |bytes| log.take(stream, bytes, now)).more;
        }
        log.tick(now);
        match log.take_news() {
            Some(News::Losing { path, reason }) => {
                log::error!("{}: lines of {} are lost: {reason}", entry.name, path.display());
            }
            Some(News::Recovered { path, lost_lines, lost_bytes }) => {
                log::warn!(
                    "{}: {} is written again; {lost_lines} lines ({lost_bytes} bytes) were lost",
                    entry.name,
                    path.display()
                );
            }
            None => {}
        }
        more
    }

    fn write_events(&mut self) {
        let Ok(ring) = event_ring::Reader::new(self.shared.ring) else { return };
        loop {
            let seq = self.shared.next_event.load(Ordering::Relaxed);
            let next = match ring.read(seq) {
                Found::NotYet => break,
                Found::Lost { oldest } => {
                    log::error!("{} events were overwritten before they could be written down", oldest - seq);
                    oldest
                }
                Found::Event(record) => {
                    self.write_event(&record);
                    seq + 1
                }
            };
            if self.is_replaced() {
                return;
            }
            self.shared.next_event.store(next, Ordering::Relaxed);
        }
        let now = now();
        self.events.tick(now);
        if let Some(News::Losing { path, reason }) = self.events.take_news() {
            log::error!("events are not written to {}: {reason}", path.display());
        }
    }

    fn write_event(&mut self, record: &EventRecord) {
        let names = |slot: usize| {
            let reader = status::Reader::new(self.shared.status).ok()?;
            reader.slot(slot).ok().flatten().map(|r| r.name.to_string())
        };
        let event = describe::to_event(record, names);
        if let Ok(mut line) = serde_json::to_vec(&event) {
            line.push(b'\n');
            self.events.write(&line, now());
        }
        let who = event.child.as_deref().unwrap_or("multusd");
        let what = event.fault.as_deref().filter(|_| record.kind == EventKind::Fault).unwrap_or(&event.kind);
        match record.kind {
            EventKind::Fault | EventKind::Degraded | EventKind::TooHot | EventKind::HelperStuck => {
                log::error!("{who}: {what}: {}", event.detail);
            }
            EventKind::CommandFailed | EventKind::LeftoversKilled | EventKind::LateWakeup | EventKind::Reduced => {
                log::warn!("{who}: {what}: {}", event.detail);
            }
            EventKind::Reaped | EventKind::Spawned => log::debug!("{who}: {what}: {}", event.detail),
            _ => log::info!("{who}: {what}: {}", event.detail),
        }
        if record.kind == EventKind::Reaped || record.kind == EventKind::Fault || record.kind == EventKind::Spawned {
            self.note(&record.name.to_string(), record, &format!("{what}: {}", event.detail));
        }
    }

    /// A mark among the lines of the child itself, after everything it wrote before.
    fn note(&mut self, name: &str, record: &EventRecord, text: &str) {
        let slot = self.logs.iter().find(|(_, (entry, _))| entry.name == name).map(|(slot, _)| *slot);
        let Some(slot) = slot else { return };
        self.drain(slot);
        if let Some((_, log)) = self.logs.get_mut(&slot) {
            if record.kind == EventKind::Reaped {
                log.flush(now());
            }
            log.note(text, now());
        }
    }

    fn close(&mut self) {
        for (_, log) in self.logs.values_mut() {
            log.flush(now());
        }
    }
}

fn now() -> Now {
    Now { mono_ns: MonoNs::now().0, unix_ns: unix_ns() }
}
