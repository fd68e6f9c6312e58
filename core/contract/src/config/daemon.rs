//! The daemon's own configuration: the content of `multusd.toml`, checked and with defaults filled in.
//!
//! `docs/example-multusd.toml` shows every key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::child::Defaults;
use super::read_child::{self, DAY, FILE_SIZES};
use super::source::{Outcome, Section, Source};
use super::watchdog::{self, EscalationConfig, WatchdogConfig};

/// The daemon's own configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DaemonConfig {
    /// The name of the plant, for people; at most 200 bytes.
    pub site: Option<String>,
    /// Group whose members may use the control socket beside root and the daemon's user.
    pub control_group: Option<String>,
    /// Room for so many child instances, 1 to 10 000; `None`: room for those configured at start and some more.
    pub max_children: Option<u16>,
    /// The rights of the watch loop.
    pub realtime: RealtimeConfig,
    /// How many children start at a time.
    pub starts: StartsConfig,
    /// Whether the children run depends on a temperature.
    pub temperature: TemperatureConfig,
    /// The daemon's own log.
    pub log: LogConfig,
    /// The files that keep events.
    pub events: EventsConfig,
    /// How the machine is started anew.
    pub reboot: RebootConfig,
    /// Who drives the outputs, and how it is watched.
    pub io: IoConfig,
    /// What resets the machine when the watch loop stands still, or a critical child stays out of order; at most 8.
    pub watchdogs: Vec<WatchdogConfig>,
    /// What is done when restarting a critical child is not enough.
    pub escalation: EscalationConfig,
    /// What remains of the original multusd's interfaces.
    pub legacy: LegacyConfig,
    /// What children get that do not say otherwise.
    pub defaults: Defaults,
}

/// How the machine is started anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebootConfig {
    /// Runs when all children are stopped. Never empty.
    pub command: Vec<String>,
}

impl Default for RebootConfig {
    fn default() -> Self {
        Self { command: ["systemctl", "reboot"].map(str::to_owned).to_vec() }
    }
}

/// Who drives the outputs of `hardware.toml`, and how it is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoConfig {
    /// The child that runs multus-io.
    pub child: String,
    /// Forced outputs must have their values so soon, 1 ms to 1 s; else multus-io is killed and multusd writes itself.
    pub ack: Duration,
}

impl Default for IoConfig {
    fn default() -> Self {
        Self { child: "io".into(), ack: Duration::from_millis(5) }
    }
}

/// What remains of the original multusd's interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyConfig {
    /// The directory in which files ask for restarts, reloads and reboots; `None`: no file asks for anything.
    pub request_dir: Option<PathBuf>,
}

/// The rights of the watch loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealtimeConfig {
    /// Whether to ask for SCHED_FIFO.
    pub enabled: bool,
    /// Its priority, 2 to 98.
    pub priority: u8,
    /// Whether to lock the daemon's memory.
    pub lock_memory: bool,
    /// Processors the loop may run on; empty: all.
    pub cpus: Vec<u16>,
}

impl Default for RealtimeConfig {
    fn default() -> Self {
        Self { enabled: true, priority: 50, lock_memory: true, cpus: Vec::new() }
    }
}

/// How many children start at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartsConfig {
    /// Children that are starting (not yet ready) at a time, 1 to 1000.
    pub simultaneous: u16,
    /// Restart delays are lengthened by up to this part at random, 0 to 100 %.
    pub jitter_percent: u8,
}

impl Default for StartsConfig {
    fn default() -> Self {
        Self { simultaneous: 8, jitter_percent: 10 }
    }
}

/// Whether the children run depends on a temperature. What cannot be read counts as too hot.
#[derive(Clone, Debug, PartialEq)]
pub struct TemperatureConfig {
    /// Whether it does.
    pub enabled: bool,
    /// Holds thousandths of a degree Celsius, as the kernel's thermal zones do.
    pub file: PathBuf,
    /// Below this the children are stopped, -273 to 1000 °C.
    pub min_c: f64,
    /// Above this the children are stopped; more than `min_c`.
    pub max_c: f64,
    /// The children start again when the temperature is inside by this much, 0 to less than half the range.
    pub hysteresis_c: f64,
    /// How often it is read, 100 ms to 1 day.
    pub interval: Duration,
}

impl Default for TemperatureConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            file: "/sys/class/thermal/thermal_zone0/temp".into(),
            min_c: 0.0,
            max_c: 80.0,
            hysteresis_c: 5.0,
            interval: Duration::from_secs(5),
        }
    }
}

/// The daemon's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// What is written.
    pub level: LogLevel,
    /// A file that has grown to this many bytes is put aside, 4 KiB to 1 GiB.
    pub max_size: u64,
    /// Files kept, the current one included, 1 to 100.
    pub files: u16,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: LogLevel::Info, max_size: 1 << 20, files: 5 }
    }
}

/// How much is written into a log; each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// The word in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The files that keep events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsConfig {
    /// A file that has grown to this many bytes is put aside, 4 KiB to 1 GiB.
    pub max_size: u64,
    /// Files kept, the current one included, 1 to 100.
    pub files: u16,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { max_size: 1 << 20, files: 5 }
    }
}

/// Reads `multusd.toml`; after errors the result holds what was good, and defaults.
pub(crate) fn read(text: &str, shown: &Path) -> (DaemonConfig, Outcome) {
    let source = Source::new(None, shown, text);
    let config = source.document().map(|document| {
        let root = Section::root(&source, &document);
        let config = read_root(&root);
        root.finish();
        config
    });
    (config.unwrap_or_default(), source.finish())
}

fn read_root(root: &Section<'_>) -> DaemonConfig {
    DaemonConfig {
        site: root.text("site"),
        control_group: root.text("control_group"),
        max_children: root.field("max_children").and_then(|field| field.integer(1..=10_000)),
        realtime: realtime(root.section("realtime")),
        starts: starts(root.section("starts")),
        temperature: temperature(root.section("temperature")),
        log: log(root.section("log")),
        events: events(root.section("events")),
        reboot: reboot(root.section("reboot")),
        io: io(root.section("io")),
        watchdogs: watchdog::watchdogs(root),
        escalation: watchdog::escalation(root.section("escalation")),
        legacy: legacy(root.section("legacy")),
        defaults: defaults(root.section("defaults")),
    }
}

fn realtime(section: Section<'_>) -> RealtimeConfig {
    let default = RealtimeConfig::default();
    let realtime = RealtimeConfig {
        enabled: section.boolean("enabled", default.enabled),
        priority: section.integer("priority", 2..=98, default.priority),
        lock_memory: section.boolean("lock_memory", default.lock_memory),
        cpus: section.field("cpus").map_or_else(Vec::new, |field| read_child::cpus(&field)),
    };
    section.finish();
    realtime
}

fn starts(section: Section<'_>) -> StartsConfig {
    let default = StartsConfig::default();
    let starts = StartsConfig {
        simultaneous: section.integer("simultaneous", 1..=1000, default.simultaneous),
        jitter_percent: section.integer("jitter_percent", 0..=100, default.jitter_percent),
    };
    section.finish();
    starts
}

fn temperature(section: Section<'_>) -> TemperatureConfig {
    let default = TemperatureConfig::default();
    let file = section.field("file").and_then(|field| read_child::absolute_path(&field));
    let temperature = TemperatureConfig {
        enabled: section.boolean("enabled", default.enabled),
        file: file.unwrap_or(default.file),
        min_c: section.number("min_c", -273.0..=1000.0, default.min_c),
        max_c: section.number("max_c", -273.0..=1000.0, default.max_c),
        hysteresis_c: section.number("hysteresis_c", 0.0..=1000.0, default.hysteresis_c),
        interval: section.duration("interval", Duration::from_millis(100)..=DAY, default.interval),
    };
    let TemperatureConfig { min_c, max_c, hysteresis_c, .. } = temperature;
    if min_c >= max_c {
        section.error("max_c", format!("{max_c} is not above min_c, which is {min_c}"));
    } else if hysteresis_c * 2.0 >= max_c - min_c {
        section.error("hysteresis_c", format!("{hysteresis_c} leaves no room between min_c {min_c} and max_c {max_c}"));
    }
    section.finish();
    temperature
}

fn log(section: Section<'_>) -> LogConfig {
    let default = LogConfig::default();
    let words = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    let log = LogConfig {
        level: section.word("level", &words.map(|level| (level.as_str(), level)), default.level),
        max_size: section.size("max_size", FILE_SIZES, default.max_size),
        files: section.integer("files", 1..=100, default.files),
    };
    section.finish();
    log
}

fn events(section: Section<'_>) -> EventsConfig {
    let default = EventsConfig::default();
    let events = EventsConfig {
        max_size: section.size("max_size", FILE_SIZES, default.max_size),
        files: section.integer("files", 1..=100, default.files),
    };
    section.finish();
    events
}

fn reboot(section: Section<'_>) -> RebootConfig {
    let reboot = RebootConfig { command: section.command("command").unwrap_or(RebootConfig::default().command) };
    section.finish();
    reboot
}

fn io(section: Section<'_>) -> IoConfig {
    let default = IoConfig::default();
    let io = IoConfig {
        child: section.text("child").unwrap_or(default.child),
        ack: section.duration("ack", Duration::from_millis(1)..=Duration::from_secs(1), default.ack),
    };
    section.finish();
    io
}

fn legacy(section: Section<'_>) -> LegacyConfig {
    let request_dir = section.field("request_dir").and_then(|field| read_child::absolute_path(&field));
    section.finish();
    LegacyConfig { request_dir }
}

fn defaults(section: Section<'_>) -> Defaults {
    let builtin = Defaults::default();
    let (restart, degraded_after) = read_child::restart(section.section("restart"), &builtin.restart, None);
    let defaults = Defaults {
        heartbeat: read_child::heartbeat(section.section("heartbeat"), &builtin.heartbeat),
        restart,
        degraded_after,
        stop: read_child::stop(section.section("stop"), builtin.stop),
        log: read_child::log(section.section("log"), builtin.log),
    };
    section.finish();
    defaults
}
