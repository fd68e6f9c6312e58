//! Event JSON: one thing that happened, one object a line.
//!
//! Events are numbered by `seq` without gaps for as long as a daemon runs. A `recovered` event carries all times of the
//! fault it ends, so that overshoot and recovery can be computed from that one line.

use multus_ipc::words::{EventKind, FaultKind};
use serde::{Deserialize, Serialize};

/// One thing that happened. Times that end in `_ns` are points on CLOCK_MONOTONIC, except `granted_ns`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Event {
    /// Its number.
    pub seq: u64,
    /// Wall time, RFC 3339 in UTC with microseconds; see [`super::time::format_rfc3339`].
    pub time: String,
    /// The same moment on CLOCK_MONOTONIC.
    pub mono_ns: u64,
    /// The name of the child instance, as in the status; `None` for the daemon itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// Number of the instance, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<u32>,
    /// One of the words of [`EventKind`].
    pub kind: String,
    /// One of the words of [`FaultKind`], where a fault is told of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// For people; may have several lines.
    pub detail: String,
    /// The process it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How much lateness of the watch loop was granted to every child, a duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted_ns: Option<u64>,
    /// The last good beat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_beat_ns: Option<u64>,
    /// When the next one was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ns: Option<u64>,
    /// When the fault was detected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detected_ns: Option<u64>,
    /// When the outputs were forced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safe_ns: Option<u64>,
    /// When the process was killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub killed_ns: Option<u64>,
    /// When its end was collected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reaped_ns: Option<u64>,
    /// When the next process was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spawned_ns: Option<u64>,
    /// When that one was ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_ns: Option<u64>,
}

/// How much an event means to whoever looks after the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Something does not work.
    Bad,
    /// Worth a look.
    Warning,
    /// Something works again.
    Good,
    /// The course of things.
    Plain,
}

impl Event {
    /// What it means. Unknown kinds are plain.
    pub fn weight(&self) -> Weight {
        use EventKind as Kind;
        match self.event_kind() {
            Some(
                Kind::Fault
                | Kind::Degraded
                | Kind::TooHot
                | Kind::HelperStuck
                | Kind::OutputsUnsafe
                | Kind::WatchdogWithheld
                | Kind::LoopGuard,
            ) => Weight::Bad,
            Some(
                Kind::CommandFailed
                | Kind::Warned
                | Kind::LateWakeup
                | Kind::Reduced
                | Kind::LeftoversKilled
                | Kind::Backoff
                | Kind::Blocked
                | Kind::OutputsSecured
                | Kind::RequestsRefused
                | Kind::RebootScheduled
                | Kind::Escalated,
            ) => Weight::Warning,
            Some(
                Kind::Ready
                | Kind::Recovered
                | Kind::Healthy
                | Kind::CooledDown
                | Kind::Resumed
                | Kind::HelperRecovered
                | Kind::OutputsSafe
                | Kind::WatchdogPetted,
            ) => Weight::Good,
            _ => Weight::Plain,
        }
    }

    /// `kind` as a value; `None` for a word that only a newer daemon knows.
    pub fn event_kind(&self) -> Option<EventKind> {
        EventKind::from_word(&self.kind)
    }

    /// `fault` as a value; `None` without one, and for a word that only a newer daemon knows.
    pub fn fault_kind(&self) -> Option<FaultKind> {
        FaultKind::from_word(self.fault.as_deref()?)
    }

    /// The times of a fault that happened, in the order in which they do, with the words people see.
    pub fn fault_times(&self) -> Vec<(&'static str, u64)> {
        let all = [
            ("last beat", self.last_beat_ns),
            ("deadline", self.deadline_ns),
            ("detected", self.detected_ns),
            ("safe", self.safe_ns),
            ("killed", self.killed_ns),
            ("reaped", self.reaped_ns),
            ("spawned", self.spawned_ns),
            ("ready", self.ready_ns),
        ];
        all.into_iter().filter_map(|(word, time)| Some((word, time?))).collect()
    }

    /// Sets the time of one of the steps that [`Self::fault_times`] has; other words change nothing.
    pub fn set_fault_time(&mut self, word: &str, at: u64) {
        let time = match word {
            "last beat" => &mut self.last_beat_ns,
            "deadline" => &mut self.deadline_ns,
            "detected" => &mut self.detected_ns,
            "safe" => &mut self.safe_ns,
            "killed" => &mut self.killed_ns,
            "reaped" => &mut self.reaped_ns,
            "spawned" => &mut self.spawned_ns,
            "ready" => &mut self.ready_ns,
            _ => return,
        };
        *time = Some(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_without_empty_fields() {
        let event = Event {
            seq: 7,
            time: super::super::time::format_rfc3339(0),
            child: Some("io".into()),
            kind: "fault".into(),
            fault: Some("hang".into()),
            detail: "first\nsecond".into(),
            detected_ns: Some(5),
            ..Event::default()
        };
        let text = serde_json::to_string(&event).expect("plain data");
        assert!(!text.contains('\n') && !text.contains("pid") && text.contains(r#""detected_ns":5"#), "{text}");
        let read: Event = serde_json::from_str(&text).expect("own text");
        assert_eq!(read, event);
        assert_eq!((read.event_kind(), read.fault_kind()), (Some(EventKind::Fault), Some(FaultKind::Hang)));
        assert_eq!(read.fault_times(), [("detected", 5)]);
    }
}
