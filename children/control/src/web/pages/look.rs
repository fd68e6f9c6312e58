//! How things look: states as shape, tone and word, times and sizes in few digits with a unit.

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
        (Some(StateCode::Backoff), Some(us), _) => wait(us),
        (Some(StateCode::Blocked), _, Some(by)) => format!("by {by}"),
        _ => String::new(),
    };
    Mark { shape, tone, word: child.state.clone(), more }
}

/// Whether somebody should look at it.
pub(super) fn is_failing(child: &ChildStatus) -> bool {
    child.degraded || child.state_code() == Some(StateCode::Backoff) || (child.safe_state && !is_off(child))
}

/// Whether it does not run because somebody wanted it so.
pub(super) fn is_off(child: &ChildStatus) -> bool {
    matches!(child.state_code(), Some(StateCode::Disabled | StateCode::Stopped))
}

/// Where it stands in a list: what needs a look comes first.
pub(super) fn rank(child: &ChildStatus) -> u8 {
    match child.state_code() {
        _ if is_failing(child) => 0,
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
    let rough = |ns: u64| rough_s(ns / SECOND);
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
        .map_or_else(String::new, |then| format!("for {}", rough_s(now_ns().saturating_sub(then) / SECOND)))
}

/// `3 s`, `12 min`, `5 h`, `41 d`.
pub(super) fn rough_s(seconds: u64) -> String {
    match seconds {
        s @ ..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min", s / 60),
        s @ 3600..86_400 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// How long something has been up: `41 d 06:12`.
pub(super) fn uptime(seconds: u64) -> String {
    match seconds {
        s @ ..60 => format!("{s} s"),
        s @ 60..86_400 => format!("{:02}:{:02} h", s / 3600, s / 60 % 60),
        s => format!("{} d {:02}:{:02}", s / 86_400, s / 3600 % 24, s / 60 % 60),
    }
}

/// The clock part of an RFC 3339 time with milliseconds; the text as it is if it is none.
pub(super) fn clock(time: &str) -> &str {
    let Some((_, clock)) = time.split_once('T') else { return time };
    let clock = clock.trim_end_matches('Z');
    match clock.split_once('.') {
        Some((whole, decimals)) => &clock[..whole.len() + 1 + decimals.len().min(3)],
        None => clock,
    }
}

/// `2026-08-05 14:03:07.212 UTC`.
pub(super) fn exact(time: &str) -> String {
    match time.split_once('T') {
        Some((date, _)) => format!("{date} {} UTC", clock(time)),
        None => time.to_owned(),
    }
}

/// A time in microseconds with about three digits: `48.2 µs`, `6.2 ms`, `1.1 s`.
pub(super) fn time_us(us: f64) -> String {
    let (scale, unit) = unit_of(us);
    format!("{} {unit}", digits(us / scale))
}

/// A time against its limit, in the unit of the limit: `6.2 of 50 ms`.
pub(super) fn of_limit(us: f64, limit_us: f64) -> String {
    let (scale, unit) = unit_of(limit_us);
    format!("{} of {} {unit}", digits(us / scale), digits(limit_us / scale))
}

/// A value of an output: `off`, `on`, or the number.
pub(super) fn output(value: f64) -> String {
    match value {
        0.0 => "off".to_owned(),
        1.0 => "on".to_owned(),
        v => format!("{v}"),
    }
}

/// `1 child`, `2 children`.
pub(super) fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
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

/// A wait that counts down: tenths of a second while they can be followed.
fn wait(us: u64) -> String {
    if us < 10_000_000 {
        let tenths = us.div_ceil(100_000);
        return format!("{}.{} s", tenths / 10, tenths % 10);
    }
    rough_s(us / 1_000_000)
}

fn unit_of(us: f64) -> (f64, &'static str) {
    match us {
        us if us >= 999_500.0 => (1e6, "s"),
        us if us >= 999.5 => (1e3, "ms"),
        _ => (1.0, "µs"),
    }
}

/// A number with about three digits and no needless zeros.
fn digits(value: f64) -> String {
    let text = match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
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
        assert!(is_failing(&waiting));
        let stopped = ChildStatus { state: "stopped".into(), safe_state: true, ..ChildStatus::default() };
        assert!(!is_failing(&stopped), "stopped on request is no failure");
    }

    #[test]
    fn numbers_are_short_and_have_units() {
        assert_eq!(of_limit(6_200.0, 50_000.0), "6.2 of 50 ms");
        assert_eq!(of_limit(1_100_000.0, 5_000_000.0), "1.1 of 5 s");
        assert_eq!(time_us(48.2), "48.2 µs");
        assert_eq!(time_us(20_304.0), "20.3 ms");
        assert_eq!([bytes(12), bytes(4_200), bytes(2 << 20)], ["12 B", "4.1 KiB", "2 MiB"]);
        assert_eq!(uptime(41 * 86_400 + 6 * 3600 + 720), "41 d 06:12");
        assert_eq!(clock("2026-08-05T14:03:07.212345Z"), "14:03:07.212");
        assert_eq!(exact("2026-08-05T14:03:07Z"), "2026-08-05 14:03:07 UTC");
        assert_eq!(ago("no time"), "");
        assert_eq!(ago("1970-01-01T00:00:00Z").split_whitespace().last(), Some("ago"));
    }
}
