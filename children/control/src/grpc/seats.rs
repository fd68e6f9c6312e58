//! How many connections there may be. When all seats are taken, of those who have not shown yet who they are the one that has been
//! there longest makes room; whoever has shown it stays. So those without a token, however many, keep out only each other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

    /// A seat for a connection that comes now, and what tells when it has to be left; `None`: all are taken by others who may stay.
    pub(super) fn take(&self, now: Instant) -> Option<(Seat, oneshot::Receiver<()>)> {
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
        let (leave, must_leave) = oneshot::channel();
        taken.seats.insert(number, Occupied { since: now, standing: standing.clone(), leave });
        Some((Seat { number, seats: self.clone(), standing }, must_leave))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    pub(super) fn standing(&self) -> Standing {
        self.standing.clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().seats.remove(&self.number);
    }
}

/// For a handshake and the first call, also over a slow line; a new connection does not end one that is younger.
const SOME_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shows_nothing_makes_room_and_who_is_known_stays() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let seats = Seats::new(3);
        let (known, mut known_leaves) = seats.take(at(0)).expect("there is room");
        let (first, mut first_leaves) = seats.take(at(1)).expect("there is room");
        let (second, _second_leaves) = seats.take(at(2)).expect("there is room");
        known.standing().known();
        assert!(seats.take(at(2)).is_none(), "both strangers have only just come");

        let (third, _third_leaves) = seats.take(at(3)).expect("the first stranger makes room");
        assert_eq!(first_leaves.try_recv(), Ok(()));
        drop(first);
        assert_eq!(seats.lock().seats.len(), 3, "its seat was given on already");

        second.standing().known();
        third.standing().known();
        assert!(seats.take(at(999)).is_none(), "all are known");
        drop(second);
        let _fourth = seats.take(at(999)).expect("one has gone");
        assert_eq!(known_leaves.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    }
}
