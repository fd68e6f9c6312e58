//! The log thread: drains the output of children into their log files, writes every event to the events file and the
//! daemon's own log. When it is stuck (a disk that does not answer), a spare takes its place: what it works on is
//! shared, and what a stuck thread may hold (open files) is its own.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
        let mut registry = self.registry();
        change(&mut registry.sources);
        registry.version += 1;
        drop(registry);
        self.wake.wake();
    }

    /// A thread that panicked inside would have ended the daemon; the data is whole in any case.
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whatever wakes the thread, it looks after everything.
const ANY: Token = Token(0);
const IDLE: Duration = Duration::from_millis(500);

struct Room<'a> {
    shared: &'a Shared,
    number: u64,
    poll: Poll,
    /// Of the registry that `logs` is in line with.
    version: u64,
    /// By the names of the children.
    logs: BTreeMap<String, (Entry, ChildLog)>,
    events: RotatingFile,
}

/// Works as the `number`-th log thread (0 first) until it is told to finish or is replaced.
///
/// # Errors
/// The poll could not be made.
pub fn run(shared: &Shared, number: u64, lane: Lane) -> io::Result<()> {
    shared.in_charge.fetch_max(number, Ordering::Relaxed);
    let poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&shared.wake.raw()), ANY, Interest::READABLE)?;
    let mut room = Room::new(shared, number, poll);
    let mut events = Events::with_capacity(128);
    loop {
        lane.beat();
        let ending = shared.end.load(Ordering::Relaxed);
        let more = room.turn();
        // What threads that must not wait have left.
        log::logger().flush();
        if room.is_replaced() {
            return Ok(());
        }
        if ending && !more {
            room.finish();
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

impl<'a> Room<'a> {
    fn new(shared: &'a Shared, number: u64, poll: Poll) -> Self {
        let config = &shared.events;
        let events = RotatingFile::open_records(&shared.state, "events.jsonl", config.max_size, config.files);
        Self { shared, number, poll, version: 0, logs: BTreeMap::new(), events }
    }

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
        let leave = self.take_registry();
        let mut more = false;
        for name in self.logs.keys().cloned().collect::<Vec<_>>() {
            more |= self.drain(&name);
            if self.is_replaced() {
                return false;
            }
        }
        self.write_events();
        // Last, so that what is told of them still finds their logs.
        leave.iter().for_each(|name| self.close(name));
        more
    }

    /// Opens logs for those that came since the last look; the names of those that left.
    fn take_registry(&mut self) -> Vec<String> {
        let registry = self.shared.registry();
        if registry.version == self.version {
            return Vec::new();
        }
        self.version = registry.version;
        let sources = registry.sources.clone();
        drop(registry);
        self.take_in(&sources);
        let stays = |name: &String| sources.values().any(|entry| entry.name == *name);
        self.logs.keys().filter(|name| !stays(name)).cloned().collect()
    }

    /// Logs for those that have none yet.
    fn take_in(&mut self, sources: &BTreeMap<usize, Entry>) {
        for entry in sources.values() {
            let same = |old: &Entry| Arc::ptr_eq(&old.pipes, &entry.pipes) && old.config == entry.config;
            if self.logs.get(&entry.name).is_some_and(|(old, _)| same(old)) {
                continue;
            }
            self.close(&entry.name);
            let file = RotatingFile::open(&self.shared.logs, &entry.name, entry.config.max_size, entry.config.files);
            let log = ChildLog::new(file, entry.config.lines_per_second);
            self.watch_pipes(entry, true);
            self.logs.insert(entry.name.clone(), (entry.clone(), log));
        }
    }

    fn close(&mut self, name: &str) {
        self.drain(name);
        if let Some((entry, mut log)) = self.logs.remove(name) {
            self.watch_pipes(&entry, false);
            log.flush(now());
        }
    }

    fn watch_pipes(&self, entry: &Entry, on: bool) {
        for pipe in entry.pipes.iter() {
            let fd = pipe.as_raw_fd();
            let registry = self.poll.registry();
            let result = if on {
                registry.register(&mut SourceFd(&fd), ANY, Interest::READABLE)
            } else {
                registry.deregister(&mut SourceFd(&fd))
            };
            if let (true, Err(error)) = (on, result) {
                // Still read every half second, with every round.
                log::warn!("{}: its output cannot be polled: {error}", entry.name);
            }
        }
    }

    fn drain(&mut self, name: &str) -> bool {
        let Some((entry, log)) = self.logs.get_mut(name) else { return false };
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
        if !self.logs.contains_key(name) {
            // It may have come, and have been started, since the registry was looked at.
            let sources = self.shared.registry().sources.clone();
            self.take_in(&sources);
        }
        self.drain(name);
        if let Some((_, log)) = self.logs.get_mut(name) {
            if record.kind == EventKind::Reaped {
                log.flush(now());
            }
            log.note(text, now());
        }
    }

    fn finish(&mut self) {
        for (_, log) in self.logs.values_mut() {
            log.flush(now());
        }
    }
}

fn now() -> Now {
    Now { mono_ns: MonoNs::now().0, unix_ns: unix_ns() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use multus_ipc::event_ring::Writer;
    use multus_ipc::sync::AtomicU64 as Word;
    use multus_ipc::text::Name;
    use nix::fcntl::OFlag;
    use nix::unistd::{pipe2, write};

    use super::*;

    fn page(words: usize) -> &'static [Word] {
        Box::leak((0..words).map(|_| Word::new(0)).collect::<Box<[_]>>())
    }

    fn shared_in(dir: &Path) -> (Shared, Writer<'static>) {
        let ring = page(event_ring::words(8));
        let wake = Arc::new(Wake::new().unwrap());
        let (logs, state) = (dir.to_owned(), dir.to_owned());
        (Shared::new(logs, state, EventsConfig::default(), ring, page(status::words(1)), wake), Writer::new(ring))
    }

    /// Pipes of a child, and the end that it writes its output to.
    fn pipes() -> (Arc<[OwnedFd; 2]>, OwnedFd) {
        let pipe = || pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        let ((out, child), (err, _)) = (pipe(), pipe());
        (Arc::new([out, err]), child)
    }

    fn about(name: &str, kind: EventKind) -> EventRecord {
        EventRecord { name: Name::new(name), ..EventRecord::new(kind) }
    }

    /// What a log says, without the times.
    fn said(dir: &Path, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(dir.join(format!("{name}.log"))).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.split(':').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_first_start_of_a_child_is_in_its_log_however_soon_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (shared, mut events) = shared_in(dir.path());
        let mut room = Room::new(&shared, 0, Poll::new().unwrap());
        assert_eq!(room.take_registry(), [""; 0]);
        // Between the look at the registry and that at the events.
        let (pipes, _child) = pipes();
        shared.add(0, "pump", ChildLogConfig::default(), pipes);
        events.push(&about("pump", EventKind::Spawned));
        room.write_events();
        assert_eq!(said(dir.path(), "pump"), ["--- spawned"]);
    }

    #[test]
    fn the_end_of_a_child_is_in_its_log_when_another_has_its_slot_already() {
        let dir = tempfile::tempdir().unwrap();
        let (shared, mut events) = shared_in(dir.path());
        let mut room = Room::new(&shared, 0, Poll::new().unwrap());
        let (old, old_child) = pipes();
        shared.add(0, "pump", ChildLogConfig::default(), old);
        room.turn();
        write(&old_child, b"last words\n").unwrap();
        events.push(&about("pump", EventKind::Reaped));
        shared.remove(0);
        let (new, _new_child) = pipes();
        shared.add(0, "valve", ChildLogConfig::default(), new);
        events.push(&about("valve", EventKind::Spawned));
        room.turn();
        assert_eq!(said(dir.path(), "pump"), ["out last words", "--- reaped"]);
        assert_eq!(said(dir.path(), "valve"), ["--- spawned"]);
        assert_eq!(room.logs.keys().collect::<Vec<_>>(), ["valve"]);
    }
}
