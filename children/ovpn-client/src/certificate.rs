//! How long the certificate of this device is good. Pure: times go in.

use std::time::Duration;

use multus_contract::api::time::format_rfc3339;

/// What is to be told of it, and when.
#[derive(Debug)]
pub(crate) struct Certificate {
    /// Its beginning and its end, Unix seconds.
    validity: Option<(i64, i64)>,
    /// The day on which it was looked at, from 1970.
    looked_on: Option<i64>,
}

impl Certificate {
    pub(crate) fn new(validity: Option<(i64, i64)>) -> Self {
        Self { validity, looked_on: None }
    }

    /// What is to be told now, `unix` after 1970: at first in any case, then once a day where something is wrong with it.
    pub(crate) fn look(&mut self, unix: Duration) -> Option<(log::Level, String)> {
        let validity = self.validity?;
        let now = i64::try_from(unix.as_secs()).unwrap_or(i64::MAX);
        let before = self.looked_on.replace(now / DAY_S);
        if before == self.looked_on {
            return None;
        }
        let told = judge(validity, now);
        (before.is_none() || told.0 < log::Level::Info).then_some(told)
    }
}

fn judge((begins, ends): (i64, i64), now: i64) -> (log::Level, String) {
    let days = (ends - now).div_euclid(DAY_S);
    let date = |seconds: i64| {
        let text = format_rfc3339(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000));
        text.split('T').next().unwrap_or_default().to_owned()
    };
    let the = "the certificate of this device";
    match days {
        _ if now < begins => {
            let text = format!("{the} begins on {}, and the clock says {}: is it right?", date(begins), date(now));
            (log::Level::Error, text)
        }
        ..0 => (log::Level::Error, format!("{the} ended on {}, {} days ago by the clock", date(ends), -days)),
        0..WARN_DAYS => (log::Level::Warn, format!("{the} ends in {days} days")),
        _ => (log::Level::Info, format!("{the} ends in {days} days")),
    }
}

const DAY_S: i64 = 86_400;
/// Time enough to send somebody with a new one.
const WARN_DAYS: i64 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_comes_near_is_told_each_day_also_when_openvpn_runs_for_years() {
        let begins = 1_800_000_000 / DAY_S * DAY_S;
        let mut certificate = Certificate::new(Some((begins, begins + 100 * DAY_S)));
        let mut told = Vec::new();
        // Each hour for 102 days.
        for hour in 0..102 * 24 {
            let unix = Duration::from_secs(u64::try_from(begins + hour * 3600).expect("after 1970"));
            told.extend(certificate.look(unix).map(|(level, text)| (hour, level, text)));
        }
        let first = (0, log::Level::Info, "the certificate of this device ends in 100 days".to_owned());
        assert_eq!(told[0], first);
        assert_eq!(told[1].0, 71 * 24, "29 days before");
        let days: Vec<i64> = told[1..].iter().map(|(hour, ..)| hour / 24).collect();
        assert_eq!(days, (71..102).collect::<Vec<_>>());
        let (_, level, text) = told.last().expect("told");
        assert_eq!(*level, log::Level::Error);
        assert!(text.ends_with("1 days ago by the clock"), "{text}");
    }

    #[test]
    fn a_clock_that_is_wrong_is_told_until_it_is_right() {
        let mut certificate = Certificate::new(Some((1_800_000_000, 1_900_000_000)));
        let told = certificate.look(Duration::from_secs(1_000_000_000)).expect("told");
        assert!(told.0 == log::Level::Error && told.1.contains("the clock says 2001-09-09: is it right?"), "{told:?}");
        assert_eq!(certificate.look(Duration::from_secs(1_850_000_000)), None);
        assert_eq!(Certificate::new(None).look(Duration::ZERO), None);
    }
}
