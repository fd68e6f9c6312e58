//! The words that mean the same everywhere: in shared memory, on the command line, in JSON, in logs and on pages.
//!
//! Each enum has a fixed number (what shared memory holds) and a fixed word (what people and JSON see). Numbers are
//! part of the page layout and never reused.

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $code,)+ }

        impl $name {
            /// Every value, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The number that shared memory holds.
            pub const fn code(self) -> u8 { self as u8 }

            /// The value of a number read from shared memory; `None` for a number that this version does not know.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }

            /// The word that people, JSON, logs and metrics see.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The value of a word; `None` for an unknown one.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result { f.pad(self.as_str()) }
        }
    };
}

words! {
    /// What a child instance is doing, as the status shows it.
    StateCode {
        /// Not to be started: `enabled = false`.
        /// `enabled` was switched off.
        Disabled = 0 "disabled",
        /// Wants to run, but something it needs is not there yet: another child, the temperature.
        Blocked = 1 "blocked",
        /// Its process exists (or is being made) and has not said it is ready.
        Starting = 2 "starting",
        /// Ready and watched.
        Running = 3 "running",
        /// On its way down: orderly, or after a fault (evidence, kill, safe-state command).
        Stopping = 4 "stopping",
        /// Waiting for its restart delay.
        Backoff = 5 "backoff",
        /// Stopped on request; starts again on request.
        Stopped = 6 "stopped",
    }
}

words! {
    /// What was detected in a child.
    FaultKind {
        /// The process ended without being asked to (exit code or signal).
        Crash = 1 "crash",
        /// No beat within the deadline.
        Hang = 2 "hang",
        /// Not ready within its start-up time.
        StartupTimeout = 3 "startup-timeout",
        /// Beats faster than allowed.
        Runaway = 4 "runaway",
        /// The heartbeat page holds what no correct writer writes.
        CorruptHeartbeat = 5 "corrupt-heartbeat",
        /// The program could not be executed: missing, no permission, bad interpreter, unknown user.
        ExecFailed = 6 "exec-failed",
        /// The periodic check command said no, as often as configured.
        CheckFailed = 7 "check-failed",
        /// The system could not make a process (memory, process limit).
        SpawnFailed = 8 "spawn-failed",
        /// The program itself reported that it does not work (`WATCHDOG=trigger`).
        Trigger = 9 "watchdog-trigger",
        /// On its control port came a byte that does not follow the one before.
        ControlByte = 10 "control-byte",
        /// It passed a checkpoint after one that it must not follow.
        CheckpointOrder = 11 "checkpoint-order",
        /// From one checkpoint to another it took less time than allowed.
        CheckpointEarly = 12 "checkpoint-early",
        /// From one checkpoint to another it took more time than allowed, or it has not come there yet.
        CheckpointLate = 13 "checkpoint-late",
        /// multus-io has not put forced outputs into force in time.
        Unacknowledged = 14 "unacknowledged",
    }
}

words! {
    /// What an event tells.
    EventKind {
        /// The daemon began to supervise.
        DaemonStarted = 1 "daemon-started",
        /// The daemon was asked to end and stops all children.
        DaemonStopping = 2 "daemon-stopping",
        /// All children are stopped; the last event.
        DaemonStopped = 3 "daemon-stopped",
        /// A fault was detected; outputs are safe by now.
        Fault = 4 "fault",
        /// What was found out about a fault before the process was killed.
        Evidence = 5 "evidence",
        /// A process was made.
        Spawned = 6 "spawned",
        /// The child is ready and watched; outputs are released.
        Ready = 7 "ready",
        /// Ready again after a fault; carries all times of the fault.
        Recovered = 8 "recovered",
        /// Stopped on request.
        Stopped = 9 "stopped",
        /// Waits for its restart delay.
        Backoff = 10 "backoff",
        /// Keeps failing: its list of delays is used up. It is still restarted, for ever.
        Degraded = 11 "degraded",
        /// No longer degraded.
        Healthy = 12 "healthy",
        /// Cannot start yet; the detail says what it waits for.
        Blocked = 13 "blocked",
        /// Faults of the child are reported, nobody is killed.
        SnoozeStarted = 14 "snooze-started",
        /// The child is supervised as usual again.
        SnoozeEnded = 15 "snooze-ended",
        /// A snoozed child that was silent beats again.
        Resumed = 16 "resumed",
        /// `enabled` was switched on.
        Enabled = 17 "enabled",
        /// `enabled` was switched off.
        Disabled = 18 "disabled",
        /// Configuration read again.
        Reloaded = 19 "reloaded",
        /// A safe-state command, hook or check ended badly or took too long.
        CommandFailed = 20 "command-failed",
        /// Temperature left its range, or cannot be read: all children are stopped.
        TooHot = 21 "too-hot",
        /// Temperature back in range: children start again.
        CooledDown = 22 "cooled-down",
        /// The watch loop woke late; the lateness was granted to every child.
        LateWakeup = 23 "late-wakeup",
        /// One of the daemon's own threads is stuck.
        HelperStuck = 24 "helper-stuck",
        /// The stuck thread was replaced or moves again.
        HelperRecovered = 25 "helper-recovered",
        /// Something the daemon wants it does not get; it runs on without it.
        Reduced = 26 "reduced",
        /// A child was added by a reload.
        Added = 27 "added",
        /// A child was removed by a reload.
        Removed = 28 "removed",
        /// Processes that outlived their child were killed.
        LeftoversKilled = 29 "leftovers-killed",
        /// The last process of a child is gone; what it used.
        Reaped = 30 "reaped",
        /// Silent for longer than `warn_after`; evidence is collected, nobody is killed.
        Warned = 31 "warned",
        /// The machine is started anew at a time that was asked for.
        RebootScheduled = 32 "reboot-scheduled",
        /// It is not, after all.
        RebootCancelled = 33 "reboot-cancelled",
        /// multus-io does not drive the outputs: multusd itself has written their safe values.
        OutputsSecured = 40 "outputs-secured",
        /// Outputs that must be safe could not be written: a chip does not answer, a line cannot be set.
        OutputsUnsafe = 41 "outputs-unsafe",
        /// All outputs that must be safe are so again.
        OutputsSafe = 42 "outputs-safe",
        /// A person holds an output at a value.
        OutputForced = 43 "output-forced",
        /// No longer.
        OutputReleased = 44 "output-released",
        /// Children asked for outputs that they may not have.
        RequestsRefused = 45 "requests-refused",
        /// Why the machine last restarted.
        LastReset = 48 "last-reset",
        /// Watchdogs are no longer petted: the machine is about to be reset.
        WatchdogWithheld = 49 "watchdog-withheld",
        /// They are petted again.
        WatchdogPetted = 50 "watchdog-petted",
        /// A critical child stays out of order: all children are restarted, or the machine is.
        Escalated = 51 "escalated",
        /// The machine was reset too often; it is not for now.
        LoopGuard = 52 "loop-guard",
        /// What a child tells of itself or of what it looks after.
        Notice = 53 "notice",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_and_number_comes_back() {
        for &s in StateCode::ALL {
            assert_eq!(StateCode::from_code(s.code()), Some(s));
            assert_eq!(StateCode::from_word(s.as_str()), Some(s));
        }
        for &f in FaultKind::ALL {
            assert_eq!(FaultKind::from_code(f.code()), Some(f));
            assert_eq!(FaultKind::from_word(f.as_str()), Some(f));
        }
        for &e in EventKind::ALL {
            assert_eq!(EventKind::from_code(e.code()), Some(e));
            assert_eq!(EventKind::from_word(e.as_str()), Some(e));
        }
        assert_eq!(StateCode::from_code(200), None);
    }
}
