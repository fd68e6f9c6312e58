//! Puts what senders say to the outputs, and safe values when they are silent.

mod accepted;
mod connection;
mod legacy;
mod service;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use multus_child::lines::{self, Point};
use multus_child::network::Network;
use multus_child::{Context, Interval};
use multus_ipc::io_child::{Asked, Io, NotSet};
use multus_proto::v1::MirrorResult;
use tokio::sync::watch;
use tokio::time::{sleep, timeout_at};

use self::accepted::Accepted;
use crate::config::{self, Protocol, Valid};
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
    /// The port takes TLS, so a token in plain text is somebody's mistake, or a stolen one.
    has_tls: bool,
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
    io: Io,
    point: Point,
    /// Among the outputs of its sender; for one of the original, that of its line.
    place: usize,
    /// What was asked for last: `None` is the safe value.
    wanted: Option<bool>,
    asked: Option<Result<Asked, NotSet>>,
    /// The definitions of lines that this was asked under: under later ones it is nothing any more.
    layout: Option<u64>,
}

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) is_tls: bool,
    /// Common name of the certificate that it has shown.
    pub(crate) certificate: Option<String>,
    /// Told when something of it is accepted.
    accepted: Accepted,
}

impl Receiver {
    /// Nobody was heard yet. `tokens` are those of the senders in turn.
    pub(crate) fn new(
        config: &config::Receiver,
        valid: &Valid,
        tokens: &[Option<Token>],
        io: &Io,
        context: &Context,
        changes: watch::Receiver<u64>,
    ) -> Self {
        let mut senders = Vec::new();
        for ((known, networks), token) in config.senders.iter().zip(&valid.addresses).zip(tokens) {
            let named = known.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty());
            let outputs = named.map(|(place, name)| Output::new(io, name, place));
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
                token: token.clone(),
                has_tls: config.is_tls(),
                certificate: known.certificate.clone(),
                timeout: known.silence(),
                state: Mutex::new(state),
                epochs: watch::channel(0).0,
            });
        }
        Self { senders: Arc::new(senders), changes, started: Instant::now(), strangers: Arc::default() }
    }

    /// Asks for the safe values of all outputs, as what they begin with.
    pub(crate) fn begin_safe(&self) {
        self.senders.iter().for_each(|sender| sender.state().outputs.iter_mut().for_each(Output::ask_safe));
    }

    /// Makes outputs safe whose sender is silent, and asks for all values again when lines were defined anew. `turns` rises as
    /// long as this goes on.
    pub(crate) async fn guard(self, turns: Arc<AtomicU64>) {
        loop {
            turns.fetch_add(1, Ordering::Relaxed);
            let now = self.started.elapsed();
            let mut next = now + TURN;
            for sender in self.senders.iter() {
                let mut state = sender.state();
                state.outputs.iter_mut().for_each(Output::renew);
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
            (Some(_), Some(_)) if self.has_tls && !origin.is_tls => {
                return Some("it shows its token in plain text, and this port takes TLS");
            }
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
    fn new(io: &Io, name: &str, place: usize) -> Self {
        Self { io: io.clone(), point: Point::new(io, name), place, wanted: None, asked: None, layout: None }
    }

    fn ask(&mut self, on: Option<bool>) {
        // Before the request: one that is made while lines are defined anew is made again.
        let layout = lines::layout(&self.io);
        let is_asked = matches!(&self.asked, Some(Ok(_))) && self.layout == layout;
        if is_asked && self.wanted == on {
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
        (self.wanted, self.asked, self.layout) = (on, Some(asked), layout);
    }

    /// Asks again for what was asked for, if lines were defined anew meanwhile.
    fn renew(&mut self) {
        if self.asked.is_some() && self.layout != lines::layout(&self.io) {
            self.ask(self.wanted);
        }
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

#[cfg(test)]
mod tests {
    use multus_ipc::child::Heartbeat;
    use multus_ipc::io::{self, Definition, RequestReader, Writer};
    use multus_nettest::lines::{self, page};

    use super::*;

    fn output(name: &str) -> Definition {
        lines::output(name, "read-dido")
    }

    #[test]
    fn a_token_in_plain_text_counts_only_where_there_is_no_tls() {
        let stranger = |has_tls, is_tls, token| {
            let sender = Sender {
                peer: Peer::new(Role::Sender, "pump", Protocol::Multus, Heartbeat::inert().voice()),
                name: "pump".into(),
                protocol: Protocol::Multus,
                networks: Vec::new(),
                token: Some(Token::of("0123456789abcdef")),
                has_tls,
                certificate: String::new(),
                timeout: Duration::from_secs(5),
                state: Mutex::new(State {
                    link: Link::new(Duration::from_secs(5), Duration::ZERO),
                    outputs: Vec::new(),
                    refused: Vec::new(),
                }),
                epochs: watch::channel(0).0,
            };
            let origin = Origin {
                address: ([127, 0, 0, 1], 1).into(),
                is_tls,
                certificate: None,
                accepted: Accepted::default(),
            };
            sender.stranger(&origin, token)
        };
        let (good, wrong) = (Some("0123456789abcdef"), Some("0123456789abcdeg"));
        assert_eq!((stranger(false, false, good), stranger(true, true, good)), (None, None));
        assert!(stranger(true, false, good).is_some_and(|reason| reason.contains("in plain text")));
        let told = stranger(true, false, wrong);
        assert_eq!(told, stranger(true, false, good), "who listens does not learn which one is right");
        assert_eq!(stranger(true, true, wrong), Some("it shows a wrong token"));
        assert_eq!(stranger(true, true, None), Some("it shows no token"));
    }

    #[test]
    fn what_was_asked_for_is_asked_again_under_new_definitions_and_nothing_else() {
        let (image, seen) = page(io::IMAGE_WORDS, io::image_header());
        let (requests, own) = page(io::REQUEST_WORDS, io::request_header());
        let io = Io::new(seen, Some(own), "read-dido").expect("pages");
        let writer = Writer::new(image.words()).expect("an image");
        let reader = RequestReader::new(requests.words()).expect("a page");
        let request = |line| reader.look(line).map(|request| (request.layout, request.value));
        let (mut fresh, mut live, mut silent) =
            (Output::new(&io, "DO1", 0), Output::new(&io, "DO2", 1), Output::new(&io, "DO3", 2));
        // Before any line is defined: what outputs begin with is not lost.
        fresh.ask_safe();
        let defined = [output("DO1"), output("DO2"), output("DO3")];
        let layout = writer.define(&defined);
        let mut renew = || [&mut fresh, &mut live, &mut silent].into_iter().for_each(Output::renew);
        renew();
        assert_eq!((request(0), request(1), request(2)), (Some((layout, 0.0)), None, None));
        live.ask(Some(true));
        let before = reader.look(1).map(|request| request.sequence);
        live.ask(Some(true));
        live.renew();
        assert_eq!(reader.look(1).map(|request| request.sequence), before, "once");
        let mut more = vec![output("DO0")];
        more.extend(defined);
        let layout = writer.define(&more);
        fresh.renew();
        live.ask(Some(true));
        silent.renew();
        assert_eq!((request(1), request(2), request(3)), (Some((layout, 0.0)), Some((layout, 1.0)), None));
    }
}
