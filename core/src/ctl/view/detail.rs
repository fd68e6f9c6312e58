//! Everything about one child: what it does, how it beats, what went wrong last and how that went.

use multus_contract::api::event::Event;
use multus_contract::api::status::ChildStatus;
use multus_ipc::words::EventKind;

use super::bar::{bar, last_beat, sparkline, tone_of};
use super::event::event_line;
use super::state::{marks, state};
use super::text::{Line, Tone, flowed, wrapped};
use super::timeline::timeline;
use multus_contract::api::human::{ago, alarms_words, clock, count, of_limit, time_us};

/// What is known about one child.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detail<'a> {
    pub(crate) child: &'a ChildStatus,
    /// Events of the daemon, oldest first; those of other children are passed over.
    pub(crate) events: &'a [Event],
    pub(crate) now_ns: u64,
    /// How the longest gaps went, each as a part of the deadline; empty when nobody kept them.
    pub(crate) history: &'a [f64],
}

impl Detail<'_> {
    /// All of it, no line wider than `columns`.
    pub(crate) fn lines(&self, columns: usize) -> Vec<Line> {
        let mut lines = self.state_lines(columns);
        lines.extend(self.fault_lines(columns));
        let own: Vec<_> = self.own_events().collect();
        if !own.is_empty() {
            lines.push(Line::new());
            lines.push(Line::toned("last events", Tone::Strong));
            let shown = &own[own.len().saturating_sub(EVENTS)..];
            lines.extend(shown.iter().rev().map(|event| event_line(event, false).fitted(columns)));
        }
        lines
    }

    fn state_lines(&self, columns: usize) -> Vec<Line> {
        let child = self.child;
        let mut title = Line::toned(&child.name, Tone::Strong);
        title.push("  ", Tone::Plain);
        title.append(state(child));
        if !child.description.is_empty() {
            title.push(format!("  {}", child.description), Tone::Dim);
        }
        let mut lines = vec![title.fitted(columns)];
        lines.extend(flowed(marks(child, self.now_ns), columns));
        let mut field = |label: &str, value: Line| {
            let mut line = Line::toned(label, Tone::Dim).padded(LABEL);
            line.append(value);
            lines.push(line.fitted(columns));
        };
        let since =
            ago(&child.since, self.now_ns).map_or_else(String::new, |ago| format!("{} ({ago})", clock(&child.since)));
        let pid = child.pid.map_or_else(|| "no process".to_owned(), |pid| format!("process {pid}"));
        if let Some(text) = &child.text {
            field("says", Line::plain(text.clone()));
        }
        field("since", Line::plain(if since.is_empty() { pid } else { format!("{since}, {pid}") }));
        field("beats", self.beats(columns.saturating_sub(LABEL)));
        if !self.history.is_empty() {
            field("", sparkline(self.history, columns.saturating_sub(LABEL)));
        }
        if let Some(advice) = advice(child) {
            field("advice", Line::plain(advice));
        }
        let restarts = u64::min(child.restarts, 1 << 31);
        field(
            "restarts",
            Line::plain(format!("{restarts}, {}", if child.enabled { "enabled" } else { "not enabled" })),
        );
        lines
    }

    fn beats(&self, columns: usize) -> Line {
        let child = self.child;
        let Some(deadline_us) = child.deadline_us else {
            return Line::toned("no beats: only the end of the process is watched", Tone::Dim);
        };
        let Some(gaps) = child.beat_interval_us else { return last_beat(child, deadline_us) };
        #[expect(clippy::cast_precision_loss, reason = "deadlines are at most a day")]
        let deadline_us = deadline_us as f64;
        let part = gaps.max / deadline_us.max(1.0);
        let mut line = bar(part, if columns >= 60 { 12 } else { 0 });
        line.push(if columns >= 60 { "  " } else { "" }, Tone::Plain);
        line.push(format!("max {}", of_limit(gaps.max, deadline_us)), tone_of(part));
        for (word, value) in [("50 %", gaps.p50), ("99 %", gaps.p99)] {
            if let Some(value) = value {
                line.push(format!(", {word} {}", time_us(value)), Tone::Plain);
            }
        }
        if let Some(age) = child.last_beat_age_us {
            #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
            line.push(format!(", last {} ago", time_us(age as f64)), Tone::Dim);
        }
        line
    }

    fn fault_lines(&self, columns: usize) -> Vec<Line> {
        let Some(fault) = &self.child.last_fault else { return Vec::new() };
        let ago = ago(&fault.time, self.now_ns).map_or_else(String::new, |ago| format!(", {ago}"));
        let number = usize::try_from(fault.count).unwrap_or(usize::MAX);
        let heading = format!(
            "last fault: {} at {}{ago}; {} so far",
            fault.kind,
            clock(&fault.time),
            count(number, "fault", "faults")
        );
        let mut lines = vec![Line::new(), Line::toned(heading, Tone::Strong).fitted(columns)];
        if let Some(story) = self.fault_story() {
            lines.extend(timeline(story, columns));
        }
        lines.extend(wrapped(&fault.detail, columns).into_iter().map(Line::plain));
        if let Some(evidence) = self.last_of(|kind| kind == EventKind::Evidence)
            && !fault.detail.contains(evidence.detail.trim())
        {
            lines.push(Line::toned("evidence", Tone::Dim));
            let wide = columns.saturating_sub(2);
            lines.extend(wrapped(&evidence.detail, wide).into_iter().map(|text| Line::plain(format!("  {text}"))));
        }
        lines
    }

    /// The event that tells most of the last fault: that of the recovery if it came after it, else the fault's own.
    fn fault_story(&self) -> Option<&Event> {
        self.last_of(|kind| matches!(kind, EventKind::Fault | EventKind::Recovered))
    }

    fn last_of(&self, wanted: impl Fn(EventKind) -> bool) -> Option<&Event> {
        self.own_events().filter(|event| event.event_kind().is_some_and(&wanted)).last()
    }

    fn own_events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| event.child.as_deref() == Some(&self.child.name))
    }
}

const LABEL: usize = 10;
const EVENTS: usize = 10;

/// What the intervals that were seen say about the deadline.
fn advice(child: &ChildStatus) -> Option<String> {
    #[expect(clippy::cast_precision_loss, reason = "deadlines are at most a day")]
    let advised = child.advised_deadline_us? as f64;
    let expected = child.alarms_per_year.map_or_else(String::new, |alarms| format!("; now {}", alarms_words(alarms)));
    Some(format!("a deadline of {}{expected}", time_us(advised)))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_child_is_told_from_its_state_to_its_last_fault() {
        let child = sample::child("backoff");
        let evidence = Event {
            kind: "evidence".into(),
            child: Some("modbus".into()),
            detail: "thread poll: S, futex_wait\nrun-queue delay 0.2 ms".into(),
            ..Event::default()
        };
        let other = Event { kind: "fault".into(), child: Some("io".into()), ..Event::default() };
        let events = [evidence, sample::recovered(), other];
        let detail = Detail { child: &child, events: &events, now_ns: sample::NOW_NS, history: &[0.1, 0.9] };
        for columns in [40, 80, 120] {
            let lines = detail.lines(columns);
            assert!(lines.iter().all(|line| line.width() <= columns), "{lines:#?}");
            let text: Vec<_> = lines.iter().map(|line| line.render(false)).collect();
            let text = text.join("\n");
            for expected in [
                "modbus  ▲ backoff 2.1 s",
                "DO1 off",
                "max 190 of 200 ms",
                "last fault: hang",
                "detected",
                "futex_wait",
            ] {
                assert!(text.contains(expected), "{columns}: {expected} in\n{text}");
            }
            assert!(!text.contains("io "), "events of others are left out:\n{text}");
        }
    }

    #[test]
    fn a_child_without_beats_and_faults_is_short() {
        let child = sample::child("disabled");
        let detail = Detail { child: &child, events: &[], now_ns: sample::NOW_NS, history: &[] };
        let text: Vec<_> = detail.lines(80).iter().map(|line| line.render(false)).collect();
        assert_eq!(text.len(), 4, "{text:?}");
        assert!(text[1].contains("no process"));
    }
}
