//! Translation of addresses for what comes in by a tunnel, as a table of nftables that nobody else writes.
//!
//! Needs Linux 5.8 (translation from network to network; matching the way in behind the routing since 5.7).

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::cidr::Cidr;

/// The table, of the family `ip`.
pub const TABLE: &str = "multus_lan";

/// What is translated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    /// Whether hosts of the LAN see this device where somebody behind the tunnel asks (masquerading).
    pub source: bool,
    /// The interface by which it comes in.
    pub from: String,
    /// Networks that are mapped, host part preserved.
    pub destination: Vec<Mapping>,
}

/// A network that stands for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// What is asked for.
    pub network: Cidr,
    /// Where it goes; `None`: the network of the LAN address with the same length of the prefix.
    pub to: Option<Cidr>,
}

impl Nat {
    /// Whether there is anything to do.
    pub fn is_on(&self) -> bool {
        self.source || !self.destination.is_empty()
    }

    /// The table as `nft -f` reads it, in one transaction: the former one is replaced. `lan` are the addresses of the
    /// interface.
    ///
    /// # Errors
    /// A mapping onto the network of the LAN, whose address is not known yet or of another length.
    pub fn ruleset(&self, interface: &str, lan: &[Cidr]) -> Result<String, String> {
        let mut text = removal();
        if !self.is_on() {
            return Ok(text);
        }
        let from = &self.from;
        let _ = writeln!(text, "table ip {TABLE} {{");
        if !self.destination.is_empty() {
            let mut pairs = Vec::new();
            for mapping in &self.destination {
                let to = mapping.to.map_or_else(|| lan_network(mapping.network.prefix, lan), Ok)?;
                pairs.push(format!("{} : {to}", mapping.network));
            }
            let _ =
                writeln!(text, "\tchain prerouting {{\n\t\ttype nat hook prerouting priority dstnat; policy accept;");
            let _ = writeln!(
                text,
                "\t\tiifname \"{from}\" dnat ip prefix to ip daddr map {{ {} }}\n\t}}",
                pairs.join(", ")
            );
        }
        if self.source {
            let _ =
                writeln!(text, "\tchain postrouting {{\n\t\ttype nat hook postrouting priority srcnat; policy accept;");
            let _ = writeln!(text, "\t\tiifname \"{from}\" oifname \"{interface}\" masquerade\n\t}}");
        }
        text.push_str("}\n");
        Ok(text)
    }
}

/// Takes the table away, whether it is there or not.
pub fn removal() -> String {
    format!("table ip {TABLE}\ndelete table ip {TABLE}\n")
}

fn lan_network(prefix: u8, lan: &[Cidr]) -> Result<Cidr, String> {
    let own = lan.iter().find(|cidr| cidr.address.is_ipv4()).ok_or("the interface has no IPv4 address yet")?;
    if own.prefix == prefix {
        return Ok(Cidr { address: own.network(), prefix });
    }
    Err(format!("the network of the LAN is {}/{}, expected a prefix of {prefix}", own.network(), own.prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_the_plan_says() {
        let cidr = |text: &str| text.parse::<Cidr>().expect("good");
        let mut nat = Nat { source: true, from: "tun0".into(), destination: Vec::new() };
        nat.destination.push(Mapping { network: cidr("10.20.0.0/24"), to: None });
        nat.destination.push(Mapping { network: cidr("10.21.0.0/16"), to: Some(cidr("172.16.0.0/16")) });
        let expected = "table ip multus_lan\n\
            delete table ip multus_lan\n\
            table ip multus_lan {\n\
            \tchain prerouting {\n\
            \t\ttype nat hook prerouting priority dstnat; policy accept;\n\
            \t\tiifname \"tun0\" dnat ip prefix to ip daddr map { 10.20.0.0/24 : 192.168.77.0/24, 10.21.0.0/16 : 172.16.0.0/16 }\n\
            \t}\n\
            \tchain postrouting {\n\
            \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
            \t\tiifname \"tun0\" oifname \"eth0\" masquerade\n\
            \t}\n\
            }\n";
        let lan = [cidr("fd00::2/64"), cidr("192.168.77.2/24")];
        assert_eq!(nat.ruleset("eth0", &lan).expect("good"), expected);
        assert!(nat.ruleset("eth0", &[]).expect_err("no address").contains("no IPv4 address yet"));
        assert!(
            nat.ruleset("eth0", &[cidr("10.0.0.1/8")]).expect_err("other length").contains("expected a prefix of 24")
        );
        assert_eq!(Nat::default().ruleset("eth0", &[]).expect("off"), removal());
    }
}
