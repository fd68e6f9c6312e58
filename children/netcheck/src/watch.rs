//! One check as it runs: asks when its monitor says so, and sees at once what becomes of its interface.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use multus_child::Voice;
use multus_net::netlink::{self, Link, Links, Router};
use multus_net::router as asked_router;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::action;
use crate::config::{Asked, CheckConfig};
use crate::logic::health::{Change, State};
use crate::logic::monitor::{Answer, Monitor, Now};
use crate::probe;

/// A check that others can look at.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) config: Arc<CheckConfig>,
    state: Arc<Mutex<Shown>>,
    voice: Voice,
}

#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) monitor: Monitor,
    /// The interface that it depends on, if that is known.
    pub(crate) interface: Option<String>,
    /// What has become of that one, while it cannot be used.
    lost: Option<String>,
}

/// Both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.0.elapsed(), unix }
    }
}

impl Watched {
    pub(crate) fn new(config: CheckConfig, first: Duration, voice: Voice) -> Self {
        let shown =
            Shown { monitor: Monitor::new(config.policy, first), interface: config.interface.clone(), lost: None };
        Self { config: Arc::new(config), state: Arc::new(Mutex::new(shown)), voice }
    }

    pub(crate) fn shown(&self) -> MutexGuard<'_, Shown> {
        // All under one lock, in one thread; nothing in there panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks for ever. `file` keeps what its action did.
    pub(crate) async fn run(self, clock: Clock, mut links: watch::Receiver<Links>, file: PathBuf) {
        let mut carrier = Carrier::default();
        let mut round: Option<Round> = None;
        let mut actions = JoinSet::new();
        loop {
            if self.look_at_carrier(&mut carrier, &links.borrow_and_update(), clock) {
                // Its answers are of another time. The next one is due at once: only its end moves that.
                round = None;
            }
            if actions.is_empty() && self.shown().monitor.remedy_is_due(clock.now()) {
                let (action, file) = (self.config.action.clone(), file.clone());
                let name = self.config.name;
                actions.spawn(async move {
                    if let Some(action) = action {
                        action::perform(name, action, &file).await;
                    }
                });
            }
            let next = clock.0 + self.shown().monitor.next();
            tokio::select! {
                () = tokio::time::sleep_until(next.into()), if round.is_none() => {
                    round = Some(Round::begin(Arc::clone(&self.config), clock));
                }
                asked = async { round.as_mut().expect("there is one").answers.as_mut().await }, if round.is_some() => {
                    let began = round.take().map_or(Duration::ZERO, |round| round.began);
                    self.judge(asked, began, clock);
                }
                changed = links.changed() => if changed.is_err() {
                    // Nobody follows the interfaces any more: the program ends.
                    return;
                },
                Some(_) = actions.join_next() => {}
                () = tokio::time::sleep(LOOK), if self.config.action.is_some() => {}
            }
        }
    }

    fn judge(&self, asked: AskedNow, began: Duration, clock: Clock) {
        let mut shown = self.shown();
        // Without any way that of before stays: when its carrier is back, there may be one.
        if self.config.interface.is_none() && asked.interface.is_some() && asked.interface != shown.interface {
            (shown.interface, shown.lost) = (asked.interface, None);
        }
        let change = shown.monitor.round(asked.answers, began, clock.now());
        if let Some(lost) = shown.lost.clone().filter(|_| !shown.monitor.is_up()) {
            shown.monitor.explain(&lost);
        }
        self.tell(change, &shown);
    }

    /// Whether there is a carrier where there was none, or the other way round.
    fn look_at_carrier(&self, carrier: &mut Carrier, links: &Links, clock: Clock) -> bool {
        let mut shown = self.shown();
        if shown.interface.is_none() {
            shown.interface = default_interface();
        }
        let Some(interface) = shown.interface.clone() else { return false };
        match carrier.look(&interface, links.get(&interface)) {
            Some(Seen::Lost) => {
                let why = if links.contains_key(&interface) { "has no carrier" } else { "is gone" };
                let (why, has_others) = (format!("{interface} {why}"), self.config.interface.is_none());
                let change = shown.monitor.carrier_lost(&why, has_others, clock.now());
                shown.lost = Some(why);
                self.tell(change, &shown);
            }
            Some(Seen::Back) => {
                shown.lost = None;
                shown.monitor.carrier_back(clock.now());
            }
            None => return false,
        }
        true
    }

    /// In a word or two: `lan is down`.
    pub(crate) fn status(&self) -> String {
        let word = match self.shown().monitor.state() {
            State::Unknown => "not checked yet",
            State::Up { .. } => "up",
            State::Down { .. } => "down",
        };
        format!("{} is {word}", self.config.name)
    }

    /// Into the log and the record of events, in one form for all: `lan is down: ...`, `lan is up`.
    fn tell(&self, change: Option<Change>, shown: &Shown) {
        let (name, detail) = (self.config.name, shown.monitor.detail());
        let (level, text) = match change {
            Some(Change::CameUp) if detail.is_empty() => (log::Level::Info, format!("{name} is up")),
            Some(Change::CameUp) => (log::Level::Info, format!("{name} is up, although: {detail}")),
            Some(Change::WentDown) => (log::Level::Warn, format!("{name} is down: {detail}")),
            None if detail.is_empty() => return,
            None => return log::debug!("{name}: {detail}"),
        };
        log::log!(level, "{text}");
        self.voice.notice(&text);
    }
}

/// What an interface was like when it was last looked at.
#[derive(Debug, Default)]
struct Carrier {
    interface: String,
    had: Option<bool>,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Lost,
    Back,
}

impl Carrier {
    /// An interface that was never there has lost nothing: that is up to the rounds.
    fn look(&mut self, interface: &str, link: Option<&Link>) -> Option<Seen> {
        if self.interface != interface {
            *self = Self { interface: interface.to_owned(), had: None };
        }
        let had = self.had;
        let has = link.is_some_and(|link| link.has_carrier);
        if link.is_some() || had.is_some() {
            self.had = Some(has);
        }
        match (had, self.had) {
            (None | Some(true), Some(false)) => Some(Seen::Lost),
            (Some(false), Some(true)) => Some(Seen::Back),
            _ => None,
        }
    }
}

/// All questions of one round.
struct Round {
    began: Duration,
    answers: Pin<Box<dyn Future<Output = AskedNow> + Send>>,
}

struct AskedNow {
    answers: Vec<Answer>,
    /// By which it was asked, where the routes say that.
    interface: Option<String>,
}

impl Round {
    fn begin(config: Arc<CheckConfig>, clock: Clock) -> Self {
        Self { began: clock.now().mono, answers: Box::pin(ask(config)) }
    }
}

/// Asks all at the same time.
async fn ask(config: Arc<CheckConfig>) -> AskedNow {
    let mut asking = JoinSet::new();
    let mut answers = Vec::new();
    let mut interface = if config.interface.is_none() { default_interface() } else { None };
    match router(&config) {
        Ok(None) => {}
        Ok(Some(router)) => {
            if !router.interface.is_empty() {
                interface = Some(router.interface.clone());
            }
            answers.push(None);
            let patience = config.timeout;
            asking.spawn(async move {
                let target = format!("gateway {}", router.address);
                (0, Answer { target, result: asked_router::ask(&router, patience).await })
            });
        }
        Err(reason) => answers.push(Some(Answer { target: "gateway".into(), result: Err(reason) })),
    }
    for target in config.targets.clone() {
        let (index, config) = (answers.len(), Arc::clone(&config));
        answers.push(None);
        asking.spawn(async move {
            let result = probe::ask(&target, config.interface.as_deref(), config.timeout).await;
            (index, Answer { target: target.to_string(), result })
        });
    }
    while let Some(answered) = asking.join_next().await {
        // A question that ended without an answer (it panicked) has none.
        if let Ok((index, answer)) = answered {
            answers[index] = Some(answer);
        }
    }
    AskedNow { answers: answers.into_iter().flatten().collect(), interface }
}

/// Which way the routes say. A router that is named needs no default route, and none is no error then.
fn default_interface() -> Option<String> {
    netlink::default_router(None).ok().flatten().map(|router| router.interface)
}

/// Which router is to be asked, if any is.
fn router(config: &CheckConfig) -> Result<Option<Router>, String> {
    let interface = config.interface.as_deref();
    match config.router {
        Asked::No => Ok(None),
        Asked::At(address) => {
            let index = |name| netlink::links().ok().and_then(|links| links.get(name).map(|link| link.index));
            let index = interface.and_then(index).unwrap_or(0);
            Ok(Some(Router { address, interface: interface.unwrap_or_default().to_owned(), index }))
        }
        Asked::OfDefaultRoute => match netlink::default_router(interface) {
            Ok(Some(router)) => Ok(Some(router)),
            Ok(None) => Err(match interface {
                Some(interface) => format!("there is no default route through {interface}"),
                None => "there is no default route".into(),
            }),
            Err(error) => Err(format!("the routes cannot be read: {error}")),
        },
    }
}

/// Whether an action is due is looked at so often.
const LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carrier_is_lost_and_comes_back_once() {
        let with = |has_carrier| Some(Link { index: 1, is_up: true, has_carrier });
        let mut carrier = Carrier::default();
        for (link, expected) in [
            (None, None),
            (with(true), None),
            (with(true), None),
            (with(false), Some(Seen::Lost)),
            (with(false), None),
            (with(true), Some(Seen::Back)),
            (None, Some(Seen::Lost)),
            (None, None),
            (with(true), Some(Seen::Back)),
        ] {
            assert_eq!(carrier.look("eth0", link.as_ref()), expected, "{link:?}");
        }
        assert_eq!(Carrier::default().look("eth0", with(false).as_ref()), Some(Seen::Lost), "pulled before the start");
        assert_eq!(carrier.look("eth1", with(true).as_ref()), None, "another one has not come back");
        assert_eq!(carrier.look("eth0", with(false).as_ref()), Some(Seen::Lost));
    }
}
