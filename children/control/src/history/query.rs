//! What can be asked: which events, in which order, page by page; how many; and all of them as a file.

use multus_contract::api::event::Event;
use multus_contract::api::time::format_rfc3339;
use schemars::JsonSchema;
use serde::Serialize;

use super::IoChange;
use super::sql::{Result, Sql, Value};

/// Which events. What is left empty does not matter; everything that is set must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Of one of these child instances; an empty name means the daemon itself.
    pub children: Vec<String>,
    /// Of one of these kinds; `events-lost` stands where events are missing.
    pub kinds: Vec<String>,
    /// About one of these faults.
    pub faults: Vec<String>,
    /// With these words in the detail, upper or lower case.
    pub text: String,
    /// Not before, ns since 1970.
    pub from_unix_ns: Option<u64>,
    /// Before this time, ns since 1970.
    pub to_unix_ns: Option<u64>,
    /// From the oldest to the latest; else the latest first.
    pub oldest_first: bool,
    /// Go on after this row: [`Page::next`] of the page before.
    pub after: Option<i64>,
    /// Rows of a page, 1 to 1000; 0: 100.
    pub limit: usize,
}

/// One event as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Entry {
    /// Number of the row; rises in the order in which events happened.
    pub id: i64,
    /// The start of multusd that it belongs to, counted here; `seq` starts anew with each.
    pub run: i64,
    /// The event. Of a gap: `kind` is `events-lost`, `seq` the first number that is missing.
    #[serde(flatten)]
    pub event: Event,
}

/// Some rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Page<T> {
    /// In the order that was asked for.
    pub rows: Vec<T>,
    /// For the page after this one; `None`: that was all.
    pub next: Option<i64>,
}

/// How many events fit a query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// In all.
    pub total: u64,
    /// Of each kind.
    pub kinds: Vec<(String, u64)>,
    /// Of each child instance; an empty name is the daemon itself.
    pub children: Vec<(String, u64)>,
}

/// Which changes of lines. What is left empty does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoQuery {
    /// Of one of these lines.
    pub lines: Vec<String>,
    /// With one of these sources, such as `forced`.
    pub sources: Vec<String>,
    /// Not before, ns since 1970.
    pub from_unix_ns: Option<u64>,
    /// Before this time, ns since 1970.
    pub to_unix_ns: Option<u64>,
    /// From the oldest to the latest; else the latest first.
    pub oldest_first: bool,
    /// As in [`Query`].
    pub after: Option<i64>,
    /// As in [`Query`].
    pub limit: usize,
}

/// How events are written into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    JsonLines,
    /// Comma-separated with a line of names, RFC 4180.
    Csv,
}

impl Format {
    /// For HTTP.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::JsonLines => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    /// What stands before the first row.
    pub fn head(self) -> String {
        match self {
            Self::JsonLines => String::new(),
            Self::Csv => format!("{CSV_NAMES}\r\n"),
        }
    }

    /// One row, with its end.
    pub fn row(self, entry: &Entry) -> String {
        match self {
            // An entry is plain data with text keys: this cannot fail.
            Self::JsonLines => serde_json::to_string(entry).map(|line| line + "\n").unwrap_or_default(),
            Self::Csv => csv(entry),
        }
    }
}

fn csv(entry: &Entry) -> String {
    let event = &entry.event;
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let fields = [
        entry.id.to_string(),
        entry.run.to_string(),
        event.seq.to_string(),
        event.time.clone(),
        event.mono_ns.to_string(),
        event.child.clone().unwrap_or_default(),
        number(event.instance.map(u64::from)),
        event.kind.clone(),
        event.fault.clone().unwrap_or_default(),
        event.detail.clone(),
        number(event.pid.map(u64::from)),
        number(event.last_beat_ns),
        number(event.deadline_ns),
        number(event.detected_ns),
        number(event.safe_ns),
        number(event.killed_ns),
        number(event.reaped_ns),
        number(event.spawned_ns),
        number(event.ready_ns),
    ];
    let quoted = fields.map(|field| {
        if field.contains([',', '"', '\r', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
    });
    quoted.join(",") + "\r\n"
}

/// Conditions that are joined by AND, and their values.
#[derive(Default)]
struct Where {
    sql: String,
    values: Vec<Value>,
}

impl Where {
    fn and(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        self.sql += if self.sql.is_empty() { " WHERE " } else { " AND " };
        self.sql += condition;
        self.values.extend(values);
    }

    fn one_of(&mut self, column: &str, words: &[String]) {
        if words.is_empty() {
            return;
        }
        let named: Vec<Value> = words.iter().filter(|word| !word.is_empty()).map(|word| word.as_str().into()).collect();
        let marks = vec!["?"; named.len()].join(", ");
        let condition = match (named.is_empty(), named.len() == words.len()) {
            (true, _) => format!("{column} IS NULL"),
            (false, true) => format!("{column} IN ({marks})"),
            (false, false) => format!("({column} IS NULL OR {column} IN ({marks}))"),
        };
        self.and(&condition, named);
    }

    fn times(&mut self, from: Option<u64>, to: Option<u64>) {
        if let Some(from) = from {
            self.and("time_unix_ns >= ?", [from.into()]);
        }
        if let Some(to) = to {
            self.and("time_unix_ns < ?", [to.into()]);
        }
    }

    fn of(query: &Query) -> Self {
        let mut conditions = Self::default();
        conditions.one_of("child", &query.children);
        conditions.one_of("kind", &query.kinds);
        conditions.one_of("fault", &query.faults);
        conditions.times(query.from_unix_ns, query.to_unix_ns);
        if !query.text.is_empty() {
            let escaped = query.text.replace('!', "!!").replace('%', "!%").replace('_', "!_");
            conditions.and("detail LIKE ? ESCAPE '!'", [format!("%{escaped}%").as_str().into()]);
        }
        conditions
    }

    /// Adds the place in the order; gives the end of the statement.
    fn order(&mut self, oldest_first: bool, after: Option<i64>, limit: usize) -> String {
        let (compare, order) = if oldest_first { (">", "ASC") } else { ("<", "DESC") };
        if let Some(after) = after {
            self.and(&format!("id {compare} ?"), [after.into()]);
        }
        // One more than asked for tells whether there are more.
        format!("{} ORDER BY id {order} LIMIT {}", self.sql, limit + 1)
    }
}

fn limit(asked: usize) -> usize {
    if asked == 0 { 100 } else { asked.min(MOST_ROWS) }
}

fn page<T>(mut rows: Vec<T>, limit: usize, id: impl Fn(&T) -> i64) -> Page<T> {
    let more = rows.len() > limit;
    rows.truncate(limit);
    Page { next: rows.last().filter(|_| more).map(id), rows }
}

pub(super) fn events(sql: &mut dyn Sql, query: &Query) -> Result<Page<Entry>> {
    let (mut conditions, limit) = (Where::of(query), limit(query.limit));
    let end = conditions.order(query.oldest_first, query.after, limit);
    let rows = sql.select(&format!("SELECT id, run, json FROM events{end}"), &conditions.values)?;
    let entry = |row: &Vec<Value>| {
        let event = serde_json::from_str(row.get(2)?.text()?).unwrap_or_default();
        Some(Entry { id: row.first()?.int()?, run: row.get(1)?.int()?, event })
    };
    Ok(page(rows.iter().filter_map(entry).collect(), limit, |entry| entry.id))
}

pub(super) fn counts(sql: &mut dyn Sql, query: &Query) -> Result<Counts> {
    let conditions = Where::of(query);
    let mut group = |column: &str| -> Result<Vec<(String, u64)>> {
        let statement =
            format!("SELECT {column}, COUNT(*) FROM events{} GROUP BY {column} ORDER BY {column}", conditions.sql);
        let rows = sql.select(&statement, &conditions.values)?;
        let count = |row: &Vec<Value>| {
            Some((row.first()?.text().unwrap_or_default().to_owned(), row.get(1)?.int()?.unsigned_abs()))
        };
        Ok(rows.iter().filter_map(count).collect())
    };
    let (kinds, children) = (group("kind")?, group("child")?);
    Ok(Counts { total: kinds.iter().map(|(_, count)| count).sum(), kinds, children })
}

pub(super) fn io_changes(sql: &mut dyn Sql, query: &IoQuery) -> Result<Page<(i64, IoChange)>> {
    let (mut conditions, limit) = (Where::default(), limit(query.limit));
    conditions.one_of("line", &query.lines);
    conditions.one_of("source", &query.sources);
    conditions.times(query.from_unix_ns, query.to_unix_ns);
    let end = conditions.order(query.oldest_first, query.after, limit);
    let columns = "id, time_unix_ns, line, kind, value, previous, duration_ns, source, missed, changes";
    let rows = sql.select(&format!("SELECT {columns} FROM io_changes{end}"), &conditions.values)?;
    let change = |row: &Vec<Value>| {
        let text = |i: usize| row.get(i).and_then(Value::text).map(str::to_owned);
        let number = |i: usize| row.get(i).and_then(Value::int);
        let time_unix_ns = number(1)?.unsigned_abs();
        Some((
            number(0)?,
            IoChange {
                time_unix_ns,
                time: format_rfc3339(time_unix_ns),
                line: text(2)?,
                kind: text(3)?,
                value: text(4)?,
                previous: text(5),
                duration_ns: number(6).map(i64::unsigned_abs),
                source: text(7)?,
                missed: number(8)?.unsigned_abs(),
                changes: number(9)?.unsigned_abs(),
                ..IoChange::default()
            },
        ))
    };
    Ok(page(rows.iter().filter_map(change).collect(), limit, |(id, _)| *id))
}

/// Rows of a page.
pub const MOST_ROWS: usize = 1000;
const CSV_NAMES: &str = "id,run,seq,time,mono_ns,child,instance,kind,fault,detail,pid,last_beat_ns,deadline_ns,detected_ns,\
                         safe_ns,killed_ns,reaped_ns,spawned_ns,ready_ns";
