//! Devices of the original at the other end: a client and a server of grpcio, made from the `.proto` file.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::world::{Device, Plan, beside, free_port, here, receiver, sender, skip};

/// A Python with grpcio and the code made from the `.proto` file, or the reason why there is none.
fn python() -> Result<(PathBuf, PathBuf), String> {
    static PYTHON: OnceLock<Result<(PathBuf, PathBuf), String>> = OnceLock::new();
    let run = |command: &mut Command| {
        let Output { status, stderr, .. } = command.output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&stderr).into_owned();
        if status.success() { Ok(()) } else { Err(text.lines().last().unwrap_or_default().to_owned()) }
    };
    let make = || {
        let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mirror-python");
        let (python, code) = (venv.join("bin/python"), venv.join("code"));
        if run(Command::new(&python).args(["-c", "import grpc, grpc_tools"])).is_err() {
            run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "grpcio-tools"]))
                .map_err(|error| format!("no grpcio-tools for Python: {error}"))?;
        }
        std::fs::create_dir_all(&code).map_err(|error| error.to_string())?;
        let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/legacy");
        run(Command::new(&python)
            .args(["-m", "grpc_tools.protoc", &format!("-I{}", proto.display())])
            .arg(format!("--python_out={}", code.display()))
            .arg(format!("--grpc_python_out={}", code.display()))
            .arg(proto.join("read_dido.proto")))?;
        Ok((python, code))
    };
    PYTHON.get_or_init(make).clone()
}

/// The program beside this file.
struct Original(Child, BufReader<ChildStdout>);

impl Original {
    fn start(python: &(PathBuf, PathBuf), role: &str, port: u16) -> Self {
        let mut command = Command::new(&python.0);
        command.arg(beside("original.py")).arg(&python.1).args([role, &port.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python is there");
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        Self(child, said)
    }

    fn next(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).expect("it speaks");
        line.trim().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.0.stdin.as_mut().expect("a pipe"), "{line}").expect("it listens");
        self.next()
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_client_of_the_original_sets_outputs() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return skip("a_client_of_the_original_sets_outputs", &reason),
    };
    let port = free_port();
    let more = "protocol = \"legacy\"\naddresses = [\"127.0.0.1\"]\ntimeout = \"10s\"";
    let device = Device::new(Plan::new(format!("config_version = \"1.0.7\"\n{}", receiver(port, "old", more))));
    let mut old = Original::start(&python, "send", port);
    assert_eq!(old.ask("status"), "True");
    assert_eq!(old.ask("versions"), format!("{} 1.0.7", env!("CARGO_PKG_VERSION")));
    let outputs = |expected: [bool; 8]| {
        device.until(&format!("{expected:?}"), |device| {
            (1..=8).all(|output| device.output(output) == Some(expected[output - 1]))
        });
    };
    assert_eq!(old.ask("1 0 1 0 0 0 0 1"), "ok");
    outputs([true, false, true, false, false, false, false, true]);
    assert_eq!(old.ask("0 1 -1 -1 -1 -1 -1 -2147483648"), "ok");
    outputs([false, true, true, false, false, false, false, true]);
    // What makes no sense changes nothing.
    for nonsense in ["2 0 0 0 0 0 0 0", "0 0 0 0 0 0 0 2147483647"] {
        assert_eq!(old.ask(nonsense), "INVALID_ARGUMENT");
    }
    outputs([false, true, true, false, false, false, false, true]);
    device.until_peer(port, "old", "silent");
    outputs([false; 8]);
    assert_eq!(old.ask("0 0 0 1 0 0 0 0"), "ok");
    outputs([false, false, false, true, false, false, false, false]);
    device.until_peer(port, "old", "connected");
}

#[test]
fn a_client_of_the_original_that_nobody_knows_sets_nothing() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return skip("a_client_of_the_original_that_nobody_knows_sets_nothing", &reason),
    };
    let port = free_port();
    let more = "protocol = \"legacy\"\naddresses = [\"192.0.2.0/24\"]";
    let device = Device::new(Plan::new(receiver(port, "old", more)));
    let mut old = Original::start(&python, "send", port);
    assert_eq!(old.ask("1 1 1 1 1 1 1 1"), "PERMISSION_DENIED");
    assert_eq!(old.ask("status"), "True", "programs of this machine may ask");
    device.until_log("no sender has this address");
    assert!((1..=8).all(|output| device.output(output) != Some(true)));
}

#[test]
fn a_server_of_the_original_is_told_changes_and_everything_each_interval() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => {
            return skip("a_server_of_the_original_is_told_changes_and_everything_each_interval", &reason);
        }
    };
    let (own, port) = (free_port(), free_port());
    let parameters = sender("pump", own, "legacy", &[here(port)])
        .replace("local = \"DI8\"\nremote = \"DO8\"", "local = \"DI7\"\nremote = \"relay-8\"\ninverted = true");
    let device = Device::new(Plan::new(parameters));
    device.until_peer(own, &here(port), "connecting");
    let mut old = Original::start(&python, "receive", port);
    assert_eq!(old.next(), "ready");
    assert_eq!(old.next(), "0 0 0 0 0 0 0 1", "all lines, as soon as it is there");
    assert_eq!(old.next(), "0 0 0 0 0 0 0 1", "and each interval");
    device.pull(2, true);
    until(&mut old, "0 1 0 0 0 0 0 1");
    device.pull(7, true);
    until(&mut old, "0 1 0 0 0 0 1 0");
    // A line that cannot be read is left as it is.
    device.panel.break_gpio(multus_hardware::sim::Fault::Missing).expect("own file");
    until(&mut old, "-1 -1 -1 -1 -1 -1 -1 -1");
    device.panel.break_gpio(multus_hardware::sim::Fault::None).expect("own file");
    until(&mut old, "0 1 0 0 0 0 1 0");
    // It ends and comes again: the newest is told, nothing older.
    drop(old);
    device.pull(2, false);
    device.pull(3, true);
    device.until_peer(own, &here(port), "connecting");
    let mut old = Original::start(&python, "receive", port);
    assert_eq!(old.next(), "ready");
    assert_eq!(old.next(), "0 0 1 0 0 0 1 0");
    let peer = device.until_peer(own, &here(port), "connected");
    assert!(peer.lost >= 1 && peer.round_trip_us.is_some(), "{peer:#?}");
}

/// Waits for a message; what comes before it is what was before.
fn until(old: &mut Original, expected: &str) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let said = old.next();
        if said == expected {
            return;
        }
        assert!(std::time::Instant::now() < end, "{said:?} and never {expected:?}");
    }
}
