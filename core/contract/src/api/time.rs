//! Wall time as RFC 3339 text in UTC. It is for people; nothing is decided by it.

/// Writes nanoseconds since 1970 as `2026-08-05T14:03:07.212345Z`, cut to microseconds.
pub fn format_rfc3339(unix_ns: u64) -> String {
    let seconds = unix_ns / NS_PER_S;
    let (days, of_day) = (seconds / DAY_S, seconds % DAY_S);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let micros = unix_ns % NS_PER_S / 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Both clocks at one moment, to tell wall times of monotonic ones.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// CLOCK_MONOTONIC, ns.
    pub mono: u64,
    /// Nanoseconds since 1970.
    pub unix: u64,
}

impl Clock {
    /// The wall time of a moment of CLOCK_MONOTONIC, as [`format_rfc3339`] writes it.
    pub fn wall(self, mono: u64) -> String {
        let unix = i128::from(self.unix) - (i128::from(self.mono) - i128::from(mono));
        format_rfc3339(u64::try_from(unix).unwrap_or(0))
    }
}

/// Reads what [`format_rfc3339`] writes, with any number of decimals: nanoseconds since 1970. `None` for anything else,
/// offsets other than `Z` included.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    // 60: a leap second.
    if year > 2500 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days_since_1970(year, month, day)?;
    let seconds = days * DAY_S + hour * 3600 + minute * 60 + second;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nine = format!("{fraction:0<9}");
    seconds.checked_mul(NS_PER_S)?.checked_add(nine.get(..9)?.parse().ok()?)
}

/// Year, month and day of the `days`-th day after 1970-01-01.
///
/// Counts from a 1 March, so that the leap day is the last day of a year, in eras of 400 years, which all have the same
/// number of days.
fn civil(days: u64) -> (u64, u64, u64) {
    let since_era_start = days + MARCH_0000_TO_1970;
    let (era, day_of_era) = (since_era_start / DAYS_IN_ERA, since_era_start % DAYS_IN_ERA);
    // Leap days before this one are taken out: every 4 years (1461 days), but not every 100, and not the era's last day.
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on have 153 days in every five.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`]; `None` for a date that does not exist or lies before 1970.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year_from_march = year - u64::from(month <= 2);
    let (era, year_of_era) = (year_from_march / 400, year_from_march % 400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let days = era * DAYS_IN_ERA + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = days.checked_sub(MARCH_0000_TO_1970)?;
    // A 31 February comes back as another date.
    (civil(days) == (year, month, day)).then_some(days)
}

fn numbers<const N: usize>(text: &str, separator: char) -> Option<[u64; N]> {
    let mut out = [0; N];
    let mut parts = text.split(separator);
    for slot in &mut out {
        let part = parts.next().filter(|part| part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit()))?;
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

const NS_PER_S: u64 = 1_000_000_000;
const DAY_S: u64 = 86_400;
const DAYS_IN_ERA: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const MARCH_0000_TO_1970: u64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written_and_read() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(format_rfc3339(seconds * NS_PER_S), text);
            assert_eq!(parse_rfc3339(text), Some(seconds * NS_PER_S));
        }
        assert_eq!(format_rfc3339(1_234_567_890_123_456_789), "2009-02-13T23:31:30.123456Z");
        assert_eq!(parse_rfc3339("2009-02-13T23:31:30Z"), Some(1_234_567_890 * NS_PER_S));
    }

    #[test]
    fn every_day_comes_back() {
        for days in 0..200_000 {
            let (year, month, day) = civil(days);
            assert_eq!(days_since_1970(year, month, day), Some(days));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "Z",
            "T",
            "2024-02-30T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00+01:00",
            "2024-01-01T00:00:00.xZ",
            "2024-1-1-1T00:00:00Z",
            "9999-01-01T00:00:00Z",
            "2024-01-01T00:00:00.äZ",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
