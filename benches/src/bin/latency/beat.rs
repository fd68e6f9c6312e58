//! What one call of `beat()` costs.

use std::fs;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use multus_ipc::MonoNs;
use multus_ipc::child::Heartbeat;
use multus_ipc::heartbeat;
use multus_ipc::map::{self, Mapping};
use multus_ipc::sync::Ordering;

use crate::report::{Report, duration};
use crate::stats::{Series, ns_between};
use crate::world::{Failure, Setup};

const BATCHES: usize = 5_000;
const BATCH: u32 = 200;
const TRACED_BEATS: u32 = 100_000;
const SYSTEM_CALLS: &str = "beat(): system calls";

pub(crate) fn measure(setup: &Setup, report: &mut Report) -> Result<(), Failure> {
    let fd = map::memfd(c"heartbeat", heartbeat::WORDS)?;
    let page = Mapping::writable(fd.as_fd())?;
    for (word, value) in page.words().iter().zip(heartbeat::header(1, 1_000_000_000)) {
        word.store(value, Ordering::Relaxed);
    }
    let heartbeat = Heartbeat::from_fd(fd)?;
    let mut beats = Series::default();
    let mut clock = Series::default();
    for _ in 0..BATCHES {
        beats.push(batch(|| heartbeat.beat()));
        clock.push(batch(|| {
            black_box(MonoNs::now());
        }));
    }
    if let Some(beat) = beats.summary() {
        report.figure(beat.p50 <= 40.0, "beat(): median", "<= 40 ns", duration(beat.p50));
    }
    let section = format!("one beat (mean of {BATCH} in a row)");
    report.times(&section, "beat()", beats, None);
    report.times(&section, "of which: reading the clock", clock, None);
    match (system_calls(&setup.child, 0), system_calls(&setup.child, TRACED_BEATS)) {
        (Ok(without), Ok(with)) => {
            let text = format!("{} in {TRACED_BEATS} beats", with.saturating_sub(without));
            report.figure(with <= without, SYSTEM_CALLS, "0", text);
        }
        (Err(error), _) | (_, Err(error)) => report.skipped(SYSTEM_CALLS, "0", &format!("strace: {error}")),
    }
    Ok(())
}

fn batch(work: impl Fn()) -> f64 {
    let start = MonoNs::now();
    for _ in 0..BATCH {
        work();
    }
    ns_between(start.0, MonoNs::now().0) / f64::from(BATCH)
}

/// System calls of a program that makes so many beats, its start and end included.
fn system_calls(child: &Path, beats: u32) -> Result<usize, Failure> {
    let trace = tempfile::NamedTempFile::new()?;
    let status = Command::new("strace")
        .args(["-f", "-o"])
        .arg(trace.path())
        .arg(child)
        .args(["--beats", &beats.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(format!("{status}").into());
    }
    Ok(fs::read_to_string(trace.path())?.lines().count())
}
