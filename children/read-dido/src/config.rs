//! What `config/read-dido.toml` may say.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use multus_child::network::Network;
use multus_child::{ConfigVersion, Error, Interval, TextFile};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::logic::mapping::legacy_number;

/// Digital lines of one device at the outputs of another: sender, receiver, or both.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address on which senders are awaited: 127.0.0.1 for this machine only, 0.0.0.0 or :: for all networks.
    #[schemars(extend("x-edit-level" = 10))]
    pub bind: String,
    /// Port for senders and for questions how it does; instance n uses port + n; 0: none.
    #[schemars(extend("x-edit-level" = 10))]
    pub port: u16,
    /// Version of this configuration; it is told to those who ask.
    pub config_version: ConfigVersion,
    /// Sends lines of this device to others.
    #[schemars(extend("x-section" = "Sender"))]
    pub sender: Sender,
    /// Puts lines of other devices to the outputs of this one.
    #[schemars(extend("x-section" = "Receiver"))]
    pub receiver: Receiver,
}

/// Sends lines of this device to others.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sender {
    /// Name under which receivers know this device; empty: the name of this child instance, such as read-dido_0.
    #[schemars(length(max = 64), extend("x-edit-level" = 10))]
    pub name: String,
    /// What the local lines are.
    pub source: Source,
    /// How often all lines are sent although none changed, 1s to 24h: to receivers of the original. Those of this project get them
    /// four times in the timeout that they name.
    pub interval: Interval,
    /// Which line goes where, up to 256.
    #[schemars(length(max = 256))]
    pub lines: Vec<Line>,
    /// Who gets them, up to 32.
    #[schemars(length(max = 32), extend("x-edit-level" = 10))]
    pub receivers: Vec<Remote>,
}

/// What the local lines of a sender are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Digital inputs.
    #[default]
    Inputs,
    /// Digital outputs of any child, with the value that each has: that which was asked for last, or, while it is forced, its safe one.
    LastOutputs,
}

/// One line on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Line {
    /// Name of the line in hardware.toml of this device.
    #[schemars(length(min = 1, max = 32))]
    pub local: String,
    /// Name of the output in hardware.toml of the receivers. For a receiver of the original its number at the end counts: DO1 to DO8.
    #[schemars(length(min = 1, max = 32))]
    pub remote: String,
    /// Whether on becomes off and off becomes on.
    pub inverted: bool,
    /// A change counts when it has lasted so long, up to 1min; beside what hardware.toml says.
    pub debounce: Interval,
}

/// A receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Remote {
    /// Host and port, such as "192.168.1.7:9091".
    pub address: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Shown to it as a proof: a file with one line of 16 to 256 letters.
    #[schemars(extend("x-secret-file" = true, "x-display-level" = 10, "x-edit-level" = 10))]
    pub token: TextFile,
    /// The authority whose certificate the receiver must show (PEM); empty: no TLS.
    pub ca: TextFile,
    /// Name in the certificate of the receiver; empty: the host of its address.
    pub server_name: String,
    /// Certificate of this device (PEM), where the receiver asks for one.
    pub certificate: TextFile,
    /// Its private key (PEM).
    #[schemars(extend("x-secret-file" = true, "x-display-level" = 10, "x-edit-level" = 10))]
    pub key: TextFile,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// multus.v1.MirrorService: numbered, acknowledged, silence is noticed.
    #[default]
    Multus,
    /// gRPCmultusReadDIDO of the original: plain text, without any of it.
    Legacy,
}

/// Puts lines of other devices to the outputs of this one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Receiver {
    /// Whether outputs that hardware.toml calls retained begin with the value that was asked for last, until their sender is heard or
    /// its timeout is over. Otherwise all begin with their safe values.
    pub restore: bool,
    /// Certificate of this device (PEM). With it senders come over TLS; plain text is left to those that have neither token nor
    /// certificate, and a token that is shown in plain text is refused.
    #[schemars(extend("x-edit-level" = 10))]
    pub certificate: TextFile,
    /// Its private key (PEM).
    #[schemars(extend("x-secret-file" = true, "x-display-level" = 10, "x-edit-level" = 10))]
    pub key: TextFile,
    /// The authority of the certificates that senders show (PEM).
    #[schemars(extend("x-edit-level" = 10))]
    pub client_ca: TextFile,
    /// Connections at the same time; further ones are closed at once.
    #[schemars(range(min = 1, max = 900))]
    pub max_connections: u16,
    /// Connections from one address at the same time; 0: half of them, so that nobody takes all, and for programs of this machine
    /// all. Several senders behind one address, such as that of a tunnel, may need more.
    #[schemars(range(max = 900))]
    pub max_per_address: u16,
    /// Who may set what, up to 32.
    #[schemars(length(max = 32), extend("x-edit-level" = 10))]
    pub senders: Vec<Known>,
}

/// A sender that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Known {
    /// Its name, as it tells it; of one of the original, any other.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Networks from which it comes, such as "192.168.1.0/24". Empty: from anywhere, if it shows a token or a certificate; else from this
    /// machine only. One of the original needs them.
    #[schemars(length(max = 16))]
    pub addresses: Vec<String>,
    /// What it must show: a file with one line of 16 to 256 letters. Without TLS everybody on the way can read it.
    #[schemars(extend("x-secret-file" = true, "x-display-level" = 10, "x-edit-level" = 10))]
    pub token: TextFile,
    /// Common name of the certificate that it must show; empty: none.
    pub certificate: String,
    /// Outputs that it sets, whose owner in hardware.toml this child is. Of one of the original: for its lines 1 to 8, in this order;
    /// "" for lines that set nothing here.
    #[schemars(length(min = 1, max = 256))]
    pub outputs: Vec<String>,
    /// After so long without a word its outputs are set to their safe values, 200ms to 24h. Default: 5s; for one of the original
    /// 11min, which is two of its intervals and a minute.
    pub timeout: Option<Interval>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: Ipv4Addr::LOCALHOST.to_string(),
            port: 9091,
            config_version: ConfigVersion::default(),
            sender: Sender::default(),
            receiver: Receiver::default(),
        }
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self {
            name: String::new(),
            source: Source::Inputs,
            interval: Interval::from_millis(300_000),
            lines: Vec::new(),
            receivers: Vec::new(),
        }
    }
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            restore: true,
            certificate: TextFile::default(),
            key: TextFile::default(),
            client_ca: TextFile::default(),
            max_connections: 64,
            max_per_address: 0,
            senders: Vec::new(),
        }
    }
}

/// What the texts of a configuration mean.
#[derive(Clone, Debug)]
pub(crate) struct Valid {
    pub(crate) bind: IpAddr,
    /// Of each sender in turn.
    pub(crate) addresses: Vec<Vec<Network>>,
}

impl Known {
    /// The outputs that it sets.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &String> {
        self.outputs.iter().filter(|output| !output.is_empty())
    }

    pub(crate) fn silence(&self) -> Duration {
        let usual = match self.protocol {
            Protocol::Multus => Duration::from_secs(5),
            Protocol::Legacy => Duration::from_secs(660),
        };
        self.timeout.map_or(usual, Interval::duration)
    }
}

impl Remote {
    pub(crate) fn is_tls(&self) -> bool {
        !self.ca.is_none()
    }
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
        let bind = self.bind.parse().unwrap_or_else(|_| {
            wrong.push(format!("bind: found {:?}, expected an IP address such as 127.0.0.1", self.bind));
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        });
        self.sender.check(&mut wrong);
        let addresses = self.receiver.check(&mut wrong);
        if self.port == 0 && !self.receiver.senders.is_empty() {
            wrong.push("port: senders need one".into());
        }
        if wrong.is_empty() { Ok(Valid { bind, addresses }) } else { Err(wrong.join("\n").into()) }
    }
}

impl Sender {
    fn check(&self, wrong: &mut Vec<String>) {
        within(wrong, "sender.interval", self.interval, Duration::from_secs(1), DAY);
        let has_legacy = self.receivers.iter().any(|remote| remote.protocol == Protocol::Legacy);
        for (index, line) in self.lines.iter().enumerate() {
            let key = format!("sender.lines[{index}]");
            for (name, text) in [("local", &line.local), ("remote", &line.remote)] {
                if text.is_empty() {
                    wrong.push(format!("{key}.{name}: the name of a line is missing"));
                }
            }
            within(wrong, &format!("{key}.debounce"), line.debounce, Duration::ZERO, Duration::from_secs(60));
            let before = &self.lines[..index];
            if before.iter().any(|other| other.remote == line.remote) {
                wrong.push(format!("{key}.remote: {} is the remote of another line already", line.remote));
                continue;
            }
            if !has_legacy || line.remote.is_empty() {
                continue;
            }
            match legacy_number(&line.remote) {
                None => wrong.push(format!(
                    "{key}.remote: found {:?}; for a receiver of the original it ends with a number from 1 to 8",
                    line.remote
                )),
                Some(number) if before.iter().any(|other| legacy_number(&other.remote) == Some(number)) => {
                    wrong.push(format!("{key}.remote: number {number} is that of another line already"));
                }
                Some(_) => {}
            }
        }
        if self.lines.is_empty() && !self.receivers.is_empty() {
            wrong.push("sender.lines: there are receivers, and nothing to send to them".into());
        }
        for (index, remote) in self.receivers.iter().enumerate() {
            let key = format!("sender.receivers[{index}]");
            if !is_host_and_port(&remote.address) {
                wrong.push(format!(
                    "{key}.address: found {:?}, expected host and port such as \"192.168.1.7:9091\"",
                    remote.address
                ));
            }
            if self.receivers[..index].iter().any(|other| other.address == remote.address) {
                wrong.push(format!("{key}.address: {} is there already", remote.address));
            }
            if remote.certificate.is_none() != remote.key.is_none() {
                wrong.push(format!("{key}: certificate and key belong together; set both or none"));
            }
            if !remote.is_tls() && !remote.certificate.is_none() {
                wrong.push(format!(
                    "{key}.ca: a certificate is shown over TLS only; name the authority of the receiver"
                ));
            }
            if remote.protocol == Protocol::Legacy && (remote.is_tls() || !remote.token.is_none()) {
                wrong.push(format!("{key}.protocol: the original knows neither TLS nor tokens"));
            }
        }
    }
}

impl Receiver {
    /// Whether the port takes TLS.
    pub(crate) fn is_tls(&self) -> bool {
        !self.certificate.is_none()
    }

    /// The networks of each sender.
    fn check(&self, wrong: &mut Vec<String>) -> Vec<Vec<Network>> {
        if self.certificate.is_none() != self.key.is_none() {
            wrong.push("receiver: certificate and key belong together; set both or none".into());
        }
        if self.certificate.is_none() && !self.client_ca.is_none() {
            wrong.push(
                "receiver.client_ca: senders show certificates over TLS only; set certificate and key, too".into(),
            );
        }
        let mut addresses: Vec<Vec<Network>> = Vec::new();
        for (index, sender) in self.senders.iter().enumerate() {
            let key = format!("receiver.senders[{index}]");
            let before = &self.senders[..index];
            if sender.name.is_empty() {
                wrong.push(format!("{key}.name: it is missing"));
            } else if before.iter().any(|other| other.name == sender.name) {
                wrong.push(format!("{key}.name: {} is there already", sender.name));
            }
            if sender.outputs().next().is_none() {
                wrong.push(format!("{key}.outputs: there is none"));
            }
            for (place, output) in sender.outputs.iter().enumerate() {
                if output.is_empty() && sender.protocol == Protocol::Legacy {
                    continue;
                }
                if output.is_empty() {
                    wrong.push(format!("{key}.outputs[{place}]: the name of an output is missing"));
                } else if sender.outputs[..place].contains(output) {
                    wrong.push(format!("{key}.outputs[{place}]: {output} is there already"));
                } else if let Some(other) = before.iter().find(|other| other.outputs.contains(output)) {
                    wrong.push(format!(
                        "{key}.outputs[{place}]: {output} is set by sender {} already; one output has one sender",
                        other.name
                    ));
                }
            }
            if let Some(timeout) = sender.timeout {
                within(wrong, &format!("{key}.timeout"), timeout, Duration::from_millis(200), DAY);
            }
            let networks = sender.check_identity(&key, wrong);
            let is_legacy = |sender: &Known| sender.protocol == Protocol::Legacy;
            for (other, theirs) in before.iter().zip(&addresses) {
                let overlap = networks.iter().any(|own| theirs.iter().any(|their| own.overlaps(their)));
                if is_legacy(sender) && is_legacy(other) && overlap {
                    wrong.push(format!(
                        "{key}.addresses: senders of the original are known by their address only, and {} may come from there, too",
                        other.name
                    ));
                }
            }
            if !sender.certificate.is_empty() && self.client_ca.is_none() {
                wrong.push(format!("{key}.certificate: name the authority of such certificates in receiver.client_ca"));
            }
            addresses.push(networks);
        }
        addresses
    }
}

impl Known {
    fn check_identity(&self, key: &str, wrong: &mut Vec<String>) -> Vec<Network> {
        let mut networks = Vec::new();
        for (place, text) in self.addresses.iter().enumerate() {
            match text.parse() {
                Ok(network) => networks.push(network),
                Err(reason) => wrong.push(format!("{key}.addresses[{place}]: {reason}")),
            }
        }
        if self.protocol == Protocol::Legacy {
            if self.addresses.is_empty() {
                wrong.push(format!("{key}.addresses: a sender of the original is known by its address; name it"));
            }
            if !self.token.is_none() || !self.certificate.is_empty() {
                wrong.push(format!("{key}.protocol: the original knows neither tokens nor certificates"));
            }
            if self.outputs.len() > LEGACY_LINES {
                wrong.push(format!("{key}.outputs: the original has {LEGACY_LINES} lines"));
            }
        }
        networks
    }
}

fn within(wrong: &mut Vec<String>, key: &str, value: Interval, least: Duration, most: Duration) {
    if !(least..=most).contains(&value.duration()) {
        let (least, most) = (Interval::from(least), Interval::from(most));
        wrong.push(format!("{key}: {value} is out of range, expected {least} to {most}"));
    }
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => return address.parse::<std::net::Ipv6Addr>().is_ok() && is_port(port),
        None => host,
    };
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_');
    !host.is_empty() && host.len() <= 253 && host.chars().all(is_letter) && is_port(port)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Lines in a message of the original.
pub(crate) const LEGACY_LINES: usize = 8;
const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests;
