//! The loop: listens to openvpn, asks whether it is alive, beats.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use multus_child::{Context, Error, Interval, Voice, Wake};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::certificate::Certificate;
use crate::config::Config;
use crate::notice::{Notice, parse};
use crate::process::{OpenVpn, check_text};
use crate::serve::{Board, serve};
use crate::tunnel::Tunnel;

/// What is known of the tunnel, for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Arc<Mutex<Tunnel>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Tunnel> {
        // One thread, and nothing in there panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why openvpn is ended.
enum End {
    Stop,
    Reload(Config),
    Restart,
}

pub(crate) fn run(mut config: Config, context: &Context) -> Result<(), Error> {
    loop {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match runtime.block_on(work(&config, context))? {
            Some(new) => config = new,
            None => return Ok(()),
        }
    }
}

/// Works until it is asked to end (`None`), or to work with another configuration.
async fn work(config: &Config, context: &Context) -> Result<Option<Config>, Error> {
    let shared = Shared::default();
    let (ask, mut asked) = mpsc::channel(1);
    let server = match config.port {
        0 => None,
        port => {
            let port = context.port(port)?;
            let board = Board { tunnel: shared.clone(), restart: ask, version: config.config_version.to_string() };
            Some(tokio::spawn(serve(port, board)))
        }
    };
    let result = loop {
        let mut openvpn = OpenVpn::start(config, context).await?;
        shared.lock().started(openvpn.child.id(), openvpn.validity.map(|(_, ends)| ends), unix());
        context.ready();
        let ended = turn(config, context, &mut openvpn, &shared, &mut asked).await;
        openvpn.end().await;
        match ended {
            Ok(End::Restart) => log::info!("openvpn is started anew, as asked"),
            Ok(End::Reload(new)) => break Ok(Some(new)),
            Ok(End::Stop) => break Ok(None),
            Err(error) => break Err(error),
        }
    };
    if let Some(server) = server {
        server.abort();
    }
    result
}

/// Until openvpn is to end, or has.
async fn turn(
    config: &Config,
    context: &Context,
    openvpn: &mut OpenVpn,
    shared: &Shared,
    asked: &mut mpsc::Receiver<()>,
) -> Result<End, Error> {
    let (reader, mut writer) = openvpn.management.split();
    let mut lines = BufReader::new(reader).lines();
    // It waits until somebody listens, but only the first time: later it keeps its own pauses between tries.
    writer.write_all(b"state on\nbytecount 5\nhold off\nhold release\n").await?;
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let silence = config.silence.duration();
    let voice = context.voice();
    let mut certificate = Certificate::new(openvpn.validity);
    let (mut heard, mut questioned) = (Instant::now(), Instant::now());
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            line = lines.next_line() => match line {
                Ok(Some(line)) => {
                    heard = Instant::now();
                    tell(shared, parse(&line), &voice);
                }
                // It ends: its exit code tells more.
                _ => return Err(exited(openvpn, shared).await),
            },
            _ = openvpn.child.wait() => return Err(exited(openvpn, shared).await),
            Some(()) = asked.recv() => return Ok(End::Restart),
        }
        if heard.elapsed() > silence {
            // What stands still does not obey either.
            let _ = openvpn.child.start_kill();
            return Err(format!("openvpn hangs: it has said nothing for {}", Interval::from(silence)).into());
        }
        if questioned.elapsed() > silence / 4 {
            questioned = Instant::now();
            // A full socket means that nobody reads: that shows by the silence.
            let _ = writer.try_write(b"pid\n");
        }
        tell_certificate(certificate.look(unix()), &voice);
        context.beat();
        match context.wait(Duration::ZERO) {
            Wake::Elapsed => {}
            Wake::Reload => {
                if let Some(new) = reloaded(context) {
                    return Ok(End::Reload(new));
                }
            }
            Wake::Stop => return Ok(End::Stop),
        }
    }
}

/// `None`: something is wrong with it, or with the text that it names, and openvpn goes on with what it has.
fn reloaded(context: &Context) -> Option<Config> {
    context.reload(|new: Config| {
        new.check().and_then(|()| check_text(&new, context)).inspect_err(|error| {
            context.voice().notice(&format!("the configuration has errors, going on with the previous one: {error}"));
        })?;
        Ok(new)
    })
}

async fn exited(openvpn: &mut OpenVpn, shared: &Shared) -> Error {
    let status = match tokio::time::timeout(Duration::from_secs(1), openvpn.child.wait()).await {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no exit code: it has closed its management socket and goes on".to_owned(),
    };
    let detail = shared.lock().detail.clone();
    format!("openvpn ended with {status}; the last that it told: {detail:?}").into()
}

fn tell(shared: &Shared, notice: Notice, voice: &Voice) {
    let mut tunnel = shared.lock();
    if !tunnel.take(notice, unix()) {
        return;
    }
    let (word, detail) = (tunnel.state.word(), &tunnel.detail);
    let (level, text) = match word {
        "connected" => {
            (log::Level::Info, format!("tunnel connected: address {}, server {}", tunnel.address, tunnel.server))
        }
        "starting" | "connecting" => (log::Level::Info, format!("tunnel {word}")),
        _ => (log::Level::Warn, format!("tunnel {word}: {detail}")),
    };
    log::log!(level, "{text}");
    voice.status(&text);
    // On the way to a state there is nothing to remember.
    if !matches!(word, "starting" | "connecting") {
        voice.notice(&text);
    }
}

/// What is to be told of the certificate, if there is something.
fn tell_certificate(told: Option<(log::Level, String)>, voice: &Voice) {
    let Some((level, text)) = told else { return };
    log::log!(level, "{text}");
    if level < log::Level::Info {
        voice.notice(&text);
    }
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// From beat to beat.
const TURN: Duration = Duration::from_millis(200);
