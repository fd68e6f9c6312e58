//! The smallest supervised child, and the place to start a new one: a configuration, and one turn of work.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use multus_child::{About, Child, Context, Error, Interval};

// Each doc comment is a help text: of `--help` and of the configuration page.
/// What to say, and how often.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Time from the beginning of one cycle to the beginning of the next; below the deadline of the child.
    period: Interval,
    /// What to say.
    message: String,
    /// Say it in every n-th cycle.
    #[schemars(range(min = 1))]
    every: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { period: Interval::from_millis(50), message: "all is well".to_owned(), every: 100 }
    }
}

/// What the child keeps from cycle to cycle.
struct Template {
    config: Config,
    cycles: u64,
}

impl Child for Template {
    type Config = Config;
    const ABOUT: About = multus_child::about!();

    /// Open devices and connections here; when this returns, the child counts as ready.
    fn start(config: Config, context: &Context) -> Result<Self, Error> {
        log::info!("{} is ready", context.name());
        Ok(Self { config, cycles: 0 })
    }

    fn period(&self) -> Duration {
        self.config.period.duration()
    }

    /// One turn of the work. It must not wait long: the heartbeat comes when it returns.
    fn cycle(&mut self, _: &Context) -> Result<(), Error> {
        self.cycles += 1;
        if self.cycles.is_multiple_of(u64::from(self.config.every)) {
            log::info!("{} ({} cycles)", self.config.message, self.cycles);
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    multus_child::run::<Template>()
}
