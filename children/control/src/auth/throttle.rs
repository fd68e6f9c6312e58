//! How often somebody may try to log in. Pure: the time comes in.
//!
//! Failures are counted for the user and for the address. The first five cost nothing; then each wait is twice as long as
//! the one before, from a second to five minutes. A try counts as a failure from its beginning, so that many at once gain
//! nothing; success takes the count away.
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
    /// Who has logged in from where.
    known: HashMap<(String, IpAddr), Instant>,
}

impl Throttle {
    /// A try begins.
    ///
    /// # Errors
    /// How long to wait before the next one; nothing was counted.
    pub(crate) fn begin(&mut self, now: Instant, user: &str, address: IpAddr) -> Result<(), Duration> {
        let address = network(address);
        let is_known = self.known.contains_key(&(user.to_owned(), address));
        let of_user = if is_known { Duration::ZERO } else { self.users.wait(now, &user.to_owned()) };
        let wait = of_user.max(self.addresses.wait(now, &address));
        if !wait.is_zero() {
            return Err(wait);
        }
        if !is_known {
            self.users.count(now, user.to_owned());
        }
        self.addresses.count(now, address);
        Ok(())
    }

    /// The try was a good one.
    pub(crate) fn succeeded(&mut self, now: Instant, user: &str, address: IpAddr) {
        let address = network(address);
        self.users.rows.remove(user);
        self.addresses.rows.remove(&address);
        make_room(&mut self.known, |at| *at);
        self.known.insert((user.to_owned(), address), now);
    }

    /// The try was neither good nor bad: it could not be looked at.
    pub(crate) fn undecided(&mut self, user: &str, address: IpAddr) {
        self.users.take_back(user);
        self.addresses.take_back(&network(address));
    }
}

#[derive(Clone, Copy, Debug)]
struct Row {
    failures: u32,
    last: Instant,
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
        let row = self.rows.entry(key).or_insert(Row { failures: 0, last: now });
        if now.saturating_duration_since(row.last) >= FORGET {
            row.failures = 0;
        }
        row.failures = row.failures.saturating_add(1);
        row.last = now;
    }

    fn take_back<Q: std::hash::Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
    {
        if let Some(row) = self.rows.get_mut(key) {
            row.failures = row.failures.saturating_sub(1);
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
            throttle.known.insert((format!("user{n}"), there(n)), now);
            make_room(&mut throttle.known, |at| *at);
        }
        assert!(throttle.users.rows.len() <= MOST && throttle.addresses.rows.len() <= MOST);
        assert!(throttle.known.len() <= MOST);

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
