//! Native lines: digital inputs and outputs of the board itself.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use multus_contract::config::hardware::{Bias, HardwareConfig, LineSource};

/// The native lines of a board, open. A level is that of the wire: what it means is not known here.
pub trait Gpio: Send {
    /// The levels of all inputs: bit i is that of [`Pins::inputs`] i, set for high.
    ///
    /// # Errors
    /// None of them could be read.
    ///
    /// # Real time
    /// Allocates nothing as long as no input is missing; at most one system call for each input.
    fn read(&mut self) -> io::Result<u64>;

    /// The inputs that are not open since somebody else has them, as bits like those of [`Self::read`], which tries them again
    /// once a second.
    fn missing_inputs(&self) -> u64 {
        0
    }

    /// Sets the level of [`Pins::outputs`] `output`.
    ///
    /// # Errors
    /// The level may be what it was. One that is not open since somebody else has it is tried to be opened.
    ///
    /// # Real time
    /// Allocates nothing as long as the output is not missing; at most one system call.
    fn write(&mut self, output: usize, is_high: bool) -> io::Result<()>;

    /// The open outputs, to be given to another process: as long as one of both has them, nobody else does, and they keep
    /// their levels. `None` where any process may write them anyway.
    fn share_outputs(&self) -> Option<OwnedFd> {
        None
    }

    /// Why an output is not open, in words, where the system tells: who has it.
    fn why_missing(&self, _output: usize) -> Option<String> {
        None
    }

    /// Whether a line belongs to the one process that has opened it.
    fn is_exclusive(&self) -> bool {
        true
    }

    /// Whether [`InputPin::debounce`] is done by the board.
    fn debounces(&self) -> bool {
        false
    }
}

/// The native lines of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// At most 64.
    pub inputs: Vec<InputPin>,
    /// At most 64.
    pub outputs: Vec<OutputPin>,
}

/// One native input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputPin {
    /// Index in [`HardwareConfig::lines`].
    pub line: usize,
    /// BCM number, or offset on the chip.
    pub number: u32,
    /// What it reads when nothing drives it.
    pub bias: Bias,
    /// How long a level must stay.
    pub debounce: Duration,
}

/// One native output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPin {
    /// Index in [`HardwareConfig::lines`].
    pub line: usize,
    /// BCM number, or offset on the chip.
    pub number: u32,
    /// Its level from the moment on in which it is opened: the safe one.
    pub is_high: bool,
}

impl Pins {
    /// Those of a configuration. All outputs begin with their safe values.
    pub fn of(config: &HardwareConfig) -> Self {
        let mut pins = Self::default();
        for (line, config) in config.lines.iter().enumerate() {
            let LineSource::Gpio(number) = config.source else { continue };
            if config.kind.is_output() {
                let is_high = level(config.safe, config.active_low);
                pins.outputs.push(OutputPin { line, number, is_high });
            } else {
                pins.inputs.push(InputPin { line, number, bias: config.bias, debounce: config.debounce });
            }
        }
        pins
    }
}

/// Outputs that another process has opened.
#[derive(Debug)]
pub struct SharedOutputs {
    /// What [`Gpio::share_outputs`] gave.
    pub fd: OwnedFd,
    /// The numbers of the lines, in the order of [`Pins::outputs`] of whoever opened them.
    pub numbers: Vec<u32>,
}

impl SharedOutputs {
    /// The numbers of the outputs of a configuration, as [`Self::numbers_of`] reads them.
    pub fn text_of(pins: &Pins) -> String {
        pins.outputs.iter().map(|pin| pin.number.to_string()).collect::<Vec<_>>().join(",")
    }

    /// The inverse; `None` for a text that is none.
    pub fn numbers_of(text: &str) -> Option<Vec<u32>> {
        text.split(',').filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
    }
}

/// Whether a digital value is the high level.
pub fn level(value: f64, active_low: bool) -> bool {
    (value != 0.0) != active_low
}

/// The digital value of a level.
pub fn value(is_high: bool, active_low: bool) -> f64 {
    if is_high == active_low { 0.0 } else { 1.0 }
}
