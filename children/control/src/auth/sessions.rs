//! Who is logged in. Pure: the time comes in, random texts come in.
//!
//! ```text
//!   log-in ──> open ──┬─ used within IDLE ─> open
//!                     ├─ log-out ──────────────────> gone
//!                     ├─ IDLE without use ─────────> gone
//!                     ├─ LIFE after log-in ────────> gone
//!                     ├─ user or password changed ─> gone
//!                     └─ table full, least used ───> gone
//! ```
//! The table keeps the hash of a session's id, not the id: what is read from this process's memory or a core file cannot
//! be used to log in, and looking one up takes no time that tells how much of it was right.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::secret::{Key, key};

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Whose.
    pub(crate) user: String,
    /// What the user's password was when it began, as a fingerprint: another password ends it.
    pub(crate) credential: Key,
    /// Must come with every request that changes something.
    pub(crate) csrf: String,
    opened: Instant,
    used: Instant,
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: HashMap<Key, Entry>,
}

impl Sessions {
    /// Opens one with this id.
    pub(crate) fn open(&mut self, now: Instant, id: &str, user: &str, credential: Key, csrf: String) {
        self.forget_old(now);
        let own = self.open.values().filter(|session| session.user == user).count();
        if own >= MOST_OF_ONE {
            // Nobody can push the others out.
            self.drop_least_used(|session| session.user == user);
        } else if self.open.len() >= MOST {
            self.drop_least_used(|_| true);
        }
        self.open.insert(key(id), Entry { user: user.to_owned(), credential, csrf, opened: now, used: now });
    }

    /// The session with this id, if it is open; it counts as used.
    pub(crate) fn find(&mut self, now: Instant, id: &str) -> Option<(Key, Entry)> {
        let key = key(id);
        let session = self.open.get_mut(&key)?;
        if session.is_over(now) {
            self.open.remove(&key);
            return None;
        }
        session.used = now;
        Some((key, session.clone()))
    }

    /// The session of this key, if it is open. Does not count as use: an open page alone keeps nobody logged in.
    pub(crate) fn look(&self, now: Instant, key: &Key) -> Option<&Entry> {
        self.open.get(key).filter(|session| !session.is_over(now))
    }

    /// Ends one. False: there was none.
    pub(crate) fn close(&mut self, key: &Key) -> bool {
        self.open.remove(key).is_some()
    }

    /// Ends all of a user, except one.
    pub(crate) fn close_user(&mut self, user: &str, except: Option<&Key>) {
        self.open.retain(|key, session| session.user != user || Some(key) == except);
    }

    /// The session goes on under another password of its user.
    pub(crate) fn renew(&mut self, key: &Key, credential: Key) {
        if let Some(session) = self.open.get_mut(key) {
            session.credential = credential;
        }
    }

    fn forget_old(&mut self, now: Instant) {
        self.open.retain(|_, session| !session.is_over(now));
    }

    fn drop_least_used(&mut self, of: impl Fn(&Entry) -> bool) {
        let least = self.open.iter().filter(|(_, session)| of(session)).min_by_key(|(_, session)| session.used);
        if let Some(key) = least.map(|(key, _)| *key) {
            self.open.remove(&key);
        }
    }
}

impl Entry {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) >= IDLE || now.saturating_duration_since(self.opened) >= LIFE
    }
}

/// A session that is not used so long ends.
pub(crate) const IDLE: Duration = Duration::from_secs(30 * 60);
/// A session ends so long after the log-in, used or not.
pub(crate) const LIFE: Duration = Duration::from_secs(12 * 3600);
/// Sessions at one time; some 300 bytes each.
const MOST: usize = 1000;
const MOST_OF_ONE: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn open(sessions: &mut Sessions, now: Instant, id: &str, user: &str) {
        sessions.open(now, id, user, [0; 32], format!("csrf of {id}"));
    }

    #[test]
    fn a_session_ends_when_it_is_idle_or_old() {
        let start = Instant::now();
        let mut sessions = Sessions::default();
        open(&mut sessions, start, "a", "admin");
        assert!(sessions.find(start + 29 * MINUTE, "a").is_some());
        let (key, found) = sessions.find(start + 58 * MINUTE, "a").expect("used 29 minutes ago");
        assert_eq!((found.user.as_str(), found.csrf.as_str()), ("admin", "csrf of a"));
        assert!(sessions.look(start + 87 * MINUTE, &key).is_some(), "looking");
        assert!(sessions.look(start + 88 * MINUTE, &key).is_none(), "did not count as use");
        assert!(sessions.find(start + 88 * MINUTE, "a").is_none());

        open(&mut sessions, start, "b", "admin");
        for minute in (20..12 * 60).step_by(20) {
            assert!(sessions.find(start + minute * MINUTE, "b").is_some(), "minute {minute}");
        }
        assert!(sessions.find(start + LIFE, "b").is_none());
        assert!(sessions.open.is_empty());
    }

    #[test]
    fn forged_and_closed_sessions_are_not_found() {
        let now = Instant::now();
        let mut sessions = Sessions::default();
        open(&mut sessions, now, "a", "admin");
        for forged in ["", "b", "a ", "A", "aa"] {
            assert!(sessions.find(now, forged).is_none(), "{forged:?}");
        }
        let (key, _) = sessions.find(now, "a").expect("open");
        assert!(sessions.close(&key) && !sessions.close(&key));
        assert!(sessions.find(now, "a").is_none());

        for id in ["a", "b", "c"] {
            open(&mut sessions, now, id, "admin");
        }
        open(&mut sessions, now, "d", "other");
        sessions.close_user("admin", Some(&super::key("b")));
        let left: Vec<_> = ["a", "b", "c", "d"].into_iter().filter(|id| sessions.find(now, id).is_some()).collect();
        assert_eq!(left, ["b", "d"]);
    }

    #[test]
    fn the_table_is_bounded_and_drops_the_least_used() {
        let start = Instant::now();
        let mut sessions = Sessions::default();
        let at = |n: usize| start + Duration::from_millis(n as u64);
        open(&mut sessions, at(0), "first", "victim");
        for n in 1..=150 {
            open(&mut sessions, at(n), &format!("x{n}"), "attacker");
        }
        assert!(sessions.find(at(151), "first").is_some(), "one user cannot push out another");
        assert_eq!(sessions.open.len(), 1 + MOST_OF_ONE);
        for n in 0..2 * MOST {
            open(&mut sessions, at(200 + n), &format!("y{n}"), &format!("user{n}"));
        }
        assert_eq!(sessions.open.len(), MOST);
        assert!(sessions.find(at(3000), "first").is_none() && sessions.find(at(3000), "y1999").is_some());
    }
}
