//! A child's state as shape, word and tone: each tells it alone.

use multus_contract::api::human::{output, until, wait_us};
use multus_contract::api::status::ChildStatus;
use multus_ipc::words::StateCode;

use super::text::{Line, Tone};

/// Shape and word, with what makes the word complete: `▲ backoff 2.1 s`, `◇ blocked by io`.
pub(crate) fn state(child: &ChildStatus) -> Line {
    let (shape, tone) = shape(child);
    let mut line = Line::toned(shape, tone);
    line.push(format!(" {}", child.state), tone);
    match (child.state_code(), child.restart_in_us, &child.blocked_by) {
        (Some(StateCode::Backoff), Some(us), _) => line.push(format!(" {}", wait_us(us)), tone),
        (Some(StateCode::Blocked), _, Some(by)) => line.push(format!(" by {by}"), tone),
        _ => {}
    }
    line
}

/// What is to be said beside the state, piece by piece; nothing when all is ordinary.
pub(crate) fn marks(child: &ChildStatus, now_ns: u64) -> Vec<Line> {
    let mut marks = Vec::new();
    let forced: Vec<_> = child.forced_outputs.iter().filter(|output| output.forced).collect();
    if !forced.is_empty() {
        let list: Vec<_> = forced.iter().map(|o| format!("{} {}", o.name, output(o.value))).collect();
        marks.push(Line::toned(format!("outputs forced: {}", list.join(", ")), Tone::Bad));
    } else if child.is_failing() && child.safe_state {
        marks.push(Line::toned("in safe state", Tone::Bad));
    }
    if child.degraded {
        marks.push(Line::toned("degraded: it keeps failing", Tone::Bad));
    }
    if let Some(end) = &child.snoozed_until {
        let left = until(end, now_ns).map_or_else(String::new, |left| format!(", {left} left"));
        marks.push(Line::toned(format!("snoozed{left}"), Tone::Warn));
    }
    marks
}

fn shape(child: &ChildStatus) -> (&'static str, Tone) {
    match child.state_code() {
        Some(StateCode::Running) if child.degraded => ("●", Tone::Warn),
        Some(StateCode::Running) => ("●", Tone::Good),
        Some(StateCode::Starting) => ("◐", Tone::Warn),
        Some(StateCode::Stopping) => ("◑", Tone::Warn),
        Some(StateCode::Backoff) => ("▲", Tone::Bad),
        Some(StateCode::Blocked) => ("◇", Tone::Warn),
        Some(StateCode::Disabled | StateCode::Stopped) => ("■", Tone::Dim),
        None => ("?", Tone::Plain),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn every_state_has_a_shape_and_its_word() {
        for &code in StateCode::ALL {
            let child = ChildStatus { state: code.as_str().to_owned(), ..ChildStatus::default() };
            let text = state(&child).render(false);
            assert!(text.ends_with(code.as_str()) && !text.starts_with('?'), "{text}");
        }
        let newer = ChildStatus { state: "dreaming".into(), ..ChildStatus::default() };
        assert_eq!(state(&newer).render(false), "? dreaming");
    }

    #[test]
    fn the_word_is_completed_by_what_matters() {
        assert_eq!(state(&sample::child("backoff")).render(false), "▲ backoff 2.1 s");
        assert_eq!(state(&sample::child("blocked")).render(false), "◇ blocked by io");
        let texts = |kind: &str| {
            marks(&sample::child(kind), sample::NOW_NS).iter().map(|m| m.render(false)).collect::<Vec<_>>()
        };
        assert_eq!(texts("backoff"), ["outputs forced: DO1 off, DO2 on", "degraded: it keeps failing"]);
        assert_eq!(texts("snoozed"), ["snoozed, 12 min left"]);
        assert_eq!(texts("running"), [""; 0]);
        assert!(sample::child("backoff").is_failing() && !sample::child("running").is_failing());
        let stopped = ChildStatus { state: "stopped".into(), safe_state: true, ..ChildStatus::default() };
        assert!(!stopped.is_failing(), "stopped on request is no failure");
    }
}
