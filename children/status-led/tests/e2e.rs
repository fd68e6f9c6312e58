//! The lamp with the real multusd, multus-io on a simulated board, and the real checks, which ask servers of the test.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use multus_contract::api::command::{Client, Request};
use multus_contract::dirs::Dirs;
use multus_hardware::sim::{self, Panel};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Backlog, Shutdown, listen, shutdown};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Only a failed test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

const HARDWARE: &str = r#"
board = "sim"
[lines]
DO8 = { kind = "digital-output", gpio = 21, safe = "off", owner = "status-led" }
DO7 = { kind = "digital-output", gpio = 20, safe = "off", owner = "status-led" }
"#;

/// A device with lamps, an internet and a tunnel.
struct Device {
    _temp: TempDir,
    dirs: Dirs,
    daemon: Child,
    panel: Panel,
    internet: Switch,
    tunnel: Switch,
    /// Those of the checks, kept for them.
    _ports: [Switch; 2],
}

/// A server that can be switched off, on a port that stays its own: nobody else is given it meanwhile, but a program that asks for
/// it by its number.
struct Switch {
    port: u16,
    server: TcpListener,
}

impl Switch {
    fn on() -> Self {
        // The kernel takes back a port that it has chosen itself when nobody listens there, but none that was asked for.
        loop {
            let port =
                TcpListener::bind("127.0.0.1:0").and_then(|chosen| chosen.local_addr()).expect("a free port").port();
            if let Ok(server) = TcpListener::bind(("127.0.0.1", port)) {
                return Self { port, server };
            }
        }
    }

    fn off() -> Self {
        let switch = Self::on();
        switch.turn(false);
        switch
    }

    fn turn(&self, on: bool) {
        if on {
            listen(&self.server, Backlog::new(128).expect("few")).expect("own socket");
        } else {
            shutdown(self.server.as_raw_fd(), Shutdown::Read).expect("own socket");
        }
    }
}

impl Device {
    /// `led`: parameters of the lamp, where LANWAN and OPENVPN stand for the addresses of the checks.
    fn new(led: &str) -> Self {
        let temp = tempfile::Builder::new().prefix("multus-led-").tempdir().expect("a temporary directory");
        let at = |name: &str| temp.path().join(name);
        let dirs = Dirs { config: at("etc"), runtime: at("run"), logs: at("log"), state: at("state") };
        for dir in [&dirs.children_dir(), &dirs.config.join("config"), &dirs.runtime, &dirs.logs, &dirs.state] {
            fs::create_dir_all(dir).expect("own directory");
        }
        fs::write(dirs.config.join("hardware.toml"), HARDWARE).expect("own file");
        let (internet, tunnel) = (Switch::on(), Switch::on());
        let ports = [Switch::off(), Switch::off()];
        let [lanwan, openvpn] = [&ports[0], &ports[1]].map(|switch| switch.port);
        let quick = "interval = \"1s\"\nrecheck = \"500ms\"\ntimeout = \"1s\"\ndown_after = 1\n";
        let led =
            led.replace("LANWAN", &format!("127.0.0.1:{lanwan}")).replace("OPENVPN", &format!("127.0.0.1:{openvpn}"));
        let lanwan = format!(
            "first_check = \"0s\"\nport = {lanwan}\n[lan]\nenabled = false\n[wan]\ninterface = \"lo\"\n\
             hosts = [\"tcp://127.0.0.1:{}\"]\n{quick}",
            internet.port
        );
        let openvpn = format!(
            "first_check = \"0s\"\nport = {openvpn}\n[vpn]\ninterface = \"lo\"\nhosts = [\"tcp://127.0.0.1:{}\"]\n{quick}",
            tunnel.port
        );
        for (name, program, parameters) in [
            ("io", "multus-io", ""),
            ("lanwan-check", "multus-lanwan-check", &*lanwan),
            ("openvpn-check", "multus-openvpn-check", &*openvpn),
            ("status-led", "multus-status-led", &*led),
        ] {
            let program = programs().join(program);
            assert!(program.exists(), "{} is missing: cargo build --workspace", program.display());
            let text =
                format!("command = [{program:?}]\n[heartbeat]\ndeadline = \"5s\"\n[restart]\ndelays = [\"0s\"]\n");
            fs::write(dirs.child_file(name), text).expect("own file");
            fs::write(dirs.parameter_file(name), parameters).expect("own file");
        }
        let panel = Panel::open(&sim::file_of(&dirs)).expect("own file");
        let out = File::create(at("multusd.out")).expect("own file");
        let mut command = Command::new(programs().join("multusd"));
        for (variable, dir) in dirs.variables() {
            command.env(variable, dir);
        }
        command.stdin(Stdio::null()).stdout(out.try_clone().expect("own file")).stderr(out);
        let daemon = command.spawn().expect("multusd was built");
        Self { _temp: temp, dirs, daemon, panel, internet, tunnel, _ports: ports }
    }

    fn light(&self, gpio: u32) -> Option<bool> {
        self.panel.output(gpio).expect("own file").map(|(level, _)| level)
    }

    fn tell(&self, request: &Request) {
        self.until("the daemon obeys", || {
            Client::connect(&self.dirs.control_socket()).is_ok_and(|mut client| client.request(request).is_ok())
        });
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            if Instant::now() > end {
                for name in ["multusd", "io", "lanwan-check", "openvpn-check", "status-led"] {
                    let log = fs::read_to_string(self.dirs.child_log(name)).unwrap_or_default();
                    eprintln!("---- {name}\n{log}");
                }
                panic!("waited in vain: {what}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for a lamp that changes, twice in a row, after a time in this range.
    fn until_blinks(&self, gpio: u32, seconds: std::ops::Range<f64>) {
        let mut light = self.light(gpio);
        let (mut changed, mut fitting) = (Instant::now(), 0);
        self.until(&format!("changes after {seconds:?} s"), || {
            let now = self.light(gpio);
            if now != light {
                let fits = seconds.contains(&changed.elapsed().as_secs_f64());
                fitting = if fits { fitting + 1 } else { 0 };
                (light, changed) = (now, Instant::now());
            }
            fitting == 2
        });
    }

    /// Waits until a lamp has not changed for longer than any pattern takes.
    fn until_stays(&self, gpio: u32, light: bool) {
        let mut changed = Instant::now();
        self.until(&format!("stays {light}"), || {
            if self.light(gpio) != Some(light) {
                changed = Instant::now();
            }
            changed.elapsed() > Duration::from_secs(4)
        });
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.daemon.id().cast_signed()), Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

/// Where building the workspace puts the programs.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_multus-status-led")).parent().expect("a folder").to_path_buf()
}

fn blinks_as_the_original(protocol: &str) {
    let led = "lanwan_check = \"LANWAN\"\nopenvpn_check = \"OPENVPN\"\ninterval = \"1s\"\n";
    let device = Device::new(&format!("{led}protocol = \"{protocol}\"\n[[leds]]\noutput = \"DO8\"\n"));
    device.until_stays(21, true);
    device.tunnel.turn(false);
    device.until_blinks(21, 2.5..3.9);
    device.internet.turn(false);
    device.until_blinks(21, 0.5..1.5);
    device.internet.turn(true);
    device.tunnel.turn(true);
    device.until_stays(21, true);
    device.tell(&Request::Stop { name: "openvpn-check".into() });
    device.until_stays(21, false);
}

#[test]
fn codes_are_those_of_the_original() {
    blinks_as_the_original("multus");
}

#[test]
fn the_checks_can_be_asked_as_the_original_did() {
    blinks_as_the_original("original");
}

#[test]
fn a_lamp_is_dark_when_its_child_fails_and_several_show_what_they_are_told_to() {
    let led = "lanwan_check = \"LANWAN\"\nopenvpn_check = \"OPENVPN\"\ninterval = \"1s\"\n\
               [[leds]]\noutput = \"DO8\"\nshows = \"internet\"\n\
               [[leds]]\noutput = \"DO7\"\nshows = \"tunnel\"\ndown = \"on\"\ngood = \"off\"\n";
    let device = Device::new(led);
    device.tunnel.turn(false);
    device.until("both are lit", || device.light(21) == Some(true) && device.light(20) == Some(true));
    device.tell(&Request::Stop { name: "status-led".into() });
    device.until("dark", || device.light(21) == Some(false) && device.light(20) == Some(false));
    device.tell(&Request::Start { name: "status-led".into() });
    device.until("both are lit again", || device.light(21) == Some(true) && device.light(20) == Some(true));
    let mut client = Client::connect(&device.dirs.control_socket()).expect("the daemon answers");
    let status: multus_contract::api::status::Status =
        client.request_as(&Request::Status { name: Some("status-led".into()) }).expect("a status");
    let pid = status.children.first().and_then(|child| child.pid).expect("it runs").cast_signed();
    // It hangs: multusd finds that out and makes the lamps dark before it comes back.
    kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("it runs");
    device.until("dark while it hangs", || device.light(21) == Some(false) && device.light(20) == Some(false));
    device.until("both are lit at last", || device.light(21) == Some(true) && device.light(20) == Some(true));
}
