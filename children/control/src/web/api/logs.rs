//! Log files.

use std::fs::File;
use std::io::ErrorKind;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::problem::Problem;
use super::super::request::Method::Get;
use super::super::response::Response;
use super::events::{event_stream, too_many};
use super::table::{Access, Call, Json, Query, Table, within};
use crate::service::{Caller, Error, Found, LogFile};

/// Which logs there are.
#[derive(Serialize, JsonSchema)]
struct Logs {
    /// By name; `multusd` is the daemon's.
    logs: Vec<LogFile>,
}

/// How much.
#[derive(Deserialize, JsonSchema)]
struct HowMany {
    /// How many of the last lines, 5000 at most; without: 100.
    #[schemars(range(max = 5000))]
    lines: Option<u32>,
}

/// The end of a log.
#[derive(Serialize, JsonSchema)]
struct Lines {
    /// Oldest first.
    lines: Vec<String>,
}

/// What to look for.
#[derive(Deserialize, JsonSchema)]
struct Search {
    /// Letters of either case are alike; 1 to 200 bytes.
    #[schemars(length(min = 1, max = 200))]
    words: String,
    /// At most so many lines, the latest, 1 to 1000; without: 100.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// What was found.
#[derive(Serialize, JsonSchema)]
struct FoundLines {
    /// Oldest first.
    found: Vec<Found>,
}

pub(crate) fn routes(table: &mut Table) {
    let user = Access::Level(Caller::USER);
    table.add(Get, "/logs", "logs", "Which logs there are", user, |call, (): ()| {
        Ok(Json(Logs { logs: call.web.service.logs(call.caller()?)? }))
    });
    table.add(Get, "/logs/{name}", "log", "The last lines of a log", user, |call, Query(many): Query<HowMany>| {
        let tail = call.web.service.log_tail(call.caller()?, call.part(0), lines(&many, 100)?)?;
        Ok(Json(Lines { lines: tail.lines }))
    });
    table.add(Get, "/logs/{name}/search", "search-log", "Lines of a log that hold some words", user, search);
    let (download, stream) = ("/logs/{name}/download", "/logs/{name}/stream");
    table.text(Get, download, "download-log", "The current file of a log", user, "text/plain", send);
    let summary = "The last lines of a log and those to come, as server-sent events (lines: a list of texts)";
    table.text(Get, stream, "stream-log", summary, user, "text/event-stream", follow);
}

fn lines(many: &HowMany, usual: u32) -> Result<usize, Problem> {
    within("lines", many.lines.unwrap_or(usual), 0, MOST_LINES)
}

fn search(call: &Call<'_>, Query(search): Query<Search>) -> Result<Json<FoundLines>, Problem> {
    let limit = within("limit", search.limit.unwrap_or(100), 1, 1000)?;
    let found = call.web.service.log_search(call.caller()?, call.part(0), &search.words, limit)?;
    Ok(Json(FoundLines { found }))
}

fn send(call: &Call<'_>, (): ()) -> Result<Response, Problem> {
    let name = call.part(0);
    let path = call.web.service.log_path(call.caller()?, name)?;
    let opened = File::open(&path).and_then(|file| file.metadata().map(|data| (file, data)));
    let (file, data) = match opened {
        Ok(opened) if opened.1.is_file() => opened,
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Error::Internal(format!("{}: {error}", path.display())).into());
        }
        _ => return Err(Error::NotFound(format!("there is no log of {name:?}")).into()),
    };
    let stream = call.web.streams.file(call.visitor, file, data.len()).map_err(|_| too_many())?;
    Ok(Response::stream(stream)
        .with("Content-Type", "text/plain; charset=utf-8")
        .with("Content-Disposition", format!("attachment; filename=\"{name}.log\"")))
}

fn follow(call: &Call<'_>, Query(many): Query<HowMany>) -> Result<Response, Problem> {
    let tail = call.web.service.log_tail(call.caller()?, call.part(0), lines(&many, 0)?)?;
    let stream = call.web.streams.log(call.visitor, tail.lines, tail.follower).map_err(|_| too_many())?;
    Ok(event_stream(Response::stream(stream)))
}

const MOST_LINES: u32 = 5000;
