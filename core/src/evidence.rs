//! What a faulty process was doing, found out between the safe outputs and the kill: state, place in the kernel and
//! processor time of each thread, and whether the process hung or was starved of the processor.
//!
//! Its own thread, because /proc can block (a process in uninterruptible sleep holds locks); the watch thread waits no
//! longer than the child's evidence budget, and replaces this thread when it does not come back.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use multus_contract::api::time::format_rfc3339;
use multus_ipc::MonoNs;
use multus_ipc::child::Lane;
use multus_ipc::status;
use multus_ipc::text::{Name, Text};
use multus_ipc::time::unix_ns;

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
    /// Says which processes there are.
    pub status: &'static [multus_ipc::sync::AtomicU64],
    /// Where reports go: one folder for each child.
    pub faults_dir: PathBuf,
    /// The thread's own heartbeat.
    pub lane: Lane,
}

/// A pair of ends.
pub fn channel(
    slots: usize,
    wake: &Arc<Wake>,
    wake_watch: &Arc<Wake>,
    status: &'static [multus_ipc::sync::AtomicU64],
    faults_dir: PathBuf,
    lane: Lane,
) -> (WatchEnd, Ends) {
    let (cases, cases_in) = rtrb::RingBuffer::new(slots + 8);
    let (found, found_in) = rtrb::RingBuffer::new(slots + 8);
    let ends = Ends {
        cases: cases_in,
        found,
        wake: Arc::clone(wake),
        wake_watch: Arc::clone(wake_watch),
        status,
        faults_dir,
        lane,
    };
    (WatchEnd { cases, found: found_in }, ends)
}

const IDLE: Duration = Duration::from_millis(500);
/// Two looks at a process this far apart tell running from waiting from starving.
const APART: Duration = Duration::from_millis(4);
/// Threads that are described; of the others only the number is told.
const MAX_THREADS: usize = 32;
/// Reports that are kept for each child.
const KEPT_REPORTS: usize = 20;

/// Works until the daemon ends.
///
/// # Errors
/// The poll could not be made.
pub fn run(mut ends: Ends, end: &std::sync::atomic::AtomicBool) -> io::Result<()> {
    let mut poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&ends.wake.raw()), Token(0), Interest::READABLE)?;
    let mut events = Events::with_capacity(4);
    let mut samples: Vec<Sample> = Vec::new();
    let mut sampled = MonoNs(0);
    while !end.load(std::sync::atomic::Ordering::Relaxed) {
        match poll.poll(&mut events, Some(IDLE)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        ends.lane.beat();
        ends.wake.drain();
        while let Ok(case) = ends.cases.pop() {
            let report = look(&case, samples.get(case.slot));
            let text = Text::new(&report.sentence);
            let found = Found { slot: case.slot, generation: case.generation, looks_like: report.looks_like, text };
            // The kill must not wait for the disk: first the answer, then the file.
            let _ = ends.found.push(found);
            ends.wake_watch.wake();
            if let Err(error) = keep(&ends.faults_dir, &case, &report) {
                log::warn!("{}: the report of its fault could not be kept: {error}", case.name);
            }
            ends.lane.beat();
        }
        let now = MonoNs::now();
        if now.since(sampled) >= Duration::from_secs(1) {
            sampled = now;
            sample(&mut samples, ends.status, &ends.lane);
        }
    }
    Ok(())
}

/// Processor accounting of a process as of some time.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    pid: u32,
    at: MonoNs,
    ran_ns: u64,
    waited_ns: u64,
}

/// Once a second: how long each child has run and waited for a processor, so that a fault can say what changed.
fn sample(samples: &mut Vec<Sample>, status: &[multus_ipc::sync::AtomicU64], lane: &Lane) {
    let Ok(reader) = status::Reader::new(status) else { return };
    samples.resize(reader.slots(), Sample::default());
    for (slot, sample) in samples.iter_mut().enumerate() {
        let Ok(Some(record)) = reader.slot(slot) else { continue };
        if record.pid == 0 {
            *sample = Sample::default();
        } else if let Some((ran_ns, waited_ns)) = schedstat(Path::new(&format!("/proc/{}/schedstat", record.pid))) {
            *sample = Sample { pid: record.pid, at: MonoNs::now(), ran_ns, waited_ns };
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
    body: String,
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
        return Report {
            looks_like: LooksLike::Gone,
            sentence: "the process had ended before it could be looked at".into(),
            body: String::new(),
        };
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
            if looks_like == LooksLike::Starved { "" } else { ": a hang, not starvation" }
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
    for file in ["status", "limits", "io"] {
        let _ = write!(body, "\n{file}:\n{}", read(&proc.join(file)));
    }
    for resource in ["cpu", "memory", "io"] {
        let _ = write!(body, "\npressure {resource}:\n{}", read(Path::new(&format!("/proc/pressure/{resource}"))));
    }
    Report { looks_like, sentence, body }
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
    let text = fs::read_to_string(path).ok()?;
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

/// Keeps the report in a file of its own, and a bounded number of them.
fn keep(dir: &Path, case: &Case, report: &Report) -> io::Result<()> {
    let dir = dir.join(case.name.to_string().replace('/', "_"));
    fs::create_dir_all(&dir)?;
    let now = unix_ns();
    let text = format!(
        "{} process {} at {}\nlast beat {:.3} ms before this look\n{}",
        case.name,
        case.pid,
        format_rfc3339(now),
        MonoNs::now().since(MonoNs(case.last_beat)).as_secs_f64() * 1000.0,
        report.body
    );
    fs::write(dir.join(format!("{}.txt", now / 1000)), text)?;
    let mut kept: Vec<PathBuf> = fs::read_dir(&dir)?.flatten().map(|e| e.path()).collect();
    kept.sort();
    let surplus = kept.len().saturating_sub(KEPT_REPORTS);
    for old in &kept[..surplus] {
        let _ = fs::remove_file(old);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(state: char, ran_ns: u64, waited_ns: u64) -> Thread {
        Thread { tid: 1, name: "main".into(), state, wchan: "x".into(), ran_ns, waited_ns }
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
        let case = Case { slot: 0, generation: 1, pid: std::process::id(), name: Name::new("self"), last_beat: 0 };
        let report = look(&case, None);
        assert!(report.body.contains("threads") && report.body.contains("VmRSS"), "{}", report.body);
        let gone = look(&Case { pid: u32::MAX, ..case }, None);
        assert_eq!(gone.looks_like, LooksLike::Gone);
    }
}
