//! The two system calls of the benchmarks that no crate in the tree offers. The only `unsafe` of this crate.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Makes the calling thread a SCHED_FIFO thread. Processes it makes are ordinary ones.
///
/// # Errors
/// `EPERM` without the right to it.
pub fn become_fifo(priority: u8) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: i32::from(priority) };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: thread 0 is the caller; `param` is valid for the call, which only reads it.
    let rc = unsafe { libc::sched_setscheduler(0, policy, &param) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A descriptor that becomes readable when the process ends. `pid` must be a child of ours that is not reaped.
///
/// # Errors
/// What the system refused.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: two integers go in, a new descriptor or -1 comes out; no memory of ours is touched.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
