//! Which deadline suits a child, as the daemon works it out from the intervals that it saw.

use serde::{Deserialize, Serialize};

/// What is advised for one lane. Times in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Advice {
    /// Name of the child instance.
    pub child: String,
    /// Name of the lane; empty for the first without a name.
    pub lane: String,
    /// Intervals that were seen.
    pub intervals: u64,
    /// Half of them are not above it.
    pub p50_us: f64,
    /// 99 % are not above it.
    pub p99_us: f64,
    /// 99.9 % are not above it.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// The deadline in force; `None` without.
    pub deadline_us: Option<f64>,
    /// False alarms a year that the model expects of it.
    pub alarms_per_year: Option<f64>,
    /// The deadline that is advised; `None` when too little was seen.
    pub advised_us: Option<f64>,
    /// False alarms a year that the model expects of that.
    pub advised_alarms_per_year: Option<f64>,
}
