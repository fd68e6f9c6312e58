//! What `config/ovpn-client.toml` may say.

use std::time::Duration;

use multus_child::{ConfigVersion, Error, Interval, TextFile};
use schemars::JsonSchema;
use serde::Deserialize;

/// A tunnel by openvpn.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The configuration of openvpn. It is checked before it is used; what openvpn is told by this child (management, daemon,
    /// log and the like) must not stand in it.
    #[schemars(extend("x-secret-file" = true, "x-display-level" = 10, "x-edit-level" = 10))]
    pub tunnel: TextFile,
    /// Whether the configuration may have openvpn run scripts and load plugins: up, down, script-security, plugin and so on.
    #[schemars(extend("x-edit-level" = 0))]
    pub allow_scripts: bool,
    /// The program: a name that is looked for in PATH, or an absolute path.
    #[schemars(extend("x-edit-level" = 0))]
    pub program: String,
    /// Port on 127.0.0.1 for gRPC, multus.v1.OpenVpnService and that of the original; instance n uses port + n; 0: none.
    pub port: u16,
    /// Version of this configuration; it is told to those who ask.
    pub config_version: ConfigVersion,
    /// An openvpn that answers nothing for so long hangs, 2s to 10min.
    pub silence: Interval,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tunnel: "client.conf".parse().unwrap_or_default(),
            allow_scripts: false,
            program: "openvpn".into(),
            port: 6543,
            config_version: ConfigVersion::default(),
            silence: Interval::from_millis(30_000),
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
        if self.tunnel.is_none() {
            wrong.push("tunnel: the configuration of openvpn is missing; name its file".to_owned());
        }
        if self.program.is_empty() {
            wrong.push("program: it is missing".to_owned());
        }
        if !(Duration::from_secs(2)..=Duration::from_secs(600)).contains(&self.silence.duration()) {
            wrong.push(format!("silence: {} is out of range, expected 2s to 10min", self.silence));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
    }
}
