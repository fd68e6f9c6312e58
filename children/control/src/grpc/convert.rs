//! From what the service says to what goes over the wire.

use std::collections::HashMap;

use multus_contract::api::event::Event;
use multus_contract::api::io::{IoLine, IoStatus};
use multus_contract::api::reset::{LastReset, WatchdogStatus};
use multus_contract::api::status::{ChildStatus, DaemonStatus, Spread};
use multus_contract::api::time::parse_rfc3339;
use multus_proto::v1;
use prost_types::Timestamp;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::service::configuration::{DocumentInfo, Pending, PendingState, VersionInfo};
use crate::service::{Advice, Error, FaultReport, Found, LogFile, Problem, ReloadReport};

/// The status of a call that was not done, with details of the standard kinds: `BadRequest` for what is wrong where,
/// `ErrorInfo` for everything else, whose reason is [`Error::kind`].
pub(super) fn status(error: Error) -> Status {
    let code = match &error {
        Error::Unauthenticated(_) => Code::Unauthenticated,
        Error::Forbidden(_) => Code::PermissionDenied,
        Error::NotFound(_) => Code::NotFound,
        Error::Invalid { .. } => Code::InvalidArgument,
        Error::Conflict { .. } => Code::Aborted,
        Error::Refused(_) => Code::FailedPrecondition,
        Error::Busy(_) => Code::ResourceExhausted,
        Error::Unavailable(_) => Code::Unavailable,
        Error::Internal(_) => Code::Internal,
    };
    let mut details = ErrorDetails::new();
    let mut metadata = HashMap::new();
    if let Error::Conflict { current } = &error {
        metadata.insert("current_version".to_owned(), current.to_string());
    }
    details.set_error_info(error.kind(), "multus.v1", metadata);
    if !error.problems().is_empty() {
        // Details travel in a header, whose size is bounded.
        let first = error.problems().iter().take(MOST_VIOLATIONS);
        details.set_bad_request(
            first.map(|problem| FieldViolation::new(problem.key.clone(), words(problem))).collect::<Vec<_>>(),
        );
    }
    Status::with_error_details(code, error.to_string(), details)
}

fn words(problem: &Problem) -> String {
    let place = match (problem.line, problem.column) {
        (0, _) => String::new(),
        (line, 0) => format!("line {line}: "),
        (line, column) => format!("line {line}, column {column}: "),
    };
    let nearest = &problem.nearest;
    let nearest = if nearest.is_empty() { String::new() } else { format!("; did you mean {nearest:?}?") };
    let text = format!("{place}{}{nearest}", problem.message);
    text.chars().take(LONGEST_VIOLATION).collect()
}

/// `None` for what is no time.
fn time(rfc3339: &str) -> Option<Timestamp> {
    let ns = parse_rfc3339(rfc3339)?;
    Some(Timestamp { seconds: i64::try_from(ns / 1_000_000_000).ok()?, nanos: i32::try_from(ns % 1_000_000_000).ok()? })
}

pub(super) fn child(child: &ChildStatus) -> v1::Child {
    let child = child.clone();
    v1::Child {
        name: child.name,
        instance: child.instance,
        description: child.description,
        state: child.state,
        pid: child.pid,
        since: time(&child.since),
        restarts: child.restarts,
        method: child.method,
        text: child.text.unwrap_or_default(),
        deadline_us: child.deadline_us,
        last_beat_age_us: child.last_beat_age_us,
        beat_interval: child.beat_interval_us.map(spread),
        safe_state: child.safe_state,
        forced_outputs: child
            .forced_outputs
            .into_iter()
            .map(|output| v1::ForcedOutput { name: output.name, value: output.value, forced: output.forced })
            .collect(),
        degraded: child.degraded,
        enabled: child.enabled,
        snoozed_until: child.snoozed_until.as_deref().and_then(time),
        blocked_by: child.blocked_by.unwrap_or_default(),
        restart_in_us: child.restart_in_us,
        last_fault: child.last_fault.map(|fault| v1::LastFault {
            kind: fault.kind,
            time: time(&fault.time),
            detail: fault.detail,
            count: fault.count,
        }),
    }
}

fn spread(spread: Spread) -> v1::Spread {
    v1::Spread { p50_us: spread.p50, p99_us: spread.p99, max_us: spread.max }
}

pub(super) fn daemon(daemon: DaemonStatus) -> v1::Daemon {
    v1::Daemon {
        version: daemon.version,
        pid: daemon.pid,
        site: daemon.site.unwrap_or_default(),
        realtime: daemon.realtime,
        priority: daemon.priority.map(u32::from),
        locked: daemon.locked,
        uptime_s: daemon.uptime_s,
        temperature_c: daemon.temperature_c,
        too_hot: daemon.too_hot,
        children: u32::try_from(daemon.children).unwrap_or(u32::MAX),
        wakeups: daemon.watch_loop.wakeups,
        page_faults: daemon.watch_loop.page_faults,
        lateness: Some(spread(daemon.watch_loop.lateness_us)),
        notes: daemon.notes,
        last_reset: daemon.last_reset.map(last_reset),
        watchdogs: daemon.watchdogs.into_iter().map(watchdog).collect(),
    }
}

fn last_reset(reset: LastReset) -> v1::LastReset {
    v1::LastReset {
        cause: reset.cause,
        detail: reset.detail,
        by: reset.by.unwrap_or_default(),
        child: reset.child.unwrap_or_default(),
        pid: reset.pid,
        time: reset.time.as_deref().and_then(time),
        uptime_s: reset.uptime_s,
        evidence: reset.evidence,
        boots: reset.boots,
        daemon_only: reset.daemon_only,
        ended_in_order: reset.ended_in_order,
        counts: reset.counts.into_iter().collect(),
    }
}

fn watchdog(watchdog: WatchdogStatus) -> v1::Watchdog {
    v1::Watchdog {
        name: watchdog.name,
        identity: watchdog.identity.unwrap_or_default(),
        timeout_s: watchdog.timeout_s,
        state: watchdog.state,
        note: watchdog.note.unwrap_or_default(),
    }
}

pub(super) fn event(event: &Event) -> v1::Event {
    let event = event.clone();
    v1::Event {
        seq: event.seq,
        time: time(&event.time),
        mono_ns: event.mono_ns,
        child: event.child.unwrap_or_default(),
        instance: event.instance,
        kind: event.kind,
        fault: event.fault.unwrap_or_default(),
        detail: event.detail,
        pid: event.pid,
        granted_ns: event.granted_ns,
        last_beat_ns: event.last_beat_ns,
        deadline_ns: event.deadline_ns,
        detected_ns: event.detected_ns,
        safe_ns: event.safe_ns,
        killed_ns: event.killed_ns,
        reaped_ns: event.reaped_ns,
        spawned_ns: event.spawned_ns,
        ready_ns: event.ready_ns,
    }
}

pub(super) fn lines(status: IoStatus) -> v1::ListLinesResponse {
    v1::ListLinesResponse {
        board: status.board,
        simulated: status.simulated,
        fresh: status.fresh,
        degraded: status.degraded,
        driven_by: status.driven_by,
        unsafe_outputs: status.unsafe_outputs,
        scans: status.scans,
        overruns: status.overruns,
        period_us: status.period_us,
        scan: Some(spread(status.scan_us)),
        forced: Some(spread(status.forced_us)),
        refused: status.refused,
        lines: status.lines.into_iter().map(line).collect(),
    }
}

pub(super) fn line(line: IoLine) -> v1::IoLine {
    v1::IoLine {
        name: line.name,
        kind: line.kind,
        value: line.value,
        unit: line.unit,
        raw: line.raw,
        good: line.good,
        source: line.source,
        owner: line.owner,
        safe: line.safe,
        lowest: line.range.map(|[lowest, _]| lowest),
        highest: line.range.map(|[_, highest]| highest),
        held: line.held,
        changed: line.changed.as_deref().and_then(time),
        last_good: line.last_good.as_deref().and_then(time),
        changes: line.changes,
    }
}

pub(super) fn reload_report(report: ReloadReport) -> v1::ReloadReport {
    let ReloadReport { added, changed, removed, broken, diagnostics } = report;
    v1::ReloadReport { added, changed, removed, broken, diagnostics }
}

pub(super) fn advice(advice: Advice) -> v1::Advice {
    v1::Advice {
        child: advice.child,
        lane: advice.lane,
        intervals: advice.intervals,
        p50_us: advice.p50_us,
        p99_us: advice.p99_us,
        p999_us: advice.p999_us,
        max_us: advice.max_us,
        deadline_us: advice.deadline_us,
        alarms_per_year: advice.alarms_per_year,
        advised_us: advice.advised_us,
        advised_alarms_per_year: advice.advised_alarms_per_year,
    }
}

pub(super) fn fault_report(report: FaultReport) -> v1::FaultReport {
    v1::FaultReport { time: time(&report.time), child: report.child, id: report.id, bytes: report.bytes }
}

pub(super) fn log_file(log: LogFile) -> v1::LogFile {
    v1::LogFile { changed: time(&log.changed), name: log.name, bytes: log.bytes }
}

pub(super) fn found_line(found: Found) -> v1::FoundLine {
    v1::FoundLine { file: found.file, line: found.line, text: found.text }
}

pub(super) fn document_info(info: DocumentInfo) -> v1::DocumentInfo {
    v1::DocumentInfo { document: info.document, child: info.child.unwrap_or_default(), exists: info.exists }
}

pub(super) fn problem(problem: Problem) -> v1::Problem {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    v1::Problem {
        line: number(problem.line),
        column: number(problem.column),
        key: problem.key,
        message: problem.message,
        nearest: problem.nearest,
        warning: problem.warning,
    }
}

pub(super) fn version_info(info: VersionInfo) -> v1::VersionInfo {
    v1::VersionInfo {
        version: info.version,
        who: info.who,
        time: time(&info.time),
        comment: info.comment,
        etag: info.etag,
        bytes: info.bytes,
        exists: info.exists,
    }
}

pub(super) fn pending(pending: Pending) -> v1::PendingChange {
    let state = match pending.state {
        PendingState::Waiting => v1::PendingState::Waiting,
        PendingState::Applying => v1::PendingState::Applying,
        PendingState::Healthy => v1::PendingState::Healthy,
        PendingState::Unhealthy => v1::PendingState::Unhealthy,
        PendingState::Reverted => v1::PendingState::Reverted,
    };
    v1::PendingChange {
        document: pending.document,
        version: pending.version,
        state: state.into(),
        applies_at: time(&pending.applies_at),
        applies_in_ms: pending.applies_in_ms,
        message: pending.message,
        previous: pending.previous,
    }
}

const MOST_VIOLATIONS: usize = 16;
const LONGEST_VIOLATION: usize = 200;
