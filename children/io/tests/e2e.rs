//! multus-io as it runs, with a simulated board; the test is the core and the owners of outputs.

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use multus_contract::dirs::{DirFlags, Dirs};
use multus_hardware::sim::{self, Fault, Panel};
use multus_ipc::descriptor::{self, Introduction};
use multus_ipc::io::{
    BAD, FORCED, IMAGE_WORDS, Live, REQUEST_WORDS, REQUESTED, RETAINED, Reader, image_header, request_header,
};
use multus_ipc::io_child::{ENV_FORCE_FD, ENV_IMAGE_FD, ENV_MOST_PRIORITY, ENV_REQUESTS_FD, Io, NotSetReason, Output};
use multus_ipc::map::{self, Mapping};
use multus_ipc::sync::Ordering;
use multus_ipc::text::{Name, Text};
use multus_ipc::{MonoNs, force, futex};
use multus_nettest::skip;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Only a failed test waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

const HARDWARE: &str = r#"
board = "sim"
[lines]
DI1 = { kind = "digital-input", gpio = 4, active_low = true, bias = "pull-up" }
DI2 = { kind = "digital-input", gpio = 17, debounce = "30ms" }
DO1 = { kind = "digital-output", gpio = 25, active_low = true, safe = "off", owner = "modbus" }
DO2 = { kind = "digital-output", gpio = 24, safe = "on", owner = "modbus", retained = true }
DO3 = { kind = "digital-output", gpio = 13, safe = "off", owner = "led" }
XI1 = { kind = "digital-input", pcf8574 = { address = 0x39, pin = 0 } }
XO1 = { kind = "digital-output", pcf8574 = { address = 0x38, pin = 0, reversed = true }, safe = "off", owner = "modbus" }
T1 = { kind = "analogue-input", lm75 = {}, period = "20ms" }
AI1 = { kind = "analogue-input", mcp3208 = { channel = 0 }, period = "10ms" }
AO1 = { kind = "analogue-output", mcp4922 = { channel = 0 }, safe = 0, owner = "modbus" }
"#;

struct Rig {
    _temp: TempDir,
    dirs: Dirs,
    panel: Panel,
    image: OwnedFd,
    /// For consumers.
    view: OwnedFd,
    force: (OwnedFd, Mapping),
    io: Option<(Child, OwnedFd)>,
    /// More of the environment.
    variables: Vec<(&'static str, String)>,
}

impl Rig {
    fn new(hardware: &str) -> Self {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let flags = |name: &str| Some(temp.path().join(name));
        let flags = DirFlags { config: flags("etc"), runtime: flags("run"), logs: flags("log"), state: flags("state") };
        let dirs = Dirs::resolve(&flags);
        for (_, dir) in dirs.variables() {
            fs::create_dir_all(dir).expect("own directory");
        }
        fs::write(dirs.config.join("hardware.toml"), hardware).expect("own file");
        fs::write(dirs.config.join("io.toml"), "patience = \"200ms\"\nretain_interval = \"1s\"\n").expect("own file");
        let panel = Panel::open(&sim::file_of(&dirs)).expect("own file");
        let image = page(c"image", IMAGE_WORDS, &image_header()).0;
        let view = map::read_only_copy(image.as_fd()).expect("/proc is there");
        let force = page(c"force", force::words(16, 4), &[]);
        force::Writer::new(force.1.words(), 16, 4);
        map::seal_future_writes(force.0.as_fd()).expect("a kernel of this decade");
        Self { _temp: temp, dirs, panel, image, view, force, io: None, variables: Vec::new() }
    }

    fn started() -> Self {
        let mut rig = Self::new(HARDWARE);
        rig.start();
        rig
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_multus-io"));
        for (variable, dir) in self.dirs.variables() {
            command.env(variable, dir);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.env("MULTUS_NAME", "io").env("MULTUS_CONFIG", self.dirs.config.join("io.toml")).stdin(Stdio::null());
        command
    }

    /// As the core would do it: descriptors by number.
    fn spawn(&mut self) {
        let (core, io) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).expect("a pair");
        let mut command = self.command();
        for (variable, fd) in [(ENV_IMAGE_FD, &self.image), (ENV_FORCE_FD, &self.force.0), (ENV_REQUESTS_FD, &io)] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).expect("own descriptor");
            command.env(variable, fd.as_raw_fd().to_string());
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("own file");
        command.stdout(log.try_clone().expect("own file")).stderr(log);
        self.io = Some((command.spawn().expect("it was built"), core));
        fcntl(&io, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("own descriptor");
    }

    fn start(&mut self) {
        self.spawn();
        let pid = self.pid();
        self.until("it scans", |rig| rig.read(|image| image.pid() == pid && image.scan_time().is_some()));
        // The chips on buses are read and written by threads of their own.
        self.until("all is good", |rig| rig.read(|image| (0..image.lines()).all(|i| flags(image, i) & BAD == 0)));
    }

    fn pid(&self) -> u32 {
        self.io.as_ref().expect("started").0.id()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("own child");
    }

    /// Waits for its end; the exit code.
    fn end(&mut self) -> Option<i32> {
        self.io.take().expect("started").0.wait().expect("own child").code()
    }

    fn log(&self) -> PathBuf {
        self.dirs.logs.join("io.log")
    }

    fn told(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn read<T>(&self, look: impl FnOnce(&Reader<'_>) -> T) -> T {
        let page = Mapping::read_only(self.view.as_fd()).expect("own page");
        look(&Reader::new(page.words()).expect("an image"))
    }

    fn live(&self, name: &str) -> Live {
        self.read(|image| {
            let (_, line) = image.find(&Text::new(name)).unwrap_or_else(|| panic!("no line {name}"));
            image.live(line).expect("nobody writes for ever")
        })
    }

    fn level(&self, gpio: u32) -> Option<bool> {
        self.panel.output(gpio).expect("own file").map(|(level, _)| level)
    }

    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < end, "waited in vain: {what}\n{}", self.told());
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// A process of the child instance `name`, as far as multus-io can tell: its view of the image, and its page.
    fn process(&self, name: &str, generation: u64) -> (Io, OwnedFd) {
        let (fd, page) = page(c"requests", REQUEST_WORDS, &request_header());
        self.introduce(name, generation, Some(&fd));
        let view = Mapping::read_only(self.view.as_fd()).expect("own page");
        (Io::new(view, Some(page), name).expect("both are good"), fd)
    }

    fn introduce(&self, name: &str, generation: u64, page: Option<&OwnedFd>) {
        let introduction = Introduction { slot: 3, generation, name: Name::new(name) };
        let (_, core) = self.io.as_ref().expect("started");
        descriptor::send(core.as_fd(), &introduction, page.map(AsFd::as_fd)).expect("it listens");
    }

    /// What the core does when outputs are to be forced. Returns the change counter.
    fn force(&self, act: impl FnOnce(&force::Writer<'_>)) -> u64 {
        let writer = force::Writer::new_again(self.force.1.words());
        act(&writer);
        writer.announce();
        futex::wake_all(writer.change_word());
        writer.change_word().load(Ordering::Relaxed)
    }

    fn acknowledged(&self, changes: u64) -> bool {
        self.read(|image| image.acknowledged().0 == changes)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.io.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("{}", self.told());
        }
    }
}

fn page(name: &std::ffi::CStr, words: usize, header: &[u64]) -> (OwnedFd, Mapping) {
    let fd = map::memfd(name, words).expect("a page");
    let page = Mapping::writable(fd.as_fd()).expect("own page");
    for (word, value) in page.words().iter().zip(header) {
        word.store(*value, Ordering::Relaxed);
    }
    (fd, page)
}

fn flags(image: &Reader<'_>, line: usize) -> u64 {
    image.live(line).map_or(BAD, |live| live.flags)
}

fn output(io: &Io, name: &str) -> Output {
    io.output(name).unwrap_or_else(|| panic!("no output {name}"))
}

/// Median and longest, in words.
fn spread(what: &str, mut times: Vec<u64>) {
    times.sort_unstable();
    let us = |ns: u64| ns / 1000;
    let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    eprintln!(
        "{what}: median {} us, p99 {} us, longest {} us of {}",
        us(median),
        us(p99),
        us(*times.last().unwrap_or(&0)),
        times.len()
    );
}

#[test]
fn an_input_that_changes_wakes_whoever_waits() {
    let rig = Rig::started();
    let io = Io::new(Mapping::read_only(rig.view.as_fd()).expect("own page"), None, "x").expect("an image");
    let button = io.input("DI1").expect("it is there");
    assert_eq!(button.good(), Some(0.0), "pulled up, and 1 is low");
    let mut times = Vec::new();
    for round in 0..200 {
        let (pressed, seen) = (round % 2 == 0, io.changes());
        let waiter = thread::spawn({
            let io = io.clone();
            move || (io.wait_change(seen, PATIENCE), MonoNs::now())
        });
        let start = MonoNs::now();
        rig.panel.drive(4, Some(!pressed)).expect("own file");
        let (changes, woken) = waiter.join().expect("no panic");
        assert!(changes != seen && button.good() == Some(f64::from(u8::from(pressed))), "round {round}");
        assert!(woken.since(start) < PATIENCE, "round {round}: woken by the end of the time, not by the change");
        times.push(woken.since(start).as_nanos().try_into().expect("short"));
    }
    spread("input to consumer, scan period 1 ms", times);
    let live = rig.live("DI1");
    assert_eq!((live.changes, live.raw), (200, 1));
    rig.read(|image| {
        let [period, p50, _, longest] = image.durations();
        eprintln!("scan: period {period} ns, median {p50} ns, longest {longest} ns, {} left out", image.overruns());
        assert_eq!((period, image.flags() & multus_ipc::io::SIMULATED), (1_000_000, 1));
    });
}

#[test]
fn a_bouncing_input_counts_when_it_has_settled() {
    let rig = Rig::started();
    assert_eq!(rig.live("DI2").value, 0.0);
    // Shorter than 30 ms each: on a machine that stands still for so long, one may count. So only the end is certain.
    for level in [true, false, true, false, true] {
        rig.panel.drive(17, Some(level)).expect("own file");
        thread::yield_now();
    }
    rig.until("settled", |rig| rig.live("DI2").value == 1.0);
    assert!(rig.live("DI2").changes % 2 == 1);
    let since = rig.live("DI2").changed;
    let scans = rig.read(|image| image.scans());
    rig.panel.drive(17, Some(false)).expect("own file");
    rig.until("settled again", |rig| rig.live("DI2").value == 0.0);
    let live = rig.live("DI2");
    assert!(live.changed.since(since) >= Duration::from_millis(30), "{live:?}");
    // A scan that was left out is no look, so the count is that of the clock.
    assert!(rig.read(|image| image.scans() - scans + image.overruns()) >= 29);
}

#[test]
fn requests_of_owners_reach_their_outputs_and_die_with_their_page() {
    let rig = Rig::started();
    assert_eq!((rig.level(25), rig.level(24)), (Some(true), Some(true)), "safe: off is high, on is high");
    let (modbus, _page) = rig.process("modbus", 1);
    assert_eq!(output(&modbus, "DO1").set_and_wait(true, PATIENCE), Ok(true));
    assert_eq!(rig.level(25), Some(false));
    assert_eq!(rig.live("DO1").flags, REQUESTED);
    for (name, value) in [("XO1", 1.0), ("AO1", 5.0)] {
        assert_eq!(output(&modbus, name).set_and_wait(value, PATIENCE), Ok(true), "{name}");
    }
    assert_eq!(rig.panel.sent(0x38).expect("own file").map(|s| s.0), Some(0xff), "pin 0 is bit 7");
    assert_eq!(rig.panel.converted(0).expect("own file").map(|c| c.0), Some(2048));
    let mut times = Vec::new();
    for round in 0..200 {
        let start = MonoNs::now();
        assert_eq!(output(&modbus, "DO1").set_and_wait(round % 2 == 1, PATIENCE), Ok(true));
        times.push(MonoNs::now().since(start).as_nanos().try_into().expect("short"));
    }
    spread("request to output and back, scan period 1 ms", times);

    // The next process begins with none.
    let (again, _page) = rig.process("modbus", 2);
    rig.until("safe", |rig| rig.level(25) == Some(true) && rig.live("DO1").flags == 0);
    assert_eq!(rig.live("DO2").flags, 0, "retained, but nothing was asked for");
    assert_eq!(output(&again, "DO1").set_and_wait(true, PATIENCE), Ok(true));
    assert_eq!(rig.level(25), Some(false), "what the process before it had done is forgotten");
    rig.introduce("modbus", 0, None);
    rig.until("safe again", |rig| rig.level(25) == Some(true));
}

#[test]
fn a_request_that_is_not_allowed_is_refused_and_told() {
    let rig = Rig::started();
    let (modbus, fd) = rig.process("modbus", 1);
    let refused = |result: Result<(), multus_ipc::io_child::NotSet>| {
        matches!(result.expect_err("not allowed").reason, NotSetReason::Refused(_))
    };
    assert!(refused(output(&modbus, "DO3").set(true)) && refused(output(&modbus, "DO1").set(0.5)));
    assert!(refused(output(&modbus, "AO1").set(10.5)) && refused(output(&modbus, "AO1").set(f64::NAN)));
    assert_eq!(output(&modbus, "DO1").set_and_wait(true, PATIENCE), Ok(true));

    // A process that does not use the library, or whose memory is broken, asks all the same.
    let page = Mapping::writable(fd.as_fd()).expect("own page");
    let mut x = 88_172_645_463_325_252_u64;
    for _ in 0..50 {
        for word in page.words() {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            word.store(x, Ordering::Relaxed);
        }
        // Read through at least once.
        let scans = rig.read(|image| image.scans());
        rig.until("a scan", |rig| rig.read(|image| image.scans()) > scans + 1);
    }
    assert_eq!((rig.level(13), rig.live("DO3").flags), (Some(false), 0), "not its own");
    assert_eq!((rig.level(25), rig.live("DO1").value), (Some(false), 1.0), "the last good request holds");
    assert!(rig.read(|image| image.refused()) > 50);
    rig.until("it is told", |rig| rig.told().contains("a request of modbus for the line DO3 is refused"));
    let lines = rig.told().matches("for the line DO3 is refused").count();
    assert!(lines <= 5, "told {lines} times");
}

#[test]
fn what_is_forced_is_safe_at_once_and_acknowledged() {
    let rig = Rig::started();
    let (modbus, _page) = rig.process("modbus", 1);
    assert_eq!(output(&modbus, "DO1").set_and_wait(true, PATIENCE), Ok(true));
    assert_eq!(output(&modbus, "XO1").set_and_wait(true, PATIENCE), Ok(true));
    for (entry, name) in ["DO1", "XO1"].into_iter().enumerate() {
        rig.force(|force| {
            force.define(entry, &Text::new(name), 0.0, 3, MonoNs::now());
            force.set_forced(entry, false, MonoNs::now());
        });
    }
    rig.until("released", |rig| rig.level(25) == Some(false));
    for (name, entry, what) in [("DO1", 0, "native"), ("XO1", 1, "on I2C")] {
        let mut times = Vec::new();
        for _ in 0..200 {
            let start = MonoNs::now();
            let changes = rig.force(|force| force.set_forced(entry, true, start));
            rig.until("acknowledged", |rig| rig.acknowledged(changes));
            times.push(rig.read(|image| image.acknowledged().1.since(start).as_nanos().try_into().expect("short")));
            assert_eq!(rig.live(name).flags, FORCED);
            match entry {
                0 => assert_eq!(rig.level(25), Some(true), "off"),
                _ => assert_eq!(rig.panel.sent(0x38).expect("own file").map(|s| s.0), Some(0x7f), "off"),
            }
            let changes = rig.force(|force| force.set_forced(entry, false, MonoNs::now()));
            rig.until("released", |rig| rig.acknowledged(changes) && rig.live(name).flags == REQUESTED);
            rig.until("on again", |rig| rig.live(name).value == 1.0);
        }
        spread(&format!("force to acknowledged output, {what}, scan period 1 ms"), times);
    }
    // Whatever its owner does.
    let changes = rig.force(|force| force.set_forced(0, true, MonoNs::now()));
    assert_eq!(output(&modbus, "DO1").set_and_wait(true, Duration::from_millis(20)), Ok(false));
    assert!(rig.acknowledged(changes) && rig.level(25) == Some(true));
    // An entry that is no line holds up nobody, but is counted and told.
    let changes = rig.force(|force| force.define(5, &Text::new("DO99"), 0.0, 4, MonoNs::now()));
    rig.until("acknowledged", |rig| rig.acknowledged(changes));
    assert_eq!(rig.read(|image| (image.forced().unwritten, image.forced().unknown)), (0, 1));
    // A value that cannot be means the line's own safe value.
    assert_eq!(output(&modbus, "AO1").set_and_wait(5.0, PATIENCE), Ok(true));
    let changes = rig.force(|force| force.define(6, &Text::new("AO1"), f64::NAN, 4, MonoNs::now()));
    rig.until("acknowledged", |rig| rig.acknowledged(changes));
    assert_eq!(rig.panel.converted(0).expect("own file").map(|c| c.0), Some(0));
}

#[test]
fn what_is_forced_does_not_wait_for_the_next_scan() {
    let mut rig = Rig::new(HARDWARE);
    fs::write(rig.dirs.config.join("io.toml"), "period = \"1s\"\n").expect("own file");
    rig.start();
    rig.force(|force| force.define(0, &Text::new("DO1"), 1.0, 3, MonoNs::now()));
    let start = Instant::now();
    for round in 0..20 {
        let changes = rig.force(|force| force.set_forced(0, round % 2 == 0, MonoNs::now()));
        rig.until("acknowledged", |rig| rig.acknowledged(changes));
        assert_eq!(rig.level(25), Some(round % 2 != 0));
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?} for 20 changes", start.elapsed());
}

#[test]
fn a_killed_multus_io_leaves_the_image_and_what_is_retained() {
    let mut rig = Rig::started();
    let (modbus, fd) = rig.process("modbus", 1);
    for name in ["DO1", "DO2"] {
        assert_eq!(output(&modbus, name).set_and_wait(name == "DO1", PATIENCE), Ok(true));
    }
    rig.panel.drive(4, Some(false)).expect("own file");
    rig.until("pressed", |rig| rig.live("DI1").value == 1.0);
    let file = rig.dirs.state.join("io-retained.toml");
    rig.until("on the disk", |_| fs::read_to_string(&file).is_ok_and(|text| text.contains("\"DO2\" = 0.0")));
    let (layout, changes) = rig.read(|image| (image.layout(), image.changes()));
    rig.signal(Signal::SIGKILL);
    assert_eq!(rig.end(), None);
    let button = modbus.input("DI1").expect("the image outlives it");
    rig.until("stale", |_| !modbus.is_fresh());
    assert_eq!((button.value(), button.good()), (1.0, None), "the last value, but not a good one");

    rig.start();
    assert_eq!(rig.read(|image| image.layout()), layout);
    assert!(rig.read(|image| image.changes()) > changes && rig.live("DI1").changes == 1);
    assert_eq!(button.good(), Some(1.0));
    assert_eq!((rig.level(25), rig.live("DO1").flags), (Some(true), 0), "not retained, not asked for yet: safe");
    assert_eq!((rig.level(24), rig.live("DO2").flags), (Some(false), RETAINED));
    // The core introduces the processes that are there; what they asked for holds.
    rig.introduce("modbus", 1, Some(&fd));
    rig.until("asked for", |rig| rig.level(25) == Some(false) && rig.live("DO1").flags == REQUESTED);
    assert_eq!(rig.live("DO2").flags, REQUESTED);
}

#[test]
fn faults_of_the_hardware_are_told_once_and_survived() {
    let rig = Rig::started();
    let (modbus, _page) = rig.process("modbus", 1);
    let is_bad = |rig: &Rig, name: &str| rig.live(name).flags & BAD != 0;
    rig.panel.answer(0x48, 0x1900).expect("own file");
    rig.panel.measure(0, 2048).expect("own file");
    rig.panel.answer(0x39, 0xfe).expect("own file");
    rig.until("measured", |rig| {
        rig.live("T1").value == 25.0 && rig.live("AI1").raw == 2048 && rig.live("XI1").value == 0.0
    });

    // A sensor: the others on the same bus go on.
    rig.panel.break_chip(0x48, Fault::NoAcknowledge).expect("own file");
    rig.until("it is bad", |rig| is_bad(rig, "T1"));
    let good = rig.live("T1").good;
    assert_eq!(rig.live("T1").value, 25.0, "the last good value");
    rig.panel.answer(0x39, 0xff).expect("own file");
    rig.until("the expander is read", |rig| rig.live("XI1").value == 1.0);
    assert_eq!(rig.read(|image| image.flags() & multus_ipc::io::DEGRADED), multus_ipc::io::DEGRADED);
    rig.panel.answer(0x48, 0x1800).expect("own file");
    rig.until("it is good again", |rig| !is_bad(rig, "T1") && rig.live("T1").value == 24.0);
    assert!(rig.live("T1").good > good);

    // An expander for outputs: nothing is acknowledged that was not written, and then it is written again.
    assert_eq!(output(&modbus, "XO1").set_and_wait(true, PATIENCE), Ok(true));
    rig.panel.break_chip(0x38, Fault::Missing).expect("own file");
    let changes = rig.force(|force| force.define(0, &Text::new("XO1"), 0.0, 3, MonoNs::now()));
    rig.until("it cannot be forced", |rig| is_bad(rig, "XO1") && rig.read(|image| image.forced().failing) == 1);
    let scans = rig.read(|image| image.scans());
    rig.until("some scans", |rig| rig.read(|image| image.scans()) > scans + 20);
    assert!(!rig.acknowledged(changes));
    rig.panel.break_chip(0x38, Fault::None).expect("own file");
    rig.until("forced", |rig| rig.acknowledged(changes) && !is_bad(rig, "XO1"));
    assert_eq!(rig.panel.sent(0x38).expect("own file").map(|s| s.0), Some(0x7f));

    // A native output, and all native inputs.
    rig.panel.break_output(25, Fault::Timeout).expect("own file");
    assert_eq!(output(&modbus, "DO1").set(true), Ok(()));
    rig.until("bad", |rig| is_bad(rig, "DO1"));
    rig.panel.break_output(25, Fault::None).expect("own file");
    rig.until("written", |rig| !is_bad(rig, "DO1") && rig.level(25) == Some(false));
    rig.panel.break_gpio(Fault::Timeout).expect("own file");
    rig.until("bad", |rig| is_bad(rig, "DI1"));
    rig.panel.break_gpio(Fault::None).expect("own file");
    rig.until("good", |rig| !is_bad(rig, "DI1"));
    rig.panel.break_spi(Fault::Missing).expect("own file");
    rig.until("bad", |rig| is_bad(rig, "AI1"));
    rig.panel.break_spi(Fault::None).expect("own file");
    rig.until("good", |rig| rig.live("AI1").flags == 0);
    for line in [
        "LM75 at 0x48 does not answer",
        "PCF8574 at 0x38 does not answer",
        "output DO1 cannot be written",
        "native inputs cannot be read",
    ] {
        rig.until(line, |rig| rig.told().matches(line).count() == 1);
    }
    assert!(rig.told().contains("LM75 at 0x48 answers again"), "{}", rig.told());
}

#[test]
fn no_thread_waits_behind_the_load_of_the_machine() {
    let rig = Rig::started();
    if rig.told().contains("no real-time priority") {
        return skip("no_thread_waits_behind_the_load_of_the_machine", "real-time priority is not allowed");
    }
    let tasks = fs::read_dir(format!("/proc/{}/task", rig.pid())).expect("it runs");
    let policies: Vec<(String, String)> = tasks
        .map(|task| {
            let task = task.expect("it runs").path();
            let read = |file: &str| fs::read_to_string(task.join(file)).expect("its threads live as long as it does");
            let stat = read("stat");
            // proc(5): what follows the name in brackets is field 3 onward; 41 is the policy.
            let policy = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(41 - 3)).unwrap_or("");
            (read("comm").trim().to_owned(), policy.to_owned())
        })
        .collect();
    assert!(policies.len() >= 6, "scan, signals, requests, clerk and two buses: {policies:?}");
    assert!(policies.iter().all(|(_, policy)| policy == "1"), "not all are SCHED_FIFO: {policies:?}");
}

#[test]
fn a_priority_that_is_not_below_that_of_the_watch_is_lowered() {
    let mut rig = Rig::new(HARDWARE);
    fs::write(rig.dirs.config.join("io.toml"), "priority = 60\n").expect("own file");
    rig.variables.push((ENV_MOST_PRIORITY, "7".to_owned()));
    rig.start();
    assert!(rig.told().contains("priority = 60 is not below that of multusd: 7 is used"), "{}", rig.told());
    let stat = fs::read_to_string(format!("/proc/{}/stat", rig.pid())).expect("it runs");
    let field = |n: usize| stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(n - 3)).unwrap_or("");
    // proc(5): 40 is the real-time priority, 0 where none is allowed.
    let expected = if rig.told().contains("no real-time priority") { "0" } else { "7" };
    assert_eq!(field(40), expected);
}

#[test]
fn an_orderly_end_leaves_safe_outputs() {
    let mut rig = Rig::started();
    let (modbus, _page) = rig.process("modbus", 1);
    for name in ["DO1", "XO1"] {
        assert_eq!(output(&modbus, name).set_and_wait(true, PATIENCE), Ok(true));
    }
    assert_eq!(output(&modbus, "DO2").set_and_wait(false, PATIENCE), Ok(true));
    rig.signal(Signal::SIGTERM);
    assert_eq!(rig.end(), Some(0));
    assert_eq!((rig.level(25), rig.level(24)), (Some(true), Some(true)));
    assert_eq!(rig.panel.sent(0x38).expect("own file").map(|s| s.0), Some(0x7f));
    let text = fs::read_to_string(rig.dirs.state.join("io-retained.toml")).expect("written at the end");
    assert!(text.contains("\"DO2\" = 0.0"), "the request, not the safe value: {text}");
}

#[test]
fn a_bus_that_hangs_holds_up_no_line_elsewhere_and_its_outputs_count_as_tried() {
    let rig = Rig::started();
    let (modbus, _page) = rig.process("modbus", 1);
    assert_eq!(output(&modbus, "XO1").set_and_wait(true, PATIENCE), Ok(true));
    rig.panel.break_chip(0x48, Fault::Hang).expect("own file");
    rig.until("the bus hangs", |rig| MonoNs::now().since(rig.live("XI1").good) > Duration::from_millis(50));
    let changes = rig.force(|force| force.define(0, &Text::new("XO1"), 0.0, 3, MonoNs::now()));
    rig.until("nothing could be done", |rig| {
        let forced = rig.read(|image| image.forced());
        (forced.changes, forced.unwritten, forced.failing) == (changes, 1, 1)
    });
    assert_eq!(output(&modbus, "DO1").set_and_wait(true, PATIENCE), Ok(true), "native lines go on");
    assert_eq!(output(&modbus, "AO1").set(5.0), Ok(()));
    rig.until("and the other bus", |rig| rig.live("AO1").value == 5.0 && rig.live("AO1").flags & BAD == 0);
    rig.panel.break_chip(0x48, Fault::None).expect("own file");
    rig.until("forced", |rig| rig.acknowledged(changes));
    assert_eq!(rig.panel.sent(0x38).expect("own file").map(|s| s.0), Some(0x7f));
}

#[test]
fn lines_that_somebody_has_are_bad_and_the_others_go_on() {
    let mut rig = Rig::new(HARDWARE);
    rig.panel.take_line(4, true).expect("own file");
    rig.panel.take_line(25, true).expect("own file");
    rig.spawn();
    rig.until("it scans", |rig| rig.read(|image| image.scan_time().is_some()));
    assert!(rig.told().contains("line 4 is taken by \"somebody\"; waiting"), "{}", rig.told());
    let (modbus, _page) = rig.process("modbus", 1);
    assert_eq!(output(&modbus, "DO2").set_and_wait(false, PATIENCE), Ok(true));
    rig.panel.drive(17, Some(true)).expect("own file");
    rig.until("other inputs are read", |rig| rig.live("DI2").value == 1.0);
    assert!(["DI1", "DO1"].iter().all(|name| rig.live(name).flags & BAD != 0));
    assert_eq!((rig.live("DI1").good, rig.level(25)), (MonoNs(0), None));
    rig.until("told", |rig| rig.told().contains("input DI1 is missing"));
    assert_eq!(output(&modbus, "DO1").set(true), Ok(()));
    rig.panel.take_line(4, false).expect("own file");
    rig.panel.take_line(25, false).expect("own file");
    rig.until("they are there", |rig| rig.live("DI1").flags & BAD == 0 && rig.level(25) == Some(false));
    rig.until("told", |rig| rig.told().contains("input DI1 is there now"));
}

#[test]
fn lines_that_somebody_has_are_waited_for_and_named() {
    let mut rig = Rig::new(HARDWARE);
    rig.panel.take_lines(true).expect("own file");
    fs::write(rig.dirs.config.join("io.toml"), "patience = \"30s\"\n").expect("own file");
    rig.spawn();
    rig.until("it waits", |rig| rig.told().contains("; waiting"));
    rig.panel.take_lines(false).expect("own file");
    rig.until("it scans", |rig| rig.read(|image| image.scan_time().is_some()));
}

#[test]
fn by_hand_it_says_what_it_knows() {
    let rig = Rig::new(HARDWARE);
    let run = |arguments: &[&str]| {
        let output = rig.command().args(arguments).output().expect("it was built");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, schema, _) = run(&["--print-schema"]);
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    assert!(code == Some(0) && schema["properties"]["priority"]["maximum"] == 98, "{schema}");
    assert_eq!(run(&["--check-config"]).0, Some(0));
    fs::write(
        rig.dirs.config.join("hardware.toml"),
        "board = \"sim\"\n[lines.DO1]\nkind = \"digital-output\"\ngpio = 1\n",
    )
    .expect("own file");
    fs::write(rig.dirs.config.join("io.toml"), "period = \"2s\"\n").expect("own file");
    let (code, _, complaint) = run(&["--check-config"]);
    assert_eq!(code, Some(1));
    assert!(
        complaint.contains("period: 2s is out of range")
            && complaint.contains("hardware.toml:2: lines.DO1.safe: missing"),
        "{complaint}"
    );

    // Without pages: it scans for itself until it is asked to end.
    fs::write(rig.dirs.config.join("hardware.toml"), HARDWARE).expect("own file");
    fs::write(rig.dirs.config.join("io.toml"), "").expect("own file");
    let mut child = rig.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it was built");
    rig.until("safe", |rig| rig.level(25) == Some(true) && rig.level(24) == Some(true));
    kill(Pid::from_raw(child.id().try_into().expect("a process id")), Signal::SIGTERM).expect("own child");
    // Whoever asks before it listens for signals ends it all the same.
    let mut told = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut told).expect("text");
    assert!(child.wait().expect("own child").code().is_none_or(|code| code == 0), "{told}");
}
