//! What `config/control.toml` may say. Each part of the program has its own table, and its struct stands beside its code.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use multus_child::{Error, Interval};
use schemars::JsonSchema;
use serde::Deserialize;

/// The parameters of multus-control.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The gRPC server.
    pub grpc: crate::grpc::Config,
    /// Pages and JSON API.
    pub web: crate::web::Config,
    /// The event database.
    pub history: crate::history::Config,
    /// Messages for an MQTT broker.
    pub mqtt: crate::mqtt::Config,
    /// Who is told what happens.
    pub notify: crate::notify::Config,
    /// What happens after a configuration was saved.
    pub configuration: Configuration,
}

/// What happens after a configuration was saved.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Configuration {
    /// How long a saved change waits before it is applied, so that several make one restart; 0s to 1h.
    pub settle: Interval,
    /// Whether a change is taken back when the child does not come back healthy.
    pub auto_roll_back: bool,
    /// Folders in which parameters of a child may name text files to be edited as texts, by the name of the child, such as
    /// vpn = ["/etc/openvpn/client"]. Its own folder, files/NAME in the configuration directory, needs no mention.
    #[schemars(extend("x-edit-level" = 0))]
    pub text_folders: BTreeMap<String, Vec<PathBuf>>,
}

impl Default for Configuration {
    fn default() -> Self {
        Self { settle: Duration::from_secs(5).into(), auto_roll_back: false, text_folders: BTreeMap::new() }
    }
}

/// What the types cannot express.
///
/// # Errors
/// What is wrong, for the reader of the file.
pub fn check(config: &Config) -> Result<(), Error> {
    if config.configuration.settle.duration() > Duration::from_secs(3600) {
        return Err("configuration.settle: at most 1h is possible".into());
    }
    for (child, folder) in config.configuration.text_folders.iter().flat_map(|(c, all)| all.iter().map(move |f| (c, f)))
    {
        if let Some(fault) = crate::service::configuration::folder_fault(folder) {
            return Err(format!("configuration.text_folders.{child}: {}: {fault}", folder.display()).into());
        }
    }
    config.history.check()?;
    config.mqtt.check()?;
    config.notify.check()?;
    config.web.check()?;
    config.grpc.check()
}
