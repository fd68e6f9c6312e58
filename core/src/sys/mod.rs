//! The system calls that no crate in the tree offers. The only room of the daemon with `unsafe`, together with `tty` and `watchdog`.
#![allow(unsafe_code)]

pub mod tty;
pub mod watchdog;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use multus_supervisor::ExitStatus;

/// What a process used, from the kernel's accounting at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on a processor in user mode.
    pub user: Duration,
    /// Time on a processor in the kernel.
    pub system: Duration,
    /// Largest resident memory, KiB.
    pub max_rss_kib: u64,
}

/// A descriptor for a process. Either it is a child of ours that nobody has reaped, so that the number cannot belong to
/// somebody else; or whose it is has to be found out after this call, while [`has_ended`] says no.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1; it touches no memory of ours.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal to exactly this process; `ESRCH` once it is reaped.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: integers and a null siginfo, as pidfd_send_signal(2) allows.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::c_void>(), 0)
    })?;
    Ok(())
}

/// How the process ended, leaving it to be reaped; `None` while it lives.
///
/// # Real time
/// One system call that does not block.
pub fn exit_status(pidfd: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    Ok(wait(pidfd, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)?.map(|(status, _)| status))
}

/// Whether the process has ended, also when it is no child of ours.
///
/// # Real time
/// One system call that does not block.
pub fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [nix::poll::PollFd::new(pidfd, nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Reaps any child of this process that has ended; `None` when there is none.
///
/// # Errors
/// `ECHILD` without any child.
pub fn reap_any() -> io::Result<Option<(i32, ExitStatus)>> {
    Ok(wait_for(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG)?.map(|(pid, status, _)| (pid, status)))
}

/// Reaps the process; `None` while it lives.
pub fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<(ExitStatus, Usage)>> {
    wait(pidfd, libc::WEXITED | libc::WNOHANG)
}

fn wait(pidfd: BorrowedFd<'_>, options: i32) -> io::Result<Option<(ExitStatus, Usage)>> {
    Ok(wait_for(libc::P_PIDFD, pidfd.as_raw_fd(), options)?.map(|(_, status, usage)| (status, usage)))
}

fn wait_for(kind: libc::idtype_t, id: i32, options: i32) -> io::Result<Option<(i32, ExitStatus, Usage)>> {
    // SAFETY: both are plain structures for which all-zero is a valid value.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    // The system call has a fifth argument that the C library's waitid does not offer: the resource usage.
    // SAFETY: `info` and `usage` are valid and writable for the call.
    check(unsafe { libc::syscall(libc::SYS_waitid, kind, id, &raw mut info, options, &raw mut usage) })?;
    // SAFETY: waitid fills these fields (or leaves the zeros when there was nothing to report).
    let (pid, code, status) = unsafe { (info.si_pid(), info.si_code, info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let status = match code {
        libc::CLD_EXITED => ExitStatus::Code(status),
        libc::CLD_DUMPED => ExitStatus::Signal(status, true),
        _ => ExitStatus::Signal(status, false),
    };
    let time = |t: libc::timeval| {
        let micros = u32::try_from(t.tv_usec).unwrap_or(0).min(999_999);
        Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), micros * 1000)
    };
    let usage = Usage {
        user: time(usage.ru_utime),
        system: time(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    };
    Ok(Some((pid, status, usage)))
}

/// Which side of [`fork_into`] this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The caller; the process id of the new process.
    Parent(i32),
    /// The new process.
    Child,
}

/// Copies this process, straight into a cgroup (version 2) if one is given, as a child of *our parent*. The copy has
/// one thread.
///
/// Only for a process with a single thread: the copy may then use everything, allocation included.
///
/// # Errors
/// What the system refused. Kernels before 5.7 know no cgroup here: `E2BIG` or `EINVAL`.
pub fn fork_into(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000; // linux/sched.h, since 5.7
    #[repr(C)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
    let args = CloneArgs {
        flags: libc::CLONE_PARENT as u64 | into,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        // With CLONE_PARENT the exit signal is that of the caller.
        exit_signal: 0,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |fd| u64::try_from(fd.as_raw_fd()).unwrap_or(0)),
    };
    // SAFETY: neither CLONE_VM nor a stack is given, so the child gets its own copy of all memory and returns here on
    // its own copy of this stack, as after fork(2). The caller has one thread (documented above), so no lock can be
    // held by a thread that does not exist in the copy. `args` is valid for the size passed.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    Ok(if pid == 0 { Side::Child } else { Side::Parent(pid as i32) })
}

/// Sets the scheduling of the calling thread. With `reset_on_fork`, what it starts is ordinary again.
pub fn set_scheduler(policy: i32, priority: u8, reset_on_fork: bool) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: i32::from(priority) };
    let policy = policy | if reset_on_fork { libc::SCHED_RESET_ON_FORK } else { 0 };
    // SAFETY: `param` is valid for the call; pid 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, policy, &param) }.into())?;
    Ok(())
}

/// Sets the nice value of the calling process.
pub fn set_nice(nice: i8) -> io::Result<()> {
    // SAFETY: three integers.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, i32::from(nice)) }.into())?;
    Ok(())
}

/// Marks every descriptor from `first` on to be closed by exec.
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4; // linux/close_range.h, since 5.11
    // SAFETY: three integers.
    check(unsafe { libc::syscall(libc::SYS_close_range, first as u32, u32::MAX, CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}

/// A descriptor that this process was started with and that nothing else owns, from now on not for those it starts;
/// `None` when there is none of that number.
pub fn inherited(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: fcntl with integers touches no memory and refuses what is no descriptor.
    if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return None;
    }
    // SAFETY: it is open, as was just seen; whoever calls this was told its number by who left it open for that.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes a descriptor that was received and is owned by nobody.
pub fn close(fd: RawFd) {
    // SAFETY: the kernel has just made this descriptor for us (SCM_RIGHTS); nothing else knows its number.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// Ends the process at once: no destructor, no exit handler.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return and needs nothing.
    unsafe { libc::_exit(code) }
}

/// Gives every signal its default action and lets all of them through: what a new program may expect.
pub fn default_signals() {
    // SAFETY: called in a process with one thread, about to exec; `set` and `action` are valid plain structures.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        for signal in 1..=64 {
            // Refused for SIGKILL, SIGSTOP and what the C library keeps for itself.
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Ignores a signal in this process.
pub fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN is a valid disposition; no handler of ours is involved.
    unsafe {
        libc::signal(signal, libc::SIG_IGN);
    }
}

/// Restores the default action of SIGPIPE, so that a command line tool ends quietly when its reader is gone.
pub fn default_sigpipe() {
    // SAFETY: as above.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// Page faults of the calling thread so far, those that waited for a disk included.
///
/// # Real time
/// One system call that does not block.
pub fn thread_page_faults() -> u64 {
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid and writable for the call.
    if unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) } != 0 {
        return 0;
    }
    u64::try_from(usage.ru_minflt).unwrap_or(0) + u64::try_from(usage.ru_majflt).unwrap_or(0)
}

/// Touches 128 KiB of the calling thread's stack, so that later calls fault no page in.
#[inline(never)]
pub fn prefault_stack() {
    let mut block = [0u8; 128 * 1024];
    for page in block.chunks_mut(4096) {
        page[0] = std::hint::black_box(1);
    }
    std::hint::black_box(&block);
}

/// Fewer allocation arenas: each costs locked memory.
pub fn limit_malloc_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a documented option with a documented value; called before other threads exist.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// The thread id of the caller.
pub fn thread_id() -> i32 {
    // SAFETY: no argument, cannot fail.
    unsafe { libc::gettid() }
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_process_is_seen_alive_then_ended_then_reaped() {
        #[allow(clippy::zombie_processes, reason = "reaped below by its pidfd")]
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pidfd = pidfd_open(child.id() as i32).unwrap();
        assert_eq!(exit_status(pidfd.as_fd()).unwrap(), None);
        pidfd_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
        let mut fds = [nix::poll::PollFd::new(pidfd.as_fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).unwrap();
        assert_eq!(exit_status(pidfd.as_fd()).unwrap(), Some(ExitStatus::Signal(9, false)));
        let (status, usage) = reap(pidfd.as_fd()).unwrap().unwrap();
        assert_eq!(status, ExitStatus::Signal(9, false));
        assert!(usage.max_rss_kib > 0);
        assert!(pidfd_signal(pidfd.as_fd(), libc::SIGKILL).is_err(), "a reaped process takes no signal");
        drop(child.stdin.take());
    }
}
