//! The flight recorder: what a child did in the half minute before a fault, read from the trace in its heartbeat page, and
//! how the kernel treated it meanwhile.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use multus_ipc::MonoNs;
use multus_ipc::checkpoint::MAX_DEADLINES;
use multus_ipc::heartbeat::{self, Reader};
use multus_ipc::trace::{Mark, Pace};

/// The heartbeat pages of all slots as files: that of the present process and that of the one before, which a report may
/// still be about when the next process runs. Shared by the launcher, which makes pages, and the evidence thread.
#[derive(Debug)]
pub struct Traces(Mutex<Vec<[Option<Page>; 2]>>);

/// The page of a process, and the how-many-th of its child that is.
type Page = (u32, File);

impl Traces {
    /// For so many slots.
    pub fn new(slots: usize) -> Self {
        Self(Mutex::new((0..slots).map(|_| [None, None]).collect()))
    }

    /// The page of a new process.
    pub fn put(&self, slot: usize, generation: u32, page: File) {
        let mut slots = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some([present, before]) = slots.get_mut(slot) {
            *before = present.replace((generation, page));
        }
    }

    /// The slot has another child now: its processes are counted from one again.
    pub fn forget(&self, slot: usize) {
        let mut slots = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(pages) = slots.get_mut(slot) {
            *pages = [None, None];
        }
    }

    /// The words of a process's page as they are now; `None` when it has none, or it is too long ago.
    pub fn read(&self, slot: usize, generation: u32) -> Option<Vec<AtomicU64>> {
        let page = {
            let slots = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let found = slots.get(slot)?.iter().flatten().find(|(g, _)| *g == generation)?;
            found.1.try_clone().ok()?
        };
        let mut bytes = vec![0; heartbeat::BYTES];
        page.read_exact_at(&mut bytes, 0).ok()?;
        let words = bytes.chunks_exact(8).map(|b| AtomicU64::new(u64::from_le_bytes(b.try_into().unwrap_or_default())));
        Some(words.collect())
    }
}

/// Processor accounting of a process as of some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The process.
    pub pid: u32,
    /// When this was read.
    pub at: MonoNs,
    /// How long it had run, ns.
    pub ran_ns: u64,
    /// How long it had waited for a processor, ns.
    pub waited_ns: u64,
}

/// Half a minute of samples, one a second.
pub const KEPT_SAMPLES: usize = 32;
/// How far back a report goes, s.
const SECONDS: u64 = 30;
/// Width of a report.
const COLUMNS: usize = 100;

/// What the last half minute before `end` looked like: second by second, then mark by mark.
pub fn describe(page: &[AtomicU64], samples: &VecDeque<Sample>, pid: u32, end: MonoNs) -> String {
    let page = Reader::new(page);
    let mut text = String::new();
    for lane in 0..page.lanes() {
        let Some(trace) = page.trace(lane) else { continue };
        let name = lane_title(page, lane);
        let accounting: Vec<Sample> = samples.iter().copied().filter(|s| lane == 0 && s.pid == pid).collect();
        let _ = writeln!(text, "\nthe last {SECONDS} s{name}, second by second:");
        seconds(&mut text, &trace.pace(end), &accounting, end);
        marks(&mut text, page, &name, &trace.marks(end), end);
    }
    let checkpoints = page.checkpoints();
    for number in 0..MAX_DEADLINES {
        let Some((from, to)) = checkpoints.ends(number) else { break };
        let (count, shortest, longest) = checkpoints.times(number);
        let (from, to) = (checkpoints.name(from), checkpoints.name(to));
        let (shortest, longest) = (shortest as f64 / 1e6, longest as f64 / 1e6);
        let _ = writeln!(text, "checkpoints {from} -> {to}: {count} times, {shortest:.3} to {longest:.3} ms");
    }
    text
}

fn seconds(text: &mut String, pace: &[Pace], accounting: &[Sample], end: MonoNs) {
    let mut silent = 0;
    for back in (0..SECONDS).rev() {
        let from = end.0.saturating_sub((back + 1) * 1_000_000_000);
        let until = end.0.saturating_sub(back * 1_000_000_000);
        let within = |at: MonoNs| from < at.0 && at.0 <= until;
        let slots = pace.iter().filter(|p| within(p.begin));
        let (beats, longest) = slots.fold((0, 0), |(n, l), p| (n + p.beats, p.longest_us.max(l)));
        if beats == 0 {
            silent += 1;
            continue;
        }
        tell_silence(text, &mut silent);
        let longest = f64::from(longest) / 1e3;
        let _ = write!(text, "  {:>4} s  {beats:>7} beats, longest {longest:>9.3} ms", -(back as i64) - 1);
        if let Some((before, after)) = accounting.iter().zip(accounting.iter().skip(1)).find(|(_, a)| within(a.at)) {
            let ms = |later: u64, earlier: u64| later.saturating_sub(earlier) as f64 / 1e6;
            let (ran, waited) = (ms(after.ran_ns, before.ran_ns), ms(after.waited_ns, before.waited_ns));
            let _ = write!(text, "; ran {ran:.1} ms, waited for a processor {waited:.1} ms");
        }
        text.push('\n');
    }
    tell_silence(text, &mut silent);
}

fn tell_silence(text: &mut String, silent: &mut u32) {
    if *silent > 0 {
        let _ = writeln!(text, "          {silent} s without a beat");
        *silent = 0;
    }
}

fn marks(text: &mut String, page: Reader<'_>, name: &str, marks: &[(MonoNs, Mark)], end: MonoNs) {
    let _ = writeln!(text, "\nthe last {} marks{name}, ms before the fault:", marks.len());
    let mut line = String::new();
    for (at, mark) in marks {
        let what = match mark {
            Mark::Beat => "beat".to_owned(),
            Mark::Checkpoint(index) => format!("[{}]", page.checkpoints().name(*index)),
        };
        let word = format!("  {:.3} {what}", (end.0 - at.0) as f64 / 1e6);
        if line.len() + word.len() > COLUMNS {
            let _ = writeln!(text, "{line}");
            line.clear();
        }
        line += &word;
    }
    let _ = writeln!(text, "{line}");
}

fn lane_title(page: Reader<'_>, lane: usize) -> String {
    match (lane, page.lane_name(lane)) {
        (0, _) => String::new(),
        (_, name) if name.is_empty() => format!(" of lane {lane}"),
        (_, name) => format!(" of lane {name}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use multus_ipc::checkpoint::Plan;
    use multus_ipc::heartbeat::PageWriter;

    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn half_a_minute_is_told_with_its_gap_and_its_checkpoints() {
        let page: Vec<AtomicU64> = (0..heartbeat::WORDS).map(|_| AtomicU64::new(0)).collect();
        let mut plan = Plan::default();
        let section = plan.section("").unwrap();
        let read = plan.checkpoint(section, "read").unwrap();
        plan.deadline(read, read, 0, 100 * MS).unwrap();
        let header = heartbeat::header(1, 200 * MS);
        for (word, value) in page.iter().zip(header) {
            word.store(value, Ordering::Relaxed);
        }
        for (word, value) in page[heartbeat::CHECKPOINTS..].iter().zip(plan.words()) {
            word.store(*value, Ordering::Relaxed);
        }
        let writer = PageWriter::new(&page).unwrap();
        let read = writer.find_checkpoint(0, "read");
        let start = 1_000_000 * MS;
        let mut samples = VecDeque::new();
        for turn in 0..600u64 {
            let now = MonoNs(start + turn * 50 * MS + if turn > 300 { 70 * MS } else { 0 });
            writer.lane(0).beat_at(now);
            if let Some(read) = read.filter(|_| turn % 2 == 0) {
                writer.checkpoints().pass(read, now);
                writer.lane(0).trace_checkpoint(read, now);
            }
            if turn % 20 == 0 {
                samples.push_back(Sample { pid: 7, at: now, ran_ns: turn * MS, waited_ns: turn * MS / 10 });
            }
        }
        let end = MonoNs(start + 600 * 50 * MS + 270 * MS);
        let text = describe(&page, &samples, 7, end);
        assert!(text.contains("longest   120.000 ms"), "{text}");
        assert!(text.contains("; ran 20.0 ms, waited for a processor 2.0 ms"), "{text}");
        assert!(text.contains("250.000 beat") && text.contains("[read]"), "{text}");
        assert!(text.contains("checkpoints read -> read: 299 times, 100.000 to 170.000 ms"), "{text}");
        assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        let long_after = describe(&page, &samples, 7, MonoNs(end.0 + 60_000 * MS));
        assert_eq!(long_after.matches("30 s without a beat").count(), 1);
    }
}
