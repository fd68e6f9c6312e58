//! Native lines through the GPIO character device of the kernel. A line belongs to whoever requested it: nobody else can
//! write it meanwhile. When the last process that has the request ends, the kernel lets go of the lines; what their levels are
//! then is up to the driver. So multusd requests the outputs and keeps them, and multus-io gets the same request.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;

use gpiocdev::chip::Chip;
use gpiocdev::line::{Offset, Value, Values};
use gpiocdev::request::Request;
use gpiocdev_uapi::v2::{LineValues, set_line_values};
use multus_contract::config::hardware::Bias;

use crate::OpenError;
use crate::gpio::{Gpio, Pins, SharedOutputs};

/// What other programs see as the user of the lines.
const CONSUMER: &str = "multus-io";

struct Lines {
    inputs: Option<Request>,
    values: Values,
    read: Vec<Offset>,
    outputs: Outputs,
}

enum Outputs {
    None,
    /// The number of each output of the pins.
    Own(Request, Vec<Offset>),
    /// Where each output of the pins is in the request.
    Shared(File, Vec<u8>),
}

/// The chip with this label.
pub(crate) fn find(label: &str) -> Option<PathBuf> {
    let has_label =
        |path: &PathBuf| Chip::from_path(path).and_then(|chip| chip.info()).is_ok_and(|info| info.label == label);
    gpiocdev::chip::chips().ok()?.into_iter().find(has_label)
}

pub(crate) fn open(
    label: &str,
    pins: &Pins,
    shared: Option<SharedOutputs>,
) -> Result<(Box<dyn Gpio>, String), OpenError> {
    let Some(path) = find(label) else {
        return Err(OpenError::new(format!(
            "there is no GPIO chip \"{label}\"; `gpiodetect` shows the labels of those there are"
        )));
    };
    let failed = |error: gpiocdev::Error| refused(&path, pins, &error);
    let mut inputs = Request::builder();
    inputs.on_chip(&path).with_consumer(CONSUMER);
    for pin in &pins.inputs {
        inputs.with_line(pin.number).as_input().with_debounce_period(pin.debounce).with_bias(match pin.bias {
            Bias::AsIs => None,
            Bias::None => Some(gpiocdev::line::Bias::Disabled),
            Bias::PullUp => Some(gpiocdev::line::Bias::PullUp),
            Bias::PullDown => Some(gpiocdev::line::Bias::PullDown),
        });
    }
    // Outputs first: the safe levels do not wait for the rest.
    let outputs = match shared.and_then(|shared| take_over(shared, pins).transpose()) {
        _ if pins.outputs.is_empty() => Outputs::None,
        Some(outputs) => outputs?,
        None => {
            let mut outputs = Request::builder();
            outputs.on_chip(&path).with_consumer(CONSUMER);
            for pin in &pins.outputs {
                outputs.with_line(pin.number).as_output(value(pin.is_high));
            }
            let numbers = pins.outputs.iter().map(|pin| pin.number).collect();
            Outputs::Own(outputs.request().map_err(failed)?, numbers)
        }
    };
    let read: Vec<Offset> = pins.inputs.iter().map(|pin| pin.number).collect();
    let lines = Lines {
        outputs,
        inputs: (!read.is_empty()).then(|| inputs.request()).transpose().map_err(failed)?,
        values: Values::from_offsets(&read),
        read,
    };
    Ok((Box::new(lines), format!("gpiochip {label} ({})", path.display())))
}

/// Outputs that another process has requested; `None` for a descriptor that is no such request (multusd has none to give).
fn take_over(shared: SharedOutputs, pins: &Pins) -> Result<Option<Outputs>, OpenError> {
    let file = File::from(shared.fd);
    // In place of a request that it does not have, multusd gives /dev/null.
    if file.metadata().map_or(true, |what| what.file_type().is_char_device()) {
        return Ok(None);
    }
    if !shared.numbers.iter().eq(pins.outputs.iter().map(|pin| &pin.number)) {
        return Err(OpenError::new(
            "hardware.toml has other outputs than when multusd read it; let it read the file again (multusctl reload)",
        ));
    }
    let places = places(&shared.numbers);
    for (place, pin) in places.iter().zip(&pins.outputs) {
        // What is broken shows when it is used.
        let _ = set(&file, *place, pin.is_high);
    }
    Ok(Some(Outputs::Shared(file, places)))
}

/// Where each of these lines is in a request for all of them: requests are made with their lines in rising order, whatever the
/// order in which they were named (gpiocdev `request::Builder`).
fn places(numbers: &[u32]) -> Vec<u8> {
    let place = |number: &u32| numbers.iter().filter(|other| *other < number).count();
    // At most 64.
    numbers.iter().map(|number| u8::try_from(place(number)).unwrap_or(u8::MAX)).collect()
}

/// Line `place` of a request.
fn set(file: &File, place: u8, is_high: bool) -> io::Result<()> {
    let mask = 1_u64.checked_shl(place.into()).ok_or(io::ErrorKind::InvalidInput)?;
    let values = LineValues { bits: if is_high { mask } else { 0 }, mask };
    set_line_values(file, &values).map_err(|_| io::Error::last_os_error())
}

fn value(is_high: bool) -> Value {
    if is_high { Value::Active } else { Value::Inactive }
}

/// Why the lines cannot be had: who has them, as far as the kernel tells.
fn refused(path: &PathBuf, pins: &Pins, error: &gpiocdev::Error) -> OpenError {
    let numbers = pins.outputs.iter().map(|pin| pin.number).chain(pins.inputs.iter().map(|pin| pin.number));
    let chip = Chip::from_path(path);
    let taken = |number: u32| {
        let info = chip.as_ref().ok()?.line_info(number).ok()?;
        // Our own request for the outputs may be there already.
        (info.used && info.consumer != CONSUMER).then(|| match info.consumer.as_str() {
            "" => format!("line {number} is taken by somebody who gives no name"),
            consumer => format!("line {number} is taken by \"{consumer}\""),
        })
    };
    let taken: Vec<String> = numbers.filter_map(taken).collect();
    if taken.is_empty() {
        // Another multus-io is busy, too.
        let is_busy = error.to_string().contains("busy") || format!("{error:?}").contains("Errno(16)");
        return OpenError { message: format!("{}: {error}; may this user open it?", path.display()), is_busy };
    }
    OpenError {
        message: format!("{}: {}; end that program, or change hardware.toml", path.display(), taken.join(", ")),
        is_busy: true,
    }
}

impl Gpio for Lines {
    fn read(&mut self) -> io::Result<u64> {
        let Some(inputs) = &self.inputs else { return Ok(0) };
        inputs.values(&mut self.values).map_err(|_| io::Error::last_os_error())?;
        let bit = |(i, offset): (usize, &Offset)| u64::from(self.values.get(*offset) == Some(Value::Active)) << i;
        Ok(self.read.iter().enumerate().map(bit).fold(0, |levels, bit| levels | bit))
    }

    fn write(&mut self, output: usize, is_high: bool) -> io::Result<()> {
        match &self.outputs {
            Outputs::Own(request, numbers) => {
                let number = numbers.get(output).ok_or(io::ErrorKind::InvalidInput)?;
                request.set_value(*number, value(is_high)).map_err(|_| io::Error::last_os_error())
            }
            Outputs::Shared(file, places) => {
                set(file, *places.get(output).ok_or(io::ErrorKind::InvalidInput)?, is_high)
            }
            Outputs::None => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn share_outputs(&self) -> Option<OwnedFd> {
        match &self.outputs {
            Outputs::Own(request, _) => request.as_fd().try_clone_to_owned().ok(),
            Outputs::Shared(..) | Outputs::None => None,
        }
    }

    fn debounces(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_request_lie_in_rising_order_whatever_order_they_were_named_in() {
        assert_eq!(places(&[25, 24, 13, 19]), [3, 2, 0, 1]);
        assert_eq!(places(&[]), [0_u8; 0]);
        let all: Vec<u32> = (0..64).rev().collect();
        assert_eq!(places(&all)[0], 63);
    }
}
