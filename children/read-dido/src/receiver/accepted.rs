//! Whether a connection is good for anything: who is let in and has nothing accepted of what it asks for loses its place, however
//! well it answers the pings of HTTP/2.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;

/// Whether something was accepted over a connection: a hello, or a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Accepted(Arc<AtomicBool>);

impl Accepted {
    pub(super) fn accept(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The end of a connection over which nothing was accepted in its first time.
    pub(super) async fn in_vain(self) -> io::ErrorKind {
        sleep(PATIENCE).await;
        if self.0.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        io::ErrorKind::TimedOut
    }
}

/// Longer than a hello takes over a bad line.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use multus_net::connection::Connection;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::{Instant, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_only_keeps_the_connection_alive_loses_it() {
        let silence = 100 * PATIENCE;
        for is_accepted in [false, true] {
            let (mut peer, carrier) = duplex(64);
            let accepted = Accepted::default();
            let mut connection = Connection::new(carrier, (), silence, ()).until(accepted.clone().in_vain());
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
        }
        // Who says nothing at all, too.
        let (_peer, carrier) = duplex(64);
        let mut connection = Connection::new(carrier, (), silence, ()).until(Accepted::default().in_vain());
        assert_eq!(connection.read_u8().await.expect_err("too late").kind(), io::ErrorKind::TimedOut);
    }
}
