//! One check over time: rounds of answers in, state, statistics and the time of the next round out.

use std::time::Duration;

use super::guard::Remedy;
use super::health::{Change, Health, State};
use super::rule::Rule;
use super::window::Window;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since any fixed point; all decisions are made on it.
    pub mono: Duration,
    /// Since 1970, for people and for other programs.
    pub unix: Duration,
}

/// How a check behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// From round to round.
    pub interval: Duration,
    /// The same while the last round spoke against the state.
    pub recheck: Duration,
    /// Bad rounds in a row until it is down, from 1.
    pub down_after: u32,
    /// Good rounds in a row until it is up, from 1.
    pub up_after: u32,
    /// How many answers make a good round.
    pub rule: Rule,
    /// How long it is down until something is done about it; `None`: nothing.
    pub remedy_after: Option<Duration>,
}

/// What came back for one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which target, as people know it.
    pub target: String,
    /// The time it took, if it has one; or why there was no answer.
    pub result: Result<Option<Duration>, String>,
}

/// One target and its history.
#[derive(Clone, Debug)]
pub struct Target {
    pub last: Answer,
    pub window: Window,
}

/// A check.
#[derive(Clone, Debug)]
pub struct Monitor {
    policy: Policy,
    health: Health,
    remedy: Remedy,
    next: Duration,
    /// So many rounds more come as soon as in doubt.
    hurried: u32,
    since: Option<Now>,
    last_check: Option<Duration>,
    last_ok: Option<Duration>,
    rounds: u64,
    changes: u64,
    detail: String,
    targets: Vec<Target>,
}

impl Monitor {
    /// The first round is due at `first`, on the monotonic clock.
    pub fn new(policy: Policy, first: Duration) -> Self {
        Self {
            policy,
            health: Health::new(policy.down_after, policy.up_after),
            remedy: Remedy::new(policy.remedy_after),
            next: first,
            hurried: 0,
            since: None,
            last_check: None,
            last_ok: None,
            rounds: 0,
            changes: 0,
            detail: String::new(),
            targets: Vec::new(),
        }
    }

    /// The answers of one round, which began at `began` on the monotonic clock.
    pub fn round(&mut self, answers: Vec<Answer>, began: Duration, now: Now) -> Option<Change> {
        let good = answers.iter().filter(|answer| answer.result.is_ok()).count();
        let is_good = self.policy.rule.is_met(good, answers.len());
        self.rounds += 1;
        self.last_check = Some(now.unix);
        if is_good {
            self.last_ok = Some(now.unix);
        }
        self.detail = failures(&answers);
        self.remember(answers);
        let change = self.health.record(is_good);
        let is_soon = self.health.is_in_doubt() || self.hurried > 0;
        self.hurried = self.hurried.saturating_sub(1);
        let pause = if is_soon { self.policy.recheck } else { self.policy.interval };
        // A round that took longer than the pause is followed by the next one at once.
        self.next = began.saturating_add(pause).max(now.mono);
        self.changed(change, now)
    }

    /// The interface that it depends on has lost its carrier, or is gone. `has_others`: whoever sets up the network may find
    /// another way, so it is asked at once, and soon again. The first round keeps its time.
    pub fn carrier_lost(&mut self, why: &str, has_others: bool, now: Now) -> Option<Change> {
        why.clone_into(&mut self.detail);
        if has_others && self.rounds > 0 {
            self.next = self.next.min(now.mono);
            self.hurried = self.policy.down_after;
        }
        let change = self.health.lose();
        self.changed(change, now)
    }

    /// Why it is down, where that is known better than by the answers of the last round.
    pub fn explain(&mut self, why: &str) {
        why.clone_into(&mut self.detail);
    }

    /// The carrier is back: there is no reason to wait for the next round. The first one keeps its time.
    pub fn carrier_back(&mut self, now: Now) {
        if self.rounds > 0 {
            self.next = self.next.min(now.mono);
        }
    }

    /// Whether it has been down so long that something is to be done; told once each time.
    pub fn remedy_is_due(&mut self, now: Now) -> bool {
        let down_since = match self.health.state() {
            State::Down { .. } => self.since.map(|since| since.mono),
            _ => None,
        };
        self.remedy.is_due(down_since, now.mono)
    }

    /// When the next round is due, on the monotonic clock.
    pub fn next(&self) -> Duration {
        self.next
    }

    pub fn state(&self) -> State {
        self.health.state()
    }

    pub fn is_up(&self) -> bool {
        matches!(self.health.state(), State::Up { .. })
    }

    /// Since when the state is what it is; `None`: since the start.
    pub fn since(&self) -> Option<Now> {
        self.since
    }

    /// When the last round ended, since 1970.
    pub fn last_check(&self) -> Option<Duration> {
        self.last_check
    }

    /// When the last good round ended, since 1970.
    pub fn last_ok(&self) -> Option<Duration> {
        self.last_ok
    }

    /// Rounds since the start.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Changes between up and down, without the first finding.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// What was wrong in the last round; empty: nothing.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    fn changed(&mut self, change: Option<Change>, now: Now) -> Option<Change> {
        if change.is_some() {
            self.changes += u64::from(self.since.is_some());
            self.since = Some(now);
        }
        change
    }

    /// Targets that were not asked this time (another gateway) are forgotten.
    fn remember(&mut self, answers: Vec<Answer>) {
        let mut before = std::mem::take(&mut self.targets);
        for answer in answers {
            let known = before.iter().position(|target| target.last.target == answer.target);
            let mut window = known.map(|known| before.swap_remove(known).window).unwrap_or_default();
            window.add(answer.result.as_ref().ok().copied());
            self.targets.push(Target { last: answer, window });
        }
    }
}

fn failures(answers: &[Answer]) -> String {
    let failed = answers.iter().filter_map(|Answer { target, result }| Some((target, result.as_ref().err()?)));
    let told: Vec<String> = failed.map(|(target, reason)| format!("{target}: {reason}")).collect();
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        interval: Duration::from_secs(60),
        recheck: Duration::from_secs(5),
        down_after: 2,
        up_after: 1,
        rule: Rule::Any,
        remedy_after: Some(Duration::from_secs(300)),
    };

    fn at(seconds: u64) -> Now {
        Now { mono: Duration::from_secs(seconds), unix: Duration::from_secs(1_800_000_000 + seconds) }
    }

    fn answers(good: &[bool]) -> Vec<Answer> {
        let result = |good: bool| if good { Ok(Some(Duration::from_millis(7))) } else { Err("no answer".to_owned()) };
        good.iter().enumerate().map(|(n, &good)| Answer { target: format!("host {n}"), result: result(good) }).collect()
    }

    #[test]
    fn rounds_come_at_the_interval_and_sooner_while_in_doubt() {
        let mut monitor = Monitor::new(POLICY, Duration::from_secs(60));
        for (end, good, next, change) in [
            (61, true, 120, Some(Change::CameUp)),
            (120, true, 180, None),
            (180, false, 185, None),
            (187, false, 245, Some(Change::WentDown)),
            (246, false, 305, None),
            (305, true, 365, Some(Change::CameUp)),
        ] {
            let began = monitor.next();
            assert_eq!(monitor.round(answers(&[good, false]), began, at(end)), change, "at {end}");
            assert_eq!(monitor.next(), Duration::from_secs(next), "after {end}");
        }
        assert_eq!((monitor.rounds(), monitor.changes()), (6, 2));
        assert_eq!(monitor.since(), Some(at(305)));
        assert_eq!(monitor.targets()[0].window.loss_percent(), 50.0);
        assert_eq!(monitor.detail(), "host 1: no answer");
    }

    #[test]
    fn nothing_is_known_before_the_first_round_except_a_pulled_cable() {
        let mut monitor = Monitor::new(POLICY, Duration::from_secs(60));
        assert_eq!((monitor.state(), monitor.last_check(), monitor.since()), (State::Unknown, None, None));
        assert_eq!(monitor.carrier_lost("eth0 has no carrier", true, at(3)), Some(Change::WentDown));
        assert_eq!(monitor.carrier_lost("eth0 has no carrier", true, at(4)), None, "told once");
        assert_eq!((monitor.rounds(), monitor.since(), monitor.detail()), (0, Some(at(3)), "eth0 has no carrier"));
        monitor.carrier_back(at(5));
        assert_eq!(monitor.next(), Duration::from_secs(60), "the first round keeps its time");
    }

    #[test]
    fn a_cable_that_is_back_is_looked_at_at_once() {
        let mut monitor = Monitor::new(POLICY, Duration::ZERO);
        monitor.round(answers(&[true]), Duration::ZERO, at(0));
        assert_eq!(monitor.carrier_lost("eth0 has no carrier", false, at(10)), Some(Change::WentDown));
        assert_eq!(monitor.next(), Duration::from_secs(60), "there is no other way");
        monitor.carrier_back(at(20));
        assert_eq!(monitor.next(), Duration::from_secs(20));
        assert_eq!(monitor.round(answers(&[true]), at(20).mono, at(20)), Some(Change::CameUp));
    }

    #[test]
    fn another_way_is_looked_for_at_once_and_soon_again() {
        let mut monitor = Monitor::new(POLICY, Duration::ZERO);
        monitor.round(answers(&[true]), Duration::ZERO, at(0));
        assert_eq!(monitor.carrier_lost("eth0 has no carrier", true, at(10)), Some(Change::WentDown));
        for (began, is_good, next) in [(10, false, 15), (15, false, 20), (20, false, 80), (80, true, 140)] {
            assert_eq!(monitor.next(), Duration::from_secs(began));
            monitor.round(answers(&[is_good]), at(began).mono, at(began));
            assert_eq!(monitor.next(), Duration::from_secs(next), "after {began}");
        }
        assert!(monitor.is_up());
    }

    #[test]
    fn something_is_done_when_it_stays_down() {
        let mut monitor = Monitor::new(POLICY, Duration::ZERO);
        monitor.round(answers(&[false]), Duration::ZERO, at(0));
        let due: Vec<u64> = (0..900).filter(|&second| monitor.remedy_is_due(at(second))).collect();
        assert_eq!(due, [300, 600]);
        monitor.round(answers(&[true]), at(900).mono, at(900));
        assert!(!(900..2000).any(|second| monitor.remedy_is_due(at(second))));
    }

    #[test]
    fn a_new_gateway_takes_the_place_of_the_old_one() {
        let mut monitor = Monitor::new(POLICY, Duration::ZERO);
        monitor.round(answers(&[true, true]), Duration::ZERO, at(0));
        monitor.round(answers(&[true]), Duration::ZERO, at(60));
        assert_eq!(monitor.targets().len(), 1);
        assert_eq!(monitor.targets()[0].window.len(), 2);
        monitor.round(Vec::new(), Duration::ZERO, at(120));
        assert!(monitor.targets().is_empty() && monitor.is_up(), "nobody to ask is a bad round, the first one");
    }
}
