//! One multusd with its children, in a directory of its own.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use multus_bench::board::Board;
use multus_contract::api::command::{Client, Request};
use multus_contract::api::event::Event;
use multus_contract::api::status::Status;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

pub(crate) type Failure = Box<dyn Error>;

/// What is the same for every world.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The daemon.
    pub(crate) multusd: PathBuf,
    /// The program that is supervised.
    pub(crate) child: PathBuf,
    /// Whether this user may have real-time priority.
    pub(crate) realtime: bool,
}

/// A child that is to be supervised.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: String,
    /// Its slot on the board; instance n has slot + n.
    pub(crate) slot: usize,
    pub(crate) instances: usize,
    pub(crate) every_us: u64,
    pub(crate) deadline_us: u64,
    /// Its real-time priority; `None` for an ordinary process.
    pub(crate) fifo: Option<u8>,
    pub(crate) beats: Beats,
}

/// How a child beats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Beats {
    /// In its page.
    #[default]
    Page,
    /// By sd_notify.
    Notify,
    /// By sd_notify, as fast as it can.
    NotifyFlood,
    /// By its control port, this one.
    ControlPort(u16),
}

/// A child that is no bench child.
#[derive(Clone, Debug)]
pub(crate) struct Extra {
    pub(crate) name: String,
    /// Its file.
    pub(crate) child: String,
    /// Its own configuration.
    pub(crate) config: String,
}

/// Runs until it is dropped.
#[derive(Debug)]
pub(crate) struct World {
    dir: TempDir,
    daemon: Child,
    pub(crate) board: Board,
    next_event: u64,
}

/// Measurement and floor take turns of so many repetitions, so that both see the same machine.
pub(crate) const BLOCK: u64 = 20;
/// Longest time for everybody to get ready.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Longest time for the daemon to stop everything.
const STOP_LIMIT: Duration = Duration::from_secs(60);

impl World {
    /// Starts the daemon and waits until all children run. `slots` of the board beyond those of the children are free.
    pub(crate) fn start(setup: &Setup, specs: &[Spec], slots: usize) -> Result<Self, Failure> {
        Self::start_with(setup, specs, slots, &[], None)
    }

    /// As [`Self::start`], with further children, and with lines as in `hardware.toml`.
    pub(crate) fn start_with(
        setup: &Setup,
        specs: &[Spec],
        slots: usize,
        extras: &[Extra],
        hardware: Option<&str>,
    ) -> Result<Self, Failure> {
        let board = Board::create(slots)?;
        let dir = tempfile::Builder::new().prefix("multus-bench.").tempdir()?;
        for sub in ["config/children", "config/config", "run", "log", "state"] {
            fs::create_dir_all(dir.path().join(sub))?;
        }
        let instances = specs.iter().map(|s| s.instances).sum::<usize>() + extras.len();
        for extra in extras {
            let file = format!("{}.toml", extra.name);
            fs::write(dir.path().join("config/children").join(&file), &extra.child)?;
            fs::write(dir.path().join("config/config").join(&file), &extra.config)?;
        }
        fs::write(dir.path().join("config/multusd.toml"), daemon_file(instances))?;
        if let Some(hardware) = hardware {
            fs::write(dir.path().join("config/hardware.toml"), hardware)?;
        }
        for spec in specs {
            let file = dir.path().join("config/children").join(format!("{}.toml", spec.name));
            fs::write(file, child_file(setup, spec, &board))?;
        }
        let out = fs::File::create(dir.path().join("multusd.out"))?;
        let mut command = Command::new(&setup.multusd);
        for (flag, sub) in
            [("--config-dir", "config"), ("--runtime-dir", "run"), ("--log-dir", "log"), ("--state-dir", "state")]
        {
            command.arg(flag).arg(dir.path().join(sub));
        }
        let daemon = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .map_err(|error| format!("{}: {error}", setup.multusd.display()))?;
        let mut world = Self { dir, daemon, board, next_event: 0 };
        world.wait_until_running(instances)?;
        Ok(world)
    }

    /// Something in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.id()
    }

    pub(crate) fn status(&self) -> Result<Status, Failure> {
        self.ask(&Request::Status { name: None })
    }

    /// What the daemon answers.
    pub(crate) fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Failure> {
        Ok(Client::connect(&self.socket())?.request_as(request)?)
    }

    /// Events since the last call, or since all children ran.
    ///
    /// # Errors
    /// There were more than the daemon keeps, or it does not answer.
    pub(crate) fn events(&mut self) -> Result<Vec<Event>, Failure> {
        let mut client = Client::connect(&self.socket())?;
        client.request(&Request::Events { since: Some(self.next_event), follow: false })?;
        let mut events = Vec::new();
        while let Some(event) = client.next_event()? {
            if event.seq != self.next_event {
                return Err(format!("events {} to {} are lost", self.next_event, event.seq - 1).into());
            }
            self.next_event = event.seq + 1;
            events.push(event);
        }
        Ok(events)
    }

    /// Fails when the daemon has ended.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        match self.daemon.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.complain(&format!("multusd has ended: {status}"))),
        }
    }

    /// An error with what the daemon printed.
    pub(crate) fn complain(&self, what: &str) -> Failure {
        let mut text = what.to_owned();
        for file in ["multusd.out", "log/multusd.log"] {
            let content = fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
            let lines: Vec<&str> = content.lines().collect();
            for line in &lines[lines.len().saturating_sub(15)..] {
                // Writing to a String cannot fail.
                let _ = write!(text, "\n  {file}: {line}");
            }
        }
        text.into()
    }

    fn wait_until_running(&mut self, instances: usize) -> Result<(), Failure> {
        let limit = Instant::now() + START_LIMIT;
        loop {
            self.check()?;
            let running = self.status().map(|s| s.children.iter().filter(|c| c.state == "running").count());
            match running {
                Ok(running) if running == instances => break,
                _ if Instant::now() < limit => sleep(Duration::from_millis(50)),
                Ok(running) => return Err(self.complain(&format!("{running} of {instances} children run"))),
                Err(error) => return Err(self.complain(&error.to_string())),
            }
        }
        // What happened at the start is not measured.
        let mut client = Client::connect(&self.socket())?;
        client.request(&Request::Events { since: None, follow: false })?;
        while let Some(event) = client.next_event()? {
            self.next_event = event.seq + 1;
        }
        Ok(())
    }

    /// Its runtime directory.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("run/control.sock")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.daemon.id().cast_signed());
        // It may have ended by itself; then there is nothing to do.
        let _ = kill(pid, Signal::SIGTERM);
        let limit = Instant::now() + STOP_LIMIT;
        while Instant::now() < limit {
            match self.daemon.try_wait() {
                Ok(None) => sleep(Duration::from_millis(20)),
                _ => return,
            }
        }
        eprintln!("latency: multusd did not end within {} s, killing it", STOP_LIMIT.as_secs());
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn daemon_file(instances: usize) -> String {
    format!("site = \"benchmark\"\nmax_children = {}\n\n[starts]\nsimultaneous = 32\n", instances.max(8) + 8)
}

fn child_file(setup: &Setup, spec: &Spec, board: &Board) -> String {
    let Spec { name, slot, instances, every_us, deadline_us, fifo, beats } = spec;
    let program = toml_text(&setup.child);
    let board = board.path();
    let flood = if *beats == Beats::NotifyFlood { ", \"--flood\"" } else { "" };
    let mut text = format!(
        "command = [{program}, \"--board\", \"{board}\", \"--slot\", \"{slot}\", \"--every\", \"{every_us}\"{flood}]\n\
         instances = {instances}\n\n[restart]\ndelays = [\"0s\"]\n\n[heartbeat]\ndeadline = \"{deadline_us}us\"\n"
    );
    match beats {
        Beats::Page => {}
        Beats::Notify | Beats::NotifyFlood => text += "method = \"notify\"\n",
        Beats::ControlPort(port) => text += &format!("method = \"control-port\"\nport = {port}\n"),
    }
    if *instances == 1 {
        text += &format!("\n[safe_state]\noutputs = {{ OUT-{name} = \"off\" }}\n");
    }
    if let Some(priority) = fifo {
        text += &format!("\n[schedule]\npolicy = \"fifo\"\npriority = {priority}\n");
    }
    text
}

/// A path as a TOML text. JSON's escapes are a part of TOML's.
pub(crate) fn toml_text(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}
