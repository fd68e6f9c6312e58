//! Does what the journal says, and listens meanwhile: to interfaces, to a new configuration, to those who confirm, to the DHCP
//! client.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use multus_child::{Interval, Voice};
use multus_net::address::{Address, addresses, default_routes, forget_neighbour, switch_on};
use multus_net::netlink::{Link, Links, Router};
use multus_net::router;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::backend::{Backends, Told, Trouble};
use crate::clock;
use crate::config::Trial;
use crate::logic::cidr::{Cidr, can_be_leased};
use crate::logic::journal::{Journal, Now, Pending, Reason, Step};
use crate::logic::plan::{Kind, Plan};
use crate::nat::Table;
use crate::shown::{Shared, State};
use crate::store::Store;

/// What is wanted, and how a change is tried.
pub(crate) type Wanted = (Option<Plan>, Trial);

/// Somebody confirms.
#[derive(Debug)]
pub(crate) struct Confirmation {
    /// [`Plan::mark`] of the plan that was on trial when it was asked for.
    pub(crate) mark: Option<String>,
    /// Why that cannot be, if it cannot.
    pub(crate) answer: oneshot::Sender<Result<(), String>>,
}

/// The question to the routers: who confirms, or why nobody does.
type Asking = Pin<Box<dyn Future<Output = Result<String, String>>>>;

pub(crate) struct Keeper {
    store: Store,
    journal: Journal,
    backends: Backends,
    nat: Table,
    shared: Shared,
    voice: Voice,
    links: watch::Receiver<Links>,
    wanted: watch::Receiver<Wanted>,
    began: Instant,
    /// The plan on trial has been applied by this process to the interface with this index.
    applied: Option<u32>,
    /// What stood before the plan on trial was undone by this process, where that is needed.
    is_free: bool,
    /// What was confirmed was not applied to the end, or something else was undone after it.
    told: Told,
    /// For this plan and interface everything was seen to.
    ensured: Option<(String, u32)>,
    asking: Option<Asking>,
    /// Why the last question to the router was in vain.
    unanswered: String,
    said: String,
}

impl Keeper {
    pub(crate) fn new(
        store: Store,
        journal: Journal,
        shared: Shared,
        voice: Voice,
        links: watch::Receiver<Links>,
        wanted: watch::Receiver<Wanted>,
    ) -> Self {
        Self {
            store,
            journal,
            backends: Backends::default(),
            nat: Table::default(),
            shared,
            voice,
            links,
            wanted,
            began: Instant::now(),
            applied: None,
            is_free: false,
            told: Told::Already,
            ensured: None,
            asking: None,
            unanswered: String::new(),
            said: String::new(),
        }
    }

    /// Works for ever; ends when nobody configures it any more.
    pub(crate) async fn run(mut self, mut confirmations: mpsc::Receiver<Confirmation>) {
        loop {
            let pause = tokio::select! {
                biased;
                pause = self.turn() => pause,
                never = refuse(&mut confirmations) => match never {},
            };
            // Whatever is ready again at once, the beat and the server have their turn.
            tokio::task::yield_now().await;
            tokio::select! {
                () = sleep(pause) => {}
                changed = self.links.changed() => if changed.is_err() { return },
                changed = self.wanted.changed() => if changed.is_err() { return },
                Some(Confirmation { mark, answer }) = confirmations.recv() => {
                    let confirmed = self.confirm_by_somebody(mark.as_deref());
                    // Who has asked may be gone.
                    let _ = answer.send(confirmed);
                }
                answered = asked(&mut self.asking) => {
                    self.asking = None;
                    match answered {
                        Ok(who) => if let Err(error) = self.confirm(&who) { self.fail(&error) },
                        Err(reason) => self.unanswered = reason,
                    }
                }
                notice = self.backends.notice() => self.dhcp(notice),
            }
        }
    }

    /// Does what is to be done now; how long nothing is to be done then.
    async fn turn(&mut self) -> Duration {
        loop {
            let now = match clock::now() {
                Ok(now) => now,
                Err(error) => {
                    self.fail(&error);
                    return SOON;
                }
            };
            let (wanted, trial) = self.wanted.borrow_and_update().clone();
            self.shared.lock().plan.clone_from(&wanted);
            let pause = match self.journal.step(wanted.as_ref(), &now) {
                Step::Rest => Some(self.rest(wanted.as_ref())),
                Step::Keep => Some(self.keep(wanted.as_ref()).await),
                Step::Begin => match wanted {
                    Some(plan) => self.begin(plan, trial, &now).await,
                    None => Some(LATE),
                },
                Step::Wait(left) => self.wait(left, trial).await,
                Step::TakeBack(reason) => self.take_back(reason, &now).await,
            };
            if let Some(pause) = pause {
                return pause;
            }
        }
    }

    fn rest(&mut self, wanted: Option<&Plan>) -> Duration {
        match wanted {
            None => self.show(State::Idle, "no interface is configured; nothing is changed"),
            Some(_) => self.show_rejected(),
        }
        LATE
    }

    /// What was confirmed is to be there, after a start of the machine as well.
    async fn keep(&mut self, wanted: Option<&Plan>) -> Duration {
        let Some(confirmed) = self.journal.confirmed.clone() else { return LATE };
        let (plan, kind) = (confirmed.plan, confirmed.backend);
        if wanted == Some(&plan) && self.journal.rejected.take().is_some() {
            // The configuration is another than the one that was taken back: that one may be tried again.
            if let Err(error) = self.store.save(&self.journal) {
                self.fail(&error);
            }
        }
        self.shared.lock().backend = Some(kind);
        let Some(link) = self.link(&plan.interface) else {
            self.ensured = None;
            self.show(State::Waiting, &format!("there is no interface {}", plan.interface));
            return LATE;
        };
        if let Some(pause) = self.ensure(kind, &plan, link).await {
            return pause;
        }
        if let Err(error) = self.translate(&plan, link.index).await {
            self.fail(&error);
            return RETRY;
        }
        self.shared.lock().confirmed_by.clone_from(&confirmed.by);
        if wanted.is_some_and(|wanted| *wanted != plan) {
            self.show_rejected();
        } else {
            self.show(State::Confirmed, &format!("confirmed by {}", confirmed.by));
        }
        // Somebody may take something away; of a LAN by DHCP the network may change, onto which others are mapped.
        if plan.nat.is_on() || kind == Kind::Rtnetlink { RETRY } else { LATE }
    }

    /// Applies what was confirmed, if this process has not yet, and what is missing of it. `Some`: it does not stand; so long
    /// nothing is to be done.
    async fn ensure(&mut self, kind: Kind, plan: &Plan, link: Link) -> Option<Duration> {
        let mark = (plan.mark(), link.index);
        let is_ensured = self.ensured.as_ref() == Some(&mark);
        if kind == Kind::Rtnetlink && !link.has_carrier {
            if is_ensured {
                return None;
            }
            // Without a carrier nobody tells whether an address is free.
            return Some(self.wait_for_carrier(plan, link, "it is set up when it has"));
        }
        let missing = match self.backends.missing(kind, plan, link.index) {
            Ok(missing) => missing.filter(|_| is_ensured),
            Err(error) => {
                self.fail(&error);
                return Some(RETRY);
            }
        };
        if is_ensured && missing.is_none() {
            return None;
        }
        self.show(State::Applying, &format!("{} sees to {}", kind.word(), plan.interface));
        self.ensured = None;
        if let Err(trouble) = self.backends.apply(kind, plan, link.index, self.told).await {
            self.told = Told::Perhaps;
            self.fail(&trouble.to_string());
            return Some(RETRY);
        }
        (self.told, self.ensured) = (Told::Already, Some(mark));
        if let Some(missing) = missing {
            self.tell(log::Level::Warn, &format!("{} had lost {missing}; it is set again", plan.interface));
        }
        None
    }

    /// As long as something new cannot be tried yet, what was confirmed before is to be there.
    async fn keep_meanwhile(&mut self) {
        let Some(confirmed) = self.journal.confirmed.clone() else { return };
        let Some(link) = self.link(&confirmed.plan.interface) else { return };
        if self.ensure(confirmed.backend, &confirmed.plan, link).await.is_none()
            && let Err(error) = self.translate(&confirmed.plan, link.index).await
        {
            self.fail(&error);
        }
    }

    /// Switches the interface on, so that it can have a carrier.
    fn wait_for_carrier(&mut self, plan: &Plan, link: Link, then: &str) -> Duration {
        if !link.is_up
            && let Err(error) = switch_on(link.index)
        {
            self.fail(&format!("{} cannot be switched on: {error}", plan.interface));
            return RETRY;
        }
        self.show(State::Waiting, &format!("{} has no carrier; {then}", plan.interface));
        RETRY
    }

    /// Something new: when it can be tried, it is written down first.
    async fn begin(&mut self, plan: Plan, trial: Trial, now: &Now) -> Option<Duration> {
        let link = self.link(&plan.interface);
        if link.is_none_or(|link| !link.has_carrier) {
            self.keep_meanwhile().await;
        }
        let Some(link) = link else {
            self.show(State::Waiting, &format!("there is no interface {}", plan.interface));
            return Some(RETRY);
        };
        if !trial.within.is_zero() && !link.has_carrier {
            return Some(self.wait_for_carrier(&plan, link, "the change is tried when it has"));
        }
        let kind = match plan.backend {
            Some(kind) => kind,
            None => {
                if self.is_one_starting(None).await {
                    return Some(SOON);
                }
                Backends::find(&plan.interface, link.index).await
            }
        };
        if kind == Kind::Rtnetlink && !link.has_carrier {
            return Some(self.wait_for_carrier(&plan, link, "the change is tried when it has"));
        }
        let before = match self.backends.snapshot(kind, &plan.interface, link.index, now).await {
            Ok(before) => before,
            Err(error) => {
                self.fail(&format!("what is set cannot be read, so nothing is changed: {error}"));
                return Some(RETRY);
            }
        };
        let within = if trial.within.is_zero() { UNASKED } else { trial.within };
        let mut journal = self.journal.clone();
        journal.begin(plan.clone(), kind, before, now, within);
        if let Err(error) = self.store.save(&journal) {
            self.fail(&format!("the journal cannot be written, so nothing is changed: {error}"));
            return Some(RETRY);
        }
        self.journal = journal;
        (self.applied, self.is_free, self.ensured) = (None, false, None);
        self.unanswered.clear();
        let limit = match trial.within {
            Duration::ZERO => "it stands at once".to_owned(),
            within => format!("taken back in {} unless it is confirmed", Interval::from(within)),
        };
        self.tell(log::Level::Info, &format!("{} is set up anew by {}; {limit}", plan.interface, kind.word()));
        None
    }

    /// On trial.
    async fn wait(&mut self, left: Duration, trial: Trial) -> Option<Duration> {
        let Pending { plan, backend, deadline_ms, .. } = self.journal.pending.clone()?;
        {
            let mut shown = self.shared.lock();
            shown.backend = Some(backend);
            shown.deadline = Some(Duration::from_millis(deadline_ms));
            shown.trial = Some(plan.mark());
        }
        let Some(link) = self.link(&plan.interface) else {
            self.show(State::Pending, &format!("{} is gone", plan.interface));
            return Some(left);
        };
        if self.applied != Some(link.index) {
            return self.try_out(backend, &plan, link, left).await;
        }
        let translated = self.translate(&plan, link.index).await;
        if trial.within.is_zero() && translated.is_ok() {
            return self.confirm("nobody: confirm_within is 0s").err().map(|error| {
                self.fail(&error);
                RETRY
            });
        }
        let mut detail = "somebody must confirm: multus-lan --confirm".to_owned();
        let in_place = match translated {
            Ok(()) if trial.gateway_confirms => self.in_place(backend, &plan, link).await.map(Some),
            Ok(()) => Ok(None),
            Err(reason) => Err(reason),
        };
        match in_place {
            Ok(Some(routers)) if self.asking.is_none() => self.asking = Some(Box::pin(ask(routers, plan.dhcp))),
            Ok(_) => {}
            // Whatever is asked now was asked before that.
            Err(reason) => (self.asking, self.unanswered) = (None, reason),
        }
        if !self.unanswered.is_empty() {
            detail = format!("{}; or {detail}", self.unanswered);
        }
        self.show(State::Pending, &detail);
        Some(left.min(SOON))
    }

    /// Applies the plan on trial, within its time. What may pass is tried again, what stays ends the trial.
    async fn try_out(&mut self, backend: Kind, plan: &Plan, link: Link, left: Duration) -> Option<Duration> {
        self.show(State::Applying, &format!("{} sets up {}", backend.word(), plan.interface));
        match timeout(left, self.apply(backend, plan, link)).await {
            Ok(Ok(())) => {}
            Ok(Err(Trouble::Passing(reason))) => {
                self.show(State::Pending, &format!("{reason}; it is tried again"));
                self.unanswered = reason;
                return Some(left.min(AGAIN));
            }
            Ok(Err(Trouble::Lasting(reason))) => {
                return match clock::now() {
                    Ok(now) => self.take_back(Reason::Failed(reason), &now).await,
                    Err(_) => Some(SOON),
                };
            }
            Err(_) => {
                self.unanswered = format!("{} has not set up {} in time", backend.word(), plan.interface);
                return None;
            }
        }
        self.applied = Some(link.index);
        for router in plan.routers() {
            // An answer from before the change says nothing.
            let _ = forget_neighbour(link.index, router);
        }
        self.unanswered.clear();
        None
    }

    async fn apply(&mut self, backend: Kind, plan: &Plan, link: Link) -> Result<(), Trouble> {
        if !self.is_free
            && let Some((original, former)) = self.journal.to_free(plan, backend)
        {
            let (now, index) = (clock::now()?, self.link(&former.interface).map(|link| link.index));
            self.backends.undo(&original, &former, index, &now).await?;
        }
        self.is_free = true;
        // A process that was killed may have written, and told nobody.
        self.backends.apply(backend, plan, link.index, Told::Perhaps).await
    }

    async fn translate(&mut self, plan: &Plan, index: u32) -> Result<(), String> {
        let found = addresses(index).map_err(|error| format!("addresses: {error}"))?;
        let lan: Vec<Cidr> = found
            .into_iter()
            .filter(|found| found.is_global)
            .map(|found| Cidr { address: found.address, prefix: found.prefix })
            .collect();
        if self.nat.set(&plan.nat, &plan.interface, &lan, &mut self.journal).await? {
            self.store.save(&self.journal)?;
        }
        Ok(())
    }

    /// Whether everything is there that the plan wants; then the routers that can be asked.
    async fn in_place(&self, kind: Kind, plan: &Plan, link: Link) -> Result<Vec<Router>, String> {
        if !link.has_carrier {
            return Err(format!("{} has no carrier", plan.interface));
        }
        self.backends.settled(kind, plan, link.index).await?;
        let found = addresses(link.index).map_err(|error| format!("addresses: {error}"))?;
        for cidr in &plan.addresses {
            match found.iter().find(|found| found.address == cidr.address) {
                None => return Err(format!("{} does not have {cidr} yet", plan.interface)),
                Some(found) if found.is_duplicate => {
                    return Err(format!("somebody else has the address {}", cidr.address));
                }
                Some(found) if found.is_tentative => return Err(format!("whether {cidr} is free is not known yet")),
                Some(_) => {}
            }
        }
        if plan.dhcp && !self.has_lease(&found) {
            return Err("no DHCP server has answered".into());
        }
        let mut routers = plan.routers();
        if plan.dhcp {
            let routes = default_routes(link.index).map_err(|error| format!("routes: {error}"))?;
            routers.extend(routes.iter().map(|route| route.gateway));
            routers.extend(self.backends.lease().into_iter().flat_map(|lease| &lease.routers).copied().map(IpAddr::V4));
        }
        routers.dedup();
        let router = |address| Router { address, interface: plan.interface.clone(), index: link.index };
        Ok(routers.into_iter().map(router).collect())
    }

    /// Whether one of these addresses is of DHCP: by the own client, or else one that ends.
    fn has_lease(&self, found: &[Address]) -> bool {
        let leased = self.backends.lease().map(|lease| lease.cidr.address);
        found.iter().filter(|found| found.is_global).any(|found| match leased {
            Some(leased) => found.address == leased,
            None => can_be_leased(found.address, found.valid_s),
        })
    }

    /// `mark`: of the plan that was on trial when it was asked for.
    fn confirm_by_somebody(&mut self, mark: Option<&str>) -> Result<(), String> {
        if let Some(pending) = &self.journal.pending {
            if mark.is_some_and(|mark| mark != pending.plan.mark()) {
                return Err("another change is on trial by now".into());
            }
            if self.applied.is_none() {
                return Err(NOT_YET.into());
            }
        }
        self.confirm("somebody")
    }

    fn confirm(&mut self, by: &str) -> Result<(), String> {
        let now = clock::now()?;
        let mut journal = self.journal.clone();
        if !journal.confirm(by, &now) {
            return Err("nothing waits for a confirmation".into());
        }
        self.store.save(&journal)?;
        self.journal = journal;
        self.asking = None;
        self.end_trial();
        // What stands has just been applied.
        let mark = self.journal.confirmed.as_ref().map(|confirmed| confirmed.plan.mark());
        self.ensured = mark.zip(self.applied.take());
        self.told = Told::Already;
        self.tell(log::Level::Info, &format!("the change stands: confirmed by {by}"));
        Ok(())
    }

    async fn take_back(&mut self, reason: Reason, now: &Now) -> Option<Duration> {
        let Pending { plan, before, backend, .. } = self.journal.pending.clone()?;
        self.asking = None;
        // After a restart of the machine the one who is to be told may not be there yet.
        if self.is_one_starting(Some(backend)).await {
            return Some(SOON);
        }
        let reason = match reason {
            Reason::Expired if !self.unanswered.is_empty() => Reason::Failed(format!("{reason}: {}", self.unanswered)),
            reason => reason,
        };
        self.show(State::Applying, &format!("the change is taken back: {reason}"));
        let index = self.link(&plan.interface).map(|link| link.index);
        let undone = self.backends.undo(&before, &plan, index, now).await;
        let translated = match (&undone, self.journal.confirmed.clone()) {
            (Err(_), _) => Ok(()),
            // What was confirmed is seen to next.
            (Ok(()), Some(_)) => Ok(()),
            (Ok(()), None) => self.nat.remove(&mut self.journal).await.map(drop),
        };
        let mut journal = self.journal.clone();
        journal.taken_back(&reason);
        if let Err(error) = undone.and(translated).and_then(|()| self.store.save(&journal)) {
            self.fail(&format!("the change cannot be taken back: {error}"));
            return Some(SOON);
        }
        if journal.to_free(&plan, backend).is_some() {
            // What stands was undone when this was applied.
            self.told = Told::Perhaps;
        }
        self.journal = journal;
        (self.applied, self.ensured) = (None, None);
        self.end_trial();
        if reason != Reason::Superseded {
            self.shared.lock().last_error = reason.to_string();
        }
        let (level, more) = match reason {
            Reason::Superseded => (log::Level::Info, ""),
            _ => (log::Level::Error, ". It is not tried again until the configuration is another"),
        };
        self.tell(level, &format!("the change was taken back: {reason}{more}"));
        None
    }

    fn dhcp(&mut self, notice: Result<crate::logic::text::Notice, String>) {
        let plan = match (&self.journal.pending, &self.journal.confirmed) {
            (Some(pending), _) => pending.plan.clone(),
            (None, Some(confirmed)) => confirmed.plan.clone(),
            (None, None) => return,
        };
        let Some(link) = self.link(&plan.interface) else { return };
        if let Err(error) = self.backends.told(notice, &plan, link.index) {
            self.fail(&format!("DHCP: {error}"));
        }
        self.shared.lock().lease = self.backends.lease().cloned();
    }

    fn end_trial(&self) {
        let mut shown = self.shared.lock();
        (shown.deadline, shown.trial) = (None, None);
    }

    /// Whether one who could set up the interface, of this kind or of any, is being started with the machine; it is shown.
    async fn is_one_starting(&mut self, kind: Option<Kind>) -> bool {
        if self.began.elapsed() >= BOOT {
            return false;
        }
        let Some(unit) = Backends::starting(kind).await else { return false };
        self.show(State::Waiting, &format!("{unit} is being started"));
        true
    }

    fn link(&self, interface: &str) -> Option<Link> {
        self.links.borrow().get(interface).copied()
    }

    fn show_rejected(&mut self) {
        let reason = self.journal.rejected.as_ref().map(|rejected| rejected.reason.clone()).unwrap_or_default();
        let stands =
            if self.journal.confirmed.is_some() { "what was confirmed before stands" } else { "nothing is set" };
        self.show(State::Rejected, &format!("the configuration was taken back ({reason}); {stands}"));
    }

    fn show(&mut self, state: State, detail: &str) {
        {
            let mut shown = self.shared.lock();
            (shown.state, shown.detail) = (state, detail.to_owned());
            shown.lease = self.backends.lease().cloned();
        }
        if self.said != detail {
            self.said = detail.to_owned();
            self.voice.status(&format!("{}: {detail}", state.word()));
            match state {
                State::Rejected => log::warn!("{detail}"),
                _ => log::info!("{}: {detail}", state.word()),
            }
        }
    }

    /// Into the log and the record of events.
    fn tell(&self, level: log::Level, text: &str) {
        log::log!(level, "{text}");
        self.voice.notice(text);
    }

    fn fail(&mut self, error: &str) {
        {
            let mut shown = self.shared.lock();
            (shown.state, shown.detail, shown.last_error) = (State::Failing, error.to_owned(), error.to_owned());
        }
        if self.said != error {
            self.said = error.to_owned();
            self.voice.status(error);
            self.tell(log::Level::Error, error);
        }
    }
}

/// Answers those who confirm while there is something else to do. Nothing is known then of what they have seen.
async fn refuse(confirmations: &mut mpsc::Receiver<Confirmation>) -> Infallible {
    while let Some(Confirmation { answer, .. }) = confirmations.recv().await {
        // Who has asked may be gone.
        let _ = answer.send(Err(NOT_YET.into()));
    }
    pending().await
}

/// The answer of the routers; waits for ever where none is asked.
async fn asked(asking: &mut Option<Asking>) -> Result<String, String> {
    match asking {
        Some(asking) => asking.await,
        None => pending().await,
    }
}

/// Who confirms, or why nobody does.
async fn ask(routers: Vec<Router>, is_dhcp: bool) -> Result<String, String> {
    if routers.is_empty() {
        if is_dhcp {
            return Ok("the DHCP server".into());
        }
        sleep(PATIENCE).await;
        return Err("there is no router that could answer".to_owned());
    }
    let mut refused = Vec::new();
    for router in routers {
        match router::ask(&router, PATIENCE).await {
            Ok(_) => return Ok(format!("the router {}", router.address)),
            Err(reason) => refused.push(format!("the router {}: {reason}", router.address)),
        }
    }
    // Whoever cannot be asked fails at once; not as often as that is possible.
    sleep(PATIENCE).await;
    Err(refused.join("; "))
}

const NOT_YET: &str = "a change is just being applied or taken back; confirm it when it is there";
/// How long a ping may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Looked at again while something is under way.
const SOON: Duration = Duration::from_secs(1);
/// What could not be applied is tried again.
const AGAIN: Duration = Duration::from_secs(3);
/// What has failed is tried again; addresses are looked at.
const RETRY: Duration = Duration::from_secs(30);
/// Nothing is to be done until somebody says so.
const LATE: Duration = Duration::from_secs(3600);
/// Services that are started with the machine are there by then.
const BOOT: Duration = Duration::from_secs(30);
/// Enough to apply what stands at once.
const UNASKED: Duration = Duration::from_secs(600);
