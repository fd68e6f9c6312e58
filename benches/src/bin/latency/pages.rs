//! multus-control beside fifty children: how fast it answers, what it costs, and whether a flood of requests and of slow
//! connections changes how late the same daemon detects a hang.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use multus_bench::random::Random;

use crate::hang::{Hangs, WRITER_PRIORITY, blocks};
use crate::kernel;
use crate::report::{Report, duration};
use crate::stats::Series;
use crate::world::{Beats, Extra, Failure, Setup, Spec, World};

const CHILDREN: usize = 50;
const PAGE_LIMIT_NS: f64 = 5e6;
const RATE_LIMIT: f64 = 500.0;
const TABS: usize = 100;
const TABS_LIMIT_PERCENT: f64 = 1.0;
const TAB_TURN: Duration = Duration::from_secs(120);
const MEMORY_LIMIT_MB: f64 = 40.0;
const SLOW: usize = 100;
/// Two medians of the same thing differ by less than this on a machine like this one.
const SAME: f64 = 1.5;
const NAME: &str = "control";
const PASSWORD: &str = "correct horse battery";

/// All figures of multus-control.
pub(crate) fn measure(setup: &Setup, repetitions: u64, report: &mut Report) -> Result<(), Failure> {
    let program = setup.multusd.with_file_name("multus-control");
    if !program.is_file() {
        report.skipped("everything about pages", "", "multus-control is not built; scripts/bench builds it");
        return Ok(());
    }
    let (port, grpc) = (free_port()?, free_port()?);
    let fifo = setup.realtime.then_some(WRITER_PRIORITY);
    let hanger = Spec {
        name: "hanger".to_owned(),
        slot: 0,
        instances: 1,
        every_us: 5_000,
        deadline_us: 20_000,
        fifo,
        beats: Beats::Page,
    };
    let others = Spec {
        name: "child".to_owned(),
        slot: 1,
        instances: CHILDREN - 1,
        every_us: 100_000,
        deadline_us: 2_000_000,
        fifo: None,
        ..hanger.clone()
    };
    let control = Extra {
        name: NAME.to_owned(),
        child: format!(
            "command = [{:?}]\n[heartbeat]\ndeadline = \"5s\"\n[schedule]\ncpus = [0]\n",
            program.display().to_string()
        ),
        config: format!("[web]\nlisten = [\"127.0.0.1:{port}\"]\n[grpc]\nlisten = \"127.0.0.1:{grpc}\"\n"),
    };
    let mut world = World::start_with(setup, &[hanger, others], CHILDREN, &[control], None)?;
    let browser = Browser::set_up(&world, port)?;
    let pid = world.status()?.children.iter().find(|c| c.name == NAME).and_then(|c| c.pid).ok_or("no process")?;

    memory(pid, "after the first log-in", report)?;

    let section = format!("multus-control with {CHILDREN} children, pinned to one processor");
    for (what, path) in [("status by API", "/api/v1/status"), ("page of all children", "/")] {
        let mut times = Series::default();
        for _ in 0..200 {
            let begun = Instant::now();
            browser.get(path)?;
            times.push(begun.elapsed().as_nanos() as f64);
        }
        if let Some(s) = times.summary() {
            report.figure(s.p50 <= PAGE_LIMIT_NS, &format!("{what}: median answer"), "<= 5 ms", duration(s.p50));
        }
        report.times(&section, what, times, None);
    }
    rate(&browser, report)?;
    tabs(&mut world, &browser, pid, report)?;
    flood(&mut world, &browser, repetitions, report)?;
    memory(pid, "after the flood", report)
}

fn memory(pid: u32, when: &str, report: &mut Report) -> Result<(), Failure> {
    let megabytes = kernel::resident_kib(pid)? as f64 * 1024.0 / 1e6;
    let what = format!("multus-control: resident memory {when}");
    report.figure(megabytes <= MEMORY_LIMIT_MB, &what, "<= 40 MB", format!("{megabytes:.1} MB"));
    Ok(())
}

fn rate(browser: &Browser, report: &mut Report) -> Result<(), Failure> {
    for (what, path) in [("API", "/api/v1/status"), ("page", "/")] {
        let name = format!("requests a second on one processor, {what}");
        let Some(mut wrk) = Wrk::start(browser, path, 10, 10)? else {
            report.skipped(&name, ">= 500", "wrk is not installed");
            return Ok(());
        };
        let (rate, errors) = wrk.result()?;
        let text = format!("{rate:.0}, {errors} errors");
        report.figure(rate >= RATE_LIMIT && errors == 0, &name, ">= 500, 0 errors", text);
    }
    Ok(())
}

/// Tabs that nobody touches, as `www/static/live.js` has it: each holds a stream of events, and looks at its page every
/// [`TAB_TURN`].
fn tabs(world: &mut World, browser: &Browser, pid: u32, report: &mut Report) -> Result<(), Failure> {
    let share_of = |time: Duration, turn: &mut dyn FnMut() -> Result<(), Failure>| {
        let (begun, before) = (Instant::now(), kernel::busy_ticks(pid)?);
        while begun.elapsed() < time {
            turn()?;
        }
        let spent = (kernel::busy_ticks(pid)? - before) as f64 / kernel::TICKS_PER_SECOND;
        Ok::<f64, Failure>(spent / begun.elapsed().as_secs_f64() * 100.0)
    };
    let alone = share_of(TAB_TURN / 12, &mut || {
        sleep(Duration::from_secs(1));
        Ok(())
    })?;
    let told = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<JoinHandle<()>> = (0..TABS)
        .map(|_| {
            let mut stream = browser.open("/api/v1/stream?status=false")?;
            let (told, stop) = (Arc::clone(&told), Arc::clone(&stop));
            Ok(thread::spawn(move || {
                let (mut text, mut buffer) = (Vec::new(), [0; 16 * 1024]);
                while !stop.load(Ordering::Relaxed) {
                    match stream.read(&mut buffer) {
                        Ok(0) => return,
                        Ok(n) => text.extend_from_slice(&buffer[..n]),
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                        Err(_) => return,
                    }
                    if String::from_utf8_lossy(&text).contains("event: event") {
                        told.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                }
            }))
        })
        .collect::<Result<_, Failure>>()?;
    sleep(Duration::from_secs(2));
    let share = share_of(TAB_TURN, &mut || {
        let next = Instant::now() + TAB_TURN / TABS as u32;
        browser.get("/")?;
        sleep(next.saturating_duration_since(Instant::now()));
        Ok(())
    })?;
    // Something happens: all of them are told.
    hang(world, 1)?;
    let limit = Instant::now() + Duration::from_secs(5);
    while told.load(Ordering::Relaxed) < TABS && Instant::now() < limit {
        sleep(Duration::from_millis(10));
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        let _ = reader.join();
    }
    let told = told.load(Ordering::Relaxed);
    let text = format!("{share:.2} % of one, {alone:.2} % without; {told} of {TABS} were told of an event");
    report.figure(share <= TABS_LIMIT_PERCENT && told == TABS, "100 idle tabs: processor time", "<= 1 %", text);
    Ok(())
}

fn flood(world: &mut World, browser: &Browser, repetitions: u64, report: &mut Report) -> Result<(), Failure> {
    let quiet = hang(world, repetitions)?;
    let slow = SlowConnections::open(browser, SLOW)?;
    let seconds = 30 + repetitions / 4;
    let Some(mut wrk) = Wrk::start(browser, "/", 50, seconds)? else {
        report.skipped("overshoot while multus-control is flooded", "as before", "wrk is not installed");
        return Ok(());
    };
    let flooded = hang(world, repetitions)?;
    let log_in = browser.log_in();
    let held = slow.close();
    wrk.end();
    let section = "the same daemon, deadline 20 ms: a child hangs while multus-control is flooded";
    if let (Some(before), Some(now)) = (quiet.overshoot.summary(), flooded.overshoot.summary()) {
        let text = format!("{} (before {}), p99 {}", duration(now.p50), duration(before.p50), duration(now.p99));
        let same = now.p50 <= SAME * before.p50 && flooded.others.wrong == 0;
        report.figure(same, "overshoot while multus-control is flooded: median", "<= 1.5 x quiet", text);
    }
    report.times(section, "overshoot, flooded", flooded.overshoot, Some("overshoot, quiet"));
    report.times(section, "overshoot, quiet", quiet.overshoot, None);
    let text = match &log_in {
        Ok((took, _)) => format!("in {:.1} s, {held} slow connections held", took.as_secs_f64()),
        Err(error) => error.to_string(),
    };
    report.figure(log_in.is_ok(), "log-in during the flood", "works", text);
    Ok(())
}

fn hang(world: &mut World, repetitions: u64) -> Result<Hangs, Failure> {
    let (mut random, mut hangs) = (Random::new(4), Hangs::default());
    for block in blocks(repetitions) {
        hangs.add(world, block, &mut random)?;
    }
    Ok(hangs)
}

fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Somebody who is logged in.
struct Browser {
    port: u16,
    cookie: String,
}

impl Browser {
    /// Makes the first user with the code that multus-control left.
    fn set_up(world: &World, port: u16) -> Result<Self, Failure> {
        let file = world.path(&format!("log/{NAME}.log"));
        let limit = Instant::now() + Duration::from_secs(20);
        let code = loop {
            let log = fs::read_to_string(&file).unwrap_or_default();
            match log.lines().find_map(|line| line.split_once("the code for the first set-up is ")) {
                Some((_, code)) => break code.trim().to_owned(),
                None if Instant::now() > limit => {
                    return Err(world.complain("multus-control told no code for the set-up"));
                }
                None => sleep(Duration::from_millis(50)),
            }
        };
        let mut browser = Self { port, cookie: String::new() };
        let body = format!("{{\"code\":{code:?},\"name\":\"admin\",\"password\":{PASSWORD:?}}}");
        let answer = browser.send("POST", "/api/v1/setup", &body)?;
        if !answer.starts_with("HTTP/1.1 204") {
            return Err(format!("the set-up was refused: {answer}").into());
        }
        browser.cookie = browser.log_in()?.1;
        Ok(browser)
    }

    /// How long it took, and the cookie.
    fn log_in(&self) -> Result<(Duration, String), Failure> {
        let begun = Instant::now();
        let body = format!("{{\"name\":\"admin\",\"password\":{PASSWORD:?}}}");
        let stranger = Self { port: self.port, cookie: String::new() };
        let answer = stranger.send("POST", "/api/v1/session", &body)?;
        match cookie_of(&answer) {
            Some(cookie) => Ok((begun.elapsed(), cookie)),
            None => Err(format!("refused: {}", answer.lines().next().unwrap_or_default()).into()),
        }
    }

    fn get(&self, path: &str) -> Result<(), Failure> {
        let answer = self.send("GET", path, "")?;
        match answer.split_ascii_whitespace().nth(1) {
            Some("200") => Ok(()),
            _ => Err(format!("{path}: {}", answer.lines().next().unwrap_or_default()).into()),
        }
    }

    /// One request on a connection of its own; the whole answer.
    fn send(&self, method: &str, path: &str, body: &str) -> Result<String, Failure> {
        let mut stream = self.connect()?;
        let Self { port, cookie } = self;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = Vec::new();
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// A stream of events that is left open.
    fn open(&self, path: &str) -> Result<TcpStream, Failure> {
        let mut stream = self.connect()?;
        let Self { port, cookie } = self;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n")?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok(stream)
    }

    fn connect(&self) -> Result<TcpStream, Failure> {
        Ok(TcpStream::connect(("127.0.0.1", self.port))?)
    }
}

fn cookie_of(answer: &str) -> Option<String> {
    let line = answer.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:"))?;
    Some(line.split_once(':')?.1.split(';').next()?.trim().to_owned())
}

/// Connections that send their request a byte a second.
struct SlowConnections {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<usize>,
}

impl SlowConnections {
    fn open(browser: &Browser, number: usize) -> Result<Self, Failure> {
        let mut streams = (0..number).map(|_| browser.connect()).collect::<Result<Vec<_>, _>>()?;
        let port = browser.port;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let sender = thread::spawn(move || {
            let request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ";
            let mut most = 0;
            for turn in 0.. {
                let byte = request.get(turn).copied().unwrap_or(b'x');
                for stream in &mut streams {
                    if stream.write_all(&[byte]).is_err()
                        && let Ok(next) = TcpStream::connect(("127.0.0.1", port))
                    {
                        // Who was sent away comes again.
                        *stream = next;
                    }
                }
                most = most.max(streams.len());
                for _ in 0..10 {
                    if asked.load(Ordering::Relaxed) {
                        return most;
                    }
                    sleep(Duration::from_millis(100));
                }
            }
            most
        });
        Ok(Self { stop, sender })
    }

    fn close(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().unwrap_or(0)
    }
}

/// wrk(1), on another processor than multus-control where there is one.
struct Wrk(Child);

impl Wrk {
    fn start(browser: &Browser, path: &str, connections: usize, seconds: u64) -> Result<Option<Self>, Failure> {
        let mut command = Command::new("taskset");
        command.args(["-c", if crate::load::processors() > 1 { "1" } else { "0" }, "wrk", "-t1"]);
        command.arg(format!("-c{connections}")).arg(format!("-d{seconds}s")).args(["--timeout", "20s"]);
        command.arg("-H").arg(format!("Cookie: {}", browser.cookie));
        command.arg(format!("http://127.0.0.1:{}{path}", browser.port));
        match command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(mut child) => {
                sleep(Duration::from_millis(300));
                // taskset is there, wrk is not.
                let missing = matches!(child.try_wait()?, Some(status) if status.code() == Some(127));
                Ok((!missing).then_some(Self(child)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Requests a second, and how many were not answered well.
    fn result(&mut self) -> Result<(f64, u64), Failure> {
        let mut text = String::new();
        self.0.stdout.take().ok_or("no output")?.read_to_string(&mut text)?;
        self.0.wait()?;
        let field = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
        let rate = field("Requests/sec:").and_then(|r| r.parse().ok()).ok_or_else(|| format!("wrk: {text}"))?;
        let refused: u64 = field("Non-2xx or 3xx responses:").and_then(|n| n.parse().ok()).unwrap_or(0);
        let broken: u64 = field("Socket errors:")
            .map_or(0, |line| line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok()).sum());
        Ok((rate, refused + broken))
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        self.end();
    }
}
