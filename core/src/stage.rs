//! The stage: a small process between multusd and a program that would not be its child otherwise. It is multusd itself,
//! started as `multusd --stage ...` in place of the program, and is to the supervisor a process like any other.
//!
//! ```text
//! multusd -+- stage --- start command        leaves a process behind and ends (`pid_file`)
//!          |      `---- main process         what it left behind becomes a child of the stage: only that can be followed
//!          `- stage --- start, status, stop  scripts of a service that is somebody else's (`[service]`)
//! ```
//! The stage is ready (it closes the pipe over which a failed exec would be reported) when the main process is found or
//! the start script has ended well. It ends as its main process ends, or as the status script did. A signal to it goes to
//! the main process; to a service's stage it means: run the stop script. When multusd dies, all that descends from the
//! stage dies, too.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use multus_ipc::MonoNs;
use multus_supervisor::ExitStatus;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::launcher::orphans;
use crate::launcher::plan::Step;
use crate::sys;

/// The hidden first argument that makes multusd be a stage; the second is what it is to do.
pub const ARGUMENT: &str = "--stage";
/// Where a stage finds the pipe on which it reports how the start went.
pub const REPORT_VARIABLE: &str = "MULTUS_REPORT_FD";

/// What a stage does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Starts a program that leaves a process behind, and follows the one that is named in its PID file.
    Follow {
        /// Ends with 0 when the other process is made.
        start: Script,
        /// Names it.
        pid_file: PathBuf,
        /// Until then it must, from the start on.
        patience: Duration,
    },
    /// Starts a service and asks whether it runs.
    Service {
        /// Ends with 0 when it is started.
        start: Script,
        /// Ends it.
        stop: Script,
        /// Ends with 0 while it runs.
        status: Script,
        /// From the end of one `status` to the next.
        interval: Duration,
        /// The longest that one may take.
        timeout: Duration,
    },
}

/// A program and its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Paths to try, first match wins.
    pub paths: Vec<PathBuf>,
    /// Arguments, the name first.
    pub arguments: Vec<String>,
}

/// The whole life of a stage.
pub fn run(what: Option<String>) -> ExitCode {
    let stage = what.and_then(|text| serde_json::from_str(&text).ok());
    let (Some(stage), Some(report)) = (stage, report()) else {
        eprintln!("multusd: {ARGUMENT} is for multusd itself; write pid_file or [service] into the file of a child");
        return ExitCode::from(2);
    };
    let tree = match Tree::new(report) {
        Ok(tree) => tree,
        Err(error) => {
            say(&format!("no signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    end_as(match stage {
        Stage::Follow { start, pid_file, patience } => follow(tree, &start, &pid_file, patience),
        Stage::Service { start, stop, status, interval, timeout } => {
            Service { tree, stop, status, interval, timeout }.run(&start)
        }
    })
}

// ---- a program that leaves a process behind -----------------------------------------------------------------------------

/// From look to look at a PID file that is not written yet.
const LOOK: Duration = Duration::from_millis(10);

fn follow(mut tree: Tree, start: &Script, path: &Path, patience: Duration) -> ExitStatus {
    let until = MonoNs::now().after(patience);
    let mut file = PidFile::prepare(path);
    let starter = match tree.start(start, false) {
        Ok(pid) => pid,
        Err(errno) => return tree.refuse(Step::Execute, errno as i32),
    };
    let (mut left_behind, mut asked) = (false, false);
    let (main, pidfd) = loop {
        let next = if left_behind || asked { MonoNs::now().after(LOOK).min(until) } else { until };
        for event in tree.wait(None, Some(next)) {
            match event {
                Event::Ended(pid, ExitStatus::Code(0)) if pid == starter => left_behind = true,
                Event::Ended(pid, status) if pid == starter && !asked => return tree.failed(status),
                Event::Asked(signal) => {
                    asked = true;
                    for child in orphans::adopted() {
                        // Not reaped, so the number still is this child.
                        let _ = kill(Pid::from_raw(child), signal);
                    }
                }
                _ => {}
            }
        }
        let alone = orphans::adopted().is_empty();
        if asked {
            if alone {
                return ExitStatus::Code(0);
            }
            continue;
        }
        let late = MonoNs::now() >= until;
        if !left_behind {
            if late {
                say("the start command has not ended: it stays in the foreground, where no pid_file is needed");
                return tree.refuse(Step::Foreground, 0);
            }
            continue;
        }
        match file.look(std::process::id().cast_signed()) {
            Ok(main) => break main,
            Err(refusal) if alone && refusal.step == Step::PidFileMissing => {
                say("the start command has ended and left no process behind");
                return tree.failed(ExitStatus::Code(0));
            }
            Err(refusal) if alone || late => return tree.refuse(refusal.step, refusal.pid),
            Err(_) => {}
        }
    };
    tree.report(0, main);
    loop {
        for event in tree.wait(Some(pidfd.as_fd()), None) {
            match event {
                Event::Ended(pid, status) if pid == main => return status,
                Event::Asked(signal) => drop(sys::pidfd_signal(pidfd.as_fd(), signal as i32)),
                Event::MainEnded => {
                    if let Ok(Some((status, _))) = sys::reap(pidfd.as_fd()) {
                        return status;
                    }
                    say(&format!("process {main} has ended; only its parent, which lives, knows how"));
                    return ExitStatus::Code(1);
                }
                Event::Ended(..) => {}
            }
        }
    }
}

/// Longest content of a PID file, bytes.
const LONGEST_PID_FILE: usize = 64;

#[derive(Debug)]
struct PidFile<'a> {
    path: &'a Path,
    /// What lay there before the start and could not be removed: device, inode, time of its last change.
    stale: Option<Stamp>,
    /// What was said last.
    said: String,
}

type Stamp = (u64, u64, i64, i64);

#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    step: Step,
    pid: i32,
}

impl<'a> PidFile<'a> {
    /// Nothing of this child runs yet: what is in its PID file now is of an earlier run. It is removed if it looks like
    /// one, and not believed if that is not possible.
    fn prepare(path: &'a Path) -> Self {
        let mut file = Self { path, stale: None, said: String::new() };
        if let Ok((stamp, content)) = read(path) {
            let is_pid_file = content.is_empty() || number(&content).is_ok();
            if !is_pid_file || fs::remove_file(path).is_err() {
                file.stale = Some(stamp);
            }
        }
        file
    }

    /// The process that it names, if that descends from `ancestor`.
    fn look(&mut self, ancestor: i32) -> Result<(i32, OwnedFd), Refusal> {
        let (refusal, why) = match self.found(ancestor) {
            Ok(main) => return Ok(main),
            Err(refused) => refused,
        };
        // Still to come, or just being written: that is only worth telling at the end.
        if why != self.said && refusal.step != Step::PidFileMissing {
            say(&format!("{}: {why}", self.path.display()));
            self.said = why;
        }
        Err(refusal)
    }

    fn found(&self, ancestor: i32) -> Result<(i32, OwnedFd), (Refusal, String)> {
        let refuse = |step, pid, why: &str| Err((Refusal { step, pid }, why.to_owned()));
        let content = match read(self.path) {
            Ok((stamp, _)) if self.stale == Some(stamp) => {
                return refuse(Step::PidFileMissing, 0, "it is still that of an earlier run");
            }
            Ok((_, content)) if content.is_empty() => return refuse(Step::PidFileMissing, 0, "it is empty"),
            Ok((_, content)) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return refuse(Step::PidFileMissing, 0, "missing"),
            Err(error) => return refuse(Step::PidFileText, 0, &error.to_string()),
        };
        let pid = match number(&content) {
            Ok(pid) => pid,
            Err(why) => {
                let text: String = String::from_utf8_lossy(&content).chars().take(LONGEST_PID_FILE).collect();
                return refuse(Step::PidFileText, 0, &format!("holds {text:?}: {why}"));
            }
        };
        // First the descriptor, then the look at the number: if it passed on to another process meanwhile, the descriptor
        // tells.
        let pidfd = sys::pidfd_open(pid);
        match pidfd {
            Ok(pidfd) if orphans::descends(pid, ancestor) == Some(true) && !sys::has_ended(pidfd.as_fd()) => {
                Ok((pid, pidfd))
            }
            _ => refuse(Step::PidFileForeign, pid, &format!("names {pid}, which is no process of this child")),
        }
    }
}

/// What a PID file holds, one byte more than allowed if it is longer. Does not follow a symbolic link, does not wait for a
/// pipe.
fn read(path: &Path) -> io::Result<(Stamp, Vec<u8>)> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let data = file.metadata()?;
    if !data.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut content = Vec::with_capacity(LONGEST_PID_FILE + 1);
    file.take(LONGEST_PID_FILE as u64 + 1).read_to_end(&mut content)?;
    Ok(((data.dev(), data.ino(), data.mtime(), data.mtime_nsec()), content))
}

/// The process id that is the content of a PID file; else what is wrong with it.
fn number(content: &[u8]) -> Result<i32, &'static str> {
    if content.len() > LONGEST_PID_FILE {
        return Err("it is too long for a process id");
    }
    let digits = content.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err("that is no process id");
    }
    let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
    number.filter(|pid| *pid > 0).ok_or("no process has such a number")
}

// ---- a service of somebody else -------------------------------------------------------------------------------------------

struct Service {
    tree: Tree,
    stop: Script,
    status: Script,
    interval: Duration,
    timeout: Duration,
}

/// Which script of a service runs.
enum Doing {
    Start(i32),
    Status(i32, MonoNs),
    Stop(i32),
    /// None until then.
    Nothing(MonoNs),
}

/// What a shell and timeout(1) say of a command that took too long.
const TOOK_TOO_LONG: i32 = 124;
/// What a shell says of a command that it cannot execute.
const NOT_EXECUTED: i32 = 126;

impl Service {
    fn run(mut self, start: &Script) -> ExitStatus {
        let mut doing = match self.tree.start(start, true) {
            Ok(pid) => Doing::Start(pid),
            Err(errno) => return self.tree.refuse(Step::Execute, errno as i32),
        };
        loop {
            let until = match doing {
                Doing::Start(_) | Doing::Stop(_) => None,
                Doing::Status(_, until) | Doing::Nothing(until) => Some(until),
            };
            for event in self.tree.wait(None, until) {
                match (event, &doing) {
                    (Event::Asked(_), Doing::Stop(_)) => {}
                    (Event::Asked(_), running) => {
                        if let Doing::Start(pid) | Doing::Status(pid, _) = running {
                            kill_group(*pid);
                        }
                        doing = match self.tree.start(&self.stop, true) {
                            Ok(pid) => Doing::Stop(pid),
                            Err(errno) => return self.said("stop", &cannot_execute(errno), NOT_EXECUTED),
                        };
                    }
                    (Event::Ended(pid, status), Doing::Start(script)) if pid == *script => {
                        if status != ExitStatus::Code(0) {
                            say(&format!("start: {}", words(status)));
                            return self.tree.failed(status);
                        }
                        self.tree.report(0, 0);
                        doing = Doing::Nothing(MonoNs::now().after(self.interval));
                    }
                    (Event::Ended(pid, status), Doing::Status(script, _)) if pid == *script => {
                        if status != ExitStatus::Code(0) {
                            say(&format!("status: {}: the service does not run", words(status)));
                            return status;
                        }
                        doing = Doing::Nothing(MonoNs::now().after(self.interval));
                    }
                    (Event::Ended(pid, status), Doing::Stop(script)) if pid == *script => {
                        if status != ExitStatus::Code(0) {
                            say(&format!("stop: {}", words(status)));
                        }
                        return status;
                    }
                    _ => {}
                }
            }
            match doing {
                Doing::Nothing(until) if MonoNs::now() >= until => match self.tree.start(&self.status, true) {
                    Ok(pid) => doing = Doing::Status(pid, MonoNs::now().after(self.timeout)),
                    Err(errno) => return self.said("status", &cannot_execute(errno), NOT_EXECUTED),
                },
                Doing::Status(pid, until) if MonoNs::now() >= until => {
                    kill_group(pid);
                    return self.said("status", "took too long and was killed", TOOK_TOO_LONG);
                }
                _ => {}
            }
        }
    }

    fn said(&self, script: &str, what: &str, code: i32) -> ExitStatus {
        say(&format!("{script}: {what}"));
        ExitStatus::Code(code)
    }
}

fn cannot_execute(errno: Errno) -> String {
    format!("cannot be executed: {}", errno.desc())
}

fn words(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exit code {code}"),
        ExitStatus::Signal(signal, _) => format!("killed by signal {signal}"),
        ExitStatus::Unknown => "ended".to_owned(),
    }
}

/// Kills a script with its group. It is not reaped yet, so the number is still its own.
fn kill_group(pid: i32) {
    let _ = kill(Pid::from_raw(-pid), Signal::SIGKILL);
}

// ---- what both need -------------------------------------------------------------------------------------------------------

/// This process and what descends from it.
struct Tree {
    signals: SignalFd,
    environment: Vec<CString>,
    report: Option<File>,
}

enum Event {
    /// A child of this process ended.
    Ended(i32, ExitStatus),
    /// The process that was given ended.
    MainEnded,
    /// Somebody wants it to stop, with this signal.
    Asked(Signal),
}

/// Signals that can ask to stop; SIGKILL cannot be taken.
const ASKING: [Signal; 10] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGABRT,
    Signal::SIGALRM,
    Signal::SIGWINCH,
    Signal::SIGPWR,
];

/// Sent by the kernel when the thread of multusd that started this process is gone: none of those that ask to stop, because
/// the other threads may still be there then, which looks like an ordinary stop.
const MULTUSD_DIED: Signal = Signal::SIGVTALRM;

impl Tree {
    fn new(report: File) -> io::Result<Self> {
        let _ = nix::sys::prctl::set_name(c"multus-stage");
        let mut set: SigSet = ASKING.into_iter().collect();
        set.add(Signal::SIGCHLD);
        set.add(MULTUSD_DIED);
        set.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        nix::sys::prctl::set_child_subreaper(true)?;
        // In place of SIGKILL, so that there is time to take along what descends from here.
        nix::sys::prctl::set_pdeathsig(MULTUSD_DIED)?;
        // The watch library of systemd compares WATCHDOG_PID with the process that reads it, which is another one.
        let environment = std::env::vars_os()
            .filter(|(name, _)| name != REPORT_VARIABLE && name != "WATCHDOG_PID")
            .filter_map(|(name, value)| CString::new([name.into_vec(), value.into_vec()].join(&b'=')).ok())
            .collect();
        Ok(Self { signals, environment, report: Some(report) })
    }

    /// Starts a program with the signals that a new program may expect.
    fn start(&self, script: &Script, own_group: bool) -> Result<i32, Errno> {
        let mut attributes = PosixSpawnAttr::init()?;
        let mut flags = PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK;
        attributes.set_sigmask(&SigSet::empty())?;
        if own_group {
            flags |= PosixSpawnFlags::POSIX_SPAWN_SETPGROUP;
            attributes.set_pgroup(Pid::from_raw(0))?;
        }
        attributes.set_flags(flags)?;
        let actions = PosixSpawnFileActions::init()?;
        let arguments: Vec<CString> =
            script.arguments.iter().filter_map(|text| CString::new(text.as_bytes()).ok()).collect();
        let path = script.paths.iter().find(|path| path.exists()).ok_or(Errno::ENOENT)?;
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
        let pid = nix::spawn::posix_spawn(path.as_c_str(), &actions, &attributes, &arguments, &self.environment)?;
        Ok(pid.as_raw())
    }

    /// Waits until something happens, or until then. Ends the process, and what descends from it, when multusd is gone.
    fn wait(&mut self, main: Option<BorrowedFd<'_>>, until: Option<MonoNs>) -> Vec<Event> {
        let pause = until.map_or(PollTimeout::NONE, |until| {
            // Rounded up: a wait of less than a millisecond would become a busy loop.
            let ms = until.since(MonoNs::now()).as_micros().div_ceil(1000);
            PollTimeout::try_from(i32::try_from(ms).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(main.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let _ = nix::poll::poll(&mut fds, pause);
        let mut events = Vec::new();
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            if signal == Some(MULTUSD_DIED) {
                die_with_all();
            }
            events.extend(signal.filter(|signal| *signal != Signal::SIGCHLD).map(Event::Asked));
        }
        while let Ok(Some((pid, status))) = sys::reap_any() {
            events.push(Event::Ended(pid, status));
        }
        if main.is_some_and(sys::has_ended) {
            events.push(Event::MainEnded);
        }
        events
    }

    /// Tells multusd how the start went; the pipe closes, which makes a good start ready.
    fn report(&mut self, step: u8, number: i32) {
        if let Some(mut report) = self.report.take() {
            let mut message = [0u8; 8];
            message[0] = step;
            message[4..].copy_from_slice(&number.to_le_bytes());
            let _ = report.write_all(&message);
        }
    }

    /// The start failed at this step.
    fn refuse(&mut self, step: Step, number: i32) -> ExitStatus {
        self.report(step as u8, number);
        ExitStatus::Code(1)
    }

    /// The start command itself failed, which is a crash as of any program.
    fn failed(&mut self, status: ExitStatus) -> ExitStatus {
        match status {
            ExitStatus::Code(code) => self.report(Step::StartEnded as u8, code),
            ExitStatus::Signal(signal, _) => self.report(Step::StartKilled as u8, signal),
            ExitStatus::Unknown => {}
        }
        status
    }
}

/// The pipe on which the start is reported; not for those that are started from here.
fn report() -> Option<File> {
    let fd = std::env::var(REPORT_VARIABLE).ok()?.parse().ok()?;
    sys::inherited(fd).map(File::from)
}

/// A line in the log of the child. A log that is closed is no reason to end.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "multusd: {line}");
}

/// How long what descends from here may take to go.
const DEATH_PATIENCE: Duration = Duration::from_secs(5);

fn die_with_all() -> ! {
    let until = MonoNs::now().after(DEATH_PATIENCE);
    loop {
        let children = orphans::adopted();
        if children.is_empty() || MonoNs::now() >= until {
            sys::exit_now(1);
        }
        for child in children {
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
        while let Ok(Some(_)) = sys::reap_any() {}
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Ends this process as another one ended.
fn end_as(status: ExitStatus) -> ExitCode {
    match status {
        ExitStatus::Code(code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)),
        ExitStatus::Signal(signal, _) => {
            // The core, if there is one, is that of the other.
            let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
            sys::default_signals();
            if let Ok(own) = sys::pidfd_open(std::process::id().cast_signed()) {
                let _ = sys::pidfd_signal(own.as_fd(), signal);
            }
            ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
        }
        ExitStatus::Unknown => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_holds_a_number_and_nothing_else() {
        for (content, pid) in [(&b"1234"[..], 1234), (b"1234\n", 1234), (b" 7 \r\n", 7), (b"2147483647", i32::MAX)] {
            assert_eq!(number(content), Ok(pid), "{content:?}");
        }
        for content in
            [&b""[..], b"\n", b"hello", b"-5", b"+5", b"0", b"1.5", b"12 13", b"0x10", b"2147483648", b"\xff\xfe"]
        {
            assert!(number(content).is_err(), "{content:?}");
        }
        assert!(number(format!("1{}", "0".repeat(30)).as_bytes()).is_err());
        assert!(number(&[b'1'; LONGEST_PID_FILE + 1]).is_err());
    }

    #[test]
    fn only_descendants_are_followed_and_stale_files_are_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        let own = std::process::id().cast_signed();
        let step = |content: Option<&str>| {
            if let Some(content) = content {
                fs::write(&path, content).unwrap();
            }
            PidFile { path: &path, stale: None, said: String::new() }.look(own).map(|(pid, _)| pid)
        };
        let refused = |step, pid| Err(Refusal { step, pid });
        assert_eq!(step(None), refused(Step::PidFileMissing, 0));
        assert_eq!(step(Some("")), refused(Step::PidFileMissing, 0));
        assert_eq!(step(Some("soon")), refused(Step::PidFileText, 0));
        assert_eq!(step(Some("1")), refused(Step::PidFileForeign, 1));
        assert_eq!(step(Some(&own.to_string())), refused(Step::PidFileForeign, own));
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = child.id().cast_signed();
        assert_eq!(step(Some(&format!("{pid}\n"))), Ok(pid));

        assert_eq!(PidFile::prepare(&path).look(own).unwrap_err().step, Step::PidFileMissing);
        assert!(!path.exists(), "what names a process is removed");
        fs::write(&path, "root:x:0").unwrap();
        let mut kept = PidFile::prepare(&path);
        assert!(path.exists(), "what is no PID file is nobody's to remove");
        assert_eq!(kept.look(own).unwrap_err().step, Step::PidFileMissing);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert_eq!(PidFile::prepare(&path).look(own).unwrap_err().step, Step::PidFileText);
        drop(child.stdin.take());
        child.wait().unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(step(Some(&pid.to_string())), refused(Step::PidFileForeign, pid), "it has ended");
    }

    #[test]
    fn what_is_to_be_done_is_read_back_as_it_was_written() {
        let script = |name: &str| Script { paths: vec![name.into()], arguments: vec![name.into(), "a b".into()] };
        for stage in [
            Stage::Follow { start: script("x"), pid_file: "/run/x.pid".into(), patience: Duration::from_millis(1500) },
            Stage::Service {
                start: script("a"),
                stop: script("b"),
                status: script("c"),
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(2),
            },
        ] {
            let text = serde_json::to_string(&stage).unwrap();
            assert_eq!(serde_json::from_str::<Stage>(&text).unwrap(), stage);
        }
    }
}
