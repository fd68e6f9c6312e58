//! What `config/modbus.toml` may say.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use multus_child::{Error, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identity::{Identity, LONGEST_TEXT};
use crate::map::Map;
use crate::value::{Format, WordOrder};
use multus_child::network::Network;

/// A Modbus server. As long as nothing else is said it has the registers of the original multusd.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Own unit id.
    #[schemars(range(min = 1, max = 247))]
    pub unit: u8,
    /// Whether all writing is refused (exception 01).
    pub read_only: bool,
    /// Whether outputs that hardware.toml calls retained begin with the value that was asked for last. Otherwise all outputs of
    /// the map begin with their safe values.
    pub restore: bool,
    /// Modbus TCP.
    pub tcp: Tcp,
    /// Modbus RTU over a serial line; needs a program that was built with the feature rtu.
    pub rtu: Rtu,
    /// What stands at which address, up to 256 blocks.
    #[schemars(extend("x-section" = "Registers"))]
    pub map: Vec<Block>,
    /// A register that a master must write again and again.
    pub watchdog: WatchdogRegister,
    /// Registers that tell how the device is.
    pub diagnostics: Diagnostics,
    /// What function 43/14 tells.
    pub identification: Identification,
}

/// Modbus TCP.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tcp {
    /// Whether it is served.
    pub enabled: bool,
    /// Address on which masters are awaited: 127.0.0.1 for this machine only, 0.0.0.0 or :: for all networks. The protocol knows
    /// neither passwords nor encryption: who can connect can write.
    #[schemars(extend("x-edit-level" = 10))]
    pub bind: String,
    /// Port; instance n uses port + n. The usual one, 502, needs the right to bind it.
    #[schemars(range(min = 1), extend("x-edit-level" = 10))]
    pub port: u16,
    /// Networks from which masters may come, such as "192.168.1.0/24"; empty: from all that reach the address.
    #[schemars(length(max = 64), extend("x-edit-level" = 10))]
    pub allow: Vec<String>,
    /// Connections at the same time; further ones are closed at once.
    #[schemars(range(min = 1, max = 900))]
    pub max_connections: u16,
    /// Connections from one address at the same time; 0: half of them, so that nobody takes all, and for programs of this machine
    /// all. Several masters behind one address, such as that of a router, may need more.
    #[schemars(range(max = 900))]
    pub max_per_address: u16,
    /// A connection without a request for so long is closed, 1s to 1d.
    pub idle_timeout: Interval,
    /// A master that does not take its answers for so long loses its connection, 100ms to 1min.
    pub write_timeout: Interval,
    /// What requests to other units get. Own are `unit`, 0 and 255.
    pub foreign_units: ForeignUnits,
}

/// See [`Tcp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForeignUnits {
    /// Exception 0B, as from a gateway whose device does not answer.
    Exception,
    /// No answer.
    Silence,
}

/// Modbus RTU.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rtu {
    /// Whether it is served.
    pub enabled: bool,
    /// The serial line.
    #[schemars(extend("x-edit-level" = 10))]
    pub device: String,
    /// Bits a second.
    #[schemars(range(min = 300, max = 4_000_000))]
    pub baud: u32,
    /// Parity; with "none" there should be two stop bits.
    pub parity: Parity,
    /// Stop bits.
    #[schemars(range(min = 1, max = 2))]
    pub stop_bits: u8,
    /// Silence that ends a frame, up to 1s; 0s: that of the specification, 3.5 characters (1.75 ms above 19200 bit/s). Converters
    /// for USB hand on what they get in pieces and need more, such as 20ms.
    pub gap: Interval,
    /// Whether the converter hands back what it sends, as some for RS-485 with two wires do: that is left out then.
    pub echo: bool,
}

/// See [`Rtu`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Parity {
    Even,
    Odd,
    None,
}

/// Lines that stand one after the other.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Block {
    /// Where they stand.
    #[schemars(length(min = 1, max = 4))]
    pub tables: Vec<Table>,
    /// Address of the first one, as it goes over the wire: from 0.
    pub address: u16,
    /// Names of lines in hardware.toml.
    #[schemars(length(min = 1, max = 256))]
    pub lines: Vec<String>,
    /// Whether a master may write: the lines are outputs whose owner this child is. Without it coils can be written, holding
    /// registers cannot.
    pub writable: Option<bool>,
    /// Digital lines: whether 1 stands for off and 0 for on.
    pub inverted: bool,
    /// What of the line is told.
    pub shows: Shows,
    /// Registers: how a number is written. Digital lines are 0 or 1.
    pub format: Format,
    /// Registers: which of two comes first.
    pub word_order: WordOrder,
    /// Registers of analogue lines: register = value * scale + offset, so 10 for tenths.
    pub scale: f64,
    /// See scale.
    pub offset: f64,
}

/// Where something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// Bits, functions 1, 5 and 15.
    Coils,
    /// Bits, function 2.
    DiscreteInputs,
    /// Words, functions 3, 6, 16, 22 and 23.
    HoldingRegisters,
    /// Words, function 4.
    InputRegisters,
}

/// What of a line is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shows {
    /// Its value.
    Value,
    /// How often a digital line changed, since multusd started; counters begin anew at their end.
    Edges,
    /// How often it changed from 0 to 1, as it is shown: with `inverted`, from on to off. Of an output, whoever changed it.
    RisingEdges,
}

/// The watchdog register.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WatchdogRegister {
    /// Whether there is one.
    pub enabled: bool,
    /// Its address among the holding registers.
    pub address: u16,
    /// After so long without a write the outputs are set to their safe values and cannot be written until the register is
    /// written again, 100ms to 1h. The time begins when this child starts.
    pub timeout: Interval,
    /// The outputs that are meant; empty: all that can be written.
    #[schemars(length(max = 256))]
    pub outputs: Vec<String>,
}

/// Registers about the device.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Diagnostics {
    /// Whether there are some, among the input and the holding registers.
    pub enabled: bool,
    /// Address of the first one.
    pub address: u16,
    /// Child instances whose state is told, in this order.
    #[schemars(length(max = 64))]
    pub children: Vec<String>,
}

/// Texts of function 43/14.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Identification {
    /// Vendor name.
    pub vendor: String,
    /// Product code.
    pub product_code: String,
    /// Revision; empty: the version of this program.
    pub revision: String,
    /// Address of the vendor in the web.
    pub url: String,
    /// Product name.
    pub product_name: String,
    /// Model name.
    pub model: String,
    /// What it is used for.
    pub application: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            unit: 1,
            read_only: false,
            restore: true,
            tcp: Tcp::default(),
            rtu: Rtu::default(),
            map: original(),
            watchdog: WatchdogRegister::default(),
            diagnostics: Diagnostics::default(),
            identification: Identification::default(),
        }
    }
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            enabled: true,
            bind: Ipv4Addr::LOCALHOST.to_string(),
            port: 5020,
            allow: Vec::new(),
            max_connections: 32,
            max_per_address: 0,
            idle_timeout: Interval::from_millis(60_000),
            write_timeout: Interval::from_millis(5000),
            foreign_units: ForeignUnits::Exception,
        }
    }
}

impl Default for Rtu {
    fn default() -> Self {
        // 19200 bit/s and even parity are the defaults of "MODBUS over Serial Line V1.02", sections 2.5.1 and 3.2.
        Self {
            enabled: false,
            device: "/dev/ttyUSB0".into(),
            baud: 19_200,
            parity: Parity::Even,
            stop_bits: 1,
            gap: Interval::from_millis(0),
            echo: false,
        }
    }
}

impl Default for Block {
    fn default() -> Self {
        Self {
            tables: Vec::new(),
            address: 0,
            lines: Vec::new(),
            writable: None,
            inverted: false,
            shows: Shows::Value,
            format: Format::U16,
            word_order: WordOrder::HighFirst,
            scale: 1.0,
            offset: 0.0,
        }
    }
}

impl Default for WatchdogRegister {
    fn default() -> Self {
        Self { enabled: false, address: 900, timeout: Interval::from_millis(5000), outputs: Vec::new() }
    }
}

impl Default for Diagnostics {
    fn default() -> Self {
        Self { enabled: false, address: 1000, children: Vec::new() }
    }
}

impl Default for Identification {
    fn default() -> Self {
        Self {
            vendor: "multusd".into(),
            product_code: "multus-modbus".into(),
            revision: String::new(),
            url: String::new(),
            product_name: String::new(),
            model: String::new(),
            application: String::new(),
        }
    }
}

/// Inputs at register 0 (1: pulled low), outputs at coil 0 and read back at register 10 (1: the level is high), for lines as
/// `docs/example-hardware.toml` has them. Discrete inputs and reading of coils are new.
fn original() -> Vec<Block> {
    use Table::{Coils, DiscreteInputs, HoldingRegisters, InputRegisters};
    let lines = |letters: &str| (1..=8).map(|n| format!("{letters}{n}")).collect();
    vec![
        Block {
            tables: vec![InputRegisters, HoldingRegisters, DiscreteInputs],
            lines: lines("DI"),
            ..Block::default()
        },
        Block { tables: vec![Coils], lines: lines("DO"), inverted: true, ..Block::default() },
        Block {
            tables: vec![InputRegisters, HoldingRegisters],
            address: 10,
            lines: lines("DO"),
            inverted: true,
            ..Block::default()
        },
    ]
}

/// A configuration that holds together.
#[derive(Debug)]
pub(crate) struct Valid {
    pub(crate) map: Map,
    /// The map is that of the original: lines that a box does not have are left out.
    pub(crate) is_original: bool,
    pub(crate) bind: IpAddr,
    pub(crate) allow: Vec<Network>,
    pub(crate) identity: Identity,
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
        let mut wrong = Vec::new();
        let bind = self.tcp.bind.parse().unwrap_or_else(|_| {
            wrong.push(format!("tcp.bind: found {:?}, expected an IP address such as 127.0.0.1", self.tcp.bind));
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        });
        let mut allow = Vec::new();
        for (index, network) in self.tcp.allow.iter().enumerate() {
            match network.parse() {
                Ok(network) => allow.push(network),
                Err(reason) => wrong.push(format!("tcp.allow[{index}]: {reason}")),
            }
        }
        for (key, value, least, most) in [
            ("tcp.idle_timeout", self.tcp.idle_timeout, Duration::from_secs(1), Duration::from_secs(86_400)),
            ("tcp.write_timeout", self.tcp.write_timeout, Duration::from_millis(100), Duration::from_secs(60)),
            ("rtu.gap", self.rtu.gap, Duration::ZERO, Duration::from_secs(1)),
            ("watchdog.timeout", self.watchdog.timeout, Duration::from_millis(100), Duration::from_secs(3600)),
        ] {
            if !(least..=most).contains(&value.duration()) {
                let (least, most) = (Interval::from(least), Interval::from(most));
                wrong.push(format!("{key}: {value} is out of range, expected {least} to {most}"));
            }
        }
        if !self.tcp.enabled && !self.rtu.enabled {
            wrong.push("tcp.enabled: nothing is served; switch tcp or rtu on".into());
        }
        if self.rtu.enabled && cfg!(not(feature = "rtu")) {
            wrong.push("rtu.enabled: this program was built without the feature rtu".into());
        }
        if self.watchdog.enabled && self.read_only {
            wrong.push("watchdog.enabled: with read_only nobody can write the register".into());
        }
        let identity = self.identification.valid(&mut wrong);
        let map = Map::new(self, &mut wrong);
        if !wrong.is_empty() {
            return Err(wrong.join("\n").into());
        }
        Ok(Valid { map, is_original: self.map == original(), bind, allow, identity })
    }
}

impl Identification {
    fn valid(&self, wrong: &mut Vec<String>) -> Identity {
        let Self { vendor, product_code, revision, url, product_name, model, application } = self;
        let revision = if revision.is_empty() { env!("CARGO_PKG_VERSION") } else { revision };
        for (key, text) in [
            ("vendor", vendor.as_str()),
            ("product_code", product_code),
            ("revision", revision),
            ("url", url),
            ("product_name", product_name),
            ("model", model),
            ("application", application),
        ] {
            if !text.is_ascii() || text.len() > LONGEST_TEXT {
                wrong.push(format!("identification.{key}: expected at most {LONGEST_TEXT} letters of ASCII"));
            }
        }
        let texts = [vendor, product_code, &revision.to_owned(), url, product_name, model, application];
        Identity(texts.map(Clone::clone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_good_and_are_those_of_the_original() {
        let config = Config::default();
        let valid = config.valid().expect("good");
        assert!(valid.is_original && valid.bind.is_loopback());
        assert_eq!((config.tcp.port, config.unit, config.tcp.allow.len()), (5020, 1, 0));
    }

    #[test]
    fn the_examples_for_users_are_good_and_the_defaults_are_those_that_are_told() {
        let text = include_str!("../../../docs/modbus.md");
        let examples: Vec<Config> = text
            .split("```toml\n# config/modbus.toml\n")
            .skip(1)
            .map(|rest| toml::from_str(rest.split("```").next().unwrap_or_default()).expect("TOML that fits"))
            .collect();
        assert_eq!(format!("{:?}", examples[0]), format!("{:?}", Config::default()));
        examples.iter().for_each(|example| example.check().expect("good"));
        assert_eq!(examples[1].map, original());
        assert!(examples.len() == 3 && examples[2].map.len() == 6);
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        let mut config = Config { read_only: true, ..Config::default() };
        config.tcp.bind = "localhost".into();
        config.tcp.allow = vec!["10.0.0.0/8".into(), "10.0.0.0/40".into()];
        config.tcp.idle_timeout = Interval::from_millis(1);
        config.tcp.enabled = false;
        config.watchdog.enabled = true;
        config.watchdog.timeout = Interval::from_millis(1);
        config.identification.vendor = "Müller".into();
        let error = config.check().expect_err("bad").to_string();
        for expected in [
            "tcp.bind: found \"localhost\"",
            "tcp.allow[1]: found \"10.0.0.0/40\"",
            "tcp.idle_timeout: 1ms is out of range, expected 1s to 24h",
            "tcp.enabled: nothing is served",
            "watchdog.timeout: 1ms is out of range",
            "watchdog.enabled: with read_only",
            "identification.vendor: expected at most",
        ] {
            assert!(error.contains(expected), "{expected} is missing in:\n{error}");
        }
        assert_eq!(error.lines().count(), 7, "{error}");
    }
}
