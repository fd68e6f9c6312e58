//! Two devices on this machine, each with a simulated board of 8 inputs and 8 outputs that is scanned every millisecond, and
//! multus-read-dido on both: how long it takes from the level of an input of one to the level of an output of the other.
//! Two scans are a part of it: the input may change just after one, and so may the request for the output come.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant};

use multus_bench::random::Random;
use multus_contract::dirs::{DirFlags, Dirs};
use multus_hardware::sim::{self, Panel};
use multus_ipc::MonoNs;

use crate::load::Condition;
use crate::report::{Report, duration};
use crate::stats::{Series, ns_between};
use crate::world::{Extra, Failure, Setup, World};

/// Native inputs 0 to 7, outputs 8 to 15.
const INPUTS: std::ops::Range<u32> = 0..8;
const OUTPUTS: std::ops::Range<u32> = 8..16;
const LIMIT_NS: f64 = 1e6 + 3e6;
const PATIENCE: Duration = Duration::from_secs(20);
/// From look to look at the output; what it adds is a part of what is measured.
const LOOK: Duration = Duration::from_micros(20);

pub(crate) fn measure(
    setup: &Setup,
    condition: Condition,
    repetitions: u64,
    report: &mut Report,
) -> Result<(), Failure> {
    let word = condition.as_str();
    for protocol in ["multus", "legacy"] {
        let times = changes(setup, protocol, repetitions)?;
        if let Some(summary) = times.summary() {
            let what = format!("input changes -> output of another device, {protocol}, {word}: p99");
            report.figure(summary.p99 <= LIMIT_NS, &what, "<= scan + 3 ms", duration(summary.p99));
        }
        let section = format!("{word}: mirrored inputs and outputs (sim, scan every 1 ms, loopback)");
        let what = format!("input changes -> output of another device, {protocol}");
        report.times(&section, &what, times, None);
    }
    Ok(())
}

fn changes(setup: &Setup, protocol: &str, repetitions: u64) -> Result<Series, Failure> {
    let (own, other) = (free_port()?, free_port()?);
    let outputs: Vec<String> = OUTPUTS.map(|n| format!("\"DO{n}\"")).collect();
    let (_to, there) = device(
        setup,
        &format!(
            "port = {other}\n[[receiver.senders]]\nname = \"bench\"\nprotocol = \"{protocol}\"\n\
             addresses = [\"127.0.0.1\"]\noutputs = [{}]\n",
            outputs.join(", ")
        ),
    )?;
    let mut text = format!("port = {own}\n[sender]\nname = \"bench\"\n");
    for (number, (input, output)) in (1..).zip(INPUTS.zip(OUTPUTS)) {
        // The original knows lines by their number.
        let remote = if protocol == "legacy" { format!("DO{number}") } else { format!("DO{output}") };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "[[sender.lines]]\nlocal = \"DI{input}\"\nremote = \"{remote}\"");
    }
    let _ = writeln!(text, "[[sender.receivers]]\naddress = \"127.0.0.1:{other}\"\nprotocol = \"{protocol}\"");
    let (_from, here) = device(setup, &text)?;
    let (mut times, mut random) = (Series::default(), Random::new(11));
    // The first ones make the connection.
    for n in 0..repetitions + 20 {
        sleep(Duration::from_micros(10_000 + random.below(5000)));
        let (line, is_high) = ((n % 8) as u32, (n / 8) % 2 == 0);
        let changed = MonoNs::now();
        here.drive(INPUTS.start + line, Some(is_high))?;
        let limit = Instant::now() + PATIENCE;
        while there.output(OUTPUTS.start + line)?.is_none_or(|(level, _)| level != is_high) {
            if Instant::now() > limit {
                return Err(format!("a change did not get to the other device within 20 s ({protocol})").into());
            }
            sleep(LOOK);
        }
        if n >= 20 {
            times.push(ns_between(changed.0, MonoNs::now().0));
        }
    }
    Ok(times)
}

/// A device with these parameters of its mirror.
fn device(setup: &Setup, parameters: &str) -> Result<(World, Panel), Failure> {
    let child = |program: &str, more: &str| {
        format!("command = [\"{program}\"]\n{more}[restart]\ndelays = [\"0s\"]\n[heartbeat]\ndeadline = \"5s\"\n")
    };
    let extra = |name: &str, child: String, config: &str| Extra { name: name.into(), child, config: config.into() };
    let extras = [
        extra("io", child("multus-io", ""), ""),
        extra("read-dido", child("multus-read-dido", "after = [\"io\"]\n"), parameters),
    ];
    let mut hardware = "board = \"sim\"\n[lines]\n".to_owned();
    for number in INPUTS {
        let _ = writeln!(hardware, "DI{number} = {{ kind = \"digital-input\", gpio = {number} }}");
    }
    for number in OUTPUTS {
        let _ = writeln!(
            hardware,
            "DO{number} = {{ kind = \"digital-output\", gpio = {number}, safe = \"off\", owner = \"read-dido\" }}"
        );
    }
    let world = World::start_with(setup, &[], 1, &extras, Some(&hardware))?;
    let dirs = Dirs::resolve(&DirFlags { runtime: Some(world.runtime_dir()), ..DirFlags::default() });
    let panel = Panel::open(&sim::file_of(&dirs))?;
    Ok((world, panel))
}

fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
