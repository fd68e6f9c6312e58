//! The layer that gRPC, the JSON API and the pages share: what can be seen and done, for whom, with which errors.
//!
//! Plain synchronous Rust: no runtime, no protocol. Calls may block on the daemon (some seconds at most) or the disk, so
//! an asynchronous caller runs them on a thread for blocking work. Every call takes the [`Caller`] and checks its level.

mod caller;
mod children;
pub mod configuration;
mod daemon;
mod error;
mod events;
mod faults;
mod history;
mod lan;
mod lines;
mod logs;
mod machine;
mod metrics;
mod notify;
pub mod queue;
pub(crate) mod status;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use multus_child::Lane;
use multus_contract::dirs::Dirs;

pub use caller::Caller;
pub use children::Order;
pub use error::{Error, Problem, Result};
pub use events::EventQuery;
pub use faults::{FaultReport, FaultText};
pub use lan::{Lan, LanAddress};
pub(crate) use lines::is_operators;
#[cfg(test)]
pub(crate) use lines::tests as testing;
pub use lines::{LineNews, LineOrder};
pub use logs::{Found, LogFile, LogFollower, LogTail};
pub use machine::Information;
pub use multus_contract::api::advice::Advice;
pub use multus_contract::api::command::ReloadReport;
pub use status::Snapshot;

use configuration::Configuration;
use daemon::Daemon;
use events::Events;

/// What there is to see and do. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Service {
    inner: Arc<Inner>,
}

/// How the service is to behave.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a saved change waits before it is applied.
    pub settle: Duration,
    /// Whether a change is taken back when its child does not come back healthy.
    pub auto_roll_back: bool,
    /// By the name of a child: folders beyond its own, in which its parameters may name text files.
    pub text_folders: BTreeMap<String, Vec<PathBuf>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { settle: Duration::from_secs(5), auto_roll_back: false, text_folders: BTreeMap::new() }
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) dirs: Dirs,
    pub(crate) daemon: Daemon,
    pub(crate) status: status::Cache,
    pub(crate) events: Events,
    pub(crate) io: lines::Lines,
    pub(crate) configuration: Configuration,
    pub(crate) history: OnceLock<crate::history::History>,
    pub(crate) counted: Mutex<crate::metrics::Counted>,
    pub(crate) mqtt: OnceLock<Arc<crate::mqtt::Counters>>,
    pub(crate) notifier: OnceLock<crate::notify::Notifier>,
}

impl Service {
    /// A service for the daemon with these directories. Touches nothing and starts nothing yet.
    pub fn new(dirs: Dirs, settings: Settings) -> Self {
        let inner = Inner {
            daemon: Daemon::new(dirs.control_socket()),
            status: status::Cache::default(),
            events: Events::default(),
            io: lines::Lines::default(),
            configuration: Configuration::new(&dirs, settings),
            history: OnceLock::new(),
            counted: Mutex::default(),
            mqtt: OnceLock::new(),
            notifier: OnceLock::new(),
            dirs,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Starts the thread that follows the daemon's events and the one that applies saved changes. They end when the last
    /// clone of the service is gone. A lane, where given, is beaten in every turn (at least each [`LANE_DEADLINE`]).
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(&self, events: Option<Lane>, changes: Option<Lane>) -> std::io::Result<()> {
        events::start(Arc::downgrade(&self.inner), events)?;
        configuration::start(Arc::downgrade(&self.inner), changes)
    }

    /// Where everything is.
    pub fn dirs(&self) -> &Dirs {
        &self.inner.dirs
    }
}

/// The longest time from beat to beat of the threads of [`Service::start`]: they wait for the daemon, and for programs that
/// are asked for their schema.
pub const LANE_DEADLINE: Duration = Duration::from_secs(30);
