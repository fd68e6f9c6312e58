//! What `config/io.toml` may say. Which lines there are stands in `hardware.toml`.

use std::time::Duration;

use multus_child::{Error, Interval};
use multus_contract::config::Severity;
use multus_contract::config::hardware::{self, HardwareConfig};
use multus_contract::dirs::Dirs;
use multus_ipc::io_child::ENV_IMAGE_FD;
use schemars::JsonSchema;
use serde::Deserialize;

/// How inputs and outputs are scanned. Which lines there are stands in hardware.toml.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Time from scan to scan, 100us to 1s; below the deadline of the child.
    pub period: Interval,
    /// Real-time priority of the scan (SCHED_FIFO); 0: an ordinary thread. One that is not below that of multusd is lowered.
    #[schemars(range(min = 0, max = 98))]
    pub priority: u8,
    /// Keep the memory of this process from being paged out.
    pub lock_memory: bool,
    /// Retained values are written to the disk at most so often, 1s to 1h.
    pub retain_interval: Interval,
    /// How long to wait at the start for lines that somebody else still has, up to 1min.
    pub patience: Interval,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            period: Interval::from_millis(1),
            priority: 40,
            lock_memory: true,
            retain_interval: Interval::from_millis(10_000),
            patience: Interval::from_millis(5000),
        }
    }
}

/// What the types cannot express, and which lines there are: under multusd those that it has taken over, whatever stands in
/// `hardware.toml` by now, for it has the outputs ready as they are meant there. By hand, and where multusd could keep none, the
/// file counts.
///
/// # Errors
/// Everything that is wrong, a line each.
pub fn check(config: &Config, dirs: &Dirs) -> Result<HardwareConfig, Error> {
    let mut wrong = ranges(config);
    let is_supervised = std::env::var_os(ENV_IMAGE_FD).is_some();
    let kept = if is_supervised { hardware::kept(&dirs.state) } else { None };
    let lines = kept.or_else(|| {
        let loaded = hardware::load(&dirs.config, None);
        if loaded.is_missing {
            let path = dirs.config.join(hardware::HARDWARE_FILE);
            wrong.push(format!("{}: no such file, so there is no line; see example-hardware.toml", path.display()));
        }
        wrong.extend(loaded.diagnostics.iter().filter(|d| d.severity != Severity::Warning).map(ToString::to_string));
        loaded.config
    });
    match lines {
        Some(lines) if wrong.is_empty() => Ok(lines),
        _ => Err(wrong.join("\n").into()),
    }
}

fn ranges(config: &Config) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, value, least, most) in [
        ("period", config.period, Duration::from_micros(100), Duration::from_secs(1)),
        ("retain_interval", config.retain_interval, Duration::from_secs(1), Duration::from_secs(3600)),
        ("patience", config.patience, Duration::ZERO, Duration::from_secs(60)),
    ] {
        if !(least..=most).contains(&value.duration()) {
            wrong.push(format!(
                "{key}: {value} is out of range, expected {} to {}",
                Interval::from(least),
                Interval::from(most)
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_shows_every_key_with_its_default() {
        let text = include_str!("../../../docs/example-io.toml");
        let shown: toml::Table = text.parse().expect("it is TOML");
        let schema = schemars::schema_for!(Config);
        let keys = schema.get("properties").and_then(|keys| keys.as_object()).expect("it has keys");
        assert!(keys.keys().all(|key| shown.contains_key(key)) && shown.len() == keys.len(), "{shown:?}");
        let config: Config = toml::from_str(text).expect("it fits");
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }
}
