//! When each slot next needs attention: two arrays and a minimum.
//!
//! A timer per slot instead of a heap or a wheel: a thousand slots are scanned in about a microsecond, and nothing can
//! be forgotten in a queue. Each slot has two times: `at`, when something *must* be decided (the timer is armed for
//! the earliest of these), and `early`, from when on a look is worth while. Whoever is awake anyway looks at every
//! slot whose `early` has passed; a child that has beaten meanwhile gets its later `at`, so that a thousand children
//! share a few wake-ups. Looking early never decides anything: verdicts are given at `at` or later.

use multus_ipc::MonoNs;

/// The times of all slots.
#[derive(Clone, Debug)]
pub struct Deadlines {
    at: Vec<u64>,
    early: Vec<u64>,
}

impl Deadlines {
    /// Times for `slots` slots, all [`MonoNs::NEVER`]. The only allocation.
    pub fn new(slots: usize) -> Self {
        Self { at: vec![u64::MAX; slots], early: vec![u64::MAX; slots] }
    }

    /// Sets both times of a slot.
    ///
    /// # Real time
    /// O(1).
    pub fn set(&mut self, slot: usize, early: MonoNs, at: MonoNs) {
        self.at[slot] = at.0;
        self.early[slot] = early.0.min(at.0);
    }

    /// The earliest `at`.
    ///
    /// # Real time
    /// O(slots), a vector minimum.
    pub fn next(&self) -> MonoNs {
        MonoNs(self.at.iter().copied().min().unwrap_or(u64::MAX))
    }

    /// The first slot from `from` on whose `early` has passed.
    ///
    /// # Real time
    /// O(slots) for a whole round.
    pub fn first_due(&self, from: usize, now: MonoNs) -> Option<usize> {
        self.early[from..].iter().position(|early| *early <= now.0).map(|i| from + i)
    }

    /// `at` of a slot.
    pub fn at(&self, slot: usize) -> MonoNs {
        MonoNs(self.at[slot])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_is_armed_for_what_must_be_decided_and_looks_are_early() {
        let mut d = Deadlines::new(3);
        assert_eq!(d.next(), MonoNs::NEVER);
        d.set(0, MonoNs(75), MonoNs(100));
        d.set(2, MonoNs(110), MonoNs(140));
        assert_eq!(d.next(), MonoNs(100));
        assert_eq!(d.first_due(0, MonoNs(74)), None);
        assert_eq!(d.first_due(0, MonoNs(110)), Some(0));
        assert_eq!(d.first_due(1, MonoNs(110)), Some(2));
        d.set(0, MonoNs::NEVER, MonoNs(5));
        assert_eq!(d.first_due(0, MonoNs(5)), Some(0), "early is never later than at");
    }
}
