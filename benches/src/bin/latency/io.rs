//! Outputs and inputs on a simulated board with 64 lines, scanned every millisecond: how soon outputs are safe after a fault
//! of their owner and after a death of multus-io, how soon a change of an input is known, and what the scan costs.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use multus_bench::board::{Board, Order};
use multus_bench::random::Random;
use multus_contract::api::command::Request;
use multus_contract::api::io::IoStatus;
use multus_contract::dirs::{DirFlags, Dirs};
use multus_hardware::sim::{self, Panel};
use multus_ipc::MonoNs;
use multus_ipc::words::EventKind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::hang::WRITER_PRIORITY;
use crate::kernel;
use crate::load::Condition;
use crate::report::{Report, duration};
use crate::stats::{Series, ns_between};
use crate::world::{Extra, Failure, Setup, World, toml_text};

/// Native inputs 0 to 31, outputs 32 to 63.
const INPUTS: std::ops::Range<u32> = 0..32;
const OUTPUTS: std::ops::Range<u32> = 32..64;
const OWNER: usize = 0;
const FOLLOWER: usize = 1;
const SCAN_NS: f64 = 1e6;
const FORCED_MEDIAN_NS: f64 = 200e3;
const FORCED_P999_NS: f64 = 2e6;
const SAFE_LIMIT_NS: f64 = 10e6;
const NOTIFIED_LIMIT_NS: f64 = SCAN_NS + 200e3;
const COST_LIMIT: f64 = 5.0;
const COST_TIME: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);

struct Plant {
    world: World,
    board: Board,
    panel: Panel,
}

pub(crate) fn measure(
    setup: &Setup,
    condition: Condition,
    repetitions: u64,
    report: &mut Report,
) -> Result<(), Failure> {
    let word = condition.as_str();
    let mut plant = Plant::start(setup)?;
    let forced = plant.owner_hangs(repetitions)?;
    let (safe, late) = plant.scanner_dies(repetitions)?;
    let notified = plant.input_changes(repetitions)?;
    let cost = plant.cost()?;
    if let Some(forced) = forced.summary() {
        let what = format!("fault detected -> outputs forced at the board, {word}: median");
        report.figure(forced.p50 <= FORCED_MEDIAN_NS, &what, "<= 200 us", duration(forced.p50));
        let what = format!("fault detected -> outputs forced at the board, {word}: p99.9");
        report.figure(forced.p999 <= FORCED_P999_NS, &what, "<= 2 ms", duration(forced.p999));
    }
    let text = format!("{} of {repetitions}, longest {}", safe.values().len() as u64 - late, duration(longest(&safe)));
    report.figure(late == 0, &format!("multus-io killed -> all outputs safe within 10 ms, {word}"), "all", text);
    if let Some(notified) = notified.summary() {
        let what = format!("input changes -> consumer knows, {word}: p99");
        report.figure(notified.p99 <= NOTIFIED_LIMIT_NS, &what, "<= scan + 200 us", duration(notified.p99));
    }
    if condition == Condition::Quiet {
        let text = format!("{cost:.2} %");
        report.figure(cost <= COST_LIMIT, "scan of 64 lines at 1 ms: of one processor", "<= 5 %", text);
    }
    report.value(&format!("multus-io, 64 lines at 1 ms, {word}: % of one processor"), cost);
    let section = format!("{word}: outputs and inputs (sim, 64 lines, scan every 1 ms)");
    report.times(&section, "fault detected -> outputs forced at the board", forced, None);
    report.times(&section, "multus-io killed -> all outputs safe", safe, None);
    report.times(&section, "input changes -> consumer knows", notified, None);
    Ok(())
}

impl Plant {
    fn start(setup: &Setup) -> Result<Self, Failure> {
        let board = Board::create(2)?;
        let outputs: Vec<String> = OUTPUTS.map(|n| format!("DO{n}")).collect();
        let child = |slot: usize, more: &str, deadline: &str| {
            let (program, path) = (toml_text(&setup.child), board.path());
            let fifo = if setup.realtime {
                format!("[schedule]\npolicy = \"fifo\"\npriority = {WRITER_PRIORITY}\n")
            } else {
                String::new()
            };
            format!(
                "command = [{program}, \"--board\", \"{path}\", \"--slot\", \"{slot}\", {more}]\nafter = [\"io\"]\n\
                 [restart]\ndelays = [\"100ms\"]\n[heartbeat]\ndeadline = \"{deadline}\"\n{fifo}"
            )
        };
        let drive = format!("\"--every\", \"5000\", \"--drive\", \"{}\"", outputs.join(","));
        let extra = |name: &str, child: String| Extra { name: name.into(), child, config: String::new() };
        let scanner = "command = [\"multus-io\"]\n[restart]\ndelays = [\"0s\"]\n[heartbeat]\ndeadline = \"1s\"\n";
        let extras = [
            extra("io", scanner.to_owned()),
            extra("owner", child(OWNER, &drive, "20ms")),
            extra("follower", child(FOLLOWER, "\"--follow\"", "10s")),
        ];
        let world = World::start_with(setup, &[], 1, &extras, Some(&hardware()))?;
        let dirs = Dirs::resolve(&DirFlags { runtime: Some(world.runtime_dir()), ..DirFlags::default() });
        let panel = Panel::open(&sim::file_of(&dirs))?;
        Ok(Self { world, board, panel })
    }

    /// The owner hangs: from detection to the last output being written.
    fn owner_hangs(&mut self, repetitions: u64) -> Result<Series, Failure> {
        let mut times = Series::default();
        for _ in 0..repetitions {
            self.until_all(true)?;
            self.world.events()?;
            self.board.slot(OWNER).ok_or("no such slot")?.give(Order::Hang);
            let detected = self.fault()?;
            let limit = Instant::now() + PATIENCE;
            // The next change of the force page comes when the owner is ready again, after its restart delay.
            let status = loop {
                let status: IoStatus = self.world.ask(&Request::Io)?;
                if status.acknowledged_mono_ns >= detected {
                    break status;
                }
                if Instant::now() > limit {
                    return Err("forced outputs were not acknowledged within 20 s".into());
                }
            };
            times.push(ns_between(detected, status.acknowledged_mono_ns));
        }
        Ok(times)
    }

    /// Waits for the fault of the owner; when it was detected.
    fn fault(&mut self) -> Result<u64, Failure> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let events = self.world.events()?;
            let fault = events.iter().find(|event| event.event_kind() == Some(EventKind::Fault));
            if let Some(detected) = fault.and_then(|fault| fault.detected_ns) {
                return Ok(detected);
            }
            if Instant::now() > limit {
                return Err(self.world.complain("a hang of the owner was not detected within 20 s"));
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// multus-io is killed at some time: from then to all outputs having their safe values, and how often that took too long.
    fn scanner_dies(&mut self, repetitions: u64) -> Result<(Series, u64), Failure> {
        let (mut times, mut late, mut random) = (Series::default(), 0, Random::new(7));
        for _ in 0..repetitions {
            self.until_all(true)?;
            let before = self.scanner()?;
            sleep(Duration::from_micros(random.below(5000)));
            self.world.events()?;
            let killed = MonoNs::now();
            kill(Pid::from_raw(before.cast_signed()), Signal::SIGKILL)?;
            self.until_all(false)?;
            // The harness may be late to see it: multusd tells when it was done.
            let took = ns_between(killed.0, self.secured()?);
            late += u64::from(took > SAFE_LIMIT_NS);
            times.push(took);
            let limit = Instant::now() + PATIENCE;
            while self.scanner().map_or(true, |now| now == before) {
                if Instant::now() > limit {
                    return Err(self.world.complain("multus-io has no new process after 20 s"));
                }
                sleep(Duration::from_millis(2));
            }
        }
        self.until_all(true)?;
        Ok((times, late))
    }

    /// When multusd itself had written all safe values.
    fn secured(&mut self) -> Result<u64, Failure> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let events = self.world.events()?;
            if let Some(event) = events.iter().find(|event| event.event_kind() == Some(EventKind::OutputsSecured)) {
                return Ok(event.mono_ns);
            }
            if Instant::now() > limit {
                return Err(self.world.complain("multusd has not secured the outputs within 20 s"));
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// From the change of a level to the consumer being awake.
    fn input_changes(&mut self, repetitions: u64) -> Result<Series, Failure> {
        let slot = self.board.slot(FOLLOWER).ok_or("no such slot")?;
        let (mut times, mut random) = (Series::default(), Random::new(9));
        for n in 0..repetitions {
            // Whatever else has changed is known to it by now.
            sleep(Duration::from_micros(20_000 + random.below(5000)));
            let changed = MonoNs::now();
            self.panel.drive(INPUTS.start, Some(n.is_multiple_of(2)))?;
            let limit = Instant::now() + PATIENCE;
            let known = loop {
                if let Some(known) = slot.first_beat_after(slot.lives(), changed.0) {
                    break known;
                }
                if Instant::now() > limit {
                    return Err("a change of an input was not known within 20 s".into());
                }
                sleep(Duration::from_micros(500));
            };
            times.push(ns_between(changed.0, known));
        }
        Ok(times)
    }

    /// What multus-io takes of one processor, in per cent.
    fn cost(&mut self) -> Result<f64, Failure> {
        let pid = self.scanner()?;
        let busy = || -> Result<u64, Failure> { Ok(kernel::threads(pid)?.iter().map(|thread| thread.busy_ns).sum()) };
        let (before, begun) = (busy()?, MonoNs::now());
        sleep(COST_TIME);
        Ok(100.0 * (busy()? - before) as f64 / ns_between(begun.0, MonoNs::now().0))
    }

    fn scanner(&self) -> Result<u32, Failure> {
        let status = self.world.status()?;
        let io = status.children.iter().find(|child| child.name == "io").and_then(|child| child.pid);
        io.ok_or_else(|| "multus-io has no process".into())
    }

    /// Waits until all outputs have this level. Looks without a pause: what is measured lasts less than one.
    fn until_all(&self, is_high: bool) -> Result<(), Failure> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let mut all = true;
            for number in OUTPUTS {
                all &= self.panel.output(number)?.is_some_and(|(level, _)| level == is_high);
            }
            if all {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(self.world.complain(&format!("not all outputs are {is_high} after 20 s")));
            }
            std::thread::yield_now();
        }
    }
}

fn hardware() -> String {
    let mut text = "board = \"sim\"\n[lines]\n".to_owned();
    // Writing to a String cannot fail.
    for number in INPUTS {
        let _ = writeln!(text, "DI{number} = {{ kind = \"digital-input\", gpio = {number} }}");
    }
    for number in OUTPUTS {
        let _ = writeln!(
            text,
            "DO{number} = {{ kind = \"digital-output\", gpio = {number}, safe = \"off\", owner = \"owner\" }}"
        );
    }
    text
}

fn longest(series: &Series) -> f64 {
    series.summary().map_or(0.0, |summary| summary.max)
}
