//! The spawner: a small process of its own, with one thread and nothing locked, that makes every process for the
//! daemon.
//!
//! The daemon's address space is locked and large; copying it would stop the watch loop for milliseconds. So the
//! daemon starts this process once (posix_spawn of its own program) and then only sends it messages. For each, the
//! spawner copies itself, straight into the child's cgroup, as a child *of the daemon* (CLONE_PARENT); the copy sets
//! session, limits, scheduling, user, and executes the program. What goes wrong on the way is reported over a pipe
//! that exec closes.
//!
//! ```text
//! launcher --- flags, tag, program (JSON) + descriptors ---> spawner      one message each way per process,
//! launcher <-- tag, process id or error number ------------- spawner      over one SOCK_SEQPACKET pair
//! ```
//! Later, a copy can be made ahead and parked before its exec: everything it needs is in the message.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};
use nix::unistd::{Gid, Uid};

use super::plan::{FIRST_GIVEN_FD, Program, Step};
use crate::stage;
use crate::sys::{self, Side};

/// The hidden first argument that makes multusd be the spawner.
pub const ARGUMENT: &str = "--spawner";
/// The socket's number in the spawner.
const SOCKET_FD: RawFd = 3;
/// Longest program description; the socket's buffer is larger (212,992 bytes by default).
const MAX_MESSAGE: usize = 160 * 1024;
/// Descriptors of one message: output twice, report, cgroup, and what the program is given.
const MOST_FDS: usize = 12;

/// Descriptors that go with a request.
#[derive(Debug)]
pub struct Descriptors<'a> {
    /// Where its standard output goes.
    pub stdout: BorrowedFd<'a>,
    /// Where its standard error goes.
    pub stderr: BorrowedFd<'a>,
    /// Where a failed start is reported.
    pub report: BorrowedFd<'a>,
    /// What it is given, from [`FIRST_GIVEN_FD`] on.
    pub given: Vec<BorrowedFd<'a>>,
    /// Directory of the cgroup (version 2) it is made in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// The launcher's end.
#[derive(Debug)]
pub struct Spawner {
    socket: OwnedFd,
    pid: i32,
}

impl Spawner {
    /// Starts the spawner: `program` is multusd itself.
    ///
    /// Must be called from a thread that lives as long as the daemon: when it ends, the kernel kills the spawner and
    /// all children (parent-death signal). With a priority the spawner itself runs under SCHED_FIFO, so that a restart
    /// does not wait for a busy processor; what it makes is ordinary.
    ///
    /// # Errors
    /// What the system refused.
    pub fn start(program: &Path, priority: Option<u8>) -> io::Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )?;
        let pid = posix_spawn(program, theirs, priority)?;
        Ok(Self { socket: ours, pid })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The socket, for polling.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Asks for a process. Does not wait.
    ///
    /// # Errors
    /// What the socket refused; `EAGAIN` when the spawner lags behind.
    pub fn ask(&self, tag: u64, program: &[u8], fds: &Descriptors<'_>) -> io::Result<()> {
        let mut raw = vec![fds.stdout.as_raw_fd(), fds.stderr.as_raw_fd(), fds.report.as_raw_fd()];
        raw.extend(fds.given.iter().chain(&fds.cgroup).map(AsRawFd::as_raw_fd));
        if program.len() > MAX_MESSAGE - 16 || raw.len() > MOST_FDS {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        let mut head = [0u8; 16];
        head[0] = fds.cgroup.is_some().into();
        head[8..].copy_from_slice(&tag.to_le_bytes());
        let parts = [IoSlice::new(&head), IoSlice::new(program)];
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &parts,
            &[ControlMessage::ScmRights(&raw)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    /// The next answer: tag, and process id or error number. `None` when there is none now.
    ///
    /// # Errors
    /// `UnexpectedEof` when the spawner is gone.
    pub fn answer(&self) -> io::Result<Option<(u64, Result<i32, i32>)>> {
        let mut buffer = [0u8; 16];
        match nix::unistd::read(&self.socket, &mut buffer) {
            Ok(16) => {
                let tag = u64::from_le_bytes(buffer[..8].try_into().unwrap_or_default());
                let value = i32::from_le_bytes(buffer[8..12].try_into().unwrap_or_default());
                Ok(Some((tag, if value > 0 { Ok(value) } else { Err(-value) })))
            }
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn posix_spawn(program: &Path, socket: OwnedFd, priority: Option<u8>) -> io::Result<i32> {
    use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions};
    let path = CString::new(program.as_os_str().as_bytes())?;
    let mut actions = PosixSpawnFileActions::init()?;
    // dup2 to another number clears close-on-exec; the socket's own number is never 3 here, because that would keep it.
    let socket = if socket.as_raw_fd() == SOCKET_FD {
        let moved = nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(SOCKET_FD + 1))?;
        drop(socket);
        // SAFETY is not needed here: `own` takes over a descriptor that was just made for us.
        own(moved)
    } else {
        socket
    };
    actions.add_dup2(socket.as_raw_fd(), SOCKET_FD)?;
    let attributes = PosixSpawnAttr::init()?;
    let arguments = [path.clone(), CString::new(ARGUMENT)?, CString::new(priority.unwrap_or(0).to_string())?];
    let environment: Vec<CString> = Vec::new();
    let pid = nix::spawn::posix_spawn(path.as_c_str(), &actions, &attributes, &arguments, &environment)?;
    Ok(pid.as_raw())
}

#[allow(unsafe_code)]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: every caller passes a descriptor that the kernel has just made for this process and that nothing else
    // owns (fcntl F_DUPFD, SCM_RIGHTS, or the socket that this process was started with).
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The spawner's whole life: `multusd --spawner`, started by the daemon with the socket as descriptor 3.
///
/// Returns when the daemon is gone.
pub fn run() -> i32 {
    // A terminal's Ctrl-C is meant for the daemon, which stops everything in order.
    let _ = nix::unistd::setsid();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        sys::ignore_signal(signal);
    }
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    let _ = nix::sys::prctl::set_name(c"multus-spawner");
    let priority = std::env::args().nth(2).and_then(|text| text.parse().ok()).filter(|p| *p > 0);
    if let Some(priority) = priority {
        // Refused only where the daemon is refused too, which it has said.
        let _ = sys::set_scheduler(libc::SCHED_FIFO, priority, true);
    }
    let daemon = nix::unistd::getppid();
    let socket = own(SOCKET_FD);
    let flags = nix::fcntl::OFlag::empty();
    if nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFL(flags)).is_err() {
        eprintln!("multusd: {ARGUMENT} is for multusd itself; start multusd without it");
        return 2;
    }
    let _ = nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC));
    let mut buffer = vec![0u8; MAX_MESSAGE];
    loop {
        let (length, mut fds) = match receive(&socket, &mut buffer) {
            Ok((0, _)) => return 0,
            Ok(received) => received,
            Err(Errno::EINTR) => continue,
            Err(_) => return 1,
        };
        if length < 16 || fds.len() < 3 {
            continue;
        }
        let cgroup = if buffer[0] == 1 { fds.pop() } else { None };
        let answer = match make(cgroup.as_ref()) {
            Ok(Side::Parent(pid)) => pid,
            Ok(Side::Child) => {
                let [stdout, stderr, report, given @ ..] = &fds[..] else { sys::exit_now(127) };
                become_program(&buffer[16..length], [stdout, stderr], report, given, daemon.as_raw())
            }
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        };
        let mut reply = [0u8; 16];
        reply[..8].copy_from_slice(&buffer[8..16]);
        reply[8..12].copy_from_slice(&answer.to_le_bytes());
        if nix::unistd::write(&socket, &reply).is_err() {
            return 1;
        }
    }
}

fn make(cgroup: Option<&OwnedFd>) -> io::Result<Side> {
    sys::fork_into(cgroup.map(AsFd::as_fd))
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = nix::cmsg_space!([RawFd; MOST_FDS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            fds.extend(raw.into_iter().map(own));
        }
    }
    Ok((message.bytes, fds))
}

/// The copy's way to the program. Does not return.
fn become_program(program: &[u8], output: [&OwnedFd; 2], report: &OwnedFd, given: &[OwnedFd], daemon: i32) -> ! {
    // Away from the low numbers first, which are about to be overwritten.
    let high = |fd: &OwnedFd| nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(64)).map(own);
    let Ok(report) = high(report) else { sys::exit_now(127) };
    let failure = prepare(program, output, &report, given, daemon);
    let (step, errno) = failure;
    let mut message = [0u8; 8];
    message[0] = step as u8;
    message[4..].copy_from_slice(&(errno as i32).to_le_bytes());
    let _ = File::from(report).write_all(&message);
    sys::exit_now(127)
}

/// Does everything up to and including exec; what failed, if it returns.
fn prepare(program: &[u8], output: [&OwnedFd; 2], report: &OwnedFd, given: &[OwnedFd], daemon: i32) -> (Step, Errno) {
    match try_prepare(program, output, report, given, daemon) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn try_prepare(
    program: &[u8],
    output: [&OwnedFd; 2],
    report: &OwnedFd,
    given: &[OwnedFd],
    daemon: i32,
) -> Result<std::convert::Infallible, (Step, Errno)> {
    let at = |step: Step| move |errno: Errno| (step, errno);
    let io_at = |step: Step| move |error: io::Error| (step, Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)));
    let program: Program = serde_json::from_slice(program).map_err(|_| (Step::Session, Errno::EPROTO))?;

    nix::unistd::setsid().map_err(at(Step::Session))?;
    sys::default_signals();
    let after_given = descriptors(output, given).map_err(at(Step::Session))?;
    sys::close_on_exec_from(after_given).map_err(io_at(Step::Session))?;

    for file in &program.join {
        std::fs::write(file, "0").map_err(io_at(Step::Cgroup))?;
    }
    for (resource, value) in &program.limits {
        set_limit(*resource, *value).map_err(at(Step::Limits))?;
    }
    schedule(&program).map_err(io_at(Step::Schedule))?;
    identity(&program).map_err(at(Step::Identity))?;
    if let Some(umask) = program.umask {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(umask));
    }
    nix::unistd::chdir(&program.working_dir).map_err(at(Step::WorkingDir))?;
    if program.no_new_privileges {
        nix::sys::prctl::set_no_new_privs().map_err(at(Step::Identity))?;
    }
    // After the change of user, which clears it. A daemon that died before this line shows as another parent.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(at(Step::Session))?;
    if nix::unistd::getppid().as_raw() != daemon {
        sys::exit_now(127);
    }
    Err(execute(&program, report))
}

/// Puts all descriptors in their places; the first number after them.
fn descriptors(output: [&OwnedFd; 2], given: &[OwnedFd]) -> Result<RawFd, Errno> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
    let high = |fd: &OwnedFd| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(64)).map(own);
    let null = open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?;
    let [stdout, stderr] = [high(output[0])?, high(output[1])?];
    let given = given.iter().map(high).collect::<Result<Vec<_>, _>>()?;
    let null = high(&null)?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&stdout)?;
    nix::unistd::dup2_stderr(&stderr)?;
    let mut place = FIRST_GIVEN_FD;
    for fd in &given {
        // Whatever this process had under this number (its socket is 3) is replaced, and never touched again.
        let mut target = std::mem::ManuallyDrop::new(own(place));
        nix::unistd::dup2(fd, &mut target)?;
        place += 1;
    }
    Ok(place)
}

fn set_limit(resource: u32, value: u64) -> Result<(), Errno> {
    use nix::sys::resource::{Resource, setrlimit};
    let resource = match resource {
        libc::RLIMIT_NOFILE => Resource::RLIMIT_NOFILE,
        libc::RLIMIT_CORE => Resource::RLIMIT_CORE,
        libc::RLIMIT_AS => Resource::RLIMIT_AS,
        libc::RLIMIT_NPROC => Resource::RLIMIT_NPROC,
        _ => return Err(Errno::EINVAL),
    };
    setrlimit(resource, value, value)
}

fn schedule(program: &Program) -> io::Result<()> {
    let (policy, priority, nice) = program.schedule;
    if policy != libc::SCHED_OTHER {
        sys::set_scheduler(policy, priority, false)?;
    }
    if nice != 0 {
        sys::set_nice(nice)?;
    }
    if !program.cpus.is_empty() {
        let mut set = nix::sched::CpuSet::new();
        for cpu in &program.cpus {
            set.set(usize::from(*cpu))?;
        }
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?;
    }
    Ok(())
}

fn identity(program: &Program) -> Result<(), Errno> {
    if program.unknown_identity.is_some() {
        return Err(Errno::ENOENT);
    }
    let Some(identity) = &program.identity else { return Ok(()) };
    let same = Uid::effective().as_raw() == identity.uid && Gid::effective().as_raw() == identity.gid;
    let groups: Vec<Gid> = identity.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    if Uid::effective().is_root() {
        nix::unistd::setgroups(&groups)?;
    } else if same && groups.is_empty() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)
}

/// Executes the first path that is there; why not, if it returns.
fn execute(program: &Program, report: &OwnedFd) -> (Step, Errno) {
    let texts = |list: &[String]| -> Vec<CString> {
        list.iter().filter_map(|text| CString::new(text.as_bytes()).ok()).collect()
    };
    let (arguments, mut environment) = (texts(&program.arguments), texts(&program.environment));
    if program.environment.iter().any(|variable| variable.starts_with("WATCHDOG_USEC=")) {
        environment.extend(CString::new(format!("WATCHDOG_PID={}", std::process::id())));
    }
    if program.is_stage {
        // The stage goes on reporting how the start goes.
        if let Err(errno) = nix::fcntl::fcntl(report, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())) {
            return (Step::Session, errno);
        }
        environment.extend(CString::new(format!("{}={}", stage::REPORT_VARIABLE, report.as_raw_fd())));
    }
    let mut failure = (Step::Execute, Errno::ENOENT);
    for path in &program.paths {
        let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { continue };
        let errno = match nix::unistd::execve(&name, &arguments, &environment) {
            Ok(never) => match never {},
            Err(errno) => errno,
        };
        match errno {
            Errno::ENOENT if path.exists() => return (Step::Interpreter, errno),
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => failure.1 = errno,
            _ => return (Step::Execute, errno),
        }
    }
    failure
}
