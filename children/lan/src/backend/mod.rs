//! Four ways to set up an interface. Each can say whether it has the interface, what it would change, apply a plan, say how far
//! that has come, and go back to what was found; each of these may be done twice.

mod dhcpcd;
mod network_manager;
mod networkd;
mod rtnetlink;

use std::fmt;
use std::path::Path;

use crate::logic::journal::{Now, Snapshot};
use crate::logic::plan::{Kind, Plan};
use crate::logic::text::{Lease, Notice};
use crate::program;

/// Why a plan is not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It may pass by itself; to be tried again.
    Passing(String),
    /// It stays until somebody changes something.
    Lasting(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Passing(reason) | Self::Lasting(reason)) = self;
        f.write_str(reason)
    }
}

/// What is not known to stay may pass.
impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Self::Passing(reason)
    }
}

/// Whether the one who sets up the interface is told of files that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It knows them: what it has set up stands.
    Already,
    /// Whether it knows them is not known.
    Perhaps,
}

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

    /// What is to be started at boot, but is not there yet; of this kind, or of any.
    pub(crate) async fn starting(kind: Option<Kind>) -> Option<&'static str> {
        // See sd_booted(3).
        if !Path::new("/run/systemd/system").exists() {
            return None;
        }
        let units = [
            (Kind::NetworkManager, "NetworkManager.service"),
            (Kind::Networkd, "systemd-networkd.service"),
            (Kind::Dhcpcd, "dhcpcd.service"),
        ];
        for (_, unit) in units.into_iter().filter(|(of, _)| kind.is_none_or(|kind| kind == *of)) {
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

    /// Applies a plan. Where files are as it wants them, `told` says whether that is all.
    pub(crate) async fn apply(&mut self, kind: Kind, plan: &Plan, index: u32, told: Told) -> Result<(), Trouble> {
        match kind {
            Kind::NetworkManager => network_manager::apply(plan, told).await,
            Kind::Networkd => Ok(networkd::apply(plan, index, told).await?),
            Kind::Dhcpcd => dhcpcd::apply(plan, told),
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

    /// What is not there any more although it was set, for people. The others than netlink see to that themselves.
    pub(crate) fn missing(&self, kind: Kind, plan: &Plan, index: u32) -> Result<Option<String>, String> {
        match kind {
            Kind::NetworkManager | Kind::Networkd | Kind::Dhcpcd => Ok(None),
            Kind::Rtnetlink => self.rtnetlink.missing(plan, index),
        }
    }

    /// Back to what was found, and whoever reads files is told, also where they are as before: a crash may have come before
    /// the word. `index`: `None` if the interface is not there.
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
