//! How each peer stands: written by whoever deals with it, told in the log, to multusd, and to those who ask.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use multus_child::Voice;
use multus_proto::v1;

use crate::config::Protocol;

/// One peer.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    role: Role,
    name: String,
    protocol: Protocol,
    voice: Voice,
    shown: Mutex<Shown>,
}

/// What a peer is for this instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// This instance sends to it.
    Receiver,
    /// This instance hears it.
    Sender,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Connecting,
    Connected,
    Refused,
    Silent,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Refused => "refused",
            Self::Silent => "silent",
        }
    }
}

/// What is shown of a peer. Times are since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    state: State,
    since: Duration,
    detail: String,
    /// The reasons that were told since it was connected, so that none is told again and again.
    told: Vec<String>,
    pub(crate) address: String,
    last_state: Option<Duration>,
    last_acknowledged: Option<Duration>,
    round_trip: Option<Duration>,
    states: u64,
    acknowledged: u64,
    pub(crate) lost: u64,
    pub(crate) connects: u64,
    silences: u64,
    last: (u64, u64),
    outputs: Vec<v1::MirrorResult>,
}

impl Peer {
    /// Not connected yet.
    pub(crate) fn new(role: Role, name: &str, protocol: Protocol, voice: Voice) -> Self {
        let shown = Shown {
            state: State::Connecting,
            since: now(),
            detail: String::new(),
            told: Vec::new(),
            address: String::new(),
            last_state: None,
            last_acknowledged: None,
            round_trip: None,
            states: 0,
            acknowledged: 0,
            lost: 0,
            connects: 0,
            silences: 0,
            last: (0, 0),
            outputs: Vec::new(),
        };
        Self { shared: Arc::new(Shared { role, name: name.to_owned(), protocol, voice, shown: Mutex::new(shown) }) }
    }

    /// The other end is there.
    pub(crate) fn connected(&self, detail: &str) {
        let mut shown = self.shown();
        shown.told.clear();
        if shown.go(State::Connected, detail) {
            drop(shown);
            self.tell(log::Level::Info, "connected", detail);
        }
    }

    /// The connection is gone, or does not come about. Each reason is told once, up to [`MOST_TOLD`] of them.
    pub(crate) fn disconnected(&self, state: State, reason: &str) {
        let mut shown = self.shown();
        shown.go(state, reason);
        if shown.told.len() < MOST_TOLD && !shown.told.iter().any(|told| told == reason) {
            shown.told.push(reason.to_owned());
            drop(shown);
            self.tell(log::Level::Warn, if state == State::Refused { "refuses" } else { "is not connected" }, reason);
        }
    }

    /// It was not heard for its time.
    pub(crate) fn silent(&self, detail: &str) {
        let mut shown = self.shown();
        shown.silences += 1;
        shown.go(State::Silent, detail);
        drop(shown);
        self.tell(log::Level::Warn, "is silent", detail);
    }

    /// A state was sent or received.
    pub(crate) fn state(&self) {
        let mut shown = self.shown();
        shown.states += 1;
        shown.last_state = Some(now());
    }

    /// A state was acknowledged.
    pub(crate) fn acknowledged(&self, last: (u64, u64), round_trip: Option<Duration>, outputs: &[v1::MirrorResult]) {
        let mut shown = self.shown();
        shown.acknowledged += 1;
        shown.last_acknowledged = Some(now());
        shown.round_trip = round_trip.or(shown.round_trip);
        shown.last = last;
        if shown.outputs != outputs {
            shown.outputs = outputs.to_vec();
        }
    }

    /// To change or see more.
    pub(crate) fn shown(&self) -> MutexGuard<'_, Shown> {
        // Plain values cannot be left half changed.
        self.shared.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.shown().state == State::Connected
    }

    /// A word for the line that tells how this child is.
    pub(crate) fn summary(&self) -> String {
        format!("{} {}", self.shared.name, self.shown().state.word())
    }

    /// Tells something about it, in the log and to multusd.
    pub(crate) fn tell(&self, level: log::Level, what: &str, detail: &str) {
        let role = if self.shared.role == Role::Receiver { "receiver" } else { "sender" };
        let end = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        let text = format!("{role} {} {what}{end}", self.shared.name);
        log::log!(level, "{text}");
        self.shared.voice.notice(&text);
    }

    /// For those who ask.
    pub(crate) fn message(&self) -> v1::MirrorPeer {
        let shown = self.shown();
        v1::MirrorPeer {
            role: if self.shared.role == Role::Receiver { "receiver" } else { "sender" }.into(),
            name: self.shared.name.clone(),
            protocol: if self.shared.protocol == Protocol::Multus { "multus" } else { "legacy" }.into(),
            state: shown.state.word().into(),
            since: Some(timestamp(shown.since)),
            detail: shown.detail.clone(),
            address: shown.address.clone(),
            last_state: shown.last_state.map(timestamp),
            last_acknowledged: shown.last_acknowledged.map(timestamp),
            round_trip_us: shown.round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            states: shown.states,
            acknowledged: shown.acknowledged,
            lost: shown.lost,
            connects: shown.connects,
            silences: shown.silences,
            epoch: shown.last.0,
            sequence: shown.last.1,
            outputs: shown.outputs.clone(),
        }
    }
}

impl Shown {
    /// `true`: it was another state.
    fn go(&mut self, state: State, detail: &str) -> bool {
        if self.detail != detail {
            self.detail = detail.to_owned();
        }
        let is_other = self.state != state;
        if is_other {
            (self.state, self.since) = (state, now());
        }
        is_other
    }
}

/// Reasons that are told while a peer is not connected.
const MOST_TOLD: usize = 16;

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn timestamp(time: Duration) -> prost_types::Timestamp {
    // Below a thousand million.
    let nanos = time.subsec_nanos().cast_signed();
    prost_types::Timestamp { seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), nanos }
}
