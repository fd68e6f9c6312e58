//! The thread that writes: follows the daemon, fetches what it missed, and starts over after every failure.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use multus_contract::api::command::{Client, NextEvent, Request};
use multus_contract::api::event::Event;
use multus_contract::api::status::Status;

use super::clock::Clock;
use super::record::Recorder;
use super::sql::{Failure, Result};
use super::{IoChange, Shared, Target, add, files, lock, sqlite};
use crate::outward::Backoff;

/// Until it is asked to end.
pub(super) fn work(shared: &Shared) {
    let mut worker = Worker {
        shared,
        backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
        told: None,
        rows: 0,
        checked: None,
        started: Instant::now(),
        clock: None,
    };
    while !shared.stopping() {
        let Err(failure) = worker.session() else { return };
        worker.failed(&failure);
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    backoff: Backoff,
    /// When a failure was last told of.
    told: Option<Instant>,
    /// Rows written since the size was looked at, and when that was.
    rows: u64,
    checked: Option<Instant>,
    started: Instant,
    clock: Option<Clock>,
}

impl Worker<'_> {
    /// From opening the database to its first failure; `Ok` when it was asked to end.
    fn session(&mut self) -> Result<()> {
        let shared = self.shared;
        let sql = shared.target.open(shared.durability)?;
        let mut recorder = Recorder::new(sql, shared.max_age, shared.max_bytes)?;
        self.checked = None;
        self.keep_bounds(&mut recorder)?;
        while !shared.stopping() {
            self.store_io(&mut recorder)?;
            match connect(shared) {
                Some((client, daemon)) => {
                    self.import(&mut recorder)?;
                    self.follow(&mut recorder, client, &daemon)?;
                }
                None => shared.pause(RETRY),
            }
        }
        self.store_io(&mut recorder)
    }

    /// Until the daemon hangs up.
    fn follow(&mut self, recorder: &mut Recorder, mut client: Client, daemon: &str) -> Result<()> {
        let mut new_daemon = recorder.meta(DAEMON)?.as_deref() != Some(daemon);
        let mut batch: Vec<Event> = Vec::new();
        let mut since = Instant::now();
        loop {
            let next = client.next_event_within(if batch.is_empty() { TURN } else { GATHER });
            let more = match next {
                Ok(NextEvent::Event(event)) => {
                    if batch.is_empty() {
                        since = Instant::now();
                    }
                    batch.push(*event);
                    if batch.len() < BATCH && since.elapsed() < LONGEST_GATHER {
                        continue;
                    }
                    true
                }
                Ok(NextEvent::NotYet) => !self.shared.stopping(),
                // The service tells of it.
                Ok(NextEvent::Closed) | Err(_) => false,
            };
            if !batch.is_empty() {
                // The ring went on without us: the files reach further back.
                if !new_daemon && recorder.misses_some_of(&batch) {
                    self.import(recorder)?;
                }
                self.store(recorder, &batch, new_daemon)?;
                if std::mem::take(&mut new_daemon) {
                    recorder.set_meta(DAEMON, daemon)?;
                }
                batch.clear();
            }
            self.store_io(recorder)?;
            self.keep_bounds(recorder)?;
            if !more {
                return Ok(());
            }
        }
    }

    /// Stores what the files of the daemon have and the database has not.
    fn import(&mut self, recorder: &mut Recorder) -> Result<()> {
        let last = recorder.last()?;
        let shared = self.shared;
        files::after(&shared.state, last, BATCH, &mut |events| {
            self.store(recorder, events, false)?;
            self.keep_bounds(recorder)
        })
    }

    fn store(&mut self, recorder: &mut Recorder, events: &[Event], new_daemon: bool) -> Result<()> {
        let stored = recorder.store(events, new_daemon)?;
        add(&self.shared.counters.stored, stored.new);
        add(&self.shared.counters.lost, stored.lost);
        if stored.lost > 0 {
            log::warn!("{} events were lost before they could be stored in the history", stored.lost);
        }
        self.rows += stored.new;
        if stored.new > 0 {
            self.works();
        }
        Ok(())
    }

    fn store_io(&mut self, recorder: &mut Recorder) -> Result<()> {
        let waiting: Vec<IoChange> = lock(&self.shared.io).iter().take(BATCH).cloned().collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let (stored, missed) = recorder.store_io(&waiting)?;
        lock(&self.shared.io).drain(..waiting.len());
        add(&self.shared.counters.io_stored, stored);
        add(&self.shared.counters.io_missed, missed);
        self.rows += stored;
        self.works();
        Ok(())
    }

    /// Removes what is too old or too much, and looks after a file that a reader found damaged.
    fn keep_bounds(&mut self, recorder: &mut Recorder) -> Result<()> {
        if self.shared.suspect.swap(false, Ordering::Relaxed)
            && let Target::File(path) = &self.shared.target
            && !sqlite::Sqlite::open_to_read(path)?.is_sound()
        {
            return Err(Failure::Corrupt(format!("{}: a search found it damaged", path.display())));
        }
        if self.rows < ROWS_BETWEEN && self.checked.is_some_and(|checked| checked.elapsed() < TIME_BETWEEN) {
            return Ok(());
        }
        let mut removed = recorder.keep_size()?;
        let clock = match &mut self.clock {
            Some(clock) => clock,
            None => {
                // Once: rows that are written from now on have the time of this very clock.
                let last = recorder.last()?.map(|(time, _)| Duration::from_nanos(time));
                self.clock.insert(Clock::new(unix(), self.started.elapsed(), last))
            }
        };
        if self.checked.is_none_or(|checked| checked.elapsed() >= TIME_BETWEEN) {
            if clock.is_believed(unix(), self.started.elapsed()) {
                removed += recorder.keep_age(unix().as_nanos().try_into().unwrap_or(u64::MAX), ALWAYS_KEPT)?;
            }
            self.checked = Some(Instant::now());
        }
        self.rows = 0;
        add(&self.shared.counters.removed, removed);
        self.shared.counters.bytes.store(recorder.used_bytes()?, Ordering::Relaxed);
        if !self.shared.up.load(Ordering::Relaxed) && self.told.is_none() {
            self.works();
        }
        Ok(())
    }

    fn works(&mut self) {
        if !self.shared.up.swap(true, Ordering::Relaxed) {
            *lock(&self.shared.error) = None;
            if self.told.is_some() {
                log::info!("the event history is written again");
            }
        }
        self.backoff.reset();
    }

    fn failed(&mut self, failure: &Failure) {
        let shared = self.shared;
        shared.up.store(false, Ordering::Relaxed);
        *lock(&shared.error) = Some(failure.to_string());
        add(&shared.counters.failures, 1);
        if let (Failure::Corrupt(_), Target::File(path)) = (failure, &shared.target) {
            match sqlite::set_aside(path, unix().as_secs()) {
                Ok(aside) => {
                    add(&shared.counters.set_aside, 1);
                    log::error!("{failure}: it was set aside as {}, and a new one is begun", aside.display());
                }
                Err(error) => log::error!("{failure}; it cannot be set aside: {error}"),
            }
        } else if self.told.is_none_or(|told| told.elapsed() > QUIET) {
            // A disk that is full on and off must not fill the log, too.
            self.told = Some(Instant::now());
            log::error!("the event history cannot be written, until it can be it is tried again: {failure}");
        }
        shared.pause(self.backoff.failed());
    }
}

impl Shared {
    fn stopping(&self) -> bool {
        *lock(&self.stop.0)
    }

    /// Waits, unless it is asked to end.
    fn pause(&self, time: Duration) {
        let guard = lock(&self.stop.0);
        let waited = self.stop.1.wait_timeout_while(guard, time, |stop| !*stop);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// A connection that brings all events the daemon has, and those to come; and which daemon that is.
fn connect(shared: &Shared) -> Option<(Client, String)> {
    let mut client = Client::connect_within(&shared.socket, PATIENCE).ok()?;
    let status: Status = client.request_as(&Request::Status { name: None }).ok()?;
    client.request(&Request::Events { since: Some(0), follow: true }).ok()?;
    Some((client, identity(status.daemon.pid)))
}

/// Names a process for all time: the start of the machine, its number, and its own start.
pub(crate) fn identity(pid: u32) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the program may hold blanks; after it stand numbers, the 20th of which is the start.
    let started = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)).unwrap_or_default();
    format!("{}/{pid}/{started}", boot.trim())
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Which daemon was followed last.
const DAEMON: &str = "daemon";
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_secs(1);
const TURN: Duration = Duration::from_millis(500);
/// Events that come together are stored together.
const GATHER: Duration = Duration::from_millis(20);
const LONGEST_GATHER: Duration = Duration::from_millis(200);
const BATCH: usize = 256;
/// Of each table; some ten MiB. They go by size only.
const ALWAYS_KEPT: i64 = 10_000;
const ROWS_BETWEEN: u64 = 512;
const TIME_BETWEEN: Duration = Duration::from_secs(600);
const QUIET: Duration = Duration::from_secs(3600);
