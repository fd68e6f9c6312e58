//! What `config/status-led.toml` may say.

use std::time::Duration;

use multus_child::{Error, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::show::{Condition, Pattern, Shows};

/// Lamps that show the state of the network.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the check of LAN and internet answers, address and port; empty: it is left out.
    pub lanwan_check: String,
    /// Where the check of the tunnel answers, address and port; empty: it is left out.
    pub openvpn_check: String,
    /// How the checks are asked.
    pub protocol: Protocol,
    /// How often, 1s to 1h. A check that does not answer is asked again each second.
    pub interval: Interval,
    /// How long an answer may take, 100ms to 1min.
    pub timeout: Interval,
    /// The lamps, 1 to 16.
    pub leds: Vec<Led>,
}

/// How the checks are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// As multus.v1.ChecksService.
    Multus,
    /// As the original multusd does.
    Original,
}

/// One lamp.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Led {
    /// Name of a digital output in hardware.toml whose owner this child is.
    pub output: String,
    /// What it shows.
    pub shows: Shows,
    /// Light when all is well.
    pub good: Pattern,
    /// Light when the internet is there, but not the tunnel.
    pub no_tunnel: Pattern,
    /// Light when it is not there; for the network as a whole: when the internet is not.
    pub down: Pattern,
    /// Light when a check does not answer.
    pub error: Pattern,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lanwan_check: "127.0.0.1:46001".into(),
            openvpn_check: "127.0.0.1:46002".into(),
            protocol: Protocol::Multus,
            interval: Interval::from_millis(20_000),
            timeout: Interval::from_millis(2000),
            leds: vec![Led::default()],
        }
    }
}

impl Default for Led {
    fn default() -> Self {
        Self {
            output: "DO8".into(),
            shows: Shows::Network,
            good: Pattern::On,
            no_tunnel: Pattern::Slow,
            down: Pattern::Fast,
            error: Pattern::Off,
        }
    }
}

impl Led {
    /// What it shows for a condition.
    pub(crate) fn pattern(&self, condition: Condition) -> Pattern {
        match condition {
            Condition::Good => self.good,
            Condition::NoTunnel => self.no_tunnel,
            Condition::Down => self.down,
            Condition::Error => self.error,
        }
    }
}

impl Config {
    /// What the types cannot express.
    ///
    /// # Errors
    /// Everything that is wrong, a line each.
    pub fn check(&self) -> Result<(), Error> {
        let mut wrong = Vec::new();
        for (key, address) in [("lanwan_check", &self.lanwan_check), ("openvpn_check", &self.openvpn_check)] {
            if !address.is_empty() && address.parse::<std::net::SocketAddr>().is_err() {
                wrong.push(format!("{key}: found {address:?}, expected an address and a port such as 127.0.0.1:46001"));
            }
        }
        for (key, value, least, most) in [
            ("interval", self.interval, Duration::from_secs(1), Duration::from_secs(3600)),
            ("timeout", self.timeout, Duration::from_millis(100), Duration::from_secs(60)),
        ] {
            if !(least..=most).contains(&value.duration()) {
                let (least, most) = (Interval::from(least), Interval::from(most));
                wrong.push(format!("{key}: {value} is out of range, expected {least} to {most}"));
            }
        }
        if !(1..=MOST_LEDS).contains(&self.leds.len()) {
            wrong.push(format!("leds: found {}, expected 1 to {MOST_LEDS}", self.leds.len()));
        }
        let (no_lanwan, no_tunnel) = (self.lanwan_check.is_empty(), self.openvpn_check.is_empty());
        for (index, led) in self.leds.iter().enumerate() {
            let missing = match led.shows {
                Shows::Network => (no_lanwan && no_tunnel).then_some("lanwan_check or openvpn_check"),
                Shows::Lan | Shows::Internet => no_lanwan.then_some("lanwan_check"),
                Shows::Tunnel => no_tunnel.then_some("openvpn_check"),
            };
            if let Some(missing) = missing {
                wrong.push(format!("leds[{index}].shows: nobody knows that; set {missing}"));
            }
            if led.output.is_empty() || self.leds[..index].iter().any(|other| other.output == led.output) {
                wrong.push(format!("leds[{index}].output: {:?}: each lamp needs an output of its own", led.output));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    }
}

const MOST_LEDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_together_is_told() {
        assert!(Config::default().check().is_ok());
        let tunnel = Led { shows: Shows::Tunnel, ..Led::default() };
        let config = Config {
            lanwan_check: "localhost".into(),
            openvpn_check: String::new(),
            interval: Interval::from_millis(10),
            leds: vec![Led::default(), tunnel],
            ..Config::default()
        };
        let error = config.check().expect_err("bad").to_string();
        for expected in [
            "lanwan_check: found \"localhost\"",
            "interval: 10ms is out of range",
            "leds[1].shows: nobody knows that; set openvpn_check",
            "leds[1].output: \"DO8\": each lamp needs",
        ] {
            assert!(error.contains(expected), "{expected} is missing in:\n{error}");
        }
        assert_eq!(error.lines().count(), 4, "{error}");
        let nobody = Config { lanwan_check: String::new(), openvpn_check: String::new(), ..Config::default() };
        assert!(nobody.check().is_err());
    }
}
