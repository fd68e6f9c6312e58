//! What is written: events in the order in which they happened, what is missing between them, and changes of lines.

use std::time::Duration;

use multus_contract::api::event::Event;
use multus_contract::api::time::parse_rfc3339;
use multus_ipc::words::EventKind;

use super::lines::LastChanges;
use super::sql::{Failure, Result, Sql, Value};
use super::{IoChange, LOST};

/// The writing end of a database.
///
/// Each start of multusd is a run; its events are numbered from 0 without gaps. An event is known by its number and its
/// two times, so that it may come several times, from the daemon and from its files, and is stored once.
pub(super) struct Recorder {
    sql: Box<dyn Sql>,
    chain: Chain,
    lines: LastChanges,
    max_age: Option<Duration>,
    max_bytes: u64,
}

/// Where in the story the next event belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    run: i64,
    /// Number and monotonic time of the last event of this run.
    last: Option<(u64, u64)>,
}

/// What storing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// Events that are new here.
    pub(super) new: u64,
    /// Events that are missing before them.
    pub(super) lost: u64,
    /// Events that were there already.
    pub(super) known: u64,
}

impl Recorder {
    /// Makes the tables if they are not there, and finds where it left off.
    pub(super) fn new(mut sql: Box<dyn Sql>, max_age: Option<Duration>, max_bytes: u64) -> Result<Self> {
        for statement in sql.schema() {
            sql.execute(statement, &[])?;
        }
        let chain = chain(sql.as_mut(), "ORDER BY id DESC LIMIT 1", &[])?.unwrap_or_default();
        let lines = LastChanges::read(sql.as_mut())?;
        Ok(Self { sql, chain, lines, max_age, max_bytes })
    }

    /// Time and number of the last event; `None` in an empty database.
    pub(super) fn last(&mut self) -> Result<Option<(u64, u64)>> {
        let sql = "SELECT time_unix_ns, seq FROM events WHERE kind <> ? ORDER BY id DESC LIMIT 1";
        let rows = self.sql.select(sql, &[LOST.into()])?;
        let number = |row: &[Value], i: usize| Some(row.get(i)?.int()?.unsigned_abs());
        Ok(rows.first().and_then(|row| Some((number(row, 0)?, number(row, 1)?))))
    }

    /// Whether events are missing before or between these, if they belong to the run stored last.
    pub(super) fn misses_some_of(&self, events: &[Event]) -> bool {
        let Some((mut last, _)) = self.chain.last else { return false };
        events.iter().any(|event| {
            let before = last;
            last = last.max(event.seq);
            event.seq > before.saturating_add(1)
        })
    }

    /// Stores events that follow each other, all or none. `new_daemon`: those that are not known come from another run
    /// than the last one here, unless one that is known comes before them.
    pub(super) fn store(&mut self, events: &[Event], mut new_daemon: bool) -> Result<Stored> {
        let (mut next, mut stored) = (self.chain.clone(), Stored::default());
        self.sql.transaction(&mut |sql| {
            for event in events {
                stored.add(place(sql, &mut next, event, &mut new_daemon)?);
            }
            Ok(())
        })?;
        self.chain = next;
        Ok(stored)
    }

    /// Stores changes of lines, all or none; how many rows that made, and how many changes have none.
    pub(super) fn store_io(&mut self, changes: &[IoChange]) -> Result<(u64, u64)> {
        let (mut next, mut done) = (self.lines.clone(), (0, 0));
        self.sql.transaction(&mut |sql| {
            for change in changes {
                if next.begin(&change.image) {
                    // Rows up to this one count in another image.
                    let rows = sql.select("SELECT MAX(id) FROM io_changes", &[])?;
                    let last = rows.first().and_then(|row| row.first()?.int()).unwrap_or(0);
                    set_meta(sql, IMAGE, &format!("{last} {}", change.image))?;
                }
                if let Some(row) = next.place(change) {
                    insert_io(sql, &row)?;
                    done = (done.0 + 1, done.1 + row.missed);
                }
            }
            Ok(())
        })?;
        self.lines = next;
        Ok(done)
    }

    pub(super) fn meta(&mut self, name: &str) -> Result<Option<String>> {
        let rows = self.sql.select("SELECT value FROM meta WHERE name = ?", &[name.into()])?;
        Ok(rows.first().and_then(|row| row.first()?.text()).map(str::to_owned))
    }

    pub(super) fn set_meta(&mut self, name: &str, value: &str) -> Result<()> {
        set_meta(self.sql.as_mut(), name, value)
    }

    /// Removes what is too old, but never one of the last `always` rows (1 at least: it tells where to go on): whatever a
    /// clock says, the latest story stays. See also [`Recorder::keep_size`].
    pub(super) fn keep_age(&mut self, now_unix_ns: u64, always: i64) -> Result<u64> {
        let Some(age) = self.max_age else { return Ok(0) };
        let oldest = now_unix_ns.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        let mut removed = 0;
        for table in TABLES {
            // By number, up to the first that is young enough: what was written while the clock was not set yet
            // goes together with what stands around it.
            let young = format!("SELECT MIN(id) FROM {table} WHERE time_unix_ns >= ?");
            let all = format!("SELECT MAX(id) FROM {table}");
            let Some(last) = self.number(&all, &[])? else { continue };
            let first_kept = last.saturating_sub(always.max(1) - 1);
            let young = self.number(&young, &[oldest.into()])?;
            removed += self.remove_before(table, young.unwrap_or(last).min(first_kept))?;
        }
        if removed > 0 {
            self.sql.give_back()?;
        }
        Ok(removed)
    }

    /// Removes the oldest until the rest fits.
    pub(super) fn keep_size(&mut self) -> Result<u64> {
        let mut removed = 0;
        while self.sql.used_bytes()? > self.max_bytes {
            let mut largest: Option<(i64, &str, i64)> = None;
            for table in TABLES {
                let least = self.number(&format!("SELECT MIN(id) FROM {table}"), &[])?;
                let most = self.number(&format!("SELECT MAX(id) FROM {table}"), &[])?;
                if let (Some(least), Some(most)) = (least, most)
                    && largest.is_none_or(|(rows, ..)| most - least + 1 > rows)
                {
                    largest = Some((most - least + 1, table, least));
                }
            }
            // Empty tables take some room, too.
            let Some((rows, table, least)) = largest else { break };
            removed += self.remove_before(table, least + (rows / 10).max(1))?;
        }
        if removed > 0 {
            self.sql.give_back()?;
        }
        Ok(removed)
    }

    /// Bytes in use.
    pub(super) fn used_bytes(&mut self) -> Result<u64> {
        self.sql.used_bytes()
    }

    fn number(&mut self, sql: &str, values: &[Value]) -> Result<Option<i64>> {
        Ok(self.sql.select(sql, values)?.first().and_then(|row| row.first()?.int()))
    }

    /// In steps, so that no transaction becomes as large as the whole.
    fn remove_before(&mut self, table: &str, keep: i64) -> Result<u64> {
        let mut removed = 0;
        let least = format!("SELECT MIN(id) FROM {table}");
        while let Some(first) = self.number(&least, &[])?.filter(|first| *first < keep) {
            let end = keep.min(first.saturating_add(STEP));
            removed += self.sql.execute(&format!("DELETE FROM {table} WHERE id < ?"), &[end.into()])?;
        }
        Ok(removed)
    }
}

impl Stored {
    fn add(&mut self, other: Self) {
        self.new += other.new;
        self.lost += other.lost;
        self.known += other.known;
    }
}

/// Puts one event where it belongs.
fn place(sql: &mut dyn Sql, chain: &mut Chain, event: &Event, new_daemon: &mut bool) -> Result<Stored> {
    let time = parse_rfc3339(&event.time).unwrap_or(0);
    let key: [Value; 3] = [time.into(), event.seq.into(), event.mono_ns.into()];
    if let Some(found) = self::chain(sql, "AND time_unix_ns = ? AND seq = ? AND mono_ns = ? LIMIT 1", &key)? {
        *chain = found;
        *new_daemon = false;
        return Ok(Stored { known: 1, ..Stored::default() });
    }
    let begun = event.event_kind() == Some(EventKind::DaemonStarted) && event.seq == 0;
    let goes_on = |(seq, mono): (u64, u64)| event.seq > seq && event.mono_ns >= mono && !begun && !*new_daemon;
    let lost = match chain.last {
        Some(last) if goes_on(last) => event.seq - last.0 - 1,
        last => {
            chain.run += 1;
            // What came before the first event of an empty database is not missing in it.
            if last.is_some() { event.seq } else { 0 }
        }
    };
    *new_daemon = false;
    if lost > 0 {
        let gap = Event {
            seq: event.seq - lost,
            time: event.time.clone(),
            mono_ns: event.mono_ns,
            kind: LOST.into(),
            detail: if lost == 1 { "1 event was lost".into() } else { format!("{lost} events were lost") },
            ..Event::default()
        };
        insert(sql, chain.run, time, &gap)?;
    }
    insert(sql, chain.run, time, event)?;
    chain.last = Some((event.seq, event.mono_ns));
    Ok(Stored { new: 1, lost, known: 0 })
}

fn insert(sql: &mut dyn Sql, run: i64, time: u64, event: &Event) -> Result<()> {
    let json = serde_json::to_string(event).map_err(|error| Failure::Other(error.to_string()))?;
    let values: [Value; 10] = [
        run.into(),
        event.seq.into(),
        time.into(),
        event.mono_ns.into(),
        event.child.as_deref().into(),
        event.instance.map(i64::from).into(),
        event.kind.as_str().into(),
        event.fault.as_deref().into(),
        event.detail.as_str().into(),
        json.as_str().into(),
    ];
    sql.execute(
        "INSERT INTO events (run, seq, time_unix_ns, mono_ns, child, instance, kind, fault, detail, json) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        &values,
    )
    .map(drop)
}

fn insert_io(sql: &mut dyn Sql, change: &IoChange) -> Result<()> {
    let values: [Value; 9] = [
        change.time_unix_ns.into(),
        change.line.as_str().into(),
        change.kind.as_str().into(),
        change.value.as_str().into(),
        change.previous.as_deref().into(),
        change.duration_ns.into(),
        change.source.as_str().into(),
        change.missed.into(),
        change.changes.into(),
    ];
    sql.execute(
        "INSERT INTO io_changes (time_unix_ns, line, kind, value, previous, duration_ns, source, missed, changes) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        &values,
    )
    .map(drop)
}

fn set_meta(sql: &mut dyn Sql, name: &str, value: &str) -> Result<()> {
    sql.execute("REPLACE INTO meta (name, value) VALUES (?, ?)", &[name.into(), value.into()]).map(drop)
}

/// The place of an event that is stored; gaps are none.
fn chain(sql: &mut dyn Sql, which: &str, values: &[Value]) -> Result<Option<Chain>> {
    let mut all: Vec<Value> = vec![LOST.into()];
    all.extend_from_slice(values);
    let rows = sql.select(&format!("SELECT run, seq, mono_ns FROM events WHERE kind <> ? {which}"), &all)?;
    let of = |row: &[Value]| {
        let number = |i: usize| row.get(i)?.int();
        Some(Chain { run: number(0)?, last: Some((number(1)?.unsigned_abs(), number(2)?.unsigned_abs())) })
    };
    Ok(rows.first().and_then(|row| of(row)))
}

/// Which image the changes of lines are counted in, after the number of the last row that counts in another one.
pub(super) const IMAGE: &str = "io-image";
const TABLES: [&str; 2] = ["events", "io_changes"];
/// Rows that are removed at once.
const STEP: i64 = 2000;
