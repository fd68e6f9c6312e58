//! Why the machine restarted: what multusd writes down before it acts, and what it makes of that at its next start.
//!
//! One small file, `reset.json` in the state directory, replaced in one step (written beside it, synced, renamed, directory synced), so
//! that a power cut leaves the old or the new one. [`merge`] is pure. What cannot be read is told and set aside; what cannot be
//! written is told and kept in memory: neither stops anything.
//!
//! Time between resets is counted in hours that the machine was powered (uptimes added up, as far as they are known), because the
//! wall clock of a box without a battery jumps.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use multus_contract::api::reset::{LastReset, ResetCause};
use multus_contract::api::time::format_rfc3339;
use multus_contract::config::replace_file;
use multus_ipc::MonoNs;
use multus_ipc::time::unix_ns;
use serde::{Deserialize, Serialize};

use crate::sys::watchdog::flag;
use crate::watchdog::{BootStatus, boot_words};

/// What is about to end this start of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// What is done.
    pub action: Action,
    /// Who has it done.
    pub by: By,
    /// For which child instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// Its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Why, a sentence.
    pub reason: String,
    /// Wall time, RFC 3339.
    pub time: String,
    /// CLOCK_MONOTONIC at that time, which counts from the start of the machine.
    pub mono_ns: u64,
}

/// What ends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// All children are stopped, then the machine is started anew.
    #[default]
    Reboot,
    /// Watchdogs are no longer petted.
    Withhold,
}

/// Who has it done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// A person, or a program that acts for one.
    #[default]
    Person,
    /// A request by file.
    File,
    /// `[escalation]`.
    Escalation,
    /// A watchdog.
    Watchdog,
}

impl By {
    /// The word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::File => "file",
            Self::Escalation => "escalation",
            Self::Watchdog => "watchdog",
        }
    }

    /// Whether that is multusd's own doing, which the loop guard counts.
    const fn is_ours(self) -> bool {
        matches!(self, Self::Escalation | Self::Watchdog)
    }
}

impl Ending {
    /// Something that is done now.
    pub fn now(action: Action, by: By, reason: String) -> Self {
        Self { action, by, child: None, pid: None, reason, time: format_rfc3339(unix_ns()), mono_ns: MonoNs::now().0 }
    }
}

/// What is kept in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// 1.
    format: u32,
    /// Which start of the machine this is, as the kernel numbers them.
    boot_id: String,
    /// Starts seen.
    boots: u64,
    /// Seconds that the machine was powered before this start, as far as they are known.
    powered_s: u64,
    /// Seconds of this start when this was written.
    uptime_s: u64,
    /// What is about to end it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ending: Option<Ending>,
    /// Multusd has ended in order.
    clean: bool,
    /// Why the machine last restarted.
    last: LastReset,
    /// Powered seconds at which resets of our own were decided, the last [`MOST_OURS`].
    #[serde(default)]
    ours: Vec<u64>,
    /// Dumps of the kernel that were there before.
    #[serde(default)]
    dumps: Vec<String>,
}

const FORMAT: u32 = 1;
/// More than `reboots_per_hour` can be.
const MOST_OURS: usize = 64;
/// Seconds.
const HOUR: u64 = 3600;

/// What is seen at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Of the kernel; empty when it cannot be read.
    pub boot_id: String,
    /// CLOCK_MONOTONIC, seconds.
    pub uptime_s: u64,
    /// What the watchdogs say.
    pub watchdogs: Vec<BootStatus>,
    /// Dumps that the kernel left, and whether each is of a panic.
    pub dumps: Vec<(String, bool)>,
}

/// What the file said before and what is seen now, taken together. The second value is what is to be said beside it.
pub fn merge(before: Option<Book>, seen: &Seen) -> (Book, Vec<String>) {
    let dumps = seen.dumps.iter().map(|(name, _)| name.clone()).collect();
    let book = Book {
        format: FORMAT,
        boot_id: seen.boot_id.clone(),
        uptime_s: seen.uptime_s,
        dumps,
        boots: 1,
        ..Book::default()
    };
    let Some(before) = before else {
        let mut last = describe(ResetCause::First, "no earlier start is known".to_owned());
        last.evidence = evidence(&[], seen);
        return (counted(Book { last, ..book }), Vec::new());
    };
    // Without a boot id nobody can tell; a clock that runs backwards can only be that of another start.
    let is_same = before.boot_id == seen.boot_id && !seen.boot_id.is_empty() && seen.uptime_s >= before.uptime_s;
    if is_same {
        let undone = before.ending.filter(|e| e.action == Action::Reboot).map(|e| {
            format!("a restart of the machine that was begun ({}) has not come about: {}", e.by.as_str(), e.reason)
        });
        let last = LastReset { daemon_only: true, ended_in_order: before.clean, ..before.last };
        let Book { boots, powered_s, ours, .. } = before;
        return (Book { boots, powered_s, ours, last, ..book }, undone.into_iter().collect());
    }
    let mut last = cause(&before, seen);
    last.ended_in_order = before.clean;
    last.counts = before.last.counts;
    let mut ours = before.ours;
    if let Some(ending) = before.ending.as_ref().filter(|ending| ending.by.is_ours()) {
        ours.push(before.powered_s.saturating_add(ending.mono_ns / 1_000_000_000));
        let surplus = ours.len().saturating_sub(MOST_OURS);
        ours.drain(..surplus);
    }
    let powered_s = before.powered_s.saturating_add(before.uptime_s);
    (counted(Book { boots: before.boots.saturating_add(1), powered_s, ours, last, ..book }), Vec::new())
}

/// Counts the cause of a start of the machine.
fn counted(mut book: Book) -> Book {
    book.last.boots = book.boots;
    *book.last.counts.entry(book.last.cause.clone()).or_insert(0) += 1;
    book
}

/// Why another start of the machine followed. What multusd wrote down wins over what a watchdog says, because on a Raspberry Pi an
/// ordinary restart is made by the watchdog, too, and looks like one.
fn cause(before: &Book, seen: &Seen) -> LastReset {
    let bites: Vec<&str> = told(seen).filter(|(_, bits)| bits & flag::CARD_RESET != 0).map(|(name, _)| name).collect();
    let is_new = |name: &String| !before.dumps.contains(name);
    let panic = seen.dumps.iter().find(|(name, is_panic)| *is_panic && is_new(name));
    let mut last = match (&before.ending, panic) {
        (Some(ending), _) if before.clean && ending.action == Action::Reboot => {
            of_ending(ResetCause::Requested, ending, ending.reason.clone())
        }
        (ending, Some((dump, _))) => {
            let text = format!("the kernel gave up; what it left behind is {dump}");
            match ending {
                Some(ending) => {
                    of_ending(ResetCause::KernelPanic, ending, format!("{text}; under way was: {}", ending.reason))
                }
                None => describe(ResetCause::KernelPanic, text),
            }
        }
        (_, None) if before.clean => {
            describe(ResetCause::Shutdown, "multusd had been stopped in order before the machine went down".to_owned())
        }
        (Some(ending), None) if ending.action == Action::Withhold => {
            of_ending(ResetCause::Watchdog, ending, ending.reason.clone())
        }
        (Some(ending), None) => {
            let text = format!("{}; it went down before all children were stopped", ending.reason);
            of_ending(ResetCause::Requested, ending, text)
        }
        (None, None) if !bites.is_empty() => describe(
            ResetCause::Watchdog,
            format!(
                "{} reset the machine and nobody had announced it: the machine or multusd stood still",
                bites.join(", ")
            ),
        ),
        (None, None) if told(seen).next().is_none() => describe(
            ResetCause::PowerLoss,
            "unannounced: power loss, a reset button, or a standstill (there is no watchdog that could tell)"
                .to_owned(),
        ),
        (None, None) => describe(
            ResetCause::PowerLoss,
            "unannounced, and no watchdog says it was its doing: power loss, or a reset button".to_owned(),
        ),
    };
    last.evidence = evidence(&before.dumps, seen);
    last
}

/// What the watchdogs say that can tell.
fn told(seen: &Seen) -> impl Iterator<Item = (&str, u32)> {
    seen.watchdogs.iter().filter_map(|(name, bits)| Some((name.as_str(), (*bits)?)))
}

fn describe(cause: ResetCause, detail: String) -> LastReset {
    LastReset { cause: cause.as_str().to_owned(), detail, ..LastReset::default() }
}

fn of_ending(cause: ResetCause, ending: &Ending, detail: String) -> LastReset {
    LastReset {
        by: Some(ending.by.as_str().to_owned()),
        child: ending.child.clone(),
        pid: ending.pid,
        time: Some(ending.time.clone()),
        uptime_s: Some(ending.mono_ns / 1_000_000_000),
        ..describe(cause, detail)
    }
}

fn evidence(known: &[String], seen: &Seen) -> Vec<String> {
    let told = told(seen).filter_map(|(name, bits)| {
        let words = boot_words(bits);
        (!words.is_empty()).then(|| format!("watchdog {name} says: {}", words.join(", ")))
    });
    let dumps = seen.dumps.iter().filter(|(name, _)| !known.contains(name));
    told.chain(dumps.map(|(name, is_panic)| {
        format!("the kernel left {name} behind{}", if *is_panic { "" } else { ", which is no panic" })
    }))
    .collect()
}

/// The book in its file.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    book: Book,
    /// Why the file could not be written the last time.
    problem: Option<String>,
}

impl Store {
    /// Reads the file and takes in what is seen; the second value is what is to be said. Blocks for as long as the disk needs.
    pub fn open(state_dir: &Path, seen: &Seen) -> (Self, Vec<String>) {
        let path = state_dir.join(FILE);
        let (before, mut notes) = match read(&path) {
            Ok(book) => (book, Vec::new()),
            Err(why) => (None, vec![set_aside(&path, &why)]),
        };
        let (book, more) = merge(before, seen);
        notes.extend(more);
        let mut store = Self { path, book, problem: None };
        store.write(MonoNs(seen.uptime_s * 1_000_000_000));
        (store, notes)
    }

    /// Why the machine last restarted.
    pub fn last(&self) -> &LastReset {
        &self.book.last
    }

    /// What is about to end this start of the machine.
    pub fn ending(&self) -> Option<&Ending> {
        self.book.ending.as_ref()
    }

    /// Why what happened could not be written down.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Resets of our own within the last hour.
    pub fn recent(&self, now: MonoNs) -> usize {
        let powered = self.book.powered_s.saturating_add(now.0 / 1_000_000_000);
        self.book.ours.iter().filter(|at| powered.saturating_sub(**at) < HOUR).count()
    }

    /// Whether one more reset of our own would be more than `limit` an hour. Who cannot write them down cannot count them: then the
    /// machine has to be up for so long first that it cannot be more.
    pub fn is_too_often(&self, limit: u16, now: MonoNs) -> bool {
        let is_young = now.0 / 1_000_000_000 < HOUR / u64::from(limit.max(1));
        self.recent(now) >= usize::from(limit) || (self.problem.is_some() && is_young)
    }

    /// Writes down what will be done, before it is. Blocks until the disk has it.
    pub fn announce(&mut self, ending: Ending, now: MonoNs) {
        self.book.ending = Some(ending);
        self.write(now);
    }

    /// It is not done after all.
    pub fn withdraw(&mut self, now: MonoNs) {
        if self.book.ending.take().is_some() {
            self.write(now);
        }
    }

    /// Multusd ends in order.
    pub fn close(&mut self, now: MonoNs) {
        self.book.ending.take_if(|ending| ending.action == Action::Withhold);
        self.book.clean = true;
        self.write(now);
    }

    fn write(&mut self, now: MonoNs) {
        self.book.uptime_s = now.0 / 1_000_000_000;
        let written = serde_json::to_string_pretty(&self.book)
            .map_err(|error| error.to_string())
            .and_then(|text| replace_file(&self.path, &(text + "\n"), 0o640).map_err(|error| error.to_string()));
        let problem = written.err();
        if let Some(why) = problem.as_ref().filter(|why| self.problem.as_ref() != Some(why)) {
            log::error!("why the machine restarts cannot be written down: {why}");
        }
        self.problem = problem;
    }
}

/// Name in the state directory.
pub const FILE: &str = "reset.json";
/// The book has a few KiB.
const LARGEST: u64 = 256 * 1024;

fn read(path: &Path) -> Result<Option<Book>, String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(data) if !data.is_file() => return Err("is no regular file".to_owned()),
        Ok(_) => {}
    }
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    file.take(LARGEST).read_to_end(&mut text).map_err(|error| error.to_string())?;
    let book: Book = serde_json::from_slice(&text).map_err(|error| format!("is damaged: {error}"))?;
    if book.format != FORMAT {
        return Err(format!("is of format {}, this multusd writes {FORMAT}", book.format));
    }
    Ok(Some(book))
}

/// Moves what cannot be read out of the way, for whoever wants to look at it.
fn set_aside(path: &Path, why: &str) -> String {
    let aside = path.with_extension("json.bad");
    match fs::rename(path, &aside) {
        Ok(()) => format!(
            "{}: {why}; it is kept as {}, and why the machine last restarted is not known",
            path.display(),
            aside.display()
        ),
        Err(error) => format!("{}: {why}; it cannot be set aside: {error}", path.display()),
    }
}

/// Looks at the machine: `watchdogs` is what they said when they were opened.
pub fn look(watchdogs: Vec<BootStatus>) -> Seen {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    // Where the kernel shows them, and where systemd-pstore moves them to.
    let dumps = dumps(&["/sys/fs/pstore", "/var/lib/systemd/pstore"].map(Path::new));
    Seen { boot_id: boot_id.trim().to_owned(), uptime_s: MonoNs::now().0 / 1_000_000_000, watchdogs, dumps }
}

/// Most dumps that are told apart; a pstore holds a handful.
const MOST_DUMPS: usize = 64;

/// Dumps of the kernel in these directories and those in them: names that tell one from another (with their time), and whether each
/// is of a panic.
fn dumps(places: &[&Path]) -> Vec<(String, bool)> {
    let mut found = BTreeMap::new();
    let mut dirs: Vec<(PathBuf, u32)> = places.iter().map(|dir| (dir.to_path_buf(), 0)).collect();
    while let Some((dir, depth)) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (path, Ok(data)) = (entry.path(), entry.metadata()) else { continue };
            if data.is_dir() && depth < 2 && dirs.len() < MOST_DUMPS {
                dirs.push((path, depth + 1));
            } else if data.is_file() && entry.file_name().to_string_lossy().starts_with("dmesg") {
                let time = data.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
                let time = time.map_or(0, |time| time.as_secs());
                let name = format!("{} ({time})", entry.file_name().to_string_lossy());
                found.entry(name).or_insert_with(|| (time, is_panic(&path)));
            }
        }
    }
    // The newest: what is archived is never removed, and fills up.
    let mut found: Vec<(u64, String, bool)> =
        found.into_iter().map(|(name, (time, is_panic))| (time, name, is_panic)).collect();
    found.sort();
    found.drain(..found.len().saturating_sub(MOST_DUMPS));
    found.into_iter().map(|(_, name, is_panic)| (name, is_panic)).collect()
}

/// The kernel writes what it is about into the first line: why, a number sign, and the part (fs/pstore/platform.c). Drivers are
/// told to dump at other occasions, too, such as an orderly shutdown. One that cannot be read (compressed) counts.
fn is_panic(path: &Path) -> bool {
    let mut head = Vec::new();
    let _ = fs::File::open(path).and_then(|file| file.take(4096).read_to_end(&mut head));
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let reason = std::str::from_utf8(first).ok().and_then(|line| line.split_once('#'));
    reason.is_none_or(|(why, _)| why == "Panic" || !why.bytes().all(|byte| byte.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(change: impl FnOnce(&mut Book)) -> Book {
        let mut book = Book {
            format: FORMAT,
            boot_id: "one".into(),
            boots: 7,
            powered_s: 10_000,
            uptime_s: 500,
            last: LastReset { counts: BTreeMap::from([("shutdown".to_owned(), 3)]), ..LastReset::default() },
            dumps: vec!["old".into()],
            ..Book::default()
        };
        change(&mut book);
        book
    }

    fn seen(change: impl FnOnce(&mut Seen)) -> Seen {
        let watchdogs = vec![("a chip".to_owned(), None), ("/dev/watchdog0".to_owned(), Some(0))];
        let mut seen = Seen { boot_id: "two".into(), uptime_s: 9, watchdogs, dumps: vec![("old".into(), true)] };
        change(&mut seen);
        seen
    }

    fn ending(action: Action, by: By) -> Option<Ending> {
        let mut ending = Ending::now(action, by, "the reason".into());
        ending.child = Some("pump".into());
        ending.pid = Some(47);
        ending.mono_ns = 400_000_000_000;
        Some(ending)
    }

    /// A watchdog says that it was its doing: also after every ordinary restart of a Raspberry Pi.
    fn bite(seen: &mut Seen) {
        seen.watchdogs[1].1 = Some(flag::CARD_RESET);
    }

    #[test]
    fn causes_are_ranked() {
        use Action::{Reboot, Withhold};
        use By::{Escalation, Person, Watchdog};
        let panic = |s: &mut Seen| s.dumps.push(("new".into(), true));
        let oops = |s: &mut Seen| s.dumps.push(("new".into(), false));
        type Change<'a> = &'a dyn Fn(&mut Seen);
        let nothing: Change<'_> = &|_| {};
        for (name, ending, clean, change, cause, child) in [
            ("asked for", ending(Reboot, Person), true, nothing, "requested", true),
            ("asked for on a Pi", ending(Reboot, Person), true, &bite as Change<'_>, "requested", true),
            ("asked for, cut short", ending(Reboot, Escalation), false, &bite, "requested", true),
            ("shut down", None, true, nothing, "shutdown", false),
            ("shut down on a Pi", None, true, &bite, "shutdown", false),
            ("stopped, then the kernel gave up", None, true, &panic, "kernel-panic", false),
            ("the kernel gave up", None, false, &panic, "kernel-panic", false),
            ("the kernel gave up and a watchdog bit", None, false, &|s| (panic(s), bite(s)).0, "kernel-panic", false),
            ("an oops is no panic", None, false, &oops, "power-loss", false),
            ("withheld", ending(Withhold, Watchdog), false, &bite, "watchdog", true),
            ("withheld, and the device does not tell", ending(Withhold, Watchdog), false, nothing, "watchdog", true),
            ("withheld, then the kernel gave up", ending(Withhold, Watchdog), false, &panic, "kernel-panic", true),
            ("stood still", None, false, &bite, "watchdog", false),
            ("pulled the plug", None, false, nothing, "power-loss", false),
            ("pulled the plug, nobody tells", None, false, &|s| s.watchdogs.truncate(1), "power-loss", false),
        ] {
            let before = book(|b| (b.ending, b.clean) = (ending, clean));
            let (after, notes) = merge(Some(before), &seen(change));
            assert_eq!((after.last.cause.as_str(), after.last.child.is_some()), (cause, child), "{name}: {after:?}");
            assert_eq!(notes, [""; 0], "{name}");
            assert_eq!((after.boots, after.powered_s, after.uptime_s), (8, 10_500, 9));
            assert_eq!((after.last.daemon_only, after.last.ended_in_order, after.clean), (false, clean, false));
            assert_eq!(after.last.counts[cause], if cause == "shutdown" { 4 } else { 1 }, "{name}");
            assert_eq!((&after.ending, after.boot_id.as_str()), (&None, "two"));
        }
    }

    #[test]
    fn the_same_start_of_the_machine_means_that_only_multusd_was_started_again() {
        let same = seen(|s| (s.boot_id, s.uptime_s) = ("one".into(), 600));
        for clean in [false, true] {
            let before = book(|b| {
                b.clean = clean;
                b.last.cause = "watchdog".into();
                b.ending = ending(Action::Withhold, By::Watchdog);
            });
            let (after, notes) = merge(Some(before), &same);
            assert!(after.last.daemon_only && after.last.ended_in_order == clean && notes.is_empty());
            assert_eq!((after.last.cause.as_str(), after.boots, after.powered_s), ("watchdog", 7, 10_000));
            assert_eq!((after.last.counts.get("watchdog"), after.ours.len(), after.ending), (None, 0, None));
        }
        let before = book(|b| b.ending = ending(Action::Reboot, By::Escalation));
        let (_, notes) = merge(Some(before), &same);
        assert!(notes[0].contains("has not come about"), "{notes:?}");
    }

    #[test]
    fn without_a_boot_id_or_with_a_clock_that_ran_back_it_is_another_start() {
        let before = book(|b| b.boot_id = String::new());
        assert!(!merge(Some(before), &seen(|s| s.boot_id = String::new())).0.last.daemon_only);
        let before = book(|_| {});
        assert!(!merge(Some(before), &seen(|s| s.boot_id = "one".into())).0.last.daemon_only, "uptime 9 after 500");
        let (first, _) = merge(None, &seen(bite));
        assert_eq!((first.last.cause.as_str(), first.boots, first.last.evidence.len()), ("first-start", 1, 2));
    }

    #[test]
    fn resets_of_our_own_are_counted_in_powered_hours() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let second = |s: u64| MonoNs(s * 1_000_000_000);
        for boot in 0..5u64 {
            let seen = seen(|s| s.boot_id = boot.to_string());
            let (mut store, notes) = Store::open(dir.path(), &seen);
            assert!(notes.is_empty() && store.problem().is_none(), "{notes:?} {store:?}");
            assert_eq!(store.recent(second(9)), usize::try_from(boot).expect("small"));
            let by = if boot == 4 { By::Person } else { By::Escalation };
            let ending = Ending { mono_ns: second(600).0, ..Ending::now(Action::Reboot, by, String::new()) };
            store.announce(ending, second(600));
            store.close(second(610));
        }
        // Decided at 600, 1210, 1820, 2430 powered seconds; 3050 have passed before this start.
        let (store, _) = Store::open(dir.path(), &seen(|s| s.boot_id = "last".into()));
        for (uptime, recent) in [(9, 4), (1149, 4), (1150, 3), (1760, 2), (2370, 1), (2980, 0)] {
            assert_eq!(store.recent(second(uptime)), recent, "after {uptime} s");
        }
        assert_eq!(store.last().counts, BTreeMap::from([("first-start".into(), 1), ("requested".into(), 5)]));
    }

    #[test]
    fn what_cannot_be_read_is_told_and_set_aside() {
        let newer = serde_json::to_string(&book(|b| b.format = 9)).expect("plain data");
        for (text, expected) in
            [("", "damaged"), ("{\"format\":1", "damaged"), ("\u{0}\u{0}", "damaged"), (newer.as_str(), "format 9")]
        {
            let dir = tempfile::tempdir().expect("a temporary directory can be made");
            fs::write(dir.path().join(FILE), text).expect("writable");
            let (store, notes) = Store::open(dir.path(), &seen(|_| {}));
            assert!(notes.len() == 1 && notes[0].contains(expected), "{notes:?}");
            assert_eq!(fs::read_to_string(dir.path().join("reset.json.bad")).expect("kept"), text);
            assert_eq!((store.last().cause.as_str(), store.problem()), ("first-start", None));
            let (_, notes) = Store::open(dir.path(), &seen(|_| {}));
            assert_eq!(notes, [""; 0], "the new one is good");
        }
    }

    #[test]
    fn a_directory_in_its_place_or_none_at_all_stops_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        fs::create_dir(dir.path().join(FILE)).expect("writable");
        let (store, notes) = Store::open(dir.path(), &seen(|_| {}));
        assert!(notes[0].contains("no regular file") && store.problem().is_none(), "{notes:?} {store:?}");
        let (mut store, notes) = Store::open(&dir.path().join("missing"), &seen(|_| {}));
        assert_eq!(notes, [""; 0]);
        assert!(store.problem().is_some());
        store.announce(Ending::now(Action::Reboot, By::Person, String::new()), MonoNs(1));
        assert!(store.ending().is_some() && store.problem().is_some(), "kept in memory");
        for (uptime, is_too_often) in [(9, true), (1199, true), (1200, false)] {
            assert_eq!(store.is_too_often(3, MonoNs(uptime * 1_000_000_000)), is_too_often, "nothing can be counted");
        }
    }

    #[test]
    fn every_cut_of_the_file_is_survived() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let (mut store, _) = Store::open(dir.path(), &seen(|_| {}));
        store.announce(Ending::now(Action::Withhold, By::Watchdog, "é".into()), MonoNs(1));
        let whole = fs::read(dir.path().join(FILE)).expect("written");
        for length in 0..whole.len() - 2 {
            fs::write(dir.path().join(FILE), &whole[..length]).expect("writable");
            assert!(read(&dir.path().join(FILE)).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn dumps_of_the_kernel_are_found() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let below = dir.path().join("1700000000");
        fs::create_dir(&below).expect("writable");
        fs::write(dir.path().join("dmesg-ramoops-0"), "Panic#2 Part1\n<6>x").expect("writable");
        fs::write(dir.path().join("dmesg-efi-1"), "Oops#1 Part1\n").expect("writable");
        fs::write(dir.path().join("dmesg-ramoops-1"), "Shutdown#3 Part1\n<6>reboot").expect("writable");
        fs::write(dir.path().join("dmesg-compressed"), [0x78, 0x9c, 0xff, 0x23]).expect("writable");
        fs::write(dir.path().join("console-ramoops-0"), "Panic#").expect("writable");
        fs::write(below.join("dmesg.txt"), "Panic#1 Part9\n").expect("writable");
        let found = dumps(&[dir.path(), Path::new("/no/such/place")]);
        let names: Vec<(&str, bool)> = found.iter().map(|(n, p)| (n.split(' ').next().unwrap_or(""), *p)).collect();
        let expected = [
            ("dmesg-compressed", true),
            ("dmesg-efi-1", false),
            ("dmesg-ramoops-0", true),
            ("dmesg-ramoops-1", false),
            ("dmesg.txt", true),
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn of_many_archived_dumps_the_newest_count() {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        for second in 0..MOST_DUMPS as u64 + 9 {
            // The newest has the first name.
            let file = fs::File::create(dir.path().join(format!("dmesg-{:03}", 999 - second))).expect("writable");
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000 + second);
            file.set_modified(time).expect("own file");
        }
        let found = dumps(&[dir.path()]);
        assert_eq!(found.len(), MOST_DUMPS);
        assert_eq!(found.last().map(|(name, _)| name.as_str()), Some("dmesg-927 (1000000072)"));
    }
}
