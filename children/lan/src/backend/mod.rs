//! Four ways to set up an interface. Each can say whether it has the interface, what it would change, apply a plan, say how far
//! that has come, and go back to what was found; each of these may be done twice.

mod dhcpcd;
mod network_manager;
mod networkd;
mod rtnetlink;

use std::path::Path;

use crate::logic::journal::{Now, Snapshot};
use crate::logic::plan::{Kind, Plan};
use crate::logic::text::{Lease, Notice};
use crate::program;

/// All of them; netlink keeps a DHCP client.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    rtnetlink: rtnetlink::Rtnetlink,
}

impl Backends {
    /// Who has the interface: whoever manages it already, else who could, else this program.
    pub(crate) async fn find(interface: &str, index: u32) -> Kind {
        if network_manager::has(interface).await {
            return Kind::NetworkManager;
        }
        if networkd::manages(index) {
            return Kind::Networkd;
        }
        if dhcpcd::runs() {
            return Kind::Dhcpcd;
        }
        // It runs, and nobody has told it about this interface yet.
        if networkd::runs().await { Kind::Networkd } else { Kind::Rtnetlink }
    }

    /// What is to be started at boot, but is not there yet.
    pub(crate) async fn starting() -> Option<&'static str> {
        // See sd_booted(3).
        if !Path::new("/run/systemd/system").exists() {
            return None;
        }
        for unit in ["NetworkManager.service", "systemd-networkd.service", "dhcpcd.service"] {
            let is = async |word: &str| program::run("systemctl", &[word, "--quiet", unit]).await.is_ok();
            if is("is-enabled").await && !is("is-active").await && !is("is-failed").await {
                return Some(unit);
            }
        }
        None
    }

    /// What would be changed.
    pub(crate) async fn snapshot(
        &self,
        kind: Kind,
        interface: &str,
        index: u32,
        now: &Now,
    ) -> Result<Snapshot, String> {
        match kind {
            Kind::NetworkManager => network_manager::snapshot(interface).await,
            Kind::Networkd => networkd::snapshot(),
            Kind::Dhcpcd => dhcpcd::snapshot(),
            Kind::Rtnetlink => rtnetlink::snapshot(index, now),
        }
    }

    /// Applies a plan; what stands already is left as it is.
    pub(crate) async fn apply(&mut self, kind: Kind, plan: &Plan, index: u32) -> Result<(), String> {
        match kind {
            Kind::NetworkManager => network_manager::apply(plan).await,
            Kind::Networkd => networkd::apply(plan, index).await,
            Kind::Dhcpcd => dhcpcd::apply(plan),
            Kind::Rtnetlink => self.rtnetlink.apply(plan, index).await,
        }
    }

    /// Whether it has done what it was asked for; else how far it is.
    pub(crate) async fn settled(&self, kind: Kind, plan: &Plan, index: u32) -> Result<(), String> {
        match kind {
            Kind::NetworkManager => network_manager::settled().await,
            Kind::Networkd => networkd::settled(index),
            Kind::Dhcpcd => Ok(()),
            Kind::Rtnetlink => self.rtnetlink.settled(plan),
        }
    }

    /// Back to what was found. `index`: `None` if the interface is not there.
    pub(crate) async fn undo(
        &mut self,
        snapshot: &Snapshot,
        plan: &Plan,
        index: Option<u32>,
        now: &Now,
    ) -> Result<(), String> {
        match snapshot {
            Snapshot::NetworkManager { profile, active } => {
                network_manager::undo(profile.as_deref(), active.as_deref(), &plan.interface).await
            }
            Snapshot::Networkd { file } => networkd::undo(file.as_deref(), &plan.interface).await,
            Snapshot::Dhcpcd { block } => dhcpcd::undo(block.as_deref()),
            Snapshot::Rtnetlink { boot, addresses, routes, resolv } => {
                let is_known = *boot == now.boot;
                self.rtnetlink.undo(is_known.then_some((addresses, routes)), resolv.as_deref(), plan, index)
            }
        }
    }

    /// The lease of the own DHCP client.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.rtnetlink.lease()
    }

    /// What the own DHCP client tells next; waits for ever where there is none.
    pub(crate) async fn notice(&mut self) -> Result<Notice, String> {
        self.rtnetlink.notice().await
    }

    /// Does what the DHCP client has told.
    pub(crate) fn told(&mut self, notice: Result<Notice, String>, plan: &Plan, index: u32) -> Result<(), String> {
        self.rtnetlink.told(notice, plan, index)
    }
}
