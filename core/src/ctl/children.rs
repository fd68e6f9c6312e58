//! `multusctl start|stop|restart|enable|disable|snooze` and `reload`: what changes children.

use std::time::Duration;

use multus_contract::api::command::{ClientError, ReloadReport, Request};
use multus_contract::config::{format_duration, parse_duration};
use serde_json::Value;

use super::Context;
use super::output::{Failure, complain, print, print_json};
use multus_contract::api::human::count;

/// What is asked of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Start,
    Stop,
    Restart,
    Enable,
    Disable,
    /// For so long; zero ends it.
    Snooze(Duration),
}

impl Order {
    pub(crate) fn request(self, name: &str) -> Request {
        let name = name.to_owned();
        match self {
            Self::Start => Request::Start { name },
            Self::Stop => Request::Stop { name },
            Self::Restart => Request::Restart { name },
            Self::Enable => Request::Enable { name },
            Self::Disable => Request::Disable { name },
            Self::Snooze(duration) => Request::Snooze { name, seconds: whole_seconds(duration) },
        }
    }

    /// What is said when the daemon took it.
    pub(crate) fn taken(self) -> String {
        match self {
            Self::Start => "starting".to_owned(),
            Self::Stop => "stopping".to_owned(),
            Self::Restart => "restarting".to_owned(),
            Self::Enable => "enabled".to_owned(),
            Self::Disable => "disabled".to_owned(),
            Self::Snooze(Duration::ZERO) => "snooze ended".to_owned(),
            Self::Snooze(duration) => {
                format!("snoozed for {}", format_duration(Duration::from_secs(whole_seconds(duration))))
            }
        }
    }
}

/// Gives the order to every child named. One refusal does not keep it from the others.
pub(crate) fn each(context: &Context, names: &[String], order: Order) -> Result<(), Failure> {
    let mut client = context.client()?;
    let mut refused = false;
    for name in names {
        match client.request(&order.request(name)) {
            Ok(data) => {
                let said = data.as_ref().and_then(Value::as_str).map_or_else(|| order.taken(), str::to_owned);
                print(|out| writeln!(out, "{name}: {said}"))?;
            }
            Err(ClientError::Refused(why)) => {
                refused = true;
                complain(why);
            }
            Err(other) => return Err(other.into()),
        }
    }
    if refused { Err(Failure::Said) } else { Ok(()) }
}

/// Lets the daemon read its configuration again; fails when a file in it has an error.
pub(crate) fn reload(context: &Context, json: bool) -> Result<(), Failure> {
    let data = context.client()?.request(&Request::Reload)?;
    let report: ReloadReport = data.and_then(|data| serde_json::from_value(data).ok()).unwrap_or_default();
    if json {
        print_json(&report)?;
    } else {
        let text = summary(&report);
        print(|out| writeln!(out, "{text}"))?;
        report.diagnostics.iter().for_each(complain);
    }
    if report.broken.is_empty() { Ok(()) } else { Err(Failure::Said) }
}

fn summary(report: &ReloadReport) -> String {
    let list = |verb: &str, names: &[String]| {
        (!names.is_empty()).then(|| format!("{} {verb}: {}", count(names.len(), "child", "children"), names.join(", ")))
    };
    let parts = [
        list("added", &report.added),
        list("changed", &report.changed),
        list("removed", &report.removed),
        list("could not be applied, and as before", &report.broken),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "read again, nothing changed".to_owned() } else { parts.join("; ") }
}

/// Reads the duration of a snooze; "off" is zero.
pub(crate) fn parse_snooze(text: &str) -> Result<Duration, String> {
    if text == "off" { Ok(Duration::ZERO) } else { parse_duration(text) }
}

/// Rounded up, so that a short snooze does not become its end.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snooze_has_whole_seconds_and_an_end() {
        assert_eq!(parse_snooze("off"), Ok(Duration::ZERO));
        assert_eq!(parse_snooze("0"), Ok(Duration::ZERO));
        assert!(parse_snooze("soon").is_err());
        let short = Order::Snooze(Duration::from_millis(1));
        assert_eq!(short.request("io"), Request::Snooze { name: "io".into(), seconds: 1 });
        assert_eq!(short.taken(), "snoozed for 1s");
        assert_eq!(Order::Snooze(Duration::ZERO).taken(), "snooze ended");
    }

    #[test]
    fn a_reload_says_what_it_led_to() {
        assert_eq!(summary(&ReloadReport::default()), "read again, nothing changed");
        let report =
            ReloadReport { added: vec!["a".into()], changed: vec!["b".into(), "c".into()], ..Default::default() };
        assert_eq!(summary(&report), "1 child added: a; 2 children changed: b, c");
    }
}
