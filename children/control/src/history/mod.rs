//! The event database: every event of multusd and every change of a line, for years, in SQLite or on a server.
//!
//! One thread follows the daemon and writes. It has no queue of events of its own: what it has not stored yet is in the
//! daemon's ring and in its event files, and is fetched from there, also what happened while this program was down. So
//! a database that is slow, full or out of reach holds up nobody, and loses nothing that is still kept somewhere; what
//! is lost after all is stored as a row of its own.

mod clock;
mod files;
mod follow;
mod lines;
mod mysql;
mod query;
mod record;
mod sql;
mod sqlite;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multus_child::Interval;
use multus_contract::config::parse_size;
use multus_contract::dirs::Dirs;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::outward::Secret;
use crate::run::Stop;
use crate::service::{Error, Result, Service};
use sql::{Failure, Sql};
use tokio::sync::oneshot;

pub(crate) use follow::identity;
pub use query::{Counts, Entry, Format, IoQuery, MOST_ROWS, Page, Query};

/// The event database.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether events are stored.
    pub enabled: bool,
    /// Where: empty for the file history.sqlite in the state directory; the absolute path of another file; or a server,
    /// such as mysql://user@server/database (MariaDB, MySQL; one database for each device).
    #[schemars(extend("x-display-level" = 10, "x-edit-level" = 0))]
    pub database: String,
    /// Certificate authority of the server (PEM, an absolute path): the connection to it is then TLS, and the server must show
    /// a certificate for the name in the URL. Empty: not encrypted.
    pub ca: PathBuf,
    /// Password for the server.
    pub password: Secret,
    /// A file with that password in its first line.
    #[schemars(extend("x-edit-level" = 0))]
    pub password_file: PathBuf,
    /// What is older is removed; 0s: nothing is too old.
    pub max_age: Interval,
    /// The oldest is removed when the database becomes larger, 1MiB to 1TiB. On a server a row counts as 1 KiB.
    pub max_size: String,
    /// "normal": a power failure may cost the last half minute of rows, never the database. "full": each change waits for
    /// the disk, which wears out an SD card sooner. Of no meaning on a server.
    pub durability: Durability,
}

/// How hard a change is put on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// When the system gets to it.
    #[default]
    Normal,
    /// Before anything else.
    Full,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            database: String::new(),
            ca: PathBuf::new(),
            password: Secret::default(),
            password_file: PathBuf::new(),
            max_age: Duration::from_secs(365 * 86_400).into(),
            max_size: "256MiB".into(),
            durability: Durability::Normal,
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> std::result::Result<(), multus_child::Error> {
        let size = parse_size(&self.max_size).map_err(|error| format!("history.max_size: {error}"))?;
        if !(1 << 20..=1 << 40).contains(&size) {
            return Err("history.max_size: expected 1MiB to 1TiB".into());
        }
        match self.target(Path::new("/")) {
            Target::Server { url, ca, .. } => Ok(mysql::check(&url, &ca)?),
            Target::File(path) if path.is_absolute() => Ok(()),
            Target::File(_) => {
                Err("history.database: expected an absolute path or mysql://user@server/database".into())
            }
        }
    }

    fn target(&self, state: &Path) -> Target {
        if self.database.is_empty() {
            return Target::File(state.join("history.sqlite"));
        }
        if self.database.contains("://") {
            // MariaDB has a name of its own for the same protocol.
            let url = match self.database.strip_prefix("mariadb://") {
                Some(rest) => format!("mysql://{rest}"),
                None => self.database.clone(),
            };
            let (password, file) = (self.password.clone(), self.password_file.clone());
            return Target::Server { url, ca: self.ca.clone(), password, file };
        }
        Target::File(PathBuf::from(&self.database))
    }
}

/// Where the database is.
#[derive(Clone)]
enum Target {
    File(PathBuf),
    Server { url: String, ca: PathBuf, password: Secret, file: PathBuf },
}

impl Target {
    fn open(&self, durability: Durability) -> sql::Result<Box<dyn Sql>> {
        match self {
            Self::File(path) => {
                if let Some(dir) = path.parent() {
                    std::fs::create_dir_all(dir).map_err(|e| Failure::Other(format!("{}: {e}", dir.display())))?;
                }
                Ok(Box::new(sqlite::Sqlite::open(path, durability)?))
            }
            Self::Server { .. } => self.open_to_read(),
        }
    }

    fn open_to_read(&self) -> sql::Result<Box<dyn Sql>> {
        match self {
            Self::File(path) => Ok(Box::new(sqlite::Sqlite::open_to_read(path)?)),
            Self::Server { url, ca, password, file } => {
                let password = password.or_file(file).map_err(Failure::Other)?;
                Ok(Box::new(mysql::Mysql::open(url, password.reveal(), ca)?))
            }
        }
    }
}

/// A change of an input or output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct IoChange {
    /// When, ns since 1970.
    pub time_unix_ns: u64,
    /// The same for people, RFC 3339; made when it is read.
    pub time: String,
    /// Name of the line, at most 32 bytes.
    pub line: String,
    /// What it is: `digital-input`, `digital-output`, `analogue-input`, `analogue-output`.
    pub kind: String,
    /// What it became: 0 or 1, or a number in the unit of the line.
    pub value: String,
    /// What it was; `None`: nothing is known of before. The same as `value` when only the source changed, or changes were
    /// missed that cancelled each other.
    pub previous: Option<String>,
    /// How long it was that, as far as was seen.
    pub duration_ns: Option<u64>,
    /// Why it has its value: `safe`, `requested`, `retained`, `forced`, `read` for an input, `bad` when it cannot be read or
    /// written; then the value is the last good one.
    pub source: String,
    /// Changes of value before this one, since the row before, that have no row: they came too fast, or nobody looked.
    pub missed: u64,
    /// Of one that comes in: when the value changed, ns since 1970.
    #[serde(skip)]
    pub changed_unix_ns: Option<u64>,
    /// How often the value had changed, as multus-io counts.
    #[serde(skip)]
    pub changes: u64,
    /// Names what `changes` was counted in; another image counts anew.
    #[serde(skip)]
    pub image: Arc<str>,
}

/// How the database does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Whether the last thing that was tried worked.
    pub up: bool,
    /// Why not.
    pub error: Option<String>,
    /// Events stored since this program started.
    pub stored: u64,
    /// Events that were missing, and are for good.
    pub lost: u64,
    /// Changes of lines that wait to be stored.
    pub queued: u64,
    /// Changes of lines that found no room in the queue.
    pub io_lost: u64,
    /// Changes of lines stored since this program started.
    pub io_stored: u64,
    /// Changes of lines that have no row: too fast, without room, or from before this program started.
    pub io_missed: u64,
    /// Times that the database failed.
    pub failures: u64,
    /// Damaged files that were set aside.
    pub set_aside: u64,
    /// Rows removed because they were too old or too many.
    pub removed: u64,
    /// Bytes in use.
    pub bytes: u64,
}

/// The event database. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct History(Arc<Shared>);

struct Shared {
    target: Target,
    durability: Durability,
    max_age: Option<Duration>,
    max_bytes: u64,
    socket: PathBuf,
    state: PathBuf,
    io: Mutex<VecDeque<IoChange>>,
    /// Whether to end, and how to be woken for it.
    stop: (Mutex<bool>, Condvar),
    /// A reader found the file damaged.
    suspect: AtomicBool,
    /// Readers that are at it or wait.
    readers: AtomicUsize,
    one_reader: Mutex<()>,
    up: AtomicBool,
    error: Mutex<Option<String>>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    stored: AtomicU64,
    lost: AtomicU64,
    io_lost: AtomicU64,
    io_stored: AtomicU64,
    io_missed: AtomicU64,
    failures: AtomicU64,
    set_aside: AtomicU64,
    removed: AtomicU64,
    bytes: AtomicU64,
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Keeps the history until the program ends.
///
/// # Errors
/// The system gives no thread.
pub async fn serve(config: Config, service: Service, stop: Stop) -> std::result::Result<(), multus_child::Error> {
    if !config.enabled {
        return Ok(());
    }
    let (history, ended) = History::start(&config, service.dirs())?;
    service.set_history(history.clone());
    stop.requested().await;
    history.stop();
    // Any answer means that the thread is gone. Whoever waits for us has a limit of his own.
    let _ = ended.await;
    Ok(())
}

impl History {
    /// Starts the thread that writes. It has no beat: nobody is to be killed because a database is slow. What is returned
    /// with it resolves when the thread has ended.
    ///
    /// # Errors
    /// The system gives no thread. What the configuration says was checked before.
    pub fn start(config: &Config, dirs: &Dirs) -> std::io::Result<(Self, oneshot::Receiver<()>)> {
        let age = config.max_age.duration();
        let shared = Arc::new(Shared {
            target: config.target(&dirs.state),
            durability: config.durability,
            max_age: (!age.is_zero()).then_some(age),
            max_bytes: parse_size(&config.max_size).unwrap_or(u64::MAX),
            socket: dirs.control_socket(),
            state: dirs.state.clone(),
            io: Mutex::default(),
            stop: (Mutex::new(false), Condvar::new()),
            suspect: AtomicBool::new(false),
            readers: AtomicUsize::new(0),
            one_reader: Mutex::new(()),
            up: AtomicBool::new(false),
            error: Mutex::default(),
            counters: Counters::default(),
        });
        let work = Arc::clone(&shared);
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name("history".into()).spawn(move || {
            follow::work(&work);
            // Nobody may be interested.
            let _ = end.send(());
        })?;
        Ok((Self(shared), ended))
    }

    /// Asks the thread to store what it has and end.
    pub fn stop(&self) {
        *lock(&self.0.stop.0) = true;
        self.0.stop.1.notify_all();
    }

    /// Takes in a change of a line. Never waits; when the database is down for long, the newest find no room.
    pub fn io_changed(&self, change: IoChange) {
        let mut queue = lock(&self.0.io);
        if queue.len() < IO_QUEUE {
            queue.push_back(change);
        } else {
            add(&self.0.counters.io_lost, 1);
        }
    }

    /// How it does.
    pub fn stats(&self) -> Stats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.0.counters;
        Stats {
            up: self.0.up.load(Ordering::Relaxed),
            error: lock(&self.0.error).clone(),
            stored: of(&counters.stored),
            lost: of(&counters.lost),
            queued: lock(&self.0.io).len() as u64,
            io_lost: of(&counters.io_lost),
            io_stored: of(&counters.io_stored),
            io_missed: of(&counters.io_missed),
            failures: of(&counters.failures),
            set_aside: of(&counters.set_aside),
            removed: of(&counters.removed),
            bytes: of(&counters.bytes),
        }
    }

    /// Events that fit, a page of them. Blocks, some seconds at worst.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Unavailable`].
    pub fn events(&self, query: &Query) -> Result<Page<Entry>> {
        self.read(|sql| query::events(sql, query))
    }

    /// How many events fit. Blocks as [`History::events`].
    ///
    /// # Errors
    /// As [`History::events`].
    pub fn counts(&self, query: &Query) -> Result<Counts> {
        self.read(|sql| query::counts(sql, query))
    }

    /// Changes of lines with the numbers of their rows. Blocks as [`History::events`].
    ///
    /// # Errors
    /// As [`History::events`].
    pub fn io_changes(&self, query: &IoQuery) -> Result<Page<(i64, IoChange)>> {
        self.read(|sql| query::io_changes(sql, query))
    }

    /// Hands out all events that fit as the text of a file, in pieces of a page, until `out` says no.
    ///
    /// # Errors
    /// As [`History::events`].
    pub fn export(&self, query: &Query, format: Format, out: &mut dyn FnMut(String) -> bool) -> Result<()> {
        let mut query = Query { limit: MOST_ROWS, ..query.clone() };
        let mut text = format.head();
        loop {
            let page = self.events(&query)?;
            text.extend(page.rows.iter().map(|entry| format.row(entry)));
            if !out(std::mem::take(&mut text)) || page.next.is_none() {
                return Ok(());
            }
            query.after = page.next;
        }
    }

    fn read<T>(&self, work: impl FnOnce(&mut dyn Sql) -> sql::Result<T>) -> Result<T> {
        let waiting = Waiting::new(&self.0.readers);
        if waiting.number > MOST_READERS {
            return Err(Error::Busy("too many search the event history: try again".into()));
        }
        // One after the other: each may need some memory, and the disk is one.
        let _turn = lock(&self.0.one_reader);
        let done = self.0.target.open_to_read().and_then(|mut sql| work(sql.as_mut()));
        done.map_err(|failure| {
            if matches!(failure, Failure::Corrupt(_)) {
                self.0.suspect.store(true, Ordering::Relaxed);
            }
            Error::Unavailable(format!("the event history cannot be read: {failure}"))
        })
    }
}

/// Counts itself as long as it lives.
struct Waiting<'a> {
    all: &'a AtomicUsize,
    number: usize,
}

impl<'a> Waiting<'a> {
    fn new(all: &'a AtomicUsize) -> Self {
        Self { all, number: all.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Every change is complete before anything could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

/// The kind of a row that stands for events that are missing.
pub const LOST: &str = "events-lost";
/// Changes of lines that wait: some seconds of a busy plant, some hundred KiB.
const IO_QUEUE: usize = 4096;
/// Readers that wait at most; each holds a thread.
const MOST_READERS: usize = 4;
