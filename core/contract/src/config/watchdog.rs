//! What guards the guard: `[[watchdog]]` and `[escalation]` of `multusd.toml`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::hardware::{HardwareConfig, LineSource};
use super::read_child::{DAY, absolute_path};
use super::source::{Field, Positions, Section};
use super::units::quote;
use super::{Diagnostic, Severity};

/// One watchdog: what resets the machine when it is no longer petted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchdogConfig {
    /// A watchdog of the kernel.
    Device {
        /// Such as /dev/watchdog0.
        path: PathBuf,
        /// Without a pet for so long it resets the machine; whole seconds, 1 s to 1 d. The driver may grant another one.
        timeout: Duration,
        /// So long before that the driver tells the kernel (by default a panic); whole seconds, shorter than `timeout`.
        pretimeout: Option<Duration>,
    },
    /// None: pets are written into a file, nothing is ever reset.
    Sim {
        /// As of a device.
        timeout: Duration,
    },
    /// A watchdog chip on two native lines, such as a TPS3851.
    Chip {
        /// The line that switches it on while it is high: BCM number, or offset on the chip of `hardware.toml`.
        enable: u32,
        /// The line that is pulsed.
        pulse: u32,
        /// From pulse to pulse, 5 ms to 60 s.
        period: Duration,
        /// How long a pulse is high, 1 ms and up, shorter than `period`.
        width: Duration,
    },
}

impl fmt::Display for WatchdogConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { path, .. } => write!(f, "{}", path.display()),
            Self::Sim { .. } => f.write_str("sim"),
            Self::Chip { enable, pulse, .. } => write!(f, "chip at gpio {enable} and {pulse}"),
        }
    }
}

/// What is done when restarting a critical child is not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EscalationConfig {
    /// All children are restarted when a critical one is out of order for so long, 1 s to 1 d; `None`: never.
    pub restart_all_after: Option<Duration>,
    /// The machine is started anew when it is out of order for so long, 1 s to 1 d; `None`: never.
    pub reboot_after: Option<Duration>,
    /// Resets of the machine within an hour that are multusd's doing, 1 to 60: the next one waits.
    pub reboots_per_hour: u16,
}

impl Default for EscalationConfig {
    fn default() -> Self {
        Self { restart_all_after: None, reboot_after: None, reboots_per_hour: 3 }
    }
}

/// `[[watchdog]]`
pub(super) fn watchdogs(root: &Section<'_>) -> Vec<WatchdogConfig> {
    let Some(field) = root.field("watchdog") else { return Vec::new() };
    let elements = field.elements().unwrap_or_default();
    if elements.len() > MOST_WATCHDOGS {
        field.error(format!("{} watchdogs, at most {MOST_WATCHDOGS} are possible", elements.len()));
    }
    let mut all: Vec<WatchdogConfig> = Vec::new();
    for element in &elements {
        let Some(section) = element.as_section() else {
            element.error("expected a table with device = \"/dev/watchdog0\" or chip = { enable = 5, pulse = 6 }");
            continue;
        };
        let Some(watchdog) = one(element, section) else { continue };
        if let Some(clash) = all.iter().find_map(|other| clash(other, &watchdog)) {
            element.error(clash);
        }
        all.push(watchdog);
    }
    all
}

fn one(element: &Field<'_>, section: Section<'_>) -> Option<WatchdogConfig> {
    let (device, chip) = (section.field("device"), section.field("chip"));
    let found = match (&device, &chip) {
        (Some(device), None) => of_device(device, &section),
        (None, Some(chip)) => of_chip(chip, &section),
        _ => {
            element.error("expected either device = \"/dev/watchdog0\" or chip = { enable = 5, pulse = 6 }");
            // All keys are known, whatever is meant.
            for key in ["timeout", "pretimeout", "period", "width"] {
                section.field(key);
            }
            None
        }
    };
    section.finish();
    found
}

fn of_device(device: &Field<'_>, section: &Section<'_>) -> Option<WatchdogConfig> {
    not_of(section, ["period", "width"], "a chip");
    let timeout = section.field("timeout");
    if timeout.is_none() {
        section.error("timeout", "missing, expected a duration such as \"15s\"");
    }
    let timeout = timeout.and_then(|field| seconds(&field, Duration::from_secs(1)))?;
    let field = section.field("pretimeout");
    let pretimeout = field.as_ref().and_then(|field| seconds(field, Duration::from_secs(1)));
    if let (Some(field), Some(pretimeout)) = (&field, pretimeout)
        && pretimeout >= timeout
    {
        field.error("not shorter than timeout");
    }
    if device.is_text("sim") {
        if let Some(field) = field {
            field.error("a simulated watchdog has none");
        }
        return Some(WatchdogConfig::Sim { timeout });
    }
    Some(WatchdogConfig::Device { path: absolute_path(device)?, timeout, pretimeout })
}

fn of_chip(chip: &Field<'_>, section: &Section<'_>) -> Option<WatchdogConfig> {
    not_of(section, ["timeout", "pretimeout"], "a device");
    let ms = Duration::from_millis;
    let period = section.duration("period", ms(5)..=Duration::from_secs(60), ms(80));
    let width = section.duration("width", ms(1)..=Duration::from_secs(60), ms(10));
    if width >= period {
        section.error("width", "not shorter than period");
    }
    let Some(lines) = chip.as_section() else {
        chip.error("expected the numbers of two native lines: { enable = 5, pulse = 6 }");
        return None;
    };
    let number = |key| {
        let field = lines.field(key);
        if field.is_none() {
            lines.error(key, "missing, expected the number of a native line");
        }
        field.and_then(|field| field.integer(0..=1023))
    };
    let (enable, pulse): (Option<u32>, Option<u32>) = (number("enable"), number("pulse"));
    lines.finish();
    let (enable, pulse) = (enable?, pulse?);
    if enable == pulse {
        chip.error(format!("enable and pulse are both gpio {enable}; the chip needs two lines"));
    }
    Some(WatchdogConfig::Chip { enable, pulse, period, width })
}

/// Keys that only the other kind of watchdog has.
fn not_of<const N: usize>(section: &Section<'_>, keys: [&'static str; N], what: &str) {
    for field in keys.into_iter().filter_map(|key| section.field(key)) {
        field.error(format!("only {what} has this"));
    }
}

/// The kernel counts in whole seconds.
fn seconds(field: &Field<'_>, least: Duration) -> Option<Duration> {
    let duration = field.duration(least..=DAY)?;
    if duration.subsec_nanos() != 0 {
        field.error("watchdog devices count whole seconds");
        return None;
    }
    Some(duration)
}

/// What two watchdogs cannot both have.
fn clash(one: &WatchdogConfig, other: &WatchdogConfig) -> Option<String> {
    use WatchdogConfig::{Chip, Device, Sim};
    match (one, other) {
        (Device { path: a, .. }, Device { path: b, .. }) if a == b => {
            Some(format!("{} is in another [[watchdog]], too", a.display()))
        }
        (Sim { .. }, Sim { .. }) => Some("one simulated watchdog is enough".to_owned()),
        (Chip { .. }, Chip { .. }) => Some("one watchdog chip is possible".to_owned()),
        _ => None,
    }
}

/// `[escalation]`
pub(super) fn escalation(section: Section<'_>) -> EscalationConfig {
    let default = EscalationConfig::default();
    let times = Duration::from_secs(1)..=DAY;
    let reboot = section.field("reboot_after");
    let escalation = EscalationConfig {
        restart_all_after: section.field("restart_all_after").and_then(|field| field.duration(times.clone())),
        reboot_after: reboot.as_ref().and_then(|field| field.duration(times)),
        reboots_per_hour: section.integer("reboots_per_hour", 1..=60, default.reboots_per_hour),
    };
    if let (Some(all), Some(after), Some(field)) = (escalation.restart_all_after, escalation.reboot_after, reboot)
        && after <= all
    {
        field.error("not longer than restart_all_after, so that would never be tried alone");
    }
    section.finish();
    escalation
}

/// Compares the lines of watchdog chips with those of `hardware.toml`.
pub(super) fn compare(watchdogs: &[WatchdogConfig], hardware: &HardwareConfig, at: &Positions) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for (i, watchdog) in watchdogs.iter().enumerate() {
        let WatchdogConfig::Chip { enable, pulse, .. } = watchdog else { continue };
        for (key, number) in [("enable", enable), ("pulse", pulse)] {
            let taken = hardware.lines.iter().find(|line| line.source == LineSource::Gpio(*number));
            if let Some(line) = taken {
                let message = format!("gpio {number} is the line {} of hardware.toml, too", quote(&line.name));
                let key = format!("watchdog[{i}].chip.{key}");
                findings.push(at.finding(Severity::Error, None, &key, message));
            }
        }
    }
    findings
}

/// Most entries of `[[watchdog]]`.
pub const MOST_WATCHDOGS: usize = 8;
