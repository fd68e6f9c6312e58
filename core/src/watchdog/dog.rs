//! One watchdog over time: opened, petted, missed, opened again. Time is passed in; what is behind it is a [`Backend`].

use std::fmt;
use std::io;
use std::time::Duration;

use multus_contract::api::reset::WatchdogStatus;
use multus_ipc::MonoNs;

use super::sign::Verdict;

/// What is behind a watchdog.
pub(super) trait Backend: Send {
    /// A sign of life; of a chip: the beginning of a pulse.
    fn pet(&mut self) -> io::Result<()>;

    /// The end of a pulse.
    fn lower(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Switches it off in good order; what is left to say.
    fn disarm(&mut self) -> Result<(), String>;
}

/// A watchdog that was opened.
pub(super) struct Opened {
    pub(super) backend: Box<dyn Backend>,
    /// What the driver calls it.
    pub(super) identity: Option<String>,
    /// What the driver granted; `None` where that is not known.
    pub(super) timeout: Option<Duration>,
    /// Why the machine was last reset, as the driver says: flags as in linux/watchdog.h. `None`: it cannot tell.
    pub(super) boot_status: Option<u32>,
    /// What is not as configured.
    pub(super) note: Option<String>,
}

/// How often it is petted, and for how old a sign of the watch loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// From pet to pet.
    pub(super) every: Duration,
    /// Length of a pulse.
    pub(super) width: Option<Duration>,
    /// For an older sign it is not petted.
    pub(super) max_age: Duration,
    /// How often the watch loop has to sign.
    pub(super) sign: Duration,
}

impl Pace {
    /// Of a device: four pets in each timeout, of which three may fail; a loop that stands still is found within a quarter of the
    /// timeout, at most 4 s.
    pub(super) fn of_timeout(timeout: Duration) -> Self {
        let quarter = timeout / 4;
        let max_age = quarter.clamp(Duration::from_millis(250), Duration::from_secs(4));
        Self { every: quarter.min(Duration::from_secs(5)), width: None, max_age, sign: max_age / 4 }
    }

    /// Of a chip: two signs in each period, and one of two pulses may be missed. With 80 ms and a window of 200 ms.
    pub(super) fn of_chip(period: Duration, width: Duration) -> Self {
        Self { every: period, width: Some(width), max_age: 2 * period, sign: period / 2 }
    }

    /// While it is not petted, it is looked this often whether it may be again.
    fn retry(self) -> Duration {
        (self.every / 4).clamp(Duration::from_millis(1), Duration::from_millis(250))
    }
}

type Open = Box<dyn FnMut() -> Result<Opened, String> + Send>;

/// One watchdog.
pub(super) struct Dog {
    open: Open,
    pace: Pace,
    backend: Option<Box<dyn Backend>>,
    boot_status: Option<u32>,
    status: WatchdogStatus,
    changed: bool,
    open_at: MonoNs,
    pet_at: MonoNs,
    lower_at: MonoNs,
    /// Pets that failed, one after the other.
    failed: u32,
}

impl fmt::Debug for Dog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dog").field("status", &self.status).finish_non_exhaustive()
    }
}

/// One that is missing or busy is tried again after this long.
const REOPEN: Duration = Duration::from_secs(10);
/// So often a pet that failed is tried again before the watchdog is given up until then, at the pace of [`Pace::retry`]: a transfer
/// may fail once.
const RETRIES: u32 = 3;

impl Dog {
    pub(super) fn new(name: String, pace: Pace, open: Open) -> Self {
        let status = WatchdogStatus { name, state: "missing".into(), ..WatchdogStatus::default() };
        Self {
            open,
            pace,
            backend: None,
            boot_status: None,
            status,
            changed: true,
            open_at: MonoNs(0),
            pet_at: MonoNs(0),
            lower_at: MonoNs::NEVER,
            failed: 0,
        }
    }

    /// Opens it if it is time.
    pub(super) fn open_if_due(&mut self, now: MonoNs) {
        if self.backend.is_some() || now < self.open_at {
            return;
        }
        self.open_at = now.after(REOPEN);
        match (self.open)() {
            Ok(opened) => {
                if let Some(timeout) = opened.timeout {
                    self.pace = Pace::of_timeout(timeout);
                }
                (self.backend, self.failed) = (Some(opened.backend), 0);
                self.boot_status = opened.boot_status;
                self.status.identity = opened.identity;
                self.status.timeout_s = opened.timeout.map(|timeout| timeout.as_secs());
                self.set("waiting", opened.note);
                (self.pet_at, self.lower_at) = (now, MonoNs::NEVER);
            }
            Err(why) => self.set("missing", Some(why)),
        }
    }

    /// What the driver said about the last reset.
    pub(super) fn boot_status(&self) -> Option<u32> {
        self.boot_status
    }

    pub(super) fn name(&self) -> &str {
        &self.status.name
    }

    /// How often the watch loop has to sign for it; `None` while it is missing.
    pub(super) fn sign(&self) -> Option<Duration> {
        self.backend.as_ref().map(|_| self.pace.sign)
    }

    /// For an older sign of the watch loop it is not petted.
    pub(super) fn max_age(&self) -> Duration {
        self.pace.max_age
    }

    /// Its status if it has changed since the last call.
    pub(super) fn news(&mut self) -> Option<WatchdogStatus> {
        std::mem::take(&mut self.changed).then(|| self.status.clone())
    }

    /// Does what is due; when to come again.
    pub(super) fn turn(&mut self, now: MonoNs, judge: impl Fn(Duration) -> Verdict) -> MonoNs {
        self.open_if_due(now);
        let Some(backend) = &mut self.backend else { return self.open_at };
        let mut done = Ok(());
        if now >= self.lower_at {
            self.lower_at = MonoNs::NEVER;
            done = backend.lower();
        }
        if done.is_ok() && now >= self.pet_at {
            let verdict = judge(self.pace.max_age);
            if verdict == Verdict::Pet {
                done = backend.pet();
                if done.is_ok() {
                    self.failed = 0;
                }
                // In step as long as it is on time; after that from now on.
                let next = self.pet_at.after(self.pace.every);
                self.pet_at = if next > now { next } else { now.after(self.pace.every) };
                self.lower_at = self.pace.width.map_or(MonoNs::NEVER, |width| now.after(width));
                self.set_state("petted");
            } else {
                self.pet_at = now.after(self.pace.retry());
                if verdict != Verdict::NotYet {
                    self.set_state("withheld");
                }
            }
        }
        if done.is_err() && self.failed < RETRIES {
            self.failed += 1;
            // Of a pulse, too: one that cannot be ended is begun anew.
            (self.pet_at, self.lower_at) = (now.after(self.pace.retry()), MonoNs::NEVER);
        } else if let Err(error) = done {
            self.backend = None;
            self.open_at = now.after(REOPEN);
            self.set("missing", Some(format!("cannot be petted: {error}; opened again in {} s", REOPEN.as_secs())));
            return self.open_at;
        }
        self.pet_at.min(self.lower_at)
    }

    /// The end: switched off, or left to what comes.
    pub(super) fn part(self, disarm: bool) -> Result<(), String> {
        match self.backend {
            Some(mut backend) if disarm => {
                backend.disarm().map_err(|why| format!("watchdog {}: {why}", self.status.name))
            }
            _ => Ok(()),
        }
    }

    fn set_state(&mut self, state: &str) {
        if self.status.state != state {
            self.status.state = state.into();
            self.changed = true;
        }
    }

    fn set(&mut self, state: &str, note: Option<String>) {
        self.changed |= self.status.note != note;
        self.status.note = note;
        self.set_state(state);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was done to a watchdog, and whether it works.
    #[derive(Default)]
    struct Log {
        done: Vec<&'static str>,
        is_broken: bool,
        is_missing: bool,
    }

    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<Log>>);

    impl Fake {
        fn log(&self) -> std::sync::MutexGuard<'_, Log> {
            self.0.lock().expect("no test panics inside")
        }

        fn dog(&self, pace: Pace, granted: Option<Duration>) -> Dog {
            let fake = self.clone();
            let open = move || {
                if fake.log().is_missing {
                    return Err("not there".to_owned());
                }
                fake.log().done.push("open");
                let backend = Box::new(fake.clone());
                Ok(Opened { backend, identity: None, timeout: granted, boot_status: Some(0x20), note: None })
            };
            Dog::new("fake".into(), pace, Box::new(open))
        }

        fn taken(&self) -> Vec<&'static str> {
            std::mem::take(&mut self.log().done)
        }
    }

    impl Backend for Fake {
        fn pet(&mut self) -> io::Result<()> {
            if self.log().is_broken {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.log().done.push("pet");
            Ok(())
        }

        fn lower(&mut self) -> io::Result<()> {
            self.log().done.push("lower");
            Ok(())
        }

        fn disarm(&mut self) -> Result<(), String> {
            self.log().done.push("disarm");
            Ok(())
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_chip_gets_a_pulse_in_each_period() {
        let fake = Fake::default();
        let mut dog = fake.dog(Pace::of_chip(ms(80), ms(10)), None);
        let (mut now, mut times) = (MonoNs(1_000_000_000), Vec::new());
        while now < MonoNs(1_200_000_000) {
            let next = dog.turn(now, |age| if age == ms(160) { Verdict::Pet } else { Verdict::Late });
            times.extend(fake.taken().into_iter().map(|what| (now.0 / 1_000_000, what)));
            now = next;
        }
        let expected = [
            (1000, "open"),
            (1000, "pet"),
            (1010, "lower"),
            (1080, "pet"),
            (1090, "lower"),
            (1160, "pet"),
            (1170, "lower"),
        ];
        assert_eq!(times, expected);
    }

    #[test]
    fn petting_stops_and_goes_on_with_the_verdict_and_a_pulse_never_stays_high() {
        let fake = Fake::default();
        let mut dog = fake.dog(Pace::of_chip(ms(80), ms(10)), None);
        let mut now = MonoNs(1_000_000_000);
        now = dog.turn(now, |_| Verdict::Pet);
        assert_eq!(fake.taken(), ["open", "pet"]);
        assert_eq!(dog.news().map(|s| s.state).as_deref(), Some("petted"));
        for _ in 0..10 {
            now = dog.turn(now, |_| Verdict::Child(3));
        }
        assert_eq!(fake.taken(), ["lower"]);
        assert_eq!(dog.news().map(|s| s.state).as_deref(), Some("withheld"));
        assert_eq!(dog.news(), None, "told once");
        let again = now;
        dog.turn(now, |_| Verdict::Pet);
        assert_eq!(fake.taken(), ["pet"], "at once when it may be petted again");
        assert!(again.since(MonoNs(1_080_000_000)) < ms(200), "looked for quickly");
    }

    #[test]
    fn a_driver_that_grants_less_is_petted_more_often() {
        let fake = Fake::default();
        let mut dog = fake.dog(Pace::of_timeout(ms(60_000)), Some(ms(2000)));
        let now = MonoNs(1_000_000_000);
        assert_eq!(dog.turn(now, |_| Verdict::Pet), now.after(ms(500)));
        assert_eq!((dog.boot_status(), dog.sign()), (Some(0x20), Some(ms(125))));
    }

    #[test]
    fn one_that_is_missing_or_breaks_is_tried_again_now_and_then_and_told_once() {
        let fake = Fake::default();
        fake.log().is_missing = true;
        let mut dog = fake.dog(Pace::of_timeout(ms(4000)), None);
        let mut now = MonoNs(1_000_000_000);
        for round in 0..3 {
            let next = dog.turn(now, |_| Verdict::Pet);
            assert_eq!(next, now.after(REOPEN));
            assert_eq!(dog.news().and_then(|s| s.note).as_deref(), (round == 0).then_some("not there"));
            now = next;
        }
        assert_eq!(dog.sign(), None, "nobody has to sign for it");
        fake.log().is_missing = false;
        now = dog.turn(now, |_| Verdict::Pet);
        assert_eq!(fake.taken(), ["open", "pet"]);
        assert_eq!(dog.news().map(|s| s.state).as_deref(), Some("petted"));
        // Broken for a moment: it is petted again long before it would bite.
        fake.log().is_broken = true;
        let again = dog.turn(now, |_| Verdict::Pet);
        assert_eq!((again, fake.taken().len()), (now.after(ms(250)), 0));
        fake.log().is_broken = false;
        now = dog.turn(again, |_| Verdict::Pet);
        assert_eq!((fake.taken(), dog.news()), (vec!["pet"], None));
        fake.log().is_broken = true;
        for _ in 0..RETRIES {
            now = dog.turn(now, |_| Verdict::Pet);
        }
        assert_eq!(dog.turn(now, |_| Verdict::Pet), now.after(REOPEN));
        let status = dog.news().expect("it changed");
        assert!(status.state == "missing" && status.note.is_some_and(|n| n.contains("cannot be petted")));
    }

    #[test]
    fn an_orderly_end_disarms_and_any_other_does_not() {
        for (disarm, expected) in [(true, vec!["open", "pet", "disarm"]), (false, vec!["open", "pet"])] {
            let fake = Fake::default();
            let mut dog = fake.dog(Pace::of_timeout(ms(4000)), None);
            dog.turn(MonoNs(1), |_| Verdict::Pet);
            assert_eq!(dog.part(disarm), Ok(()));
            assert_eq!(fake.taken(), expected);
        }
    }

    #[test]
    fn paces() {
        let s = Duration::from_secs;
        for (timeout, every, max_age) in [(s(1), ms(250), ms(250)), (s(15), ms(3750), ms(3750)), (s(600), s(5), s(4))] {
            let pace = Pace::of_timeout(timeout);
            assert_eq!((pace.every, pace.max_age), (every, max_age));
            assert!(pace.every + pace.max_age < timeout && pace.sign * 4 <= pace.max_age);
        }
        assert_eq!(Pace::of_chip(ms(80), ms(10)).sign, ms(40));
    }
}
