//! The Python package against this crate: the same layout, the same buckets. Skipped where python3 (3.9) is missing.
#![cfg(not(loom))]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};

use multus_ipc::heartbeat::{self, Reader};
use multus_ipc::histogram;
use multus_ipc::map::{self, Mapping};
use multus_ipc::sync::Ordering;

const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python");

#[test]
fn the_python_example_beats_as_rust_reads_it() {
    if !python_is_there("the Python example") {
        return;
    }
    let fd = map::memfd(c"heartbeat", heartbeat::WORDS).unwrap();
    let map = Mapping::writable(fd.as_fd()).unwrap();
    for (word, value) in map.words().iter().zip(heartbeat::header(1, 50_000_000)) {
        word.store(value, Ordering::Relaxed);
    }
    // The shell gives the page a number above 2, without close-on-exec.
    let output = Command::new("sh")
        .args(["-c", "exec python3 -B examples/child.py 20 7<&0 < /dev/null"])
        .env("MULTUS_HEARTBEAT_FD", "7")
        .env("PYTHONPATH", PACKAGE)
        .stdin(Stdio::from(fd))
        .current_dir(PACKAGE)
        .output()
        .unwrap();
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
