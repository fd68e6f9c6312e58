//! How often a target is told something, and about whom.

use std::time::Duration;

use tokio::time::Instant;

/// Allows some at once, then one in a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    burst: u32,
    every: Duration,
    left: u32,
    /// When the next is added.
    refill: Instant,
}

impl Bucket {
    pub(super) fn new(burst: u32, every: Duration, now: Instant) -> Self {
        Self { burst, every, left: burst, refill: now + every }
    }

    /// Takes one; false: none is left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }

    /// When there is one again; `now` when there is.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        self.fill(now);
        if self.left > 0 { now } else { self.refill }
    }

    fn fill(&mut self, now: Instant) {
        while self.left < self.burst && self.refill <= now {
            self.left += 1;
            self.refill += self.every;
        }
        if self.left >= self.burst {
            // Nothing is saved beyond the burst.
            self.refill = now + self.every;
        }
    }
}

/// Whether `name` fits a pattern in which `*` stands for any letters, `?` for one.
pub(super) fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star is, and how much it takes so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_at_once_then_one_in_a_time() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut bucket = Bucket::new(3, Duration::from_secs(10), start);
        let taken: Vec<bool> = [0, 1, 2, 3, 13, 14, 23].into_iter().map(|s| bucket.take(at(s))).collect();
        assert_eq!(taken, [true, true, true, false, true, false, true]);
        assert!(bucket.next(at(24)) > at(24) && bucket.next(at(24)) <= at(34));
        assert_eq!((0..9).filter(|_| bucket.take(at(1000))).count(), 3, "no more than the burst is saved");
    }

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("pump*", "pump_0", true),
            ("pump*", "a pump", false),
            ("*_?", "pump_1", true),
            ("*_?", "pump_12", false),
            ("a*b*c", "aXbYbc", true),
            ("a*b*c", "aXbYb", false),
            ("io", "io", true),
            ("io", "iox", false),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, name), fits, "{pattern} {name}");
        }
    }
}
