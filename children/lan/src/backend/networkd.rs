//! systemd-networkd, by a file of our own. It goes first by its name; others stay as they are.

use std::path::Path;

use super::Told;
use crate::files;
use crate::logic::journal::Snapshot;
use crate::logic::plan::Plan;
use crate::logic::text;
use crate::program::run;

const FOLDER: &str = "/etc/systemd/network";
const FILE: &str = "/etc/systemd/network/10-multus-lan.network";

/// What it says of an interface, in one word: "configured", "configuring", "unmanaged", ...
fn state(index: u32) -> Option<String> {
    // See sd_network_link_get_setup_state.
    let text = std::fs::read_to_string(format!("/run/systemd/netif/links/{index}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("ADMIN_STATE=")).map(str::to_owned)
}

/// Whether it takes care of the interface. What it wrote vanishes when it is not started.
pub(super) fn manages(index: u32) -> bool {
    state(index).is_some_and(|state| state != "unmanaged")
}

pub(super) async fn runs() -> bool {
    run("systemctl", &["is-active", "--quiet", "systemd-networkd.service"]).await.is_ok()
}

pub(super) fn snapshot() -> Result<Snapshot, String> {
    Ok(Snapshot::Networkd { file: files::read(Path::new(FILE))? })
}

pub(super) async fn apply(plan: &Plan, index: u32, told: Told) -> Result<(), String> {
    let text = text::networkd(plan);
    if files::read(Path::new(FILE))?.as_deref() != Some(&text) {
        std::fs::create_dir_all(FOLDER).map_err(|error| format!("{FOLDER}: {error}"))?;
        files::replace(Path::new(FILE), &text, 0o644)?;
    } else if told == Told::Already && manages(index) {
        return Ok(());
    }
    reload(&plan.interface).await
}

pub(super) fn settled(index: u32) -> Result<(), String> {
    match state(index).as_deref() {
        Some("configured") => Ok(()),
        Some(state) => Err(format!("systemd-networkd is {state}")),
        None => Err("systemd-networkd does not know the interface".into()),
    }
}

pub(super) async fn undo(file: Option<&str>, interface: &str) -> Result<(), String> {
    files::restore(Path::new(FILE), file, 0o644)?;
    match reload(interface).await {
        // One that is started later reads what is there then.
        Err(error) if runs().await => return Err(error),
        _ => {}
    }
    log::info!("{FILE} is as before");
    Ok(())
}

async fn reload(interface: &str) -> Result<(), String> {
    run("networkctl", &["reload"]).await?;
    run("networkctl", &["reconfigure", interface]).await.map(drop)
}
