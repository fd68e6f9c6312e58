//! The least that the machine needs for what multusd does, without any of multusd: a timer that wakes a real-time
//! thread, and a real-time thread that waits for a process to die and makes the next.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use multus_bench::board::{Board, Order, Slot};
use multus_bench::random::Random;
use multus_bench::sys::{become_fifo, pidfd_open};
use multus_ipc::MonoNs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::stats::ns_between;
use crate::world::Failure;

/// The priority of multusd's watch loop, unless configured otherwise.
const PRIORITY: u8 = 50;

/// Whether this user may have real-time priority.
pub(crate) fn is_realtime_allowed() -> bool {
    scope(|s| s.spawn(|| become_fifo(PRIORITY).is_ok()).join().unwrap_or(false))
}

/// So many wake-ups of a timer that is armed for an absolute time about 20 ms ahead: how late each was, ns.
pub(crate) fn timer(wakeups: u64, random: &mut Random) -> Result<Vec<f64>, Failure> {
    on_realtime_thread(|| {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).map_err(text)?;
        let mut late = Vec::with_capacity(usize::try_from(wakeups).unwrap_or(0));
        for _ in 0..wakeups {
            let at = MonoNs(MonoNs::now().0 + 15_000_000 + random.below(10_000_000));
            let alarm = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(at.0)));
            timer.set(alarm, TimerSetTimeFlags::TFD_TIMER_ABSTIME).map_err(text)?;
            timer.wait().map_err(text)?;
            late.push(ns_between(at.0, MonoNs::now().0));
        }
        Ok(late)
    })
}

/// One restart without multusd.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restart {
    /// From the death of a process to the first instruction of the next, ns.
    pub(crate) whole: f64,
    /// From posix_spawn to that first instruction, ns.
    pub(crate) spawn: f64,
}

/// So many restarts: a process kills itself, its parent is woken by the pidfd, reaps it and makes the next.
pub(crate) fn restarts(number: u64, program: &Path, board: &Board, slot: usize) -> Result<Vec<Restart>, Failure> {
    on_realtime_thread(|| {
        let place = board.slot(slot).ok_or("no such slot on the board")?;
        let spawner = Spawner::new(program, board, slot)?;
        let mut life = place.lives() + 1;
        let mut pid = spawner.spawn()?;
        wait_for_life(place, life)?;
        let mut measured = Vec::new();
        for _ in 0..number {
            let pidfd = pidfd_open(pid.as_raw()).map_err(|e| e.to_string())?;
            place.give(Order::Kill);
            let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(10_000u16)).map_err(text)? == 0 {
                return Err("the process did not die on order".to_owned());
            }
            waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED).map_err(text)?;
            let asked = MonoNs::now();
            pid = spawner.spawn()?;
            wait_for_life(place, life + 1)?;
            let (death, birth) = (place.life(life).end, place.life(life + 1).birth);
            life += 1;
            measured.push(Restart { whole: ns_between(death, birth), spawn: ns_between(asked.0, birth) });
        }
        let _ = kill(pid, Signal::SIGKILL);
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED).map_err(text)?;
        Ok(measured)
    })
}

#[derive(Debug)]
struct Spawner {
    program: CString,
    arguments: Vec<CString>,
    actions: PosixSpawnFileActions,
    attributes: PosixSpawnAttr,
}

impl Spawner {
    fn new(program: &Path, board: &Board, slot: usize) -> Result<Self, String> {
        let program = c_string(program.as_os_str().as_bytes())?;
        let mut arguments = vec![program.clone()];
        for argument in ["--board", &board.path(), "--slot", &slot.to_string(), "--every", "5000"] {
            arguments.push(c_string(argument.as_bytes())?);
        }
        let mut attributes = PosixSpawnAttr::init().map_err(text)?;
        // Its own session, as multusd's children have: the scheduler shares processors out by session.
        let session = libc::c_int::from(libc::POSIX_SPAWN_SETSID);
        attributes.set_flags(PosixSpawnFlags::from_bits_retain(session.try_into().unwrap_or(0))).map_err(text)?;
        Ok(Self { program, arguments, actions: PosixSpawnFileActions::init().map_err(text)?, attributes })
    }

    /// An ordinary process, although the caller is a real-time thread: see [`become_fifo`].
    fn spawn(&self) -> Result<Pid, String> {
        let environment: [CString; 0] = [];
        posix_spawn(self.program.as_c_str(), &self.actions, &self.attributes, &self.arguments, &environment)
            .map_err(text)
    }
}

/// Waits until this life beats, and some 20 ms more.
fn wait_for_life(place: Slot<'_>, life: u64) -> Result<(), String> {
    let limit = Instant::now() + Duration::from_secs(10);
    while place.last_beaten() < life {
        if Instant::now() > limit {
            return Err("the process made without multusd does not beat".to_owned());
        }
        sleep(Duration::from_millis(2));
    }
    sleep(Duration::from_millis(20));
    Ok(())
}

/// Runs `work` on a thread of its own with the priority of multusd's watch loop, or an ordinary one without the right.
fn on_realtime_thread<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, Failure> {
    let run = || {
        // Refused without the right; the report says so once, see `is_realtime_allowed`.
        let _ = become_fifo(PRIORITY);
        work()
    };
    scope(|s| s.spawn(run).join()).map_err(|_| "the thread of the floor panicked")?.map_err(Failure::from)
}

fn c_string(bytes: &[u8]) -> Result<CString, String> {
    CString::new(bytes).map_err(|e| e.to_string())
}

fn text(errno: nix::errno::Errno) -> String {
    errno.to_string()
}
