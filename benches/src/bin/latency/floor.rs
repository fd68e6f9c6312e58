//! The least that the machine needs for what multusd does, without any of multusd: a timer that wakes a real-time
//! thread, and a real-time thread that waits for a process to die and makes the next.

use std::os::fd::AsFd;
use std::path::Path;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use multus_bench::board::{Board, Order, Slot};
use multus_bench::random::Random;
use multus_bench::sys::{become_fifo, pidfd_open};
use multus_ipc::MonoNs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::wait::{Id, WaitPidFlag, waitid};

use crate::process::{self, Program};
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
        let (path, number_of_slot) = (board.path(), slot.to_string());
        let arguments = ["--board", &path, "--slot", &number_of_slot, "--every", "5000"];
        let program = Program::new(program, &arguments)?;
        let first = place.lives() + 1;
        let mut pid = program.spawn().map_err(text)?;
        wait_for_life(place, first)?;
        let mut measured = Vec::new();
        for life in first..first + number {
            let pidfd = pidfd_open(pid.as_raw()).map_err(|e| e.to_string())?;
            place.give(Order::Kill);
            let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(10_000u16)).map_err(text)? == 0 {
                return Err("the process did not die on order".to_owned());
            }
            waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED).map_err(text)?;
            let asked = MonoNs::now();
            pid = program.spawn().map_err(text)?;
            wait_for_life(place, life + 1)?;
            let (death, birth) = (place.life(life).end, place.life(life + 1).birth);
            measured.push(Restart { whole: ns_between(death, birth), spawn: ns_between(asked.0, birth) });
        }
        process::end(pid, Signal::SIGKILL);
        Ok(measured)
    })
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

fn text(errno: nix::errno::Errno) -> String {
    errno.to_string()
}
