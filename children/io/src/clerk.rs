//! What must not wait for the disk or a full pipe leaves the scan as short notes; the clerk, an ordinary thread, writes them
//! into the log, and the retained values to the disk.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use multus_ipc::child::Voice;
use multus_ipc::io::RequestFault;
use rtrb::{Consumer, Producer};

use crate::retained;

/// Something to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Native inputs cannot be read; the error number.
    InputsBad(i32),
    /// Native inputs are read again.
    InputsGood,
    /// A native input is not open: somebody else has it, or it is not there.
    InputMissing(u16),
    /// It is open now.
    InputFound(u16),
    /// A native output cannot be written: number of the line, error number.
    OutputBad(u16, i32),
    /// It can be again.
    OutputGood(u16),
    /// A request was not carried out: number of the owner, number of the line, why.
    Refused(u16, u16, RequestFault),
    /// Entries of the force page that name no output here.
    UnknownForced(u16),
}

/// The values that outlive a restart, between the scan and the clerk: one for each line.
#[derive(Debug)]
pub struct Retained {
    changes: AtomicU64,
    values: Vec<AtomicU64>,
}

/// No value. A NaN that no arithmetic gives.
const NOTHING: u64 = u64::MAX;

impl Retained {
    /// With these values from the disk.
    pub fn new(values: &[Option<f64>]) -> Self {
        let values = values.iter().map(|value| AtomicU64::new(value.map_or(NOTHING, f64::to_bits))).collect();
        Self { changes: AtomicU64::new(0), values }
    }

    /// The value of a line.
    pub fn get(&self, line: usize) -> Option<f64> {
        self.values
            .get(line)
            .map(|value| value.load(Ordering::Relaxed))
            .filter(|bits| *bits != NOTHING)
            .map(f64::from_bits)
    }

    /// Keeps a value.
    pub fn set(&self, line: usize, value: f64) {
        if let Some(cell) = self.values.get(line)
            && cell.swap(value.to_bits(), Ordering::Relaxed) != value.to_bits()
        {
            // Pairs with the Acquire load of the clerk.
            self.changes.fetch_add(1, Ordering::Release);
        }
    }
}

/// The names that notes and retained values have.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Of the lines.
    pub lines: Vec<String>,
    /// Of the owners.
    pub owners: Vec<String>,
}

/// The clerk's thread. When it is dropped, what is left is written.
#[derive(Debug)]
pub struct Clerk {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Where the scan puts its notes. Those that find no room are lost and counted.
#[derive(Debug)]
pub struct Notes {
    ring: Producer<Note>,
    lost: Arc<AtomicU64>,
}

impl Notes {
    /// Leaves a note.
    ///
    /// # Real time
    /// Wait-free.
    pub fn tell(&mut self, note: Note) {
        if self.ring.push(note).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Clerk {
    /// Starts; `file` is that of the retained values, written at most every `interval`. What is refused is told by `voice`, too.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(
        names: Names,
        retained: Arc<Retained>,
        file: PathBuf,
        interval: Duration,
        voice: Voice,
    ) -> io::Result<(Self, Notes)> {
        let (ring, notes) = rtrb::RingBuffer::new(ROOM);
        let (stop, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut desk = Desk {
            names,
            notes,
            lost: Arc::clone(&lost),
            refused: HashMap::new(),
            retained,
            stored: 0,
            file,
            interval,
            next_store: Instant::now(),
            store_failed: false,
            voice,
        };
        let is_over = Arc::clone(&stop);
        let thread = thread::Builder::new().name("clerk".into()).spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                desk.turn(Instant::now());
                thread::park_timeout(TURN);
            }
            desk.next_store = Instant::now();
            desk.turn(Instant::now());
        })?;
        Ok((Self { stop, thread: Some(thread) }, Notes { ring, lost }))
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // An Err is a panic there, which was told.
            let _ = thread.join();
        }
    }
}

struct Desk {
    names: Names,
    notes: Consumer<Note>,
    lost: Arc<AtomicU64>,
    /// When a refusal was told last, and how many were not since.
    refused: HashMap<(u16, u16), (Instant, u64)>,
    retained: Arc<Retained>,
    stored: u64,
    file: PathBuf,
    interval: Duration,
    next_store: Instant,
    store_failed: bool,
    voice: Voice,
}

impl Desk {
    fn turn(&mut self, now: Instant) {
        while let Ok(note) = self.notes.pop() {
            self.tell(note, now);
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            log::warn!("{lost} notes of the scan were lost");
        }
        let changes = self.retained.changes.load(Ordering::Acquire);
        if changes != self.stored && now >= self.next_store {
            self.next_store = now + self.interval;
            self.store(changes);
        }
    }

    fn store(&mut self, changes: u64) {
        let values = self.names.lines.iter().enumerate();
        let values = values.filter_map(|(line, name)| Some((name.as_str(), self.retained.get(line)?)));
        match retained::store(&self.file, values) {
            Ok(()) => {
                self.stored = changes;
                if std::mem::take(&mut self.store_failed) {
                    log::info!("retained values are written again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.store_failed, true) {
                    log::error!("retained values cannot be written: {error}; tried again");
                }
            }
        }
    }

    fn tell(&mut self, note: Note, now: Instant) {
        let line = |line: u16| self.names.lines.get(usize::from(line)).map_or("?", String::as_str);
        let errno = io::Error::from_raw_os_error;
        match note {
            Note::InputsBad(number) => log::error!("native inputs cannot be read: {}; tried again", errno(number)),
            Note::InputsGood => log::info!("native inputs are read again"),
            Note::InputMissing(at) => {
                log::error!("input {} is missing: another program has it, or it is not there; tried again", line(at));
            }
            Note::InputFound(at) => log::info!("input {} is there now", line(at)),
            Note::OutputBad(at, number) => {
                log::error!("output {} cannot be written: {}; tried again", line(at), errno(number));
            }
            Note::OutputGood(at) => log::info!("output {} is written again", line(at)),
            Note::UnknownForced(count) => {
                log::error!(
                    "{count} outputs of the force page are no lines here: nothing drives them to their safe values"
                );
            }
            Note::Refused(owner, at, fault) => {
                let (told, untold) = self.refused.entry((owner, at)).or_insert((now, u64::MAX));
                if *untold != u64::MAX && now.saturating_duration_since(*told) < QUIET {
                    *untold += 1;
                    return;
                }
                let more = if *untold == u64::MAX { 0 } else { *untold };
                (*told, *untold) = (now, 0);
                let owner = self.names.owners.get(usize::from(owner)).map_or("?", String::as_str);
                let name = self.names.lines.get(usize::from(at)).map_or_else(|| format!("number {at}"), Clone::clone);
                let more = if more > 0 { format!(" ({more} more since the last time)") } else { String::new() };
                log::warn!("a request of {owner} for the line {name} is refused: {fault}{more}");
                // Requests of before come with every new definition of the lines.
                if fault != RequestFault::OtherLayout {
                    self.voice.notice(&format!("a request of {owner} for the line {name} is refused: {fault}"));
                }
            }
        }
    }
}

/// Notes that wait for the clerk.
const ROOM: usize = 1024;
/// From turn to turn.
const TURN: Duration = Duration::from_millis(100);
/// A refusal of the same request is told again after this.
const QUIET: Duration = Duration::from_secs(10);
