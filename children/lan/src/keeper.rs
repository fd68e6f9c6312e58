//! Does what the journal says, and listens meanwhile: to interfaces, to a new configuration, to those who confirm, to the DHCP
//! client.

use std::future::{Future, pending};
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use multus_child::{Interval, Voice};
use multus_net::address::{addresses, default_routes, forget_neighbour, switch_on};
use multus_net::netlink::{Link, Links, Router};
use multus_net::router;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use crate::backend::Backends;
use crate::clock;
use crate::config::Trial;
use crate::logic::cidr::Cidr;
use crate::logic::journal::{Journal, Now, Pending, Reason, Step};
use crate::logic::plan::{Kind, Plan};
use crate::nat::Table;
use crate::shown::{Shared, State};
use crate::store::Store;

/// What is wanted, and how a change is tried.
pub(crate) type Wanted = (Option<Plan>, Trial);

/// Somebody confirms; the answer is why that cannot be, if it cannot.
pub(crate) type Confirmation = oneshot::Sender<Result<(), String>>;

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
    confirmations: mpsc::Receiver<Confirmation>,
    began: Instant,
    /// The plan on trial has been applied by this process.
    is_applied: bool,
    /// For this plan and interface everything was seen to.
    ensured: Option<(String, u32)>,
    asking: Option<Asking>,
    /// Why the last question to the router was in vain.
    unanswered: String,
    told: String,
}

impl Keeper {
    pub(crate) fn new(
        store: Store,
        journal: Journal,
        shared: Shared,
        voice: Voice,
        links: watch::Receiver<Links>,
        wanted: watch::Receiver<Wanted>,
        confirmations: mpsc::Receiver<Confirmation>,
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
            confirmations,
            began: Instant::now(),
            is_applied: false,
            ensured: None,
            asking: None,
            unanswered: String::new(),
            told: String::new(),
        }
    }

    /// Works for ever; ends when nobody configures it any more.
    pub(crate) async fn run(mut self) {
        loop {
            let pause = self.turn().await;
            // Whatever is ready again at once, the beat and the server have their turn.
            tokio::task::yield_now().await;
            tokio::select! {
                () = sleep(pause) => {}
                changed = self.links.changed() => if changed.is_err() { return },
                changed = self.wanted.changed() => if changed.is_err() { return },
                Some(answer) = self.confirmations.recv() => {
                    let confirmed = self.confirm("somebody");
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
        let mark = (plan.mark(), link.index);
        if self.ensured.as_ref() != Some(&mark) {
            self.show(State::Applying, &format!("{} sees to {}", kind.word(), plan.interface));
            if let Err(error) = self.backends.apply(kind, &plan, link.index).await {
                self.fail(&error);
                return RETRY;
            }
            self.ensured = Some(mark);
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
        // Of a LAN by DHCP the network may change, onto which others are mapped.
        if plan.nat.is_on() { RETRY } else { LATE }
    }

    /// Something new: when it can be tried, it is written down first.
    async fn begin(&mut self, plan: Plan, trial: Trial, now: &Now) -> Option<Duration> {
        let Some(link) = self.link(&plan.interface) else {
            self.show(State::Waiting, &format!("there is no interface {}", plan.interface));
            return Some(LATE);
        };
        if !trial.within.is_zero() && !link.has_carrier {
            if !link.is_up
                && let Err(error) = switch_on(link.index)
            {
                self.fail(&format!("{} cannot be switched on: {error}", plan.interface));
                return Some(RETRY);
            }
            self.show(State::Waiting, &format!("{} has no carrier; the change is tried when it has", plan.interface));
            return Some(LATE);
        }
        let kind = match plan.backend {
            Some(kind) => kind,
            None => {
                if self.began.elapsed() < BOOT
                    && let Some(unit) = Backends::starting().await
                {
                    self.show(State::Waiting, &format!("{unit} is being started"));
                    return Some(SOON);
                }
                Backends::find(&plan.interface, link.index).await
            }
        };
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
        self.is_applied = false;
        self.ensured = None;
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
        }
        let Some(link) = self.link(&plan.interface) else {
            self.show(State::Pending, &format!("{} is gone", plan.interface));
            return Some(left);
        };
        if !self.is_applied {
            self.show(State::Applying, &format!("{} sets up {}", backend.word(), plan.interface));
            if let Err(error) = self.apply(backend, &plan, link).await {
                return match clock::now() {
                    Ok(now) => self.take_back(Reason::Failed(error), &now).await,
                    Err(_) => Some(SOON),
                };
            }
            self.is_applied = true;
            for router in plan.routers() {
                // An answer from before the change says nothing.
                let _ = forget_neighbour(link.index, router);
            }
            self.unanswered.clear();
            return None;
        }
        if trial.within.is_zero() {
            return self.confirm("nobody: confirm_within is 0s").err().map(|error| {
                self.fail(&error);
                RETRY
            });
        }
        let mut detail = "somebody must confirm: multus-lan --confirm".to_owned();
        if trial.gateway_confirms {
            match self.in_place(backend, &plan, link).await {
                Ok(routers) if self.asking.is_none() => self.asking = Some(Box::pin(ask(routers, plan.dhcp))),
                Ok(_) => {}
                Err(reason) => self.unanswered = reason,
            }
            if !self.unanswered.is_empty() {
                detail = format!("{}; or {detail}", self.unanswered);
            }
        }
        self.show(State::Pending, &detail);
        Some(left.min(SOON))
    }

    async fn apply(&mut self, backend: Kind, plan: &Plan, link: Link) -> Result<(), String> {
        if let Some(former) = self.journal.confirmed.clone()
            && former.backend != backend
            && let Some(original) = self.journal.original.get(former.backend.word()).cloned()
        {
            let now = clock::now()?;
            self.backends.undo(&original, &former.plan, Some(link.index), &now).await?;
        }
        self.backends.apply(backend, plan, link.index).await?;
        match self.translate(plan, link.index).await {
            // The network of the LAN comes later.
            Err(_) if plan.dhcp => Ok(()),
            done => done,
        }
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
        if plan.dhcp && !found.iter().any(|found| found.is_global && found.address.is_ipv4()) {
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

    fn confirm(&mut self, by: &str) -> Result<(), String> {
        let now = clock::now()?;
        let mut journal = self.journal.clone();
        if !journal.confirm(by, &now) {
            return Err("nothing waits for a confirmation".into());
        }
        self.store.save(&journal)?;
        self.journal = journal;
        self.asking = None;
        self.shared.lock().deadline = None;
        // What stands has just been applied.
        let confirmed = self.journal.confirmed.as_ref();
        let mark = confirmed.map(|confirmed| (confirmed.plan.mark(), confirmed.plan.interface.clone()));
        self.ensured = mark.and_then(|(mark, interface)| self.link(&interface).map(|link| (mark, link.index)));
        if !self.is_applied {
            self.ensured = None;
        }
        self.tell(log::Level::Info, &format!("the change stands: confirmed by {by}"));
        Ok(())
    }

    async fn take_back(&mut self, reason: Reason, now: &Now) -> Option<Duration> {
        let Pending { plan, before, .. } = self.journal.pending.clone()?;
        self.asking = None;
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
        self.journal = journal;
        (self.is_applied, self.ensured) = (false, None);
        {
            let mut shown = self.shared.lock();
            shown.deadline = None;
            if reason != Reason::Superseded {
                shown.last_error = reason.to_string();
            }
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
        if self.told != detail {
            self.told = detail.to_owned();
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
        if self.told != error {
            self.told = error.to_owned();
            self.voice.status(error);
            self.tell(log::Level::Error, error);
        }
    }
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

/// How long a ping may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Looked at again while something is under way.
const SOON: Duration = Duration::from_secs(1);
/// What has failed is tried again; addresses are looked at.
const RETRY: Duration = Duration::from_secs(30);
/// Nothing is to be done until somebody says so.
const LATE: Duration = Duration::from_secs(3600);
/// Services that are started with the machine are there by then.
const BOOT: Duration = Duration::from_secs(30);
/// Enough to apply what stands at once.
const UNASKED: Duration = Duration::from_secs(600);
