//! Measures multusd from outside, with real processes: how late it notices, how fast it acts, what it costs.
//!
//! Every time is taken next to its floor, the least that this machine needs for the same without multusd, in turns of
//! twenty, so that both see the same machine. Processes under test note their own times in a shared [`board`]; what
//! multusd did is read from its events afterwards. Nobody talks to the daemon while it is measured.
//!
//! [`board`]: multus_bench::board
#![forbid(unsafe_code)]

mod adapters;
mod beat;
mod crash;
mod faults;
mod floor;
mod hang;
mod io;
mod kernel;
mod load;
mod mirror;
mod modbus;
mod options;
mod pages;
mod process;
mod report;
mod standing;
mod stats;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::mman::{MlockAllFlags, mlockall};
use serde_json::json;

use load::{Condition, Load, processors};
use options::{Options, USAGE};
use report::{Machine, Report};
use world::{Failure, Setup, World};

fn main() -> ExitCode {
    let options = match Options::parse(lexopt::Parser::from_env()) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("latency: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if options.help {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("latency: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let own = std::env::current_exe()?;
    let beside = |name: &str| own.parent().map_or_else(|| PathBuf::from(name), |dir| dir.join(name));
    let setup = Setup {
        multusd: std::path::absolute(options.multusd.clone().unwrap_or_else(|| beside("multusd")))?,
        child: beside("bench-child"),
        realtime: floor::is_realtime_allowed(),
    };
    for program in [&setup.multusd, &setup.child] {
        if !program.is_file() {
            return Err(format!("{} is missing; scripts/bench builds it", program.display()).into());
        }
    }
    let machine = Machine::look(processors());
    println!("{}", machine.to_text());
    let mut report = Report::default();
    if !setup.realtime {
        report.note("no right to real-time priority here: daemon, floor and writers are ordinary threads");
    }
    if let Err(errno) = mlockall(MlockAllFlags::all()) {
        report.note(format!("the harness cannot lock its memory ({errno}): floors may be too high"));
    }
    let before = kernel::processor_time();
    // What was measured until an error is worth reading, too.
    let outcome = measure(&setup, options, &mut report);
    if let (Some((all, stolen)), Some((all_after, stolen_after))) = (before, kernel::processor_time()) {
        let share = (stolen_after - stolen) as f64 / (all_after - all).max(1) as f64;
        report.value("processor time that this virtual machine did not get, %", share * 100.0);
    }
    println!("{}", report.to_text());
    let file = options.json.clone().unwrap_or_else(|| default_json(&own));
    let described = json!({
        "repetitions": options.repetitions,
        "children": options.children,
        "false_alarm_minutes": options.false_alarm_minutes,
        "only": options.only,
        "realtime": setup.realtime,
    });
    report.write_json(&file, &machine, described).map_err(|error| format!("{}: {error}", file.display()))?;
    let [passed, missed, skipped] = report.counts();
    println!("{passed} reached, {missed} missed, {skipped} not measured; every value is in {}", file.display());
    outcome
}

fn measure(setup: &Setup, options: &Options, report: &mut Report) -> Result<(), Failure> {
    let repetitions = options.repetitions;
    if ["hang", "crash", "fast"].into_iter().any(|part| options.wants(part)) {
        for condition in Condition::ALL {
            if condition == Condition::Loaded && !Load::is_available() {
                report.skipped("everything under load", "", "stress-ng is not installed");
                continue;
            }
            let _load = if condition == Condition::Loaded { Some(Load::start()?) } else { None };
            if options.wants("hang") {
                progress(&format!("{}: hangs", condition.as_str()));
                hang::measure(setup, condition, repetitions, report)?;
            }
            if options.wants("crash") {
                progress(&format!("{}: crashes", condition.as_str()));
                crash::measure(setup, condition, repetitions, report)?;
            }
            if options.wants("fast") {
                progress(&format!("{}: hangs at a deadline of 1 ms", condition.as_str()));
                hang::measure_fast(setup, condition, repetitions, report)?;
            }
        }
    }
    if options.wants("adapters") {
        progress("hangs of children that beat by sd_notify and by control port");
        adapters::measure(setup, repetitions, report)?;
        standing::notify_cost(setup, report)?;
    }
    if options.wants("io") {
        for condition in Condition::ALL {
            if condition == Condition::Loaded && !Load::is_available() {
                report.skipped("outputs and inputs under load", "", "stress-ng is not installed");
                continue;
            }
            let _load = if condition == Condition::Loaded { Some(Load::start()?) } else { None };
            progress(&format!("{}: outputs and inputs", condition.as_str()));
            io::measure(setup, condition, repetitions, report)?;
        }
    }
    if options.wants("mirror") {
        for condition in Condition::ALL {
            if condition == Condition::Loaded && !Load::is_available() {
                report.skipped("mirrored inputs and outputs under load", "", "stress-ng is not installed");
                continue;
            }
            let _load = if condition == Condition::Loaded { Some(Load::start()?) } else { None };
            progress(&format!("{}: mirrored inputs and outputs", condition.as_str()));
            mirror::measure(setup, condition, repetitions, report)?;
        }
    }
    if options.wants("pages") {
        progress("multus-control: answers, cost, flood");
        pages::measure(setup, repetitions, report)?;
    }
    if options.wants("modbus") {
        progress("multus-modbus and other servers of Modbus");
        modbus::measure(setup, report)?;
    }
    if options.wants("beat") {
        progress("beat()");
        beat::measure(setup, report)?;
    }
    if options.wants("memory") {
        progress("memory");
        standing::memory(setup, report)?;
    }
    if options.wants("cost") {
        progress(&format!("cost of {} children", options.children));
        standing::cost(setup, options.children, report)?;
    }
    if options.wants("alarms") {
        progress(&format!("false alarms, {} min", options.false_alarm_minutes));
        standing::alarms(setup, options.false_alarm_minutes, report)?;
    }
    tell_rights(setup, report)
}

/// What the daemon itself says about its rights.
fn tell_rights(setup: &Setup, report: &mut Report) -> Result<(), Failure> {
    let status = World::start(setup, &[], 1)?.status()?;
    if !status.daemon.realtime || !status.daemon.locked {
        report.note(format!("multusd: real time {}, memory locked {}", status.daemon.realtime, status.daemon.locked));
    }
    for note in status.daemon.notes {
        report.note(format!("multusd: {note}"));
    }
    Ok(())
}

fn progress(what: &str) {
    eprintln!("latency: {what}");
}

/// `target/bench/latency.json` for a program in `target/release`.
fn default_json(own: &Path) -> PathBuf {
    let target = own.ancestors().nth(2).map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    target.join("bench").join("latency.json")
}
