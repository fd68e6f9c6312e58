//! What the control thread does about critical children that stay out of order, and about watchdogs: writes down why before the
//! machine is reset, climbs the steps of `[escalation]`, and keeps the machine from being reset again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use multus_contract::api::reset::{LastReset, WatchdogStatus};
use multus_contract::config::EscalationConfig;
use multus_contract::dirs::Dirs;
use multus_ipc::text::Text;
use multus_ipc::words::{EventKind, StateCode};
use multus_ipc::{MonoNs, status};
use multus_supervisor::Command;

use super::Control;
use super::roster::Outlet;
use crate::reset::{self, Action, By, Ending, Store};
use crate::watch::{Ask, Reply};
use crate::watchdog::{BootStatus, Decision, News, Sign};

/// What the control thread gets for it.
#[derive(Debug)]
pub struct Parts {
    /// Shared with the watch loop and the keeper of the watchdogs.
    pub sign: Arc<Sign>,
    /// From the keeper.
    pub news: rtrb::Consumer<News>,
    /// What the watchdogs said about the last reset when they were opened, in the order of the configuration.
    pub boot_status: Vec<BootStatus>,
}

/// The control thread's part of it.
#[derive(Debug)]
pub(super) struct Oversight {
    sign: Arc<Sign>,
    news: rtrb::Consumer<News>,
    watchdogs: Vec<WatchdogStatus>,
    store: Store,
    /// Since when critical children are out of order.
    out: BTreeMap<usize, MonoNs>,
    culprit: Option<usize>,
    steps: Steps,
    /// That the watchdogs are not petted was told.
    withheld: bool,
    /// The machine is not reset although it should be.
    guarded: Option<String>,
    /// Found at the start.
    notes: Vec<String>,
}

impl Oversight {
    /// Reads why the machine last restarted. Blocks for as long as the disk needs.
    pub(super) fn new(parts: Parts, dirs: &Dirs, out: &mut impl Outlet) -> Self {
        let waiting = |(name, _): &BootStatus| WatchdogStatus {
            name: name.clone(),
            state: "waiting".into(),
            ..WatchdogStatus::default()
        };
        let watchdogs = parts.boot_status.iter().map(waiting).collect();
        let (store, notes) = Store::open(&dirs.state, &reset::look(parts.boot_status));
        for note in &notes {
            log::error!("{note}");
            tell(out, EventKind::Reduced, 0, note);
        }
        let sentence = start_sentence(store.last());
        if store.last().is_ordinary() {
            log::info!("{sentence}")
        } else {
            log::warn!("{sentence}")
        }
        tell(out, EventKind::LastReset, 0, &sentence);
        Self {
            sign: parts.sign,
            news: parts.news,
            watchdogs,
            store,
            out: BTreeMap::new(),
            culprit: None,
            steps: Steps::default(),
            withheld: false,
            guarded: None,
            notes,
        }
    }

    /// What the watch loop says about critical children.
    pub(super) fn hear(&mut self, reply: Reply) {
        match reply {
            Reply::OutOfOrder { slot, since } => {
                self.out.insert(slot, since);
            }
            Reply::InOrder { slot } => {
                self.out.remove(&slot);
            }
            Reply::Culprit(culprit) => self.culprit = culprit,
            _ => {}
        }
    }

    /// Why the machine last restarted.
    pub(super) fn last_reset(&self) -> &LastReset {
        self.store.last()
    }

    /// How the watchdogs do.
    pub(super) fn watchdogs(&self) -> &[WatchdogStatus] {
        &self.watchdogs
    }

    /// What is not as it should be, a sentence each.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> + '_ {
        let of_dogs = self.watchdogs.iter().filter_map(note_of);
        let problem = self.store.problem().map(|why| format!("why the machine restarts cannot be written down: {why}"));
        self.notes.iter().cloned().chain(self.guarded.clone()).chain(of_dogs).chain(problem)
    }

    /// Writes down that the machine is started anew, before it is. Blocks until the disk has it.
    pub(super) fn announce_reboot(&mut self, ending: Ending) {
        self.store.announce(ending, MonoNs::now());
    }

    /// Multusd ends in order. Blocks until the disk has it.
    pub(super) fn close(&mut self) {
        self.store.close(MonoNs::now());
    }

    fn is_too_often(&self, config: &EscalationConfig, now: MonoNs) -> bool {
        self.store.is_too_often(config.reboots_per_hour, now)
    }

    /// Says once that the machine is not reset for now.
    fn guard(&mut self, what: &str, now: MonoNs, out: &mut impl Outlet) {
        if self.guarded.is_some() {
            return;
        }
        let recent = self.store.recent(now);
        let why = match self.store.problem() {
            Some(_) => "resets cannot be counted".to_owned(),
            None => format!("{recent} resets within the last hour"),
        };
        let sentence = format!("LOOP GUARD: {why} ([escalation] reboots_per_hour); {what}");
        log::error!("{sentence}");
        tell(out, EventKind::LoopGuard, recent as u64, &sentence);
        self.guarded = Some(sentence);
    }

    fn take_news(&mut self, now: MonoNs, out: &mut impl Outlet) {
        let mut is_late = false;
        while let Ok(News { index, status, is_late: late }) = self.news.pop() {
            is_late |= late;
            let Some(place) = self.watchdogs.get_mut(index) else { continue };
            let before = std::mem::replace(place, status);
            if let Some(note) = note_of(place).filter(|note| note_of(&before).as_ref() != Some(note)) {
                log::warn!("{note}");
                tell(out, EventKind::Reduced, 0, &note);
            } else if before.state == "missing" && place.state != "missing" {
                log::info!("watchdog {} is there", place.name);
            }
        }
        if is_late && self.culprit.is_none() && self.store.ending().is_none() {
            let reason = "the watch loop of multusd was not on time, so the watchdogs were not petted".to_owned();
            log::error!("{reason}");
            tell(out, EventKind::WatchdogWithheld, 0, &reason);
            self.withheld = true;
            self.store.announce(Ending::now(Action::Withhold, By::Watchdog, reason), now);
        }
        let is_withheld = self.watchdogs.iter().any(|watchdog| watchdog.state == "withheld");
        if self.withheld && !is_withheld && self.culprit.is_none() {
            self.withheld = false;
            log::warn!("the watchdogs are petted again");
            tell(out, EventKind::WatchdogPetted, 0, "the watchdogs are petted again");
            self.withdraw(now);
        }
    }

    fn withdraw(&mut self, now: MonoNs) {
        if self.store.ending().is_some_and(|ending| ending.action == Action::Withhold) {
            self.store.withdraw(now);
        }
    }
}

fn tell(out: &mut impl Outlet, kind: EventKind, arg: u64, sentence: &str) {
    out.ask(Ask::Tell { kind, arg, text: Text::new(sentence) });
}

fn note_of(watchdog: &WatchdogStatus) -> Option<String> {
    let note = watchdog.note.as_deref()?;
    let missing = if watchdog.state == "missing" { " is not there" } else { "" };
    Some(format!("watchdog {}{missing}: {note}", watchdog.name))
}

/// What the first event says.
fn start_sentence(last: &LastReset) -> String {
    match (last.daemon_only, last.ended_in_order) {
        (false, _) => format!("the machine restarted: {}", last.line()),
        (true, true) => "only multusd was started again, after an end in order".to_owned(),
        (true, false) => "only multusd was started again: it had been killed, or had ended by itself".to_owned(),
    }
}

// ---- steps --------------------------------------------------------------------------------------------------------

/// The steps of `[escalation]`. Pure.
#[derive(Clone, Copy, Debug, Default)]
struct Steps {
    restarted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    RestartAll,
    Reboot,
}

impl Steps {
    /// What to do; `out_for`: how long the critical child that has been out of order the longest is, `None` when all are in order.
    fn next(&mut self, config: &EscalationConfig, out_for: Option<Duration>) -> Option<Step> {
        let Some(out_for) = out_for else {
            self.restarted = false;
            return None;
        };
        let is_over = |limit: Option<Duration>| limit.is_some_and(|limit| out_for >= limit);
        if is_over(config.reboot_after) {
            return Some(Step::Reboot);
        }
        if is_over(config.restart_all_after) && !self.restarted {
            self.restarted = true;
            return Some(Step::RestartAll);
        }
        None
    }
}

impl Control {
    /// In every round.
    pub(super) fn oversee(&mut self, now: MonoNs) {
        self.oversight.take_news(now, &mut self.rings);
        if self.ending {
            return;
        }
        self.judge_culprit(now);
        self.escalate(now);
        if self.oversight.guarded.is_some()
            && (self.oversight.out.is_empty()
                || !self.oversight.is_too_often(&self.roster.config.daemon.escalation, now))
        {
            self.oversight.guarded = None;
        }
    }

    /// Whether the watchdogs may reset the machine because of a critical child, and for which.
    fn judge_culprit(&mut self, now: MonoNs) {
        let config = self.roster.config.daemon.escalation;
        let culprit = self.oversight.culprit.filter(|_| !self.oversight.watchdogs.is_empty());
        let Some(slot) = culprit else {
            self.oversight.sign.decide(Decision::Open);
            if !self.oversight.withheld {
                self.oversight.withdraw(now);
            }
            return;
        };
        if self.oversight.store.ending().is_some_and(|ending| ending.child.is_some()) {
            return;
        }
        let (name, pid, _) = self.of_slot(slot);
        if self.oversight.is_too_often(&config, now) {
            let what = format!("the watchdogs are petted although {name} stays out of order");
            self.oversight.guard(&what, now, &mut self.rings);
            self.oversight.sign.decide(Decision::Forgive);
            return;
        }
        let reason = format!("the critical child {name} stayed out of order, so the watchdogs were not petted");
        log::error!("{reason}");
        tell(&mut self.rings, EventKind::WatchdogWithheld, 0, &reason);
        self.oversight.withheld = true;
        let ending = Ending { child: Some(name), pid, ..Ending::now(Action::Withhold, By::Watchdog, reason) };
        self.oversight.store.announce(ending, now);
        self.oversight.sign.decide(Decision::Withhold);
    }

    fn escalate(&mut self, now: MonoNs) {
        let config = self.roster.config.daemon.escalation;
        let longest = self.oversight.out.iter().min_by_key(|(_, since)| **since).map(|(slot, since)| (*slot, *since));
        let step = self.oversight.steps.next(&config, longest.map(|(_, since)| now.since(since)));
        let (Some(step), Some((slot, since))) = (step, longest) else { return };
        let (name, pid, state) = self.of_slot(slot);
        let seconds = now.since(since).as_secs();
        match step {
            Step::RestartAll => {
                let sentence = format!("{name} has been out of order for {seconds} s: all children are restarted");
                log::warn!("{sentence}");
                tell(&mut self.rings, EventKind::Escalated, 1, &sentence);
                self.restart_all();
            }
            // It may be about to prove that it is in order again.
            Step::Reboot if state == Some(StateCode::Running) => {}
            Step::Reboot if self.oversight.is_too_often(&config, now) => {
                let what = format!("the machine is not started anew although {name} stays out of order");
                self.oversight.guard(&what, now, &mut self.rings);
            }
            Step::Reboot => {
                let sentence = format!("{name} has been out of order for {seconds} s: the machine is started anew");
                log::error!("{sentence}");
                tell(&mut self.rings, EventKind::Escalated, 2, &sentence);
                let ending = Ending { child: Some(name), pid, ..Ending::now(Action::Reboot, By::Escalation, sentence) };
                self.schedule_reboot(0, ending);
            }
        }
    }

    /// Restarts every child that is to run.
    fn restart_all(&mut self) {
        let Ok(page) = status::Reader::new(self.pages.status.0) else { return };
        let is_wanted = |slot: usize| {
            let state = page.slot(slot).ok().flatten().map(|record| record.state);
            !matches!(state, None | Some(StateCode::Disabled | StateCode::Stopped | StateCode::Stopping))
        };
        let slots: Vec<usize> =
            self.roster.instances.values().map(|i| i.slot).filter(|slot| is_wanted(*slot)).collect();
        for slot in slots {
            self.rings.ask(Ask::Command { slot, command: Command::Restart });
        }
    }

    /// Name, process and state of the child in a slot, as far as they are known.
    fn of_slot(&self, slot: usize) -> (String, Option<u32>, Option<StateCode>) {
        let record = status::Reader::new(self.pages.status.0).ok().and_then(|page| page.slot(slot).ok().flatten());
        match record {
            Some(record) => (record.name.to_string(), Some(record.pid).filter(|pid| *pid != 0), Some(record.state)),
            None => (format!("slot {slot}"), None, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_climbed_one_after_the_other_and_begin_anew() {
        let s = |s| Some(Duration::from_secs(s));
        let config = EscalationConfig { restart_all_after: s(60), reboot_after: s(300), reboots_per_hour: 3 };
        let mut steps = Steps::default();
        for (out_for, expected) in [
            (None, None),
            (s(59), None),
            (s(60), Some(Step::RestartAll)),
            (s(61), None),
            (s(299), None),
            (s(300), Some(Step::Reboot)),
            (s(301), Some(Step::Reboot)),
            (None, None),
            (s(60), Some(Step::RestartAll)),
        ] {
            assert_eq!(steps.next(&config, out_for), expected, "{out_for:?}");
        }
        let off = EscalationConfig::default();
        assert_eq!(Steps::default().next(&off, s(86_400)), None, "off by default");
        let only = EscalationConfig { restart_all_after: None, ..config };
        assert_eq!(Steps::default().next(&only, s(60)), None);
    }
}
