//! What Prometheus asks for: everything that can be counted and measured, as text.

mod counted;
mod lines;
#[cfg(test)]
mod tests;
mod text;

use multus_contract::api::intervals::Intervals;
use multus_contract::api::io::IoStatus;
use multus_contract::api::status::{ChildStatus, Spread, Status};
use multus_ipc::words::StateCode;

use crate::history::Stats;
use crate::outward::{Events, Traffic};
use crate::run::Stop;
use crate::service::queue::Next;
use crate::service::{Caller, Service};

pub use counted::Counted;
pub use text::Format;
use text::{Kind, Text};

/// All that is shown.
#[derive(Debug, Default)]
pub struct Inputs<'a> {
    /// `None`: the daemon cannot be reached.
    pub status: Option<&'a Status>,
    /// Inputs and outputs; `None` where there are none.
    pub io: Option<&'a IoStatus>,
    /// Of all children.
    pub intervals: &'a [Intervals],
    /// From the events.
    pub counted: Option<&'a Counted>,
    /// `None` without a database.
    pub history: Option<Stats>,
    /// `None` when MQTT is off.
    pub mqtt: Option<Traffic>,
    /// `None` without targets.
    pub notifications: Option<Traffic>,
    /// Resident memory of this program, bytes.
    pub resident_bytes: Option<u64>,
}

/// Counts events until the program ends.
///
/// # Errors
/// None; a part of the program has this form.
pub async fn serve(service: Service, stop: Stop) -> Result<(), multus_child::Error> {
    let Ok(receiver) = service.follow_events(&Caller::own(), Some(0)) else { return Ok(()) };
    let events = Events::new(receiver);
    loop {
        let next = tokio::select! {
            () = stop.requested() => return Ok(()),
            next = events.next() => next,
        };
        match next {
            Next::Item(event) => service.counted().add(&event),
            Next::Gap(lost) => service.counted().missed(lost),
            Next::Empty => {}
            Next::Closed => return Ok(()),
        }
    }
}

/// The whole text.
pub fn render(inputs: &Inputs<'_>, format: Format) -> String {
    let mut text = Text::new(format);
    text.family("multus_up", Kind::Gauge, "Whether multusd answers.");
    text.sample("", &[], f64::from(u8::from(inputs.status.is_some())));
    if let Some(status) = inputs.status {
        daemon(&mut text, status);
        children(&mut text, &status.children);
    }
    intervals(&mut text, inputs.intervals);
    if let Some(io) = inputs.io {
        lines::write(&mut text, io);
    }
    if let Some(counted) = inputs.counted {
        counted.write(&mut text);
    }
    own(&mut text, inputs);
    text.finish()
}

fn daemon(text: &mut Text, status: &Status) {
    let daemon = &status.daemon;
    let yes = |yes: bool| f64::from(u8::from(yes));
    text.family("multus_daemon", Kind::Info, "What multusd is.");
    text.sample("_info", &[("version", &daemon.version), ("site", daemon.site.as_deref().unwrap_or_default())], 1.0);
    text.one("multus_uptime_seconds", Kind::Gauge, "Time since multusd started.", daemon.uptime_s as f64);
    text.one("multus_realtime", Kind::Gauge, "Whether the watch loop runs under SCHED_FIFO.", yes(daemon.realtime));
    text.one("multus_memory_locked", Kind::Gauge, "Whether its memory is locked.", yes(daemon.locked));
    if let Some(temperature) = daemon.temperature_c {
        let help = "The temperature that the children depend on.";
        text.one("multus_temperature_celsius", Kind::Gauge, help, temperature);
    }
    text.one("multus_too_hot", Kind::Gauge, "Whether all children are stopped because of it.", yes(daemon.too_hot));
    if let Some(reset) = &daemon.last_reset {
        text.family(
            "multus_machine_resets",
            Kind::Counter,
            "Starts of the machine that multusd has seen, by their cause.",
        );
        for (cause, count) in &reset.counts {
            text.sample("_total", &[("cause", cause)], *count as f64);
        }
    }
    if !daemon.watchdogs.is_empty() {
        text.family("multus_watchdog_petted", Kind::Gauge, "Whether the watchdog is petted: whether it guards.");
        for dog in &daemon.watchdogs {
            text.sample("", &[("name", &dog.name)], yes(dog.state == "petted"));
        }
    }
    let watch = &daemon.watch_loop;
    text.one("multus_loop_wakeups", Kind::Counter, "Times the watch loop woke up.", watch.wakeups as f64);
    let help = "Page faults of the watch loop since it was armed; 0 when memory is locked.";
    text.one("multus_loop_page_faults", Kind::Counter, help, watch.page_faults as f64);
    text.family(
        "multus_loop_lateness_seconds",
        Kind::Summary,
        "How much later than armed the timer woke the watch loop.",
    );
    quantiles(text, &[], &watch.lateness_us);
    let help = "The longest time that the watch loop woke late.";
    text.one("multus_loop_lateness_max_seconds", Kind::Gauge, help, watch.lateness_us.max / 1e6);
}

fn quantiles(text: &mut Text, labels: &[(&str, &str)], spread: &Spread) {
    for (quantile, value) in [("0.5", spread.p50), ("0.99", spread.p99)] {
        if let Some(value) = value {
            text.sample("", &[labels, &[("quantile", quantile)]].concat(), value / 1e6);
        }
    }
}

fn children(text: &mut Text, all: &[ChildStatus]) {
    text.family("multus_children", Kind::Gauge, "Child instances in each state.");
    for state in StateCode::ALL {
        let count = all.iter().filter(|child| child.state == state.as_str()).count();
        text.sample("", &[("state", state.as_str())], count as f64);
    }
    text.family("multus_child_state", Kind::Gauge, "1 for the state that a child is in, 0 for the others.");
    for child in all {
        for state in StateCode::ALL {
            let labels = [("child", child.name.as_str()), ("state", state.as_str())];
            text.sample("", &labels, f64::from(u8::from(child.state == state.as_str())));
        }
    }
    let yes = |yes: bool| Some(f64::from(u8::from(yes)));
    let us = |us: Option<u64>| us.map(|us| us as f64 / 1e6);
    let mut each = |name: &str, kind, help: &str, value: &dyn Fn(&ChildStatus) -> Option<f64>| {
        text.family(name, kind, help);
        for child in all {
            if let Some(value) = value(child) {
                text.sample(if kind == Kind::Counter { "_total" } else { "" }, &[("child", &child.name)], value);
            }
        }
    };
    each("multus_child_enabled", Kind::Gauge, "Whether it is to run at all.", &|child| yes(child.enabled));
    each("multus_child_degraded", Kind::Gauge, "Whether it keeps failing.", &|child| yes(child.degraded));
    let help = "Whether its outputs are held at their safe values.";
    each("multus_child_safe_state", Kind::Gauge, help, &|child| yes(child.safe_state));
    let help = "Processes made after the first one, since multusd started.";
    each("multus_child_restarts", Kind::Counter, help, &|child| Some(child.restarts as f64));
    each("multus_child_faults", Kind::Counter, "Faults since multusd started.", &|child| {
        Some(child.last_fault.as_ref().map_or(0, |fault| fault.count) as f64)
    });
    let help = "Longest allowed time from beat to beat.";
    each("multus_child_deadline_seconds", Kind::Gauge, help, &|child| us(child.deadline_us));
    let help = "Time since its last beat.";
    each("multus_child_last_beat_age_seconds", Kind::Gauge, help, &|child| us(child.last_beat_age_us));
    let help = "The longest time from beat to beat, lately.";
    each("multus_child_beat_interval_max_seconds", Kind::Gauge, help, &|child| {
        child.beat_interval_us.map(|spread| spread.max / 1e6)
    });
}

fn intervals(text: &mut Text, all: &[Intervals]) {
    let help = "Times from beat to beat since the process started, lane by lane.";
    text.family("multus_child_beat_interval_seconds", Kind::Histogram, help);
    for lane in all {
        let labels = [("child", lane.child.as_str()), ("lane", lane.lane.as_str())];
        let up_to = |ns: u64| lane.buckets.iter().filter(|(upper, _)| *upper < ns).map(|(_, count)| count).sum::<u64>();
        // Powers of two are limits of the daemon's own buckets: the counts are exact.
        for exponent in LEAST_INTERVAL..=MOST_INTERVAL {
            let ns = 1u64 << exponent;
            text.bucket(&labels, Some(ns as f64 / 1e9), up_to(ns));
        }
        let all = lane.buckets.iter().map(|(_, count)| count).sum();
        // The daemon keeps no sum, and a count goes with a sum or not at all; the last bucket says the same.
        text.bucket(&labels, None, all);
    }
}

fn own(text: &mut Text, inputs: &Inputs<'_>) {
    if let Some(stats) = &inputs.history {
        let up = f64::from(u8::from(stats.up));
        text.one("multus_history_up", Kind::Gauge, "Whether the event database can be written.", up);
        text.one("multus_history_stored", Kind::Counter, "Events stored.", stats.stored as f64);
        text.one(
            "multus_history_lost",
            Kind::Counter,
            "Events that were lost before they were stored.",
            stats.lost as f64,
        );
        text.one("multus_history_queue", Kind::Gauge, "Changes of lines that wait to be stored.", stats.queued as f64);
        text.one("multus_history_io_lost", Kind::Counter, "Changes of lines without room.", stats.io_lost as f64);
        text.one("multus_history_io_stored", Kind::Counter, "Changes of lines stored.", stats.io_stored as f64);
        let help = "Changes of lines that have no row: too fast, without room, or while multus-control was down.";
        text.one("multus_history_io_missed", Kind::Counter, help, stats.io_missed as f64);
        text.one("multus_history_failures", Kind::Counter, "Failures of the event database.", stats.failures as f64);
        text.one("multus_history_size_bytes", Kind::Gauge, "Room that its rows take.", stats.bytes as f64);
    }
    let both = [("mqtt", inputs.mqtt), ("notification", inputs.notifications)];
    for (name, traffic) in both.into_iter().filter_map(|(name, traffic)| Some((name, traffic?))) {
        let mut one = |what: &str, kind, help: &str, value: u64| {
            text.one(&format!("multus_{name}_{what}"), kind, help, value as f64);
        };
        one("up", Kind::Gauge, "Whether the last try went well.", u64::from(traffic.up));
        one("sent", Kind::Counter, "Messages that arrived.", traffic.sent);
        one("lost", Kind::Counter, "Messages given up or without room, and events that were missed.", traffic.lost);
        one("failures", Kind::Counter, "Tries that failed.", traffic.failures);
        one("queue", Kind::Gauge, "Messages that wait.", traffic.queued);
    }
    if let Some(bytes) = inputs.resident_bytes {
        text.one("multus_control_resident_bytes", Kind::Gauge, "Resident memory of multus-control.", bytes as f64);
    }
}

/// Resident memory of this process.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// 131 us, as a power of two of ns.
const LEAST_INTERVAL: u32 = 17;
/// 68.7 s.
const MOST_INTERVAL: u32 = 36;
