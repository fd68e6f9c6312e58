//! Which states of a sender count, and when it is silent.
//!
//! A receiver numbers the connections of a sender (**epoch**), and the sender numbers its states (**sequence**). A state carries the
//! epoch of the connection that it comes over, which the sender learns from the welcome: so it was made after that, and
//! whatever an abandoned connection or a dead process still has under way carries a lower epoch, or none at all.
//!
//! ```text
//! connection A: hello ......... welcome 1, state (1, 7) applied
//! connection B:     hello ... welcome 2, state (2, 8) applied
//! connection A:                               state (1, 7') is late: 1 < 2, not applied
//! connection C:                               hello is late (its process is dead): welcome 3, which nobody answers
//! ```
//! Two processes under one name would take turns; so a further one is refused as long as the first is connected and heard.

use std::time::Duration;

/// The receiver's side of one sender.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    timeout: Duration,
    /// Epoch of the last welcome.
    welcomed: u64,
    current: Option<Current>,
    /// When a state was taken last, or the start.
    heard: Duration,
    is_silent: bool,
}

/// Where the last state that counted came from.
#[derive(Clone, Copy, Debug)]
struct Current {
    session: u64,
    epoch: u64,
    sequence: u64,
    is_open: bool,
}

/// A connection that may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Of the process.
    pub(crate) session: u64,
    /// Of the connection.
    pub(crate) epoch: u64,
}

/// What becomes of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// It is the newest.
    Newest {
        /// The sender had been silent, or was never heard.
        is_back: bool,
    },
    /// A newer one was applied; the connection has no future.
    Older,
    /// Another process is heard under this name.
    Busy,
}

impl Link {
    /// Not heard yet at `now`: its time begins.
    pub(crate) fn new(timeout: Duration, now: Duration) -> Self {
        Self { timeout, welcomed: 0, current: None, heard: now, is_silent: false }
    }

    /// Somebody says hello. `None`: another process is heard under this name.
    pub(crate) fn hello(&mut self, session: u64, now: Duration) -> Option<Stream> {
        if self.is_taken_by_another(session, now) {
            return None;
        }
        self.welcomed += 1;
        Some(Stream { session, epoch: self.welcomed })
    }

    /// A state comes over a connection.
    pub(crate) fn offer(&mut self, stream: Stream, sequence: u64, now: Duration) -> Offer {
        let Stream { session, epoch } = stream;
        if self.current.is_some_and(|current| (epoch, sequence) <= (current.epoch, current.sequence)) {
            return Offer::Older;
        }
        if self.is_taken_by_another(session, now) {
            return Offer::Busy;
        }
        let is_back = self.current.is_none() | self.is_silent;
        self.current = Some(Current { session, epoch, sequence, is_open: true });
        (self.heard, self.is_silent) = (now, false);
        Offer::Newest { is_back }
    }

    /// A message of the original came: it has no number, so the last is the newest. `true`: it had been silent, or was never heard.
    pub(crate) fn heard_unnumbered(&mut self, now: Duration) -> bool {
        let is_back = self.welcomed == 0 || self.is_silent;
        (self.welcomed, self.heard, self.is_silent) = (1, now, false);
        is_back
    }

    /// A connection has ended.
    pub(crate) fn closed(&mut self, stream: Stream) {
        if let Some(current) = self.current.as_mut().filter(|current| current.epoch == stream.epoch) {
            current.is_open = false;
        }
    }

    /// Time goes on. `true`, once: the sender is silent now.
    pub(crate) fn turn(&mut self, now: Duration) -> bool {
        now >= self.heard + self.timeout && !std::mem::replace(&mut self.is_silent, true)
    }

    /// When [`Self::turn`] is to be called next; `None` while it is silent.
    pub(crate) fn due(&self) -> Option<Duration> {
        (!self.is_silent).then_some(self.heard + self.timeout)
    }

    /// Epoch and sequence of the last state that counted; zeros: none.
    pub(crate) fn last(&self) -> (u64, u64) {
        self.current.map_or((0, 0), |current| (current.epoch, current.sequence))
    }

    /// A sender that lives is heard four times in its timeout. One that was not for half of it may be replaced.
    fn is_taken_by_another(&self, session: u64, now: Duration) -> bool {
        self.current
            .is_some_and(|current| current.session != session && current.is_open && now < self.heard + self.timeout / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const NEWEST: Offer = Offer::Newest { is_back: false };
    const BACK: Offer = Offer::Newest { is_back: true };

    #[test]
    fn numbers_rise_and_what_is_late_does_not_count() {
        let mut link = Link::new(4 * S, S);
        let a = link.hello(7, S).expect("the first");
        assert_eq!((link.offer(a, 1, S), link.offer(a, 2, S), link.offer(a, 2, S)), (BACK, NEWEST, Offer::Older));
        let b = link.hello(7, S).expect("the same process");
        assert_eq!(link.offer(a, 3, S), NEWEST, "the older one counts until the newer one says something");
        assert_eq!(
            (link.offer(b, 5, S), link.offer(a, 4, S), link.offer(a, 9, S)),
            (NEWEST, Offer::Older, Offer::Older)
        );
        assert_eq!(link.last(), (2, 5));
    }

    #[test]
    fn a_restarted_sender_begins_anew_and_its_predecessor_is_over() {
        let mut link = Link::new(4 * S, S);
        let old = link.hello(7, S).expect("the first");
        link.offer(old, 1000, S);
        link.closed(old);
        let new = link.hello(8, S).expect("the old one is closed");
        assert_eq!((link.offer(new, 1, S), link.offer(old, 1001, S)), (NEWEST, Offer::Older));
        // A hello of the old process that was under way all the time: it has nobody to answer.
        link.closed(new);
        let ghost = link.hello(7, 2 * S).expect("nobody is connected");
        let again = link.hello(8, 2 * S).expect("the living one");
        assert_eq!((link.offer(again, 2, 2 * S), link.offer(ghost, 1, 2 * S)), (NEWEST, Offer::Older));
    }

    #[test]
    fn two_processes_under_one_name_are_not_both_heard() {
        let mut link = Link::new(4 * S, S);
        let (a, b) = (link.hello(1, S).expect("nobody"), link.hello(2, S).expect("nobody was heard"));
        assert_eq!((link.offer(a, 1, S), link.offer(b, 1, S)), (BACK, Offer::Busy));
        assert!(link.hello(2, 2 * S).is_none());
        link.offer(a, 2, 2 * S);
        assert!(link.hello(2, 3 * S).is_none(), "it was heard a second ago");
        let c = link.hello(2, 4 * S).expect("it was not heard for half of its time");
        assert_eq!(link.offer(c, 1, 4 * S), NEWEST);
        assert_eq!(link.offer(a, 3, 4 * S), Offer::Older);
    }

    #[test]
    fn silence_is_told_once_and_a_state_ends_it() {
        let mut link = Link::new(4 * S, S);
        assert_eq!(link.due(), Some(5 * S));
        assert!(!link.turn(4 * S) && link.turn(5 * S) && !link.turn(6 * S), "never heard");
        let a = link.hello(1, 6 * S).expect("nobody");
        assert!(link.due().is_none(), "a hello is not enough");
        assert_eq!((link.offer(a, 1, 6 * S), link.due()), (BACK, Some(10 * S)));
        assert!(link.turn(10 * S));
        assert_eq!(link.offer(a, 2, 11 * S), BACK);
        let mut legacy = Link::new(4 * S, S);
        assert!(legacy.heard_unnumbered(2 * S) && !legacy.heard_unnumbered(3 * S));
        assert!(legacy.turn(7 * S) && legacy.heard_unnumbered(8 * S) && !legacy.turn(9 * S));
    }

    /// A sender that restarts, gives connections up and makes others, and a network that delivers what it carries at any time
    /// later, in order within a connection.
    #[derive(Default)]
    struct World {
        session: u64,
        sequence: u64,
        /// When a state was made.
        clock: u64,
        connections: Vec<Connection>,
        /// The one that the sender uses.
        used: Option<usize>,
    }

    #[derive(Default)]
    struct Connection {
        session: u64,
        hello_is_there: bool,
        stream: Option<Stream>,
        /// The sender has the welcome.
        welcomed: Option<u64>,
        /// States under way: epoch, sequence, clock.
        under_way: std::collections::VecDeque<(u64, u64, u64)>,
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_network_does_no_older_state_is_applied(steps in proptest::collection::vec((0u8..7, 0usize..8), 1..200)) {
            let mut world = World { session: 1, ..World::default() };
            let mut link = Link::new(S, Duration::ZERO);
            let (mut applied, mut now) = (0, Duration::ZERO);
            for (step, choice) in steps {
                now += S / 10;
                let count = world.connections.len();
                match step {
                    // The sender gives up what it has, and connects.
                    0 => {
                        world.connections.push(Connection { session: world.session, ..Connection::default() });
                        world.used = Some(count);
                    }
                    // It dies and starts again.
                    1 => (world.session, world.sequence, world.used) = (world.session + 1, 0, None),
                    // It makes a state.
                    2 | 3 => if let Some(connection) = world.used.map(|used| &mut world.connections[used])
                        && let Some(epoch) = connection.welcomed
                    {
                        (world.sequence, world.clock) = (world.sequence + 1, world.clock + 1);
                        connection.under_way.push_back((epoch, world.sequence, world.clock));
                    },
                    // The receiver gets something of some connection, dead or alive.
                    4 | 5 if count > 0 => {
                        let connection = &mut world.connections[choice % count];
                        if !connection.hello_is_there {
                            connection.hello_is_there = true;
                            connection.stream = link.hello(connection.session, now);
                        } else if let (Some(stream), Some((epoch, sequence, clock))) = (connection.stream, connection.under_way.pop_front()) {
                            assert_eq!(epoch, stream.epoch);
                            if let Offer::Newest { .. } = link.offer(stream, sequence, now) {
                                assert!(clock > applied, "{clock} was applied after {applied}");
                                applied = clock;
                            }
                        }
                    }
                    // The sender gets the welcome of the connection that it uses.
                    _ => if let Some(connection) = world.used.map(|used| &mut world.connections[used]) {
                        connection.welcomed = connection.stream.map(|stream| stream.epoch);
                    },
                }
            }
        }
    }
}
