//! How long the times from beat to beat were: the histograms of the heartbeat pages.

use serde::{Deserialize, Serialize};

/// The times from beat to beat of one lane, since its process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Intervals {
    /// Name of the child instance.
    pub child: String,
    /// Name of the lane; empty for the first without a name.
    pub lane: String,
    /// The longest, ns.
    pub max_ns: u64,
    /// Largest value, ns, and count of each bucket that is not empty, rising; see `multus_ipc::histogram`. The last
    /// bucket that there can be has no largest value and says `u64::MAX`.
    pub buckets: Vec<(u64, u64)>,
}
