//! SQLite: a file of one's own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql, params_from_iter};

use super::Durability;
use super::sql::{Failure, Result, Sql, Value, transaction};

/// An open database file.
#[derive(Debug)]
pub(super) struct Sqlite(Connection);

impl Sqlite {
    /// For writing. A file that is not there is made.
    ///
    /// In WAL mode no state of the file that a power failure leaves is broken. With [`Durability::Normal`] the last
    /// transactions may be missing then (what the kernel had not written back, half a minute or so); with
    /// [`Durability::Full`] each waits for the disk.
    pub(super) fn open(path: &Path, durability: Durability) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| of(path, &error))?;
        let sqlite = Self(connection);
        let synchronous = match durability {
            Durability::Normal => "NORMAL",
            Durability::Full => "FULL",
        };
        sqlite
            .0
            .busy_timeout(PATIENCE)
            // Room that is freed can be given back; this must come before the first table.
            .and_then(|()| sqlite.0.pragma_update(None, "auto_vacuum", "INCREMENTAL"))
            .and_then(|()| sqlite.0.pragma_update(None, "journal_mode", "WAL"))
            .and_then(|()| sqlite.0.pragma_update(None, "synchronous", synchronous))
            .and_then(|()| sqlite.0.pragma_update(None, "journal_size_limit", LONGEST_WAL))
            .and_then(|()| sqlite.0.pragma_update(None, "cache_size", CACHE_KIB))
            .map_err(|error| of(path, &error))?;
        Ok(sqlite)
    }

    /// For looking only, for at most [`LONGEST_QUERY`].
    pub(super) fn open_to_read(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| of(path, &error))?;
        let end = Instant::now() + LONGEST_QUERY;
        connection
            .busy_timeout(PATIENCE)
            .and_then(|()| connection.pragma_update(None, "cache_size", CACHE_KIB))
            .and_then(|()| connection.progress_handler(STEPS, Some(move || Instant::now() > end)))
            .map_err(|error| of(path, &error))?;
        Ok(Self(connection))
    }

    /// Whether the whole file is in order.
    pub(super) fn is_sound(&mut self) -> bool {
        let answer = self.select("PRAGMA quick_check(1)", &[]);
        answer.is_ok_and(|rows| rows.first().and_then(|row| row.first()?.text()) == Some("ok"))
    }

    fn number(&self, pragma: &str) -> Result<u64> {
        let number: i64 = self.0.pragma_query_value(None, pragma, |row| row.get(0)).map_err(|e| failure(&e))?;
        Ok(number.unsigned_abs())
    }
}

impl Sql for Sqlite {
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64> {
        let mut statement = self.0.prepare_cached(sql).map_err(|error| failure(&error))?;
        statement.execute(params_from_iter(values)).map(|rows| rows as u64).map_err(|error| failure(&error))
    }

    fn select(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Vec<Value>>> {
        let mut statement = self.0.prepare_cached(sql).map_err(|error| failure(&error))?;
        let columns = statement.column_count();
        let mut found = statement.query(params_from_iter(values)).map_err(|error| failure(&error))?;
        let mut rows = Vec::new();
        while let Some(row) = found.next().map_err(|error| failure(&error))? {
            let value = |i| row.get_ref(i).map(value_of).map_err(|error| failure(&error));
            rows.push((0..columns).map(value).collect::<Result<_>>()?);
        }
        Ok(rows)
    }

    fn schema(&self) -> &'static [&'static str] {
        &[
            "CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, \
             seq INTEGER NOT NULL, time_unix_ns INTEGER NOT NULL, mono_ns INTEGER NOT NULL, child TEXT, instance INTEGER, \
             kind TEXT NOT NULL, fault TEXT, detail TEXT NOT NULL, json TEXT NOT NULL)",
            "CREATE INDEX IF NOT EXISTS events_same ON events (time_unix_ns, seq, mono_ns)",
            "CREATE INDEX IF NOT EXISTS events_child ON events (child, id)",
            "CREATE INDEX IF NOT EXISTS events_kind ON events (kind, id)",
            "CREATE TABLE IF NOT EXISTS io_changes (id INTEGER PRIMARY KEY AUTOINCREMENT, time_unix_ns INTEGER NOT NULL, \
             line TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL, previous TEXT, duration_ns INTEGER, \
             source TEXT NOT NULL, missed INTEGER NOT NULL, changes INTEGER NOT NULL)",
            "CREATE INDEX IF NOT EXISTS io_changes_line ON io_changes (line, id)",
            "CREATE INDEX IF NOT EXISTS io_changes_time ON io_changes (time_unix_ns)",
            "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        ]
    }

    fn used_bytes(&mut self) -> Result<u64> {
        let pages = self.number("page_count")?.saturating_sub(self.number("freelist_count")?);
        Ok(pages.saturating_mul(self.number("page_size")?))
    }

    fn give_back(&mut self) -> Result<()> {
        // Each step gives back one page, so all steps are needed.
        self.select("PRAGMA incremental_vacuum", &[])?;
        self.select("PRAGMA wal_checkpoint(PASSIVE)", &[]).map(drop)
    }

    fn transaction(&mut self, work: &mut dyn FnMut(&mut dyn Sql) -> Result<()>) -> Result<()> {
        transaction(self, "BEGIN IMMEDIATE", work)
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

fn value_of(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Real(number) => Value::Text(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
    }
}

fn failure(error: &rusqlite::Error) -> Failure {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Failure::Corrupt(error.to_string()),
        Some(ErrorCode::OperationInterrupted) => {
            Failure::Other(format!("the search took longer than {} s: narrow it down", LONGEST_QUERY.as_secs()))
        }
        _ => Failure::Other(error.to_string()),
    }
}

fn of(path: &Path, error: &rusqlite::Error) -> Failure {
    match failure(error) {
        Failure::Corrupt(text) => Failure::Corrupt(format!("{}: {text}", path.display())),
        Failure::Other(text) => Failure::Other(format!("{}: {text}", path.display())),
    }
}

/// Puts a damaged file aside, with all that belongs to it, and removes those that were put aside long ago.
///
/// # Errors
/// It cannot be renamed.
pub(super) fn set_aside(path: &Path, unix_s: u64) -> std::io::Result<PathBuf> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = with(&format!(".broken-{unix_s}"));
    std::fs::rename(path, &aside)?;
    for part in ["-wal", "-shm"] {
        // A log of the old file must never be taken for one of the new.
        if with(part).exists() {
            std::fs::rename(with(part), with(&format!(".broken-{unix_s}{part}")))?;
        }
    }
    remove_old(path);
    Ok(aside)
}

/// Broken files are for somebody who looks; a device that nobody looks at must not fill up with them.
fn remove_old(path: &Path) {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return };
    let prefix = format!("{name}.broken-");
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut times: Vec<u64> = names.filter_map(|name| name.strip_prefix(&prefix)?.parse().ok()).collect();
    times.sort_unstable();
    for time in &times[..times.len().saturating_sub(BROKEN_KEPT)] {
        for part in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(dir.join(format!("{prefix}{time}{part}")));
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
/// A search goes through the whole file at worst.
const LONGEST_QUERY: Duration = Duration::from_secs(10);
/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 10_000;
/// The log is cut back to this after it was written into the file.
const LONGEST_WAL: i64 = 4 << 20;
/// Negative: in KiB.
const CACHE_KIB: i64 = -512;
const BROKEN_KEPT: usize = 2;
