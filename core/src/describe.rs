//! Numbers of events and faults as sentences, and records of the shared pages as the JSON types of the contract. Never
//! on the watch thread: it stores numbers, this turns them into words.

use std::time::Duration;

use multus_contract::api::event::Event;
use multus_contract::api::time::format_rfc3339;
use multus_ipc::event_ring::EventRecord;
use multus_ipc::status::FaultTimes;
use multus_ipc::words::{EventKind, FaultKind};
use multus_supervisor::Job;

use crate::launcher::plan::Step;
use crate::watch::Helper;

/// Set in the last argument of a fault that was reported while the child was snoozed.
const SNOOZED: u64 = 1 << 63;

/// A fault in one sentence. `granted_ns`: lateness of the loop that was granted before.
/// `about`: the name of the lane, if it is a further one and has one; or the two checkpoints.
pub fn fault(kind: FaultKind, args: [u64; 4], granted_ns: u64, about: &str) -> String {
    let [a, b, c, d] = args;
    let mut text = match kind {
        FaultKind::Crash if a == 1 => {
            format!("killed by {}{}", signal(b), if c == 1 { ", core dumped" } else { "" })
        }
        FaultKind::Crash if a == 2 => "its main process (MAINPID) ended; only its parent knows how".to_owned(),
        FaultKind::Crash => format!("ended by itself with exit code {b}"),
        FaultKind::Hang => {
            format!("no beat for {} of {}{}", ms(a), ms(b), in_lane(c, about))
        }
        FaultKind::StartupTimeout => format!("not ready {} after its start, {} are allowed", ms(a), ms(b)),
        FaultKind::Runaway => {
            format!("{a} beats in {}: faster than one every {}", ms(b), ms(d & !SNOOZED))
        }
        FaultKind::CorruptHeartbeat => match a {
            1 => format!("its heartbeat page holds a time in the future ({b} ns)"),
            2 => format!("the time in its heartbeat page ran backwards (to {b} ns)"),
            3 => format!("the counter in its heartbeat page ran backwards (to {b})"),
            4 => format!("its heartbeat page counts more beats than any processor makes ({b})"),
            _ => "the header of its heartbeat page was overwritten".to_owned(),
        },
        FaultKind::ExecFailed => exec(a, b),
        FaultKind::CheckFailed => format!("its check failed {} in a row ({})", times(a), job_result(b, c)),
        FaultKind::Trigger => "it reported itself that it does not work (WATCHDOG=trigger)".to_owned(),
        FaultKind::ControlByte if a == 0 => {
            format!("its control port got the byte {b}, expected is one of 1 to 9")
        }
        FaultKind::ControlByte => format!("its control port got the byte {b}, expected is {a}"),
        FaultKind::CheckpointOrder => format!("the order of its checkpoints was broken: {about} is not allowed"),
        FaultKind::CheckpointEarly => {
            format!("its checkpoints {about} took {}, at least {} are needed", ms(a), ms(b))
        }
        FaultKind::CheckpointLate => {
            format!("its checkpoints {about} took {}, at most {} are allowed", ms(a), ms(b))
        }
        FaultKind::Unacknowledged => {
            format!("outputs were forced, and it has not put that into force for {}", ms(a))
        }
        FaultKind::SpawnFailed => format!("the system made no process for it: {}", errno(a)),
    };
    if granted_ns > 0 {
        text += &format!("; {} of lateness of the watch loop were granted before", ms(granted_ns));
    }
    if d & SNOOZED != 0 {
        text += "; it is snoozed, nobody is killed";
    }
    text
}

/// Which thread it is about: nothing for the first lane.
fn in_lane(number: u64, name: &str) -> String {
    match (number, name) {
        (0, _) => String::new(),
        (_, "") => format!(" in lane {number}"),
        _ => format!(" in lane {name}"),
    }
}

fn exec(step: u64, error: u64) -> String {
    let what = match Step::from_code(step) {
        Some(Step::PidFileMissing) => {
            return "its start command left a process behind, but no PID file (pid_file)".into();
        }
        Some(Step::PidFileText) => return "its PID file holds no process id; its log tells what it holds".into(),
        Some(Step::PidFileForeign) => return format!("its PID file names {error}, which is no process of this child"),
        Some(Step::Foreground) => return "its start command does not end; without pid_file it may stay".into(),
        Some(Step::StartEnded) => return format!("its start command ended with exit code {error}"),
        Some(Step::StartKilled) => return format!("its start command was killed by {}", signal(error)),
        Some(Step::Session) => "its process could not be set up",
        Some(Step::Cgroup) => "its process could not join its cgroup",
        Some(Step::Limits) => "its limits could not be set ([limits])",
        Some(Step::Schedule) => "its scheduling could not be set ([schedule]; real-time policies need the right)",
        Some(Step::Identity) => "its user or group could not be taken (user, group, groups)",
        Some(Step::WorkingDir) => "its working directory cannot be entered (working_dir)",
        Some(Step::Interpreter) => {
            "its program is there, but the interpreter named in its first line, or its loader, is not"
        }
        Some(Step::Execute) | None => "its program cannot be executed (command)",
    };
    format!("{what}: {}", errno(error))
}

/// An event in one sentence. `slot_name` knows the names of slots.
pub fn event(record: &EventRecord, slot_name: impl Fn(usize) -> Option<String>) -> String {
    let [a, b, c, _] = record.args;
    match record.kind {
        EventKind::Fault => match record.fault {
            Some(kind) => fault(kind, record.args, record.granted_ns, &record.text.to_string()),
            None => String::new(),
        },
        EventKind::Evidence => record.text.to_string(),
        EventKind::Spawned => format!("process {} made", record.pid),
        EventKind::Ready => "ready".into(),
        EventKind::Recovered => recovered(record),
        EventKind::Stopped => "stopped".into(),
        EventKind::Backoff => format!("waits {} before it starts again", ms(a)),
        EventKind::Degraded => format!("failed {} in a row; it is restarted all the same, for ever", times(a)),
        EventKind::Healthy => "earlier failures are forgotten".into(),
        EventKind::Blocked => match a {
            1 => "waits for the temperature".into(),
            2 => {
                let slot = usize::try_from(b).unwrap_or(usize::MAX);
                format!("waits for {}", slot_name(slot).unwrap_or_else(|| format!("slot {b}")))
            }
            _ => "waits for its turn".into(),
        },
        EventKind::SnoozeStarted => format!("snoozed for {}: faults are reported, nobody is killed", ms(a)),
        EventKind::SnoozeEnded => "the snooze has ended".into(),
        EventKind::Resumed => "beats again".into(),
        EventKind::Enabled => "enabled".into(),
        EventKind::Disabled => "disabled".into(),
        EventKind::Added => "added".into(),
        EventKind::Removed => "removed".into(),
        EventKind::CommandFailed => format!("{}: {}", job(a), job_result(b, c)),
        EventKind::LeftoversKilled => {
            let what = if a == 1 {
                "process that outlived it was".into()
            } else {
                format!("{a} processes that outlived it were")
            };
            format!("{what} killed")
        }
        EventKind::Reaped => format!(
            "used {:.3} s in user mode, {:.3} s in the kernel, at most {:.1} MiB of memory",
            a as f64 / 1e6,
            b as f64 / 1e6,
            c as f64 / 1024.0
        ),
        EventKind::DaemonStarted => format!("multusd {} started", env!("CARGO_PKG_VERSION")),
        EventKind::DaemonStopping => "stopping all children".into(),
        EventKind::DaemonStopped => "all children are stopped".into(),
        EventKind::Reloaded => {
            format!("configuration read: {a} added or changed, {b} removed, {c} left as they were because of errors")
        }
        EventKind::TooHot => format!("{}: all children are stopped", temperature(a)),
        EventKind::CooledDown => format!("{}: children start again", temperature(a)),
        EventKind::LateWakeup => format!("the watch loop woke {} late, which is granted to {b} children", ms(a)),
        EventKind::HelperStuck => {
            let name = helper(a);
            let fate = if b == 1 { "another one takes its place" } else { "it cannot be replaced: multusd ends" };
            format!("the {name} thread of multusd is stuck; {fate}")
        }
        EventKind::Warned => {
            let lane = in_lane(c, &record.text.to_string());
            format!("no beat for {}{lane}, told about after {}; the deadline is not reached", ms(a), ms(b))
        }
        EventKind::RebootScheduled if a == 0 => "the machine is started anew when all children are stopped".into(),
        EventKind::RebootScheduled => format!("the machine is started anew in {}", ms(a)),
        EventKind::RebootCancelled => "the machine is not started anew".into(),
        EventKind::HelperRecovered => format!("the new {} thread of multusd works", helper(a)),
        EventKind::OutputsSecured if a == 0 => {
            format!(
                "multus-io does not drive the outputs; multusd has set all to their safe values, {} after that",
                ms(b)
            )
        }
        EventKind::OutputsSecured => format!(
            "multus-io does not drive the outputs, and {a} of them could not be set to their safe values; it is tried again"
        ),
        EventKind::OutputsUnsafe => format!("{a} forced outputs could not be written; it is tried again"),
        EventKind::OutputsSafe => "all forced outputs have their values again".into(),
        EventKind::OutputForced => format!("{} is held at {} by a person", record.text, f64::from_bits(a)),
        EventKind::OutputReleased => format!("{} is no longer held by a person", record.text),
        EventKind::RequestsRefused => {
            format!("{a} requests for outputs were refused; the log of multus-io tells whose and why")
        }
        EventKind::Notice if a > 0 => format!("{} ({a} notices before it were left out)", record.text),
        EventKind::Notice
        | EventKind::Reduced
        | EventKind::LastReset
        | EventKind::WatchdogWithheld
        | EventKind::WatchdogPetted
        | EventKind::Escalated
        | EventKind::LoopGuard => record.text.to_string(),
    }
}

fn recovered(record: &EventRecord) -> String {
    let t = &record.times;
    let from_detection = |at: u64| if at == 0 { "-".to_owned() } else { ms(at.saturating_sub(t.detected)) };
    let overshoot = if t.deadline == 0 {
        String::new()
    } else {
        format!("detected {} after the deadline, ", ms(t.detected.saturating_sub(t.deadline)))
    };
    format!(
        "ready again: {overshoot}from then safe after {}, killed after {}, ready after {}",
        from_detection(t.safe),
        from_detection(t.killed),
        from_detection(t.ready)
    )
}

/// An event with the times of a fault, as far as they happened.
pub fn with_times(event: Event, times: &FaultTimes) -> Event {
    let some = |ns: u64| Some(ns).filter(|ns| *ns != 0);
    Event {
        last_beat_ns: some(times.last_beat),
        deadline_ns: some(times.deadline),
        detected_ns: some(times.detected),
        safe_ns: some(times.safe),
        killed_ns: some(times.killed),
        reaped_ns: some(times.reaped),
        spawned_ns: some(times.spawned),
        ready_ns: some(times.ready),
        ..event
    }
}

/// A record as Event JSON.
pub fn to_event(record: &EventRecord, slot_name: impl Fn(usize) -> Option<String>) -> Event {
    let child = !record.name.is_empty();
    let event = Event {
        seq: record.seq,
        time: format_rfc3339(record.unix),
        mono_ns: record.mono,
        child: child.then(|| record.name.to_string()),
        instance: child.then_some(record.instance),
        kind: record.kind.as_str().to_owned(),
        fault: record.fault.map(|f| f.as_str().to_owned()),
        detail: event(record, slot_name),
        pid: Some(record.pid).filter(|pid| *pid != 0),
        granted_ns: Some(record.granted_ns).filter(|ns| *ns != 0),
        ..Event::default()
    };
    with_times(event, &record.times)
}

fn helper(number: u64) -> &'static str {
    let index = usize::try_from(number).unwrap_or(usize::MAX);
    Helper::ALL.get(index).map_or("?", |h| h.as_str())
}

fn signal(number: u64) -> String {
    let known = i32::try_from(number).ok().and_then(|n| nix::sys::signal::Signal::try_from(n).ok());
    known.map_or_else(|| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

fn errno(number: u64) -> String {
    let errno = nix::errno::Errno::from_raw(i32::try_from(number).unwrap_or(0));
    format!("{} ({errno:?})", errno.desc())
}

fn job(number: u64) -> &'static str {
    const NAMES: [(Job, &str); 5] = [
        (Job::SafeState, "safe-state command"),
        (Job::AfterStop, "after_stop hook"),
        (Job::AfterStart, "after_start hook"),
        (Job::Periodic, "periodic hook"),
        (Job::Check, "check"),
    ];
    NAMES.iter().find(|(job, _)| *job as u64 == number).map_or("command", |(_, name)| name)
}

fn job_result(how: u64, number: u64) -> String {
    match how {
        1 => format!("exit code {number}"),
        2 => format!("killed by {}", signal(number)),
        3 => "took too long and was killed".into(),
        4 => format!("could not be executed: {}", errno(number)),
        _ => "good".into(),
    }
}

fn times(n: u64) -> String {
    if n == 1 { "once".into() } else { format!("{n} times") }
}

fn temperature(word: u64) -> String {
    match i64::try_from(word) {
        Ok(0) | Err(_) => "the temperature cannot be read".into(),
        Ok(word) => format!("the temperature is {:.1} °C", (word - (1 << 31)) as f64 / 1000.0),
    }
}

/// A duration for people.
fn ms(ns: u64) -> String {
    let duration = Duration::from_nanos(ns);
    if ns >= 10_000_000_000 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{:.3} ms", duration.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_in_words() {
        for (kind, args, expected) in [
            (FaultKind::Crash, [1, 11, 1, 0], "killed by SIGSEGV, core dumped"),
            (FaultKind::Crash, [0, 3, 0, 0], "ended by itself with exit code 3"),
            (FaultKind::Hang, [50_040_000, 50_000_000, 0, 0], "no beat for 50.040 ms of 50.000 ms"),
            (
                FaultKind::Hang,
                [1, 2, 3, SNOOZED],
                "no beat for 0.000 ms of 0.000 ms in lane 3; it is snoozed, nobody is killed",
            ),
            (
                FaultKind::ExecFailed,
                [7, 2, 0, 0],
                "its program cannot be executed (command): No such file or directory (ENOENT)",
            ),
            (FaultKind::ControlByte, [4, 6, 0, 0], "its control port got the byte 6, expected is 4"),
            (FaultKind::CheckFailed, [2, 3, 0, 0], "its check failed 2 times in a row (took too long and was killed)"),
        ] {
            assert_eq!(fault(kind, args, 0, ""), expected);
        }
        assert!(fault(FaultKind::Hang, [0; 4], 5_000_000, "").contains("granted"));
        assert!(fault(FaultKind::Hang, [0, 0, 2, 0], 0, "poller").ends_with("in lane poller"));
    }

    #[test]
    fn every_kind_of_event_has_words() {
        for kind in EventKind::ALL {
            let record = EventRecord { args: [1, 1, 1, 0], ..EventRecord::new(*kind) };
            let text = event(&record, |_| Some("io".into()));
            // What carries its own sentence has no words of its own.
            let says_it = kind.code() >= EventKind::LastReset.code();
            let by_record = matches!(kind, EventKind::Fault | EventKind::Evidence | EventKind::Reduced);
            assert!(!text.is_empty() || by_record || says_it);
        }
    }
}
