//! Starts sender and receiver, and turns the loop that beats.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use multus_child::lines::{self, Point, Wanted};
use multus_child::port::Port;
use multus_child::{Context, Error, Wake};
use multus_ipc::io_child::Io;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;

use crate::config::{Config, Known, Source};
use crate::lines::Watch;
use crate::peers::Peer;
use crate::receiver::{self, Receiver, Server};
use crate::secret::{self, Token};
use crate::sender::{self, Way};

pub(crate) fn run(config: Config, context: &Context) -> Result<(), Error> {
    let io = Io::from_env();
    if !io.is_there() {
        log::warn!("there is no process image: no line is known, and no output can be set; run it under multusd");
    }
    if io.is_there() && !lines::wait_until_defined(&io, context) {
        log::warn!("multus-io has not defined any line yet: no line is known until then");
    }
    let mut ready = Ready::at_start(config, &io, context)?;
    // Outputs that senders could set before the configuration was read anew.
    let mut before: Vec<String> = Vec::new();
    loop {
        // One thread for everything but waiting for changes of lines; those that resolve names come and go.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_stack_size(BLOCKING_STACK_BYTES)
            .build()?;
        let next = runtime.block_on(work(&ready, &io, context, &mut before))?;
        // With it end all connections.
        runtime.shutdown_background();
        let Some(next) = next else { return Ok(()) };
        ready = ready.followed_by(next)?;
    }
}

/// A configuration with which the mirror can work, as far as that can be known before: its lines fit, and what it names is there.
struct Ready {
    config: Config,
    ways: Vec<Way>,
    /// Of each sender that is known.
    tokens: Vec<Option<Token>>,
    tls: Option<TlsAcceptor>,
    /// `None`: nobody can connect.
    port: Option<Port>,
}

impl Ready {
    /// All but the port.
    ///
    /// # Errors
    /// Everything that is wrong.
    fn new(config: Config, io: &Io, context: &Context) -> Result<Self, Error> {
        config.check()?;
        check_lines(io, context, &config)?;
        let ways = sender::ways(&config.sender, context)?;
        let tokens = Token::of_senders(&config.receiver, context)?;
        let tls = secret::acceptor(&config.receiver, context)?;
        Ok(Self { config, ways, tokens, tls, port: None })
    }

    /// The first one. Its port may be that of what ended a moment ago.
    fn at_start(config: Config, io: &Io, context: &Context) -> Result<Self, Error> {
        let mut ready = Self::new(config, io, context)?;
        let Some(address) = ready.address(context)? else { return Ok(ready) };
        let end = Instant::now() + PATIENCE;
        ready.port = loop {
            match Port::open(address) {
                Err(_) if ready.needs_port() && Instant::now() < end && !context.stop_requested() => {
                    std::thread::sleep(LOOK);
                }
                opened => break ready.had(opened, address)?,
            }
        };
        Ok(ready)
    }

    /// One that follows `self`, which works meanwhile.
    fn next(&self, config: Config, io: &Io, context: &Context) -> Result<Self, Error> {
        let mut next = Self::new(config, io, context)?;
        if let Some(address) = next.address(context)? {
            next.port = next.had(Port::after(self.port.as_ref(), address), address)?;
        }
        Ok(next)
    }

    /// The next configuration, or, when its port turns out to be taken, this one.
    fn followed_by(mut self, mut next: Self) -> Result<Self, Error> {
        Ok(if Port::hand_over(&mut self.port, &mut next.port)? { next } else { self })
    }

    /// Where senders are awaited; `None`: nowhere.
    fn address(&self, context: &Context) -> Result<Option<SocketAddr>, Error> {
        match self.config.port {
            0 => Ok(None),
            port => Ok(Some(SocketAddr::from((self.config.valid()?.bind, context.port(port)?)))),
        }
    }

    /// A receiver does, a sender does its work without.
    fn needs_port(&self) -> bool {
        !self.config.receiver.senders.is_empty()
    }

    /// # Errors
    /// It could not be opened, and is needed.
    fn had(&self, opened: std::io::Result<Port>, address: SocketAddr) -> Result<Option<Port>, Error> {
        match opened {
            Ok(port) => Ok(Some(port)),
            Err(error) if self.needs_port() => Err(format!("cannot listen on {address}: {error}").into()),
            Err(error) => {
                log::error!("cannot listen on {address}: {error}; nobody can ask this instance how it does");
                Ok(None)
            }
        }
    }
}

/// Works until it is asked to end (`None`), or to work with another configuration.
async fn work(ready: &Ready, io: &Io, context: &Context, before: &mut Vec<String>) -> Result<Option<Ready>, Error> {
    let config = &ready.config;
    let mut layout = lines::layout(io);
    let watch = Watch::start(io, &config.sender.lines)?;
    let receiver = Receiver::new(&config.receiver, &config.valid()?, &ready.tokens, io, context, watch.changes.clone());
    begin(io, context, config, &receiver, before);
    let senders = receiver.senders.iter().map(|sender| &sender.peer);
    let peers: Arc<Vec<Peer>> = Arc::new(ready.ways.iter().map(|way| &way.peer).chain(senders).cloned().collect());
    let (mut tasks, mut turns) = (JoinSet::new(), vec![(Arc::clone(&watch.turns), 0)]);
    let mut turn = || {
        let turn = Arc::new(AtomicU64::new(0));
        turns.push((Arc::clone(&turn), 0));
        turn
    };
    if let Some(port) = &ready.port {
        let listener = TcpListener::from_std(port.listener()?)?;
        log::info!("listening on {}", port.address());
        let server = Server {
            receiver: receiver.clone(),
            peers: Arc::clone(&peers),
            tls: ready.tls.clone(),
            max_connections: config.receiver.max_connections,
            max_per_address: config.receiver.max_per_address,
            version: config.config_version.to_string(),
        };
        tasks.spawn(receiver::accept(listener, server, turn()));
    }
    tasks.spawn(receiver.guard(turn()));
    let name = if config.sender.name.is_empty() { context.name() } else { &config.sender.name };
    sender::start(ready.ways.clone(), &config.sender, name, &watch.levels, &mut tasks)?;
    if peers.is_empty() {
        log::warn!("there is neither a receiver nor a sender: nothing to do; see docs/mirror.md");
    }
    context.ready();
    let mut ticks = interval(TURN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (voice, mut said) = (context.voice(), String::new());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(ended) = tasks.join_next() => {
                ended?;
                return Err("a part of the mirror has ended by itself".into());
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
        let status = peers.iter().map(Peer::summary).collect::<Vec<_>>().join(", ");
        if status != said {
            voice.status(&status);
            said = status;
        }
        let defined = lines::layout(io);
        if defined.is_some() && defined != layout {
            layout = defined;
            check_lines(io, context, config)?;
        }
        match context.wait(Duration::ZERO) {
            Wake::Elapsed => {}
            Wake::Reload => {
                let next = context.reload(|new| ready.next(new, io, context));
                if next.is_some() {
                    return Ok(next);
                }
            }
            Wake::Stop => return Ok(None),
        }
    }
}

/// Lines that are not what the configuration wants are an error.
fn check_lines(io: &Io, context: &Context, config: &Config) -> Result<(), Error> {
    let local = config.sender.lines.iter().map(|line| Wanted { name: &line.local, digital: Some(true), owned: false });
    let outputs = config.receiver.senders.iter().flat_map(Known::outputs);
    let outputs = outputs.map(|name| Wanted { name, digital: Some(true), owned: true });
    let Some(unfit) = lines::unfit(io, context.name(), local.chain(outputs)) else { return Ok(()) };
    let mut wrong: Vec<String> = unfit.iter().map(ToString::to_string).collect();
    let wants_outputs = config.sender.source == Source::LastOutputs;
    for line in &config.sender.lines {
        let kind = io.line(&line.local).map(|found| found.kind());
        match kind.filter(|kind| kind.is_digital() && kind.is_output() != wants_outputs) {
            Some(_) if wants_outputs => {
                wrong.push(format!("line {}: is an input, and source is \"last-outputs\"", line.local))
            }
            Some(_) => wrong.push(format!("line {}: is an output, and source is \"inputs\"", line.local)),
            None => {}
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// Before the outputs are released: what they begin with. The receiver repeats it when lines are defined anew, or only later.
fn begin(io: &Io, context: &Context, config: &Config, receiver: &Receiver, before: &mut Vec<String>) {
    let now: Vec<&String> = config.receiver.senders.iter().flat_map(Known::outputs).collect();
    // A child that reads its configuration anew goes on with what its outputs have.
    if before.is_empty() && !config.receiver.restore {
        receiver.begin_safe();
    }
    for name in before.iter().filter(|name| !now.contains(name)) {
        if let Err(error) = Point::new(io, name).ask_safe() {
            log::debug!("{}: the safe value cannot be asked for: {error}", context.name());
        }
    }
    *before = now.into_iter().cloned().collect();
}

/// From beat to beat; longer than the turns of the parts.
const TURN: Duration = Duration::from_millis(200);
/// How long a port is waited for at the start.
const PATIENCE: Duration = Duration::from_secs(5);
/// From look to look while something is waited for.
const LOOK: Duration = Duration::from_millis(50);
/// Each of 32 receivers may have its name resolved twice, one after the other.
const BLOCKING_THREADS: usize = 64;
const BLOCKING_STACK_BYTES: usize = 256 * 1024;
