//! What the two programs can be told, and what of it cannot be.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use multus_child::{ConfigVersion, Error, Interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::logic::monitor::Policy;
use crate::logic::rule::Rule;
use crate::target::{Target, one_host};

/// Whether the local network and the world can be reached.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LanWan {
    /// From the start to the first check, up to 1h; a device has its addresses late after a cold start. Only a pulled cable is
    /// seen before.
    pub first_check: Interval,
    /// Port on 127.0.0.1 for gRPC, multus.v1.ChecksService and that of the original; instance n uses port + n; 0: none.
    pub port: u16,
    /// Version of this configuration; it is told to those who ask.
    pub config_version: ConfigVersion,
    /// Address of the router of the local network; empty: that of the default route. It is asked by a ping, and known by its
    /// answer to ARP as well.
    pub gateway: String,
    /// The local network: its router, and hosts if there are some.
    pub lan: Check,
    /// The world behind it.
    pub wan: Check,
}

/// Whether what lies behind a tunnel can be reached.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OpenVpn {
    /// From the start to the first check, up to 1h.
    pub first_check: Interval,
    /// Port on 127.0.0.1 for gRPC, multus.v1.ChecksService and that of the original; instance n uses port + n; 0: none.
    pub port: u16,
    /// Version of this configuration; it is told to those who ask.
    pub config_version: ConfigVersion,
    /// What lies behind the tunnel. Hosts must be named.
    pub vpn: Check,
}

/// One check.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Check {
    /// Whether it is done.
    pub enabled: bool,
    /// The interface that it depends on and sends through, such as "eth0" or "tun0"; empty: that of the default route for
    /// the carrier, and any way for what is sent.
    pub interface: String,
    /// Who is asked; empty: of [lan] the router alone, of [wan] 1.1.1.1, 8.8.8.8 and 9.9.9.9, public name servers. Up to 32 of these: "1.1.1.1" or "icmp://host" (a ping), "tcp://host:port" (a connection), "dns://server/name" (a
    /// name server), "http://host[:port][/path]" (a page, without TLS).
    pub hosts: Vec<String>,
    /// How many of them must answer.
    pub rule: RuleWord,
    /// For the rule "quorum": so many.
    #[schemars(range(min = 1, max = 33))]
    pub quorum: usize,
    /// From check to check, 1s to 1d.
    pub interval: Interval,
    /// The same while the last check spoke against the state, 500ms to 1d.
    pub recheck: Interval,
    /// How long an answer may take, 100ms to 1min.
    pub timeout: Interval,
    /// Bad checks in a row until it is down; a lost carrier is believed at once.
    #[schemars(range(min = 1, max = 1000))]
    pub down_after: u32,
    /// Good checks in a row until it is up.
    #[schemars(range(min = 1, max = 1000))]
    pub up_after: u32,
    /// What is done when it stays down.
    pub action: Action,
}

/// How many must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RuleWord {
    /// Every one of the local network, one of the world and of what is behind a tunnel.
    Usual,
    /// One is enough.
    Any,
    /// Every one.
    All,
    /// As many as `quorum` says.
    Quorum,
}

/// What is done when a check stays down.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Action {
    /// What.
    pub kind: ActionKind,
    /// After the check was down for so long, 1s to 7d, and again after the same time.
    pub after: Interval,
    /// At most so often in 24 hours; the count survives restarts and is kept in the state directory.
    #[schemars(range(min = 1, max = 100))]
    pub per_day: u32,
    /// Program and arguments for "command"; no shell reads them.
    #[schemars(extend("x-edit-level" = 0))]
    pub command: Vec<String>,
    /// How long the command may run, 1s to 1h; then it is killed.
    pub timeout: Interval,
}

/// See [`Action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ActionKind {
    /// Nothing.
    None,
    /// The command.
    Command,
    /// multusd starts the machine anew.
    Reboot,
}

impl Default for LanWan {
    fn default() -> Self {
        Self {
            first_check: FIRST_CHECK,
            port: 46001,
            config_version: ConfigVersion::default(),
            gateway: String::new(),
            lan: Check::default(),
            wan: Check::default(),
        }
    }
}

impl Default for OpenVpn {
    fn default() -> Self {
        Self { first_check: FIRST_CHECK, port: 46002, config_version: ConfigVersion::default(), vpn: Check::default() }
    }
}

impl Default for Check {
    fn default() -> Self {
        Self {
            enabled: true,
            interface: String::new(),
            hosts: Vec::new(),
            rule: RuleWord::Usual,
            quorum: 2,
            interval: Interval::from_millis(60_000),
            recheck: Interval::from_millis(5000),
            timeout: Interval::from_millis(2000),
            down_after: 2,
            up_after: 1,
            action: Action::default(),
        }
    }
}

impl Default for Action {
    fn default() -> Self {
        Self {
            kind: ActionKind::None,
            after: Interval::from_millis(30 * 60_000),
            per_day: 3,
            command: Vec::new(),
            timeout: Interval::from_millis(60_000),
        }
    }
}

/// One check as it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckConfig {
    pub(crate) name: &'static str,
    pub(crate) enabled: bool,
    pub(crate) interface: Option<String>,
    pub(crate) router: Asked,
    pub(crate) targets: Vec<Target>,
    pub(crate) timeout: Duration,
    pub(crate) policy: Policy,
    pub(crate) action: Option<ActionConfig>,
}

/// Which router is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    No,
    OfDefaultRoute,
    At(IpAddr),
}

/// What is done when a check stays down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ActionConfig {
    pub(crate) per_day: u32,
    /// `None`: a reboot.
    pub(crate) command: Option<Vec<String>>,
    pub(crate) timeout: Duration,
}

/// A whole program.
#[derive(Clone, Debug)]
pub(crate) struct ProgramConfig {
    pub(crate) first_check: Duration,
    pub(crate) port: u16,
    pub(crate) version: String,
    pub(crate) checks: Vec<CheckConfig>,
    /// Where the guards of actions keep what was done.
    pub(crate) state: PathBuf,
}

impl LanWan {
    /// # Errors
    /// Everything that is wrong, a line each.
    pub(crate) fn valid(&self, state: PathBuf) -> Result<ProgramConfig, Error> {
        let mut wrong = Vec::new();
        let router = match self.gateway.as_str() {
            "" => Asked::OfDefaultRoute,
            text => match text.parse().map_err(|_| format!("{text:?} is no IP address")).and_then(one_host) {
                Ok(address) => Asked::At(address),
                Err(reason) => {
                    wrong.push(format!("gateway: {reason}"));
                    Asked::OfDefaultRoute
                }
            },
        };
        let checks = vec![self.lan.valid("lan", router, &mut wrong), self.wan.valid("wan", Asked::No, &mut wrong)];
        program(self.first_check, self.port, &self.config_version, checks, state, wrong)
    }
}

impl OpenVpn {
    /// # Errors
    /// Everything that is wrong, a line each.
    pub(crate) fn valid(&self, state: PathBuf) -> Result<ProgramConfig, Error> {
        let mut wrong = Vec::new();
        let checks = vec![self.vpn.valid("vpn", Asked::No, &mut wrong)];
        program(self.first_check, self.port, &self.config_version, checks, state, wrong)
    }
}

fn program(
    first_check: Interval,
    port: u16,
    version: &ConfigVersion,
    checks: Vec<CheckConfig>,
    state: PathBuf,
    mut wrong: Vec<String>,
) -> Result<ProgramConfig, Error> {
    within("first_check", first_check, Duration::ZERO, HOUR, &mut wrong);
    if !wrong.is_empty() {
        return Err(wrong.join("\n").into());
    }
    Ok(ProgramConfig { first_check: first_check.duration(), port, version: version.to_string(), checks, state })
}

impl Check {
    fn valid(&self, name: &'static str, router: Asked, wrong: &mut Vec<String>) -> CheckConfig {
        for (key, value, least, most) in [
            ("interval", self.interval, Duration::from_secs(1), DAY),
            ("recheck", self.recheck, Duration::from_millis(500), DAY),
            ("timeout", self.timeout, Duration::from_millis(100), Duration::from_secs(60)),
        ] {
            within(&format!("{name}.{key}"), value, least, most, wrong);
        }
        let world = WORLD.map(str::to_owned);
        let hosts = if name == "wan" && self.hosts.is_empty() { &world[..] } else { &self.hosts[..] };
        let mut targets = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            match host.parse() {
                Ok(target) if targets.contains(&target) => {
                    wrong.push(format!("{name}.hosts[{index}]: {host:?} is there twice"));
                }
                Ok(target) => targets.push(target),
                Err(reason) => wrong.push(format!("{name}.hosts[{index}]: {reason}")),
            }
        }
        let asked = targets.len() + usize::from(router != Asked::No);
        if self.enabled && hosts.is_empty() && router == Asked::No {
            wrong.push(format!("{name}.hosts: nobody is asked; name a host that answers, or set enabled = false"));
        }
        if hosts.len() > MOST_HOSTS {
            wrong.push(format!("{name}.hosts: found {} hosts, expected at most {MOST_HOSTS}", hosts.len()));
        }
        if self.rule == RuleWord::Quorum && self.quorum > asked {
            wrong.push(format!("{name}.quorum: {} cannot answer, only {asked} are asked", self.quorum));
        }
        // IFNAMSIZ is 16 with the closing zero; see dev_valid_name in the kernel.
        let is_name = |name: &str| name.len() < 16 && !name.contains(['/', ':']) && !name.contains(char::is_whitespace);
        if !is_name(&self.interface) || matches!(self.interface.as_str(), "." | "..") {
            wrong.push(format!("{name}.interface: {:?} cannot be the name of an interface", self.interface));
        }
        let action = self.action.valid(name, wrong);
        CheckConfig {
            name,
            enabled: self.enabled,
            interface: (!self.interface.is_empty()).then(|| self.interface.clone()),
            router,
            targets,
            timeout: self.timeout.duration(),
            policy: Policy {
                interval: self.interval.duration(),
                recheck: self.recheck.min(self.interval).duration(),
                down_after: self.down_after,
                up_after: self.up_after,
                rule: match self.rule {
                    RuleWord::Usual if name == "lan" => Rule::All,
                    RuleWord::Usual | RuleWord::Any => Rule::Any,
                    RuleWord::All => Rule::All,
                    RuleWord::Quorum => Rule::AtLeast(self.quorum),
                },
                remedy_after: action.as_ref().map(|_| self.action.after.duration()),
            },
            action,
        }
    }
}

impl Action {
    fn valid(&self, check: &str, wrong: &mut Vec<String>) -> Option<ActionConfig> {
        within(&format!("{check}.action.after"), self.after, Duration::from_secs(1), 7 * DAY, wrong);
        within(&format!("{check}.action.timeout"), self.timeout, Duration::from_secs(1), HOUR, wrong);
        let command = match self.kind {
            ActionKind::None => return None,
            ActionKind::Reboot => None,
            ActionKind::Command => {
                if self.command.first().is_none_or(String::is_empty) {
                    wrong.push(format!("{check}.action.command: a program is missing"));
                }
                Some(self.command.clone())
            }
        };
        Some(ActionConfig { per_day: self.per_day, command, timeout: self.timeout.duration() })
    }
}

fn within(key: &str, value: Interval, least: Duration, most: Duration, wrong: &mut Vec<String>) {
    if !(least..=most).contains(&value.duration()) {
        let (least, most) = (Interval::from(least), Interval::from(most));
        wrong.push(format!("{key}: {value} is out of range, expected {least} to {most}"));
    }
}

/// As the original has it.
const FIRST_CHECK: Interval = Interval::from_millis(60_000);
/// Public name servers of three operators that answer pings.
const WORLD: [&str; 3] = ["1.1.1.1", "8.8.8.8", "9.9.9.9"];
const MOST_HOSTS: usize = 32;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_good_where_they_can_be() {
        let config = LanWan::default().valid(PathBuf::new()).expect("good");
        assert_eq!(config.checks.iter().map(|check| check.name).collect::<Vec<_>>(), ["lan", "wan"]);
        assert_eq!((config.checks[0].policy.rule, config.checks[1].policy.rule), (Rule::All, Rule::Any));
        assert_eq!(config.checks[1].targets.len(), WORLD.len());
        assert_eq!((config.port, config.first_check), (46001, Duration::from_secs(60)));
        let error = OpenVpn::default().valid(PathBuf::new()).expect_err("nobody is asked").to_string();
        assert!(error.starts_with("vpn.hosts: nobody is asked"), "{error}");
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        let mut config = LanWan { first_check: Interval::from_millis(2 * 3600 * 1000), ..LanWan::default() };
        config.gateway = "192.168.1".into();
        config.lan.interface = "a name with blanks".into();
        config.lan.interval = Interval::from_millis(1);
        config.wan.hosts = ["300.1.1.1", "1.1.1.1", "1.1.1.1", "tcp://a"].map(str::to_owned).to_vec();
        (config.wan.rule, config.wan.quorum) = (RuleWord::Quorum, 3);
        config.wan.action.kind = ActionKind::Command;
        config.wan.action.after = Interval::from_millis(100);
        let error = config.valid(PathBuf::new()).expect_err("bad").to_string();
        for expected in [
            "gateway: \"192.168.1\" is no IP address",
            "lan.interval: 1ms is out of range, expected 1s to 24h",
            "lan.interface: \"a name with blanks\" cannot be",
            "wan.hosts[0]: \"300.1.1.1\" is neither",
            "wan.hosts[2]: \"1.1.1.1\" is there twice",
            "wan.hosts[3]: a port is missing",
            "wan.quorum: 3 cannot answer, only 1 are asked",
            "wan.action.command: a program is missing",
            "wan.action.after: 100ms is out of range",
            "first_check: 2h is out of range",
        ] {
            assert!(error.contains(expected), "{expected} is missing in:\n{error}");
        }
        assert_eq!(error.lines().count(), 10, "{error}");
    }
}
