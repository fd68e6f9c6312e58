//! What `config/lan.toml` may say, and what of it cannot be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use multus_child::{ConfigVersion, Error, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::logic::cidr::{Cidr, check_host};
use crate::logic::nat::{Mapping, Nat};
use crate::logic::plan::{Kind, Plan};

/// The local network of this device.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The interface that is set up, such as "eth0"; empty: none is, and nothing is changed.
    pub interface: String,
    /// What the LAN is for.
    pub profile: Profile,
    /// IPv4 by DHCP. Otherwise addresses must be named. IPv6 comes by router advertisements, unless an address is named.
    #[schemars(title = "DHCP")]
    pub dhcp: bool,
    /// Own addresses with the length of the prefix, such as "192.168.1.2/24" or "fd00::2/64"; up to 16. With DHCP those of IPv6
    /// only.
    pub addresses: Vec<String>,
    /// Router of IPv4; empty with DHCP, which tells it.
    pub gateway: String,
    /// Router of IPv6; empty: the one that is advertised.
    #[schemars(title = "Gateway of IPv6")]
    pub gateway_v6: String,
    /// Name servers, up to 3; empty: those of DHCP, or whatever is set.
    pub name_servers: Vec<String>,
    /// Who sets up the interface.
    pub backend: Backend,
    /// A change is taken back after this time, 15s to 1h, unless it was confirmed. "0s": it stands at once.
    pub confirm_within: Interval,
    /// Whether an answer of the router confirms a change. Otherwise somebody must.
    pub gateway_confirms: bool,
    /// Port on 127.0.0.1 for gRPC, multus.v1.LanService and that of the original; 0: none.
    pub port: u16,
    /// Version of this configuration; it is told to those who ask.
    pub config_version: ConfigVersion,
    /// Translation of addresses for what comes in by the VPN.
    #[schemars(title = "NAT")]
    pub nat: NatConfig,
}

/// What the LAN is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// It is no way to the world: no default route.
    None,
    /// Its router is the way to the world.
    WanViaLan,
}

/// Who sets up the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The one that does so already.
    Auto,
    /// NetworkManager: Raspberry Pi OS since 2023, most desktops.
    NetworkManager,
    /// systemd-networkd.
    Networkd,
    /// dhcpcd: Raspberry Pi OS until 2023.
    Dhcpcd,
    /// This program itself: boards with nothing.
    Rtnetlink,
}

/// Translation of addresses of IPv4 for what comes in by the VPN.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NatConfig {
    /// The interface of the VPN.
    pub from: String,
    /// Source NAT: hosts of the LAN see this device where somebody asks through the VPN, so they need no route to the VPN.
    pub source: bool,
    /// Destination NAT: networks that stand for another one, host by host; up to 16.
    pub destination: Vec<Destination>,
}

/// A network that stands for another one.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Destination {
    /// What is asked for through the VPN, such as "10.20.0.0/24".
    pub network: String,
    /// Where it goes, a network of the same size; empty: the LAN.
    pub to: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interface: String::new(),
            profile: Profile::WanViaLan,
            dhcp: true,
            addresses: Vec::new(),
            gateway: String::new(),
            gateway_v6: String::new(),
            name_servers: Vec::new(),
            backend: Backend::Auto,
            confirm_within: Interval::from_millis(60_000),
            gateway_confirms: true,
            port: PORT,
            config_version: ConfigVersion::default(),
            nat: NatConfig::default(),
        }
    }
}

impl Default for NatConfig {
    fn default() -> Self {
        Self { from: "tun0".into(), source: false, destination: Vec::new() }
    }
}

/// A whole program.
#[derive(Clone, Debug)]
pub(crate) struct Valid {
    /// `None`: nothing is set up.
    pub(crate) plan: Option<Plan>,
    pub(crate) trial: Trial,
    pub(crate) port: u16,
    pub(crate) version: String,
}

/// How a change is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trial {
    /// Zero: not at all.
    pub(crate) within: Duration,
    pub(crate) gateway_confirms: bool,
}

impl Config {
    /// What the types cannot express.
    ///
    /// # Errors
    /// Everything that is wrong, a line each.
    pub fn check(&self) -> Result<(), Error> {
        self.valid().map(drop)
    }

    /// # Errors
    /// Everything that is wrong, a line each.
    pub(crate) fn valid(&self) -> Result<Valid, Error> {
        let mut wrong = Wrong::default();
        self.check_interface(&mut wrong);
        let addresses = self.addresses(&mut wrong);
        let gateway = self.gateway(&addresses, &mut wrong);
        let gateway_v6 = self.gateway_v6(&addresses, &mut wrong);
        let name_servers = self.name_servers(&mut wrong);
        let within = self.confirm_within.duration();
        if !within.is_zero() && !(SHORTEST..=LONGEST).contains(&within) {
            wrong.add("confirm_within", format!("{} is out of range, expected 15s to 1h, or 0s", self.confirm_within));
        }
        let nat = self.nat.valid(&self.interface, &addresses, self.dhcp, &mut wrong);
        if !wrong.0.is_empty() {
            return Err(wrong.0.join("\n").into());
        }
        let plan = Plan {
            interface: self.interface.clone(),
            dhcp: self.dhcp,
            addresses,
            gateway,
            gateway_v6,
            is_default_way: self.profile == Profile::WanViaLan,
            name_servers,
            backend: match self.backend {
                Backend::Auto => None,
                Backend::NetworkManager => Some(Kind::NetworkManager),
                Backend::Networkd => Some(Kind::Networkd),
                Backend::Dhcpcd => Some(Kind::Dhcpcd),
                Backend::Rtnetlink => Some(Kind::Rtnetlink),
            },
            nat,
        };
        Ok(Valid {
            plan: (!self.interface.is_empty()).then_some(plan),
            trial: Trial { within, gateway_confirms: self.gateway_confirms },
            port: self.port,
            version: self.config_version.to_string(),
        })
    }

    fn check_interface(&self, wrong: &mut Wrong) {
        if !is_interface_name(&self.interface) && !self.interface.is_empty() {
            wrong.add("interface", format!("{:?} cannot be the name of an interface", self.interface));
        }
        if self.interface == "lo" {
            wrong.add("interface", "lo is of this machine only");
        }
    }

    fn addresses(&self, wrong: &mut Wrong) -> Vec<Cidr> {
        let mut found: Vec<Cidr> = Vec::new();
        for (index, text) in self.addresses.iter().enumerate() {
            let key = format!("addresses[{index}]");
            match text.parse::<Cidr>().and_then(|cidr| cidr.check_own().map(|()| cidr)) {
                Ok(cidr) if found.iter().any(|known| known.address == cidr.address) => {
                    wrong.add(&key, format!("{} is there twice", cidr.address));
                }
                Ok(cidr) if self.dhcp && cidr.address.is_ipv4() => {
                    wrong.add(&key, format!("{cidr}: IPv4 comes by DHCP; set dhcp = false, or leave this out"));
                    found.push(cidr);
                }
                Ok(cidr) => found.push(cidr),
                Err(reason) => wrong.add(&key, reason),
            }
        }
        if self.addresses.len() > MOST_ADDRESSES {
            wrong.add("addresses", format!("found {}, expected at most {MOST_ADDRESSES}", self.addresses.len()));
        }
        if !self.dhcp && self.addresses.is_empty() && !self.interface.is_empty() {
            wrong.add("addresses", "without DHCP the device needs an address; name one, or set dhcp = true");
        }
        found
    }

    fn gateway(&self, addresses: &[Cidr], wrong: &mut Wrong) -> Option<Ipv4Addr> {
        let is_v4 = |cidr: &&Cidr| cidr.address.is_ipv4();
        if self.gateway.is_empty() {
            let is_missing = self.profile == Profile::WanViaLan && !self.dhcp && self.gateway_v6.is_empty();
            if is_missing && addresses.iter().any(|cidr| is_v4(&cidr)) {
                wrong.add(
                    "gateway",
                    "the profile \"wan-via-lan\" needs the router; name it, or use the profile \"none\"",
                );
            }
            return None;
        }
        let Ok(gateway) = self.gateway.parse::<Ipv4Addr>() else {
            wrong.add("gateway", format!("{:?} is no IPv4 address", self.gateway));
            return None;
        };
        if self.dhcp {
            wrong.add("gateway", format!("{gateway}: DHCP tells the router; leave this out, or set dhcp = false"));
            return None;
        }
        let own: Vec<Cidr> = addresses.iter().filter(is_v4).copied().collect();
        check_gateway("gateway", gateway.into(), &own, wrong);
        Some(gateway)
    }

    fn gateway_v6(&self, addresses: &[Cidr], wrong: &mut Wrong) -> Option<Ipv6Addr> {
        if self.gateway_v6.is_empty() {
            return None;
        }
        let Ok(gateway) = self.gateway_v6.parse::<Ipv6Addr>() else {
            wrong.add("gateway_v6", format!("{:?} is no IPv6 address", self.gateway_v6));
            return None;
        };
        let own: Vec<Cidr> = addresses.iter().filter(|cidr| cidr.address.is_ipv6()).copied().collect();
        // Routers are known by their address of the link as a rule.
        if !gateway.is_unicast_link_local() {
            check_gateway("gateway_v6", gateway.into(), &own, wrong);
        } else if own.is_empty() {
            wrong.add("gateway_v6", "without an IPv6 address of its own the device takes what routers advertise");
        }
        Some(gateway)
    }

    fn name_servers(&self, wrong: &mut Wrong) -> Vec<IpAddr> {
        let mut found = Vec::new();
        for (index, text) in self.name_servers.iter().enumerate() {
            let key = format!("name_servers[{index}]");
            match text.trim().parse::<IpAddr>() {
                Err(_) => wrong.add(&key, format!("{text:?} is no IP address")),
                Ok(address) if found.contains(&address) => wrong.add(&key, format!("{address} is there twice")),
                // One on this machine is a good name server.
                Ok(address) => match check_host(address) {
                    Err(reason) if !address.is_loopback() => wrong.add(&key, reason),
                    _ => found.push(address),
                },
            }
        }
        if self.name_servers.len() > MOST_SERVERS {
            wrong.add("name_servers", format!("found {}, expected at most {MOST_SERVERS}", self.name_servers.len()));
        }
        found
    }
}

fn check_gateway(key: &str, gateway: IpAddr, own: &[Cidr], wrong: &mut Wrong) {
    if let Err(reason) = check_host(gateway) {
        return wrong.add(key, reason);
    }
    if own.iter().any(|cidr| cidr.address == gateway) {
        return wrong.add(key, format!("{gateway} is the device's own address"));
    }
    let Some(network) = own.iter().find(|cidr| cidr.contains(gateway)) else {
        let networks: Vec<String> = own.iter().map(|cidr| format!("{}/{}", cidr.network(), cidr.prefix)).collect();
        let networks = if networks.is_empty() { "there are none".to_owned() } else { networks.join(", ") };
        return wrong.add(key, format!("{gateway} is outside of the networks of the device ({networks})"));
    };
    if gateway.is_ipv4() && network.prefix <= 30 && (gateway == network.network() || gateway == network.last()) {
        wrong.add(key, format!("{gateway} is the first or the last address of {network}, which no host has"));
    }
}

impl NatConfig {
    fn valid(&self, interface: &str, own: &[Cidr], dhcp: bool, wrong: &mut Wrong) -> Nat {
        let mut nat = Nat { source: self.source, from: self.from.clone(), destination: Vec::new() };
        let lan = own.iter().find(|cidr| cidr.address.is_ipv4());
        for (index, destination) in self.destination.iter().enumerate() {
            let key = |name: &str| format!("nat.destination[{index}].{name}");
            let Some(network) = network_of(&key("network"), &destination.network, wrong) else { continue };
            let to = match destination.to.as_str() {
                "" => None,
                text => network_of(&key("to"), text, wrong),
            };
            if let Some(to) = to
                && to.prefix != network.prefix
            {
                wrong.add(&key("to"), format!("{to} has another size than {network}: host by host needs the same"));
            }
            if to.is_none() && destination.to.is_empty() && !dhcp {
                match lan {
                    None => wrong.add(&key("to"), "the device has no IPv4 address, so name the network"),
                    Some(lan) if lan.prefix != network.prefix => {
                        wrong.add(&key("network"), format!("{network} has another size than the LAN, {lan}"));
                    }
                    Some(_) => {}
                }
            }
            if let Some(lan) = own.iter().find(|cidr| cidr.overlaps(network)) {
                wrong.add(&key("network"), format!("{network} overlaps the LAN, {lan}"));
            }
            if let Some(other) = nat.destination.iter().find(|other| other.network.overlaps(network)) {
                wrong.add(&key("network"), format!("{network} overlaps {}, which stands before", other.network));
            }
            nat.destination.push(Mapping { network, to });
        }
        if self.destination.len() > MOST_NETWORKS {
            wrong.add("nat.destination", format!("found {}, expected at most {MOST_NETWORKS}", self.destination.len()));
        }
        if !nat.is_on() {
            return Nat::default();
        }
        if !is_interface_name(&self.from) {
            wrong.add("nat.from", format!("{:?} cannot be the name of an interface", self.from));
        }
        if self.from == interface {
            wrong.add("nat.from", format!("{interface} is the LAN itself, not the VPN"));
        }
        if interface.is_empty() {
            wrong.add("nat", "the LAN has no interface; name it");
        }
        nat
    }
}

fn network_of(key: &str, text: &str, wrong: &mut Wrong) -> Option<Cidr> {
    let found = text.parse::<Cidr>().and_then(|cidr| {
        if cidr.address.is_ipv6() {
            return Err(format!("{cidr}: networks of IPv4 are translated only"));
        }
        if cidr.prefix == 0 {
            return Err(format!("{cidr}: a network of all addresses"));
        }
        cidr.check_network()?;
        check_host(cidr.address).map(|()| cidr)
    });
    found.map_err(|reason| wrong.add(key, reason)).ok()
}

/// IFNAMSIZ is 16 with the closing zero; see dev_valid_name in the kernel. A quote would end the name in the files that are
/// written.
fn is_interface_name(name: &str) -> bool {
    let is_good = |c: char| {
        c.is_ascii_graphic() && !matches!(c, '/' | ':' | '"' | '\'' | '\\' | '*' | '?' | '[' | ']' | '#' | ';' | '=')
    };
    !name.is_empty() && name.len() < 16 && name.chars().all(is_good) && !matches!(name, "." | "..")
}

/// What was found, a line each.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn add(&mut self, key: &str, reason: impl std::fmt::Display) {
        self.0.push(format!("{key}: {reason}"));
    }
}

/// Behind those of the checks, 46001 and 46002.
const PORT: u16 = 46003;
/// Finding out whether an address is free takes up to 7 s, RFC 5227.
const SHORTEST: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(3600);
const MOST_ADDRESSES: usize = 16;
/// MAXNS of resolv.conf(5).
const MOST_SERVERS: usize = 3;
const MOST_NETWORKS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Valid, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.valid().map_err(|error| error.to_string())
    }

    const FIXED: &str = "interface = \"eth0\"\ndhcp = false\naddresses = [\"192.168.1.2/24\", \"fd00::2/64\"]\n\
        gateway = \"192.168.1.1\"\ngateway_v6 = \"fe80::1\"\nname_servers = [\"192.168.1.1\"]\n";

    #[test]
    fn the_defaults_change_nothing() {
        let valid = Config::default().valid().expect("good");
        assert_eq!((valid.plan, valid.port, valid.trial.within), (None, 46003, Duration::from_secs(60)));
        let plan = parsed("interface = \"eth0\"").expect("good").plan.expect("a plan");
        assert!(plan.dhcp && plan.is_default_way && plan.addresses.is_empty() && plan.backend.is_none());
    }

    #[test]
    fn the_documented_configuration_is_that_of_the_defaults() {
        let text = include_str!("../../../docs/network.md");
        let begin = text.find("interface = \"\"            # empty: nothing").expect("the example");
        let example = &text[begin..begin + text[begin..].find("```").expect("its end")];
        let config: Config = toml::from_str(example).expect("good");
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn a_fixed_address_is_understood() {
        let plan = parsed(FIXED).expect("good").plan.expect("a plan");
        assert_eq!(
            plan.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["192.168.1.2/24", "fd00::2/64"]
        );
        assert_eq!(plan.routers().len(), 2);
        assert_eq!(parsed(&format!("{FIXED}confirm_within = \"0s\"")).expect("good").trial.within, Duration::ZERO);
        assert_eq!(
            plan.mark(),
            parsed(&format!("{FIXED}config_version = \"1.0.7\"")).expect("good").plan.expect("a plan").mark()
        );
    }

    /// (what stands there, what is said)
    const BAD: &[(&str, &[&str])] = &[
        ("interface = \"lo\"", &["interface: lo is of this machine only"]),
        ("interface = \"a name with blanks\"", &["interface: \"a name with blanks\" cannot be"]),
        ("interface = \"eth0\"\ndhcp = false", &["addresses: without DHCP"]),
        (
            "interface = \"eth0\"\naddresses = [\"192.168.1.2/24\"]",
            &["addresses[0]: 192.168.1.2/24: IPv4 comes by DHCP"],
        ),
        ("interface = \"eth0\"\ngateway = \"192.168.1.1\"", &["gateway: 192.168.1.1: DHCP tells the router"]),
        ("confirm_within = \"5s\"", &["confirm_within: 5s is out of range, expected 15s to 1h, or 0s"]),
        (
            "name_servers = [\"1.1.1.1\", \"1.1.1.1\", \"x\", \"224.0.0.1\"]",
            &[
                "name_servers[1]: 1.1.1.1 is there twice",
                "name_servers[2]: \"x\" is no IP address",
                "name_servers[3]: 224.0.0.1 means a group",
                "name_servers: found 4, expected at most 3",
            ],
        ),
        (
            "interface = \"eth0\"\ndhcp = false\naddresses = [\"192.168.1.2/24\"]",
            &["gateway: the profile \"wan-via-lan\" needs"],
        ),
        (
            "interface = \"eth0\"\ndhcp = false\naddresses = [\"192.168.1.2/24\"]\ngateway = \"192.168.2.1\"",
            &["gateway: 192.168.2.1 is outside of the networks of the device (192.168.1.0/24)"],
        ),
        (
            "interface = \"eth0\"\ndhcp = false\naddresses = [\"192.168.1.2/24\"]\ngateway = \"192.168.1.2\"",
            &["own address"],
        ),
        (
            "interface = \"eth0\"\ndhcp = false\naddresses = [\"192.168.1.2/24\"]\ngateway = \"192.168.1.255\"",
            &["last address"],
        ),
        (
            "interface = \"eth0\"\ndhcp = false\naddresses = [\"192.168.1.2/24\"]\ngateway = \"fd00::1\"",
            &["no IPv4 address"],
        ),
        (
            "interface = \"eth0\"\ngateway_v6 = \"fd00::1\"",
            &["gateway_v6: fd00::1 is outside of the networks of the device (there are none)"],
        ),
        ("interface = \"eth0\"\ngateway_v6 = \"fe80::1\"", &["gateway_v6: without an IPv6 address"]),
        (
            "interface = \"eth0\"\ndhcp = false\naddresses = [\"192.168.1.0/24\", \"10.0.0.1/40\", \"10.0.0.1/8\", \"10.0.0.1/24\"]\nprofile = \"none\"",
            &[
                "addresses[0]: 192.168.1.0/24 is the network itself",
                "addresses[1]: \"40\" is no length of a prefix",
                "addresses[3]: 10.0.0.1 is there twice",
            ],
        ),
        ("[nat]\nsource = true", &["nat: the LAN has no interface"]),
        ("interface = \"eth0\"\n[nat]\nsource = true\nfrom = \"eth0\"", &["nat.from: eth0 is the LAN itself"]),
        ("interface = \"eth0\"\n[nat]\nsource = true\nfrom = \"a\\\"b\"", &["nat.from: \"a\\\"b\" cannot be"]),
        (
            "interface = \"eth0\"\n[nat]\ndestination = [{ network = \"10.0.0.0/8\", to = \"172.16.0.0/12\" }, { network = \"10.1.0.0/16\" }, { network = \"fd00::/64\" }, { network = \"10.20.0.1/24\" }]",
            &[
                "nat.destination[0].to: 172.16.0.0/12 has another size than 10.0.0.0/8",
                "nat.destination[1].network: 10.1.0.0/16 overlaps 10.0.0.0/8",
                "nat.destination[2].network: fd00::/64: networks of IPv4",
                "nat.destination[3].network: 10.20.0.1/24 is an address; the network is 10.20.0.0/24",
            ],
        ),
    ];

    #[test]
    fn everything_that_is_wrong_is_told_with_its_key() {
        for (text, expected) in BAD {
            let error = parsed(text).expect_err(text);
            for expected in *expected {
                assert!(error.contains(expected), "{text}\n{expected} is missing in:\n{error}");
            }
            assert_eq!(error.lines().count(), expected.len(), "{text}\n{error}");
        }
    }

    #[test]
    fn the_lan_limits_what_may_stand_for_it() {
        let nat = |network: &str| format!("{FIXED}[nat]\ndestination = [{{ network = \"{network}\" }}]");
        assert!(parsed(&nat("10.20.0.0/24")).is_ok());
        assert!(parsed(&nat("10.20.0.0/16")).expect_err("size").contains("another size than the LAN, 192.168.1.2/24"));
        assert!(parsed(&nat("192.168.1.0/24")).expect_err("overlap").contains("overlaps the LAN"));
        assert!(
            parsed("interface = \"eth0\"\n[nat]\ndestination = [{ network = \"10.20.0.0/16\" }]").is_ok(),
            "DHCP tells it later"
        );
    }
}
