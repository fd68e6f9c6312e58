//! What multusd costs while nothing happens, and whether it stays silent then.

use std::thread::sleep;
use std::time::{Duration, Instant};

use multus_ipc::words::EventKind;

use crate::faults::Faults;
use crate::hang::WRITER_PRIORITY;
use crate::kernel::{self, Thread};
use crate::load::Load;
use crate::report::Report;
use crate::world::{Beats, Failure, Setup, Spec, World};

const MEMORY: &str = "resident memory with 10 children";
const MEMORY_LIMIT_MB: f64 = 12.0;
const COST_LIMIT_PERCENT: f64 = 5.0;
const COST_TIME: Duration = Duration::from_secs(10);
const NOTIFIERS: usize = 200;
const NOTIFY_COST_LIMIT_PERCENT: f64 = 1.0;
const ALARM_CHILDREN: usize = 100;

/// Memory of the daemon with ten children.
pub(crate) fn memory(setup: &Setup, report: &mut Report) -> Result<(), Failure> {
    let spec = Spec {
        name: "child".to_owned(),
        slot: 0,
        instances: 10,
        every_us: 20_000,
        deadline_us: 100_000,
        fifo: None,
        beats: Beats::Page,
    };
    let world = World::start(setup, &[spec], 10)?;
    sleep(Duration::from_secs(2));
    let megabytes = kernel::resident_kib(world.pid())? as f64 * 1024.0 / 1e6;
    report.value("resident memory with 10 children, MB", megabytes);
    report.figure(megabytes <= MEMORY_LIMIT_MB, MEMORY, "<= 12 MB", format!("{megabytes:.1} MB"));
    Ok(())
}

/// Processor time of the daemon with many children that beat every 20 to 25 ms at a deadline of 100 ms.
pub(crate) fn cost(setup: &Setup, children: usize, report: &mut Report) -> Result<(), Failure> {
    let mut specs = Vec::new();
    let mut slot = 0;
    while slot < children {
        let instances = (children - slot).min(200);
        let every_us = 20_000 + 1_000 * (specs.len() as u64 % 6);
        let name = format!("many-{}", specs.len());
        specs.push(Spec { name, slot, instances, every_us, deadline_us: 100_000, fifo: None, beats: Beats::Page });
        slot += instances;
    }
    let world = World::start(setup, &specs, children)?;
    sleep(Duration::from_secs(3));
    let faults_before = faults(&world)?;
    let (all, parts) = busy(&world, &format!("{children} children"), report)?;
    let faults = faults(&world)? - faults_before;
    report.value(&format!("{children} children: all threads, % of a processor"), all);
    report.value(&format!("{children} children: faults in 10 s"), faults as f64);
    let what = format!("processor time with {children} children, deadline 100 ms");
    let text = format!("{all:.2} % of one ({}); {faults} faults meanwhile", parts.join(", "));
    report.figure(all <= COST_LIMIT_PERCENT, &what, "<= 5 %", text);
    if faults_before + faults > 0 {
        report.note(format!(
            "{children} ordinary processes beat more than {} times a second here; {} of them missed a deadline of 100 ms",
            children * 40,
            faults_before + faults
        ));
    }
    Ok(())
}

/// Processor time of the daemon with 200 children that beat by sd_notify twice a second.
pub(crate) fn notify_cost(setup: &Setup, report: &mut Report) -> Result<(), Failure> {
    let spec = Spec {
        name: "notifier".to_owned(),
        slot: 0,
        instances: NOTIFIERS,
        every_us: 500_000,
        deadline_us: 1_000_000,
        fifo: None,
        beats: Beats::Notify,
    };
    let world = World::start(setup, &[spec], NOTIFIERS)?;
    sleep(Duration::from_secs(3));
    let (share, parts) = busy(&world, "200 notify children", report)?;
    report.value("200 notify children, all threads, % of a processor", share);
    let what = "processor time with 200 notify children, deadline 1 s";
    report.figure(
        share <= NOTIFY_COST_LIMIT_PERCENT,
        what,
        "<= 1 %",
        format!("{share:.2} % of one ({})", parts.join(", ")),
    );
    Ok(())
}

/// Processor time of the daemon in [`COST_TIME`], percent of a processor: all of it, and that of each thread of note.
fn busy(world: &World, who: &str, report: &mut Report) -> Result<(f64, Vec<String>), Failure> {
    let (start, before) = (Instant::now(), kernel::threads(world.pid())?);
    sleep(COST_TIME);
    let (elapsed, after) = (start.elapsed(), kernel::threads(world.pid())?);
    let share = |busy_ns: u64| busy_ns as f64 / elapsed.as_nanos() as f64 * 100.0;
    let spent = |thread: &Thread| {
        let earlier = before.iter().find(|t| t.id == thread.id).map_or(0, |t| t.busy_ns);
        thread.busy_ns.saturating_sub(earlier)
    };
    let mut parts = Vec::new();
    for thread in &after {
        let part = share(spent(thread));
        report.value(&format!("{who}: thread {}, % of a processor", thread.name), part);
        if part >= 0.05 {
            parts.push(format!("{} {part:.2} %", thread.name));
        }
    }
    Ok((share(after.iter().map(spent).sum()), parts))
}

/// Children that beat in time, on a machine that has no processor time left: no fault may be reported.
pub(crate) fn alarms(setup: &Setup, minutes: f64, report: &mut Report) -> Result<(), Failure> {
    let what = format!("false alarms, {ALARM_CHILDREN} children at 50 ms, loaded, {minutes} min");
    if !setup.realtime {
        report.skipped(&what, "0", "the writers need the right to real-time priority");
        return Ok(());
    }
    if !Load::is_available() {
        report.skipped(&what, "0", "stress-ng is not installed");
        return Ok(());
    }
    let spec = Spec {
        name: "punctual".to_owned(),
        slot: 0,
        instances: ALARM_CHILDREN,
        every_us: 10_000,
        deadline_us: 50_000,
        fifo: Some(WRITER_PRIORITY),
        beats: Beats::Page,
    };
    let mut world = World::start(setup, &[spec], ALARM_CHILDREN)?;
    let load = Load::start()?;
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let mut found = Faults::default();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        sleep(left.min(Duration::from_secs(5)));
        world.check()?;
        for event in world.events()?.iter().filter(|e| e.event_kind() == Some(EventKind::Fault)) {
            let instance = event.instance.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            found.take(event, world.board.slot(instance).ok_or("an instance without a slot")?);
        }
        if left.is_zero() {
            break;
        }
    }
    drop(load);
    let lateness = world.status()?.daemon.watch_loop.lateness_us;
    report.value("false-alarm run: largest lateness of the watch loop, us", lateness.max);
    report.figure(found.wrong == 0, &what, "0", found.to_text());
    Ok(())
}

/// Faults of all children since the start.
fn faults(world: &World) -> Result<u64, Failure> {
    Ok(world.status()?.children.iter().filter_map(|c| c.last_fault.as_ref()).map(|f| f.count).sum())
}
