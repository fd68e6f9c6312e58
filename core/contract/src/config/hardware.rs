//! The inputs and outputs of a box: the content of `hardware.toml`, checked and with defaults filled in.
//!
//! `docs/example-hardware.toml` shows every key.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

pub use multus_ipc::io::LineKind;
pub use multus_ipc::io::OPERATOR;
use multus_ipc::io::{Definition, LINES};
use multus_ipc::text::Text;

use super::child::{ChildConfig, name_fault};
use super::diagnose::nearest;
use super::edit::{EditError, replace_file};
use super::files::read_text;
use super::source::{Field, Outcome, Positions, Section, Source};
use super::units::quote;
use super::{Diagnostic, Severity};

/// Name of the file in the configuration directory.
pub const HARDWARE_FILE: &str = "hardware.toml";
/// Name of the file in the state directory that holds the text of the last one without an error that multusd took over. With
/// it the outputs of a box can be made safe whatever becomes of [`HARDWARE_FILE`], and multus-io has the lines that multusd has.
pub const KEPT_FILE: &str = "hardware-in-force.toml";
/// Native inputs that can be configured, and as many outputs.
pub const MOST_GPIO: usize = 64;

/// The inputs and outputs of a box.
#[derive(Clone, Debug, PartialEq)]
pub struct HardwareConfig {
    /// How the native lines are reached.
    pub board: BoardChoice,
    /// Label of the GPIO chip, as `gpioinfo` shows it.
    pub chip: String,
    /// Number of the I2C bus, /dev/i2c-N, 0 to 255.
    pub i2c_bus: u8,
    /// Number of the SPI bus, /dev/spidevN.x, 0 to 255.
    pub spi_bus: u8,
    /// Clock of the SPI bus in Hz, 10 kHz to 20 MHz.
    pub spi_speed_hz: u32,
    /// All lines, in the order of the file; at most 256.
    pub lines: Vec<LineConfig>,
}

impl Default for HardwareConfig {
    fn default() -> Self {
        Self {
            board: BoardChoice::Auto,
            chip: "pinctrl-bcm2835".into(),
            i2c_bus: 1,
            spi_bus: 0,
            spi_speed_hz: 1_000_000,
            lines: Vec::new(),
        }
    }
}

impl HardwareConfig {
    /// The names of those who own outputs, each once: child instances, and [`OPERATOR`].
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        (0..self.lines.len()).filter_map(move |i| {
            let own = self.lines[i].owner()?;
            let first = self.lines.iter().position(|line| line.owner() == Some(own));
            (first == Some(i)).then_some(own)
        })
    }
}

/// How the native lines are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardChoice {
    /// `Rppal` on a Raspberry Pi that it knows, else `Gpiochip` where the chip exists, else `Sim`.
    Auto,
    /// The registers of a Raspberry Pi.
    Rppal,
    /// The GPIO character device of the kernel.
    Gpiochip,
    /// No hardware: a file that says what it would read, and shows what was written.
    Sim,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct LineConfig {
    /// At most 32 bytes; as names of children otherwise.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
    /// What it is.
    pub kind: LineKind,
    /// Where it is.
    pub source: LineSource,
    /// Whether 1 is the low level.
    pub active_low: bool,
    /// Of a native input.
    pub bias: Bias,
    /// A digital input counts as changed when it has kept its level so long; up to 1 s, zero: at once.
    pub debounce: Duration,
    /// Of an output.
    pub safe: f64,
    /// The child instance that may ask for values; `None`: a person, see [`Self::owner`].
    pub owner: Option<String>,
    /// Whether an output has the last value that was asked for until its owner asks anew, also after a restart.
    pub retained: bool,
    /// Unit of the value, for people.
    pub unit: String,
    /// The value is what was measured, times this ...
    pub scale: f64,
    /// ... plus this. An output the other way round.
    pub offset: f64,
    /// Lowest value of an output.
    pub lowest: f64,
    /// Highest value of an output.
    pub highest: f64,
    /// How often a line that is not native is read, 1 ms to 1 h.
    pub period: Duration,
}

impl LineConfig {
    /// Who may ask for values: a child instance, or [`OPERATOR`]; `None` for an input.
    pub fn owner(&self) -> Option<&str> {
        self.kind.is_output().then(|| self.owner.as_deref().unwrap_or(OPERATOR))
    }

    /// As it stands in the image.
    pub fn definition(&self) -> Definition {
        Definition {
            name: Text::new(&self.name),
            unit: Text::new(&self.unit),
            owner: Text::new(self.owner().unwrap_or_default()),
            kind: self.kind,
            safe: self.safe,
            lowest: self.lowest,
            highest: self.highest,
        }
    }
}

/// Where a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LineSource {
    /// A native line: BCM number, or offset on the chip.
    Gpio(u32),
    /// A pin of an I2C expander.
    Pcf8574 {
        /// 0x20 to 0x27, or 0x38 to 0x3f (PCF8574A).
        address: u8,
        /// Its bit in the byte, 0 to 7.
        bit: u8,
    },
    /// A channel of an SPI converter, 12 bit.
    Mcp3208 {
        /// Chip enable, 0 or 1.
        enable: u8,
        /// 0 to 7.
        channel: u8,
        /// What is connected.
        measures: Measure,
    },
    /// A channel of an SPI converter for output, 12 bit, 0 to 10 V.
    Mcp4922 {
        /// Chip enable, 0 or 1.
        enable: u8,
        /// 0 or 1.
        channel: u8,
    },
    /// A temperature sensor on I2C, in half degrees.
    Lm75 {
        /// 0x48 to 0x4f.
        address: u8,
    },
}

impl LineSource {
    /// The same for whatever cannot be used twice.
    fn identity(self) -> Self {
        match self {
            Self::Mcp3208 { enable, channel, .. } => Self::Mcp3208 { enable, channel, measures: Measure::Raw },
            other => other,
        }
    }
}

impl std::fmt::Display for LineSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gpio(number) => write!(f, "gpio {number}"),
            Self::Pcf8574 { address, bit } => write!(f, "bit {bit} of the PCF8574 at {address:#04x}"),
            Self::Mcp3208 { enable, channel, .. } => {
                write!(f, "channel {channel} of the MCP3208 at chip enable {enable}")
            }
            Self::Mcp4922 { enable, channel } => write!(f, "channel {channel} of the MCP4922 at chip enable {enable}"),
            Self::Lm75 { address } => write!(f, "the LM75 at {address:#04x}"),
        }
    }
}

/// What is connected to a channel of an MCP3208.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Measure {
    /// 0 to 10 V.
    Voltage,
    /// A PT100, in °C.
    Pt100,
    /// A current, A RMS.
    Current,
    /// The number itself, 0 to 4095.
    Raw,
}

/// What a native input reads when nothing drives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// As it was found.
    AsIs,
    /// Neither.
    None,
    /// High.
    PullUp,
    /// Low.
    PullDown,
}

/// What [`load`] found.
#[derive(Clone, Debug, Default)]
pub struct LoadedHardware {
    /// The configuration; `None` without a file, and when it has an error.
    pub config: Option<HardwareConfig>,
    /// The text that it stands in.
    pub text: Option<String>,
    /// Whether there is no file.
    pub is_missing: bool,
    /// Everything that is to be said, in the order of lines.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads `hardware.toml` of a configuration directory, and compares it with the children, if they are given. What does not
/// fit them is an error that is told, and keeps the configuration.
pub fn load(config_dir: &Path, children: Option<&[ChildConfig]>) -> LoadedHardware {
    load_file(&config_dir.join(HARDWARE_FILE), children)
}

/// The last configuration that multusd took over and [kept](keep); `None`: none is known.
pub fn kept(state_dir: &Path) -> Option<HardwareConfig> {
    load_file(&state_dir.join(KEPT_FILE), None).config
}

/// Keeps the text of a configuration that is taken over, or that there is none any more. Blocks until the disk has it.
///
/// # Errors
/// The system refuses. Then nothing is kept, rather than something else than what is in force.
pub fn keep(state_dir: &Path, text: Option<&str>) -> Result<(), EditError> {
    let path = state_dir.join(KEPT_FILE);
    let before = read_text(&path).ok().flatten();
    if before.as_deref() == text {
        return Ok(());
    }
    let written = text.map_or(Ok(()), |text| replace_file(&path, text, 0o644));
    if text.is_none() || written.is_err() {
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(EditError::Io { path, source }),
            _ => {}
        }
    }
    written
}

fn load_file(path: &Path, children: Option<&[ChildConfig]>) -> LoadedHardware {
    let shown = Path::new(HARDWARE_FILE);
    let text = match read_text(path) {
        Ok(Some(text)) => text,
        Ok(None) => return LoadedHardware { is_missing: true, ..LoadedHardware::default() },
        Err(words) => {
            let diagnostics = vec![Diagnostic::of_file(Severity::Error, None, shown, words)];
            return LoadedHardware { diagnostics, ..LoadedHardware::default() };
        }
    };
    let (config, mut outcome) = read(&text, shown);
    // Whatever is wrong with owners, each line by itself is good.
    let config = Some(config).filter(|_| !outcome.has_errors());
    if let (Some(config), Some(children)) = (&config, children) {
        outcome.diagnostics.extend(compare(config, children, &outcome.positions));
        outcome.diagnostics.sort_by_key(|d| (d.line, d.column));
    }
    let text = config.is_some().then_some(text);
    LoadedHardware { config, text, is_missing: false, diagnostics: outcome.diagnostics }
}

/// Reads the text of `hardware.toml`; `file` is named in findings. After errors the result holds what was good, and defaults.
pub fn parse(text: &str, file: &Path) -> (HardwareConfig, Vec<Diagnostic>) {
    let (config, outcome) = read(text, file);
    (config, outcome.diagnostics)
}

fn read(text: &str, shown: &Path) -> (HardwareConfig, Outcome) {
    let source = Source::new(None, shown, text);
    let config = source.document().map(|document| {
        let root = Section::root(&source, &document);
        let config = read_root(&root);
        root.finish();
        config
    });
    (config.unwrap_or_default(), source.finish())
}

fn read_root(root: &Section<'_>) -> HardwareConfig {
    let default = HardwareConfig::default();
    let boards = [
        ("auto", BoardChoice::Auto),
        ("rppal", BoardChoice::Rppal),
        ("gpiochip", BoardChoice::Gpiochip),
        ("sim", BoardChoice::Sim),
    ];
    let (i2c, spi) = (root.section("i2c"), root.section("spi"));
    let config = HardwareConfig {
        board: root.word("board", &boards, default.board),
        chip: chip(root).unwrap_or(default.chip),
        i2c_bus: i2c.integer("bus", 0..=255, default.i2c_bus),
        spi_bus: spi.integer("bus", 0..=255, default.spi_bus),
        spi_speed_hz: spi.integer("speed_hz", 10_000..=20_000_000, default.spi_speed_hz),
        lines: lines(root),
    };
    i2c.finish();
    spi.finish();
    config
}

fn chip(root: &Section<'_>) -> Option<String> {
    let field = root.field("chip")?;
    let label = field.line(31)?;
    let number = label.strip_prefix("/dev/").unwrap_or(&label).strip_prefix("gpiochip").unwrap_or(&label);
    if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        field.error(
            "numbers of chips change with the kernel; expected the label, the text in [] that `gpiodetect` shows",
        );
        return None;
    }
    Some(label)
}

fn lines(root: &Section<'_>) -> Vec<LineConfig> {
    let Some(field) = root.field("lines") else { return Vec::new() };
    let mut lines = Vec::new();
    let mut used: BTreeMap<LineSource, String> = BTreeMap::new();
    let mut enables: BTreeMap<u8, (&'static str, String)> = BTreeMap::new();
    for (name, field) in field.entries().unwrap_or_default() {
        if let Some(fault) = name_fault(&name) {
            field.error(fault);
        } else if name.len() > LONGEST_LINE_NAME {
            field.error(format!("the name has {} bytes, at most {LONGEST_LINE_NAME} are allowed", name.len()));
        }
        let Some(section) = field.as_section() else {
            field.error("expected a table such as { kind = \"digital-input\", gpio = 4 }");
            continue;
        };
        let Some(line) = line(&name, section) else { continue };
        if let Some(other) = used.insert(line.source.identity(), name.clone()) {
            field.error(format!("{} is that of the line {}, too", line.source, quote(&other)));
        }
        let chip = match line.source {
            LineSource::Mcp3208 { enable, .. } => Some((enable, "MCP3208")),
            LineSource::Mcp4922 { enable, .. } => Some((enable, "MCP4922")),
            _ => None,
        };
        if let Some((enable, chip)) = chip {
            let (first, other) = enables.entry(enable).or_insert_with(|| (chip, name.clone()));
            if *first != chip {
                field.error(format!(
                    "an {chip} at chip enable {enable}, where the line {} has an {first}",
                    quote(other)
                ));
            }
        }
        lines.push(line);
    }
    let count = |output| {
        lines.iter().filter(|l| matches!(l.source, LineSource::Gpio(_)) && l.kind.is_output() == output).count()
    };
    for (found, most, what) in [
        (lines.len(), LINES, "lines"),
        (count(false), MOST_GPIO, "native inputs"),
        (count(true), MOST_GPIO, "native outputs"),
    ] {
        if found > most {
            field.error(format!("{found} {what}, at most {most} are possible"));
        }
    }
    lines
}

fn line(name: &str, section: Section<'_>) -> Option<LineConfig> {
    let kinds = [
        ("digital-input", LineKind::DigitalInput),
        ("digital-output", LineKind::DigitalOutput),
        ("analogue-input", LineKind::AnalogueInput),
        ("analogue-output", LineKind::AnalogueOutput),
    ];
    let kind_field = section.field("kind");
    if kind_field.is_none() {
        section.error(
            "kind",
            "missing, expected \"digital-input\", \"digital-output\", \"analogue-input\" or \"analogue-output\"",
        );
    }
    let kind = kind_field.as_ref().and_then(|field| field.word(&kinds));
    let source = source(&section);
    if let (Some(kind), Some((key, source))) = (kind, source)
        && !fits(source, kind)
    {
        section.error(
            key,
            format!("{source} cannot be {}", kinds.iter().find(|(_, k)| *k == kind).map_or("", |(w, _)| w)),
        );
    }
    let (found, is_output) = (kind.unwrap_or(LineKind::DigitalInput), kind.is_some_and(LineKind::is_output));
    let only = |keys: &[&'static str], holds: bool, what: &str| {
        for key in keys {
            if let Some(field) = section.field(key)
                && kind.is_some()
                && !holds
            {
                field.error(format!("only {what} can have this"));
            }
        }
    };
    only(&["safe", "owner", "retained"], is_output, "an output");
    only(&["debounce"], found == LineKind::DigitalInput, "a digital input");
    only(&["active_low"], found.is_digital(), "a digital line");
    only(&["unit", "scale", "offset"], !found.is_digital(), "an analogue line");
    only(&["lowest", "highest"], found == LineKind::AnalogueOutput, "an analogue output");
    let is_native = matches!(source, Some((_, LineSource::Gpio(_))));
    only(&["bias"], is_native && !is_output, "a native input");
    only(&["period"], !is_native && !is_output, "an input that is not native");

    let scale = section.number("scale", -1e9..=1e9, 1.0);
    if scale == 0.0 {
        section.error("scale", "0 makes every value the same");
    }
    let offset = section.number("offset", -1e9..=1e9, 0.0);
    let ends = if found == LineKind::AnalogueOutput { [offset, 10.0 * scale + offset] } else { [0.0, 1.0] };
    let (low, high) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
    let (lowest, highest) = (section.number("lowest", low..=high, low), section.number("highest", low..=high, high));
    if lowest > highest {
        section.error("highest", format!("{highest} is below lowest, which is {lowest}"));
    }
    let safe = section.field("safe");
    if safe.is_none() && is_output {
        section
            .error("safe", "missing, expected the value in which the output does no harm: \"on\", \"off\" or a number");
    }
    let safe_value = safe.as_ref().and_then(Field::output);
    let line = LineConfig {
        name: name.to_owned(),
        description: section.text("description").unwrap_or_default(),
        kind: found,
        source: source.map_or(LineSource::Gpio(0), |(_, source)| source),
        active_low: section.boolean("active_low", false),
        bias: section.word("bias", &BIASES, Bias::AsIs),
        debounce: section.duration("debounce", Duration::ZERO..=Duration::from_secs(1), Duration::ZERO),
        safe: safe_value.unwrap_or_default(),
        owner: section.field("owner").and_then(|field| owner(&field)),
        retained: section.boolean("retained", false),
        unit: section.field("unit").and_then(|field| field.line(16)).unwrap_or_else(|| default_unit(source).to_owned()),
        scale,
        offset,
        lowest,
        highest,
        period: section.duration(
            "period",
            Duration::from_millis(1)..=Duration::from_secs(3600),
            default_period(source),
        ),
    };
    if let (Some(field), Some(value), true) = (&safe, safe_value, is_output)
        && !line.definition().accepts(value)
    {
        let range = if found.is_digital() { "\"on\" or \"off\"".to_owned() } else { format!("{lowest} to {highest}") };
        field.error(format!("{value} is out of range, expected {range}"));
    }
    section.finish();
    (kind.is_some() && source.is_some()).then_some(line)
}

/// One of the five keys that say where a line is.
fn source(section: &Section<'_>) -> Option<(&'static str, LineSource)> {
    let keys = ["gpio", "pcf8574", "mcp3208", "mcp4922", "lm75"];
    let found: Vec<(&'static str, Field<'_>)> =
        keys.into_iter().filter_map(|key| Some((key, section.field(key)?))).collect();
    let (key, field) = match found.as_slice() {
        [] => {
            section.error("gpio", "missing, expected where the line is: gpio, pcf8574, mcp3208, mcp4922 or lm75");
            return None;
        }
        [(key, field)] => (*key, field),
        [(first, _), (_, second), ..] => {
            second.error(format!("the line is already at {first}; it can be at one place only"));
            return None;
        }
    };
    if key == "gpio" {
        return Some((key, LineSource::Gpio(field.integer(0..=511)?)));
    }
    let Some(part) = field.as_section() else {
        field.error("expected a table such as { address = 0x38, pin = 0 } or { channel = 0 }");
        return None;
    };
    let source = match key {
        "pcf8574" => {
            let address = address(&part, &[0x20..=0x27, 0x38..=0x3f], None);
            let pin = needed(&part, "pin", 0..=7);
            let reversed = part.boolean("reversed", false);
            address.zip(pin).map(|(address, pin)| {
                let bit = if reversed { 7 - pin } else { pin };
                LineSource::Pcf8574 { address, bit }
            })
        }
        "lm75" => address(&part, &[0x48..=0x4f], Some(0x48)).map(|address| LineSource::Lm75 { address }),
        "mcp3208" => {
            let enable = part.integer("enable", 0..=1, 0);
            needed(&part, "channel", 0..=7).map(|channel: u8| {
                let usual = match channel {
                    6 => Measure::Pt100,
                    7 => Measure::Current,
                    _ => Measure::Voltage,
                };
                LineSource::Mcp3208 { enable, channel, measures: part.word("measures", &MEASURES, usual) }
            })
        }
        _ => {
            let enable = part.integer("enable", 0..=1, 1);
            needed(&part, "channel", 0..=1).map(|channel| LineSource::Mcp4922 { enable, channel })
        }
    };
    part.finish();
    Some((key, source?))
}

fn needed(section: &Section<'_>, key: &'static str, range: std::ops::RangeInclusive<i64>) -> Option<u8> {
    let Some(field) = section.field(key) else {
        section.error(key, format!("missing, expected {} to {}", range.start(), range.end()));
        return None;
    };
    field.integer(range)
}

fn address(section: &Section<'_>, ranges: &[std::ops::RangeInclusive<u8>], default: Option<u8>) -> Option<u8> {
    let words =
        || ranges.iter().map(|r| format!("{:#04x} to {:#04x}", r.start(), r.end())).collect::<Vec<_>>().join(" or ");
    let Some(field) = section.field("address") else {
        if default.is_none() {
            section.error("address", format!("missing, expected {}", words()));
        }
        return default;
    };
    let address: u8 = field.integer(0..=127)?;
    if !ranges.iter().any(|range| range.contains(&address)) {
        field.error(format!("{address:#04x} is no address of such a chip, expected {}", words()));
        return None;
    }
    Some(address)
}

fn owner(field: &Field<'_>) -> Option<String> {
    let name = field.line(47)?;
    if let Some(fault) = name_fault(&name) {
        field.error(fault);
        return None;
    }
    Some(name)
}

fn fits(source: LineSource, kind: LineKind) -> bool {
    match source {
        LineSource::Gpio(_) | LineSource::Pcf8574 { .. } => kind.is_digital(),
        LineSource::Mcp3208 { .. } | LineSource::Lm75 { .. } => kind == LineKind::AnalogueInput,
        LineSource::Mcp4922 { .. } => kind == LineKind::AnalogueOutput,
    }
}

fn default_unit(source: Option<(&'static str, LineSource)>) -> &'static str {
    match source.map(|(_, source)| source) {
        Some(LineSource::Mcp3208 { measures: Measure::Voltage, .. } | LineSource::Mcp4922 { .. }) => "V",
        Some(LineSource::Mcp3208 { measures: Measure::Pt100, .. } | LineSource::Lm75 { .. }) => "°C",
        Some(LineSource::Mcp3208 { measures: Measure::Current, .. }) => "A",
        _ => "",
    }
}

fn default_period(source: Option<(&'static str, LineSource)>) -> Duration {
    Duration::from_millis(match source.map(|(_, source)| source) {
        Some(LineSource::Lm75 { .. }) => 1000,
        Some(LineSource::Mcp3208 { .. }) => 100,
        _ => 10,
    })
}

/// What only both together can tell: owners that do not exist, outputs that two children use or nobody forces.
fn compare(hardware: &HardwareConfig, children: &[ChildConfig], positions: &Positions) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let mut report = |severity, key: String, message: String, near: Option<&str>| {
        let mut finding = positions.finding(severity, None, &key, message);
        finding.nearest = near.map(str::to_owned);
        findings.push(finding);
    };
    let names: Vec<String> = children.iter().flat_map(ChildConfig::instance_names).collect();
    for line in &hardware.lines {
        let Some(owner) = &line.owner else { continue };
        let key = format!("lines.{}.owner", line.name);
        let Some(child) = children.iter().find(|child| child.instance_names().any(|name| name == *owner)) else {
            let near = nearest(owner, names.iter().map(String::as_str));
            report(Severity::Error, key, format!("no child instance {} is configured", quote(owner)), near);
            continue;
        };
        if let Some(value) = child.safe_state.outputs.get(&line.name).filter(|value| value.0 != line.safe) {
            let message = format!(
                "safe_state.outputs of {} says {}: while multus-io itself is down, the output has safe = {}",
                quote(owner),
                value.0,
                line.safe
            );
            report(Severity::Warning, format!("lines.{}.safe", line.name), message, None);
        }
    }
    for child in children {
        if child.instance_names().any(|name| name == OPERATOR) {
            let message = format!("{} stands for people, so no child may have this name", quote(OPERATOR));
            report(Severity::Error, "lines".into(), message, None);
        }
        for (name, value) in &child.safe_state.outputs {
            let place = format!("safe_state.outputs.{name} of the child {}", quote(&child.name));
            let Some(line) = hardware.lines.iter().find(|line| line.name == *name) else {
                let near = nearest(name, hardware.lines.iter().map(|line| line.name.as_str()));
                report(Severity::Error, "lines".into(), format!("{place}: there is no line {}", quote(name)), near);
                continue;
            };
            let key = format!("lines.{name}");
            if !line.definition().accepts(value.0) {
                let what = if line.kind.is_output() { "cannot have this value" } else { "is an input" };
                report(Severity::Error, key, format!("{place}: the line {what}"), None);
            } else if let Some(owner) = &line.owner
                && !child.instance_names().any(|name| name == *owner)
            {
                let message = format!("two owners: {} here, and {place}", quote(owner));
                report(Severity::Error, format!("{key}.owner"), message, None);
            }
        }
    }
    findings
}

const BIASES: [(&str, Bias); 4] =
    [("as-is", Bias::AsIs), ("none", Bias::None), ("pull-up", Bias::PullUp), ("pull-down", Bias::PullDown)];
const MEASURES: [(&str, Measure); 4] =
    [("voltage", Measure::Voltage), ("pt100", Measure::Pt100), ("current", Measure::Current), ("raw", Measure::Raw)];
/// As much as an entry of the image and of the force page holds.
const LONGEST_LINE_NAME: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Defaults, parse_child};

    #[test]
    fn what_was_taken_over_is_kept_until_there_is_something_else() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        assert_eq!(kept(dir), None);
        keep(dir, None).unwrap();
        let text = "[lines.DO1]\nkind = \"digital-output\"\ngpio = 4\nsafe = \"on\"\n";
        keep(dir, Some(text)).unwrap();
        assert_eq!(kept(dir), Some(parse(text, Path::new("h.toml")).0));
        // What cannot be replaced is worse than nothing.
        assert!(keep(&dir.join("no/such/dir"), Some(text)).is_err());
        fs::remove_file(dir.join(KEPT_FILE)).unwrap();
        fs::create_dir(dir.join(KEPT_FILE)).unwrap();
        assert!(keep(dir, Some(text)).is_err());
        fs::remove_dir(dir.join(KEPT_FILE)).unwrap();
        keep(dir, Some(text)).unwrap();
        keep(dir, None).unwrap();
        assert!(kept(dir).is_none() && !dir.join(KEPT_FILE).exists());
    }

    fn findings(text: &str) -> Vec<String> {
        parse(text, Path::new("h.toml")).1.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_example_is_the_board_of_the_original_multusd() {
        let text = include_str!("../../../../docs/example-hardware.toml");
        let (config, found) = parse(text, Path::new("h.toml"));
        assert!(found.is_empty(), "{found:?}");
        let gpio = |prefix: &str| -> Vec<u32> {
            let native = config.lines.iter().filter(|line| line.name.starts_with(prefix));
            native.filter_map(|l| if let LineSource::Gpio(n) = l.source { Some(n) } else { None }).collect()
        };
        assert_eq!(gpio("DI"), [4, 17, 27, 18, 22, 23, 5, 6]);
        assert_eq!(gpio("DO"), [25, 24, 13, 19, 26, 16, 20, 21]);
        for line in &config.lines {
            if matches!(line.source, LineSource::Gpio(_)) {
                assert!(line.active_low, "1 is low, at inputs and outputs");
                assert_eq!(line.bias, if line.kind.is_output() { Bias::AsIs } else { Bias::PullUp });
            }
        }
        assert_eq!(config.board, BoardChoice::Auto);
    }

    #[test]
    fn every_mistake_is_told_with_line_key_and_what_was_expected() {
        let text = r#"boad = "sim"
chip = "gpiochip0"
[lines.DI1]
kind = "digital-input"
gpio = 4
safe = "on"
[lines.DO1]
kind = "digital-output"
gpio = 4
[lines.DO2]
kind = "digital-outputt"
gpio = 5
[lines.AO1]
kind = "analogue-output"
mcp4922 = { channel = 0 }
safe = 11
debounce = "5ms"
[lines.T1]
kind = "digital-input"
lm75 = { address = 0x38 }
[lines.T2]
kind = "analogue-input"
lm75 = {}
gpio = 7
[lines.X]
kind = "digital-output"
safe = "off"
pcf8574 = { address = 0x38, pn = 3 }
owner = "a b"
[lines.AI]
kind = "analogue-input"
mcp3208 = { channel = 0, enable = 1 }
debonce = "5ms"
"#;
        let found = findings(text);
        for expected in [
            "h.toml:1: boad: unknown key; did you mean \"board\"?",
            "h.toml:2: chip: numbers of chips change with the kernel",
            "h.toml:6: lines.DI1.safe: only an output can have this",
            "h.toml:7: lines.DO1.safe: missing",
            "h.toml:7: lines.DO1: gpio 4 is that of the line \"DI1\", too",
            "h.toml:11: lines.DO2.kind: unknown word \"digital-outputt\"",
            "h.toml:16: lines.AO1.safe: 11 is out of range, expected 0 to 10",
            "h.toml:17: lines.AO1.debounce: only a digital input can have this",
            "h.toml:20: lines.T1.lm75.address: 0x38 is no address of such a chip, expected 0x48 to 0x4f",
            "h.toml:23: lines.T2.lm75: the line is already at gpio",
            "h.toml:28: lines.X.pcf8574.pin: missing, expected 0 to 7",
            "h.toml:28: lines.X.pcf8574.pn: unknown key; did you mean \"pin\"?",
            "h.toml:29: lines.X.owner: the name \"a b\" contains",
            "h.toml:30: lines.AI: an MCP3208 at chip enable 1, where the line \"AO1\" has an MCP4922",
            "h.toml:33: lines.AI.debonce: unknown key; did you mean \"debounce\"?",
        ] {
            assert!(found.iter().any(|f| f.starts_with(expected)), "{expected}\n{found:#?}");
        }
        assert_eq!(
            findings("[lines.A]\nkind = \"digital-input\"\ngpio = 4\n[lines.A]\n").len(),
            1,
            "the same line twice"
        );
    }

    #[test]
    fn the_channels_of_the_converters_have_their_usual_meaning() {
        let text = "lines.A = { kind = \"analogue-input\", mcp3208 = { channel = 6 } }\n\
                    lines.B = { kind = \"analogue-output\", mcp4922 = { channel = 1 }, safe = 50, scale = 10, unit = \"%\" }\n\
                    lines.C = { kind = \"digital-output\", pcf8574 = { address = 0x38, pin = 0, reversed = true }, safe = \"on\" }\n";
        let (config, found) = parse(text, Path::new("h.toml"));
        assert!(found.is_empty(), "{found:?}");
        let [a, b, c] = config.lines.as_slice() else { panic!("{config:?}") };
        assert_eq!(a.source, LineSource::Mcp3208 { enable: 0, channel: 6, measures: Measure::Pt100 });
        assert_eq!((a.unit.as_str(), a.period), ("°C", Duration::from_millis(100)));
        assert_eq!((b.lowest, b.highest, b.safe), (0.0, 100.0, 50.0));
        assert_eq!((c.source, c.safe), (LineSource::Pcf8574 { address: 0x38, bit: 7 }, 1.0));
    }

    #[test]
    fn owners_and_forced_outputs_must_fit_the_children() {
        let child = |name: &str, outputs: &str| {
            let text = format!("command = [\"/bin/true\"]\n[safe_state]\noutputs = {outputs}\n");
            parse_child(name, &text, Path::new("c.toml"), &Defaults::default()).0.expect("a good child")
        };
        let children =
            [child("modbus", "{ DO1 = \"off\", DI1 = \"off\" }"), child("led", "{ DO2 = \"on\", DO9 = \"off\" }")];
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let text = "[lines]\nDI1 = { kind = \"digital-input\", gpio = 1 }\n\
                    DO1 = { kind = \"digital-output\", gpio = 2, safe = \"off\", owner = \"modbus\" }\n\
                    DO2 = { kind = \"digital-output\", gpio = 3, safe = \"off\", owner = \"modbus\" }\n\
                    DO3 = { kind = \"digital-output\", gpio = 4, safe = \"off\", owner = \"modbsu\" }\n";
        std::fs::write(dir.path().join(HARDWARE_FILE), text).expect("own file");
        let loaded = load(dir.path(), Some(&children));
        let found: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
        for expected in [
            "hardware.toml:1: lines: safe_state.outputs.DO9 of the child \"led\": there is no line \"DO9\"",
            "hardware.toml:2: lines.DI1: safe_state.outputs.DI1 of the child \"modbus\": the line is an input",
            "hardware.toml:4: lines.DO2.owner: two owners: \"modbus\" here, and safe_state.outputs.DO2 of the child \"led\"",
            "hardware.toml:5: lines.DO3.owner: no child instance \"modbsu\" is configured; did you mean \"modbus\"?",
        ] {
            assert!(found.iter().any(|f| f.starts_with(expected)), "{expected}\n{found:#?}");
        }
        assert_eq!((found.len(), loaded.config.is_some()), (4, true), "{found:#?}");
        let alone = load(dir.path(), None);
        let config = alone.config.expect("good by itself");
        assert_eq!(config.owners().collect::<Vec<_>>(), ["modbus", "modbsu"]);
        let (people, _) =
            parse("[lines]\nDO1 = { kind = \"digital-output\", gpio = 2, safe = \"off\" }\n", Path::new("h.toml"));
        assert_eq!(people.owners().collect::<Vec<_>>(), [OPERATOR]);
        assert!(load(&dir.path().join("none"), None).is_missing);
    }
}
