//! States and events for an MQTT broker (3.1.1), for those who already have one. Off by default.
//!
//! ```text
//! multus/<site>/availability            online | offline        retained; offline is the last will
//! multus/<site>/status                  the daemon, JSON        retained, at intervals
//! multus/<site>/children/<name>/state   one child, JSON         retained, when it changes
//! multus/<site>/io/<name>               one line, JSON          retained, when it changes, at most once in `io_interval`
//! multus/<site>/events                  Event JSON              as they happen
//! ```
//! What is retained and no longer there is taken back, also what the process before this one said.

mod kept;
mod link;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use multus_child::Interval;
use multus_contract::api::io::IoLine;
use multus_contract::api::status::{ChildStatus, Status};
use multus_ipc::MonoNs;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};

use crate::outward::{Events, Secret, Traffic};
use crate::run::Stop;
use crate::service::queue::Next;
use crate::service::{Caller, LineNews, Service};
use kept::{Group, Kept};
use link::Link;

/// Messages for an MQTT broker.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether anything is sent.
    pub enabled: bool,
    /// Name or address of the broker.
    pub host: String,
    /// Its port; 0: 1883, or 8883 with TLS.
    pub port: u16,
    /// Whether the connection is encrypted, and the broker must show a certificate that is good for its name.
    pub tls: bool,
    /// Authorities that are trusted for it (PEM); empty: those of the system.
    pub ca: PathBuf,
    /// Must be unique at the broker; empty: multus- and the name of the machine.
    pub client_id: String,
    /// Empty: nobody logs in.
    pub user: String,
    /// The password of that user.
    pub password: Secret,
    /// A file with that password in its first line.
    #[schemars(extend("x-edit-level" = 0))]
    pub password_file: PathBuf,
    /// Second part of all topics; empty: the name of the machine.
    pub site: String,
    /// From one status of the daemon to the next, 1s to 1d.
    pub status_interval: Interval,
    /// From one message of an input or output to the next of the same, 100ms to 1d; 0s: none are sent.
    pub io_interval: Interval,
    /// Whether Home Assistant finds the children, inputs and outputs by itself.
    pub discovery: bool,
    /// First part of the topics where it looks.
    pub discovery_prefix: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            host: "localhost".into(),
            port: 0,
            tls: false,
            ca: PathBuf::new(),
            client_id: String::new(),
            user: String::new(),
            password: Secret::default(),
            password_file: PathBuf::new(),
            site: String::new(),
            status_interval: Duration::from_secs(60).into(),
            io_interval: Duration::from_secs(1).into(),
            discovery: false,
            discovery_prefix: "homeassistant".into(),
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), multus_child::Error> {
        if self.enabled && self.host.is_empty() {
            return Err("mqtt.host: a name or an address is needed".into());
        }
        if !(1..=86_400).contains(&self.status_interval.duration().as_secs()) {
            return Err("mqtt.status_interval: expected 1s to 1d".into());
        }
        let interval = self.io_interval.duration();
        if !interval.is_zero() && !(Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(&interval) {
            return Err("mqtt.io_interval: expected 0s, or 100ms to 1d".into());
        }
        if self.discovery && self.discovery_prefix.is_empty() {
            return Err("mqtt.discovery_prefix: it may not be empty".into());
        }
        Ok(())
    }
}

/// What was sent. Shared by those who send and those who show it.
#[derive(Debug, Default)]
pub struct Counters {
    up: AtomicBool,
    sent: AtomicU64,
    lost: AtomicU64,
    failures: AtomicU64,
    queued: AtomicU64,
}

impl Counters {
    /// As of now.
    pub fn traffic(&self) -> Traffic {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            up: self.up.load(Ordering::Relaxed),
            sent: of(&self.sent),
            lost: of(&self.lost),
            failures: of(&self.failures),
            queued: of(&self.queued),
        }
    }
}

/// Sends until the program ends. A broker that is not there is tried again and again.
///
/// # Errors
/// None; a part of the program has this form.
pub async fn serve(config: Config, service: Service, stop: Stop) -> Result<(), multus_child::Error> {
    if !config.enabled {
        return Ok(());
    }
    let Ok(receiver) = service.follow_events(&Caller::own(), None) else { return Ok(()) };
    let counters = Arc::new(Counters::default());
    service.set_mqtt(Arc::clone(&counters));
    let topics = Topics::new(&config);
    let link = Link::start(&config, &topics, service.dirs(), Arc::clone(&counters));
    let kept = Kept::load(&service.dirs().state.join("mqtt-kept"));
    let mut sender = Sender {
        config,
        kept,
        topics,
        link,
        counters,
        queue: VecDeque::new(),
        unacknowledged: VecDeque::new(),
        states: BTreeMap::new(),
        lines: BTreeMap::new(),
    };
    sender.work(&service, &Events::new(receiver), &stop).await;
    sender.end().await;
    Ok(())
}

/// The names of the topics.
#[derive(Clone, Debug)]
struct Topics {
    site: String,
    base: String,
}

impl Topics {
    fn new(config: &Config) -> Self {
        let site = if config.site.is_empty() { host() } else { config.site.clone() };
        // Blanks, slashes and wildcards have a meaning, or none that is good, in topics.
        let site: String =
            site.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
        Self { base: format!("multus/{site}"), site }
    }

    fn of(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }
}

/// The name of this machine.
fn host() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Something to send.
#[derive(Clone, Debug)]
struct Message {
    topic: String,
    payload: String,
    retain: bool,
}

struct Sender {
    config: Config,
    kept: Kept,
    topics: Topics,
    link: Link,
    counters: Arc<Counters>,
    queue: VecDeque<Message>,
    /// Handed over, not yet acknowledged; sent again over the next connection.
    unacknowledged: VecDeque<Message>,
    /// What was last said of each child.
    states: BTreeMap<String, String>,
    /// And of each line.
    lines: BTreeMap<String, String>,
}

impl Sender {
    async fn work(&mut self, service: &Service, events: &Events, stop: &Stop) {
        let started = MonoNs::now().0;
        let mut connection = 0;
        let mut status_at = Instant::now();
        // Set when something changed: the states are asked for a little later, once for all that comes together.
        let mut states_at: Option<Instant> = None;
        // The same for lines, with a rest after each time; without an image, or an interval, there are none.
        let interval = self.config.io_interval.duration();
        let lines = Some(interval).filter(|interval| !interval.is_zero());
        let lines = lines.and_then(|_| service.follow_lines(&Caller::own()).ok()).map(Events::new);
        let (mut lines_at, mut rest_until): (Option<Instant>, _) = (None, Instant::now());
        if interval.is_zero() {
            self.keep(Group::Lines, &BTreeSet::new());
        }
        loop {
            self.pump();
            let next = [states_at, lines_at].into_iter().flatten().fold(status_at, Instant::min);
            tokio::select! {
                () = stop.requested() => return,
                () = self.link.changed() => {
                    if connection != self.link.connection() {
                        // The broker may have forgotten everything.
                        connection = self.link.connection();
                        let mut first = std::mem::take(&mut self.unacknowledged);
                        first.append(&mut self.queue);
                        self.queue = first;
                        self.states.clear();
                        self.lines.clear();
                        self.send("availability", "online".to_owned(), true);
                        lines_at = lines.is_some().then(Instant::now);
                        status_at = Instant::now();
                    }
                }
                event = events.next() => match event {
                    Next::Item(event) => {
                        states_at.get_or_insert_with(|| Instant::now() + GATHER);
                        // What happened before this program started was sent by the one before it, if at all.
                        if event.mono_ns >= started && let Ok(text) = serde_json::to_string(&*event) {
                            self.send("events", text, false);
                        }
                    }
                    Next::Gap(lost) => { self.counters.lost.fetch_add(lost, Ordering::Relaxed); }
                    Next::Empty => {}
                    Next::Closed => return,
                },
                () = line_changed(lines.as_ref()) => {
                    lines_at.get_or_insert_with(|| rest_until.max(Instant::now() + LINES_GATHER));
                }
                () = sleep_until(next) => {
                    if lines_at.is_some_and(|at| Instant::now() >= at) {
                        lines_at = None;
                        rest_until = Instant::now() + interval;
                        self.tell_lines(service.seen_lines());
                    }
                    if Instant::now() < states_at.map_or(status_at, |at| at.min(status_at)) {
                        continue;
                    }
                    let whole = Instant::now() >= status_at;
                    if whole {
                        status_at = Instant::now() + self.config.status_interval.duration();
                    }
                    states_at = None;
                    let own = service.clone();
                    let snapshot = crate::blocking::call(move || own.status(&Caller::own())).await;
                    if let Ok(snapshot) = snapshot {
                        self.tell(&snapshot.status, whole);
                    }
                }
            }
        }
    }

    /// Says what is new in the states of the children; and, if `whole`, all of the daemon.
    fn tell(&mut self, status: &Status, whole: bool) {
        if whole && let Ok(text) = serde_json::to_string(&status.daemon) {
            self.send("status", text, true);
        }
        let now: BTreeMap<String, String> =
            status.children.iter().map(|child| (child.name.clone(), state(child))).collect();
        let mut said: BTreeSet<String> = ["availability", "status"].map(|name| self.topics.of(name)).into();
        for name in now.keys() {
            said.insert(self.topics.of(&format!("children/{name}/state")));
            said.extend(self.config.discovery.then(|| self.description_of(name)));
        }
        self.keep(Group::Children, &said);
        for (name, text) in &now {
            if self.states.get(name) != Some(text) {
                self.send(&format!("children/{name}/state"), text.clone(), true);
            }
            if self.config.discovery && !self.states.contains_key(name) {
                self.discover(name);
            }
        }
        self.states = now;
    }

    /// Says what is new in the lines.
    fn tell_lines(&mut self, (fresh, all): (bool, Vec<IoLine>)) {
        if fresh {
            let topics = all.iter().flat_map(|line| {
                let description = self.config.discovery.then(|| self.description_of_line(line));
                [Some(self.topics.of(&format!("io/{}", line.name))), description].into_iter().flatten()
            });
            let said = topics.collect();
            self.keep(Group::Lines, &said);
        }
        let mut now = BTreeMap::new();
        for line in all {
            // Without its time: told of another moment that may differ by a microsecond.
            let seen = line_text(&IoLine { changed: None, ..line.clone() }, fresh);
            if self.lines.get(&line.name) != Some(&seen) {
                self.send(&format!("io/{}", line.name), line_text(&line, fresh), true);
            }
            if self.config.discovery && !self.lines.contains_key(&line.name) {
                self.discover_line(&line);
            }
            now.insert(line.name, seen);
        }
        self.lines = now;
    }

    /// Of a group this is said now; the broker forgets the rest.
    fn keep(&mut self, group: Group, said: &BTreeSet<String>) {
        for topic in self.kept.now(group, said) {
            // An empty message makes the broker forget the one it keeps.
            self.queue(Message { topic, payload: String::new(), retain: true });
        }
    }

    /// Where Home Assistant finds what a child is.
    fn description_of(&self, name: &str) -> String {
        format!("{}/binary_sensor/multus_{}_{name}/config", self.config.discovery_prefix, self.topics.site)
    }

    /// And a line.
    fn description_of_line(&self, line: &IoLine) -> String {
        let (prefix, site) = (&self.config.discovery_prefix, &self.topics.site);
        format!("{prefix}/{}/multus_{site}_io_{}/config", component(line), line.name)
    }

    fn discover_line(&mut self, line: &IoLine) {
        let (site, name) = (&self.topics.site, &line.name);
        let id = format!("multus_{site}_io_{name}");
        let mut description = json!({
            "name": name,
            "unique_id": id,
            "state_topic": self.topics.of(&format!("io/{name}")),
            "json_attributes_topic": self.topics.of(&format!("io/{name}")),
            "availability_topic": self.topics.of("availability"),
            "device": { "identifiers": [format!("multus_{site}")], "name": site, "model": "multusd" },
        });
        if component(line) == "sensor" {
            description["value_template"] = "{{ value_json.value }}".into();
            description["unit_of_measurement"] = line.unit.as_str().into();
        } else {
            description["value_template"] = "{{ 'ON' if value_json.value == 1 else 'OFF' }}".into();
        }
        let topic = self.description_of_line(line);
        self.queue(Message { topic, payload: description.to_string(), retain: true });
    }

    fn discover(&mut self, name: &str) {
        let site = &self.topics.site;
        let id = format!("multus_{site}_{name}");
        let description = json!({
            "name": name,
            "unique_id": id,
            "device_class": "running",
            "state_topic": self.topics.of(&format!("children/{name}/state")),
            "value_template": "{{ 'ON' if value_json.state == 'running' else 'OFF' }}",
            "json_attributes_topic": self.topics.of(&format!("children/{name}/state")),
            "availability_topic": self.topics.of("availability"),
            "device": { "identifiers": [format!("multus_{site}")], "name": site, "model": "multusd" },
        });
        let topic = self.description_of(name);
        self.queue(Message { topic, payload: description.to_string(), retain: true });
    }

    fn send(&mut self, name: &str, payload: String, retain: bool) {
        let topic = self.topics.of(name);
        self.queue(Message { topic, payload, retain });
    }

    fn queue(&mut self, message: Message) {
        // Of what is kept by the broker only the last counts.
        if message.retain {
            self.queue.retain(|waiting| waiting.topic != message.topic);
        }
        if self.queue.len() >= QUEUE {
            self.queue.pop_front();
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.queue.push_back(message);
        self.counters.queued.store(self.queue.len() as u64, Ordering::Relaxed);
    }

    /// Hands over what the connection takes.
    fn pump(&mut self) {
        for _ in 0..self.link.take_acknowledged() {
            if let Some(Message { topic, retain: true, .. }) =
                self.unacknowledged.pop_front().filter(|message| message.payload.is_empty())
            {
                self.kept.forgotten(&topic);
            }
        }
        while self.link.is_up()
            && let Some(message) = self.queue.front()
            && self.link.send(message)
        {
            self.unacknowledged.extend(self.queue.pop_front());
        }
        self.counters.queued.store(self.queue.len() as u64, Ordering::Relaxed);
    }

    async fn end(mut self) {
        if self.link.is_up() {
            self.send("availability", "offline".to_owned(), true);
            self.pump();
            let _ = timeout(GOOD_ORDER, self.link.close()).await;
        }
    }
}

/// Waits until a line has changed; for ever without lines.
async fn line_changed(lines: Option<&Events<LineNews>>) {
    match lines {
        Some(lines) if !matches!(lines.next().await, Next::Closed) => {}
        _ => std::future::pending().await,
    }
}

/// As what Home Assistant takes a line.
fn component(line: &IoLine) -> &'static str {
    if line.kind.starts_with("digital") { "binary_sensor" } else { "sensor" }
}

/// What is said of a line: only what does not change with every scan.
fn line_text(line: &IoLine, fresh: bool) -> String {
    json!({
        "value": line.value,
        "unit": line.unit,
        "kind": line.kind,
        "good": line.good && fresh,
        "source": line.source,
        "changed": line.changed,
        "changes": line.changes,
    })
    .to_string()
}

/// What is said of a child: only what does not change all the time.
fn state(child: &ChildStatus) -> String {
    json!({
        "state": child.state,
        "instance": child.instance,
        "pid": child.pid,
        "since": child.since,
        "restarts": child.restarts,
        "enabled": child.enabled,
        "degraded": child.degraded,
        "safe_state": child.safe_state,
        "blocked_by": child.blocked_by,
        "last_fault": child.last_fault,
    })
    .to_string()
}

/// Messages that wait for the broker.
const QUEUE: usize = 1000;
const GATHER: Duration = Duration::from_millis(200);
/// Lines that change together are told together.
const LINES_GATHER: Duration = Duration::from_millis(50);
const GOOD_ORDER: Duration = Duration::from_millis(700);
