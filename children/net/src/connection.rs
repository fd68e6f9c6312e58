//! A connection of a gRPC server, whatever carries it.

use std::any::Any;
use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What carries a connection: TCP, TLS, a Unix socket.
pub trait Carrier: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Carrier for T {}

/// A connection with what is known of its other end.
pub struct Connection<Peer> {
    carrier: Box<dyn Carrier>,
    peer: Peer,
    longest_silence: Duration,
    /// When its silence has lasted too long.
    silent: Pin<Box<Sleep>>,
    end: End,
    /// The place that it has among others.
    _place: Box<dyn Any + Send>,
}

/// What else ends a connection.
enum End {
    Awaited(Pin<Box<dyn Future<Output = io::ErrorKind> + Send>>),
    Over(io::ErrorKind),
}

impl<Peer> Connection<Peer> {
    /// A connection that breaks when nothing comes for `longest_silence`; a peer that lives answers pings, so that should be longer
    /// than two of them. `place`, such as a permit, is given back when the connection is gone. Made inside of a runtime.
    pub fn new(
        carrier: impl Carrier + 'static,
        peer: Peer,
        longest_silence: Duration,
        place: impl Send + 'static,
    ) -> Self {
        let silent = Box::pin(sleep(longest_silence));
        let end = End::Awaited(Box::pin(pending()));
        Self { carrier: Box::new(carrier), peer, longest_silence, silent, end, _place: Box::new(place) }
    }

    /// It breaks as well when this is over, with what it says.
    #[must_use]
    pub fn until(self, end: impl Future<Output = io::ErrorKind> + Send + 'static) -> Self {
        Self { end: End::Awaited(Box::pin(end)), ..self }
    }
}

impl<Peer: fmt::Debug> fmt::Debug for Connection<Peer> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl<Peer: Clone + Send + Sync + 'static> Connected for Connection<Peer> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<Peer: Unpin> AsyncRead for Connection<Peer> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let End::Awaited(end) = &mut self.end
            && let Poll::Ready(kind) = end.as_mut().poll(context)
        {
            self.end = End::Over(kind);
        }
        if let End::Over(kind) = self.end {
            return Poll::Ready(Err(kind.into()));
        }
        let read = Pin::new(&mut self.carrier).poll_read(context, buffer);
        if read.is_ready() {
            let end = Instant::now() + self.longest_silence;
            self.silent.as_mut().reset(end);
            return read;
        }
        self.silent.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<Peer: Unpin> AsyncWrite for Connection<Peer> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.carrier).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.carrier).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.carrier).poll_shutdown(context)
    }
}

/// The one common name in a certificate (DER); two would leave open which one is meant.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_breaks_and_gives_back_its_place() {
        let places = Arc::new(Semaphore::new(1));
        let (mut peer, carrier) = duplex(64);
        let permit = Arc::clone(&places).try_acquire_owned().unwrap();
        let mut connection = Connection::new(carrier, "somebody", Duration::from_secs(60), permit);
        let begun = Instant::now();
        for seconds in [0, 59] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            peer.write_all(b"x").await.unwrap();
            assert_eq!(connection.read_u8().await.unwrap(), b'x');
        }
        connection.write_all(b"y").await.unwrap();
        assert_eq!(peer.read_u8().await.unwrap(), b'y');
        assert_eq!(connection.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), 59 + 60);
        assert_eq!((connection.connect_info(), places.available_permits()), ("somebody", 0));
        drop(connection);
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_connection_breaks_at_its_end_although_there_is_something_to_read() {
        let (mut peer, carrier) = duplex(64);
        let (end, ended) = tokio::sync::oneshot::channel();
        let mut connection = Connection::new(carrier, (), Duration::from_secs(60), ()).until(async {
            ended.await.unwrap();
            io::ErrorKind::ConnectionAborted
        });
        peer.write_all(b"xyz").await.unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), b'x');
        end.send(()).unwrap();
        for _ in 0..2 {
            assert_eq!(connection.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        }
    }
}
