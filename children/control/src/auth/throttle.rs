//! How often somebody may try to log in. Pure: the time comes in.
//!
//! Failures are counted for the user and for the address. The first five cost nothing; then each wait is twice as long as
//! the one before, from a second to five minutes. A try counts as a failure from its beginning, so that many at once gain
//! nothing. Success takes the count of the user away, and from that of the address what this user failed there: who can
//! log in himself gains no tries at others by it.
//!
//! A stranger who fails on purpose must not keep a user out: an address from which that user has logged in before waits
//! only for its own failures.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// All that is counted.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    users: Table<String>,
    addresses: Table<IpAddr>,
    /// What each has done to the count of the address.
    there: Table<(String, IpAddr)>,
    /// Who has logged in from where.
    known: HashMap<(String, IpAddr), Instant>,
}

impl Throttle {
    /// A try begins.
    ///
    /// # Errors
    /// How long to wait before the next one; nothing was counted.
    pub(crate) fn begin(&mut self, now: Instant, user: &str, address: IpAddr) -> Result<(), Duration> {
        let (user, address) = (name(user), network(address));
        let there = (user.to_owned(), address);
        let is_known = self.known.contains_key(&there);
        let of_user = if is_known { Duration::ZERO } else { self.users.wait(now, &there.0) };
        let wait = of_user.max(self.addresses.wait(now, &address));
        if !wait.is_zero() {
            return Err(wait);
        }
        if !is_known {
            self.users.count(now, user.to_owned());
        }
        self.addresses.count(now, address);
        self.there.count(now, there);
        Ok(())
    }

    /// The try that began at this time was a good one.
    pub(crate) fn succeeded(&mut self, now: Instant, user: &str, address: IpAddr) {
        let (user, address) = (name(user), network(address));
        let there = (user.to_owned(), address);
        self.users.rows.remove(user);
        let own = self.there.rows.remove(&there).map_or(0, |row| row.failures);
        self.addresses.take_back(&address, own, Some(now));
        make_room(&mut self.known, |at| *at);
        self.known.insert(there, now);
    }

    /// The try was neither good nor bad: it could not be looked at.
    pub(crate) fn undecided(&mut self, user: &str, address: IpAddr) {
        let (user, address) = (name(user), network(address));
        self.users.take_back(user, 1, None);
        self.addresses.take_back(&address, 1, None);
        self.there.take_back(&(user.to_owned(), address), 1, None);
    }
}

#[derive(Clone, Copy, Debug)]
struct Row {
    failures: u32,
    last: Instant,
    /// The one before the last.
    before: Instant,
}

#[derive(Debug)]
struct Table<K> {
    rows: HashMap<K, Row>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { rows: HashMap::new() }
    }
}

impl<K: std::hash::Hash + Eq + Clone> Table<K> {
    fn wait(&self, now: Instant, key: &K) -> Duration {
        let Some(row) = self.rows.get(key) else { return Duration::ZERO };
        delay(row.failures).saturating_sub(now.saturating_duration_since(row.last))
    }

    fn count(&mut self, now: Instant, key: K) {
        if !self.rows.contains_key(&key) {
            make_room(&mut self.rows, |row| row.last);
        }
        let row = self.rows.entry(key).or_insert(Row { failures: 0, last: now, before: now });
        if now.saturating_duration_since(row.last) >= FORGET {
            row.failures = 0;
        }
        row.failures = row.failures.saturating_add(1);
        row.before = std::mem::replace(&mut row.last, now);
    }

    /// So many were no failures; the last one, if it is the one of `last`, did not happen at all.
    fn take_back<Q: std::hash::Hash + Eq + ?Sized>(&mut self, key: &Q, count: u32, last: Option<Instant>)
    where
        K: std::borrow::Borrow<Q>,
    {
        let Some(row) = self.rows.get_mut(key) else { return };
        row.failures = row.failures.saturating_sub(count);
        if last == Some(row.last) {
            row.last = row.before;
        }
        if row.failures == 0 {
            self.rows.remove(key);
        }
    }
}

/// The wait after so many failures.
fn delay(failures: u32) -> Duration {
    match failures.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(more) => Duration::from_secs(1 << more.min(30)).min(LONGEST),
    }
}

/// As much of what was typed as a user's name can have.
fn name(typed: &str) -> &str {
    let end = (0..=typed.len().min(LONGEST_NAME)).rev().find(|at| typed.is_char_boundary(*at));
    &typed[..end.unwrap_or(0)]
}

/// The addresses that one customer has: with IPv6 a whole network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            if address.is_loopback() { IpAddr::V6(address) } else { IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)) }
        }
        v4 => v4,
    }
}

/// Before one is put in: the one with the oldest time goes when there is no room.
fn make_room<K: Clone + std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, time: impl Fn(&V) -> Instant) {
    if map.len() >= MOST {
        let oldest = map.iter().min_by_key(|(_, value)| time(value)).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            map.remove(&key);
        }
    }
}

/// From so many failures on there is a wait.
const FREE: u32 = 5;
const LONGEST: Duration = Duration::from_secs(300);
/// After so long without a failure the count begins anew; longer than the longest wait.
const FORGET: Duration = Duration::from_secs(3600);
/// In bytes; so long that no two users are taken for one.
const LONGEST_NAME: usize = 65;
/// Users and addresses that are kept, each. To push one out, others must fail so often, at the speed of their own waits.
const MOST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn there(n: u32) -> IpAddr {
        IpAddr::V4(n.to_be_bytes().into())
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn waits_double_up_to_five_minutes_and_success_ends_them() {
        let mut now = Instant::now();
        let mut throttle = Throttle::default();
        for _ in 0..5 {
            assert_eq!(throttle.begin(now, "admin", HERE), Ok(()));
        }
        for wait in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300] {
            assert_eq!(throttle.begin(now, "admin", HERE), Err(s(wait)));
            now += s(wait) - s(1);
            assert_eq!(throttle.begin(now, "admin", HERE), Err(s(1)), "asking too early counts nothing");
            now += s(1);
            assert_eq!(throttle.begin(now, "admin", HERE), Ok(()));
        }
        throttle.succeeded(now, "admin", HERE);
        assert_eq!(throttle.begin(now, "admin", HERE), Ok(()));
    }

    #[test]
    fn users_and_addresses_are_counted_apart() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        for n in 0..5 {
            assert_eq!(throttle.begin(now, "admin", there(n)), Ok(()));
        }
        assert_eq!(throttle.begin(now, "admin", there(99)), Err(s(1)), "one user from many addresses");
        assert_eq!(throttle.begin(now, "other", there(99)), Ok(()));
        for n in 0..5 {
            assert_eq!(throttle.begin(now, &format!("user{n}"), HERE), Ok(()));
        }
        assert_eq!(throttle.begin(now, "somebody", HERE), Err(s(1)), "many users from one address");
    }

    #[test]
    fn a_stranger_cannot_keep_a_user_out_of_a_known_place() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.begin(now, "admin", HERE), Ok(()));
        throttle.succeeded(now, "admin", HERE);
        for n in 0..100 {
            let _ = throttle.begin(now, "admin", there(n));
        }
        assert_eq!(throttle.begin(now, "admin", there(200)), Err(s(1)));
        for _ in 0..5 {
            assert_eq!(throttle.begin(now, "admin", HERE), Ok(()));
        }
        assert_eq!(throttle.begin(now, "admin", HERE), Err(s(1)), "its own failures count");
    }

    #[test]
    fn who_can_log_in_gains_no_tries_at_others() {
        let mut now = Instant::now();
        let mut throttle = Throttle::default();
        let (mut tries, end) = (0, now + s(3600));
        while now < end {
            // Four times as somebody else, then as himself.
            for _ in 0..4 {
                tries += u32::from(throttle.begin(now, "admin", HERE).is_ok());
            }
            if throttle.begin(now, "guest", HERE).is_ok() {
                throttle.succeeded(now, "guest", HERE);
            }
            now += s(1);
        }
        assert!(tries <= 5 + 9 + 12, "{tries} tries in an hour");
    }

    #[test]
    fn success_takes_back_own_failures_and_no_others() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        for user in ["a", "a", "a", "b", "b"] {
            assert_eq!(throttle.begin(now, user, HERE), Ok(()));
        }
        assert_eq!(throttle.begin(now, "b", HERE), Err(s(1)));
        let later = now + s(1);
        assert_eq!(throttle.begin(later, "a", HERE), Ok(()));
        throttle.succeeded(later, "a", HERE);
        assert_eq!(throttle.addresses.rows[&HERE].failures, 2, "those of b");
        for _ in 0..3 {
            assert_eq!(throttle.begin(later, "c", HERE), Ok(()));
        }
        assert_eq!(throttle.begin(later, "c", HERE), Err(s(1)));

        // A good one among many bad ones makes nobody wait longer than before it.
        let mut throttle = Throttle::default();
        for user in ["b", "c", "d", "e", "f"] {
            assert_eq!(throttle.begin(now, user, HERE), Ok(()));
        }
        assert_eq!(throttle.begin(later, "a", HERE), Ok(()));
        throttle.succeeded(later, "a", HERE);
        assert_eq!(throttle.begin(later, "a", HERE), Ok(()));
        throttle.succeeded(later, "a", HERE);
        throttle.succeeded(later, "a", HERE);
        assert_eq!(throttle.addresses.rows[&HERE].failures, 5, "it takes back no more than it gave");
    }

    #[test]
    fn failures_are_forgotten_and_undecided_tries_do_not_count() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        for _ in 0..5 {
            assert_eq!(throttle.begin(now, "admin", HERE), Ok(()));
        }
        assert_eq!(throttle.begin(now + FORGET, "admin", HERE), Ok(()));
        assert_eq!(throttle.begin(now + FORGET, "admin", HERE), Ok(()), "counted from one");
        for _ in 0..100 {
            assert_eq!(throttle.begin(now + FORGET, "admin", HERE), Ok(()));
            throttle.undecided("admin", HERE);
        }
    }

    #[test]
    fn the_tables_are_bounded_and_a_network_of_ipv6_is_one_place() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        for n in 0..10_000 {
            let now = start + Duration::from_millis(u64::from(n));
            assert_eq!(throttle.begin(now, &format!("user{n}"), there(n)), Ok(()));
            throttle.users.count(now, format!("more{n}"));
            throttle.addresses.count(now, there(n + 1_000_000));
            throttle.there.count(now, (format!("more{n}"), there(n)));
            throttle.known.insert((format!("user{n}"), there(n)), now);
            make_room(&mut throttle.known, |at| *at);
        }
        assert!(throttle.users.rows.len() <= MOST && throttle.addresses.rows.len() <= MOST);
        assert!(throttle.known.len() <= MOST && throttle.there.rows.len() <= MOST);

        let mut throttle = Throttle::default();
        for n in 0..5u16 {
            let address = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, n, 0, 0, n));
            assert_eq!(throttle.begin(start, &format!("user{n}"), address), Ok(()));
        }
        let another = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 9, 9, 9, 9));
        assert_eq!(throttle.begin(start, "x", another), Err(s(1)));
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().expect("an address");
        assert_eq!(network(mapped), HERE);
    }
}
