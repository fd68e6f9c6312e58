//! A server of openvpn and a device, each in a network namespace of its own, with certificates that the test makes.
//!
//! ```text
//!   server  eth0 10.55.0.1  ------  device  eth0 10.55.0.2
//!           tun0 10.8.0.1   ======          tun0 10.8.0.2
//! ```

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Only a failed test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    temp: TempDir,
    prefix: String,
    running: RefCell<Vec<(String, Running)>>,
    peer: RefCell<Option<(Running, BufReader<ChildStdout>)>>,
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
        let prefix = format!("mov{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let temp = tempfile::Builder::new().prefix("multus-ovpn-").tempdir().expect("a temporary directory");
        let world = Self { temp, prefix, running: RefCell::default(), peer: RefCell::default() };
        let (server, device) = (world.ns("srv"), world.ns("dev"));
        for namespace in [&server, &device] {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        ip(&format!("-n {device} link add eth0 type veth peer name eth0 netns {server}"));
        for (namespace, address) in [(&server, "10.55.0.1/24"), (&device, "10.55.0.2/24")] {
            ip(&format!("-n {namespace} address add {address} dev eth0"));
            ip(&format!("-n {namespace} link set eth0 up"));
        }
        for authority in ["ca", "wrong"] {
            world.certificate(authority, None, 3650);
        }
        world.certificate("server", Some("ca"), 100);
        world.certificate("client", Some("ca"), 100);
        Some(world)
    }

    fn ns(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// `<name>.pem` and `<name>.key`, signed by another one or by itself.
    fn certificate(&self, name: &str, by: Option<&str>, days: u32) {
        let mut command = Command::new("openssl");
        let subject = format!("/CN={name}");
        let (key, pem, days) = (format!("{name}.key"), format!("{name}.pem"), days.to_string());
        command.current_dir(self.temp.path()).args(["req", "-x509", "-newkey", "ec", "-pkeyopt"]);
        command.args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", &days, "-subj", &subject]);
        command.args(["-keyout", &key, "-out", &pem]);
        if let Some(by) = by {
            command.args(["-CA", &format!("{by}.pem"), "-CAkey", &format!("{by}.key")]);
            let usage = if name == "server" { "serverAuth" } else { "clientAuth" };
            command.args(["-addext", &format!("extendedKeyUsage={usage}"), "-addext", "keyUsage=digitalSignature"]);
        }
        let output = command.output().expect("openssl is there");
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A server that gives up on a silent client after four seconds, and has it do the same.
    pub(crate) fn serve(&self, more: &str) {
        let text = format!(
            "dev tun0\nserver 10.8.0.0 255.255.255.0\ntopology subnet\nproto udp\nport 1194\nca ca.pem\ncert server.pem\n\
             key server.key\ndh none\nkeepalive 1 4\nverb 3\n{more}"
        );
        fs::write(self.path("server.conf"), text).expect("own file");
        let mut command = self.command_in("srv", "openvpn");
        command.arg("--cd").arg(self.temp.path()).args(["--config", "server.conf"]);
        self.background("server", &mut command);
        self.until_log("server", "Initialization Sequence Completed");
    }

    /// The child with a configuration of openvpn beside the usual.
    pub(crate) fn start(&self, authority: &str, more: &str, parameters: &str) {
        let text = format!(
            "client\ndev tun0\nproto udp\nremote 10.55.0.1 1194\nnobind\nca {authority}.pem\ncert client.pem\n\
             key client.key\nremote-cert-tls server\nconnect-retry 1 1\nhand-window 10\n{more}"
        );
        fs::write(self.path("client.conf"), text).expect("own file");
        fs::set_permissions(self.path("client.conf"), fs::Permissions::from_mode(0o600)).expect("own file");
        fs::write(self.path("child.toml"), parameters).expect("own file");
        let mut command = self.command_in("dev", env!("CARGO_BIN_EXE_multus-ovpn-client"));
        command.arg("--config").arg(self.path("child.toml"));
        command.env("MULTUSD_RUNTIME_DIR", self.path("run"));
        self.background("child", &mut command);
    }

    pub(crate) fn command_in(&self, namespace: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ns(namespace), program]).stdin(Stdio::null());
        command
    }

    fn background(&self, name: &str, command: &mut Command) {
        let log = File::options().create(true).append(true).open(self.path(name)).expect("own file");
        let child = command.stdout(log.try_clone().expect("own file")).stderr(log).spawn().expect("ip is there");
        self.running.borrow_mut().push((name.to_owned(), Running(child)));
    }

    /// Kills it.
    pub(crate) fn end(&self, name: &str) {
        self.running.borrow_mut().retain(|(running, _)| running != name);
    }

    /// Asks it to end; its exit code.
    pub(crate) fn stop(&self, name: &str) -> Option<i32> {
        let pid = self.running.borrow().iter().find(|(running, _)| running == name).expect("it was started").1.0.id();
        signal("-TERM", pid);
        self.exit_code(name)
    }

    /// Waits for its end.
    pub(crate) fn exit_code(&self, name: &str) -> Option<i32> {
        let mut code = None;
        self.until(&format!("{name} ends"), || {
            let mut running = self.running.borrow_mut();
            let (_, child) = running.iter_mut().find(|(running, _)| running == name).expect("it was started");
            code = child.0.try_wait().expect("own child");
            code.is_some()
        });
        code.and_then(|status| status.code())
    }

    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    pub(crate) fn until_log(&self, name: &str, what: &str) {
        self.until(&format!("{name} says {what:?}"), || self.log(name).contains(what));
    }

    pub(crate) fn ask(&self, method: &str) -> Value {
        let mut peer = self.peer.borrow_mut();
        let (peer, answers) = peer.get_or_insert_with(|| {
            let (python, code) = python().as_ref().expect("looked for before");
            let mut command = self.command_in("dev", python.to_str().expect("UTF-8"));
            command.arg(scripts().join("peer.py")).arg(code).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut peer = command.spawn().expect("ip is there");
            let answers = BufReader::new(peer.stdout.take().expect("a pipe"));
            (Running(peer), answers)
        });
        peer.0.stdin.as_mut().expect("a pipe").write_all(format!("{method}\n").as_bytes()).expect("it listens");
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("it answers");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{answer:?}: {error}"))
    }

    /// Waits until the tunnel fits, and shows it.
    pub(crate) fn until_tunnel(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut shown = Value::Null;
        self.until(what, || {
            shown = self.ask("GetTunnel");
            fits(&shown)
        });
        shown
    }

    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            if Instant::now() > end {
                for name in ["server", "child"] {
                    eprintln!("---- {name}\n{}", self.log(name));
                }
                panic!("waited in vain: {what}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.peer.borrow_mut().take();
        // The child ends its openvpn when it is asked to.
        let pids: Vec<u32> = self.running.borrow().iter().map(|(_, child)| child.0.id()).collect();
        pids.into_iter().for_each(|pid| signal("-TERM", pid));
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end
            && self.running.borrow_mut().iter_mut().any(|(_, child)| matches!(child.0.try_wait(), Ok(None)))
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.running.borrow_mut().clear();
        for namespace in ["srv", "dev"] {
            let _ = Command::new("ip").args(["netns", "delete", &self.ns(namespace)]).output();
        }
    }
}

pub(crate) fn signal(signal: &str, pid: u32) {
    let _ = Command::new("kill").args([signal, &pid.to_string()]).status();
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
    for (program, argument) in [("ip", "-V"), ("openvpn", "--version"), ("openssl", "version"), ("python3", "-V")] {
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
        let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ovpn-python");
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
        fs::create_dir_all(&code).map_err(|error| error.to_string())?;
        let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
        let include = |folder: &Path| format!("-I{}", folder.display());
        run(Command::new(&python)
            .args(["-m", "grpc_tools.protoc", &include(&proto.join("legacy")), &include(&proto)])
            .arg(format!("--python_out={}", code.display()))
            .arg(format!("--grpc_python_out={}", code.display()))
            .args(["legacy/ovpn_client.proto", "multus/v1/network.proto"].map(|file| proto.join(file))))?;
        Ok((python, code))
    })
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tunnel")
}

fn skip(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("MULTUS_SKIP_LOG")
        && let Ok(mut file) = File::options().create(true).append(true).open(path)
    {
        let _ = file.write_all(format!("skipped: {test}: {reason}\n").as_bytes());
    }
}
