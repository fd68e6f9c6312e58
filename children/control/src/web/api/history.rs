//! The event database, metrics, and notifications.

use multus_contract::api::time::parse_rfc3339;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::problem::Problem;
use super::super::request::Method::{Get, Post};
use super::super::response::Response;
use super::events::too_many;
use super::table::{Access, Call, Json, METRICS, Query, Table, within};
use crate::history::{self, Counts, Entry, Format, IoChange, Page};
use crate::service::{Caller, Error};

/// Which events. Several names are separated by commas; what is left out does not matter.
#[derive(Deserialize, JsonSchema)]
struct Wanted {
    /// Of these child instances.
    children: Option<String>,
    /// Whether events of the daemon itself are meant, too, where children are named.
    daemon: Option<bool>,
    /// Of these kinds; `events-lost` stands where events are missing.
    kinds: Option<String>,
    /// About these faults.
    faults: Option<String>,
    /// With these words in the detail, letters of either case alike.
    text: Option<String>,
    /// Not before this time, RFC 3339 in UTC such as `2026-08-05T14:03:07Z`.
    from: Option<String>,
    /// Before this time.
    to: Option<String>,
    /// From the oldest to the latest; else the latest first.
    oldest_first: Option<bool>,
    /// Go on after this row: `next` of the page before.
    after: Option<i64>,
    /// Rows of a page, 1 to 1000; without: 100.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// Of an export: `jsonl` (one JSON object a line) or `csv`; without: `jsonl`.
    format: Option<FileFormat>,
}

/// Which changes of lines. Several names are separated by commas; what is left out does not matter.
#[derive(Deserialize, JsonSchema)]
struct WantedLines {
    /// Of these lines.
    lines: Option<String>,
    /// With these sources: safe, requested, retained, forced, read, bad.
    sources: Option<String>,
    /// Not before this time, RFC 3339 in UTC such as `2026-08-05T14:03:07Z`.
    from: Option<String>,
    /// Before this time.
    to: Option<String>,
    /// From the oldest to the latest; else the latest first.
    oldest_first: Option<bool>,
    /// Go on after this row: `next` of the page before.
    after: Option<i64>,
    /// Rows of a page, 1 to 1000; without: 100.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// One change of a line.
#[derive(Serialize, JsonSchema)]
struct Change {
    /// Number of the row; rises in the order in which changes were seen.
    id: i64,
    /// What changed.
    #[serde(flatten)]
    change: IoChange,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum FileFormat {
    Jsonl,
    Csv,
}

/// How many events fit.
#[derive(Serialize, JsonSchema)]
struct Counted {
    /// In all.
    total: u64,
    /// Of each kind.
    kinds: Vec<Count>,
    /// Of each child instance; an empty name is the daemon itself.
    children: Vec<Count>,
}

/// How many of one name.
#[derive(Serialize, JsonSchema)]
struct Count {
    /// The name.
    name: String,
    /// How many.
    count: u64,
}

/// Targets of notifications.
#[derive(Serialize, JsonSchema)]
struct Targets {
    /// By name.
    targets: Vec<String>,
}

/// What a target answered.
#[derive(Serialize, JsonSchema)]
struct Tested {
    /// In words.
    answer: String,
}

pub(crate) fn routes(table: &mut Table) {
    let (user, admin) = (Access::Level(Caller::USER), Access::Level(Caller::ADMIN));
    table.add(Get, "/history", "history", "Events of all time from the database", user, page);
    table.add(Get, "/history/counts", "history-counts", "How many events fit", user, counts);
    let summary = "All events that fit, as a file; page and limit do not matter";
    table.text(Get, "/history/export", "export-history", summary, user, "*/*", export);
    table.add(Get, "/history/io", "io-history", "Changes of inputs and outputs from the database", user, io_page);
    let summary = "Everything that can be counted and measured, in the text format of Prometheus or OpenMetrics";
    table.text(Get, METRICS, "metrics", summary, user, "text/plain", metrics);
    table.add(Get, "/notifications", "notification-targets", "Who is told of faults", user, |call, (): ()| {
        Ok(Json(Targets { targets: call.web.service.notify_targets(call.caller()?)? }))
    });
    let path = "/notifications/{target}/test";
    table.add(Post, path, "test-notification", "Tell a target that this is a test", admin, |call, (): ()| {
        Ok(Json(Tested { answer: call.web.service.notify_test(call.caller()?, call.part(0))? }))
    });
}

fn names(text: &Option<String>) -> Vec<String> {
    let parts = text.as_deref().unwrap_or_default().split(',').map(str::trim);
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn time(field: &str, text: &Option<String>) -> Result<Option<u64>, Error> {
    let read = |text: &String| {
        parse_rfc3339(text).ok_or_else(|| Error::field(field, "expected a time such as 2026-08-05T14:03:07Z"))
    };
    text.as_ref().map(read).transpose()
}

fn query(wanted: &Wanted) -> Result<history::Query, Problem> {
    let mut children = names(&wanted.children);
    if wanted.daemon == Some(true) {
        children.push(String::new());
    }
    Ok(history::Query {
        children,
        kinds: names(&wanted.kinds),
        faults: names(&wanted.faults),
        text: wanted.text.clone().unwrap_or_default(),
        from_unix_ns: time("from", &wanted.from)?,
        to_unix_ns: time("to", &wanted.to)?,
        oldest_first: wanted.oldest_first.unwrap_or(false),
        after: wanted.after,
        limit: within("limit", wanted.limit.unwrap_or(100), 1, 1000)?,
    })
}

fn page(call: &Call<'_>, Query(wanted): Query<Wanted>) -> Result<Json<Page<Entry>>, Problem> {
    Ok(Json(call.web.service.event_history(call.caller()?, &query(&wanted)?)?))
}

fn io_page(call: &Call<'_>, Query(wanted): Query<WantedLines>) -> Result<Json<Page<Change>>, Problem> {
    let query = history::IoQuery {
        lines: names(&wanted.lines),
        sources: names(&wanted.sources),
        from_unix_ns: time("from", &wanted.from)?,
        to_unix_ns: time("to", &wanted.to)?,
        oldest_first: wanted.oldest_first.unwrap_or(false),
        after: wanted.after,
        limit: within("limit", wanted.limit.unwrap_or(100), 1, 1000)?,
    };
    let Page { rows, next } = call.web.service.io_history(call.caller()?, &query)?;
    Ok(Json(Page { rows: rows.into_iter().map(|(id, change)| Change { id, change }).collect(), next }))
}

fn counts(call: &Call<'_>, Query(wanted): Query<Wanted>) -> Result<Json<Counted>, Problem> {
    let Counts { total, kinds, children } = call.web.service.event_counts(call.caller()?, &query(&wanted)?)?;
    let list = |counts: Vec<(String, u64)>| counts.into_iter().map(|(name, count)| Count { name, count }).collect();
    Ok(Json(Counted { total, kinds: list(kinds), children: list(children) }))
}

fn export(call: &Call<'_>, Query(wanted): Query<Wanted>) -> Result<Response, Problem> {
    let query = query(&wanted)?;
    let format = match wanted.format.unwrap_or(FileFormat::Jsonl) {
        FileFormat::Jsonl => Format::JsonLines,
        FileFormat::Csv => Format::Csv,
    };
    // What makes it fail is better told now than in the middle of a file.
    call.web.service.event_history(call.caller()?, &history::Query { limit: 1, ..query.clone() })?;
    call.web.streams.export_file(call.visitor, query, format).map_err(|_| too_many())
}

fn metrics(call: &Call<'_>, (): ()) -> Result<Response, Problem> {
    let (media_type, text) = call.web.service.metrics(call.caller()?, call.request.header("accept"))?;
    Ok(Response::new(200, media_type, text))
}
