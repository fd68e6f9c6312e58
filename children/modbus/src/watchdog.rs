//! Communication loss: a master that does not write the watchdog register in time has lost its outputs. Pure; time since
//! any fixed moment is passed in.
//!
//! ```text
//!            timeout without a write: outputs are asked to be safe
//!   alive -----------------------------------------------------------> lost: outputs cannot be written
//!     ^                                                                 |
//!     +-----------------------------------------------------------------+
//!            the register is written: outputs can be written again, and stay safe until they are
//! ```
//! The time begins when the server starts: a master that never comes is lost, too.

use std::time::Duration;

/// The state of one watchdog register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watchdog {
    timeout: Duration,
    due: Duration,
    is_lost: bool,
    /// A loss that nobody has asked for yet.
    is_untold: bool,
    /// What was written last.
    value: u16,
}

impl Watchdog {
    /// Alive at `now`.
    pub(crate) fn new(timeout: Duration, now: Duration) -> Self {
        Self { timeout, due: now + timeout, is_lost: false, is_untold: false, value: 0 }
    }

    /// The register was written. `true`: the master was lost, even if nobody had noticed, and is back.
    pub(crate) fn feed(&mut self, value: u16, now: Duration) -> bool {
        self.turn(now);
        (self.value, self.due) = (value, now + self.timeout);
        std::mem::take(&mut self.is_lost)
    }

    /// Time goes on. Whether the master is lost now.
    pub(crate) fn turn(&mut self, now: Duration) -> bool {
        if now >= self.due && !self.is_lost {
            (self.is_lost, self.is_untold) = (true, true);
        }
        self.is_lost
    }

    /// `true`, once for each loss.
    pub(crate) fn take_loss(&mut self) -> bool {
        std::mem::take(&mut self.is_untold)
    }

    /// When [`Self::turn`] is to be called next; `None` while it is lost.
    pub(crate) fn due(&self) -> Option<Duration> {
        (!self.is_lost).then_some(self.due)
    }

    /// Whether the master is lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// What was written last; 0 at first.
    pub(crate) fn value(&self) -> u16 {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_loss_and_a_write_ends_it() {
        let s = Duration::from_secs;
        let mut watchdog = Watchdog::new(s(5), s(100));
        assert!(!watchdog.turn(s(104)) && !watchdog.feed(7, s(104)));
        assert_eq!((watchdog.due(), watchdog.value()), (Some(s(109)), 7));
        assert!(!watchdog.turn(s(108)) && !watchdog.take_loss());
        assert!(watchdog.turn(s(109)) && watchdog.turn(s(110)));
        assert!(watchdog.take_loss() && !watchdog.take_loss(), "told once");
        assert!(watchdog.is_lost() && watchdog.due().is_none());
        assert!(watchdog.feed(7, s(120)), "the same value counts, too");
        assert!(!watchdog.is_lost() && !watchdog.turn(s(124)) && watchdog.turn(s(125)));
        let mut never = Watchdog::new(s(5), s(0));
        assert!(never.turn(s(5)), "a master that never comes is lost, too");
    }

    #[test]
    fn a_write_after_the_time_does_not_hide_the_loss() {
        let s = Duration::from_secs;
        let mut watchdog = Watchdog::new(s(5), s(0));
        assert!(watchdog.feed(1, s(5)) && !watchdog.is_lost() && watchdog.take_loss());
        assert!(!watchdog.feed(1, s(9)) && !watchdog.take_loss());
    }
}
