//! `multusctl status [NAME]`.

use multus_contract::api::command::{Client, Request};
use multus_contract::api::event::Event;
use multus_contract::api::status::Status;
use multus_ipc::time::unix_ns;
use serde::Serialize;

use super::Context;
use super::output::{Failure, columns, print_json, print_lines};
use super::view::detail::Detail;
use super::view::header::header;
use super::view::table::Table;
use super::view::text::Line;

pub(crate) fn status(context: &Context, name: Option<&str>, json: bool) -> Result<(), Failure> {
    let report = Report::fetch(&mut context.client()?, name)?;
    if json { print_json(&report) } else { print_lines(&report.lines(columns(), unix_ns())) }
}

/// What is shown, and what `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    status: Status,
    /// The events of the child, when one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<Event>>,
}

impl Report {
    fn fetch(client: &mut Client, name: Option<&str>) -> Result<Self, Failure> {
        let status: Status = client.request_as(&Request::Status { name: name.map(str::to_owned) })?;
        if name.is_none() {
            return Ok(Self { status, events: None });
        }
        let mut events = Vec::new();
        client.request(&Request::Events { since: None, follow: false })?;
        while let Some(event) = client.next_event()? {
            if status.children.iter().any(|child| event.child.as_ref() == Some(&child.name)) {
                events.push(event);
            }
        }
        Ok(Self { status, events: Some(events) })
    }

    fn lines(&self, columns: usize, now_ns: u64) -> Vec<Line> {
        let mut lines = Vec::new();
        if let Some(events) = &self.events {
            for (n, child) in self.status.children.iter().enumerate() {
                lines.extend((n > 0).then(Line::new));
                lines.extend(Detail { child, events, now_ns, history: &[] }.lines(columns));
            }
            return lines;
        }
        lines.extend(header(&self.status, columns));
        if self.status.children.is_empty() {
            return lines;
        }
        let table = Table { children: &self.status.children, now_ns, chosen: None, history: None };
        let (heading, rows) = table.rows(columns);
        lines.extend([Line::new(), heading]);
        lines.extend(rows.into_iter().flat_map(|row| row.lines));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::sample;
    use super::*;

    #[test]
    fn text_and_json_come_from_the_same_value() {
        let all = Report { status: sample::status(), events: None };
        let json = serde_json::to_value(&all).expect("plain data");
        assert_eq!(json["children"][1]["last_fault"]["kind"], "hang");
        assert!(json.get("events").is_none());
        let text: Vec<_> = all.lines(80, sample::NOW_NS).iter().map(|line| line.render(false)).collect();
        assert!(text[0].starts_with("pump-house 3  ▲") && text.iter().any(|line| line.contains("hang, 3 min ago")));

        let status = Status { children: vec![sample::child("backoff")], ..sample::status() };
        let one = Report { status, events: Some(vec![sample::recovered()]) };
        let json = serde_json::to_value(&one).expect("plain data");
        assert_eq!(json["events"][0]["seq"], 41);
        let text: Vec<_> = one.lines(80, sample::NOW_NS).iter().map(|line| line.render(false)).collect();
        assert!(text[0].starts_with("modbus  ▲ backoff") && text.iter().any(|line| line.starts_with("detected")));
    }
}
