//! `multusctl last-reset`: why the machine last restarted.

use multus_contract::api::command::Request;
use multus_contract::api::reset::LastReset;
use multus_contract::api::status::Status;

use super::Context;
use super::output::{Failure, print, print_json};

pub(crate) fn last_reset(context: &Context, json: bool) -> Result<(), Failure> {
    let status: Status = context.client()?.request_as(&Request::Status { name: None })?;
    let last = status.daemon.last_reset.unwrap_or_default();
    if json { print_json(&last) } else { print(|out| writeln!(out, "{}", words(&last))) }
}

fn words(last: &LastReset) -> String {
    let mut lines = vec![last.line()];
    let child = last.child.as_ref().map(|name| match last.pid {
        Some(pid) => format!("  child {name}, process {pid}"),
        None => format!("  child {name}"),
    });
    lines.extend(last.by.as_ref().map(|by| format!("  by {by}")));
    lines.extend(child);
    lines.extend(last.evidence.iter().map(|sentence| format!("  {sentence}")));
    if last.daemon_only {
        let how =
            if last.ended_in_order { "after an end in order" } else { "it had been killed, or had ended by itself" };
        lines.push(format!("since then multusd alone was started again: {how}"));
    }
    let counts: Vec<String> = last.counts.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
    lines.push(format!("starts of the machine: {} ({})", last.boots, counts.join(", ")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_reset_in_words() {
        let last = LastReset {
            cause: "watchdog".into(),
            detail: "the critical child pump stayed out of order".into(),
            by: Some("watchdog".into()),
            child: Some("pump".into()),
            pid: Some(47),
            time: Some("2026-01-01T00:00:00Z".into()),
            uptime_s: Some(90),
            evidence: vec!["watchdog /dev/watchdog0 says: it reset the machine".into()],
            boots: 3,
            counts: BTreeMap::from([("power-loss".into(), 2), ("watchdog".into(), 1)]),
            ..LastReset::default()
        };
        let text = words(&last);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("watchdog: the critical child pump stayed out of order (2026-01-01"), "{text}");
        assert_eq!(lines[1..3], ["  by watchdog", "  child pump, process 47"]);
        assert_eq!(lines[4], "starts of the machine: 3 (power-loss 2, watchdog 1)");
        let again = words(&LastReset { daemon_only: true, ..last });
        assert!(again.contains("multusd alone was started again: it had been killed"), "{again}");
    }
}
