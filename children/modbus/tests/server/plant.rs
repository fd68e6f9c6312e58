//! What becomes of the plant: safe, retained and live values, a lost master, forced outputs, a multus-io that is gone.

use std::process::Command;
use std::time::{Duration, Instant};

use multus_contract::api::command::Request;
use multus_hardware::sim::Fault;
use nix::sys::signal::{Signal, kill};

use crate::masters::output;
use crate::world::{DO, Device, free_port, hardware, skip};

const COIL_1_LOW: [u8; 5] = [5, 0, 0, 0, 0];
const COIL_1_HIGH: [u8; 5] = [5, 0, 0, 0xff, 0];
const READ_BACK: [u8; 5] = [3, 0, 10, 0, 8];

#[test]
fn an_answer_to_a_write_means_that_the_output_has_it() {
    let device = Device::original();
    let mut master = device.connect();
    for turn in 0..50u8 {
        let is_high = turn % 2 == 1;
        let write = if is_high { COIL_1_HIGH } else { COIL_1_LOW };
        assert_eq!(master.know(&write), write);
        assert_eq!(device.level(1), Some(is_high), "at the board");
        assert_eq!(master.know(&[1, 0, 0, 0, 1]), [1, 1, u8::from(is_high)], "read back");
        assert_eq!(master.know(&READ_BACK)[3], u8::from(is_high));
    }
}

#[test]
fn inputs_are_read_and_their_edges_counted() {
    let counters = "[[map]]\ntables = [\"input-registers\"]\naddress = 20\nlines = [\"DI1\"]\nshows = \"edges\"\n\
                    format = \"u32\"\nword_order = \"low-first\"\n\
                    [[map]]\ntables = [\"input-registers\"]\naddress = 30\nlines = [\"DI1\", \"DI2\"]\nshows = \"rising-edges\"\n\
                    [[map]]\ntables = [\"input-registers\"]\naddress = 40\nlines = [\"AI1\"]\nscale = 1000.0\n";
    let device = Device::new(counters);
    let mut master = device.connect();
    for _ in 0..5 {
        device.pull(1, true);
        device.pull(1, false);
    }
    device.pull(1, true);
    assert_eq!(master.know(&[4, 0, 20, 0, 2]), [4, 4, 0, 11, 0, 0]);
    assert_eq!(master.know(&[4, 0, 30, 0, 2]), [4, 4, 0, 6, 0, 0]);
    // 2048 of 4095 steps of 10 V, in thousandths.
    device.panel.measure(0, 2048).expect("own file");
    master.ask_until(&[4, 0, 40, 0, 1], &[4, 2, 0x13, 0x89]);
}

#[test]
fn a_lost_master_gets_its_outputs_back_when_it_writes_its_register() {
    let watchdog = "[watchdog]\nenabled = true\naddress = 900\ntimeout = \"3s\"\noutputs = [\"DO1\"]\n";
    let device = Device::new(watchdog);
    let mut master = device.connect();
    let feed = [6, 0x03, 0x84, 0, 1];
    master.know(&feed);
    master.ask_until(&COIL_1_LOW, &COIL_1_LOW);
    master.know(&[5, 0, 1, 0, 0]);
    let begun = Instant::now();
    let mut fed = begun;
    while begun.elapsed() < Duration::from_millis(4500) {
        fed = Instant::now();
        assert_eq!(master.know(&feed), feed);
        assert_eq!(device.level(1), Some(false), "it stays as long as the register is written");
    }
    device.until("safe", |device| device.level(1) == Some(true));
    assert!(fed.elapsed() >= Duration::from_secs(3), "after {:?}", fed.elapsed());
    assert_eq!(device.level(2), Some(false), "another output is left alone");
    master.ask_until(&COIL_1_LOW, &[0x85, 6]);
    assert_eq!(master.know(&[5, 0, 1, 0, 0]), [5, 0, 1, 0, 0]);
    assert_eq!(master.know(&feed), feed);
    assert_eq!(device.level(1), Some(true), "it stays safe until it is written");
    assert_eq!(master.know(&COIL_1_LOW), COIL_1_LOW);
    assert_eq!(device.level(1), Some(false));
    device.until("both are told", |device| {
        let log = device.log("modbus");
        log.contains("is not written any more") && log.contains("is written again")
    });
}

#[test]
fn outputs_begin_safe_then_with_what_is_retained() {
    let retained =
        hardware().replace("gpio = 25, active_low = true,", "gpio = 25, active_low = true, retained = true,");
    let both_low = [15, 0, 0, 0, 2, 1, 0];
    for (restore, expected) in [("true", false), ("false", true)] {
        let device = Device::with_hardware(&format!("restore = {restore}\n"), "", &retained);
        let mut master = device.connect();
        master.ask_until(&both_low, &[15, 0, 0, 0, 2]);
        assert_eq!((device.level(1), device.level(2)), (Some(false), Some(false)));
        device.tell(&Request::Stop { name: "modbus".into() });
        device.until("both safe", |device| device.level(1) == Some(true) && device.level(2) == Some(true));
        device.until("the old one is gone", |device| device.child("modbus").state == "stopped");
        device.tell(&Request::Start { name: "modbus".into() });
        let mut master = device.connect();
        // 0 is the low level, which was asked for.
        let level = u8::from(expected);
        master.ask_until(&[3, 0, 10, 0, 2], &[3, 4, 0, level, 0, 1]);
        assert_eq!((device.level(1), device.level(2)), (Some(expected), Some(true)), "restore = {restore}");
        // Until multusd has released the outputs of the new process, it is busy (exception 06).
        master.ask_until(&both_low, &[15, 0, 0, 0, 2]);
        assert_eq!((device.level(1), device.level(2)), (Some(false), Some(false)));
    }
}

#[test]
fn a_server_that_hangs_has_its_outputs_made_safe() {
    let device = Device::original();
    let mut master = device.connect();
    master.ask_until(&COIL_1_LOW, &COIL_1_LOW);
    let before = device.pid("modbus");
    kill(before, Signal::SIGSTOP).expect("it runs");
    device.until("safe", |device| device.level(1) == Some(true));
    device.until("another process", |device| {
        let child = device.child("modbus");
        child.state == "running" && child.pid.is_some_and(|pid| pid.cast_signed() != before.as_raw())
    });
    assert_eq!(device.connect().know(&[3, 0, 10, 0, 1]), [3, 2, 0, 1], "not retained");
}

#[test]
fn without_multus_io_nothing_is_told_or_written() {
    let device = Device::original();
    let mut master = device.connect();
    master.ask_until(&COIL_1_LOW, &COIL_1_LOW);
    device.tell(&Request::Stop { name: "io".into() });
    master.ask_until(&[3, 0, 0, 0, 8], &[0x83, 4]);
    assert_eq!(master.ask(&COIL_1_LOW), [0x85, 4]);
    assert_eq!(master.know(&[43, 14, 4, 0])[0], 43, "what has to do with no line");
    device.tell(&Request::Start { name: "io".into() });
    master.ask_until(&[3, 0, 0, 0, 8], &[&[3, 16][..], &[0; 16]].concat());
    assert_eq!(device.child("modbus").restarts, 0);
}

#[test]
fn a_forced_output_is_busy() {
    let device = Device::original();
    let mut master = device.connect();
    master.ask_until(&COIL_1_LOW, &COIL_1_LOW);
    device.tell(&Request::IoForce { name: "DO1".into(), value: 0.0 });
    master.ask_until(&COIL_1_HIGH, &[0x85, 6]);
    assert_eq!(master.know(&[15, 0, 0, 0, 2, 1, 3]), [0x8f, 6], "both or none");
    device.tell(&Request::IoRelease { name: "DO1".into() });
    master.ask_until(&COIL_1_LOW, &COIL_1_LOW);
}

#[test]
fn what_a_master_was_refused_does_not_come_later() {
    let device = Device::original();
    let both = |values| [15, 0, 0, 0, 2, 1, values];
    let mut master = device.connect();
    master.ask_until(&both(0), &[15, 0, 0, 0, 2]);
    let written = |output: usize| device.panel.output(DO[output - 1]).expect("own file");
    let before = [written(1), written(2)];
    device.panel.break_output(DO[0], Fault::NoAcknowledge).expect("own file");
    // Nobody knows it before the first write; what was asked for is taken back, all of it.
    assert_eq!(master.ask(&both(3)), [0x8f, 4]);
    device.until("the other one has what it had", |_| written(2).is_some_and(|(level, _)| !level));
    let taken_back = written(2);
    device.until("it is known", |device| device.line("DO1").is_some_and(|line| !line.good));
    assert_eq!(master.ask(&COIL_1_HIGH), [0x85, 4]);
    assert_eq!(master.ask(&both(3)), [0x8f, 4]);
    assert_eq!(written(2), taken_back, "not even for a moment");
    device.panel.break_output(DO[0], Fault::None).expect("own file");
    device.until("it works again", |device| device.line("DO1").is_some_and(|line| line.good));
    assert_eq!((device.level(1), before[0].map(|(level, _)| level)), (Some(false), Some(false)));
    // Nor when multus-io did not come round.
    kill(device.pid("io"), Signal::SIGSTOP).expect("it runs");
    assert_eq!(master.ask(&both(3)), [0x8f, 4]);
    kill(device.pid("io"), Signal::SIGCONT).expect("it runs");
    master.ask_until(&[1, 0, 0, 0, 2], &[1, 1, 0]);
    assert_eq!((device.level(1), device.level(2)), (Some(false), Some(false)));
    assert_eq!(master.know(&both(3)), [15, 0, 0, 0, 2]);
}

#[test]
fn a_read_only_server_writes_nothing() {
    let device = Device::new("read_only = true\n");
    let mut master = device.connect();
    assert_eq!(master.know(&COIL_1_LOW), [0x85, 1]);
    assert_eq!(master.know(&[15, 0, 0, 0, 8, 1, 0]), [0x8f, 1]);
    assert_eq!(master.know(&[6, 0, 0, 0, 1]), [0x86, 1]);
    assert_eq!(master.know(&READ_BACK), [3, 16, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
    drop(device);
    // It needs no outputs of its own.
    let map = "read_only = true\n[[map]]\ntables = [\"coils\"]\nlines = [\"DO1\"]\n";
    let device = Device::with_hardware(map, "", &hardware().replace(", owner = \"modbus\"", ""));
    assert_eq!(device.connect().know(&[1, 0, 0, 0, 1]), [1, 1, 0]);
}

#[test]
fn lines_that_are_not_there_are_an_error_of_a_map_and_left_out_of_that_of_the_original() {
    let lines = format!(
        "board = \"sim\"\n[lines]\nDI1 = {{ kind = \"digital-input\", gpio = 4, active_low = true, bias = \"pull-up\" }}\n\
         DO1 = {{ kind = \"digital-output\", gpio = {}, safe = \"on\", owner = \"modbus\" }}\n\
         DO2 = {{ kind = \"digital-output\", gpio = {}, safe = \"off\", owner = \"other\" }}\n",
        DO[0], DO[1]
    );
    let device = Device::with_hardware("", "", &lines);
    let mut master = device.connect();
    master.ask_until(&[3, 0, 0, 0, 1], &[3, 2, 0, 0]);
    assert_eq!(master.know(&[3, 0, 0, 0, 2]), [0x83, 2], "DI2 is not there");
    assert_eq!(master.know(&[3, 0, 10, 0, 2]), [3, 4, 0, 0, 0, 1], "the output of another can be read");
    assert_eq!(master.know(&[5, 0, 1, 0, 0]), [0x85, 2], "and not written");
    assert_eq!(master.know(&COIL_1_HIGH), COIL_1_HIGH);
    device.until("it is told", |device| {
        device.log("modbus").contains("line DI2: hardware.toml has no line of this name; its addresses are answered")
    });
    drop(device);
    let map = "[[map]]\ntables = [\"coils\"]\nlines = [\"DO2\", \"DO3\"]\n";
    let device = Device::start(map, "", &lines);
    device.until("it does not start", |device| {
        let log = device.log("modbus");
        log.contains("line DO2: belongs to other; to set it, write owner = \"modbus\" in hardware.toml")
            && log.contains("line DO3: hardware.toml has no line of this name")
    });
}

#[test]
fn another_configuration_is_in_force_and_outputs_that_left_the_map_are_safe() {
    let device = Device::original();
    let mut master = device.connect();
    master.ask_until(&[15, 0, 0, 0, 2, 1, 0], &[15, 0, 0, 0, 2]);
    device.reconfigure("unit = 5\n[[map]]\ntables = [\"coils\"]\nlines = [\"DO2\"]\n", "");
    assert!(master.is_closed(), "old connections end");
    let mut master = device.connect();
    assert_eq!(master.ask_unit(5, &[1, 0, 0, 0, 1]), [1, 1, 1], "DO2 has what it had");
    assert_eq!(master.ask_unit(1, &[1, 0, 0, 0, 1]), [0x81, 0x0b]);
    device.until("DO1 is safe", |device| device.level(1) == Some(true));
    assert_eq!(device.level(2), Some(false));
    device.reconfigure("unit = 900\n", "");
    device.until("it is told", |device| device.log("modbus").contains("going on with the previous one"));
    assert_eq!(device.connect().ask_unit(5, &[1, 0, 0, 0, 1]), [1, 1, 1]);
    assert_eq!(device.child("modbus").restarts, 0);
}

#[test]
fn with_a_configuration_that_cannot_work_the_server_goes_on_with_what_it_had() {
    let device = Device::original();
    let mut master = device.connect();
    master.ask_until(&COIL_1_LOW, &COIL_1_LOW);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = format!("port = {}\n", taken.local_addr().expect("bound").port());
    let no_line = "[[map]]\ntables = [\"coils\"]\nlines = [\"DO99\"]\n";
    for (more, tcp, reason) in [
        (no_line, String::new(), "line DO99: hardware.toml has no line of this name"),
        ("", "bind = \"192.0.2.1\"\n".into(), "cannot listen on 192.0.2.1"),
        ("", taken, "Address already in use"),
    ] {
        let before = device.log("modbus").matches("going on with the previous one").count();
        let text = format!(
            "{more}\n[tcp]\n{}{tcp}\n",
            if tcp.contains("port") { String::new() } else { format!("port = {}\n", device.port) }
        );
        device.reread(&text);
        device.until("it is told", |device| {
            let log = device.log("modbus");
            log.matches("going on with the previous one").count() > before && log.contains(reason)
        });
        assert_eq!(master.know(&COIL_1_LOW), COIL_1_LOW, "the same connection");
    }
    // The same number of another address is had only when the old one is closed.
    let port = device.port;
    device.reread(&format!("[tcp]\nport = {port}\nbind = \"0.0.0.0\"\n"));
    assert!(master.is_closed(), "old connections end");
    let mut master = device.connect();
    device.until("all addresses", |device| device.log("modbus").contains(&format!("Modbus TCP on 0.0.0.0:{port}")));
    assert_eq!((master.know(&COIL_1_LOW), device.level(1)), (COIL_1_LOW.to_vec(), Some(false)));
    assert_eq!(device.child("modbus").restarts, 0);
}

#[test]
fn the_device_tells_how_it_is() {
    let device = Device::new("[diagnostics]\nenabled = true\naddress = 1000\nchildren = [\"io\", \"nobody\"]\n");
    let mut master = device.connect();
    let all = [4, 0x03, 0xe8, 0, 28];
    device.until("multusd was asked", |_| master.ask(&all)[0] == 4);
    let answer = master.know(&all);
    let register = |n: usize| u16::from_be_bytes([answer[2 + 2 * n], answer[3 + 2 * n]]);
    assert_eq!((register(4), register(5), register(10)), (0x8000, 2, 1));
    assert!(register(6) <= 2 && register(12) >= 1, "running, answered");
    assert_eq!((register(16), register(17)), (0, 1), "no watchdog; multus-io scans");
    assert_eq!((register(20), register(24)), (u16::from(running()), 0xffff), "io runs, nobody is not there");
    assert_eq!(master.know(&[6, 0x03, 0xe8, 0, 1]), [0x86, 2]);
    kill(device.pid("io"), Signal::SIGKILL).expect("it runs");
    device.until("its restart is told", |_| {
        let answer = master.ask(&all);
        answer[0] == 4 && answer[2 + 2 * 23 + 1] == 1
    });
}

fn running() -> u8 {
    multus_ipc::words::StateCode::Running.code()
}

#[test]
fn what_a_master_writes_is_in_the_event_database() {
    let test = "what_a_master_writes_is_in_the_event_database";
    let look = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(\"select count(*) from io_changes \
                where line = 'DO1' and value = '1' and source = 'requested'\").fetchone()[0])";
    let database = |path: &std::path::Path| output(Command::new("python3").args(["-c", look]).arg(path));
    if Command::new("python3").args(["-c", "import sqlite3"]).status().map_or(true, |status| !status.success()) {
        return skip(test, "python3 with sqlite3 is missing");
    }
    let device = Device::original();
    let [web, grpc] = [free_port(), free_port()];
    let parameters = format!("[web]\nlisten = [\"127.0.0.1:{web}\"]\n[grpc]\nlisten = \"127.0.0.1:{grpc}\"\n");
    device.add("control", "multus-control", &parameters);
    device.until("it runs", |device| device.child("control").state == "running");
    let mut master = device.connect();
    master.ask_until(&COIL_1_LOW, &COIL_1_LOW);
    let path = device.dirs.state.join("history.sqlite");
    device.until("it is recorded", |_| database(&path).is_ok_and(|count| count.trim() == "1"));
}
