//! Processes that the harness makes itself: each in its own session, as multusd's children are. The scheduler shares
//! processors out by session, so that the load must not sit in the one in which a floor is measured.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// A program with its arguments, ready to be made a process any number of times.
#[derive(Debug)]
pub(crate) struct Program {
    path: CString,
    arguments: Vec<CString>,
    actions: PosixSpawnFileActions,
    attributes: PosixSpawnAttr,
}

impl Program {
    pub(crate) fn new(path: &Path, arguments: &[&str]) -> Result<Self, String> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(|e| e.to_string());
        let path = text(path.as_os_str().as_bytes())?;
        let mut all = vec![path.clone()];
        for argument in arguments {
            all.push(text(argument.as_bytes())?);
        }
        let new = || -> Result<Self, Errno> {
            let mut attributes = PosixSpawnAttr::init()?;
            attributes.set_flags(PosixSpawnFlags::from_bits_retain(OWN_SESSION))?;
            Ok(Self { path, arguments: all, actions: PosixSpawnFileActions::init()?, attributes })
        };
        new().map_err(|errno| errno.to_string())
    }

    /// Makes a process, with an empty environment.
    pub(crate) fn spawn(&self) -> Result<Pid, Errno> {
        let environment: [CString; 0] = [];
        posix_spawn(self.path.as_c_str(), &self.actions, &self.attributes, &self.arguments, &environment)
    }
}

/// Asks a process of ours to end, and waits until it has.
pub(crate) fn end(pid: Pid, signal: Signal) {
    // Refused only when it has ended already, which the wait finds out.
    let _ = kill(pid, signal);
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED) == Err(Errno::EINTR) {}
}

const OWN_SESSION: i32 = libc::POSIX_SPAWN_SETSID as i32;
