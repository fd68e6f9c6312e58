//! A length of time in a configuration file: a string with a unit, such as "200ms".

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use multus_contract::config::{format_duration, parse_duration};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time that a configuration file writes as `"200ms"`, `"1.5s"` or `"1h30min"`, in the same words as
/// the files of multusd: units are `ns`, `us`, `ms`, `s`, `min`, `h` and `d`; several parts add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Interval(Duration);

/// How the schema marks such a string.
pub(crate) const FORMAT: &str = "multus-interval";

impl Interval {
    /// From milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Interval {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Self)
    }
}

/// In a form that can be read back.
impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format_duration(self.0))
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Interval {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Interval".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": FORMAT,
            "pattern": r"^\s*(0|([0-9]*\.?[0-9]+\s*(ns|us|µs|ms|s|m|min|h|d)\s*)+)\s*$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_and_writes_like_the_files_of_multusd() {
        let interval: Interval = "1h 30min".parse().unwrap();
        assert_eq!(interval.duration(), Duration::from_secs(5400));
        assert_eq!(interval.to_string(), "1h30min");
        assert_eq!(Interval::from_millis(200).to_string(), "200ms");
        assert!("5".parse::<Interval>().unwrap_err().contains("no unit"));
    }
}
