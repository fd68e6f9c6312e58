//! A plant with one child of each kind, for the tests of drawing.

use multus_contract::api::event::Event;
use multus_contract::api::status::{ChildStatus, DaemonStatus, ForcedOutput, LastFault, LoopStatus, Spread, Status};

/// 1970-01-01T01:00:00Z: the present of the sample.
pub(crate) const NOW_NS: u64 = 3_600_000_000_000;

pub(crate) fn status() -> Status {
    Status {
        daemon: DaemonStatus {
            version: "0.1.0".into(),
            pid: 100,
            site: Some("pump-house 3".into()),
            realtime: true,
            priority: Some(50),
            locked: true,
            uptime_s: 41 * 86_400 + 6 * 3600 + 12 * 60,
            temperature_c: Some(54.1),
            children: 5,
            watch_loop: LoopStatus {
                page_faults: 0,
                wakeups: 1000,
                lateness_us: Spread { p50: Some(20.0), p99: Some(48.0), max: 212.0 },
            },
            ..DaemonStatus::default()
        },
        children: ["running", "backoff", "blocked", "snoozed", "disabled"].map(child).to_vec(),
    }
}

pub(crate) fn child(kind: &str) -> ChildStatus {
    let since = "1970-01-01T00:10:00.000000Z".to_owned();
    let beats = |deadline_us: u64, max: f64| ChildStatus {
        method: "shared-memory".into(),
        enabled: true,
        since: since.clone(),
        deadline_us: Some(deadline_us),
        last_beat_age_us: Some(2_000),
        beat_interval_us: Some(Spread { p50: Some(5_000.0), p99: Some(5_400.0), max }),
        ..ChildStatus::default()
    };
    match kind {
        "running" => ChildStatus {
            name: "io".into(),
            description: "process image, 24 lines".into(),
            state: "running".into(),
            pid: Some(812),
            ..beats(50_000, 6_200.0)
        },
        "backoff" => ChildStatus {
            name: "modbus".into(),
            description: "Modbus TCP, port 5020".into(),
            state: "backoff".into(),
            restarts: 3,
            safe_state: true,
            degraded: true,
            restart_in_us: Some(2_080_000),
            forced_outputs: vec![
                ForcedOutput { name: "DO1".into(), value: 0.0, forced: true },
                ForcedOutput { name: "DO2".into(), value: 1.0, forced: true },
            ],
            last_fault: Some(LastFault {
                kind: "hang".into(),
                time: "1970-01-01T00:57:00.000000Z".into(),
                detail: "thread poll waited in futex_wait for 198 ms: a hang, not starvation".into(),
                count: 3,
            }),
            ..beats(200_000, 190_000.0)
        },
        "blocked" => ChildStatus {
            name: "lan".into(),
            state: "blocked".into(),
            blocked_by: Some("io".into()),
            ..beats(5_000_000, 1_100_000.0)
        },
        "snoozed" => ChildStatus {
            name: "ovpn-client_1".into(),
            instance: 1,
            state: "running".into(),
            pid: Some(1_234_567),
            method: "none".into(),
            enabled: true,
            since,
            snoozed_until: Some("1970-01-01T01:12:00.000000Z".into()),
            ..ChildStatus::default()
        },
        _ => ChildStatus { name: "lanwan-check".into(), state: "disabled".into(), since, ..ChildStatus::default() },
    }
}

pub(crate) fn recovered() -> Event {
    let at = |us: u64| Some(1_000_000_000 + us * 1000);
    Event {
        seq: 41,
        time: "1970-01-01T00:57:00.000000Z".into(),
        mono_ns: 1_241_000_000,
        child: Some("modbus".into()),
        kind: "recovered".into(),
        fault: Some("hang".into()),
        detail: "ready again after a hang".into(),
        pid: Some(900),
        last_beat_ns: at(0),
        deadline_ns: at(200_000),
        detected_ns: at(200_048),
        safe_ns: at(200_131),
        killed_ns: at(220_300),
        reaped_ns: at(221_000),
        spawned_ns: at(222_000),
        ready_ns: at(241_000),
        ..Event::default()
    }
}
