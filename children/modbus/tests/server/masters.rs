//! Masters that others have made: pymodbus, mbpoll, libmodbus, tokio-modbus.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::world::{Device, beside, skip};

/// The map of the original, an analogue output in three ways, and a watchdog.
pub(crate) const ALL_FUNCTIONS: &str = r#"
[[map]]
tables = ["input-registers", "holding-registers", "discrete-inputs"]
lines = ["DI1", "DI2", "DI3", "DI4", "DI5", "DI6", "DI7", "DI8"]
[[map]]
tables = ["coils"]
lines = ["DO1", "DO2", "DO3", "DO4", "DO5", "DO6", "DO7", "DO8"]
[[map]]
tables = ["holding-registers"]
address = 100
lines = ["AO1"]
writable = true
scale = 100.0
[[map]]
tables = ["holding-registers"]
address = 110
lines = ["AO1"]
format = "f32"
writable = true
[[map]]
tables = ["holding-registers"]
address = 120
lines = ["AO1"]
format = "f32"
word_order = "low-first"
writable = true
[watchdog]
enabled = true
address = 900
timeout = "1min"
"#;

/// What a program says; the reason when it is not there.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let Output { status, stdout, stderr } =
        command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    if status.success() { Ok(text) } else { Err(text) }
}

/// A Python that knows pymodbus, or the reason why there is none.
pub(crate) fn python() -> Result<PathBuf, String> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let make = || {
        let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("modbus-python");
        let python = venv.join("bin/python");
        let knows = |python: &Path| output(Command::new(python).args(["-c", "import pymodbus, serial"])).is_ok();
        if !knows(&python) {
            output(Command::new("python3").args(["-m", "venv"]).arg(&venv))
                .map_err(|error| format!("no virtual environment for Python: {error}"))?;
            let install = ["-m", "pip", "install", "--quiet", "pymodbus[serial]==3.16.1"];
            output(Command::new(&python).args(install)).map_err(|error| format!("no pymodbus: {error}"))?;
        }
        Ok(python)
    };
    PYTHON.get_or_init(make).clone()
}

/// The master made with libmodbus, or the reason why there is none.
pub(crate) fn libmodbus() -> Result<PathBuf, String> {
    static MASTER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let make = || {
        let flags = output(Command::new("pkg-config").args(["--cflags", "--libs", "libmodbus"]))
            .map_err(|_| "libmodbus-dev or pkg-config is missing".to_owned())?;
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("modbus-master");
        let mut compile = Command::new("cc");
        compile.args(["-Wall", "-Wextra", "-o"]).arg(&program).arg(beside("master.c")).args(flags.split_whitespace());
        output(&mut compile).map(|_| program)
    };
    MASTER.get_or_init(make).clone()
}

fn pulled(device: &Device) {
    device.pull(1, true);
    device.pull(3, true);
}

#[test]
fn pymodbus_finds_the_map_of_the_original() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return skip("pymodbus_finds_the_map_of_the_original", &reason),
    };
    let device = Device::original();
    pulled(&device);
    let port = device.port.to_string();
    let said = output(Command::new(python).arg(beside("masters.py")).args(["tcp", &port]));
    assert_eq!(said.as_deref().map(str::trim), Ok("ok"), "{}", device.log("modbus"));
    // What was written last is at the board.
    let levels: Vec<_> = (1..=8).map(|output| device.level(output)).collect();
    let expected = [true, false, true, false, false, true, true, false];
    assert_eq!(levels, expected.map(Some));
}

#[test]
fn libmodbus_finds_every_function() {
    let master = match libmodbus() {
        Ok(master) => master,
        Err(reason) => return skip("libmodbus_finds_every_function", &reason),
    };
    let device = Device::new(ALL_FUNCTIONS);
    pulled(&device);
    let said = output(Command::new(master).args(["tcp", &device.port.to_string()]));
    assert_eq!(said.as_deref().map(str::trim), Ok("ok"), "{}", device.log("modbus"));
    // 4 V of 10 V in 4095 steps.
    device.until("the converter has it", |device| {
        device.panel.converted(0).expect("own file").is_some_and(|(raw, _)| raw == 1638)
    });
}

#[test]
fn mbpoll_reads_and_writes() {
    if Command::new("mbpoll").arg("-V").output().is_err() {
        return skip("mbpoll_reads_and_writes", "mbpoll is not installed");
    }
    let device = Device::new(ALL_FUNCTIONS);
    pulled(&device);
    let port = device.port.to_string();
    let mbpoll = |kind: &str, address: &str, more: &[&str], values: &[&str]| {
        let mut command = Command::new("mbpoll");
        command.args(["-p", &port, "-a", "1", "-0", "-1", "-t", kind, "-r", address]).args(more);
        output(command.arg("127.0.0.1").args(values))
    };
    let read = |kind: &str, address: &str, count: &str| {
        let text = mbpoll(kind, address, &["-c", count], &[]).expect("an answer");
        let values =
            text.lines().filter(|line| line.starts_with('[')).filter_map(|line| line.split_whitespace().nth(1));
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(read("3", "0", "8"), ["1", "0", "1", "0", "0", "0", "0", "0"]);
    assert_eq!(read("1", "0", "3"), ["1", "0", "1"]);
    mbpoll("0", "1", &[], &["1", "0", "1"]).expect("written");
    assert_eq!(read("0", "0", "8"), ["0", "1", "0", "1", "0", "0", "0", "0"]);
    mbpoll("4:float", "120", &[], &["7.5"]).expect("written");
    let float: f32 = read("4:float", "120", "1")[0].parse().expect("a number");
    assert!((float - 7.5).abs() < 0.01, "{float}");
    let refused = mbpoll("4", "8", &["-c", "1"], &[]).expect_err("refused");
    assert!(refused.contains("Illegal data address"), "{refused}");
}

#[test]
fn tokio_modbus_reads_and_writes() {
    use tokio_modbus::prelude::*;

    let device = Device::new(ALL_FUNCTIONS);
    pulled(&device);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let address = ([127, 0, 0, 1], device.port).into();
        let mut master = client::tcp::connect_slave(address, Slave(1)).await.expect("connected");
        let inputs = master.read_input_registers(0, 8).await.expect("sent").expect("answered");
        assert_eq!(inputs, [1, 0, 1, 0, 0, 0, 0, 0]);
        master.write_multiple_coils(0, &[true, true, false]).await.expect("sent").expect("written");
        let coils = master.read_coils(0, 4).await.expect("sent").expect("answered");
        assert_eq!(coils, [true, true, false, false]);
        let refused = master.read_holding_registers(8, 1).await.expect("sent");
        assert_eq!(refused, Err(ExceptionCode::IllegalDataAddress));
    });
}
