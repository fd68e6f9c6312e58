//! dhcpcd, by a block of its configuration between two markers. Everything outside of them stays byte for byte.

use std::path::Path;

use crate::files;
use crate::logic::journal::Snapshot;
use crate::logic::plan::Plan;
use crate::logic::text;
use crate::program::run;

const FILE: &str = "/etc/dhcpcd.conf";
/// Where it writes its process id, by version: 9 and later, before.
const PIDS: [&str; 3] = ["/run/dhcpcd/pid", "/run/dhcpcd.pid", "/var/run/dhcpcd.pid"];

/// Whether it runs, for all interfaces.
pub(super) fn runs() -> bool {
    PIDS.iter().any(|file| {
        let pid = std::fs::read_to_string(file).unwrap_or_default();
        let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.trim())).unwrap_or_default();
        name.trim() == "dhcpcd"
    })
}

pub(super) fn snapshot() -> Result<Snapshot, String> {
    Ok(Snapshot::Dhcpcd { block: text::block_of(&written()?).map_err(|error| format!("{FILE}: {error}"))? })
}

pub(super) async fn apply(plan: &Plan) -> Result<(), String> {
    set(Some(&text::dhcpcd(plan)?), &plan.interface).await.map(drop)
}

pub(super) async fn undo(block: Option<&str>, interface: &str) -> Result<(), String> {
    if set(block, interface).await? {
        log::info!("{FILE} is as before");
    }
    Ok(())
}

async fn set(block: Option<&str>, interface: &str) -> Result<bool, String> {
    let former = written()?;
    let text = text::with_block(&former, block).map_err(|error| format!("{FILE}: {error}"))?;
    if text == former {
        return Ok(false);
    }
    files::replace(Path::new(FILE), &text, 0o644)?;
    // It reads its configuration again and sets up the interface anew.
    run("dhcpcd", &["--rebind", interface]).await?;
    Ok(true)
}

fn written() -> Result<String, String> {
    Ok(files::read(Path::new(FILE))?.unwrap_or_default())
}
