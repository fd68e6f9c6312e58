//! The last minute, hour and day of every child: the longest silence that was seen in each second, minute and ten minutes.
//!
//! Kept in memory, some kilobytes for each child. Hours and days are also in a file of the runtime directory, which is in memory
//! on most machines: a restart of this program does not begin the curves anew, one of the machine does.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use multus_contract::api::status::ChildStatus;
use multus_contract::config::replace_file;
use multus_ipc::MonoNs;
use serde::{Deserialize, Serialize};

use super::chart::Curve;
use crate::service::{Caller, Service};

/// How far back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    Minute,
    Hour,
    Day,
}

impl Range {
    /// Length of a step in seconds, and how many there are.
    const fn steps(self) -> (u64, u64) {
        match self {
            Self::Minute => (1, 60),
            Self::Hour => (60, 60),
            Self::Day => (600, 144),
        }
    }
}

/// What is known of all children.
#[derive(Debug)]
pub(super) struct Past {
    children: Mutex<BTreeMap<String, Child>>,
    file: PathBuf,
}

/// How the silences of a child spread, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Longest {
    /// Half of the steps have no longer silence.
    pub(super) p50: f64,
    /// 90 % of the steps have no longer one.
    pub(super) p90: f64,
    /// The longest of all.
    pub(super) max: f64,
    /// How many steps are known.
    pub(super) steps: usize,
}

/// What is known of one child.
#[derive(Debug, Default)]
struct Child {
    ranges: [VecDeque<Step>; 3],
    /// The longest gap of the process when it was last looked at, and which process that was.
    longest: Option<(u32, f64)>,
    /// The curves as they were drawn in this second.
    drawn: [Option<(u64, Curve)>; 3],
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Names the run of the machine: its monotonic time counts the steps.
    boot: String,
    /// Steps of an hour and of a day, by child.
    children: BTreeMap<String, [VecDeque<Step>; 2]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Step {
    number: u64,
    us: f64,
    deadline_us: f64,
}

impl Past {
    /// Looks at the status now and then for as long as anybody holds this.
    pub(super) fn start(service: &Service) -> std::io::Result<Arc<Self>> {
        let file = service.dirs().runtime.join("curves.json");
        let children = kept(&file, &boot(), second()).unwrap_or_default();
        let past = Arc::new(Self { children: Mutex::new(children), file });
        let (weak, service) = (Arc::downgrade(&past), service.clone());
        std::thread::Builder::new().name("past".into()).spawn(move || follow(&weak, &service))?;
        Ok(past)
    }

    /// Keeps hours and days for the next process.
    pub(super) fn keep(&self) {
        let of = |child: &Child| [child.ranges[1].clone(), child.ranges[2].clone()];
        let children = {
            let all = self.children.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().map(|(name, child)| (name.clone(), of(child))).collect()
        };
        // Numbers and names can always be written.
        let text = serde_json::to_string(&Kept { boot: boot(), children }).unwrap_or_default();
        if let Err(error) = replace_file(&self.file, &text, 0o600) {
            log::warn!("the curves would begin anew with a restart: {error}");
        }
    }

    /// One look, in this second.
    fn look(&self, second: u64, children: &[ChildStatus]) {
        let mut all = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|name, _| children.iter().any(|child| child.name == *name));
        for child in children {
            let known = all.entry(child.name.clone()).or_default();
            let silence = known.silence(child);
            for (range, steps) in RANGES.into_iter().zip(&mut known.ranges) {
                let (length, count) = range.steps();
                let number = second / length;
                while steps.front().is_some_and(|step| step.number + count < number) {
                    steps.pop_front();
                }
                let Some((us, deadline_us)) = silence else { continue };
                match steps.back_mut() {
                    Some(step) if step.number == number => {
                        step.us = step.us.max(us);
                        step.deadline_us = deadline_us;
                    }
                    _ => steps.push_back(Step { number, us, deadline_us }),
                }
            }
        }
    }

    /// The curve of a child.
    pub(super) fn curve(&self, name: &str, range: Range) -> Curve {
        let mut all = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Child { ranges, drawn, .. }) = all.get_mut(name) else { return Curve::of([]) };
        let (steps, drawn, now) = (&ranges[range as usize], &mut drawn[range as usize], second());
        match drawn {
            Some((second, curve)) if *second == now => curve.clone(),
            _ => drawn.insert((now, draw(steps, range, now))).1.clone(),
        }
    }

    /// How the longest silences of the steps spread; `None` while nothing is known.
    pub(super) fn longest(&self, name: &str, range: Range) -> Option<Longest> {
        let all = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        let mut silences: Vec<f64> = all.get(name)?.ranges[range as usize].iter().map(|step| step.us).collect();
        silences.sort_by(f64::total_cmp);
        let at = |per_cent: usize| silences.get((silences.len() * per_cent).div_ceil(100).max(1) - 1).copied();
        Some(Longest { p50: at(50)?, p90: at(90)?, max: at(100)?, steps: silences.len() })
    }
}

fn draw(steps: &VecDeque<Step>, range: Range, second: u64) -> Curve {
    let (length, count) = range.steps();
    // The present second is not over yet; a longer step is shown as far as it goes.
    let end = second / length + u64::from(range != Range::Minute);
    #[expect(clippy::cast_precision_loss, reason = "at most 144")]
    let place = |number: u64| 1.0 - (end - 1 - number) as f64 / (count - 1) as f64;
    let mut known = steps.iter().peekable();
    Curve::of((end.saturating_sub(count)..end).map(|number| {
        while known.next_if(|step| step.number < number).is_some() {}
        let step = known.peek().filter(|step| step.number == number);
        (place(number), step.map(|step| step.us / step.deadline_us))
    }))
}

/// Counts seconds since the machine started; never runs back. Begins late enough for a whole range before it.
fn second() -> u64 {
    MonoNs::now().0 / SECOND_NS + DAY
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// What the last process kept of this run of the machine; `None` if there is nothing that can be used.
fn kept(file: &Path, boot: &str, now: u64) -> Option<BTreeMap<String, Child>> {
    let mut text = String::new();
    std::fs::File::open(file).ok()?.take(LARGEST).read_to_string(&mut text).ok()?;
    let kept: Kept = serde_json::from_str(&text).ok().filter(|kept: &Kept| !boot.is_empty() && kept.boot == boot)?;
    let usable = |steps: VecDeque<Step>, range: Range| {
        let (length, count) = range.steps();
        let is_good = |step: &Step| {
            step.number <= now / length
                && step.number + count >= now / length
                && step.us >= 0.0
                && step.deadline_us > 0.0
        };
        let mut usable: VecDeque<Step> = VecDeque::new();
        for step in steps.into_iter().filter(is_good) {
            if usable.back().is_none_or(|last| last.number < step.number) {
                usable.push_back(step);
            }
        }
        usable
    };
    let child = |[hour, day]: [VecDeque<Step>; 2]| Child {
        ranges: [VecDeque::new(), usable(hour, Range::Hour), usable(day, Range::Day)],
        ..Child::default()
    };
    Some(kept.children.into_iter().map(|(name, ranges)| (name, child(ranges))).collect())
}

impl Child {
    /// The longest silence that this look shows, and the deadline, in microseconds. A process that is between two beats has
    /// been silent since the last one; a longest gap that has grown happened since the look before.
    fn silence(&mut self, child: &ChildStatus) -> Option<(f64, f64)> {
        #[expect(clippy::cast_precision_loss, reason = "deadlines are at most a day")]
        let us = |value: u64| value as f64;
        let deadline = us(child.deadline_us.filter(|us| *us > 0)?);
        let pid = child.pid?;
        let age = us(child.last_beat_age_us?);
        let spread = child.beat_interval_us;
        let typical = spread.and_then(|spread| spread.p50).unwrap_or(0.0);
        let grown = match (spread, self.longest) {
            (Some(spread), Some((known, longest))) if known == pid && spread.max > longest => spread.max,
            _ => 0.0,
        };
        self.longest = spread.map(|spread| (pid, spread.max));
        Some((age.max(typical).max(grown), deadline))
    }
}

fn follow(past: &Weak<Past>, service: &Service) {
    let own = Caller::new("pages", Caller::USER);
    let mut kept = Instant::now();
    while let Some(past) = past.upgrade() {
        if let Ok(snapshot) = service.status(&own) {
            past.look(second(), &snapshot.status.children);
        }
        if kept.elapsed() >= KEEP {
            kept = Instant::now();
            past.keep();
        }
        drop(past);
        // At the beginning of every second, so that none is left out.
        std::thread::sleep(Duration::from_nanos(SECOND_NS + LATER_NS - MonoNs::now().0 % SECOND_NS));
    }
}

const RANGES: [Range; 3] = [Range::Minute, Range::Hour, Range::Day];
const DAY: u64 = 86_400;
/// The shortest step, and from look to look; a silence between two looks shows by the longest gap that has grown.
const SECOND_NS: u64 = 1_000_000_000;
/// Clearly within the second, however early a sleep ends.
const LATER_NS: u64 = 10_000_000;
/// Also at the end in good order. Rare enough for a runtime directory on an SD card, where there is one.
const KEEP: Duration = Duration::from_secs(300);
/// A thousand children take less.
const LARGEST: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use multus_contract::api::status::Spread;

    #[test]
    fn a_step_keeps_its_longest_silence_and_old_ones_go() {
        let child = |age: u64, max: f64| ChildStatus {
            name: "pump".into(),
            pid: Some(7),
            deadline_us: Some(100_000),
            last_beat_age_us: Some(age),
            beat_interval_us: Some(Spread { p50: Some(10_000.0), p99: None, max }),
            ..ChildStatus::default()
        };
        let past = Past { children: Mutex::default(), file: PathBuf::new() };
        let known = |range: Range| {
            let all = past.children.lock().expect("not poisoned");
            all["pump"].ranges[range as usize].iter().map(|step| (step.number, step.us)).collect::<Vec<_>>()
        };
        past.look(60_000, &[child(3_000, 12_000.0)]);
        assert_eq!(known(Range::Minute), [(60_000, 10_000.0)], "the usual interval at least");
        past.look(60_000, &[child(20_000, 20_000.0)]);
        past.look(60_000, &[child(1_000, 20_000.0)]);
        past.look(60_001, &[child(1_000, 80_000.0)]);
        assert_eq!(known(Range::Minute), [(60_000, 20_000.0), (60_001, 80_000.0)], "a gap between two looks counts");
        assert_eq!(known(Range::Hour), [(1_000, 80_000.0)]);
        assert_eq!(known(Range::Day), [(100, 80_000.0)]);
        let all = Longest { p50: 20_000.0, p90: 80_000.0, max: 80_000.0, steps: 2 };
        assert_eq!(past.longest("pump", Range::Minute), Some(all));
        past.look(60_061, &[ChildStatus { deadline_us: None, ..child(0, 0.0) }]);
        assert_eq!(known(Range::Minute), [(60_001, 80_000.0)]);
        past.look(60_062, &[]);
        assert!(past.longest("pump", Range::Day).is_none());
    }

    #[test]
    fn hours_and_days_outlive_the_process_and_nothing_else_is_believed() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let file = temp.path().join("curves.json");
        let past = Past { children: Mutex::default(), file: file.clone() };
        let child = ChildStatus {
            name: "pump".into(),
            pid: Some(7),
            deadline_us: Some(100_000),
            last_beat_age_us: Some(30_000),
            ..ChildStatus::default()
        };
        let now = second();
        past.look(now - 1800, std::slice::from_ref(&child));
        past.look(now, std::slice::from_ref(&child));
        past.keep();
        let again = kept(&file, &boot(), now).expect("it was kept");
        let old = past.children.lock().expect("not poisoned");
        assert_eq!(again["pump"].ranges[1..], old["pump"].ranges[1..]);
        assert!(again["pump"].ranges[1].len() == 2 && again["pump"].ranges[0].is_empty());

        assert!(kept(&file, "another run of the machine", now).is_none());
        assert!(kept(&file, &boot(), now + 2 * DAY).expect("it can be read")["pump"].ranges[2].is_empty(), "too old");
        let earlier = kept(&file, &boot(), now - 1200).expect("it can be read");
        assert_eq!(earlier["pump"].ranges[1].len(), 1, "what is still to come is not believed");
        let step = |number: u64, us: f64| format!("{{\"number\":{number},\"us\":{us},\"deadline_us\":1.0}}");
        let (same, less) = (step(now / 60, 1.0), step(now / 60 - 1, -1.0));
        let text = format!("{{\"boot\":{:?},\"children\":{{\"x\":[[{same},{same},{less}],[]]}}}}", boot());
        std::fs::write(&file, text).expect("own file");
        assert_eq!(kept(&file, &boot(), now).expect("it can be read")["x"].ranges[1].len(), 1);
        std::fs::write(&file, "{").expect("own file");
        assert!(kept(&file, &boot(), now).is_none(), "damaged");
    }
}
