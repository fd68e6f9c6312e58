//! Modbus RTU over a pair of pseudo terminals that socat makes.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::frames::nearly_good;
use crate::masters::{ALL_FUNCTIONS, libmodbus, output, python};
use crate::world::{Device, PATIENCE, beside, skip};

/// A serial line, until it is dropped.
struct Line {
    socat: Option<Child>,
    temp: tempfile::TempDir,
}

impl Line {
    /// The reason when there is none.
    fn new() -> Result<Self, String> {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let mut line = Self { socat: None, temp };
        line.plug_in()?;
        Ok(line)
    }

    /// The converter is there.
    fn plug_in(&mut self) -> Result<(), String> {
        let end = |name: &str| format!("pty,raw,echo=0,link={}", self.temp.path().join(name).display());
        let socat = Command::new("socat").args([end("device"), end("master")]).stdin(Stdio::null()).spawn();
        self.socat = Some(socat.map_err(|error| format!("socat: {error}"))?);
        let until = Instant::now() + PATIENCE;
        while !(self.end("device").exists() && self.end("master").exists()) {
            assert!(Instant::now() < until, "socat makes no terminals");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The converter is pulled out.
    fn pull_out(&mut self) {
        if let Some(mut socat) = self.socat.take() {
            let _ = socat.kill();
            let _ = socat.wait();
        }
        for name in ["device", "master"] {
            let _ = std::fs::remove_file(self.end(name));
        }
    }

    fn end(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn parameters(&self) -> String {
        let path = self.end("device");
        format!("[rtu]\nenabled = true\ndevice = {path:?}\nbaud = 115200\nparity = \"none\"\ngap = \"20ms\"\n")
    }

    fn device(&self, parameters: &str) -> Device {
        Device::with_tcp(&format!("{parameters}\n{}", self.parameters()), "enabled = false\n")
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.pull_out();
    }
}

fn pulled(device: &Device) {
    device.pull(1, true);
    device.pull(3, true);
}

#[test]
fn pymodbus_finds_the_map_of_the_original_over_a_serial_line() {
    let test = "pymodbus_finds_the_map_of_the_original_over_a_serial_line";
    let (line, python) = match (Line::new(), python()) {
        (Ok(line), Ok(python)) => (line, python),
        (Err(reason), _) | (_, Err(reason)) => return skip(test, &reason),
    };
    let device = line.device("");
    pulled(&device);
    let said = output(Command::new(python).arg(beside("masters.py")).arg("rtu").arg(line.end("master")));
    assert_eq!(said.as_deref().map(str::trim), Ok("ok"), "{}", device.log("modbus"));
}

#[test]
fn libmodbus_finds_every_function_over_a_serial_line() {
    let test = "libmodbus_finds_every_function_over_a_serial_line";
    let (line, master) = match (Line::new(), libmodbus()) {
        (Ok(line), Ok(master)) => (line, master),
        (Err(reason), _) | (_, Err(reason)) => return skip(test, &reason),
    };
    let device = line.device(ALL_FUNCTIONS);
    pulled(&device);
    let said = output(Command::new(master).arg("rtu").arg(line.end("master")));
    assert_eq!(said.as_deref().map(str::trim), Ok("ok"), "{}", device.log("modbus"));
}

#[test]
fn mbpoll_reads_over_a_serial_line() {
    let test = "mbpoll_reads_over_a_serial_line";
    let line = match (Line::new(), Command::new("mbpoll").arg("-V").output()) {
        (Ok(line), Ok(_)) => line,
        (Err(reason), _) => return skip(test, &reason),
        (_, Err(error)) => return skip(test, &format!("mbpoll: {error}")),
    };
    let device = line.device("");
    pulled(&device);
    let mut command = Command::new("mbpoll");
    command.args(["-m", "rtu", "-b", "115200", "-P", "none", "-a", "1", "-t", "3", "-r", "0", "-c", "3", "-0", "-1"]);
    let text = output(command.arg(line.end("master"))).expect("an answer");
    let values: Vec<_> =
        text.lines().filter(|l| l.starts_with('[')).filter_map(|l| l.split_whitespace().nth(1)).collect();
    assert_eq!(values, ["1", "0", "1"], "{text}");
}

/// The bus as a device on it sees it.
struct Bus(File);

impl Bus {
    fn new(line: &Line) -> Self {
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
        let end = File::options().read(true).write(true).custom_flags(flags).open(line.end("master"));
        Self(end.expect("a terminal"))
    }

    fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("a terminal takes it");
    }

    /// What comes within this time, up to the end of a frame of this length.
    fn hear(&mut self, length: usize, patience: Duration) -> Vec<u8> {
        let end = Instant::now() + patience;
        let (mut heard, mut bytes) = (Vec::new(), [0; 64]);
        while heard.len() < length && Instant::now() < end {
            match self.0.read(&mut bytes) {
                Ok(count) => heard.extend(&bytes[..count]),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        heard
    }

    /// Asks unit 1 for its product code until it answers: what was said before is over then. A request that comes too soon after
    /// noise is lost in it; a slow machine is given the time for its answer before it is asked again.
    fn until_answered(&mut self) {
        let end = Instant::now() + PATIENCE;
        let begin = [1, 43, 14, 4, 0x82, 0, 0, 1, 1, 13];
        while Instant::now() < end {
            self.say(&with_sum(&[1, 43, 14, 4, 1]));
            let heard = self.hear(25, Duration::from_secs(5));
            if heard.starts_with(&begin) {
                assert_eq!(with_sum(&heard[..23]), heard);
                return;
            }
            assert!(heard.is_empty(), "an answer to something else: {heard:x?}");
        }
        panic!("no answer");
    }

    /// What was said before the answer to a question that is asked now.
    fn until_settled(&mut self, answer: &[u8]) -> Vec<u8> {
        let end = Instant::now() + PATIENCE;
        // Apart from what was said before.
        let mut heard = self.hear(1, Duration::from_millis(100));
        while Instant::now() < end {
            self.say(&with_sum(&[1, 43, 14, 4, 1]));
            let again = Instant::now() + Duration::from_secs(5);
            while Instant::now() < again {
                heard.extend(self.hear(1, Duration::from_millis(20)));
                if let Some(before) = heard.strip_suffix(answer) {
                    return before.to_vec();
                }
            }
        }
        panic!("no answer, but {heard:x?}");
    }
}

fn with_sum(bytes: &[u8]) -> Vec<u8> {
    let mut crc = 0xffffu16;
    for byte in bytes {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 };
        }
    }
    [bytes, &crc.to_le_bytes()].concat()
}

#[test]
fn noise_and_frames_of_others_are_left_alone_and_all_obey_address_0() {
    let test = "noise_and_frames_of_others_are_left_alone_and_all_obey_address_0";
    let line = match Line::new() {
        Ok(line) => line,
        Err(reason) => return skip(test, &reason),
    };
    let device = line.device("");
    let mut bus = Bus::new(&line);
    bus.until_answered();
    let good = with_sum(&[1, 5, 0, 0, 0, 0]);
    let mut wrong = good.clone();
    wrong[6] ^= 1;
    for noise in [
        &wrong[..],
        &good[..7],
        &with_sum(&[2, 5, 0, 0, 0, 0]),
        &with_sum(&[17, 3, 2, 0, 0]),
        &[0xff; 700],
        &[&[0][..], &good].concat(),
        &[1],
    ] {
        bus.say(noise);
        let heard = bus.hear(1, Duration::from_millis(100));
        assert!(heard.is_empty(), "{noise:x?}: {heard:x?}");
    }
    assert_eq!(device.level(1), Some(true), "nothing was written");
    bus.until_answered();
    bus.say(&with_sum(&[0, 5, 0, 0, 0, 0]));
    device.until("address 0 is obeyed", |device| device.level(1) == Some(false));
    assert!(bus.hear(1, Duration::from_millis(100)).is_empty(), "and not answered");
    bus.say(&with_sum(&[1, 3, 0, 200, 0, 1]));
    assert_eq!(bus.hear(5, PATIENCE), with_sum(&[1, 0x83, 2]));
}

#[test]
fn a_converter_that_is_pulled_out_and_put_in_again_disturbs_no_other_master() {
    let test = "a_converter_that_is_pulled_out_and_put_in_again_disturbs_no_other_master";
    let mut line = match Line::new() {
        Ok(line) => line,
        Err(reason) => return skip(test, &reason),
    };
    // Not there at the start.
    line.pull_out();
    let device = Device::new(&line.parameters());
    let mut master = device.connect();
    let mut works = |what: &str| assert_eq!(master.ask(&[43, 14, 4, 1])[0], 43, "{what}");
    works("without a line");
    device.until("it is told", |device| {
        device.child("modbus").text.is_some_and(|text| text.contains("the serial line is not there"))
    });
    for turn in 0..3 {
        line.plug_in().expect("socat is there");
        Bus::new(&line).until_answered();
        works("with a line");
        line.pull_out();
        device.until("it is told", |device| {
            device.child("modbus").text.is_some_and(|text| text.contains("the serial line is not there"))
        });
        works(&format!("after it was pulled out, turn {turn}"));
    }
    assert_eq!(device.child("modbus").restarts, 0);
    device.until("why is told", |device| {
        let log = device.log("modbus");
        log.contains("cannot be opened") && log.contains("trying again")
    });
}

#[test]
fn nearly_good_frames_on_a_serial_line_are_answered_rightly_or_not_at_all() {
    let test = "nearly_good_frames_on_a_serial_line_are_answered_rightly_or_not_at_all";
    let line = match Line::new() {
        Ok(line) => line,
        Err(reason) => return skip(test, &reason),
    };
    let device = line.device(ALL_FUNCTIONS);
    let mut bus = Bus::new(&line);
    bus.until_answered();
    bus.say(&with_sum(&[1, 43, 14, 4, 1]));
    let answer = bus.hear(25, PATIENCE);
    let bus = std::cell::RefCell::new(bus);
    let mut runner = TestRunner::new(Config { cases: 50, failure_persistence: None, ..Config::default() });
    // The check sum before the changes, so that most are wrong; and behind them.
    let before = nearly_good(|pdu| with_sum(&[&[1], pdu].concat()));
    let behind = nearly_good(|pdu| [&[1], pdu].concat()).prop_map(|frame| with_sum(&frame));
    runner
        .run(&prop_oneof![before, behind], |frame| {
            let mut bus = bus.borrow_mut();
            bus.say(&frame);
            let heard = bus.until_settled(&answer);
            let is_frame = heard.len() > 4 && heard[0] == 1 && with_sum(&heard[..heard.len() - 2]) == heard;
            prop_assert!(heard.is_empty() || is_frame, "{:x?} to {:x?}", heard, frame);
            Ok(())
        })
        .expect("the server goes on");
    assert_eq!(device.child("modbus").restarts, 0);
}
