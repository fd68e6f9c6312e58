//! The loop: asks now and then, lights the lamps, beats.

use std::time::{Duration, Instant};

use multus_child::{Context, Error, Wake};
use multus_ipc::io_child::Io;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::ask::Checks;
use crate::config::{Config, Led};
use crate::show::{Condition, Known, Network};

pub(crate) fn run(mut config: Config, context: &Context) -> Result<(), Error> {
    let io = Io::from_env();
    if !io.is_there() {
        log::warn!("there is no process image: the lamps are only told, not lit; run it under multusd");
    }
    loop {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let is_to_go_on = runtime.block_on(work(&config, &io, context))?;
        if !is_to_go_on {
            return Ok(());
        }
        if let Some(new) = context.reload(|new: Config| new.check().map(|()| new)) {
            config = new;
        }
    }
}

/// Works until it is asked to end (`false`), or to read its configuration again (`true`).
async fn work(config: &Config, io: &Io, context: &Context) -> Result<bool, Error> {
    let (sender, network) = watch::channel(None);
    let asking = tokio::spawn(ask(Checks::new(config)?, config.interval.duration(), sender));
    let mut lamps: Vec<Lamp<'_>> = config.leds.iter().map(|led| Lamp::new(led, io)).collect();
    context.ready();
    let is_to_go_on = loop {
        if asking.is_finished() {
            return Err("the part that asks the checks has ended by itself".into());
        }
        let now = Instant::now();
        let known = *network.borrow();
        let pauses = lamps.iter_mut().filter_map(|lamp| lamp.light(known, now));
        let pause = pauses.min().unwrap_or(TURN).min(TURN);
        context.beat();
        match context.wait(Duration::ZERO) {
            Wake::Elapsed => {}
            Wake::Reload => break true,
            Wake::Stop => break false,
        }
        sleep(pause).await;
    };
    asking.abort();
    for lamp in &mut lamps {
        lamp.set(false);
    }
    Ok(is_to_go_on)
}

/// Asks for ever.
async fn ask(checks: Checks, interval: Duration, sender: watch::Sender<Option<Network>>) {
    loop {
        let network = checks.ask().await;
        let before = sender.send_replace(Some(network));
        if before != Some(network) {
            log::info!("lan {:?}, internet {:?}, tunnel {:?}", network.lan, network.internet, network.tunnel);
        }
        let is_missing = [network.lan, network.internet, network.tunnel].contains(&Known::Unreachable);
        let _ = timeout(if is_missing { AGAIN.min(interval) } else { interval }, sender.closed()).await;
    }
}

/// One lamp as it shines.
struct Lamp<'a> {
    led: &'a Led,
    io: &'a Io,
    /// What is shown, and since when.
    shown: Option<(Condition, Instant)>,
    /// Why the output cannot be set, as it was told.
    refused: Option<String>,
}

impl<'a> Lamp<'a> {
    fn new(led: &'a Led, io: &'a Io) -> Self {
        Self { led, io, shown: None, refused: None }
    }

    /// Lights it as it is to be now; how long it stays so. Dark before anything is known.
    fn light(&mut self, network: Option<Network>, now: Instant) -> Option<Duration> {
        let Some(network) = network else {
            self.set(false);
            return None;
        };
        let condition = self.led.shows.condition(network);
        let since = match self.shown {
            Some((shown, since)) if shown == condition => since,
            _ => now,
        };
        self.shown = Some((condition, since));
        let (light, stays) = self.led.pattern(condition).at(now.saturating_duration_since(since));
        self.set(light);
        stays
    }

    fn set(&mut self, light: bool) {
        if !self.io.is_there() {
            return;
        }
        let name = &self.led.output;
        let refused = match self.io.output(name) {
            Some(output) => output.set(light).err().map(|refused| refused.to_string()),
            None => Some(format!("output {name} is not there: is it in hardware.toml, and does multus-io run?")),
        };
        if refused != self.refused {
            match &refused {
                Some(reason) => log::error!("{reason}"),
                None => log::info!("output {name} can be set again"),
            }
            self.refused = refused;
        }
    }
}

/// From beat to beat at most.
const TURN: Duration = Duration::from_millis(200);
/// A check that does not answer is asked again after so long.
const AGAIN: Duration = Duration::from_secs(1);
