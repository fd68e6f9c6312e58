//! The heartbeat library: what a Rust program calls to be supervised.
//!
//! ```
//! let heartbeat = multus_ipc::child::Heartbeat::from_env();
//! // ... set up ...
//! heartbeat.ready();
//! for _ in 0..3 {
//!     // ... one turn of the work loop ...
//!     heartbeat.beat();
//! }
//! ```
//! Beat from the loop that does the work, not from a thread of its own: a thread that only beats proves nothing.

use std::cell::Cell;
use std::io::{self, Write as _};
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use crate::checkpoint::Checkpoint;
use crate::heartbeat::{LANES, LaneWriter, PageWriter};
use crate::map::Mapping;
use crate::time::duration_ns;
use crate::{MonoNs, descriptor};

/// The environment variable with the number of the descriptor of the heartbeat page.
pub const ENV_FD: &str = "MULTUS_HEARTBEAT_FD";

/// This process's heartbeat. Inert (all calls do nothing) in a process that is not supervised.
///
/// Lane 0, the one that [`Self::beat`] writes, belongs to the thread that holds this value; it can be moved to another
/// thread, not shared. Further threads get a [`Lane`] each.
#[derive(Debug)]
pub struct Heartbeat {
    page: Option<Arc<Shared>>,
    /// One writer per lane: may be sent, not shared.
    not_sync: PhantomData<Cell<()>>,
}

#[derive(Debug)]
struct Shared {
    map: Mapping,
    lanes: AtomicUsize,
    /// Held by whoever says something: not while beating.
    voice: Mutex<()>,
}

impl Heartbeat {
    /// The heartbeat that multusd set up for this process, or an inert one when there is none. A page that is there
    /// but cannot be used is reported on standard error; multusd will then find the child silent.
    pub fn from_env() -> Self {
        Self::try_from_env().unwrap_or_else(|error| {
            // Not eprintln: a closed standard error must not end the program that asked for a heartbeat.
            let _ = writeln!(io::stderr(), "multus heartbeat: {error}; this process cannot beat");
            Self::inert()
        })
    }

    /// As [`Self::from_env`], for those who want to decide for themselves.
    ///
    /// # Errors
    /// `MULTUS_HEARTBEAT_FD` is set, but is no heartbeat page of this release.
    pub fn try_from_env() -> io::Result<Self> {
        match descriptor::from_env(ENV_FD)? {
            Some(fd) => Self::from_fd(fd),
            None => Ok(Self::inert()),
        }
    }

    /// A heartbeat on a page that was received as a descriptor.
    ///
    /// # Errors
    /// It is no heartbeat page of this release.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let map = Mapping::writable(fd.as_fd())?;
        PageWriter::new(map.words()).map_err(|refused| io::Error::new(io::ErrorKind::InvalidData, refused))?;
        Ok(Self {
            page: Some(Arc::new(Shared { map, lanes: AtomicUsize::new(1), voice: Mutex::default() })),
            not_sync: PhantomData,
        })
    }

    /// A heartbeat that does nothing.
    pub const fn inert() -> Self {
        Self { page: None, not_sync: PhantomData }
    }

    /// Whether somebody watches these beats.
    pub fn is_supervised(&self) -> bool {
        self.page.is_some()
    }

    /// The configured deadline; `None` when not supervised or without one.
    pub fn deadline(&self) -> Option<Duration> {
        let ns = self.page.as_ref()?.writer().deadline_ns();
        Some(Duration::from_nanos(ns)).filter(|d| !d.is_zero())
    }

    /// One beat: "my work loop has come round again".
    ///
    /// # Real time
    /// Wait-free, no allocation, no system call; one clock reading and a few stores (`scripts/bench` says how long).
    #[inline]
    pub fn beat(&self) {
        if let Some(page) = &self.page {
            page.lane(0).beat_at(MonoNs::now());
        }
    }

    /// Says that set-up is done: from now on the deadline counts, and outputs are released. Includes a beat.
    pub fn ready(&self) {
        self.beat();
        if let Some(page) = &self.page {
            page.writer().ready();
        }
    }

    /// The checkpoint `name` of this lane, for [`Self::pass`]; `None` when the configuration of the child has none of
    /// this name (`[[supervision]]`), or nobody supervises. Look it up once, before the loop.
    pub fn checkpoint(&self, name: &str) -> Option<Checkpoint> {
        self.page.as_ref()?.writer().find_checkpoint(0, name)
    }

    /// The thread passes a checkpoint: its order and its times are judged. This is no beat. `None` does nothing.
    ///
    /// # Real time
    /// Wait-free, no allocation, no system call.
    pub fn pass(&self, checkpoint: Option<Checkpoint>) {
        if let (Some(page), Some(checkpoint)) = (&self.page, checkpoint) {
            page.pass(0, checkpoint);
        }
    }

    /// What says things in words; any thread may have it.
    pub fn voice(&self) -> Voice {
        Voice { page: self.page.clone() }
    }

    /// Opens a further lane: one more thread under supervision, from now on, with its own deadline (`None`: that of
    /// the child). The name, at most 32 bytes, is what a fault will say.
    ///
    /// # Errors
    /// `OutOfMemory` when all 16 lanes of the page are taken.
    pub fn lane(&self, name: &str, deadline: Option<Duration>) -> io::Result<Lane> {
        let Some(page) = &self.page else { return Ok(Lane { page: None, lane: 0, not_sync: PhantomData }) };
        let lane = page.lanes.load(Ordering::Relaxed);
        if lane >= LANES {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, format!("all {LANES} lanes are taken")));
        }
        page.lanes.store(lane + 1, Ordering::Relaxed);
        page.writer().open_lane(lane, name, deadline.map_or(0, duration_ns), MonoNs::now());
        Ok(Lane { page: Some(Arc::clone(page)), lane, not_sync: PhantomData })
    }
}

impl Shared {
    fn writer(&self) -> PageWriter<'_> {
        PageWriter::trusted(self.map.words())
    }

    #[inline]
    fn lane(&self, lane: usize) -> LaneWriter<'_> {
        self.writer().lane(lane)
    }

    fn pass(&self, lane: usize, checkpoint: Checkpoint) {
        let now = MonoNs::now();
        self.writer().checkpoints().pass(checkpoint, now);
        self.lane(lane).trace_checkpoint(checkpoint, now);
    }
}

/// How a child says in words what concerns those who look after the machine. Does nothing in a process that is not supervised.
///
/// multusd listens twice a second. A process that ends sooner takes what it said last with it; what explains an end belongs
/// into its log.
#[derive(Clone, Debug)]
pub struct Voice {
    page: Option<Arc<Shared>>,
}

impl Voice {
    /// How the child is, in a line of at most 192 bytes, until something else is said: shown with its state.
    pub fn status(&self, text: &str) {
        self.say(|writer| writer.status(text));
    }

    /// Something that happened and belongs into the record of events, at most 192 bytes. Meant for what changes now and then:
    /// multusd takes ten at once, then one every ten seconds, and tells how many it left out.
    pub fn notice(&self, text: &str) {
        self.say(|writer| writer.notice(text));
    }

    fn say(&self, what: impl FnOnce(crate::voice::Writer<'_>)) {
        if let Some(page) = &self.page {
            let _one_at_a_time = page.voice.lock().unwrap_or_else(PoisonError::into_inner);
            what(page.writer().voice());
        }
    }
}

/// The heartbeat of one further thread. Dropping it takes the thread out of supervision in good order.
#[derive(Debug)]
pub struct Lane {
    page: Option<Arc<Shared>>,
    lane: usize,
    not_sync: PhantomData<Cell<()>>,
}

impl Lane {
    /// One beat of this thread.
    ///
    /// # Real time
    /// As [`Heartbeat::beat`].
    #[inline]
    pub fn beat(&self) {
        if let Some(page) = &self.page {
            page.lane(self.lane).beat_at(MonoNs::now());
        }
    }

    /// As [`Heartbeat::checkpoint`], for the checkpoints of this lane.
    pub fn checkpoint(&self, name: &str) -> Option<Checkpoint> {
        self.page.as_ref()?.writer().find_checkpoint(self.lane, name)
    }

    /// As [`Heartbeat::pass`].
    pub fn pass(&self, checkpoint: Option<Checkpoint>) {
        if let (Some(page), Some(checkpoint)) = (&self.page, checkpoint) {
            page.pass(self.lane, checkpoint);
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(page) = &self.page {
            page.writer().leave(self.lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::{self, Reader};
    use crate::map;

    fn page() -> OwnedFd {
        let fd = map::memfd(c"heartbeat", heartbeat::WORDS).unwrap();
        let map = Mapping::writable(fd.as_fd()).unwrap();
        for (word, value) in map.words().iter().zip(heartbeat::header(1, 50_000_000)) {
            word.store(value, Ordering::Relaxed);
        }
        fd
    }

    #[test]
    fn an_inert_heartbeat_is_harmless() {
        let heartbeat = Heartbeat::inert();
        heartbeat.beat();
        heartbeat.ready();
        heartbeat.voice().notice("nobody hears it");
        heartbeat.lane("x", None).unwrap().beat();
        assert!(!heartbeat.is_supervised());
        assert_eq!(heartbeat.deadline(), None);
    }

    #[test]
    fn beats_of_several_threads_arrive_in_their_lanes() {
        let fd = page();
        let map = Mapping::read_only(fd.as_fd()).unwrap();
        let reader = Reader::new(map.words());
        let heartbeat = Heartbeat::from_fd(fd).unwrap();
        assert_eq!(heartbeat.deadline(), Some(Duration::from_millis(50)));
        let lane = heartbeat.lane("poller", Some(Duration::from_millis(5))).unwrap();
        std::thread::spawn(move || (0..10).for_each(|_| lane.beat())).join().unwrap();
        heartbeat.ready();
        assert_eq!(reader.look(0).sequence, 1);
        assert_eq!(reader.look(1).sequence, 11);
        assert!(reader.is_ready() && reader.has_left(1));
        let _rest: Vec<Lane> = (2..LANES).map(|_| heartbeat.lane("more", None).unwrap()).collect();
        assert!(heartbeat.lane("one too many", None).is_err());
    }

    #[test]
    fn every_thread_may_speak() {
        let fd = page();
        let map = Mapping::read_only(fd.as_fd()).unwrap();
        let said = Reader::new(map.words()).voice();
        let voice = Heartbeat::from_fd(fd).unwrap().voice();
        voice.status("connected");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| voice.notice("again")));
            }
        });
        assert_eq!(said.status().unwrap().to_string(), "connected");
        assert_eq!((said.made(), said.notice(400).unwrap().to_string().as_str()), (400, "again"));
    }

    #[test]
    fn a_page_of_something_else_is_refused() {
        let fd = map::memfd(c"other", heartbeat::WORDS).unwrap();
        assert_eq!(Heartbeat::from_fd(fd).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
