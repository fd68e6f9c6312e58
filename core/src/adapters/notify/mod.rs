//! Beats by sd_notify(3): a datagram socket for each child, whose path is in `NOTIFY_SOCKET`, as from systemd.
//!
//! A datagram counts when its sender (as the kernel vouches) is the child's process or a descendant of it; a sender that
//! has ended already (`systemd-notify` does) counts when it was of the child's user.

pub mod words;

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use multus_ipc::MonoNs;
use multus_ipc::child::Heartbeat;
use multus_supervisor::Told;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, bind, recvmsg, setsockopt, sockopt,
};
use nix::unistd::Pid;

use crate::sys;
use words::Notice;

use super::Main;
use crate::launcher::plan::NotifyAddress;
use crate::launcher::{Group, orphans};

/// Datagrams that are taken from one child in one turn; who sends more waits for the next.
const BATCH: usize = 32;
/// How long a new abstract socket waits for the old one of that name to be closed.
const NAME_PATIENCE: Duration = Duration::from_millis(500);

/// What a datagram says beside beats.
pub(super) enum Said {
    /// For the watch thread.
    Told(Told),
    /// For people.
    Text(String),
    /// For the watch thread and the launcher: the main process is another one.
    Main(Main),
}

/// The socket of one child.
pub(super) struct Socket {
    socket: OwnedFd,
    process: Option<Process>,
    refused: u64,
    refused_mains: u64,
    /// There was no room to tell of it.
    unsent: Option<Main>,
}

struct Process {
    pid: i32,
    uid: u32,
    /// The descendant that was accepted last.
    known: i32,
    /// Its main process, if it may name one; `None`: somebody else follows that.
    main: Option<i32>,
    groups: Arc<(Group, Group)>,
}

impl Socket {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, process: None, refused: 0, refused_mains: 0, unsent: None }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// A new process is about to be made: what an earlier one left in the socket is not the new one's.
    pub(super) fn forget(&mut self) {
        self.process = None;
        self.unsent = None;
        let mut buffer = [0u8; 16];
        for _ in 0..1024 {
            if receive(&self.socket, &mut buffer).is_err() {
                return;
            }
        }
    }

    /// The process exists.
    pub(super) fn attach(&mut self, pid: i32, names_main: bool, groups: Arc<(Group, Group)>) {
        let uid = fs::metadata(format!("/proc/{pid}")).map_or(0, |data| data.uid());
        self.process = Some(Process { pid, uid, known: pid, main: names_main.then_some(pid), groups });
    }

    /// Whether there is a process to listen to.
    pub(super) fn is_attached(&self) -> bool {
        self.process.is_some()
    }

    /// Takes one batch; true when there is more. `say` gives back what there was no room for.
    pub(super) fn read(
        &mut self,
        name: &str,
        heartbeat: &Heartbeat,
        say: &mut dyn FnMut(Said) -> Result<(), Said>,
    ) -> bool {
        if let Some(main) = self.unsent.take()
            && let Err(Said::Main(main)) = say(Said::Main(main))
        {
            self.unsent = Some(main);
            return true;
        }
        for _ in 0..BATCH {
            let mut buffer = [0u8; words::MAX_DATAGRAM];
            match receive(&self.socket, &mut buffer) {
                Ok((length, sender)) => {
                    if self.accepts(name, sender) {
                        for notice in words::parse(&buffer[..length]) {
                            let said = match notice {
                                Notice::MainPid(pid) => self.main(name, pid).map(Said::Main),
                                notice => take(notice, heartbeat),
                            };
                            if let Some(Err(Said::Main(main))) = said.map(&mut *say) {
                                self.unsent = Some(main);
                            }
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
            Some((pid, uid)) => match process.owns(name, pid) {
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
                let (count, notices) = (self.refused, if self.refused == 1 { "notice" } else { "notices" });
                log::warn!("{name}: refused {count} {notices} of processes that are not its own");
            }
        }
        accepted
    }
}

impl Socket {
    /// The process that it calls its main process, if that is another one than before and one of its own.
    fn main(&mut self, name: &str, wanted: Option<i32>) -> Option<Main> {
        let process = self.process.as_mut()?;
        let before = process.main?;
        if wanted == Some(before) {
            return None;
        }
        // First the descriptor, then the look at the number: if that passed on to another process meanwhile, the
        // descriptor tells.
        let opened = wanted.and_then(|pid| Some((pid, sys::pidfd_open(pid).ok()?)));
        let own = opened.filter(|(pid, fd)| process.owns(name, *pid) == Some(true) && !sys::has_ended(fd.as_fd()));
        if let Some((pid, pidfd)) = own
            && let Ok(for_launcher) = pidfd.try_clone()
        {
            process.main = Some(pid);
            log::info!("{name}: its main process is {pid} (MAINPID)");
            return Some(Main { pid, pidfd, for_launcher });
        }
        self.refused_mains += 1;
        if self.refused_mains.is_power_of_two() {
            let what = wanted.map_or_else(|| "no process id".to_owned(), |pid| format!("process {pid}, not its own"));
            log::warn!("{name}: MAINPID names {what}; refused, {} times so far", self.refused_mains);
        }
        None
    }
}

impl Process {
    /// Whether a process is one of this child: a descendant, in its cgroup, in its session, or, after its parents have
    /// ended, adopted by the daemon. `None` when it has ended.
    fn owns(&self, name: &str, pid: i32) -> Option<bool> {
        if pid == self.pid || orphans::descends(pid, self.pid)? {
            return Some(true);
        }
        // The session has the number of the first process, which is not reaped while there is this socket for it.
        let session = nix::unistd::getsid(Some(Pid::from_raw(pid))).is_ok_and(|session| session.as_raw() == self.pid);
        if session || self.groups.0.exists() {
            return Some(session || self.groups.0.members().contains(&pid));
        }
        // The mark in its environment is its own word, so it must at least be of the same user.
        let same_user = fs::metadata(format!("/proc/{pid}")).is_ok_and(|data| data.uid() == self.uid);
        Some(same_user && orphans::is_adopted(pid, name))
    }
}

fn take(notice: Notice, heartbeat: &Heartbeat) -> Option<Said> {
    Some(match notice {
        Notice::Ready => {
            heartbeat.ready();
            return None;
        }
        Notice::Beat => {
            heartbeat.beat();
            return None;
        }
        Notice::MainPid(_) => return None,
        Notice::Status(text) => Said::Text(text),
        Notice::Reloading => Said::Text("reloading".into()),
        Notice::Errno(errno) => Said::Text(format!("error: {}", Errno::from_raw(errno).desc())),
        Notice::Trigger => Said::Told(Told::Trigger),
        Notice::Deadline(us) => Said::Told(Told::Deadline(us.saturating_mul(1000))),
        Notice::Extend(us) => Said::Told(Told::Extend(us.saturating_mul(1000))),
        Notice::Stopping => Said::Told(Told::Stopping),
    })
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

/// Makes the notify socket of an instance; anybody may send, what counts is decided by credentials. May wait a moment
/// for one of the same name to be closed.
///
/// # Errors
/// What the system refused.
pub fn socket(address: &NotifyAddress) -> io::Result<OwnedFd> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = nix::sys::socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    match address {
        NotifyAddress::Path(path) => {
            if let Some(dir) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o711).create(dir)?;
            }
            let _ = fs::remove_file(path);
            bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        }
        NotifyAddress::Abstract(name) => {
            let address = UnixAddr::new_abstract(name.as_bytes())?;
            let begun = MonoNs::now();
            while let Err(errno) = bind(socket.as_raw_fd(), &address) {
                if errno != Errno::EADDRINUSE || MonoNs::now().since(begun) > NAME_PATIENCE {
                    return Err(errno.into());
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
    }
    setsockopt(&socket, sockopt::PassCred, &true)?;
    Ok(socket)
}
