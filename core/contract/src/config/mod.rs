//! What the configuration directory says: `multusd.toml`, `children/*.toml`, and [`hardware`] for `hardware.toml`.
//!
//! [`load`] reads everything in one pass and never stops at the first mistake. Its [`Loaded`] separates the three things a
//! caller may want: the configuration as far as it is good, all findings, and the children that had to be left out.
//!
//! * A check reports every finding and fails unless [`Loaded::is_clean`].
//! * The daemon does not start when [`Loaded::daemon_is_broken`]; a broken child is left out and reported, all others run.
//! * On a reload the daemon keeps what it has of every child in [`Loaded::broken`], and of a broken `hardware.toml`.

mod child;
mod crosscheck;
mod daemon;
mod diagnose;
mod edit;
mod files;
pub mod hardware;
mod program;
mod read_child;
mod source;
mod units;
mod watchdog;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

pub use child::{
    After, CheckConfig, CheckpointDeadline, ChildConfig, ChildLogConfig, Defaults, EdgePolicy, Endpoint,
    HeartbeatConfig, HooksConfig, LONGEST_NAME, LimitsConfig, MOST_AFTER, MOST_DELAYS, MOST_INSTANCES, Method,
    NO_DEADLINE, NotifySocket, OutputValue, PeriodicConfig, Policy, Probe, RestartConfig, SafeStateConfig,
    ScheduleConfig, ServiceConfig, SnoozeOutputs, StopConfig, SupervisionConfig, name_fault,
};
pub use daemon::{
    DaemonConfig, EventsConfig, IoConfig, LegacyConfig, LogConfig, LogLevel, RealtimeConfig, RebootConfig,
    StartsConfig, TemperatureConfig,
};
pub use diagnose::{Diagnostic, Severity};
pub use edit::{EditError, replace_file, set_enabled};
pub use hardware::HardwareConfig;
pub use program::{ProgramError, find_program, find_program_in};
pub use units::{format_duration, format_size, parse_duration, parse_size, signal_name, signal_names, signal_number};
pub use watchdog::{EscalationConfig, MOST_WATCHDOGS, WatchdogConfig};

/// Everything that is configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The daemon's own part.
    pub daemon: DaemonConfig,
    /// The children that can be used, by name.
    pub children: Vec<ChildConfig>,
    /// Inputs and outputs; `None` without a file, and when it cannot be used.
    pub hardware: Option<HardwareConfig>,
}

impl Config {
    /// The instance that drives the outputs, if there are lines and it is configured.
    pub fn scanner(&self) -> Option<&str> {
        let drives = |child: &&ChildConfig| child.instances == 1 && child.name == self.daemon.io.child;
        self.hardware.as_ref()?;
        self.children.iter().find(drives).map(|child| child.name.as_str())
    }
}

/// What [`load`] found.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// What is good. Each child in here is complete and consistent, except that a name in `after` may be in `broken`.
    pub config: Config,
    /// Everything that is to be said, in the order of files and lines.
    pub diagnostics: Vec<Diagnostic>,
    /// Names of children that have a file with an error and so are not in `config`.
    pub broken: BTreeSet<String>,
    /// Whether `hardware.toml` is there but cannot be used.
    pub hardware_is_broken: bool,
    /// The text of `hardware.toml`, if it is there and can be used.
    pub hardware_text: Option<String>,
}

impl Loaded {
    /// Whether a check succeeds: nothing but warnings.
    pub fn is_clean(&self) -> bool {
        self.diagnostics.iter().all(|d| d.severity == Severity::Warning)
    }

    /// Whether the daemon's own configuration has an error.
    pub fn daemon_is_broken(&self) -> bool {
        self.daemon_errors().next().is_some()
    }

    /// The errors in the daemon's own configuration.
    pub fn daemon_errors(&self) -> impl Iterator<Item = &Diagnostic> {
        let is_hardware = |d: &Diagnostic| d.file == Path::new(hardware::HARDWARE_FILE);
        self.diagnostics.iter().filter(move |d| d.child.is_none() && d.severity == Severity::Error && !is_hardware(d))
    }

    /// One line for each finding and a summary, for people.
    pub fn report(&self, config_dir: &Path) -> String {
        let mut text = String::new();
        for finding in &self.diagnostics {
            let _ = writeln!(text, "{finding}");
        }
        let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
        let good = self.config.children.len();
        let errors = self.diagnostics.iter().filter(|d| d.severity != Severity::Warning).count();
        let warnings = self.diagnostics.len() - errors;
        let _ = write!(text, "{}: {}", config_dir.display(), count(good, "child", "children"));
        if !self.broken.is_empty() {
            let _ = write!(text, " good, {} refused", self.broken.len());
        }
        let _ =
            write!(text, ", {}", if errors == 0 { "no errors".to_owned() } else { count(errors, "error", "errors") });
        if warnings > 0 {
            let _ = write!(text, ", {}", count(warnings, "warning", "warnings"));
        }
        text.push('\n');
        text
    }
}

/// Reads the whole configuration directory.
///
/// Blocks for as long as the file system needs. Never fails as a whole: whatever is wrong is among the findings.
pub fn load(config_dir: &Path) -> Loaded {
    files::load(config_dir)
}

/// Reads the text of one child's file; `file` is named in findings. `None` when it has an error.
///
/// Checks what one file can tell: programs and other children are not looked for.
pub fn parse_child(name: &str, text: &str, file: &Path, defaults: &Defaults) -> (Option<ChildConfig>, Vec<Diagnostic>) {
    let (child, outcome) = read_child::read(name, text, file, file, defaults);
    (child, outcome.diagnostics)
}

/// Reads the text of `multusd.toml`; `file` is named in findings. After errors the result holds what was good, and defaults.
pub fn parse_daemon(text: &str, file: &Path) -> (DaemonConfig, Vec<Diagnostic>) {
    let (config, outcome) = daemon::read(text, file);
    (config, outcome.diagnostics)
}

/// What went wrong with a file, in words that need no manual.
pub(crate) fn io_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "no permission to read it".to_owned(),
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
