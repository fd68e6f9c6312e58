//! What the launcher needs to make a process, worked out once from the configuration: everything that may take time or
//! fail (users, programs, paths) is settled before it matters.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use multus_contract::config::{ChildConfig, Method, NO_DEADLINE, NotifySocket, Probe};
use multus_contract::dirs::Dirs;
use multus_ipc::io_child::{ENV_FORCE_FD, ENV_IMAGE_FD, ENV_OUTPUTS_FD, ENV_REQUEST_FD, ENV_REQUESTS_FD};
use multus_supervisor::Job;
use serde::{Deserialize, Serialize};

use crate::probe;
use crate::stage::{self, Script, Stage};

/// The first of the descriptors that a child is given, in the order of [`SlotPlan::given`].
pub const FIRST_GIVEN_FD: i32 = 3;

/// A descriptor that a child is given. Its number is in an environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// Its heartbeat page.
    Heartbeat,
    /// The process image, for reading.
    Image,
    /// Where it asks for values of its outputs: a page of its own for each process.
    RequestPage,
    /// For multus-io: the process image, for writing.
    ImageToWrite,
    /// For multus-io: the force page, for reading.
    ForcePage,
    /// For multus-io: the socket over which request pages come.
    RequestSocket,
    /// For multus-io: the native outputs, which the guard has opened.
    Outputs,
}

impl Given {
    /// The variable.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Heartbeat => "MULTUS_HEARTBEAT_FD",
            Self::Image | Self::ImageToWrite => ENV_IMAGE_FD,
            Self::RequestPage => ENV_REQUEST_FD,
            Self::ForcePage => ENV_FORCE_FD,
            Self::RequestSocket => ENV_REQUESTS_FD,
            Self::Outputs => ENV_OUTPUTS_FD,
        }
    }
}

/// What an instance has to do with inputs and outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoRole {
    /// There are none.
    None,
    /// It may look at them.
    Reads,
    /// It also owns outputs.
    Owns,
    /// It is multus-io.
    Scans,
}

/// What the child is given.
fn given(child: &ChildConfig, role: IoRole) -> Vec<Given> {
    let heartbeat = child.heartbeat.method == Method::SharedMemory;
    // What goes to the background, or belongs to somebody else, would not know.
    let lines: &[Given] = match role {
        _ if child.service.is_some() || child.pid_file.is_some() => &[],
        IoRole::None => &[],
        IoRole::Reads => &[Given::Image],
        IoRole::Owns => &[Given::Image, Given::RequestPage],
        IoRole::Scans => &[Given::ImageToWrite, Given::ForcePage, Given::RequestSocket, Given::Outputs],
    };
    heartbeat.then_some(Given::Heartbeat).into_iter().chain(lines.iter().copied()).collect()
}

/// A program to be executed, as it is sent to the spawner.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// Paths to try, first match wins.
    pub paths: Vec<PathBuf>,
    /// Arguments, the name first.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: Vec<String>,
    /// Where it starts.
    pub working_dir: PathBuf,
    /// Permission bits that new files do not get.
    pub umask: Option<u32>,
    /// User, group and further groups; `None`: those of the daemon.
    pub identity: Option<Identity>,
    /// A user or group that does not exist.
    pub unknown_identity: Option<String>,
    /// Whether set-user-id programs lose their power.
    pub no_new_privileges: bool,
    /// Scheduling policy (number of the kernel), priority, nice value.
    pub schedule: (i32, u8, i8),
    /// Processors it may run on; empty: all.
    pub cpus: Vec<u16>,
    /// Resource limits: number of the kernel, value (soft and hard).
    pub limits: Vec<(u32, u64)>,
    /// cgroup.procs files of version 1 that it must join before it is executed.
    pub join: Vec<PathBuf>,
    /// It is a stage: the pipe for a failed start stays open for it.
    pub is_stage: bool,
}

/// Who a process is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// The step at which a start failed. The numbers are part of the event interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Own session, descriptors.
    Session = 1,
    /// Joining the cgroup.
    Cgroup = 2,
    /// Resource limits.
    Limits = 3,
    /// Scheduling policy, priority, processors.
    Schedule = 4,
    /// User and groups.
    Identity = 5,
    /// Changing to the working directory.
    WorkingDir = 6,
    /// Executing: missing, no permission, not a program.
    Execute = 7,
    /// The file is there, but the interpreter it names is not.
    Interpreter = 8,
    /// There is no PID file, or an empty one, and the time for the start is over.
    PidFileMissing = 9,
    /// The PID file holds something else than a process id.
    PidFileText = 10,
    /// It names a process that is none of this child; in place of the error number: which.
    PidFileForeign = 11,
    /// The start command of a program with a PID file does not end.
    Foreground = 12,
    /// A start command or script ended with this exit code (in place of the error number): told as a crash.
    StartEnded = 13,
    /// It was killed by this signal: told as a crash.
    StartKilled = 14,
}

impl Step {
    /// The step of a number.
    pub fn from_code(code: u64) -> Option<Self> {
        use Step::{
            Cgroup, Execute, Foreground, Identity, Interpreter, Limits, PidFileForeign, PidFileMissing, PidFileText,
            Schedule, Session, StartEnded, StartKilled, WorkingDir,
        };
        let ways = [Session, Cgroup, Limits, Schedule, Identity, WorkingDir, Execute, Interpreter];
        let stages = [PidFileMissing, PidFileText, PidFileForeign, Foreground, StartEnded, StartKilled];
        ways.into_iter().chain(stages).find(|s| *s as u64 == code)
    }
}

/// A command of a child that is not its main program.
#[derive(Clone, Debug, PartialEq)]
pub struct JobPlan {
    /// The program, encoded for the spawner.
    pub program: Vec<u8>,
    /// How long it may run.
    pub timeout: Duration,
}

/// Where the adapters thread learns that a child is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feed {
    /// A datagram socket for sd_notify(3).
    Notify(NotifyAddress),
    /// This TCP port on localhost.
    ControlPort(u16),
    /// A change of this file, which is looked for so often.
    File(PathBuf, Duration),
}

/// Where the notify socket of an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotifyAddress {
    /// In the file system.
    Path(PathBuf),
    /// In the abstract namespace.
    Abstract(String),
}

impl fmt::Display for NotifyAddress {
    /// As in `NOTIFY_SOCKET`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

/// Everything about one slot that the launcher needs.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotPlan {
    /// Name of the instance.
    pub name: String,
    /// The main program, encoded for the spawner.
    pub program: Vec<u8>,
    /// Whether it has a heartbeat page, and with which deadline in ns.
    pub heartbeat: Option<u64>,
    /// The descriptors that the main program is given.
    pub given: Vec<Given>,
    /// The checkpoints that are laid out in that page.
    pub checkpoints: multus_ipc::checkpoint::Plan,
    /// Where the adapters thread, which then writes that page, learns of beats; `None`: the child writes it itself.
    pub feed: Option<Feed>,
    /// What asks it to stop.
    pub stop_signal: i32,
    /// What is started is a stage, which finds the main process by itself.
    pub is_stage: bool,
    /// It runs its stop script itself when it is asked to stop: the job after the stop is for all other ways to end.
    pub stops_itself: bool,
    /// Its other commands, by number of the job.
    pub jobs: BTreeMap<u8, JobPlan>,
    /// What runs when the daemon ends.
    pub on_daemon_exit: Option<JobPlan>,
    /// Memory in bytes and number of processes, where a cgroup can hold them.
    pub cgroup_limits: (Option<u64>, Option<u64>),
}

/// Works out the plan of one instance. Blocks for user and group look-ups.
pub fn plan(child: &ChildConfig, instance: u16, dirs: &Dirs, limits_in_cgroup: bool, role: IoRole) -> SlotPlan {
    let name = child.instance_name(instance);
    let given = given(child, role);
    let main = main_program(child, instance, &name, dirs, limits_in_cgroup, &given);
    let job = |command: &Option<Vec<String>>, word: &str, timeout: Duration| {
        command.as_ref().map(|command| {
            let program = helper_program(&main, command, word, None);
            JobPlan { program: encode(&program), timeout }
        })
    };
    let mut jobs = BTreeMap::new();
    let hooks = &child.hooks;
    let mut add = |kind: Job, plan: Option<JobPlan>| {
        if let Some(plan) = plan {
            jobs.insert(kind as u8, plan);
        }
    };
    add(Job::SafeState, job(&child.safe_state.command, "safe-state", child.safe_state.timeout));
    // A stop script acts as the start script did, which is the main program.
    let stop_script = child.service.as_ref().map(|service| {
        let program = helper_program(&main, &service.stop, "stop", main.identity.clone());
        JobPlan { program: encode(&program), timeout: child.stop.timeout }
    });
    add(Job::AfterStop, stop_script.or_else(|| job(&hooks.after_stop, "after-stop", hooks.timeout)));
    add(Job::AfterStart, job(&hooks.after_start, "after-start", hooks.timeout));
    let periodic = hooks.periodic.as_ref().map(|p| p.command.clone());
    add(Job::Periodic, job(&periodic, "periodic", hooks.timeout));
    // The check acts as the child; the other commands are the owner's and act as the daemon.
    let check = child.check.as_ref().map(|check| {
        let program = match &check.probe {
            Probe::Command(command) => helper_program(&main, command, "check", main.identity.clone()),
            built_in => probe_program(&main, built_in),
        };
        JobPlan { program: encode(&program), timeout: check.timeout }
    });
    add(Job::Check, check);
    SlotPlan {
        heartbeat: match child.heartbeat.method {
            Method::None => None,
            _ => Some(multus_ipc::time::duration_ns(child.heartbeat.deadline)),
        },
        given,
        checkpoints: crate::policy::checkpoints(child),
        feed: feed(child, instance, dirs),
        stop_signal: child.stop.signal,
        is_stage: main.is_stage,
        stops_itself: child.service.is_some(),
        on_daemon_exit: job(&hooks.on_daemon_exit, "on-daemon-exit", hooks.timeout),
        jobs,
        cgroup_limits: (child.limits.memory, child.limits.processes),
        program: encode(&main),
        name,
    }
}

/// Where the adapters thread learns of the beats of an instance.
pub fn feed(child: &ChildConfig, instance: u16, dirs: &Dirs) -> Option<Feed> {
    match child.heartbeat.method {
        Method::Notify => Some(Feed::Notify(notify_address(child, &child.instance_name(instance), dirs))),
        Method::ControlPort => child.control_port(instance).map(Feed::ControlPort),
        Method::File => {
            let often = (child.heartbeat.deadline / 4).clamp(FILE_LOOK.0, FILE_LOOK.1);
            child.beat_file(instance).map(|path| Feed::File(path, often))
        }
        Method::SharedMemory | Method::None => None,
    }
}

/// Limits of the time from look to look at a file that is touched: what is longer than a quarter of the deadline finds
/// beats late, what is shorter than the tick that file systems stamp with finds no more of them.
const FILE_LOOK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(250));

/// Where the notify socket of an instance is.
fn notify_address(child: &ChildConfig, name: &str, dirs: &Dirs) -> NotifyAddress {
    match child.heartbeat.notify_socket {
        NotifySocket::Path => NotifyAddress::Path(dirs.runtime.join("notify").join(name)),
        // Every daemon has its own; the number of its process tells them apart.
        NotifySocket::Abstract => NotifyAddress::Abstract(format!("multusd/{}/{name}", std::process::id())),
    }
}

/// Adds cgroup.procs files that the main program has to join by itself.
pub fn with_joins(plan: &mut SlotPlan, join: Vec<PathBuf>) {
    if !join.is_empty() {
        amend(plan, |program| program.join = join);
    }
}

/// Adds a variable to the environment of the main program.
pub fn with_variable(plan: &mut SlotPlan, name: &str, value: &str) {
    amend(plan, |program| program.environment.push(format!("{name}={value}")));
}

fn amend(plan: &mut SlotPlan, change: impl FnOnce(&mut Program)) {
    if let Ok(mut program) = serde_json::from_slice::<Program>(&plan.program) {
        change(&mut program);
        plan.program = encode(&program);
    }
}

fn encode(program: &Program) -> Vec<u8> {
    // Texts, numbers and UTF-8 paths only: the paths come from TOML, which is UTF-8.
    serde_json::to_vec(program).unwrap_or_default()
}

fn main_program(
    child: &ChildConfig,
    instance: u16,
    name: &str,
    dirs: &Dirs,
    limits_in_cgroup: bool,
    given: &[Given],
) -> Program {
    let (identity, unknown_identity) = identity(child);
    let mut environment: BTreeMap<String, String> = BTreeMap::new();
    for variable in ["PATH", "LANG", "LC_ALL", "TZ", "HOME", "TERM"] {
        if let Ok(value) = std::env::var(variable) {
            environment.insert(variable.into(), value);
        }
    }
    environment.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    environment.insert("MULTUS_NAME".into(), name.into());
    environment.insert("MULTUS_INSTANCE".into(), instance.to_string());
    environment.insert("MULTUS_CONFIG".into(), dirs.parameter_file(name).display().to_string());
    match child.heartbeat.method {
        Method::Notify => {
            // As systemd does; WATCHDOG_PID is set by the spawner, who knows the number.
            environment.insert("NOTIFY_SOCKET".into(), notify_address(child, name, dirs).to_string());
            if child.heartbeat.deadline != NO_DEADLINE {
                environment.insert("WATCHDOG_USEC".into(), child.heartbeat.deadline.as_micros().to_string());
            }
        }
        Method::ControlPort => {
            if let Some(port) = child.control_port(instance) {
                environment.insert("MULTUS_CONTROL_PORT".into(), port.to_string());
            }
        }
        Method::File => {
            if let Some(path) = child.beat_file(instance) {
                environment.insert("MULTUS_CONTROL_FILE".into(), path.display().to_string());
            }
        }
        Method::SharedMemory | Method::None => {}
    }
    for (given, fd) in given.iter().zip(FIRST_GIVEN_FD..) {
        environment.insert(given.variable().into(), fd.to_string());
    }
    for (variable, path) in dirs.variables() {
        environment.insert(variable.into(), path.display().to_string());
    }
    environment.extend(child.environment.clone());
    let schedule = &child.schedule;
    let policy = match schedule.policy {
        multus_contract::config::Policy::Other => libc::SCHED_OTHER,
        multus_contract::config::Policy::Batch => libc::SCHED_BATCH,
        multus_contract::config::Policy::Idle => libc::SCHED_IDLE,
        multus_contract::config::Policy::Fifo => libc::SCHED_FIFO,
        multus_contract::config::Policy::RoundRobin => libc::SCHED_RR,
    };
    let mut limits = Vec::new();
    let mut limit = |resource: libc::__rlimit_resource_t, value: Option<u64>| {
        limits.extend(value.map(|v| (resource, v)));
    };
    limit(libc::RLIMIT_NOFILE, child.limits.open_files);
    limit(libc::RLIMIT_CORE, child.limits.core);
    if !limits_in_cgroup {
        limit(libc::RLIMIT_AS, child.limits.memory);
        limit(libc::RLIMIT_NPROC, child.limits.processes);
    }
    let path = environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let (paths, arguments) = match stage(child, instance, path) {
        None => (child.command.first().map(|c| candidates(c, path)).unwrap_or_default(), child.command.clone()),
        Some(stage) => {
            let what = serde_json::to_string(&stage).unwrap_or_default();
            (own_program(), vec!["multusd".to_owned(), stage::ARGUMENT.to_owned(), what])
        }
    };
    Program {
        is_stage: child.service.is_some() || child.pid_file.is_some(),
        paths,
        arguments,
        environment: environment.iter().map(|(k, v)| format!("{k}={v}")).collect(),
        working_dir: child.working_dir.clone().unwrap_or_else(|| PathBuf::from("/")),
        umask: child.umask,
        identity,
        unknown_identity,
        no_new_privileges: child.no_new_privileges,
        schedule: (policy, schedule.priority, schedule.nice),
        cpus: schedule.cpus.clone(),
        limits,
        join: Vec::new(),
    }
}

/// What stands between multusd and the program, if the program is not to be its child.
fn stage(child: &ChildConfig, instance: u16, path: &str) -> Option<Stage> {
    let script = |command: &[String]| Script {
        paths: command.first().map(|c| candidates(c, path)).unwrap_or_default(),
        arguments: command.to_vec(),
    };
    if let Some(service) = &child.service {
        return Some(Stage::Service {
            start: script(&service.start),
            stop: script(&service.stop),
            status: script(&service.status),
            interval: service.interval,
            timeout: service.timeout,
        });
    }
    let pid_file = child.pid_file(instance)?;
    // A little earlier than the supervisor, who can only tell that it took too long.
    let patience = child.heartbeat.startup - (child.heartbeat.startup / 8).min(Duration::from_millis(500));
    Some(Stage::Follow { start: script(&child.command), pid_file, patience })
}

/// Variables of the main program that its commands do not get.
const PRIVATE: [&str; 6] = [
    "MULTUS_HEARTBEAT_FD=",
    "MULTUS_IO_",
    "NOTIFY_SOCKET=",
    "WATCHDOG_USEC=",
    "MULTUS_CONTROL_PORT=",
    "MULTUS_CONTROL_FILE=",
];

fn helper_program(main: &Program, command: &[String], word: &str, identity: Option<Identity>) -> Program {
    let path = main.environment.iter().find_map(|v| v.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut environment: Vec<String> =
        main.environment.iter().filter(|v| !PRIVATE.iter().any(|private| v.starts_with(private))).cloned().collect();
    environment.push(format!("MULTUS_JOB={word}"));
    Program {
        paths: command.first().map(|c| candidates(c, path)).unwrap_or_default(),
        arguments: command.to_vec(),
        environment,
        working_dir: main.working_dir.clone(),
        umask: main.umask,
        identity,
        no_new_privileges: matches!(word, "check" | "stop") && main.no_new_privileges,
        ..Program::default()
    }
}

/// multusd itself. In the process that is to become it, /proc/self/exe is multusd already, and can be executed even by a
/// user who may not search the directory that it is in, or after its file was replaced.
fn own_program() -> Vec<PathBuf> {
    ["/proc/self/exe".into()].into_iter().chain(std::env::current_exe().ok()).collect()
}

/// multusd itself, as the one who asks.
fn probe_program(main: &Program, probe: &Probe) -> Program {
    let mut command = vec!["multusd".to_owned(), probe::ARGUMENT.to_owned()];
    command.extend(probe::arguments(probe));
    Program { paths: own_program(), ..helper_program(main, &command, "check", main.identity.clone()) }
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a program may be: as given when it has a slash, else beside multusd, then in PATH.
fn candidates(program: &str, path: &str) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![program.into()];
    }
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    let dirs = beside.into_iter().chain(std::env::split_paths(path));
    dirs.filter(|d| !d.as_os_str().is_empty()).map(|d| d.join(program)).collect()
}

/// User and groups as numbers; or the name that is unknown.
fn identity(child: &ChildConfig) -> (Option<Identity>, Option<String>) {
    use nix::unistd::{Gid, Group, Uid, User};
    if child.user.is_none() && child.group.is_none() && child.groups.is_empty() {
        return (None, None);
    }
    let find_group = |name: &str| match name.parse() {
        Ok(gid) => Ok(gid),
        Err(_) => {
            Group::from_name(name).ok().flatten().map(|g| g.gid.as_raw()).ok_or_else(|| format!("group {name:?}"))
        }
    };
    let find = || -> Result<Identity, String> {
        let user = match &child.user {
            None => None,
            Some(name) => {
                let by_number = name.parse().ok().and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
                let found = by_number.or_else(|| User::from_name(name).ok().flatten());
                Some(found.ok_or_else(|| format!("user {name:?}"))?)
            }
        };
        let uid = user.as_ref().map_or(Uid::effective(), |u| u.uid).as_raw();
        let gid = match &child.group {
            Some(name) => find_group(name)?,
            None => user.as_ref().map_or(Gid::effective(), |u| u.gid).as_raw(),
        };
        let groups = child.groups.iter().map(|name| find_group(name)).collect::<Result<Vec<u32>, String>>()?;
        Ok(Identity { uid, gid, groups })
    };
    match find() {
        Ok(identity) => (Some(identity), None),
        Err(unknown) => (None, Some(unknown)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use multus_contract::config::{Defaults, parse_child};
    use multus_contract::dirs::DirFlags;

    fn child(text: &str) -> ChildConfig {
        parse_child("pump", text, Path::new("pump.toml"), &Defaults::default()).0.unwrap()
    }

    #[test]
    fn a_plan_says_everything_the_spawner_needs() {
        let dirs = Dirs::resolve(&DirFlags { config: Some("/c".into()), ..DirFlags::default() });
        let child = child(
            "command = [\"/bin/pump\", \"-x\"]\nuser = \"0\"\n[limits]\nopen_files = 8\nprocesses = 3\n\
             [check]\ncommand = [\"true\"]\n[environment]\nLEVEL = \"3\"\n",
        );
        let plan = plan(&child, 0, &dirs, false, IoRole::Owns);
        let program: Program = serde_json::from_slice(&plan.program).unwrap();
        assert_eq!(program.paths, [PathBuf::from("/bin/pump")]);
        assert_eq!(program.identity, Some(Identity { uid: 0, gid: 0, groups: vec![] }));
        assert_eq!(program.limits, [(libc::RLIMIT_NOFILE, 8), (libc::RLIMIT_NPROC, 3)]);
        for expected in [
            "MULTUS_NAME=pump",
            "MULTUS_CONFIG=/c/config/pump.toml",
            "LEVEL=3",
            "MULTUS_HEARTBEAT_FD=3",
            "MULTUS_IO_IMAGE_FD=4",
            "MULTUS_IO_REQUEST_FD=5",
        ] {
            assert!(program.environment.iter().any(|v| v == expected), "{expected}");
        }
        let check: Program = serde_json::from_slice(&plan.jobs[&(Job::Check as u8)].program).unwrap();
        assert_eq!(check.identity, program.identity, "a check acts as the child");
        assert!(
            check.environment.iter().all(|v| !v.starts_with("MULTUS_HEARTBEAT_FD") && !v.starts_with("MULTUS_IO_"))
        );
        assert!(check.paths.iter().any(|p| p.ends_with("bin/true")));
    }

    #[test]
    fn built_in_checks_and_fed_heartbeats_are_planned() {
        let dirs = Dirs::resolve(&DirFlags::default());
        let text = "command = [\"/bin/pump\"]\ninstances = 2\nuser = \"0\"\ncheck.tcp = \"localhost:80\"\n\
                    [heartbeat]\nmethod = \"control-port\"\nport = 5000\n";
        let plan = plan(&child(text), 1, &dirs, true, IoRole::None);
        assert_eq!(plan.feed, Some(Feed::ControlPort(5001)));
        let main: Program = serde_json::from_slice(&plan.program).unwrap();
        assert!(main.environment.iter().any(|v| v == "MULTUS_CONTROL_PORT=5001"));
        let check: Program = serde_json::from_slice(&plan.jobs[&(Job::Check as u8)].program).unwrap();
        assert_eq!(check.arguments, ["multusd", probe::ARGUMENT, "tcp", "localhost:80"]);
        assert_eq!((check.paths[0].as_path(), check.identity.is_some()), (Path::new("/proc/self/exe"), true));
        assert!(check.environment.iter().all(|v| !v.starts_with("MULTUS_CONTROL_PORT")));
    }

    #[test]
    fn an_unknown_user_is_named() {
        let dirs = Dirs::resolve(&DirFlags::default());
        let plan = plan(&child("command = [\"/bin/pump\"]\nuser = \"no-such-user\"\n"), 0, &dirs, true, IoRole::None);
        let program: Program = serde_json::from_slice(&plan.program).unwrap();
        assert_eq!(program.unknown_identity.as_deref(), Some("user \"no-such-user\""));
    }
}
