//! How things look: states as shape, tone and word, times and sizes in few digits with a unit.

use std::time::Duration;

pub(super) use multus_contract::api::human::{clock, count, of_limit, output, rough, time_us, uptime};
use multus_contract::api::human::{digits, wait_us};
use multus_contract::api::status::ChildStatus;
use multus_contract::api::time::{format_rfc3339, parse_rfc3339};
use multus_ipc::words::StateCode;
use serde::Serialize;

/// A state for the eye: its shape, its colour and its word; each tells it alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Mark {
    /// `circle`, `half`, `triangle`, `diamond`, `square`, `ring`.
    pub(super) shape: &'static str,
    /// `ok`, `warn`, `bad`, `idle`.
    pub(super) tone: &'static str,
    /// The same word as on the command line and in JSON.
    pub(super) word: String,
    /// What completes the word, such as `2.1 s` or `by io`; may be empty.
    pub(super) more: String,
}

/// The state of a child.
pub(super) fn mark(child: &ChildStatus) -> Mark {
    let (shape, tone) = match child.state_code() {
        Some(StateCode::Running) if child.degraded => ("circle", "warn"),
        Some(StateCode::Running) => ("circle", "ok"),
        Some(StateCode::Starting | StateCode::Stopping) => ("half", "warn"),
        Some(StateCode::Backoff) => ("triangle", "bad"),
        Some(StateCode::Blocked) => ("diamond", "warn"),
        Some(StateCode::Disabled | StateCode::Stopped) => ("square", "idle"),
        None => ("ring", "idle"),
    };
    let more = match (child.state_code(), child.restart_in_us, &child.blocked_by) {
        (Some(StateCode::Backoff), Some(us), _) => wait_us(us),
        (Some(StateCode::Blocked), _, Some(by)) => format!("by {by}"),
        _ => String::new(),
    };
    Mark { shape, tone, word: child.state.clone(), more }
}

/// Where it stands in a list: what needs a look comes first.
pub(super) fn rank(child: &ChildStatus) -> u8 {
    match child.state_code() {
        _ if child.is_failing() => 0,
        None | Some(StateCode::Blocked) => 1,
        Some(StateCode::Starting | StateCode::Stopping) => 2,
        Some(StateCode::Running) if child.snoozed_until.is_some() => 2,
        Some(StateCode::Running | StateCode::Backoff) => 3,
        Some(StateCode::Stopped) => 4,
        Some(StateCode::Disabled) => 5,
    }
}

/// Nanoseconds since 1970.
pub(super) fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The present, RFC 3339.
pub(super) fn now() -> String {
    format_rfc3339(now_ns())
}

/// `just now`, `3 s ago`, `in 4 min`; empty for what is no time.
pub(super) fn ago(time: &str) -> String {
    let Some(then) = parse_rfc3339(time) else { return String::new() };
    let now = now_ns();
    let rough = |ns: u64| rough(Duration::from_nanos(ns));
    if then > now + SECOND {
        format!("in {}", rough(then - now))
    } else if now.saturating_sub(then) < SECOND {
        "just now".to_owned()
    } else {
        format!("{} ago", rough(now - then))
    }
}

/// How long something has lasted: `for 3 s`; empty for what is no time.
pub(super) fn lasting(time: &str) -> String {
    parse_rfc3339(time)
        .map_or_else(String::new, |then| format!("for {}", rough(Duration::from_nanos(now_ns().saturating_sub(then)))))
}

/// `2026-08-05 14:03:07.212 UTC`.
pub(super) fn exact(time: &str) -> String {
    match time.split_once('T') {
        Some((date, _)) => format!("{date} {} UTC", clock(time)),
        None => time.to_owned(),
    }
}

/// `812 B`, `4.1 KiB`, `2 MiB`.
pub(super) fn bytes(n: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = n as f64;
    match n {
        ..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{} KiB", digits(value / 1024.0)),
        _ => format!("{} MiB", digits(value / 1_048_576.0)),
    }
}

const SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_shape_and_its_word() {
        for &code in StateCode::ALL {
            let child = ChildStatus { state: code.as_str().to_owned(), ..ChildStatus::default() };
            let mark = mark(&child);
            assert_eq!(mark.word, code.as_str());
            assert_ne!(mark.shape, "ring");
        }
        let newer = ChildStatus { state: "dreaming".into(), ..ChildStatus::default() };
        assert_eq!(mark(&newer).shape, "ring");
        let waiting = ChildStatus { state: "backoff".into(), restart_in_us: Some(2_080_000), ..ChildStatus::default() };
        assert_eq!(mark(&waiting).more, "2.1 s");
        assert!(waiting.is_failing());
        let stopped = ChildStatus { state: "stopped".into(), safe_state: true, ..ChildStatus::default() };
        assert!(!stopped.is_failing(), "stopped on request is no failure");
    }

    #[test]
    fn numbers_are_short_and_have_units() {
        assert_eq!([bytes(12), bytes(4_200), bytes(2 << 20)], ["12 B", "4.1 KiB", "2 MiB"]);
        assert_eq!(exact("2026-08-05T14:03:07Z"), "2026-08-05 14:03:07 UTC");
        assert_eq!(ago("no time"), "");
        assert_eq!(ago("1970-01-01T00:00:00Z").split_whitespace().last(), Some("ago"));
    }
}
