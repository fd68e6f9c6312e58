//! What the child tells of itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::logic::plan::{Kind, Plan};
use crate::logic::text::Lease;

/// One word for the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// No interface is configured: nothing is changed.
    #[default]
    Idle,
    /// For the interface, its carrier, or the one who sets it up.
    Waiting,
    /// A change is being applied or taken back.
    Applying,
    /// A change stands on trial.
    Pending,
    /// What is configured stands.
    Confirmed,
    /// What is configured was taken back.
    Rejected,
    /// What stands cannot be seen to; tried again.
    Failing,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Applying => "applying",
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Rejected => "rejected",
            Self::Failing => "failing",
        }
    }
}

/// Everything but what the kernel is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    pub(crate) state: State,
    pub(crate) detail: String,
    pub(crate) last_error: String,
    pub(crate) backend: Option<Kind>,
    /// What is configured.
    pub(crate) plan: Option<Plan>,
    /// When a trial ends, CLOCK_BOOTTIME.
    pub(crate) deadline: Option<Duration>,
    /// [`Plan::mark`] of the plan on trial.
    pub(crate) trial: Option<String>,
    pub(crate) lease: Option<Lease>,
    /// Whether the router answered to the last question of a trial.
    pub(crate) confirmed_by: String,
}

/// For all in this one thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Arc<Mutex<Shown>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shown> {
        // One thread, and nothing in there panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
