//! Connections: who is at the other end, how many there may be, and how long one may be silent.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use multus_net::connection::{Carrier, Connection, common_name};
use nix::unistd::{Gid, Uid, User, chown, getgrouplist};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use super::seats::{Seat, Seats, Standing};
use crate::certificates::Certificates;
use crate::run::Stop;
use crate::service::Caller;

/// Connections as they come.
pub(super) type Incoming = ReceiverStream<io::Result<Connection<Peer>>>;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// A process of this machine. `None`: one that may do nothing.
    Local(Option<Caller>),
    /// Somebody who has to say who he is, or whose certificate does.
    Remote(SocketAddr, Option<CommonName>, Standing),
}

/// The common name in a certificate that was verified in the handshake.
#[derive(Clone, Debug)]
pub(super) struct CommonName(pub(super) String);

/// A connection that was just taken.
enum Accepted {
    Tcp(TcpStream, SocketAddr),
    /// And whose it is.
    Unix(UnixStream, Option<Caller>),
}

/// Takes connections on a TCP port, over TLS where there is a certificate.
pub(super) fn tcp(address: SocketAddr, tls: Option<Arc<Certificates>>, most: usize, stop: Stop) -> Incoming {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let bind = || async { TcpListener::bind(address).await.map_err(|error| format!("grpc: {address}: {error}")) };
        let Some(listener) = patiently(bind, &stop).await else { return };
        match listener.local_addr() {
            Ok(address) => log::info!("grpc: listening on {address}"),
            Err(error) => log::info!("grpc: listening on {address}: {error}"),
        }
        accept(&sender, most, &stop, "TCP", tls.as_deref(), || async {
            let (stream, from) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Accepted::Tcp(stream, from))
        })
        .await;
    });
    ReceiverStream::new(receiver)
}

/// Takes connections on a socket in the file system.
pub(super) fn unix(path: PathBuf, group: Option<Gid>, most: usize, stop: Stop) -> Incoming {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let bind = || async { bind(&path, group).map_err(|error| format!("grpc: {}: {error}", path.display())) };
        let Some((listener, gid)) = patiently(bind, &stop).await else { return };
        log::info!("grpc: listening on {}", path.display());
        accept(&sender, most, &stop, "the socket", None, || async {
            let (stream, _) = listener.accept().await?;
            let credentials = stream.peer_cred()?;
            let (uid, own_gid) = (credentials.uid(), credentials.gid());
            // The groups of a user may have to be looked up somewhere slow.
            let caller = tokio::task::spawn_blocking(move || local_caller(uid, own_gid, gid)).await?;
            Ok(Accepted::Unix(stream, caller))
        })
        .await;
        // Gone already if somebody tidied up.
        let _ = std::fs::remove_file(&path);
    });
    ReceiverStream::new(receiver)
}

/// Tries until it works; says so once. `None`: the program ends.
async fn patiently<T, F: Future<Output = Result<T, String>>>(bind: impl Fn() -> F, stop: &Stop) -> Option<T> {
    let mut told = false;
    loop {
        match bind().await {
            Ok(listener) => return Some(listener),
            Err(error) if !std::mem::replace(&mut told, true) => log::error!("{error}; trying again"),
            Err(_) => {}
        }
        tokio::select! {
            () = sleep(RETRY) => {}
            () = stop.requested() => return None,
        }
    }
}

async fn accept<F: Future<Output = io::Result<Accepted>>>(
    sender: &mpsc::Sender<io::Result<Connection<Peer>>>,
    most: usize,
    stop: &Stop,
    place: &str,
    tls: Option<&Certificates>,
    next: impl Fn() -> F,
) {
    let seats = Seats::new(most);
    let mut told_full = false;
    loop {
        let accepted = tokio::select! {
            accepted = next() => accepted,
            () = stop.requested() => return,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // One that went away at once, or no descriptor is left: neither may end the accepting.
                log::debug!("grpc: {place}: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Some((seat, must_leave)) = seats.take(Instant::now()) else {
            if !std::mem::replace(&mut told_full, true) {
                log::warn!("grpc: {most} connections on {place} are open; more are hung up on");
            }
            continue;
        };
        told_full = false;
        let standing = seat.standing();
        let (plain, peer): (Box<dyn Carrier>, Peer) = match (tls, accepted) {
            (Some(certificates), Accepted::Tcp(stream, from)) => {
                // Apart, and not for ever: a client may take its time or say nothing at all.
                let handshake = secured(certificates.acceptor(), stream, from);
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut must_leave = must_leave;
                    let secured = tokio::select! {
                        secured = handshake => secured,
                        _ = &mut must_leave => None,
                    };
                    if let Some((stream, name)) = secured {
                        let peer = Peer::Remote(from, name, standing);
                        // Nobody takes it when the program ends.
                        let _ = sender.send(Ok(seated(stream, peer, seat, must_leave))).await;
                    }
                });
                continue;
            }
            (_, Accepted::Tcp(stream, from)) => (Box::new(stream), Peer::Remote(from, None, standing)),
            (_, Accepted::Unix(stream, caller)) => {
                if caller.is_some() {
                    standing.known();
                }
                (Box::new(stream), Peer::Local(caller))
            }
        };
        if sender.send(Ok(seated(plain, peer, seat, must_leave))).await.is_err() {
            return;
        }
    }
}

/// A connection for as long as it has its seat.
fn seated(
    carrier: impl Carrier + 'static,
    peer: Peer,
    seat: Seat,
    must_leave: oneshot::Receiver<()>,
) -> Connection<Peer> {
    Connection::new(carrier, peer, LONGEST_SILENCE, seat).until(async {
        // The other end lives as long as the seat.
        let _ = must_leave.await;
        io::ErrorKind::ConnectionAborted
    })
}

/// TLS on a connection, and the name that the client shows; `None`: it came to nothing.
async fn secured(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    from: SocketAddr,
) -> Option<(TlsStream<TcpStream>, Option<CommonName>)> {
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            log::debug!("grpc: TLS with {from}: {error}");
            return None;
        }
        Err(_) => return None,
    };
    let name = stream.get_ref().1.peer_certificates().and_then(|shown| common_name(shown.first()?));
    Some((stream, name.map(CommonName)))
}

/// A listening socket of mode 0660, and its group. It gets its name only when mode and group are right.
fn bind(path: &Path, group: Option<Gid>) -> io::Result<(UnixListener, u32)> {
    let beside = path.with_file_name(format!(".grpc.sock.{}", std::process::id()));
    let _ = std::fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    let ready: io::Result<u32> = (|| {
        if let Some(group) = group
            && let Err(errno) = chown(&beside, None, Some(group))
        {
            log::warn!("grpc: the socket cannot be given to the control group: {errno}");
        }
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o660))?;
        let gid = std::fs::metadata(&beside)?.gid();
        std::fs::rename(&beside, path)?;
        Ok(gid)
    })();
    if ready.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    Ok((listener, ready?))
}

/// Root and the user of this process may do everything, members of the socket's group what administrators may.
fn local_caller(uid: u32, own_gid: u32, socket_gid: u32) -> Option<Caller> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let name = user.as_ref().map_or_else(|| format!("user {uid}"), |user| user.name.clone());
    if uid == 0 || uid == Uid::effective().as_raw() {
        return Some(Caller::new(name, Caller::ROOT));
    }
    let is_member = || {
        let name = std::ffi::CString::new(user.as_ref()?.name.as_str()).ok()?;
        let groups = getgrouplist(&name, Gid::from_raw(own_gid)).ok()?;
        groups.contains(&Gid::from_raw(socket_gid)).then_some(())
    };
    if own_gid == socket_gid || is_member().is_some() {
        return Some(Caller::new(name, Caller::ADMIN));
    }
    log::warn!("grpc: {name} was refused at the socket");
    None
}

/// Longer than two pings and their answers.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(2);
const HANDSHAKE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_of_a_socket_has_the_rights_of_its_user() {
        let level = |uid, gid, socket_gid| local_caller(uid, gid, socket_gid).map(|caller| caller.level);
        let own = Uid::effective().as_raw();
        // Numbers that no user and no group has.
        let (nobody, group, other) = (3_999_999_990, 3_999_999_991, 3_999_999_992);
        assert_eq!(level(0, group, other), Some(Caller::ROOT));
        assert_eq!(level(own, group, other), Some(Caller::ROOT));
        assert_eq!(level(nobody, group, group), Some(Caller::ADMIN));
        assert_eq!(level(nobody, group, other), None);
    }
}
