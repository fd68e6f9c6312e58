//! Under which names this machine may be asked. A page of a foreign name that was made to point here (DNS rebinding) is a
//! foreign page: what the browser then sends as `Host` is not ours.

use std::net::{IpAddr, Ipv6Addr};

/// The names that are ours, in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    /// Those of the configuration, `localhost`, and the name of the machine, alone and as `name.local`.
    pub(crate) fn new(configured: &[String], machine: &str) -> Self {
        let machine = machine.to_ascii_lowercase();
        let own = ["localhost".to_owned(), format!("{machine}.local"), machine];
        let own = own.into_iter().filter(|name| !name.is_empty() && name != ".local");
        Self(configured.iter().map(|name| plain(name)).chain(own).collect())
    }

    /// Whether `authority` (a `Host` header: name or address, perhaps with a port) means this machine. `local` is the
    /// address on which the connection came in.
    pub(crate) fn is_ours(&self, authority: &str, local: IpAddr) -> bool {
        let Some(name) = host_of(authority) else { return false };
        let name = plain(name);
        let address = name.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        address.is_some_and(|address| address == local.to_canonical() || address.is_loopback() && local.is_loopback())
            || self.0.contains(&name)
    }
}

/// Whether a configured entry can be a host.
pub(crate) fn is_host(text: &str) -> bool {
    host_of(text) == Some(text) || text.parse::<Ipv6Addr>().is_ok()
}

/// Without the port and the brackets of IPv6; `None` for what is no authority.
fn host_of(authority: &str) -> Option<&str> {
    let is_port = |text: &str| text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let good = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return (good && address.parse::<Ipv6Addr>().is_ok()).then_some(address);
    }
    let name = match authority.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return None,
        None => authority,
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (!name.is_empty() && name.len() <= 253 && name.bytes().all(fits)).then_some(name)
}

/// A name without the dot of the root, in lower case.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_and_addresses_are_ours() {
        let hosts = Hosts::new(&["Pump.Example".to_owned(), "10.9.9.9".to_owned()], "Box3");
        let loopback: IpAddr = "127.0.0.1".parse().expect("an address");
        let lan: IpAddr = "192.168.0.66".parse().expect("an address");
        for good in
            ["localhost", "localhost:8080", "LOCALHOST.", "box3", "box3.local:80", "pump.example:443", "10.9.9.9"]
        {
            assert!(hosts.is_ours(good, loopback) && hosts.is_ours(good, lan), "{good}");
        }
        assert!(hosts.is_ours("127.0.0.1:8080", loopback) && hosts.is_ours("[::1]:8080", loopback));
        assert!(
            hosts.is_ours("192.168.0.66", lan)
                && hosts.is_ours("192.168.0.66:80", "::ffff:192.168.0.66".parse().expect("an address"))
        );
        for bad in [
            "",
            ":80",
            "evil.example",
            "127.0.0.1",
            "192.168.0.67",
            "[::1]",
            "box3@evil",
            "box3:80:80",
            "box3:x",
            "[::1",
            "[box3]",
            "a b",
            "box3/",
            "é",
            "localhost,box3",
        ] {
            assert!(!hosts.is_ours(bad, lan), "{bad}");
        }
        assert!(!hosts.is_ours("box3.evil.example", loopback));
        assert!(!Hosts::new(&[], "").is_ours(".local", loopback));
    }
}
