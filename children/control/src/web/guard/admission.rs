//! Which connections there may be. Pure: the time comes in.
//!
//! There are [`MOST`] seats, [`MOST_OF_ONE`] of them for one address. When they are taken, the connection that has waited
//! longest for its client (for a request to begin, or to go on) makes room; one that works on a request or carries a
//! stream never does. So connections that only wait, however many, cannot keep anybody out: they push out each other.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::pulse::Pulse;

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    seats: HashMap<u64, Seat>,
    last: u64,
}

/// A connection.
#[derive(Debug)]
struct Seat {
    address: IpAddr,
    pulse: Arc<Pulse>,
    leave: Arc<Notify>,
}

/// What a new connection gets.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    /// To be given back.
    pub(crate) number: u64,
    /// What it is doing, for everybody to see.
    pub(crate) pulse: Arc<Pulse>,
    /// It has to end at once.
    pub(crate) leave: Arc<Notify>,
}

impl Admission {
    /// Lets one in; `None`: all are busy.
    pub(crate) fn admit(&mut self, now: Instant, address: IpAddr) -> Option<Ticket> {
        let address = address.to_canonical();
        if self.count(address) >= MOST_OF_ONE {
            self.make_room(now, Some(address))?;
        } else if self.seats.len() >= MOST {
            let fullest = self.seats.values().map(|seat| seat.address).max_by_key(|address| self.count(*address));
            // Who has most gives first; otherwise whoever waits.
            self.make_room(now, fullest).or_else(|| self.make_room(now, None))?;
        }
        self.last += 1;
        let (pulse, leave) = (Arc::new(Pulse::new(now)), Arc::new(Notify::new()));
        self.seats.insert(self.last, Seat { address, pulse: Arc::clone(&pulse), leave: Arc::clone(&leave) });
        Some(Ticket { number: self.last, pulse, leave })
    }

    /// A connection has ended.
    pub(crate) fn left(&mut self, number: u64) {
        self.seats.remove(&number);
    }

    fn count(&self, address: IpAddr) -> usize {
        self.seats.values().filter(|seat| seat.address == address).count()
    }

    fn make_room(&mut self, now: Instant, of: Option<IpAddr>) -> Option<()> {
        let candidates = self.seats.iter().filter(|(_, seat)| of.is_none_or(|address| seat.address == address));
        let waits = candidates.filter_map(|(number, seat)| Some((seat.pulse.waits_for_client(now)?, *number)));
        let (_, number) = waits.filter(|(wait, _)| *wait >= SOME_TIME).max()?;
        self.seats.remove(&number)?.leave.notify_one();
        Some(())
    }
}

/// Connections at one time: with the sockets to the workers, files and gRPC still below the usual limit of 1024 descriptors.
const MOST: usize = 256;
/// Of one address. A browser opens six; a hundred tabs of a control room behind one address fit.
const MOST_OF_ONE: usize = 128;
/// A request on its way takes this long at least, so that a flood of new connections does not end it.
const SOME_TIME: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::super::pulse::Phase;
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, n))
    }

    fn leaves(ticket: &Ticket) -> bool {
        let notified = ticket.leave.notified();
        std::pin::pin!(notified).as_mut().enable()
    }

    #[test]
    fn who_waits_longest_makes_room_for_a_new_one_of_the_same_address() {
        let start = Instant::now();
        let mut admission = Admission::default();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let slow: Vec<_> = (0..128).map(|n| admission.admit(at(n), address(1)).expect("there is room")).collect();
        slow[0].pulse.enter(at(200), Phase::Busy);
        slow[1].pulse.enter(at(200), Phase::Stream);
        slow[2].pulse.enter(at(200), Phase::Idle);
        let other = admission.admit(at(250), address(2)).expect("another address has seats of its own");
        let fresh = admission.admit(at(300), address(1)).expect("the one that waits longest goes");
        let gone: Vec<_> = (0..128).filter(|&n| leaves(&slow[n])).collect();
        assert_eq!(gone, [3], "not those that work, nor the one that was busy until a moment ago");
        assert!(!leaves(&other) && !leaves(&fresh));
        assert_eq!(admission.count(address(1)), 128);
        admission.left(slow[3].number);
        admission.left(fresh.number);
        assert_eq!(admission.count(address(1)), 127);
    }

    #[test]
    fn when_all_are_busy_a_new_one_is_refused() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut admission = Admission::default();
        for n in 0..128 {
            admission.admit(start, address(1)).expect("there is room").pulse.enter(start, Phase::Busy);
            admission.admit(start, address(2 + n)).expect("there is room").pulse.enter(start, Phase::Stream);
        }
        assert!(admission.admit(later, address(1)).is_none());
        assert!(admission.admit(later, address(200)).is_none());
        admission.left(7);
        let waits = admission.admit(later, address(200)).expect("there is room");
        assert!(admission.admit(later, address(201)).is_none(), "it has only just come");
        admission.admit(later + SOME_TIME, address(201)).expect("the one that waits goes");
        assert!(leaves(&waits));
    }
}
