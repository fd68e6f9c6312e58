//! A child stops beating: how late that is detected, and how long each step back to work takes.

use std::thread::sleep;
use std::time::{Duration, Instant};

use multus_bench::board::{Life, Order, Slot};
use multus_bench::random::Random;
use multus_contract::api::event::Event;
use multus_ipc::words::{EventKind, FaultKind};

use crate::faults::Faults;
use crate::floor;
use crate::kernel;
use crate::load::Condition;
use crate::report::{Report, duration};
use crate::stats::{Series, ns_between};
use crate::world::{BLOCK, Beats, Failure, Setup, Spec, World};

const DEADLINE_US: u64 = 20_000;
const EVERY_US: u64 = 5_000;
const FAST_DEADLINE_US: u64 = 1_000;
const FAST_EVERY_US: u64 = 200;
/// Children whose beats are watched closely beat at this priority, so that only the daemon is measured.
pub(crate) const WRITER_PRIORITY: u8 = 10;
const FLOOR: &str = "floor: timerfd wakes a SCHED_FIFO thread";

/// Hangs at a deadline of 20 ms, in turns with the timer's floor.
pub(crate) fn measure(
    setup: &Setup,
    condition: Condition,
    repetitions: u64,
    report: &mut Report,
) -> Result<(), Failure> {
    let section = format!("{}: a child hangs (deadline {} ms)", condition.as_str(), DEADLINE_US / 1000);
    let mut world = World::start(setup, &[spec(setup, EVERY_US, DEADLINE_US)], 1)?;
    let mut random = Random::new(1);
    let mut hangs = Hangs::default();
    // The first time is for the caches, here and in the daemon.
    hangs.add(&mut world, 2, &mut random)?;
    hangs = Hangs { others: hangs.others, ..Hangs::default() };
    let before = kernel::threads(world.pid())?;
    let mut floor = Series::default();
    for block in blocks(repetitions) {
        hangs.add(&mut world, block, &mut random)?;
        floor.extend(floor::timer(block, &mut random)?);
    }
    let after = kernel::threads(world.pid())?;

    overshoot_figures(condition, &hangs, &floor, report);
    let word = condition.as_str();
    if let Some(thread) = before.first()
        && let Some(later) = after.iter().find(|t| t.id == thread.id)
    {
        let page_faults = later.page_faults.saturating_sub(thread.page_faults);
        let text = format!("{page_faults} while {repetitions} hangs were handled (thread {})", thread.name);
        report.figure(page_faults == 0, &format!("page faults of the watch loop, {word}"), "0", text);
    }
    report.value(&format!("{word}: late wake-ups of the watch loop in the hang run"), hangs.late_wakeups as f64);
    for (what, series) in [
        ("overshoot: detected - (last beat + deadline)", hangs.overshoot),
        ("safe state: outputs forced - detected", hangs.safe),
        ("kill: killed - detected (with evidence)", hangs.kill),
        ("reap: last process gone - killed", hangs.reap),
        ("spawn: next process made - reaped", hangs.spawn),
        ("ready: ready - made", hangs.ready),
        ("recovery: ready - detected", hangs.recovery),
    ] {
        let against = what.starts_with("overshoot").then_some(FLOOR);
        report.times(&section, what, series, against);
    }
    report.times(&section, FLOOR, floor, None);
    Ok(())
}

fn overshoot_figures(condition: Condition, hangs: &Hangs, floor: &Series, report: &mut Report) {
    let (Some(overshoot), Some(floor)) = (hangs.overshoot.summary(), floor.summary()) else { return };
    match condition {
        Condition::Quiet => {
            let text = duration(overshoot.p50);
            report.figure(overshoot.p50 <= 100_000.0, "overshoot, quiet: median", "<= 100 us", text);
            report.ratio("overshoot, quiet: p99", 3.0, overshoot.p99, floor.p99);
        }
        Condition::Loaded => {
            report.ratio("overshoot, loaded: p50", 2.0, overshoot.p50, floor.p50);
            report.ratio("overshoot, loaded: p99", 2.0, overshoot.p99, floor.p99);
            report.ratio("overshoot, loaded: p99.9", 2.0, overshoot.p999, floor.p999);
        }
    }
    let early = overshoot.min < 0.0 || hangs.others.wrong > 0;
    let text = format!("earliest {} after the deadline, {}", duration(overshoot.min), hangs.others.to_text());
    report.figure(!early, &format!("never early, {}", condition.as_str()), "0", text);
}

/// Hangs at the shortest deadline, 1 ms.
pub(crate) fn measure_fast(
    setup: &Setup,
    condition: Condition,
    repetitions: u64,
    report: &mut Report,
) -> Result<(), Failure> {
    let word = condition.as_str();
    let what = format!("1 ms deadline, {word}: hangs detected, wrong faults");
    if !setup.realtime {
        report.skipped(&what, "all, 0", "the writer needs the right to real-time priority");
        return Ok(());
    }
    let section = format!("{word}: a child hangs (deadline 1 ms, beats every 0.2 ms)");
    let mut world = World::start(setup, &[spec(setup, FAST_EVERY_US, FAST_DEADLINE_US)], 1)?;
    let mut random = Random::new(2);
    let mut hangs = Hangs::default();
    let mut floor = Series::default();
    for block in blocks(repetitions) {
        hangs.add(&mut world, block, &mut random)?;
        floor.extend(floor::timer(block, &mut random)?);
    }
    let detected = hangs.overshoot.values().len();
    let text = format!("{detected} of {repetitions}, {}", hangs.others.to_text());
    let all = detected as u64 == repetitions && hangs.others.wrong == 0;
    report.figure(all, &what, "all, 0", text);
    report.times(&section, "overshoot", hangs.overshoot, Some(FLOOR));
    report.times(&section, FLOOR, floor, None);
    Ok(())
}

/// Sizes of the turns that measurement and floor take.
pub(crate) fn blocks(repetitions: u64) -> impl Iterator<Item = u64> {
    (0..repetitions.div_ceil(BLOCK)).map(move |i| BLOCK.min(repetitions - i * BLOCK))
}

fn spec(setup: &Setup, every_us: u64, deadline_us: u64) -> Spec {
    let fifo = setup.realtime.then_some(WRITER_PRIORITY);
    Spec { name: CHILD.to_owned(), slot: 0, instances: 1, every_us, deadline_us, fifo, beats: Beats::Page }
}

const CHILD: &str = "hanger";
/// A life that no event is about.
const NOBODY: Life = Life { birth: 0, end: 0, before_beat: u64::MAX, after_beat: 0 };

/// What the events say about hangs that were ordered, and about other faults.
#[derive(Debug, Default)]
pub(crate) struct Hangs {
    pub(crate) overshoot: Series,
    safe: Series,
    kill: Series,
    reap: Series,
    spawn: Series,
    ready: Series,
    recovery: Series,
    /// From the end of the deadline, counted from the moment just before the last beat was made, to the detection.
    pub(crate) whole: Series,
    pub(crate) others: Faults,
    late_wakeups: u64,
    /// How long a beat may be on its way to the page, ns.
    way_ns: u64,
}

impl Hangs {
    /// Of children whose beats may be so long on their way to the page.
    pub(crate) fn with_way(way_ns: u64) -> Self {
        Self { way_ns, ..Self::default() }
    }

    /// Orders hangs until `number` of them have come about, and takes in what the daemon made of each.
    pub(crate) fn add(&mut self, world: &mut World, number: u64, random: &mut Random) -> Result<(), Failure> {
        let wanted = self.overshoot.values().len() as u64 + number;
        for _ in 0..4 * number {
            self.order(world)?;
            if self.overshoot.values().len() as u64 == wanted {
                return Ok(());
            }
            sleep(Duration::from_millis(30 + random.below(20)));
        }
        Err(world.complain("the child fails by itself again and again"))
    }

    fn order(&mut self, world: &mut World) -> Result<(), Failure> {
        // What came about by itself since the last order.
        for event in world.events()? {
            self.take(world, &event, &NOBODY)?;
        }
        let life = hang_once(world)?;
        let limit = Instant::now() + Duration::from_secs(10);
        let mut recovered = false;
        while !recovered {
            sleep(Duration::from_millis(20));
            for event in world.events()? {
                recovered |= event.event_kind() == Some(EventKind::Recovered);
                self.take(world, &event, &life)?;
            }
            if Instant::now() > limit {
                world.check()?;
                return Err(world.complain("a child that hung and beats again was not reported as recovered"));
            }
        }
        Ok(())
    }

    /// `life` is the one that was ordered to hang.
    fn take(&mut self, world: &World, event: &Event, life: &Life) -> Result<(), Failure> {
        match event.event_kind() {
            Some(EventKind::LateWakeup) => self.late_wakeups += 1,
            Some(EventKind::Fault) if !is_ordered(event, life, self.way_ns) => self.others.take(event, place(world)?),
            Some(EventKind::Recovered) if is_ordered(event, life, self.way_ns) => {
                self.take_times(event);
                if let (Some(last), Some(deadline), Some(detected)) =
                    (event.last_beat_ns, event.deadline_ns, event.detected_ns)
                {
                    self.whole.push(ns_between(life.before_beat + (deadline - last), detected));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn take_times(&mut self, event: &Event) {
        for (series, start, end) in [
            (&mut self.overshoot, event.deadline_ns, event.detected_ns),
            (&mut self.safe, event.detected_ns, event.safe_ns),
            (&mut self.kill, event.detected_ns, event.killed_ns),
            (&mut self.reap, event.killed_ns, event.reaped_ns),
            (&mut self.spawn, event.reaped_ns, event.spawned_ns),
            (&mut self.ready, event.spawned_ns, event.ready_ns),
            (&mut self.recovery, event.detected_ns, event.ready_ns),
        ] {
            if let (Some(start), Some(end)) = (start, end) {
                series.push(ns_between(start, end));
            }
        }
    }
}

/// Whether an event is about the hang of a life that ended on order; a beat may take `way_ns` to its page.
fn is_ordered(event: &Event, life: &Life, way_ns: u64) -> bool {
    let of_last_beat = |beat: u64| (life.before_beat..=life.after_beat + way_ns).contains(&beat);
    event.fault_kind() == Some(FaultKind::Hang) && event.last_beat_ns.is_some_and(of_last_beat)
}

fn place(world: &World) -> Result<Slot<'_>, Failure> {
    world.board.slot(0).ok_or_else(|| "a board without slots".into())
}

/// Orders the life that is there to hang, and waits for the next. What the old one noted.
fn hang_once(world: &mut World) -> Result<Life, Failure> {
    let slot = place(world)?;
    let life = slot.lives();
    slot.give(Order::Hang);
    if wait_for_next(slot, life) {
        return Ok(slot.life(life));
    }
    world.check()?;
    Err(world.complain("the hung child was not restarted within 20 s"))
}

/// Whether a later life than `life` beats within 20 s.
pub(crate) fn wait_for_next(slot: Slot<'_>, life: u64) -> bool {
    let limit = Instant::now() + Duration::from_secs(20);
    while slot.last_beaten() <= life || slot.last_beaten() < slot.lives() {
        if Instant::now() > limit {
            return false;
        }
        sleep(Duration::from_millis(5));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_add_up() {
        assert_eq!(blocks(45).collect::<Vec<_>>(), [20, 20, 5]);
        assert_eq!(blocks(20).collect::<Vec<_>>(), [20]);
    }

    #[test]
    fn only_ordered_hangs_count() {
        let life = Life { birth: 1, end: 60, before_beat: 50, after_beat: 52 };
        let event = Event {
            fault: Some("hang".to_owned()),
            last_beat_ns: Some(51),
            deadline_ns: Some(100),
            detected_ns: Some(130),
            killed_ns: Some(150),
            ..Event::default()
        };
        assert!(is_ordered(&event, &life, 0) && !is_ordered(&event, &Life::default(), 0));
        assert!(!is_ordered(&Event { last_beat_ns: Some(40), ..event.clone() }, &life, 0));
        let on_its_way = Event { last_beat_ns: Some(55), ..event.clone() };
        assert!(!is_ordered(&on_its_way, &life, 2) && is_ordered(&on_its_way, &life, 3));
        let mut hangs = Hangs::default();
        hangs.take_times(&event);
        assert_eq!((hangs.overshoot.values(), hangs.ready.values().len()), (&[30.0][..], 0));
    }
}
