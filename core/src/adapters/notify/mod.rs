//! Beats by sd_notify(3): a datagram socket for each child, whose path is in `NOTIFY_SOCKET`, as from systemd.
//!
//! A datagram counts when its sender (as the kernel vouches) is the child's process or a descendant of it; a sender that
//! has ended already (`systemd-notify` does) counts when it was of the child's user.

pub mod words;

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use multus_ipc::child::Heartbeat;
use multus_supervisor::Told;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, bind, recvmsg, setsockopt, sockopt,
};

use crate::sys;
use words::Notice;

/// Datagrams that are taken from one child in one turn; who sends more waits for the next.
const BATCH: usize = 32;
/// Generations of parents that are asked whether a sender belongs to a child.
const MAX_DEPTH: usize = 32;

/// What a datagram says beside beats.
pub(super) enum Said {
    /// For the watch thread.
    Told(Told),
    /// For people.
    Text(String),
}

/// The socket of one child.
pub(super) struct Socket {
    socket: OwnedFd,
    process: Option<Process>,
    refused: u64,
}

struct Process {
    pid: i32,
    uid: u32,
    /// The descendant that was accepted last.
    known: i32,
}

impl Socket {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, process: None, refused: 0 }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// A new process is about to be made: what an earlier one left in the socket is not the new one's.
    pub(super) fn forget(&mut self) {
        self.process = None;
        let mut buffer = [0u8; 16];
        for _ in 0..1024 {
            if receive(&self.socket, &mut buffer).is_err() {
                return;
            }
        }
    }

    /// The process exists.
    pub(super) fn attach(&mut self, pid: i32) {
        let uid = fs::metadata(format!("/proc/{pid}")).map_or(0, |m| std::os::unix::fs::MetadataExt::uid(&m));
        self.process = Some(Process { pid, uid, known: pid });
    }

    /// Whether there is a process to listen to.
    pub(super) fn is_attached(&self) -> bool {
        self.process.is_some()
    }

    /// Takes one batch; true when there is more.
    pub(super) fn read(&mut self, name: &str, heartbeat: &Heartbeat, say: &mut dyn FnMut(Said)) -> bool {
        for _ in 0..BATCH {
            let mut buffer = [0u8; words::MAX_DATAGRAM];
            match receive(&self.socket, &mut buffer) {
                Ok((length, sender)) => {
                    if self.accepts(name, sender) {
                        for notice in words::parse(&buffer[..length]) {
                            take(notice, heartbeat, say);
                        }
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Whether a sender speaks for this child.
    fn accepts(&mut self, name: &str, sender: Option<(i32, u32)>) -> bool {
        let Some(process) = &mut self.process else { return false };
        let accepted = match sender {
            None => false,
            Some((pid, _)) if pid == process.pid || pid == process.known => true,
            Some((pid, uid)) => match descends(pid, process.pid) {
                Some(true) => {
                    process.known = pid;
                    true
                }
                Some(false) => false,
                None => uid == process.uid,
            },
        };
        if !accepted {
            self.refused += 1;
            if self.refused.is_power_of_two() {
                log::warn!("{name}: {} notices of processes that are not its own were refused", self.refused);
            }
        }
        accepted
    }
}

fn take(notice: Notice, heartbeat: &Heartbeat, say: &mut dyn FnMut(Said)) {
    say(match notice {
        Notice::Ready => return heartbeat.ready(),
        Notice::Beat => return heartbeat.beat(),
        Notice::Status(text) => Said::Text(text),
        Notice::Reloading => Said::Text("reloading".into()),
        Notice::Errno(errno) => Said::Text(format!("error: {}", Errno::from_raw(errno).desc())),
        Notice::Trigger => Said::Told(Told::Trigger),
        Notice::Deadline(us) => Said::Told(Told::Deadline(us.saturating_mul(1000))),
        Notice::Extend(us) => Said::Told(Told::Extend(us.saturating_mul(1000))),
        Notice::Stopping => Said::Told(Told::Stopping),
    });
}

/// One datagram: its length, and process and user of its sender. Descriptors that came along (`BARRIER=1`) are closed,
/// which is what the sender waits for.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<(usize, Option<(i32, u32)>), Errno> {
    let mut space = nix::cmsg_space!(libc::ucred, [i32; 16]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut sender = None;
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::ScmCredentials(credentials) => {
                sender = Some((credentials.pid(), credentials.uid()));
            }
            ControlMessageOwned::ScmRights(fds) => {
                for fd in fds {
                    sys::close(fd);
                }
            }
            _ => {}
        }
    }
    Ok((message.bytes, sender))
}

/// Whether `pid` is a descendant of `ancestor`; `None` when it has ended.
fn descends(pid: i32, ancestor: i32) -> Option<bool> {
    let mut at = pid;
    for depth in 0..MAX_DEPTH {
        let Ok(stat) = fs::read_to_string(format!("/proc/{at}/stat")) else {
            return if depth == 0 { None } else { Some(false) };
        };
        // The name in parentheses may hold anything; the parent is the second field after it.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<i32>().ok())?;
        if parent == ancestor {
            return Some(true);
        }
        if parent <= 1 {
            return Some(false);
        }
        at = parent;
    }
    Some(false)
}

/// Makes the notify socket of an instance, at `path`; anybody may send, what counts is decided by credentials.
///
/// # Errors
/// What the system refused.
pub fn socket(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = nix::sys::socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o711).create(dir)?;
    }
    let _ = fs::remove_file(path);
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    setsockopt(&socket, sockopt::PassCred, &true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parentage_is_told_from_proc() {
        let own = std::process::id() as i32;
        let parent = nix::unistd::getppid().as_raw();
        assert_eq!(descends(own, parent), Some(true));
        assert_eq!(descends(parent, own), Some(false));
        assert_eq!(descends(i32::MAX, own), None);
    }
}
