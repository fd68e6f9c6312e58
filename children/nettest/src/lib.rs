//! For tests of children: [pages](lines) of inputs and outputs, network namespaces of their own, programs that run in them, and a gRPC client made from
//! the `.proto` files. Everything ends with the test. A machine that cannot do it says why, and the test is skipped.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod lines;
mod peer;

use std::cell::RefCell;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub use peer::{Fields, Peer};

/// How long a test waits for anything. Only a failed test waits that long.
pub const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// What a test needs.
#[derive(Debug)]
pub struct Needs<'a> {
    /// The test, for the word that it was skipped.
    pub test: &'a str,
    /// Programs with an argument that has them end at once, such as `("ip", "-V")`. `ip` and `python3` are needed always.
    pub programs: &'a [(&'a str, &'a str)],
    /// The namespaces, each with a loopback interface that is up.
    pub namespaces: &'a [&'a str],
    /// Beside `multus/v1/network.proto`: a file such as `checks.proto` of `proto/legacy`.
    pub legacy: &'a str,
    /// What answers show.
    pub fields: Fields,
    /// `env!("CARGO_TARGET_TMPDIR")`.
    pub tmp: &'a str,
}

/// Namespaces, a folder, and what runs in them.
#[derive(Debug)]
pub struct Net {
    temp: TempDir,
    prefix: String,
    namespaces: Vec<String>,
    running: RefCell<Vec<(String, Running)>>,
    peer: RefCell<Option<Peer>>,
    how_to_ask: peer::How,
}

/// A process that ends with its owner.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Net {
    /// `None`: this machine cannot do it; why was told.
    pub fn new(needs: &Needs<'_>) -> Option<Self> {
        let how_to_ask = match missing(needs.programs)
            .map_or(Ok(()), Err)
            .and_then(|()| peer::how(needs.tmp, needs.legacy, needs.fields))
        {
            Ok(how) => how,
            Err(reason) => {
                skip(needs.test, &reason);
                return None;
            }
        };
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("mn{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let temp = tempfile::Builder::new().prefix("multus-net-").tempdir().expect("a temporary directory");
        let namespaces = needs.namespaces.iter().map(|name| (*name).to_owned()).collect();
        let net = Self { temp, prefix, namespaces, running: RefCell::default(), peer: RefCell::default(), how_to_ask };
        for namespace in &net.namespaces {
            ip(&format!("netns add {}", net.ns(namespace)));
            net.ip(namespace, "link set lo up");
        }
        Some(net)
    }

    /// The whole name of a namespace.
    pub fn ns(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// A file in the folder of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Two interfaces, each the other end of the other.
    pub fn cable(&self, (namespace, interface): (&str, &str), (other, other_interface): (&str, &str)) {
        let other = self.ns(other);
        self.ip(namespace, &format!("link add {interface} type veth peer name {other_interface} netns {other}"));
    }

    /// A command of ip(8) in a namespace.
    pub fn ip(&self, namespace: &str, command: &str) {
        ip(&format!("-n {} {command}", self.ns(namespace)));
    }

    /// A program in a namespace.
    pub fn command_in(&self, namespace: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.ns(namespace)]).arg(program).stdin(Stdio::null());
        command
    }

    /// dnsmasq in the foreground, on this interface, that reads nothing of the machine. It serves what further arguments say.
    pub fn dnsmasq(&self, namespace: &str, interface: &str) -> Command {
        let mut command = self.command_in(namespace, "dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"]);
        command.args(["--pid-file", "--bind-interfaces"]).arg(format!("--interface={interface}"));
        command.arg(format!("--dhcp-leasefile={}", self.path("leases").display()));
        command
    }

    /// Runs a program, which must succeed; what it printed.
    pub fn run(&self, namespace: &str, program: &str, arguments: &[&str]) -> String {
        let output = self.command_in(namespace, program).args(arguments).output().expect("ip is there");
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a program; its output goes to a file of this name.
    pub fn background(&self, name: &str, command: &mut Command) {
        let log = File::options().create(true).append(true).open(self.path(name)).expect("own file");
        let child = command.stdout(log.try_clone().expect("own file")).stderr(log).spawn().expect("ip is there");
        self.running.borrow_mut().push((name.to_owned(), Running(child)));
    }

    /// Kills it.
    pub fn end(&self, name: &str) {
        self.running.borrow_mut().retain(|(running, _)| running != name);
    }

    /// The process of a program in the background.
    pub fn pid(&self, name: &str) -> u32 {
        self.running.borrow().iter().find(|(running, _)| running == name).expect("it was started").1.0.id()
    }

    /// Asks a program in the background to end; its exit code.
    pub fn stop(&self, name: &str) -> Option<i32> {
        signal("-TERM", self.pid(name));
        self.exit_code(name)
    }

    /// Waits for the end of a program in the background.
    pub fn exit_code(&self, name: &str) -> Option<i32> {
        let mut code = None;
        self.until(&format!("{name} ends"), || {
            let mut running = self.running.borrow_mut();
            let (_, child) = running.iter_mut().find(|(running, _)| running == name).expect("it was started");
            code = child.0.try_wait().expect("own child");
            code.is_some()
        });
        self.end(name);
        code.and_then(|status| status.code())
    }

    /// Asks all programs in the background to end, and gives them a few seconds.
    pub fn end_in_good_order(&self) {
        let pids: Vec<u32> = self.running.borrow().iter().map(|(_, child)| child.0.id()).collect();
        pids.into_iter().for_each(|pid| signal("-TERM", pid));
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end
            && self.running.borrow_mut().iter_mut().any(|(_, child)| matches!(child.0.try_wait(), Ok(None)))
        {
            std::thread::sleep(PAUSE);
        }
    }

    /// What a program in the background has printed.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until it has printed this.
    pub fn until_log(&self, name: &str, what: &str) {
        self.until(&format!("{name} says {what:?}"), || self.log(name).contains(what));
    }

    /// Asks a server on 127.0.0.1 of a namespace, as a program of the original would; always the same namespace.
    pub fn ask(&self, namespace: &str, port: u16, service: &str, method: &str) -> Value {
        let mut peer = self.peer.borrow_mut();
        let peer = peer.get_or_insert_with(|| {
            Peer::start(&self.how_to_ask, self.command_in(namespace, &self.how_to_ask.python), &self.path("peer.py"))
        });
        peer.ask(port, service, method)
    }

    /// Waits until an answer fits, and shows it.
    pub fn until_answer(&self, what: &str, ask: impl Fn() -> Value, fits: impl Fn(&Value) -> bool) -> Value {
        let mut shown = Value::Null;
        let fitting = self.wait_for(|| {
            shown = ask();
            fits(&shown)
        });
        if !fitting {
            eprintln!("---- the last answer\n{shown:#}");
            self.give_up(what);
        }
        shown
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, is_so: impl FnMut() -> bool) {
        if !self.wait_for(is_so) {
            self.give_up(what);
        }
    }

    fn wait_for(&self, mut is_so: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        true
    }

    fn give_up(&self, what: &str) -> ! {
        let names: Vec<String> = self.running.borrow().iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            eprintln!("---- {name}\n{}", self.log(&name));
        }
        panic!("waited in vain: {what}");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.peer.borrow_mut().take();
        self.running.borrow_mut().clear();
        for namespace in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "delete", &self.ns(namespace)]).output();
        }
    }
}

/// Sends a signal, such as `"-TERM"`.
pub fn signal(signal: &str, pid: u32) {
    let _ = Command::new("kill").args([signal, &pid.to_string()]).status();
}

/// Makes a folder that can stand in for /etc: it knows the users, and nothing else.
pub fn make_etc(folder: &Path) {
    std::fs::create_dir_all(folder).expect("own folder");
    for file in ["passwd", "group", "nsswitch.conf"] {
        // Not every machine has all of them.
        let _ = std::fs::copy(Path::new("/etc").join(file), folder.join(file));
    }
}

/// Whether the kernel speaks IPv6.
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Tells that a test was skipped, and why.
pub fn skip(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("MULTUS_SKIP_LOG")
        && let Ok(mut file) = File::options().create(true).append(true).open(path)
    {
        let _ = file.write_all(format!("skipped: {test}: {reason}\n").as_bytes());
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip is there");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Why this machine cannot do it.
fn missing(programs: &[(&str, &str)]) -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("network namespaces need root".into());
    }
    for (program, argument) in [("ip", "-V"), ("python3", "-V")].iter().chain(programs) {
        if Command::new(program).arg(argument).output().is_err() {
            return Some(format!("{program} is missing"));
        }
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun".into());
    }
    None
}
