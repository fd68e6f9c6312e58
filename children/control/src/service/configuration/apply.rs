//! What becomes of a saved change: it waits, is applied, and the child is watched until it is well again.
//!
//! ```text
//! save -> waiting --settle time, or "apply now"--> applying --all instances run for a while--> healthy
//!            |                                        |  `----a fault, or not ready in time--> unhealthy
//!            `---------------- revert ----------------+------- revert, or by itself ---------> reverted
//! ```
//!
//! Applying means a reload for `children/*` and `multusd`, a restart of the instance for `config/*` and `files/*`. What is under way
//! outlives a restart of this program, which may itself be what a change restarts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::{MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use multus_child::Lane;
use multus_contract::api::command::{ReloadReport, Request};
use multus_contract::api::status::ChildStatus;
use multus_contract::api::time::format_rfc3339;
use multus_contract::config::{self, ChildConfig};
use multus_ipc::words::StateCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::status::of_name;
use super::super::{Caller, Error, Inner, Result};
use super::store::Current;
use super::{Configuration, Document};

/// A saved change and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Pending {
    /// Such as `children/pump`.
    pub document: String,
    /// The version that was saved.
    pub version: u64,
    /// How far it is.
    pub state: PendingState,
    /// When it will be applied, RFC 3339; empty unless it waits.
    pub applies_at: String,
    /// Time until then, milliseconds; 0 unless it waits.
    pub applies_in_ms: u64,
    /// What is known, in one sentence; may be empty.
    pub message: String,
    /// The version that a revert brings back; 0: the file would be removed.
    pub previous: u64,
}

/// How far a saved change is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PendingState {
    /// It is saved and will be applied soon.
    #[default]
    Waiting,
    /// It is applied; whether the child is well shows soon.
    Applying,
    /// The child runs with it.
    Healthy,
    /// The child does not run well with it.
    Unhealthy,
    /// It was taken back.
    Reverted,
}

impl PendingState {
    /// The word that people and JSON see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Applying => "applying",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Reverted => "reverted",
        }
    }
}

/// A change under way.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    version: u64,
    /// 0: there was no file.
    previous: u64,
    message: String,
    phase: Phase,
}

#[derive(Clone, Debug)]
enum Phase {
    Waiting {
        at: Instant,
    },
    /// It was taken back after it had been applied: the older text has to be applied, too.
    TakingBack,
    Applying(Watch),
    Done(PendingState),
}

/// Watching children come back.
#[derive(Clone, Debug)]
struct Watch {
    /// Names of children or instances.
    names: Vec<String>,
    /// Process and number of faults of each instance before; with a process: another one must come.
    before: BTreeMap<String, (Option<u32>, u64)>,
    /// When patience ends.
    end: Instant,
    /// Since when all are well.
    well_since: Option<Instant>,
}

/// What outlives this process.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    document: String,
    version: u64,
    previous: u64,
    state: PendingState,
}

impl Configuration {
    pub(super) fn pending(&self) -> Vec<Pending> {
        self.entries().iter().map(|(document, entry)| entry.shown(document)).collect()
    }

    /// A saved change begins to wait. One that waits already is part of it.
    pub(super) fn settle(&self, document: &Document, version: u64, before: &Current) -> Pending {
        let mut entries = self.entries();
        let previous = match entries.get(document) {
            Some(Entry { phase: Phase::Waiting { .. }, previous, .. }) => *previous,
            _ if before.exists => before.version,
            _ => 0,
        };
        let at = Instant::now() + self.settings.settle;
        let entry = Entry { version, previous, message: String::new(), phase: Phase::Waiting { at } };
        let shown = entry.shown(document);
        entries.insert(document.clone(), entry);
        self.changed(&entries);
        shown
    }

    pub(super) fn apply_now(&self, document: &Document) -> Result<Pending> {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(document).filter(|e| matches!(e.phase, Phase::Waiting { .. })) else {
            return Err(Error::NotFound(format!("no change of {document} waits")));
        };
        entry.phase = Phase::Waiting { at: Instant::now() };
        let shown = entry.shown(document);
        self.changed(&entries);
        Ok(shown)
    }

    pub(super) fn revert(&self, caller: &Caller, document: &Document) -> Result<Pending> {
        let schema = self.schema(document);
        let _files = self.files();
        let entry = self.entries().get(document).cloned();
        let Some(entry) = entry.filter(|entry| !matches!(entry.phase, Phase::Done(PendingState::Reverted))) else {
            return Err(Error::NotFound(format!("there is no change of {document} to take back")));
        };
        let current = self.current(document)?;
        if current.version != entry.version {
            return Err(Error::Conflict { current: current.version });
        }
        let comment = format!("version {} taken back", entry.version);
        let version = if entry.previous == 0 {
            self.may_change(caller, document, &current.text, "", schema.as_deref())?;
            self.remove(caller, document, &comment)?
        } else {
            let text = self.history_of(document).text(entry.previous)?;
            self.may_change(caller, document, &current.text, &text, schema.as_deref())?;
            self.put(caller, document, &text, &comment, schema.as_deref())?.version
        };
        log::info!("{document}: version {} was taken back by {}", entry.version, caller.name);
        let was_applied = !matches!(entry.phase, Phase::Waiting { .. });
        let phase = if was_applied { Phase::TakingBack } else { Phase::Done(PendingState::Reverted) };
        let message = if entry.message.is_empty() { comment } else { format!("{comment}: {}", entry.message) };
        let entry = Entry { version, previous: entry.version, message, phase };
        let shown = entry.shown(document);
        let mut entries = self.entries();
        entries.insert(document.clone(), entry);
        self.changed(&entries);
        Ok(shown)
    }

    /// Somebody else applies it.
    pub(super) fn drop_pending(&self, document: &Document) {
        let mut entries = self.entries();
        entries.remove(document);
        self.changed(&entries);
    }

    fn remove(&self, caller: &Caller, document: &Document, comment: &str) -> Result<u64> {
        let info = super::VersionInfo {
            who: caller.name.clone(),
            time: rfc3339(SystemTime::now()),
            comment: comment.to_owned(),
            etag: super::store::etag_of(""),
            ..super::VersionInfo::default()
        };
        let info = self.history_of(document).add("", info)?;
        match (document, document.path(&self.dirs)) {
            (Document::Text { instance, key }, _) => self.place(instance, key)?.remove()?,
            (_, path) => {
                let path = path.unwrap_or_default();
                fs::remove_file(&path).map_err(|error| Error::io(&path, &error))?;
            }
        }
        Ok(info.version)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Document, Entry>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is under way, and wakes the thread.
    fn changed(&self, entries: &BTreeMap<Document, Entry>) {
        let kept: Vec<Kept> = entries
            .iter()
            .filter_map(|(document, entry)| {
                let state = entry.phase.state();
                let lasts = matches!(state, PendingState::Waiting | PendingState::Applying)
                    || matches!(entry.phase, Phase::TakingBack);
                let (version, previous) = (entry.version, entry.previous);
                lasts.then(|| Kept { document: document.to_string(), version, previous, state })
            })
            .collect();
        let path = self.dirs.state.join("config-history/pending.json");
        let text = serde_json::to_string(&kept).unwrap_or_default();
        let same = fs::read_to_string(&path).map_or(kept.is_empty(), |old| old == text);
        if !same && let Err(error) = config::replace_file(&path, &text, 0o600) {
            log::warn!("changes under way would not survive a restart: {error}");
        }
        self.pending_changed.notify_all();
    }

    /// What was under way when this program ended.
    fn resume(&self) {
        let path = self.dirs.state.join("config-history/pending.json");
        let Ok(text) = fs::read_to_string(path) else { return };
        let kept: Vec<Kept> = serde_json::from_str(&text).unwrap_or_default();
        let mut entries = self.entries();
        for kept in kept {
            let Ok(document) = kept.document.parse::<Document>() else { continue };
            let phase = match kept.state {
                PendingState::Waiting => Phase::Waiting { at: Instant::now() + self.settings.settle },
                PendingState::Reverted => Phase::TakingBack,
                _ => Phase::Applying(Watch {
                    names: self.names(&document),
                    before: BTreeMap::new(),
                    end: Instant::now() + self.patience(&document),
                    well_since: None,
                }),
            };
            let entry = Entry {
                version: kept.version,
                previous: kept.previous,
                message: "multus-control was restarted".into(),
                phase,
            };
            entries.entry(document).or_insert(entry);
        }
    }

    /// The children whose health shows whether a document is good.
    fn names(&self, document: &Document) -> Vec<String> {
        match document {
            Document::Daemon => Vec::new(),
            Document::Child(name) | Document::Parameters(name) | Document::Text { instance: name, .. } => {
                vec![name.clone()]
            }
        }
    }

    /// How long its children may take to come back.
    fn patience(&self, document: &Document) -> Duration {
        let children = config::load(&self.dirs.config).config.children;
        let concerns = |child: &&ChildConfig| match document {
            Document::Daemon => true,
            Document::Child(name) => child.name == *name,
            Document::Parameters(instance) | Document::Text { instance, .. } => {
                child.instance_names().any(|name| name == *instance)
            }
        };
        let longest = children.iter().filter(concerns).map(|child| child.stop.timeout + child.heartbeat.startup).max();
        longest.unwrap_or(Duration::from_secs(30)).saturating_add(MARGIN)
    }
}

impl Entry {
    fn shown(&self, document: &Document) -> Pending {
        let wait = match self.phase {
            Phase::Waiting { at } => Some(at.saturating_duration_since(Instant::now())),
            _ => None,
        };
        Pending {
            document: document.to_string(),
            version: self.version,
            state: self.phase.state(),
            applies_at: wait.map_or_else(String::new, |wait| rfc3339(SystemTime::now() + wait)),
            applies_in_ms: wait.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            message: self.message.clone(),
            previous: self.previous,
        }
    }
}

impl Phase {
    fn state(&self) -> PendingState {
        match self {
            Self::Waiting { .. } => PendingState::Waiting,
            Self::Applying(_) => PendingState::Applying,
            Self::TakingBack => PendingState::Reverted,
            Self::Done(state) => *state,
        }
    }
}

/// Starts the thread that applies changes.
pub(crate) fn start(inner: Weak<Inner>, lane: Option<Lane>) -> io::Result<()> {
    if let Some(inner) = inner.upgrade() {
        inner.configuration.resume();
    }
    std::thread::Builder::new().name("changes".into()).spawn(move || {
        while let Some(inner) = inner.upgrade() {
            if let Some(lane) = &lane {
                lane.beat();
            }
            inner.turn();
        }
    })?;
    Ok(())
}

impl Inner {
    /// Does what is due, then waits for what comes next, a second at most.
    fn turn(&self) {
        let configuration = &self.configuration;
        let due: Vec<(Document, Entry)> = {
            let entries = configuration.entries();
            let now = Instant::now();
            let is_due = |entry: &Entry| match &entry.phase {
                Phase::Waiting { at } => *at <= now,
                Phase::TakingBack | Phase::Applying(_) => true,
                Phase::Done(_) => false,
            };
            entries.iter().filter(|(_, entry)| is_due(entry)).map(|(d, e)| (d.clone(), e.clone())).collect()
        };
        for (document, entry) in due {
            let (phase, message) = match &entry.phase {
                Phase::Waiting { .. } => self.apply(&document, &entry),
                Phase::TakingBack => {
                    let message = match self.apply(&document, &entry) {
                        (Phase::Done(PendingState::Unhealthy), why) => format!("{}; {why}", entry.message),
                        _ => entry.message.clone(),
                    };
                    (Phase::Done(PendingState::Reverted), message)
                }
                Phase::Applying(watch) => self.watch(watch),
                Phase::Done(_) => continue,
            };
            self.advance(&document, &entry, phase, message);
        }
        let entries = configuration.entries();
        let now = Instant::now();
        let wait = entries.values().filter_map(|entry| match entry.phase {
            Phase::Waiting { at } => Some(at.saturating_duration_since(now)),
            Phase::TakingBack => Some(Duration::ZERO),
            Phase::Applying(_) => Some(LOOK),
            Phase::Done(_) => None,
        });
        let wait = wait.min().unwrap_or(TURN).min(TURN);
        let _ = configuration.pending_changed.wait_timeout(entries, wait).unwrap_or_else(PoisonError::into_inner);
    }

    /// Takes over what a turn led to, unless somebody changed the document meanwhile.
    fn advance(&self, document: &Document, from: &Entry, phase: Phase, message: String) {
        let failed = matches!(phase, Phase::Done(PendingState::Unhealthy));
        {
            let mut entries = self.configuration.entries();
            match entries.get_mut(document) {
                Some(entry) if entry.version == from.version => {
                    if entry.phase.state() != phase.state() {
                        log::info!("{document}: version {} is {}: {message}", entry.version, phase.state().as_str());
                    }
                    (entry.phase, entry.message) = (phase, message);
                }
                _ => return,
            }
            self.configuration.changed(&entries);
        }
        if failed
            && self.configuration.settings.auto_roll_back
            && let Err(error) = self.configuration.revert(&Caller::own(), document)
        {
            log::error!("{document}: version {} could not be taken back: {error}", from.version);
        }
    }

    fn apply(&self, document: &Document, entry: &Entry) -> (Phase, String) {
        let configuration = &self.configuration;
        let mut watch = Watch {
            names: configuration.names(document),
            before: BTreeMap::new(),
            end: Instant::now() + configuration.patience(document),
            well_since: None,
        };
        self.forget_snapshot();
        let before = match self.snapshot() {
            Ok(snapshot) => snapshot.status.children.clone(),
            Err(error) => return (Phase::Done(PendingState::Unhealthy), format!("it was not applied: {error}")),
        };
        if !matches!(entry.phase, Phase::TakingBack) {
            // What restarts this very program must be known to the next one.
            let phase = Phase::Applying(watch.clone());
            self.advance(document, entry, phase, String::new());
        }
        let applied = match document {
            Document::Daemon | Document::Child(_) => self.daemon.ask::<ReloadReport>(&Request::Reload).map(Some),
            Document::Parameters(name) | Document::Text { instance: name, .. } => {
                self.daemon.tell(&Request::Restart { name: name.clone() }).map(|_| None)
            }
        };
        self.forget_snapshot();
        // A reload restarts only what needs it; a process that stays for the time a child is held to be well is good, too.
        let must_restart = match applied {
            Ok(Some(report)) => {
                if let Document::Child(name) = document
                    && report.broken.contains(name)
                {
                    return (Phase::Done(PendingState::Unhealthy), report.diagnostics.join("; "));
                }
                if matches!(document, Document::Daemon) {
                    watch.names = report.changed;
                }
                false
            }
            Ok(None) => true,
            Err(Error::Refused(why)) => {
                let message = format!("it holds from the next start on; now: {why}");
                return (Phase::Done(PendingState::Healthy), message);
            }
            Err(error) => return (Phase::Done(PendingState::Unhealthy), format!("it was not applied: {error}")),
        };
        for name in &watch.names {
            for child in of_name(&before, name) {
                let pid = child.pid.filter(|_| must_restart);
                watch.before.insert(child.name.clone(), (pid, faults(child)));
            }
        }
        (Phase::Applying(watch), String::new())
    }

    fn watch(&self, watch: &Watch) -> (Phase, String) {
        let now = Instant::now();
        let verdict = match self.snapshot() {
            Ok(snapshot) => judge(&snapshot.status.children, watch),
            Err(error) => Verdict::NotYet(error.to_string()),
        };
        match verdict {
            Verdict::Bad(why) => (Phase::Done(PendingState::Unhealthy), why),
            Verdict::NotYet(why) if now >= watch.end => {
                (Phase::Done(PendingState::Unhealthy), format!("in the time it has to start: {why}"))
            }
            Verdict::NotYet(why) => (Phase::Applying(Watch { well_since: None, ..watch.clone() }), why),
            Verdict::Well(note) => {
                let since = watch.well_since.unwrap_or(now);
                if now.saturating_duration_since(since) >= HOLD {
                    return (Phase::Done(PendingState::Healthy), note);
                }
                (Phase::Applying(Watch { well_since: Some(since), ..watch.clone() }), note)
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Well(String),
    NotYet(String),
    Bad(String),
}

/// How the children do that a change concerns.
fn judge(children: &[ChildStatus], watch: &Watch) -> Verdict {
    let mut idle = Vec::new();
    let mut seen = 0usize;
    for child in watch.names.iter().flat_map(|name| of_name(children, name)) {
        seen += 1;
        let (pid, faults_before) = watch.before.get(&child.name).copied().unwrap_or((None, 0));
        let is_counted = watch.before.contains_key(&child.name);
        if is_counted && faults(child) > faults_before {
            let detail = child.last_fault.as_ref().map_or("", |fault| fault.detail.as_str());
            return Verdict::Bad(format!("{} failed: {detail}", child.name));
        }
        match child.state_code() {
            Some(StateCode::Disabled | StateCode::Stopped) => idle.push(format!("{} is {}", child.name, child.state)),
            Some(StateCode::Running) if pid.is_none() || pid != child.pid => {}
            Some(StateCode::Running) => return Verdict::NotYet(format!("{} is not restarted yet", child.name)),
            _ => return Verdict::NotYet(format!("{} is {}", child.name, child.state)),
        }
    }
    if seen == 0 && !watch.names.is_empty() {
        return Verdict::NotYet("the daemon does not know it".into());
    }
    Verdict::Well(idle.join(", "))
}

fn faults(child: &ChildStatus) -> u64 {
    child.last_fault.as_ref().map_or(0, |fault| fault.count)
}

fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format_rfc3339(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A child that runs this long is well: one that cannot live with its configuration ends before.
const HOLD: Duration = Duration::from_secs(2);
/// Beyond stop and start-up times, for a loaded machine.
const MARGIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(250);
const TURN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use multus_contract::api::status::LastFault;

    use super::*;

    fn child(state: &str, pid: Option<u32>, faults: u64) -> ChildStatus {
        let last_fault =
            (faults > 0).then(|| LastFault { count: faults, detail: "why".into(), ..LastFault::default() });
        ChildStatus { name: "pump".into(), state: state.into(), pid, last_fault, ..ChildStatus::default() }
    }

    #[test]
    fn a_child_is_judged_by_its_new_process() {
        let watch = Watch {
            names: vec!["pump".into()],
            before: [("pump".to_owned(), (Some(7), 3))].into(),
            end: Instant::now(),
            well_since: None,
        };
        let judge = |state, pid, faults| judge(&[child(state, pid, faults)], &watch);
        assert_eq!(judge("running", Some(7), 3), Verdict::NotYet("pump is not restarted yet".into()));
        assert_eq!(judge("starting", Some(8), 3), Verdict::NotYet("pump is starting".into()));
        assert_eq!(judge("running", Some(8), 3), Verdict::Well(String::new()));
        assert_eq!(judge("backoff", None, 4), Verdict::Bad("pump failed: why".into()));
        assert_eq!(judge("running", Some(8), 4), Verdict::Bad("pump failed: why".into()));
        assert_eq!(judge("disabled", None, 3), Verdict::Well("pump is disabled".into()));
        assert_eq!(super::judge(&[], &watch), Verdict::NotYet("the daemon does not know it".into()));
    }
}
