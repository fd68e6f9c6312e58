//! What a faulty process was doing, found out between the safe outputs and the kill: state, place in the kernel and
//! processor time of each thread, and whether the process hung or was starved of the processor.
//!
//! Its own thread, because /proc can block (a process in uninterruptible sleep holds locks); the watch thread waits no
//! longer than the child's evidence budget, and replaces this thread when it does not come back.
//!
//! A report is a file: its head (what happened when, how the process ended, its last lines of output) is written again as
//! the fault goes on, its body (stacks, the flight recorder) once.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use multus_contract::api::event::Event;
use multus_contract::api::report::{self, BODY};
use multus_contract::api::time::format_rfc3339;
use multus_ipc::MonoNs;
use multus_ipc::child::Lane;
use multus_ipc::event_ring::{self, EventRecord};
use multus_ipc::status::{self, SlotRecord};
use multus_ipc::sync::AtomicU64;
use multus_ipc::text::{Name, Text};
use multus_ipc::time::unix_ns;
use multus_ipc::words::{EventKind, FaultKind};

use crate::describe;
use crate::flight::{self, KEPT_SAMPLES, Sample, Traces};
use crate::wake::Wake;

/// A process to look at.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its slot.
    pub slot: usize,
    /// Its generation.
    pub generation: u32,
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: Name,
    /// Its last beat, CLOCK_MONOTONIC ns; 0 for none.
    pub last_beat: u64,
    /// When the fault was detected, CLOCK_MONOTONIC ns; 0: it is none, but silence that is told about.
    pub detected: u64,
    /// It is about silence: whether that is a hang or starvation is worth telling.
    pub silent: bool,
    /// It had ended before it was looked at.
    pub ended: bool,
}

/// What silence looks like. The numbers are part of the event interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LooksLike {
    /// Cannot be told.
    Unknown = 0,
    /// It waits for something that does not come.
    Waiting = 1,
    /// It runs without end.
    Spinning = 2,
    /// It would run, but gets no processor.
    Starved = 3,
    /// Somebody stopped it (SIGSTOP, a debugger).
    Stopped = 4,
    /// It waits for a device.
    DeviceWait = 5,
    /// It had ended already.
    Gone = 6,
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Its slot.
    pub slot: usize,
    /// Its generation.
    pub generation: u32,
    /// In one word.
    pub looks_like: LooksLike,
    /// In one sentence.
    pub text: Text<24>,
}

/// The watch thread's end.
#[derive(Debug)]
pub struct WatchEnd {
    /// Cases go in.
    pub cases: rtrb::Producer<Case>,
    /// What was found comes out.
    pub found: rtrb::Consumer<Found>,
}

/// The evidence thread's end.
#[derive(Debug)]
pub struct Ends {
    /// Cases come in.
    pub cases: rtrb::Consumer<Case>,
    /// What was found goes out.
    pub found: rtrb::Producer<Found>,
    /// Wakes this thread.
    pub wake: Arc<Wake>,
    /// Wakes the watch thread.
    pub wake_watch: Arc<Wake>,
    /// What it shares with the rest of the daemon.
    pub shared: Shared,
    /// The thread's own heartbeat.
    pub lane: Lane,
}

/// What evidence is taken from, and where it goes.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Says which processes there are, and how a fault goes on.
    pub status: &'static [AtomicU64],
    /// Says how processes ended.
    pub events: &'static [AtomicU64],
    /// The pages of all children.
    pub traces: Arc<Traces>,
    /// Where reports go: one folder for each child.
    pub faults_dir: PathBuf,
    /// Where the output of children is kept.
    pub logs_dir: PathBuf,
}

/// A pair of ends.
pub fn channel(slots: usize, wake: &Arc<Wake>, wake_watch: &Arc<Wake>, shared: Shared, lane: Lane) -> (WatchEnd, Ends) {
    let (cases, cases_in) = rtrb::RingBuffer::new(slots + 8);
    let (found, found_in) = rtrb::RingBuffer::new(slots + 8);
    let ends =
        Ends { cases: cases_in, found, wake: Arc::clone(wake), wake_watch: Arc::clone(wake_watch), shared, lane };
    (WatchEnd { cases, found: found_in }, ends)
}

const IDLE: Duration = Duration::from_millis(500);
/// Two looks at a process this far apart tell running from waiting from starving.
const APART: Duration = Duration::from_millis(4);
/// Threads that are described; of the others only the number is told.
const MAX_THREADS: usize = 32;
/// Reports that are kept for each child.
const KEPT_REPORTS: usize = 20;
/// From the fault to the first complete report: by then the last output of the process has been written.
const SETTLED: Duration = Duration::from_millis(300);
/// From then on, how often a report is brought up to date, and for how long: recovery takes as long as its restart delay.
const FOLLOW: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// Reports that are followed, and how many of them before the next look at new cases.
const MAX_OPEN: usize = 1024;
const FOLLOWED_AT_ONCE: usize = 2;
/// Lines of output in a report, and how much of the log file is searched for them.
const LOG_LINES: (usize, u64) = (20, 64 * 1024);
/// Output that is written so long after the look is not that of the process any more.
const LAST_OUTPUT: Duration = Duration::from_millis(10);

/// Works until the daemon ends.
///
/// # Errors
/// The poll could not be made.
pub fn run(mut ends: Ends, end: &std::sync::atomic::AtomicBool) -> io::Result<()> {
    let mut poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&ends.wake.raw()), Token(0), Interest::READABLE)?;
    let mut events = Events::with_capacity(4);
    let mut samples: Vec<Sampled> = Vec::new();
    let mut sampled = MonoNs(0);
    let mut open: VecDeque<Open> = VecDeque::new();
    while !end.load(std::sync::atomic::Ordering::Relaxed) {
        let pause = if open.iter().any(|report| report.next <= MonoNs::now()) { Duration::ZERO } else { IDLE };
        match poll.poll(&mut events, Some(pause)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        ends.lane.beat();
        ends.wake.drain();
        while let Ok(case) = ends.cases.pop() {
            let before = samples.get(case.slot).and_then(|s| s.kept.back());
            let mut report = if case.ended { Report::ended() } else { look(&case, before) };
            let text = Text::new(&report.sentence);
            let found = Found { slot: case.slot, generation: case.generation, looks_like: report.looks_like, text };
            // The kill must not wait for the disk: first the answer, then the file.
            if !case.ended {
                let _ = ends.found.push(found);
                ends.wake_watch.wake();
            }
            let until = MonoNs(if case.detected == 0 { MonoNs::now().0 } else { case.detected });
            if let Some(page) = ends.shared.traces.read(case.slot, case.generation) {
                let none = Sampled::default();
                let samples = &samples.get(case.slot).unwrap_or(&none).kept;
                report.body += &flight::describe(&page, samples, case.pid, until);
            }
            match keep(&ends.shared.faults_dir, &case, &report) {
                Ok(kept) => open.push_back(kept),
                Err(error) => log::warn!("{}: the report of its fault could not be kept: {error}", case.name),
            }
            if open.len() > MAX_OPEN {
                open.pop_front();
            }
            ends.lane.beat();
        }
        let now = MonoNs::now();
        // Few at a time: a disk may be slow, and the next fault must not wait for it.
        let mut turns = 0;
        open.retain_mut(|report| {
            if now < report.next || turns == FOLLOWED_AT_ONCE {
                return true;
            }
            turns += 1;
            ends.lane.beat();
            report.follow(&ends.shared, now)
        });
        if now.since(sampled) >= Duration::from_secs(1) {
            sampled = now;
            sample(&mut samples, ends.shared.status, &ends.lane);
        }
    }
    Ok(())
}

/// How a slot's processes were treated by the kernel.
#[derive(Debug, Default)]
struct Sampled {
    kept: VecDeque<Sample>,
    /// The accounting of this process, held open: to open it each time costs ten times as much as to read it.
    file: Option<(u32, File)>,
}

/// Once a second: how long each child has run and waited for a processor, so that a fault can say what changed.
fn sample(samples: &mut Vec<Sampled>, status: &[AtomicU64], lane: &Lane) {
    let Ok(reader) = status::Reader::new(status) else { return };
    samples.resize_with(reader.slots(), Sampled::default);
    for (slot, sampled) in samples.iter_mut().enumerate() {
        let Ok(Some(record)) = reader.slot(slot) else { continue };
        if sampled.file.as_ref().is_none_or(|(pid, _)| *pid != record.pid) {
            let path = format!("/proc/{}/schedstat", record.pid);
            sampled.file = File::open(path).ok().map(|file| (record.pid, file)).filter(|_| record.pid != 0);
        }
        let mut text = [0; 96];
        let read = sampled.file.as_ref().and_then(|(_, file)| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        if let Some((ran_ns, waited_ns)) = accounting(&String::from_utf8_lossy(&text[..read])) {
            if sampled.kept.len() >= KEPT_SAMPLES {
                sampled.kept.pop_front();
            }
            sampled.kept.push_back(Sample { pid: record.pid, at: MonoNs::now(), ran_ns, waited_ns });
        } else {
            sampled.file = None;
        }
        if slot % 64 == 63 {
            lane.beat();
        }
    }
}

#[derive(Debug)]
struct Report {
    looks_like: LooksLike,
    sentence: String,
    /// Threads, stacks, the flight recorder.
    body: String,
    /// What the kernel says of the process and the machine, as it says it.
    files: String,
}

impl Report {
    /// Of a process that nobody could look at any more.
    fn ended() -> Self {
        let sentence = "the process had ended before it could be looked at".into();
        Self { looks_like: LooksLike::Gone, sentence, body: String::new(), files: String::new() }
    }
}

#[derive(Debug)]
struct Thread {
    tid: u32,
    name: String,
    state: char,
    wchan: String,
    ran_ns: u64,
    waited_ns: u64,
}

fn look(case: &Case, before: Option<&Sample>) -> Report {
    let proc = PathBuf::from(format!("/proc/{}", case.pid));
    let first = threads(&proc);
    let begun = MonoNs::now();
    // The budget of the fault counts on: the watch thread goes ahead when this takes too long.
    std::thread::park_timeout(APART);
    let second = threads(&proc);
    let apart = MonoNs::now().since(begun);
    let Some(main) = first.iter().find(|t| t.tid == case.pid).or(first.first()) else {
        return Report::ended();
    };
    let silent_ms = |ns: u64| ns as f64 / 1e6;
    let starved = before.filter(|b| b.pid == case.pid).map(|b| {
        let since = MonoNs::now().since(b.at);
        (main.waited_ns.saturating_sub(b.waited_ns), main.ran_ns.saturating_sub(b.ran_ns), since)
    });
    let silent = MonoNs::now().since(MonoNs(case.last_beat)).as_nanos() as u64;
    let looks_like = judge(&first, &second, starved.map(|(waited, ran, _)| History { silent, waited, ran }));
    let mut sentence = match looks_like {
        LooksLike::Stopped => "stopped by a signal or a debugger (state T)".to_owned(),
        LooksLike::Spinning => format!("runs without end in {}", busiest(&first, &second)),
        LooksLike::Starved => "wanted to run and got too little of a processor: starvation, not a hang".to_owned(),
        LooksLike::DeviceWait => format!("waits for a device in {} (state D)", main.wchan),
        _ => format!("thread {} waits in {}", main.name, main.wchan),
    };
    if let Some((waited, _, since)) = starved {
        let _ = write!(
            sentence,
            "; run-queue delay {:.1} ms of the last {:.0} ms{}",
            silent_ms(waited),
            since.as_secs_f64() * 1000.0,
            if looks_like == LooksLike::Starved || !case.silent { "" } else { ": a hang, not starvation" }
        );
    }
    let pressure = cpu_pressure();
    if let Some(some) = &pressure {
        let _ = write!(sentence, "; CPU pressure {some} %");
    }
    let mut body =
        format!("looks like: {looks_like:?}\n{sentence}\n\nthreads ({} ms between two looks):\n", apart.as_millis());
    for thread in first.iter().take(MAX_THREADS) {
        let later = second.iter().find(|t| t.tid == thread.tid);
        let delta = |f: fn(&Thread) -> u64| later.map_or(0, |l| f(l).saturating_sub(f(thread)));
        let task = proc.join("task").join(thread.tid.to_string());
        let _ = writeln!(
            body,
            "  {} {} state {} wchan {} ran {:.3} ms waited {:.3} ms\n    syscall {}",
            thread.tid,
            thread.name,
            thread.state,
            thread.wchan,
            silent_ms(delta(|t| t.ran_ns)),
            silent_ms(delta(|t| t.waited_ns)),
            read(&task.join("syscall")).trim(),
        );
        for line in read(&task.join("stack")).lines() {
            let _ = writeln!(body, "    {line}");
        }
    }
    if first.len() > MAX_THREADS {
        let _ = writeln!(body, "  and {} more threads", first.len() - MAX_THREADS);
    }
    let mut files = String::new();
    for file in ["status", "limits", "io"] {
        let _ = write!(files, "\n{file}:\n{}", read(&proc.join(file)));
    }
    for resource in ["cpu", "memory", "io"] {
        let _ = write!(files, "\npressure {resource}:\n{}", read(Path::new(&format!("/proc/pressure/{resource}"))));
    }
    Report { looks_like, sentence, body, files }
}

/// What the accounting since the last sample says about the time of the silence, ns.
#[derive(Clone, Copy, Debug)]
struct History {
    silent: u64,
    waited: u64,
    ran: u64,
}

/// One word for what two looks at all threads show, and the time before.
fn judge(first: &[Thread], second: &[Thread], before: Option<History>) -> LooksLike {
    if first.iter().any(|t| matches!(t.state, 'T' | 't')) {
        return LooksLike::Stopped;
    }
    // Who waited for a processor for half of its silence, and ran for less than that, did not hang.
    if before.is_some_and(|b| b.waited >= b.silent / 2 && b.ran < b.waited) {
        return LooksLike::Starved;
    }
    let delta = |f: fn(&Thread) -> u64| -> u64 {
        let later = |t: &Thread| second.iter().find(|l| l.tid == t.tid).map_or(0, |l| f(l).saturating_sub(f(t)));
        first.iter().map(later).sum()
    };
    let (ran, waited) = (delta(|t| t.ran_ns), delta(|t| t.waited_ns));
    let runnable = first.iter().chain(second).any(|t| t.state == 'R');
    if runnable && ran >= waited && ran > 0 {
        return LooksLike::Spinning;
    }
    if runnable {
        return LooksLike::Starved;
    }
    if first.iter().any(|t| t.state == 'D') {
        return LooksLike::DeviceWait;
    }
    LooksLike::Waiting
}

fn busiest(first: &[Thread], second: &[Thread]) -> String {
    let ran = |t: &&Thread| second.iter().find(|l| l.tid == t.tid).map_or(0, |l| l.ran_ns.saturating_sub(t.ran_ns));
    first.iter().max_by_key(ran).map_or_else(|| "an unknown thread".into(), |t| format!("thread {}", t.name))
}

fn threads(proc: &Path) -> Vec<Thread> {
    let mut found = Vec::new();
    for entry in fs::read_dir(proc.join("task")).into_iter().flatten().flatten() {
        let Some(tid) = entry.file_name().to_str().and_then(|t| t.parse().ok()) else { continue };
        let task = entry.path();
        let stat = read(&task.join("stat"));
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?');
        let (ran_ns, waited_ns) = schedstat(&task.join("schedstat")).unwrap_or_default();
        let wchan = match read(&task.join("wchan")).trim() {
            "" | "0" => "user space".to_owned(),
            place => place.to_owned(),
        };
        let name = read(&task.join("comm")).trim().to_owned();
        found.push(Thread { tid, name, state, wchan, ran_ns, waited_ns });
    }
    found.sort_by_key(|t| t.tid);
    found
}

/// Time on a processor and time waiting for one, ns.
fn schedstat(path: &Path) -> Option<(u64, u64)> {
    accounting(&fs::read_to_string(path).ok()?)
}

fn accounting(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Share of the last ten seconds in which somebody waited for a processor, percent.
fn cpu_pressure() -> Option<String> {
    let text = fs::read_to_string("/proc/pressure/cpu").ok()?;
    let some = text.lines().find(|l| l.starts_with("some"))?;
    some.split_ascii_whitespace().find_map(|f| f.strip_prefix("avg10=")).map(str::to_owned)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| format!("({error})"))
}

/// A report whose head is not final.
#[derive(Debug)]
struct Open {
    case: Case,
    path: PathBuf,
    sentence: String,
    /// When it was made: CLOCK_REALTIME ns, and CLOCK_MONOTONIC.
    unix: u64,
    begun: MonoNs,
    next: MonoNs,
    /// The head as it lies on the disk.
    head: String,
    /// The last lines of output, once they are there.
    log: Option<String>,
}

/// Keeps the report in a file of its own, and a bounded number of them.
fn keep(dir: &Path, case: &Case, report: &Report) -> io::Result<Open> {
    let dir = dir.join(case.name.to_string().replace('/', "_"));
    fs::create_dir_all(&dir)?;
    let (unix, begun) = (unix_ns(), MonoNs::now());
    let mut open = Open {
        case: *case,
        path: dir.join(format!("{}.txt", unix / 1000)),
        sentence: report.sentence.clone(),
        unix,
        begun,
        next: begun.after(SETTLED),
        head: String::new(),
        log: None,
    };
    open.head = open.head_of(None, None);
    // First, for the disk may be full.
    make_room(&dir, unix / 1000)?;
    if let Err(error) = fs::write(&open.path, format!("{}{BODY}{}{}", open.head, report.body, report.files)) {
        let _ = fs::remove_file(&open.path);
        return Err(error);
    }
    Ok(open)
}

/// Removes the oldest reports, so that one more may come at `now`, microseconds since 1970, which their names tell. Those of a
/// later time are older still: the clock was wrong.
fn make_room(dir: &Path, now: u64) -> io::Result<()> {
    let time = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok()).unwrap_or(0);
    let mut kept: Vec<PathBuf> = fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    kept.sort_by_key(|path| (time(path) <= now, time(path)));
    let surplus = (kept.len() + 1).saturating_sub(KEPT_REPORTS);
    for old in &kept[..surplus.min(kept.len())] {
        let _ = fs::remove_file(old);
    }
    Ok(())
}

impl Open {
    /// Brings the head up to date. False when there is nothing more to come.
    fn follow(&mut self, shared: &Shared, now: MonoNs) -> bool {
        self.next = now.after(FOLLOW.0);
        if self.log.is_none() {
            self.log = Some(last_lines(&shared.logs_dir.join(format!("{}.log", self.case.name)), self.unix));
        }
        let record = status::Reader::new(shared.status).ok().and_then(|status| status.slot(self.case.slot).ok()?);
        let record = record.filter(|r| r.fault_times.detected == self.case.detected && self.case.detected != 0);
        let end = event_ring::Reader::new(shared.events).ok().and_then(|events| how_it_ended(&events, &self.case));
        let head = self.head_of(record.as_ref(), end.as_ref());
        if head != self.head {
            if let Err(error) = self.replace_head(&head) {
                log::warn!("{}: {error}", self.path.display());
                return false;
            }
            self.head = head;
        }
        let over = record.is_none_or(|r| r.fault_times.ready != 0);
        !over && now.since(self.begun) < FOLLOW.1
    }

    /// Writes the file anew, whole at any time.
    fn replace_head(&self, head: &str) -> io::Result<()> {
        let text = fs::read_to_string(&self.path)?;
        let body = text.split_once(BODY).map_or("", |(_, body)| body);
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(format!("{head}{BODY}{body}").as_bytes())?;
        // A power cut leaves the old report or the new one, whole.
        file.sync_all()?;
        fs::rename(new, &self.path)
    }

    fn head_of(&self, record: Option<&SlotRecord>, end: Option<&EventRecord>) -> String {
        let case = &self.case;
        let mut text =
            format!("child:    {}\nprocess:  {}, the {}. of this child\n", case.name, case.pid, case.generation);
        let detected = if case.detected == 0 { self.begun.0 } else { case.detected };
        let unix = self.unix.saturating_sub(self.begun.0.saturating_sub(detected));
        let fault = record.and_then(|r| {
            let kind = r.fault?;
            Some((kind.as_str(), describe::fault(kind, r.fault_args, 0, &r.fault_about.to_string())))
        });
        text += &report::summary(fault.as_ref().map(|(kind, detail)| (*kind, detail.as_str())), unix);
        if case.detected == 0 {
            text += "warning:  silent, below the deadline; nobody was killed\n";
        }
        let _ = writeln!(text, "evidence: {}", self.sentence);
        if record.is_some_and(|r| r.fault == Some(FaultKind::Crash) && r.fault_args[..3] == [1, r.fault_args[1], 1]) {
            let pattern = read(Path::new("/proc/sys/kernel/core_pattern"));
            let _ = writeln!(text, "core:     written by the kernel as its core_pattern says: {}", pattern.trim());
        }
        if let Some(end) = end {
            let _ = writeln!(text, "ended:    {}", describe::event(end, |_| None));
        }
        let times = record.map_or_else(
            || status::FaultTimes { last_beat: case.last_beat, detected: case.detected, ..status::FaultTimes::NONE },
            |r| r.fault_times,
        );
        text += &report::time_line(&describe::with_times(Event::default(), &times), detected);
        if let Some(log) = self.log.as_ref().filter(|log| !log.is_empty()) {
            let _ = write!(text, "\nlast lines of its output:\n{log}");
        }
        text
    }
}

/// What the record of events says about the end of this process.
fn how_it_ended(events: &event_ring::Reader<'_>, case: &Case) -> Option<EventRecord> {
    (events.oldest()..events.written()).rev().find_map(|seq| match events.read(seq) {
        event_ring::Found::Event(e)
            if e.kind == EventKind::Reaped && e.name == case.name && e.generation == case.generation =>
        {
            Some(e)
        }
        _ => None,
    })
}

/// The last lines of a log that were written before `unix`; each begins with its time.
fn last_lines(log: &Path, unix: u64) -> String {
    let Ok(mut file) = File::open(log) else { return String::new() };
    let length = file.metadata().map_or(0, |m| m.len());
    let mut bytes = Vec::new();
    let from = length.saturating_sub(LOG_LINES.1);
    if file.seek(io::SeekFrom::Start(from)).is_err() || file.take(LOG_LINES.1).read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let until = format_rfc3339(unix.saturating_add(LAST_OUTPUT.as_nanos() as u64));
    let lines: Vec<&str> =
        text.lines().filter(|line| line.get(..until.len()).is_some_and(|t| t <= until.as_str())).collect();
    lines[lines.len().saturating_sub(LOG_LINES.0)..].iter().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(state: char, ran_ns: u64, waited_ns: u64) -> Thread {
        Thread { tid: 1, name: "main".into(), state, wchan: "x".into(), ran_ns, waited_ns }
    }

    #[test]
    fn the_oldest_reports_make_room_and_those_of_a_wrong_clock_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let write = |time: u64| fs::write(dir.path().join(format!("{time}.txt")), "x").unwrap();
        let left = || {
            let mut names: Vec<u64> = fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().parse().unwrap())
                .collect();
            names.sort_unstable();
            names
        };
        // One of 1970, which has fewer digits, and one of a far future.
        for time in [9_000, 9_999_999_999_999_999] {
            write(time);
        }
        for n in 0..KEPT_REPORTS as u64 {
            let now = 1_700_000_000_000_000 + n;
            make_room(dir.path(), now).unwrap();
            write(now);
        }
        let kept = left();
        assert_eq!(kept.len(), KEPT_REPORTS);
        assert_eq!((kept[0], kept[KEPT_REPORTS - 1]), (1_700_000_000_000_000, 1_700_000_000_000_000 + 19));
    }

    #[test]
    fn starvation_is_told_from_spinning_and_waiting() {
        let looks =
            |state, ran: u64, waited: u64| judge(&[thread(state, 5, 5)], &[thread(state, 5 + ran, 5 + waited)], None);
        assert_eq!(looks('S', 0, 0), LooksLike::Waiting);
        assert_eq!(looks('R', 4_000_000, 10), LooksLike::Spinning);
        assert_eq!(looks('R', 0, 4_000_000), LooksLike::Starved);
        let history = |waited, ran| {
            let before = History { silent: 500, waited, ran };
            judge(&[thread('R', 5, 5)], &[thread('R', 4_000_005, 15)], Some(before))
        };
        assert_eq!(history(708, 30), LooksLike::Starved, "it only just got the processor back");
        assert_eq!(history(10, 490), LooksLike::Spinning);
        assert_eq!(history(300, 600), LooksLike::Spinning, "it ran more than it waited");
        assert_eq!(looks('T', 0, 0), LooksLike::Stopped);
        assert_eq!(looks('D', 0, 0), LooksLike::DeviceWait);
    }

    #[test]
    fn a_living_process_is_described() {
        let case = Case {
            slot: 0,
            generation: 1,
            pid: std::process::id(),
            name: Name::new("self"),
            last_beat: 0,
            detected: 0,
            silent: true,
            ended: false,
        };
        let report = look(&case, None);
        assert!(report.body.contains("threads") && report.files.contains("VmRSS"), "{}", report.body);
        let gone = look(&Case { pid: u32::MAX, ..case }, None);
        assert_eq!(gone.looks_like, LooksLike::Gone);
    }
}
