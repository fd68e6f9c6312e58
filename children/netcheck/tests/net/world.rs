//! A network of its own for each test: a device, a router and a world behind it, in network namespaces.
//!
//! ```text
//!   device                    router                         world
//!   eth0 192.168.77.2 ------- lan0 192.168.77.1              lo   203.0.113.1
//!                             wan0 10.99.0.1  --- line.py --- wan0 10.99.0.2
//! ```
//! The router runs dnsmasq (DNS) and nftables. Everything ends with the test.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long a test waits for anything. Only a failed test waits that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) struct World {
    temp: TempDir,
    prefix: String,
    running: RefCell<Vec<(String, Running)>>,
    peer: RefCell<Option<(Running, BufReader<std::process::ChildStdout>)>>,
}

/// Ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl World {
    /// `None`: this machine cannot do it; why was told.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if let Some(reason) = missing() {
            skip(test, &reason);
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("mnc{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let temp = tempfile::Builder::new().prefix("multus-net-").tempdir().expect("a temporary directory");
        let world = Self { temp, prefix, running: RefCell::default(), peer: RefCell::default() };
        world.build();
        Some(world)
    }

    fn build(&self) {
        let (device, router, outside) = (self.ns("dev"), self.ns("rtr"), self.ns("out"));
        for namespace in [&device, &router, &outside] {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        ip(&format!("-n {device} link add eth0 type veth peer name lan0 netns {router}"));
        self.line_is(0, 0);
        let mut line = Command::new("python3");
        line.arg(scripts().join("line.py")).args([&router, &outside]).arg(self.path("line")).stdout(Stdio::piped());
        let mut line = line.spawn().expect("python3 is there");
        let mut said = String::new();
        BufReader::new(line.stdout.take().expect("a pipe")).read_line(&mut said).expect("it speaks");
        assert_eq!(said, "ready\n", "the line works");
        self.running.borrow_mut().push(("line".into(), Running(line)));
        for command in [
            format!("-n {device} address add 192.168.77.2/24 dev eth0"),
            format!("-n {device} link set eth0 up"),
            format!("-n {router} address add 192.168.77.1/24 dev lan0"),
            format!("-n {router} link set lan0 up"),
            format!("-n {router} address add 10.99.0.1/30 dev wan0"),
            format!("-n {router} link set wan0 up"),
            format!("-n {outside} address add 10.99.0.2/30 dev wan0"),
            format!("-n {outside} link set wan0 up"),
            format!("-n {outside} address add 203.0.113.1/32 dev lo"),
            format!("-n {router} route add default via 10.99.0.2"),
            format!("-n {device} route add default via 192.168.77.1"),
        ] {
            ip(&command);
        }
        if has_ipv6() {
            ip(&format!("-n {router} address add fe80::1/64 dev lan0 nodad"));
            ip(&format!("-n {router} address add fd00:77::1/64 dev lan0 nodad"));
            ip(&format!("-n {device} address add fd00:77::2/64 dev eth0 nodad"));
        }
        self.run("rtr", "sysctl", &["-q", "-w", "net.ipv4.ip_forward=1"]);
        self.run("rtr", "nft", &["add table ip box"]);
        self.run("rtr", "nft", &["add chain ip box out { type nat hook postrouting priority 100; }"]);
        self.run("rtr", "nft", &["add rule ip box out oif wan0 masquerade"]);
        self.run("rtr", "nft", &["add chain ip box in { type filter hook input priority 0; }"]);
        self.background(
            "dns",
            self.command_in("rtr", "dnsmasq").args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--user=root",
                "--pid-file",
                "--interface=lan0",
                "--bind-interfaces",
                "--address=/box.example/203.0.113.1",
            ]),
        );
    }

    fn ns(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Delay in milliseconds and loss in percent of the long line, each way.
    pub(crate) fn line_is(&self, delay_ms: u32, loss_percent: u32) {
        // In one step: the line reads it at any time.
        std::fs::write(self.path("line.new"), format!("{delay_ms} {loss_percent}")).expect("own file");
        std::fs::rename(self.path("line.new"), self.path("line")).expect("own file");
    }

    /// A command of ip(8) in "dev", "rtr" or "out".
    pub(crate) fn ip(&self, namespace: &str, command: &str) {
        ip(&format!("-n {} {command}", self.ns(namespace)));
    }

    pub(crate) fn command_in(&self, namespace: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ns(namespace), program]).stdin(Stdio::null());
        command
    }

    /// Runs a program, which must succeed.
    pub(crate) fn run(&self, namespace: &str, program: &str, arguments: &[&str]) {
        let output = self.command_in(namespace, program).args(arguments).output().expect("ip is there");
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts a program; its output goes to a file of this name.
    pub(crate) fn background(&self, name: &str, command: &mut Command) {
        let log = File::options().create(true).append(true).open(self.path(name)).expect("own file");
        let child = command.stdout(log.try_clone().expect("own file")).stderr(log).spawn().expect("ip is there");
        self.running.borrow_mut().push((name.to_owned(), Running(child)));
    }

    pub(crate) fn end(&self, name: &str) {
        self.running.borrow_mut().retain(|(running, _)| running != name);
    }

    pub(crate) fn pid(&self, name: &str) -> u32 {
        self.running.borrow().iter().find(|(running, _)| running == name).expect("it was started").1.0.id()
    }

    /// A web server in the world.
    pub(crate) fn serve_pages(&self) {
        std::fs::create_dir_all(self.path("www")).expect("own directory");
        self.background(
            "pages",
            self.command_in("out", "python3").args(["-m", "http.server", "80", "--directory"]).arg(self.path("www")),
        );
        self.until("pages are served", || {
            let asked = self
                .command_in("out", "python3")
                .args(["-c", "import socket; socket.create_connection(('203.0.113.1', 80))"])
                .stderr(Stdio::null())
                .status();
            asked.is_ok_and(|status| status.success())
        });
    }

    /// Starts one of the checks in the device.
    pub(crate) fn check(&self, program: &str, config: &str) {
        self.background(program, &mut self.check_command(program, config));
    }

    pub(crate) fn check_command(&self, program: &str, config: &str) -> Command {
        let file = self.path(&format!("{program}.toml"));
        std::fs::write(&file, config).expect("own file");
        let mut command = self.command_in("dev", "env");
        for (variable, folder) in [("MULTUSD_STATE_DIR", "state"), ("MULTUSD_RUNTIME_DIR", "run")] {
            std::fs::create_dir_all(self.path(folder)).expect("own directory");
            command.env(variable, self.path(folder));
        }
        command.arg(programs().join(program)).arg("--config").arg(file);
        command
    }

    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn until_log(&self, name: &str, what: &str) {
        self.until(&format!("{name} says {what:?}"), || self.log(name).contains(what));
    }

    /// Asks a server in the device, as a program of the original would.
    pub(crate) fn ask(&self, port: u16, service: &str, method: &str) -> Value {
        let mut peer = self.peer.borrow_mut();
        let (peer, answers) = peer.get_or_insert_with(|| {
            let (python, code) = python().as_ref().expect("looked for before");
            let mut command = self.command_in("dev", python.to_str().expect("UTF-8"));
            command.arg(scripts().join("peer.py")).arg(code).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut peer = command.spawn().expect("ip is there");
            let answers = BufReader::new(peer.stdout.take().expect("a pipe"));
            (Running(peer), answers)
        });
        let question = format!("{port} {service} {method}\n");
        peer.0.stdin.as_mut().expect("a pipe").write_all(question.as_bytes()).expect("it listens");
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("it answers");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{answer:?}: {error}"))
    }

    /// A check by the new API.
    pub(crate) fn shown(&self, port: u16, check: &str) -> Value {
        let answer = self.ask(port, "ChecksService", "List");
        let checks = answer["checks"].as_array().cloned().unwrap_or_default();
        checks.into_iter().find(|shown| shown["name"] == check).unwrap_or(Value::Null)
    }

    /// Waits until a check is in this state, and shows it.
    pub(crate) fn until_state(&self, port: u16, check: &str, state: &str) -> Value {
        self.until_shown(port, check, &format!("{check} is {state}"), |shown| shown["state"] == state)
    }

    pub(crate) fn until_shown(&self, port: u16, check: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut shown = Value::Null;
        self.until(what, || {
            shown = self.shown(port, check);
            fits(&shown)
        });
        shown
    }

    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            if Instant::now() > end {
                for (name, _) in self.running.borrow().iter() {
                    eprintln!("---- {name}\n{}", self.log(name));
                }
                panic!("waited in vain: {what}");
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.peer.borrow_mut().take();
        self.running.borrow_mut().clear();
        for namespace in ["dev", "rtr", "out"] {
            let _ = Command::new("ip").args(["netns", "delete", &self.ns(namespace)]).output();
        }
    }
}

/// One of the targets that a check shows.
pub(crate) fn target<'a>(shown: &'a Value, name: &str) -> &'a Value {
    let targets = shown["targets"].as_array().expect("a list");
    targets.iter().find(|target| target["target"] == name).unwrap_or_else(|| panic!("no {name} in {shown}"))
}

pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip is there");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Why this machine cannot do it.
fn missing() -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("network namespaces need root".into());
    }
    for (program, argument) in [("ip", "-V"), ("nft", "-v"), ("dnsmasq", "-v"), ("python3", "-V")] {
        if Command::new(program).arg(argument).output().is_err() {
            return Some(format!("{program} is missing"));
        }
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun".into());
    }
    python().as_ref().err().cloned()
}

/// A Python with grpcio, and the code made from the .proto files.
fn python() -> &'static Result<(PathBuf, PathBuf), String> {
    static PYTHON: OnceLock<Result<(PathBuf, PathBuf), String>> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("checks-python");
        let (python, code) = (venv.join("bin/python"), venv.join("code"));
        let run = |command: &mut Command| {
            let Output { status, stderr, .. } = command.output().map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&stderr).into_owned();
            if status.success() { Ok(()) } else { Err(text.lines().last().unwrap_or_default().to_owned()) }
        };
        if run(Command::new(&python).args(["-c", "import grpc, grpc_tools"])).is_err() {
            run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "grpcio-tools"]))
                .map_err(|error| format!("no grpcio-tools for Python: {error}"))?;
        }
        std::fs::create_dir_all(&code).map_err(|error| error.to_string())?;
        let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
        let include = |folder: &Path| format!("-I{}", folder.display());
        run(Command::new(&python)
            .args(["-m", "grpc_tools.protoc", &include(&proto.join("legacy")), &include(&proto)])
            .arg(format!("--python_out={}", code.display()))
            .arg(format!("--grpc_python_out={}", code.display()))
            .args(["legacy/checks.proto", "multus/v1/network.proto"].map(|file| proto.join(file))))?;
        Ok((python, code))
    })
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/net")
}

/// Where the programs of this package are built.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_multus-lanwan-check")).parent().expect("a folder").to_path_buf()
}

pub(crate) fn skip(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("MULTUS_SKIP_LOG")
        && let Ok(mut file) = File::options().create(true).append(true).open(path)
    {
        let _ = file.write_all(format!("skipped: {test}: {reason}\n").as_bytes());
    }
}
