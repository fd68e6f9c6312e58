//! Tells people, or other programs, what happened: a command, a POST to a URL, or mail.
//!
//! Each target has a task and a queue of its own, so that one that is slow holds up no other. What comes too often is
//! counted and told later in one message. What could not be told is tried again for hours, also by the next process.

mod deliver;
mod ledger;
mod limit;
mod patience;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use multus_child::Interval;
use multus_contract::api::event::Event;
use multus_contract::api::time::format_rfc3339;
use multus_ipc::MonoNs;
use multus_ipc::words::{EventKind, FaultKind};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::outward::{Events, Secret, Traffic};
use crate::run::Stop;
use crate::service::queue::Next;
use crate::service::{Caller, Error, Result, Service};
use deliver::Way;
use ledger::Ledger;
use limit::{Bucket, glob};
use patience::Patience;

/// Who is told what.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Each with a name of one's own choice: [notify.targets.NAME].
    pub targets: BTreeMap<String, Target>,
}

/// One who is told: exactly one of command, url and mail.server is set.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Target {
    /// Whether it is told anything.
    pub enabled: bool,
    /// A program with its arguments; it gets the event as JSON on its standard input. No shell is involved.
    #[schemars(extend("x-edit-level" = 0))]
    pub command: Vec<String>,
    /// Gets a POST with JSON: site, text, suppressed, event. It may hold a token, so not everybody sees it.
    #[schemars(extend("x-display-level" = 10))]
    pub url: String,
    /// What stands in the header Authorization of that POST, such as "Bearer ..."; empty: none.
    pub authorization: Secret,
    /// A mail.
    pub mail: Mail,
    /// Authorities that are trusted for encrypted connections (PEM); empty: those of the system.
    pub ca: PathBuf,
    /// Which events, by kind.
    pub kinds: Vec<String>,
    /// Of faults only these kinds; empty: all.
    pub faults: Vec<String>,
    /// Of these child instances only, * and ? stand for any letters; empty: all, and the daemon itself.
    pub children: Vec<String>,
    /// The same kind of event of the same child is told again only after this time.
    pub min_interval: Interval,
    /// So many messages may be sent at once ...
    pub burst: u32,
    /// ... and after that one in this time. What is too much is counted and told later, in one message.
    pub every: Interval,
    /// How long one try may take, 100ms to 10min.
    pub timeout: Interval,
    /// Tries after the first one, at most 1000; the waits between them grow from 1 s to 5 min.
    pub retries: u32,
    /// What happened longer ago than this is not tried again, 1s to 30d.
    pub give_up_after: Interval,
}

/// How mail is sent.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mail {
    /// Name of the server that takes it; empty: no mail.
    pub server: String,
    /// Its port; 0: 587 with starttls, 465 with tls, 25 with none.
    pub port: u16,
    /// How the connection is encrypted.
    pub security: Security,
    /// Empty: nobody logs in.
    pub user: String,
    /// The password of that user.
    pub password: Secret,
    /// A file with that password in its first line.
    #[schemars(extend("x-edit-level" = 0))]
    pub password_file: PathBuf,
    /// The sender, such as "Pump house <pump@example.com>".
    pub from: String,
    /// Those who get it.
    pub to: Vec<String>,
}

/// How a connection for mail is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// After the first words; a server that does not is refused.
    #[default]
    Starttls,
    /// From the beginning.
    Tls,
    /// Not at all: everybody on the way can read it.
    None,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            enabled: true,
            command: Vec::new(),
            url: String::new(),
            authorization: Secret::default(),
            mail: Mail::default(),
            ca: PathBuf::new(),
            kinds: ["fault", "degraded", "too-hot", "helper-stuck"].map(str::to_owned).to_vec(),
            faults: Vec::new(),
            children: Vec::new(),
            min_interval: Duration::ZERO.into(),
            burst: 10,
            every: Duration::from_secs(60).into(),
            timeout: Duration::from_secs(20).into(),
            retries: 1000,
            give_up_after: Duration::from_secs(86_400).into(),
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> std::result::Result<(), multus_child::Error> {
        for (name, target) in &self.targets {
            target.check().map_err(|error| format!("notify.targets.{name}.{error}"))?;
        }
        Ok(())
    }
}

impl Target {
    fn check(&self) -> std::result::Result<(), String> {
        let unknown = |word: &&String| EventKind::from_word(word).is_none();
        if let Some(word) = self.kinds.iter().find(unknown) {
            return Err(format!("kinds: {word:?} is no kind of event"));
        }
        if let Some(word) = self.faults.iter().find(|word| FaultKind::from_word(word).is_none()) {
            return Err(format!("faults: {word:?} is no kind of fault"));
        }
        if self.burst == 0 || self.every.duration().is_zero() {
            return Err("burst: at least 1 message, and every: more than 0s, are needed".into());
        }
        if !(100..=600_000).contains(&self.timeout.duration().as_millis()) {
            return Err("timeout: expected 100ms to 10min".into());
        }
        if self.retries > 1000 {
            return Err("retries: at most 1000 are possible".into());
        }
        if !(1..=30 * 86_400).contains(&self.give_up_after.duration().as_secs()) {
            return Err("give_up_after: expected 1s to 30d".into());
        }
        Way::of(self).map(drop)
    }

    fn wants(&self, event: &Event) -> bool {
        let is = |words: &[String], word: Option<&str>| words.iter().any(|w| Some(w.as_str()) == word);
        self.enabled
            && is(&self.kinds, Some(&event.kind))
            && (self.faults.is_empty() || event.fault.is_none() || is(&self.faults, event.fault.as_deref()))
            && (self.children.is_empty()
                || event.child.as_ref().is_some_and(|name| self.children.iter().any(|pattern| glob(pattern, name))))
    }
}

/// Something to tell.
#[derive(Clone, Debug, Default)]
struct Message {
    site: String,
    event: Event,
    /// Events that were not told before it.
    suppressed: u64,
}

impl Message {
    /// In one line.
    fn subject(&self) -> String {
        let event = &self.event;
        let who = event.child.as_deref().unwrap_or("multusd");
        let what = event.fault.as_deref().unwrap_or(&event.kind);
        format!("[{}] {who}: {what}", self.site)
    }

    fn text(&self) -> String {
        let more = match self.suppressed {
            0 => String::new(),
            1 => "\n1 more was suppressed before it".to_owned(),
            n => format!("\n{n} more were suppressed before it"),
        };
        format!("{}: {}\n{}{more}", self.subject(), self.event.detail, self.event.time)
    }
}

/// A test, and whoever waits for the outcome.
struct Test {
    message: Message,
    answer: oneshot::Sender<std::result::Result<(), String>>,
}

/// What leads to one target.
struct Line {
    messages: mpsc::Sender<Message>,
    /// Apart: a test does not wait for messages that fail again and again.
    tests: mpsc::Sender<Test>,
}

/// Leads to the targets. Cheap to clone.
#[derive(Clone)]
pub struct Notifier {
    targets: Arc<BTreeMap<String, Line>>,
    counters: Arc<Counters>,
    site: String,
}

#[derive(Default)]
struct Counters {
    down: AtomicBool,
    sent: AtomicU64,
    lost: AtomicU64,
    failures: AtomicU64,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").field("targets", &self.targets.keys()).finish_non_exhaustive()
    }
}

impl Notifier {
    /// The names of the targets.
    pub fn targets(&self) -> Vec<String> {
        self.targets.keys().cloned().collect()
    }

    /// Tells a target something harmless, past all limits, and waits for the outcome of one try. Blocks.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Busy`], [`Error::Refused`] with the reason.
    pub fn test(&self, target: &str) -> Result<String> {
        let unknown = || Error::NotFound(format!("there is no target {target:?} in notify.targets"));
        let line = self.targets.get(target).ok_or_else(unknown)?;
        let event = Event {
            time: format_rfc3339(unix_ns()),
            mono_ns: MonoNs::now().0,
            kind: "test".into(),
            detail: "This is a test: notifications come through.".into(),
            ..Event::default()
        };
        let (answer, outcome) = oneshot::channel();
        let test = Test { message: Message { site: self.site.clone(), event, suppressed: 0 }, answer };
        line.tests.try_send(test).map_err(|_| Error::Busy(format!("{target} has too much to do: try again")))?;
        match outcome.blocking_recv() {
            Ok(Ok(())) => Ok(format!("{target} took it")),
            Ok(Err(reason)) => Err(Error::Refused(format!("{target}: {reason}"))),
            Err(_) => Err(Error::Unavailable("the program is ending".into())),
        }
    }

    /// What was sent to all targets together.
    pub fn traffic(&self) -> Traffic {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            up: !self.counters.down.load(Ordering::Relaxed),
            sent: of(&self.counters.sent),
            lost: of(&self.counters.lost),
            failures: of(&self.counters.failures),
            queued: self
                .targets
                .values()
                .map(|line| (line.messages.max_capacity() - line.messages.capacity()) as u64)
                .sum(),
        }
    }
}

/// Tells what happens until the program ends.
///
/// # Errors
/// None that was not found by the check of the configuration.
pub async fn serve(config: Config, service: Service, stop: Stop) -> std::result::Result<(), multus_child::Error> {
    if config.targets.is_empty() {
        return Ok(());
    }
    let site = site(&service).await;
    // Before anybody is told that this runs: what happens from now on is new.
    let ledger = Arc::new(Ledger::load(&service.dirs().state.join("notified"), config.targets.keys()));
    let counters = Arc::new(Counters::default());
    let (mut senders, mut workers) = (BTreeMap::new(), JoinSet::new());
    for (name, target) in &config.targets {
        let ((messages, queue), (tests, asked)) = (mpsc::channel(QUEUE), mpsc::channel(MOST_TESTS));
        senders.insert(name.clone(), Line { messages, tests });
        let worker = Worker::new(name, target, &site, Arc::clone(&counters), Arc::clone(&ledger), asked)?;
        workers.spawn(worker.run(queue));
    }
    let notifier = Notifier { targets: Arc::new(senders), counters, site };
    service.set_notifier(notifier.clone());
    let Ok(receiver) = service.follow_events(&Caller::own(), Some(0)) else { return Ok(()) };
    let events = Events::new(receiver);
    let mut told: BTreeMap<(String, Option<String>, String, Option<String>), Instant> = BTreeMap::new();
    let mut is_first = true;
    loop {
        let event = tokio::select! {
            () = stop.requested() => return Ok(()),
            next = events.next() => match next {
                Next::Item(event) => event,
                Next::Closed => return Ok(()),
                Next::Empty => continue,
                Next::Gap(lost) => {
                    // Before the first one is what the daemon does not keep any more; mostly it was told long ago.
                    if !is_first {
                        notifier.counters.lost.fetch_add(lost, Ordering::Relaxed);
                        log::warn!("notify: {lost} events were lost, of which some might have been to be told");
                    }
                    continue;
                }
            },
        };
        is_first = false;
        for (name, target) in &config.targets {
            if !ledger.is_new(name, event.mono_ns) || !target.wants(&event) {
                continue;
            }
            let pause = target.min_interval.duration();
            let key = (name.clone(), event.child.clone(), event.kind.clone(), event.fault.clone());
            if told.get(&key).is_some_and(|told| told.elapsed() < pause) {
                ledger.joins(name, event.mono_ns);
                continue;
            }
            if !pause.is_zero() {
                told.insert(key, Instant::now());
            }
            let message = Message { site: notifier.site.clone(), event: (*event).clone(), suppressed: 0 };
            ledger.open(name, event.mono_ns);
            let full = notifier.targets.get(name).is_some_and(|line| line.messages.try_send(message).is_err());
            if full {
                ledger.joins(name, event.mono_ns);
                notifier.counters.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// What the plant is called in messages: as multusd says, else the name of the machine.
async fn site(service: &Service) -> String {
    let own = service.clone();
    let snapshot = crate::blocking::call(move || own.status(&Caller::own())).await;
    let named = snapshot.ok().and_then(|snapshot| snapshot.status.daemon.site.clone());
    named.unwrap_or_else(|| {
        nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    })
}

/// Serves one target.
struct Worker {
    name: String,
    site: String,
    way: Way,
    timeout: Duration,
    patience: Patience,
    bucket: Bucket,
    suppressed: u64,
    /// When the last of those happened, ns of `CLOCK_MONOTONIC`.
    suppressed_until: u64,
    counters: Arc<Counters>,
    ledger: Arc<Ledger>,
    told: bool,
    tests: mpsc::Receiver<Test>,
}

impl Worker {
    fn new(
        name: &str,
        target: &Target,
        site: &str,
        counters: Arc<Counters>,
        ledger: Arc<Ledger>,
        tests: mpsc::Receiver<Test>,
    ) -> std::result::Result<Self, String> {
        Ok(Self {
            name: name.to_owned(),
            site: site.to_owned(),
            way: Way::of(target)?,
            timeout: target.timeout.duration(),
            patience: Patience::new(target.retries, target.give_up_after.duration()),
            bucket: Bucket::new(target.burst, target.every.duration(), Instant::now()),
            suppressed: 0,
            suppressed_until: 0,
            counters,
            ledger,
            told: false,
            tests,
        })
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        loop {
            // Something was held back: it is told of as soon as a message is allowed again.
            let due = self.bucket.next(Instant::now());
            let message = tokio::select! {
                message = queue.recv() => message,
                Some(test) = self.tests.recv() => {
                    self.try_out(test).await;
                    continue;
                }
                () = sleep_until(due), if self.suppressed > 0 => {
                    self.summary().await;
                    continue;
                }
            };
            match message {
                None => return,
                Some(message) if self.bucket.take(Instant::now()) => {
                    let suppressed = std::mem::take(&mut self.suppressed);
                    let happened = message.event.mono_ns;
                    self.deliver(Message { suppressed, ..message }).await;
                    self.ledger.done(&self.name, happened);
                }
                Some(message) => self.suppress(message.event.mono_ns),
            }
        }
    }

    fn suppress(&mut self, happened: u64) {
        // The first of them stays open until all are told of.
        if self.suppressed > 0 {
            self.ledger.joins(&self.name, happened);
        }
        self.suppressed += 1;
        self.suppressed_until = happened;
    }

    async fn try_out(&mut self, Test { message, answer }: Test) {
        let outcome = self.attempt(&message).await;
        // Whoever asked may have gone.
        let _ = answer.send(outcome);
    }

    async fn summary(&mut self) {
        if !self.bucket.take(Instant::now()) {
            return;
        }
        let count = std::mem::take(&mut self.suppressed);
        let event = Event {
            time: format_rfc3339(unix_ns()),
            mono_ns: MonoNs::now().0,
            kind: "suppressed".into(),
            detail: if count == 1 { "1 more was suppressed".into() } else { format!("{count} more were suppressed") },
            ..Event::default()
        };
        self.deliver(Message { site: self.site.clone(), event, suppressed: 0 }).await;
        self.ledger.done(&self.name, self.suppressed_until);
    }

    /// Until it arrives, or the tries are used up.
    async fn deliver(&mut self, message: Message) {
        let mut patience = self.patience.clone();
        while let Err(reason) = self.attempt(&message).await {
            if !std::mem::replace(&mut self.told, true) {
                log::warn!("notify: {}: {reason}", self.name);
            }
            let age = Duration::from_nanos(MonoNs::now().0.saturating_sub(message.event.mono_ns));
            let Some(wait) = patience.failed(age) else {
                log::warn!("notify: {}: given up: {}", self.name, message.subject());
                self.counters.lost.fetch_add(1, Ordering::Relaxed);
                return;
            };
            let next = Instant::now() + wait;
            loop {
                tokio::select! {
                    () = sleep_until(next) => break,
                    Some(test) = self.tests.recv() => self.try_out(test).await,
                }
            }
        }
    }

    async fn attempt(&mut self, message: &Message) -> std::result::Result<(), String> {
        let done = timeout(self.timeout, self.way.deliver(message)).await;
        let done = done.unwrap_or_else(|_| Err(format!("no answer within {}", Interval::from(self.timeout))));
        self.counters.down.store(done.is_err(), Ordering::Relaxed);
        match &done {
            Ok(()) => {
                self.counters.sent.fetch_add(1, Ordering::Relaxed);
                if std::mem::take(&mut self.told) {
                    log::info!("notify: {} works again", self.name);
                }
            }
            Err(_) => {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
        done
    }
}

fn unix_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// Messages that wait for one target.
const QUEUE: usize = 100;
/// Tests of one target that wait.
const MOST_TESTS: usize = 4;
