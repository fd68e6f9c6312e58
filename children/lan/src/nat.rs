//! Sets and removes the own table of nftables, and has the machine forward packets.

use std::path::Path;

use crate::files;
use crate::logic::cidr::Cidr;
use crate::logic::journal::Journal;
use crate::logic::nat::{Nat, TABLE, removal};
use crate::program;

/// What was set the last time, so that nothing is done twice.
#[derive(Debug, Default)]
pub(crate) struct Table {
    set: Option<Set>,
}

#[derive(Debug)]
struct Set {
    /// As it was given to nft; empty: there is no table.
    text: String,
    /// As nft lists it.
    listed: String,
}

impl Table {
    /// Sees to it that the table is as the plan says, also where somebody has changed it meanwhile. Returns whether `journal` has changed and is to be written (before the
    /// next change; a crash in between leaves forwarding on).
    ///
    /// # Errors
    /// nft refuses, or a network is not known yet.
    pub(crate) async fn set(
        &mut self,
        nat: &Nat,
        interface: &str,
        lan: &[Cidr],
        journal: &mut Journal,
    ) -> Result<bool, String> {
        if !nat.is_on() {
            return self.remove(journal).await;
        }
        let text = nat.ruleset(interface, lan)?;
        let mut is_changed = false;
        if files::read(Path::new(FORWARD))?.is_some_and(|text| text.trim() == "0") {
            write(FORWARD, "1")?;
            log::info!("this machine forwards packets of IPv4 from now on (net.ipv4.ip_forward), which NAT needs");
            journal.forwarding = Some(false);
            is_changed = true;
        }
        let known = self.set.as_ref().filter(|set| set.text == text);
        let was_set = known.is_some();
        // One that cannot be listed is not there.
        if known.is_some_and(|set| !set.listed.is_empty()) && known.map(|set| &set.listed) == listed().await.as_ref() {
            return Ok(is_changed);
        }
        program::run_with_input("nft", &["-f", "-"], &text).await.map_err(|error| format!("NAT: {error}"))?;
        self.set = Some(Set { text, listed: listed().await.unwrap_or_default() });
        if was_set {
            log::warn!("NAT: the table ip {TABLE} was gone or changed; it is set again");
        } else {
            log::info!("NAT: the table ip {TABLE} is set");
        }
        Ok(is_changed)
    }

    /// Removes the table if there is one, and switches forwarding off if it was off before.
    ///
    /// # Errors
    /// nft refuses.
    pub(crate) async fn remove(&mut self, journal: &mut Journal) -> Result<bool, String> {
        // Without nft there is no table either.
        if self.set.as_ref().is_none_or(|set| !set.text.is_empty()) && program::find("nft").is_some() {
            let list = program::run("nft", &["list", "tables", "ip"]).await.unwrap_or_default();
            if list.lines().any(|line| line.trim() == format!("table ip {TABLE}")) {
                program::run_with_input("nft", &["-f", "-"], &removal())
                    .await
                    .map_err(|error| format!("NAT: {error}"))?;
                log::info!("NAT: the table ip {TABLE} is removed");
            }
        }
        self.set = Some(Set { text: String::new(), listed: String::new() });
        if journal.forwarding.take().is_some() {
            write(FORWARD, "0")?;
            log::info!("this machine does not forward packets of IPv4 any more, as before");
            return Ok(true);
        }
        Ok(false)
    }
}

/// The table as it is; `None`: there is none.
async fn listed() -> Option<String> {
    program::run("nft", &["list", "table", "ip", TABLE]).await.ok()
}

fn write(path: &str, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{path}: {error}"))
}

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
