//! The safe state, with nothing else needed: no other process, no page, no thread. For a guard that acts when multus-io is
//! gone or does not answer.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use multus_contract::config::hardware::HardwareConfig;
use multus_contract::dirs::Dirs;

use crate::chip::{Bus, Chip, chips};
use crate::gpio::Pins;
use crate::{Board, Extent, OpenError};

/// All outputs of a configuration, to be brought to their safe values.
///
/// **Keep it** while the safe state is to last: when it is dropped, the kernel lets go of lines that were opened through the
/// character device, and their levels are up to the driver. (Registers of a Raspberry Pi and chips on buses keep what was
/// written.)
#[derive(Debug)]
pub struct SafeState {
    config: HardwareConfig,
    dirs: Dirs,
    pins: Pins,
    board: Option<Board>,
    buses: Option<[Bus; 2]>,
    /// Since when the native lines cannot be had as a whole.
    refused: Option<Instant>,
    /// Chips that have not got their values yet, of either bus.
    left: [Vec<Chip>; 2],
}

/// So long the native lines are tried as a whole, for a process that had them may be about to be gone; then each for itself.
const GRACE: Duration = Duration::from_millis(20);

impl SafeState {
    /// Gets ready for the outputs of `config`: what can be opened without taking a line from anybody is opened now.
    pub fn prepare(config: HardwareConfig, dirs: &Dirs) -> Self {
        // Inputs are none of our business here, and one that is taken must not be in the way.
        let pins = Pins { inputs: Vec::new(), ..Pins::of(&config) };
        let left = [const { Vec::new() }; 2];
        let mut state = Self { config, dirs: dirs.clone(), pins, board: None, buses: None, refused: None, left };
        state.begin();
        // What is missing shows, and is told, when it is written.
        let _ = state.open_buses();
        state
    }

    /// From now on every output is to be written anew.
    pub fn begin(&mut self) {
        self.refused = None;
        let (i2c, spi) = chips(&self.config);
        self.left = [i2c, spi].map(|chips| chips.into_iter().filter(Chip::has_outputs).collect());
    }

    /// The open native outputs, for multus-io; `None` where it can open them itself, or they are not open.
    pub fn share_outputs(&self) -> Option<OwnedFd> {
        self.board.as_ref()?.gpio.share_outputs()
    }

    /// multus-io is to write from now on; `has_shared`: it has what [`Self::share_outputs`] gave. Else it needs the native lines
    /// for itself, where they belong to one process.
    pub fn let_go(&mut self, has_shared: bool) {
        self.board.take_if(|board| !has_shared && board.gpio.is_exclusive());
        self.left = [const { Vec::new() }; 2];
    }

    /// Tries once to write what has not got its safe value yet; says what could not be written, a sentence each. Each chip
    /// and each native line is tried for itself, so that one does not keep the others from being safe.
    ///
    /// Blocks for as long as the buses do: a bus that hangs may take a second for each chip.
    pub fn write(&mut self) -> Vec<String> {
        let mut failed = self.write_native();
        failed.extend(self.write_buses());
        failed
    }

    /// [`Self::write`] for the native lines alone. Does not block.
    pub fn write_native(&mut self) -> Vec<String> {
        let mut failed = Vec::new();
        if self.board.is_none() && !self.pins.outputs.is_empty() {
            let is_over = self.refused.is_some_and(|since| since.elapsed() >= GRACE);
            let extent = if is_over { Extent::WhatThereIs } else { Extent::All };
            match crate::open(&self.config, &self.dirs, &self.pins, None, extent) {
                Ok(opened) => self.board = Some(opened),
                Err(OpenError { message, .. }) => {
                    self.refused.get_or_insert_with(Instant::now);
                    failed.push(message);
                }
            }
        }
        if let Some(board) = &mut self.board {
            // Written again: opening may have gone well for a line that fails.
            for (output, pin) in self.pins.outputs.iter().enumerate() {
                if let Err(error) = board.gpio.write(output, pin.is_high) {
                    let why = board.gpio.why_missing(output).unwrap_or_else(|| error.to_string());
                    failed.push(format!("{} (gpio {}): {why}", self.config.lines[pin.line].name, pin.number));
                }
            }
        }
        failed
    }

    /// [`Self::write`] for the buses alone: SPI first, for I2C may hang.
    pub fn write_buses(&mut self) -> Vec<String> {
        let mut failed = Vec::new();
        if let Err(error) = self.open_buses() {
            failed.push(error.to_string());
        }
        let buses = self.buses.as_mut().map_or(&mut [][..], |buses| &mut buses[..]);
        for (bus, chips) in buses.iter_mut().zip(&mut self.left).rev() {
            chips.retain(|chip| match chip.write(bus, |line| self.config.lines[line].safe) {
                Ok(()) => false,
                Err(error) => {
                    failed.push(format!("{chip}: {error}"));
                    true
                }
            });
        }
        failed
    }

    /// What the native lines were written to.
    pub fn board(&self) -> Option<&str> {
        self.board.as_ref().map(|board| board.name.as_str())
    }

    fn open_buses(&mut self) -> io::Result<()> {
        if self.buses.is_none() && self.left.iter().any(|chips| !chips.is_empty()) {
            let (i2c, spi) = crate::buses(&self.config, &self.dirs)?;
            self.buses = Some([i2c, spi]);
        }
        Ok(())
    }
}

/// Writes the safe value of every output. What fails is tried again until `patience` is over: lines may be busy until the
/// process that had them is quite gone. Returns what is to be kept, and what could not be written.
pub fn apply(config: &HardwareConfig, dirs: &Dirs, patience: Duration) -> (SafeState, Vec<String>) {
    let end = Instant::now() + patience;
    let mut state = SafeState::prepare(config.clone(), dirs);
    loop {
        let failed = state.write();
        if failed.is_empty() || Instant::now() >= end {
            return (state, failed);
        }
        std::thread::sleep(PAUSE);
    }
}

/// From try to try.
const PAUSE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use multus_contract::config::hardware;
    use multus_contract::dirs::DirFlags;

    use super::*;
    use crate::sim::{self, Fault, Panel};

    #[test]
    fn every_output_gets_its_safe_value_and_what_fails_is_tried_again() {
        let text = "board = \"sim\"\n[lines]\n\
            DO1 = { kind = \"digital-output\", gpio = 25, active_low = true, safe = \"off\" }\n\
            DO2 = { kind = \"digital-output\", gpio = 24, safe = \"on\" }\n\
            DI1 = { kind = \"digital-input\", gpio = 4 }\n\
            XO1 = { kind = \"digital-output\", pcf8574 = { address = 0x38, pin = 0, reversed = true }, safe = \"off\" }\n\
            AO1 = { kind = \"analogue-output\", mcp4922 = { channel = 1 }, scale = 10, safe = 50 }\n";
        let (config, found) = hardware::parse(text, Path::new("h.toml"));
        assert!(found.is_empty(), "{found:?}");
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let dirs = Dirs::resolve(&DirFlags { runtime: Some(temp.path().into()), ..DirFlags::default() });
        let panel = Panel::open(&sim::file_of(&dirs)).expect("own file");

        panel.break_chip(0x38, Fault::NoAcknowledge).expect("own file");
        panel.break_output(24, Fault::Timeout).expect("own file");
        let (_, failed) = apply(&config, &dirs, Duration::ZERO);
        assert_eq!(failed.len(), 2, "{failed:?}");
        assert_eq!(
            panel.output(25).expect("own file").map(|o| o.0),
            Some(true),
            "one does not keep the others from it"
        );
        assert_eq!(panel.converted(1).expect("own file").map(|o| o.0), Some(2048));

        panel.take_lines(true).expect("own file");
        let mender = std::thread::spawn(move || {
            panel.break_output(24, Fault::None).expect("own file");
            panel.break_chip(0x38, Fault::None).expect("own file");
            panel.take_lines(false).expect("own file");
            panel
        });
        let (state, failed) = apply(&config, &dirs, Duration::from_secs(60));
        assert!(failed.is_empty() && state.board().is_some(), "{failed:?}");
        let panel = mender.join().expect("no panic");
        assert_eq!(panel.output(24).expect("own file").map(|o| o.0), Some(true));
        assert_eq!(
            panel.sent(0x38).expect("own file").map(|o| o.0),
            Some(0x7f),
            "pin 0 is bit 7; the others stay inputs"
        );
    }
}
