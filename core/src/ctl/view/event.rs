//! One event as a line.

use multus_contract::api::event::{Event, Weight};
use multus_ipc::words::EventKind;

use super::text::{Line, Tone};
use multus_contract::api::human::{clock, time_ns};

/// Time, child, what happened, how it looked. Only the first line of the detail; `with_date` for events of other days.
pub(crate) fn event_line(event: &Event, with_date: bool) -> Line {
    let date = event.time.split('T').next().unwrap_or_default();
    let mut line = Line::new();
    if with_date {
        line.push(format!("{date} "), Tone::Dim);
    }
    line.push(clock(&event.time), Tone::Dim);
    line.push("  ", Tone::Plain);
    line.append(Line::toned(event.child.as_deref().unwrap_or("multusd"), Tone::Strong).padded(NAME));
    line.push(" ", Tone::Plain);
    line.push(what(event), tone_of(event));
    let detail = event.detail.lines().next().unwrap_or_default();
    if !detail.is_empty() {
        line.push(format!(": {detail}"), Tone::Plain);
    }
    if let (Some(deadline), Some(detected)) = (event.deadline_ns, event.detected_ns)
        && event.event_kind() == Some(EventKind::Fault)
        && let Some(overshoot) = detected.checked_sub(deadline)
    {
        line.push(format!(" (detected {} after the deadline)", time_ns(overshoot)), Tone::Dim);
    }
    if let (Some(detected), Some(ready)) = (event.detected_ns, event.ready_ns) {
        line.push(format!(" ({} from fault to ready)", time_ns(ready.saturating_sub(detected))), Tone::Dim);
    }
    line
}

fn what(event: &Event) -> String {
    match &event.fault {
        Some(fault) => format!("{} {fault}", event.kind),
        None => event.kind.clone(),
    }
}

fn tone_of(event: &Event) -> Tone {
    match event.weight() {
        Weight::Bad => Tone::Bad,
        Weight::Warning => Tone::Warn,
        Weight::Good => Tone::Good,
        Weight::Plain => Tone::Plain,
    }
}

/// Names are aligned up to here; longer ones push the rest to the right.
const NAME: usize = 12;

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn an_event_reads_like_a_sentence() {
        let recovered = sample::recovered();
        assert_eq!(
            event_line(&recovered, false).render(false),
            "00:57:00.000  modbus       recovered hang: ready again after a hang (41 ms from fault to ready)"
        );
        let fault = Event { kind: "fault".into(), ready_ns: None, detail: "no beat\nmore".into(), ..recovered };
        assert_eq!(
            event_line(&fault, true).render(false),
            "1970-01-01 00:57:00.000  modbus       fault hang: no beat (detected 48 µs after the deadline)"
        );
    }
}
