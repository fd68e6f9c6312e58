//! Numbers with units, as people write them in configuration files and on command lines: durations, sizes, signals.

use std::time::Duration;

/// Reads a duration such as `"200ms"`, `"1.5s"`, `"15m"`, `"1h30min"`.
///
/// Units: `ns`, `us` (or `µs`), `ms`, `s`, `m` or `min`, `h`, `d`; several parts add up. A number without a unit is
/// refused, except `0`. What lies below a nanosecond is cut off.
///
/// # Errors
/// A phrase that says what is wrong, to be put behind the place where it was found.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(format!("empty, {EXPECTED_DURATION}"));
    }
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let no_duration = || format!("{} is no duration, {EXPECTED_DURATION}", quote(text));
    let mut total_ns: u128 = 0;
    while !rest.is_empty() {
        let (number, after_number) = split_at_first(rest, |c| !c.is_ascii_digit() && c != '.');
        let (unit, after_unit) = split_at_first(after_number.trim_start(), |c| !c.is_alphabetic());
        let unit_ns = nanoseconds_of(unit).ok_or_else(|| match unit {
            _ if number.is_empty() => no_duration(),
            "" => format!("{} has no unit, {EXPECTED_DURATION}", quote(text)),
            _ => format!("{} has the unknown unit {}, {EXPECTED_DURATION}", quote(text), quote(unit)),
        })?;
        let part = scaled(number, unit_ns).ok_or_else(no_duration)?;
        total_ns = total_ns.checked_add(part).ok_or_else(|| format!("{} is too long", quote(text)))?;
        rest = after_unit.trim_start();
    }
    match u64::try_from(total_ns) {
        Ok(ns) => Ok(Duration::from_nanos(ns)),
        Err(_) => Err(format!("{} is too long", quote(text))),
    }
}

/// Writes a duration so that [`parse_duration`] reads the same value again: `200ms`, `1.5s`, `1h30min`.
pub fn format_duration(duration: Duration) -> String {
    let ns = duration.as_nanos();
    match ns {
        0 => "0s".to_owned(),
        1..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}us", decimal(ns, 1_000)),
        1_000_000..NS_PER_S => format!("{}ms", decimal(ns, 1_000_000)),
        _ => {
            let (hours, minutes, below) = (ns / (3600 * NS_PER_S), ns / (60 * NS_PER_S) % 60, ns % (60 * NS_PER_S));
            let part = |n: u128, unit: &str| if n == 0 { String::new() } else { format!("{n}{unit}") };
            let seconds = if below == 0 { String::new() } else { format!("{}s", decimal(below, NS_PER_S)) };
            part(hours, "h") + &part(minutes, "min") + &seconds
        }
    }
}

/// Reads a size in bytes such as `"512KiB"`, `"1MiB"`, `"64k"`, `"1.5G"`, `"4096"`. All units are powers of 1024.
///
/// # Errors
/// A phrase that says what is wrong.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let (number, unit) = split_at_first(trimmed, |c| !c.is_ascii_digit() && c != '.');
    let factor: u128 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(format!("{} has an unknown unit, {EXPECTED_SIZE}", quote(text))),
    };
    let bytes = scaled(number, factor).ok_or_else(|| format!("{} is no size, {EXPECTED_SIZE}", quote(text)))?;
    u64::try_from(bytes).map_err(|_| format!("{} is too large", quote(text)))
}

/// Writes a size so that [`parse_size`] reads the same value again.
pub fn format_size(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// The number of a signal that can ask a process to end; with or without `SIG` in front. `None` for any other word.
pub fn signal_number(word: &str) -> Option<i32> {
    let name = word.strip_prefix("SIG").unwrap_or(word);
    SIGNALS.iter().find(|(_, known)| &known[3..] == name).map(|&(number, _)| number)
}

/// The word of a signal, `None` for one that cannot be configured.
pub fn signal_name(number: i32) -> Option<&'static str> {
    SIGNALS.iter().find(|(known, _)| *known == number).map(|&(_, name)| name)
}

/// The words that [`signal_number`] knows.
pub fn signal_names() -> impl Iterator<Item = &'static str> {
    SIGNALS.iter().map(|&(_, name)| name)
}

/// A foreign text inside a message: in quotes, on one line, of bounded length.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for (n, c) in text.chars().enumerate() {
        if n == LONGEST_QUOTE {
            out.push('…');
            break;
        }
        // Keeps printable characters of every language, escapes control characters and quotes.
        out.extend(c.escape_debug());
    }
    out.push('"');
    out
}

/// `number` (digits with at most one point) times `factor`, cut off below one; `None` if it is no such number or too big.
fn scaled(number: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.len() <= 24 && s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || number.ends_with('.') || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // 12 digits are finer than a nanosecond of an hour and keep the product far from overflow.
    let kept = &fraction[..fraction.len().min(12)];
    let part: u128 = if kept.is_empty() { 0 } else { kept.parse().ok()? };
    let places = u32::try_from(kept.len()).ok()?;
    whole.checked_mul(factor)?.checked_add(part.checked_mul(factor)? / 10_u128.pow(places))
}

/// `value / unit` as a decimal number without needless zeros.
fn decimal(value: u128, unit: u128) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let places = unit.ilog10() as usize;
    format!("{whole}.{}", format!("{rest:0places$}").trim_end_matches('0'))
}

fn nanoseconds_of(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => NS_PER_S,
        "m" | "min" => 60 * NS_PER_S,
        "h" => 3600 * NS_PER_S,
        "d" => 86_400 * NS_PER_S,
        _ => return None,
    })
}

fn split_at_first(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

const NS_PER_S: u128 = 1_000_000_000;
const LONGEST_QUOTE: usize = 48;
const EXPECTED_DURATION: &str = "expected a duration such as \"200ms\", \"1.5s\" or \"1h30min\"";
const EXPECTED_SIZE: &str = "expected a size such as \"512KiB\", \"1MiB\" or a number of bytes";

/// Signals that a program may take as a wish to end, with their numbers on x86, ARM and RISC-V (signal(7)).
const SIGNALS: &[(i32, &str)] = &[
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (6, "SIGABRT"),
    (9, "SIGKILL"),
    (10, "SIGUSR1"),
    (12, "SIGUSR2"),
    (14, "SIGALRM"),
    (15, "SIGTERM"),
    (28, "SIGWINCH"),
    (30, "SIGPWR"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_mean_what_people_write() {
        for (text, ns) in [
            ("200ms", 200_000_000),
            ("1.5s", 1_500_000_000),
            ("30min", 1_800_000_000_000),
            ("15m", 900_000_000_000),
            ("2h", 7_200_000_000_000),
            ("1h30min", 5_400_000_000_000),
            ("1h 30 min", 5_400_000_000_000),
            ("500us", 500_000),
            ("500µs", 500_000),
            (" 7ns ", 7),
            (".5ms", 500_000),
            ("0s", 0),
            ("0", 0),
            ("1d", 86_400_000_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(ns)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("5", "no unit"),
            ("5 parsecs", "unknown unit"),
            ("ms", "no duration"),
            ("-5ms", "no duration"),
            ("1.2.3s", "no duration"),
            ("1.s", "no duration"),
            ("1e3s", "unknown unit"),
            ("5s!", "no duration"),
            ("99999999999999999999h", "too long"),
            ("999999999999999999999999999999h", "no duration"),
            ("10000000d", "too long"),
        ] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_written_duration_reads_back_the_same() {
        for (ns, text) in [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5us"),
            (200_000_000, "200ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1min"),
            (5_400_000_000_000, "1h30min"),
            (3_600_000_000_001, "1h0.000000001s"),
            (u64::MAX, "5124095h34min33.709551615s"),
        ] {
            let duration = Duration::from_nanos(ns);
            assert_eq!(format_duration(duration), text);
            assert_eq!(parse_duration(text), Ok(duration));
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in
            [("512KiB", 524_288), ("1MiB", 1 << 20), ("64k", 65_536), ("1.5G", 3 << 29), ("4096", 4096)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        for text in ["", "x", "1Q", "-1", "99999999999999999999999T", "1..5k"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn signals_have_names_with_and_without_sig() {
        assert_eq!(signal_number("SIGTERM"), Some(15));
        assert_eq!(signal_number("INT"), Some(2));
        assert_eq!(signal_number("SIGSEGV"), None);
        assert_eq!(signal_number("SIG"), None);
        for name in signal_names() {
            assert_eq!(signal_number(name).and_then(signal_name), Some(name));
        }
    }

    #[test]
    fn a_quote_is_one_bounded_line() {
        assert_eq!(quote("a\nb\u{7}"), r#""a\nb\u{7}""#);
        assert!(quote(&"ä".repeat(1000)).chars().count() < 60);
    }
}
