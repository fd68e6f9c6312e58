//! NetworkManager, by a connection profile of our own and `nmcli`. Other profiles are left alone; the one that was active comes
//! back when ours goes.

use std::path::Path;

use super::{Told, Trouble};
use crate::files;
use crate::logic::journal::Snapshot;
use crate::logic::plan::Plan;
use crate::logic::text::{self, PROFILE, PROFILE_UUID};
use crate::program::run;

const FILE: &str = "/etc/NetworkManager/system-connections/multus-lan.nmconnection";

/// Whether it runs and takes care of the interface.
pub(super) async fn has(interface: &str) -> bool {
    // "10 (unmanaged)", see NMDeviceState.
    run("nmcli", &["-g", "GENERAL.STATE", "device", "show", interface]).await.is_ok_and(|state| {
        let number = state.trim().split(' ').next().and_then(|number| number.parse::<u32>().ok());
        number.is_some_and(|number| number > 10)
    })
}

pub(super) async fn snapshot(interface: &str) -> Result<Snapshot, String> {
    let active = run("nmcli", &["-g", "GENERAL.CON-UUID", "device", "show", interface]).await?;
    let active = active.trim();
    let active = (!active.is_empty() && active != PROFILE_UUID).then(|| active.to_owned());
    Ok(Snapshot::NetworkManager { profile: files::read(Path::new(FILE))?, active })
}

pub(super) async fn apply(plan: &Plan, told: Told) -> Result<(), Trouble> {
    if Path::new("/sys/class/net").join(&plan.interface).join("wireless").exists() {
        let reason = format!("{} is wireless; this program sets up Ethernet only", plan.interface);
        return Err(Trouble::Lasting(reason));
    }
    let text = text::network_manager(plan);
    if files::read(Path::new(FILE))?.as_deref() != Some(&text) {
        // Others cannot read it: NetworkManager ignores it otherwise.
        files::replace(Path::new(FILE), &text, 0o600)?;
    } else if told == Told::Already && state().await.is_ok_and(|state| state == "activated") {
        return Ok(());
    }
    run("nmcli", &["connection", "load", FILE]).await?;
    // It does not wait: how far it is shows later.
    Ok(up(PROFILE_UUID).await?)
}

pub(super) async fn settled() -> Result<(), String> {
    match state().await?.as_str() {
        "activated" => Ok(()),
        "" => Err("NetworkManager has given up".into()),
        state => Err(format!("NetworkManager is {state}")),
    }
}

async fn state() -> Result<String, String> {
    let state = run("nmcli", &["-g", "GENERAL.STATE", "connection", "show", "uuid", PROFILE_UUID]).await?;
    Ok(state.trim().to_owned())
}

pub(super) async fn undo(profile: Option<&str>, active: Option<&str>, interface: &str) -> Result<(), String> {
    files::restore(Path::new(FILE), profile, 0o600)?;
    match tell(profile.is_some(), active, interface).await {
        // One that is started later reads what is there then.
        Err(error) if runs().await? => return Err(error),
        _ => {}
    }
    log::info!("the profile {PROFILE} of NetworkManager is as before");
    Ok(())
}

/// Of a profile that is as before, and of the one that was active on this interface. Where both were the same interface's, ours
/// is the last word.
async fn tell(has_profile: bool, active: Option<&str>, interface: &str) -> Result<(), String> {
    run("nmcli", &["connection", "reload"]).await?;
    if let Some(active) = active
        && let Err(error) = up(active).await
    {
        // One that NetworkManager had made by itself may be gone; it makes another.
        log::warn!("the former profile is not there any more ({error}); NetworkManager is to find one");
        run("nmcli", &["--wait", "0", "device", "connect", interface]).await?;
    }
    if has_profile { up(PROFILE_UUID).await } else { Ok(()) }
}

async fn up(uuid: &str) -> Result<(), String> {
    run("nmcli", &["--wait", "0", "connection", "up", "uuid", uuid]).await.map(drop)
}

/// # Errors
/// That cannot be found out.
async fn runs() -> Result<bool, String> {
    match run("nmcli", &["general", "status"]).await {
        Ok(_) => Ok(true),
        // See nmcli(1), EXIT STATUS.
        Err(error) if error.contains("exit status: 8:") || error.ends_with("is not installed") => Ok(false),
        Err(error) => Err(error),
    }
}
