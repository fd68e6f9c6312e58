//! Connections: who may come, how many, how long one may be silent, and whether it is TLS. A connection that begins as TLS does
//! is taken as such; plain text goes on beside it for those who need neither token nor certificate.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use multus_child::shares::{Share, Shares};
use multus_net::connection::{Carrier, Connection, common_name};
use multus_net::serve::LARGEST_MESSAGE;
use multus_proto::legacy::g_rp_cmultus_read_dido_server::GRpCmultusReadDidoServer;
use multus_proto::v1::mirror_service_server::MirrorServiceServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use super::accepted::Accepted;
use super::legacy::Legacy;
use super::service::Mirror;
use super::{Origin, Receiver};
use crate::peers::Peer;
use crate::told::Told;

/// What connections are for.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) receiver: Receiver,
    pub(crate) peers: Arc<Vec<Peer>>,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) max_connections: u16,
    /// From one address; 0: half of them.
    pub(crate) max_per_address: u16,
    /// Of the configuration.
    pub(crate) version: String,
}

/// Serves for ever. `turns` rises as long as connections are taken.
pub(crate) async fn accept(listener: TcpListener, server: Server, turns: Arc<AtomicU64>) {
    let (sender, incoming) = mpsc::channel(1);
    let mirror = Mirror { receiver: server.receiver.clone(), peers: Arc::clone(&server.peers) };
    let legacy = Legacy { mirror: mirror.clone(), version: server.version.clone() };
    let served = multus_net::serve::server(KEEP_ALIVE)
        .add_service(MirrorServiceServer::new(mirror).max_decoding_message_size(LARGEST_MESSAGE))
        .add_service(GRpCmultusReadDidoServer::new(legacy).max_decoding_message_size(LARGEST_MESSAGE))
        .serve_with_incoming(ReceiverStream::new(incoming));
    let served = async {
        if let Err(error) = served.await {
            log::error!("connections are not served any more: {error}");
        }
    };
    // Without either, the other one is of no use: the child ends and begins anew.
    tokio::select! {
        () = served => {}
        () = server.take(listener, sender, turns) => {}
    }
}

impl Server {
    async fn take(
        &self,
        listener: TcpListener,
        sender: mpsc::Sender<io::Result<Connection<Origin>>>,
        turns: Arc<AtomicU64>,
    ) {
        let mut ticks = interval(TURN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let room = Arc::new(Semaphore::new(self.max_connections.into()));
        let shares = Shares::new(self.max_connections, self.max_per_address);
        let broken = Arc::new(Told::default());
        let (refusals, failures) = (Told::default(), Told::default());
        loop {
            turns.fetch_add(1, Ordering::Relaxed);
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = ticks.tick() => continue,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                // Of one connection that is gone already, or of all: no file descriptor is left. The latter takes its time.
                Err(error) => {
                    failures.tell("", |more| log::error!("connections cannot be taken: {error}; tried again{more}"));
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let (permit, share) = match self.permit(address.ip(), &room, &shares) {
                Ok(permit) => permit,
                Err(reason) => {
                    refusals.tell(reason, |more| log::warn!("connection of {address} is refused: {reason}{more}"));
                    continue;
                }
            };
            // Apart, and not for ever: a client may take its time or say nothing at all.
            let (tls, sender, broken) = (self.tls.clone(), sender.clone(), Arc::clone(&broken));
            tokio::spawn(async move {
                match timeout(HANDSHAKE, begun(stream, address, tls)).await {
                    Ok(Ok((carrier, origin))) => {
                        let in_vain = origin.accepted.clone().in_vain();
                        let place = (permit, share);
                        let connection = Connection::new(carrier, origin, LONGEST_SILENCE, place).until(in_vain);
                        // Nobody takes it when the program ends.
                        let _ = sender.send(Ok(connection)).await;
                    }
                    Ok(Err(error)) => {
                        broken.tell("", |more| log::warn!("connection of {address} came to nothing: {error}{more}"));
                    }
                    Err(_) => log::debug!("{address} connects and says nothing"),
                }
            });
        }
    }

    fn permit(
        &self,
        address: IpAddr,
        room: &Arc<Semaphore>,
        shares: &Arc<Shares>,
    ) -> Result<(OwnedSemaphorePermit, Share), &'static str> {
        if !self.receiver.expects(address) {
            return Err("no sender comes from there");
        }
        let share = shares.take(address).ok_or("its address has its share of the connections already")?;
        let permit = Arc::clone(room).try_acquire_owned();
        Ok((permit.map_err(|_| "as many as receiver.max_connections are open")?, share))
    }
}

/// A connection after its beginning.
async fn begun(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
) -> io::Result<(Box<dyn Carrier>, Origin)> {
    stream.set_nodelay(true)?;
    let plain = Origin { address, is_tls: false, certificate: None, accepted: Accepted::default() };
    let Some(tls) = tls else { return Ok((Box::new(stream), plain)) };
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first[0] != TLS_HANDSHAKE {
        return Ok((Box::new(stream), plain));
    }
    let stream = tls.accept(stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|shown| common_name(shown.first()?));
    Ok((Box::new(stream), Origin { is_tls: true, certificate, ..plain }))
}

/// The first byte of a TLS connection (RFC 8446, section 5.1); one of HTTP/2 in plain text begins with "PRI".
const TLS_HANDSHAKE: u8 = 22;
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Longer than a ping and its answer.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
const HANDSHAKE: Duration = Duration::from_secs(5);
const TURN: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(20);
