//! Sends the lines of this device: a task for each receiver, which connects again and again.

mod legacy;
mod multus;
mod resolve;

use std::time::Duration;

use multus_child::{Context, Error};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use self::resolve::Name;
use crate::config::{self, Protocol, Remote};
use crate::logic::backoff::Backoff;
use crate::logic::mapping::Levels;
use crate::peers::{Peer, Role, State};
use crate::secret::{self, Token};

/// One receiver, and the way to it.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) peer: Peer,
    endpoint: Endpoint,
    name: Name,
    protocol: Protocol,
    token: Option<Token>,
}

/// Why a connection ended.
#[derive(Debug)]
struct End {
    is_refused: bool,
    reason: String,
}

/// The ways to all receivers, in the order of the configuration.
///
/// # Errors
/// A token, certificate or key cannot be used.
pub(crate) fn ways(config: &config::Sender, context: &Context) -> Result<Vec<Way>, Error> {
    let remotes = config.receivers.iter().enumerate();
    remotes.map(|(index, remote)| Way::new(&format!("sender.receivers[{index}]"), remote, context)).collect()
}

/// Begins to send.
pub(crate) fn start(
    ways: Vec<Way>,
    config: &config::Sender,
    name: &str,
    levels: &watch::Receiver<Levels>,
    tasks: &mut JoinSet<()>,
) -> Result<(), Error> {
    let mut session = [0; 8];
    getrandom::fill(&mut session).map_err(|error| format!("no random numbers: {error}"))?;
    let session = u64::from_le_bytes(session);
    for way in ways {
        let (lines, levels) = (config.lines.clone(), levels.clone());
        match way.protocol {
            Protocol::Multus => {
                let sender = multus::Sender::new(way, name.to_owned(), session, lines, levels);
                tasks.spawn(sender.run());
            }
            Protocol::Legacy => {
                tasks.spawn(legacy::run(way, lines, config.interval.duration(), levels));
            }
        }
    }
    Ok(())
}

impl Way {
    fn new(key: &str, remote: &Remote, context: &Context) -> Result<Self, Error> {
        let (tls, token) =
            (secret::client_tls(key, remote, context)?, Token::load(&format!("{key}.token"), &remote.token, context)?);
        if token.is_some() && tls.is_none() && !is_own_machine(&remote.address) {
            log::warn!("{key}: without TLS everybody on the way to {} can read the token", remote.address);
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", remote.address))?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_max_header_list_size(LARGEST_HEADERS);
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls).map_err(|error| format!("{key}: {}", chain(&error)))?;
        }
        let voice = context.voice();
        let peer = Peer::new(Role::Receiver, &remote.address, remote.protocol, voice);
        Ok(Self { peer, endpoint, name: Name::new(&remote.address), protocol: remote.protocol, token })
    }

    /// Resolves the name, opens the connection, and agrees on TLS.
    async fn connect(&mut self) -> Result<Channel, End> {
        self.name.resolve(CONNECT).await.map_err(End::lost)?;
        connect(&self.endpoint).await
    }

    /// Tells why it came to an end, and waits before the next try.
    async fn pause(&self, end: End, backoff: &mut Backoff) {
        let state = if end.is_refused { State::Refused } else { State::Connecting };
        self.peer.disconnected(state, &end.reason);
        sleep(if end.is_refused { REFUSED } else { backoff.next() }).await;
    }
}

/// Takes no longer than [`CONNECT`]: the time-out of the endpoint is for TCP alone, and who is behind it may say nothing.
async fn connect(endpoint: &Endpoint) -> Result<Channel, End> {
    match timeout(CONNECT, endpoint.connect()).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(End::lost("the connection does not come about")),
    }
}

impl End {
    fn lost(reason: impl Into<String>) -> Self {
        Self { is_refused: false, reason: reason.into() }
    }
}

impl From<tonic::transport::Error> for End {
    fn from(error: tonic::transport::Error) -> Self {
        Self::lost(chain(&error))
    }
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        let is_refused = matches!(
            status.code(),
            Code::Unauthenticated
                | Code::PermissionDenied
                | Code::AlreadyExists
                | Code::InvalidArgument
                | Code::Unimplemented
        );
        let source = std::error::Error::source(&status).map(chain);
        let reason = if is_refused {
            status.message().to_owned()
        } else {
            source.unwrap_or_else(|| status.message().to_owned())
        };
        Self { is_refused, reason }
    }
}

/// An error with what caused it, without what is said twice.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn is_own_machine(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// For the name, and then for TCP and TLS. A packet that opens a connection is repeated by the kernel after one second and after three.
const CONNECT: Duration = Duration::from_secs(4);
/// Whoever is not wanted asks again so often: a configuration may be put right at the other end.
const REFUSED: Duration = Duration::from_secs(1);
const LARGEST_HEADERS: u32 = 16 * 1024;
/// 256 outputs with their results fit.
const LARGEST_MESSAGE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::Instant;
    use tonic::transport::ClientTlsConfig;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_the_connection_and_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address");
        let endpoint = endpoint.tls_config(ClientTlsConfig::new().domain_name("box")).expect("TLS");
        let begun = Instant::now();
        let connected = tokio::spawn(async move { connect(&endpoint).await.map(drop) });
        let held = listener.accept().await.expect("a connection");
        let end = timeout(2 * CONNECT, connected).await.expect("in time").expect("no panic").expect_err("no TLS");
        assert!(!end.is_refused && begun.elapsed() >= CONNECT, "{end:?}");
        drop(held);
    }
}
