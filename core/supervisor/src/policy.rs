//! What the supervisor needs to know of the configuration: plain numbers of a fixed size, durations in ns.

use multus_ipc::words::EventKind;

/// A list of at most `N` values, without allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List<T, const N: usize> {
    items: [T; N],
    len: usize,
}

impl<T: Copy + Default, const N: usize> List<T, N> {
    /// An empty list.
    pub fn new() -> Self {
        Self { items: [T::default(); N], len: 0 }
    }

    /// Appends `item`.
    ///
    /// # Errors
    /// Gives the item back when the list is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        let Some(place) = self.items.get_mut(self.len) else { return Err(item) };
        *place = item;
        self.len += 1;
        Ok(())
    }

    /// The items.
    pub fn as_slice(&self) -> &[T] {
        &self.items[..self.len]
    }
}

impl<T: Copy + Default, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy + Default, const N: usize> FromIterator<T> for List<T, N> {
    /// Takes the first `N`; who may have more checks before.
    fn from_iter<I: IntoIterator<Item = T>>(iter: I) -> Self {
        let mut list = Self::new();
        for item in iter {
            if list.push(item).is_err() {
                break;
            }
        }
        list
    }
}

/// Restart delays that fit.
pub const MAX_DELAYS: usize = 16;
/// `after` edges that fit, instances counted one by one.
pub const MAX_EDGES: usize = 32;

/// How beats are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beats {
    /// Longest time between two beats; at least 1 ms.
    pub deadline_ns: u64,
    /// Shortest time between two beats on average; 0 for no limit.
    pub min_interval_ns: u64,
    /// Silence of this length is told and looked into; 0 for none.
    pub warn_ns: u64,
}

/// The periodic check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// From one result to the next run.
    pub interval_ns: u64,
    /// From ready to the first run.
    pub start_period_ns: u64,
    /// Failures in a row that make a fault; at least 1.
    pub failures: u16,
}

/// What happens to a dependant when the one it needs is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EdgePolicy {
    /// It is stopped too, and starts when the other is ready again.
    Restart,
    /// It runs on; when it starts itself, it waits for the other.
    #[default]
    Wait,
    /// It runs on, and waits for the other only until that was ready once.
    Ignore,
}

/// One entry of `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Edge {
    /// Slot of the child that must be ready first.
    pub slot: u16,
    /// What its restart means.
    pub on_restart: EdgePolicy,
}

/// How one child instance is supervised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether it is to be started at all.
    pub enabled: bool,
    /// How its beats are judged; `None`: it does not beat, and is ready when its program is executed.
    pub beats: Option<Beats>,
    /// From the start to ready.
    pub startup_ns: u64,
    /// Waits before the 1st, 2nd, ... restart in a row; the last repeats. Empty counts as one zero.
    pub delays: List<u64, MAX_DELAYS>,
    /// Running this long makes failures forgotten.
    pub forget_after_ns: u64,
    /// Failures in a row that make it `degraded`; at least 1.
    pub degraded_after: u16,
    /// Longest time between safe outputs and kill that is spent on evidence.
    pub evidence_budget_ns: u64,
    /// From the stop signal to SIGKILL.
    pub stop_timeout_ns: u64,
    /// There is a safe-state command, which may take this long; 0 for none.
    pub safe_command_ns: u64,
    /// There is an `after_stop` hook, which may take this long; 0 for none.
    pub after_stop_ns: u64,
    /// There is an `after_start` hook.
    pub after_start: bool,
    /// Interval of the `periodic` hook; 0 for none.
    pub periodic_ns: u64,
    /// Its checkpoints.
    pub checkpoints: crate::checkpoint::Checkpoints,
    /// The periodic check.
    pub check: Option<Check>,
    /// A fault while snoozed leaves the outputs alone.
    pub keep_outputs_while_snoozed: bool,
    /// Who must be ready first.
    pub after: List<Edge, MAX_EDGES>,
}

impl Policy {
    /// A policy with the defaults of the configuration, enabled, with a deadline.
    pub fn with_deadline(deadline_ns: u64) -> Self {
        const S: u64 = 1_000_000_000;
        Self {
            enabled: true,
            beats: Some(Beats { deadline_ns, min_interval_ns: 0, warn_ns: 0 }),
            startup_ns: 30 * S,
            delays: [0, S, 3 * S, 20 * S, 60 * S].into_iter().collect(),
            forget_after_ns: 1800 * S,
            degraded_after: 5,
            evidence_budget_ns: 20_000_000,
            stop_timeout_ns: 2 * S,
            safe_command_ns: 0,
            after_stop_ns: 0,
            after_start: false,
            periodic_ns: 0,
            checkpoints: crate::checkpoint::Checkpoints::default(),
            check: None,
            keep_outputs_while_snoozed: false,
            after: List::new(),
        }
    }

    /// The wait before the restart that follows the `failures`-th failure in a row (1 and up).
    pub fn delay_ns(&self, failures: u32) -> u64 {
        let delays = self.delays.as_slice();
        let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
        delays.get(index).or(delays.last()).copied().unwrap_or(0)
    }
}

/// What holds for all children together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Children that may be on their way from start to ready at one time; at least 1.
    pub simultaneous: u16,
    /// A start that is not ready after this long no longer counts as one of them, so that slow starters cannot hold
    /// up the others.
    pub start_window_ns: u64,
    /// Restart delays are lengthened by a random share of up to this many percent.
    pub jitter_percent: u8,
    /// Temperature range; `None`: not a prerequisite.
    pub temperature: Option<crate::temperature::Range>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { simultaneous: 8, start_window_ns: 1_000_000_000, jitter_percent: 10, temperature: None }
    }
}

// Events that a policy change records, kept here so that the two lists cannot drift apart.
pub(crate) const fn switched(enabled: bool) -> EventKind {
    if enabled { EventKind::Enabled } else { EventKind::Disabled }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_delay_repeats() {
        let policy = Policy { delays: [0, 5, 9].into_iter().collect(), ..Policy::with_deadline(1) };
        let delays: Vec<u64> = (1..6).map(|n| policy.delay_ns(n)).collect();
        assert_eq!(delays, [0, 5, 9, 9, 9]);
        assert_eq!(Policy { delays: List::new(), ..policy }.delay_ns(7), 0);
    }

    #[test]
    fn a_full_list_gives_the_item_back() {
        let mut list: List<u8, 2> = [1, 2].into_iter().collect();
        assert_eq!(list.push(3), Err(3));
        assert_eq!(list.as_slice(), [1, 2]);
    }
}
