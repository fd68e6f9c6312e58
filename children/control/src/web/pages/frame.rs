//! What stands around every page: where this is, whether anything is wrong, how the watch loop does, and the way to the rest.

use multus_contract::api::io::IoStatus;
use multus_contract::api::status::{ChildStatus, DaemonStatus, Status};
use serde::Serialize;

use super::look::{self, Mark, count, time_us};
use super::{View, encoded};
use crate::service::configuration::PendingState;
use crate::service::{Caller, Snapshot};

/// The frame of a page.
#[derive(Debug, Default, Serialize)]
pub(super) struct Frame {
    site: String,
    verdict: Option<Mark>,
    /// Whether the verdict is worth a place in the title of the window.
    alarm: bool,
    facts: Vec<Fact>,
    notes: Vec<String>,
    nav: Vec<Link>,
    user: String,
    level: u32,
    read_only: bool,
    csrf: String,
    /// What was done just now.
    done: String,
    /// Saved changes that are not settled.
    changes: Vec<Change>,
    /// The present, RFC 3339.
    now: String,
}

/// One fact in the top line.
#[derive(Debug, Serialize)]
struct Fact {
    name: &'static str,
    value: String,
    /// Explains the value.
    title: String,
    tone: &'static str,
}

#[derive(Debug, Serialize)]
struct Link {
    name: &'static str,
    href: &'static str,
    current: bool,
}

/// A saved change that is not settled.
#[derive(Debug, Serialize)]
struct Change {
    document: String,
    version: u64,
    state: &'static str,
    seconds: u64,
    message: String,
}

impl View<'_> {
    pub(super) fn frame(&self) -> Frame {
        let own = Caller::new("pages", Caller::USER);
        let snapshot = self.service().status(&own);
        let section = self.path().first().copied().unwrap_or("");
        let link = |name, href: &'static str, of: &[&str]| Link { name, href, current: of.contains(&section) };
        let mut nav = vec![
            link("Services", "/", &["", "children"]),
            link("Events", "/events", &["events"]),
            link("Faults", "/faults", &["faults"]),
            link("Logs", "/logs", &["logs"]),
            link("I/O", "/io", &["io"]),
            link("Configuration", "/configuration", &["configuration"]),
        ];
        if self.caller().level <= Caller::ADMIN {
            nav.push(link("Users", "/users", &["users", "tokens"]));
        }
        nav.push(link("System", "/system", &["system"]));
        let frame = Frame {
            nav,
            user: self.caller().name.clone(),
            level: self.caller().level,
            read_only: self.session.read_only,
            csrf: self.session.csrf.clone(),
            done: self.query("done").chars().take(200).collect(),
            changes: self.changes(),
            now: look::now(),
            ..Frame::default()
        };
        match snapshot {
            Ok(snapshot) => {
                // Where there are no lines nobody is asked for them.
                let io = self.service().has_image().then(|| self.service().lines(&own).ok()).flatten();
                known(&snapshot, io.as_ref(), frame, super::site(self.visit.web))
            }
            Err(error) => Frame {
                site: super::site(self.visit.web),
                verdict: Some(bad(format!("multusd cannot be reached: {error}"))),
                alarm: true,
                ..frame
            },
        }
    }

    fn changes(&self) -> Vec<Change> {
        let pending = self.service().pending(self.caller()).unwrap_or_default();
        pending
            .into_iter()
            .filter(|change| {
                matches!(change.state, PendingState::Waiting | PendingState::Applying | PendingState::Unhealthy)
            })
            .map(|change| Change {
                state: change.state.as_str(),
                seconds: change.applies_in_ms.div_ceil(1000),
                document: change.document,
                version: change.version,
                message: change.message,
            })
            .collect()
    }
}

fn known(snapshot: &Snapshot, io: Option<&IoStatus>, frame: Frame, site: String) -> Frame {
    let status = &snapshot.status;
    let (verdict, alarm) = verdict(status, io);
    Frame {
        site,
        verdict: Some(verdict),
        alarm,
        facts: facts(&status.daemon).into_iter().chain(io.and_then(held)).collect(),
        notes: notes(&status.daemon),
        ..frame
    }
}

/// What is wrong, the worst first; or that nothing is. Whether somebody should look.
pub(super) fn verdict(status: &Status, io: Option<&IoStatus>) -> (Mark, bool) {
    let mut parts = io.map(unsafe_lines).unwrap_or_default();
    if status.daemon.too_hot {
        parts.push("outside its temperature range: all children are stopped".into());
        return (bad(parts.join("; ")), true);
    }
    let names = |chosen: &dyn Fn(&&ChildStatus) -> bool| {
        let all: Vec<&str> = status.children.iter().filter(chosen).map(|child| child.name.as_str()).collect();
        let more = all.len().saturating_sub(NAMED);
        let mut text = all.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        if more > 0 {
            text += &format!(" and {more} more");
        }
        (all.len(), text)
    };
    let (safe, safe_names) = names(&|child| child.is_failing() && child.safe_state);
    let (failing, failing_names) = names(&|child| child.is_failing() && !child.safe_state);
    if safe > 0 {
        parts.push(format!("{} in safe state: {safe_names}", count(safe, "child", "children")));
    }
    if failing > 0 {
        parts.push(format!("{} failing: {failing_names}", count(failing, "child", "children")));
    }
    if !parts.is_empty() {
        return (bad(parts.join("; ")), true);
    }
    let tone = |tone, shape, word: String| Mark { shape, tone, word, more: String::new() };
    let bad_lines = io.map_or(0, |io| io.lines.iter().filter(|line| !line.good).count());
    let verdict = match status.children.len() {
        _ if bad_lines > 0 => tone("warn", "diamond", count(bad_lines, "line is bad", "lines are bad")),
        0 => tone("warn", "diamond", "no children configured".into()),
        n => tone("ok", "circle", format!("{}, nothing failing", count(n, "child", "children"))),
    };
    (verdict, false)
}

/// What the daemon says, after a reset of the machine that nobody wanted.
pub(super) fn notes(daemon: &DaemonStatus) -> Vec<String> {
    let reset = daemon.last_reset.as_ref().filter(|last| !last.is_ordinary());
    let reset = reset.map(|last| format!("last reset of the machine: {}", last.line()));
    reset.into_iter().chain(daemon.notes.iter().cloned()).collect()
}

/// What is worse than any child that fails.
fn unsafe_lines(io: &IoStatus) -> Vec<String> {
    let mut parts = Vec::new();
    if !io.unsafe_outputs.is_empty() {
        parts.push(format!("NOT SAFE: {}", io.unsafe_outputs.join(", ")));
    }
    if io.driven_by == "multusd" {
        parts.push("multus-io does not drive the outputs: all are held safe".to_owned());
    }
    parts
}

/// Outputs that a person holds.
fn held(io: &IoStatus) -> Option<Fact> {
    let names: Vec<&str> = io.lines.iter().filter(|line| line.held.is_some()).map(|line| line.name.as_str()).collect();
    (!names.is_empty()).then(|| Fact {
        name: "held by a person",
        value: names.join(", "),
        title: "whatever their owners ask for".into(),
        tone: "warn",
    })
}

fn bad(word: String) -> Mark {
    Mark { shape: "triangle", tone: "bad", word, more: String::new() }
}

fn facts(daemon: &DaemonStatus) -> Vec<Fact> {
    let watch = match (daemon.realtime, daemon.priority) {
        (true, Some(priority)) => format!("FIFO {priority}"),
        (true, None) => "FIFO".to_owned(),
        (false, _) => "without real-time priority".to_owned(),
    };
    let locked = if daemon.locked { "locked" } else { "memory not locked" };
    let healthy = daemon.realtime && daemon.locked;
    let mut facts = vec![
        Fact { name: "multusd", value: daemon.version.clone(), title: format!("process {}", daemon.pid), tone: "" },
        Fact { name: "up", value: look::uptime(daemon.uptime_s), title: format!("{} s", daemon.uptime_s), tone: "" },
        Fact {
            name: "watch loop",
            value: format!("{watch}, {locked}"),
            title: "scheduling of the thread that watches, and whether its memory may be paged out".into(),
            tone: if healthy { "" } else { "warn" },
        },
    ];
    let late = daemon.watch_loop.lateness_us;
    if daemon.watch_loop.wakeups > 0 {
        let usual = late.p99.map_or_else(String::new, |p99| format!("99 % {}, ", time_us(p99)));
        facts.push(Fact {
            name: "late",
            value: format!("{usual}max {}", time_us(late.max)),
            title: format!(
                "how much later than armed its timer woke the watch loop, {} times",
                daemon.watch_loop.wakeups
            ),
            tone: "",
        });
    }
    if let Some(temperature) = daemon.temperature_c {
        let tone = if daemon.too_hot { "bad" } else { "" };
        facts.push(Fact { name: "CPU", value: format!("{temperature:.1} °C"), title: String::new(), tone });
    }
    facts
}

/// Where a child is.
pub(super) fn child_path(name: &str) -> String {
    format!("/children/{}", encoded(name))
}

/// More names than these do not fit the top line.
const NAMED: usize = 4;

#[cfg(test)]
mod tests {
    use multus_contract::api::io::IoLine;

    use super::*;

    #[test]
    fn the_verdict_names_what_fails_the_worst_first() {
        let child = |name: &str, state: &str, safe_state| ChildStatus {
            name: name.into(),
            state: state.into(),
            safe_state,
            ..ChildStatus::default()
        };
        let of = |children: Vec<ChildStatus>| {
            let (mark, alarm) = verdict(&Status { children, ..Status::default() }, None);
            (mark.word, alarm)
        };
        assert_eq!(of(vec![]), ("no children configured".into(), false));
        assert_eq!(of(vec![child("io", "running", false)]), ("1 child, nothing failing".into(), false));
        let many = (0..6).map(|n| child(&format!("c{n}"), "backoff", n > 0)).collect();
        let expected = "5 children in safe state: c1, c2, c3, c4 and 1 more; 1 child failing: c0";
        assert_eq!(of(many), (expected.into(), true));
        let mut hot = Status::default();
        hot.daemon.too_hot = true;
        assert!(verdict(&hot, None).1);
        let driven_by = "multus-io".to_owned();
        let fine =
            IoStatus { driven_by, lines: vec![IoLine { good: true, ..IoLine::default() }], ..IoStatus::default() };
        let of = |io: &IoStatus| {
            let (mark, alarm) =
                verdict(&Status { children: vec![child("io", "running", false)], ..Status::default() }, Some(io));
            (mark.word, mark.tone, alarm)
        };
        assert_eq!(of(&fine), ("1 child, nothing failing".into(), "ok", false));
        let ill = IoStatus { lines: vec![IoLine::default()], ..fine.clone() };
        assert_eq!(of(&ill), ("1 line is bad".into(), "warn", false));
        let worse = IoStatus { unsafe_outputs: vec!["DO2: no chip".into()], driven_by: "multusd".into(), ..fine };
        let words = "NOT SAFE: DO2: no chip; multus-io does not drive the outputs: all are held safe";
        assert_eq!(of(&worse), (words.into(), "bad", true));
    }
}
