//! A watchdog chip on two native lines, such as a TPS3851: enabled by a high level, petted by pulses.

use std::io;

use multus_contract::config::hardware::HardwareConfig;
use multus_contract::dirs::Dirs;
use multus_hardware::Extent;
use multus_hardware::gpio::{Gpio, OutputPin, Pins};

use super::dog::{Backend, Opened};

/// Places in [`Pins::outputs`].
const ENABLE: usize = 0;
const PULSE: usize = 1;

struct Chip {
    gpio: Box<dyn Gpio>,
    is_enabled: bool,
}

/// Takes the two lines, both low: the chip is off until it is first petted.
pub(super) fn open(config: &HardwareConfig, dirs: &Dirs, enable: u32, pulse: u32) -> Result<Opened, String> {
    let low = |number| OutputPin { line: 0, number, is_high: false };
    let pins = Pins { inputs: Vec::new(), outputs: vec![low(enable), low(pulse)] };
    let board = multus_hardware::open(config, dirs, &pins, None, Extent::All).map_err(|error| error.message)?;
    let note = board.is_simulated.then(|| "SIMULATED: no chip is petted, nothing resets this machine".to_owned());
    Ok(Opened {
        backend: Box::new(Chip { gpio: board.gpio, is_enabled: false }),
        identity: Some(board.name),
        timeout: None,
        boot_status: None,
        note,
    })
}

impl Backend for Chip {
    fn pet(&mut self) -> io::Result<()> {
        if !self.is_enabled {
            self.gpio.write(ENABLE, true)?;
            self.is_enabled = true;
        }
        self.gpio.write(PULSE, true)
    }

    fn lower(&mut self) -> io::Result<()> {
        self.gpio.write(PULSE, false)
    }

    fn disarm(&mut self) -> Result<(), String> {
        // Off first: whatever becomes of the pulse then does not matter.
        let off = self.gpio.write(ENABLE, false).and_then(|()| self.gpio.write(PULSE, false));
        off.map_err(|error| format!("cannot be switched off: {error}; it may reset the machine"))
    }
}

#[cfg(test)]
mod tests {
    use multus_contract::config::hardware::BoardChoice;
    use multus_contract::dirs::DirFlags;
    use multus_hardware::sim::{Panel, file_of};

    use super::*;

    #[test]
    fn the_lines_are_low_high_and_low_again() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let place = |name: &str| Some(temp.path().join(name));
        let flags =
            DirFlags { config: place("etc"), runtime: Some(temp.path().into()), logs: place("l"), state: place("s") };
        let dirs = Dirs::resolve(&flags);
        let config = HardwareConfig { board: BoardChoice::Sim, ..HardwareConfig::default() };
        let mut opened = open(&config, &dirs, 5, 6).expect("a simulated board");
        assert!(opened.note.is_some_and(|note| note.contains("SIMULATED")));
        let panel = Panel::open(&file_of(&dirs)).expect("it is there");
        let levels = || [5, 6].map(|n| panel.output(n).expect("readable").expect("was set").0);
        assert_eq!(levels(), [false, false], "off until it is petted");
        opened.backend.pet().expect("works");
        assert_eq!(levels(), [true, true]);
        opened.backend.lower().expect("works");
        assert_eq!(levels(), [true, false]);
        opened.backend.pet().expect("works");
        opened.backend.disarm().expect("works");
        assert_eq!(levels(), [false, false]);
    }
}
