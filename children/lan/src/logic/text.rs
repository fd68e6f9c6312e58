//! The files that are written, as texts.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use super::cidr::Cidr;
use super::plan::Plan;

/// First line of every file that this program writes.
pub const NOTICE: &str = "# Written by multus-lan; changes are lost. To remove it: multus-lan --undo";
/// Between these lines everything is ours.
pub const BEGIN: &str = "# BEGIN multus-lan: changes up to END are lost";
/// In the place of [`BEGIN`] where the line before had no end until the block came.
const BEGIN_AFTER_OPEN: &str = "# BEGIN multus-lan: changes up to END are lost, and so is the end of the line before";
/// See [`BEGIN`].
pub const END: &str = "# END multus-lan";
/// Name of the connection profile.
pub const PROFILE: &str = "multus-lan";
/// Always the same, so that a profile written twice is the same one.
pub const PROFILE_UUID: &str = "6d756c74-7573-4c61-8e00-000000000001";

/// A connection profile of NetworkManager (its keyfile format, nm-settings-keyfile(5)).
pub fn network_manager(plan: &Plan) -> String {
    let mut text = format!(
        "{NOTICE}\n[connection]\nid={PROFILE}\nuuid={PROFILE_UUID}\ntype=ethernet\ninterface-name={}\nautoconnect=true\n\
         autoconnect-priority=100\n\n[ipv4]\n",
        plan.interface
    );
    let family = |text: &mut String, is_v4: bool, method: &str, gateway: Option<IpAddr>| {
        let _ = writeln!(text, "method={method}");
        for (number, cidr) in (1..).zip(plan.of_family(is_v4)) {
            let _ = writeln!(text, "address{number}={cidr}");
        }
        if let Some(gateway) = gateway.filter(|_| plan.is_default_way) {
            let _ = writeln!(text, "gateway={gateway}");
        }
        if !plan.is_default_way {
            text.push_str("never-default=true\n");
        }
        let servers: Vec<String> =
            plan.name_servers.iter().filter(|server| server.is_ipv4() == is_v4).map(ToString::to_string).collect();
        if !servers.is_empty() {
            let _ = writeln!(text, "dns={};", servers.join(";"));
        }
        if !plan.name_servers.is_empty() {
            text.push_str("ignore-auto-dns=true\n");
        }
    };
    let method = match (plan.dhcp, plan.of_family(true).next()) {
        (true, _) => "auto",
        (false, Some(_)) => "manual",
        (false, None) => "disabled",
    };
    if method == "disabled" {
        text.push_str("method=disabled\n");
    } else {
        family(&mut text, true, method, plan.gateway.map(IpAddr::V4));
        // How long it is found out whether somebody else has the address, milliseconds; RFC 5227 takes up to 7 s.
        text.push_str("dad-timeout=3000\n");
    }
    text.push_str("\n[ipv6]\n");
    // "manual" means without what routers advertise, which is the way where no router is named.
    let has_own = plan.of_family(false).next().is_some();
    let method = if has_own && (plan.gateway_v6.is_some() || !plan.is_default_way) { "manual" } else { "auto" };
    family(&mut text, false, method, plan.gateway_v6.map(IpAddr::V6));
    text
}

/// A `.network` file of systemd-networkd, systemd.network(5).
pub fn networkd(plan: &Plan) -> String {
    let mut text = format!("{NOTICE}\n[Match]\nName={}\n\n[Network]\n", plan.interface);
    let _ = writeln!(text, "DHCP={}", if plan.dhcp { "ipv4" } else { "no" });
    for gateway in plan.routers().iter().filter(|_| plan.is_default_way) {
        let _ = writeln!(text, "Gateway={gateway}");
    }
    for server in &plan.name_servers {
        let _ = writeln!(text, "DNS={server}");
    }
    for cidr in &plan.addresses {
        let family = if cidr.address.is_ipv4() { "ipv4" } else { "ipv6" };
        let _ = write!(text, "\n[Address]\nAddress={cidr}\nDuplicateAddressDetection={family}\n");
    }
    let own_servers = if plan.name_servers.is_empty() { "" } else { "UseDNS=no\n" };
    let own_way = if plan.is_default_way { "" } else { "UseGateway=no\n" };
    if plan.dhcp {
        // A device that answers to its address while it is restarted, and renews what it had.
        let _ = write!(text, "\n[DHCPv4]\nClientIdentifier=mac\n{own_servers}{own_way}");
    }
    if !own_servers.is_empty() || !own_way.is_empty() {
        let _ = write!(text, "\n[IPv6AcceptRA]\n{own_servers}{own_way}");
    }
    text
}

/// The block of dhcpcd.conf(5).
///
/// # Errors
/// dhcpcd sets one address of each family, and takes routers of IPv6 from advertisements only.
pub fn dhcpcd(plan: &Plan) -> Result<String, String> {
    if let Some(gateway) = plan.gateway_v6.filter(|_| plan.is_default_way) {
        return Err(format!(
            "gateway_v6 = {gateway}: dhcpcd knows routers of IPv6 by their advertisements only; leave it empty, or name \
             another backend"
        ));
    }
    for (is_v4, family) in [(true, "IPv4"), (false, "IPv6")] {
        if plan.of_family(is_v4).count() > 1 {
            return Err(format!("dhcpcd sets one {family} address; name one, or another backend"));
        }
    }
    let mut text = format!("interface {}\n", plan.interface);
    for cidr in &plan.addresses {
        let key = if cidr.address.is_ipv4() { "ip_address" } else { "ip6_address" };
        let _ = writeln!(text, "static {key}={cidr}");
    }
    if !plan.dhcp && plan.of_family(true).next().is_none() {
        text.push_str("noipv4\n");
    }
    if !plan.is_default_way {
        text.push_str("nogateway\n");
    } else if let Some(gateway) = plan.gateway {
        let _ = writeln!(text, "static routers={gateway}");
    }
    if !plan.name_servers.is_empty() {
        let servers: Vec<String> = plan.name_servers.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "static domain_name_servers={}", servers.join(" "));
    }
    Ok(text)
}

/// `text` with `block` between the markers, or without both. Everything outside of them stays as it is, byte for byte.
///
/// # Errors
/// The markers are damaged: somebody has removed one of them.
pub fn with_block(text: &str, block: Option<&str>) -> Result<String, String> {
    let (before, _, after) = around_block(text)?;
    let Some(block) = block else { return Ok(format!("{before}{after}")) };
    // Without an end of the last line the marker would become a part of it.
    let (gap, begin) = if before.is_empty() || before.ends_with('\n') { ("", BEGIN) } else { ("\n", BEGIN_AFTER_OPEN) };
    Ok(format!("{before}{gap}{begin}\n{block}{END}\n{after}"))
}

/// Lines outside of the markers, from 1, by which dhcpcd would set up the interface otherwise: it takes all blocks of an
/// interface together, see dhcpcd.conf(5).
///
/// # Errors
/// As [`with_block`].
pub fn foreign_lines(text: &str, interface: &str) -> Result<Vec<usize>, String> {
    around_block(text)?;
    let (mut found, mut is_own, mut is_here) = (Vec::new(), false, false);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        is_own = (is_own || line == BEGIN || line == BEGIN_AFTER_OPEN) && line != END;
        let mut words = line.split_whitespace();
        match words.next() {
            // What stands behind our block belongs to its interface as well.
            Some("interface") => is_here = words.next() == Some(interface),
            Some("profile") => is_here = false,
            Some(word) if is_here && !is_own && SETS.contains(&word) => found.push(number),
            _ => {}
        }
    }
    Ok(found)
}

/// What of dhcpcd.conf(5) decides which address an interface gets, and by which way.
const SETS: [&str; 7] = ["fallback", "inform", "ipv6only", "nodhcp", "nogateway", "noipv4", "static"];

/// The block between the markers, if there is one.
///
/// # Errors
/// As [`with_block`].
pub fn block_of(text: &str) -> Result<Option<String>, String> {
    Ok(around_block(text)?.1.map(str::to_owned))
}

fn around_block(text: &str) -> Result<(&str, Option<&str>, &str), String> {
    let line = |markers: &[&str]| {
        let mut at = 0;
        let mut found = Vec::new();
        for line in text.split_inclusive('\n') {
            if markers.contains(&line.trim_end()) {
                found.push((at, at + line.len()));
            }
            at += line.len();
        }
        found
    };
    match (&line(&[BEGIN, BEGIN_AFTER_OPEN])[..], &line(&[END])[..]) {
        ([], []) => Ok((text, None, "")),
        ([begin], [end]) if begin.1 <= end.0 => {
            let before = &text[..begin.0];
            let is_after_open = text[begin.0..begin.1].trim_end() == BEGIN_AFTER_OPEN;
            let before = if is_after_open { before.strip_suffix('\n').unwrap_or(before) } else { before };
            Ok((before, Some(&text[begin.1..end.0]), &text[end.1..]))
        }
        _ => Err(format!("the lines {BEGIN:?} and {END:?} must stand there once each, in this order, or not at all")),
    }
}

/// `/etc/resolv.conf`, resolv.conf(5).
pub fn resolv(servers: &[IpAddr]) -> String {
    let mut text = format!("{NOTICE}\n");
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

/// What a DHCP client was given.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lease {
    /// The address.
    pub cidr: Cidr,
    /// Routers, best first.
    pub routers: Vec<Ipv4Addr>,
    /// Name servers.
    pub name_servers: Vec<IpAddr>,
    /// Length of the lease, seconds; `None`: not told.
    pub lease_s: Option<u32>,
    /// The server; empty: not told.
    pub server: String,
}

/// What a DHCP client tells its script.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// A lease was given or renewed.
    Bound(Lease),
    /// There is none any more.
    Lost,
    /// Something in between.
    Other(String),
}

/// What udhcpc (`reason` is the argument of its script) or dhclient (a variable) tells by its variables.
pub fn lease_notice(argument: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Notice {
    let reason = argument.map(str::to_owned).or_else(|| variable("reason")).unwrap_or_default();
    match reason.as_str() {
        "deconfig" | "EXPIRE" | "FAIL" | "RELEASE" | "STOP" => return Notice::Lost,
        "bound" | "renew" | "BOUND" | "RENEW" | "REBIND" | "REBOOT" => {}
        _ => return Notice::Other(reason),
    }
    let first = |names: [&str; 2]| names.into_iter().find_map(&variable).filter(|value| !value.is_empty());
    let words = |names| first(names).unwrap_or_default();
    let list = |names| words(names).split([' ', ',']).filter_map(|word| word.parse().ok()).collect::<Vec<IpAddr>>();
    let mask = variable("mask").or_else(|| variable("new_subnet_mask")).or_else(|| variable("subnet"));
    let address = words(["ip", "new_ip_address"]);
    let Ok(cidr) = format!("{address}/{}", mask.as_deref().unwrap_or("32")).parse::<Cidr>() else {
        return Notice::Other(format!("{reason} with the address {address:?}"));
    };
    let routers = list(["router", "new_routers"]).into_iter().filter_map(|router| match router {
        IpAddr::V4(router) => Some(router),
        IpAddr::V6(_) => None,
    });
    Notice::Bound(Lease {
        cidr,
        routers: routers.collect(),
        name_servers: list(["dns", "new_domain_name_servers"]),
        lease_s: words(["lease", "new_dhcp_lease_time"]).parse().ok(),
        server: words(["serverid", "new_dhcp_server_identifier"]),
    })
}

#[cfg(test)]
mod tests;
