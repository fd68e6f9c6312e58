//! Native lines through the registers of a Raspberry Pi. Quickest, and levels stay when the process ends; but nothing keeps
//! other programs from writing the same lines.

use std::io;

use multus_contract::config::hardware::Bias;
use rppal::gpio::{IoPin, Level, Mode, OutputPin};
use rppal::system::DeviceInfo;

use crate::OpenError;
use crate::gpio::{Gpio, Pins};

struct Lines {
    inputs: Vec<IoPin>,
    outputs: Vec<OutputPin>,
}

pub(crate) fn is_known_pi() -> bool {
    DeviceInfo::new().is_ok()
}

pub(crate) fn open(pins: &Pins) -> Result<(Box<dyn Gpio>, String), OpenError> {
    let failed = |error: rppal::gpio::Error| OpenError::new(format!("the GPIO of this Raspberry Pi: {error}"));
    let gpio = rppal::gpio::Gpio::new().map_err(failed)?;
    let pin = |number: u32| {
        let number = u8::try_from(number)
            .map_err(|_| OpenError::new(format!("gpio {number}: a Raspberry Pi has no such pin")))?;
        gpio.get(number).map_err(|error| OpenError::new(format!("gpio {number}: {error}")))
    };
    let mut lines = Lines { inputs: Vec::new(), outputs: Vec::new() };
    for output in &pins.outputs {
        let pin = pin(output.number)?;
        // The level is set before the pin becomes an output.
        let mut pin = if output.is_high { pin.into_output_high() } else { pin.into_output_low() };
        // An input is not safe: the output keeps its level when this process ends.
        pin.set_reset_on_drop(false);
        lines.outputs.push(pin);
    }
    for input in &pins.inputs {
        // An `InputPin` would always set a bias.
        let mut pin = pin(input.number)?.into_io(Mode::Input);
        pin.set_reset_on_drop(false);
        match input.bias {
            Bias::AsIs => {}
            Bias::None => pin.set_bias(rppal::gpio::Bias::Off),
            Bias::PullUp => pin.set_bias(rppal::gpio::Bias::PullUp),
            Bias::PullDown => pin.set_bias(rppal::gpio::Bias::PullDown),
        }
        lines.inputs.push(pin);
    }
    let model = DeviceInfo::new().map_or_else(|_| "Raspberry Pi".to_owned(), |info| info.model().to_string());
    Ok((Box::new(lines), model))
}

impl Gpio for Lines {
    fn read(&mut self) -> io::Result<u64> {
        let bit = |(i, pin): (usize, &IoPin)| u64::from(pin.read() == Level::High) << i;
        Ok(self.inputs.iter().enumerate().map(bit).fold(0, |levels, bit| levels | bit))
    }

    fn write(&mut self, output: usize, is_high: bool) -> io::Result<()> {
        let pin = self.outputs.get_mut(output).ok_or(io::ErrorKind::InvalidInput)?;
        pin.write(if is_high { Level::High } else { Level::Low });
        Ok(())
    }

    fn is_exclusive(&self) -> bool {
        false
    }
}
