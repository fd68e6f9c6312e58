//! The lines above everything: where this is, whether anything is wrong, how the watch loop itself does.

use multus_contract::api::status::{DaemonStatus, Status};

use super::text::{Line, Tone, flowed, wrapped};
use multus_contract::api::human::{count, time_us, uptime};

/// Site and verdict, then the health of the watch loop, then what the daemon misses.
pub(crate) fn header(status: &Status, columns: usize) -> Vec<Line> {
    let daemon = &status.daemon;
    let mut first = Line::toned(daemon.site.as_deref().unwrap_or("multusd"), Tone::Strong);
    first.push("  ", Tone::Plain);
    first.append(verdict(status));
    let mut lines = vec![first.fitted(columns)];
    lines.extend(health(daemon, columns));
    let reset = daemon.last_reset.as_ref().filter(|last| !last.is_ordinary());
    let reset = reset.map(|last| format!("last reset of the machine: {}", last.line()));
    for note in reset.iter().chain(&daemon.notes) {
        for (n, part) in wrapped(note, columns.saturating_sub(2)).into_iter().enumerate() {
            lines.push(Line::toned(format!("{} {part}", if n == 0 { "!" } else { " " }), Tone::Warn));
        }
    }
    lines
}

/// What is wrong, the worst first; or that nothing is.
fn verdict(status: &Status) -> Line {
    if status.daemon.too_hot {
        return Line::toned("▲ outside its temperature range: all children are stopped", Tone::Bad);
    }
    let names = |chosen: &dyn Fn(&&multus_contract::api::status::ChildStatus) -> bool| {
        status.children.iter().filter(chosen).map(|child| child.name.as_str()).collect::<Vec<_>>()
    };
    let safe = names(&|child| child.is_failing() && child.safe_state);
    let failing = names(&|child| child.is_failing() && !child.safe_state);
    let mut parts = Vec::new();
    if !safe.is_empty() {
        parts.push(format!("{} in safe state: {}", count(safe.len(), "child", "children"), safe.join(", ")));
    }
    if !failing.is_empty() {
        parts.push(format!("{} failing: {}", count(failing.len(), "child", "children"), failing.join(", ")));
    }
    if parts.is_empty() {
        return match status.children.len() {
            0 => Line::toned("no children configured", Tone::Warn),
            n => Line::toned(format!("● {}, nothing failing", count(n, "child", "children")), Tone::Good),
        };
    }
    Line::toned(format!("▲ {}", parts.join("; ")), Tone::Bad)
}

/// Facts about the daemon, as many to a line as fit.
fn health(daemon: &DaemonStatus, columns: usize) -> Vec<Line> {
    let watch = match (daemon.realtime, daemon.priority) {
        (true, Some(priority)) => format!("watch loop FIFO {priority}"),
        (true, None) => "watch loop FIFO".to_owned(),
        (false, _) => "watch loop without real-time priority".to_owned(),
    };
    let locked = if daemon.locked { "locked" } else { "memory not locked" };
    let mut facts = vec![
        (format!("multusd {}", daemon.version), Tone::Dim),
        (format!("up {}", uptime(daemon.uptime_s)), Tone::Dim),
        (format!("{watch}, {locked}"), if daemon.realtime && daemon.locked { Tone::Dim } else { Tone::Warn }),
    ];
    let late = daemon.watch_loop.lateness_us;
    if daemon.watch_loop.wakeups > 0 {
        let usual = late.p99.map_or_else(String::new, |p99| format!("99 % {}, ", time_us(p99)));
        facts.push((format!("late {usual}max {}", time_us(late.max)), Tone::Dim));
    }
    if let Some(temperature) = daemon.temperature_c {
        facts.push((format!("{temperature:.1} °C"), if daemon.too_hot { Tone::Bad } else { Tone::Dim }));
    }
    flowed(facts.into_iter().map(|(text, tone)| Line::toned(text, tone)), columns)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn text(status: &Status, columns: usize) -> Vec<String> {
        let lines = header(status, columns);
        assert!(lines.iter().all(|line| line.width() <= columns), "{lines:?}");
        lines.iter().map(|line| line.render(false)).collect()
    }

    #[test]
    fn the_first_line_names_the_site_and_what_is_wrong() {
        let status = sample::status();
        assert_eq!(
            text(&status, 80),
            [
                "pump-house 3  ▲ 1 child in safe state: modbus",
                "multusd 0.1.0 · up 41 d 06:12 · watch loop FIFO 50, locked",
                "late 99 % 48 µs, max 212 µs · 54.1 °C",
            ]
        );
        assert_eq!(text(&status, 40)[0], "pump-house 3  ▲ 1 child in safe state: …");
    }

    #[test]
    fn only_a_reset_that_nobody_wanted_is_shown() {
        use multus_contract::api::reset::LastReset;
        let mut status = sample::status();
        let calm = text(&status, 80);
        let reset = |cause: &str| Some(LastReset { cause: cause.into(), detail: "why".into(), ..LastReset::default() });
        status.daemon.last_reset = reset("shutdown");
        assert_eq!(text(&status, 80), calm);
        status.daemon.last_reset = reset("power-loss");
        assert_eq!(text(&status, 80).last().map(String::as_str), Some("! last reset of the machine: power-loss: why"));
    }

    #[test]
    fn calm_and_missing_rights_are_said_too() {
        let status = Status { children: vec![sample::child("running")], ..Status::default() };
        let lines = text(&status, 120);
        assert_eq!(lines[0], "multusd  ● 1 child, nothing failing");
        assert!(lines[1].contains("watch loop without real-time priority, memory not locked"));

        let mut hot = sample::status();
        hot.daemon.too_hot = true;
        hot.daemon.notes = vec!["no real-time priority: not permitted".into()];
        let lines = text(&hot, 80);
        assert!(lines[0].contains("▲ outside its temperature range"));
        assert_eq!(lines.last().map(String::as_str), Some("! no real-time priority: not permitted"));
    }
}
