//! Children that know nothing of the heartbeat page: how late a hang of theirs is detected, counted from the moment in
//! which they made their last beat, and whether a neighbour that floods the daemon with beats changes that.

use std::net::TcpListener;

use multus_bench::random::Random;

use crate::hang::{Hangs, WRITER_PRIORITY, blocks};
use crate::report::{Report, duration};
use crate::world::{Beats, Failure, Setup, Spec, World};

const DEADLINE_US: u64 = 20_000;
const EVERY_US: u64 = 5_000;
/// A beat that is on its way for longer than this is not taken for the last one.
const LONGEST_WAY_NS: u64 = 10_000_000;
const MEDIAN_LIMIT_NS: f64 = 300_000.0;
const P999_LIMIT_NS: f64 = 3_000_000.0;
const FLOOD_LIMIT_NS: f64 = 1_000_000.0;

/// Hangs at a deadline of 20 ms by both methods, then beside a flood.
pub(crate) fn measure(setup: &Setup, repetitions: u64, report: &mut Report) -> Result<(), Failure> {
    for (word, is_port) in [("notify", false), ("control-port", true)] {
        let section = format!("quiet: a child that beats by {word} hangs (deadline {} ms)", DEADLINE_US / 1000);
        let beats = if is_port { Beats::ControlPort(free_port()?) } else { Beats::Notify };
        let hangs = hang(setup, &[spec(setup, beats)], repetitions)?;
        let quiet = hangs.whole.summary();
        if let Some(whole) = quiet {
            let (p50, p999) = (whole.p50, whole.p999);
            report.figure(
                p50 <= MEDIAN_LIMIT_NS,
                &format!("overshoot, {word}, quiet: median"),
                "<= 300 us",
                duration(p50),
            );
            report.figure(
                p999 <= P999_LIMIT_NS,
                &format!("overshoot, {word}, quiet: p99.9"),
                "<= 3 ms",
                duration(p999),
            );
        }
        let text = format!("{} of {repetitions}, {}", hangs.overshoot.values().len(), hangs.others.to_text());
        let all = hangs.overshoot.values().len() as u64 == repetitions && hangs.others.wrong == 0;
        report.figure(all, &format!("{word}: hangs detected, wrong faults"), "all, 0", text);
        report.times(&section, "overshoot, from the moment of the last beat on", hangs.whole, None);
        report.times(&section, "overshoot, from its arrival in the page on", hangs.overshoot, None);

        let section = format!("the same beside a child that floods its notify socket: {word}");
        let beats = if is_port { Beats::ControlPort(free_port()?) } else { Beats::Notify };
        let flooder = Spec {
            name: "flooder".to_owned(),
            slot: 1,
            beats: Beats::NotifyFlood,
            deadline_us: 10_000_000,
            fifo: None,
            ..spec(setup, Beats::Notify)
        };
        let beside = hang(setup, &[spec(setup, beats), flooder], repetitions.div_ceil(4))?;
        if let (Some(quiet), Some(flooded)) = (quiet, beside.whole.summary()) {
            let more = flooded.p50 - quiet.p50;
            let tail = flooded.p99 - quiet.p99;
            let text = format!("median {}, p99 {} more", duration(more), duration(tail));
            let what = format!("{word}: delay of detection by a flood of another child");
            report.figure(more.max(tail) <= FLOOD_LIMIT_NS, &what, "<= 1 ms", text);
        }
        report.times(&section, "overshoot, from the moment of the last beat on", beside.whole, None);
    }
    Ok(())
}

fn hang(setup: &Setup, specs: &[Spec], repetitions: u64) -> Result<Hangs, Failure> {
    let mut world = World::start(setup, specs, specs.len())?;
    let mut random = Random::new(3);
    let mut hangs = Hangs::with_way(LONGEST_WAY_NS);
    for block in blocks(repetitions) {
        hangs.add(&mut world, block, &mut random)?;
    }
    Ok(hangs)
}

fn spec(setup: &Setup, beats: Beats) -> Spec {
    let fifo = setup.realtime.then_some(WRITER_PRIORITY);
    let name = "hanger".to_owned();
    Spec { name, slot: 0, instances: 1, every_us: EVERY_US, deadline_us: DEADLINE_US, fifo, beats }
}

/// A port that nobody has just now.
fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
