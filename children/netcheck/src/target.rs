//! What is asked: one text of a configuration, parsed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Something that answers when the network is there.
///
/// `1.1.1.1`, `host` or `icmp://host`: a ping. `tcp://host:port`: a connection. `dns://server/name`: a name server that knows
/// the name. `http://host[:port][/path]`: a page, without TLS. IPv6 addresses stand in brackets where a port may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    text: String,
    pub(crate) host: Host,
    pub(crate) question: Question,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Address(IpAddr),
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Ping,
    Connect { port: u16 },
    Lookup { name: String },
    Page { port: u16, path: String },
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("icmp", text));
        let (host, question) = match scheme {
            "icmp" => (host(rest.trim_matches(['[', ']']))?, Question::Ping),
            "tcp" => {
                let (host, port) = host_and_port(rest, None)?;
                (host, Question::Connect { port })
            }
            "dns" => {
                let (server, name) = rest.split_once('/').ok_or("a name to look up is missing: dns://server/name")?;
                host_name(name)?;
                (host(server.trim_matches(['[', ']']))?, Question::Lookup { name: name.to_owned() })
            }
            "http" => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                if path.chars().any(|c| !c.is_ascii_graphic()) {
                    return Err(format!("the path of a page has no blanks, and only ASCII: {path:?}"));
                }
                let (host, port) = host_and_port(authority, Some(80))?;
                (host, Question::Page { port, path: format!("/{path}") })
            }
            "https" => return Err("TLS is not spoken; check the port instead: tcp://host:443".into()),
            other => return Err(format!("{other:?} is not one of icmp, tcp, dns, http")),
        };
        Ok(Self { text: text.to_owned(), host, question })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.pad(name),
        }
    }
}

fn host_and_port(text: &str, default: Option<u16>) -> Result<(Host, u16), String> {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (address, rest.strip_prefix(':')),
        None => text.rsplit_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    let port = match port {
        None => default.ok_or("a port is missing: tcp://host:port")?,
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => return Err(format!("{port:?} is no port, 1 to 65535")),
            Ok(port) => port,
        },
    };
    Ok((host(name)?, port))
}

fn host(text: &str) -> Result<Host, String> {
    match text.parse() {
        Ok(address) => one_host(address).map(Host::Address),
        Err(_) => host_name(text).map(|()| Host::Name(text.to_owned())),
    }
}

/// An address that one host can have.
pub(crate) fn one_host(address: IpAddr) -> Result<IpAddr, String> {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || is_broadcast {
        return Err(format!("{address} is not the address of a host"));
    }
    Ok(address)
}

/// RFC 1123: labels of letters, digits and '-', up to 63 each and 253 in all. One of digits only at the end is an address
/// that cannot be.
fn host_name(text: &str) -> Result<(), String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    if name.len() > 253 || last_is_number || !name.split('.').all(is_label) {
        return Err(format!("{text:?} is neither an address nor the name of a host"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_are_understood() {
        let address = |text: &str| Host::Address(text.parse().expect("an address"));
        let name = |text: &str| Host::Name(text.into());
        for (text, host, question) in [
            ("192.0.2.1", address("192.0.2.1"), Question::Ping),
            ("2001:db8::1", address("2001:db8::1"), Question::Ping),
            ("icmp://[2001:db8::1]", address("2001:db8::1"), Question::Ping),
            ("icmp://box.example.org", name("box.example.org"), Question::Ping),
            ("tcp://192.0.2.1:443", address("192.0.2.1"), Question::Connect { port: 443 }),
            ("tcp://[2001:db8::1]:22", address("2001:db8::1"), Question::Connect { port: 22 }),
            ("dns://192.0.2.1/example.org", address("192.0.2.1"), Question::Lookup { name: "example.org".into() }),
            ("http://example.org", name("example.org"), Question::Page { port: 80, path: "/".into() }),
            (
                "http://192.0.2.1:8080/a/b?c=1",
                address("192.0.2.1"),
                Question::Page { port: 8080, path: "/a/b?c=1".into() },
            ),
        ] {
            let target: Target = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((&target.host, &target.question, target.to_string().as_str()), (&host, &question, text));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_reason() {
        let long = "a".repeat(64);
        for (text, reason) in [
            ("", "neither an address nor the name"),
            ("256.1.1.1", "neither an address"),
            ("1.2.3", "neither an address"),
            ("12345", "neither an address"),
            ("1.1.1.1.", "neither an address"),
            ("::g", "neither an address"),
            ("a b", "neither an address"),
            ("-a.org", "neither an address"),
            (&long, "neither an address"),
            ("0.0.0.0", "not the address of a host"),
            ("255.255.255.255", "not the address of a host"),
            ("224.0.0.1", "not the address of a host"),
            ("::", "not the address of a host"),
            ("ff02::1", "not the address of a host"),
            ("tcp://192.0.2.1", "a port is missing"),
            ("tcp://192.0.2.1:0", "no port"),
            ("tcp://192.0.2.1:65536", "no port"),
            ("tcp://:80", "neither an address"),
            ("dns://192.0.2.1", "a name to look up is missing"),
            ("dns://192.0.2.1/", "neither an address"),
            ("https://example.org", "tcp://host:443"),
            ("ftp://example.org", "not one of icmp"),
            ("http://example.org/a b", "no blanks"),
            ("http://example.org/\u{e4}\r\n", "no blanks"),
        ] {
            let error = text.parse::<Target>().expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
