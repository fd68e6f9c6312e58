//! dhcpcd, by a block of its configuration between two markers. Everything outside of them stays byte for byte.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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

pub(super) fn apply(plan: &Plan) -> Result<(), String> {
    set(Some(&text::dhcpcd(plan)?)).map(drop)
}

pub(super) fn undo(block: Option<&str>) -> Result<(), String> {
    if set(block)? {
        log::info!("{FILE} is as before");
    }
    Ok(())
}

fn set(block: Option<&str>) -> Result<bool, String> {
    let former = written()?;
    let text = text::with_block(&former, block).map_err(|error| format!("{FILE}: {error}"))?;
    if text == former {
        return Ok(false);
    }
    files::replace(Path::new(FILE), &text, 0o644)?;
    // It reads its configuration again and sets up its interfaces anew, see dhcpcd(8). `dhcpcd --rebind` asks for the same by a
    // socket that answers once only in version 9.4.1, of Debian 12: "cannot handle another client".
    let pid = pid().ok_or("dhcpcd does not run; start it: systemctl start dhcpcd")?;
    kill(pid, Signal::SIGHUP).map_err(|error| format!("dhcpcd ({pid}): {error}"))?;
    Ok(true)
}

fn written() -> Result<String, String> {
    Ok(files::read(Path::new(FILE))?.unwrap_or_default())
}
