//! A connection that must be good for something: who is let in and has nothing accepted of what it asks for loses its place, however
//! well it answers the pings of HTTP/2.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use multus_child::shares::Share;
use multus_net::connection::Carrier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Whether something was accepted over a connection: a hello, or a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Accepted(Arc<AtomicBool>);

impl Accepted {
    pub(super) fn accept(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that breaks when nothing was accepted over it in time. It counts for its address for as long as it is there.
pub(super) struct Probation {
    carrier: Box<dyn Carrier>,
    accepted: Accepted,
    end: Pin<Box<Sleep>>,
    _share: Share,
}

impl Probation {
    /// Its time begins now. Made inside of a runtime.
    pub(super) fn new(carrier: Box<dyn Carrier>, accepted: Accepted, share: Share) -> Self {
        Self { carrier, accepted, end: Box::pin(sleep(PATIENCE)), _share: share }
    }
}

impl AsyncRead for Probation {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.accepted.is_so() && self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.carrier).poll_read(context, buffer)
    }
}

impl AsyncWrite for Probation {
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

/// Longer than a hello takes over a bad line.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use multus_child::shares::Shares;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::{Instant, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_only_keeps_the_connection_alive_loses_it() {
        let shares = Shares::new(9, 1);
        let address = "10.0.0.1".parse().expect("an address");
        for is_accepted in [false, true] {
            let (mut peer, carrier) = duplex(64);
            let accepted = Accepted::default();
            let share = shares.take(address).expect("the last one is gone");
            let mut connection = Probation::new(Box::new(carrier), accepted.clone(), share);
            if is_accepted {
                accepted.accept();
            }
            let begun = Instant::now();
            let mut last = Ok(0);
            while last.is_ok() && begun.elapsed() < 10 * PATIENCE {
                peer.write_all(b"x").await.expect("open");
                last = connection.read_u8().await;
                advance(Duration::from_secs(1)).await;
            }
            assert_eq!(last.is_ok(), is_accepted);
            assert!(is_accepted || begun.elapsed() <= PATIENCE + Duration::from_secs(1));
            assert!(shares.take(address).is_none());
        }
        // Who says nothing at all, too.
        let (_peer, carrier) = duplex(64);
        let share = shares.take(address).expect("the last one is gone");
        let mut connection = Probation::new(Box::new(carrier), Accepted::default(), share);
        assert_eq!(connection.read_u8().await.expect_err("too late").kind(), io::ErrorKind::TimedOut);
    }
}
