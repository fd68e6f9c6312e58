//! Status JSON: what the daemon and every child instance are doing now.
//!
//! Made by the daemon for `control.sock`; `multusctl status --json` prints it as it is. Fields may be added in later
//! versions; a reader ignores those it does not know and takes a missing one as empty.

use multus_ipc::words::{FaultKind, StateCode};
use serde::{Deserialize, Serialize};

use super::reset::{LastReset, WatchdogStatus};

/// The whole status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Status {
    /// The daemon itself.
    pub daemon: DaemonStatus,
    /// Every child instance, children by name, instances by number.
    pub children: Vec<ChildStatus>,
}

/// The daemon itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct DaemonStatus {
    /// Version of multusd.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The name of the plant, if it has one.
    pub site: Option<String>,
    /// Whether the watch loop runs under SCHED_FIFO.
    pub realtime: bool,
    /// Its priority there; `None` without.
    pub priority: Option<u8>,
    /// Whether the daemon's memory is locked.
    pub locked: bool,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The temperature that the children depend on; `None` when they depend on none, or it cannot be read.
    pub temperature_c: Option<f64>,
    /// Whether all children are stopped because of it.
    pub too_hot: bool,
    /// Number of child instances.
    pub children: usize,
    /// How the watch loop itself does.
    #[serde(rename = "loop")]
    pub watch_loop: LoopStatus,
    /// Why the machine last restarted.
    pub last_reset: Option<LastReset>,
    /// How its watchdogs do, in the order of the configuration.
    pub watchdogs: Vec<WatchdogStatus>,
    /// What the daemon wants and does not get, one sentence each.
    pub notes: Vec<String>,
    /// Where the configuration is.
    pub config_dir: String,
    /// Where the logs are.
    pub log_dir: String,
    /// Where the event files are.
    pub state_dir: String,
}

/// How the watch loop itself does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct LoopStatus {
    /// Times it woke up.
    pub wakeups: u64,
    /// Page faults of its thread since it was armed; 0 when memory is locked.
    pub page_faults: u64,
    /// How much later than armed its timer woke it.
    pub lateness_us: Spread,
}

/// How a measured time spreads, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Spread {
    /// Half of all are not above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50: Option<f64>,
    /// 99 % are not above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// The largest.
    pub max: f64,
}

/// One child instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ChildStatus {
    /// The name of the instance: the child's, or `name_n` when it has several. Commands take it.
    pub name: String,
    /// Number of the instance, from 0.
    pub instance: u32,
    /// What the configuration says about it.
    pub description: String,
    /// One of the words of [`StateCode`].
    pub state: String,
    /// Its process, if there is one.
    pub pid: Option<u32>,
    /// When it came into this state, RFC 3339.
    pub since: String,
    /// Processes made after the first one, since the daemon started.
    pub restarts: u64,
    /// How it shows that it is alive: `shared-memory` or `none`.
    pub method: String,
    /// What the program says of itself (sd_notify `STATUS=`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Longest allowed time from beat to beat; `None` when it does not beat.
    pub deadline_us: Option<u64>,
    /// Time since its last beat.
    pub last_beat_age_us: Option<u64>,
    /// Times from beat to beat, over the last minute or so.
    pub beat_interval_us: Option<Spread>,
    /// The deadline that the intervals of this process advise; `None` before enough were seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advised_deadline_us: Option<u64>,
    /// False alarms a year that are expected of the deadline in force, by the same model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alarms_per_year: Option<f64>,
    /// Whether its outputs are held at their safe values.
    pub safe_state: bool,
    /// Its outputs that have a safe value.
    pub forced_outputs: Vec<ForcedOutput>,
    /// Whether it keeps failing.
    pub degraded: bool,
    /// Whether it is to run at all.
    pub enabled: bool,
    /// When its snooze ends, RFC 3339; `None`: it is not snoozed.
    pub snoozed_until: Option<String>,
    /// What it waits for when it is blocked: the name of a child, or `temperature`.
    pub blocked_by: Option<String>,
    /// Time until its restart when it is in back-off.
    pub restart_in_us: Option<u64>,
    /// The last thing that went wrong.
    pub last_fault: Option<LastFault>,
}

impl ChildStatus {
    /// `state` as a value; `None` for a word that only a newer daemon knows.
    pub fn state_code(&self) -> Option<StateCode> {
        StateCode::from_word(&self.state)
    }

    /// Whether it does not run because somebody wanted it so.
    pub fn is_off(&self) -> bool {
        matches!(self.state_code(), Some(StateCode::Disabled | StateCode::Stopped))
    }

    /// Whether somebody should look at it.
    pub fn is_failing(&self) -> bool {
        self.degraded || self.state_code() == Some(StateCode::Backoff) || (self.safe_state && !self.is_off())
    }
}

/// An output that has a safe value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ForcedOutput {
    /// Its name.
    pub name: String,
    /// Its safe value: 0 is off, 1 is on.
    pub value: f64,
    /// Whether it is held there now.
    pub forced: bool,
}

/// The last thing that went wrong with a child.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct LastFault {
    /// One of the words of [`FaultKind`].
    pub kind: String,
    /// When it was detected, RFC 3339.
    pub time: String,
    /// One sentence of cause.
    pub detail: String,
    /// Faults since the daemon started.
    pub count: u64,
}

impl LastFault {
    /// `kind` as a value; `None` for a word that only a newer daemon knows.
    pub fn fault_kind(&self) -> Option<FaultKind> {
        FaultKind::from_word(&self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_comes_back_from_json_and_ignores_what_it_does_not_know() {
        let status = Status {
            daemon: DaemonStatus { version: "1".into(), temperature_c: Some(54.1), ..DaemonStatus::default() },
            children: vec![ChildStatus {
                name: "io".into(),
                state: "running".into(),
                beat_interval_us: Some(Spread { p50: Some(5000.0), p99: None, max: 6200.5 }),
                last_fault: Some(LastFault { kind: "hang".into(), ..LastFault::default() }),
                ..ChildStatus::default()
            }],
        };
        let text = serde_json::to_string(&status).expect("plain data");
        assert!(text.contains(r#""loop":{"wakeups":0,"page_faults":0,"lateness_us":{"max":0.0}}"#), "{text}");
        assert_eq!(serde_json::from_str::<Status>(&text).expect("own text"), status);

        let newer = r#"{"daemon":{"version":"9","moon":"full"},"children":[{"name":"io","state":"dreaming","x":[1]}]}"#;
        let read: Status = serde_json::from_str(newer).expect("unknown fields are ignored");
        assert_eq!(read.children[0].state_code(), None);
    }
}
