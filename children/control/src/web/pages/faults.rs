//! Reports of faults: the story, the cause, the evidence.

use multus_contract::api::event::Event;
use multus_contract::api::report;

use super::render::context;

use super::{Answer, View, chart, encoded};
use crate::service::{EventQuery, FaultReport};

impl View<'_> {
    /// All reports.
    pub(super) fn faults(&self) -> Answer {
        let child = Some(self.query("child")).filter(|name| !name.is_empty());
        let reports = self.service().faults(self.caller(), child)?;
        let mut names: Vec<_> =
            self.service().faults(self.caller(), None)?.into_iter().map(|report| report.child).collect();
        names.sort_unstable();
        names.dedup();
        let kinds = self.fault_kinds();
        let rows: Vec<_> = reports
            .iter()
            .take(MOST)
            .map(|report| {
                let of_child = kinds.iter().filter(|event| event.child.as_deref() == Some(report.child.as_str()));
                let event = chart::fault_of(of_child.map(AsRef::as_ref), Some(&report.time));
                let told = match event {
                    Some(_) => None,
                    None => self.told_by(report),
                };
                let fault = event.map(|(fault, _)| fault).or(told.as_ref());
                context! {
                    report, kind => fault.and_then(|fault| fault.fault.clone()),
                    cause => fault.map(|fault| first_line(&fault.detail).to_owned()),
                }
            })
            .collect();
        let context = context! { rows, names, child => child.unwrap_or_default(), total => reports.len() };
        Ok(self.page("faults.html", "Faults", context))
    }

    /// One report, or its text as a file.
    pub(super) fn fault(&self, child: &str, id: &str) -> Answer {
        if let Some(id) = id.strip_suffix(".txt") {
            let fault = self.service().fault(self.caller(), child, Some(id))?;
            return Ok(super::download("text/plain; charset=utf-8", &format!("fault-{child}-{id}.txt"), fault.text));
        }
        let fault = self.service().fault(self.caller(), child, Some(id))?;
        let query = EventQuery { since: None, child: Some(child.to_owned()), limit: 1000 };
        let events = self.service().events(self.caller(), &query).unwrap_or_default();
        let event = chart::fault_of(events.iter().map(AsRef::as_ref), Some(&fault.report.time));
        // What is no longer among the events, the report itself tells.
        let told = report::read(&fault.text);
        let story = event.map(|(_, times)| times).or(told.as_ref()).and_then(chart::story);
        let found = event.and_then(|(fault, _)| evidence_of(&events, fault));
        let event = event.map(|(fault, _)| fault).or(told.as_ref());
        let all = self.service().faults(self.caller(), Some(child))?;
        let at = all.iter().position(|report| report.id == id);
        let neighbour = |at: Option<usize>| Some(format!("/faults/{}/{}", encoded(child), encoded(&all.get(at?)?.id)));
        let context = context! {
            child, report => fault.report, text => fault.text, spoken => story.as_ref().map(chart::spoken), story,
            event => event.map(super::events::row), found,
            newer => neighbour(at.and_then(|at| at.checked_sub(1))), older => neighbour(at.map(|at| at + 1)),
        };
        Ok(self.page("fault.html", &format!("Fault of {child}"), context))
    }

    /// The fault of a report that is no longer among the events.
    fn told_by(&self, report: &FaultReport) -> Option<Event> {
        let fault = self.service().fault(self.caller(), &report.child, Some(&report.id)).ok()?;
        report::read(&fault.text)
    }

    fn fault_kinds(&self) -> Vec<std::sync::Arc<Event>> {
        let query = EventQuery { since: None, child: None, limit: 1000 };
        self.service().events(self.caller(), &query).unwrap_or_default()
    }
}

/// What was found out about a fault, in a sentence.
fn evidence_of(events: &[std::sync::Arc<Event>], fault: &Event) -> Option<String> {
    let later = events.iter().skip_while(|event| event.seq <= fault.seq);
    let own = later.take_while(|event| event.kind != "fault").find(|event| event.kind == "evidence");
    own.map(|event| first_line(&event.detail).to_owned())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Reports on one page.
const MOST: usize = 200;
