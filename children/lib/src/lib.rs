//! What every supervised child starts from.
//!
//! A child describes its work; this library brings the rest: the configuration file with a schema and readable errors,
//! a log, the heartbeat, signals, and the same command line for all (`--help`, `--version`, `--print-schema`,
//! `--check-config`, `--config`). A child also runs by hand in a terminal, without the daemon.
//!
//! ```
//! use multus_child::{About, Child, Context, Error};
//!
//! /// Says something, again and again.
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! #[serde(deny_unknown_fields, default)]
//! struct Config {
//!     /// What to say.
//!     message: String,
//! }
//!
//! impl Default for Config {
//!     fn default() -> Self {
//!         Self { message: "hello".into() }
//!     }
//! }
//!
//! struct Greeter(Config);
//!
//! impl Child for Greeter {
//!     type Config = Config;
//!     const ABOUT: About = multus_child::about!();
//!
//!     fn start(config: Config, _: &Context) -> Result<Self, Error> {
//!         Ok(Self(config))
//!     }
//!     fn period(&self) -> std::time::Duration {
//!         std::time::Duration::from_millis(50)
//!     }
//!     fn cycle(&mut self, _: &Context) -> Result<(), Error> {
//!         log::info!("{}", self.0.message);
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//! # if true { return std::process::ExitCode::SUCCESS }
//!     multus_child::run::<Greeter>()
//! }
//! ```
//!
//! **The beat proves work.** It is given after each completed cycle, by the thread that did the work. Nothing in here
//! beats from the side, and nothing beats while a cycle hangs.
//!
//! **An error ends the process.** Outputs are safe by then, and the daemon starts it again. What a child can live with
//! (a sensor that does not answer once) it handles in its cycle.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod cli;
mod config;
mod context;
mod interval;
pub mod lines;
mod logging;
pub mod network;
pub mod parameter;
pub mod port;
mod schedule;
mod schema;
pub mod shares;
mod signals;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

pub use config::{ConfigError, Problem};
pub use context::Context;
pub use interval::Interval;
pub use multus_ipc::child::{Lane, Voice};
pub use parameter::{ConfigVersion, TextFile};
pub use signals::Wake;

use schedule::Schedule;

/// Why a child ends before it was asked to: any error, or a text.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What `--help` and `--version` say. Made by [`about!`].
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The name of the program.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it does, in one sentence.
    pub description: &'static str,
}

/// Name, version and description as they stand in the `Cargo.toml` of the crate that calls this.
#[macro_export]
macro_rules! about {
    () => {
        $crate::About {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            description: env!("CARGO_PKG_DESCRIPTION"),
        }
    };
}

/// What a configuration must be able to do. Every type that fits has it.
///
/// Derive `Deserialize` and `JsonSchema`, put `#[serde(deny_unknown_fields, default)]` on the struct, and write doc
/// comments: they are the help texts of `--help` and of the configuration page.
pub trait Config: Default + DeserializeOwned + JsonSchema {}

impl<T: Default + DeserializeOwned + JsonSchema> Config for T {}

/// A child with a work loop that comes round once in a [`period`](Child::period).
///
/// For a child with a loop of its own (an event loop, a blocking protocol) see [`run_with`].
pub trait Child: Sized {
    /// Its own parameters.
    type Config: Config;

    /// Usually [`about!`].
    const ABOUT: About;

    /// Makes everything ready for the first cycle. When this returns, multusd is told that the child is ready.
    ///
    /// # Errors
    /// Whatever keeps the child from working. The process ends with exit code 1 and is started again.
    fn start(config: Self::Config, context: &Context) -> Result<Self, Error>;

    /// The time from the beginning of one cycle to the beginning of the next; zero for no pause. Asked after each cycle.
    /// Must be well below the configured deadline.
    fn period(&self) -> Duration;

    /// One turn of the work. A beat follows when it returns `Ok`.
    ///
    /// # Errors
    /// What the child cannot handle itself. The process ends with exit code 1 and is started again.
    fn cycle(&mut self, context: &Context) -> Result<(), Error>;

    /// The last thing before an orderly end: SIGTERM, or Ctrl-C in a terminal.
    ///
    /// # Errors
    /// Ends the process with exit code 1 instead of 0.
    fn stop(&mut self, _context: &Context) -> Result<(), Error> {
        Ok(())
    }

    /// The configuration file has changed (SIGHUP) and was read without an error. Unless told otherwise the old self
    /// is stopped and a new one is started, in the same process. This counts as part of a cycle: the deadline runs.
    ///
    /// # Errors
    /// As [`start`](Child::start).
    fn reload(mut self, config: Self::Config, context: &Context) -> Result<Self, Error> {
        self.stop(context)?;
        drop(self);
        Self::start(config, context)
    }

    /// What the types of the configuration cannot express: one value that must fit another.
    ///
    /// # Errors
    /// What is wrong, for the reader of the file.
    fn check(_config: &Self::Config) -> Result<(), Error> {
        Ok(())
    }
}

/// The whole `main` of a child: command line, configuration, log, heartbeat, signals, and the work loop.
pub fn run<C: Child>() -> ExitCode {
    cli::main(&C::ABOUT, &C::check, &[], work::<C>)
}

/// The whole `main` of a child with a loop of its own.
///
/// `body` calls [`Context::ready`] once, [`Context::beat`] in every turn of its loop, waits with
/// [`Context::wait`] or looks at [`Context::stop_requested`], and returns when it is asked to stop.
///
/// ```no_run
/// # #[derive(Default, serde::Deserialize, schemars::JsonSchema)] struct Config {}
/// use multus_child::Wake;
///
/// fn main() -> std::process::ExitCode {
///     multus_child::run_with(&multus_child::about!(), |_config: Config, context| {
///         context.ready();
///         loop {
///             // ... one turn of the work ...
///             context.beat();
///             match context.wait(std::time::Duration::from_millis(50)) {
///                 Wake::Elapsed => {}
///                 Wake::Reload => drop(context.load::<Config>()?),
///                 Wake::Stop => return Ok(()),
///             }
///         }
///     })
/// }
/// ```
pub fn run_with<C: Config>(about: &About, body: impl FnOnce(C, &Context) -> Result<(), Error>) -> ExitCode {
    run_with_check(about, |_| Ok(()), body)
}

/// As [`run_with`], with a check of what the types of the configuration cannot express; see [`Child::check`].
pub fn run_with_check<C: Config>(
    about: &About,
    check: impl Fn(&C) -> Result<(), Error>,
    body: impl FnOnce(C, &Context) -> Result<(), Error>,
) -> ExitCode {
    cli::main(about, &check, &[], body)
}

/// Something else that the program does when its command line says so, instead of its work: `--confirm` and the like.
#[derive(Debug)]
pub struct Command<C> {
    /// Without the dashes.
    pub flag: &'static str,
    /// What it does, one line for `--help`.
    pub help: &'static str,
    /// Does it with the configuration; what it returns is printed.
    pub run: fn(C) -> Result<String, Error>,
}

/// As [`run_with_check`], with commands of its own.
pub fn run_with_commands<C: Config>(
    about: &About,
    check: impl Fn(&C) -> Result<(), Error>,
    commands: &[Command<C>],
    body: impl FnOnce(C, &Context) -> Result<(), Error>,
) -> ExitCode {
    cli::main(about, &check, commands, body)
}

fn work<C: Child>(config: C::Config, context: &Context) -> Result<(), Error> {
    let mut child = C::start(config, context)?;
    context.ready();
    warn_of_long_period(child.period(), context);
    let mut schedule = Schedule::new(Instant::now());
    let mut overruns = Overruns::default();
    loop {
        child.cycle(context)?;
        context.beat();
        let now = Instant::now();
        overruns.add(schedule.advance(now, child.period()), child.period(), now);
        match context.wait_until(schedule.next()) {
            Wake::Elapsed => {}
            Wake::Stop => return child.stop(context),
            Wake::Reload => {
                child = reloaded(child, context)?;
                warn_of_long_period(child.period(), context);
                schedule = Schedule::new(Instant::now());
            }
        }
    }
}

/// A file with errors changes nothing: the child goes on with what it had.
fn reloaded<C: Child>(child: C, context: &Context) -> Result<C, Error> {
    match context.told(context.load_checked::<C::Config>(&C::check)) {
        Some(config) => child.reload(config, context),
        None => Ok(child),
    }
}

fn warn_of_long_period(period: Duration, context: &Context) {
    if let Some(deadline) = context.deadline()
        && period >= deadline
    {
        let (period, deadline) = (Interval::from(period), Interval::from(deadline));
        log::warn!(
            "a period of {period} is not shorter than the deadline of {deadline}: each pause will look like a hang"
        );
    }
}

/// Cycles that took longer than the period: survived, counted, told at most once in ten seconds.
#[derive(Default)]
struct Overruns {
    untold: u64,
    told_at: Option<Instant>,
}

impl Overruns {
    fn add(&mut self, missed: u64, period: Duration, now: Instant) {
        self.untold = self.untold.saturating_add(missed);
        let quiet =
            self.told_at.is_some_and(|told_at| now.saturating_duration_since(told_at) < Duration::from_secs(10));
        if self.untold > 0 && !quiet {
            log::warn!("cycles took longer than the period of {}: {} skipped", Interval::from(period), self.untold);
            self.untold = 0;
            self.told_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::sync::atomic::Ordering;

    use multus_ipc::child::Heartbeat;
    use multus_ipc::heartbeat::{self, Reader};
    use multus_ipc::map::{self, Mapping};

    use super::*;
    use crate::config::Source;
    use crate::signals::Requests;

    /// Works through its list: what each cycle is to bring.
    struct Scripted {
        turns: Vec<Turn>,
        stopped: u32,
    }

    #[derive(Clone, Copy)]
    enum Turn {
        Fine,
        Fail,
        AskedToStop,
        AskedToReload,
    }

    #[derive(Default, serde::Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Nothing {}

    thread_local! {
        static TURNS: std::cell::RefCell<Vec<Turn>> = const { std::cell::RefCell::new(Vec::new()) };
        static REQUESTS: Requests = Requests::default();
    }

    impl Child for Scripted {
        type Config = Nothing;
        const ABOUT: About = about!();

        fn start(_: Nothing, context: &Context) -> Result<Self, Error> {
            assert!(context.is_supervised());
            Ok(Self { turns: TURNS.take(), stopped: 0 })
        }
        fn period(&self) -> Duration {
            Duration::ZERO
        }
        fn cycle(&mut self, _: &Context) -> Result<(), Error> {
            match self.turns.remove(0) {
                Turn::Fine => {}
                Turn::Fail => return Err("the sensor is gone".into()),
                Turn::AskedToStop => REQUESTS.with(|requests| requests.ask(|state| state.stop = true)),
                Turn::AskedToReload => REQUESTS.with(|requests| requests.ask(|state| state.reload = true)),
            }
            Ok(())
        }
        fn stop(&mut self, _: &Context) -> Result<(), Error> {
            self.stopped += 1;
            assert_eq!(self.stopped, 1, "stopped once");
            TURNS.set(std::mem::take(&mut self.turns));
            Ok(())
        }
    }

    /// The number of beats, whether the child was ready, and how it ended.
    fn run_through(turns: &[Turn]) -> (u64, bool, Result<(), String>) {
        TURNS.set(turns.to_vec());
        let page = map::memfd(c"heartbeat", heartbeat::WORDS).unwrap();
        let memory = Mapping::writable(page.as_fd()).unwrap();
        for (word, value) in memory.words().iter().zip(heartbeat::header(1, 1_000_000_000)) {
            word.store(value, Ordering::Relaxed);
        }
        let requests = REQUESTS.with(Clone::clone);
        let heartbeat = Heartbeat::from_fd(page).unwrap();
        let context = Context::new("scripted".into(), 0, heartbeat, requests, Source::Defaults);
        let result = work::<Scripted>(Nothing {}, &context).map_err(|error| error.to_string());
        let reader = Reader::new(memory.words());
        (reader.look(0).sequence, reader.is_ready(), result)
    }

    #[test]
    fn each_completed_cycle_is_one_beat_after_that_of_ready() {
        use Turn::{AskedToStop, Fine};
        assert_eq!(run_through(&[Fine, Fine, AskedToStop]), (1 + 3, true, Ok(())));
    }

    #[test]
    fn a_failed_cycle_does_not_beat_and_ends_the_child() {
        use Turn::{Fail, Fine};
        assert_eq!(run_through(&[Fine, Fail, Fine]), (1 + 1, true, Err("the sensor is gone".into())));
    }

    #[test]
    fn a_reload_stops_the_old_self_and_starts_a_new_one() {
        use Turn::{AskedToReload, AskedToStop, Fine};
        assert_eq!(run_through(&[AskedToReload, Fine, AskedToStop]), (1 + 3, true, Ok(())));
    }
}
