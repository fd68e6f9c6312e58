//! What is done when a check stays down, and the file that keeps it from becoming a loop.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use multus_child::Interval;
use multus_contract::api::command::{Client, Request};
use multus_contract::config::replace_file;
use multus_contract::dirs::{DirFlags, Dirs};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;

use crate::config::ActionConfig;
use crate::logic::guard::Guard;

/// Does it, if the guard allows. Everything that comes of it is told in the log.
pub(crate) async fn perform(check: &'static str, action: ActionConfig, file: &Path) {
    match allow(&action, file) {
        Ok(()) => {}
        Err(reason) => return log::error!("{check}: nothing is done about it: {reason}"),
    }
    let done = match &action.command {
        Some(command) => run(check, command, action.timeout).await,
        None => reboot(check).await,
    };
    if let Err(reason) = done {
        log::error!("{check}: {reason}");
    }
}

/// Counts first and acts then: what cannot be counted must not be done, or it would be done for ever.
fn allow(action: &ActionConfig, file: &Path) -> Result<(), String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut guard = match std::fs::read_to_string(file) {
        Ok(text) => Guard::from_text(&text).map_err(|wrong| format!("{}: {wrong}; remove the file", file.display()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Guard::new(),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    if !guard.allows(now, action.per_day) {
        return Err(format!("it was done {} times within 24 hours ({})", action.per_day, file.display()));
    }
    guard.note(now);
    replace_file(file, &guard.to_text(), 0o600).map_err(|error| format!("it cannot be counted: {error}"))
}

async fn run(check: &str, command: &[String], patience: Duration) -> Result<(), String> {
    let (program, arguments) = command.split_first().ok_or("there is no command")?;
    log::warn!("{check}: stays down, running {program}");
    let mut running = Command::new(program)
        .args(arguments)
        .env("MULTUS_CHECK", check)
        .stdin(std::process::Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    let mut group = Group(running.id());
    let ended = tokio::time::timeout(patience, running.wait()).await;
    if ended.is_ok() {
        // What it has left in the background is to stay there.
        group.0 = None;
    }
    match ended {
        Ok(Ok(status)) if status.success() => log::info!("{check}: {program} is done"),
        Ok(Ok(status)) => return Err(format!("{program} ended with {status}")),
        Ok(Err(error)) => return Err(format!("{program}: {error}")),
        Err(_) => return Err(format!("{program} took longer than {} and is killed", Interval::from(patience))),
    }
    Ok(())
}

/// A program and all that it has started: killed together when they take too long, or the check ends.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // The program has not been waited for, so its number is still its own.
            let _ = killpg(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
    }
}

async fn reboot(check: &str) -> Result<(), String> {
    log::warn!("{check}: stays down, asking multusd to start the machine anew in {REBOOT_IN_S} s");
    let socket = Dirs::resolve(&DirFlags::default()).control_socket();
    let asked = tokio::task::spawn_blocking(move || {
        Client::connect(&socket).and_then(|mut client| client.request(&Request::Reboot { seconds: REBOOT_IN_S }))
    });
    match asked.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("no reboot: {error}")),
        Err(error) => Err(format!("no reboot: {error}")),
    }
}

/// Time for somebody who watches to call it off.
const REBOOT_IN_S: u64 = 10;
