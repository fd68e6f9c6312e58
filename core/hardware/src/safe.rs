//! The safe state, with nothing else needed: no other process, no page, no thread. For a guard that acts when multus-io is
//! gone or does not answer.

use std::fmt;
use std::time::{Duration, Instant};

use multus_contract::config::hardware::HardwareConfig;
use multus_contract::dirs::Dirs;

use crate::Board;
use crate::chip::{Chip, chips};
use crate::gpio::Pins;

/// What [`apply`] has done. **Keep it** while the safe state is to last: when it is dropped, the kernel lets go of lines that were
/// opened through the character device, and their levels are up to the driver. And drop it before multus-io is to have the
/// lines again. (Registers of a Raspberry Pi and chips on buses keep what was written.)
#[derive(Debug)]
pub struct Applied {
    board: Option<Board>,
    /// What could not be brought to its safe value, a sentence each; empty: all is safe.
    pub failed: Vec<String>,
}

impl Applied {
    /// Whether every output has its safe value.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }

    /// What the values were written to.
    pub fn board(&self) -> Option<&str> {
        self.board.as_ref().map(|board| board.name.as_str())
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.board, self.is_complete()) {
            (Some(board), true) => write!(f, "all outputs have their safe values ({})", board.name),
            _ => write!(f, "not all outputs have their safe values: {}", self.failed.join("; ")),
        }
    }
}

/// Writes the safe value of every output. What fails is tried again until `patience` is over: lines may be busy until the
/// process that had them is quite gone. Each chip and the native lines are tried for themselves, so that one does not keep the
/// others from being safe.
pub fn apply(config: &HardwareConfig, dirs: &Dirs, patience: Duration) -> Applied {
    let end = Instant::now() + patience;
    // Inputs are none of our business here, and one that is taken must not be in the way.
    let pins = Pins { inputs: Vec::new(), ..Pins::of(config) };
    let mut board = None;
    let (i2c, spi) = chips(config);
    let mut left: [Vec<Chip>; 2] = [i2c, spi].map(|chips| chips.into_iter().filter(Chip::has_outputs).collect());
    let mut buses = None;
    loop {
        let mut failed = Vec::new();
        if board.is_none() {
            match crate::open(config, dirs, &pins) {
                Ok(opened) => board = Some(opened),
                Err(error) => failed.push(error.message),
            }
        }
        if buses.is_none() {
            match crate::buses(config, dirs) {
                Ok((i2c, spi)) => buses = Some([i2c, spi]),
                Err(error) => failed.push(error.to_string()),
            }
        }
        if let Some(board) = &mut board {
            // Written again: opening may have gone well for a line that fails.
            for (output, pin) in pins.outputs.iter().enumerate() {
                if let Err(error) = board.gpio.write(output, pin.is_high) {
                    failed.push(format!("{} (gpio {}): {error}", config.lines[pin.line].name, pin.number));
                }
            }
        }
        for (bus, chips) in buses.iter_mut().flatten().zip(&mut left) {
            chips.retain(|chip| match chip.write(bus, |line| config.lines[line].safe) {
                Ok(()) => false,
                Err(error) => {
                    failed.push(format!("{chip}: {error}"));
                    true
                }
            });
        }
        if failed.is_empty() || Instant::now() >= end {
            return Applied { board, failed };
        }
        std::thread::sleep(PAUSE);
    }
}

/// From try to try.
const PAUSE: Duration = Duration::from_millis(5);

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
        let applied = apply(&config, &dirs, Duration::ZERO);
        assert_eq!(applied.failed.len(), 2, "{applied}");
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
        let applied = apply(&config, &dirs, Duration::from_secs(60));
        assert!(applied.is_complete() && applied.board().is_some(), "{applied}");
        let panel = mender.join().expect("no panic");
        assert_eq!(panel.output(24).expect("own file").map(|o| o.0), Some(true));
        assert_eq!(
            panel.sent(0x38).expect("own file").map(|o| o.0),
            Some(0x7f),
            "pin 0 is bit 7; the others stay inputs"
        );
    }
}
