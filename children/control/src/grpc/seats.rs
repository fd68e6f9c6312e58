//! How many connections there may be. When all seats are taken, of those who have not shown yet who they are the one that has been
//! there longest makes room; whoever has shown it stays. So those without a token, however many, keep out only each other.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// All seats of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Seats {
    most: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    last: u64,
    seats: HashMap<u64, Occupied>,
}

#[derive(Debug)]
struct Occupied {
    since: Instant,
    standing: Standing,
    leave: oneshot::Sender<()>,
}

/// Whether the other end has shown who it is. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing(Arc<AtomicBool>);

/// A seat that one connection has; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    number: u64,
    seats: Seats,
    standing: Standing,
    /// `None`: it has to be left.
    leave: Option<oneshot::Receiver<()>>,
}

impl Standing {
    pub(super) fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn known(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Seats {
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// A seat for a connection that comes now; `None`: all are taken by others who may stay.
    pub(super) fn take(&self, now: Instant) -> Option<Seat> {
        let mut taken = self.lock();
        if taken.seats.len() >= self.most {
            let strangers = taken.seats.iter().filter(|(_, seat)| !seat.standing.is_known());
            let (number, longest) = strangers.min_by_key(|(_, seat)| seat.since)?;
            if now.saturating_duration_since(longest.since) < SOME_TIME {
                return None;
            }
            let number = *number;
            if let Some(seat) = taken.seats.remove(&number) {
                // Its connection may be ending by itself.
                let _ = seat.leave.send(());
            }
        }
        taken.last += 1;
        let (number, standing) = (taken.last, Standing::default());
        let (leave, left) = oneshot::channel();
        taken.seats.insert(number, Occupied { since: now, standing: standing.clone(), leave });
        Some(Seat { number, seats: self.clone(), standing, leave: Some(left) })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    pub(super) fn standing(&self) -> Standing {
        self.standing.clone()
    }

    fn must_leave(&mut self, context: &mut Context<'_>) -> bool {
        if let Some(leave) = &mut self.leave
            && Pin::new(leave).poll(context).is_ready()
        {
            self.leave = None;
        }
        self.leave.is_none()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().seats.remove(&self.number);
    }
}

/// What carries a connection, for as long as it has its seat.
#[derive(Debug)]
pub(super) struct Seated<C> {
    carrier: C,
    seat: Seat,
}

impl<C> Seated<C> {
    pub(super) fn new(carrier: C, seat: Seat) -> Self {
        Self { carrier, seat }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Seated<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seat.must_leave(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.carrier).poll_read(context, buffer)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Seated<C> {
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

/// For a handshake and the first call, also over a slow line; a new connection does not end one that is younger.
const SOME_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn who_shows_nothing_makes_room_and_who_is_known_stays() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let seats = Seats::new(3);
        let carrier = |seat| Seated::new(duplex(8).0, seat);
        let mut known = carrier(seats.take(at(0)).expect("there is room"));
        let mut first = carrier(seats.take(at(1)).expect("there is room"));
        let second = carrier(seats.take(at(2)).expect("there is room"));
        known.seat.standing().known();
        assert!(seats.take(at(2)).is_none(), "both strangers have only just come");

        let third = carrier(seats.take(at(3)).expect("the first stranger makes room"));
        let error = first.read_u8().await.expect_err("it has to leave");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(first.read_u8().await.expect_err("for good").kind(), io::ErrorKind::ConnectionAborted);
        drop(first);
        assert_eq!(seats.lock().seats.len(), 3, "its seat was given on already");

        second.seat.standing().known();
        third.seat.standing().known();
        assert!(seats.take(at(999)).is_none(), "all are known");
        drop(second);
        let _fourth = seats.take(at(999)).expect("one has gone");
        assert!(!known.seat.must_leave(&mut Context::from_waker(std::task::Waker::noop())));
    }
}
