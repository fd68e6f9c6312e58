//! A network of its own for each test: a device, a router and a world behind it, in network namespaces.
//!
//! ```text
//!   device                    router                         world
//!   eth0 192.168.77.2 ------- lan0 192.168.77.1              lo   203.0.113.1
//!                             wan0 10.99.0.1  --- line.py --- wan0 10.99.0.2
//! ```
//! The router runs dnsmasq (DNS) and nftables. Everything ends with the test.

use std::io::{BufRead as _, BufReader};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use multus_nettest::{Fields, Needs, Net, Running};
pub(crate) use multus_nettest::{has_ipv6, skip};
use serde_json::Value;

pub(crate) struct World {
    net: Net,
    /// Passes the packets between router and world.
    _line: Running,
}

impl Deref for World {
    type Target = Net;

    fn deref(&self) -> &Net {
        &self.net
    }
}

impl World {
    /// `None`: this machine cannot do it; why was told.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let net = Net::new(&Needs {
            test,
            programs: &[("nft", "-v"), ("dnsmasq", "-v")],
            namespaces: &["dev", "rtr", "out"],
            legacy: "checks.proto",
            fields: Fields::All,
            tmp: env!("CARGO_TARGET_TMPDIR"),
        })?;
        net.cable(("dev", "eth0"), ("rtr", "lan0"));
        line_is(&net, 0, 0);
        let world = Self { _line: line(&net), net };
        world.build();
        Some(world)
    }

    fn build(&self) {
        for (namespace, command) in [
            ("dev", "address add 192.168.77.2/24 dev eth0"),
            ("dev", "link set eth0 up"),
            ("rtr", "address add 192.168.77.1/24 dev lan0"),
            ("rtr", "link set lan0 up"),
            ("rtr", "address add 10.99.0.1/30 dev wan0"),
            ("rtr", "link set wan0 up"),
            ("out", "address add 10.99.0.2/30 dev wan0"),
            ("out", "link set wan0 up"),
            ("out", "address add 203.0.113.1/32 dev lo"),
            ("rtr", "route add default via 10.99.0.2"),
            ("dev", "route add default via 192.168.77.1"),
        ] {
            self.ip(namespace, command);
        }
        if has_ipv6() {
            self.ip("rtr", "address add fe80::1/64 dev lan0 nodad");
            self.ip("rtr", "address add fd00:77::1/64 dev lan0 nodad");
            self.ip("dev", "address add fd00:77::2/64 dev eth0 nodad");
        }
        self.run("rtr", "sysctl", &["-q", "-w", "net.ipv4.ip_forward=1"]);
        self.run("rtr", "nft", &["add table ip box"]);
        self.run("rtr", "nft", &["add chain ip box out { type nat hook postrouting priority 100; }"]);
        self.run("rtr", "nft", &["add rule ip box out oif wan0 masquerade"]);
        self.run("rtr", "nft", &["add chain ip box in { type filter hook input priority 0; }"]);
        self.background("dns", self.dnsmasq("rtr", "lan0").arg("--address=/box.example/203.0.113.1"));
    }

    /// Delay in milliseconds and loss in percent of the long line, each way.
    pub(crate) fn line_is(&self, delay_ms: u32, loss_percent: u32) {
        line_is(&self.net, delay_ms, loss_percent);
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

    /// Asks a server in the device, as a program of the original would.
    pub(crate) fn ask(&self, port: u16, service: &str, method: &str) -> Value {
        self.net.ask("dev", port, service, method)
    }

    /// As [`World::ask`]; the answer as it comes.
    pub(crate) fn ask_bytes(&self, port: u16, service: &str, method: &str) -> Vec<u8> {
        let answer = self.net.ask("dev", port, service, &format!("{method} bytes"));
        let hex = answer["bytes"].as_str().unwrap_or_else(|| panic!("{answer}"));
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
    }

    /// Another configuration, and the word that it is there.
    pub(crate) fn reload(&self, program: &str, config: &str) {
        std::fs::write(self.path(&format!("{program}.toml")), config).expect("own file");
        multus_nettest::signal("-HUP", self.pid(program));
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
        self.until_answer(what, || self.shown(port, check), fits)
    }
}

/// One of the targets that a check shows.
pub(crate) fn target<'a>(shown: &'a Value, name: &str) -> &'a Value {
    let targets = shown["targets"].as_array().expect("a list");
    targets.iter().find(|target| target["target"] == name).unwrap_or_else(|| panic!("no {name} in {shown}"))
}

fn line_is(net: &Net, delay_ms: u32, loss_percent: u32) {
    // In one step: the line reads it at any time.
    std::fs::write(net.path("line.new"), format!("{delay_ms} {loss_percent}")).expect("own file");
    std::fs::rename(net.path("line.new"), net.path("line")).expect("own file");
}

fn line(net: &Net) -> Running {
    let mut line = Command::new("python3");
    line.arg(scripts().join("line.py")).args([net.ns("rtr"), net.ns("out")]).arg(net.path("line"));
    let mut line = Running(line.stdout(Stdio::piped()).spawn().expect("python3 is there"));
    let mut said = String::new();
    BufReader::new(line.0.stdout.take().expect("a pipe")).read_line(&mut said).expect("it speaks");
    assert_eq!(said, "ready\n", "the line works");
    line
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/net")
}

/// Where the programs of this package are built.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_multus-lanwan-check")).parent().expect("a folder").to_path_buf()
}
