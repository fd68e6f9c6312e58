//! A supervised process that fails on order and notes when, for the latency harness.
//!
//! ```text
//! bench-child --board PATH --slot N --every MICROSECONDS    beats until it is ordered to fail; see `multus_bench::board`
//!             [--flood]                                     as fast as it can
//!             [--drive OUTPUT,OUTPUT]                       asks for 1 of these outputs with every beat
//!             [--follow]                                    waits for changes of the process image, notes when it learns of
//!                                                           one, and beats then
//! bench-child --beats N                                     N beats into a page of its own, then ends
//! ```
//! Beats follow an absolute schedule. The slot is N plus the number of the instance. Who runs it gives it its
//! scheduling policy.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;
use multus_bench::board::{Board, Order, Slot};
use multus_bench::random::Random;
use multus_ipc::MonoNs;
use multus_ipc::child::Heartbeat;
use multus_ipc::io_child::{Io, Output};
use multus_ipc::map::{self, Mapping};
use multus_ipc::sync::Ordering;
use nix::sys::signal::{Signal, raise};
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};

fn main() -> ExitCode {
    // The first instruction of the program, as far as a program can tell.
    let birth = MonoNs::now();
    match run(birth) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench-child: {error}");
            ExitCode::from(2)
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn run(birth: MonoNs) -> Result<ExitCode, Failure> {
    let (mut board, mut slot, mut every_us) = (None, 0usize, 10_000u64);
    let (mut driven, mut follows) = (String::new(), false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("board") => board = Some(PathBuf::from(parser.value()?)),
            Long("slot") => slot = parser.value()?.parse()?,
            Long("every") => every_us = parser.value()?.parse()?,
            Long("flood") => every_us = 0,
            Long("drive") => driven = parser.value()?.string()?,
            Long("follow") => follows = true,
            Long("beats") => return only_beat(parser.value()?.parse()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let board = Board::open(&board.ok_or("--board is missing")?)?;
    let instance = std::env::var("MULTUS_INSTANCE").ok().and_then(|n| n.parse().ok()).unwrap_or(0usize);
    let slot = board.slot(slot + instance).ok_or("no such slot on the board")?;
    if follows {
        follow(birth, slot);
    }
    live(birth, slot, every_us * 1000, &driven)
}

/// Notes when it learns of changes, as if they were beats.
fn follow(birth: MonoNs, slot: Slot<'_>) -> ! {
    let life = slot.born(birth);
    let (io, heartbeat) = (Io::from_env(), Heartbeat::from_env());
    heartbeat.ready();
    let (mut seen, mut beats) = (io.changes(), 0);
    loop {
        let now = io.wait_change(seen, Duration::from_millis(100));
        if now != seen {
            slot.beats(life, beats, MonoNs::now());
            beats += 1;
        }
        seen = now;
        heartbeat.beat();
    }
}

/// Beats until an order or a young death comes.
fn live(birth: MonoNs, slot: Slot<'_>, every_ns: u64, driven: &str) -> Result<ExitCode, Failure> {
    let io = Io::from_env();
    let outputs: Vec<Output> = driven.split(',').filter_map(|name| io.output(name)).collect();
    let life = slot.born(birth);
    let known_orders = slot.orders();
    let mut random = Random::new(birth.0);
    let mut heartbeat = Beats::from_env()?;
    let young_end = slot.takes_young_death().then(|| MonoNs(birth.0 + 2_000_000 + random.below(43_000_000)));
    slot.beats(life, 0, MonoNs::now());
    heartbeat.ready();
    slot.beaten(life);
    let mut beats = 1;
    let mut beat = || {
        let before = MonoNs::now();
        slot.beats(life, beats, before);
        heartbeat.beat();
        // Refused where multus-io defines lines anew: the next beat asks again.
        outputs.iter().for_each(|output| {
            let _ = output.set(true);
        });
        beats += 1;
        before
    };
    let mut next = MonoNs::now();
    loop {
        next = MonoNs(next.0 + every_ns);
        if let Some(end) = young_end.filter(|end| *end <= next) {
            sleep_until(end);
            return Ok(fail(if life.is_multiple_of(2) { Order::Kill } else { Order::Exit }, slot, life));
        }
        sleep_until(next);
        if slot.orders() != known_orders
            && let Some(order) = slot.order()
        {
            // One to eight beats more, then some part of a period: the failure comes at any phase of whatever the
            // supervisor does in step with the beats.
            for _ in 0..=random.below(8) {
                beat();
                next = MonoNs(next.0 + every_ns);
                sleep_until(next);
            }
            let before = beat();
            slot.last_beat(life, before, MonoNs::now());
            if order != Order::Hang {
                sleep_until(MonoNs(next.0 + random.below(every_ns.max(1))));
            }
            return Ok(fail(order, slot, life));
        }
        beat();
    }
}

/// The way in which this child beats, as its environment says.
enum Beats {
    Page(Heartbeat),
    Notify(UnixDatagram),
    ControlPort(TcpStream, u8),
}

impl Beats {
    fn from_env() -> Result<Self, Failure> {
        if let Some(path) = std::env::var_os("NOTIFY_SOCKET") {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            return Ok(Self::Notify(socket));
        }
        if let Ok(port) = std::env::var("MULTUS_CONTROL_PORT") {
            let stream = TcpStream::connect(("127.0.0.1", port.parse::<u16>()?))?;
            stream.set_nodelay(true)?;
            return Ok(Self::ControlPort(stream, 0));
        }
        Ok(Self::Page(Heartbeat::from_env()))
    }

    fn ready(&mut self) {
        match self {
            Self::Page(heartbeat) => heartbeat.ready(),
            Self::Notify(socket) => {
                // What cannot be sent is a missing beat, which is what is measured.
                let _ = socket.send(b"READY=1");
            }
            Self::ControlPort(..) => self.beat(),
        }
    }

    fn beat(&mut self) {
        match self {
            Self::Page(heartbeat) => heartbeat.beat(),
            Self::Notify(socket) => {
                let _ = socket.send(b"WATCHDOG=1");
            }
            Self::ControlPort(stream, last) => {
                *last = *last % 9 + 1;
                let _ = stream.write_all(&[*last]);
            }
        }
    }
}

fn fail(order: Order, slot: Slot<'_>, life: u64) -> ExitCode {
    slot.ends(life, MonoNs::now());
    match order {
        Order::Hang => loop {
            std::thread::park();
        },
        Order::Kill => {
            // Cannot fail for a signal to oneself, and does not come back.
            let _ = raise(Signal::SIGKILL);
            ExitCode::from(9)
        }
        Order::Exit => std::process::exit(3),
    }
}

fn sleep_until(at: MonoNs) {
    let request = nix::sys::time::TimeSpec::from_duration(std::time::Duration::from_nanos(at.0));
    while clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &request).is_err() {}
}

/// So many beats into a page that nobody reads: what system calls a beat makes shows under a tracer.
fn only_beat(beats: u64) -> Result<ExitCode, Failure> {
    let fd = map::memfd(c"heartbeat", multus_ipc::heartbeat::WORDS)?;
    let page = Mapping::writable(fd.as_fd())?;
    for (word, value) in page.words().iter().zip(multus_ipc::heartbeat::header(1, 1_000_000_000)) {
        word.store(value, Ordering::Relaxed);
    }
    let heartbeat = Heartbeat::from_fd(fd)?;
    for _ in 0..beats {
        heartbeat.beat();
    }
    Ok(ExitCode::SUCCESS)
}
