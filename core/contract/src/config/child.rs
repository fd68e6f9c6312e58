//! How one child is run and supervised: the content of `children/<name>.toml`, checked and with defaults filled in.
//!
//! The same types hold what `[defaults]` in `multusd.toml` gives to every child. `docs/example-child.toml` shows every key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One child, all its instances.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildConfig {
    /// The stem of the file name: 1 to 47 of `a-z A-Z 0-9 - _ .`.
    pub name: String,
    /// The file it was read from.
    pub file: PathBuf,
    /// One line for people; may be empty.
    pub description: String,
    /// Program and arguments; empty only with `service`. See [`super::find_program`] for where the program is searched.
    pub command: Vec<String>,
    /// The file in which the program, which leaves its start command behind, writes its process id: a path with
    /// `{instance}` and `{name}` in it, relative to the working directory.
    pub pid_file: Option<String>,
    /// In place of `command`: scripts for a service whose processes are somebody else's.
    pub service: Option<ServiceConfig>,
    /// Whether it is to run at all.
    pub enabled: bool,
    /// `Some` for a child without which the machine is of no use: how long an instance may be out of order before the
    /// watchdogs are no longer petted, 1 s to 1 d.
    pub critical: Option<Duration>,
    /// How many processes run it, 1 to 256. With more than one they are called `name_0`, `name_1`, ...
    pub instances: u16,
    /// User to run as; `None`: the daemon's.
    pub user: Option<String>,
    /// Main group; `None`: that of `user`, or the daemon's.
    pub group: Option<String>,
    /// Further groups.
    pub groups: Vec<String>,
    /// Absolute; `None`: the root directory.
    pub working_dir: Option<PathBuf>,
    /// Variables beside those that multusd sets itself.
    pub environment: BTreeMap<String, String>,
    /// File mode mask, 0 to 0o777; `None`: the daemon's.
    pub umask: Option<u32>,
    /// Whether the process may never gain rights by executing a set-user-id program.
    pub no_new_privileges: bool,
    /// Children it needs, at most 16.
    pub after: Vec<After>,
    /// How it shows that it is alive.
    pub heartbeat: HeartbeatConfig,
    /// Its checkpoints, one entry for each lane that has some.
    pub supervision: Vec<SupervisionConfig>,
    /// How it comes back after a fault.
    pub restart: RestartConfig,
    /// How it is asked to end.
    pub stop: StopConfig,
    /// What is done to keep the plant safe while it does not run.
    pub safe_state: SafeStateConfig,
    /// How the kernel shares processors out to it.
    pub schedule: ScheduleConfig,
    /// What it may use at most.
    pub limits: LimitsConfig,
    /// What asks from time to time whether it still does its work.
    pub check: Option<CheckConfig>,
    /// Commands that run at turns of its life.
    pub hooks: HooksConfig,
    /// The file that takes its stdout and stderr.
    pub log: ChildLogConfig,
}

impl ChildConfig {
    /// The name of instance `n`: the child's own name if there is only one, else `name_n`.
    pub fn instance_name(&self, n: u16) -> String {
        if self.instances == 1 { self.name.clone() } else { format!("{}_{n}", self.name) }
    }

    /// The names of all instances.
    pub fn instance_names(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.instances).map(|n| self.instance_name(n))
    }

    /// The control port of instance `n`, if that is how it beats.
    pub fn control_port(&self, n: u16) -> Option<u16> {
        self.heartbeat.port?.checked_add(n)
    }

    /// The file that instance `n` touches, if that is how it beats.
    pub fn beat_file(&self, n: u16) -> Option<PathBuf> {
        Some(self.file_of(n, self.heartbeat.path.as_ref()?))
    }

    /// The file in which instance `n` writes its process id, if it does.
    pub fn pid_file(&self, n: u16) -> Option<PathBuf> {
        Some(self.file_of(n, self.pid_file.as_ref()?))
    }

    fn file_of(&self, n: u16, path: &str) -> PathBuf {
        let path = path.replace("{instance}", &n.to_string()).replace("{name}", &self.instance_name(n));
        self.working_dir.as_deref().unwrap_or(Path::new("/")).join(path)
    }
}

/// A child that must be ready first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// The name of the child (all its instances). A file of this name exists; it may be among the broken ones.
    pub name: String,
    /// What happens here when that one is restarted.
    pub on_restart: EdgePolicy,
}

/// What happens to a dependant when the child it needs goes down and comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EdgePolicy {
    /// It is restarted, too.
    Restart,
    /// It runs on; only its own next start waits.
    #[default]
    Wait,
    /// It runs on, and even its own next start does not wait: only the first start is ordered.
    Ignore,
}

/// How a child shows that it is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// By which means.
    pub method: Method,
    /// Longest time from beat to beat, 1 ms to 1 day.
    pub deadline: Duration,
    /// Longest time from the start of the process to its first beat, 1 ms to 1 day.
    pub startup: Duration,
    /// Beats that come faster than this on average are a fault; shorter than `deadline`; `None`: any pace is fine.
    pub min_interval: Option<Duration>,
    /// Silence of this length, below the deadline, is told and looked into, but nobody is killed.
    pub warn_after: Option<Duration>,
    /// The port of the first instance, which connects to it on localhost; instance n uses the n-th after it. There for
    /// [`Method::ControlPort`] only.
    pub port: Option<u16>,
    /// The file that is touched: a path with `{instance}` and `{name}` in it, relative to the working directory. There for
    /// [`Method::File`] only.
    pub path: Option<String>,
    /// Which kind of socket takes the notices. Counts for [`Method::Notify`] only.
    pub notify_socket: NotifySocket,
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self {
            method: Method::SharedMemory,
            deadline: Duration::from_secs(1),
            startup: Duration::from_secs(30),
            min_interval: None,
            warn_after: None,
            port: None,
            path: None,
            notify_socket: NotifySocket::Path,
        }
    }
}

/// Which kind of socket takes the notices of sd_notify(3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotifySocket {
    /// One in the file system.
    #[default]
    Path,
    /// One without a file, for a child that does not see the runtime directory.
    Abstract,
}

/// Scripts for a service whose processes are somebody else's, such as one of systemd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Starts it; exit code 0 means started. Never empty.
    pub start: Vec<String>,
    /// Stops it. Never empty.
    pub stop: Vec<String>,
    /// Exit code 0 means that it runs. Never empty.
    pub status: Vec<String>,
    /// From the end of one run of `status` to the start of the next, 1 s to 1 day.
    pub interval: Duration,
    /// Then a run of `status` is killed and counts as no, 1 ms to 1 h.
    pub timeout: Duration,
}

/// The checkpoints of one lane: in which order and within which times they are passed. `[[supervision]]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SupervisionConfig {
    /// The lane; empty: that of the main loop.
    pub lane: String,
    /// All its checkpoints, 1 to 16 in all lanes together.
    pub checkpoints: Vec<String>,
    /// Those that may be the first; empty when the order is not supervised.
    pub start: Vec<String>,
    /// Which may follow which.
    pub next: BTreeMap<String, Vec<String>>,
    /// Times from one to another, at most 16 in all lanes together.
    pub deadlines: Vec<CheckpointDeadline>,
}

/// How long it may take from one checkpoint to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointDeadline {
    /// The first.
    pub from: String,
    /// The last; may be the same: then it is the time of a whole round.
    pub to: String,
    /// Shortest time, 0 to 1 day.
    pub min: Duration,
    /// Longest time, 1 ms to 1 day; `None`: any.
    pub max: Option<Duration>,
}

/// The deadline of a child that says when it is ready (`method = "notify"`) and need not beat.
pub const NO_DEADLINE: Duration = Duration::MAX;

/// By which means a child shows that it is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// It beats in its page of the heartbeat table.
    SharedMemory,
    /// It says so with sd_notify(3): `READY=1`, `WATCHDOG=1`.
    Notify,
    /// It connects to a port on localhost and sends one byte for each beat: 1, 2, ... 9, 1, ...
    ControlPort,
    /// It touches a file.
    File,
    /// It does not: only the end of its process and its check command are watched.
    None,
}

impl Method {
    /// The word in files and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SharedMemory => "shared-memory",
            Self::Notify => "notify",
            Self::ControlPort => "control-port",
            Self::File => "file",
            Self::None => "none",
        }
    }
}

/// How a child comes back after a fault. It always does, for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartConfig {
    /// Waits before the first, second, ... restart, 1 to 16 of them, each up to 1 day; the last repeats.
    pub delays: Vec<Duration>,
    /// After running this long without a fault the list begins anew, 1 s to 366 days.
    pub forget_after: Duration,
    /// After this many restarts in a row it is called degraded, 1 to 1000.
    pub degraded_after: u16,
    /// Longest time that collecting evidence may hold up the kill, 0 to 1 s.
    pub evidence_budget: Duration,
}

impl Default for RestartConfig {
    fn default() -> Self {
        Self {
            delays: [0, 1, 3, 20, 60].map(Duration::from_secs).to_vec(),
            forget_after: Duration::from_secs(30 * 60),
            degraded_after: 5,
            evidence_budget: Duration::from_millis(20),
        }
    }
}

/// How a child is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopConfig {
    /// Number of the signal; see [`super::signal_name`].
    pub signal: i32,
    /// Then it is killed, 0 to 1 h.
    pub timeout: Duration,
}

impl Default for StopConfig {
    fn default() -> Self {
        Self { signal: 15, timeout: Duration::from_secs(2) }
    }
}

/// What is done to keep the plant safe while a child does not run.
#[derive(Clone, Debug, PartialEq)]
pub struct SafeStateConfig {
    /// Outputs and the values they are forced to.
    pub outputs: BTreeMap<String, OutputValue>,
    /// Runs after a fault, when the process is gone; never empty.
    pub command: Option<Vec<String>>,
    /// Then that command is killed, 1 ms to 1 h.
    pub timeout: Duration,
    /// What holds for `outputs` while the child is snoozed and does not beat.
    pub while_snoozed: SnoozeOutputs,
}

impl Default for SafeStateConfig {
    fn default() -> Self {
        Self {
            outputs: BTreeMap::new(),
            command: None,
            timeout: Duration::from_secs(2),
            while_snoozed: SnoozeOutputs::Force,
        }
    }
}

/// The value of an output: 0 is off, 1 is on, analog outputs use the whole range. Always finite.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct OutputValue(pub f64);

/// What holds for the safe outputs of a child that is snoozed and faulty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnoozeOutputs {
    /// They are forced as ever.
    Force,
    /// They stay as they are: somebody works on the plant and knows it.
    Keep,
}

/// How the kernel shares processors out to a child.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScheduleConfig {
    /// The policy of sched(7).
    pub policy: Policy,
    /// Real-time priority, 1 to 97 for `fifo` and `rr`, else 0.
    pub priority: u8,
    /// -20 (most) to 19 (least); counts for `other` and `batch`.
    pub nice: i8,
    /// Processors it may run on; empty: all.
    pub cpus: Vec<u16>,
}

/// A scheduling policy of sched(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The ordinary one.
    #[default]
    Other,
    /// For work that nobody waits for.
    Batch,
    /// Only when nothing else wants to run.
    Idle,
    /// Real time, first in, first out.
    Fifo,
    /// Real time, taking turns.
    RoundRobin,
}

impl Policy {
    /// Whether it has a real-time priority.
    pub const fn is_realtime(self) -> bool {
        matches!(self, Self::Fifo | Self::RoundRobin)
    }

    /// The word in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Batch => "batch",
            Self::Idle => "idle",
            Self::Fifo => "fifo",
            Self::RoundRobin => "rr",
        }
    }
}

/// What a child may use at most; `None`: what the daemon may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// File descriptors.
    pub open_files: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Size of a core file in bytes; 0: none is written.
    pub core: Option<u64>,
}

/// What asks from time to time whether a child still does its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckConfig {
    /// What is done to find out.
    pub probe: Probe,
    /// From the end of one run to the start of the next, 100 ms to 1 day.
    pub interval: Duration,
    /// A run that takes longer is killed and counts as no, 1 ms to 1 h.
    pub timeout: Duration,
    /// So many times no in a row are a fault, 1 to 1000.
    pub failures: u16,
    /// From ready to the first run, on top of `interval`, 0 to 1 day.
    pub start_period: Duration,
}

/// What is done to find out whether a child still does its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A command, never empty; exit code 0 means yes.
    Command(Vec<String>),
    /// Host and port that must accept a connection.
    Tcp(Endpoint),
    /// A page that must be served.
    Http {
        /// Who serves it.
        server: Endpoint,
        /// From the slash on, with the query.
        target: String,
        /// The status that means yes; `None`: any from 200 to 299.
        status: Option<u16>,
    },
    /// A file that must have been changed not longer ago than this.
    File {
        /// Absolute.
        path: PathBuf,
        /// 1 ms to 366 days.
        max_age: Duration,
    },
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address; of IPv6 without the brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl Endpoint {
    /// Reads `host:port`; with a `default_port`, the port may be left out. An IPv6 address stands in brackets.
    ///
    /// # Errors
    /// What is wrong, as a phrase.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, String> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(inner) => inner.split_once(']').ok_or("the bracket is not closed")?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match (rest, default_port) {
            ("", Some(port)) => port,
            ("", None) => return Err("the port is missing".into()),
            _ => {
                let digits = rest.strip_prefix(':').filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
                digits.and_then(|d| d.parse().ok()).filter(|p| *p > 0).ok_or("the port is no number from 1 to 65535")?
            }
        };
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || host.len() > 253 || !host.chars().all(good) {
            return Err("the host is no name and no address".into());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

/// Commands that run at turns of a child's life. Each gets `MULTUS_NAME` and `MULTUS_INSTANCE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HooksConfig {
    /// When the child is ready.
    pub after_start: Option<Vec<String>>,
    /// When its process is gone, for whatever reason.
    pub after_stop: Option<Vec<String>>,
    /// When the daemon ends in order, after all children are gone.
    pub on_daemon_exit: Option<Vec<String>>,
    /// From time to time while the child runs.
    pub periodic: Option<PeriodicConfig>,
    /// Then a hook is killed, 1 ms to 1 h.
    pub timeout: Duration,
}

impl Default for HooksConfig {
    fn default() -> Self {
        Self {
            after_start: None,
            after_stop: None,
            on_daemon_exit: None,
            periodic: None,
            timeout: Duration::from_secs(10),
        }
    }
}

/// A command that runs from time to time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeriodicConfig {
    /// Never empty.
    pub command: Vec<String>,
    /// From the end of one run to the start of the next, 100 ms to 366 days.
    pub interval: Duration,
}

/// The file that takes the stdout and stderr of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildLogConfig {
    /// A file that has grown to this many bytes is put aside, 4 KiB to 1 GiB.
    pub max_size: u64,
    /// Files kept, the current one included, 1 to 100.
    pub files: u16,
    /// Lines beyond this many in one second are counted, not written, 1 to 1 000 000.
    pub lines_per_second: u32,
}

impl Default for ChildLogConfig {
    fn default() -> Self {
        Self { max_size: 1 << 20, files: 5, lines_per_second: 1000 }
    }
}

/// What `[defaults]` in `multusd.toml` gives to every child that does not say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// `[defaults.heartbeat]`
    pub heartbeat: HeartbeatConfig,
    /// `[defaults.restart]`
    pub restart: RestartConfig,
    /// `degraded_after` in there, if it was written; otherwise it follows the number of delays.
    pub degraded_after: Option<u16>,
    /// `[defaults.stop]`
    pub stop: StopConfig,
    /// `[defaults.log]`
    pub log: ChildLogConfig,
}

/// What is wrong with `name` as the name of a child or of one of its instances; `None` for a good one.
///
/// Good names have 1 to [`LONGEST_NAME`] of `a-z A-Z 0-9 - _ .`, the first no dot and no hyphen, so that they can be file
/// names, cgroup names and command line arguments.
pub fn name_fault(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() {
        return Some("an empty name".to_owned());
    }
    if let Some(bad) = name.chars().find(|c| !allowed(*c)) {
        return Some(format!(
            "the name {} contains {}, expected letters a-z A-Z, digits, '-', '_' and '.'",
            super::units::quote(name),
            super::units::quote(bad.encode_utf8(&mut [0; 4])),
        ));
    }
    if name.starts_with(['.', '-']) {
        return Some(format!("the name {} starts with a dot or a hyphen", super::units::quote(name)));
    }
    if name == "multusd" {
        return Some("the name \"multusd\" is that of the daemon and its log".to_owned());
    }
    if name.len() > LONGEST_NAME {
        return Some(format!(
            "the name {} has {} bytes, at most {LONGEST_NAME} are allowed",
            super::units::quote(name),
            name.len()
        ));
    }
    None
}

/// Bytes in the longest name of an instance: with its end mark it fits the 48 bytes of the status page.
pub const LONGEST_NAME: usize = 47;
/// Most entries in `after`, with every instance of a named child counted.
pub const MOST_AFTER: usize = 16;
/// Most entries in `restart.delays`.
pub const MOST_DELAYS: usize = 16;
/// Most instances of one child.
pub const MOST_INSTANCES: u16 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_and_written() {
        for text in ["127.0.0.1:1883", "[::1]:80", "gate-way.local:65535"] {
            assert_eq!(Endpoint::parse(text, None).map(|e| e.to_string()).as_deref(), Ok(text));
        }
        assert_eq!(Endpoint::parse("box", Some(80)), Ok(Endpoint { host: "box".into(), port: 80 }));
        for text in ["", ":80", "a", "a:", "a:0", "a:65536", "a:+1", "a:1:2", "::1:80", "[::1:80", "[::1]80", "a b:1"] {
            assert!(Endpoint::parse(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_checked() {
        for good in ["io", "ovpn-client_1", "a.b", "_x", "0"] {
            assert_eq!(name_fault(good), None);
        }
        let long = "x".repeat(LONGEST_NAME + 1);
        for bad in ["", "a b", "ä", "a/b", ".hidden", "-x", &long, "a\nb"] {
            assert!(name_fault(bad).is_some(), "{bad}");
        }
    }
}
