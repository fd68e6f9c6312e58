//! A device with a simulated board, and raw connections to its Modbus server.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use multus_contract::api::command::{Client, Request};
use multus_contract::api::io::{IoLine, IoStatus};
use multus_contract::api::status::{ChildStatus, Status};
use multus_contract::dirs::Dirs;
use multus_hardware::sim::{self, Panel};
pub(crate) use multus_nettest::skip;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Only a failed test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Native lines of the inputs and outputs, as the original has them.
pub(crate) const DI: [u32; 8] = [4, 17, 27, 18, 22, 23, 5, 6];
pub(crate) const DO: [u32; 8] = [25, 24, 13, 19, 26, 16, 20, 21];

/// The board of the original, whose outputs belong to `modbus`, and analogue lines.
pub(crate) fn hardware() -> String {
    let mut text = "board = \"sim\"\n[lines]\n".to_owned();
    for (n, gpio) in DI.iter().enumerate() {
        let n = n + 1;
        text +=
            &format!("DI{n} = {{ kind = \"digital-input\", gpio = {gpio}, active_low = true, bias = \"pull-up\" }}\n");
    }
    for (n, gpio) in DO.iter().enumerate() {
        let n = n + 1;
        text += &format!(
            "DO{n} = {{ kind = \"digital-output\", gpio = {gpio}, active_low = true, safe = \"off\", owner = \"modbus\" }}\n"
        );
    }
    text + "AI1 = { kind = \"analogue-input\", mcp3208 = { channel = 0 }, period = \"1ms\" }\n\
            AO1 = { kind = \"analogue-output\", mcp4922 = { channel = 0 }, safe = 2.5, owner = \"modbus\" }\n"
}

/// A device.
pub(crate) struct Device {
    _temp: TempDir,
    pub(crate) dirs: Dirs,
    daemon: Child,
    pub(crate) panel: Panel,
    pub(crate) port: u16,
}

impl Device {
    /// One that serves the map of the original.
    pub(crate) fn original() -> Self {
        Self::new("")
    }

    /// `more`: parameters of the server beside its port, which may not begin with a table `tcp`.
    pub(crate) fn new(more: &str) -> Self {
        Self::with_hardware(more, "", &hardware())
    }

    /// As [`Self::new`], with parameters of `[tcp]`.
    pub(crate) fn with_tcp(more: &str, tcp: &str) -> Self {
        Self::with_hardware(more, tcp, &hardware())
    }

    pub(crate) fn with_hardware(more: &str, tcp: &str, hardware: &str) -> Self {
        let device = Self::start(more, tcp, hardware);
        device.until("the server runs", |device| device.child("modbus").state == "running");
        device.until_released();
        device
    }

    /// Waits until the outputs of the server can be written: multusd releases them when it is ready, multus-io with its next scan.
    pub(crate) fn until_released(&self) {
        self.until("its outputs are released", |device| {
            let io: Option<IoStatus> = device.ask(&Request::Io);
            let is_free = |line: &IoLine| line.owner != "modbus" || (line.good && line.source != "forced");
            io.is_some_and(|io| io.lines.iter().all(is_free))
        });
    }

    /// As [`Self::with_hardware`], without waiting for the server.
    pub(crate) fn start(more: &str, tcp: &str, hardware: &str) -> Self {
        let temp = tempfile::Builder::new().prefix("multus-modbus-").tempdir().expect("a temporary directory");
        let at = |name: &str| temp.path().join(name);
        let dirs = Dirs { config: at("etc"), runtime: at("run"), logs: at("log"), state: at("state") };
        for dir in [&dirs.children_dir(), &dirs.config.join("config"), &dirs.runtime, &dirs.logs, &dirs.state] {
            fs::create_dir_all(dir).expect("own directory");
        }
        fs::write(dirs.config.join("hardware.toml"), hardware).expect("own file");
        let port = free_port();
        put(&dirs, "io", "multus-io", "", "");
        put(&dirs, "modbus", "multus-modbus", "after = [\"io\"]\n", &parameters(port, more, tcp));
        let panel = Panel::open(&sim::file_of(&dirs)).expect("own file");
        let out = File::create(at("multusd.out")).expect("own file");
        let mut command = Command::new(programs().join("multusd"));
        for (variable, dir) in dirs.variables() {
            command.env(variable, dir);
        }
        command.stdin(Stdio::null()).stdout(out.try_clone().expect("own file")).stderr(out);
        let daemon = command.spawn().expect("multusd was built");
        Self { _temp: temp, dirs, daemon, panel, port }
    }

    /// One more child.
    pub(crate) fn add(&self, name: &str, program: &str, parameters: &str) {
        put(&self.dirs, name, program, "", parameters);
        self.tell(&Request::Reload);
    }

    /// The server with further keys in its file, as another process.
    pub(crate) fn rerun(&self, keys: &str) {
        let before = self.child("modbus").pid;
        let file = self.dirs.child_file("modbus");
        let text = fs::read_to_string(&file).expect("own file") + keys;
        fs::write(file, text).expect("own file");
        self.tell(&Request::Reload);
        self.tell(&Request::Restart { name: "modbus".into() });
        self.until("another process", |device| {
            let child = device.child("modbus");
            child.state == "running" && child.pid != before
        });
        self.until_released();
    }

    /// Other parameters, and has them read.
    pub(crate) fn reconfigure(&self, more: &str, tcp: &str) {
        self.reread(&parameters(self.port, more, tcp));
    }

    /// Another file of parameters, and has it read.
    pub(crate) fn reread(&self, text: &str) {
        fs::write(self.dirs.parameter_file("modbus"), text).expect("own file");
        kill(self.pid("modbus"), Signal::SIGHUP).expect("it runs");
    }

    /// A connection, as soon as there is one.
    pub(crate) fn connect(&self) -> Connection {
        let mut stream = None;
        self.until("a connection", |device| {
            stream = TcpStream::connect(("127.0.0.1", device.port)).ok();
            stream.is_some()
        });
        Connection::new(stream.expect("connected"))
    }

    /// Pulls an input to ground, or lets it go; waits until multus-io has seen it.
    pub(crate) fn pull(&self, input: usize, is_low: bool) {
        self.panel.drive(DI[input - 1], is_low.then_some(false)).expect("own file");
        let name = format!("DI{input}");
        self.until("the input is read", |device| {
            device.line(&name).is_some_and(|line| line.good && line.value == f64::from(u8::from(is_low)))
        });
    }

    /// The level at an output.
    pub(crate) fn level(&self, output: usize) -> Option<bool> {
        self.panel.output(DO[output - 1]).expect("own file").map(|(level, _)| level)
    }

    pub(crate) fn line(&self, name: &str) -> Option<IoLine> {
        let io: IoStatus = self.ask(&Request::Io)?;
        io.lines.into_iter().find(|line| line.name == name)
    }

    pub(crate) fn child(&self, name: &str) -> ChildStatus {
        let status: Option<Status> = self.ask(&Request::Status { name: Some(name.into()) });
        status.and_then(|mut status| status.children.pop()).unwrap_or_default()
    }

    pub(crate) fn pid(&self, name: &str) -> Pid {
        Pid::from_raw(self.child(name).pid.expect("it runs").cast_signed())
    }

    pub(crate) fn tell(&self, request: &Request) {
        self.until("the daemon obeys", |device| {
            Client::connect(&device.dirs.control_socket()).is_ok_and(|mut client| client.request(request).is_ok())
        });
    }

    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dirs.child_log(name)).unwrap_or_default()
    }

    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            if Instant::now() > end {
                for name in ["multusd", "io", "modbus"] {
                    eprintln!("---- {name}\n{}", self.log(name));
                }
                panic!("waited in vain: {what}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Option<T> {
        Client::connect(&self.dirs.control_socket()).ok()?.request_as(request).ok()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.daemon.id().cast_signed()), Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

fn put(dirs: &Dirs, name: &str, program: &str, keys: &str, parameters: &str) {
    let program = programs().join(program);
    assert!(program.exists(), "{} is missing: cargo build --workspace", program.display());
    let text = format!("command = [{program:?}]\n{keys}[heartbeat]\ndeadline = \"5s\"\n[restart]\ndelays = [\"0s\"]\n");
    fs::write(dirs.child_file(name), text).expect("own file");
    fs::write(dirs.parameter_file(name), parameters).expect("own file");
}

fn parameters(port: u16, more: &str, tcp: &str) -> String {
    format!("{more}\n[tcp]\nport = {port}\n{tcp}\n")
}

/// A connection that sends what it is told to.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    transaction: u16,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, transaction: 0x1ff }
    }

    /// Sends a request to unit 1 and returns the PDU of its answer.
    pub(crate) fn ask(&mut self, pdu: &[u8]) -> Vec<u8> {
        self.ask_unit(1, pdu)
    }

    pub(crate) fn ask_unit(&mut self, unit: u8, pdu: &[u8]) -> Vec<u8> {
        self.send(&self.frame(unit, pdu));
        let (transaction, answering, pdu) = self.receive().expect("an answer");
        assert_eq!((transaction, answering), (self.transaction, unit));
        self.transaction = self.transaction.wrapping_add(1);
        pdu
    }

    /// As [`Self::ask`], again while multus-io does not come round on a busy machine (exception 04).
    pub(crate) fn know(&mut self, pdu: &[u8]) -> Vec<u8> {
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(pdu);
            if answer != [pdu[0] | 0x80, 4] || Instant::now() > end {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// As [`Self::ask`], again and again until the answer is this one: what multus-io does takes a scan.
    pub(crate) fn ask_until(&mut self, pdu: &[u8], expected: &[u8]) {
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(pdu);
            if answer == expected {
                return;
            }
            assert!(Instant::now() < end, "{pdu:x?} is answered by {answer:x?} and never by {expected:x?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn frame(&self, unit: u8, pdu: &[u8]) -> Vec<u8> {
        let mut frame = self.transaction.to_be_bytes().to_vec();
        frame.extend([0, 0]);
        frame.extend(u16::try_from(pdu.len() + 1).expect("short").to_be_bytes());
        frame.push(unit);
        frame.extend(pdu);
        frame
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes it");
    }

    /// Transaction, unit and PDU of the next answer; `None` when the connection was closed.
    pub(crate) fn receive(&mut self) -> Option<(u16, u8, Vec<u8>)> {
        let mut header = [0; 7];
        match self.stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no answer"),
            Err(_) => return None,
        }
        assert_eq!(header[2..4], [0, 0], "protocol");
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        assert!((3..=254).contains(&length), "length {length}");
        let mut pdu = vec![0; length - 1];
        self.stream.read_exact(&mut pdu).expect("a whole answer");
        Some((u16::from_be_bytes([header[0], header[1]]), header[6], pdu))
    }

    /// Whether the server closes the connection without another answer.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.receive().is_none()
    }
}

pub(crate) fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("bound").port()
}

/// Where building the workspace puts the programs.
pub(crate) fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_multus-modbus")).parent().expect("a folder").to_path_buf()
}

/// Files beside these tests.
pub(crate) fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server").join(name)
}
