//! What happened: the latest events, or all that the database keeps, with filters.

use super::render::context;
use multus_contract::api::event::{Event, Weight};
use multus_contract::api::time::{format_rfc3339, parse_rfc3339};
use multus_ipc::words::EventKind;
use serde::Serialize;

use super::{Answer, View, encoded};
use crate::history::{Format, Query};
use crate::service::{Error, EventQuery};

/// An event as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    seq: u64,
    time: String,
    child: Option<String>,
    kind: String,
    fault: Option<String>,
    /// The first line, and the rest.
    detail: String,
    more: String,
    tone: &'static str,
    shape: &'static str,
}

pub(super) fn row(event: &Event) -> Row {
    let (shape, tone) = match event.weight() {
        Weight::Bad => ("triangle", "bad"),
        Weight::Warning => ("diamond", "warn"),
        Weight::Good => ("circle", "ok"),
        Weight::Plain => ("ring", "idle"),
    };
    let (detail, more) = event.detail.split_once('\n').unwrap_or((&event.detail, ""));
    Row {
        seq: event.seq,
        time: event.time.clone(),
        child: event.child.clone(),
        kind: event.kind.clone(),
        fault: event.fault.clone(),
        detail: detail.to_owned(),
        more: more.to_owned(),
        tone,
        shape,
    }
}

/// The filters of the page.
#[derive(Clone, Debug, Default, Serialize)]
struct Filter {
    child: String,
    kind: String,
    from: String,
    to: String,
    q: String,
    after: String,
}

impl Filter {
    /// As the query of an address, without the place in the list.
    fn address(&self) -> String {
        let parts =
            [("child", &self.child), ("kind", &self.kind), ("from", &self.from), ("to", &self.to), ("q", &self.q)];
        let set = parts.iter().filter(|(_, value)| !value.is_empty());
        set.map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
    }

    fn query(&self) -> Result<Query, Error> {
        let list = |text: &str| if text.is_empty() { Vec::new() } else { vec![text.to_owned()] };
        let child = if self.child == DAEMON { vec![String::new()] } else { list(&self.child) };
        let time = |name: &str, text: &str| match text {
            "" => Ok(None),
            text => instant(text)
                .map(Some)
                .ok_or_else(|| Error::field(name, "expected a time such as 2026-08-05T14:03 (UTC)")),
        };
        Ok(Query {
            children: child,
            kinds: list(&self.kind),
            text: self.q.clone(),
            from_unix_ns: time("from", &self.from)?,
            to_unix_ns: time("to", &self.to)?,
            after: self.after.parse().ok(),
            limit: PAGE,
            ..Query::default()
        })
    }

    /// Whether an event that is kept in memory fits.
    fn fits(&self, query: &Query, event: &Event) -> bool {
        let time = parse_rfc3339(&event.time).unwrap_or(0);
        let child = event.child.as_deref().unwrap_or("");
        query.children.first().is_none_or(|wanted| wanted == child)
            && query.kinds.first().is_none_or(|wanted| *wanted == event.kind)
            && query.from_unix_ns.is_none_or(|from| time >= from)
            && query.to_unix_ns.is_none_or(|to| time < to)
            && event.detail.to_lowercase().contains(&self.q.to_lowercase())
    }
}

impl View<'_> {
    fn filter(&self) -> Filter {
        let of = |name| self.query(name).trim().to_owned();
        Filter { child: of("child"), kind: of("kind"), from: of("from"), to: of("to"), q: of("q"), after: of("after") }
    }

    /// A page of events.
    pub(super) fn events(&self) -> Answer {
        let filter = self.filter();
        let (query, wrong) = match filter.query() {
            Ok(query) => (query, None),
            Err(error) => (Query { limit: PAGE, ..Query::default() }, Some(error.to_string())),
        };
        let (rows, next, trouble) = match self.service().event_history(self.caller(), &query) {
            Ok(page) => (page.rows.iter().map(|entry| row(&entry.event)).collect(), page.next, None),
            Err(error) => (self.kept(&filter, &query)?, None, Some(error.to_string())),
        };
        let mut names: Vec<String> = self
            .service()
            .children(self.caller(), None)
            .unwrap_or_default()
            .into_iter()
            .map(|child| child.name)
            .collect();
        names.sort_unstable();
        let kinds: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        let context = context! {
            rows, filter, wrong, names, kinds, daemon => DAEMON, trouble, address => filter.address(),
            next => next.map(|next| next.to_string()), first => filter.after.is_empty(),
        };
        Ok(self.page("events.html", "Events", context))
    }

    /// All that fits, as a file.
    pub(super) fn export(&self) -> Answer {
        let filter = self.filter();
        let query = filter.query()?;
        let format = if self.query("format") == "csv" { Format::Csv } else { Format::JsonLines };
        if self.service().event_history(self.caller(), &Query { limit: 1, ..query.clone() }).is_ok() {
            let streams = &self.visit.web.streams;
            return streams
                .export_file(self.visit.visitor, query, format)
                .map_err(|_| Error::Busy("others are exporting already; try again when they are done".to_owned()));
        }
        // Without a database: what is kept in memory.
        let name = if format == Format::Csv { "events.csv" } else { "events.jsonl" };
        let mut text = format.head();
        for event in self.latest(MOST_KEPT)?.iter().filter(|event| filter.fits(&query, event)) {
            text.push_str(&format.row(&crate::history::Entry { event: (**event).clone(), ..Default::default() }));
        }
        Ok(super::download(format.content_type(), name, text))
    }

    fn kept(&self, filter: &Filter, query: &Query) -> Result<Vec<Row>, Error> {
        let events = self.latest(MOST_KEPT)?;
        Ok(events.iter().rev().filter(|event| filter.fits(query, event)).take(PAGE).map(|event| row(event)).collect())
    }

    fn latest(&self, limit: usize) -> Result<Vec<std::sync::Arc<Event>>, Error> {
        self.service().events(self.caller(), &EventQuery { since: None, child: None, limit })
    }
}

/// Nanoseconds since 1970 of what a field for a time sends: without seconds, without a zone (it is UTC).
pub(super) fn instant(text: &str) -> Option<u64> {
    let text = text.trim().trim_end_matches('Z').replace(' ', "T");
    let full = match (text.contains('T'), text.matches(':').count()) {
        (false, _) => format!("{text}T00:00:00Z"),
        (true, 1) => format!("{text}:00Z"),
        (true, _) => format!("{text}Z"),
    };
    parse_rfc3339(&full).filter(|ns| format_rfc3339(*ns).len() == 27)
}

/// Stands for events of the daemon itself.
const DAEMON: &str = "multusd";
/// Events on a page.
const PAGE: usize = 100;
const MOST_KEPT: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_browsers_send_them() {
        assert_eq!(instant("1970-01-01T00:01"), Some(60_000_000_000));
        assert_eq!(instant("1970-01-01 00:00:02"), Some(2_000_000_000));
        assert_eq!(instant("1970-01-02"), Some(86_400_000_000_000));
        for bad in ["", "yesterday", "1970-13-01T00:00", "T", "1970-01-01T00:00+02:00"] {
            assert_eq!(instant(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_filter_finds_what_fits_all_of_it() {
        let event = Event {
            time: "1970-01-01T00:10:00Z".into(),
            child: Some("pump".into()),
            kind: "fault".into(),
            detail: "No beat for 60 ms".into(),
            ..Event::default()
        };
        let filter = |child: &str, kind: &str, from: &str, q: &str| Filter {
            child: child.into(),
            kind: kind.into(),
            from: from.into(),
            q: q.into(),
            ..Filter::default()
        };
        for (filter, fits) in [
            (filter("", "", "", ""), true),
            (filter("pump", "fault", "1970-01-01T00:10", "BEAT"), true),
            (filter("multusd", "", "", ""), false),
            (filter("", "ready", "", ""), false),
            (filter("", "", "1970-01-01T00:11", ""), false),
            (filter("", "", "", "x"), false),
        ] {
            let query = filter.query().expect("good times");
            assert_eq!(filter.fits(&query, &event), fits, "{filter:?}");
        }
        assert_eq!(filter("a b", "", "", "&").address(), "child=a%20b&q=%26");
        assert!(filter("", "", "x", "").query().is_err());
    }
}
