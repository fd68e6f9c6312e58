//! An address with the length of its prefix, and what follows from it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An address in its network, such as `192.168.1.2/24` or `fd00::2/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    /// The address, with its host part.
    pub address: IpAddr,
    /// Bits of the network part: 0 to 32, or to 128 for IPv6.
    pub prefix: u8,
}

impl Cidr {
    /// The first address of the network.
    pub fn network(self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & mask_v4(self.prefix)).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & mask_v6(self.prefix)).into(),
        }
    }

    /// The last address of the network; for IPv4 that of broadcasts.
    pub fn last(self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() | !mask_v4(self.prefix)).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() | !mask_v6(self.prefix)).into(),
        }
    }

    /// Whether an address is of the same network.
    pub fn contains(self, other: IpAddr) -> bool {
        self.address.is_ipv4() == other.is_ipv4() && Self { address: other, ..self }.network() == self.network()
    }

    /// Whether two networks have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    /// Why a device cannot have this address as its own, if it cannot.
    ///
    /// # Errors
    /// The reason.
    pub fn check_own(self) -> Result<(), String> {
        check_host(self.address)?;
        if self.prefix == 0 {
            return Err(format!("{self}: a network of all addresses"));
        }
        match self.address {
            IpAddr::V4(address) => {
                // Lines with two ends have neither, RFC 3021.
                if self.prefix <= 30 && IpAddr::V4(address) == self.network() {
                    return Err(format!("{self} is the network itself, not an address in it"));
                }
                if self.prefix <= 30 && IpAddr::V4(address) == self.last() {
                    return Err(format!("{self} is the address of broadcasts in its network"));
                }
            }
            IpAddr::V6(address) => {
                if address.is_unicast_link_local() {
                    return Err(format!("{self}: the kernel gives itself an address of the link (fe80::...)"));
                }
                if self.prefix <= 126 && IpAddr::V6(address) == self.network() {
                    return Err(format!("{self} means all routers of the network (RFC 4291)"));
                }
            }
        }
        Ok(())
    }

    /// As a network, which has no host part.
    ///
    /// # Errors
    /// It has one.
    pub fn check_network(self) -> Result<(), String> {
        if self.address == self.network() {
            return Ok(());
        }
        Err(format!("{self} is an address; the network is {}/{}", self.network(), self.prefix))
    }
}

/// Why no single host can have this address, if none can.
///
/// # Errors
/// The reason.
pub fn check_host(address: IpAddr) -> Result<(), String> {
    let reason = match address {
        IpAddr::V4(v4) if v4.octets()[0] == 0 => "means no host",
        IpAddr::V4(v4) if v4.octets()[0] >= 240 => "is reserved",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "is an IPv4 address in the form of IPv6",
        address if address.is_unspecified() => "means no host",
        address if address.is_loopback() => "is of this machine only",
        address if address.is_multicast() => "means a group of hosts",
        _ => return Ok(()),
    };
    Err(format!("{address} {reason}"))
}

/// Whether DHCP may have given this address, valid for so many seconds: one for ever was set by somebody, and one of the link
/// (RFC 3927) is what a device takes when no server answers.
pub fn can_be_leased(address: IpAddr, valid_s: Option<u32>) -> bool {
    matches!(address, IpAddr::V4(address) if !address.is_link_local()) && valid_s.is_some()
}

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0)
}

/// `/24`, or a mask such as `/255.255.255.0`.
impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = text.trim().split_once('/').ok_or_else(|| {
            format!("{text:?} has no length of the prefix; write it behind the address, such as \"192.168.1.2/24\"")
        })?;
        let address: IpAddr = address.parse().map_err(|_| format!("{address:?} is no IP address"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let refused = || format!("{prefix:?} is no length of a prefix, expected 1 to {most}");
        let prefix = match prefix.parse::<Ipv4Addr>() {
            Ok(mask) if address.is_ipv4() => {
                let mask = mask.to_bits();
                if mask.leading_ones() + mask.trailing_zeros() < 32 {
                    return Err(format!("{prefix:?} is no mask: its ones are not all at the beginning"));
                }
                u8::try_from(mask.leading_ones()).unwrap_or(32)
            }
            _ => prefix.parse().ok().filter(|prefix| *prefix <= most).ok_or_else(refused)?,
        };
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("good")
    }

    #[test]
    fn a_network_has_a_first_and_a_last_address() {
        for (text, first, last) in [
            ("192.168.77.2/24", "192.168.77.0", "192.168.77.255"),
            ("10.1.2.3/8", "10.0.0.0", "10.255.255.255"),
            ("10.1.2.3/32", "10.1.2.3", "10.1.2.3"),
            ("10.1.2.3/0", "0.0.0.0", "255.255.255.255"),
            ("10.1.2.3/255.255.254.0", "10.1.2.0", "10.1.3.255"),
            ("fd00::2/64", "fd00::", "fd00::ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!((cidr(text).network().to_string(), cidr(text).last().to_string()), (first.into(), last.into()));
        }
        assert!(cidr("10.1.0.0/16").overlaps(cidr("10.1.2.0/24")) && cidr("10.1.2.0/24").overlaps(cidr("10.1.0.0/16")));
        assert!(!cidr("10.1.0.0/16").overlaps(cidr("10.2.0.0/16")) && !cidr("10.1.0.0/16").overlaps(cidr("fd00::/8")));
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, reason) in [
            ("192.168.1.2", "no length of the prefix"),
            ("192.168.1/24", "is no IP address"),
            ("192.168.1.256/24", "is no IP address"),
            ("192.168.1.2/33", "expected 1 to 32"),
            ("192.168.1.2/-1", "expected 1 to 32"),
            ("192.168.1.2/255.0.255.0", "is no mask"),
            ("fd00::1/129", "expected 1 to 128"),
            ("fd00::1/255.255.0.0", "expected 1 to 128"),
            ("", "no length"),
            ("/", "is no IP address"),
        ] {
            let error = text.parse::<Cidr>().expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn only_an_address_that_ends_and_reaches_further_than_the_link_is_of_dhcp() {
        for (text, valid_s, is_leased) in [
            ("192.168.1.2", Some(3600), true),
            ("192.168.1.2", None, false),
            ("169.254.73.25", None, false),
            ("169.254.73.25", Some(3600), false),
            ("fd00::2", Some(3600), false),
        ] {
            assert_eq!(can_be_leased(text.parse().expect("good"), valid_s), is_leased, "{text} {valid_s:?}");
        }
    }

    #[test]
    fn what_no_device_can_have_is_refused() {
        for good in
            ["192.168.1.2/24", "192.168.1.0/31", "192.168.1.255/32", "172.16.0.1/12", "fd00::1/64", "2001:db8::2/127"]
        {
            assert_eq!(cidr(good).check_own(), Ok(()), "{good}");
        }
        for (bad, reason) in [
            ("192.168.1.0/24", "network itself"),
            ("192.168.1.255/24", "broadcasts"),
            ("0.1.2.3/8", "no host"),
            ("127.0.0.1/8", "this machine only"),
            ("224.0.0.5/24", "group"),
            ("255.255.255.255/24", "reserved"),
            ("192.168.1.2/0", "all addresses"),
            ("fd00::/64", "all routers"),
            ("::1/128", "this machine only"),
            ("ff02::1/64", "group"),
            ("fe80::1/64", "of the link"),
            ("::ffff:1.2.3.4/96", "in the form of IPv6"),
        ] {
            let error = cidr(bad).check_own().expect_err(bad);
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }
}
