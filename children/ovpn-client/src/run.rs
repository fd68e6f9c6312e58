//! The loop: listens to openvpn, asks whether it is alive, beats.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use multus_child::{Context, Error, Interval, Voice, Wake};
use multus_contract::api::time::format_rfc3339;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::config::Config;
use crate::notice::{Notice, parse};
use crate::process::OpenVpn;
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
    Reload,
    Restart,
}

pub(crate) fn run(mut config: Config, context: &Context) -> Result<(), Error> {
    loop {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let is_to_go_on = runtime.block_on(work(&config, context))?;
        if !is_to_go_on {
            return Ok(());
        }
        if let Some(new) = context.reload(|new: Config| new.check().map(|()| new)) {
            config = new;
        }
    }
}

/// Works until it is asked to end (`false`), or to read its configuration again (`true`).
async fn work(config: &Config, context: &Context) -> Result<bool, Error> {
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
        tell_certificate(openvpn.validity, &context.voice());
        context.ready();
        let ended = turn(config, context, &mut openvpn, &shared, &mut asked).await;
        openvpn.end().await;
        match ended {
            Ok(End::Restart) => log::info!("openvpn is started anew, as asked"),
            Ok(End::Reload) => break Ok(true),
            Ok(End::Stop) => break Ok(false),
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
        context.beat();
        match context.wait(Duration::ZERO) {
            Wake::Elapsed => {}
            Wake::Reload => return Ok(End::Reload),
            Wake::Stop => return Ok(End::Stop),
        }
    }
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

fn tell_certificate(validity: Option<(i64, i64)>, voice: &Voice) {
    let Some((begins, ends)) = validity else { return };
    let now = i64::try_from(unix().as_secs()).unwrap_or(i64::MAX);
    let days = (ends - now).div_euclid(86_400);
    let date = |seconds: i64| {
        let text = format_rfc3339(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000));
        text.split('T').next().unwrap_or_default().to_owned()
    };
    let (level, text) = match days {
        _ if now < begins => {
            let (begins, now) = (date(begins), date(now));
            let text =
                format!("the certificate of this device begins on {begins}, and the clock says {now}: is it right?");
            (log::Level::Error, text)
        }
        ..0 => {
            let text =
                format!("the certificate of this device ended on {}, {} days ago by the clock", date(ends), -days);
            (log::Level::Error, text)
        }
        0..WARN_DAYS => (log::Level::Warn, format!("the certificate of this device ends in {days} days")),
        _ => return log::info!("the certificate of this device ends in {days} days"),
    };
    log::log!(level, "{text}");
    voice.notice(&text);
}

fn unix() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// From beat to beat.
const TURN: Duration = Duration::from_millis(200);
/// Time enough to send somebody with a new one.
const WARN_DAYS: i64 = 30;
