//! I/O JSON: what every line holds now, and how multus-io does. Made from the process image.

use multus_ipc::MonoNs;
use multus_ipc::io::{BAD, DEGRADED, Definition, FORCED, LineKind, Live, REQUESTED, RETAINED, Reader, SIMULATED};
use serde::{Deserialize, Serialize};

use super::status::Spread;
use super::time::Clock;

/// All lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct IoStatus {
    /// The board, in words; empty before multus-io has started.
    pub board: String,
    /// Whether there is no hardware behind it.
    pub simulated: bool,
    /// Whether multus-io scans now. Where not, values are those of its last scan.
    pub fresh: bool,
    /// Whether a line is bad.
    pub degraded: bool,
    /// Who has the outputs: `multus-io`, `multusd` (all outputs have their safe values), or `nobody`; empty: it is not known, as
    /// the daemon does not answer.
    pub driven_by: String,
    /// Outputs that multusd could not bring to their safe values, a sentence each.
    pub unsafe_outputs: Vec<String>,
    /// Scans so far.
    pub scans: u64,
    /// Scans that were left out because one before took too long.
    pub overruns: u64,
    /// Time from scan to scan, microseconds.
    pub period_us: f64,
    /// How long a scan takes.
    pub scan_us: Spread,
    /// From the decision to force outputs to the last of them being written.
    pub forced_us: Spread,
    /// When all outputs that are forced last had their values, CLOCK_MONOTONIC ns; 0: never yet.
    pub acknowledged_mono_ns: u64,
    /// Requests for outputs that multus-io refused.
    pub refused: u64,
    /// Every line, in the order of `hardware.toml`.
    pub lines: Vec<IoLine>,
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct IoLine {
    /// Its name.
    pub name: String,
    /// `digital-input`, `digital-output`, `analogue-input` or `analogue-output`.
    pub kind: String,
    /// 0 or 1, or a number in `unit`. Of a bad line: the last good one.
    pub value: f64,
    /// Unit of the value; empty for digital lines.
    pub unit: String,
    /// The level or number as the hardware has it.
    pub raw: u64,
    /// Whether the value was read or written without an error.
    pub good: bool,
    /// Why it has its value: `safe`, `requested`, `retained` or `forced`; empty for an input.
    pub source: String,
    /// Who may ask for values; empty for an input.
    pub owner: String,
    /// Of an output: its safe value.
    pub safe: Option<f64>,
    /// Of an output that a person holds: at which value. A safe state goes before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<f64>,
    /// Of an analogue output: its lowest and highest value.
    pub range: Option<[f64; 2]>,
    /// When the value changed, RFC 3339; `None`: never.
    pub changed: Option<String>,
    /// When it was last read or written without an error, RFC 3339; `None`: never.
    pub last_good: Option<String>,
    /// How often the value changed.
    pub changes: u64,
}

impl IoStatus {
    /// What the image says. Who has the outputs, and which of them a person holds, is known elsewhere.
    pub fn of(image: &Reader<'_>, clock: Clock) -> Self {
        let us = |ns: u64| ns as f64 / 1000.0;
        let spread = |[p50, p99, max]: [u64; 3]| Spread { p50: Some(us(p50)), p99: Some(us(p99)), max: us(max) };
        let [period, p50, p99, longest] = image.durations();
        let layout = image.layout().unwrap_or_default();
        let line = |at| Some(IoLine::of(&image.definition_of(layout, at)?, &image.live(at)?, clock));
        Self {
            board: image.board().to_string(),
            simulated: image.flags() & SIMULATED != 0,
            degraded: image.flags() & DEGRADED != 0,
            fresh: image.is_fresh(MonoNs(clock.mono)),
            scans: image.scans(),
            overruns: image.overruns(),
            period_us: us(period),
            scan_us: spread([p50, p99, longest]),
            forced_us: spread(image.force_times()),
            acknowledged_mono_ns: image.acknowledged().1.0,
            refused: image.refused(),
            lines: (0..image.lines()).filter_map(line).collect(),
            ..Self::default()
        }
    }
}

impl IoLine {
    /// One line of the image.
    pub fn of(definition: &Definition, live: &Live, clock: Clock) -> Self {
        let is_output = definition.kind.is_output();
        let time = |at: MonoNs| (at.0 != 0).then(|| clock.wall(at.0));
        Self {
            name: definition.name.to_string(),
            kind: kind_word(definition.kind).into(),
            value: live.value,
            unit: definition.unit.to_string(),
            raw: live.raw,
            good: live.flags & BAD == 0,
            source: if is_output { source_word(live.flags) } else { "" }.into(),
            owner: definition.owner.to_string(),
            safe: is_output.then_some(definition.safe),
            held: None,
            range: (definition.kind == LineKind::AnalogueOutput).then_some([definition.lowest, definition.highest]),
            changed: time(live.changed),
            last_good: time(live.good),
            changes: live.changes,
        }
    }
}

/// The word of `hardware.toml`.
pub const fn kind_word(kind: LineKind) -> &'static str {
    match kind {
        LineKind::DigitalInput => "digital-input",
        LineKind::DigitalOutput => "digital-output",
        LineKind::AnalogueInput => "analogue-input",
        LineKind::AnalogueOutput => "analogue-output",
    }
}

/// Why an output has its value.
pub const fn source_word(flags: u64) -> &'static str {
    match flags {
        flags if flags & FORCED != 0 => "forced",
        flags if flags & REQUESTED != 0 => "requested",
        flags if flags & RETAINED != 0 => "retained",
        _ => "safe",
    }
}
