//! A process dies: how long until the first instruction of the next, for one that lived a while and for one that died
//! young, against the same without multusd.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use multus_bench::board::{Order, Slot};
use multus_ipc::MonoNs;
use multus_ipc::words::EventKind;

use crate::floor;
use crate::hang::{blocks, wait_for_next};
use crate::load::Condition;
use crate::report::Report;
use crate::stats::{Series, ns_between};
use crate::world::{BLOCK, Beats, Failure, Setup, Spec, World};

/// Children that die in turn, so that each is old again when it is its turn.
const OLD_CHILDREN: usize = BLOCK as usize;
const YOUNG: usize = OLD_CHILDREN;
const FLOOR_SLOT: usize = OLD_CHILDREN + 1;
const OLD_AGE_NS: u64 = 2_000_000_000;
const YOUNG_AGE_NS: f64 = 50e6;
const FLOOR: &str = "floor: the same without multusd";

pub(crate) fn measure(
    setup: &Setup,
    condition: Condition,
    repetitions: u64,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut specs: Vec<Spec> = (0..OLD_CHILDREN).map(|n| spec(format!("old-{n}"), n, 20_000)).collect();
    specs.push(spec("young".to_owned(), YOUNG, 5_000));
    let mut world = World::start(setup, &specs, FLOOR_SLOT + 1)?;
    let (mut old, mut young, mut detection) = (Series::default(), Series::default(), Series::default());
    let (mut floor, mut spawn, mut oldest_young) = (Series::default(), Series::default(), 0.0f64);
    for block in blocks(repetitions) {
        old.extend(old_deaths(&mut world, block, &mut detection)?);
        let restarts = floor::restarts(block, &setup.child, &world.board, FLOOR_SLOT)?;
        floor.extend(restarts.iter().map(|r| r.whole));
        spawn.extend(restarts.iter().map(|r| r.spawn));
        for (age, restart) in young_deaths(&mut world, block)? {
            oldest_young = oldest_young.max(age);
            young.push(restart);
        }
        // Read, so that the list does not overflow; the daemon tells the same about young ones as about old ones.
        world.events()?;
    }

    let word = condition.as_str();
    if let (Some(old), Some(young), Some(floor)) = (old.summary(), young.summary(), floor.summary()) {
        report.ratio(&format!("crash -> first instruction, {word}: median"), 3.0, old.p50, floor.p50);
        report.ratio(&format!("crash -> first instruction, died young, {word}: median"), 3.0, young.p50, floor.p50);
    }
    if oldest_young > YOUNG_AGE_NS {
        report.note(format!("{word}: a process that should have died young lived {:.0} ms", oldest_young / 1e6));
    }
    let section = format!("{word}: a child crashes (delays = [\"0s\"])");
    report.times(&section, "crash -> first instruction, lived > 2 s", old, Some(FLOOR));
    report.times(&section, "crash -> first instruction, lived < 50 ms", young, Some(FLOOR));
    report.times(&section, "crash -> detected", detection, None);
    report.times(&section, FLOOR, floor, None);
    report.times(&section, "floor: posix_spawn -> first instruction", spawn, None);
    Ok(())
}

fn spec(name: String, slot: usize, every_us: u64) -> Spec {
    Spec { name, slot, instances: 1, every_us, deadline_us: 1_000_000, fifo: None, beats: Beats::Page }
}

/// Each of the old children dies at most once: by a signal or an exit code, in turn.
fn old_deaths(world: &mut World, number: u64, detection: &mut Series) -> Result<Vec<f64>, Failure> {
    let mut restarts = Vec::new();
    let mut deaths = BTreeMap::new();
    world.events()?;
    for n in 0..OLD_CHILDREN.min(usize::try_from(number).unwrap_or(OLD_CHILDREN)) {
        let slot = place(world, n)?;
        let life = slot.lives();
        let age = MonoNs::now().0.saturating_sub(slot.life(life).birth);
        sleep(Duration::from_nanos(OLD_AGE_NS.saturating_sub(age)));
        slot.give(if n % 2 == 0 { Order::Kill } else { Order::Exit });
        if !wait_for_next(slot, life) {
            return Err(world.complain("a child that died was not restarted within 20 s"));
        }
        let death = slot.life(life).end;
        deaths.insert(format!("old-{n}"), death);
        restarts.push(ns_between(death, slot.life(life + 1).birth));
        sleep(Duration::from_millis(20));
    }
    let limit = Instant::now() + Duration::from_secs(10);
    while !deaths.is_empty() {
        for event in world.events()? {
            if event.event_kind() == Some(EventKind::Fault)
                && let Some(detected) = event.detected_ns
                && let Some(death) = event.child.as_ref().and_then(|child| deaths.remove(child))
            {
                detection.push(ns_between(death, detected));
            }
        }
        if Instant::now() > limit {
            return Err(world.complain(&format!("no fault was reported for {deaths:?}")));
        }
        sleep(Duration::from_millis(20));
    }
    Ok(restarts)
}

/// Lets the young child die so many times in a row. Age, and time to the first instruction of the next, ns.
fn young_deaths(world: &mut World, number: u64) -> Result<Vec<(f64, f64)>, Failure> {
    let slot = place(world, YOUNG)?;
    let first = slot.lives();
    slot.die_young(number);
    // The death that begins the row is not measured: it is that of an old one.
    slot.give(Order::Kill);
    if !wait_for_next(slot, first + number) {
        return Err(world.complain(&format!("{} of {number} young deaths after 20 s", slot.lives() - first)));
    }
    sleep(Duration::from_millis(100));
    Ok((first + 1..=first + number)
        .map(|life| {
            let (this, next) = (slot.life(life), slot.life(life + 1));
            (ns_between(this.birth, this.end), ns_between(this.end, next.birth))
        })
        .collect())
}

fn place(world: &World, slot: usize) -> Result<Slot<'_>, Failure> {
    world.board.slot(slot).ok_or_else(|| "no such slot on the board".into())
}
