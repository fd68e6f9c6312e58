//! A DHCP client of the system, run by this program, and its script, which is this program as well: it sends what the client
//! tells to the socket of the child.
//!
//! The socket is named after the process of the child, so a client whose child is gone finds nobody and is ended.

use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use multus_contract::dirs::{DirFlags, Dirs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

use crate::logic::text::{Notice, lease_notice};
use crate::program;

/// Names the socket; a process that has it is the script of a client.
const HOOK: &str = "MULTUS_LAN_HOOK";

pub(crate) fn is_hook() -> bool {
    std::env::var_os(HOOK).is_some()
}

/// The whole script.
pub(crate) fn hook() -> ExitCode {
    let socket = PathBuf::from(std::env::var_os(HOOK).unwrap_or_default());
    let argument = std::env::args().nth(1);
    let notice = lease_notice(argument.as_deref(), |name| std::env::var(name).ok());
    let told = serde_json::to_vec(&notice).map_err(std::io::Error::other).and_then(|text| {
        let sender = StdDatagram::unbound()?;
        sender.set_write_timeout(Some(Duration::from_secs(5)))?;
        sender.send_to(&text, &socket)
    });
    if told.is_ok() {
        return ExitCode::SUCCESS;
    }
    // Nobody would use its leases any more; SIGKILL, so that it does not give the address away.
    let _ = kill(getppid(), Signal::SIGKILL);
    ExitCode::FAILURE
}

/// A client on one interface.
#[derive(Debug)]
pub(crate) struct Client {
    interface: String,
    program: &'static str,
    child: Child,
    socket: UnixDatagram,
    path: PathBuf,
}

impl Client {
    /// Starts the client that is there.
    ///
    /// # Errors
    /// There is none, or it cannot be run.
    pub(crate) fn start(interface: &str) -> Result<Self, String> {
        let folder = Dirs::resolve(&DirFlags::default()).runtime.join("lan-dhcp");
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        end_former(&folder);
        let path = folder.join(format!("{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).map_err(failed)?;
        let (program, mut command) = command(interface, &path, &folder)?;
        command.env(HOOK, &path).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        if let Some(known) = child.id().and_then(|pid| start_time(pid).map(|start| format!("{pid} {start}"))) {
            std::fs::write(folder.join(FORMER), known).map_err(failed)?;
        }
        log::info!("{program} asks for an address on {interface}");
        Ok(Self { interface: interface.to_owned(), program, child, socket, path })
    }

    pub(crate) fn is_for(&self, interface: &str) -> bool {
        self.interface == interface
    }

    /// What it tells next.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) async fn next(&mut self) -> Result<Notice, String> {
        let mut buffer = vec![0; 8192];
        tokio::select! {
            received = self.socket.recv(&mut buffer) => {
                let length = received.map_err(|error| error.to_string())?;
                serde_json::from_slice(&buffer[..length]).map_err(|error| error.to_string())
            }
            ended = self.child.wait() => Err(match ended {
                Ok(status) => format!("{} has ended with {status}", self.program),
                Err(error) => format!("{}: {error}", self.program),
            }),
        }
    }
}

/// Killed, so that the address stays until its lease is over.
impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let _ = std::fs::remove_file(&self.path);
    }
}

fn command(interface: &str, socket: &Path, folder: &Path) -> Result<(&'static str, Command), String> {
    let script = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
    if let Some(file) = program::find("udhcpc") {
        let mut command = Command::new(file);
        // In the foreground; four questions 3 s apart, then 10 s of silence, for ever.
        command.args(["-f", "-t", "4", "-T", "3", "-A", "10", "-i", interface, "-s"]).arg(script);
        command.stderr(Stdio::null());
        return Ok(("udhcpc", command));
    }
    if let Some(file) = program::find("dhclient") {
        let mut command = Command::new(file);
        command.args(["-4", "-d", "-q", "-e"]).arg(format!("{HOOK}={}", socket.display()));
        command.arg("-sf").arg(script).arg("-pf").arg(folder.join("dhclient.pid"));
        command.arg("-lf").arg(folder.join("dhclient.leases")).arg(interface);
        command.stderr(Stdio::null());
        return Ok(("dhclient", command));
    }
    Err("there is no DHCP client: apt-get install udhcpc (or isc-dhcp-client), or name an address and set dhcp = false"
        .into())
}

/// The client of a process of ours that was killed must not work beside the new one. It is known by its number and the time of
/// its start.
fn end_former(folder: &Path) {
    let known = std::fs::read_to_string(folder.join(FORMER)).unwrap_or_default();
    let mut words = known.split(' ');
    if let (Some(Ok(pid)), Some(start)) = (words.next().map(str::parse::<u32>), words.next())
        && start_time(pid).as_deref() == Some(start)
    {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
}

/// Field 22 of proc_pid_stat(5): clock ticks from the boot to the start of the process.
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything; behind it come numbers only.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

const FORMER: &str = "client";
