//! dhcpcd, by a block of its configuration between two markers. Everything outside of them stays byte for byte.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Told, Trouble};
use crate::files;
use crate::logic::journal::Snapshot;
use crate::logic::plan::Plan;
use crate::logic::text;

const FILE: &str = "/etc/dhcpcd.conf";
/// Where it writes its process id, by version: 9 and later, before.
const PIDS: [&str; 3] = ["/run/dhcpcd/pid", "/run/dhcpcd.pid", "/var/run/dhcpcd.pid"];

/// The process that cares for all interfaces.
fn pid() -> Option<Pid> {
    PIDS.iter().find_map(|file| {
        let pid = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "dhcpcd").then(|| Pid::from_raw(pid))
    })
}

/// Whether it runs, for all interfaces.
pub(super) fn runs() -> bool {
    pid().is_some()
}

pub(super) fn snapshot() -> Result<Snapshot, String> {
    Ok(Snapshot::Dhcpcd { block: text::block_of(&written()?).map_err(|error| format!("{FILE}: {error}"))? })
}

pub(super) fn apply(plan: &Plan, told: Told) -> Result<(), Trouble> {
    let block = text::dhcpcd(plan).map_err(Trouble::Lasting)?;
    let lines = text::foreign_lines(&written()?, &plan.interface).map_err(|error| format!("{FILE}: {error}"))?;
    if !lines.is_empty() {
        let numbers: Vec<String> = lines.iter().map(ToString::to_string).collect();
        return Err(Trouble::Lasting(format!(
            "{FILE} sets up {} already, which dhcpcd would mix with this; remove its lines {}",
            plan.interface,
            numbers.join(", ")
        )));
    }
    let pid = pid().ok_or_else(|| "dhcpcd does not run; start it: systemctl start dhcpcd".to_owned())?;
    if write(Some(&block))? || told == Told::Perhaps {
        tell(pid)?;
    }
    Ok(())
}

pub(super) fn undo(block: Option<&str>) -> Result<(), String> {
    if write(block)? {
        log::info!("{FILE} is as before");
    }
    // One that is started later reads what is there then.
    pid().map_or(Ok(()), tell)
}

/// Whether the file was another one.
fn write(block: Option<&str>) -> Result<bool, String> {
    let former = written()?;
    let text = text::with_block(&former, block).map_err(|error| format!("{FILE}: {error}"))?;
    let is_other = text != former;
    if is_other {
        files::replace(Path::new(FILE), &text, 0o644)?;
    }
    Ok(is_other)
}

fn tell(pid: Pid) -> Result<(), String> {
    // It reads its configuration again and sets up its interfaces anew, see dhcpcd(8). `dhcpcd --rebind` asks for the same by a
    // socket that answers once only in version 9.4.1, of Debian 12: "cannot handle another client".
    kill(pid, Signal::SIGHUP).map_err(|error| format!("dhcpcd ({pid}): {error}"))
}

fn written() -> Result<String, String> {
    Ok(files::read(Path::new(FILE))?.unwrap_or_default())
}
