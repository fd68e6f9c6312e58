//! The Python package against this crate: the same layout, the same buckets. Skipped where python3 (3.9) is missing.
#![cfg(not(loom))]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Output, Stdio};

use multus_ipc::checkpoint::{self, Disorder, Plan};
use multus_ipc::heartbeat::{self, PageWriter, Reader};
use multus_ipc::map::{self, Mapping};
use multus_ipc::sync::{AtomicU64, Ordering};
use multus_ipc::text::Text;
use multus_ipc::trace::{Mark, Pace, RING, SLOT_NS};
use multus_ipc::{MonoNs, futex, histogram, io};

const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python");

#[test]
fn the_python_example_beats_as_rust_reads_it() {
    if !python_is_there("the Python example") {
        return;
    }
    let (map, fd) = page(&plan(["begin", "middle", "end"]));
    let output = with_page(fd, &["-B", "examples/child.py", "20"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let reader = Reader::new(map.words());
    assert!(reader.is_ready() && reader.validate().is_ok());
    assert_eq!((reader.look(0).sequence, reader.lanes()), (21, 2));
    assert_eq!(reader.lane_name(1).to_string(), "poller");
    assert_eq!(reader.lane_deadline_ns(1), Some(500_000_000));
    assert!(reader.has_left(1) && !reader.has_left(0));
    let counted: u64 = (0..histogram::BUCKETS).map(|bucket| reader.bucket(0, bucket)).sum();
    assert_eq!(counted, 20, "one interval less than beats");
    let median = histogram::percentile(|bucket| reader.bucket(0, bucket), 500, reader.max_gap_ns(0)).unwrap();
    assert!(median >= 10_000_000, "a turn takes 10 ms, the median is {median} ns");
    let checkpoints = reader.checkpoints();
    let (rounds, shortest, _) = checkpoints.times(0);
    assert_eq!((rounds, checkpoints.begun(0)), (20, None));
    assert!(shortest >= 10_000_000, "begin to end took {shortest} ns");
    assert_eq!(checkpoint::disorder(checkpoints.disorder(0)), Disorder { from: Some(0), to: 2 }, "middle is left out");
    let marks: Vec<Mark> = reader.trace(0).unwrap().marks(MonoNs::now()).into_iter().map(|(_, mark)| mark).collect();
    let turn = [Mark::Checkpoint(0), Mark::Checkpoint(2), Mark::Beat];
    assert_eq!(marks, [&[Mark::Beat][..], &turn.repeat(20)].concat());
}

#[test]
fn rust_reads_what_python_passed() {
    if !python_is_there("checkpoints from Python") {
        return;
    }
    const START: u64 = 1_000_000 * MS;
    let (map, fd) = page(&plan(["read", "compute", "write"]));
    // Main loop: compute out of order; read to write in 1 ms, which is too early; in 12.0001 ms, which is too late. Then one
    // under way, and a lane that leaves with one under way.
    let steps = [
        step(START, 0, "compute"),
        step(START + MS, 0, "write"),
        step(START + 2 * MS, 0, "read"),
        step(START + 3 * MS, 0, "write"),
        step(START + 10 * MS, 0, ""),
        step(START + 20 * MS, 0, "read"),
        step(START + 32 * MS + 100, 0, "write"),
        step(START + 40 * MS, 0, ""),
        step(START + 50 * MS, 0, "read"),
        step(START + 60 * MS, 1, "poll"),
        step(START + 67 * MS, 1, "poll"),
    ];
    let output = with_page(fd, &["-B", "-c", STEPS_IN_PYTHON, &steps.concat()]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");

    let reader = Reader::new(map.words());
    let checkpoints = reader.checkpoints();
    // From the beginning to compute, and twice from read to write.
    assert_eq!(checkpoint::disorder(checkpoints.disorder(0)), Disorder { from: Some(0), to: 2 });
    assert_eq!((checkpoints.disorder(0) & 0xFFFF, checkpoints.disorder(1)), (3, 0));
    let outside = checkpoints.outside(0);
    assert_eq!((outside & 0xFFFF, checkpoint::outside_ns(outside)), (2, 12 * MS + 1000));
    assert_eq!(checkpoints.times(0), (2, MS, 12 * MS + 100));
    assert_eq!(checkpoints.begun(0), Some(MonoNs(START + 50 * MS)));
    assert_eq!((checkpoints.times(1), checkpoints.begun(1)), ((1, 7 * MS, 7 * MS), None));
    let now = MonoNs(START + 100 * MS);
    let marks = reader.trace(0).unwrap().marks(now);
    let beat = |ms| (MonoNs(START + ms * MS), Mark::Beat);
    assert_eq!(marks.iter().filter(|(_, mark)| *mark == Mark::Beat).copied().collect::<Vec<_>>(), [beat(10), beat(40)]);
    assert_eq!((marks[0], marks.len()), ((MonoNs(START), Mark::Checkpoint(1)), 9));
    let slot = START / SLOT_NS * SLOT_NS;
    assert_eq!(reader.trace(0).unwrap().pace(now), [Pace { begin: MonoNs(slot), beats: 2, longest_us: 30_000 }]);
}

#[test]
fn python_and_rust_write_the_same_page() {
    if !python_is_there("a page written by Python and by Rust") {
        return;
    }
    let plan = plan(["read", "compute", "write"]);
    let (by_rust, _fd) = page(&plan);
    let (by_python, fd) = page(&plan);
    let writer = PageWriter::new(by_rust.words()).unwrap();
    let mut steps = vec![];
    // From rounds of 2 us to silences of 17 s and more, in an order that is the same in every run.
    let (mut now, mut random) = (MonoNs(777 * 1000 * MS), 88_172_645_463_325_252_u64);
    for number in 0..3000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let scale = if number % 500 == 0 { 25 } else { (random >> 32) % 26 };
        now.0 += (random % 1000) << scale;
        let lane = (random >> 40) as usize % 2;
        let names = [["", "read", "compute", "write"], ["", "", "poll", "poll"]][lane];
        let name = names[(random >> 50) as usize % 4];
        steps.push(step(now.0, lane, name));
        if lane == 1 && Reader::new(by_rust.words()).lanes() == 1 {
            writer.open_lane(1, "poller", 0, now);
        }
        match writer.find_checkpoint(lane, name) {
            None => writer.lane(lane).beat_at(now),
            Some(checkpoint) => {
                writer.checkpoints().pass(checkpoint, now);
                writer.lane(lane).trace_checkpoint(checkpoint, now);
            }
        }
    }
    writer.leave(1);
    let output = with_page(fd, &["-B", "-c", STEPS_IN_PYTHON, &steps.concat()]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let value = |word: &AtomicU64| word.load(Ordering::Relaxed);
    let different: Vec<_> = (0..heartbeat::WORDS)
        .map(|n| (n, value(&by_rust.words()[n]), value(&by_python.words()[n])))
        .filter(|(_, rust, python)| rust != python)
        .collect();
    assert_eq!(different, [], "(word, by Rust, by Python)");
    let reader = Reader::new(by_rust.words());
    assert!(reader.checkpoints().disorder(0) & 0xFFFF > 100 && reader.checkpoints().outside(0) & 0xFFFF > 10);
    assert_eq!(reader.trace(1).unwrap().marks(now).len(), RING);
}

#[test]
fn python_and_rust_agree_on_every_bucket() {
    if !python_is_there("the buckets in Python") {
        return;
    }
    let edges = (0..histogram::BUCKETS - 1).map(histogram::upper_ns).flat_map(|upper| [upper, upper + 1]);
    let intervals: Vec<u64> = [0].into_iter().chain(edges).chain([u64::MAX]).collect();
    let program = format!("from multus._heartbeat import bucket\nprint([bucket(i) for i in {intervals:?}])");
    let output = python(&["-B", "-c", &program]);
    let expected: Vec<usize> = intervals.iter().map(|interval| histogram::bucket(*interval)).collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{expected:?}"), "{output:?}");
}

#[test]
fn python_reads_the_image_and_asks_for_outputs() {
    if !python_is_there("lines from Python") {
        return;
    }
    let page = |words, header: [u64; 3]| {
        let fd = map::memfd(c"io", words).unwrap();
        let map = Mapping::writable(fd.as_fd()).unwrap();
        for (word, value) in map.words().iter().zip(header) {
            word.store(value, Ordering::Relaxed);
        }
        (fd, map)
    };
    let (image_fd, image) = page(io::IMAGE_WORDS, io::image_header());
    let (request_fd, requests) = page(io::REQUEST_WORDS, io::request_header());
    let writer = io::Writer::new(image.words()).unwrap();
    let line = |name, kind, owner| {
        let (name, unit, owner) = (Text::new(name), Text::new("°C"), Text::new(owner));
        io::Definition { name, unit, owner, kind, safe: 0.0, lowest: 0.0, highest: 10.0 }
    };
    let lines = [
        line("DI1", io::LineKind::DigitalInput, ""),
        line("DO1", io::LineKind::DigitalOutput, "py"),
        line("AO1", io::LineKind::AnalogueOutput, "other"),
        line("AO2", io::LineKind::AnalogueOutput, "py"),
    ];
    let layout = writer.define(&lines);
    let live = io::Live { value: 0.25, raw: 7, flags: 0, changed: MonoNs(3), good: MonoNs(4), changes: 5, done: 0 };
    writer.set(0, &live);
    writer.set(1, &io::Live { flags: io::BAD | io::FORCED, ..live });
    writer.begin("test", true, 1, 1_000_000, u64::MAX);
    writer.scanned(MonoNs::now(), 0, 0, false);
    let path = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
    let view = map::read_only_copy(image_fd.as_fd()).unwrap();
    let mut child = Command::new("sh")
        .args(["-c", "exec python3 -B -c \"$0\" 7<\"$1\" 8<>\"$2\"", LINES_IN_PYTHON, &path(&view), &path(&request_fd)])
        .envs([
            ("MULTUS_IO_IMAGE_FD", "7"),
            ("MULTUS_IO_REQUEST_FD", "8"),
            ("MULTUS_NAME", "py"),
            ("PYTHONPATH", PACKAGE),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It asks, then waits for a change, for as long as it takes.
    let reader = io::RequestReader::new(requests.words()).unwrap();
    while reader.look(3).is_none() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    // The lines move: what was looked up before is found again.
    let moved = [lines[3], lines[0], lines[1], lines[2]];
    writer.define(&moved);
    writer.set(1, &io::Live { value: 0.5, ..live });
    writer.announce();
    futex::wake_all(writer.reader().change_word());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let (first, second) = (reader.look(1).unwrap(), reader.look(3).unwrap());
    assert_eq!((first.value, first.layout, second.value, second.layout), (1.0, layout, 2.5, layout));
    assert_eq!(first.validate(Some(&lines[1]), layout, &Text::new("py")), Ok(1.0));
    assert_eq!(reader.look(0), None, "an input is not asked for");
    assert!(reader.look(2).is_some(), "multus-io is to see who asks for what is not his");
}

/// See the test above.
const LINES_IN_PYTHON: &str = "
import math
from multus import Io, NotSet
io = Io.try_from_env()
line, lamp, foreign, valve = io.input('DI1'), io.output('DO1'), io.output('AO1'), io.output('AO2')
assert io.output('DI1') is None and io.input('DO1') is None and io.line('DI2') is None and io.line('') is None
assert io.is_fresh and line.good() == 0.25 and line.unit == '°C'
assert line.read()[1:] == (7, True, False, 3e-9, 4e-9, 5), line.read()
assert lamp.good() is None and lamp.read().is_forced
for output, value in ((lamp, 0.5), (foreign, 1), (valve, 10.5), (valve, math.nan), (valve, -1)):
    try:
        output.set(value)
    except NotSet:
        continue
    raise SystemExit(f'{output.name} took {value}')
seen = io.changes
assert io.wait_change(seen - 1, 60) == seen and io.wait_change(seen, 0.001) == seen
lamp.set(True)
valve.set(2.5)
while line.good() != 0.5:
    last = seen
    seen = io.wait_change(seen, 60)
    assert seen != last
nobody = Io()
assert nobody.line('DI1') is None and not nobody.is_fresh and nobody.wait_change(3, 0) == 0
";

const MS: u64 = 1_000_000;

/// Does what its argument says at the times that are given there, then closes lane 1, which it opens when it is first used.
const STEPS_IN_PYTHON: &str = "
import sys
from multus import Heartbeat, _checkpoint, _heartbeat
now = 0
_checkpoint.monotonic_ns = _heartbeat.monotonic_ns = lambda: now
main = Heartbeat.from_env()
lane = None
for line in sys.argv[1].split(';')[:-1]:
    time, number, name = line.split(',')
    now = int(time)
    if number == '1' and lane is None:
        lane = main.lane('poller')
    writer = lane if number == '1' else main
    if name:
        writer.checkpoint(name).passed()
    else:
        writer.beat()
lane.close()
";

/// At this time, in this lane: a checkpoint, or without a name a beat.
fn step(at: u64, lane: usize, name: &str) -> String {
    format!("{at},{lane},{name};")
}

/// Three checkpoints of the main loop, one after the other, the second as often as it likes, 2 to 10 ms from the first to
/// the last; and the time of a round in the lane poller.
fn plan(names: [&str; 3]) -> Plan {
    let mut plan = Plan::default();
    let main = plan.section("").unwrap();
    let [first, second, third] = names.map(|name| plan.checkpoint(main, name).unwrap());
    plan.order(first, &[second], true);
    plan.order(second, &[second, third], false);
    plan.order(third, &[first], false);
    plan.deadline(first, third, 2 * MS, 10 * MS).unwrap();
    let poller = plan.section("poller").unwrap();
    let poll = plan.checkpoint(poller, "poll").unwrap();
    plan.deadline(poll, poll, 0, 0).unwrap();
    plan
}

/// A page as multusd makes it.
fn page(plan: &Plan) -> (Mapping, OwnedFd) {
    let fd = map::memfd(c"heartbeat", heartbeat::WORDS).unwrap();
    let map = Mapping::writable(fd.as_fd()).unwrap();
    for (word, value) in map.words().iter().zip(heartbeat::header(1, 50_000_000)) {
        word.store(value, Ordering::Relaxed);
    }
    for (word, value) in map.words()[heartbeat::CHECKPOINTS..].iter().zip(plan.words()) {
        word.store(*value, Ordering::Relaxed);
    }
    (map, fd)
}

/// Runs Python with this page. The shell gives it a number above 2, without close-on-exec.
fn with_page(page: OwnedFd, arguments: &[&str]) -> Output {
    Command::new("sh")
        .args(["-c", "exec python3 \"$@\" 7<&0 < /dev/null", "sh"])
        .args(arguments)
        .env("MULTUS_HEARTBEAT_FD", "7")
        .env("PYTHONPATH", PACKAGE)
        .stdin(Stdio::from(page))
        .current_dir(PACKAGE)
        .output()
        .unwrap()
}

fn python(arguments: &[&str]) -> Output {
    Command::new("python3").args(arguments).env("PYTHONPATH", PACKAGE).output().unwrap()
}

/// Says why a test is skipped, here and in the file that `MULTUS_SKIP_LOG` names.
fn python_is_there(test: &str) -> bool {
    let probe = ["-c", "import sys; sys.exit(sys.version_info < (3, 9))"];
    let probe = Command::new("python3").args(probe).stderr(Stdio::null()).status();
    if probe.is_ok_and(|status| status.success()) {
        return true;
    }
    let line = format!("skipped: {test}: python3 (3.9 or newer) is missing\n");
    eprint!("{line}");
    let log = std::env::var_os("MULTUS_SKIP_LOG");
    if let Some(mut file) = log.and_then(|path| OpenOptions::new().create(true).append(true).open(path).ok()) {
        let _ = file.write_all(line.as_bytes());
    }
    false
}
