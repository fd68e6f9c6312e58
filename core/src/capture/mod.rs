//! The log room: what a child writes to stdout and stderr becomes lines in `<log-dir>/<name>.log`.
//!
//! ```text
//! pipe --drain--> LineSplitter (out) \                        / RateLimit \
//!                                      > ChildLog: time, mark <             > RotatingFile: name.log, .1, .2 ...
//! pipe --drain--> LineSplitter (err) /                        \ last 20 lines, for the evidence of a fault
//! ```
//!
//! The daemon's log thread drives this; the watch loop never comes here. Nothing in here reads a clock, starts a thread
//! or waits: the caller passes the time in and asks with [`ChildLog::next_wakeup`] when to come again. System calls
//! are reads of a non-blocking pipe and calls on a regular file and its directory; anything else that stands in the
//! place of a log file (a FIFO, a device, a symbolic link) is refused.
//!
//! What cannot be written is counted, and the count is written as one line as soon as writing works again. A log never
//! stops a child and never stops the daemon.

mod child_log;
mod drain;
mod limit;
mod lines;
mod rotate;

pub use child_log::{ChildLog, KEPT_LINE_BYTES, KEPT_LINES};
pub use drain::{DRAIN_BYTES, Progress, drain};
pub use limit::RateLimit;
pub use lines::{LineSplitter, MAX_LINE_BYTES, Stream, escape_into};
pub use rotate::{News, RotatingFile};

use multus_contract::api::time::format_rfc3339;

/// One reading of both clocks, made by the caller once per turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_MONOTONIC in nanoseconds: decides about retries and rates.
    pub mono_ns: u64,
    /// Nanoseconds since 1970-01-01T00:00:00Z: is printed, decides nothing.
    pub unix_ns: u64,
}

/// The mark of the lines that multusd itself adds to a child's log.
pub const DAEMON_MARK: &str = "---";

const SECOND_NS: u64 = 1_000_000_000;

/// A line of the daemon's own, as it stands in a log.
fn daemon_line(text: &str, now: Now) -> String {
    format!("{} {DAEMON_MARK} {text}\n", format_rfc3339(now.unix_ns))
}

/// `1 line`, `2 lines`.
fn count_of_lines(lines: u64) -> String {
    if lines == 1 { "1 line".to_owned() } else { format!("{lines} lines") }
}

#[cfg(test)]
mod testing {
    use super::{Now, SECOND_NS};

    /// 2026-11-22T20:00:00Z plus `mono_ns`.
    pub(super) fn at_ns(mono_ns: u64) -> Now {
        Now { mono_ns, unix_ns: 1_795_377_600 * SECOND_NS + mono_ns }
    }

    pub(super) fn at_s(seconds: u64) -> Now {
        at_ns(seconds * SECOND_NS)
    }

    /// Says why a test did not run: on stderr, and in the file named by `MULTUS_SKIP_LOG`, which the test script reads
    /// because the test harness hides the output of a test that passes.
    pub(super) fn skip(test: &str, reason: &str) {
        use std::io::Write as _;
        eprintln!("skipped: {test}: {reason}");
        if let Some(path) = std::env::var_os("MULTUS_SKIP_LOG") {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            if let Ok(mut file) = file {
                let _ = file.write_all(format!("skipped: {test}: {reason}\n").as_bytes());
            }
        }
    }
}
