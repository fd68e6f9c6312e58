//! The inputs and outputs of a box: how native lines, buses and chips are reached, and how all outputs are brought to their
//! safe values with nothing else needed.
//!
//! * [`gpio`]: native lines, behind one small trait: [`rppal`](https://docs.rs/rppal), the kernel's character device, or
//!   simulated.
//! * [`bus`]: I2C and SPI, behind a trait each.
//! * [`chip`]: what the chips on them say, and [`measure`] what that means.
//! * [`sim`]: a board that is a file.
//! * [`safe`]: the safe state.
//!
//! What a box has is told by `hardware.toml`: [`multus_contract::config::hardware`]. `unsafe` lives in [`sys`] alone.
#![warn(missing_docs)]
#![deny(unsafe_code)]

pub mod bus;
pub mod chip;
pub mod gpio;
pub mod measure;
pub mod safe;
pub mod sim;
pub mod sys;

mod gpiochip;
#[cfg(any(feature = "rppal", target_arch = "arm", target_arch = "aarch64"))]
mod registers;

use std::fmt;
use std::io;

use multus_contract::config::hardware::{BoardChoice, HardwareConfig};
use multus_contract::dirs::Dirs;

use chip::Bus;
use gpio::{Gpio, Pins, SharedOutputs};

/// The native lines of a box, open.
pub struct Board {
    /// Its native lines.
    pub gpio: Box<dyn Gpio>,
    /// What it is, in words.
    pub name: String,
    /// Whether there is no hardware.
    pub is_simulated: bool,
    /// What its user should know, a sentence each.
    pub notes: Vec<String>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why the native lines cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError {
    /// What is wrong, and what to do.
    pub message: String,
    /// Whether somebody else has a line now: it may be free later.
    pub is_busy: bool,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for OpenError {}

impl OpenError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_busy: false }
    }
}

/// How much of the native lines there must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Every line, or none.
    All,
    /// Whatever can be had: one that somebody else has, or a chip that is not there, shows when it is used, and is tried again.
    WhatThereIs,
}

/// Opens the native lines; each output gets the level that `pins` says, without another one in between as far as the driver
/// can. Outputs that another process has opened already are taken over from it, where the board knows such a thing.
///
/// # Errors
/// The board that was asked for is not there, or a line cannot be had, if that matters to `extent`. With `auto` a missing
/// board is no error: it is simulated, and [`Board::notes`] say so, unless `chip` names one that is to be there.
pub fn open(
    config: &HardwareConfig,
    dirs: &Dirs,
    pins: &Pins,
    shared: Option<SharedOutputs>,
    extent: Extent,
) -> Result<Board, OpenError> {
    let (gpio, name): (Box<dyn Gpio>, String) = match chosen(config) {
        BoardChoice::Gpiochip => return gpiochip::open(&config.chip, pins, shared, extent),
        BoardChoice::Rppal => registers_of_a_pi(pins)?,
        BoardChoice::Sim | BoardChoice::Auto => {
            let path = sim::file_of(dirs);
            let panel =
                sim::Panel::open(&path).map_err(|error| OpenError::new(format!("{}: {error}", path.display())))?;
            (Box::new(sim::SimGpio::open(panel, pins, extent)?), format!("simulated: {}", path.display()))
        }
    };
    let is_simulated = matches!(chosen(config), BoardChoice::Sim);
    let mut notes = Vec::new();
    if is_simulated && config.board == BoardChoice::Auto {
        notes.push(format!(
            "NO HARDWARE: this is no Raspberry Pi that is known, and there is no GPIO chip \"{}\"; all lines are SIMULATED. \
             Set board and chip in hardware.toml, or board = \"sim\" if that is meant",
            config.chip
        ));
    }
    Ok(Board { gpio, name, is_simulated, notes })
}

/// The I2C and the SPI bus. What is missing shows when they are used.
///
/// # Errors
/// The file of a simulated board cannot be used.
pub fn buses(config: &HardwareConfig, dirs: &Dirs) -> io::Result<(Bus, Bus)> {
    if chosen(config) == BoardChoice::Sim {
        let path = sim::file_of(dirs);
        let (i2c, spi) = (sim::SimI2c(sim::Panel::open(&path)?), sim::SimSpi(sim::Panel::open(&path)?));
        return Ok((Bus::I2c(Box::new(i2c)), Bus::Spi(Box::new(spi))));
    }
    let (i2c, spi) = (bus::I2cDevice::new(config.i2c_bus), bus::SpiDevice::new(config.spi_bus, config.spi_speed_hz));
    Ok((Bus::I2c(Box::new(i2c)), Bus::Spi(Box::new(spi))))
}

/// What is meant, never `Auto`.
fn chosen(config: &HardwareConfig) -> BoardChoice {
    match config.board {
        BoardChoice::Auto if is_known_pi() => BoardChoice::Rppal,
        BoardChoice::Auto if config.chip != HardwareConfig::default().chip => BoardChoice::Gpiochip,
        BoardChoice::Auto if gpiochip::find(&config.chip).is_some() => BoardChoice::Gpiochip,
        BoardChoice::Auto => BoardChoice::Sim,
        choice => choice,
    }
}

#[cfg(any(feature = "rppal", target_arch = "arm", target_arch = "aarch64"))]
fn registers_of_a_pi(pins: &Pins) -> Result<(Box<dyn Gpio>, String), OpenError> {
    registers::open(pins)
}

#[cfg(not(any(feature = "rppal", target_arch = "arm", target_arch = "aarch64")))]
fn registers_of_a_pi(_: &Pins) -> Result<(Box<dyn Gpio>, String), OpenError> {
    Err(OpenError::new("board = \"rppal\": this program was built for machines that are no Raspberry Pi"))
}

#[cfg(any(feature = "rppal", target_arch = "arm", target_arch = "aarch64"))]
fn is_known_pi() -> bool {
    registers::is_known_pi()
}

#[cfg(not(any(feature = "rppal", target_arch = "arm", target_arch = "aarch64")))]
fn is_known_pi() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use gpio::{InputPin, OutputPin};
    use multus_contract::config::hardware::Bias;
    use multus_contract::dirs::DirFlags;

    use super::*;

    #[test]
    fn without_hardware_auto_is_simulated_and_says_so_and_nothing_else_is() {
        if is_known_pi() || gpiochip::find("pinctrl-bcm2835").is_some() {
            return;
        }
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let dirs = Dirs::resolve(&DirFlags { runtime: Some(temp.path().into()), ..DirFlags::default() });
        let mut config = HardwareConfig::default();
        let open = |config: &HardwareConfig| super::open(config, &dirs, &Pins::default(), None, Extent::All);
        let board = open(&config).expect("simulated");
        assert!(board.is_simulated && board.notes[0].contains("SIMULATED"), "{board:?}");
        let named = HardwareConfig { chip: "no such chip".into(), ..HardwareConfig::default() };
        let error = open(&named).expect_err("it was named, so it is to be there");
        assert!(error.message.contains("no such chip"), "{error}");
        for choice in [BoardChoice::Gpiochip, BoardChoice::Rppal] {
            config.board = choice;
            let error = open(&config).expect_err("there is none");
            assert!(!error.is_busy, "{error}");
        }
    }

    #[test]
    fn lines_of_a_chip_that_is_not_there_are_missing_and_may_come_later() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let dirs = Dirs::resolve(&DirFlags { runtime: Some(temp.path().into()), ..DirFlags::default() });
        let config = HardwareConfig { chip: "no such chip".into(), ..HardwareConfig::default() };
        let input = |number| InputPin { line: 0, number, bias: Bias::AsIs, debounce: std::time::Duration::ZERO };
        let pins =
            Pins { inputs: vec![input(4), input(5)], outputs: vec![OutputPin { line: 2, number: 6, is_high: true }] };
        let mut board = super::open(&config, &dirs, &pins, None, Extent::WhatThereIs).expect("whatever there is");
        assert!(board.notes.len() == 1 && board.notes[0].contains("no such chip"), "{board:?}");
        assert_eq!((board.gpio.read().expect("nothing is read"), board.gpio.missing_inputs()), (0, 0b11));
        let error = board.gpio.write(0, true).expect_err("it is not there");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(board.gpio.why_missing(0).is_some_and(|why| why.contains("no such chip")));
    }
}
