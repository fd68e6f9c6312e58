//! What a child knows of the world that supervises it.

use std::fmt::Display;
use std::time::{Duration, Instant};

use multus_ipc::child::{Heartbeat, Lane, Voice};

use crate::config::{ConfigError, Source};
use crate::signals::{Requests, Wake};
use crate::{Config, Error};

/// Name, instance, heartbeat, configuration file and requests of this process. Belongs to the thread that does the work.
#[derive(Debug)]
pub struct Context {
    name: String,
    instance: u32,
    heartbeat: Heartbeat,
    requests: Requests,
    source: Source,
}

impl Context {
    pub(crate) fn new(name: String, instance: u32, heartbeat: Heartbeat, requests: Requests, source: Source) -> Self {
        Self { name, instance, heartbeat, requests, source }
    }

    /// The name under which multusd knows this child (`MULTUS_NAME`); by hand, the name of the program.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of this instance (`MULTUS_INSTANCE`), from 0.
    pub fn instance(&self) -> u32 {
        self.instance
    }

    /// The port of this instance where the first one has `port`.
    ///
    /// # Errors
    /// It is beyond 65535.
    pub fn port(&self, port: u16) -> Result<u16, String> {
        let port = u32::from(port).saturating_add(self.instance);
        u16::try_from(port).map_err(|_| format!("port {port} of this instance is beyond 65535"))
    }

    /// Whether somebody watches the beats.
    pub fn is_supervised(&self) -> bool {
        self.heartbeat.is_supervised()
    }

    /// The configured deadline; `None` when nobody watches.
    pub fn deadline(&self) -> Option<Duration> {
        self.heartbeat.deadline()
    }

    /// One beat. [`run`](crate::run) gives it after each cycle; a loop of your own does it once in each turn.
    #[inline]
    pub fn beat(&self) {
        self.heartbeat.beat();
    }

    /// Says that set-up is done. [`run`](crate::run) does it after [`start`](crate::Child::start).
    pub fn ready(&self) {
        self.heartbeat.ready();
    }

    /// What tells how this child is, and what happened; for any thread.
    pub fn voice(&self) -> Voice {
        self.heartbeat.voice()
    }

    /// A heartbeat for one more thread of this child; see [`Heartbeat::lane`].
    ///
    /// # Errors
    /// All lanes are taken.
    pub fn lane(&self, name: &str, deadline: Option<Duration>) -> std::io::Result<Lane> {
        self.heartbeat.lane(name, deadline)
    }

    /// Whether the child was asked to end. A long cycle looks here now and then.
    pub fn stop_requested(&self) -> bool {
        self.requests.stop_requested()
    }

    /// Waits; a request ends the wait at once.
    pub fn wait(&self, time: Duration) -> Wake {
        let now = Instant::now();
        // A wait beyond the range of the clock is looked at again once a day.
        self.wait_until(now.checked_add(time).unwrap_or(now + Duration::from_secs(86_400)))
    }

    /// Waits until a point in time; a request ends the wait at once.
    pub fn wait_until(&self, due: Instant) -> Wake {
        self.requests.wait_until(due)
    }

    /// Reads the configuration file again.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load<C: Config>(&self) -> Result<C, ConfigError> {
        self.source.load()
    }

    /// Reads the configuration file again, as [`Wake::Reload`] asks, and has `valid` look at it. `None`: it has errors, which are
    /// told in the log, and the child goes on with what it had.
    pub fn reload<C: Config, V>(&self, valid: impl FnOnce(C) -> Result<V, Error>) -> Option<V> {
        self.told(self.load::<C>().map_err(Error::from).and_then(valid))
    }

    /// Tells in the log what became of reading the file again.
    pub(crate) fn told<V, E: Display>(&self, loaded: Result<V, E>) -> Option<V> {
        match loaded {
            Ok(new) => {
                log::info!("configuration read again: {}", self.config_source());
                Some(new)
            }
            Err(error) => {
                error.to_string().lines().for_each(|line| log::error!("{line}"));
                log::error!("the configuration has errors, going on with the previous one");
                None
            }
        }
    }

    pub(crate) fn load_checked<C: Config>(&self, check: &dyn Fn(&C) -> Result<(), Error>) -> Result<C, ConfigError> {
        self.source.load_checked(check)
    }

    /// Where files lie that parameters name by a relative path; see [`TextFile`](crate::TextFile).
    pub(crate) fn files_folder(&self) -> std::path::PathBuf {
        self.source.files_folder()
    }

    /// Where the configuration comes from, in words.
    pub fn config_source(&self) -> String {
        self.source.to_string()
    }
}
