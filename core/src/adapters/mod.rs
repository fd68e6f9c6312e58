//! Heartbeats of programs that know nothing of multusd: what they say in their own way becomes beats in the same kind of
//! page that others write themselves, so that the watch loop sees no difference.
//!
//! One thread, just below the launcher in priority, bounded in what it does for one child before it turns to the next.
//! It is watched by the core like every other helper.
//!
//! A child with `method = "notify"` finds a datagram socket of its own in `NOTIFY_SOCKET`, as from systemd. A datagram
//! counts when its sender (as the kernel vouches) is the child's process or a descendant of it; a sender that has
//! ended already (`systemd-notify` does) counts when it was of the child's user.

pub mod notify;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use multus_ipc::MonoNs;
use multus_ipc::child::{Heartbeat, Lane};
use multus_supervisor::Told;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, bind, recvmsg, setsockopt, socket,
    sockopt,
};

use crate::sys;
use crate::wake::Wake;
use notify::Notice;

/// From the control thread: which slots are fed.
#[derive(Debug)]
pub enum Setup {
    /// This slot's socket.
    Feed { slot: usize, name: String, socket: OwnedFd },
    /// The slot is free.
    Drop { slot: usize },
}

/// From the launcher: which process is behind a slot.
#[derive(Debug)]
pub enum Attach {
    /// A process is about to be made; this is the page that its notices are written to.
    Page { slot: usize, generation: u32, page: OwnedFd },
    /// It exists.
    Process { slot: usize, generation: u32, pid: i32 },
}

/// To the watch thread: what is no beat.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Its slot.
    pub slot: usize,
    /// Its generation.
    pub generation: u32,
    /// What it said.
    pub told: Told,
}

/// To the control thread: what the status shows.
#[derive(Clone, Debug)]
pub struct Text {
    /// Its slot.
    pub slot: usize,
    /// What the program says of itself; empty for a new process.
    pub text: String,
}

/// The ends of the rings that the adapters thread holds, and what it shares.
#[derive(Debug)]
pub struct Ends {
    /// From the control thread.
    pub setups: rtrb::Consumer<Setup>,
    /// From the launcher.
    pub attached: rtrb::Consumer<Attach>,
    /// To the watch thread.
    pub reports: rtrb::Producer<Report>,
    /// To the control thread.
    pub texts: rtrb::Producer<Text>,
    /// Wakes this thread.
    pub wake: Arc<Wake>,
    /// Wakes the watch thread.
    pub wake_watch: Arc<Wake>,
    /// SCHED_FIFO priority of this thread.
    pub priority: Option<u8>,
    /// The thread's own heartbeat.
    pub lane: Lane,
}

const WAKE: Token = Token(usize::MAX);
const IDLE: Duration = Duration::from_millis(500);
/// Datagrams that are taken from one child in one turn; who sends more waits for the next.
const BATCH: usize = 32;
/// From one turn to the next for a child that sends more than a batch: bounds what a flood can take of a processor.
const FLOOD_PAUSE: Duration = Duration::from_millis(1);
/// Generations of parents that are asked whether a sender belongs to a child.
const MAX_DEPTH: usize = 32;

struct Feed {
    name: String,
    socket: OwnedFd,
    generation: u32,
    heartbeat: Heartbeat,
    process: Option<Process>,
    /// Nothing is read before this time.
    paused_until: MonoNs,
    refused: u64,
}

struct Process {
    pid: i32,
    uid: u32,
    /// The descendant that was accepted last.
    known: i32,
}

/// Works until `end` is set.
///
/// # Errors
/// The poll could not be made.
pub fn run(mut ends: Ends, end: &std::sync::atomic::AtomicBool) -> io::Result<()> {
    if let Some(priority) = ends.priority {
        // Refused only where the watch thread is refused too, which is said there.
        let _ = sys::set_scheduler(libc::SCHED_FIFO, priority, true);
    }
    let mut poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&ends.wake.raw()), WAKE, Interest::READABLE)?;
    let mut events = Events::with_capacity(128);
    let mut feeds: BTreeMap<usize, Feed> = BTreeMap::new();
    let mut flooded = false;
    while !end.load(std::sync::atomic::Ordering::Relaxed) {
        match poll.poll(&mut events, Some(if flooded { FLOOD_PAUSE } else { IDLE })) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        ends.lane.beat();
        ends.wake.drain();
        while let Ok(setup) = ends.setups.pop() {
            set_up(&mut feeds, setup, &poll);
        }
        while let Ok(attach) = ends.attached.pop() {
            attached(&mut feeds, attach, &mut ends);
        }
        let now = MonoNs::now();
        flooded = false;
        let mut told = false;
        for (slot, feed) in &mut feeds {
            if feed.process.is_none() || now < feed.paused_until {
                flooded |= feed.process.is_some();
                continue;
            }
            let (more, any) = feed.read(*slot, &mut ends);
            told |= any;
            if more {
                feed.paused_until = now.after(FLOOD_PAUSE);
                flooded = true;
            }
        }
        if told {
            ends.wake_watch.wake();
        }
    }
    Ok(())
}

fn set_up(feeds: &mut BTreeMap<usize, Feed>, setup: Setup, poll: &Poll) {
    match setup {
        Setup::Feed { slot, name, socket } => {
            let fd = socket.as_raw_fd();
            if let Err(error) = poll.registry().register(&mut SourceFd(&fd), Token(slot), Interest::READABLE) {
                // Still read twice a second, with every turn.
                log::warn!("{name}: its notify socket cannot be polled: {error}");
            }
            let feed = Feed {
                name,
                socket,
                generation: 0,
                heartbeat: Heartbeat::inert(),
                process: None,
                paused_until: MonoNs(0),
                refused: 0,
            };
            feeds.insert(slot, feed);
        }
        Setup::Drop { slot } => {
            if let Some(feed) = feeds.remove(&slot) {
                let _ = poll.registry().deregister(&mut SourceFd(&feed.socket.as_raw_fd()));
            }
        }
    }
}

fn attached(feeds: &mut BTreeMap<usize, Feed>, attach: Attach, ends: &mut Ends) {
    match attach {
        Attach::Page { slot, generation, page } => {
            let Some(feed) = feeds.get_mut(&slot) else { return };
            feed.process = None;
            feed.generation = generation;
            feed.discard();
            match Heartbeat::from_fd(page) {
                Ok(heartbeat) => feed.heartbeat = heartbeat,
                Err(error) => log::error!("{}: its heartbeat page cannot be mapped: {error}", feed.name),
            }
            let _ = ends.texts.push(Text { slot, text: String::new() });
        }
        Attach::Process { slot, generation, pid } => {
            if let Some(feed) = feeds.get_mut(&slot).filter(|f| f.generation == generation) {
                let uid = fs::metadata(format!("/proc/{pid}")).map_or(0, |m| std::os::unix::fs::MetadataExt::uid(&m));
                feed.process = Some(Process { pid, uid, known: pid });
            }
        }
    }
}

impl Feed {
    /// Takes one batch: whether there is more, and whether the watch thread was told something.
    fn read(&mut self, slot: usize, ends: &mut Ends) -> (bool, bool) {
        let mut told = false;
        for _ in 0..BATCH {
            let mut buffer = [0u8; notify::MAX_DATAGRAM];
            match receive(&self.socket, &mut buffer) {
                Ok((length, sender)) => {
                    if self.accepts(sender) {
                        for notice in notify::parse(&buffer[..length]) {
                            told |= self.take(slot, notice, ends);
                        }
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return (false, told),
            }
        }
        (true, told)
    }

    fn take(&mut self, slot: usize, notice: Notice, ends: &mut Ends) -> bool {
        let told = match notice {
            Notice::Ready => {
                self.heartbeat.ready();
                return false;
            }
            Notice::Beat => {
                self.heartbeat.beat();
                return false;
            }
            Notice::Status(text) => {
                // A control thread that lags behind misses an old text, nothing else.
                let _ = ends.texts.push(Text { slot, text });
                return false;
            }
            Notice::Reloading => {
                let _ = ends.texts.push(Text { slot, text: "reloading".into() });
                return false;
            }
            Notice::Errno(errno) => {
                let _ = ends.texts.push(Text { slot, text: format!("error: {}", Errno::from_raw(errno).desc()) });
                return false;
            }
            Notice::Trigger => Told::Trigger,
            Notice::Deadline(us) => Told::Deadline(us.saturating_mul(1000)),
            Notice::Extend(us) => Told::Extend(us.saturating_mul(1000)),
            Notice::Stopping => Told::Stopping,
        };
        let generation = self.generation;
        ends.reports.push(Report { slot, generation, told }).is_ok()
    }

    /// Whether a sender speaks for this child.
    fn accepts(&mut self, sender: Option<(i32, u32)>) -> bool {
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
                log::warn!("{}: {} notices of processes that are not its own were refused", self.name, self.refused);
            }
        }
        accepted
    }

    /// What an earlier process left in the socket is not the new one's.
    fn discard(&self) {
        let mut buffer = [0u8; 16];
        for _ in 0..1024 {
            if receive(&self.socket, &mut buffer).is_err() {
                return;
            }
        }
    }
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
pub fn notify_socket(path: &PathBuf) -> io::Result<OwnedFd> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let socket =
        socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
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
