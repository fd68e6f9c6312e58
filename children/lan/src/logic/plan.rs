//! What is to be: the configuration, checked and in types.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::cidr::Cidr;
use super::nat::Nat;

/// Who sets up the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// NetworkManager, by a connection profile.
    NetworkManager,
    /// systemd-networkd, by a `.network` file.
    Networkd,
    /// dhcpcd, by a block of its configuration.
    Dhcpcd,
    /// This program itself, by netlink.
    Rtnetlink,
}

impl Kind {
    /// As it is written in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::NetworkManager => "network-manager",
            Self::Networkd => "networkd",
            Self::Dhcpcd => "dhcpcd",
            Self::Rtnetlink => "rtnetlink",
        }
    }
}

/// Everything that is to be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The interface.
    pub interface: String,
    /// IPv4 by DHCP; otherwise `addresses` are all there are.
    pub dhcp: bool,
    /// Own addresses; with DHCP those of IPv6 only.
    pub addresses: Vec<Cidr>,
    /// Router of IPv4; with DHCP `None`.
    pub gateway: Option<Ipv4Addr>,
    /// Router of IPv6; `None`: whatever routers advertise.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Whether the router is the way to the world.
    pub is_default_way: bool,
    /// Name servers; empty: those of DHCP, or whatever is set.
    pub name_servers: Vec<IpAddr>,
    /// `None`: the one that is found.
    pub backend: Option<Kind>,
    /// Translation of addresses for what comes in by the tunnel.
    pub nat: Nat,
}

impl Plan {
    /// Tells it from others: SHA-256 of all it says, in hexadecimal digits.
    pub fn mark(&self) -> String {
        // Types of our own without maps: it cannot fail.
        let text = serde_json::to_vec(self).unwrap_or_default();
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The routers that it names.
    pub fn routers(&self) -> Vec<IpAddr> {
        self.gateway.map(IpAddr::V4).into_iter().chain(self.gateway_v6.map(IpAddr::V6)).collect()
    }

    /// Own addresses of one family.
    pub fn of_family(&self, is_v4: bool) -> impl Iterator<Item = Cidr> + '_ {
        self.addresses.iter().copied().filter(move |cidr| cidr.address.is_ipv4() == is_v4)
    }
}
