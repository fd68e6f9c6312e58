//! Starts what is served, and turns the loop that beats.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use multus_child::lines::{self, UnfitReason};
use multus_child::port::Port;
use multus_child::shares::Shares;
use multus_child::{Context, Error, Voice, Wake};
use multus_ipc::io_child::Io;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::config::{Config, Valid};
use crate::diagnostics::{Counters, News};
use crate::map::{LineUse, Map};
use crate::plant::Image;
use crate::tcp::{self, Server};
use crate::unit::Unit;
use crate::watchdog::Watchdog;

pub(crate) fn run(config: Config, context: &Context) -> Result<(), Error> {
    let io = Io::from_env();
    if !io.is_there() {
        log::warn!("there is no process image: every line is answered by exception 04; run it under multusd");
    }
    if io.is_there() && !lines::wait_until_defined(&io, context) {
        log::warn!("multus-io has not defined any line yet: every line is answered by exception 04 until then");
    }
    let mut ready = Ready::new(config, &io, context, None)?;
    // Outputs that masters could write before the configuration was read anew.
    let mut before: Vec<String> = Vec::new();
    loop {
        // One thread for everything.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let next = runtime.block_on(work(&ready, &io, context, &mut before))?;
        // With it end all connections.
        runtime.shutdown_background();
        let Some(next) = next else { return Ok(()) };
        ready = ready.followed_by(next)?;
    }
}

/// A configuration with which the server can work, as far as that can be known before.
#[derive(Debug)]
struct Ready {
    config: Config,
    /// `None`: there is no TCP.
    port: Option<Port>,
}

impl Ready {
    /// # Errors
    /// Its lines do not fit, or its port cannot be had beside that of `old`.
    fn new(config: Config, io: &Io, context: &Context, old: Option<&Port>) -> Result<Self, Error> {
        let Valid { map, is_original, bind, .. } = config.valid()?;
        check_lines(io, context, &map, is_original)?;
        let port = match config.tcp.enabled {
            true => Some(open(SocketAddr::from((bind, context.port(config.tcp.port)?)), old)?),
            false => None,
        };
        Ok(Self { config, port })
    }

    /// The next configuration, or, when its port turns out to be taken, this one.
    fn followed_by(mut self, mut next: Self) -> Result<Self, Error> {
        Ok(if Port::hand_over(&mut self.port, &mut next.port)? { next } else { self })
    }
}

fn open(address: SocketAddr, old: Option<&Port>) -> Result<Port, Error> {
    Port::after(old, address).map_err(|error| format!("cannot listen on {address}: {error}").into())
}

/// Takes connections, of which so many may wait as the system allows: there may be a thousand at once.
fn listen(port: &Port) -> std::io::Result<TcpListener> {
    TcpSocket::from_std_stream(OwnedFd::from(port.listener()?).into()).listen(BACKLOG)
}

/// Works until it is asked to end (`None`), or to work with another configuration.
async fn work(
    Ready { config, port }: &Ready,
    io: &Io,
    context: &Context,
    before: &mut Vec<String>,
) -> Result<Option<Ready>, Error> {
    let Valid { map, is_original, allow, identity, .. } = config.valid()?;
    let mut layout = lines::layout(io);
    let counters = Arc::new(Counters::default());
    let news = match config.diagnostics.enabled {
        true => Some(News::follow(&config.diagnostics.children)?),
        false => None,
    };
    begin(io, context, config, &map, before);
    let plant = Image::new(io, context.name(), &map.lines, Arc::clone(&counters), news);
    let started = Instant::now();
    let watchdog = config.watchdog.enabled.then(|| Watchdog::new(config.watchdog.timeout.duration(), Duration::ZERO));
    let unit = Arc::new(Unit::new(map, plant, identity, config.read_only, watchdog));
    let mut tasks: JoinSet<String> = JoinSet::new();
    let mut turns = Vec::new();
    if let Some(port) = port {
        let listener = listen(port)?;
        log::info!("Modbus TCP on {}, unit {}", port.address(), config.unit);
        let server = Arc::new(Server {
            unit: Arc::clone(&unit),
            own_id: config.unit,
            foreign_units: config.tcp.foreign_units,
            allow,
            max_connections: config.tcp.max_connections.into(),
            shares: Shares::new(config.tcp.max_connections, config.tcp.max_per_address),
            idle_timeout: config.tcp.idle_timeout.duration(),
            write_timeout: config.tcp.write_timeout.duration(),
            counters: Arc::clone(&counters),
            started,
        });
        let turn = Arc::new(AtomicU64::new(0));
        turns.push((Arc::clone(&turn), 0));
        tasks.spawn(async move {
            tcp::accept(listener, server, turn).await;
            "connections are no longer taken".to_owned()
        });
    }
    #[cfg(feature = "rtu")]
    if config.rtu.enabled {
        let station = crate::rtu::Station {
            unit: Arc::clone(&unit),
            own_id: config.unit,
            config: config.rtu.clone(),
            counters: Arc::clone(&counters),
            started,
        };
        let (turn, voice) = (Arc::new(AtomicU64::new(0)), context.voice());
        turns.push((Arc::clone(&turn), 0));
        tasks.spawn(async move {
            station.serve_for_ever(&voice, &turn).await;
            "the serial line is no longer served".to_owned()
        });
    }
    if config.watchdog.enabled {
        let unit = Arc::clone(&unit);
        let voice = context.voice();
        tasks.spawn(async move {
            guard(unit, started, voice).await;
            "the watchdog register is no longer watched".to_owned()
        });
    }
    context.ready();
    let (voice, mut connected) = (context.voice(), None);
    let mut ticks = interval(TURN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(ended) = tasks.join_next() => {
                return Err(ended?.into());
            }
        }
        // A beat says that every part has come round since the last one.
        let are_alive = turns.iter_mut().all(|(turn, seen)| {
            let now = turn.load(Ordering::Relaxed);
            std::mem::replace(seen, now) != now
        });
        if are_alive {
            context.beat();
        }
        let [connections, ..] = counters.counted();
        let state = (connections, unit.is_lost() == Some(true), counters.is_line_gone.load(Ordering::Relaxed));
        if connected.replace(state) != Some(state) {
            let lost = if state.1 { ", the master is lost" } else { "" };
            let gone = if state.2 { ", the serial line is not there" } else { "" };
            voice.status(&format!("{connections} connected{lost}{gone}"));
        }
        let defined = lines::layout(io);
        if defined.is_some() && defined != layout {
            layout = defined;
            check_lines(io, context, &unit.map, is_original)?;
            // Lines that were defined anew are at their beginning.
            before.clear();
            begin(io, context, config, &unit.map, before);
        }
        match context.wait(Duration::ZERO) {
            Wake::Elapsed => {}
            Wake::Reload => {
                let next = context.reload(|new| Ready::new(new, io, context, port.as_ref()));
                if next.is_some() {
                    return Ok(next);
                }
            }
            Wake::Stop => return Ok(None),
        }
    }
}

/// Lines that are not what the map wants are an error; of the map of the original, lines that a box does not have are left
/// out, as are outputs of others.
fn check_lines(io: &Io, context: &Context, map: &Map, is_original: bool) -> Result<(), Error> {
    let unfit = lines::unfit(io, context.name(), map.wanted()).unwrap_or_default();
    let mut wrong = Vec::new();
    for unfit in unfit {
        let is_left_out = matches!(unfit.reason, UnfitReason::Missing | UnfitReason::Owned { .. });
        if is_original && is_left_out {
            log::warn!("{unfit}; its addresses are answered by exception 02");
        } else {
            wrong.push(unfit.to_string());
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// Before the outputs are released: what they begin with.
fn begin(io: &Io, context: &Context, config: &Config, map: &Map, before: &mut Vec<String>) {
    let now: Vec<&LineUse> = map.lines.iter().filter(|line| line.written).collect();
    let dropped = before.iter().filter(|name| !now.iter().any(|line| line.name == **name));
    // A child that reads its configuration anew goes on with what its outputs have.
    let is_start = before.is_empty();
    let fresh = now.iter().filter(|_| is_start && !config.restore).map(|line| &line.name);
    for name in dropped.chain(fresh) {
        if let Err(error) = lines::Point::new(io, name).ask_safe() {
            log::debug!("{}: the safe value cannot be asked for: {error}", context.name());
        }
    }
    *before = now.iter().map(|line| line.name.clone()).collect();
}

/// Makes the outputs safe when the master is lost, and keeps them so.
async fn guard(unit: Arc<Unit<Image>>, started: Instant, voice: Voice) {
    let mut was_lost = false;
    loop {
        if unit.turn_watchdog(started.elapsed()) {
            let text = "the watchdog register is not written any more: outputs are set to their safe values";
            log::warn!("{text}");
            voice.notice(text);
            was_lost = true;
        }
        if was_lost && unit.is_lost() == Some(false) {
            voice.notice("the watchdog register is written again: outputs can be written");
            was_lost = false;
        }
        let due = unit.watchdog_due().map(|due| due.saturating_sub(started.elapsed()));
        sleep(due.unwrap_or(LOOK).clamp(Duration::from_millis(1), LOOK)).await;
    }
}

/// Connections that wait until they are taken.
const BACKLOG: u32 = 1024;
/// From beat to beat; longer than the turns of the parts.
const TURN: Duration = Duration::from_millis(200);
/// From look to look while something is waited for.
const LOOK: Duration = Duration::from_millis(50);
