//! multus-modbus on one processor, asked by ten masters from another one for one register each, again and again; and in turns
//! with it the same of servers that pymodbus and libmodbus make.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::kernel;
use crate::report::{Report, duration};
use crate::stats::Series;
use crate::world::{Extra, Failure, Setup, World, toml_text};

const MASTERS: usize = 10;
const RATE_LIMIT: f64 = 20_000.0;
const P99_LIMIT_NS: f64 = 1e6;
const MEMORY_LIMIT_MB: f64 = 10.0;
const WARM_UP: Duration = Duration::from_millis(500);
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(20);
const HARDWARE: &str = "board = \"sim\"\n[lines]\n\
    DI1 = { kind = \"digital-input\", gpio = 4, active_low = true, bias = \"pull-up\" }\n\
    DO1 = { kind = \"digital-output\", gpio = 25, active_low = true, safe = \"off\", owner = \"modbus\" }\n";

/// All figures of multus-modbus.
pub(crate) fn measure(setup: &Setup, report: &mut Report) -> Result<(), Failure> {
    let beside = |name: &str| setup.multusd.with_file_name(name);
    let (program, io) = (beside("multus-modbus"), beside("multus-io"));
    if !program.is_file() || !io.is_file() {
        report.skipped(
            "everything about Modbus",
            "",
            "multus-modbus or multus-io is not built; scripts/bench builds them",
        );
        return Ok(());
    }
    let is_apart = crate::load::processors() > 1;
    if !is_apart {
        report.note("one processor only: servers of Modbus and their masters share it");
    }
    let port = free_port()?;
    let child = |program: &Path, more: &str| {
        format!("command = [{}]\n{more}[heartbeat]\ndeadline = \"5s\"\n", toml_text(program))
    };
    let extras = [
        Extra { name: "io".into(), child: child(&io, ""), config: String::new() },
        Extra {
            name: "modbus".into(),
            child: child(&program, "after = [\"io\"]\n") + "[schedule]\ncpus = [0]\n",
            config: format!("[tcp]\nport = {port}\n"),
        },
    ];
    let world = World::start_with(setup, &[], 1, &extras, Some(HARDWARE))?;
    let pid = world.status()?.children.iter().find(|c| c.name == "modbus").and_then(|c| c.pid).ok_or("no process")?;
    let mut servers = vec![("multus-modbus", port, None)];
    let folder = world.path("modbus");
    std::fs::create_dir_all(&folder)?;
    for (name, made) in [("libmodbus", libmodbus(&folder)), ("pymodbus", pymodbus(&folder))] {
        match made.and_then(|command| Server::start(command).map_err(|error| error.to_string())) {
            Ok(server) => servers.push((name, server.port, Some(server))),
            Err(reason) => report.skipped(&format!("Modbus: the same of {name}"), "", &reason),
        }
    }
    let mut found: Vec<(Series, f64)> = servers.iter().map(|_| Default::default()).collect();
    let mut busy = 0.0;
    for _ in 0..ROUNDS {
        for ((name, port, _), (times, seconds)) in servers.iter().zip(&mut found) {
            let before = kernel::busy_ticks(pid)?;
            let begun = Instant::now();
            let (round, took) = load(*port, is_apart).map_err(|error| format!("{name}: {error}"))?;
            if *name == "multus-modbus" {
                let ticks = (kernel::busy_ticks(pid)? - before) as f64;
                busy += ticks / kernel::TICKS_PER_SECOND / begun.elapsed().as_secs_f64() / ROUNDS as f64;
            }
            times.extend(round.values().iter().copied());
            *seconds += took;
        }
    }
    let megabytes = kernel::resident_kib(pid)? as f64 * 1024.0 / 1e6;
    let section = format!("Modbus TCP on one processor: {MASTERS} masters read one register each, as fast as they can");
    for ((name, ..), (times, seconds)) in servers.iter().zip(found) {
        let Some(summary) = times.summary() else { continue };
        let rate = summary.count as f64 / seconds;
        report.value(&format!("{name}: reads of one register, 1/s"), rate);
        let what = format!("{name}: reads of one register a second");
        let text = format!("{rate:.0}, p50 {}, p99 {}", duration(summary.p50), duration(summary.p99));
        if *name == "multus-modbus" {
            report.figure(rate >= RATE_LIMIT, &what, ">= 20 000", text);
            report.figure(summary.p99 <= P99_LIMIT_NS, &format!("{name}: p99"), "<= 1 ms", duration(summary.p99));
        }
        report.times(&section, name, times, None);
    }
    report.value("multus-modbus under that load, % of one processor", busy * 100.0);
    let text = format!("{megabytes:.1} MB");
    report.figure(megabytes <= MEMORY_LIMIT_MB, "multus-modbus: resident memory", "<= 10 MB", text);
    let writes = writes(port)?;
    if let Some(summary) = writes.summary() {
        report.value("multus-modbus: a coil is written and at its output, median, ns", summary.p50);
    }
    report.times("Modbus TCP, scan every 1 ms", "a coil is written and at its output", writes, None);
    Ok(())
}

/// Another server, until it is dropped.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(mut command: Command) -> Result<Self, Failure> {
        let port = free_port()?;
        let mut pinned = Command::new("taskset");
        pinned.args(["-c", "0"]).arg(command.get_program()).args(command.get_args()).arg(port.to_string());
        command = pinned;
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut server = Self { process, port };
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = server.process.try_wait()? {
                return Err(format!("it has ended: {status}").into());
            }
            if Instant::now() > end {
                return Err("it does not listen".into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn libmodbus(folder: &Path) -> Result<Command, String> {
    let flags = run(Command::new("pkg-config").args(["--cflags", "--libs", "libmodbus"]))
        .map_err(|_| "libmodbus-dev or pkg-config is not installed")?;
    let program = folder.join("libmodbus-server");
    run(Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(source("server.c")).args(flags.split_whitespace()))?;
    Ok(Command::new(program))
}

fn pymodbus(folder: &Path) -> Result<Command, String> {
    let venv = folder.join("python");
    let python = venv.join("bin/python");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).map_err(|_| "no virtual environment for Python")?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "pymodbus==3.16.1"]))
        .map_err(|_| "pymodbus cannot be installed")?;
    let mut command = Command::new(python);
    command.arg(source("server.py"));
    Ok(command)
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("modbus").join(name)
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Ten masters on one thread, each with one request under way. How long answers took, and for how many seconds this went on.
fn load(port: u16, is_apart: bool) -> Result<(Series, f64), Failure> {
    let generator = std::thread::spawn(move || -> Result<(Series, f64), String> {
        if is_apart {
            let mut second = CpuSet::new();
            second.set(1).map_err(|error| error.to_string())?;
            sched_setaffinity(Pid::from_raw(0), &second).map_err(|error| error.to_string())?;
        }
        ask_all(port).map_err(|error| error.to_string())
    });
    Ok(generator.join().map_err(|_| "the masters have panicked")??)
}

fn ask_all(port: u16) -> Result<(Series, f64), std::io::Error> {
    let mut masters = (0..MASTERS).map(|_| Master::connect(port)).collect::<Result<Vec<_>, _>>()?;
    let mut times = Series::default();
    let mut begun = Instant::now();
    let mut is_warm = false;
    for master in &mut masters {
        master.ask(READ)?;
    }
    loop {
        if !is_warm && begun.elapsed() >= WARM_UP {
            (is_warm, begun, times) = (true, Instant::now(), Series::default());
        }
        if is_warm && begun.elapsed() >= ROUND {
            return Ok((times, begun.elapsed().as_secs_f64()));
        }
        let mut ready: Vec<PollFd<'_>> =
            masters.iter().map(|master| PollFd::new(master.stream.as_fd(), PollFlags::POLLIN)).collect();
        if poll(&mut ready, PollTimeout::from(10_000u16))? == 0 {
            return Err(std::io::Error::new(ErrorKind::TimedOut, "no answer for 10 s"));
        }
        let ready: Vec<bool> = ready.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        for (master, _) in masters.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            let time = master.receive(&[3, 2])?;
            times.push(time.as_nanos() as f64);
            master.ask(READ)?;
        }
    }
}

/// Reads holding register 0.
const READ: &[u8] = &[3, 0, 0, 0, 1];

struct Master {
    stream: TcpStream,
    transaction: u16,
    asked: Instant,
}

impl Master {
    fn connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, transaction: 0, asked: Instant::now() })
    }

    fn ask(&mut self, pdu: &[u8]) -> std::io::Result<()> {
        self.transaction = self.transaction.wrapping_add(1);
        let [high, low] = self.transaction.to_be_bytes();
        let mut frame = vec![high, low, 0, 0, 0, pdu.len() as u8 + 1, 1];
        frame.extend_from_slice(pdu);
        self.asked = Instant::now();
        self.stream.write_all(&frame)
    }

    /// Takes an answer, which must begin like this; how long it took.
    fn receive(&mut self, begin: &[u8]) -> std::io::Result<Duration> {
        let mut bytes = [0; 64];
        let count = self.stream.read(&mut bytes)?;
        let time = self.asked.elapsed();
        let answer = &bytes[..count];
        // Answers are short and sent at once.
        let is_right = count >= 7 + begin.len()
            && answer[..2] == self.transaction.to_be_bytes()
            && usize::from(answer[5]) + 6 == count
            && answer[7..].starts_with(begin);
        if is_right { Ok(time) } else { Err(std::io::Error::other(format!("wrong answer {answer:x?}"))) }
    }
}

/// How long it takes until a coil that is written is at its output.
fn writes(port: u16) -> std::io::Result<Series> {
    let mut master = Master::connect(port)?;
    let mut times = Series::default();
    for turn in 0..1000 {
        let pdu = [5, 0, 0, if turn % 2 == 0 { 0xff } else { 0 }, 0];
        master.ask(&pdu)?;
        times.push(master.receive(&pdu)?.as_nanos() as f64);
    }
    Ok(times)
}

fn free_port() -> std::io::Result<u16> {
    TcpListener::bind("127.0.0.1:0")?.local_addr().map(|address| address.port())
}
