//! The head of a report of a fault: what `multusctl fault` shows first, and pages draw. multusd writes it, who reads it takes
//! it for the event that it tells of.

use std::fmt::Write as _;

use super::event::Event;
use super::time::{format_rfc3339, parse_rfc3339};

/// Between the head of a report and its body.
pub const BODY: &str = "\n---- evidence ----\n";
const TIME: &str = "time:     ";
const FAULT: &str = "fault:    ";
const TIME_LINE: &str = "time line, ms from its detection:";
/// What the words of the steps mean here, where it is not plain.
const MEANINGS: [(&str, &str); 4] = [
    ("safe", "outputs forced"),
    ("killed", "with all its processes"),
    ("reaped", "the last of them is gone"),
    ("ready", "outputs released"),
];

/// When it was detected, and what it was.
pub fn summary(fault: Option<(&str, &str)>, unix_ns: u64) -> String {
    let fault = fault.map_or_else(String::new, |(fault, detail)| format!("{FAULT}{fault}: {detail}\n"));
    format!("{TIME}{}\n{fault}", format_rfc3339(unix_ns))
}

/// The steps of a fault, one a line.
pub fn time_line(event: &Event, detected_ns: u64) -> String {
    let mut text = format!("\n{TIME_LINE}\n");
    for (word, at) in event.fault_times() {
        let ms = (i128::from(at) - i128::from(detected_ns)) as f64 / 1e6;
        let meaning = MEANINGS.iter().find(|(w, _)| *w == word).map_or_else(String::new, |(_, m)| format!(" ({m})"));
        let _ = writeln!(text, "  {ms:>+12.3}  {word}{meaning}");
    }
    text
}

/// The fault that a report tells of; `None` for a text that tells of none. Its times count from an arbitrary moment.
pub fn read(text: &str) -> Option<Event> {
    const DETECTED: i64 = 1 << 60;
    let (head, _) = text.split_once(BODY)?;
    let field = |label: &str| head.lines().find_map(|line| line.strip_prefix(label));
    let time = field(TIME).filter(|time| parse_rfc3339(time).is_some())?;
    let (fault, detail) = field(FAULT)?.split_once(": ")?;
    let mut event = Event {
        time: time.to_owned(),
        kind: "fault".to_owned(),
        fault: Some(fault.to_owned()),
        detail: detail.to_owned(),
        ..Event::default()
    };
    let steps = head.lines().skip_while(|line| *line != TIME_LINE).skip(1).take_while(|line| line.starts_with("  "));
    for step in steps {
        let Some((ms, word)) = step.trim().split_once("  ") else { continue };
        let word = word.split_once(" (").map_or(word, |(word, _)| word);
        let Some(ms) = ms.parse::<f64>().ok().filter(|ms| ms.abs() < 1e12) else { continue };
        if let Ok(at) = u64::try_from(DETECTED.saturating_add((ms * 1e6) as i64)) {
            event.set_fault_time(word, at);
        }
    }
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let event = Event {
            fault: Some("hang".into()),
            detail: "no beat for 50.040 ms of 50.000 ms".into(),
            last_beat_ns: Some(1_000_000_000),
            deadline_ns: Some(1_050_000_000),
            detected_ns: Some(1_050_040_000),
            safe_ns: Some(1_050_044_000),
            killed_ns: Some(1_054_000_000),
            ready_ns: Some(1_060_000_000),
            ..Event::default()
        };
        let text = summary(Some(("hang", &event.detail)), 1_700_000_000_000_000_000)
            + "evidence: none\n"
            + &time_line(&event, 1_050_040_000);
        assert!(
            text.contains("  -50.040  last beat\n") && text.contains("  +0.004  safe (outputs forced)\n"),
            "{text}"
        );
        let read_back = read(&format!("child:    x\n{text}{BODY}time:     nonsense")).expect("a report");
        assert_eq!((read_back.fault.as_deref(), &read_back.detail), (Some("hang"), &event.detail));
        let relative = |e: &Event| {
            let times = e.fault_times();
            let first = times[0].1;
            times.into_iter().map(|(word, at)| (word, at - first)).collect::<Vec<_>>()
        };
        assert_eq!(relative(&read_back), relative(&event));
        for nonsense in ["", BODY, "time:     x", &format!("{TIME}2026-01-01T00:00:00Z\n{BODY}")] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
    }
}
