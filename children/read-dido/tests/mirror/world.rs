//! Devices with simulated boards, of which each mirrors what its parameters say; and what looks at them.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use multus_contract::api::command::{Client, Request};
use multus_contract::api::io::{IoLine, IoStatus};
use multus_contract::api::status::{ChildStatus, Status};
use multus_contract::dirs::Dirs;
use multus_hardware::sim::{self, Panel};
pub(crate) use multus_nettest::skip;
use multus_proto::v1::mirror_service_client::MirrorServiceClient;
use multus_proto::v1::{ListPeersRequest, MirrorPeer};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// Only a failed test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Native lines of the inputs and outputs, as the original has them.
pub(crate) const DI: [u32; 8] = [4, 17, 27, 18, 22, 23, 5, 6];
pub(crate) const DO: [u32; 8] = [25, 24, 13, 19, 26, 16, 20, 21];
/// Name of the child.
const MIRROR: &str = "read-dido";

/// What a device is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// `config/read-dido.toml`.
    pub(crate) parameters: String,
    /// Files beside it: name, text, mode.
    pub(crate) files: Vec<(String, String, u32)>,
    /// Further keys of outputs in `hardware.toml`, such as `, retained = true`.
    pub(crate) outputs: String,
    /// Who owns the outputs; `None`: the mirror.
    pub(crate) owner: Option<String>,
    /// The network namespace that it lives in.
    pub(crate) namespace: Option<String>,
}

impl Plan {
    pub(crate) fn new(parameters: impl Into<String>) -> Self {
        Self { parameters: parameters.into(), ..Self::default() }
    }

    /// A file that a parameter names, for its user only.
    pub(crate) fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned(), 0o600));
        self
    }

    pub(crate) fn outputs(mut self, keys: &str) -> Self {
        self.outputs = keys.to_owned();
        self
    }
}

/// A device.
pub(crate) struct Device {
    temp: TempDir,
    pub(crate) dirs: Dirs,
    daemon: Option<Child>,
    pub(crate) panel: Panel,
    namespace: Option<String>,
}

impl Device {
    /// One whose mirror runs.
    pub(crate) fn new(plan: Plan) -> Self {
        let device = Self::start(plan);
        device.until("the mirror runs", |device| device.child(MIRROR).state == "running");
        device
    }

    /// As [`Self::new`], without waiting for the mirror.
    pub(crate) fn start(plan: Plan) -> Self {
        let temp = tempfile::Builder::new().prefix("multus-mirror-").tempdir().expect("a temporary directory");
        let at = |name: &str| temp.path().join(name);
        let dirs = Dirs { config: at("etc"), runtime: at("run"), logs: at("log"), state: at("state") };
        let files = dirs.config.join("files").join(MIRROR);
        for dir in [&dirs.children_dir(), &dirs.config.join("config"), &dirs.runtime, &dirs.logs, &dirs.state, &files] {
            fs::create_dir_all(dir).expect("own directory");
        }
        let owner = plan.owner.as_deref().unwrap_or(MIRROR);
        fs::write(dirs.config.join("hardware.toml"), hardware(&plan.outputs, owner)).expect("own file");
        put(&dirs, "io", "multus-io", "", "retain_interval = \"1s\"\n");
        put(&dirs, MIRROR, "multus-read-dido", "after = [\"io\"]\n", &plan.parameters);
        for (name, text, mode) in plan.files {
            fs::write(files.join(&name), text).expect("own file");
            fs::set_permissions(files.join(&name), fs::Permissions::from_mode(mode)).expect("own file");
        }
        let panel = Panel::open(&sim::file_of(&dirs)).expect("own file");
        let mut device = Self { temp, dirs, daemon: None, panel, namespace: plan.namespace };
        device.switch_on();
        device
    }

    /// One more child.
    pub(crate) fn add(&self, name: &str, program: &str, parameters: &str) {
        put(&self.dirs, name, program, "", parameters);
        self.tell(&Request::Reload);
    }

    /// Starts multusd.
    pub(crate) fn switch_on(&mut self) {
        let out = File::create(self.temp.path().join("multusd.out")).expect("own file");
        let mut command = match &self.namespace {
            None => Command::new(programs().join("multusd")),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(programs().join("multusd"));
                command
            }
        };
        for (variable, dir) in self.dirs.variables() {
            command.env(variable, dir);
        }
        command.stdin(Stdio::null()).stdout(out.try_clone().expect("own file")).stderr(out);
        self.daemon = Some(command.spawn().expect("multusd was built"));
    }

    /// Ends multusd in good order.
    pub(crate) fn switch_off(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM);
            let _ = daemon.wait();
        }
    }

    /// Defines one more line, which starts multus-io anew with other definitions; waits until it scans.
    pub(crate) fn define(&self, line: &str) {
        let file = self.dirs.config.join("hardware.toml");
        let text = fs::read_to_string(&file).expect("own file") + line;
        fs::write(file, text).expect("own file");
        let before = self.child("io").pid;
        self.tell(&Request::Reload);
        self.until("another multus-io", |device| {
            let io = device.child("io");
            io.state == "running" && io.pid != before
        });
    }

    /// Other parameters, and has them read.
    pub(crate) fn reconfigure(&self, parameters: &str) {
        fs::write(self.dirs.parameter_file(MIRROR), parameters).expect("own file");
        self.signal(Signal::SIGHUP);
    }

    /// Pulls an input to ground (on), or lets it go.
    pub(crate) fn pull(&self, input: usize, is_on: bool) {
        self.panel.drive(DI[input - 1], is_on.then_some(false)).expect("own file");
    }

    /// Whether an output is on at the board; `None`: nobody has set it.
    pub(crate) fn output(&self, output: usize) -> Option<bool> {
        self.panel.output(DO[output - 1]).expect("own file").map(|(level, _)| !level)
    }

    /// How often an output was written.
    pub(crate) fn writes(&self, output: usize) -> u64 {
        self.panel.output(DO[output - 1]).expect("own file").map_or(0, |(_, writes)| writes)
    }

    pub(crate) fn until_output(&self, output: usize, is_on: bool) {
        self.until(&format!("output {output} is {is_on}"), |device| device.output(output) == Some(is_on));
    }

    pub(crate) fn line(&self, name: &str) -> Option<IoLine> {
        let io: IoStatus = self.ask(&Request::Io)?;
        io.lines.into_iter().find(|line| line.name == name)
    }

    pub(crate) fn child(&self, name: &str) -> ChildStatus {
        let status: Option<Status> = self.ask(&Request::Status { name: Some(name.into()) });
        status.and_then(|mut status| status.children.pop()).unwrap_or_default()
    }

    /// Sends a signal to the mirror.
    pub(crate) fn signal(&self, signal: Signal) {
        self.signal_to(MIRROR, signal);
    }

    pub(crate) fn signal_to(&self, name: &str, signal: Signal) {
        let mut pid = None;
        self.until("it has a process", |device| {
            pid = device.child(name).pid;
            pid.is_some()
        });
        kill(Pid::from_raw(pid.expect("it has one").cast_signed()), signal).expect("it runs");
    }

    /// Kills the mirror, and waits until another one runs.
    pub(crate) fn kill_mirror(&self) {
        let before = self.child(MIRROR).pid;
        self.signal(Signal::SIGKILL);
        self.until("it runs again", |device| {
            let child = device.child(MIRROR);
            child.state == "running" && child.pid.is_some() && child.pid != before
        });
    }

    pub(crate) fn tell(&self, request: &Request) {
        self.until("the daemon obeys", |device| {
            Client::connect(&device.dirs.control_socket()).is_ok_and(|mut client| client.request(request).is_ok())
        });
    }

    /// The log of the mirror.
    pub(crate) fn log(&self) -> String {
        self.log_of(MIRROR)
    }

    fn log_of(&self, name: &str) -> String {
        fs::read_to_string(self.dirs.child_log(name)).unwrap_or_default()
    }

    pub(crate) fn until_log(&self, what: &str) {
        self.until(&format!("the log says {what:?}"), |device| device.log().contains(what));
    }

    /// The peers of the mirror on this port; empty: it does not answer.
    pub(crate) fn peers(&self, port: u16) -> Vec<MirrorPeer> {
        let namespace = self.namespace.clone();
        let asked = std::thread::spawn(move || {
            if let Some(namespace) = namespace {
                let there = File::open(format!("/run/netns/{namespace}")).expect("the namespace is there");
                setns(there, CloneFlags::CLONE_NEWNET).expect("root may");
            }
            block_on(async {
                let answer = client(port).await.ok()?.list_peers(ListPeersRequest {}).await;
                answer.ok().map(|answer| answer.into_inner().peers)
            })
        });
        asked.join().expect("no panic").unwrap_or_default()
    }

    /// The peer of this name, as soon as it is in this state.
    pub(crate) fn until_peer(&self, port: u16, name: &str, state: &str) -> MirrorPeer {
        let mut found = None;
        let mut last = Vec::new();
        let end = Instant::now() + PATIENCE;
        while found.is_none() {
            last = self.peers(port);
            found = last.iter().find(|peer| peer.name == name && peer.state == state).cloned();
            if found.is_none() && Instant::now() > end {
                eprintln!("{last:#?}");
                self.give_up(&format!("{name} is {state}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(last);
        found.expect("found")
    }

    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(self) {
            if Instant::now() > end {
                self.give_up(what);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn give_up(&self, what: &str) -> ! {
        for name in ["io", MIRROR] {
            eprintln!("---- {name}\n{}", self.log_of(name));
        }
        eprintln!("---- multusd\n{}", fs::read_to_string(self.temp.path().join("multusd.out")).unwrap_or_default());
        panic!("waited in vain: {what}");
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Option<T> {
        Client::connect(&self.dirs.control_socket()).ok()?.request_as(request).ok()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.switch_off();
    }
}

fn put(dirs: &Dirs, name: &str, program: &str, keys: &str, parameters: &str) {
    let program = programs().join(program);
    assert!(program.exists(), "{} is missing: cargo build --workspace", program.display());
    let text =
        format!("command = [{program:?}]\n{keys}[heartbeat]\ndeadline = \"20s\"\n[restart]\ndelays = [\"0s\"]\n");
    fs::write(dirs.child_file(name), text).expect("own file");
    fs::write(dirs.parameter_file(name), parameters).expect("own file");
}

/// The board of the original.
fn hardware(outputs: &str, owner: &str) -> String {
    let mut text = "board = \"sim\"\n[lines]\n".to_owned();
    for (n, gpio) in (1..).zip(DI) {
        text +=
            &format!("DI{n} = {{ kind = \"digital-input\", gpio = {gpio}, active_low = true, bias = \"pull-up\" }}\n");
    }
    for (n, gpio) in (1..).zip(DO) {
        text += &format!(
            "DO{n} = {{ kind = \"digital-output\", gpio = {gpio}, active_low = true, safe = \"off\", owner = \"{owner}\"{outputs} }}\n"
        );
    }
    text + "AI1 = { kind = \"analogue-input\", mcp3208 = { channel = 0 } }\n"
}

/// Parameters of a sender: line n to output n of each receiver, all of one protocol.
pub(crate) fn sender(name: &str, own_port: u16, protocol: &str, receivers: &[String]) -> String {
    let mut text = format!("port = {own_port}\n[sender]\nname = \"{name}\"\ninterval = \"1s\"\n");
    for n in 1..=8 {
        text += &format!("[[sender.lines]]\nlocal = \"DI{n}\"\nremote = \"DO{n}\"\n");
    }
    for receiver in receivers {
        text += &format!("[[sender.receivers]]\naddress = \"{receiver}\"\nprotocol = \"{protocol}\"\n");
    }
    text
}

/// Parameters of a receiver of one sender, which sets all outputs; `more` are further keys of it.
pub(crate) fn receiver(port: u16, name: &str, more: &str) -> String {
    format!(
        "port = {port}\n[[receiver.senders]]\nname = \"{name}\"\n\
         outputs = [\"DO1\", \"DO2\", \"DO3\", \"DO4\", \"DO5\", \"DO6\", \"DO7\", \"DO8\"]\n{more}\n"
    )
}

/// For whoever speaks to a mirror by hand.
pub(crate) async fn client(port: u16) -> Result<MirrorServiceClient<Channel>, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    Ok(MirrorServiceClient::new(endpoint.connect().await?))
}

pub(crate) fn here(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

pub(crate) fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("bound").port()
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

/// Where building the workspace puts the programs.
pub(crate) fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_multus-read-dido")).parent().expect("a folder").to_path_buf()
}

/// Files beside these tests.
pub(crate) fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mirror").join(name)
}
