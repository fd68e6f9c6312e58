//! Waking a thread that polls: an event descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes one thread.
#[derive(Debug)]
pub struct Wake(EventFd);

impl Wake {
    /// A new one.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?))
    }

    /// Makes the descriptor readable.
    ///
    /// # Real time
    /// One system call that does not block: a counter that is full is readable already.
    pub fn wake(&self) {
        let _ = self.0.write(1);
    }

    /// Makes it unreadable again. Call before looking for work, so that no wake-up is lost.
    ///
    /// # Real time
    /// One system call that does not block.
    pub fn drain(&self) {
        let _ = nix::unistd::read(self.0.as_fd(), &mut [0u8; 8]);
    }

    /// For registering with a poll.
    pub fn raw(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
