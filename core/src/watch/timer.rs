//! The timer: absolute CLOCK_MONOTONIC times, nothing rounded.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use multus_ipc::MonoNs;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

#[derive(Debug)]
pub(super) struct Timer {
    fd: TimerFd,
    armed: MonoNs,
}

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self { fd: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?, armed: MonoNs::NEVER })
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_fd().as_raw_fd()
    }

    /// Fires at `at`, or at once when that has passed.
    ///
    /// # Real time
    /// At most one system call.
    pub(super) fn arm(&mut self, at: MonoNs) {
        if at == self.armed {
            return;
        }
        self.armed = at;
        // Zero would disarm. Beyond 292 years the kernel's own clock ends.
        let ns = i64::try_from(at.0.max(1)).unwrap_or(i64::MAX);
        let time = TimeSpec::new(ns / 1_000_000_000, ns % 1_000_000_000);
        // Fails only for values out of range, which the line above excludes.
        let _ = self.fd.set(Expiration::OneShot(time), TimerSetTimeFlags::TFD_TIMER_ABSTIME);
    }

    /// Takes the expiration in, so that the next one is an event again; the time it was armed for, if that had a
    /// meaning (not "at once").
    pub(super) fn fired(&mut self) -> Option<MonoNs> {
        let armed = std::mem::replace(&mut self.armed, MonoNs::NEVER);
        let read = nix::unistd::read(self.fd.as_fd(), &mut [0u8; 8]);
        (read.is_ok() && armed.0 > 1 && armed != MonoNs::NEVER).then_some(armed)
    }
}
