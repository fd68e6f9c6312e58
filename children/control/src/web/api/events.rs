//! What happened, reports of faults, and live values.

use std::sync::Arc;

use multus_contract::api::event::Event;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::problem::Problem;
use super::super::request::Method::Get;
use super::super::response::Response;
use super::table::{Access, Call, Json, Query, Table, within};
use crate::service::{Caller, EventQuery, FaultReport, FaultText};

/// Which events.
#[derive(Deserialize, JsonSchema)]
struct Wanted {
    /// From this number on, the first of them; without: the latest.
    since: Option<u64>,
    /// Only those of this child instance.
    child: Option<String>,
    /// Only those of this kind.
    kind: Option<String>,
    /// At most so many, 1 to 1000; without: 100.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// Events, oldest first.
#[derive(Serialize, JsonSchema)]
struct Events {
    /// As far as they are kept: some thousands.
    #[serde(serialize_with = "as_they_are")]
    #[schemars(with = "Vec<Event>")]
    events: Vec<Arc<Event>>,
}

fn as_they_are<S: serde::Serializer>(events: &[Arc<Event>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(events.iter().map(Arc::as_ref))
}

/// What is wanted live.
#[derive(Deserialize, JsonSchema)]
struct Live {
    /// Whether the status is told once a second; it is, unless this is false.
    status: Option<bool>,
    /// Whether inputs and outputs are told of, too: as `io` events, the first with all lines, the others with those that
    /// changed.
    io: Option<bool>,
}

/// Whose reports.
#[derive(Deserialize, JsonSchema)]
struct Whose {
    /// Only those of this child instance.
    child: Option<String>,
}

/// Reports of faults, latest first.
#[derive(Serialize, JsonSchema)]
struct Faults {
    /// At most 1000.
    faults: Vec<FaultReport>,
}

pub(crate) fn routes(table: &mut Table) {
    let user = Access::Level(Caller::USER);
    table.add(Get, "/events", "events", "What happened", user, events);
    table.text(
        Get,
        "/stream",
        "stream",
        "Live: status once a second, every event, lines as they change, as server-sent events; Last-Event-ID gives events that were missed, and gap how many are not kept any more",
        user,
        "text/event-stream",
        stream,
    );
    table.add(Get, "/faults", "faults", "Reports of faults", user, |call, Query(whose): Query<Whose>| {
        Ok(Json(Faults { faults: call.web.service.faults(call.caller()?, whose.child.as_deref())? }))
    });
    table.add(Get, "/faults/{child}/{id}", "fault", "One report; \"latest\" is the latest", user, fault);
}

fn events(call: &Call<'_>, Query(wanted): Query<Wanted>) -> Result<Json<Events>, Problem> {
    let limit = within("limit", wanted.limit.unwrap_or(DEFAULT_LIMIT), 1, MOST_EVENTS)?;
    // With a kind, all are looked through, and the limit comes last.
    let asked = if wanted.kind.is_some() { MOST_EVENTS as usize } else { limit };
    let query = EventQuery { since: wanted.since, child: wanted.child, limit: asked };
    let mut events = call.web.service.events(call.caller()?, &query)?;
    if let Some(kind) = wanted.kind {
        events.retain(|event| event.kind == kind);
        let excess = events.len().saturating_sub(limit);
        if wanted.since.is_some() { events.truncate(limit) } else { drop(events.drain(..excess)) }
    }
    Ok(Json(Events { events }))
}

fn stream(call: &Call<'_>, Query(live): Query<Live>) -> Result<Response, Problem> {
    let missed = call.request.header("last-event-id").and_then(|id| id.trim().parse::<u64>().ok());
    let first = call.web.service.follow_events(call.caller()?, missed.map(|last| last.saturating_add(1)))?;
    let (status, lines) = (live.status != Some(false), live.io == Some(true));
    let stream = call.web.streams.live(call.visitor, first, status, lines).map_err(|_| too_many())?;
    Ok(event_stream(Response::stream(stream)))
}

pub(crate) fn event_stream(response: Response) -> Response {
    // Proxies that gather up answers must not do it here.
    response.with("Content-Type", "text/event-stream").with("X-Accel-Buffering", "no")
}

pub(crate) fn too_many() -> Problem {
    Problem::later(429, 10, "too many streams are open")
}

fn fault(call: &Call<'_>, (): ()) -> Result<Json<FaultText>, Problem> {
    let id = Some(call.part(1)).filter(|id| *id != "latest");
    Ok(Json(call.web.service.fault(call.caller()?, call.part(0), id)?))
}

const DEFAULT_LIMIT: u32 = 100;
const MOST_EVENTS: u32 = 1000;
