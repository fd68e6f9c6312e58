//! Times and values as people read them, on the command line and on pages: few digits, always a unit.

use std::time::Duration;

use super::time::parse_rfc3339;

/// How long ago something was: `now`, `3 s`, `12 min`, `5 h`, `41 d`.
pub fn rough(duration: Duration) -> String {
    match duration.as_secs() {
        0 => "0 s".to_owned(),
        s @ 1..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min", s / 60),
        s @ 3600..86_400 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// `rough` of the time from the RFC 3339 `time` to `now_ns`, with "ago"; `None` when it cannot be read.
pub fn ago(time: &str, now_ns: u64) -> Option<String> {
    let then = parse_rfc3339(time)?;
    Some(match now_ns.saturating_sub(then) {
        ns if ns < 1_000_000_000 => "just now".to_owned(),
        ns => format!("{} ago", rough(Duration::from_nanos(ns))),
    })
}

/// Time until the RFC 3339 `time`.
pub fn until(time: &str, now_ns: u64) -> Option<String> {
    Some(rough(Duration::from_nanos(parse_rfc3339(time)?.saturating_sub(now_ns))))
}

/// The clock part of an RFC 3339 time, with milliseconds: `14:03:07.212`.
pub fn clock(time: &str) -> &str {
    time.split_once('T').map_or(time, |(_, clock)| clock.get(..12).unwrap_or(clock.trim_end_matches('Z')))
}

/// An uptime: `06:12`, `41 d 06:12`.
pub fn uptime(seconds: u64) -> String {
    let clock = format!("{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60);
    match seconds / 86_400 {
        0 if seconds < 60 => format!("{seconds} s"),
        0 => format!("{clock} h"),
        days => format!("{days} d {clock}"),
    }
}

/// A measured time against its limit, both in the unit of the limit: `6.2 of 50 ms`.
pub fn of_limit(value_us: f64, limit_us: f64) -> String {
    let (unit_us, unit) = unit_of(limit_us);
    format!("{} of {} {unit}", digits(value_us / unit_us), digits(limit_us / unit_us))
}

/// A time in the unit that suits it: `212 µs`, `6.2 ms`, `1.5 s`.
pub fn time_us(us: f64) -> String {
    let (unit_us, unit) = unit_of(us);
    format!("{} {unit}", digits(us / unit_us))
}

/// The same from nanoseconds.
pub fn time_ns(ns: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    time_us(ns as f64 / 1000.0)
}

/// An output's value: `off`, `on`, or the number.
pub fn output(value: f64) -> String {
    match value {
        0.0 => "off".to_owned(),
        1.0 => "on".to_owned(),
        v => format!("{v}"),
    }
}

/// `n child` or `n children`.
pub fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// A wait that counts down: tenths of a second while they can be followed.
pub fn wait_us(us: u64) -> String {
    match us {
        ..10_000_000 => {
            let tenths = us.div_ceil(100_000);
            format!("{}.{} s", tenths / 10, tenths % 10)
        }
        _ => rough(Duration::from_micros(us)),
    }
}

fn unit_of(us: f64) -> (f64, &'static str) {
    match us {
        us if us >= 999_500.0 => (1e6, "s"),
        us if us >= 999.5 => (1e3, "ms"),
        _ => (1.0, "µs"),
    }
}

/// A number with about three digits and no needless zeros.
pub fn digits(value: f64) -> String {
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

/// How many false alarms are expected.
pub fn alarms_words(per_year: f64) -> String {
    if per_year < 0.001 {
        "less than one false alarm in 1000 years expected".into()
    } else if per_year < 1.0 {
        format!("one false alarm in {:.0} years expected", 1.0 / per_year)
    } else {
        format!("{per_year:.0} false alarms a year expected")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_have_units() {
        assert_eq!(of_limit(6_200.0, 50_000.0), "6.2 of 50 ms");
        assert_eq!(of_limit(120.0, 50_000.0), "0.12 of 50 ms");
        assert_eq!(of_limit(1_100_000.0, 5_000_000.0), "1.1 of 5 s");
        assert_eq!(of_limit(0.0, 1_000.0), "0 of 1 ms");
        assert_eq!(time_us(48.2), "48.2 µs");
        assert_eq!(time_us(999.6), "1 ms");
        assert_eq!(time_ns(20_304_000), "20.3 ms");
        assert_eq!([wait_us(2_080_000), wait_us(61_000_000)], ["2.1 s", "1 min"]);
        assert_eq!(uptime(59), "59 s");
        assert_eq!(uptime(3_720), "01:02 h");
        assert_eq!(uptime(41 * 86_400 + 6 * 3600 + 720), "41 d 06:12");
        assert_eq!([output(0.0), output(1.0), output(4.5)], ["off", "on", "4.5"]);
    }

    #[test]
    fn times_are_told_from_now() {
        let second = 1_000_000_000;
        assert_eq!(ago("1970-01-01T00:00:10Z", 13 * second).as_deref(), Some("3 s ago"));
        assert_eq!(ago("1970-01-01T00:00:10Z", 7_210 * second).as_deref(), Some("2 h ago"));
        assert_eq!(ago("1970-01-01T00:00:10Z", 0).as_deref(), Some("just now"), "a clock that stepped back");
        assert_eq!(ago("?", 0), None);
        assert_eq!(until("1970-01-01T00:15:00Z", 0).as_deref(), Some("15 min"));
        assert_eq!(clock("2026-08-05T14:03:07.212345Z"), "14:03:07.212");
        assert_eq!(clock("2026-08-05T14:03:07Z"), "14:03:07");
    }
}
