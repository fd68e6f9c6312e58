//! Why the machine last restarted, and how its watchdogs do: parts of the Status JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::human::uptime;

/// Why the machine last restarted, as far as it can be known. Multusd writes down what it does before it does it, and compares
/// that at its next start with what watchdog devices and the kernel say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct LastReset {
    /// One of the words of [`ResetCause`].
    pub cause: String,
    /// The same in a sentence.
    pub detail: String,
    /// Who had it done, if it was asked for or withheld by multusd: `person`, `file`, `escalation` or `watchdog`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The child instance for which it was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// The process of that child then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Wall time at which multusd wrote that down, RFC 3339; `None` when the end came unannounced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// How long the machine had been up then, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_s: Option<u64>,
    /// What else speaks for it: flags of watchdog devices, dumps of the kernel; a sentence each.
    pub evidence: Vec<String>,
    /// Starts of the machine that multusd has seen, this one included.
    pub boots: u64,
    /// The machine has not restarted since multusd last ran: only multusd was started again. All else still tells of the machine.
    pub daemon_only: bool,
    /// Whether multusd itself ended in good order the last time.
    pub ended_in_order: bool,
    /// How often each cause was found, by its word.
    pub counts: BTreeMap<String, u64>,
}

/// Why a machine restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResetCause {
    /// No earlier start is known.
    First,
    /// It was asked for: by a person, a file, or escalation.
    Requested,
    /// Multusd was stopped in order before, by whoever shut the machine down.
    Shutdown,
    /// A watchdog.
    Watchdog,
    /// The kernel gave up.
    KernelPanic,
    /// Nothing announced it: power loss, a reset button, or a standstill that no watchdog tells of.
    PowerLoss,
}

impl ResetCause {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::First, Self::Requested, Self::Shutdown, Self::Watchdog, Self::KernelPanic, Self::PowerLoss];

    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first-start",
            Self::Requested => "requested",
            Self::Shutdown => "shutdown",
            Self::Watchdog => "watchdog",
            Self::KernelPanic => "kernel-panic",
            Self::PowerLoss => "power-loss",
        }
    }

    /// The cause of a word; `None` for one that only a newer daemon knows.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == word)
    }
}

impl LastReset {
    /// `cause` as a value.
    pub fn reset_cause(&self) -> Option<ResetCause> {
        ResetCause::from_word(&self.cause)
    }

    /// Whether nobody has to look at it: the first start, or an end that a person wanted.
    pub fn is_ordinary(&self) -> bool {
        match self.reset_cause() {
            Some(ResetCause::First | ResetCause::Shutdown) => true,
            Some(ResetCause::Requested) => self.by.as_deref() != Some("escalation"),
            _ => false,
        }
    }

    /// One line for people: cause, sentence, when.
    pub fn line(&self) -> String {
        let mut line = format!("{}: {}", self.cause, self.detail);
        if let Some(time) = &self.time {
            line += &format!(" ({time}");
            line += &self.uptime_s.map_or_else(String::new, |s| format!(", up {} then", uptime(s)));
            line.push(')');
        }
        line
    }
}

/// How a watchdog does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct WatchdogStatus {
    /// The path of its device, `sim`, or the lines of the chip.
    pub name: String,
    /// What the driver calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Without a pet for so long it resets the machine, seconds, as the driver granted it; `None` for a chip, whose window is its
    /// own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// `waiting` (not petted yet), `petted`, `withheld` (the machine is about to be reset), or `missing`.
    pub state: String,
    /// What is not as configured, a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_wanted_is_ordinary_and_all_else_is_not() {
        for (cause, by, ordinary) in [
            (ResetCause::First, None, true),
            (ResetCause::Requested, Some("person"), true),
            (ResetCause::Requested, Some("file"), true),
            (ResetCause::Requested, Some("escalation"), false),
            (ResetCause::Shutdown, None, true),
            (ResetCause::Watchdog, Some("watchdog"), false),
            (ResetCause::KernelPanic, None, false),
            (ResetCause::PowerLoss, None, false),
        ] {
            let reset = LastReset { cause: cause.as_str().into(), by: by.map(str::to_owned), ..LastReset::default() };
            assert_eq!(reset.is_ordinary(), ordinary, "{reset:?}");
            assert_eq!(reset.reset_cause(), Some(cause));
        }
    }
}
