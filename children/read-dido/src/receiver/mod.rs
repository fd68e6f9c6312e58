//! Puts what senders say to the outputs, and safe values when they are silent.

mod connection;
mod legacy;
mod service;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use multus_child::lines::Point;
use multus_child::network::Network;
use multus_child::{Context, Error, Interval};
use multus_ipc::io_child::{Asked, Io, NotSet};
use multus_proto::v1::MirrorResult;
use tokio::sync::watch;
use tokio::time::{sleep, timeout_at};

use crate::config::{Known, Protocol, Valid};
use crate::logic::link::{Link, Stream};
use crate::peers::{Peer, Role};
use crate::secret::Token;
use crate::told::Told;

pub(crate) use connection::{Server, accept};

/// All senders that are known.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) senders: Arc<Vec<Sender>>,
    changes: watch::Receiver<u64>,
    started: Instant,
    /// Who is refused.
    strangers: Arc<Told>,
}

/// One sender.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) peer: Peer,
    name: String,
    protocol: Protocol,
    networks: Vec<Network>,
    token: Option<Token>,
    /// Common name of its certificate; empty: it needs none.
    certificate: String,
    timeout: Duration,
    state: Mutex<State>,
    /// Raised when another connection of it counts.
    epochs: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    link: Link,
    outputs: Vec<Output>,
    /// Lines that it sent and may not set, so that it is told once.
    refused: Vec<String>,
}

/// An output of a sender.
#[derive(Debug)]
struct Output {
    point: Point,
    /// What was asked for last: `None` is the safe value.
    wanted: Option<bool>,
    asked: Option<Result<Asked, NotSet>>,
}

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) address: std::net::SocketAddr,
    /// Common name of the certificate that it has shown.
    pub(crate) certificate: Option<String>,
}

impl Receiver {
    /// Nobody was heard yet.
    ///
    /// # Errors
    /// A token cannot be used.
    pub(crate) fn new(
        known: &[Known],
        valid: &Valid,
        io: &Io,
        context: &Context,
        changes: watch::Receiver<u64>,
    ) -> Result<Self, Error> {
        let mut senders = Vec::new();
        for (index, (known, networks)) in known.iter().zip(&valid.addresses).enumerate() {
            let token = Token::load(&format!("receiver.senders[{index}].token"), &known.token, context)?;
            let outputs =
                known.outputs.iter().map(|name| Output { point: Point::new(io, name), wanted: None, asked: None });
            let state = State {
                link: Link::new(known.silence(), Duration::ZERO),
                outputs: outputs.collect(),
                refused: Vec::new(),
            };
            senders.push(Sender {
                peer: Peer::new(Role::Sender, &known.name, known.protocol, context.voice()),
                name: known.name.clone(),
                protocol: known.protocol,
                networks: networks.clone(),
                token,
                certificate: known.certificate.clone(),
                timeout: known.silence(),
                state: Mutex::new(state),
                epochs: watch::channel(0).0,
            });
        }
        Ok(Self { senders: Arc::new(senders), changes, started: Instant::now(), strangers: Arc::default() })
    }

    /// Makes outputs safe whose sender is silent. `turns` rises as long as this goes on.
    pub(crate) async fn guard(self, turns: Arc<AtomicU64>) {
        loop {
            turns.fetch_add(1, Ordering::Relaxed);
            let now = self.started.elapsed();
            let mut next = now + TURN;
            for sender in self.senders.iter() {
                let mut state = sender.state();
                if state.link.turn(now) {
                    let detail = format!(
                        "not heard for {}; its outputs are set to their safe values",
                        Interval::from(sender.timeout)
                    );
                    sender.peer.silent(&detail);
                    state.outputs.iter_mut().for_each(Output::ask_safe);
                }
                next = state.link.due().map_or(next, |due| due.min(next));
            }
            sleep(next.saturating_sub(self.started.elapsed()).max(Duration::from_millis(1))).await;
        }
    }

    /// Whether connections from there can be of any use.
    pub(crate) fn expects(&self, address: IpAddr) -> bool {
        let is_own = address.to_canonical().is_loopback();
        is_own
            || self.senders.iter().any(|sender| sender.may_come_from(address) && sender.is_known_by_more_or_address())
    }

    /// Waits until all outputs of a sender have what they were asked for, or some time after `since`; what they have.
    async fn results(&self, sender: &Sender, since: tokio::time::Instant) -> Vec<MirrorResult> {
        let end = since + CONFIRM;
        let mut changes = self.changes.clone();
        loop {
            changes.mark_unchanged();
            let results: Vec<MirrorResult> = sender.state().outputs.iter().map(Output::result).collect();
            let is_pending = results.iter().any(|result| result.outcome == "pending");
            if !is_pending || !matches!(timeout_at(end, changes.changed()).await, Ok(Ok(()))) {
                return results;
            }
        }
    }
}

impl Sender {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic ends the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_come_from(&self, address: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(address))
    }

    fn is_known_by_more_or_address(&self) -> bool {
        self.token.is_some() || !self.certificate.is_empty() || !self.networks.is_empty()
    }

    /// Why somebody is not this sender.
    fn stranger(&self, origin: &Origin, token: Option<&str>) -> Option<&'static str> {
        let address = origin.address.ip().to_canonical();
        if self.protocol == Protocol::Legacy {
            return Some("it is configured as one of the original");
        }
        if !self.may_come_from(address) {
            return Some("its address is not among those of this sender");
        }
        if !self.certificate.is_empty() && origin.certificate.as_ref() != Some(&self.certificate) {
            return Some("it does not show the certificate of this sender");
        }
        match (&self.token, token) {
            (Some(own), Some(shown)) if !own.is(shown) => return Some("it shows a wrong token"),
            (Some(_), None) => return Some("it shows no token"),
            _ => {}
        }
        let is_own = address.is_loopback();
        (!is_own && !self.is_known_by_more_or_address())
            .then_some("without token, certificate or addresses a sender must be on this machine")
    }
}

impl State {
    /// Asks for what a state says; `None` is the safe value.
    fn apply(&mut self, wanted: impl Fn(&str) -> Option<bool>) {
        for output in &mut self.outputs {
            output.ask(wanted(output.point.name()));
        }
    }

    /// Tells once that a sender wants what it may not.
    fn tell_refused(&mut self, peer: &Peer, refused: Vec<String>) {
        if refused != self.refused {
            if !refused.is_empty() {
                let detail = format!("{}; name them in its outputs, or take them from its lines", refused.join(", "));
                peer.tell(log::Level::Warn, "may not set", &detail);
            }
            self.refused = refused;
        }
    }

    fn closed(&mut self, stream: Stream) {
        self.link.closed(stream);
    }
}

impl Output {
    fn ask(&mut self, on: Option<bool>) {
        let is_asked = matches!(&self.asked, Some(Ok(_))) && self.wanted == on;
        if is_asked {
            return;
        }
        let asked = match on {
            Some(on) => self.point.ask(f64::from(u8::from(on))),
            None => self.point.ask_safe(),
        };
        if let Err(error) = &asked
            && !matches!(&self.asked, Some(Err(told)) if told == error)
        {
            log::error!("{error}");
        }
        (self.wanted, self.asked) = (on, Some(asked));
    }

    fn ask_safe(&mut self) {
        self.ask(None);
    }

    fn result(&self) -> MirrorResult {
        let reading = self.point.read();
        let on = reading.filter(|reading| reading.is_good).map(|reading| reading.value != 0.0);
        let outcome = match (&self.asked, reading) {
            (Some(Err(_)), _) => "refused",
            (_, None) => "bad",
            (_, Some(reading)) if reading.is_forced => "forced",
            (_, Some(reading)) if !reading.is_good => "bad",
            (Some(Ok(asked)), _) if !asked.is_done() => "pending",
            _ if self.wanted.is_none() => "safe",
            _ => "applied",
        };
        MirrorResult { output: self.point.name().into(), outcome: outcome.into(), on }
    }
}

/// From look to look at most.
const TURN: Duration = Duration::from_millis(100);
/// How long outputs may take until a state is acknowledged all the same. Scans are at most a second apart, and usually a millisecond.
const CONFIRM: Duration = Duration::from_millis(50);
