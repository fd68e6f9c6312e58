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
    set: Option<String>,
}

impl Table {
    /// Sees to it that the table is as the plan says. Returns whether `journal` has changed and is to be written (before the
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
        if self.set.as_deref() != Some(&text) {
            program::run_with_input("nft", &["-f", "-"], &text).await.map_err(|error| format!("NAT: {error}"))?;
            log::info!("NAT: the table ip {TABLE} is set");
            self.set = Some(text);
        }
        Ok(is_changed)
    }

    /// Removes the table if there is one, and switches forwarding off if it was off before.
    ///
    /// # Errors
    /// nft refuses.
    pub(crate) async fn remove(&mut self, journal: &mut Journal) -> Result<bool, String> {
        // Without nft there is no table either.
        if self.set.as_deref() != Some("") && program::find("nft").is_some() {
            let list = program::run("nft", &["list", "tables", "ip"]).await.unwrap_or_default();
            if list.lines().any(|line| line.trim() == format!("table ip {TABLE}")) {
                program::run_with_input("nft", &["-f", "-"], &removal())
                    .await
                    .map_err(|error| format!("NAT: {error}"))?;
                log::info!("NAT: the table ip {TABLE} is removed");
            }
        }
        self.set = Some(String::new());
        if journal.forwarding.take().is_some() {
            write(FORWARD, "0")?;
            log::info!("this machine does not forward packets of IPv4 any more, as before");
            return Ok(true);
        }
        Ok(false)
    }
}

fn write(path: &str, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{path}: {error}"))
}

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
